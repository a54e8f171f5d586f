// SPDX-License-Identifier: GPL-2.0-only
/*
 * /proc/mbuff: the version, and regions/NAME/ with a decimal number in each file, as programs that
 * watched the old module know it; and its kind, and where it lies. Of a name '/' shows as '!', '!'
 * and '\' as \x21 and \x5c.
 *
 * Removing an entry waits for its readers, and any user can keep a reader waiting, by memory that a
 * file system of his own provides. So a worker of its own removes them, and nobody else waits for
 * long: what is to be done is queued under the registry lock, in order, because an area may get the
 * name of one whose entry still goes.
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "internal.h"

#define PROC_NAME_MAX 255     /* a longer one gets no directory */
#define SETTLE_TIME (HZ / 20) /* that somebody waits for /proc to show what he did */

/* What /proc shows of an area. It outlives the area until its entry has gone. */
struct mbuff_observed {
	struct list_head link;	 /* in `queue`; registry lock */
	struct mbuff_area *area; /* NULL: it lost this name; registry lock and area lock */
	struct proc_dir_entry *entry;
	char name[];
};

static struct proc_dir_entry *root, *regions;
static DEFINE_SPINLOCK(area_lock);

/*
 * Registry lock: entries to come and to go, and how many were queued and done so far. While there
 * is one the module cannot go: a user could keep who unloads it waiting.
 */
static LIST_HEAD(queue);
static unsigned long queued, done;
static bool stalled; /* somebody has waited in vain: nobody else needs to */
static DECLARE_WAIT_QUEUE_HEAD(waiters);

static int show_version(struct seq_file *file, void *unused)
{
	seq_printf(file, "%s\n", THIS_MODULE->version);
	return 0;
}

static int show(struct seq_file *file, u64 (*value_of)(const struct mbuff_area *area))
{
	struct mbuff_observed *observed = file->private;
	int error = -ENOENT;

	spin_lock(&area_lock);
	if (observed->area) {
		seq_printf(file, "%llu\n", value_of(observed->area));
		error = 0;
	}
	spin_unlock(&area_lock);
	return error;
}

static int show_size(struct seq_file *file, void *unused)
{
	return show(file, area_size);
}

static u64 count_of(const struct mbuff_area *area)
{
	return READ_ONCE(area->count);
}

static int show_count(struct seq_file *file, void *unused)
{
	return show(file, count_of);
}

static u64 kcount_of(const struct mbuff_area *area)
{
	return READ_ONCE(area->kcount);
}

static int show_kcount(struct seq_file *file, void *unused)
{
	return show(file, kcount_of);
}

static u64 open_cnt_of(const struct mbuff_area *area)
{
	return atomic_read(&area->open_cnt);
}

static int show_open_cnt(struct seq_file *file, void *unused)
{
	return show(file, open_cnt_of);
}

/* 1: it has been opened for reading, 2: for writing, 3: both. */
static u64 open_mode_of(const struct mbuff_area *area)
{
	return READ_ONCE(area->open_mode);
}

static int show_open_mode(struct seq_file *file, void *unused)
{
	return show(file, open_mode_of);
}

/* For who may see addresses; 0 for others, as in /proc/PID/pagemap. */
static int show_physical(struct seq_file *file, void *unused)
{
	struct mbuff_observed *observed = file->private;
	bool may = file_ns_capable(file->file, &init_user_ns, CAP_SYS_ADMIN);
	int error = -ENOENT;

	spin_lock(&area_lock);
	if (observed->area) {
		seq_printf(file, "0x%llx\n", may ? (u64)READ_ONCE(observed->area->physical) : 0);
		error = 0;
	}
	spin_unlock(&area_lock);
	return error;
}

static int show_kind(struct seq_file *file, void *unused)
{
	static const char *const names[] = { "pages", "contiguous", "reserved" };
	struct mbuff_observed *observed = file->private;
	int error = -ENOENT;

	spin_lock(&area_lock);
	if (observed->area) {
		seq_printf(file, "%s\n", names[READ_ONCE(observed->area->kind)]);
		error = 0;
	}
	spin_unlock(&area_lock);
	return error;
}

static const struct {
	const char *name;
	int (*show)(struct seq_file *file, void *unused);
} files[] = {
	{ "kind", show_kind },		 { "phys", show_physical }, { "size", show_size },
	{ "count", show_count },	 { "kcount", show_kcount }, { "open_cnt", show_open_cnt },
	{ "open_mode", show_open_mode },
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

static void add_entry(struct mbuff_observed *observed)
{
	unsigned int at;

	observed->entry = proc_mkdir(observed->name, regions);
	if (!observed->entry)
		return;
	for (at = 0; at < ARRAY_SIZE(files); at++)
		proc_create_single_data(files[at].name, 0444, observed->entry, files[at].show,
					observed);
}

static void settle(struct work_struct *work)
{
	struct mbuff_observed *observed;
	bool gone = false;

	for (;;) {
		mutex_lock(&registry_lock);
		observed = list_first_entry_or_null(&queue, struct mbuff_observed, link);
		if (observed) {
			list_del_init(&observed->link);
			gone = !observed->area;
		}
		mutex_unlock(&registry_lock);
		if (!observed)
			return;
		/* From here on one that goes is queued again. */
		if (gone) {
			proc_remove(observed->entry);
			kfree(observed);
		} else {
			add_entry(observed);
		}
		/* Before anybody is told, who may unload us; observe_exit() waits for the rest. */
		module_put(THIS_MODULE);
		mutex_lock(&registry_lock);
		WRITE_ONCE(done, done + 1);
		mutex_unlock(&registry_lock);
		WRITE_ONCE(stalled, false);
		wake_up_all(&waiters);
	}
}

static DECLARE_WORK(worker, settle);

/* Registry lock. */
static void enqueue(struct mbuff_observed *observed)
{
	list_add_tail(&observed->link, &queue);
	WRITE_ONCE(queued, queued + 1);
	__module_get(THIS_MODULE);
	queue_work(system_unbound_wq, &worker);
}

/* Registry lock, as below. An area without its entries is still an area: no error. */
void observe_add(struct mbuff_area *area)
{
	char name[PROC_NAME_MAX + 1];
	struct mbuff_observed *observed;
	size_t len;

	if (!escape(name, area->name))
		return;
	len = strlen(name) + 1;
	observed = kzalloc(struct_size(observed, name, len), GFP_KERNEL_ACCOUNT);
	if (!observed)
		return;
	memcpy(observed->name, name, len);
	INIT_LIST_HEAD(&observed->link);
	observed->area = area;
	area->observed = observed;
	if (queued == done)
		add_entry(observed);
	else
		enqueue(observed);
}

void observe_remove(struct mbuff_area *area)
{
	struct mbuff_observed *observed = area->observed;

	if (!observed)
		return;
	area->observed = NULL;
	spin_lock(&area_lock);
	observed->area = NULL;
	spin_unlock(&area_lock);
	if (list_empty(&observed->link)) {
		enqueue(observed);
		return;
	}
	/* It has not come yet. */
	list_del(&observed->link);
	kfree(observed);
	WRITE_ONCE(done, done + 1);
	module_put(THIS_MODULE);
}

/* Without locks: waits until /proc shows what the caller did, but not for ever. */
void observe_settle(void)
{
	unsigned long until = READ_ONCE(queued);

	if (!READ_ONCE(stalled) &&
	    !wait_event_timeout(waiters, (long)(READ_ONCE(done) - until) >= 0, SETTLE_TIME))
		WRITE_ONCE(stalled, true);
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
	flush_work(&worker);
	proc_remove(root);
}
