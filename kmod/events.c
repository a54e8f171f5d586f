// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who is told of what: the stream of events for who serves areas to others.
 *
 * What happens to areas is queued for each listener. Notifications come from any context, where
 * nothing can be allocated: areas are kept in the order of their last notification, and a listener
 * remembers how far it has read, so many of one area become one event.
 */
#include <linux/anon_inodes.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

/* A listener that is further behind has to list anew. */
#define QUEUE_MAX 65536
#define QUEUE_BYTES_MAX SZ_8M	     /* long names */
#define QUEUE_BYTES_OF_USERS SZ_256K /* without CAP_SYS_ADMIN, who can have many listeners */
#define READ_MAX SZ_1M		     /* bytes that one read gives, and lseek(2) can ask for again */
#define LISTENERS_MAX 256	     /* but for CAP_SYS_ADMIN: each costs others time and memory */
#define BATCH 32		     /* notifications read at once */

struct queued {
	struct list_head link;
	struct mbuff_event event;
	char name[];
};

struct listener {
	struct list_head link; /* in the order of their numbers */
	u64 number;
	u64 by; /* the session that is not told what it did itself */
	wait_queue_head_t waiters;
	struct mutex reading;	/* one reader at a time, with the two below */
	struct list_head taken; /* what the last read gave */
	bool lost_taken;
	size_t bytes_max;
	u64 seen; /* notifications up to here; notify lock */

	/* Queue lock. */
	struct list_head queue;
	unsigned int queued;
	size_t queued_bytes;
	bool lost;
};

/* Who is there, and their queues. */
static DEFINE_SPINLOCK(queue_lock);
static LIST_HEAD(listeners);
static unsigned int listener_count;
static u64 next_number = 1;

/* Areas by their last notification; also taken in interrupts. Inside the queue lock. */
static DEFINE_SPINLOCK(notify_lock);
static struct rb_root notified_areas = RB_ROOT;
static u64 notified_at;

static bool queue_is_empty(struct listener *listener)
{
	return list_empty(&listener->queue) && !listener->lost;
}

static void free_all(struct list_head *queue)
{
	struct queued *queued, *next;

	list_for_each_entry_safe(queued, next, queue, link)
		kfree(queued);
	INIT_LIST_HEAD(queue);
}

static struct queued *make(struct mbuff_area *area, unsigned int kind, const char *old_name)
{
	bool named = kind == MBUFF_EVENT_CREATED || kind == MBUFF_EVENT_REMOVED ||
		     kind == MBUFF_EVENT_RENAMED;
	size_t name_len = named ? area->name_len : 0;
	size_t old_name_len = old_name ? strlen(old_name) : 0;
	size_t size = ALIGN(sizeof(struct mbuff_event) + name_len + old_name_len, 8);
	struct queued *queued;

	queued = kzalloc(sizeof(*queued) + size - sizeof(struct mbuff_event), GFP_KERNEL_ACCOUNT);
	if (!queued)
		return NULL;
	queued->event.event_len = size;
	queued->event.kind = kind;
	queued->event.id = area->id;
	queued->event.notified = atomic64_read(&area->notified);
	queued->event.name_len = name_len;
	queued->event.old_name_len = old_name_len;
	if (name_len)
		memcpy(queued->name, area->name, name_len);
	if (old_name_len)
		memcpy(queued->name + name_len, old_name, old_name_len);
	return queued;
}

/* Nobody is told twice of what only says "look again". */
static bool is_last(struct listener *listener, const struct queued *queued)
{
	struct queued *last = list_last_entry(&listener->queue, struct queued, link);

	return !list_empty(&listener->queue) && !queued->event.name_len &&
	       last->event.kind == queued->event.kind && last->event.id == queued->event.id;
}

static bool is_full(const struct listener *listener)
{
	return listener->queued >= QUEUE_MAX || listener->queued_bytes >= listener->bytes_max;
}

/*
 * It has missed something, and so can miss all. What it loses is left in `garbage`: it may be too
 * much to free under the lock.
 */
