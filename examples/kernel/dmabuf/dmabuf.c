// SPDX-License-Identifier: GPL-2.0-only
/*
 * An importer of dma-bufs: a program writes the number of a descriptor to the parameter `fd`, and
 * the module says in how many pieces a device would see the memory, and what text it begins with.
 * A driver would give the scatterlist to its device.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/err.h>
#include <linux/iosys-map.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define dma_buf_map_attachment_unlocked dma_buf_map_attachment
#define dma_buf_unmap_attachment_unlocked dma_buf_unmap_attachment
#define dma_buf_vmap_unlocked dma_buf_vmap
#define dma_buf_vunmap_unlocked dma_buf_vunmap
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS(DMA_BUF);
#else
MODULE_IMPORT_NS("DMA_BUF");
#endif

static struct platform_device *device;

/* Entries that lie one behind the other are one piece, which some exporters leave to others. */
static unsigned int pieces_of(struct sg_table *table)
{
	dma_addr_t end = ~(dma_addr_t)0;
	struct scatterlist *entry;
	unsigned int count = 0;
	int at;

	for_each_sgtable_dma_sg(table, entry, at) {
		count += sg_dma_address(entry) != end;
		end = sg_dma_address(entry) + sg_dma_len(entry);
	}
	return count;
}

static int print_pieces(struct dma_buf *buffer)
{
	struct dma_buf_attachment *attachment = dma_buf_attach(buffer, &device->dev);
	struct sg_table *table;

	if (IS_ERR(attachment))
		return PTR_ERR(attachment);
	table = dma_buf_map_attachment_unlocked(attachment, DMA_BIDIRECTIONAL);
	if (!IS_ERR(table)) {
		pr_info("dmabuf: %zu bytes; pieces for a device: %u\n", buffer->size,
			pieces_of(table));
		dma_buf_unmap_attachment_unlocked(attachment, table, DMA_BIDIRECTIONAL);
	}
	dma_buf_detach(buffer, attachment);
	return PTR_ERR_OR_ZERO(table);
}

static int print_text(struct dma_buf *buffer)
{
	struct iosys_map map;
	int error = dma_buf_vmap_unlocked(buffer, &map);

	if (error)
		return error;
	pr_info("dmabuf: it begins with: %.*s\n", (int)min_t(size_t, buffer->size, 80),
		(char *)map.vaddr);
	dma_buf_vunmap_unlocked(buffer, &map);
	return 0;
}

/* In the context of who writes: it is his descriptor. */
static int import(const char *value, const struct kernel_param *unused)
{
	struct dma_buf *buffer;
	int fd, error = kstrtoint(value, 0, &fd);

	if (error)
		return error;
	if (!device)
		return -EAGAIN;
	buffer = dma_buf_get(fd);
	if (IS_ERR(buffer))
		return PTR_ERR(buffer);
	error = print_pieces(buffer);
	if (!error)
		error = print_text(buffer);
	dma_buf_put(buffer);
	return error;
}

static const struct kernel_param_ops import_ops = { .set = import };

module_param_cb(fd, &import_ops, NULL, 0200);
MODULE_PARM_DESC(fd, "Descriptor of a dma-buf to be imported");

static int __init dmabuf_init(void)
{
	device = platform_device_register_simple("mbuff-importer", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(device))
		return PTR_ERR(device);
	return dma_coerce_mask_and_coherent(&device->dev, DMA_BIT_MASK(64));
}

static void __exit dmabuf_exit(void)
{
	platform_device_unregister(device);
}

module_init(dmabuf_init);
module_exit(dmabuf_exit);
MODULE_DESCRIPTION("mbuff example: a driver that imports an area as a dma-buf");
MODULE_LICENSE("GPL");
