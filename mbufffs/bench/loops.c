// SPDX-License-Identifier: MIT
/*
 * The loops that are measured. Each does one thing `count` times and returns the seconds that took,
 * or -1 with errno; what has to be there before is made by the caller. In C, because the time of an
 * interpreter would make all file systems look alike; loops.py calls them by ctypes.
 */
#define _GNU_SOURCE /* fallocate */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define LINE 64UL
#define BLOCK (1UL << 20)

static uint64_t sink; /* what is read goes here, so that no compiler leaves the reading out */

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static char *map(int fd, size_t length, int flags)
{
	char *mapped = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);

	return mapped == MAP_FAILED ? NULL : mapped;
}

static uint64_t sum(const char *bytes, size_t length)
{
	const uint64_t *words = (const void *)bytes;
	uint64_t parts[8] = { 0 };
	size_t i, part;

	for (i = 0; i < length / sizeof(*words); i += 8)
		for (part = 0; part < 8; part++)
			parts[part] += words[i + part];
	for (part = 1; part < 8; part++)
		parts[0] += parts[part];
	return parts[0];
}

/* Streams through the whole mapping, from or to a block that stays in the processor's cache. */
double loop_stream(int fd, size_t length, int count, bool writes)
{
	char *mapped = map(fd, length, 0);
	char *block = mapped ? calloc(1, BLOCK) : NULL;
	double begin, took = -1;
	size_t at;
	int i;

	if (!mapped)
		return -1;
	if (block) {
		/* Faults are another measure. */
		for (at = 0; at < length; at += PAGE)
			sink += (uint64_t)mapped[at];
		begin = seconds();
		for (i = 0; i < count; i++) {
			for (at = 0; at + BLOCK <= length; at += BLOCK) {
				if (writes)
					memcpy(mapped + at, block, BLOCK);
				else
					sink += sum(mapped + at, BLOCK);
			}
		}
		took = seconds() - begin;
	}
	free(block);
	munmap(mapped, length);
	return took;
}

double loop_reach(int fd, size_t length, int count)
{
	char *mapped = map(fd, length, 0);
	uint64_t chance = 88172645463325252ULL;
	double begin, took;
	size_t at;
	int i;

	if (!mapped)
		return -1;
	for (at = 0; at < length; at += PAGE)
		sink += (uint64_t)mapped[at];
	begin = seconds();
	for (i = 0; i < count; i++) {
		/* xorshift, and what was read, so that one access waits for the other. */
		chance ^= chance << 13;
		chance ^= chance >> 7;
		chance ^= chance << 17;
		at = (chance % (length / LINE)) * LINE;
		chance += sum(mapped + at, LINE);
	}
	took = seconds() - begin;
	sink += chance;
	munmap(mapped, length);
	return took;
}

double loop_touch(int fd, size_t length, bool populate)
{
	double begin = seconds(), took;
	char *mapped = map(fd, length, populate ? MAP_POPULATE : 0);
	size_t at;

	if (!mapped)
		return -1;
	for (at = 0; at < length; at += PAGE)
		mapped[at] = 1;
	took = seconds() - begin;
	munmap(mapped, length);
	return took;
}

/* Walks over `span` bytes of the file, from its start again where it ends. */
double loop_transfer(int fd, size_t size, size_t span, int count, bool writes)
{
	char *bytes = calloc(1, size);
	double begin = seconds(), took = -1;
	size_t at = 0;
	int i;

	if (!bytes)
		return -1;
	for (i = 0; i < count; i++) {
		ssize_t done = writes ? pwrite(fd, bytes, size, (off_t)at) :
					pread(fd, bytes, size, (off_t)at);

		if (done != (ssize_t)size) {
			errno = done < 0 ? errno : EIO;
			goto failed;
		}
		at = at + 2 * size <= span ? at + size : 0;
	}
	took = seconds() - begin;
failed:
	free(bytes);
	return took;
}

double loop_open_close(const char *path, int count)
{
	double begin = seconds();
	int i;

	for (i = 0; i < count; i++) {
		int fd = open(path, O_RDWR | O_CLOEXEC);

		if (fd < 0)
			return -1;
		close(fd);
	}
	return seconds() - begin;
}

double loop_look(const char *path, int count)
{
	double begin = seconds();
	struct stat found;
	int i;

	for (i = 0; i < count; i++)
		if (stat(path, &found))
			return -1;
	return seconds() - begin;
}

