// SPDX-License-Identifier: GPL-2.0-only
/*
 * How large an area is, and what that costs: the limit of all areas together, and every way by
 * which one grows or shrinks. An area has the memory of all its size, or does not get the size.
 */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/shmem_fs.h>
#include <linux/uio.h>
#include <uapi/linux/falloc.h>

#include "internal.h"

unsigned long long max_bytes;
module_param(max_bytes, ullong, 0644);
MODULE_PARM_DESC(max_bytes, "Limit of all areas together in bytes; 0: half of the memory");

static DEFINE_SPINLOCK(charge_lock);
static u64 charged_bytes;

u64 areas_bytes(void)
{
	return READ_ONCE(charged_bytes);
}

u64 areas_max_bytes(void)
{
	u64 limit = READ_ONCE(max_bytes);

	return limit ? limit : (u64)totalram_pages() << (PAGE_SHIFT - 1);
}

/* Takes `bytes` of the limit; with `some`, as many whole pages of them as there are. */
static u64 charge(struct mbuff_area *area, u64 bytes, bool some)
{
	u64 limit = areas_max_bytes();
	u64 room;

	spin_lock(&charge_lock);
	room = limit > charged_bytes ? round_down(limit - charged_bytes, PAGE_SIZE) : 0;
	if (bytes > room)
		bytes = some ? room : 0;
	WRITE_ONCE(charged_bytes, charged_bytes + bytes);
	spin_unlock(&charge_lock);
	area->charged += bytes;
	return bytes;
}

void areas_uncharge(u64 bytes)
{
	spin_lock(&charge_lock);
	WRITE_ONCE(charged_bytes, charged_bytes - bytes);
	spin_unlock(&charge_lock);
}

void area_uncharge_to(struct mbuff_area *area, u64 size)
{
	u64 keep = PAGE_ALIGN(size);

	if (keep >= area->charged)
		return;
	areas_uncharge(area->charged - keep);
	area->charged = keep;
}

int area_memory_left(u64 bytes)
{
	unsigned long available = si_mem_available();
	u64 need = (bytes + MBUFF_RESERVE) >> PAGE_SHIFT;

	return need > available ? -ENOMEM : 0;
}

/* Sees to it that the pages of [start, end) are there; inode lock. Leaves them when it fails. */
static int populate(struct mbuff_area *area, u64 start, u64 end)
{
	struct address_space *mapping = area->file->f_mapping;
	pgoff_t index = start >> PAGE_SHIFT;
	pgoff_t past = PAGE_ALIGN(end) >> PAGE_SHIFT;
	unsigned int until_check = PAGES_PER_CHECK;
	struct page *page;

	for (; index < past; index++) {
		page = shmem_read_mapping_page_gfp(mapping, index, mapping_gfp_mask(mapping));
		if (IS_ERR(page))
			return PTR_ERR(page);
		/* A clean page would be dropped as one that was never written. */
		set_page_dirty(page);
		put_page(page);
		if (--until_check)
			continue;
		until_check = PAGES_PER_CHECK;
		if (fatal_signal_pending(current))
			return -EINTR;
		if (area_memory_left(0))
			return -ENOMEM;
		cond_resched();
	}
	return 0;
}

/* Takes back what made the area larger than `old`; inode lock. */
static void shrink_back(struct mbuff_area *area, u64 old)
{
	struct inode *inode = file_inode(area->file);

	i_size_write(inode, old);
	unmap_mapping_range(inode->i_mapping, PAGE_ALIGN(old), 0, 1);
	shmem_truncate_range(inode, old, -1);
	if (!old)
		contiguous_release(area);
	area_uncharge_to(area, old);
}

