// SPDX-License-Identifier: MIT
/* What the channel sizes and removes by itself, and what it leaves to a server that is at work. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store.h"

FACT(a_size_comes_with_its_memory)
{
	struct fuse_attr_out reply;
	struct packet packet;
	struct rig rig;
	uint64_t node, unique;

	store_begin(&rig);
	node = store_area("a", 0);
	found(&rig, ROOT, "a");
	unique = asks_size(&rig, node, 9000, FATTR_FH | FATTR_LOCKOWNER);
	kernel_gets(&rig, unique, 0, &packet);
	EQUAL(told_length(&packet), sizeof(reply));
	memcpy(&reply, told_body(&packet), sizeof(reply));
	EQUAL(reply.attr.size, 9000);
	EQUAL(reply.attr.blocks, 3 * 4096 / 512);
	is_as_the_store_says(&reply.attr, "a");
	is_done(&rig, asks_size(&rig, node, 100, 0));
	is_done(&rig, asks_size(&rig, node, LIMIT - 1, FATTR_KILL_SUIDGID));
	kernel_gets(&rig, asks_attributes(&rig, node), 0, &packet);
	memcpy(&reply, told_body(&packet), sizeof(reply));
	EQUAL(reply.attr.size, LIMIT - 1);
	EQUAL(reply.attr.blocks, LIMIT / 512);
	store_end(&rig);
}

/* Memory that no size tells of, and that goes when a size is set. */
static void grow_beyond_the_end(const char *name)
{
	int fd = openat(store.areas, name, O_RDWR | O_CLOEXEC);

	EQUAL(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, LIMIT), 0);
	close(fd);
}

FACT(a_size_that_needs_a_decision_is_the_servers)
{
	struct rig rig;
	uint64_t node, large;

	store_begin(&rig);
	node = store_area("a", 0);
	large = store_area("b", LIMIT);
	found(&rig, ROOT, "a");
	found(&rig, ROOT, "b");
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, LIMIT, 0));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, UINT64_MAX, 0));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, large, 5, 0));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, ROOT, 5, 0));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, 99, 5, 0));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, FATTR_MODE));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, FATTR_MTIME));
	EQUAL(fchmodat(store.areas, "a", 04755, 0), 0);
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, 0));
	node = store_area("c", 0);
	found(&rig, ROOT, "c");
	grow_beyond_the_end("c");
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 0, 0));
	store_end(&rig);
}

/* Without a link, and with its memory, as fstat(2) of an open descriptor would show it. */
static void is_there_without_a_name(struct rig *rig, uint64_t node)
{
	uint64_t unique = asks_attributes(rig, node);
	struct packet packet;

	kernel_gets(rig, unique, 0, &packet);
	EQUAL(((const struct fuse_attr_out *)told_body(&packet))->attr.nlink, 0);
	CHECK(server_has_nothing(rig));
	CHECK(memory_of(node) > 0);
}

FACT(a_removed_area_stays_until_the_kernel_has_forgotten_it)
{
	struct rig rig;
	uint64_t node;

	store_begin(&rig);
	node = store_area("a", 100);
	found(&rig, ROOT, "a");
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	CHECK(!exists(store.areas, "a"));
	is_there_without_a_name(&rig, node);
	is_done(&rig, asks_size(&rig, node, 50, 0));
	is_there_without_a_name(&rig, node);
	kernel_forgets(&rig, node, 1);
	EQUAL(closed_next(&rig), 1);
	EQUAL(memory_of(node), 0);
	CHECK(server_has_nothing(&rig));
	store_end(&rig);
}

FACT(a_removed_area_that_is_open_keeps_its_backing_id)
{
	struct rig rig;
	uint64_t node;

	store_begin(&rig);
	node = made(&rig, "a", 0600).entry.nodeid;
	is_done(&rig, asks_size(&rig, node, 100, 0));
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	EQUAL(open_natively(&rig, node).backing_id, 1); /* by a descriptor with O_PATH */
	is_there_without_a_name(&rig, node);
	EQUAL(store.backings, 1);
	kernel_forgets(&rig, node, 1);
	EQUAL(closed_next(&rig), 1);
	EQUAL(memory_of(node), 0);
	store_end(&rig);
}

FACT(a_removed_area_outlives_the_server)
{
	struct rig rig;
	uint64_t node;

	store_begin(&rig);
	node = store_area("a", 100);
	found(&rig, ROOT, "a");
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	rig_restart(&rig);
	rig_settle(&rig);
	CHECK(memory_of(node) > 0);
	grants(&rig);
	is_there_without_a_name(&rig, node);
	kernel_forgets(&rig, node, 1);
	EQUAL(closed_next(&rig), 1);
	EQUAL(memory_of(node), 0);
	store_end(&rig);
}

FACT(one_name_of_several_just_goes)
{
	struct rig rig;
	uint64_t node;

	store_begin(&rig);
	node = store_area("a", 0);
	EQUAL(linkat(store.areas, "a", store.areas, "b", 0), 0);
	found(&rig, ROOT, "a");
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	CHECK(exists(store.areas, "b"));
	EQUAL(found(&rig, ROOT, "b").nodeid, node);
	EQUAL(found(&rig, ROOT, "b").attr.nlink, 1);
	EQUAL(store.backings, 0);
	store_end(&rig);
}