static void lose(struct listener *listener, struct list_head *garbage)
{
	list_splice_init(&listener->queue, garbage);
	listener->queued = 0;
	listener->queued_bytes = 0;
	listener->lost = true;
}

/* Queues `queued` for `listener` and takes it; NULL says that there was no memory for it. */
static void enqueue(struct listener *listener, struct queued *queued, struct list_head *garbage)
{
	if (queued && !listener->lost && is_last(listener, queued)) {
		kfree(queued);
		return;
	}
	if (!queued || listener->lost || is_full(listener)) {
		kfree(queued);
		lose(listener, garbage);
	} else {
		list_add_tail(&queued->link, &listener->queue);
		listener->queued++;
		listener->queued_bytes += queued->event.event_len;
	}
	wake_up_interruptible(&listener->waiters);
}

static void tell(struct mbuff_area *area, unsigned int kind, const char *old_name, u64 by)
{
	struct listener *listener;
	LIST_HEAD(garbage);
	u64 told = 0;

	if (!READ_ONCE(listener_count))
		return;
	for (;;) {
		struct queued *queued = make(area, kind, old_name);
		bool done = true;

		/* One at a time, because nothing can be allocated under the lock. */
		spin_lock(&queue_lock);
		list_for_each_entry(listener, &listeners, link) {
			if (listener->number <= told || listener->by == by)
				continue;
			told = listener->number;
			enqueue(listener, queued, &garbage);
			queued = NULL;
			done = list_is_last(&listener->link, &listeners);
			break;
		}
		spin_unlock(&queue_lock);
		kfree(queued);
		free_all(&garbage);
		if (done)
			return;
	}
}

/*
 * Tells all listeners but the session `by`; may sleep. Of what was created or removed under the
 * registry lock, for its name.
 */
void events_tell(struct mbuff_area *area, unsigned int kind, u64 by)
{
	tell(area, kind, NULL, by);
}

/* Registry lock. */
void events_tell_renamed(struct mbuff_area *area, const char *old_name, u64 by)
{
	tell(area, MBUFF_EVENT_RENAMED, old_name, by);
}

/* A write through FUSE: who serves it knows, so it is news only if there are several. */
void events_tell_growth(struct mbuff_area *area)
{
	if (READ_ONCE(listener_count) > 1)
		events_tell(area, MBUFF_EVENT_RESIZED, 0);
}

/* Notifications */

static void on_wake(struct irq_work *wake)
{
	events_wake(container_of(wake, struct mbuff_area, wake));
}

void events_area_init(struct mbuff_area *area)
{
	init_irq_work(&area->wake, on_wake);
	RB_CLEAR_NODE(&area->notified_node);
}

void events_area_gone(struct mbuff_area *area)
{
	/* On PREEMPT_RT it waits for a grace period, even for what was never queued. */
	if (atomic64_read(&area->notified))
		irq_work_sync(&area->wake);
	spin_lock_irq(&notify_lock);
	if (!RB_EMPTY_NODE(&area->notified_node))
		rb_erase(&area->notified_node, &notified_areas);
	spin_unlock_irq(&notify_lock);
}

/* The notification is counted already; from a thread, or the interrupt that irq_work comes with. */
void events_wake(struct mbuff_area *area)
{
	struct listener *listener;
	struct rb_node *last;
	unsigned long flags;

	spin_lock_irqsave(&notify_lock, flags);
	if (!RB_EMPTY_NODE(&area->notified_node))
		rb_erase(&area->notified_node, &notified_areas);
	area->notified_at = ++notified_at;
	last = rb_last(&notified_areas);
	rb_link_node(&area->notified_node, last, last ? &last->rb_right : &notified_areas.rb_node);
	rb_insert_color(&area->notified_node, &notified_areas);
	/* Listeners come and go under this lock too. */
	list_for_each_entry(listener, &listeners, link)
		wake_up_interruptible(&listener->waiters);
	spin_unlock_irqrestore(&notify_lock, flags);
}

