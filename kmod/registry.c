// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table of areas: by name, in the order of names, and by number. It never touches an area's
 * memory.
 *
 * A name is a path, so no area may have a name of which another one's name is a directory.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "internal.h"

#define NAMELESS_PER_BREAK 256 /* skipped between two chances for others */

DEFINE_MUTEX(registry_lock);
static struct rb_root by_name = RB_ROOT;
static DEFINE_XARRAY(by_id);
static unsigned int named; /* areas in by_name */

static unsigned int max_areas;
module_param(max_areas, uint, 0644);
MODULE_PARM_DESC(max_areas, "Limit of the number of areas; 0: one for each 16 KiB of the memory");

/* An empty area with all that belongs to it takes about 3 KiB. */
unsigned int registry_max(void)
{
	unsigned int limit = READ_ONCE(max_areas);
	u64 bytes = (u64)totalram_pages() << PAGE_SHIFT;

	return limit ? limit : min_t(u64, bytes >> 14, UINT_MAX);
}

unsigned int registry_count(void)
{
	return READ_ONCE(named);
}

/* Bytes, not text: what is forbidden is only what a path cannot hold. */
int name_check(const char *name, size_t len)
{
	size_t start = 0, at;

	if (!len)
		return -EINVAL;
	if (len > MBUFF_NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	if (memchr(name, 0, len))
		return -EINVAL;
	for (at = 0; at <= len; at++) {
		size_t size = at - start;

		if (at < len && name[at] != '/')
			continue;
		if (!size || (size == 1 && name[start] == '.') ||
		    (size == 2 && name[start] == '.' && name[start + 1] == '.'))
			return -EINVAL;
		if (size > MBUFF_COMPONENT_MAX)
			return -ENAMETOOLONG;
		start = at + 1;
	}
	return 0;
}

static int compare(const char *name, size_t len, const struct mbuff_area *area)
{
	int order = memcmp(name, area->name, min_t(size_t, len, area->name_len));

	return order ? order : (len > area->name_len) - (len < area->name_len);
}

/* The area with this name, or the first one behind it. */
static struct mbuff_area *at_or_behind(const char *name, size_t len)
{
	struct rb_node *node = by_name.rb_node;
	struct mbuff_area *found = NULL;

	while (node) {
		struct mbuff_area *area = rb_entry(node, struct mbuff_area, by_name);
		int order = compare(name, len, area);

		if (!order)
			return area;
		if (order < 0)
			found = area;
		node = order < 0 ? node->rb_left : node->rb_right;
	}
	return found;
}

static struct mbuff_area *behind(struct mbuff_area *area)
{
	return rb_entry_safe(rb_next(&area->by_name), struct mbuff_area, by_name);
}

struct mbuff_area *registry_find_locked(const char *name, size_t len)
{
	struct mbuff_area *area = at_or_behind(name, len);

	return area && area->name_len == len && !memcmp(area->name, name, len) ? area : NULL;
}

/* With a reference. */
struct mbuff_area *registry_find(const char *name, size_t len)
{
	struct mbuff_area *area;

	mutex_lock(&registry_lock);
	area = registry_find_locked(name, len);
	if (area)
		area_get(area);
	mutex_unlock(&registry_lock);
	return area;
}

/* With a reference; also one that has been removed, as long as somebody has it. */
struct mbuff_area *registry_find_id(u64 id)
{
	struct mbuff_area *area = NULL;

	xa_lock(&by_id);
	if (id <= ULONG_MAX)
		area = xa_load(&by_id, id);
	if (area && !kref_get_unless_zero(&area->references))
		area = NULL;
	xa_unlock(&by_id);
	return area;
}

/*
 * For who has an open file of it: if so, it does not lose its name before that file is closed, but
 * by somebody who removes it. mmap(2) comes here with the lock of its address space.
 */
bool registry_has_name(struct mbuff_area *area)
{
	bool has;

	mutex_lock(&registry_lock);
	has = area->name;
	mutex_unlock(&registry_lock);
	return has;
}

/* The named area with the smallest number above `id`, with a reference. */
struct mbuff_area *registry_after(u64 id)
{
	unsigned int until_break = NAMELESS_PER_BREAK;
	struct mbuff_area *area;
	unsigned long index = id;

	if (id >= ULONG_MAX)
		return NULL;
	mutex_lock(&registry_lock);
	/* One without a name can be on its way out, but not past registry_forget(). */
	xa_lock(&by_id);
	for (;;) {
		area = xa_find_after(&by_id, &index, ULONG_MAX, XA_PRESENT);
		if (!area || area->name)
			break;
		if (--until_break)
			continue;
		until_break = NAMELESS_PER_BREAK;
		xa_unlock(&by_id);
		cond_resched();
		xa_lock(&by_id);
	}
	if (area)
		area_get(area);
	xa_unlock(&by_id);
	mutex_unlock(&registry_lock);
	return area;
}

static bool is_below(const struct mbuff_area *area, const char *name, size_t len)
{
	return area->name_len > len && area->name[len] == '/' && !memcmp(area->name, name, len);
}

/* The first area below `name`, as if that were a directory. */
static struct mbuff_area *first_below(const char *name, size_t len)
{
	struct rb_node *node = by_name.rb_node;
	struct mbuff_area *found = NULL;

	while (node) {
		struct mbuff_area *area = rb_entry(node, struct mbuff_area, by_name);
		int order = memcmp(name, area->name, min_t(size_t, len, area->name_len));

		/* As if the name ended with a slash. */
		if (!order)
			order = area->name_len <= len ? 1 : '/' - (unsigned char)area->name[len];
		if (order <= 0)
			found = area;
		node = order <= 0 ? node->rb_left : node->rb_right;
	}
	return found && is_below(found, name, len) ? found : NULL;
}

static int check_place(const char *name, size_t len)
{
	size_t at;

	for (at = 1; at < len; at++)
		if (name[at] == '/' && registry_find_locked(name, at))
			return -ENOTDIR;
	return first_below(name, len) ? -EISDIR : 0;
}

static void link_name(struct mbuff_area *area)
{
	struct rb_node **place = &by_name.rb_node, *parent = NULL;

	while (*place) {
		parent = *place;
		if (compare(area->name, area->name_len,
			    rb_entry(parent, struct mbuff_area, by_name)) < 0)
			place = &parent->rb_left;
		else
			place = &parent->rb_right;
	}
	rb_link_node(&area->by_name, parent, place);
	rb_insert_color(&area->by_name, &by_name);
	observe_add(area);
}

static void unlink_name(struct mbuff_area *area)
{
	observe_remove(area);
	rb_erase(&area->by_name, &by_name);
}

/* Gives a new area its name; the registry takes a reference. */
int registry_add_locked(struct mbuff_area *area, const char *name, size_t len, u64 by)
{
	int error;

	if (registry_find_locked(name, len))
		return -EEXIST;
	error = check_place(name, len);
	if (error)
		return error;
	/* This one is among them; and so are those that only somebody's descriptors keep. */
	if (areas_alive() > registry_max())
		return -ENOSPC;
	if (area->id > ULONG_MAX)
		return -EOVERFLOW;
	area->name = kmemdup_nul(name, len, GFP_KERNEL_ACCOUNT);
	if (!area->name)
		return -ENOMEM;
	area->name_len = len;
	error = xa_err(xa_store(&by_id, area->id, area, GFP_KERNEL_ACCOUNT));
	if (error) {
		kfree(area->name);
		area->name = NULL;
		return error;
	}
	WRITE_ONCE(named, named + 1);
	link_name(area);
	area_get(area);
	events_tell(area, MBUFF_EVENT_CREATED, by);
	return 0;
}

int registry_add(struct mbuff_area *area, const char *name, size_t len, u64 by)
{
	int error;

	mutex_lock(&registry_lock);
	error = registry_add_locked(area, name, len, by);
	mutex_unlock(&registry_lock);
	observe_settle();
	return error;
}

/* The caller puts the registry's reference once it has let go of the lock. */
static void remove_locked(struct mbuff_area *area, u64 by)
{
	unlink_name(area);
	WRITE_ONCE(named, named - 1);
	events_tell(area, MBUFF_EVENT_REMOVED, by);
	kfree(area->name);
	area->name = NULL;
	area->name_len = 0;
}

int registry_remove(struct mbuff_area *area, u64 by)
{
	int error = 0;

	mutex_lock(&registry_lock);
	if (!area->name)
		error = -ENOENT;
	else if (area_is_held(area))
		error = -EBUSY;
	else
		remove_locked(area, by);
	mutex_unlock(&registry_lock);
	if (!error) {
		observe_settle();
		area_put(area);
	}
	return error;
}

/*
 * Removes an area that lived by its users alone, if none is left; then the caller puts the
 * registry's reference once it has let go of the lock.
 */
bool registry_reap_locked(struct mbuff_area *area)
{
	if (!area->name || area->kept || !READ_ONCE(area->used) || area_is_held(area) ||
	    atomic_read(&area->open_cnt))
		return false;
	remove_locked(area, 0);
	return true;
}

void registry_reap(struct mbuff_area *area)
{
	bool gone;

	mutex_lock(&registry_lock);
	gone = registry_reap_locked(area);
	mutex_unlock(&registry_lock);
	if (gone) {
		observe_settle();
		area_put(area);
	}
}

/* The last reference has gone. */
void registry_forget(struct mbuff_area *area)
{
	/* One without a name so far is not there either. */
	if (area->id <= ULONG_MAX)
		xa_erase(&by_id, area->id);
}

/* Renaming */

static void give_name(struct mbuff_area *area, char *name, size_t len, u64 by)
{
	char *old_name = area->name;

	unlink_name(area);
	area->name = name;
	area->name_len = len;
	link_name(area);
	events_tell_renamed(area, old_name, by);
	kfree(old_name);
}

static int exchange(struct mbuff_area *a, struct mbuff_area *b, u64 by)
{
	unlink_name(a);
	unlink_name(b);
	swap(a->name, b->name);
	swap(a->name_len, b->name_len);
	link_name(a);
	link_name(b);
	events_tell_renamed(a, b->name, by);
	events_tell_renamed(b, a->name, by);
	return 0;
}

static int rename_area(const char *from, size_t from_len, const char *to, size_t to_len,
		       unsigned int flags, u64 by, struct mbuff_area **replaced)
{
	struct mbuff_area *area = registry_find_locked(from, from_len);
	struct mbuff_area *target = registry_find_locked(to, to_len);
	char *name;
	int error;

	if (!area)
		return -ENOENT;
	if (!area_may_remove(area) || (target && !area_may_remove(target)))
		return -EPERM;
	if (area_is_held(area) || (target && area_is_held(target)))
		return -EBUSY;
	if (flags & MBUFF_RENAME_EXCHANGE)
		return !target ? -ENOENT : target == area ? 0 : exchange(area, target, by);
	if (target && flags & MBUFF_RENAME_NOREPLACE)
		return -EEXIST;
	if (target == area)
		return 0;
	name = kmemdup_nul(to, to_len, GFP_KERNEL_ACCOUNT);
	if (!name)
		return -ENOMEM;
	/* "a" may become "a/b" only if no area "a" is left, which it is not: ENOTDIR. */
	error = target ? 0 : check_place(to, to_len);
	if (error) {
		kfree(name);
		return error;
	}
	if (target) {
		remove_locked(target, by);
		*replaced = target;
	}
	give_name(area, name, to_len, by);
	return 0;
}

static int rename_tree(const char *from, size_t from_len, const char *to, size_t to_len, u64 by)
{
	struct mbuff_area *area, *first = first_below(from, from_len);
	char **names;
	size_t count = 0, at = 0;
	int error;

	if (to_len > from_len && to[from_len] == '/' && !memcmp(from, to, from_len))
		return -EINVAL;
	if (to_len == from_len && !memcmp(from, to, from_len))
		return 0;
	if (registry_find_locked(to, to_len))
		return -ENOTDIR;
	error = check_place(to, to_len);
	if (error)
		return error == -EISDIR ? -EEXIST : error;
	for (area = first; area && is_below(area, from, from_len); area = behind(area)) {
		if (area_is_held(area))
			return -EBUSY;
		if (area->kind == MBUFF_KIND_RESERVED)
			return -EPERM;
		if (area->name_len - from_len + to_len > MBUFF_NAME_BYTES_MAX)
			return -ENAMETOOLONG;
		count++;
	}
	names = kvcalloc(count ? count : 1, sizeof(*names), GFP_KERNEL_ACCOUNT);
	if (!names)
		return -ENOMEM;
	for (area = first; at < count; area = behind(area)) {
		names[at] = kasprintf(GFP_KERNEL_ACCOUNT, "%.*s%s", (int)to_len, to,
				      area->name + from_len);
		if (!names[at++]) {
			error = -ENOMEM;
			goto names;
		}
	}
	for (at = 0; at < count; at++) {
		area = first_below(from, from_len);
		give_name(area, names[at], strlen(names[at]), by);
		names[at] = NULL;
	}
names:
	for (at = 0; at < count; at++)
		kfree(names[at]);
	kvfree(names);
	return error;
}

/* `replaced`: the area that had the name `to`, with the reference of the registry. */
int registry_rename(const char *from, size_t from_len, const char *to, size_t to_len,
		    unsigned int flags, u64 by, struct mbuff_area **replaced)
{
	int error;

	*replaced = NULL;
	mutex_lock(&registry_lock);
	if (flags & MBUFF_RENAME_TREE)
		error = rename_tree(from, from_len, to, to_len, by);
	else
		error = rename_area(from, from_len, to, to_len, flags, by, replaced);
	mutex_unlock(&registry_lock);
	observe_settle();
	return error;
}
