// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory of one area: a shmem file whose size only this module changes, and its pages. It knows
 * nothing of names.
 *
 * The file keeps shmem's operations but for those that could part the users' pages from the
 * kernel's. They stand in the inode, not in the file, because FUSE passthrough opens the inode
 * anew. A file that is opened through them holds a reference of the area and pins the module.
 */
#include <linux/cred.h>
#include <linux/falloc.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>
#include <linux/uio.h>

#include "internal.h"

unsigned long long max_bytes;
module_param(max_bytes, ullong, 0644);
MODULE_PARM_DESC(max_bytes, "Limit of all areas together in bytes; 0: half of the memory");

static const struct file_operations *shmem_fops;
static const struct inode_operations *shmem_iops;
static struct file_operations area_fops;
static struct inode_operations area_iops;

static DEFINE_SPINLOCK(charge_lock);
static u64 charged_bytes;
static u64 next_id = 1;
static atomic_t alive = ATOMIC_INIT(0); /* also those that have lost their name */

u64 areas_bytes(void)
{
	return READ_ONCE(charged_bytes);
}

unsigned int areas_alive(void)
{
	return atomic_read(&alive);
}

u64 areas_max_bytes(void)
{
	u64 limit = READ_ONCE(max_bytes);

	return limit ? limit : (u64)totalram_pages() << (PAGE_SHIFT - 1);
}

