// SPDX-License-Identifier: GPL-2.0-only
/*
 * /proc/mbuff: the version, and regions/NAME/ with a decimal number in each file, as programs that
 * watched the old module know it. Of a name '/' shows as '!', '!' and '\' as \x21 and \x5c.
 *
 * Entries come and go under the registry lock, which removing one waits under for its readers: so
 * no reader takes that lock.
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "internal.h"

#define PROC_NAME_MAX 255 /* a longer one gets no directory */

static struct proc_dir_entry *root, *regions;

static int show_version(struct seq_file *file, void *unused)
{
	seq_printf(file, "%s\n", THIS_MODULE->version);
	return 0;
}

static int show_size(struct seq_file *file, void *unused)
{
	seq_printf(file, "%llu\n", area_size(file->private));
	return 0;
}

static int show_count(struct seq_file *file, void *unused)
{
	struct mbuff_area *area = file->private;

	seq_printf(file, "%u\n", READ_ONCE(area->count));
	return 0;
}

static int show_kcount(struct seq_file *file, void *unused)
{
	struct mbuff_area *area = file->private;

	seq_printf(file, "%u\n", READ_ONCE(area->kcount));
	return 0;
}

static int show_open_cnt(struct seq_file *file, void *unused)
{
	struct mbuff_area *area = file->private;

	seq_printf(file, "%d\n", atomic_read(&area->open_cnt));
	return 0;
}

/* 1: it has been opened for reading, 2: for writing, 3: both. */
static int show_open_mode(struct seq_file *file, void *unused)
{
	struct mbuff_area *area = file->private;

	seq_printf(file, "%u\n", READ_ONCE(area->open_mode));
	return 0;
}

static const struct {
	const char *name;
	int (*show)(struct seq_file *file, void *unused);
} files[] = {
	{ "size", show_size },	       { "count", show_count },		{ "kcount", show_kcount },
	{ "open_cnt", show_open_cnt }, { "open_mode", show_open_mode },
};

static bool escape(char *to, const char *name)
{
	size_t at = 0;

	for (; *name; name++) {
		if (at + 4 > PROC_NAME_MAX)
			return false;
		if (*name == '!' || *name == '\\')
			at += sprintf(to + at, "\\x%02x", *name);
		else
			to[at++] = *name == '/' ? '!' : *name;
	}
	to[at] = 0;
	return true;
}

/* Registry lock, as below. An area without its entries is still an area: no error. */
void observe_add(struct mbuff_area *area)
{
	char name[PROC_NAME_MAX + 1];
	unsigned int at;

	if (!escape(name, area->name))
		return;
	area->proc = proc_mkdir(name, regions);
	if (!area->proc)
		return;
	for (at = 0; at < ARRAY_SIZE(files); at++)
		proc_create_single_data(files[at].name, 0444, area->proc, files[at].show, area);
}

void observe_remove(struct mbuff_area *area)
{
	proc_remove(area->proc);
	area->proc = NULL;
}

int observe_init(void)
{
	root = proc_mkdir("mbuff", NULL);
	if (!root)
		return -ENOMEM;
	regions = proc_mkdir("regions", root);
	if (!regions || !proc_create_single("version", 0444, root, show_version)) {
		proc_remove(root);
		return -ENOMEM;
	}
	return 0;
}

void observe_exit(void)
{
	proc_remove(root);
}
