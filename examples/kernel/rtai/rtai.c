// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module of RTAI's shared memory, by its old names: it shares a block with programs under a name
 * of six characters, and prints what one of them has stored.
 */
#include <linux/module.h>

#include <rtai_shm.h>

#define BLOCK 4096

static int *shared;

static int __init rtai_init(void)
{
	shared = rtai_kmalloc(nam2num("SHMBLK"), BLOCK);
	if (!shared)
		return -ENOMEM;
	WRITE_ONCE(shared[0], 42);
	return 0;
}

static void __exit rtai_exit(void)
{
	pr_info("rtai: the program stored %d\n", READ_ONCE(shared[1]));
	rtai_kfree(nam2num("SHMBLK"));
}

module_init(rtai_init);
module_exit(rtai_exit);
MODULE_DESCRIPTION("mbuff example: a module that was written for RTAI's shared memory");
MODULE_LICENSE("GPL");
