// SPDX-License-Identifier: MIT
/* What the channel answers by itself, and what it must leave to the server. */
#include <errno.h>
#include <string.h>

#include "harness.h"

static void is_answered(struct rig *rig, uint32_t opcode, const void *body, size_t length,
			int error)
{
	const uint64_t before = rig_counters(rig).answered[opcode];

	kernel_gets(rig, kernel_asks(rig, opcode, 5, body, length), error, NULL);
	EQUAL(rig_counters(rig).answered[opcode], before + 1);
}

static void is_forwarded(struct rig *rig, uint32_t opcode, const void *body, size_t length)
{
	struct packet packet;
	uint64_t unique = kernel_asks(rig, opcode, 5, body, length);

	EQUAL(server_gets(rig, opcode, &packet), unique);
	EQUAL(packet.length, sizeof(struct fuse_in_header) + length);
	EQUAL(length && memcmp(asked_body(&packet), body, length), 0);
	server_answers(rig, unique, -ENOTTY, NULL, 0);
	kernel_gets(rig, unique, -ENOTTY, NULL);
}

FACT(release_flush_fsync_and_ioctl_never_reach_a_server)
{
	static const struct fuse_release_in in = { .fh = 5 };
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	is_answered(&rig, FUSE_RELEASE, &in, sizeof(in), 0);
	is_answered(&rig, FUSE_RELEASEDIR, &in, sizeof(in), 0);
	is_answered(&rig, FUSE_FLUSH, &in, sizeof(in), 0);
	is_answered(&rig, FUSE_FSYNC, &in, sizeof(in), -ENOSYS);
	is_answered(&rig, FUSE_FSYNCDIR, &in, sizeof(in), -ENOSYS);
	is_answered(&rig, FUSE_DESTROY, NULL, 0, 0);
	is_answered(&rig, FUSE_IOCTL, &in, sizeof(in), -ENOTTY);
	rig_settle(&rig);
	server_dies(&rig);
	is_answered(&rig, FUSE_RELEASE, &in, sizeof(in), 0);
	is_answered(&rig, FUSE_FLUSH, &in, sizeof(in), 0);
	EQUAL(rig_counters(&rig).kept, 0);
	rig_close(&rig);
}

FACT(opendir_caches_and_its_handle_is_the_node)
{
	const struct fuse_open_in in = { 0 };
	struct open_reply reply;
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	reply = kernel_gets_open(&rig, kernel_asks(&rig, FUSE_OPENDIR, 5, &in, sizeof(in)));
	EQUAL(reply.fh, 5);
	EQUAL(reply.open_flags, OPEN_CACHE_DIR | OPEN_KEEP_CACHE);
	EQUAL(reply.backing_id, 0);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(opendir_caches_nothing_where_directories_change_by_other_means)
{
	const struct fuse_open_in in = { 0 };
	struct channel_settings settings = rig_settings();
	struct rig rig;

	settings.elsewhere = true;
	rig_open(&rig, &settings);
	rig_serve(&rig);
	EQUAL(kernel_gets_open(&rig, kernel_asks(&rig, FUSE_OPENDIR, 5, &in, sizeof(in)))
		      .open_flags,
	      0);
	rig_settle(&rig);
	rig_close(&rig);
}

static uint64_t statfs_blocks(struct rig *rig, uint64_t unique)
{
	struct fuse_statfs_out out;
	struct packet packet;

	kernel_gets(rig, unique, 0, &packet);
	EQUAL(told_length(&packet), sizeof(out));
	memcpy(&out, told_body(&packet), sizeof(out));
	return out.st.blocks;
}

static void answers_statfs(struct rig *rig, uint64_t blocks)
{
	uint64_t unique = kernel_asks_statfs(rig);

	EQUAL(server_gets(rig, FUSE_STATFS, NULL), unique);
	server_answers_statfs(rig, unique, blocks);
	EQUAL(statfs_blocks(rig, unique), blocks);
}

FACT(statfs_asks_the_server_and_without_one_the_last_answer_holds)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	answers_statfs(&rig, 1000);
	answers_statfs(&rig, 2000);
	EQUAL(rig_counters(&rig).answered[FUSE_STATFS], 0);
	server_dies(&rig);
	EQUAL(statfs_blocks(&rig, kernel_asks_statfs(&rig)), 2000);
	EQUAL(rig_counters(&rig).answered[FUSE_STATFS], 1);
	server_attaches(&rig);
	server_answers_init(&rig, server_gets(&rig, FUSE_INIT, NULL), 0);
	answers_statfs(&rig, 3000);
	rig_close(&rig);
}

