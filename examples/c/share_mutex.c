// SPDX-License-Identifier: MIT
// share_mutex NAME PROCESSES INCREMENTS: processes that share nothing but the path of an area
// count together under a mutex in it. Exit status 1 if an increment was lost.
#include <endian.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared {
	uint64_t counter; // little-endian, where the other examples have theirs
	alignas(64) pthread_mutex_t mutex;
};

static struct shared *attach(const char *path)
{
	struct shared *shared;
	struct stat status;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &status))
		errx(1, "%s: %s (try: mbufffs mount; create NAME 4096)", path, strerror(errno));
	if ((size_t)status.st_size < sizeof(*shared))
		errx(1, "%s: too small (%zu bytes are needed)", path, sizeof(*shared));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		err(1, "%s", path);
	close(fd); // The mapping stays.
	return shared;
}

static void count(struct shared *shared, long increments)
{
	while (increments--) {
		int error = pthread_mutex_lock(&shared->mutex);

		// Its owner died inside. One 64-bit store is all it did there, so nothing is torn.
		if (error == EOWNERDEAD)
			error = pthread_mutex_consistent(&shared->mutex);
		if (error)
			errx(1, "mutex: %s", strerror(error));
		shared->counter = htole64(le64toh(shared->counter) + 1);
		pthread_mutex_unlock(&shared->mutex);
	}
}

int main(int argc, char **argv)
{
	const char *directory = getenv("MBUFF_DIR");
	char path[PATH_MAX + 1]; // One more than a path may have: open refuses what did not fit.
	long processes = argc == 4 ? strtol(argv[2], NULL, 10) : 0;
	long increments = argc == 4 ? strtol(argv[3], NULL, 10) : 0;
	uint64_t expected = (uint64_t)processes * (uint64_t)increments;
	pthread_mutexattr_t attributes;
	struct shared *shared;

	if (processes < 1 || increments < 1)
		errx(1, "usage: share_mutex NAME PROCESSES INCREMENTS");
	snprintf(path, sizeof(path), "%s/%s", directory ? directory : "/mnt/mbuff", argv[1]);
	shared = attach(path);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&shared->mutex, &attributes);
	shared->counter = 0;

	pthread_mutex_lock(&shared->mutex); // held until all are there, so that they do compete
	for (long started = 0; started < processes; started++) {
		pid_t pid = fork();

		if (pid < 0) {
			warn("fork");
			break;
		}
		if (pid == 0) {
			count(attach(path), increments);
			_exit(0);
		}
	}
	pthread_mutex_unlock(&shared->mutex);
	while (wait(NULL) > 0)
		continue;
	printf("%" PRIu64 "\n", le64toh(shared->counter));
	if (le64toh(shared->counter) != expected)
		errx(1, "%s: %" PRIu64 " increments were asked for", path, expected);
	return 0;
}
