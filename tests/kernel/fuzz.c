/* SPDX-License-Identifier: MIT */
/*
 * Random calls of /dev/mbuff from several threads: every command with random structures, mostly
 * with good pointers, and random use of the descriptors that come out. Success is that the kernel
 * says nothing, and that afterwards `fuzz clean` leaves no area.
 *
 *	fuzz CALLS [SEED [THREADS]]
 *	fuzz clean
 */
#define _FILE_OFFSET_BITS 64
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mbuff.h>
#include <mbuff.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DESCRIPTORS 16
#define MAPPINGS 8
#define NAMES 24

static long calls_each;

struct fuzzer {
	pthread_t thread;
	uint64_t state;
	int device, descriptors[DESCRIPTORS];
	struct {
		void *memory;
		size_t length;
	} mappings[MAPPINGS];
	uint64_t ids[NAMES];
};

static uint64_t number(struct fuzzer *f)
{
	f->state ^= f->state << 13;
	f->state ^= f->state >> 7;
	f->state ^= f->state << 17;
	return f->state;
}

static uint64_t below(struct fuzzer *f, uint64_t limit)
{
	return number(f) % limit;
}

/* Mostly small, at times at an edge, rarely anything. */
static uint64_t any_size(struct fuzzer *f)
{
	static const uint64_t edges[] = { 0,
					  1,
					  4095,
					  4096,
					  4097,
					  INT32_MAX,
					  1ULL << 31,
					  UINT32_MAX,
					  1ULL << 32,
					  INT64_MAX - 1,
					  INT64_MAX,
					  1ULL << 63,
					  UINT64_MAX,
					  INT64_MAX - 4095,
					  INT64_MAX - 4096 };

	switch (below(f, 8)) {
	case 0:
		return edges[below(f, sizeof(edges) / sizeof(*edges))];
	case 1:
		return number(f);
	case 2:
		return below(f, 1 << 18);
	default: /* most of the time would go to filling pages */
		return below(f, 1 << 14);
	}
}

static uint64_t any_address(struct fuzzer *f, void *good)
{
	switch (below(f, 16)) {
	case 0:
		return 0;
	case 1: /* of 32 bits most are addresses of ours, which nobody but us may write to */
		return sizeof(void *) == 8 ? number(f) : below(f, 4096);
	case 2:
		return 0xffff888000000000;
	default:
		return (uintptr_t)good;
	}
}

/* Few names, so that threads meet; and directories, and nonsense. */
static uint32_t any_name(struct fuzzer *f, char *name)
{
	uint32_t at, len;

	switch (below(f, 12)) {
	case 0:
		len = below(f, 5000);
		for (at = 0; at < len; at++)
			name[at] = number(f);
		return len;
	case 1:
		return sprintf(name, "d%d/%d/%d", (int)below(f, 3), (int)below(f, 3),
			       (int)below(f, 3));
	case 2:
		return sprintf(name, "d%d", (int)below(f, 3));
	default:
		return sprintf(name, "n%d", (int)below(f, NAMES));
	}
}

static struct mbuff_which any_which(struct fuzzer *f, char *name)
{
	struct mbuff_which which = { 0 };

	if (below(f, 2))
		which.id = below(f, 8) ? f->ids[below(f, NAMES)] : number(f);
	if (!which.id || !below(f, 16)) {
		which.name_len = any_name(f, name);
		which.name = any_address(f, name);
	}
	if (!below(f, 32))
		which.reserved = number(f);
	return which;
}

static void keep(struct fuzzer *f, int fd)
{
	int *place = &f->descriptors[below(f, DESCRIPTORS)];

	if (fd < 0)
		return;
	/* A read of events would wait. */
	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (*place >= 0)
		close(*place);
	*place = fd;
}

