// SPDX-License-Identifier: GPL-2.0-only
/*
 * A kernel thread that counts in the area "counter", for programs that watch it by path.
 *
 * The counter is the first 8 bytes, little-endian, as in the examples for user space. A program may
 * set it to another value; the count that is under way then may win.
 */
#include <linux/err.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/module.h>

#include <mbuff.h>

static unsigned int period_us = 100;
module_param(period_us, uint, 0644);
MODULE_PARM_DESC(period_us, "Microseconds from one count to the next; 0: without a pause");

static unsigned int notify_every = 1000;
module_param(notify_every, uint, 0644);
MODULE_PARM_DESC(notify_every,
		 "Counts after which those who wait for the area are woken; 0: never");

static struct mbuff_area *area;
static struct task_struct *thread;

/* Ends early when the module is unloaded. */
static void pause_for(unsigned int us)
{
	ktime_t time = ns_to_ktime((u64)us * NSEC_PER_USEC);

	set_current_state(TASK_INTERRUPTIBLE);
	if (!kthread_should_stop())
		schedule_hrtimeout_range(&time, 0, HRTIMER_MODE_REL);
	__set_current_state(TASK_RUNNING);
}

static int count(void *memory)
{
	__le64 *counter = memory;
	unsigned int since = 0;

	while (!kthread_should_stop()) {
		unsigned int us = READ_ONCE(period_us), every = READ_ONCE(notify_every);

		/* One store: nobody sees half of a number. */
		WRITE_ONCE(*counter, cpu_to_le64(le64_to_cpu(READ_ONCE(*counter)) + 1));
		if (every && ++since >= every) {
			mbuff_notify(area);
			since = 0;
		}
		if (us)
			pause_for(us);
		else
			cond_resched();
	}
	return 0;
}

static int __init counter_init(void)
{
	area = mbuff_make("counter", PAGE_SIZE, 0664);
	if (IS_ERR(area))
		return PTR_ERR(area);
	thread = kthread_run(count, mbuff_address(area), "mbuff-counter");
	if (IS_ERR(thread)) {
		mbuff_put(area);
		return PTR_ERR(thread);
	}
	return 0;
}

static void __exit counter_exit(void)
{
	kthread_stop(thread);
	mbuff_put(area);
}

module_init(counter_init);
module_exit(counter_exit);
MODULE_DESCRIPTION("mbuff example: a kernel thread counts in an area");
MODULE_LICENSE("GPL");
