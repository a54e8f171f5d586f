/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Named memory areas, for kernel modules and for programs: the functions and macros of mbuff 0.7.3
 * under their old names, and for modules a newer face beside them.
 *
 * A program compiled with this header needs no library and no other file of ours. If mbuff_files.h
 * is beside it, the functions for programs work where /dev/mbuff is absent, on the files of
 * mbufffs.
 */
#ifndef __MBUFF_H
#define __MBUFF_H

#ifdef __KERNEL__
#include <linux/ioctl.h>
#include <linux/types.h>
#else
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#endif

#define MBUFF_VERSION "0.7.3" /* the interface that old source finds here */
#define MBUFF_NAME_LEN 32     /* with the NUL: 31 bytes of a name can be used */
#define MBUFF_MAX_MMAPS 16    /* for old source alone: there is no such limit any more */
#ifndef MBUFF_DEV_NAME
#define MBUFF_DEV_NAME "/dev/mbuff"
#endif
#ifndef MBUFF_DEV_NAME2
#define MBUFF_DEV_NAME2 "/dev/rtl_shm"
#endif

/*
 * Programs initialise it by position, so the order stays; 60 bytes for 32-bit programs, 64 for
 * others. flags and reserved are not looked at: old programs leave them uninitialised. A NUL must
 * end the name.
 */
struct mbuff_request_struct {
	unsigned int flags;
	char name[MBUFF_NAME_LEN + 1];
	size_t size;
	unsigned int reserved[4];
};

/*
 * Each returns the size of the area; DEALLOCATE returns 0 if the area is gone with it. The numbers
 * were 0 to 3, and 2 never reached a driver; these are new, so old source works once it is compiled
 * again. They are of the magic number of <linux/mbuff.h>, which leaves 0x40 to 0x43 to them.
 */
#define IOCTL_MBUFF_INFO _IOWR(0xBE, 0x40, struct mbuff_request_struct)
#define IOCTL_MBUFF_ALLOCATE _IOWR(0xBE, 0x41, struct mbuff_request_struct)
#define IOCTL_MBUFF_DEALLOCATE _IOWR(0xBE, 0x42, struct mbuff_request_struct)
#define IOCTL_MBUFF_SELECT _IOWR(0xBE, 0x43, struct mbuff_request_struct)
#define IOCTL_MBUFF_LAST IOCTL_MBUFF_SELECT

#ifdef __KERNEL__

#include <linux/mm_types.h>
#include <linux/module.h>

/*
 * All of these may sleep: call them from a module's init or a thread, never from interrupt, timer
 * or real-time context. mbuff_notify() alone may be called from everywhere.
 *
 * Each reference holds the area: it cannot be removed, renamed or resized until it is put, and its
 * pages and their address in the kernel stay as they are. References are counted under the name of
 * the module that took them; a module that leaves without putting them is named in the log, and
 * they are put for it.
 */
struct mbuff_area;

/* ERR_PTR: -ENOENT no such area, -EINVAL or -ENAMETOOLONG the name, -ENODATA it has no memory. */
struct mbuff_area *mbuff_get_for(struct module *owner, const char *name);

/*
 * Finds the area, or makes it of `size` bytes with `mode` (0660, say); one that nobody uses any
 * more goes by itself. -EINVAL: it exists and is smaller. -ENOSPC: beyond the module's limit.
 */
struct mbuff_area *mbuff_make_for(struct module *owner, const char *name, size_t size,
				  umode_t mode);
/* The same, of one piece of physical memory; -EINVAL also for one that exists and is none. */
struct mbuff_area *mbuff_make_contiguous_for(struct module *owner, const char *name, size_t size,
					     umode_t mode);
void mbuff_put_for(struct module *owner, struct mbuff_area *area);

/* The memory, page aligned; valid until the reference is put. */
void *mbuff_address(const struct mbuff_area *area);
size_t mbuff_area_size(const struct mbuff_area *area);
/* Where contiguous or reserved memory begins; 0 for pages, which lie anywhere. */
phys_addr_t mbuff_physical(const struct mbuff_area *area);

/* Wakes everybody who waits for the area with poll, select or epoll; safe in any context. */
void mbuff_notify(struct mbuff_area *area);

#define mbuff_get(name) mbuff_get_for(THIS_MODULE, name)
#define mbuff_make(name, size, mode) mbuff_make_for(THIS_MODULE, name, size, mode)
#define mbuff_make_contiguous(name, size, mode) \
	mbuff_make_contiguous_for(THIS_MODULE, name, size, mode)
#define mbuff_put(area) mbuff_put_for(THIS_MODULE, area)

/* The old names. NULL on failure; a NULL name means "default". */
void *mbuff_alloc_for(struct module *owner, const char *name, size_t size);
void mbuff_free_for(struct module *owner, const char *name, void *memory);

static inline void *mbuff_alloc(const char *name, int size)
{
	return size <= 0 ? NULL : mbuff_alloc_for(THIS_MODULE, name, size);
}

