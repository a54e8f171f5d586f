// SPDX-License-Identifier: MIT
/* INIT: what the channel adds to a reply, and how one INIT serves many servers. */
#include <string.h>

#include "harness.h"

static struct init_reply negotiate(struct rig *rig, uint64_t unique, uint32_t server_flags)
{
	struct init_reply out;
	struct packet packet;

	server_attaches(rig);
	EQUAL(server_gets(rig, FUSE_INIT, NULL), unique);
	CHECK(!channel_ready(rig->channel));
	server_answers_init(rig, unique, server_flags);
	kernel_gets(rig, unique, 0, &packet);
	EQUAL(told_length(&packet), sizeof(out));
	memcpy(&out, told_body(&packet), sizeof(out));
	rig_wait_ready(rig);
	return out;
}

static const uint32_t added = INIT_PARALLEL_DIROPS | INIT_CACHE_SYMLINKS | INIT_HANDLE_KILLPRIV_V2 |
			      INIT_EXPLICIT_INVAL_DATA;

FACT(init_reply_gets_passthrough_and_what_else_is_offered)
{
	struct init_reply out;
	struct rig rig;

	rig_open(&rig, NULL);
	out = negotiate(&rig, kernel_inits(&rig, ~0u, ~0u), 1 /* ASYNC_READ */);
	EQUAL(out.flags, added | INIT_EXTENDED | 1);
	EQUAL(out.flags2, INIT2_PASSTHROUGH);
	EQUAL(out.max_stack_depth, 1);
	EQUAL(out.max_write, 131072);
	CHECK(channel_passthrough(rig.channel));
	rig_close(&rig);
}

FACT(init_reply_gets_each_flag_only_if_the_kernel_offers_it)
{
	uint32_t bit;

	for (bit = 1; bit; bit <<= 1) {
		struct rig rig;

		if (!(bit & added))
			continue;
		rig_open(&rig, NULL);
		EQUAL(negotiate(&rig, kernel_inits(&rig, ~bit, ~0u), 0).flags & added,
		      added & ~bit);
		rig_close(&rig);
	}
}

FACT(init_reply_of_a_kernel_that_offers_nothing_stays_as_it_is)
{
	struct init_reply out;
	struct rig rig;

	rig_open(&rig, NULL);
	out = negotiate(&rig, kernel_inits(&rig, 0, 0), 1);
	EQUAL(out.flags, 1);
	EQUAL(out.flags2, 0);
	EQUAL(out.max_stack_depth, 0);
	CHECK(!channel_passthrough(rig.channel));
	rig_close(&rig);
}

static void without_passthrough(bool wanted, uint32_t flags, uint32_t flags2)
{
	struct channel_settings settings = rig_settings();
	struct init_reply out;
	struct rig rig;

	settings.passthrough = wanted;
	rig_open(&rig, &settings);
	out = negotiate(&rig, kernel_inits(&rig, flags, flags2), 0);
	EQUAL(out.flags2, 0);
	EQUAL(out.max_stack_depth, 0);
	EQUAL(out.flags & INIT_EXTENDED, 0);
	CHECK(!channel_passthrough(rig.channel));
	rig_close(&rig);
}

FACT(passthrough_stays_off_where_it_is_not_offered)
{
	without_passthrough(true, ~0u, ~INIT2_PASSTHROUGH);
}

FACT(passthrough_stays_off_where_it_is_not_wanted)
{
	without_passthrough(false, ~0u, ~0u);
}

FACT(passthrough_stays_off_where_the_second_flags_mean_nothing)
{
	without_passthrough(true, ~INIT_EXTENDED, ~0u);
}

FACT(init_of_an_old_kernel_without_second_flags_is_served)
{
	const struct init_request in = { .major = 7, .minor = 31, .flags = ~0u };
	struct init_reply out;
	struct rig rig;

	rig_open(&rig, NULL);
	out = negotiate(&rig, kernel_asks(&rig, FUSE_INIT, 0, &in, 16), 0);
	EQUAL(out.flags, added);
	EQUAL(out.flags2, 0);
	rig_close(&rig);
}

