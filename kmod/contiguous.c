// SPDX-License-Identifier: GPL-2.0-only
/*
 * Physically contiguous memory: from the page allocator up to its largest block, above that from
 * CMA, where the kernel has it, by the DMA API and a device of our own.
 *
 * The pages are put into the page cache of the area's shmem inode before anybody can ask for them.
 * So read, write, mapping, pinning and passthrough are shmem's, as for any area. They are in no
 * list of pages that could be reclaimed or moved, because CMA takes back only what is nowhere else,
 * and each has a reference of ours.
 */
#include <linux/dma-mapping.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/pagemap.h>
#include <linux/platform_device.h>
#include <linux/sched/signal.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>
#include <linux/vmstat.h>
#include <linux/workqueue.h>

#include "internal.h"

#define RETRY_TIME (HZ / 20)

struct mbuff_contiguous {
	struct page *first;
	unsigned long count; /* pages */
	dma_addr_t dma;
	bool by_dma; /* of CMA; else of the page allocator */
	u64 charged; /* bytes, once the area has gone and they are still pinned */
	struct delayed_work later;
};

static bool scrub = true;
module_param(scrub, bool, 0644);
MODULE_PARM_DESC(scrub, "Contiguous and reserved memory is zeroed when it is given back");

static struct platform_device *device;
static struct workqueue_struct *queue;

bool contiguous_scrubs(void)
{
	return READ_ONCE(scrub);
}

/* For long: who asks the kernel for that with memory of CMA, asks in vain, and for ever. */
bool contiguous_can_be_pinned(const struct mbuff_area *area)
{
	return area->contiguous && !area->contiguous->by_dma;
}

/* Above the largest block there is only CMA: the DMA API says NULL where there is none. */
static int take(struct mbuff_contiguous *memory)
{
	/* What is not there at once is not made by moving half of the memory. */
	const gfp_t at_once = GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NORETRY | __GFP_NOWARN;
	size_t bytes = memory->count << PAGE_SHIFT;
	unsigned int order = get_order(bytes);
	unsigned long at;

	if (order <= MBUFF_ORDER_MAX) {
		memory->first = alloc_pages(at_once, order);
		if (!memory->first)
			return -ENOMEM;
		split_page(memory->first, order);
		for (at = memory->count; at < 1UL << order; at++)
			__free_page(memory->first + at);
		return 0;
	}
	memory->by_dma = true;
	memory->first = dma_alloc_pages(&device->dev, bytes, &memory->dma, DMA_BIDIRECTIONAL,
					GFP_KERNEL | __GFP_NOWARN);
	return memory->first ? 0 : -ENOMEM;
}

static bool is_ours_alone(struct mbuff_contiguous *memory)
{
	unsigned long at;

	for (at = 0; at < memory->count; at++)
		if (page_count(memory->first + at) != 1)
			return false;
	return true;
}

static void give_back(struct mbuff_contiguous *memory)
{
	unsigned long at;

	for (at = 0; at < memory->count; at++) {
		if (contiguous_scrubs())
			clear_highpage(memory->first + at);
		if (!memory->by_dma)
			put_page(memory->first + at);
		if (at % PAGES_PER_CHECK == 0)
			cond_resched();
	}
	if (memory->by_dma)
		dma_free_pages(&device->dev, memory->count << PAGE_SHIFT, memory->first,
			       memory->dma, DMA_BIDIRECTIONAL);
	areas_uncharge(memory->charged);
	kfree(memory);
}

static void give_back_later(struct work_struct *work)
{
	struct mbuff_contiguous *memory =
		container_of(to_delayed_work(work), struct mbuff_contiguous, later);

	if (is_ours_alone(memory)) {
		give_back(memory);
		module_put(THIS_MODULE);
	} else {
		queue_delayed_work(queue, &memory->later, RETRY_TIME);
	}
}

/*
 * The pages have left the page cache. CMA wants them back as a whole, and what is scrubbed has to
 * be unused, so who still has one pinned is waited for; module and charge stay as long. Inode
 * lock.
 */
void contiguous_release(struct mbuff_area *area)
{
	struct mbuff_contiguous *memory = area->contiguous;

	if (!memory)
		return;
	area->contiguous = NULL;
	WRITE_ONCE(area->physical, 0);
	if (is_ours_alone(memory)) {
		give_back(memory);
		return;
	}
	memory->charged = area->charged;
	area->charged = 0;
	INIT_DELAYED_WORK(&memory->later, give_back_later);
	__module_get(THIS_MODULE);
	queue_delayed_work(queue, &memory->later, RETRY_TIME);
}

/* As filemap_add_folio(), but that charges the page, and makes it one of those to be reclaimed. */
static int insert(struct address_space *mapping, struct page *page, pgoff_t index)
{
	struct folio *folio = page_folio(page);
	int error;

	folio_get(folio);
	folio->mapping = mapping;
	folio->index = index;
	folio_mark_uptodate(folio);
	/* A clean page would be dropped as one that was never written. */
	folio_set_dirty(folio);
	xa_lock_irq(&mapping->i_pages);
	/* EBUSY: a page fault that has seen the size of before put its own there. */
	error = __xa_insert(&mapping->i_pages, index, folio, GFP_KERNEL_ACCOUNT);
	if (!error) {
		mapping->nrpages++;
		__lruvec_stat_mod_folio(folio, NR_FILE_PAGES, 1);
	}
	xa_unlock_irq(&mapping->i_pages);
	if (error) {
		folio->mapping = NULL;
		folio_clear_dirty(folio);
		folio_put(folio);
	}
	return error;
}

/*
 * Gives an area without memory `size` bytes of it, zeroed. Inode lock; the size is set
 * when they are there. After an error the caller truncates what has come into the page cache, and
 * then releases.
 */
int contiguous_fill(struct mbuff_area *area, u64 size)
{
	struct address_space *mapping = area->file->f_mapping;
	struct mbuff_contiguous *memory;
	unsigned long at;
	int error;

	if (size > SIZE_MAX / 2)
		return -ENOMEM;
	memory = kzalloc(sizeof(*memory), GFP_KERNEL_ACCOUNT);
	if (!memory)
		return -ENOMEM;
	memory->count = PAGE_ALIGN(size) >> PAGE_SHIFT;
	error = take(memory);
	if (error) {
		kfree(memory);
		return error;
	}
	area->contiguous = memory;
	WRITE_ONCE(area->physical, page_to_phys(memory->first));
	for (at = 0; at < memory->count; at++) {
		if (memory->by_dma)
			clear_highpage(memory->first + at);
		error = insert(mapping, memory->first + at, at);
		if (error)
			return error;
		if (at % PAGES_PER_CHECK)
			continue;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

int contiguous_init(void)
{
	int error;

	queue = alloc_workqueue("mbuff", WQ_UNBOUND, 0);
	if (!queue)
		return -ENOMEM;
	device = platform_device_register_simple("mbuff", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(device)) {
		error = PTR_ERR(device);
		goto queue;
	}
	error = dma_coerce_mask_and_coherent(&device->dev, DMA_BIT_MASK(64));
	if (!error)
		return 0;
	platform_device_unregister(device);
queue:
	destroy_workqueue(queue);
	return error;
}

void contiguous_exit(void)
{
	/* What was still pinned has pinned the module; only the end of its work can be left. */
	destroy_workqueue(queue);
	platform_device_unregister(device);
}