static inline void mbuff_free(const char *name, void *memory)
{
	mbuff_free_for(THIS_MODULE, name, memory);
}

static inline void *mbuff_attach(const char *name, int size)
{
	return mbuff_alloc(name, size);
}

static inline void mbuff_detach(const char *name, void *memory)
{
	mbuff_free(name, memory);
}

#else /* __KERNEL__ */

/*
 * For programs. All but mbuff_size() and the void ones return NULL on failure; errno says why:
 * EINVAL if there is no such area, if it is smaller than asked for, and for a size of 0 or less or
 * a name that no area can have; ENAMETOOLONG. A NULL name means "default".
 *
 * mbuff_alloc() makes the area, of whole pages, or finds it, maps all of it, and counts: the area
 * stays until mbuff_free() was called as often, whoever ends meanwhile. mbuff_attach() makes or
 * finds it and maps `size` bytes without counting: an area that nobody counts goes with its last
 * mapping. mbuff_mmap() does the same with an area that exists. The _at functions try to map at
 * `addr`. What is not named here or in mbuff 0.7.3 is the header's own.
 */
#ifdef __cplusplus
extern "C" {
#endif

#ifdef O_CLOEXEC
#define MBUFF_OPEN_FLAGS O_CLOEXEC
#else
#define MBUFF_OPEN_FLAGS __O_CLOEXEC /* the same, where bare C is asked for */
#endif

/* How an area is mapped. */
#define MBUFF_COUNTED 0	 /* found or made, and counted; all of it is mapped */
#define MBUFF_ATTACHED 1 /* found or made */
#define MBUFF_FOUND 2

static __inline__ void mbuff_close(int fd)
{
	int error = errno;

	if (fd >= 0)
		close(fd);
	errno = error;
}

/* Whether the last open(2) failed because there is no such device. */
static __inline__ int mbuff_device_is_absent(void)
{
	return errno == ENOENT || errno == ENXIO || errno == ENODEV;
}

/* The same names are refused with the device and without: "../x" must lead nowhere. */
static __inline__ int mbuff_name_request(const char *name, struct mbuff_request_struct *req)
{
	const char *part;
	size_t length;

	if (name) {
		length = strlen(name) < MBUFF_NAME_LEN ? strlen(name) : MBUFF_NAME_LEN;
		memmove(req->name, name, length);
		req->name[length] = '\0';
	}
	req->name[MBUFF_NAME_LEN] = '\0';
	if (strlen(req->name) == MBUFF_NAME_LEN) {
		errno = ENAMETOOLONG;
		return -1;
	}
	for (part = req->name;; part += length + 1) {
		length = strcspn(part, "/");
		if (length <= 2 && !strncmp(part, "..", length)) { /* "", "." and ".." */
			errno = EINVAL;
			return -1;
		}
		if (!part[length])
			return 0;
	}
}

/*
 * Opens the device for ioctls, with the name filled in; -1 on failure. Where there is none there
 * are no ioctls either. Who calls it closes the descriptor.
 */
static __inline__ int mbuff_open_dev(const char *name, struct mbuff_request_struct *req)
{
	int fd;

	if (mbuff_name_request(name, req))
		return -1;
	fd = open(MBUFF_DEV_NAME, O_RDWR | MBUFF_OPEN_FLAGS);
	if (fd < 0 && mbuff_device_is_absent())
		fd = open(MBUFF_DEV_NAME2, O_RDWR | MBUFF_OPEN_FLAGS);
	return fd;
}

/* Maps what is wanted, or all of it. */
static __inline__ void *mbuff_map_fd(int fd, size_t wanted, void *addr, int how)
{
	off_t length = lseek(fd, 0, SEEK_END);

	if (length < (off_t)wanted) {
		if (length >= 0)
			errno = EINVAL;
		return MAP_FAILED;
	}
	if (how == MBUFF_COUNTED && (off_t)(size_t)length == length)
		wanted = (size_t)length;
	return mmap(addr, wanted, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

/*
 * Unmaps the shared mapping of a file that begins at `memory`. Its length is looked up: the area
 * may have been made anew since, with another size. If the program has changed the protection of a
 * part of it, it has several entries here, one behind the other.
 */
static __inline__ int mbuff_unmap_memory(void *memory)
{
	unsigned long from = (unsigned long)memory, next = from, start, end, offset;
	char line[256], mode[8], file[64], first[64] = "";
	FILE *maps = fopen("/proc/self/maps", "re");
	int begins, ended = 1;

	while (maps && fgets(line, sizeof(line), maps)) {
		begins = ended;
		ended = strchr(line, '\n') != NULL;
		if (!begins ||
		    sscanf(line, "%lx-%lx %7s %lx %63[0-9a-f: ]", &start, &end, mode, &offset,
			   file) != 5 ||
		    start < next)
			continue;
		if (next == from)
			strcpy(first, file);
		if (start != next || offset != next - from || mode[3] != 's' || strcmp(first, file))
			break;
		next = end;
	}
	if (!maps)
		return -1;
	fclose(maps);
	errno = EINVAL;
	return next == from ? -1 : munmap(memory, next - from);
}

/*
 * Attaching counts until the area is mapped, so that it cannot go before; one who is killed in
 * between leaves a count behind.
 */
static __inline__ void *mbuff_device_map(int fd, struct mbuff_request_struct *req, void *addr,
					 int how)
{
	void *memory;
	int error;

	if (ioctl(fd, how == MBUFF_FOUND ? IOCTL_MBUFF_SELECT : IOCTL_MBUFF_ALLOCATE, req) == -1) {
		if (errno == EIO) /* the old ioctl's word for a size that does not fit */
			errno = EINVAL;
		return MAP_FAILED;
	}
	memory = mbuff_map_fd(fd, req->size, addr, how);
	if (how == MBUFF_ATTACHED || (how == MBUFF_COUNTED && memory == MAP_FAILED)) {
		error = errno;
		ioctl(fd, IOCTL_MBUFF_DEALLOCATE, req);
		errno = error;
	}
	return memory;
}

#if defined __has_include
#if __has_include("mbuff_files.h")
#include "mbuff_files.h"
#endif
#endif
#ifndef MBUFF_FILES_H /* errno stays as opening the device left it */
#define mbuff_files_map(name, wanted, addr, how) MAP_FAILED
#define mbuff_files_drop(name, how) -1
#define mbuff_files_size(name) -1
#endif

static __inline__ void *mbuff_map(const char *name, int size, void *addr, int how)
{
	struct mbuff_request_struct req = { 0, "default", 0, { 0 } };
	void *memory = MAP_FAILED;
	int fd;

	if (size <= 0) {
		errno = EINVAL;
		return NULL;
	}
	req.size = (size_t)size;
	fd = mbuff_open_dev(name, &req);
	if (fd >= 0)
		memory = mbuff_device_map(fd, &req, addr, how);
	else if (mbuff_device_is_absent())
		memory = mbuff_files_map(req.name, req.size, addr, how);
	mbuff_close(fd);
	return memory == MAP_FAILED ? NULL : memory;
}

static __inline__ void mbuff_drop(const char *name, void *mbuf, int how)
{
	struct mbuff_request_struct req = { 0, "default", 0, { 0 } };
	int before = errno, error = 0, fd, done;

	if (mbuf && mbuff_unmap_memory(mbuf))
		return; /* freed twice: a count that is left is somebody else's */
	fd = mbuff_open_dev(name, &req);
	if (fd >= 0)
		done = how != MBUFF_COUNTED || ioctl(fd, IOCTL_MBUFF_DEALLOCATE, &req) != -1;
	else
		done = mbuff_device_is_absent() && !mbuff_files_drop(req.name, how);
	if (!done)
		error = errno;
	if (fd >= 0)
		close(fd);
	errno = error ? error : before;
}

static __inline__ void *mbuff_alloc_at(const char *name, int size, void *addr)
{
	return mbuff_map(name, size, addr, MBUFF_COUNTED);
}

static __inline__ void *mbuff_alloc(const char *name, int size)
{
	return mbuff_map(name, size, NULL, MBUFF_COUNTED);
}

static __inline__ void *mbuff_attach_at(const char *name, int size, void *addr)
{
	return mbuff_map(name, size, addr, MBUFF_ATTACHED);
}

static __inline__ void *mbuff_attach(const char *name, int size)
{
	return mbuff_map(name, size, NULL, MBUFF_ATTACHED);
}

static __inline__ void *mbuff_mmap_at(const char *name, int size, void *addr)
{
	return mbuff_map(name, size, addr, MBUFF_FOUND);
}

static __inline__ void *mbuff_mmap(const char *name, int size)
{
	return mbuff_map(name, size, NULL, MBUFF_FOUND);
}

/* Unmaps `mbuf`, which may be NULL, and drops one count. On success errno is as before. */
static __inline__ void mbuff_free(const char *name, void *mbuf)
{
	mbuff_drop(name, mbuf, MBUFF_COUNTED);
}

/* Unmaps what mbuff_attach() or mbuff_mmap() returned. On success errno is as before. */
static __inline__ void mbuff_detach(const char *name, void *mbuf)
{
	mbuff_drop(name, mbuf, MBUFF_ATTACHED);
}

#define mbuff_unmap mbuff_detach

/* The size in bytes, or a negative errno: -EOVERFLOW if an int is too small for it. */
static __inline__ int mbuff_size(const char *name)
{
	struct mbuff_request_struct req = { 0, "default", 0, { 0 } };
	int fd = mbuff_open_dev(name, &req), size = -1;

	if (fd >= 0)
		size = ioctl(fd, IOCTL_MBUFF_INFO, &req);
	else if (mbuff_device_is_absent())
		size = mbuff_files_size(req.name);
	mbuff_close(fd);
	return size < 0 ? -errno : size;
}

#ifdef __cplusplus
}
#endif

#endif /* __KERNEL__ */

#endif
