/* SPDX-License-Identifier: MIT */
/* find TEXT FREES: "mybuf" holds TEXT, and goes when it was freed FREES times; FREES 0: it stays.
 */
#include "fact.h"

int main(int argc, char **argv)
{
	char *memory = mbuff_mmap("mybuf", 1);
	int frees;

	FACT(argc == 3 && memory && !strcmp(memory, argv[1]));
	mbuff_unmap("mybuf", memory);
	for (frees = atoi(argv[2]); frees; frees--) {
		FACT(mbuff_size("mybuf") > 0);
		mbuff_free("mybuf", NULL);
	}
	FACT((mbuff_size("mybuf") < 0) == (atoi(argv[2]) > 0));
	return 0;
}
