// SPDX-License-Identifier: MIT
/* Watched nodes: of which forgotten ones the server hears, and how often. */
#include "harness.h"

static void hears_of(struct rig *rig, uint64_t node)
{
	const struct fuse_forget_in *in;
	struct packet packet;

	EQUAL(server_gets(rig, FUSE_FORGET, &packet), 0);
	EQUAL(packet.length, sizeof(struct fuse_in_header) + sizeof(*in));
	EQUAL(asked(&packet)->nodeid, node);
	in = asked_body(&packet);
	EQUAL(in->nlookup, 1);
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
