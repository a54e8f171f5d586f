// SPDX-License-Identifier: MIT
/* Watched nodes: of which forgotten or unopened ones the server hears, and how often. */
#include <fcntl.h>

#include "harness.h"

static void hears(struct rig *rig, uint64_t node, uint64_t what)
{
	const struct fuse_forget_in *in;
	struct packet packet;

	EQUAL(server_gets(rig, FUSE_FORGET, &packet), 0);
	EQUAL(packet.length, sizeof(struct fuse_in_header) + sizeof(*in));
	EQUAL(asked(&packet)->nodeid, node);
	in = asked_body(&packet);
	EQUAL(in->nlookup, what);
}

/* All in one message, nothing else. */
static void hears_of_all(struct rig *rig, const uint64_t *nodes, size_t count)
{
	const struct fuse_batch_forget_in *in;
	const struct fuse_forget_one *one;
	struct packet packet;
	size_t i;

	EQUAL(server_gets(rig, FUSE_BATCH_FORGET, &packet), 0);
	EQUAL(packet.length, sizeof(struct fuse_in_header) + sizeof(*in) + count * sizeof(*one));
	in = asked_body(&packet);
	one = (const void *)(in + 1);
	EQUAL(in->count, count);
	for (i = 0; i < count; i++) {
		EQUAL(one[i].nodeid, nodes[i]);
		EQUAL(one[i].nlookup, FORGET_DONE);
	}
}

static void hears_of(struct rig *rig, uint64_t node)
{
	hears_of_all(rig, &node, 1);
}

FACT(forgotten_nodes_are_not_told_unless_watched)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	kernel_forgets(&rig, 5, 1);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).received[FUSE_FORGET], 1);
	rig_close(&rig);
}

FACT(watched_node_is_told_once_when_its_last_look_up_goes)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	look_up(&rig, 5);
	server_watches(&rig, 5);
	rig_settle(&rig);
	kernel_forgets(&rig, 5, 1);
	rig_settle(&rig);
	kernel_forgets(&rig, 5, 1);
	hears_of(&rig, 5);
	kernel_forgets(&rig, 5, 1);
	rig_settle(&rig);
	look_up(&rig, 5);
	kernel_forgets(&rig, 5, 1);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);
	EQUAL(rig_counters(&rig).kept, 0);
	rig_close(&rig);
}

FACT(node_watched_twice_is_told_once)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	server_watches(&rig, 5);
	server_watches(&rig, 5);
	rig_settle(&rig);
	kernel_forgets(&rig, 5, 1);
	hears_of(&rig, 5);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(watched_node_that_the_kernel_does_not_know_is_told_at_once)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	server_watches(&rig, 5);
	hears_of(&rig, 5);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}

FACT(many_nodes_are_watched_with_one_message_and_half_a_number_is_none)
{
	const uint64_t nodes[] = { 5, 6, 7, 8 };
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 6);
	server_notifies(&rig, PRIVATE_WATCH, nodes, sizeof(nodes) - 4);
	hears_of(&rig, 5);
	hears_of(&rig, 7);
	rig_settle(&rig);
	kernel_forgets(&rig, 6, 1);
	hears_of(&rig, 6);
	server_notifies(&rig, PRIVATE_WATCH, NULL, 0);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(id_of_a_watched_node_is_closed_before_the_server_hears_of_its_end)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	create(&rig, 5, 77);
	server_watches(&rig, 5);
	rig_settle(&rig);
	CHECK(closed_nothing(&rig));
	kernel_forgets(&rig, 5, 1);
	EQUAL(closed_next(&rig), 77);
	hears_of(&rig, 5);
	rig_close(&rig);
}

