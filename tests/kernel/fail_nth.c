// SPDX-License-Identifier: MIT
// fail_nth OPERATION: does it again and again, and lets its first, second, third ... allocation (or
// copy from or to us) fail, until none is left. Prints how many failed. For kernels with fault
// injection. What fails must say ENOMEM or EFAULT and leave nothing: the test looks at that.
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mbuff.h>

#include <linux/mbuff.h>

#define SIZE (3 * 4096)
#define POINTS_MAX 2000

static int device, other, fail, ktest, file = -1, listener = -1;

static int by_ktest(const char *command)
{
	return write(ktest, command, strlen(command)) < 0 ? -1 : 0;
}

static int create(void)
{
	struct mbuff_create request = {
		.name = (uintptr_t) "a/failing",
		.name_len = 9,
		.flags = MBUFF_CREATE_EXCL,
		.size = SIZE,
		.mode = 0600,
		.uid = ~0U,
		.gid = ~0U,
	};

	return ioctl(device, MBUFF_IOC_CREATE, &request);
}

static struct mbuff_which the_area(void)
{
	return (struct mbuff_which){ .name = (uintptr_t) "a/failing", .name_len = 9 };
}

static int remove_area(void)
{
	struct mbuff_remove request = { .which = the_area() };

	return ioctl(device, MBUFF_IOC_REMOVE, &request);
}

static int open_area(void)
{
	struct mbuff_open request = { .which = the_area(), .flags = O_RDWR };
	int fd = ioctl(device, MBUFF_IOC_OPEN, &request);

	return fd < 0 ? -1 : close(fd);
}

static int resize_to(__u64 size)
{
	struct mbuff_resize request = { .which = the_area(), .size = size };

	return ioctl(device, MBUFF_IOC_RESIZE, &request);
}

static int resize(void)
{
	return resize_to(4 * SIZE);
}

// With the file open that the next ones use.
static int create_open(void)
{
	struct mbuff_open request = { .which = the_area(), .flags = O_RDWR };

	if (create())
		return -1;
	file = ioctl(device, MBUFF_IOC_OPEN, &request);
	return file < 0 ? -1 : 0;
}

static int close_remove(void)
{
	return close(file) | remove_area();
}

// A write that has come to its end too soon has failed, with the errno that the rest would give.
static int write_behind(void)
{
	static char content[SIZE];
	ssize_t written = pwrite(file, content, SIZE, SIZE);

	if (written > 0 && written < SIZE)
		errno = ENOMEM;
	return written == SIZE ? 0 : -1;
}

static int allocate_behind(void)
{
	return fallocate(file, 0, 0, 4 * SIZE);
}

static int truncate_back(void)
{
	return ftruncate(file, SIZE);
}

static int truncate_whole(void)
{
	return ftruncate(file, 5 * SIZE);
}

static int change(void)
{
	struct mbuff_change request = {
		.which = the_area(),
		.valid = MBUFF_CHANGE_MODE,
		.mode = 0640,
	};

	return ioctl(device, MBUFF_IOC_CHANGE, &request);
}

static int rename_to(const char *from, const char *to, __u32 flags)
{
	struct mbuff_rename request = {
		.from = (uintptr_t)from,
		.to = (uintptr_t)to,
		.from_len = (__u32)strlen(from),
		.to_len = (__u32)strlen(to),
		.flags = flags,
	};

	return ioctl(device, MBUFF_IOC_RENAME, &request);
}

static int rename_area(void)
{
	return rename_to("a/failing", "b/failing", 0);
}

static int rename_tree(void)
{
	return rename_to("a", "b", MBUFF_RENAME_TREE);
}

static int rename_back(void)
{
	return rename_to("b/failing", "a/failing", 0);
}

static int stat_area(void)
{
	static struct mbuff_owner owners[4];
	struct mbuff_stat request = {
		.which = the_area(),
		.owners = (uintptr_t)owners,
		.owners_max = 4,
	};

	return ioctl(device, MBUFF_IOC_STAT, &request);
}

static int list(void)
{
	static char buffer[65536];
	struct mbuff_list request = { .buffer = (uintptr_t)buffer, .buffer_len = sizeof(buffer) };

	return ioctl(device, MBUFF_IOC_LIST, &request) < 0 ? -1 : 0;
}

static int events(void)
{
	int fd = ioctl(device, MBUFF_IOC_EVENTS);

	return fd < 0 ? -1 : close(fd);
}

// By another session than the listener's, which is told of it.
static int listen_create(void)
{
	listener = ioctl(other, MBUFF_IOC_EVENTS);
	return listener < 0 ? -1 : create();
}

static int read_events(void)
{
	static char buffer[MBUFF_EVENT_BYTES_MAX];

	return read(listener, buffer, sizeof(buffer)) < 0 ? -1 : 0;
}

static int close_listener(void)
{
	return close(listener) | remove_area();
}

static int remove_hold(void)
{
	struct mbuff_remove request = { .which = the_area(), .flags = MBUFF_REMOVE_HOLD };

	return ioctl(device, MBUFF_IOC_REMOVE, &request);
}

static int forget_create(void)
{
	static char buffer[sizeof(struct mbuff_entry) + 8];
	struct mbuff_list held = {
		.buffer = (uintptr_t)buffer,
		.buffer_len = sizeof(buffer),
		.flags = MBUFF_LIST_HELD,
	};
	struct mbuff_which which = { 0 };

	if (ioctl(device, MBUFF_IOC_LIST, &held) <= 0)
		return -1;
	which.id = ((struct mbuff_entry *)buffer)->attributes.id;
	return ioctl(device, MBUFF_IOC_FORGET, &which) ? -1 : create();
}

