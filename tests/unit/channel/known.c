// SPDX-License-Identifier: MIT
/* What a server has told and the channel answers: attributes of directories, names that miss. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"

#define DIRECTORY 7
#define OTHER 8

static void begin(struct rig *rig)
{
	rig_open(rig, NULL);
	rig_serve(rig);
	look_up(rig, DIRECTORY);
	look_up(rig, OTHER);
}

static void tells_attributes(struct rig *rig, uint64_t node, uint64_t size)
{
	const struct told_attributes told = {
		.node = node,
		.reply = { .attr_valid = 60, .attr = { .ino = node, .size = size } },
	};

	server_notifies(rig, PRIVATE_ATTRIBUTES, &told, sizeof(told));
	rig_settle(rig);
}

static void tells_names(struct rig *rig, uint64_t node, const char *names, size_t length)
{
	char body[256];

	memcpy(body, &node, sizeof(node));
	memcpy(body + sizeof(node), names, length);
	server_notifies(rig, PRIVATE_NAMES, body, sizeof(node) + length);
	rig_settle(rig);
}

#define TELLS_NAMES(rig, node, names) tells_names(rig, node, names, sizeof(names) - 1)

static void attributes_come_from_the_channel(struct rig *rig, uint64_t node, uint64_t size)
{
	const struct fuse_getattr_in in = { 0 };
	uint64_t unique = kernel_asks(rig, FUSE_GETATTR, node, &in, sizeof(in));
	struct packet packet;

	kernel_gets(rig, unique, 0, &packet);
	EQUAL(told_length(&packet), sizeof(struct fuse_attr_out));
	EQUAL(((const struct fuse_attr_out *)told_body(&packet))->attr.size, size);
	EQUAL(((const struct fuse_attr_out *)told_body(&packet))->attr_valid, 60);
	CHECK(server_has_nothing(rig));
}

static void attributes_come_from_the_server(struct rig *rig, uint64_t node)
{
	const struct fuse_getattr_in in = { 0 };
	const struct fuse_attr_out out = { .attr.size = 999 };
	uint64_t unique = kernel_asks(rig, FUSE_GETATTR, node, &in, sizeof(in));

	EQUAL(server_gets(rig, FUSE_GETATTR, NULL), unique);
	server_answers(rig, unique, 0, &out, sizeof(out));
	kernel_gets(rig, unique, 0, NULL);
}

static uint64_t asks_name(struct rig *rig, uint32_t opcode, uint64_t node, const char *name)
{
	return kernel_asks(rig, opcode, node, name, strlen(name) + 1);
}

static void name_is_missing(struct rig *rig, uint64_t node, const char *name)
{
	uint64_t unique = asks_name(rig, FUSE_LOOKUP, node, name);
	const struct fuse_entry_out *out;
	struct packet packet;

	kernel_gets(rig, unique, 0, &packet);
	EQUAL(told_length(&packet), sizeof(*out));
	out = told_body(&packet);
	EQUAL(out->nodeid, 0);
	CHECK(out->entry_valid > 0);
	CHECK(server_has_nothing(rig));
}

static void name_is_asked_for(struct rig *rig, uint64_t node, const char *name)
{
	uint64_t unique = asks_name(rig, FUSE_LOOKUP, node, name);

	EQUAL(server_gets(rig, FUSE_LOOKUP, NULL), unique);
	server_answers(rig, unique, -ENOENT, NULL, 0);
	kernel_gets(rig, unique, -ENOENT, NULL);
}

static uint64_t asks_mkdir(struct rig *rig, uint64_t node, const char *name)
{
	char body[64] = { 0 };

	strcpy(body + sizeof(struct fuse_mkdir_in), name);
	return kernel_asks(rig, FUSE_MKDIR, node, body,
			   sizeof(struct fuse_mkdir_in) + strlen(name) + 1);
}

static uint64_t asks_rename(struct rig *rig, uint64_t from, const char *name, uint64_t to,
			    const char *newname)
{
	char body[64] = { 0 };
	const size_t second = sizeof(to) + strlen(name) + 1;

	memcpy(body, &to, sizeof(to));
	strcpy(body + sizeof(to), name);
	strcpy(body + second, newname);
	return kernel_asks(rig, FUSE_RENAME, from, body, second + strlen(newname) + 1);
}

static void done(struct rig *rig, uint32_t opcode, uint64_t unique, int error)
{
	EQUAL(server_gets(rig, opcode, NULL), unique);
	if (opcode == FUSE_MKDIR && !error)
		server_answers_entry(rig, unique, 99);
	else
		server_answers(rig, unique, error, NULL, 0);
	kernel_gets(rig, unique, error, NULL);
}

FACT(attributes_that_were_told_are_not_asked_for)
{
	struct rig rig;

	begin(&rig);
	attributes_come_from_the_server(&rig, DIRECTORY);
	tells_attributes(&rig, DIRECTORY, 100);
	attributes_come_from_the_channel(&rig, DIRECTORY, 100);
	tells_attributes(&rig, DIRECTORY, 120);
	attributes_come_from_the_channel(&rig, DIRECTORY, 120);
	attributes_come_from_the_server(&rig, OTHER);
	tells_attributes(&rig, FUSE_ROOT_ID, 140);
	attributes_come_from_the_channel(&rig, FUSE_ROOT_ID, 140);
	rig_close(&rig);
}

FACT(attributes_of_a_node_that_the_kernel_forgot_are_not_kept)
{
	struct rig rig;

	begin(&rig);
	tells_attributes(&rig, DIRECTORY, 100);
	kernel_forgets(&rig, DIRECTORY, 1);
	tells_attributes(&rig, DIRECTORY, 120);
	look_up(&rig, DIRECTORY);
	attributes_come_from_the_server(&rig, DIRECTORY);
	rig_close(&rig);
}

FACT(attributes_are_asked_for_again_once_a_request_may_change_them)
{
	static const uint32_t opcodes[] = { FUSE_SETATTR, FUSE_SETXATTR, FUSE_READDIR };
	const char body[128] = { 0 };
	struct rig rig;
	size_t i;

	begin(&rig);
	for (i = 0; i < sizeof(opcodes) / sizeof(*opcodes); i++) {
		uint64_t unique;

		tells_attributes(&rig, DIRECTORY, 100);
		unique = kernel_asks(&rig, opcodes[i], DIRECTORY, body, sizeof(body));
		EQUAL(server_gets(&rig, opcodes[i], NULL), unique);
		/* What was told before the server came to the request is as old as this. */
		tells_attributes(&rig, DIRECTORY, 120);
		attributes_come_from_the_channel(&rig, DIRECTORY, 120);
		server_answers(&rig, unique, 0, body, opcodes[i] == FUSE_SETATTR ? 104 : 0);
		kernel_gets(&rig, unique, 0, NULL);
		attributes_come_from_the_server(&rig, DIRECTORY);
	}
	rig_close(&rig);
}

