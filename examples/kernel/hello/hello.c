// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two messages in an area of 16 pages, and what a program wrote there, printed on unload.
 *
 * This module may go while a program has the area mapped. The memory stays as long as anybody uses
 * it, and mbuff.ko cannot be unloaded before.
 */
#include <linux/err.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/string.h>

#include <mbuff.h>

#define PAGES 16
#define LAST ((PAGES - 1) * PAGE_SIZE) /* the second message; the program answers in page 1 */

static struct mbuff_area *area;

static int __init hello_init(void)
{
	char *memory;

	area = mbuff_make("hello", PAGES * PAGE_SIZE, 0660);
	if (IS_ERR(area))
		return PTR_ERR(area);
	memory = mbuff_address(area);
	strscpy(memory, "hello from the kernel", PAGE_SIZE);
	strscpy(memory + LAST, "and this is the last page", PAGE_SIZE);
	return 0;
}

static void __exit hello_exit(void)
{
	const char *answer = mbuff_address(area) + PAGE_SIZE;

	/* A program writes what it likes, with or without a NUL. */
	pr_info("hello: the program wrote: %.*s\n", (int)strnlen(answer, 100), answer);
	mbuff_put(area);
}

module_init(hello_init);
module_exit(hello_exit);
MODULE_DESCRIPTION("mbuff example: messages between kernel and program");
MODULE_LICENSE("GPL");
