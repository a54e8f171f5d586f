// SPDX-License-Identifier: MIT
/* Look-up counts: which replies take one, and what happens when they are given back. */
#include <errno.h>
#include <string.h>

#include "harness.h"

/* That the channel counts `lookups` of this node: it stays for one FORGET less, and goes with it.
 */
static void is_counted(struct rig *rig, uint64_t node, uint64_t lookups)
{
	if (lookups > 1) {
		kernel_forgets(rig, node, lookups - 1);
		rig_settle(rig);
		EQUAL(rig_counters(rig).nodes, 1);
	}
	kernel_forgets(rig, node, 1);
	rig_settle(rig);
	EQUAL(rig_counters(rig).nodes, 0);
}

static void counts_one_look_up(uint32_t opcode, size_t fixed)
{
	char body[64] = { 0 };
	struct rig rig;
	int i;

	strcpy(body + fixed, "name");
	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < 3; i++) {
		uint64_t unique = kernel_asks(&rig, opcode, 1, body, fixed + 10);

		EQUAL(server_gets(&rig, opcode, NULL), unique);
		server_answers_entry(&rig, unique, 5);
		kernel_gets(&rig, unique, 0, NULL);
	}
	is_counted(&rig, 5, 3);
	rig_close(&rig);
}

FACT(lookup_counts_one)
{
	counts_one_look_up(FUSE_LOOKUP, 0);
}

FACT(mknod_counts_one)
{
	counts_one_look_up(FUSE_MKNOD, 16);
}

FACT(mkdir_counts_one)
{
	counts_one_look_up(FUSE_MKDIR, 8);
}

FACT(symlink_counts_one)
{
	counts_one_look_up(FUSE_SYMLINK, 0);
}

FACT(link_counts_one)
{
	counts_one_look_up(FUSE_LINK, 8);
}

FACT(create_counts_one)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	create(&rig, 5, 77);
	create(&rig, 5, 0);
	kernel_forgets(&rig, 5, 1);
	rig_settle(&rig);
	CHECK(closed_nothing(&rig));
	is_counted(&rig, 5, 1);
	EQUAL(closed_next(&rig), 77);
	rig_close(&rig);
}

FACT(open_and_getattr_count_nothing)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	open_node(&rig, 5, 77);
	open_natively(&rig, 5);
	is_counted(&rig, 5, 1);
	rig_close(&rig);
}

FACT(name_that_is_not_there_counts_nothing)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 0);
	unique = kernel_asks(&rig, FUSE_LOOKUP, 1, "name", 5);
	server_gets(&rig, FUSE_LOOKUP, NULL);
	server_answers(&rig, unique, -ENOENT, NULL, 0);
	kernel_gets(&rig, unique, -ENOENT, NULL);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}

static uint64_t reads_directory(struct rig *rig)
{
	const struct fuse_read_in in = { .size = 4096 };
	uint64_t unique = kernel_asks(rig, FUSE_READDIRPLUS, 1, &in, sizeof(in));

	EQUAL(server_gets(rig, FUSE_READDIRPLUS, NULL), unique);
	return unique;
}

FACT(readdirplus_counts_one_an_entry_but_not_dot_dotdot_and_node_zero)
{
	_Alignas(8) char body[4096];
	struct packet packet;
	size_t length = 0;
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = reads_directory(&rig);
	length = directory_entry(body, length, 90, ".");
	length = directory_entry(body, length, 91, "..");
	length = directory_entry(body, length, 0, "nothing");
	EQUAL(rig_counters(&rig).nodes, 0);
	length = directory_entry(body, length, 5, ".a");
	length = directory_entry(body, length, 6, "..b");
	length = directory_entry(body, length, 7, "exactly8");
	length = directory_entry(body, length, 5, "second-name-of-5");
	server_answers(&rig, unique, 0, body, length);
	kernel_gets(&rig, unique, 0, &packet);
	EQUAL(told_length(&packet), length);
	EQUAL(memcmp(told_body(&packet), body, length), 0);
	EQUAL(rig_counters(&rig).nodes, 3);
	kernel_forgets(&rig, 6, 1);
	kernel_forgets(&rig, 7, 1);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 1);
	is_counted(&rig, 5, 2);
	rig_close(&rig);
}