FACT(attributes_are_asked_for_while_a_directory_changes_and_told_when_it_has)
{
	struct rig rig;
	uint64_t unique;

	begin(&rig);
	tells_attributes(&rig, DIRECTORY, 100);
	unique = asks_mkdir(&rig, DIRECTORY, "new");
	EQUAL(server_gets(&rig, FUSE_MKDIR, NULL), unique);
	attributes_come_from_the_server(&rig, DIRECTORY);
	tells_attributes(&rig, DIRECTORY, 120);
	server_answers_entry(&rig, unique, 99);
	kernel_gets(&rig, unique, 0, NULL);
	attributes_come_from_the_channel(&rig, DIRECTORY, 120);
	rig_close(&rig);
}

FACT(attributes_of_a_removed_directory_are_asked_for)
{
	struct rig rig;

	begin(&rig);
	tells_attributes(&rig, DIRECTORY, 100);
	server_watches(&rig, DIRECTORY);
	rig_settle(&rig);
	attributes_come_from_the_server(&rig, DIRECTORY);
	rig_close(&rig);
}

FACT(names_that_were_not_told_are_missing)
{
	struct rig rig;

	begin(&rig);
	name_is_asked_for(&rig, DIRECTORY, "x");
	TELLS_NAMES(&rig, DIRECTORY, "a\0bb\0");
	name_is_missing(&rig, DIRECTORY, "x");
	name_is_missing(&rig, DIRECTORY, "b");
	name_is_missing(&rig, DIRECTORY, "aa");
	name_is_asked_for(&rig, DIRECTORY, "a");
	name_is_asked_for(&rig, DIRECTORY, "bb");
	name_is_asked_for(&rig, OTHER, "x");
	TELLS_NAMES(&rig, FUSE_ROOT_ID, "");
	name_is_missing(&rig, FUSE_ROOT_ID, "x");
	rig_close(&rig);
}

