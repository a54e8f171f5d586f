/* SPDX-License-Identifier: MIT */
/* Two allocs of one name see the same bytes; one is freed, the other still works; then that one. */
#include "fact.h"

int main(void)
{
	char *one = mbuff_alloc("mybuf", 2 * PAGE + 1), *two = mbuff_alloc("mybuf", 100);

	FACT(one && two && one != two);
	strcpy(one, "seen by both");
	FACT(!strcmp(two, "seen by both"));
	FACT(mbuff_size("mybuf") == 3 * PAGE); /* whole pages */
	one[3 * PAGE - 1] = 7;
	FACT(two[3 * PAGE - 1] == 7); /* all of it is mapped, whatever the size asked for */
	errno = 0;
	mbuff_free("mybuf", one);
	FACT(errno == 0);
	FACT(faults(one));
	strcpy(two, "still there");
	FACT(mbuff_size("mybuf") == 3 * PAGE);
	mbuff_free("mybuf", two);
	FACT(faults(two));
	mbuff_free("mybuf", NULL);
	FACT(errno == EINVAL); /* there is none */
	FACT(mbuff_size("mybuf") == -EINVAL && errno == EINVAL);
	return 0;
}
