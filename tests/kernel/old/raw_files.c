/* SPDX-License-Identifier: MIT */
/* read, write, lseek and mmap work on the area that is selected. The device alone. */
#include "fact.h"

static char buffer[5 * 4096 * 16];

int main(void)
{
	struct mbuff_request_struct req = { 0, "mybuf", 0, { 0 } };
	const size_t page = (size_t)PAGE;
	int device = open(MBUFF_DEV_NAME, O_RDWR);
	size_t at;
	char *map;

	FACT(device >= 0);
	FACT(read(device, buffer, 1) == -1 && errno == EINVAL);
	FACT(write(device, buffer, 1) == -1 && errno == EINVAL);
	FACT(lseek(device, 0, SEEK_END) == -1 && errno == EINVAL);
	FACT(mmap(NULL, page, PROT_READ, MAP_SHARED, device, 0) == MAP_FAILED && errno == EINVAL);

	req.size = 5 * page;
	FACT(ioctl(device, IOCTL_MBUFF_ALLOCATE, &req) == 5 * PAGE);
	FACT(lseek(device, 0, SEEK_END) == 5 * PAGE);
	FACT(lseek(device, 7, SEEK_SET) == 7 && lseek(device, -2, SEEK_CUR) == 5);
	FACT(lseek(device, -1, SEEK_SET) == -1 && errno == EINVAL);
	FACT(lseek(device, 0, SEEK_SET) == 0);
	for (at = 0; at < 5 * page; at++)
		buffer[at] = (char)(at % 251);
	FACT(write(device, buffer, 5 * page) == 5 * PAGE);
	FACT(write(device, buffer, 1) == -1 && errno == ENOSPC);
	FACT(lseek(device, -10, SEEK_END) == 5 * PAGE - 10);
	FACT(write(device, buffer, 100) == 10); /* what fits */

	/* read goes to the end, in one piece and in pieces, and then there is none. */
	FACT(lseek(device, 0, SEEK_SET) == 0);
	memset(buffer, 0, sizeof(buffer));
	FACT(read(device, buffer, sizeof(buffer)) == 5 * PAGE);
	for (at = 0; at < 5 * page - 10; at++)
		FACT(buffer[at] == (char)(at % 251));
	FACT(buffer[5 * page - 10] == 0 && buffer[5 * page - 1] == 9);
	FACT(read(device, buffer, 1) == 0);
	FACT(pread(device, buffer, 3000, 1) == 3000 && buffer[0] == 1);
	FACT(pread(device, buffer, 3000, 3001) == 3000 && buffer[0] == (char)(3001 % 251));

	/* A mapping within the area sees what was written; anything beyond is refused. */
	map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, device, 3 * PAGE);
	FACT(map != MAP_FAILED && map[1] == (char)((3 * PAGE + 1) % 251));
	strcpy(map, "by store");
	FACT(pread(device, buffer, 9, 3 * PAGE) == 9 && !strcmp(buffer, "by store"));
	FACT(mmap(NULL, 6 * page, PROT_READ, MAP_SHARED, device, 0) == MAP_FAILED &&
	     errno == EFAULT);
	FACT(mmap(NULL, 3 * page, PROT_READ, MAP_SHARED, device, 3 * PAGE) == MAP_FAILED &&
	     errno == EFAULT);
	FACT(mmap(NULL, page, PROT_READ, MAP_SHARED, device, 5 * PAGE) == MAP_FAILED &&
	     errno == EFAULT);

	FACT(ioctl(device, IOCTL_MBUFF_DEALLOCATE, &req) == 5 * PAGE); /* freed on unmap */
	close(device);
	strcpy(map, "still written");
	FACT(!munmap(map, 2 * page));
	FACT(faults(map));
	FACT(mbuff_size("mybuf") == -EINVAL);
	return 0;
}
