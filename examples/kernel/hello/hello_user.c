// SPDX-License-Identifier: MIT
// hello_user [TEXT]: prints the kernel's two messages, and writes its own into page 1.
#include <err.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *directory = getenv("MBUFF_DIR");
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char path[PATH_MAX], *memory;
	int fd;

	snprintf(path, sizeof(path), "%s/hello", directory ? directory : "/mnt/mbuff");
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s (is hello.ko loaded?)", path);
	memory = mmap(NULL, 16 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		err(1, "%s", path);
	close(fd);

	printf("%s\n%s\n", memory, memory + 15 * page);
	snprintf(memory + page, page, "%s", argc > 1 ? argv[1] : "hello from the program");
	return 0;
}
