// SPDX-License-Identifier: MIT
/* One server after another: what each is sent, in which order, and with which mark. */
#include <errno.h>
#include <string.h>

#include "harness.h"

static uint64_t makes(struct rig *rig, const char *name)
{
	return kernel_asks(rig, FUSE_MKDIR, 1, name, 8 + 2);
}

static void gets_make(struct rig *rig, uint64_t unique, uint32_t pid)
{
	struct packet packet;

	EQUAL(server_gets(rig, FUSE_MKDIR, &packet), unique);
	EQUAL(asked(&packet)->pid, pid);
}

FACT(unanswered_requests_are_sent_again_in_order_after_init_with_the_mark)
{
	struct rig rig;
	uint64_t unique[4];
	int i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < 4; i++)
		unique[i] = makes(&rig, "........a");
	for (i = 0; i < 4; i++)
		gets_make(&rig, unique[i], PID);
	server_answers_entry(&rig, unique[1], 5);
	kernel_gets(&rig, unique[1], 0, NULL);
	rig_restart(&rig);
	gets_make(&rig, unique[0], PID | SENT_AGAIN);
	gets_make(&rig, unique[2], PID | SENT_AGAIN);
	gets_make(&rig, unique[3], PID | SENT_AGAIN);
	EQUAL(rig_counters(&rig).resent, 3);
	for (i = 0; i < 4; i++) {
		if (i == 1)
			continue;
		server_answers(&rig, unique[i], -EEXIST, NULL, 0);
		kernel_gets(&rig, unique[i], -EEXIST, NULL);
	}
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).kept, 0);
	EQUAL(rig_counters(&rig).kept_bytes, 0);
	rig_close(&rig);
}

FACT(request_that_no_server_has_seen_is_sent_without_the_mark)
{
	struct rig rig;
	uint64_t seen, unseen;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	seen = makes(&rig, "........a");
	gets_make(&rig, seen, PID);
	server_dies(&rig);
	unseen = makes(&rig, "........b");
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).kept, 2);
	server_attaches(&rig);
	server_gets(&rig, FUSE_INIT, NULL);
	gets_make(&rig, seen, PID | SENT_AGAIN);
	gets_make(&rig, unseen, PID);
	EQUAL(rig_counters(&rig).resent, 1);
	rig_close(&rig);
}

FACT(requests_before_the_first_server_wait_for_it_in_order)
{
	struct rig rig;
	uint64_t init, one, two;

	rig_open(&rig, NULL);
	init = kernel_inits(&rig, 0, 0);
	one = makes(&rig, "........a");
	two = makes(&rig, "........b");
	rig_settle(&rig);
	server_attaches(&rig);
	EQUAL(server_gets(&rig, FUSE_INIT, NULL), init);
	gets_make(&rig, one, PID);
	gets_make(&rig, two, PID);
	rig_close(&rig);
}

FACT(request_over_which_too_many_servers_died_gets_eio_and_others_do_not)
{
	struct rig rig;
	uint64_t poison, young;
	int i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	poison = makes(&rig, "........a");
	for (i = 0; i < SENDS; i++) {
		gets_make(&rig, poison, i ? PID | SENT_AGAIN : PID);
		if (i + 1 < SENDS)
			rig_restart(&rig);
	}
	young = makes(&rig, "........b");
	gets_make(&rig, young, PID);
	rig_restart(&rig);
	kernel_gets(&rig, poison, -EIO, NULL);
	gets_make(&rig, young, PID | SENT_AGAIN);
	server_answers_entry(&rig, young, 5);
	kernel_gets(&rig, young, 0, NULL);
	rig_settle(&rig);
	rig_close(&rig);
}

/* Servers that are killed while they start say nothing about the requests that wait for them. */
FACT(server_that_dies_before_it_has_begun_is_no_death_over_a_request)
{
	struct rig rig;
	uint64_t unique;
	int i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = makes(&rig, "........a");
	gets_make(&rig, unique, PID);
	for (i = 0; i < 3 * SENDS; i++) {
		server_dies(&rig);
		server_attaches(&rig);
	}
	rig_restart(&rig);
	gets_make(&rig, unique, PID | SENT_AGAIN);
	server_answers_entry(&rig, unique, 5);
	kernel_gets(&rig, unique, 0, NULL);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(reply_to_what_was_sent_again_is_passed_on_once)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = makes(&rig, "........a");
	gets_make(&rig, unique, PID);
	rig_restart(&rig);
	gets_make(&rig, unique, PID | SENT_AGAIN);
	server_answers_entry(&rig, unique, 5);
	server_answers_entry(&rig, unique, 5);
	kernel_gets(&rig, unique, 0, NULL);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).dropped, 1);
	rig_close(&rig);
}