u64 area_size(const struct mbuff_area *area)
{
	return i_size_read(file_inode(area->file));
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

static void uncharge_to(struct mbuff_area *area, u64 size)
{
	u64 keep = PAGE_ALIGN(size);

	if (keep >= area->charged)
		return;
	areas_uncharge(area->charged - keep);
	area->charged = keep;
}

/* The area that an open file of ours belongs to; valid as long as the file is open. */
struct mbuff_area *area_of(const struct file *file)
{
	return mbuff_mapping_data(file->f_mapping);
}

/* The number of the session for which a file was opened that counts for no user, or 0. */
static u64 weak_of(const struct file *file)
{
	return (uintptr_t)file->private_data;
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
	uncharge_to(area, old);
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
		uncharge_to(area, old);
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
static int area_setattr(struct mbuff_idmap *idmap, struct dentry *dentry, struct iattr *change)
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
		by = weak_of(change->ia_file);
	if (change->ia_valid & ATTR_SIZE) {
		if (!change->ia_size && area->contiguous) {
			/* shmem truncates only what it has allocated itself. */
			shmem_truncate_range(inode, 0, -1);
			contiguous_release(area);
		}
		uncharge_to(area, change->ia_size);
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
			uncharge_to(area, size);
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
	uncharge_to(area, i_size_read(inode));
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
static ssize_t area_write_iter(struct kiocb *iocb, struct iov_iter *from)
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
		events_tell(area, MBUFF_EVENT_RESIZED, weak_of(iocb->ki_filp));
	return result;
}

/*
 * Growing, and filling what is there. Anything else would take pages away, and so part what
 * programs see from what the kernel sees: also madvise(MADV_REMOVE), which comes here.
 */
static long area_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
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

static int area_file_open(struct inode *inode, struct file *file)
{
	struct mbuff_area *area;
	int error = shmem_fops->open ? shmem_fops->open(inode, file) : 0;

	if (error)
		return error;
	file->f_mode |= FMODE_CAN_ODIRECT;
	/* By /proc/PID/fd the inode can be opened while the area's last user leaves. */
	spin_lock(&inode->i_lock);
	area = mbuff_mapping_data(inode->i_mapping);
	if (area && !kref_get_unless_zero(&area->references))
		area = NULL;
	if (area)
		area->open_mode |=
			(__force unsigned int)(file->f_mode & (FMODE_READ | FMODE_WRITE));
	spin_unlock(&inode->i_lock);
	if (!area)
		return -ENXIO;
	atomic_inc(&area->open_cnt);
	return 0;
}

static int area_file_release(struct inode *inode, struct file *file)
{
	struct mbuff_area *area = area_of(file);

	if (!weak_of(file)) {
		WRITE_ONCE(area->used, true);
		if (atomic_dec_and_test(&area->open_cnt))
			registry_reap(area);
	}
	area_put(area);
	return 0;
}

/*
 * No huge pages by MADV_COLLAPSE: it would fill what the area does not have, outside the limit.
 * Nothing else minds this flag, and the program cannot take it away.
 */
static int area_mmap(struct file *file, struct vm_area_struct *vma)
{
	int error = shmem_fops->mmap(file, vma);

	if (!error)
		mbuff_vm_flags_set(vma, VM_MIXEDMAP);
	return error;
}

int areas_init(void)
{
	struct file *file = shmem_file_setup("mbuff", 0, VM_NORESERVE);

	if (IS_ERR(file))
		return PTR_ERR(file);
	shmem_fops = file_inode(file)->i_fop;
	shmem_iops = file_inode(file)->i_op;
	area_fops = *shmem_fops;
	area_fops.owner = THIS_MODULE;
	area_fops.open = area_file_open;
	area_fops.release = area_file_release;
	area_fops.write_iter = area_write_iter;
	area_fops.fallocate = area_fallocate;
	area_fops.mmap = area_mmap;
	/* shmem's insists on shmem's own operations; the default place is as good. */
	area_fops.get_unmapped_area = NULL;
	/* Nobody shall have to wait for a lease of somebody else to map an area. */
	area_fops.setlease = simple_nosetlease;
	area_iops = *shmem_iops;
	area_iops.setattr = area_setattr;
	/* chattr(1) could make an area immutable under its kernel users. */
	area_iops.fileattr_set = NULL;
	area_iops.listxattr = NULL;
	fput(file);
	return 0;
}

const struct file_operations *area_operations(void)
{
	return &area_fops;
}

/* Without a name yet, and without memory. */
struct mbuff_area *area_new(umode_t mode)
{
	struct mbuff_area *area = kzalloc(sizeof(*area), GFP_KERNEL_ACCOUNT);
	struct inode *inode;

	if (!area)
		return ERR_PTR(-ENOMEM);
	area->file = shmem_file_setup("mbuff", 0, VM_NORESERVE);
	if (IS_ERR(area->file)) {
		int error = PTR_ERR(area->file);

		kfree(area);
		/* For want of memory for an inode shmem says ENOSPC: here that means the limit. */
		return ERR_PTR(error == -ENOSPC ? -ENOMEM : error);
	}
	inode = file_inode(area->file);
	mapping_set_unevictable(inode->i_mapping);
	/*
	 * ENOMEM instead of the OOM killer, which would find nobody to blame; and not from where
	 * memory must be movable, as the kernel's users have the pages for long.
	 */
	mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	inode->i_mode = S_IFREG | (mode & 07777);
	/* shmem's own, of this mount, have no limit. */
	inode->i_opflags &= ~IOP_XATTR;
	mbuff_mapping_data(inode->i_mapping) = area;
	inode->i_fop = &area_fops;
	inode->i_op = &area_iops;
	kref_init(&area->references);
	spin_lock(&charge_lock);
	area->id = next_id++;
	spin_unlock(&charge_lock);
	INIT_LIST_HEAD(&area->holders);
	events_area_init(area);
	__module_get(THIS_MODULE);
	atomic_inc(&alive);
	return area;
}

void area_get(struct mbuff_area *area)
{
	kref_get(&area->references);
}

static void area_free(struct kref *references)
{
	struct mbuff_area *area = container_of(references, struct mbuff_area, references);
	struct inode *inode = file_inode(area->file);

	registry_forget(area);
	events_area_gone(area);
	/*
	 * The inode can outlive the area: the last file that somebody opened may still be on its
	 * way out, with the dentry in its hands and the module's pin already gone, and an O_PATH
	 * descriptor keeps it without being an open file. What is left must not point here, and
	 * has no memory and no right to what cannot be swapped out.
	 */
	inode_lock(inode);
	spin_lock(&inode->i_lock);
	mbuff_mapping_data(inode->i_mapping) = NULL;
	inode->i_fop = shmem_fops;
	inode->i_op = shmem_iops;
	spin_unlock(&inode->i_lock);
	i_size_write(inode, 0);
	shmem_truncate_range(inode, 0, -1);
	mapping_clear_unevictable(inode->i_mapping);
	contiguous_release(area);
	reserved_release(area);
	uncharge_to(area, 0);
	inode_unlock(inode);
	fput(area->file);
	kfree(area);
	atomic_dec(&alive);
	module_put(THIS_MODULE);
}

void area_put(struct mbuff_area *area)
{
	kref_put(&area->references, area_free);
}

/* A new file of the area's memory; `weak` is the number of a session that counts for no user. */
struct file *area_open(struct mbuff_area *area, unsigned int flags, u64 weak)
{
	struct file *file = dentry_open(&area->file->f_path, flags | O_LARGEFILE, current_cred());

	if (!IS_ERR(file) && weak) {
		file->private_data = (void *)(uintptr_t)weak;
		if (atomic_dec_and_test(&area->open_cnt))
			registry_reap(area);
	}
	return file;
}

int area_change(struct mbuff_area *area, struct iattr *change, u64 by)
{
	struct inode *inode = file_inode(area->file);
	int error;

	inode_lock(inode);
	area->changed_by = by;
	error = notify_change(mbuff_no_idmap, area->file->f_path.dentry, change, NULL);
	area->changed_by = 0;
	inode_unlock(inode);
	return error;
}

int area_resize(struct mbuff_area *area, u64 size, u64 by)
{
	struct iattr change = {
		.ia_valid = ATTR_SIZE | ATTR_MTIME | ATTR_CTIME,
		.ia_size = size,
	};

	if (size > MAX_LFS_FILESIZE)
		return -EFBIG;
	return area_change(area, &change, by);
}

int area_permission(struct mbuff_area *area, int mask)
{
	return inode_permission(mbuff_no_idmap, file_inode(area->file), mask);
}

bool area_is_callers(struct mbuff_area *area)
{
	return inode_owner_or_capable(mbuff_no_idmap, file_inode(area->file));
}

/*
 * As in a directory with the sticky bit: /dev/mbuff is shared, areas have owners. A reserved one
 * could not be made again.
 */
bool area_may_remove(struct mbuff_area *area)
{
	return area->kind != MBUFF_KIND_RESERVED && area_is_callers(area);
}

/* EBUSY: it has memory already. */
int area_set_kind(struct mbuff_area *area, unsigned int kind, u64 by)
{
	struct inode *inode = file_inode(area->file);
	int error = 0;

	inode_lock(inode);
	if (kind != area->kind) {
		if (i_size_read(inode) || area_is_held(area) ||
		    SHMEM_I(inode)->seals & F_SEAL_SHRINK)
			error = -EBUSY;
		else
			WRITE_ONCE(area->kind, kind);
	}
	inode_unlock(inode);
	if (!error && READ_ONCE(area->name))
		events_tell(area, MBUFF_EVENT_CHANGED, by);
	return error;
}

/* For /dev/udmabuf, which wants memory that can stay pinned; it shrinks never again. */
int area_seal(struct mbuff_area *area)
{
	struct inode *inode = file_inode(area->file);
	int error = 0;

	inode_lock(inode);
	if (area->kind == MBUFF_KIND_PAGES || contiguous_can_be_pinned(area))
		SHMEM_I(inode)->seals |= F_SEAL_SHRINK;
	else
		error = -EOPNOTSUPP;
	inode_unlock(inode);
	return error;
}
