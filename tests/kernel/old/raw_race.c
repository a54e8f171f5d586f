/* SPDX-License-Identifier: MIT */
/*
 * Who maps a selected area while its last user leaves gets the area of that name, or EINVAL; never
 * memory without a name, which nobody else could find. The device alone.
 */
#include "fact.h"

int main(void)
{
	struct mbuff_request_struct req = { 0, "mybuf", 0, { 0 } };
	int device = open(MBUFF_DEV_NAME, O_RDWR), rounds, found = 0;
	const size_t page = (size_t)PAGE;
	pid_t self = getpid(), other = fork();

	if (!other) {
		while (getppid() == self)
			mbuff_detach("mybuf", mbuff_attach("mybuf", PAGE));
		_exit(0);
	}
	for (rounds = 0; rounds < 200000 && found < 5000; rounds++) {
		char *map;

		if (ioctl(device, IOCTL_MBUFF_SELECT, &req) == -1)
			continue;
		map = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
		if (map == MAP_FAILED) {
			FACT(errno == EINVAL);
			continue;
		}
		found++;
		FACT(mbuff_size("mybuf") == PAGE);
		munmap(map, page);
	}
	FACT(found > 0);
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
	mbuff_free("mybuf", NULL); /* what it had counted when it was killed, if so */
	return 0;
}