static void one_ioctl(struct fuzzer *f)
{
	static char shared[1 << 16];
	char name[5000], to[5000], random[256];
	uint32_t bits = below(f, 4) ? below(f, 8) : number(f);
	size_t at;

	switch (below(f, 19)) {
	case 0:
	case 1:
	case 2: {
		struct mbuff_create create = { .flags = bits,
					       .size = any_size(f),
					       .mode = below(f, 01000) };

		create.name_len = any_name(f, name);
		create.name = any_address(f, name);
		create.uid = create.gid = below(f, 8) ? ~0U : (uint32_t)number(f);
		if (!ioctl(f->device, MBUFF_IOC_CREATE, any_address(f, &create)))
			f->ids[below(f, NAMES)] = create.id;
		break;
	}
	case 3:
	case 4: {
		struct mbuff_open open = { any_which(f, name), below(f, 3), bits };

		if (!below(f, 4))
			open.flags |= below(f, 2) ? O_APPEND : O_CLOEXEC;
		keep(f, ioctl(f->device, MBUFF_IOC_OPEN, any_address(f, &open)));
		break;
	}
	case 5: {
		struct mbuff_resize resize = { any_which(f, name), any_size(f) };

		ioctl(f->device, MBUFF_IOC_RESIZE, any_address(f, &resize));
		break;
	}
	case 6: {
		struct mbuff_change change = { .which = any_which(f, name) };

		change.valid = below(f, 64);
		change.mode = below(f, 020000);
		change.uid = change.gid = below(f, 3);
		change.atime_ns = change.mtime_ns = number(f);
		ioctl(f->device, MBUFF_IOC_CHANGE, any_address(f, &change));
		break;
	}
	case 7:
	case 8: {
		struct mbuff_rename rename = { .flags = below(f, 10) };

		rename.from_len = any_name(f, name);
		rename.from = any_address(f, name);
		rename.to_len = any_name(f, to);
		rename.to = any_address(f, to);
		ioctl(f->device, MBUFF_IOC_RENAME, any_address(f, &rename));
		break;
	}
	case 9:
	case 10: {
		struct mbuff_remove remove = { any_which(f, name), bits, 0 };

		ioctl(f->device, MBUFF_IOC_REMOVE, any_address(f, &remove));
		break;
	}
	case 11: {
		struct mbuff_stat stat = { .which = any_which(f, name) };

		stat.owners = any_address(f, to);
		stat.owners_max = below(f, 60);
		ioctl(f->device, MBUFF_IOC_STAT, any_address(f, &stat));
		break;
	}
	case 12: {
		struct mbuff_list list = { below(f, 2) ? 0 : number(f), 0, 0, bits };

		list.buffer = any_address(f, shared);
		list.buffer_len = below(f, sizeof(shared));
		ioctl(f->device, MBUFF_IOC_LIST, any_address(f, &list));
		break;
	}
	case 13:
		keep(f, ioctl(f->device, MBUFF_IOC_EVENTS, 0));
		break;
	case 14: {
		struct mbuff_which which = any_which(f, name);

		ioctl(f->device, below(f, 2) ? MBUFF_IOC_NOTIFY : MBUFF_IOC_FORGET,
		      any_address(f, &which));
		break;
	}
	case 15: {
		struct mbuff_kind kind = { any_which(f, name), below(f, 8) ? below(f, 2) : bits,
					   !below(f, 32) };

		ioctl(f->device, MBUFF_IOC_KIND, any_address(f, &kind));
		break;
	}
	case 16:
	case 17: {
		static const unsigned long old[] = { IOCTL_MBUFF_INFO, IOCTL_MBUFF_ALLOCATE,
						     IOCTL_MBUFF_DEALLOCATE, IOCTL_MBUFF_SELECT };
		struct mbuff_request_struct request = { .size = any_size(f) };

		at = any_name(f, name);
		memcpy(request.name, name, at < sizeof(request.name) ? at : sizeof(request.name));
		ioctl(f->device, old[below(f, 4)], any_address(f, &request));
		break;
	}
	default:
		for (at = 0; at < sizeof(random); at++)
			random[at] = number(f);
		ioctl(f->device,
		      _IOC(below(f, 4), MBUFF_MAGIC, below(f, 80), below(f, sizeof(random))),
		      any_address(f, random));
	}
}

