// SPDX-License-Identifier: MIT
/* Messages that no kernel and no libfuse would send. Nobody hangs over them, nothing is read beyond
 * them. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "harness.h"

FACT(message_shorter_than_a_header_is_ignored)
{
	struct fuse_in_header in = { .opcode = FUSE_GETATTR, .unique = 900 };
	struct fuse_out_header out = { .unique = 900 };
	struct rig rig;
	uint32_t length;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (length = 1; length < sizeof(in); length++) {
		in.len = length;
		kernel_sends_bytes(&rig, &in, length);
	}
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).malformed, sizeof(in) - 1);
	for (length = 1; length < sizeof(out); length++) {
		out.len = length;
		server_sends_bytes(&rig, &out, length);
	}
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).malformed, sizeof(in) + sizeof(out) - 2);
	rig_close(&rig);
}

FACT(request_of_another_length_than_it_says_is_ignored)
{
	const uint32_t said[] = { 0, 39, 41, 4096, 2 * CHANNEL_MESSAGE_MAX, UINT32_MAX };
	struct rig rig;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < sizeof(said) / sizeof(*said); i++) {
		const struct fuse_in_header in = {
			.len = said[i],
			.opcode = FUSE_GETATTR,
			.unique = 900,
		};

		kernel_sends_bytes(&rig, &in, sizeof(in));
	}
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).malformed, i);
	EQUAL(rig_counters(&rig).received[FUSE_GETATTR], 1);
	rig_close(&rig);
}

FACT(request_with_a_body_too_short_for_its_kind_is_einval)
{
	static const struct {
		uint32_t opcode;
		size_t enough;
	} kinds[] = {
		{ FUSE_OPEN, 8 },	 { FUSE_GETXATTR, 9 },	 { FUSE_SETXATTR, 9 },
		{ FUSE_REMOVEXATTR, 1 }, { FUSE_FALLOCATE, 32 }, { FUSE_POLL, 24 },
		{ FUSE_INIT, 16 },	 { OP_RENAME2, 18 },
	};
	static const char zeros[64];
	uint64_t malformed = 0;
	struct rig rig;
	size_t i, length;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		for (length = 0; length < kinds[i].enough; length++, malformed++)
			kernel_gets(&rig, kernel_asks(&rig, kinds[i].opcode, 5, zeros, length),
				    -EINVAL, NULL);
	}
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).malformed, malformed);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}

FACT(forget_and_interrupt_with_a_short_body_are_ignored)
{
	static const uint32_t kinds[] = { FUSE_FORGET, FUSE_BATCH_FORGET, FUSE_INTERRUPT };
	static const char zeros[8];
	struct rig rig;
	size_t i, length;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		for (length = 0; length < 8; length++)
			kernel_asks(&rig, kinds[i], 5, zeros, length);
	}
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).malformed, 24);
	EQUAL(rig_counters(&rig).nodes, 1);
	rig_close(&rig);
}

FACT(batch_forget_of_more_than_it_holds_is_ignored)
{
	struct {
		struct fuse_batch_forget_in head;
		struct fuse_forget_one one[2];
	} batch = { .one = { { 5, 1 }, { 6, 1 } } };
	const uint32_t counts[] = { 3, 1000, UINT32_MAX };
	struct rig rig;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	for (i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		batch.head.count = counts[i];
		kernel_asks(&rig, FUSE_BATCH_FORGET, 0, &batch, sizeof(batch));
	}
	batch.head.count = 2;
	kernel_asks(&rig, FUSE_BATCH_FORGET, 0, &batch, sizeof(batch) - 1);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).malformed, i + 1);
	EQUAL(rig_counters(&rig).nodes, 1);
	batch.head.count = 1;
	kernel_asks(&rig, FUSE_BATCH_FORGET, 0, &batch, sizeof(batch) - 1);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}

FACT(attribute_name_without_an_end_is_einval)
{
	static const char names[] = "........user.mbuff.fallocate.........";
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_GETXATTR, 5, names, 28), -EINVAL, NULL);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_SETXATTR, 5, names, 28), -EINVAL, NULL);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_REMOVEXATTR, 5, names + 8, 20), -EINVAL, NULL);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_GETXATTR, 5, names, 9), -EINVAL, NULL);
	EQUAL(rig_counters(&rig).malformed, 4);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(setxattr_shorter_than_its_longer_layout_is_einval)
{
	char body[24] = { 0 };
	struct rig rig;
	uint64_t unique;
	size_t length;

	rig_open(&rig, NULL);
	server_attaches(&rig);
	unique = kernel_inits(&rig, ~0u, 0);
	server_answers_init(&rig, server_gets(&rig, FUSE_INIT, NULL), INIT_SETXATTR_EXT);
	kernel_gets(&rig, unique, 0, NULL);
	memset(body + 16, 'x', 8);
	for (length = 0; length <= sizeof(body); length++)
		kernel_gets(&rig, kernel_asks(&rig, FUSE_SETXATTR, 5, body, length), -EINVAL, NULL);
	rig_settle(&rig);
	rig_close(&rig);
}

/* Replies. */

static uint64_t asks(struct rig *rig, uint32_t opcode)
{
	uint64_t unique = kernel_asks(rig, opcode, 5, "................name", 21);

	EQUAL(server_gets(rig, opcode, NULL), unique);
	return unique;
}