/* The names of the loops below: numbers from `first` on. */
static const char *name_of(char *name, int number)
{
	sprintf(name, "%d", number);
	return name;
}

double loop_create(int directory, int first, int count, off_t size, bool fill)
{
	double begin = seconds();
	char name[16];
	int i;

	for (i = first; i < first + count; i++) {
		int fd = openat(directory, name_of(name, i), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

		if (fd < 0)
			return -1;
		if (size && (ftruncate(fd, size) || (fill && fallocate(fd, 0, 0, size)))) {
			int error = errno;

			close(fd);
			errno = error;
			return -1;
		}
		close(fd);
	}
	return seconds() - begin;
}

double loop_unlink(int directory, int first, int count)
{
	double begin = seconds();
	char name[16];
	int i;

	for (i = first; i < first + count; i++)
		if (unlinkat(directory, name_of(name, i), 0))
			return -1;
	return seconds() - begin;
}

/* There and back: `count` renames of one file. */
double loop_rename(int directory, int count)
{
	double begin = seconds();
	char from[16], to[16];
	int i;

	for (i = 0; i < count; i++)
		if (renameat(directory, name_of(from, i % 2), directory, name_of(to, (i + 1) % 2)))
			return -1;
	return seconds() - begin;
}

/* What `ls` does, or with `attributes` `ls -l`; `count` gets the names. */
double loop_list(const char *path, bool attributes, int *count)
{
	double begin = seconds();
	DIR *directory = opendir(path);
	struct dirent *entry;
	struct stat found;
	int error;

	*count = 0;
	if (!directory)
		return -1;
	for (errno = 0; (entry = readdir(directory)); errno = 0) {
		if (entry->d_name[0] == '.')
			continue;
		++*count;
		if (attributes &&
		    fstatat(dirfd(directory), entry->d_name, &found, AT_SYMLINK_NOFOLLOW))
			break;
	}
	error = errno;
	closedir(directory);
	errno = error;
	return error ? -1 : seconds() - begin;
}

/* Whoever waits, and how far the two are. */
struct waiting {
	int fd, count;
	bool drains; /* reads what has woken it */
	sem_t ready, woken;
	_Atomic double fired; /* 0: not yet */
	double took;
};

static void *wait_for_each(void *argument)
{
	struct pollfd polled = { .fd = ((struct waiting *)argument)->fd, .events = POLLIN };
	struct waiting *waiting = argument;
	char drained[BUFSIZ];
	int i;

	for (i = 0; i < waiting->count; i++) {
		sem_post(&waiting->ready);
		do /* before it is fired it may be woken for nothing */
			poll(&polled, 1, -1);
		while (waiting->fired == 0);
		waiting->took += seconds() - waiting->fired;
		waiting->fired = 0;
		if (waiting->drains && read(waiting->fd, drained, sizeof(drained)) < 0)
			waiting->took = -1e9;
		sem_post(&waiting->woken);
	}
	return NULL;
}

/*
 * From firing to the return of poll(2) on `waited` in another thread, which sleeps by then. What
 * fires is an ioctl of `trigger`, or if there is no `request`, the number 1 written to it.
 */
double loop_wake(int waited, int trigger, unsigned long request, const void *argument, int count,
		 bool drains)
{
	struct waiting waiting = { .fd = waited, .count = count, .drains = drains };
	const uint64_t one = 1;
	pthread_t thread;
	int i, error = 0;

	sem_init(&waiting.ready, 0, 0);
	sem_init(&waiting.woken, 0, 0);
	errno = pthread_create(&thread, NULL, wait_for_each, &waiting);
	if (errno)
		return -1;
	for (i = 0; i < count && !error; i++) {
		sem_wait(&waiting.ready);
		usleep(2000);
		waiting.fired = seconds();
		if (request ? ioctl(trigger, request, argument) < 0 :
			      write(trigger, &one, sizeof(one)) < 0)
			error = errno;
		else
			sem_wait(&waiting.woken);
	}
	if (error)
		pthread_cancel(thread);
	pthread_join(thread, NULL);
	sem_destroy(&waiting.ready);
	sem_destroy(&waiting.woken);
	errno = error ? error : EIO;
	return error || waiting.took < 0 ? -1 : waiting.took;
}
