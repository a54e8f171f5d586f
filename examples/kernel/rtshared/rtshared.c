// SPDX-License-Identifier: GPL-2.0-only
/*
 * A real-time thread that prints what a program stores, by the old names of mbuff: as such a module
 * was written for RTLinux.
 */
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched.h>

#include <mbuff.h>

#define PERIOD_MS 500

/* Shared with rtshared_user.c: `ready` says that some_int is to be printed. */
struct shared {
	int some_int;
	char ready;
};

static struct shared *shared;
static struct task_struct *thread;

static void print_ready(void)
{
	/* Pairs with the release of the program: the number was there before. */
	if (!smp_load_acquire(&shared->ready))
		return;
	pr_info("rtshared: %d\n", READ_ONCE(shared->some_int));
	/* Now the program may store the next one. */
	smp_store_release(&shared->ready, 0);
}

static int print_numbers(void *unused)
{
	ktime_t next = ktime_get();

	while (!kthread_should_stop()) {
		print_ready();
		next = ktime_add_ms(next, PERIOD_MS);
		set_current_state(TASK_INTERRUPTIBLE);
		if (!kthread_should_stop())
			schedule_hrtimeout_range(&next, 0, HRTIMER_MODE_ABS);
		__set_current_state(TASK_RUNNING);
	}
	return 0;
}

static int __init rtshared_init(void)
{
	shared = mbuff_alloc("rtshared", sizeof(*shared));
	if (!shared)
		return -ENOMEM;
	thread = kthread_create(print_numbers, NULL, "mbuff-rtshared");
	if (IS_ERR(thread)) {
		mbuff_free("rtshared", shared);
		return PTR_ERR(thread);
	}
	sched_set_fifo(thread);
	wake_up_process(thread);
	return 0;
}

static void __exit rtshared_exit(void)
{
	kthread_stop(thread);
	/* Who waits for us goes on; its mapping stays as long as it wants. */
	print_ready();
	mbuff_free("rtshared", shared);
}

module_init(rtshared_init);
module_exit(rtshared_exit);
MODULE_DESCRIPTION("mbuff example: a real-time thread prints what a program stores");
MODULE_LICENSE("GPL");