static struct mbuff_area *notified_area(struct rb_node *node)
{
	return rb_entry(node, struct mbuff_area, notified_node);
}

static bool has_notifications(struct listener *listener)
{
	struct rb_node *last;
	unsigned long flags;
	bool has;

	spin_lock_irqsave(&notify_lock, flags);
	last = rb_last(&notified_areas);
	has = last && notified_area(last)->notified_at > listener->seen;
	spin_unlock_irqrestore(&notify_lock, flags);
	return has;
}

/* The oldest that the listener has not seen, at most `count`. */
static unsigned int take_notifications(struct listener *listener, struct mbuff_event *events,
				       unsigned int count)
{
	struct rb_node *at, *first = NULL;
	unsigned long flags;
	unsigned int taken = 0;

	spin_lock_irqsave(&notify_lock, flags);
	for (at = notified_areas.rb_node; at;) {
		bool unseen = notified_area(at)->notified_at > listener->seen;

		if (unseen)
			first = at;
		at = unseen ? at->rb_left : at->rb_right;
	}
	for (at = first; at && taken < count; at = rb_next(at)) {
		struct mbuff_area *area = notified_area(at);

		events[taken++] = (struct mbuff_event){
			.event_len = sizeof(struct mbuff_event),
			.kind = MBUFF_EVENT_NOTIFIED,
			.id = area->id,
			.notified = atomic64_read(&area->notified),
		};
		listener->seen = area->notified_at;
	}
	spin_unlock_irqrestore(&notify_lock, flags);
	return taken;
}

/* The file of a listener */

/* NULL with `full` if there is one that needs more room. */
static struct queued *take_queued(struct listener *listener, size_t room, bool *lost, bool *full)
{
	struct queued *queued = NULL;

	spin_lock(&queue_lock);
	*lost = listener->lost;
	if (!listener->lost && !list_empty(&listener->queue)) {
		queued = list_first_entry(&listener->queue, struct queued, link);
		if (queued->event.event_len > room) {
			queued = NULL;
			*full = true;
		} else {
			list_del(&queued->link);
			listener->queued--;
			listener->queued_bytes -= queued->event.event_len;
		}
	}
	if (room >= sizeof(struct mbuff_event))
		listener->lost = false;
	spin_unlock(&queue_lock);
	return queued;
}

/* Events that are there now, in bytes; 0 if there is none, -EINVAL if the first has no room. */
static ssize_t read_some(struct listener *listener, char __user *buffer, size_t len)
{
	struct mbuff_event notified[BATCH];
	struct queued *queued;
	size_t done = 0;
	unsigned int count;
	bool full = false;
	bool lost;

	for (;;) {
		queued = take_queued(listener, len - done, &lost, &full);
		if (lost && len - done >= sizeof(struct mbuff_event)) {
			struct mbuff_event event = {
				.event_len = sizeof(event),
				.kind = MBUFF_EVENT_LOST,
			};

			listener->lost_taken = true;
			if (copy_to_user(buffer + done, &event, sizeof(event)))
				return -EFAULT;
			free_all(&listener->taken);
			done += sizeof(event);
			continue;
		}
		if (!queued)
			break;
		list_add_tail(&queued->link, &listener->taken);
		if (copy_to_user(buffer + done, &queued->event, queued->event.event_len))
			return -EFAULT;
		done += queued->event.event_len;
	}
	count = min_t(size_t, BATCH, (len - done) / sizeof(*notified));
	if (count)
		count = take_notifications(listener, notified, count);
	if (copy_to_user(buffer + done, notified, count * sizeof(*notified)))
		return -EFAULT;
	done += count * sizeof(*notified);
	if (done)
		return done;
	/* Else the caller would wait for what is there already. */
	return full || len < sizeof(struct mbuff_event) ? -EINVAL : 0;
}

static bool is_readable(struct listener *listener)
{
	bool readable;

	spin_lock(&queue_lock);
	readable = !queue_is_empty(listener);
	spin_unlock(&queue_lock);
	return readable || has_notifications(listener);
}

