/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The names of RTAI's shared memory for old source, on top of mbuff.h: areas by a number that is
 * made of up to six characters, the same calls for modules and for programs. The area of
 * nam2num("SHM") is mbuff's "SHM", so it shows at /mnt/mbuff/SHM.
 *
 * As there: memory is zeroed; programs that are mapped are counted across fork, and uncounted when
 * they end; the area goes with its last user. A second call for a name finds the area, and fails if
 * that is smaller. Differs: the kind of memory that is asked for is that of a new area alone, and
 * rt_shm_free() returns 0, or -1 for a name that is not mapped here.
 */
#ifndef _RTAI_SHM_H
#define _RTAI_SHM_H

#include <mbuff.h>

#ifdef __KERNEL__
#include <linux/err.h>
#include <linux/mm.h>
#else
#include <linux/mbuff.h>
#include <sched.h>
#endif

#define USE_VMALLOC 0	 /* pages anywhere */
#define USE_GFP_KERNEL 1 /* one piece of physical memory; so the next two */
#define USE_GFP_ATOMIC 2
#define USE_GFP_DMA 3

/* Six characters of 39: digits, letters without case, '_', and '$' for any other. */
static __inline__ unsigned long nam2num(const char *name)
{
	unsigned long number = 0;
	int at, code;

	for (at = 0; at < 6 && name[at]; at++) {
		char c = name[at];

		if (c >= '0' && c <= '9')
			code = c - '0' + 1;
		else if (c >= 'A' && c <= 'Z')
			code = c - 'A' + 11;
		else if (c >= 'a' && c <= 'z')
			code = c - 'a' + 11;
		else
			code = c == '_' ? 37 : 38;
		number = number * 39 + (unsigned long)code;
	}
	return at ? number : 0xffffffffUL;
}

/* `name`: seven bytes, with the NUL. */
static __inline__ void num2nam(unsigned long number, char *name)
{
	char reversed[6];
	int count = 0, at;

	if (number >= 3518743761UL) /* 39 to the 6th: no name gives it */
		number = 0;
	for (; number && count < 6; number /= 39) {
		int code = (int)(number % 39);

		if (code <= 10)
			reversed[count++] = (char)('0' + code - 1);
		else if (code <= 36)
			reversed[count++] = (char)('A' + code - 11);
		else
			reversed[count++] = code == 37 ? '_' : '$';
	}
	for (at = 0; at < count; at++)
		name[at] = reversed[count - 1 - at];
	name[count] = '\0';
}

#ifdef __KERNEL__

static inline void *rt_shm_alloc(unsigned long number, int size, int kind)
{
	struct mbuff_area *area;
	char name[7];

	num2nam(number, name);
	if (size <= 0)
		return NULL;
	area = mbuff_get(name);
	if (area == ERR_PTR(-ENOENT))
		area = kind == USE_VMALLOC ? mbuff_make(name, PAGE_ALIGN(size), 0660) :
					     mbuff_make_contiguous(name, PAGE_ALIGN(size), 0660);
	if (IS_ERR(area))
		return NULL;
	if (mbuff_area_size(area) < size) {
		mbuff_put(area);
		return NULL;
	}
	return mbuff_address(area);
}

static inline int rt_shm_free(unsigned long number)
{
	char name[7];

	num2nam(number, name);
	mbuff_free(name, NULL);
	return 0;
}

#define rtai_kmalloc(number, size) rt_shm_alloc(number, size, USE_VMALLOC)
#define rtai_kfree(number) rt_shm_free(number)

#else /* programs */

/* What this process has mapped; one table for all files of the program. */
struct rtai_shm_mapped {
	unsigned long number;
	void *memory;
	unsigned int times;
};

#define RTAI_SHM_MAX 256
__attribute__((weak)) struct rtai_shm_mapped rtai_shm_table[RTAI_SHM_MAX];
__attribute__((weak)) int rtai_shm_lock; /* the process that works with it, 0: none */

