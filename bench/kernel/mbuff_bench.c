// SPDX-License-Identifier: GPL-2.0-only
/*
 * Times what a module does. A test program writes to the parameter `run` what is to be done, with
 * bytes and how often, and finds in `result` the nanoseconds that all of it took:
 *
 *	area SIZE COUNT		mbuff_make() and mbuff_put()
 *	vmalloc SIZE COUNT	vzalloc() and vfree(), which give zeroed pages in one piece, too
 */
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "mbuff.h"

static unsigned long long result;

static int once_area(size_t size)
{
	struct mbuff_area *area = mbuff_make("mbuff-bench", size, 0600);

	if (IS_ERR(area))
		return PTR_ERR(area);
	mbuff_put(area);
	return 0;
}

static int once_vmalloc(size_t size)
{
	void *memory = vzalloc(size);

	vfree(memory);
	return memory ? 0 : -ENOMEM;
}

static int run(const char *line, const struct kernel_param *unused)
{
	int (*once)(size_t size), error = 0;
	unsigned int count;
	size_t size;
	char what[16];
	u64 begin;

	if (sscanf(line, "%15s %zu %u", what, &size, &count) != 3)
		return -EINVAL;
	if (!strcmp(what, "area"))
		once = once_area;
	else if (!strcmp(what, "vmalloc"))
		once = once_vmalloc;
	else
		return -EINVAL;
	begin = ktime_get_ns();
	while (count-- && !error) {
		error = once(size);
		cond_resched();
	}
	result = ktime_get_ns() - begin;
	return error;
}

static const struct kernel_param_ops run_ops = { .set = run };

module_param_cb(run, &run_ops, NULL, 0200);
MODULE_PARM_DESC(run, "area or vmalloc, bytes, how often");
module_param(result, ullong, 0444);
MODULE_PARM_DESC(result, "nanoseconds that the last run took");

MODULE_DESCRIPTION("Times what a module does with areas, beside vmalloc");
MODULE_AUTHOR("mbufffs");
MODULE_LICENSE("GPL");