FACT(dots_and_names_that_are_too_long_are_the_servers)
{
	char longest[257];
	struct rig rig;

	begin(&rig);
	TELLS_NAMES(&rig, DIRECTORY, "");
	name_is_asked_for(&rig, DIRECTORY, ".");
	name_is_asked_for(&rig, DIRECTORY, "..");
	name_is_missing(&rig, DIRECTORY, "...");
	memset(longest, 'x', 256);
	longest[256] = 0;
	name_is_asked_for(&rig, DIRECTORY, longest);
	longest[255] = 0;
	name_is_missing(&rig, DIRECTORY, longest);
	rig_close(&rig);
}

FACT(a_name_is_there_from_the_request_on_and_gone_with_the_reply)
{
	struct rig rig;
	uint64_t unique;

	begin(&rig);
	TELLS_NAMES(&rig, DIRECTORY, "");
	unique = asks_mkdir(&rig, DIRECTORY, "new");
	EQUAL(server_gets(&rig, FUSE_MKDIR, NULL), unique);
	name_is_missing(&rig, DIRECTORY, "newer");
	name_is_asked_for(&rig, DIRECTORY, "new");
	server_answers_entry(&rig, unique, 99);
	kernel_gets(&rig, unique, 0, NULL);
	name_is_asked_for(&rig, DIRECTORY, "new");
	unique = asks_name(&rig, FUSE_RMDIR, DIRECTORY, "new");
	EQUAL(server_gets(&rig, FUSE_RMDIR, NULL), unique);
	name_is_asked_for(&rig, DIRECTORY, "new");
	server_answers(&rig, unique, 0, NULL, 0);
	kernel_gets(&rig, unique, 0, NULL);
	name_is_missing(&rig, DIRECTORY, "new");
	rig_close(&rig);
}

FACT(a_name_that_could_not_be_removed_is_asked_for)
{
	struct rig rig;

	begin(&rig);
	TELLS_NAMES(&rig, DIRECTORY, "full\0");
	done(&rig, FUSE_RMDIR, asks_name(&rig, FUSE_RMDIR, DIRECTORY, "full"), -ENOTEMPTY);
	name_is_asked_for(&rig, DIRECTORY, "full");
	rig_close(&rig);
}

FACT(names_told_while_a_request_is_under_way_have_its_name_too)
{
	struct rig rig;
	uint64_t unique;

	begin(&rig);
	unique = asks_mkdir(&rig, DIRECTORY, "new");
	EQUAL(server_gets(&rig, FUSE_MKDIR, NULL), unique);
	TELLS_NAMES(&rig, DIRECTORY, "old\0");
	server_answers_entry(&rig, unique, 99);
	kernel_gets(&rig, unique, 0, NULL);
	name_is_asked_for(&rig, DIRECTORY, "new");
	rig_close(&rig);
}

FACT(a_renamed_name_moves)
{
	struct rig rig;

	begin(&rig);
	TELLS_NAMES(&rig, DIRECTORY, "a\0");
	TELLS_NAMES(&rig, OTHER, "");
	tells_attributes(&rig, OTHER, 100);
	done(&rig, FUSE_RENAME, asks_rename(&rig, DIRECTORY, "a", OTHER, "b"), 0);
	name_is_missing(&rig, DIRECTORY, "a");
	name_is_asked_for(&rig, OTHER, "b");
	name_is_missing(&rig, OTHER, "a");
	attributes_come_from_the_server(&rig, OTHER);
	rig_close(&rig);
}

FACT(a_name_whose_file_may_have_the_new_name_already_is_asked_for)
{
	struct rig rig;

	begin(&rig);
	TELLS_NAMES(&rig, DIRECTORY, "a\0b\0");
	done(&rig, FUSE_RENAME, asks_rename(&rig, DIRECTORY, "a", DIRECTORY, "b"), 0);
	name_is_asked_for(&rig, DIRECTORY, "a");
	name_is_asked_for(&rig, DIRECTORY, "b");
	rig_close(&rig);
}

FACT(exchanged_names_both_stay)
{
	struct {
		struct fuse_rename2_in in;
		char names[4];
	} body = { .in = { .newdir = OTHER, .flags = 2 }, .names = "a\0b" };
	struct rig rig;
	uint64_t unique;

	begin(&rig);
	TELLS_NAMES(&rig, DIRECTORY, "a\0");
	TELLS_NAMES(&rig, OTHER, "b\0");
	unique = kernel_asks(&rig, OP_RENAME2, DIRECTORY, &body, sizeof(body));
	done(&rig, OP_RENAME2, unique, 0);
	name_is_asked_for(&rig, DIRECTORY, "a");
	name_is_asked_for(&rig, OTHER, "b");
	rig_close(&rig);
}

