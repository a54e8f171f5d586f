// SPDX-License-Identifier: MIT
// rtshared_user: stores each number of its input in the area "rtshared", when the last was printed.
#include <err.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct shared { // as in rtshared.c
	int some_int;
	char ready;
};

int main(void)
{
	const char *directory = getenv("MBUFF_DIR");
	const struct timespec a_while = { .tv_nsec = 10000000 };
	struct shared *shared;
	char path[PATH_MAX];
	int fd, number;

	snprintf(path, sizeof(path), "%s/rtshared", directory ? directory : "/mnt/mbuff");
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s (is rtshared.ko loaded?)", path);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		err(1, "%s", path);
	close(fd);

	while (scanf("%d", &number) == 1) {
		shared->some_int = number;
		__atomic_store_n(&shared->ready, 1, __ATOMIC_RELEASE);
		while (__atomic_load_n(&shared->ready, __ATOMIC_ACQUIRE))
			nanosleep(&a_while, NULL);
		printf("%d was printed\n", number);
		fflush(stdout);
	}
	return 0;
}
