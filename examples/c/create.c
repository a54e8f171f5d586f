// SPDX-License-Identifier: MIT
// create NAME SIZE: makes an area of SIZE zero bytes; a name that exists is refused.
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *directory = getenv("MBUFF_DIR");
	char path[PATH_MAX + 1]; // One more than a path may have: open refuses what did not fit.
	char *end;
	long long size;
	int fd;

	if (argc != 3)
		errx(1, "usage: create NAME SIZE");
	errno = 0;
	size = strtoll(argv[2], &end, 10);
	if (errno || *end || size < 1)
		errx(1, "%s: not a size (a whole number of bytes, 1 or more)", argv[2]);

	snprintf(path, sizeof(path), "%s/%s", directory ? directory : "/mnt/mbuff", argv[1]);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		errx(1, "%s: %s (%s)", path, strerror(errno),
		     errno == EEXIST ? "rm it first, or take another name" :
				       "is mbufffs mounted? try: mbufffs mount");
	if (ftruncate(fd, size)) { // not a page was taken, so the name must go as well
		int reason = errno;

		unlink(path);
		errx(1, "%s: %s (how much is free? try: df -h)", path, strerror(reason));
	}
	close(fd);
	return 0;
}
