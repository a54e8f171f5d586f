// SPDX-License-Identifier: MIT
/* A machine without memory, threads or patience: what fails is one request, never the mount. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

FACT(thread_that_cannot_be_started_is_eagain_and_leaves_nothing)
{
	struct channel_settings settings = rig_settings();
	struct channel *channel;
	int pair[2], number;

	for (number = 1; number <= 3; number++) {
		EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
		settings.device = pair[0];
		channel = channel_new(&settings);
		CHECK(channel);
		thread_fails(number);
		EQUAL(channel_start(channel), -EAGAIN);
		channel_free(channel);
		close(pair[0]);
		close(pair[1]);
	}
}

FACT(channel_without_memory_is_enomem_at_its_making)
{
	const struct channel_settings settings = rig_settings();
	struct channel *channel = NULL;
	int number;

	for (number = 1; !channel; number++) {
		errno = 0;
		allocation_fails(number);
		channel = channel_new(&settings);
		EQUAL(errno, channel ? 0 : ENOMEM);
	}
	/* All that its threads live on has been there before they start. */
	CHECK(number > 7);
	allocation_fails(0);
	channel_free(channel);
}

FACT(request_without_memory_is_enomem_and_the_next_one_is_served)
{
	static const struct fuse_fallocate_in in;
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	allocation_fails(1);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_GETATTR, 1, NULL, 0), -ENOMEM, NULL);
	allocation_fails(1);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_FALLOCATE, 5, &in, sizeof(in)), -ENOMEM, NULL);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(init_that_cannot_be_kept_is_enomem)
{
	struct rig rig;
	int number;

	for (number = 1; number <= 2; number++) {
		rig_open(&rig, NULL);
		server_attaches(&rig);
		allocation_fails(number);
		kernel_gets(&rig, kernel_inits(&rig, ~0u, ~0u), -ENOMEM, NULL);
		CHECK(allocation_failed());
		CHECK(!channel_ready(rig.channel));
		server_dies(&rig);
		server_attaches(&rig);
		rig_close(&rig);
	}
}

FACT(server_without_memory_for_its_init_is_enomem_and_may_try_again)
{
	struct rig rig;
	int pair[2];

	rig_open(&rig, NULL);
	rig_serve(&rig);
	server_dies(&rig);
	EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	allocation_fails(1);
	EQUAL(channel_attach(rig.channel, pair[0]), -ENOMEM);
	EQUAL(channel_state(rig.channel), CHANNEL_IDLE);
	EQUAL(channel_attach(rig.channel, pair[0]), 0);
	rig.server = pair[1];
	server_answers_init(&rig, server_gets(&rig, FUSE_INIT, NULL), 0);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(open_reply_without_memory_for_its_node_is_eio_and_its_id_is_closed)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = kernel_asks_open(&rig, 5, 0);
	server_gets(&rig, FUSE_OPEN, NULL);
	allocation_fails(1);
	server_answers_open(&rig, unique, 77, 0);
	kernel_gets(&rig, unique, -EIO, NULL);
	EQUAL(closed_next(&rig), 77);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(look_up_without_memory_is_passed_on_and_its_forget_harmless)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	allocation_fails(2); /* the second: the first is the request */
	look_up(&rig, 5);
	CHECK(allocation_failed());
	EQUAL(rig_counters(&rig).nodes, 0);
	look_up(&rig, 5);
	kernel_forgets(&rig, 5, 2);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}

FACT(poll_that_fails_is_polled_again)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	polling_fails(ENOMEM);
	rig_settle(&rig);
	polling_fails(EINTR);
	rig_settle(&rig);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(native_open_that_nobody_takes_is_none)
{
	const uint64_t node = 5;
	const struct fuse_forget_in *in;
	struct packet packet;
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, node);
	EQUAL(open_node(&rig, node, 77).backing_id, 77);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_RELEASE, node, NULL, 0), 0, NULL);
	device_wants_not(rig.unique + 2);
	kernel_asks_open(&rig, node, 0);
	rig_settle(&rig);
	server_notifies(&rig, PRIVATE_ASK, &node, sizeof(node));
	server_gets(&rig, FUSE_FORGET, &packet);
	in = asked_body(&packet);
	EQUAL(in->nlookup, FORGET_UNOPENED);
	rig_close(&rig);
}

FACT(work_without_memory_is_lost_alone)
{
	static const uint64_t unknown = 99;
	const struct fuse_poll_in poll_in = { .kh = 9, .flags = FUSE_POLL_SCHEDULE_NOTIFY };
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	create(&rig, 5, 77);
	allocation_fails(1); /* of the job that closes */
	kernel_forgets(&rig, 5, 1);
	CHECK(allocation_failed());
	rig_settle(&rig);
	CHECK(closed_nothing(&rig));
	EQUAL(rig_counters(&rig).nodes, 0);

	allocation_fails(1); /* of the notification */
	server_notifies(&rig, NOTIFY_STORE, "...", 3);
	CHECK(allocation_failed());
	rig_settle(&rig);

	allocation_fails(1); /* of the node */
	server_watches(&rig, unknown);
	CHECK(allocation_failed());
	rig_settle(&rig);
	allocation_fails(2); /* of the message about it */
	server_watches(&rig, unknown);
	CHECK(allocation_failed());
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);

	allocation_fails(1); /* of the poll handle */
	kernel_asks(&rig, FUSE_POLL, 5, &poll_in, sizeof(poll_in));
	CHECK(allocation_failed());
	server_gets(&rig, FUSE_POLL, NULL);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(table_that_cannot_grow_still_finds_all)
{
	struct rig rig;
	uint64_t node;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (node = 100; node < 300; node++) {
		allocation_fails(3); /* the first is the request, the second the node */
		look_up(&rig, node);
	}
	CHECK(allocation_failed());
	allocation_fails(0);
	for (node = 100; node < 300; node++)
		EQUAL(open_node(&rig, node, node).backing_id, node);
	EQUAL(rig_counters(&rig).nodes, 200);
	rig_close(&rig);
}