FACT(empty_readdirplus_is_the_end_of_a_directory)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = reads_directory(&rig);
	server_answers(&rig, unique, 0, NULL, 0);
	kernel_gets(&rig, unique, 0, NULL);
	EQUAL(rig_counters(&rig).malformed, 0);
	rig_close(&rig);
}

FACT(malformed_readdirplus_is_eio_and_counts_nothing)
{
	const struct fuse_direntplus nameless = { .entry_out.nodeid = 6 };
	_Alignas(8) char body[4096];
	struct rig rig;
	size_t length, good, end;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	good = directory_entry(body, 0, 5, "known");
	good = directory_entry(body, good, 8, "unknown");
	end = directory_entry(body, good, 9, "cut-off");
	for (length = good + 1; length < end; length++) {
		unique = reads_directory(&rig);
		server_answers(&rig, unique, 0, body, length);
		kernel_gets(&rig, unique, -EIO, NULL);
	}
	memcpy(body + good, &nameless, sizeof(nameless));
	unique = reads_directory(&rig);
	server_answers(&rig, unique, 0, body, good + sizeof(nameless));
	kernel_gets(&rig, unique, -EIO, NULL);
	EQUAL(rig_counters(&rig).malformed, end - good);
	EQUAL(rig_counters(&rig).nodes, 1);
	is_counted(&rig, 5, 1);
	rig_close(&rig);
}

FACT(batch_forget_gives_back_each_of_its_nodes)
{
	struct {
		struct fuse_batch_forget_in head;
		struct fuse_forget_one one[4];
	} batch = {
		.head.count = 4,
		.one = { { 5, 1 }, { 6, 2 }, { 7, 1 }, { 99, 1 } },
	};
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	create(&rig, 5, 77);
	create(&rig, 6, 78);
	look_up(&rig, 6);
	look_up(&rig, 7);
	look_up(&rig, 7);
	kernel_asks(&rig, FUSE_BATCH_FORGET, 0, &batch, sizeof(batch));
	EQUAL(closed_next(&rig), 77);
	EQUAL(closed_next(&rig), 78);
	is_counted(&rig, 7, 1);
	rig_close(&rig);
}

FACT(forget_of_more_than_is_counted_forgets)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	create(&rig, 5, 77);
	kernel_forgets(&rig, 5, UINT64_MAX);
	EQUAL(closed_next(&rig), 77);
	kernel_forgets(&rig, 5, 1);
	kernel_forgets(&rig, 6, 1);
	rig_settle(&rig);
	CHECK(closed_nothing(&rig));
	rig_close(&rig);
}

FACT(look_up_is_taken_back_when_nobody_takes_the_reply)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	unique = kernel_asks(&rig, FUSE_LOOKUP, 1, "name", 5);
	server_gets(&rig, FUSE_LOOKUP, NULL);
	device_wants_not(unique);
	server_answers_entry(&rig, unique, 5);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).dropped, 1);
	is_counted(&rig, 5, 1);
	rig_close(&rig);
}

FACT(create_is_taken_back_when_nobody_takes_the_reply)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = kernel_asks(&rig, FUSE_CREATE, 1, "................name", 21);
	server_gets(&rig, FUSE_CREATE, NULL);
	device_wants_not(unique);
	server_answers_create(&rig, unique, 5, 77);
	EQUAL(closed_next(&rig), 77);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);
	EQUAL(rig_counters(&rig).backing, 0);
	rig_close(&rig);
}

FACT(readdirplus_is_taken_back_when_nobody_takes_the_reply)
{
	_Alignas(8) char body[4096];
	struct rig rig;
	uint64_t unique;
	size_t length;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	unique = reads_directory(&rig);
	length = directory_entry(body, 0, 5, "a");
	length = directory_entry(body, length, 6, "b");
	device_wants_not(unique);
	server_answers(&rig, unique, 0, body, length);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 1);
	is_counted(&rig, 5, 1);
	rig_close(&rig);
}

FACT(thousand_nodes_are_known_apart)
{
	struct rig rig;
	uint64_t node;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (node = 1000; node < 2000; node++)
		create(&rig, node << 32 | 7, (uint64_t)node);
	EQUAL(rig_counters(&rig).nodes, 1000);
	for (node = 1000; node < 2000; node++)
		EQUAL(open_natively(&rig, node << 32 | 7).backing_id, node);
	for (node = 1000; node < 2000; node++) {
		kernel_forgets(&rig, node << 32 | 7, 1);
		EQUAL(closed_next(&rig), node);
	}
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}
