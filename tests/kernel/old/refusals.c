/* SPDX-License-Identifier: MIT */
/* What cannot be is NULL with an errno, and leaves areas, counts and descriptors as they are. */
#include "fact.h"

#define LONGEST "a-name-of-31-bytes-is-the-limit"

static const struct {
	const char *name;
	int size, error;
} refused[] = {
	{ "mybuf", 0, EINVAL },
	{ "mybuf", -1, EINVAL },
	{ "mybuf", -2147483647 - 1, EINVAL },
	{ "", 100, EINVAL },
	{ "..", 100, EINVAL },
	{ ".", 100, EINVAL },
	{ "/mybuf", 100, EINVAL },
	{ "mybuf/", 100, EINVAL },
	{ "../mybuf", 100, EINVAL },
	{ "a//b", 100, EINVAL },
	{ LONGEST "+", 100, ENAMETOOLONG },
};

int main(void)
{
	int before = free_descriptor(), at, existing;
	char *memory;

	FACT(strlen(LONGEST) == 31 && MBUFF_NAME_LEN == 32);
	for (existing = 0; existing < 2; existing++) {
		for (at = 0; at < (int)(sizeof(refused) / sizeof(*refused)); at++) {
			const char *name = refused[at].name;
			const int size = refused[at].size, error = refused[at].error;

			FACT(!mbuff_alloc(name, size) && errno == error);
			FACT(!mbuff_attach(name, size) && errno == error);
			FACT(!mbuff_mmap(name, size) && errno == error);
			FACT(!mbuff_alloc_at(name, size, NULL) && errno == error);
			FACT(!mbuff_attach_at(name, size, NULL) && errno == error);
			FACT(!mbuff_mmap_at(name, size, NULL) && errno == error);
			FACT(size <= 0 || mbuff_size(name) == -error);
			mbuff_free(name, NULL); /* what is not there cannot be freed */
		}
		FACT(!mbuff_mmap("none", 100) && errno == EINVAL);
		FACT(mbuff_size("none") == -EINVAL);
		for (at = 0; !existing && at < 3; at++) {
			memory = mbuff_alloc("mybuf", PAGE);
			FACT(memory && !munmap(memory, (size_t)PAGE)); /* counted, and not mapped */
		}
	}
	FACT(mbuff_size("mybuf") == -EINVAL); /* freed once for each of its three wrong sizes */

	memory = mbuff_alloc("mybuf", PAGE);
	FACT(memory);
	FACT(!mbuff_alloc("mybuf", PAGE + 1) && errno == EINVAL);
	FACT(!mbuff_attach("mybuf", PAGE + 1) && errno == EINVAL);
	FACT(!mbuff_mmap("mybuf", PAGE + 1) && errno == EINVAL);
	mbuff_free("mybuf", memory);
	FACT(mbuff_size("mybuf") == -EINVAL);

	memory = mbuff_alloc(LONGEST, 100);
	FACT(memory && mbuff_size(LONGEST) == PAGE);
	mbuff_free(LONGEST, memory);
	FACT(mbuff_size(LONGEST) == -EINVAL);
	FACT(free_descriptor() == before);
	return 0;
}
