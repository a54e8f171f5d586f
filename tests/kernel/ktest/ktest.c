// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module that does with areas what a test writes to its parameter `run`, one command at a time:
 * words parted by one space. Whoever writes gets the error; `result` is what the last one gave.
 *
 *	make NAME SIZE MODE | get NAME		a reference; the result is its number
 *	contiguous NAME SIZE MODE		make, of contiguous memory
 *	put NUMBER
 *	alloc NAME SIZE | attach NAME SIZE	the old functions; ENOMEM for their NULL
 *	free NAME | detach NAME
 *	size NUMBER | address NUMBER | physical NUMBER		of a reference
 *	peek NUMBER OFFSET			the byte at the kernel's address
 *	poke NUMBER OFFSET BYTE
 *	notify NUMBER thread|hard|soft		from this thread, a hard or a soft interrupt
 *
 * NUMBER is what make, get, alloc and attach gave, up to the next put, free or detach of it.
 */
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/hrtimer.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/version.h>

#include "mbuff.h"

#define PLACES 64

/* What a number stands for; all under the lock that every parameter of a module has. */
static struct place {
	struct mbuff_area *area; /* NULL: by the old functions */
	char *name;		 /* of the old functions */
	u8 *memory;		 /* NULL: the place is free */
} places[PLACES];

static char result[64];
static struct mbuff_area *notified;
static enum hrtimer_restart on_timer(struct hrtimer *unused);
static DECLARE_COMPLETION(timer_done);

static char *make_and_fail;
module_param(make_and_fail, charp, 0444);
MODULE_PARM_DESC(make_and_fail, "Makes an area of this name at loading, and then fails to load");

static int free_place(void)
{
	int at;

	for (at = 0; at < PLACES; at++)
		if (!places[at].memory)
			return at;
	return -ENFILE;
}

static int keep(struct mbuff_area *area, const char *name, void *memory)
{
	struct place *place = &places[free_place()];

	place->area = area;
	place->memory = area ? mbuff_address(area) : memory;
	place->name = name ? kstrdup(name, GFP_KERNEL) : NULL;
	sprintf(result, "%td\n", place - places);
	return 0;
}

static int place_of(const char *word, struct place **place)
{
	unsigned int at;
	int error = kstrtouint(word, 0, &at);

	if (error)
		return error;
	if (at >= PLACES || !places[at].memory)
		return -EBADF;
	*place = &places[at];
	return 0;
}

static void forget(struct place *place)
{
	kfree(place->name);
	*place = (struct place){};
}

static int make_or_get(char **words, int count)
{
	unsigned long size = 0, mode = 0;
	struct mbuff_area *area;
	int error = free_place();

	if (error >= 0 && count == 4)
		error = kstrtoul(words[2], 0, &size);
	if (error >= 0 && count == 4)
		error = kstrtoul(words[3], 8, &mode);
	if (error < 0)
		return error;
	if (words[0][0] == 'c')
		area = mbuff_make_contiguous(words[1], size, mode);
	else
		area = count == 4 ? mbuff_make(words[1], size, mode) : mbuff_get(words[1]);
	return IS_ERR(area) ? PTR_ERR(area) : keep(area, NULL, NULL);
}

static int put(char **words, int count)
{
	struct place *place;
	int error = place_of(words[1], &place);

	if (error || !place->area)
		return error ? error : -EBADF;
	mbuff_put(place->area);
	forget(place);
	return 0;
}

static int alloc(char **words, int count)
{
	void *memory;
	int size, error = free_place();

	if (error >= 0)
		error = kstrtoint(words[2], 0, &size);
	if (error < 0)
		return error;
	memory = words[0][1] == 'l' ? mbuff_alloc(words[1], size) : mbuff_attach(words[1], size);
	return memory ? keep(NULL, words[1], memory) : -ENOMEM;
}

/* Also what is not held: the module must see to that. */
static int free_by_name(char **words, int count)
{
	void *memory = NULL;
	int at;

	for (at = 0; at < PLACES && !memory; at++)
		if (places[at].memory && places[at].name && !strcmp(places[at].name, words[1])) {
			memory = places[at].memory;
			forget(&places[at]);
		}
	if (words[0][0] == 'f')
		mbuff_free(words[1], memory);
	else
		mbuff_detach(words[1], memory);
	return 0;
}

