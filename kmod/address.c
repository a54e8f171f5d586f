// SPDX-License-Identifier: GPL-2.0-only
/* The address of an area in the kernel: its pages, mapped one behind the other while it is used. */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "internal.h"

/* Gives the area an address in the kernel; the caller is counted in kcount. */
int area_map(struct mbuff_area *area)
{
	struct inode *inode = file_inode(area->file);
	struct address_space *mapping = inode->i_mapping;
	unsigned long count, done = 0;
	struct page **pages;
	int error = 0;

	inode_lock(inode);
	if (area->address)
		goto unlock;
	count = PAGE_ALIGN(i_size_read(inode)) >> PAGE_SHIFT;
	error = -ENODATA;
	if (!count)
		goto unlock;
	if (area->kind == MBUFF_KIND_RESERVED) {
		area->address = reserved_memory(area);
		error = 0;
		goto unlock;
	}
	error = -ENOMEM;
	pages = kvmalloc_array(count, sizeof(*pages), GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!pages)
		goto unlock;
	for (; done < count; done++) {
		pages[done] = shmem_read_mapping_page_gfp(mapping, done, mapping_gfp_mask(mapping));
		if (IS_ERR(pages[done])) {
			error = PTR_ERR(pages[done]);
			goto pages;
		}
		set_page_dirty(pages[done]);
		if (done % PAGES_PER_CHECK == 0) {
			/* A hole can be as large as an area. */
			error = area_memory_left(0);
			if (!error && fatal_signal_pending(current))
				error = -EINTR;
			if (error) {
				done++;
				goto pages;
			}
			cond_resched();
		}
	}
	error = -ENOMEM;
	area->address = vmap(pages, count, VM_MAP, PAGE_KERNEL);
	if (!area->address)
		goto pages;
	area->pages = pages;
	area->pages_count = count;
	error = 0;
	goto unlock;

pages:
	while (done)
		put_page(pages[--done]);
	kvfree(pages);
unlock:
	inode_unlock(inode);
	return error;
}

/* Takes the address away unless somebody in the kernel uses it (again). */
void area_unmap(struct mbuff_area *area)
{
	struct inode *inode = file_inode(area->file);
	unsigned long index;

	inode_lock(inode);
	if (area->address && !READ_ONCE(area->kcount)) {
		/* Reserved memory has its address anyway. */
		if (area->pages) {
			vunmap(area->address);
			for (index = 0; index < area->pages_count; index++)
				put_page(area->pages[index]);
			kvfree(area->pages);
			area->pages = NULL;
		}
		area->address = NULL;
	}
	inode_unlock(inode);
}