/* Inode lock. After an error nothing has changed. */
static int grow(struct mbuff_area *area, u64 old, u64 size)
{
	struct inode *inode = file_inode(area->file);
	u64 need = PAGE_ALIGN(size) - PAGE_ALIGN(old);
	int error;

	if (need && !charge(area, need, false))
		return -ENOSPC;
	error = need ? area_memory_left(need) : 0;
	if (error) {
		area_uncharge_to(area, old);
		return error;
	}
	if (area->kind == MBUFF_KIND_CONTIGUOUS) {
		/* Who has it mapped must not get a page of his own first. */
		error = contiguous_fill(area, size);
		if (!error)
			i_size_write(inode, size);
	} else {
		/* Pages are had only below the size. */
		i_size_write(inode, size);
		error = populate(area, old, size);
	}
	if (error)
		shrink_back(area, old);
	return error;
}

/* Inode lock. */
static int may_resize(struct mbuff_area *area, u64 old, u64 size)
{
	if (area->kind == MBUFF_KIND_RESERVED && size > old)
		return -ENOSPC;
	if (area_is_held(area) || area->address || area->kind == MBUFF_KIND_RESERVED)
		return -EBUSY;
	/* Its memory is one piece, at the address that somebody may have been told. */
	if (area->kind == MBUFF_KIND_CONTIGUOUS && old && size)
		return -EBUSY;
	/* A dma-buf has its pages. */
	if (size < old && SHMEM_I(file_inode(area->file))->seals & F_SEAL_SHRINK)
		return -EBUSY;
	return 0;
}

/* Called with the inode lock, by ftruncate(2) and whoever else changes attributes. */
int area_setattr(struct mbuff_idmap *idmap, struct dentry *dentry, struct iattr *change)
{
	struct inode *inode = d_inode(dentry);
	struct mbuff_area *area = mbuff_mapping_data(inode->i_mapping);
	u64 old = i_size_read(inode);
	u64 by;
	int error;

	/* Who knows a path to the inode needs no open file: the area may have gone meanwhile. */
	if (!area)
		return shmem_iops->setattr(idmap, dentry, change);
	/* Before anything changes, and with the old size: RLIMIT_FSIZE is about growing. */
	error = setattr_prepare(idmap, dentry, change);
	if (error)
		return error;
	if (change->ia_valid & ATTR_SIZE) {
		if (change->ia_size > MAX_LFS_FILESIZE - PAGE_SIZE)
			return -EFBIG;
		error = change->ia_size == old ? 0 : may_resize(area, old, change->ia_size);
		if (!error && change->ia_size > old)
			error = grow(area, old, change->ia_size);
		if (error)
			return error;
	}
	error = shmem_iops->setattr(idmap, dentry, change);
	if (error)
		return error;
	by = area->changed_by;
	if (change->ia_valid & ATTR_FILE)
		by = area_weak_of(change->ia_file);
	if (change->ia_valid & ATTR_SIZE) {
		if (!change->ia_size && area->contiguous) {
			/* shmem truncates only what it has allocated itself. */
			shmem_truncate_range(inode, 0, -1);
			contiguous_release(area);
		}
		area_uncharge_to(area, change->ia_size);
	}
	/* Nobody knows it before it has a name. */
	if (READ_ONCE(area->name))
		events_tell(area,
			    change->ia_valid & ATTR_SIZE ? MBUFF_EVENT_RESIZED :
							   MBUFF_EVENT_CHANGED,
			    by);
	return 0;
}

/*
 * Writes what can be written without waiting for the writer's memory, which somebody else may
 * provide, or never: nobody must hold an area's lock for so long. EFAULT: not one byte.
 */
