// SPDX-License-Identifier: GPL-2.0-only
/*
 * Physically contiguous memory whose address is published: a program finds address and size in
 * /proc/mbuff/regions/NAME/, and stores a string there, by path or through /dev/mem. The module
 * prints the string when it goes.
 *
 * It makes the area "published" of contiguous memory, or takes the area of its parameter `name`,
 * which may be of memory that was reserved at boot. Only that is open to /dev/mem: the kernel's
 * ordinary memory is closed to it (CONFIG_STRICT_DEVMEM), contiguous or not.
 */
#include <linux/err.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/string.h>

#include <mbuff.h>

static char *name;
module_param(name, charp, 0444);
MODULE_PARM_DESC(name, "An area that exists; without it \"published\" is made");

static struct mbuff_area *area;

static int __init published_init(void)
{
	phys_addr_t physical;

	area = name ? mbuff_get(name) : mbuff_make_contiguous("published", SZ_1M, 0660);
	if (IS_ERR(area))
		return PTR_ERR(area);
	physical = mbuff_physical(area);
	strscpy(mbuff_address(area), "nobody wrote anything", mbuff_area_size(area));
	pr_info("published: %zu bytes at %pa\n", mbuff_area_size(area), &physical);
	return 0;
}

static void __exit published_exit(void)
{
	/* What a program has written need not end. */
	pr_info("published: the program wrote: %.*s\n",
		(int)min_t(size_t, mbuff_area_size(area), 80), (char *)mbuff_address(area));
	mbuff_put(area);
}

module_init(published_init);
module_exit(published_exit);
MODULE_DESCRIPTION("mbuff example: memory published by its physical address");
MODULE_LICENSE("GPL");
