/* SPDX-License-Identifier: MIT */
/* No call leaks a descriptor or a mapping, whether it succeeds or not; programs do not inherit any.
 */
#include "fact.h"

static int mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	int lines = 0, c;

	FACT(maps);
	while ((c = getc(maps)) != EOF)
		lines += c == '\n';
	fclose(maps);
	return lines;
}

static void once(void)
{
	char *counted = mbuff_alloc("mybuf", PAGE), *attached = mbuff_attach("mybuf", 10),
	     *found = mbuff_mmap("mybuf", 10);

	FACT(counted && attached && found);
	FACT(!mbuff_alloc("mybuf", 2 * PAGE) && !mbuff_attach("mybuf", 2 * PAGE));
	FACT(!mbuff_alloc("no/such/../name", PAGE) && !mbuff_mmap("none", PAGE));
	FACT(mbuff_size("mybuf") == PAGE && mbuff_size("none") < 0);
	mbuff_unmap("mybuf", found);
	mbuff_detach("mybuf", attached);
	mbuff_free("mybuf", counted);
}

int main(int argc, char **argv)
{
	int round, descriptors, lines;
	char *attached;

	if (argc == 2) { /* executed by itself, below: it has the descriptors that it had */
		FACT(free_descriptor() == atoi(argv[1]));
		return 0;
	}
	once(); /* what the C library keeps is there now */
	descriptors = free_descriptor();
	lines = mappings();
	for (round = 0; round < 100; round++)
		once();
	FACT(free_descriptor() == descriptors);
	FACT(mappings() == lines);

	attached = mbuff_attach("mybuf", PAGE);
	FACT(attached);
	if (!fork()) {
		char number[16];

		sprintf(number, "%d", descriptors);
		execl(argv[0], argv[0], number, (char *)NULL);
		_exit(2);
	}
	FACT(wait(&round) > 0 && round == 0);
	mbuff_detach("mybuf", attached);
	return 0;
}
