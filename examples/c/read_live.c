// SPDX-License-Identifier: MIT
// read_live NAME N [TIMEOUT_S]: prints the counter of an area, and again when it has changed.
// Ends after N values with exit status 0, or with 1 when the time is over (10 s if not given).
#include <endian.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

static long long milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
	const char *directory = getenv("MBUFF_DIR");
	char path[PATH_MAX + 1]; // One more than a path may have: open refuses what did not fit.
	long wanted = argc > 2 ? strtol(argv[2], NULL, 10) : 0, seen = 0;
	long timeout = argc > 3 ? strtol(argv[3], NULL, 10) : 10;
	long long start = milliseconds();
	_Atomic uint64_t *counter;
	struct stat status;
	uint64_t value, last = 0;
	int fd;

	if (argc > 4 || wanted < 1 || timeout < 0)
		errx(1, "usage: read_live NAME N [TIMEOUT_S]");
	snprintf(path, sizeof(path), "%s/%s", directory ? directory : "/mnt/mbuff", argv[1]);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status))
		errx(1, "%s: %s (try: mbufffs mount; create %s 4096)", path, strerror(errno),
		     argv[1]);
	if (status.st_size < 8)
		errx(1, "%s: too small (the counter takes 8 bytes)", path);
	counter = mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
	if (counter == MAP_FAILED)
		err(1, "%s", path);

	setlinebuf(stdout); // Each value leaves at once, into a pipe too.
	for (;; nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL)) {
		value = le64toh(atomic_load(counter));
		if (!seen || value != last) {
			printf("%" PRIu64 "\n", value);
			last = value;
			if (++seen == wanted)
				return 0;
		}
		if ((milliseconds() - start) / 1000 >= timeout)
			errx(1, "%s: %ld of %ld values after %ld s (is a writer running?)", path,
			     seen, wanted, timeout);
	}
}
