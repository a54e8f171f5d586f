/* SPDX-License-Identifier: MIT */
/* Freeing or detaching a mapping twice is EINVAL, and takes no count of anybody else. */
#include "fact.h"

int main(void)
{
	char *one = mbuff_alloc("mybuf", PAGE), *two = mbuff_alloc("mybuf", PAGE), *attached;

	FACT(one && two);
	mbuff_free("mybuf", one);
	errno = 0;
	mbuff_free("mybuf", one);
	FACT(errno == EINVAL);
	attached = mbuff_attach("mybuf", PAGE);
	FACT(attached);
	mbuff_detach("mybuf", attached);
	errno = 0;
	mbuff_detach("mybuf", attached);
	FACT(errno == EINVAL);
	FACT(mbuff_size("mybuf") == PAGE);
	strcpy(two, "counted still");
	errno = 0;
	mbuff_free("mybuf", two);
	FACT(errno == 0);
	FACT(mbuff_size("mybuf") == -EINVAL);
	return 0;
}
