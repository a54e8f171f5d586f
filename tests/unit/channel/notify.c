// SPDX-License-Identifier: MIT
/* Notifications: which of the server's reach the kernel, and which the channel makes itself. */
#include <errno.h>
#include <string.h>

#include "harness.h"

FACT(notifications_are_passed_to_the_device_as_they_are)
{
	static const int32_t codes[] = { NOTIFY_POLL, NOTIFY_INVAL_INODE, NOTIFY_INVAL_ENTRY,
					 NOTIFY_STORE, NOTIFY_DELETE };
	static const char body[] = "0123456789012345678901234567890123456789";
	struct packet packet;
	struct rig rig;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < sizeof(codes) / sizeof(*codes); i++) {
		server_notifies(&rig, codes[i], body, sizeof(body));
		kernel_gets(&rig, 0, codes[i], &packet);
		EQUAL(told_length(&packet), sizeof(body));
		EQUAL(memcmp(told_body(&packet), body, sizeof(body)), 0);
	}
	EQUAL(rig_counters(&rig).malformed, 0);
	rig_close(&rig);
}

FACT(private_and_unknown_notifications_never_reach_the_device)
{
	static const int32_t codes[] = { 0,  5,	 7,	8,	   100,	      PRIVATE_GRANT + 1,
					 -1, -5, -1000, INT32_MAX, INT32_MIN, PRIVATE_WATCH - 1 };
	static const uint64_t node = 5;
	struct rig rig;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, node);
	for (i = 0; i < sizeof(codes) / sizeof(*codes); i++)
		server_notifies(&rig, codes[i], &node, sizeof(node));
	server_watches(&rig, node);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).malformed, i);
	rig_close(&rig);
}

FACT(notification_of_no_length_is_left_to_the_kernel_to_refuse)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	server_notifies(&rig, NOTIFY_POLL, NULL, 0);
	kernel_gets(&rig, 0, NOTIFY_POLL, NULL);
	server_notifies(&rig, NOTIFY_INVAL_ENTRY, "123", 3);
	kernel_gets(&rig, 0, NOTIFY_INVAL_ENTRY, NULL);
	rig_settle(&rig);
	rig_close(&rig);
}

/* Poll. */

static void polls(struct rig *rig, uint64_t handle, uint32_t flags)
{
	const struct fuse_poll_in in = { .fh = 5, .kh = handle, .flags = flags };
	const struct fuse_poll_out out = { 0 };
	uint64_t unique = kernel_asks(rig, FUSE_POLL, 5, &in, sizeof(in));

	EQUAL(server_gets(rig, FUSE_POLL, NULL), unique);
	server_answers(rig, unique, 0, &out, sizeof(out));
	kernel_gets(rig, unique, 0, NULL);
}

static uint64_t is_woken(struct rig *rig)
{
	struct fuse_notify_poll_wakeup_out out;
	struct packet packet;

	kernel_gets(rig, 0, NOTIFY_POLL, &packet);
	EQUAL(told_length(&packet), sizeof(out));
	memcpy(&out, told_body(&packet), sizeof(out));
	return out.kh;
}