FACT(what_an_interrupted_request_did_is_asked_for)
{
	struct rig rig;
	struct packet packet;
	uint64_t unique;

	begin(&rig);
	TELLS_NAMES(&rig, DIRECTORY, "a\0");
	tells_attributes(&rig, DIRECTORY, 100);
	unique = asks_name(&rig, FUSE_RMDIR, DIRECTORY, "a");
	EQUAL(server_gets(&rig, FUSE_RMDIR, NULL), unique);
	kernel_interrupts(&rig, unique);
	rig_settle(&rig);
	clock_advance(GRACE);
	kernel_gets(&rig, unique, -EINTR, NULL);
	tells_attributes(&rig, DIRECTORY, 80);
	server_answers(&rig, unique, 0, NULL, 0);
	kernel_takes(&rig, &packet);
	EQUAL(told(&packet)->error, NOTIFY_INVAL_ENTRY);
	kernel_takes(&rig, &packet);
	EQUAL(told(&packet)->error, NOTIFY_INVAL_INODE);
	name_is_asked_for(&rig, DIRECTORY, "a");
	name_is_asked_for(&rig, DIRECTORY, "b");
	attributes_come_from_the_server(&rig, DIRECTORY);
	rig_close(&rig);
}

FACT(what_was_told_outlives_the_server)
{
	struct rig rig;
	uint64_t unique;

	begin(&rig);
	TELLS_NAMES(&rig, DIRECTORY, "a\0");
	unique = asks_mkdir(&rig, DIRECTORY, "new");
	EQUAL(server_gets(&rig, FUSE_MKDIR, NULL), unique);
	server_dies(&rig);
	rig_wait(&rig, CHANNEL_IDLE);
	name_is_missing(&rig, DIRECTORY, "b");
	rig_restart(&rig);
	done(&rig, FUSE_MKDIR, unique, 0);
	name_is_asked_for(&rig, DIRECTORY, "new");
	name_is_missing(&rig, DIRECTORY, "b");
	rig_close(&rig);
}

FACT(of_too_many_names_none_is_kept)
{
	struct channel_settings settings = rig_settings();
	struct rig rig;

	settings.names_max = 2;
	rig_open(&rig, &settings);
	rig_serve(&rig);
	look_up(&rig, DIRECTORY);
	TELLS_NAMES(&rig, DIRECTORY, "a\0");
	done(&rig, FUSE_MKDIR, asks_mkdir(&rig, DIRECTORY, "b"), -ENOSPC);
	name_is_missing(&rig, DIRECTORY, "x");
	done(&rig, FUSE_MKDIR, asks_mkdir(&rig, DIRECTORY, "b"), -ENOSPC);
	name_is_missing(&rig, DIRECTORY, "x");
	done(&rig, FUSE_MKDIR, asks_mkdir(&rig, DIRECTORY, "c"), -ENOSPC);
	name_is_asked_for(&rig, DIRECTORY, "x");
	TELLS_NAMES(&rig, DIRECTORY, "a\0b\0c\0");
	name_is_asked_for(&rig, DIRECTORY, "x");
	rig_close(&rig);
}

FACT(without_memory_names_are_asked_for)
{
	static const struct told_attributes attributes = { .node = DIRECTORY };
	static const uint64_t directory = DIRECTORY;
	struct rig rig;

	begin(&rig);
	TELLS_NAMES(&rig, DIRECTORY, "a\0");
	allocation_fails(2); /* after the request */
	done(&rig, FUSE_MKDIR, asks_mkdir(&rig, DIRECTORY, "b"), -ENOSPC);
	CHECK(allocation_failed());
	name_is_asked_for(&rig, DIRECTORY, "x");
	allocation_fails(1);
	server_notifies(&rig, PRIVATE_ATTRIBUTES, &attributes, sizeof(attributes));
	CHECK(allocation_failed());
	attributes_come_from_the_server(&rig, DIRECTORY);
	allocation_fails(2);
	server_notifies(&rig, PRIVATE_NAMES, &directory, sizeof(directory));
	CHECK(allocation_failed());
	name_is_asked_for(&rig, DIRECTORY, "x");
	rig_close(&rig);
}
