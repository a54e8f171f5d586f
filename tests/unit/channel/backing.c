// SPDX-License-Identifier: MIT
/* Backing ids: one a node, whoever registers more; what OPEN and CREATE replies look like. */
#include <fcntl.h>

#include "harness.h"

static void is_passed_through(struct open_reply reply, uint64_t node, int32_t id)
{
	EQUAL(reply.fh, node);
	EQUAL(reply.open_flags, OPEN_PASSTHROUGH | OPEN_NOFLUSH);
	EQUAL(reply.backing_id, id);
}

FACT(first_open_asks_the_server_and_later_ones_get_its_id_natively)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	is_passed_through(open_node(&rig, 5, 77), 5, 77);
	is_passed_through(open_natively(&rig, 5), 5, 77);
	is_passed_through(open_natively(&rig, 5), 5, 77);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).received[FUSE_OPEN], 3);
	EQUAL(rig_counters(&rig).answered[FUSE_OPEN], 2);
	EQUAL(rig_counters(&rig).backing, 1);
	CHECK(closed_nothing(&rig));
	rig_close(&rig);
}

FACT(open_that_truncates_asks_the_server_and_gets_the_known_id)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	open_node(&rig, 5, 77);
	unique = kernel_asks_open(&rig, 5, O_RDWR | O_TRUNC);
	EQUAL(server_gets(&rig, FUSE_OPEN, NULL), unique);
	server_answers_open(&rig, unique, 78, OPEN_KEEP_CACHE);
	is_passed_through(kernel_gets_open(&rig, unique), 5, 77);
	EQUAL(closed_next(&rig), 78);
	rig_settle(&rig);
	CHECK(closed_nothing(&rig));
	rig_close(&rig);
}

FACT(two_opens_under_way_get_one_id_and_the_spare_one_is_closed)
{
	struct rig rig;
	uint64_t one, two;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	one = kernel_asks_open(&rig, 5, 0);
	two = kernel_asks_open(&rig, 5, 0);
	EQUAL(server_gets(&rig, FUSE_OPEN, NULL), one);
	EQUAL(server_gets(&rig, FUSE_OPEN, NULL), two);
	server_answers_open(&rig, two, 78, 0);
	server_answers_open(&rig, one, 77, 0);
	is_passed_through(kernel_gets_open(&rig, two), 5, 78);
	is_passed_through(kernel_gets_open(&rig, one), 5, 78);
	EQUAL(closed_next(&rig), 77);
	rig_close(&rig);
}

FACT(create_reply_gets_passthrough_and_its_id_serves_later_opens)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	is_passed_through(create(&rig, 5, 77), 5, 77);
	is_passed_through(open_natively(&rig, 5), 5, 77);
	rig_close(&rig);
}

FACT(create_of_a_known_node_gets_the_known_id_and_the_spare_one_is_closed)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	create(&rig, 5, 77);
	is_passed_through(create(&rig, 5, 78), 5, 77);
	EQUAL(closed_next(&rig), 78);
	rig_close(&rig);
}

FACT(next_servers_own_id_is_a_spare_one)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	create(&rig, 5, 77);
	rig_restart(&rig);
	is_passed_through(open_natively(&rig, 5), 5, 77);
	unique = kernel_asks_open(&rig, 5, O_TRUNC);
	server_gets(&rig, FUSE_OPEN, NULL);
	server_answers_open(&rig, unique, 12, 0);
	is_passed_through(kernel_gets_open(&rig, unique), 5, 77);
	EQUAL(closed_next(&rig), 12);
	rig_close(&rig);
}

FACT(nothing_of_the_servers_flags_stands_beside_passthrough)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	unique = kernel_asks_open(&rig, 5, 0);
	server_gets(&rig, FUSE_OPEN, NULL);
	server_answers_open(&rig, unique, 77, ~0u);
	is_passed_through(kernel_gets_open(&rig, unique), 5, 77);
	rig_close(&rig);
}

FACT(open_without_an_id_is_cached_and_asks_the_server_each_time)
{
	const uint64_t none[] = { 0, (uint64_t)-3, 0xfffffffd };
	struct open_reply reply;
	struct rig rig;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	for (i = 0; i < sizeof(none) / sizeof(*none); i++) {
		reply = open_node(&rig, 5, none[i]);
		EQUAL(reply.fh, 5);
		EQUAL(reply.open_flags, OPEN_KEEP_CACHE);
		EQUAL(reply.backing_id, 0);
	}
	EQUAL(rig_counters(&rig).backing, 0);
	rig_settle(&rig);
	CHECK(closed_nothing(&rig));
	rig_close(&rig);
}

