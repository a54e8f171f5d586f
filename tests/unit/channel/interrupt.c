// SPDX-License-Identifier: MIT
/* INTERRUPT: when a client gets EINTR, and what becomes of the reply that comes after it. */
#include <errno.h>

#include <fcntl.h>
#include <string.h>

#include "harness.h"

/* Long enough for the structures before a name; as flags of OPEN without O_TRUNC. */
#define BODY "@@@@@@@@@@@@@@@@name"

static uint64_t interrupted(struct rig *rig, uint64_t unique)
{
	kernel_interrupts(rig, unique);
	rig_settle(rig);
	return unique;
}

/* The client of this request goes with EINTR. */
static void gives_up(struct rig *rig, uint64_t unique)
{
	interrupted(rig, unique);
	clock_advance(GRACE);
	kernel_gets(rig, unique, -EINTR, NULL);
}

static uint64_t asks(struct rig *rig, uint32_t opcode)
{
	uint64_t unique = kernel_asks(rig, opcode, 5, BODY, sizeof(BODY));

	EQUAL(server_gets(rig, opcode, NULL), unique);
	return unique;
}

static void is_told_of_attributes(struct rig *rig, uint64_t node)
{
	const struct fuse_notify_inval_inode_out *inode;
	struct packet packet;

	kernel_gets(rig, 0, NOTIFY_INVAL_INODE, &packet);
	inode = told_body(&packet);
	EQUAL(inode->ino, node);
	EQUAL(inode->off, -1);
}

static void is_told_of_name(struct rig *rig, uint64_t parent, const char *name)
{
	const struct fuse_notify_inval_entry_out *entry;
	struct packet packet;

	kernel_gets(rig, 0, NOTIFY_INVAL_ENTRY, &packet);
	entry = told_body(&packet);
	EQUAL(entry->parent, parent);
	EQUAL(entry->namelen, strlen(name));
	EQUAL(told_length(&packet), sizeof(*entry) + strlen(name) + 1);
	EQUAL(strcmp((const char *)(entry + 1), name), 0);
}

/* What was asked by asks() was done too late. */
static void is_told_to_look_again(struct rig *rig)
{
	is_told_of_name(rig, 5, "name");
	is_told_of_attributes(rig, 5);
}

FACT(what_was_done_too_late_is_looked_at_again)
{
	static const uint32_t of_attributes[] = { FUSE_SETATTR, FUSE_SETXATTR, FUSE_WRITE };
	static const uint32_t of_a_name[] = { FUSE_UNLINK, FUSE_RMDIR, FUSE_SYMLINK };
	struct fuse_open_in open = { .flags = O_RDWR | O_TRUNC };
	struct {
		uint64_t node, flags;
		char names[10];
	} rename = { 9, 0, "here\0there" };
	struct rig rig;
	uint64_t late;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < sizeof(of_attributes) / sizeof(*of_attributes); i++) {
		late = asks(&rig, of_attributes[i]);
		gives_up(&rig, late);
		server_answers(&rig, late, 0, NULL, 0);
		is_told_of_attributes(&rig, 5);
	}
	for (i = 0; i < sizeof(of_a_name) / sizeof(*of_a_name); i++) {
		late = kernel_asks(&rig, of_a_name[i], 5, "name\0target", 12);
		server_gets(&rig, of_a_name[i], NULL);
		gives_up(&rig, late);
		server_answers(&rig, late, 0, NULL, 0);
		is_told_to_look_again(&rig);
	}
	late = kernel_asks(&rig, FUSE_OPEN, 5, &open, sizeof(open));
	server_gets(&rig, FUSE_OPEN, NULL);
	gives_up(&rig, late);
	server_answers_open(&rig, late, 0, 0);
	is_told_of_attributes(&rig, 5);

	late = kernel_asks(&rig, OP_RENAME2, 5, &rename, 16 + sizeof("here") + sizeof("there"));
	server_gets(&rig, OP_RENAME2, NULL);
	gives_up(&rig, late);
	server_answers(&rig, late, 0, NULL, 0);
	is_told_of_name(&rig, 5, "here");
	is_told_of_name(&rig, 9, "there");
	is_told_of_attributes(&rig, 9);
	is_told_of_attributes(&rig, 5);

	late = kernel_asks(&rig, FUSE_LINK, 5, "\7\0\0\0\0\0\0\0name", 13);
	server_gets(&rig, FUSE_LINK, NULL);
	gives_up(&rig, late);
	server_answers_entry(&rig, late, 7);
	is_told_to_look_again(&rig);
	is_told_of_attributes(&rig, 7);
	rig_settle(&rig);
	CHECK(kernel_has_nothing(&rig));
	rig_close(&rig);
}

