/* SPDX-License-Identifier: MIT */
/* What is unmapped is what was mapped, though the area has another size by now. */
#include "fact.h"

int main(void)
{
	const size_t page = (size_t)PAGE;
	char *place, *memory, *other;

	/* A page, and behind it memory that is none of its business. */
	place = mmap(NULL, 32 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FACT(place != MAP_FAILED);
	FACT(!munmap(place, page));
	memory = mbuff_alloc_at("mybuf", PAGE, place);
	FACT(memory == place);
	mbuff_free("mybuf", NULL);
	other = mbuff_alloc("other", 16 * PAGE);
	FACT(other);
	place[page] = 'x';
	mbuff_detach("other", memory); /* as if "mybuf" had been made anew with 16 pages */
	FACT(faults(memory));
	FACT(place[page] == 'x');

	/* A part with another protection is unmapped with the rest. */
	FACT(!mprotect(other + 2 * page, page, PROT_READ));
	mbuff_free("other", other);
	FACT(faults(other) && faults(other + 2 * page) && faults(other + 15 * page));
	FACT(mbuff_size("other") == -EINVAL && mbuff_size("mybuf") == -EINVAL);

	/* What is no mapping of an area stays. */
	errno = 0;
	mbuff_detach("mybuf", place + page);
	FACT(place[page] == 'x' && errno == EINVAL);
	return 0;
}
