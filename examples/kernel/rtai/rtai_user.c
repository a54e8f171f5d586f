// SPDX-License-Identifier: MIT
// rtai_user NUMBER: prints what the module has stored in the block, and stores a number beside it.
#include <rtai_shm.h>

#include <stdio.h>
#include <stdlib.h>

#define BLOCK 4096

int main(int argc, char **argv)
{
	int *shared = rtai_malloc(nam2num("SHMBLK"), BLOCK);

	if (argc != 2 || !shared) {
		fprintf(stderr, shared ? "usage: rtai_user NUMBER\n" : "no block: is it loaded?\n");
		return 1;
	}
	printf("the module stored %d\n", shared[0]);
	shared[1] = atoi(argv[1]);
	rtai_free(nam2num("SHMBLK"), shared);
	return 0;
}