FACT(node_forgotten_while_no_server_is_there_is_told_to_none)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	create(&rig, 5, 77);
	server_watches(&rig, 5);
	rig_settle(&rig);
	server_dies(&rig);
	kernel_forgets(&rig, 5, 1);
	EQUAL(closed_next(&rig), 77);
	server_attaches(&rig);
	server_answers_init(&rig, server_gets(&rig, FUSE_INIT, NULL), 0);
	rig_settle(&rig);
	/* It asks for its hidden names itself. */
	server_watches(&rig, 5);
	hears_of(&rig, 5);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(watch_outlives_the_server_that_asked)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	server_watches(&rig, 5);
	rig_settle(&rig);
	rig_restart(&rig);
	kernel_forgets(&rig, 5, 1);
	hears_of(&rig, 5);
	rig_settle(&rig);
	rig_close(&rig);
}

/* Asked whether a node is open. */

static void asks_about(struct rig *rig, uint64_t node)
{
	server_notifies(rig, PRIVATE_ASK, &node, sizeof(node));
}

static void releases(struct rig *rig, uint64_t node)
{
	kernel_gets(rig, kernel_asks(rig, FUSE_RELEASE, node, NULL, 0), 0, NULL);
}

FACT(node_is_open_until_each_of_its_opens_is_released)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	create(&rig, 5, 77);
	open_natively(&rig, 5);
	rig_restart(&rig);
	asks_about(&rig, 5);
	hears(&rig, 5, FORGET_OPEN);
	releases(&rig, 5);
	asks_about(&rig, 5);
	hears(&rig, 5, FORGET_OPEN);
	releases(&rig, 5);
	releases(&rig, 6);
	asks_about(&rig, 5);
	hears(&rig, 5, FORGET_UNOPENED);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(node_that_the_kernel_does_not_know_is_forgotten_when_asked)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	asks_about(&rig, 5);
	hears(&rig, 5, FORGET_DONE);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}

FACT(node_that_was_asked_about_is_watched)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	asks_about(&rig, 5);
	hears(&rig, 5, FORGET_UNOPENED);
	kernel_forgets(&rig, 5, 1);
	hears_of(&rig, 5);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(node_told_unopened_is_the_servers_to_open)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	create(&rig, 5, 77);
	releases(&rig, 5);
	asks_about(&rig, 5);
	hears(&rig, 5, FORGET_UNOPENED);
	unique = kernel_asks_open(&rig, 5, 0);
	EQUAL(server_gets(&rig, FUSE_OPEN, NULL), unique);
	server_answers(&rig, unique, -116, NULL, 0);
	kernel_gets(&rig, unique, -116, NULL);
	EQUAL(open_node(&rig, 5, 78).backing_id, 77);
	EQUAL(closed_next(&rig), 78);
	asks_about(&rig, 5);
	hears(&rig, 5, FORGET_OPEN);
	rig_close(&rig);
}

FACT(node_whose_open_is_under_way_is_open)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	unique = kernel_asks_open(&rig, 5, O_TRUNC);
	EQUAL(server_gets(&rig, FUSE_OPEN, NULL), unique);
	asks_about(&rig, 5);
	hears(&rig, 5, FORGET_OPEN);
	server_answers(&rig, unique, -28, NULL, 0);
	kernel_gets(&rig, unique, -28, NULL);
	asks_about(&rig, 5);
	hears(&rig, 5, FORGET_UNOPENED);
	rig_close(&rig);
}

FACT(open_whose_reply_nobody_takes_is_none)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	unique = kernel_asks_open(&rig, 5, 0);
	server_gets(&rig, FUSE_OPEN, NULL);
	device_wants_not(unique);
	server_answers_open(&rig, unique, 77, 0);
	asks_about(&rig, 5);
	hears(&rig, 5, FORGET_UNOPENED);

	look_up(&rig, 6);
	unique = kernel_asks(&rig, FUSE_CREATE, 1, "................name", 21);
	server_gets(&rig, FUSE_CREATE, NULL);
	device_wants_not(unique);
	server_answers_create(&rig, unique, 6, 78);
	asks_about(&rig, 6);
	hears(&rig, 6, FORGET_UNOPENED);

	look_up(&rig, 7);
	unique = kernel_asks_open(&rig, 7, 0);
	server_gets(&rig, FUSE_OPEN, NULL);
	kernel_interrupts(&rig, unique);
	rig_settle(&rig);
	clock_advance(GRACE);
	kernel_gets(&rig, unique, -4, NULL);
	asks_about(&rig, 7);
	hears(&rig, 7, FORGET_UNOPENED);
	server_answers_open(&rig, unique, 79, 0);
	asks_about(&rig, 7);
	hears(&rig, 7, FORGET_UNOPENED);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(question_that_is_no_number_is_not_answered)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	server_notifies(&rig, PRIVATE_ASK, NULL, 0);
	server_notifies(&rig, PRIVATE_ASK, "1234567", 7);
	server_notifies(&rig, PRIVATE_ASK, "1234567812345678", 16);
	rig_settle(&rig);
	rig_close(&rig);
}

