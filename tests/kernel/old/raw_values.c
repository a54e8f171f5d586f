/* SPDX-License-Identifier: MIT */
/* What each ioctl returns, for areas that are there and areas that are not. The device alone. */
#include "fact.h"

static int device;

static int request(unsigned long command, const char *name, size_t size)
{
	struct mbuff_request_struct req = { 0, "", 0, { 0 } };

	strcpy(req.name, name);
	req.size = size;
	return ioctl(device, command, &req);
}

int main(void)
{
	const size_t page = (size_t)PAGE;
	struct mbuff_request_struct full;

	device = open(MBUFF_DEV_NAME, O_RDWR);
	FACT(device >= 0);

	FACT(request(IOCTL_MBUFF_INFO, "mybuf", 0) == -1 && errno == EINVAL);
	FACT(request(IOCTL_MBUFF_SELECT, "mybuf", 0) == -1 && errno == EINVAL);
	FACT(request(IOCTL_MBUFF_DEALLOCATE, "mybuf", 0) == -1 && errno == EINVAL);
	FACT(request(IOCTL_MBUFF_ALLOCATE, "mybuf", 0) == -1 && errno == EIO);

	FACT(request(IOCTL_MBUFF_ALLOCATE, "mybuf", 2 * page + 1) == 3 * PAGE);
	FACT(request(IOCTL_MBUFF_ALLOCATE, "mybuf", 1) == 3 * PAGE);
	FACT(request(IOCTL_MBUFF_ALLOCATE, "mybuf", 3 * page) == 3 * PAGE);
	FACT(request(IOCTL_MBUFF_ALLOCATE, "mybuf", 0) == 3 * PAGE); /* a probe: no count */
	FACT(request(IOCTL_MBUFF_ALLOCATE, "mybuf", 3 * page + 1) == -1 && errno == EIO);
	FACT(request(IOCTL_MBUFF_ALLOCATE, "mybuf", (size_t)-1) == -1 && errno == EINVAL);
	FACT(request(IOCTL_MBUFF_ALLOCATE, "none", (size_t)-1) == -1 && errno == EINVAL);
	FACT(request(IOCTL_MBUFF_ALLOCATE, "none", (size_t)-1 / 2) == -1);
	FACT(request(IOCTL_MBUFF_INFO, "none", 0) == -1 && errno == EINVAL);
	FACT(request(IOCTL_MBUFF_INFO, "mybuf", 0) == 3 * PAGE);
	FACT(request(IOCTL_MBUFF_SELECT, "mybuf", 12345) == 3 * PAGE);
	FACT(request(IOCTL_MBUFF_DEALLOCATE, "mybuf", 0) == 3 * PAGE);
	FACT(request(IOCTL_MBUFF_DEALLOCATE, "mybuf", 0) == 3 * PAGE);
	FACT(request(IOCTL_MBUFF_DEALLOCATE, "mybuf", 0) == 0);
	FACT(request(IOCTL_MBUFF_DEALLOCATE, "mybuf", 0) == -1 && errno == EINVAL);

	FACT(request(IOCTL_MBUFF_ALLOCATE, "", page) == -1 && errno == EINVAL);
	FACT(request(IOCTL_MBUFF_ALLOCATE, "../a", page) == -1 && errno == EINVAL);
	FACT(request(IOCTL_MBUFF_ALLOCATE, "a-name-of-31-bytes-is-the-limit", page) == PAGE);
	FACT(request(IOCTL_MBUFF_DEALLOCATE, "a-name-of-31-bytes-is-the-limit", 0) == 0);
	FACT(request(IOCTL_MBUFF_ALLOCATE, "a-name-of-32-bytes-is-not-usable", page) == -1 &&
	     errno == ENAMETOOLONG);
	memset(&full, 'x', sizeof(full)); /* a name without an end */
	full.size = page;
	FACT(ioctl(device, IOCTL_MBUFF_ALLOCATE, &full) == -1 && errno == ENAMETOOLONG);

	FACT(ioctl(device, IOCTL_MBUFF_INFO, NULL) == -1 && errno == EFAULT);
	FACT(ioctl(device, IOCTL_MBUFF_LAST + 1, &full) == -1 && errno == ENOTTY);
	FACT(ioctl(device, 1, &full) == -1 && errno == ENOTTY); /* ALLOCATE of an old binary */
	return 0;
}