FACT(who_polls_is_woken_when_a_new_server_attaches)
{
	struct rig rig;
	uint64_t sum;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	polls(&rig, 31, FUSE_POLL_SCHEDULE_NOTIFY);
	polls(&rig, 33, FUSE_POLL_SCHEDULE_NOTIFY);
	polls(&rig, 31, FUSE_POLL_SCHEDULE_NOTIFY);
	rig_settle(&rig);
	server_dies(&rig);
	CHECK(kernel_has_nothing(&rig));
	server_attaches(&rig);
	sum = is_woken(&rig);
	sum += is_woken(&rig);
	EQUAL(sum, 31 + 33);
	server_answers_init(&rig, server_gets(&rig, FUSE_INIT, NULL), 0);
	rig_settle(&rig);
	/* Once: they have asked again, or do not care. */
	rig_restart(&rig);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(who_polls_without_waiting_is_not_woken)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	polls(&rig, 31, 0);
	rig_restart(&rig);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(who_was_notified_is_not_woken_again)
{
	struct fuse_notify_poll_wakeup_out wakeup = { .kh = 31 };
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	polls(&rig, 31, FUSE_POLL_SCHEDULE_NOTIFY);
	polls(&rig, 33, FUSE_POLL_SCHEDULE_NOTIFY);
	server_notifies(&rig, NOTIFY_POLL, &wakeup, sizeof(wakeup));
	EQUAL(is_woken(&rig), 31);
	wakeup.kh = 99;
	server_notifies(&rig, NOTIFY_POLL, &wakeup, sizeof(wakeup));
	EQUAL(is_woken(&rig), 99);
	server_dies(&rig);
	server_attaches(&rig);
	EQUAL(is_woken(&rig), 33);
	server_answers_init(&rig, server_gets(&rig, FUSE_INIT, NULL), 0);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(more_pollers_than_are_remembered_are_woken_to_ask_again_and_may_then_be_so_many)
{
	const uint64_t bound = 4096;
	uint64_t handle, sum = 0;
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (handle = 1; handle <= bound; handle++)
		polls(&rig, handle, FUSE_POLL_SCHEDULE_NOTIFY);
	/* Who is remembered already takes no room. */
	polls(&rig, 1, FUSE_POLL_SCHEDULE_NOTIFY);
	rig_settle(&rig);
	kernel_asks(&rig, FUSE_POLL, 5,
		    &(struct fuse_poll_in){ .kh = handle, .flags = FUSE_POLL_SCHEDULE_NOTIFY },
		    sizeof(struct fuse_poll_in));
	for (handle = 1; handle <= bound; handle++)
		sum += is_woken(&rig);
	EQUAL(sum, bound * (bound + 1) / 2);
	server_gets(&rig, FUSE_POLL, NULL);
	rig_settle(&rig);
	for (handle = 1; handle < 2 * bound; handle++)
		polls(&rig, handle, FUSE_POLL_SCHEDULE_NOTIFY);
	CHECK(kernel_has_nothing(&rig));
	rig_close(&rig);
}

FACT(notifications_in_one_packet_all_count)
{
	struct {
		struct fuse_out_header header;
		uint64_t node;
	} watches[3] = {
		{ { sizeof(watches[0]), PRIVATE_WATCH, 0 }, 5 },
		{ { sizeof(watches[0]), PRIVATE_WATCH, 0 }, 6 },
		{ { sizeof(watches[0]), NOTIFY_POLL, 0 }, 7 },
	};
	struct packet packet;
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	look_up(&rig, 6);
	server_sends_bytes(&rig, watches, sizeof(watches));
	kernel_takes(&rig, &packet);
	EQUAL(packet.length, sizeof(watches[0]));
	EQUAL(told(&packet)->error, NOTIFY_POLL);
	kernel_forgets(&rig, 5, 1);
	EQUAL(server_gets(&rig, FUSE_BATCH_FORGET, NULL), 0);
	kernel_forgets(&rig, 6, 1);
	EQUAL(server_gets(&rig, FUSE_BATCH_FORGET, NULL), 0);
	EQUAL(rig_counters(&rig).malformed, 0);
	rig_close(&rig);
}

FACT(a_packet_counts_up_to_what_is_malformed)
{
	struct {
		struct fuse_out_header header;
		uint64_t node;
	} watches[2];
	static const uint32_t lengths[] = { 0, 15, 25, UINT32_MAX };
	struct rig rig;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		memset(watches, 0, sizeof(watches));
		watches[0].header =
			(struct fuse_out_header){ sizeof(watches[0]), PRIVATE_WATCH, 0 };
		watches[0].node = 10 + i;
		watches[1].header = (struct fuse_out_header){ lengths[i], PRIVATE_WATCH, 0 };
		server_sends_bytes(&rig, watches, sizeof(watches));
		/* The kernel does not know it: it is told at once. */
		EQUAL(server_gets(&rig, FUSE_BATCH_FORGET, NULL), 0);
		rig_settle(&rig);
		EQUAL(rig_counters(&rig).malformed, i + 1);
	}
	rig_close(&rig);
}
