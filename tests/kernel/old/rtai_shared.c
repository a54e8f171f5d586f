/* SPDX-License-Identifier: MIT */
/* Source for RTAI's shared memory: names by number, one memory for all, gone with its last user. */
#include <rtai_shm.h>

#include <pthread.h>
#include <sys/wait.h>

#include "fact.h"

static void names(void)
{
	static const char *const good[] = { "A", "Z9", "SHM_01", "0", "000001", "______" };
	char back[7];
	size_t at;

	for (at = 0; at < sizeof(good) / sizeof(*good); at++) {
		num2nam(nam2num(good[at]), back);
		FACT(!strcmp(back, good[at]));
	}
	FACT(nam2num("abc") == nam2num("ABC"));
	FACT(nam2num("abcdefgh") == nam2num("abcdef"));
	FACT(nam2num("a") == 11 && nam2num("0") == 1 && nam2num("10") == 2 * 39 + 1);
	num2nam(nam2num("a.b"), back);
	FACT(!strcmp(back, "A$B"));
	FACT(nam2num("") == 0xffffffffUL);
	FACT(!rtai_malloc(nam2num(""), PAGE));
	FACT(!rtai_malloc(0, PAGE));
	FACT(!rtai_malloc(nam2num("shm"), 0));
}

/* Each thread has a block of its own, and gets no other's. */
static void *shares_nothing(void *name)
{
	const unsigned long number = nam2num(name);
	const int mark = *(const char *)name;
	int round, *memory;

	for (round = 0; round < 100; round++) {
		memory = rtai_malloc(number, PAGE);
		FACT(memory && !*memory);
		*memory = mark;
		sched_yield();
		FACT(*memory == mark);
		FACT(!rt_shm_free(number));
	}
	return NULL;
}

static void threads(void)
{
	static char names_of[4][2] = { "A", "B", "C", "D" };
	pthread_t running[4];
	int at;

	for (at = 0; at < 4; at++)
		FACT(!pthread_create(&running[at], NULL, shares_nothing, names_of[at]));
	for (at = 0; at < 4; at++)
		FACT(!pthread_join(running[at], NULL));
}

int main(void)
{
	const unsigned long shm = nam2num("shm");
	int *first, *second, at, status;

	names();
	threads();
	first = rtai_malloc(shm, 5000);
	FACT(first);
	for (at = 0; at < 1250; at++)
		FACT(!first[at]);
	second = rt_shm_alloc(shm, PAGE, USE_VMALLOC);
	FACT(second == first);
	first[7] = 1;
	if (!fork()) {
		first[7]++;
		_exit(first[7] != 2);
	}
	FACT(wait(&status) > 0 && !status);
	FACT(first[7] == 2);
	rtai_free(shm, first);
	FACT(second[7] == 2);
	FACT(!rt_shm_free(shm));
	FACT(rt_shm_free(shm) == -1);
	first = rtai_malloc(shm, PAGE);
	FACT(first && !first[7]);
	rtai_free(shm, first);
	return 0;
}
