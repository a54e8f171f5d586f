// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that was reserved at boot (memmap=SIZE$ADDRESS, a reserved-memory node) and is given to us
 * by address: an area for each range, which lives as long as the module. The kernel has no pages
 * for it, so read, write and mmap are here; its inode's page cache stays empty.
 */
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/string.h>
#include <linux/uio.h>

#include "internal.h"

#define RANGES_MAX 32

struct mbuff_reserved {
	phys_addr_t address;
	u64 size;
	void *memory;
};

static char *reserved;
module_param(reserved, charp, 0400); /* it tells addresses */
MODULE_PARM_DESC(reserved, "Ranges reserved at boot, as areas: NAME:SIZE@ADDRESS[,...]");

static struct mbuff_area *areas[RANGES_MAX];
static unsigned int area_count;
static bool ready; /* the module was loaded: what is there now was written by our users */
static struct file_operations reserved_fops;

static struct mbuff_reserved *memory_of(struct file *file)
{
	return area_of(file)->reserved;
}

static ssize_t reserved_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct mbuff_reserved *memory = memory_of(iocb->ki_filp);
	size_t len, copied;

	if (iocb->ki_pos >= memory->size)
		return 0;
	len = min_t(u64, iov_iter_count(to), memory->size - iocb->ki_pos);
	copied = copy_to_iter(memory->memory + iocb->ki_pos, len, to);
	iocb->ki_pos += copied;
	return copied || !len ? copied : -EFAULT;
}

static ssize_t reserved_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct mbuff_reserved *memory = memory_of(iocb->ki_filp);
	size_t len, copied;

	if (iocb->ki_flags & IOCB_APPEND)
		iocb->ki_pos = memory->size;
	if (!iov_iter_count(from))
		return 0;
	if (iocb->ki_pos >= memory->size)
		return -ENOSPC;
	len = min_t(u64, iov_iter_count(from), memory->size - iocb->ki_pos);
	copied = copy_from_iter(memory->memory + iocb->ki_pos, len, from);
	iocb->ki_pos += copied;
	return copied ? copied : -EFAULT;
}

static loff_t reserved_llseek(struct file *file, loff_t offset, int whence)
{
	return generic_file_llseek_size(file, offset, whence, MAX_LFS_FILESIZE,
					memory_of(file)->size);
}

/* Past the end of the range, as of any file: SIGBUS. */
static vm_fault_t reserved_fault(struct vm_fault *fault)
{
	struct mbuff_reserved *memory = memory_of(fault->vma->vm_file);

	if (fault->pgoff >= memory->size >> PAGE_SHIFT)
		return VM_FAULT_SIGBUS;
	return vmf_insert_pfn(fault->vma, fault->address, PHYS_PFN(memory->address) + fault->pgoff);
}

static const struct vm_operations_struct reserved_vm_ops = { .fault = reserved_fault };

/* A private mapping would need pages to copy from. */
static int reserved_mmap(struct file *file, struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_SHARED) && vma->vm_flags & VM_MAYWRITE)
		return -EINVAL;
	mbuff_vm_flags_set(vma, VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	/* As memremap() has it, where memory is encrypted. */
	vma->vm_page_prot = pgprot_decrypted(vma->vm_page_prot);
	vma->vm_ops = &reserved_vm_ops;
	return 0;
}

static long reserved_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
{
	if (mode)
		return -EOPNOTSUPP;
	return (u64)offset + len > memory_of(file)->size ? -ENOSPC : 0;
}

/* Only what was set aside, whole pages of it, and only once. */
static const char *what_is_wrong(phys_addr_t address, u64 size)
{
	unsigned int at;

	if (!size)
		return "it is empty";
	if (!PAGE_ALIGNED(address) || !PAGE_ALIGNED(size))
		return "address and size must be multiples of the page size";
	if (address + size - 1 < address || address + size - 1 > MBUFF_PHYSICAL_MAX)
		return "it ends beyond what this machine can address";
	if (region_intersects(address, size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) !=
	    REGION_DISJOINT)
		return "it lies in System RAM; reserve it at boot, by memmap=SIZE$ADDRESS";
	for (at = 0; at < area_count; at++) {
		struct mbuff_reserved *other = areas[at]->reserved;

		if (address < other->address + other->size && other->address < address + size)
			return "it overlaps another range";
	}
	/* Requesting it would take it away from who has mapped it by /dev/mem. */
	if (region_intersects(address, size, IORESOURCE_MEM | IORESOURCE_BUSY, IORES_DESC_NONE) !=
	    REGION_DISJOINT)
		return "a driver uses it";
	return area_count == RANGES_MAX ? "there are too many ranges" : NULL;
}

