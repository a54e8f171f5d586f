// SPDX-License-Identifier: MIT
/* A real store for facts (store.h). It proves nothing itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../../mbufffs/backends/handle.h"
#include "store.h"

struct store store;

static int give_backing(void *rig, int fd)
{
	char byte = 0;

	CHECK(rig && fcntl(fd, F_GETFL) & O_PATH);
	if (store.waits) {
		EQUAL(write(store.reached[1], &byte, 1), 1);
		EQUAL(read(store.go[0], &byte, 1), 1);
	}
	if (store.refuses)
		return -EPERM;
	store.backings++;
	atomic_store(&store.kept[store.backings % KEPT], dup(fd));
	return store.backings;
}

static void let_go(int32_t id)
{
	const int fd = atomic_exchange(&store.kept[id % KEPT], 0);

	if (fd > 0)
		close(fd);
}

static void take_backing(void *rig, int32_t id)
{
	let_go(id);
	store.closes(rig, id);
}

static int part(const char *name)
{
	char path[PATH_MAX + 16];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", store.path, name);
	EQUAL(mkdir(path, 0755), 0);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

void grants(struct rig *rig)
{
	static const uint64_t limit = LIMIT;

	server_notifies(rig, PRIVATE_GRANT, &limit, sizeof(limit));
	rig_settle(rig);
}

void store_begin_with(struct rig *rig, bool passthrough)
{
	struct channel_settings settings = rig_settings();
	const char *directory = getenv("TMPDIR");

	snprintf(store.path, sizeof(store.path), "%s/XXXXXX", directory ? directory : "/dev/shm");
	CHECK(mkdtemp(store.path));
	store.areas = part("areas");
	settings.passthrough = passthrough;
	settings.areas = store.areas;
	settings.open_backing = give_backing;
	store.closes = settings.close_backing;
	settings.close_backing = take_backing;
	rig_open(rig, &settings);
	rig_serve(rig);
	grants(rig);
}

void store_begin(struct rig *rig)
{
	store_begin_with(rig, true);
}

void store_end(struct rig *rig)
{
	char command[PATH_MAX + 16];
	int32_t id;

	for (id = 0; id < KEPT; id++)
		let_go(id);
	rig_close(rig);
	close(store.areas);
	snprintf(command, sizeof(command), "rm -r %s", store.path);
	EQUAL(system(command), 0);
}

/* An area of the store that nobody has told the channel of; its node id. */
uint64_t store_area(const char *name, off_t size)
{
	int fd = openat(store.areas, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	uint64_t node;

	CHECK(fd >= 0);
	if (size)
		EQUAL(posix_fallocate(fd, 0, size), 0);
	EQUAL(handle_of(fd, "", &node), 0);
	close(fd);
	return node;
}

bool exists(int directory, const char *name)
{
	return !faccessat(directory, name, F_OK, AT_SYMLINK_NOFOLLOW);
}

/* Of what has no name any more, by its handle; 0: it has gone. */
off_t memory_of(uint64_t node)
{
	int fd = handle_open(store.areas, node, O_PATH);
	struct stat stat;

	if (fd < 0)
		return 0;
	EQUAL(fstat(fd, &stat), 0);
	EQUAL(stat.st_nlink, 0);
	close(fd);
	return stat.st_blocks * 512;
}

uint64_t asks(struct rig *rig, uint32_t opcode, uint64_t node, const char *name)
{
	return kernel_asks(rig, opcode, node, name, strlen(name) + 1);
}

uint64_t asks_create(struct rig *rig, uint64_t node, const char *name, uint32_t mode)
{
	struct {
		struct fuse_create_in in;
		char name[64];
	} body = { .in = { .flags = O_RDWR | O_CREAT, .mode = S_IFREG | mode } };

	strcpy(body.name, name);
	return kernel_asks(rig, FUSE_CREATE, node, &body, sizeof(body.in) + strlen(name) + 1);
}

uint64_t asks_size(struct rig *rig, uint64_t node, uint64_t size, uint32_t more)
{
	const struct fuse_setattr_in in = { .valid = FATTR_SIZE | more, .size = size };

	return kernel_asks(rig, FUSE_SETATTR, node, &in, sizeof(in));
}

uint64_t asks_attributes(struct rig *rig, uint64_t node)
{
	static const struct fuse_getattr_in in;

	return kernel_asks(rig, FUSE_GETATTR, node, &in, sizeof(in));
}

/* It has come to the server, which says no. */
void goes_to_the_server(struct rig *rig, uint32_t opcode, uint64_t unique)
{
	EQUAL(server_gets(rig, opcode, NULL), unique);
	server_answers(rig, unique, -EPERM, NULL, 0);
	kernel_gets(rig, unique, -EPERM, NULL);
}

void is_done(struct rig *rig, uint64_t unique)
{
	kernel_gets(rig, unique, 0, NULL);
	CHECK(server_has_nothing(rig));
}

/* The entry that a look-up has found. */
struct fuse_entry_out found(struct rig *rig, uint64_t directory, const char *name)
{
	uint64_t unique = asks(rig, FUSE_LOOKUP, directory, name);
	struct fuse_entry_out entry;
	struct packet packet;

	kernel_gets(rig, unique, 0, &packet);
	EQUAL(told_length(&packet), sizeof(entry));
	memcpy(&entry, told_body(&packet), sizeof(entry));
	CHECK(entry.entry_valid > 0);
	CHECK(server_has_nothing(rig));
	return entry;
}

struct create_reply made(struct rig *rig, const char *name, uint32_t mode)
{
	uint64_t unique = asks_create(rig, ROOT, name, mode);
	struct create_reply reply;
	struct packet packet;

	kernel_gets(rig, unique, 0, &packet);
	EQUAL(told_length(&packet), sizeof(reply));
	memcpy(&reply, told_body(&packet), sizeof(reply));
	CHECK(server_has_nothing(rig));
	return reply;
}

void is_as_the_store_says(const struct fuse_attr *attributes, const char *name)
{
	struct stat stat;

	EQUAL(fstatat(store.areas, name, &stat, AT_SYMLINK_NOFOLLOW), 0);
	EQUAL(attributes->mode, stat.st_mode);
	EQUAL(attributes->nlink, stat.st_nlink);
	EQUAL(attributes->size, stat.st_size);
	EQUAL(attributes->blocks, stat.st_blocks);
	EQUAL(attributes->uid, stat.st_uid);
	EQUAL(attributes->gid, stat.st_gid);
	EQUAL(attributes->mtime, stat.st_mtim.tv_sec);
	EQUAL(attributes->mtimensec, stat.st_mtim.tv_nsec);
	EQUAL(attributes->ctime, stat.st_ctim.tv_sec);
	EQUAL(attributes->ctimensec, stat.st_ctim.tv_nsec);
	EQUAL(attributes->atime, stat.st_atim.tv_sec);
	EQUAL(attributes->atimensec, stat.st_atim.tv_nsec);
}

/* A FORGET that the server gets, and what it says. */
void server_hears(struct rig *rig, uint64_t node, uint64_t what)
{
	struct packet packet;

	server_takes(rig, &packet);
	EQUAL(asked(&packet)->opcode, FUSE_FORGET);
	EQUAL(asked(&packet)->nodeid, node);
	EQUAL(((const struct fuse_forget_in *)asked_body(&packet))->nlookup, what);
}