FACT(passthrough_claimed_by_the_server_without_an_id_is_taken_out)
{
	struct open_reply reply;
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	unique = kernel_asks_open(&rig, 5, 0);
	server_gets(&rig, FUSE_OPEN, NULL);
	server_answers_open(&rig, unique, 0, OPEN_PASSTHROUGH | OPEN_KEEP_CACHE);
	reply = kernel_gets_open(&rig, unique);
	EQUAL(reply.open_flags, OPEN_KEEP_CACHE);
	EQUAL(reply.backing_id, 0);
	rig_close(&rig);
}

FACT(fh_is_no_id_where_passthrough_was_not_granted)
{
	struct channel_settings settings = rig_settings();
	struct open_reply reply;
	struct rig rig;

	settings.passthrough = false;
	rig_open(&rig, &settings);
	rig_serve(&rig);
	reply = create(&rig, 5, 77);
	EQUAL(reply.fh, 5);
	EQUAL(reply.open_flags, OPEN_KEEP_CACHE);
	EQUAL(reply.backing_id, 0);
	open_node(&rig, 5, 78);
	kernel_forgets(&rig, 5, 1);
	rig_settle(&rig);
	CHECK(closed_nothing(&rig));
	EQUAL(rig_counters(&rig).backing, 0);
	rig_close(&rig);
}

FACT(open_that_the_server_refuses_leaves_nothing)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	unique = kernel_asks_open(&rig, 5, 0);
	server_gets(&rig, FUSE_OPEN, NULL);
	server_answers(&rig, unique, -2, NULL, 0);
	kernel_gets(&rig, unique, -2, NULL);
	is_passed_through(open_node(&rig, 5, 77), 5, 77);
	rig_close(&rig);
}

FACT(forgotten_node_has_its_id_closed_and_the_next_open_asks_the_server)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	create(&rig, 5, 77);
	kernel_forgets(&rig, 5, 1);
	EQUAL(closed_next(&rig), 77);
	look_up(&rig, 5);
	is_passed_through(open_node(&rig, 5, 78), 5, 78);
	rig_settle(&rig);
	CHECK(closed_nothing(&rig));
	EQUAL(rig_counters(&rig).backing, 1);
	rig_close(&rig);
}

FACT(id_of_an_open_reply_that_nobody_takes_stays_with_the_node)
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
	rig_settle(&rig);
	is_passed_through(open_natively(&rig, 5), 5, 77);
	kernel_forgets(&rig, 5, 1);
	EQUAL(closed_next(&rig), 77);
	rig_close(&rig);
}

FACT(id_of_an_open_reply_that_nobody_takes_is_closed_when_the_node_is_forgotten_already)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	unique = kernel_asks_open(&rig, 5, 0);
	server_gets(&rig, FUSE_OPEN, NULL);
	kernel_forgets(&rig, 5, 1);
	rig_settle(&rig);
	device_wants_not(unique);
	server_answers_open(&rig, unique, 77, 0);
	EQUAL(closed_next(&rig), 77);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}

FACT(ids_that_a_killed_server_registered_and_never_told_of_are_closed)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	open_node(&rig, 5, 77);
	look_up(&rig, 6);
	rig_restart(&rig);
	open_node(&rig, 6, 80);
	EQUAL(closed_next(&rig), 78);
	EQUAL(closed_next(&rig), 79);
	/* What this server leaves out it has closed itself. */
	look_up(&rig, 7);
	open_node(&rig, 7, 90);
	rig_settle(&rig);
	CHECK(closed_nothing(&rig));
	rig_close(&rig);
}

FACT(ids_are_left_alone_when_the_kernels_count_has_come_round)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	open_node(&rig, 5, INT32_MAX - 1);
	look_up(&rig, 6);
	rig_restart(&rig);
	open_node(&rig, 6, 3);
	look_up(&rig, 7);
	rig_restart(&rig);
	open_node(&rig, 7, 4);
	rig_settle(&rig);
	CHECK(closed_nothing(&rig));
	rig_close(&rig);
}