FACT(replies_written_before_death_count_though_requests_lay_unread)
{
	struct rig rig;
	uint64_t one, two;
	struct packet packet;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	one = kernel_asks(&rig, FUSE_CREATE, 1, "................name", 21);
	server_gets(&rig, FUSE_CREATE, NULL);
	two = makes(&rig, "........a");
	kernel_gets(&rig, kernel_asks(&rig, FUSE_OPENDIR, 1, NULL, 0), 0, NULL);
	/* The end of a socket with something unread in it is a reset of the other one. */
	server_answers_create(&rig, one, 5, 77);
	server_dies(&rig);
	kernel_gets(&rig, one, 0, &packet);
	EQUAL(told_length(&packet), sizeof(struct create_reply));
	server_attaches(&rig);
	server_gets(&rig, FUSE_INIT, NULL);
	gets_make(&rig, two, PID | SENT_AGAIN);
	rig_close(&rig);
}

static uint32_t tag_of(struct rig *rig, uint64_t unique, uint32_t flags)
{
	const struct fuse_rename2_in *in;
	struct packet packet;

	EQUAL(server_gets(rig, OP_RENAME2, &packet), unique);
	in = asked_body(&packet);
	EQUAL(in->newdir, 9);
	EQUAL(in->flags & 0xff, flags);
	EQUAL(memcmp(in + 1, "a\0b", 4), 0);
	return in->flags >> EXCHANGE_TAG_SHIFT;
}

FACT(rename_carries_a_tag_that_differs_between_requests_and_stays_when_sent_again)
{
	struct {
		struct fuse_rename2_in in;
		char names[4];
	} body = { .in = { .newdir = 9, .flags = 2 | 0xffffff00 }, .names = "a\0b" };
	struct rig rig;
	uint64_t one, two;
	uint32_t tags[2];

	rig_open(&rig, NULL);
	rig_serve(&rig);
	one = kernel_asks(&rig, OP_RENAME2, 1, &body, sizeof(body.in) + 4);
	body.in.flags = 1;
	two = kernel_asks(&rig, OP_RENAME2, 1, &body, sizeof(body.in) + 4);
	tags[0] = tag_of(&rig, one, 2);
	tags[1] = tag_of(&rig, two, 1);
	CHECK(tags[0] != tags[1]);
	CHECK(tags[0] < EXCHANGE_TAGS && tags[1] < EXCHANGE_TAGS);
	rig_restart(&rig);
	EQUAL(tag_of(&rig, one, 2), tags[0]);
	EQUAL(tag_of(&rig, two, 1), tags[1]);
	rig_restart(&rig);
	EQUAL(tag_of(&rig, one, 2), tags[0]);
	rig_close(&rig);
}

FACT(plain_rename_is_not_changed)
{
	struct packet packet;
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	kernel_asks(&rig, FUSE_RENAME, 1, "........a\0b", 12);
	server_gets(&rig, FUSE_RENAME, &packet);
	EQUAL(memcmp(asked_body(&packet), "........a\0b", 12), 0);
	rig_close(&rig);
}

FACT(two_hundred_servers_in_a_row_lose_nothing)
{
	struct rig rig;
	uint64_t unique;
	int i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < 200; i++) {
		unique = makes(&rig, "........a");
		gets_make(&rig, unique, PID);
		rig_restart(&rig);
		gets_make(&rig, unique, PID | SENT_AGAIN);
		server_answers_entry(&rig, unique, 5);
		kernel_gets(&rig, unique, 0, NULL);
	}
	EQUAL(rig_counters(&rig).nodes, 1);
	kernel_forgets(&rig, 5, 200);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);
	EQUAL(rig_counters(&rig).resent, 200);
	rig_close(&rig);
}