FACT(what_failed_too_late_needs_no_second_look)
{
	struct rig rig;
	uint64_t late;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	late = asks(&rig, FUSE_MKNOD);
	gives_up(&rig, late);
	server_answers(&rig, late, -EEXIST, NULL, 0);
	late = asks(&rig, FUSE_OPEN);
	gives_up(&rig, late);
	server_answers_open(&rig, late, 0, 0);
	rig_settle(&rig);
	CHECK(kernel_has_nothing(&rig));
	rig_close(&rig);
}

FACT(eintr_comes_after_the_grace_and_not_before)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = interrupted(&rig, asks(&rig, FUSE_MKNOD));
	clock_looks(2);
	CHECK(kernel_has_nothing(&rig));
	clock_advance(GRACE - 10000);
	clock_looks(2);
	CHECK(kernel_has_nothing(&rig));
	EQUAL(rig_counters(&rig).interrupted, 0);
	clock_advance(10000);
	kernel_gets(&rig, unique, -EINTR, NULL);
	EQUAL(rig_counters(&rig).interrupted, 1);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(second_interrupt_does_not_begin_the_grace_anew)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = interrupted(&rig, asks(&rig, FUSE_MKNOD));
	clock_advance(GRACE / 2);
	interrupted(&rig, unique);
	clock_advance(GRACE / 2);
	kernel_gets(&rig, unique, -EINTR, NULL);
	interrupted(&rig, unique);
	clock_advance(GRACE);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).interrupted, 1);
	rig_close(&rig);
}

FACT(late_reply_is_dropped)
{
	struct rig rig;
	uint64_t one, two;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	one = asks(&rig, FUSE_LOOKUP);
	gives_up(&rig, one);
	two = asks(&rig, FUSE_MKNOD);
	gives_up(&rig, two);
	EQUAL(rig_counters(&rig).kept, 2);
	server_answers_entry(&rig, one, 6);
	server_answers(&rig, two, -ENOSPC, NULL, 0);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).dropped, 2);
	EQUAL(rig_counters(&rig).kept, 0);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}

FACT(id_in_a_late_open_reply_is_kept_for_a_node_without_one)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	unique = asks(&rig, FUSE_OPEN);
	gives_up(&rig, unique);
	server_answers_open(&rig, unique, 77, 0);
	rig_settle(&rig);
	EQUAL(open_natively(&rig, 5).backing_id, 77);
	kernel_forgets(&rig, 5, 1);
	EQUAL(closed_next(&rig), 77);
	rig_close(&rig);
}

FACT(id_in_a_late_open_reply_is_closed_for_a_node_with_another)
{
	struct rig rig;
	uint64_t late;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	late = asks(&rig, FUSE_OPEN);
	gives_up(&rig, late);
	EQUAL(open_node(&rig, 5, 78).backing_id, 78);
	server_answers_open(&rig, late, 77, 0);
	EQUAL(closed_next(&rig), 77);
	EQUAL(open_natively(&rig, 5).backing_id, 78);
	rig_close(&rig);
}

FACT(id_in_a_late_open_reply_is_closed_for_a_node_that_is_forgotten)
{
	struct rig rig;
	uint64_t late;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	look_up(&rig, 5);
	late = asks(&rig, FUSE_OPEN);
	gives_up(&rig, late);
	kernel_forgets(&rig, 5, 1);
	rig_settle(&rig);
	server_answers_open(&rig, late, 77, 0);
	EQUAL(closed_next(&rig), 77);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}

FACT(id_in_a_late_create_reply_is_closed_and_its_look_up_does_not_count)
{
	struct rig rig;
	uint64_t late;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	late = asks(&rig, FUSE_CREATE);
	gives_up(&rig, late);
	server_answers_create(&rig, late, 6, 77);
	is_told_to_look_again(&rig);
	EQUAL(closed_next(&rig), 77);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);

	look_up(&rig, 6);
	late = asks(&rig, FUSE_CREATE);
	gives_up(&rig, late);
	server_answers_create(&rig, late, 6, 78);
	is_told_to_look_again(&rig);
	rig_settle(&rig);
	EQUAL(open_natively(&rig, 6).backing_id, 78);
	kernel_forgets(&rig, 6, 1);
	EQUAL(closed_next(&rig), 78);
	rig_close(&rig);
}

FACT(fh_in_a_late_reply_is_no_id_without_passthrough)
{
	struct channel_settings settings = rig_settings();
	struct rig rig;
	uint64_t late;

	settings.passthrough = false;
	rig_open(&rig, &settings);
	rig_serve(&rig);
	late = asks(&rig, FUSE_OPEN);
	gives_up(&rig, late);
	server_answers_open(&rig, late, 77, 0);
	rig_settle(&rig);
	CHECK(closed_nothing(&rig));
	rig_close(&rig);
}

