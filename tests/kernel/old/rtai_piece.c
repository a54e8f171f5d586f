/* SPDX-License-Identifier: MIT */
/* RTAI's memory in one piece: of that kind, zeroed, gone with its last user. The device alone. */
#include <rtai_shm.h>

#include "fact.h"

int main(void)
{
	const unsigned long number = nam2num("PIECE");
	const int kinds[] = { USE_GFP_KERNEL, USE_GFP_ATOMIC, USE_GFP_DMA };
	int device = open(MBUFF_DEV_NAME, O_RDWR), at, byte;
	struct mbuff_stat stat;
	char *memory;

	FACT(device >= 0);
	memset(&stat, 0, sizeof(stat));
	stat.which.name = (__u64)(unsigned long)"PIECE";
	stat.which.name_len = 5;
	for (at = 0; at < 4; at++) {
		memory = at < 3 ? rt_shm_alloc(number, 3 * PAGE, kinds[at]) :
				  rtai_kmalloc(number, 3 * PAGE);
		FACT(memory);
		for (byte = 0; byte < 3 * PAGE; byte++)
			FACT(!memory[byte]);
		memset(memory, 0x55, 3 * (size_t)PAGE);
		FACT(!ioctl(device, MBUFF_IOC_STAT, &stat));
		FACT(stat.attributes.kind == MBUFF_KIND_CONTIGUOUS);
		FACT(!(stat.attributes.flags & MBUFF_IS_KEPT));
		rtai_kfree(number);
		FACT(ioctl(device, MBUFF_IOC_STAT, &stat) && errno == ENOENT);
	}
	close(device);
	return 0;
}
