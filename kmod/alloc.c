// SPDX-License-Identifier: GPL-2.0-only
/* mbuff_alloc, for programs and modules alike: an area is found or made, and held, in one step. */
#include <linux/mm.h>
#include <linux/module.h>

#include "internal.h"

/* -EAGAIN: there is none. */
static struct mbuff_area *find_and_hold(const char *name, size_t len, const struct mbuff_wish *wish)
{
	struct mbuff_area *area;
	int error = -EAGAIN;
	u64 left;

	mutex_lock(&registry_lock);
	area = registry_find_locked(name, len);
	if (area) {
		area_get(area);
		error = wish->module ? 0 : area_permission(area, MAY_READ | MAY_WRITE);
		if (!error)
			error = holders_add_locked(area, wish->module);
	}
	mutex_unlock(&registry_lock);
	if (error) {
		if (area)
			area_put(area);
		return ERR_PTR(error);
	}
	/* A change of size that was under way when the area became held ends before this. */
	inode_lock_shared(file_inode(area->file));
	if (area_size(area) < wish->size ||
	    (wish->kind != MBUFF_KIND_PAGES && wish->kind != area->kind))
		error = -EINVAL;
	inode_unlock_shared(file_inode(area->file));
	if (!error && wish->module)
		error = area_map(area);
	if (error) {
		holders_release(area, wish->module, &left);
		area_put(area);
		return ERR_PTR(error);
	}
	WRITE_ONCE(area->used, true);
	return area;
}

/* Memory and address come first: a name that is seen has both. */
static struct mbuff_area *make_and_hold(const char *name, size_t len, const struct mbuff_wish *wish)
{
	struct iattr group = { .ia_valid = ATTR_GID, .ia_gid = wish->gid };
	struct mbuff_area *area = area_new(wish->mode);
	int error;

	if (IS_ERR(area))
		return area;
	/* The group is the device's, not one that the caller has to belong to. */
	file_inode(area->file)->i_gid = group.ia_gid;
	area->kind = wish->kind;
	area->used = true;
	error = area_resize(area, wish->whole_pages ? PAGE_ALIGN(wish->size) : wish->size, 0);
	if (!error && wish->module)
		error = area_map(area);
	if (error)
		goto area;
	mutex_lock(&registry_lock);
	error = holders_add_locked(area, wish->module);
	if (!error)
		error = registry_add_locked(area, name, len, 0);
	mutex_unlock(&registry_lock);
	observe_settle();
	if (!error)
		return area;
area:
	holders_drop_all(area);
	area_unmap(area);
	area_put(area);
	return ERR_PTR(error);
}

/* With a reference, besides that of the holder. */
struct mbuff_area *area_alloc(const char *name, size_t len, const struct mbuff_wish *wish)
{
	struct mbuff_area *area;
	int error = name_check(name, len);

	if (error)
		return ERR_PTR(error);
	for (;;) {
		area = find_and_hold(name, len, wish);
		if (area != ERR_PTR(-EAGAIN))
			return area;
		if (!wish->size)
			return ERR_PTR(-ENOENT);
		area = make_and_hold(name, len, wish);
		if (area != ERR_PTR(-EEXIST))
			return area;
	}
}
