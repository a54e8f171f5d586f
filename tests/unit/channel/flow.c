// SPDX-License-Identifier: MIT
/* Bounds and back pressure: a server that does not read, and what is kept meanwhile. */
#include <errno.h>
#include <string.h>

#include "harness.h"

#define MANY 10000

/* Sends many requests while the server reads none, so that its socket is full in the end. */
static uint64_t flood(struct rig *rig)
{
	static const char body[600];
	uint64_t first = kernel_asks(rig, FUSE_SETATTR, 5, body, sizeof(body));
	int i;

	for (i = 1; i < MANY; i++)
		kernel_asks(rig, FUSE_SETATTR, 5, body, sizeof(body));
	kernel_gets(rig, kernel_asks(rig, FUSE_OPENDIR, 1, NULL, 0), 0, NULL);
	EQUAL(rig_counters(rig).kept, MANY);
	CHECK(rig_counters(rig).forwarded < MANY);
	return first;
}

FACT(messages_come_while_their_reader_stays_awake_for_them)
{
	struct channel_settings settings = rig_settings();
	struct rig rig;
	int i;

	settings.linger_us = 2000;
	rig_open(&rig, &settings);
	rig_serve(&rig);
	look_up(&rig, 5);
	open_node(&rig, 5, 77);
	for (i = 0; i < 1000; i++)
		open_natively(&rig, 5);
	EQUAL(rig_counters(&rig).answered[FUSE_OPEN], 1000);
	rig_close(&rig);
}

FACT(full_server_socket_recovers_without_loss_or_reordering)
{
	struct rig rig;
	uint64_t first;
	int i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	first = flood(&rig);
	for (i = 0; i < MANY; i++) {
		EQUAL(server_gets(&rig, FUSE_SETATTR, NULL), first + 2 * (uint64_t)i);
		server_answers(&rig, first + 2 * (uint64_t)i, -EPERM, NULL, 0);
		kernel_gets(&rig, first + 2 * (uint64_t)i, -EPERM, NULL);
	}
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).kept, 0);
	EQUAL(rig_counters(&rig).resent, 0);
	rig_close(&rig);
}

FACT(death_of_a_server_with_a_full_socket_loses_nothing)
{
	struct packet packet;
	struct rig rig;
	uint64_t first, sent;
	int i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	first = flood(&rig);
	sent = rig_counters(&rig).forwarded - 1; /* without INIT */
	server_dies(&rig);
	server_attaches(&rig);
	server_gets(&rig, FUSE_INIT, NULL);
	for (i = 0; i < MANY; i++) {
		EQUAL(server_gets(&rig, FUSE_SETATTR, &packet), first + 2 * (uint64_t)i);
		EQUAL(asked(&packet)->pid, (uint64_t)i < sent ? PID | SENT_AGAIN : PID);
	}
	EQUAL(rig_counters(&rig).resent, sent);
	rig_close(&rig);
}

FACT(requests_beyond_the_limit_are_enomem_until_others_are_answered)
{
	struct channel_settings settings = rig_settings();
	const size_t each = sizeof(struct fuse_in_header) + 60;
	static const char body[60];
	struct rig rig;
	uint64_t first;
	int i;

	settings.keep_limit = 12 * each;
	rig_open(&rig, &settings);
	rig_serve(&rig);
	first = rig.unique + 2;
	for (i = 0; i < 12; i++)
		kernel_asks(&rig, FUSE_SETATTR, 5, body, sizeof(body));
	kernel_gets(&rig, kernel_asks(&rig, FUSE_OPENDIR, 1, NULL, 0), 0, NULL);
	EQUAL(rig_counters(&rig).kept_bytes, 12 * each);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_SETATTR, 5, body, sizeof(body)), -ENOMEM, NULL);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_GETATTR, 5, body, 1), -ENOMEM, NULL);
	for (i = 0; i < 12; i++)
		EQUAL(server_gets(&rig, FUSE_SETATTR, NULL), first + 2 * (uint64_t)i);
	server_answers(&rig, first, -EPERM, NULL, 0);
	kernel_gets(&rig, first, -EPERM, NULL);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(sending_that_fails_for_want_of_memory_is_tried_again)
{
	static const int errors[] = { ENOBUFS, ENOMEM, EAGAIN, EINTR };
	struct rig rig;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		sending_fails(errors[i]);
		rig_settle(&rig);
	}
	rig_close(&rig);
}

FACT(request_larger_than_the_socket_takes_is_eio)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	sending_fails(EMSGSIZE);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_WRITE, 5, NULL, 0), -EIO, NULL);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).kept, 0);
	rig_close(&rig);
}

FACT(interrupted_request_that_waits_for_room_is_never_sent)
{
	struct rig rig;
	uint64_t first, last;
	int i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	first = flood(&rig);
	last = first + 2 * (MANY - 1);
	kernel_interrupts(&rig, last);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_OPENDIR, 1, NULL, 0), 0, NULL);
	clock_advance(GRACE);
	kernel_gets(&rig, last, -EINTR, NULL);
	for (i = 0; i < MANY - 1; i++)
		EQUAL(server_gets(&rig, FUSE_SETATTR, NULL), first + 2 * (uint64_t)i);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).kept, MANY - 1);
	rig_close(&rig);
}

FACT(forget_that_waits_for_room_goes_with_its_server)
{
	struct rig rig;
	uint64_t first;
	int i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	server_watches(&rig, 5);
	rig_settle(&rig);
	first = flood(&rig);
	kernel_forgets(&rig, 5, 1);
	kernel_gets(&rig, kernel_asks(&rig, FUSE_OPENDIR, 1, NULL, 0), 0, NULL);
	EQUAL(rig_counters(&rig).kept, MANY + 1);
	rig_restart(&rig);
	for (i = 0; i < MANY; i++)
		EQUAL(server_gets(&rig, FUSE_SETATTR, NULL), first + 2 * (uint64_t)i);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).kept, MANY);
	rig_close(&rig);
}