FACT(malformed_late_reply_is_dropped)
{
	struct fuse_out_header header = { .len = 4000 };
	struct rig rig;
	uint64_t one, two;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	one = asks(&rig, FUSE_OPEN);
	two = asks(&rig, FUSE_CREATE);
	gives_up(&rig, one);
	gives_up(&rig, two);
	header.unique = one;
	server_sends_bytes(&rig, &header, sizeof(header));
	server_answers(&rig, two, 0, "short", 5);
	is_told_to_look_again(&rig);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).kept, 0);
	rig_close(&rig);
}

FACT(request_answered_with_eintr_is_not_sent_again)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = asks(&rig, FUSE_MKNOD);
	gives_up(&rig, unique);
	rig_restart(&rig);
	is_told_to_look_again(&rig);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).resent, 0);
	EQUAL(rig_counters(&rig).kept, 0);
	rig_close(&rig);
}

FACT(statfs_answered_with_eintr_is_not_answered_again_at_the_servers_death)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = kernel_asks_statfs(&rig);
	server_answers_statfs(&rig, server_gets(&rig, FUSE_STATFS, NULL), 42);
	kernel_gets(&rig, unique, 0, NULL);
	unique = kernel_asks_statfs(&rig);
	server_gets(&rig, FUSE_STATFS, NULL);
	gives_up(&rig, unique);
	rig_restart(&rig);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).answered[FUSE_STATFS], 0);
	rig_close(&rig);
}

FACT(interrupted_without_a_server_is_eintr_after_the_grace_and_never_sent)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	server_dies(&rig);
	unique = kernel_asks(&rig, FUSE_MKNOD, 1, BODY, sizeof(BODY));
	interrupted(&rig, unique);
	clock_looks(2);
	CHECK(kernel_has_nothing(&rig));
	clock_advance(GRACE);
	kernel_gets(&rig, unique, -EINTR, NULL);
	EQUAL(rig_counters(&rig).kept, 0);
	server_attaches(&rig);
	server_answers_init(&rig, server_gets(&rig, FUSE_INIT, NULL), 0);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(mark_is_kept_over_the_servers_death)
{
	struct packet packet;
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	unique = interrupted(&rig, asks(&rig, FUSE_MKNOD));
	server_dies(&rig);
	CHECK(kernel_has_nothing(&rig));
	server_attaches(&rig);
	server_answers_init(&rig, server_gets(&rig, FUSE_INIT, NULL), 0);
	EQUAL(server_gets(&rig, FUSE_MKNOD, &packet), unique);
	EQUAL(asked(&packet)->pid, PID | SENT_AGAIN);
	clock_advance(GRACE);
	kernel_gets(&rig, unique, -EINTR, NULL);
	server_answers_entry(&rig, unique, 5);
	is_told_to_look_again(&rig);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).nodes, 0);
	rig_close(&rig);
}

FACT(interrupt_of_what_is_not_there_is_ignored)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	kernel_interrupts(&rig, 4444);
	kernel_interrupts(&rig, 0);
	rig_settle(&rig);
	kernel_interrupts(&rig, rig.unique);
	clock_advance(GRACE);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).interrupted, 0);
	EQUAL(rig_counters(&rig).received[FUSE_INTERRUPT], 3);
	rig_close(&rig);
}

FACT(interrupted_request_that_is_answered_in_time_gets_its_answer)
{
	struct rig rig;
	uint64_t one, two;
	int i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	one = interrupted(&rig, asks(&rig, FUSE_MKNOD));
	two = interrupted(&rig, asks(&rig, FUSE_MKNOD));
	server_answers_entry(&rig, one, 5);
	kernel_gets(&rig, one, 0, NULL);
	server_answers(&rig, two, -EEXIST, NULL, 0);
	kernel_gets(&rig, two, -EEXIST, NULL);
	clock_advance(GRACE);
	clock_looks(0);
	for (i = 0; i < 5; i++)
		rig_settle(&rig);
	CHECK(!clock_was_looked_at()); /* nobody else waits */
	EQUAL(rig_counters(&rig).interrupted, 0);
	EQUAL(rig_counters(&rig).nodes, 1);
	rig_close(&rig);
}

FACT(kept_init_cannot_be_interrupted)
{
	struct rig rig;
	uint64_t init;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	server_dies(&rig);
	server_attaches(&rig);
	init = server_gets(&rig, FUSE_INIT, NULL);
	interrupted(&rig, init);
	gives_up(&rig, asks(&rig, FUSE_MKNOD)); /* and nobody before it */
	server_answers_init(&rig, init, 0);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).interrupted, 1);
	rig_close(&rig);
}

FACT(no_grace_is_eintr_at_once)
{
	struct channel_settings settings = rig_settings();
	struct rig rig;
	uint64_t unique;

	settings.grace_ms = 0;
	rig_open(&rig, &settings);
	rig_serve(&rig);
	unique = asks(&rig, FUSE_MKNOD);
	kernel_interrupts(&rig, unique);
	kernel_gets(&rig, unique, -EINTR, NULL);
	rig_close(&rig);
}
