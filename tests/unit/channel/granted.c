// SPDX-License-Identifier: MIT
/* What the channel finds, opens and makes in a store by itself once a server has granted it. */
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

#define BLOCK 4096

FACT(what_a_store_has_is_found_without_the_server)
{
	struct fuse_entry_out entry;
	struct packet packet;
	struct rig rig;
	uint64_t node, unique;

	store_begin(&rig);
	node = store_area("a", 5000);
	EQUAL(symlinkat("a", store.areas, "link"), 0);
	entry = found(&rig, ROOT, "a");
	EQUAL(entry.nodeid, node);
	EQUAL(entry.attr.ino, node);
	is_as_the_store_says(&entry.attr, "a");
	entry = found(&rig, ROOT, "link");
	is_as_the_store_says(&entry.attr, "link");
	EQUAL(found(&rig, ROOT, "b").nodeid, 0);
	unique = asks_attributes(&rig, ROOT);
	kernel_gets(&rig, unique, 0, &packet);
	EQUAL(((const struct fuse_attr_out *)told_body(&packet))->attr.ino, ROOT);
	is_as_the_store_says(&((const struct fuse_attr_out *)told_body(&packet))->attr, ".");
	unique = asks_attributes(&rig, node);
	kernel_gets(&rig, unique, 0, &packet);
	is_as_the_store_says(&((const struct fuse_attr_out *)told_body(&packet))->attr, "a");
	EQUAL(rig_counters(&rig).answered[FUSE_LOOKUP], 3);
	EQUAL(rig_counters(&rig).answered[FUSE_GETATTR], 2);
	store_end(&rig);
}

FACT(each_look_up_that_was_answered_counts)
{
	struct rig rig;
	uint64_t node;

	store_begin(&rig);
	node = store_area("a", 0);
	found(&rig, ROOT, "a");
	found(&rig, ROOT, "a");
	EQUAL(rig_counters(&rig).nodes, 1);
	kernel_forgets(&rig, node, 1);
	found(&rig, ROOT, "b"); /* so that it has been read */
	EQUAL(rig_counters(&rig).nodes, 1);
	kernel_forgets(&rig, node, 1);
	found(&rig, ROOT, "b");
	EQUAL(rig_counters(&rig).nodes, 0);
	device_wants_not(rig.unique + 2);
	asks(&rig, FUSE_LOOKUP, ROOT, "a");
	found(&rig, ROOT, "b");
	EQUAL(rig_counters(&rig).nodes, 0);
	store_end(&rig);
}

FACT(without_a_grant_the_server_is_asked)
{
	struct rig rig;
	uint64_t node;

	store_begin(&rig);
	node = store_area("a", 0);
	found(&rig, ROOT, "a");
	rig_restart(&rig); /* a grant ends with its server */
	rig_wait(&rig, CHANNEL_SERVING);
	rig_settle(&rig);
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "a"));
	goes_to_the_server(&rig, FUSE_GETATTR, asks_attributes(&rig, node));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "b", 0600));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, 0));
	goes_to_the_server(&rig, FUSE_OPEN, kernel_asks_open(&rig, node, 0));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	grants(&rig);
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	store_end(&rig);
}

FACT(without_passthrough_a_store_is_looked_into_and_not_changed)
{
	struct rig rig;
	uint64_t node;

	store_begin_with(&rig, false);
	node = store_area("a", 0);
	EQUAL(found(&rig, ROOT, "a").nodeid, node);
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "b", 0600));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, 0));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	store_end(&rig);
}

FACT(an_area_is_made_with_its_mode_and_backing_id_whatever_this_umask_is)
{
	struct create_reply reply;
	struct rig rig;
	uint64_t node;

	store_begin(&rig);
	umask(077);
	reply = made(&rig, "a", 0666);
	is_as_the_store_says(&reply.entry.attr, "a");
	EQUAL(reply.entry.attr.mode, S_IFREG | 0666);
	EQUAL(handle_of(store.areas, "a", &node), 0);
	EQUAL(reply.entry.nodeid, node);
	EQUAL(reply.open.open_flags, OPEN_PASSTHROUGH | OPEN_NOFLUSH);
	EQUAL(reply.open.backing_id, 1);
	EQUAL(open_natively(&rig, node).backing_id, 1);
	EQUAL(rig_counters(&rig).nodes, 1);
	EQUAL(rig_counters(&rig).backing, 1);
	EQUAL(made(&rig, "b", 0).open.backing_id, 2);
	kernel_forgets(&rig, node, 1);
	EQUAL(closed_next(&rig), 1);
	store_end(&rig);
}

