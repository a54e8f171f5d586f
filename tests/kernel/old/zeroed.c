/* SPDX-License-Identifier: MIT */
/* New memory is zero, though the old area of that name was not. */
#include "fact.h"

int main(void)
{
	int round, at;

	for (round = 0; round < 5; round++) {
		char *memory = round % 2 ? mbuff_attach("mybuf", 16 * PAGE) :
					   mbuff_alloc("mybuf", 16 * PAGE);

		FACT(memory);
		for (at = 0; at < 16 * PAGE; at++)
			FACT(!memory[at]);
		memset(memory, 0xff, 16 * (size_t)PAGE);
		if (round % 2)
			mbuff_detach("mybuf", memory);
		else
			mbuff_free("mybuf", memory);
	}
	return 0;
}
