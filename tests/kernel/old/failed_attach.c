/* SPDX-License-Identifier: MIT */
/* An attach that fails drops nobody's count; one that succeeds adds none. */
#include "fact.h"

int main(void)
{
	char *memory = mbuff_alloc("mybuf", PAGE), *attached;
	int round;

	FACT(memory);
	for (round = 0; round < 3; round++) {
		FACT(!mbuff_attach("mybuf", 2 * PAGE) && errno == EINVAL);
		FACT(!mbuff_attach("mybuf", 0) && errno == EINVAL);
		attached = mbuff_attach("mybuf", 10);
		FACT(attached);
		mbuff_detach("mybuf", attached);
		FACT(mbuff_size("mybuf") == PAGE);
	}
	mbuff_free("mybuf", memory);
	FACT(mbuff_size("mybuf") == -EINVAL);
	return 0;
}