FACT(an_area_is_its_makers)
{
	struct {
		struct fuse_in_header header;
		struct fuse_create_in in;
		char name[4];
	} message = {
		.header = { .len = sizeof(message),
			    .opcode = FUSE_CREATE,
			    .unique = 77,
			    .nodeid = ROOT,
			    .uid = 1234,
			    .gid = 567 },
		.in = { .flags = O_RDWR | O_CREAT, .mode = S_IFREG | 0640 },
		.name = "a",
	};
	struct packet packet;
	struct rig rig;

	store_begin(&rig);
	kernel_sends_bytes(&rig, &message, sizeof(message));
	kernel_gets(&rig, 77, 0, &packet);
	is_as_the_store_says(&((const struct create_reply *)told_body(&packet))->entry.attr, "a");
	EQUAL(((const struct create_reply *)told_body(&packet))->entry.attr.uid, 1234);
	EQUAL(((const struct create_reply *)told_body(&packet))->entry.attr.gid, 567);
	store_end(&rig);
}

FACT(an_area_is_its_makers_whatever_this_group_is)
{
	struct rig rig;

	EQUAL(setegid(5), 0);
	store_begin(&rig);
	EQUAL(made(&rig, "a", 0640).entry.attr.gid, 0);
	EQUAL(setegid(0), 0);
	store_end(&rig);
}

FACT(an_area_for_which_there_is_no_memory_is_the_servers)
{
	struct rig rig;
	uint64_t unique;

	store_begin(&rig);
	allocation_fails(1);
	unique = asks_create(&rig, ROOT, "a", 0600);
	CHECK(allocation_failed());
	goes_to_the_server(&rig, FUSE_CREATE, unique);
	CHECK(!exists(store.areas, "a"));
	EQUAL(rig_counters(&rig).nodes, 0);
	store_end(&rig);
}

FACT(making_what_needs_a_decision_is_the_servers)
{
	struct rig rig;

	store_begin(&rig);
	store_area("there", 0);
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "there", 0600));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "a", 04711));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "a", 02711));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "a", 01711));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, 99, "a", 0600));
	EQUAL(fchmod(store.areas, 02777), 0); /* whose group new ones get */
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "a", 0600));
	EQUAL(fchmod(store.areas, 0777), 0);
	store.refuses = true;
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "a", 0600));
	CHECK(!exists(store.areas, "a"));
	EQUAL(rig_counters(&rig).nodes, 0);
	store_end(&rig);
}

FACT(an_area_whose_maker_has_gone_is_forgotten)
{
	struct rig rig;

	store_begin(&rig);
	device_wants_not(rig.unique + 2);
	asks_create(&rig, ROOT, "a", 0600);
	EQUAL(closed_next(&rig), 1);
	found(&rig, ROOT, "b");
	EQUAL(rig_counters(&rig).nodes, 0);
	CHECK(exists(store.areas, "a"));
	store_end(&rig);
}

static off_t size_of(const char *name)
{
	struct stat stat;

	EQUAL(fstatat(store.areas, name, &stat, 0), 0);
	return stat.st_size;
}

FACT(an_area_is_opened_for_the_first_time_without_the_server)
{
	struct rig rig;
	uint64_t node;

	store_begin(&rig);
	node = store_area("a", 0);
	found(&rig, ROOT, "a");
	EQUAL(open_natively(&rig, node).backing_id, 1);
	EQUAL(open_natively(&rig, node).backing_id, 1);
	EQUAL(store.backings, 1);
	store_end(&rig);
}

FACT(an_area_is_emptied_and_opened_without_the_server)
{
	struct rig rig;
	uint64_t node, known, large, set_id;

	store_begin(&rig);
	node = store_area("a", 5000);
	known = store_area("b", LIMIT - BLOCK);
	large = store_area("c", LIMIT);
	set_id = store_area("d", 1);
	EQUAL(fchmodat(store.areas, "d", 04755, 0), 0);
	found(&rig, ROOT, "a");
	found(&rig, ROOT, "b");
	found(&rig, ROOT, "c");
	found(&rig, ROOT, "d");
	open_natively(&rig, known);
	EQUAL(kernel_gets_open(&rig, kernel_asks_open(&rig, node, O_RDWR | O_TRUNC)).backing_id, 2);
	EQUAL(kernel_gets_open(&rig, kernel_asks_open(&rig, known, O_TRUNC)).backing_id, 1);
	EQUAL(size_of("a"), 0);
	EQUAL(size_of("b"), 0);
	goes_to_the_server(&rig, FUSE_OPEN, kernel_asks_open(&rig, large, O_TRUNC));
	goes_to_the_server(&rig, FUSE_OPEN, kernel_asks_open(&rig, set_id, O_TRUNC));
	EQUAL(size_of("c"), LIMIT);
	EQUAL(size_of("d"), 1);
	store_end(&rig);
}