FACT(statfs_pending_at_the_servers_death_is_answered_from_memory)
{
	struct rig rig;
	uint64_t one, two;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	answers_statfs(&rig, 1000);
	one = kernel_asks_statfs(&rig);
	two = kernel_asks_statfs(&rig);
	server_gets(&rig, FUSE_STATFS, NULL);
	server_dies(&rig);
	EQUAL(statfs_blocks(&rig, one), 1000);
	EQUAL(statfs_blocks(&rig, two), 1000);
	EQUAL(rig_counters(&rig).answered[FUSE_STATFS], 2);
	EQUAL(rig_counters(&rig).kept, 0);
	rig_close(&rig);
}

FACT(statfs_that_was_never_answered_waits_for_a_server)
{
	struct rig rig;
	uint64_t unique;
	int i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = kernel_asks_statfs(&rig);
	server_gets(&rig, FUSE_STATFS, NULL);
	server_dies(&rig);
	kernel_asks_statfs(&rig);
	rig_settle(&rig);
	server_attaches(&rig);
	server_answers_init(&rig, server_gets(&rig, FUSE_INIT, NULL), 0);
	for (i = 0; i < 2; i++, unique += 2) {
		EQUAL(server_gets(&rig, FUSE_STATFS, NULL), unique);
		server_answers_statfs(&rig, unique, 7);
		EQUAL(statfs_blocks(&rig, unique), 7);
	}
	rig_close(&rig);
}

FACT(statfs_of_a_wrong_length_or_an_error_is_not_remembered)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	answers_statfs(&rig, 1000);
	unique = kernel_asks_statfs(&rig);
	server_answers(&rig, server_gets(&rig, FUSE_STATFS, NULL), 0, "short", 5);
	kernel_gets(&rig, unique, -EIO, NULL);
	unique = kernel_asks_statfs(&rig);
	server_answers(&rig, server_gets(&rig, FUSE_STATFS, NULL), -EACCES, NULL, 0);
	kernel_gets(&rig, unique, -EACCES, NULL);
	server_dies(&rig);
	EQUAL(statfs_blocks(&rig, kernel_asks_statfs(&rig)), 1000);
	rig_close(&rig);
}

/* Attributes. */

static size_t attribute(char *body, size_t fixed, const char *name, const char *value)
{
	memset(body, 0, fixed);
	strcpy(body + fixed, name);
	strcpy(body + fixed + strlen(name) + 1, value);
	return fixed + strlen(name) + 1 + strlen(value);
}

FACT(foreign_and_reserved_attributes_do_not_exist)
{
	static const char *const foreign[] = {
		"security.capability", "system.posix_acl_access", "", "user.mbuff", "user.mbuffx.a",
		FALLOCATE_NAME,	       "USER.MBUFF.SIZE"
	};
	char body[100];
	struct rig rig;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < sizeof(foreign) / sizeof(*foreign); i++)
		is_answered(&rig, FUSE_GETXATTR, body, attribute(body, 8, foreign[i], ""),
			    -ENODATA);
	rig_settle(&rig);
	server_dies(&rig);
	is_answered(&rig, FUSE_GETXATTR, body, attribute(body, 8, foreign[0], ""), -ENODATA);
	rig_close(&rig);
}

FACT(our_attributes_are_the_servers_to_answer)
{
	char body[100];
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	is_forwarded(&rig, FUSE_GETXATTR, body, attribute(body, 8, "user.mbuff.backend", ""));
	is_forwarded(&rig, FUSE_GETXATTR, body, attribute(body, 8, FALLOCATE_NAME "d", ""));
	is_forwarded(&rig, FUSE_SETXATTR, body, attribute(body, 8, "user.mbuff.backend", "x"));
	is_forwarded(&rig, FUSE_SETXATTR, body, attribute(body, 8, "security.capability", "x"));
	is_forwarded(&rig, FUSE_REMOVEXATTR, body, attribute(body, 0, "security.capability", ""));
	is_forwarded(&rig, FUSE_LISTXATTR, body, 8);
	rig_close(&rig);
}

static void serve_with(struct rig *rig, uint32_t flags)
{
	uint64_t unique = kernel_inits(rig, ~0u, ~0u);

	server_attaches(rig);
	EQUAL(server_gets(rig, FUSE_INIT, NULL), unique);
	server_answers_init(rig, unique, flags);
	kernel_gets(rig, unique, 0, NULL);
}

