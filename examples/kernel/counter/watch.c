// SPDX-License-Identifier: MIT
// watch N: maps the area "counter" and prints it, then N times more, whenever the module wakes us.
#include <endian.h>
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *directory = getenv("MBUFF_DIR");
	long times = argc == 2 ? strtol(argv[1], NULL, 10) : 10;
	const volatile uint64_t *counter;
	struct pollfd area;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/counter", directory ? directory : "/mnt/mbuff");
	area.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (area.fd < 0)
		err(1, "%s (is counter.ko loaded?)", path);
	area.events = POLLPRI;
	counter = mmap(NULL, sizeof(*counter), PROT_READ, MAP_SHARED, area.fd, 0);
	if (counter == MAP_FAILED)
		err(1, "%s", path);

	setlinebuf(stdout);
	for (;;) {
		printf("%" PRIu64 "\n", le64toh(*counter));
		if (times-- <= 0)
			return 0;
		// Ready once for what has been notified since the last look.
		if (poll(&area, 1, -1) < 0)
			err(1, "poll");
	}
}
