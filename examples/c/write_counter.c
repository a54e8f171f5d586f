// SPDX-License-Identifier: MIT
// write_counter NAME COUNT [INTERVAL_MS]: maps an area and adds 1 to its counter COUNT times.
// Meant to be the only writer: how several processes share a counter is in share_mutex.c.
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

// Another process can rely on an atomic only if it needs no lock inside this one.
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "this machine does not store 64 bits at once");

int main(int argc, char **argv)
{
	const char *directory = getenv("MBUFF_DIR");
	char path[PATH_MAX + 1]; // One more than a path may have: open refuses what did not fit.
	long count = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
	long interval = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
	struct timespec pause = { interval / 1000, interval % 1000 * 1000000 };
	_Atomic uint64_t *counter;
	struct stat status;
	uint64_t value;
	int fd;

	if (argc > 4 || count < 1 || interval < 0)
		errx(1, "usage: write_counter NAME COUNT [INTERVAL_MS]");
	snprintf(path, sizeof(path), "%s/%s", directory ? directory : "/mnt/mbuff", argv[1]);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status))
		errx(1, "%s: %s (try: mbufffs mount; create %s 4096)", path, strerror(errno),
		     argv[1]);
	if (status.st_size < 8)
		errx(1, "%s: too small (the counter takes 8 bytes)", path);
	counter = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (counter == MAP_FAILED)
		err(1, "%s", path);

	value = le64toh(atomic_load(counter));
	while (count--) {
		atomic_store(counter, htole64(++value));
		nanosleep(&pause, NULL);
	}
	printf("%" PRIu64 "\n", value);
	return 0;
}