/* Nodes 5 to 5 + count - 1, watched and then forgotten, each by a message of its own. */
static void forgotten(struct rig *rig, uint64_t *nodes, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		nodes[i] = 5 + i;
		look_up(rig, nodes[i]);
		server_watches(rig, nodes[i]);
	}
	rig_settle(rig);
	for (i = 0; i < count; i++)
		kernel_forgets(rig, nodes[i], 1);
}

static void serve_waiting(struct rig *rig, uint32_t forget_ms)
{
	struct channel_settings settings = rig_settings();

	settings.forget_ms = forget_ms;
	rig_open(rig, &settings);
	rig_serve(rig);
}

FACT(forgotten_nodes_wait_for_each_other)
{
	uint64_t nodes[3];
	struct rig rig;

	serve_waiting(&rig, 100);
	forgotten(&rig, nodes, 3);
	rig_settle(&rig);
	CHECK(server_has_nothing(&rig));
	clock_advance(100);
	hears_of_all(&rig, nodes, 3);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(so_many_forgotten_nodes_wait_for_no_more)
{
	uint64_t nodes[64];
	struct rig rig;

	serve_waiting(&rig, 100000);
	forgotten(&rig, nodes, 64);
	hears_of_all(&rig, nodes, 64);
	rig_close(&rig);
}

FACT(what_wants_memory_comes_behind_what_gives_it_back)
{
	static const uint32_t wants[] = { FUSE_STATFS,	FUSE_SETATTR, FUSE_CREATE,
					  FUSE_OPEN,	FUSE_WRITE,   FUSE_FALLOCATE,
					  FUSE_SYMLINK, FUSE_MKNOD,   FUSE_MKDIR };
	uint64_t node, unique;
	struct rig rig;
	size_t i;

	serve_waiting(&rig, 100000);
	for (i = 0; i < sizeof(wants) / sizeof(*wants); i++) {
		forgotten(&rig, &node, 1);
		unique = kernel_asks(&rig, wants[i], 1, "................................name", 37);
		hears_of(&rig, 5);
		EQUAL(server_gets(&rig, wants[i] == FUSE_FALLOCATE ? FUSE_SETXATTR : wants[i],
				  NULL),
		      unique);
		server_answers(&rig, unique, -5, NULL, 0);
		kernel_gets(&rig, unique, -5, NULL);
	}
	rig_close(&rig);
}

FACT(an_answer_comes_behind_what_was_forgotten_before)
{
	struct rig rig;
	uint64_t node;

	serve_waiting(&rig, 100000);
	forgotten(&rig, &node, 1);
	rig_settle(&rig);
	asks_about(&rig, 5);
	hears_of(&rig, 5);
	hears(&rig, 5, FORGET_DONE);
	rig_close(&rig);
}

FACT(the_next_server_hears_nothing_of_what_the_last_one_watched)
{
	struct rig rig;
	uint64_t node;

	serve_waiting(&rig, 100);
	forgotten(&rig, &node, 1);
	rig_settle(&rig);
	rig_restart(&rig);
	clock_advance(100);
	rig_settle(&rig);
	CHECK(server_has_nothing(&rig));
	rig_close(&rig);
}