static int add(const char *name, phys_addr_t address, u64 size)
{
	struct mbuff_reserved *memory = kzalloc(sizeof(*memory), GFP_KERNEL);
	struct mbuff_area *area;
	int error = -ENOMEM;

	if (!memory)
		return error;
	memory->address = address;
	memory->size = size;
	memory->memory = memremap(address, size, MEMREMAP_WB);
	if (!memory->memory)
		goto memory;
	area = area_new(0660);
	error = PTR_ERR_OR_ZERO(area);
	if (error)
		goto memory;
	area->kind = MBUFF_KIND_RESERVED;
	area->reserved = memory;
	area->physical = address;
	area->kept = true;
	file_inode(area->file)->i_fop = &reserved_fops;
	i_size_write(file_inode(area->file), size);
	error = registry_add(area, name, strlen(name), 0);
	if (error) {
		area_put(area);
		return error;
	}
	/* It goes with the module, so it does not keep it; who uses it does. */
	module_put(THIS_MODULE);
	areas[area_count++] = area;
	return 0;
memory:
	if (memory->memory)
		memunmap(memory->memory);
	kfree(memory);
	return error;
}

/* NAME:SIZE@ADDRESS, numbers as of memmap=: 16M, 0x30000000. */
static int parse(char *range)
{
	char *at = strrchr(range, '@'), *colon, *end;
	phys_addr_t address;
	const char *wrong;
	u64 size;
	int error;

	if (at)
		*at = 0;
	colon = strrchr(range, ':');
	if (!at || !colon || colon[1] < '0' || colon[1] > '9' || at[1] < '0' || at[1] > '9')
		goto form;
	*colon = 0;
	size = memparse(colon + 1, &end);
	if (*end)
		goto form;
	address = memparse(at + 1, &end);
	if (*end)
		goto form;
	if (name_check(range, strlen(range))) {
		pr_err("mbuff: reserved: \"%s\" cannot be the name of an area\n", range);
		return -EINVAL;
	}
	wrong = what_is_wrong(address, size);
	if (wrong) {
		pr_err("mbuff: reserved: %s, 0x%llx bytes at %pa: %s\n", range, size, &address,
		       wrong);
		return -EINVAL;
	}
	error = add(range, address, size);
	if (error)
		pr_err("mbuff: reserved: %s, 0x%llx bytes at %pa: error %d%s\n", range, size,
		       &address, error,
		       error == -EEXIST || error == -EISDIR || error == -ENOTDIR ?
			       ", its name is taken" :
			       "");
	return error;
form:
	pr_err("mbuff: reserved: a range is NAME:SIZE@ADDRESS, as in fpga:16M@0x30000000\n");
	return -EINVAL;
}

void reserved_release(struct mbuff_area *area)
{
	struct mbuff_reserved *memory = area->reserved;
	u64 at, len;

	if (!memory)
		return;
	area->reserved = NULL;
	for (at = 0; ready && contiguous_scrubs() && at < memory->size; at += len) {
		len = min_t(u64, memory->size - at, SZ_1M);
		memset(memory->memory + at, 0, len);
		cond_resched();
	}
	memunmap(memory->memory);
	kfree(memory);
}

void *reserved_memory(const struct mbuff_area *area)
{
	return area->reserved->memory;
}

void reserved_exit(void)
{
	struct mbuff_area *area;

	while (area_count) {
		area = areas[--area_count];
		__module_get(THIS_MODULE);
		holders_drop_all(area); /* counts of programs, which keep no module */
		registry_remove(area, 0);
		area_put(area);
	}
}

void reserved_is_ready(void)
{
	ready = true;
}

int reserved_init(const struct file_operations *area_fops)
{
	char *ranges, *rest, *range;
	int error = 0;

	reserved_fops = *area_fops;
	reserved_fops.read_iter = reserved_read_iter;
	reserved_fops.write_iter = reserved_write_iter;
	reserved_fops.llseek = reserved_llseek;
	reserved_fops.mmap = reserved_mmap;
	reserved_fops.fallocate = reserved_fallocate;
	reserved_fops.splice_read = mbuff_splice_read;
	if (!reserved || !*reserved)
		return 0;
	ranges = kstrdup(reserved, GFP_KERNEL);
	if (!ranges)
		return -ENOMEM;
	rest = ranges;
	while (!error && (range = strsep(&rest, ",")))
		error = parse(range);
	kfree(ranges);
	if (error)
		reserved_exit();
	return error;
}
