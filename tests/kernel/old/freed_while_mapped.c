/* SPDX-License-Identifier: MIT */
/* Freed while it is mapped: still written and found; gone with the mapping, which then faults. */
#include "fact.h"

int main(void)
{
	char *counted = mbuff_alloc("mybuf", 100), *attached = mbuff_attach("mybuf", 100), *found;

	FACT(counted && attached);
	mbuff_free("mybuf", counted);
	FACT(faults(counted));
	strcpy(attached, "written after the free");
	found = mbuff_mmap("mybuf", 100);
	FACT(found && !strcmp(found, "written after the free"));
	mbuff_unmap("mybuf", found);
	FACT(mbuff_size("mybuf") == PAGE);
	mbuff_detach("mybuf", attached);
	FACT(faults(attached));
	FACT(mbuff_size("mybuf") < 0);
	return 0;
}
