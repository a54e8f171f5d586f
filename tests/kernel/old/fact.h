/* SPDX-License-Identifier: MIT */
/* How a program tells that something is not so: one line, and exit status 1. */
#ifndef FACT_H
#define FACT_H

#include <mbuff.h>

#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>

#define FACT(condition)                                                                       \
	do {                                                                                  \
		if (!(condition)) {                                                           \
			fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, \
				#condition, errno);                                           \
			exit(1);                                                              \
		}                                                                             \
	} while (0)

#define PAGE ((int)sysconf(_SC_PAGESIZE))

/* Whether a write there is a SIGSEGV; tried in a child. */
static __inline__ int faults(void *memory)
{
	int status;
	pid_t child = fork();

	if (!child) {
		signal(SIGSEGV, SIG_DFL);
		*(volatile char *)memory = 1;
		_exit(0);
	}
	return waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
	       WTERMSIG(status) == SIGSEGV;
}

/* The lowest descriptor that is free: the same again if none leaked. */
static __inline__ int free_descriptor(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

#endif
