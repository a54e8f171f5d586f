// SPDX-License-Identifier: GPL-2.0-only
/* The ioctls of /dev/mbuff that only ask: nothing changes by them. */
#include <linux/mm.h>
#include <linux/pid.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

long query_version(void __user *argument)
{
	struct mbuff_version version = { .abi = MBUFF_ABI };

	return copy_to_user(argument, &version, sizeof(version)) ? -EFAULT : 0;
}

long query_usage(void __user *argument)
{
	struct mbuff_usage usage = {
		.max_bytes = areas_max_bytes(),
		.used_bytes = areas_bytes(),
		.max_areas = registry_max(),
		.areas = registry_count(),
	};

	return copy_to_user(argument, &usage, sizeof(usage)) ? -EFAULT : 0;
}

static s64 nanoseconds(struct timespec64 time)
{
	return timespec64_to_ns(&time);
}

/* As of /proc/PID/pagemap: who knows where memory lies can do harm. */
static bool may_see_addresses(void)
{
	return has_capability_noaudit(current, CAP_SYS_ADMIN);
}

static void fill_attributes(struct mbuff_attributes *to, struct mbuff_area *area)
{
	struct inode *inode = file_inode(area->file);

	*to = (struct mbuff_attributes){
		.id = area->id,
		.size = i_size_read(inode),
		/* Only shmem's own pages are counted by shmem. */
		.allocated = READ_ONCE(area->kind) == MBUFF_KIND_PAGES ?
				     (u64)inode->i_blocks << 9 :
				     PAGE_ALIGN(i_size_read(inode)),
		.notified = atomic64_read(&area->notified),
		.mode = inode->i_mode,
		.uid = from_kuid_munged(current_user_ns(), inode->i_uid),
		.gid = from_kgid_munged(current_user_ns(), inode->i_gid),
		.flags = (area->kept ? MBUFF_IS_KEPT : 0) |
			 (READ_ONCE(area->name) ? 0 : MBUFF_IS_REMOVED),
		.count = READ_ONCE(area->count),
		.kcount = READ_ONCE(area->kcount),
		.open_cnt = atomic_read(&area->open_cnt),
		.kind = READ_ONCE(area->kind),
		.physical = may_see_addresses() ? READ_ONCE(area->physical) : 0,
		.atime_ns = nanoseconds(mbuff_atime(inode)),
		.mtime_ns = nanoseconds(mbuff_mtime(inode)),
		.ctime_ns = nanoseconds(mbuff_ctime(inode)),
	};
}

static struct mbuff_owner *copy_owners(struct mbuff_area *area, u32 *count)
{
	struct mbuff_owner *owners, *owner;
	struct mbuff_holder *holder;

	mutex_lock(&registry_lock);
	*count = 0;
	list_for_each_entry(holder, &area->holders, link)
		(*count)++;
	owners = kvcalloc(*count ? *count : 1, sizeof(*owners), GFP_KERNEL_ACCOUNT);
	owner = owners;
	if (owners)
		list_for_each_entry(holder, &area->holders, link) {
			owner->kind = holder->module ? MBUFF_OWNER_MODULE : MBUFF_OWNER_PROCESS;
			owner->pid = holder_has_ended(holder) ? 0 : pid_vnr(holder->pid);
			owner->count = holder->count;
			strscpy(owner->name, holder->name, sizeof(owner->name));
			owner++;
		}
	mutex_unlock(&registry_lock);
	return owners;
}

long query_stat(void __user *argument)
{
	struct mbuff_owner *owners = NULL;
	struct mbuff_area *area;
	struct mbuff_stat stat;
	u32 count;
	long error = 0;

	if (copy_from_user(&stat, argument, sizeof(stat)))
		return -EFAULT;
	area = area_which(&stat.which);
	if (IS_ERR(area))
		return PTR_ERR(area);
	owners = copy_owners(area, &stat.owners_count);
	if (!owners) {
		error = -ENOMEM;
		goto area;
	}
	fill_attributes(&stat.attributes, area);
	count = min(stat.owners_count, stat.owners_max);
	if ((count && copy_to_user(u64_to_user_ptr(stat.owners), owners,
				   array_size(count, sizeof(*owners)))) ||
	    copy_to_user(argument, &stat, sizeof(stat)))
		error = -EFAULT;
	kvfree(owners);
area:
	area_put(area);
	return error;
}

static struct mbuff_area *held_after(struct mbuff_session *session, u64 id)
{
	struct mbuff_area *area;
	unsigned long index = id + 1;

	if (id >= ULONG_MAX)
		return NULL;
	xa_lock(&session->held);
	area = xa_find(&session->held, &index, ULONG_MAX, XA_PRESENT);
	if (area)
		area_get(area);
	xa_unlock(&session->held);
	return area;
}

/* One entry at `to`; its length, 0 if there is no room for it. ENOENT: its name has just gone. */
static ssize_t put_entry(struct mbuff_area *area, bool named, char __user *to, size_t room)
{
	struct mbuff_entry *entry;
	size_t name_len, len;
	ssize_t result = 0;

	mutex_lock(&registry_lock);
	name_len = area->name_len;
	len = ALIGN(sizeof(*entry) + name_len, 8);
	entry = kzalloc(len, GFP_KERNEL_ACCOUNT);
	if (entry && name_len)
		memcpy(entry + 1, area->name, name_len);
	mutex_unlock(&registry_lock);
	if (!entry)
		return -ENOMEM;
	if (named && !name_len) {
		result = -ENOENT;
		goto entry;
	}
	entry->entry_len = len;
	entry->name_len = name_len;
	fill_attributes(&entry->attributes, area);
	if (len <= room)
		result = copy_to_user(to, entry, len) ? -EFAULT : len;
entry:
	kfree(entry);
	return result;
}

long query_list(struct mbuff_session *session, void __user *argument)
{
	struct mbuff_area *area;
	struct mbuff_list list;
	ssize_t put;
	u32 done = 0;
	bool held;

	if (copy_from_user(&list, argument, sizeof(list)))
		return -EFAULT;
	if (list.flags & ~MBUFF_LIST_HELD || list.buffer_len > INT_MAX)
		return -EINVAL;
	held = list.flags & MBUFF_LIST_HELD;
	for (;;) {
		area = held ? held_after(session, list.after) : registry_after(list.after);
		if (!area)
			return done;
		put = put_entry(area, !held, u64_to_user_ptr(list.buffer) + done,
				list.buffer_len - done);
		list.after = area->id;
		area_put(area);
		if (put == -ENOENT)
			continue;
		if (put <= 0)
			return done ? done : put ? put : -EINVAL;
		done += put;
		cond_resched();
	}
}
