/* SPDX-License-Identifier: MIT */
/*
 * Requests that are initialised in part alone: only the name is asked for, and a byte behind it
 * that programs write hits padding. The device alone.
 */
#include "fact.h"

int main(void)
{
	struct mbuff_request_struct req;
	int device = open(MBUFF_DEV_NAME, O_RDWR);
	volatile int end = MBUFF_NAME_LEN + 1;

	memset(&req, 0xa5, sizeof(req)); /* what may lie on a stack */
	strncpy(req.name, "mybuf", MBUFF_NAME_LEN);
	((char *)&req)[offsetof(struct mbuff_request_struct, name) + (size_t)end] = 0;
	FACT(ioctl(device, IOCTL_MBUFF_SELECT, &req) == -1 && errno == EINVAL);
	FACT(ioctl(device, IOCTL_MBUFF_INFO, &req) == -1 && errno == EINVAL);
	FACT(ioctl(device, IOCTL_MBUFF_DEALLOCATE, &req) == -1 && errno == EINVAL);
	req.size = 1;
	FACT(ioctl(device, IOCTL_MBUFF_ALLOCATE, &req) == PAGE);
	req.size = (size_t)-1;
	FACT(ioctl(device, IOCTL_MBUFF_SELECT, &req) == PAGE);
	FACT(ioctl(device, IOCTL_MBUFF_INFO, &req) == PAGE);
	FACT(ioctl(device, IOCTL_MBUFF_DEALLOCATE, &req) == 0);
	return 0;
}
