// SPDX-License-Identifier: MIT
// dmabuf_user NAME TEXT: makes the area NAME a dma-buf, stores a text in it, and gives it to the
// example's module.
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/mbuff.h>
#include <linux/udmabuf.h>

// The area's own descriptor: udmabuf knows no files of FUSE. Sealed, so that it does not shrink.
static int open_area(const char *name)
{
	struct mbuff_open request = {
		.which = { .name = (uintptr_t)name, .name_len = (uint32_t)strlen(name) },
		.flags = O_RDWR | O_CLOEXEC,
		.how = MBUFF_OPEN_SEALED,
	};
	int device = open("/dev/mbuff", O_RDWR | O_CLOEXEC), fd;

	if (device < 0)
		err(1, "/dev/mbuff (is mbuff.ko loaded?)");
	fd = ioctl(device, MBUFF_IOC_OPEN, &request);
	if (fd < 0)
		err(1, "%s", name);
	close(device);
	return fd;
}

static int make_dmabuf(int area)
{
	struct stat status;
	struct udmabuf_create request = { .memfd = (uint32_t)area, .flags = UDMABUF_FLAGS_CLOEXEC };
	int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC), fd;

	if (device < 0 || fstat(area, &status))
		err(1, "/dev/udmabuf");
	request.size = (uint64_t)status.st_size;
	fd = ioctl(device, UDMABUF_CREATE, &request);
	if (fd < 0)
		err(1, "no dma-buf (is the size in whole pages?)");
	close(device);
	return fd;
}

int main(int argc, char **argv)
{
	int area, dmabuf, module;

	if (argc != 3)
		errx(2, "usage: dmabuf_user NAME TEXT");
	area = open_area(argv[1]);
	dmabuf = make_dmabuf(area);
	if (pwrite(area, argv[2], strlen(argv[2]) + 1, 0) < 0)
		err(1, "%s", argv[1]);
	module = open("/sys/module/dmabuf/parameters/fd", O_WRONLY | O_CLOEXEC);
	if (module < 0 || dprintf(module, "%d", dmabuf) < 0)
		err(1, "the importer (is dmabuf.ko loaded?)");
	return 0;
}
