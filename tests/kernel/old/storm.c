/* SPDX-License-Identifier: MIT */
/*
 * storm SEED ROUNDS: makes, finds, writes and gives back three areas in any order; many of it run
 * at once, and some are killed. Prints a line a round.
 * storm drain: gives back what the killed ones left, until there is none.
 */
#include "fact.h"

static const char *const names[] = { "storm-0", "storm-1", "storm-2" };

static void use(int which, char *memory)
{
	const int size = (which + 1) * PAGE;

	FACT(!memory[0] || memory[0] == 'a' + which);
	FACT(!memory[size - 1] || memory[size - 1] == 'A' + which);
	memory[0] = (char)('a' + which);
	memory[size - 1] = (char)('A' + which);
}

static void drain(void)
{
	int which, left;

	for (which = 0; which < 3; which++) {
		for (left = 100; left && mbuff_size(names[which]) > 0; left--)
			mbuff_free(names[which], NULL);
		FACT(mbuff_size(names[which]) == -EINVAL);
		mbuff_free(names[which], mbuff_alloc(names[which], PAGE));
		FACT(mbuff_size(names[which]) == -EINVAL);
	}
}

int main(int argc, char **argv)
{
	int round;

	if (argc == 2) {
		drain();
		return 0;
	}
	FACT(argc == 3);
	srand((unsigned int)atoi(argv[1]));
	for (round = 0; round < atoi(argv[2]); round++) {
		const int which = rand() % 3, size = (which + 1) * PAGE;
		char *counted = NULL, *attached = NULL, *found;

		if (rand() % 3) {
			counted = mbuff_alloc(names[which], size);
			FACT(counted);
			use(which, counted);
		}
		if (rand() % 2) {
			attached = mbuff_attach(names[which], size);
			FACT(attached);
			use(which, attached);
		}
		found = mbuff_mmap(names[which], size);
		FACT(found || (!counted && !attached && errno == EINVAL));
		if (found)
			use(which, found);
		if (counted || attached || found) /* who has it mapped keeps its name */
			FACT(mbuff_size(names[which]) == size);
		/* Not shared with others, if two areas of one name were there at once. */
		FACT(!counted || !found || !memcmp(counted, found, (size_t)size));
		if (found)
			mbuff_unmap(names[which], found);
		if (counted)
			mbuff_free(names[which], counted);
		if (attached)
			mbuff_detach(names[which], attached);
		printf("%d\n", round);
		fflush(stdout);
	}
	return 0;
}