FACT(removing_what_needs_a_decision_is_the_servers)
{
	struct rig rig;

	store_begin(&rig);
	store_area("large", LIMIT);
	store_area("unknown", 0); /* to the kernel: nobody would tell of its end */
	EQUAL(symlinkat("a", store.areas, "link"), 0);
	EQUAL(mkdirat(store.areas, "directory", 0700), 0);
	found(&rig, ROOT, "large");
	found(&rig, ROOT, "link");
	found(&rig, ROOT, "directory");
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "large"));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "unknown"));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "link"));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "directory"));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "none"));
	store_area("small", 0);
	found(&rig, ROOT, "small");
	store.refuses = true; /* nothing would keep it */
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "small"));
	CHECK(exists(store.areas, "small"));
	CHECK(exists(store.areas, "large") && exists(store.areas, "unknown"));
	store_end(&rig);
}

FACT(a_server_hears_that_memory_may_be_coming_back_before_it_gives_some_away)
{
	struct rig rig;
	uint64_t node, other, unique;
	int times;

	store_begin(&rig);
	node = store_area("a", 100);
	other = store_area("b", 0);
	found(&rig, ROOT, "a");
	found(&rig, ROOT, "b");
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "..")); /* needs none */
	/* Before its FORGET, which another request may overtake, and after it. */
	for (times = 0; times < 2; times++) {
		unique = asks_size(&rig, other, LIMIT, 0);
		server_hears(&rig, 0, FORGET_DONE);
		goes_to_the_server(&rig, FUSE_SETATTR, unique);
		kernel_forgets(&rig, node, 1);
	}
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, other, LIMIT, 0)); /* once */
	store_end(&rig);
}

FACT(a_node_that_a_server_is_at_work_on_is_left_to_it)
{
	static const struct fuse_setattr_in chmod = { .valid = FATTR_MODE };
	struct rig rig;
	uint64_t node, other, unique;

	store_begin(&rig);
	node = store_area("a", 0);
	other = store_area("b", 0);
	found(&rig, ROOT, "a");
	found(&rig, ROOT, "b");
	unique = kernel_asks(&rig, FUSE_SETATTR, node, &chmod, sizeof(chmod));
	EQUAL(server_gets(&rig, FUSE_SETATTR, NULL), unique);
	goes_to_the_server(&rig, FUSE_GETATTR, asks_attributes(&rig, node));
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "a"));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, 0));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	is_done(&rig, asks_attributes(&rig, other));
	is_done(&rig, asks_size(&rig, other, 5, 0));
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "b"));
	server_answers(&rig, unique, -EPERM, NULL, 0);
	kernel_gets(&rig, unique, -EPERM, NULL);
	is_done(&rig, asks_size(&rig, node, 5, 0));
	store_end(&rig);
}

FACT(while_a_server_is_at_work_on_names_all_is_left_to_it)
{
	static const uint32_t opcodes[] = { FUSE_CREATE, FUSE_MKNOD,  FUSE_MKDIR,
					    FUSE_LINK,	 FUSE_RENAME, OP_RENAME2,
					    FUSE_UNLINK, FUSE_RMDIR,  FUSE_SYMLINK };
	const char body[128] = { 0 };
	struct rig rig;
	uint64_t node, unique;
	size_t i;

	store_begin(&rig);
	node = store_area("a", 0);
	found(&rig, ROOT, "a");
	for (i = 0; i < sizeof(opcodes) / sizeof(*opcodes); i++) {
		unique = kernel_asks(&rig, opcodes[i], 99, body, sizeof(body));
		EQUAL(server_gets(&rig, opcodes[i], NULL), unique);
		goes_to_the_server(&rig, FUSE_GETATTR, asks_attributes(&rig, node));
		goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "a"));
		goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, 0));
		goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "b", 0600));
		goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "a"));
		server_answers(&rig, unique, -EPERM, NULL, 0);
		kernel_gets(&rig, unique, -EPERM, NULL);
		is_done(&rig, asks_attributes(&rig, node));
	}
	store_end(&rig);
}

FACT(what_a_server_is_at_work_on_is_left_to_it_though_the_client_has_gone)
{
	char mkdir[sizeof(struct fuse_mkdir_in) + 2] = { 0 };
	struct rig rig;
	uint64_t unique;

	store_begin(&rig);
	mkdir[sizeof(struct fuse_mkdir_in)] = 'm';
	unique = kernel_asks(&rig, FUSE_MKDIR, ROOT, mkdir, sizeof(mkdir));
	EQUAL(server_gets(&rig, FUSE_MKDIR, NULL), unique);
	kernel_interrupts(&rig, unique);
	rig_settle(&rig);
	clock_advance(GRACE);
	kernel_gets(&rig, unique, -EINTR, NULL);
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "a"));
	server_answers(&rig, unique, -EEXIST, NULL, 0);
	rig_settle(&rig);
	EQUAL(found(&rig, ROOT, "a").nodeid, 0);
	store_end(&rig);
}