static ssize_t events_read(struct file *file, char __user *buffer, size_t len, loff_t *offset)
{
	struct listener *listener = file->private_data;
	ssize_t result;

	if (mutex_lock_interruptible(&listener->reading))
		return -ERESTARTSYS;
	/* Who reads on has done with what he read before. */
	free_all(&listener->taken);
	listener->lost_taken = false;
	for (;;) {
		result = read_some(listener, buffer, min_t(size_t, len, READ_MAX));
		if (result)
			break;
		result = -EAGAIN;
		if (file->f_flags & O_NONBLOCK)
			break;
		result = wait_event_interruptible(listener->waiters, is_readable(listener));
		if (result)
			break;
	}
	mutex_unlock(&listener->reading);
	return result;
}

/*
 * To the start: what the last read gave is given again, to a reader who follows one that was killed
 * over it.
 */
static loff_t events_llseek(struct file *file, loff_t offset, int whence)
{
	struct listener *listener = file->private_data;
	struct queued *queued;
	LIST_HEAD(garbage);

	if (offset || whence != SEEK_SET)
		return -EINVAL;
	if (mutex_lock_interruptible(&listener->reading))
		return -ERESTARTSYS;
	spin_lock(&queue_lock);
	list_for_each_entry(queued, &listener->taken, link) {
		listener->queued++;
		listener->queued_bytes += queued->event.event_len;
	}
	list_splice_init(&listener->taken, &listener->queue);
	listener->lost |= listener->lost_taken;
	listener->lost_taken = false;
	/* What was read made room for more, and now both are too much. */
	if (is_full(listener))
		lose(listener, &garbage);
	spin_unlock(&queue_lock);
	free_all(&garbage);
	mutex_unlock(&listener->reading);
	return 0;
}

static __poll_t events_poll(struct file *file, poll_table *wait)
{
	struct listener *listener = file->private_data;

	poll_wait(file, &listener->waiters, wait);
	return is_readable(listener) ? EPOLLIN | EPOLLRDNORM : 0;
}

static void listener_free(struct listener *listener)
{
	spin_lock(&queue_lock);
	spin_lock_irq(&notify_lock);
	list_del(&listener->link);
	WRITE_ONCE(listener_count, listener_count - 1);
	spin_unlock_irq(&notify_lock);
	spin_unlock(&queue_lock);
	free_all(&listener->taken);
	free_all(&listener->queue);
	kfree(listener);
}

static int events_release(struct inode *inode, struct file *file)
{
	listener_free(file->private_data);
	return 0;
}

static const struct file_operations events_fops = {
	.owner = THIS_MODULE,
	.read = events_read,
	.llseek = events_llseek,
	.poll = events_poll,
	.release = events_release,
};

/* A descriptor from which all is read that others than the session `by` do from now on. */
int events_open(u64 by)
{
	struct listener *listener;
	int fd;

	if (READ_ONCE(listener_count) >= LISTENERS_MAX && !capable(CAP_SYS_ADMIN))
		return -EUSERS;
	listener = kzalloc(sizeof(*listener), GFP_KERNEL_ACCOUNT);
	if (!listener)
		return -ENOMEM;
	listener->by = by;
	listener->bytes_max = capable(CAP_SYS_ADMIN) ? QUEUE_BYTES_MAX : QUEUE_BYTES_OF_USERS;
	init_waitqueue_head(&listener->waiters);
	mutex_init(&listener->reading);
	INIT_LIST_HEAD(&listener->taken);
	INIT_LIST_HEAD(&listener->queue);
	spin_lock(&queue_lock);
	spin_lock_irq(&notify_lock);
	listener->number = next_number++;
	listener->seen = notified_at;
	list_add_tail(&listener->link, &listeners);
	WRITE_ONCE(listener_count, listener_count + 1);
	spin_unlock_irq(&notify_lock);
	spin_unlock(&queue_lock);
	fd = anon_inode_getfd("[mbuff-events]", &events_fops, listener, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		listener_free(listener);
	return fd;
}