FACT(max_pages_and_auto_inval_are_in_neither_init)
{
	const struct init_request *in;
	struct packet packet;
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	server_attaches(&rig);
	unique = kernel_inits(&rig, ~0u, 0);
	EQUAL(server_gets(&rig, FUSE_INIT, &packet), unique);
	in = asked_body(&packet);
	EQUAL(in->flags, (uint32_t)~INIT_MAX_PAGES);
	server_answers_init(&rig, unique, INIT_MAX_PAGES | INIT_AUTO_INVAL_DATA);
	kernel_gets(&rig, unique, 0, &packet);
	EQUAL(((const struct init_reply *)told_body(&packet))->flags, added);
	rig_close(&rig);
}

FACT(second_server_gets_the_kept_init_and_its_reply_is_swallowed)
{
	const struct init_request in = { 7, 41, 128 << 10, (uint32_t)~INIT_MAX_PAGES, ~0u };
	struct packet packet;
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	unique = kernel_inits(&rig, ~0u, ~0u);
	negotiate(&rig, unique, 0);
	server_dies(&rig);
	rig_wait_ready(&rig);
	server_attaches(&rig);
	EQUAL(server_gets(&rig, FUSE_INIT, &packet), unique);
	EQUAL(packet.length, sizeof(struct fuse_in_header) + sizeof(in));
	EQUAL(((const struct init_request *)asked_body(&packet))->flags, in.flags);
	EQUAL(((const struct init_request *)asked_body(&packet))->flags2, in.flags2);
	EQUAL(asked(&packet)->pid, PID);
	server_answers_init(&rig, unique, 0);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).kept, 0);
	rig_close(&rig);
}

FACT(bad_reply_to_the_kept_init_is_swallowed_too)
{
	struct fuse_out_header header = { .len = 999, .error = -5 };
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	server_dies(&rig);
	server_attaches(&rig);
	header.unique = server_gets(&rig, FUSE_INIT, NULL);
	server_sends_bytes(&rig, &header, sizeof(header));
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).malformed, 1);
	EQUAL(rig_counters(&rig).kept, 0);

	server_dies(&rig);
	server_attaches(&rig);
	server_answers(&rig, server_gets(&rig, FUSE_INIT, NULL), -71, NULL, 0);
	rig_settle(&rig);
	rig_wait_ready(&rig);
	rig_close(&rig);
}

FACT(init_unanswered_at_death_is_answered_by_the_next_server)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	unique = kernel_inits(&rig, ~0u, ~0u);
	server_attaches(&rig);
	EQUAL(server_gets(&rig, FUSE_INIT, NULL), unique);
	server_dies(&rig);
	EQUAL(negotiate(&rig, unique, 0).flags2, INIT2_PASSTHROUGH);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(short_init_reply_is_eio_and_not_ready)
{
	static const struct init_reply out;
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	unique = kernel_inits(&rig, ~0u, ~0u);
	server_attaches(&rig);
	EQUAL(server_gets(&rig, FUSE_INIT, NULL), unique);
	server_answers(&rig, unique, 0, &out, sizeof(out) - 4);
	kernel_gets(&rig, unique, -5, NULL);
	CHECK(!channel_ready(rig.channel));
	CHECK(!channel_passthrough(rig.channel));
	rig_close(&rig);
}

FACT(init_refused_by_the_server_is_refused_and_not_ready)
{
	struct rig rig;
	uint64_t unique;

	rig_open(&rig, NULL);
	unique = kernel_inits(&rig, ~0u, ~0u);
	server_attaches(&rig);
	EQUAL(server_gets(&rig, FUSE_INIT, NULL), unique);
	server_answers(&rig, unique, -71, NULL, 0);
	kernel_gets(&rig, unique, -71, NULL);
	CHECK(!channel_ready(rig.channel));
	rig_close(&rig);
}

FACT(server_that_dies_over_the_kept_init_leaves_one_for_the_next)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	server_dies(&rig);
	server_attaches(&rig);
	server_gets(&rig, FUSE_INIT, NULL);
	EQUAL(rig_counters(&rig).kept, 1);
	rig_restart(&rig);
	rig_settle(&rig);
	EQUAL(rig_counters(&rig).kept, 0);
	rig_close(&rig);
}
