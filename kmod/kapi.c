// SPDX-License-Identifier: GPL-2.0-only
/* The face for other kernel modules (include/mbuff.h): areas by name, held under the module's name.
 */
#include <linux/err.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/string.h>

#include "internal.h"

static ushort mode = 0660;
module_param(mode, ushort, 0644);
MODULE_PARM_DESC(mode, "Permission bits of areas that kernel modules make by mbuff_alloc");

static uint gid;
module_param(gid, uint, 0644);
MODULE_PARM_DESC(gid, "Group of areas that kernel modules make");

static struct mbuff_area *alloc(struct module *owner, const char *name, size_t size,
				bool whole_pages, umode_t bits, unsigned int kind)
{
	struct mbuff_wish wish = {
		.module = owner,
		.kind = kind,
		.size = size,
		.whole_pages = whole_pages,
		.mode = bits & 0777,
		.gid = make_kgid(&init_user_ns, READ_ONCE(gid)),
	};
	struct mbuff_area *area;

	if (!name)
		name = MBUFF_DEFAULT_NAME;
	if (!owner || !gid_valid(wish.gid))
		return ERR_PTR(-EINVAL);
	area = area_alloc(name, strlen(name), &wish);
	/* The holder's reference is enough: it lasts until the count is given back. */
	return area;
}

struct mbuff_area *mbuff_get_for(struct module *owner, const char *name)
{
	return alloc(owner, name, 0, false, 0, MBUFF_KIND_PAGES);
}
EXPORT_SYMBOL_GPL(mbuff_get_for);

struct mbuff_area *mbuff_make_for(struct module *owner, const char *name, size_t size, umode_t bits)
{
	return size ? alloc(owner, name, size, false, bits, MBUFF_KIND_PAGES) : ERR_PTR(-EINVAL);
}
EXPORT_SYMBOL_GPL(mbuff_make_for);

struct mbuff_area *mbuff_make_contiguous_for(struct module *owner, const char *name, size_t size,
					     umode_t bits)
{
	return size ? alloc(owner, name, size, false, bits, MBUFF_KIND_CONTIGUOUS) :
		      ERR_PTR(-EINVAL);
}
EXPORT_SYMBOL_GPL(mbuff_make_contiguous_for);

void mbuff_put_for(struct module *owner, struct mbuff_area *area)
{
	u64 left;

	if (IS_ERR_OR_NULL(area))
		return;
	if (WARN(holders_release(area, owner, &left),
		 "mbuff: %s puts an area that it does not hold\n", module_name(owner)))
		return;
	area_put(area);
}
EXPORT_SYMBOL_GPL(mbuff_put_for);

void *mbuff_address(const struct mbuff_area *area)
{
	return area->address;
}
EXPORT_SYMBOL_GPL(mbuff_address);

size_t mbuff_area_size(const struct mbuff_area *area)
{
	return area_size(area);
}
EXPORT_SYMBOL_GPL(mbuff_area_size);

phys_addr_t mbuff_physical(const struct mbuff_area *area)
{
	return READ_ONCE(area->physical);
}
EXPORT_SYMBOL_GPL(mbuff_physical);

void mbuff_notify(struct mbuff_area *area)
{
	atomic64_inc(&area->notified);
	/* Whoever waits is woken from an interrupt of its own: from here it may not be allowed. */
	irq_work_queue(&area->wake);
}
EXPORT_SYMBOL_GPL(mbuff_notify);

void *mbuff_alloc_for(struct module *owner, const char *name, size_t size)
{
	struct mbuff_area *area;

	if (!size || size > SIZE_MAX - PAGE_SIZE)
		return NULL;
	area = alloc(owner, name, size, true, READ_ONCE(mode), MBUFF_KIND_PAGES);
	return IS_ERR(area) ? NULL : area->address;
}
EXPORT_SYMBOL_GPL(mbuff_alloc_for);

void mbuff_free_for(struct module *owner, const char *name, void *memory)
{
	struct mbuff_area *area;
	u64 left;

	if (!name)
		name = MBUFF_DEFAULT_NAME;
	area = registry_find(name, strlen(name));
	if (!area || holders_release(area, owner, &left)) {
		pr_warn("mbuff: %s frees area %s, which it does not hold\n", module_name(owner),
			name);
		if (area)
			area_put(area);
		return;
	}
	area_put(area);
	/* The one that mbuff_alloc_for has taken. */
	area_put(area);
}
EXPORT_SYMBOL_GPL(mbuff_free_for);

static int module_changed(struct notifier_block *block, unsigned long state, void *module)
{
	if (state == MODULE_STATE_GOING)
		holders_release_all(module);
	return NOTIFY_OK;
}

static struct notifier_block module_block = { .notifier_call = module_changed };

int kapi_init(void)
{
	return register_module_notifier(&module_block);
}

void kapi_exit(void)
{
	unregister_module_notifier(&module_block);
}