static void one_use(struct fuzzer *f)
{
	static char shared[1 << 16];
	int fd = below(f, 8) ? f->descriptors[below(f, DESCRIPTORS)] : f->device;
	size_t at, length = below(f, sizeof(shared));
	char path[32];
	void *memory;

	switch (below(f, 9)) {
	case 0:
		read(fd, (void *)(uintptr_t)any_address(f, shared), length);
		break;
	case 1:
		write(fd, (void *)(uintptr_t)any_address(f, shared), length);
		break;
	case 2:
		pwrite(fd, (void *)(uintptr_t)any_address(f, shared), length, below(f, 1 << 17));
		break;
	case 3:
		lseek(fd, any_size(f), below(f, 5));
		break;
	case 4:
		ftruncate(fd, any_size(f));
		break;
	case 5:
		fallocate(fd, below(f, 128), any_size(f), any_size(f));
		break;
	case 6:
		length = (below(f, 20) + 1) << 12;
		memory = mmap(NULL, length, below(f, 4), below(f, 2) ? MAP_SHARED : MAP_PRIVATE, fd,
			      below(f, 3) << 12);
		at = below(f, MAPPINGS);
		if (memory != MAP_FAILED) {
			if (f->mappings[at].memory)
				munmap(f->mappings[at].memory, f->mappings[at].length);
			f->mappings[at].memory = memory;
			f->mappings[at].length = length;
		}
		break;
	case 7:
		at = below(f, MAPPINGS);
		/* The kernel touches it: a page that is not there is EFAULT and no SIGBUS. */
		if (f->mappings[at].memory && fd >= 0)
			pread(fd, f->mappings[at].memory, f->mappings[at].length, 0);
		if (f->mappings[at].memory)
			madvise(f->mappings[at].memory, f->mappings[at].length, below(f, 26));
		break;
	default:
		sprintf(path, "/proc/self/fd/%d", fd);
		keep(f, open(path, (below(f, 4) ? O_RDWR : O_PATH) | O_NONBLOCK));
	}
}

static void *fuzz(void *argument)
{
	struct fuzzer *f = argument;
	long call;
	int at;

	for (at = 0; at < DESCRIPTORS; at++)
		f->descriptors[at] = -1;
	for (call = 0; call < calls_each; call++) {
		if (!below(f, 1000)) {
			close(f->device);
			f->device = open("/dev/mbuff", O_RDWR);
		}
		if (below(f, 3))
			one_ioctl(f);
		else
			one_use(f);
	}
	for (at = 0; at < DESCRIPTORS; at++)
		if (f->descriptors[at] >= 0)
			close(f->descriptors[at]);
	for (at = 0; at < MAPPINGS; at++)
		if (f->mappings[at].memory)
			munmap(f->mappings[at].memory, f->mappings[at].length);
	close(f->device);
	return NULL;
}

/* Everything can be given back: counts first, then names. Returns how many could not. */
static int clean(void)
{
	static char buffer[1 << 20];
	struct mbuff_list list = { 0, (uintptr_t)buffer, sizeof(buffer), 0 };
	struct mbuff_usage usage;
	int device = open("/dev/mbuff", O_RDWR), filled, at, left = 0;

	while ((filled = ioctl(device, MBUFF_IOC_LIST, &list)) > 0) {
		for (at = 0; at < filled;) {
			struct mbuff_entry *entry = (void *)(buffer + at);
			struct mbuff_remove remove = { .which.id = entry->attributes.id };
			struct mbuff_request_struct request = { 0 };

			at += entry->entry_len;
			list.after = entry->attributes.id;
			if (entry->name_len < MBUFF_NAME_LEN)
				memcpy(request.name, entry + 1, entry->name_len);
			while (entry->attributes.count--)
				ioctl(device, IOCTL_MBUFF_DEALLOCATE, &request);
			if (ioctl(device, MBUFF_IOC_REMOVE, &remove) && errno != ENOENT) {
				perror("an area that cannot be removed");
				left++;
			}
		}
	}
	ioctl(device, MBUFF_IOC_USAGE, &usage);
	close(device);
	return left + usage.areas;
}

int main(int argc, char **argv)
{
	static struct fuzzer fuzzers[64];
	long calls = argc > 1 ? atol(argv[1]) : 10000;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	int threads = argc > 3 ? atoi(argv[3]) : 4;
	int at;

	if (argc == 2 && !strcmp(argv[1], "clean"))
		return clean() != 0;
	if (threads < 1 || threads > 64)
		return 2;
	calls_each = calls / threads;
	for (at = 0; at < threads; at++) {
		fuzzers[at].state = (seed + at) * 0x9e3779b97f4a7c15 | 1;
		fuzzers[at].device = open("/dev/mbuff", O_RDWR);
		if (fuzzers[at].device < 0) {
			perror("/dev/mbuff");
			return 1;
		}
		if (pthread_create(&fuzzers[at].thread, NULL, fuzz, &fuzzers[at]))
			return 1;
	}
	for (at = 0; at < threads; at++)
		pthread_join(fuzzers[at].thread, NULL);
	return 0;
}