static __inline__ void rtai_shm_enter(void)
{
	const int pid = (int)getpid();
	int held;

	/* Of another process we were forked while one of its threads was here, who is not. */
	while ((held = __sync_val_compare_and_swap(&rtai_shm_lock, 0, pid)) &&
	       (held == pid || !__sync_bool_compare_and_swap(&rtai_shm_lock, held, pid)))
		sched_yield();
}

static __inline__ void rtai_shm_leave(void)
{
	__sync_lock_release(&rtai_shm_lock);
}

static __inline__ struct rtai_shm_mapped *rtai_shm_find(unsigned long number)
{
	int at;

	for (at = 0; at < RTAI_SHM_MAX; at++)
		if (rtai_shm_table[at].times && rtai_shm_table[at].number == number)
			return &rtai_shm_table[at];
	for (at = 0; number && at < RTAI_SHM_MAX; at++)
		if (!rtai_shm_table[at].times)
			return &rtai_shm_table[at];
	return NULL;
}

/* A new area of one piece of memory, which goes with its last user as others do. */
static __inline__ int rtai_shm_make_contiguous(const char *name, size_t size)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct mbuff_create create;
	int device = open(MBUFF_DEV_NAME, O_RDWR | MBUFF_OPEN_FLAGS), result;

	if (device < 0)
		return -1;
	memset(&create, 0, sizeof(create));
	create.name = (__u64)(unsigned long)name;
	create.name_len = (__u32)strlen(name);
	create.flags = MBUFF_CREATE_CONTIGUOUS | MBUFF_CREATE_TRANSIENT;
	create.size = (size + page - 1) / page * page;
	create.mode = 0660;
	create.uid = create.gid = ~0U;
	result = ioctl(device, MBUFF_IOC_CREATE, &create);
	mbuff_close(device);
	return result;
}

static __inline__ void *rtai_shm_take(void *address, unsigned long number, int size, int kind)
{
	struct rtai_shm_mapped *mapped = rtai_shm_find(number);
	char name[7];

	num2nam(number, name);
	if (!mapped || size <= 0)
		return NULL;
	if (!mapped->times) {
		if (kind != USE_VMALLOC && rtai_shm_make_contiguous(name, (size_t)size))
			return NULL;
		mapped->memory =
			address ? mbuff_attach_at(name, size, address) : mbuff_attach(name, size);
		if (!mapped->memory)
			return NULL;
		mapped->number = number;
	}
	mapped->times++;
	return mapped->memory;
}

static __inline__ void *rt_shm_alloc_adr(void *address, unsigned long number, int size, int kind)
{
	void *memory;

	rtai_shm_enter();
	memory = rtai_shm_take(address, number, size, kind);
	rtai_shm_leave();
	return memory;
}

static __inline__ void *rt_shm_alloc(unsigned long number, int size, int kind)
{
	return rt_shm_alloc_adr(NULL, number, size, kind);
}

static __inline__ int rtai_shm_drop(unsigned long number)
{
	struct rtai_shm_mapped *mapped = rtai_shm_find(number);
	char name[7];

	if (!mapped || !mapped->times)
		return -1;
	if (!--mapped->times) {
		num2nam(number, name);
		mbuff_detach(name, mapped->memory);
	}
	return 0;
}

static __inline__ int rt_shm_free(unsigned long number)
{
	int result;

	rtai_shm_enter();
	result = rtai_shm_drop(number);
	rtai_shm_leave();
	return result;
}

#define rtai_malloc(number, size) rt_shm_alloc(number, size, USE_VMALLOC)
#define rtai_malloc_adr(address, number, size) rt_shm_alloc_adr(address, number, size, USE_VMALLOC)
#define rtai_kmalloc(number, size) rt_shm_alloc(number, size, USE_GFP_KERNEL)
#define rtai_free(number, memory) ((void)(memory), (void)rt_shm_free(number))
#define rtai_kfree(number) rt_shm_free(number)

#endif
#endif
