/* SPDX-License-Identifier: MIT */
/*
 * leave alloc|attach SIZE TEXT exit|kill: makes the area "mybuf", writes TEXT, and ends without
 * giving it back, by exit or by SIGKILL.
 */
#include "fact.h"

int main(int argc, char **argv)
{
	char *memory;

	FACT(argc == 5);
	if (!strcmp(argv[1], "alloc"))
		memory = mbuff_alloc("mybuf", atoi(argv[2]));
	else
		memory = mbuff_attach("mybuf", atoi(argv[2]));
	FACT(memory);
	strcpy(memory, argv[3]);
	if (!strcmp(argv[4], "kill"))
		raise(SIGKILL);
	return 0;
}
