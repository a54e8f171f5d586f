// SPDX-License-Identifier: GPL-2.0-only
/*
 * Named memory areas that kernel modules and programs share: the parts of the module, brought up in
 * order and taken down in reverse. Each area pins the module, so at unloading there is none.
 */
#include <linux/module.h>
#include <linux/rcupdate.h>

#include "internal.h"

static int __init mbuff_init(void)
{
	int error;

	error = areas_init();
	if (error)
		return error;
	error = contiguous_init();
	if (error)
		return error;
	error = observe_init();
	if (error)
		goto contiguous;
	error = kapi_init();
	if (error)
		goto observe;
	error = reserved_init(area_operations());
	if (error)
		goto kapi;
	error = chardev_init();
	if (error)
		goto reserved;
	reserved_is_ready();
	return 0;

reserved:
	reserved_exit();
kapi:
	kapi_exit();
observe:
	observe_exit();
contiguous:
	contiguous_exit();
	return error;
}

static void __exit mbuff_exit(void)
{
	chardev_exit();
	reserved_exit();
	kapi_exit();
	observe_exit();
	contiguous_exit();
	/*
	 * Who opens the inode of a freed area by an O_PATH descriptor may have read our operations
	 * from it, and be about to find that we are leaving. There is no sleep between the two.
	 */
	synchronize_rcu_tasks();
}

module_init(mbuff_init);
module_exit(mbuff_exit);
MODULE_DESCRIPTION("Named memory areas shared by kernel modules and programs");
MODULE_AUTHOR("mbufffs");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
MODULE_ALIAS("devname:mbuff");
