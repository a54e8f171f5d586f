/* SPDX-License-Identifier: MIT */
/*
 * A mutex and a counter in one area: processes take turns at counting, and none is lost.
 *
 *	shared_mutex AREA PROCESSES COUNTS
 */
#define _GNU_SOURCE
#include <mbuff.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>

struct shared {
	pthread_mutex_t mutex;
	long counter;
};

static int count(const char *name, long counts)
{
	struct shared *shared = mbuff_alloc(name, sizeof(*shared));

	if (!shared)
		return 1;
	for (; counts; counts--) {
		if (pthread_mutex_lock(&shared->mutex))
			return 1;
		shared->counter++;
		if (pthread_mutex_unlock(&shared->mutex))
			return 1;
	}
	mbuff_free(name, shared);
	return 0;
}

int main(int argc, char **argv)
{
	int processes = argc == 4 ? atoi(argv[2]) : 0, at, status, failed = 0;
	long counts = argc == 4 ? atol(argv[3]) : 0;
	pthread_mutexattr_t attributes;
	struct shared *shared;

	if (!processes)
		return 2;
	shared = mbuff_alloc(argv[1], sizeof(*shared));
	if (!shared || pthread_mutexattr_init(&attributes) ||
	    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) ||
	    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) ||
	    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) ||
	    pthread_mutex_init(&shared->mutex, &attributes))
		return 1;
	for (at = 0; at < processes; at++)
		if (!fork())
			_exit(count(argv[1], counts));
	while (wait(&status) > 0)
		failed |= status;
	failed |= shared->counter != processes * counts;
	mbuff_free(argv[1], shared);
	return failed != 0;
}
