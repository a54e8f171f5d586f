// SPDX-License-Identifier: MIT
// published_user path|devmem NAME MESSAGE: stores the message in the area NAME, by its path, or
// through /dev/mem at the address that the module has published.
#include <err.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned long long published(const char *name, const char *what)
{
	char path[PATH_MAX], text[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/mbuff/regions/%s/%s", name, what);
	file = fopen(path, "r");
	if (!file || !fgets(text, sizeof(text), file))
		err(1, "%s (is the module loaded?)", path);
	fclose(file);
	return strtoull(text, NULL, 0);
}

static char *map_path(const char *name, size_t *size)
{
	const char *directory = getenv("MBUFF_DIR");
	struct stat status;
	char path[PATH_MAX], *memory;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory ? directory : "/mnt/mbuff", name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status))
		err(1, "%s", path);
	*size = (size_t)status.st_size;
	memory = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		err(1, "%s", path);
	return memory;
}

static char *map_devmem(const char *name, size_t *size)
{
	unsigned long long physical = published(name, "phys");
	char *memory;
	int fd;

	if (!physical)
		errx(1, "%s lies anywhere, or its address is not for you to see", name);
	*size = (size_t)published(name, "size");
	// Not O_SYNC: the kernel has the range cached, and so must we.
	fd = open("/dev/mem", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "/dev/mem");
	memory = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)physical);
	if (memory == MAP_FAILED)
		err(1, "/dev/mem at 0x%llx: only what was reserved at boot is open there",
		    physical);
	return memory;
}

int main(int argc, char **argv)
{
	char *memory;
	size_t size;

	if (argc != 4 || (strcmp(argv[1], "path") && strcmp(argv[1], "devmem")))
		errx(2, "usage: published_user path|devmem NAME MESSAGE");
	memory = argv[1][0] == 'p' ? map_path(argv[2], &size) : map_devmem(argv[2], &size);
	printf("%.80s\n", memory);
	snprintf(memory, size, "%s", argv[3]);
	return 0;
}