FACT(reply_to_nothing_is_dropped)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	server_answers(&rig, 4444, 0, NULL, 0);
	server_answers_open(&rig, UINT64_MAX, 77, 0);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).dropped, 2);
	rig_close(&rig);
}

FACT(second_reply_is_dropped)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = asks(&rig, FUSE_MKNOD);
	server_answers_entry(&rig, unique, 5);
	server_answers_entry(&rig, unique, 5);
	server_answers(&rig, unique, -EIO, NULL, 0);
	kernel_gets(&rig, unique, 0, NULL);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).dropped, 2);
	kernel_forgets(&rig, 5, 1);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}

FACT(reply_with_an_impossible_error_is_eio)
{
	static const int32_t errors[] = { 1, 5, INT32_MAX, -512, -513, -1000, INT32_MIN };
	struct rig rig;
	uint64_t unique;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		unique = asks(&rig, FUSE_MKNOD);
		server_answers(&rig, unique, errors[i], NULL, 0);
		kernel_gets(&rig, unique, -EIO, NULL);
	}
	EQUAL(rig_counters(&rig).malformed, i);
	unique = asks(&rig, FUSE_MKNOD);
	server_answers(&rig, unique, -511, NULL, 0);
	kernel_gets(&rig, unique, -511, NULL);
	rig_settle(&rig);
	rig_close(&rig);
}

static void has_one_length(uint32_t opcode, size_t right)
{
	const size_t wrong[] = { 0, 1, right - 1, right + 1, right + 8, 4000 };
	_Alignas(8) char body[4096] = { 5 };
	struct rig rig;
	uint64_t unique;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		unique = asks(&rig, opcode);
		server_answers(&rig, unique, 0, body, wrong[i]);
		kernel_gets(&rig, unique, -EIO, NULL);
	}
	EQUAL(rig_counters(&rig).malformed, i);
	EQUAL(rig_counters(&rig).nodes, 0);
	unique = asks(&rig, opcode);
	server_answers(&rig, unique, 0, body, right);
	kernel_gets(&rig, unique, 0, NULL);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(open_reply_of_a_wrong_length_is_eio)
{
	has_one_length(FUSE_OPEN, 16);
}

FACT(create_reply_of_a_wrong_length_is_eio)
{
	has_one_length(FUSE_CREATE, 144);
}

FACT(lookup_reply_of_a_wrong_length_is_eio)
{
	has_one_length(FUSE_LOOKUP, 128);
}

FACT(mkdir_reply_of_a_wrong_length_is_eio)
{
	has_one_length(FUSE_MKDIR, 128);
}

FACT(link_reply_of_a_wrong_length_is_eio)
{
	has_one_length(FUSE_LINK, 128);
}

FACT(create_reply_without_a_node_is_eio)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = asks(&rig, FUSE_CREATE);
	server_answers_create(&rig, unique, 0, 77);
	kernel_gets(&rig, unique, -EIO, NULL);
	EQUAL(closed_next(&rig), 77);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}

FACT(reply_of_another_length_than_it_says_is_eio)
{
	const uint32_t said[] = { 0, 15, 17, 4000, UINT32_MAX };
	struct rig rig;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < sizeof(said) / sizeof(*said); i++) {
		const struct fuse_out_header out = {
			.len = said[i],
			.unique = asks(&rig, FUSE_OPEN),
		};

		server_sends_bytes(&rig, &out, sizeof(out));
		kernel_gets(&rig, out.unique, -EIO, NULL);
	}
	server_sends_bytes(&rig, &(struct fuse_out_header){ .len = 99, .unique = 4444 }, 16);
	server_sends_bytes(&rig, &(struct fuse_out_header){ .len = 99, .error = NOTIFY_STORE }, 16);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).malformed, i + 2);
	EQUAL(rig_counters(&rig).kept, 0);
	rig_close(&rig);
}

FACT(reply_that_does_not_fit_is_eio)
{
	const uint32_t length = CHANNEL_MESSAGE_MAX + 1;
	struct fuse_out_header out = { .len = length };
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	out.unique = asks(&rig, FUSE_READ);
	/* A socket's limit is lower on most machines, so the length is told by hand. */
	packet_was(length);
	server_sends_bytes(&rig, &out, sizeof(out));
	kernel_gets(&rig, out.unique, -EIO, NULL);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).malformed, 1);
	rig_close(&rig);
}

FACT(guessed_reply_to_what_the_server_has_not_seen_is_dropped)
{
	struct fuse_out_header out = { .len = 99 };
	struct packet packet;
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	sending_fails(EPIPE);
	out.unique = kernel_asks(&rig, FUSE_MKNOD, 1, "................name", 21);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_OPENDIR, 1, NULL, 0), 0, &packet);
	server_sends_bytes(&rig, &out, sizeof(out));
	server_answers(&rig, out.unique, 0, NULL, 0);
	server_notifies(&rig, NOTIFY_STORE, NULL, 0);
	kernel_gets(&rig, 0, NOTIFY_STORE, NULL);
	EQUAL(rig_counters(&rig).kept, 1);
	rig_close(&rig);
}

FACT(empty_packet_is_the_end_of_a_server)
{
	char rest[64];
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	EQUAL(send(rig.server, "", 0, 0), 0);
	rig_wait(&rig, CHANNEL_IDLE);
	EQUAL(recv(rig.server, rest, sizeof(rest), 0), 0);
	rig_close(&rig);
}