static int size_or_address(char **words, int count)
{
	struct place *place;
	int error = place_of(words[1], &place);

	if (error || !place->area)
		return error ? error : -EBADF;
	if (words[0][0] == 's')
		sprintf(result, "%zu\n", mbuff_area_size(place->area));
	else if (words[0][0] == 'p')
		sprintf(result, "%llu\n", (u64)mbuff_physical(place->area));
	else
		sprintf(result, "%lu\n", (unsigned long)mbuff_address(place->area));
	return 0;
}

static int peek_or_poke(char **words, int count)
{
	struct place *place;
	unsigned long offset;
	u8 byte = 0;
	int error = place_of(words[1], &place);

	if (!error)
		error = kstrtoul(words[2], 0, &offset);
	if (!error && count == 4)
		error = kstrtou8(words[3], 0, &byte);
	if (error)
		return error;
	if (count == 4)
		WRITE_ONCE(place->memory[offset], byte);
	sprintf(result, "%u\n", READ_ONCE(place->memory[offset]));
	return 0;
}

static enum hrtimer_restart on_timer(struct hrtimer *unused)
{
	mbuff_notify(notified);
	complete(&timer_done);
	return HRTIMER_NORESTART;
}

static void notify_by_timer(enum hrtimer_mode mode)
{
	struct hrtimer timer;

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
	hrtimer_init_on_stack(&timer, CLOCK_MONOTONIC, mode);
	timer.function = on_timer;
#else
	hrtimer_setup_on_stack(&timer, on_timer, CLOCK_MONOTONIC, mode);
#endif
	hrtimer_start(&timer, ms_to_ktime(1), mode);
	wait_for_completion(&timer_done);
	hrtimer_cancel(&timer);
	destroy_hrtimer_on_stack(&timer);
}

static int notify(char **words, int count)
{
	struct place *place;
	int error = place_of(words[1], &place);

	if (error || !place->area)
		return error ? error : -EBADF;
	notified = place->area;
	if (!strcmp(words[2], "thread"))
		mbuff_notify(notified);
	else if (!strcmp(words[2], "hard"))
		notify_by_timer(HRTIMER_MODE_REL_HARD);
	else if (!strcmp(words[2], "soft"))
		notify_by_timer(HRTIMER_MODE_REL_SOFT);
	else
		return -EINVAL;
	return 0;
}

static const struct {
	const char *name;
	int words;
	int (*run)(char **words, int count);
} commands[] = {
	{ "make", 4, make_or_get },
	{ "contiguous", 4, make_or_get },
	{ "get", 2, make_or_get },
	{ "put", 2, put },
	{ "alloc", 3, alloc },
	{ "attach", 3, alloc },
	{ "free", 2, free_by_name },
	{ "detach", 2, free_by_name },
	{ "size", 2, size_or_address },
	{ "address", 2, size_or_address },
	{ "physical", 2, size_or_address },
	{ "peek", 3, peek_or_poke },
	{ "poke", 4, peek_or_poke },
	{ "notify", 3, notify },
};

static int run(const char *line, const struct kernel_param *unused)
{
	char *words[4], *copy = kstrdup(line, GFP_KERNEL), *rest = copy;
	int at, count = 0, error = -EINVAL;

	if (!copy)
		return -ENOMEM;
	if (strlen(rest) && rest[strlen(rest) - 1] == '\n')
		rest[strlen(rest) - 1] = 0;
	while (rest && count < ARRAY_SIZE(words))
		words[count++] = strsep(&rest, " ");
	for (at = 0; at < ARRAY_SIZE(commands) && !rest; at++)
		if (!strcmp(commands[at].name, words[0]) && commands[at].words == count) {
			error = commands[at].run(words, count);
			break;
		}
	kfree(copy);
	return error;
}

static const struct kernel_param_ops run_ops = { .set = run };

module_param_cb(run, &run_ops, NULL, 0200);
MODULE_PARM_DESC(run, "A command");
module_param_string(result, result, sizeof(result), 0444);
MODULE_PARM_DESC(result, "What the last command gave");

static int __init ktest_init(void)
{
	struct mbuff_area *area;

	if (!make_and_fail)
		return 0;
	area = mbuff_make(make_and_fail, 1, 0600);
	return IS_ERR(area) ? PTR_ERR(area) : -ENODATA;
}

/* What is still held stays so: mbuff has to see to it. */
static void __exit ktest_exit(void)
{
	int at;

	for (at = 0; at < PLACES; at++)
		kfree(places[at].name);
}

module_init(ktest_init);
module_exit(ktest_exit);
MODULE_DESCRIPTION("Drives mbuff's functions for modules from a test");
MODULE_AUTHOR("mbufffs");
MODULE_LICENSE("GPL");