static ssize_t write_some(struct kiocb *iocb, struct iov_iter *from, bool *grew)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	struct mbuff_area *area = area_of(iocb->ki_filp);
	bool gap = false;
	ssize_t result;
	u64 end, room, size;

	inode_lock(inode);
	result = generic_write_checks(iocb, from);
	if (result <= 0)
		goto unlock;
	size = i_size_read(inode);
	end = iocb->ki_pos + iov_iter_count(from);
	if (end > size) {
		room = size;
		if (!area_is_held(area) && !area->address && area->kind == MBUFF_KIND_PAGES &&
		    !area_memory_left(end - size)) {
			if (PAGE_ALIGN(end) > area->charged)
				charge(area, PAGE_ALIGN(end) - area->charged, true);
			room = area->charged;
		}
		if (iocb->ki_pos >= room) {
			area_uncharge_to(area, size);
			result = -ENOSPC;
			goto unlock;
		}
		iov_iter_truncate(from, min(end, room) - iocb->ki_pos);
		/* An area has no holes: what is skipped gets its memory too. */
		gap = iocb->ki_pos > size;
		if (gap) {
			i_size_write(inode, iocb->ki_pos);
			result = populate(area, size, iocb->ki_pos);
			if (result)
				goto gap;
		}
	}
	/* O_DIRECT has no function of its own in shmem, where any write is as direct. */
	iocb->ki_flags &= ~IOCB_DIRECT;
	pagefault_disable();
	result = __generic_file_write_iter(iocb, from);
	pagefault_enable();
	/* What came to nothing behind the end may have got a page. */
	if (end > size && i_size_read(inode) < end)
		shmem_truncate_range(inode, PAGE_ALIGN(i_size_read(inode)), -1);
	area_uncharge_to(area, i_size_read(inode));
gap:
	if (gap && result <= 0)
		shrink_back(area, size);
	*grew |= i_size_read(inode) > size;
unlock:
	inode_unlock(inode);
	return result;
}

/*
 * One write: within the area, or past its end as far as the limit allows. An area that is held does
 * not grow: "no space left on device" when its end is reached.
 */
ssize_t area_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct mbuff_area *area = area_of(iocb->ki_filp);
	ssize_t result, done = 0;
	bool grew = false;
	size_t wanted;

	/* So that what is appended is in one piece, as no other file system would part it. */
	if (iocb->ki_flags & IOCB_APPEND)
		fault_in_iov_iter_readable(from, iov_iter_count(from));
	for (;;) {
		result = write_some(iocb, from, &grew);
		if (result > 0)
			done += result;
		/* Only the writer's memory can have stopped it; else it says itself what has. */
		wanted = iov_iter_count(from);
		if (!wanted || (result < 0 && result != -EFAULT) || result == 0)
			break;
		if (fault_in_iov_iter_readable(from, wanted) == wanted) {
			result = -EFAULT;
			break;
		}
		if (fatal_signal_pending(current)) {
			result = -EINTR;
			break;
		}
	}
	if (done)
		result = done;
	/* Who serves this file by FUSE sees its writes; only others need to be told. */
	if (grew && iocb->ki_filp->f_mode & FMODE_BACKING)
		events_tell_growth(area);
	else if (grew)
		events_tell(area, MBUFF_EVENT_RESIZED, area_weak_of(iocb->ki_filp));
	return result;
}

/*
 * Growing, and filling what is there. Anything else would take pages away, and so part what
 * programs see from what the kernel sees: also madvise(MADV_REMOVE), which comes here.
 */
long area_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
{
	struct mbuff_area *area = area_of(file);
	struct inode *inode = file_inode(file);
	u64 end = offset + len;
	long error = 0;

	if (mode & ~FALLOC_FL_KEEP_SIZE)
		return -EOPNOTSUPP;
	inode_lock(inode);
	if (end > i_size_read(inode)) {
		struct iattr change = {
			.ia_valid = ATTR_SIZE | ATTR_FILE,
			.ia_size = end,
			.ia_file = file,
		};

		if (mode & FALLOC_FL_KEEP_SIZE)
			error = -EOPNOTSUPP;
		else
			error = notify_change(mbuff_no_idmap, file->f_path.dentry, &change, NULL);
	}
	if (!error)
		error = populate(area, offset, min_t(u64, end, i_size_read(inode)));
	inode_unlock(inode);
	return error;
}
