/* SPDX-License-Identifier: MIT */
/*
 * A real store for facts: the root of areas, in a directory of a tmpfs, which takes root; and what
 * kernel and server say of it.
 */
#ifndef MBUFFFS_TESTS_STORE_H
#define MBUFFFS_TESTS_STORE_H

#include <limits.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "harness.h"

#define LIMIT 65536 /* bytes; as granted */
#define ROOT FUSE_ROOT_ID
#define KEPT 16

struct store {
	char path[PATH_MAX];
	int areas;
	int32_t backings;		       /* ids that were given out */
	atomic_int kept[KEPT];		       /* what the kernel holds by them, 0: nothing */
	void (*closes)(void *rig, int32_t id); /* the rig's */
	bool refuses;			       /* backing ids */
	bool waits; /* with the next one: says so in reached, until told to go */
	int reached[2], go[2];
};

extern struct store store;

void grants(struct rig *rig);
void store_begin_with(struct rig *rig, bool passthrough);
void store_begin(struct rig *rig);
void store_end(struct rig *rig);
uint64_t store_area(const char *name, off_t size);
bool exists(int directory, const char *name);
off_t memory_of(uint64_t node);
uint64_t asks(struct rig *rig, uint32_t opcode, uint64_t node, const char *name);
uint64_t asks_create(struct rig *rig, uint64_t node, const char *name, uint32_t mode);
uint64_t asks_size(struct rig *rig, uint64_t node, uint64_t size, uint32_t more);
uint64_t asks_attributes(struct rig *rig, uint64_t node);
void goes_to_the_server(struct rig *rig, uint32_t opcode, uint64_t unique);
void is_done(struct rig *rig, uint64_t unique);
struct fuse_entry_out found(struct rig *rig, uint64_t directory, const char *name);
struct create_reply made(struct rig *rig, const char *name, uint32_t mode);
void is_as_the_store_says(const struct fuse_attr *attributes, const char *name);
void server_hears(struct rig *rig, uint64_t node, uint64_t what);

#endif
