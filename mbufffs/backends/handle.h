/* SPDX-License-Identifier: MIT */
/*
 * Node ids as the store's own file handles: a tmpfs makes one of inode number and generation, so a
 * node is found again without any table, whatever its names are. It takes CAP_DAC_READ_SEARCH.
 */
#ifndef MBUFFFS_HANDLE_H
#define MBUFFFS_HANDLE_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>

#define TMPFS_HANDLE_TYPE 1 /* generation, low and high half of the inode number */

union handle {
	struct file_handle head;
	struct {
		uint32_t bytes;
		int32_t type;
		uint32_t generation, low, high;
		uint32_t room[29];
	} tmpfs;
};

/* Of a name in a directory, or with "" of an open file; 0 or -1 with errno. */
static inline int handle_of(int directory, const char *name, uint64_t *node)
{
	union handle handle = { .tmpfs.bytes = sizeof(handle.tmpfs) - 8 };
	int mount;

	if (name_to_handle_at(directory, name, &handle.head, &mount, *name ? 0 : AT_EMPTY_PATH))
		return -1;
	/* An inode number that needs the high half leaves no room for the generation. */
	if (handle.tmpfs.bytes != 12 || handle.tmpfs.type != TMPFS_HANDLE_TYPE ||
	    handle.tmpfs.high) {
		errno = EOPNOTSUPP;
		return -1;
	}
	*node = (uint64_t)handle.tmpfs.generation << 32 | handle.tmpfs.low;
	return 0;
}

/* A descriptor of the node, or -1 with errno; `store` is any descriptor in the store. */
static inline int handle_open(int store, uint64_t node, int flags)
{
	union handle handle = {
		.tmpfs = { .bytes = 12,
			   .type = TMPFS_HANDLE_TYPE,
			   .generation = (uint32_t)(node >> 32),
			   .low = (uint32_t)node },
	};

	return open_by_handle_at(store, &handle.head, flags | O_CLOEXEC);
}

#endif