static void refuses_the_reserved_name(uint32_t flags, size_t fixed)
{
	char body[100];
	struct rig rig;

	rig_open(&rig, NULL);
	serve_with(&rig, flags);
	is_answered(&rig, FUSE_SETXATTR, body, attribute(body, fixed, FALLOCATE_NAME, "value"),
		    -EPERM);
	is_answered(&rig, FUSE_SETXATTR, body, attribute(body, fixed, FALLOCATE_NAME, ""), -EPERM);
	is_forwarded(&rig, FUSE_SETXATTR, body,
		     attribute(body, fixed, FALLOCATE_NAME "s", "value"));
	is_answered(&rig, FUSE_REMOVEXATTR, body, attribute(body, 0, FALLOCATE_NAME, ""), -EPERM);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(reserved_name_is_refused_to_clients)
{
	refuses_the_reserved_name(0, 8);
}

FACT(reserved_name_is_refused_to_clients_in_the_longer_setxattr)
{
	refuses_the_reserved_name(INIT_SETXATTR_EXT, 16);
}

static void fallocates(uint32_t flags, size_t fixed)
{
	const struct fuse_fallocate_in in = { .fh = 5, .offset = 1 << 20, .length = 3, .mode = 9 };
	const struct fallocate_words words = { .offset = 1 << 20, .length = 3, .mode = 9 };
	struct packet packet;
	struct rig rig;
	uint64_t unique;
	uint32_t size;
	const char *body;
	size_t i;

	rig_open(&rig, NULL);
	serve_with(&rig, flags);
	unique = kernel_asks(&rig, FUSE_FALLOCATE, 5, &in, sizeof(in));
	EQUAL(server_gets(&rig, FUSE_SETXATTR, &packet), unique);
	EQUAL(asked(&packet)->nodeid, 5);
	EQUAL(asked(&packet)->pid, PID);
	EQUAL(packet.length,
	      sizeof(struct fuse_in_header) + fixed + sizeof(FALLOCATE_NAME) + sizeof(words));
	body = asked_body(&packet);
	memcpy(&size, body, sizeof(size));
	EQUAL(size, sizeof(words));
	for (i = sizeof(size); i < fixed; i++)
		EQUAL(body[i], 0);
	EQUAL(strcmp(body + fixed, FALLOCATE_NAME), 0);
	EQUAL(memcmp(body + fixed + sizeof(FALLOCATE_NAME), &words, sizeof(words)), 0);
	rig_restart(&rig);
	EQUAL(server_gets(&rig, FUSE_SETXATTR, &packet), unique);
	EQUAL(asked(&packet)->pid, PID | SENT_AGAIN);
	server_answers(&rig, unique, -ENOSPC, NULL, 0);
	kernel_gets(&rig, unique, -ENOSPC, NULL);
	EQUAL(rig_counters(&rig).received[FUSE_FALLOCATE], 1);
	EQUAL(rig_counters(&rig).kept_bytes, 0);
	rig_close(&rig);
}

FACT(fallocate_arrives_as_setxattr_of_the_reserved_name)
{
	fallocates(0, 8);
}

FACT(fallocate_arrives_as_the_longer_setxattr_where_it_was_negotiated)
{
	fallocates(INIT_SETXATTR_EXT, 16);
}

FACT(all_else_is_forwarded_as_it_is)
{
	static const uint32_t opcodes[] = {
		FUSE_GETATTR, FUSE_SETATTR, FUSE_READLINK,
		FUSE_UNLINK,  FUSE_RMDIR,   FUSE_RENAME,
		FUSE_READ,    FUSE_WRITE,   FUSE_READDIR,
		FUSE_GETLK,   FUSE_SETLK,   FUSE_ACCESS,
		FUSE_BMAP,    FUSE_READDIR, FUSE_LSEEK,
		FUSE_SYNCFS,  OP_STATX,	    51,
		53,	      63,	    64,
		1000,	      UINT32_MAX,   0,
	};
	struct rig rig;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < sizeof(opcodes) / sizeof(*opcodes); i++) {
		is_forwarded(&rig, opcodes[i], NULL, 0);
		is_forwarded(&rig, opcodes[i], "0123456789abcdef0123456789abcdef", 33);
	}
	EQUAL(rig_counters(&rig).malformed, 0);
	EQUAL(rig_counters(&rig).replies, 1 + 2 * i);
	rig_close(&rig);
}
