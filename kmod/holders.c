// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who is counted as a holder of an area: a module, or for NULL the calling process.
 */
#include <linux/module.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "internal.h"

#define ENDED_NAMES_MAX 64

static struct mbuff_holder *holder_of(struct mbuff_area *area, struct module *module)
{
	struct mbuff_holder *holder;

	list_for_each_entry(holder, &area->holders, link)
		if (module ? holder->module == module : holder->pid == task_tgid(current))
			return holder;
	return NULL;
}

/* Whether the process that is counted has ended. */
bool holder_has_ended(const struct mbuff_holder *holder)
{
	bool ended;

	rcu_read_lock();
	ended = !holder->module && !pid_task(holder->pid, PIDTYPE_TGID);
	rcu_read_unlock();
	return ended;
}

/* Those that have ended, one for each name. */
static unsigned int ended_names(struct mbuff_area *area)
{
	struct mbuff_holder *holder;
	unsigned int count = 0;

	list_for_each_entry(holder, &area->holders, link)
		count += !holder->module && !holder->pid;
	return count;
}

static struct mbuff_holder *ended_of(struct mbuff_area *area, const char *name)
{
	struct mbuff_holder *holder;

	list_for_each_entry(holder, &area->holders, link)
		if (!holder->module && !holder->pid && !strcmp(holder->name, name))
			return holder;
	return NULL;
}

/*
 * Those who ended without freeing are still counted, for ever if nobody frees for them: as one
 * holder for each program, so that they do not become more and more.
 */
static void merge_ended(struct mbuff_area *area)
{
	struct mbuff_holder *holder, *next, *same;
	LIST_HEAD(merged);

	list_for_each_entry_safe(holder, next, &area->holders, link) {
		if (!holder->pid || !holder_has_ended(holder))
			continue;
		same = ended_of(area, holder->name);
		if (!same && ended_names(area) >= ENDED_NAMES_MAX) {
			strscpy(holder->name, "(others)", sizeof(holder->name));
			same = ended_of(area, holder->name);
		}
		put_pid(holder->pid);
		holder->pid = NULL;
		if (!same)
			continue;
		same->count += holder->count;
		list_move(&holder->link, &merged);
	}
	list_for_each_entry_safe(holder, next, &merged, link)
		kfree(holder);
}

int holders_add_locked(struct mbuff_area *area, struct module *module)
{
	struct mbuff_holder *holder = holder_of(area, module);
	char command[TASK_COMM_LEN];

	if (area->count == UINT_MAX || area->kcount == UINT_MAX)
		return -EOVERFLOW;
	if (!holder) {
		merge_ended(area);
		holder = kzalloc(sizeof(*holder), GFP_KERNEL_ACCOUNT);
		if (!holder)
			return -ENOMEM;
		if (module) {
			holder->module = module;
			strscpy(holder->name, module_name(module), sizeof(holder->name));
		} else {
			holder->pid = get_pid(task_tgid(current));
			get_task_comm(command, current->group_leader);
			strscpy(holder->name, command, sizeof(holder->name));
		}
		list_add_tail(&holder->link, &area->holders);
	}
	holder->count++;
	if (module)
		WRITE_ONCE(area->kcount, area->kcount + 1);
	else
		WRITE_ONCE(area->count, area->count + 1);
	return 0;
}

static void drop(struct mbuff_area *area, struct mbuff_holder *holder, unsigned int count)
{
	if (holder->module)
		WRITE_ONCE(area->kcount, area->kcount - count);
	else
		WRITE_ONCE(area->count, area->count - count);
	holder->count -= count;
	if (holder->count)
		return;
	list_del(&holder->link);
	put_pid(holder->pid);
	kfree(holder);
}

/*
 * Drops one count; EINVAL if there is none. A process may free what another one allocated: areas
 * outlive the programs that made them. `left`: the size, 0 if the area is gone.
 */
int holders_release(struct mbuff_area *area, struct module *module, u64 *left)
{
	struct mbuff_holder *holder, *other;
	bool gone = false;
	int error = 0;

	mutex_lock(&registry_lock);
	holder = holder_of(area, module);
	if (!holder && !module)
		list_for_each_entry(other, &area->holders, link)
			if (!other->module) {
				holder = other;
				break;
			}
	if (holder) {
		drop(area, holder, 1);
		gone = registry_reap_locked(area);
	} else {
		error = -EINVAL;
	}
	mutex_unlock(&registry_lock);
	if (error)
		return error;
	if (module)
		area_unmap(area);
	*left = gone ? 0 : area_size(area);
	if (gone) {
		observe_settle();
		area_put(area);
	}
	return 0;
}

/* Of an area that never got its name, or goes with the module. */
void holders_drop_all(struct mbuff_area *area)
{
	struct mbuff_holder *holder, *next;

	mutex_lock(&registry_lock);
	list_for_each_entry_safe(holder, next, &area->holders, link)
		drop(area, holder, holder->count);
	mutex_unlock(&registry_lock);
}

/* What a module left behind when it went. */
void holders_release_all(struct module *module)
{
	struct mbuff_holder *holder;
	struct mbuff_area *area;
	unsigned int count;
	u64 id, left;

	for (area = registry_after(0); area; area = registry_after(id)) {
		id = area->id;
		mutex_lock(&registry_lock);
		holder = area->kcount ? holder_of(area, module) : NULL;
		count = holder ? holder->count : 0;
		/* What is held has a name. */
		if (count)
			pr_warn("mbuff: %s left without freeing area %s\n", holder->name,
				area->name);
		mutex_unlock(&registry_lock);
		/* Each count has a reference. */
		while (count--) {
			holders_release(area, module, &left);
			area_put(area);
		}
		area_put(area);
	}
}