FACT(an_area_that_was_emptied_but_not_opened_is_asked_about_again)
{
	struct rig rig;
	uint64_t node, unique;

	store_begin(&rig);
	node = store_area("a", 5000);
	found(&rig, ROOT, "a");
	store.refuses = true;
	unique = kernel_asks_open(&rig, node, O_TRUNC);
	EQUAL(server_gets(&rig, FUSE_OPEN, NULL), unique);
	/* Whatever the server says, the kernel must not believe the old size. */
	kernel_gets(&rig, 0, NOTIFY_INVAL_INODE, NULL);
	EQUAL(size_of("a"), 0);
	server_answers(&rig, unique, -EIO, NULL, 0);
	kernel_gets(&rig, unique, -EIO, NULL);
	store_end(&rig);
}

FACT(an_area_that_is_being_removed_while_it_is_opened_is_not_given_out_emptied)
{
	struct rig rig;
	uint64_t node, unique;
	char byte = 0;

	EQUAL(pipe(store.reached), 0);
	EQUAL(pipe(store.go), 0);
	store_begin(&rig);
	node = store_area("a", LIMIT);
	found(&rig, ROOT, "a");
	store.waits = true;
	unique = kernel_asks_open(&rig, node, 0);
	EQUAL(read(store.reached[0], &byte, 1), 1);
	server_watches(&rig, node);
	server_notifies(&rig, PRIVATE_ASK, &node, sizeof(node));
	server_hears(&rig, node, FORGET_UNOPENED);
	EQUAL(write(store.go[1], &byte, 1), 1);
	goes_to_the_server(&rig, FUSE_OPEN, unique);
	EQUAL(closed_next(&rig), 1);
	store_end(&rig);
}

FACT(no_id_is_registered_beside_one_of_which_the_server_has_not_told)
{
	struct rig rig;
	uint64_t first, second, unique;

	store_begin(&rig);
	first = store_area("a", LIMIT);
	second = store_area("b", 0);
	found(&rig, ROOT, "a");
	found(&rig, ROOT, "b");
	unique = kernel_asks_open(&rig, first, O_TRUNC);
	EQUAL(server_gets(&rig, FUSE_OPEN, NULL), unique);
	goes_to_the_server(&rig, FUSE_OPEN, kernel_asks_open(&rig, second, 0));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "c", 0600));
	server_answers_open(&rig, unique, 40, 0);
	EQUAL(kernel_gets_open(&rig, unique).backing_id, 40);
	store.backings = 40;
	EQUAL(open_natively(&rig, second).backing_id, 41);
	store_end(&rig);
}

FACT(ids_lost_with_a_server_are_closed_when_the_channel_registers_the_next)
{
	struct rig rig;
	uint64_t node;

	store_begin(&rig);
	node = store_area("a", 0);
	found(&rig, ROOT, "a");
	EQUAL(open_natively(&rig, node).backing_id, 1);
	rig_restart(&rig);
	rig_settle(&rig);
	grants(&rig);
	store.backings = 3; /* 2 and 3 were the dead server's */
	EQUAL(made(&rig, "b", 0600).open.backing_id, 4);
	EQUAL(closed_next(&rig), 2);
	EQUAL(closed_next(&rig), 3);
	store_end(&rig);
}

FACT(names_that_no_directory_can_have_are_the_servers)
{
	char longest[257];
	struct rig rig;

	store_begin(&rig);
	memset(longest, 'x', 256);
	longest[256] = 0;
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "."));
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, ".."));
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, longest));
	longest[255] = 0;
	EQUAL(found(&rig, ROOT, longest).nodeid, 0);
	store_end(&rig);
}

FACT(a_grant_without_a_store_grants_nothing)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	grants(&rig);
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "a"));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "a", 0600));
	rig_close(&rig);
}
