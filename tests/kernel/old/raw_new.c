/* SPDX-License-Identifier: MIT */
/* The commands of linux/mbuff.h in C, for programs of 64 and of 32 bits. The device alone. */
#include <linux/mbuff.h>

#include <poll.h>

#include "fact.h"

#define NAMED(what, text) \
	((what).name = (__u64)(unsigned long)(text), (what).name_len = sizeof(text) - 1)

static int device;

static struct mbuff_attributes attributes_of(__u64 id)
{
	struct mbuff_stat stat;

	memset(&stat, 0, sizeof(stat));
	stat.which.id = id;
	FACT(!ioctl(device, MBUFF_IOC_STAT, &stat));
	FACT(stat.attributes.id == id);
	return stat.attributes;
}

static unsigned int seen; /* kinds of events */

/* What only says "look again" may be told once for several times. */
static void read_events_up_to(int events, unsigned int kind)
{
	struct pollfd wait;
	char buffer[MBUFF_EVENT_BYTES_MAX];
	ssize_t length, at;

	wait.fd = events;
	wait.events = POLLIN;
	while (!(seen & 1U << kind)) {
		FACT(poll(&wait, 1, 60000) == 1);
		length = read(events, buffer, sizeof(buffer));
		FACT(length > 0);
		for (at = 0; at < length;) {
			struct mbuff_event *event = (struct mbuff_event *)(buffer + at);

			FACT(seen || event->kind == MBUFF_EVENT_CREATED);
			FACT(event->kind != MBUFF_EVENT_RENAMED || !memcmp(event + 1, "newold", 6));
			seen |= 1U << event->kind;
			at += event->event_len;
		}
	}
}

int main(void)
{
	struct mbuff_version version;
	struct mbuff_usage before, after;
	struct mbuff_create create;
	struct mbuff_open open_area;
	struct mbuff_resize resize;
	struct mbuff_change change;
	struct mbuff_kind kind;
	struct mbuff_rename rename;
	struct mbuff_remove remove;
	struct mbuff_list list;
	char buffer[4096], *memory;
	int other, events, fd, length;

	device = open(MBUFF_DEV_NAME, O_RDWR);
	other = open(MBUFF_DEV_NAME, O_RDWR); /* who is told */
	FACT(device >= 0 && other >= 0);
	events = ioctl(other, MBUFF_IOC_EVENTS);
	FACT(events >= 0);
	FACT(!ioctl(device, MBUFF_IOC_VERSION, &version) && version.abi == MBUFF_ABI);
	FACT(!ioctl(device, MBUFF_IOC_USAGE, &before));

	memset(&create, 0, sizeof(create));
	NAMED(create, "old");
	create.mode = 0640;
	create.uid = create.gid = ~0U;
	create.flags = MBUFF_CREATE_EXCL;
	FACT(!ioctl(device, MBUFF_IOC_CREATE, &create) && create.id);

	memset(&kind, 0, sizeof(kind));
	kind.which.id = create.id;
	kind.kind = MBUFF_KIND_PAGES;
	FACT(!ioctl(device, MBUFF_IOC_KIND, &kind));

	memset(&resize, 0, sizeof(resize));
	NAMED(resize.which, "old");
	resize.size = (__u64)PAGE + 1;
	FACT(!ioctl(device, MBUFF_IOC_RESIZE, &resize));
	FACT(attributes_of(create.id).size == resize.size);
	FACT(attributes_of(create.id).allocated == 2 * (__u64)PAGE);

	memset(&change, 0, sizeof(change));
	change.which.id = create.id;
	change.valid = MBUFF_CHANGE_MODE | MBUFF_CHANGE_MTIME;
	change.mode = 0600;
	change.mtime_ns = 1234567890123456789LL;
	FACT(!ioctl(device, MBUFF_IOC_CHANGE, &change));
	FACT((attributes_of(create.id).mode & 07777) == 0600);
	FACT(attributes_of(create.id).mtime_ns == change.mtime_ns);

	memset(&rename, 0, sizeof(rename));
	rename.from = (__u64)(unsigned long)"old";
	rename.to = (__u64)(unsigned long)"new";
	rename.from_len = rename.to_len = 3;
	FACT(!ioctl(device, MBUFF_IOC_RENAME, &rename));

	memset(&list, 0, sizeof(list));
	list.after = create.id - 1;
	list.buffer = (__u64)(unsigned long)buffer;
	list.buffer_len = sizeof(buffer);
	length = ioctl(device, MBUFF_IOC_LIST, &list);
	FACT(length > (int)sizeof(struct mbuff_entry));
	FACT(((struct mbuff_entry *)buffer)->attributes.id == create.id);
	FACT(((struct mbuff_entry *)buffer)->name_len == 3);
	FACT(!memcmp(buffer + sizeof(struct mbuff_entry), "new", 3));

	memset(&open_area, 0, sizeof(open_area));
	NAMED(open_area.which, "new");
	open_area.flags = O_RDWR | O_CLOEXEC;
	fd = ioctl(device, MBUFF_IOC_OPEN, &open_area);
	FACT(fd >= 0);
	memory = mmap(NULL, (size_t)PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	FACT(memory != MAP_FAILED);
	strcpy(memory, "the same bytes");
	FACT(read(fd, buffer, 15) == 15 && !strcmp(buffer, memory));
	munmap(memory, (size_t)PAGE);
	close(fd);

	FACT(!ioctl(device, MBUFF_IOC_NOTIFY, &open_area.which));
	FACT(attributes_of(create.id).notified == 1);
	read_events_up_to(events, MBUFF_EVENT_NOTIFIED);

	memset(&remove, 0, sizeof(remove));
	remove.which.id = create.id;
	remove.flags = MBUFF_REMOVE_HOLD;
	FACT(!ioctl(device, MBUFF_IOC_REMOVE, &remove));
	FACT(attributes_of(create.id).flags & MBUFF_IS_REMOVED);
	FACT(!ioctl(device, MBUFF_IOC_FORGET, &remove.which));
	FACT(!ioctl(device, MBUFF_IOC_USAGE, &after));
	FACT(after.areas == before.areas && after.max_bytes == before.max_bytes);

	read_events_up_to(events, MBUFF_EVENT_REMOVED);
	FACT(seen ==
	     (1U << MBUFF_EVENT_CREATED | 1U << MBUFF_EVENT_RESIZED | 1U << MBUFF_EVENT_CHANGED |
	      1U << MBUFF_EVENT_RENAMED | 1U << MBUFF_EVENT_NOTIFIED | 1U << MBUFF_EVENT_REMOVED));
	close(events);
	close(other);
	close(device);
	return 0;
}
