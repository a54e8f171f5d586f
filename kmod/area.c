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
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>

#include "internal.h"

static const struct file_operations *shmem_fops;
const struct inode_operations *shmem_iops;
static struct file_operations area_fops;
static struct inode_operations area_iops;

static atomic64_t last_id = ATOMIC64_INIT(0);
static atomic_t alive = ATOMIC_INIT(0); /* also those that have lost their name */

unsigned int areas_alive(void)
{
	return atomic_read(&alive);
}

u64 area_size(const struct mbuff_area *area)
{
	return i_size_read(file_inode(area->file));
}

/* The area that an open file of ours belongs to; valid as long as the file is open. */
struct mbuff_area *area_of(const struct file *file)
{
	return mbuff_mapping_data(file->f_mapping);
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

	if (!area_weak_of(file)) {
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
	area->id = atomic64_inc_return(&last_id);
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
	area_uncharge_to(area, 0);
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