static int notify(void)
{
	struct mbuff_which which = the_area();

	return ioctl(device, MBUFF_IOC_NOTIFY, &which);
}

static int old(unsigned long command)
{
	struct mbuff_request_struct request = { 0, "a/failing", SIZE, { 0 } };

	return ioctl(other, command, &request) < 0 ? -1 : 0;
}

static int allocate(void)
{
	return old(IOCTL_MBUFF_ALLOCATE);
}

static int deallocate(void)
{
	return old(IOCTL_MBUFF_DEALLOCATE);
}

static int map(void)
{
	void *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);

	return memory == MAP_FAILED ? -1 : munmap(memory, SIZE);
}

static int make(void)
{
	return by_ktest("make a/failing 12288 600");
}

static int make_contiguous(void)
{
	return by_ktest("contiguous a/failing 12288 600");
}

// Without memory yet, and of the other kind.
static int create_empty(void)
{
	struct mbuff_create request = {
		.name = (uintptr_t) "a/failing",
		.name_len = 9,
		.flags = MBUFF_CREATE_EXCL | MBUFF_CREATE_CONTIGUOUS,
		.mode = 0600,
		.uid = ~0U,
		.gid = ~0U,
	};

	return ioctl(device, MBUFF_IOC_CREATE, &request);
}

static int fill_contiguous(void)
{
	return resize_to(5 * SIZE);
}

static int empty_contiguous(void)
{
	return resize_to(0);
}

static int get(void)
{
	return by_ktest("get a/failing");
}

static int put(void)
{
	return by_ktest("put 0");
}

static int alloc(void)
{
	return by_ktest("alloc a/failing 12288");
}

static int attach(void)
{
	return by_ktest("attach a/failing 12288");
}

static int detach(void)
{
	return by_ktest("detach a/failing");
}

static int free_area(void)
{
	return by_ktest("free a/failing");
}

static int open_device(void)
{
	int fd = open("/dev/mbuff", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -1 : close(fd);
}

// What is done first, what may fail, what undoes it, and what undoes the first.
static const struct operation {
	const char *name;
	int (*before)(void), (*what)(void), (*undo)(void), (*after)(void);
} operations[] = {
	{ "open-device", NULL, open_device, NULL, NULL },
	{ "create", NULL, create, remove_area, NULL },
	{ "open", create, open_area, NULL, remove_area },
	{ "resize", create, resize, NULL, remove_area },
	{ "write", create_open, write_behind, truncate_back, close_remove },
	{ "fallocate", create_open, allocate_behind, truncate_back, close_remove },
	{ "ftruncate", create_open, truncate_whole, truncate_back, close_remove },
	{ "change", create, change, NULL, remove_area },
	{ "rename", create, rename_area, rename_back, remove_area },
	{ "rename-tree", create, rename_tree, rename_back, remove_area },
	{ "stat", create, stat_area, NULL, remove_area },
	{ "list", create, list, NULL, remove_area },
	{ "remove", create, remove_area, create, remove_area },
	{ "remove-hold", create, remove_hold, forget_create, remove_area },
	{ "notify", create, notify, NULL, remove_area },
	{ "events", NULL, events, NULL, NULL },
	{ "read-events", listen_create, read_events, NULL, close_listener },
	{ "allocate", NULL, allocate, deallocate, NULL },
	{ "allocate-again", allocate, allocate, deallocate, deallocate },
	{ "map", allocate, map, NULL, deallocate },
	{ "make", NULL, make, put, NULL },
	{ "make-contiguous", NULL, make_contiguous, put, NULL },
	{ "contiguous", create_empty, fill_contiguous, empty_contiguous, remove_area },
	{ "get", create, get, put, remove_area },
	{ "alloc", NULL, alloc, free_area, NULL },
	{ "attach", create, attach, detach, remove_area },
};

static void set(int nth)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%d", nth);

	if (pwrite(fail, text, length, 0) != length)
		err(1, "fail-nth");
}

// Not reached: what was set is left of it.
static int left(void)
{
	char text[16] = "";

	if (pread(fail, text, sizeof(text) - 1, 0) < 0)
		err(1, "fail-nth");
	return atoi(text);
}

static void must(const char *name, int (*function)(void))
{
	if (function && function())
		err(1, "%s", name);
}

int main(int argc, char **argv)
{
	const struct operation *operation = operations;
	const struct operation *end = operation + sizeof(operations) / sizeof(*operations);
	int nth, failed = 0;

	while (operation < end && (argc != 2 || strcmp(operation->name, argv[1])))
		operation++;
	if (operation == end)
		errx(2, "usage: fail_nth OPERATION");
	fail = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	device = open("/dev/mbuff", O_RDWR | O_CLOEXEC);
	other = open("/dev/mbuff", O_RDWR | O_CLOEXEC);
	ktest = open("/sys/module/ktest/parameters/run", O_WRONLY | O_CLOEXEC);
	if (fail < 0 || device < 0 || other < 0 || ktest < 0)
		err(1, "cannot begin");
	// A page of ours that is not there yet must not be what fails.
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		err(1, "mlockall");
	for (nth = 1; nth < POINTS_MAX; nth++) {
		int result, error, rest;

		must("before", operation->before);
		set(nth);
		result = operation->what();
		error = errno;
		rest = left();
		set(0);
		if (result && error != ENOMEM && error != EFAULT)
			errx(1, "failure %d: %s", nth, strerror(error));
		if (result && rest)
			errx(1, "it fails by itself: %s", strerror(error));
		failed += result != 0;
		if (!result)
			must("undo", operation->undo);
		must("after", operation->after);
		if (rest)
			break;
	}
	if (nth == POINTS_MAX)
		errx(1, "it has no end");
	printf("%d points, %d failed\n", nth - 1, failed);
	return 0;
}
