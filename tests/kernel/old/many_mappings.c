/* SPDX-License-Identifier: MIT */
/* More than the sixteen mappings of the old driver, in one process, and all of them the same bytes.
 */
#include "fact.h"

#define MANY 100

int main(void)
{
	unsigned char *memory[MANY];
	int at;

	for (at = 0; at < MANY; at++) {
		memory[at] = at % 2 ? mbuff_alloc("mybuf", PAGE) : mbuff_attach("mybuf", PAGE);
		FACT(memory[at]);
		memory[at][at] = (unsigned char)at;
	}
	for (at = 0; at < MANY; at++) {
		FACT(memory[MANY - 1][at] == at);
		if (at % 2)
			mbuff_free("mybuf", memory[at]);
		else
			mbuff_detach("mybuf", memory[at]);
		FACT((mbuff_size("mybuf") == PAGE) == (at < MANY - 1));
	}
	return 0;
}
