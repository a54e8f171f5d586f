// SPDX-License-Identifier: MIT
/* The program that proves one fact, and the channel that it is proved on. */
#include "harness.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct fact *facts;
uint64_t seed = 1, rounds;

void fact_add(struct fact *fact)
{
	fact->next = facts;
	facts = fact;
}

void fail(const char *file, int line, const char *what, long long got, long long wanted)
{
	fprintf(stderr, "%s:%d: %s: %lld, not %lld\n", file, line, what, got, wanted);
	_exit(1);
}

uint64_t draw(uint64_t *state, uint64_t below)
{
	/* splitmix64: any seed will do, neighbours too. */
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (z ^ z >> 31) % below;
}

static int count_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int count = 0;

	CHECK(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static void note_closed(void *context, int32_t id)
{
	const struct rig *rig = context;

	EQUAL(write(rig->closed[1], &id, sizeof(id)), sizeof(id));
}

/* The rig. */

struct channel_settings rig_settings(void)
{
	return (struct channel_settings){
		.passthrough = true,
		.grace_ms = GRACE,
		.keep_limit = 16 << 20,
		.deaths_max = SENDS,
		.close_backing = note_closed,
	};
}

static void rig_start(struct rig *rig, const struct channel_settings *given,
		      void (*fails)(int number), int number)
{
	struct channel_settings settings = *given;

	EQUAL(pipe(rig->closed), 0);
	settings.device = rig->device;
	settings.context = rig;
	rig->channel = channel_new(&settings);
	CHECK(rig->channel);
	if (fails)
		fails(number);
	EQUAL(channel_start(rig->channel), 0);
}

void rig_open_failing(struct rig *rig, const struct channel_settings *settings,
		      void (*fails)(int number), int number)
{
	int pair[2];

	*rig = (struct rig){ .server = -1, .descriptors = count_descriptors() };
	EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	rig->kernel = pair[0];
	rig->device = pair[1];
	rig_start(rig, settings, fails, number);
}

void rig_open(struct rig *rig, const struct channel_settings *changed)
{
	const struct channel_settings settings = changed ? *changed : rig_settings();

	rig_open_failing(rig, &settings, NULL, 0);
}

void rig_open_mounted(struct rig *rig, const struct channel_settings *settings, int device)
{
	/* The device was opened already. */
	*rig = (struct rig){
		.server = -1, .kernel = -1, .device = device, .descriptors = count_descriptors() - 1
	};
	rig_start(rig, settings, NULL, 0);
}

void rig_serve(struct rig *rig)
{
	uint64_t unique = kernel_inits(rig, INIT_EXTENDED, INIT2_PASSTHROUGH);

	server_attaches(rig);
	EQUAL(server_gets(rig, FUSE_INIT, NULL), unique);
	server_answers_init(rig, unique, 0);
	kernel_gets(rig, unique, 0, NULL);
}

void rig_restart(struct rig *rig)
{
	server_dies(rig);
	server_attaches(rig);
	server_answers_init(rig, server_gets(rig, FUSE_INIT, NULL), 0);
}

static void wait_change(struct rig *rig)
{
	struct pollfd polled = { .fd = channel_event(rig->channel), .events = POLLIN };
	uint64_t changes;

	EQUAL(poll(&polled, 1, PATIENCE), 1);
	EQUAL(read(channel_event(rig->channel), &changes, sizeof(changes)), sizeof(changes));
}

void rig_wait(struct rig *rig, enum channel_state state)
{
	while (channel_state(rig->channel) != state)
		wait_change(rig);
}

/* A little after the kernel has its answer to INIT. */
void rig_wait_ready(struct rig *rig)
{
	while (!channel_ready(rig->channel))
		wait_change(rig);
}

struct channel_counters rig_counters(struct rig *rig)
{
	struct channel_counters counters;

	channel_counters(rig->channel, &counters);
	return counters;
}

void rig_settle(struct rig *rig)
{
	static const struct fuse_notify_inval_inode_out marker = { .ino = 0x5e771e };
	struct packet packet;
	uint64_t unique;

	unique = kernel_asks(rig, rig->server < 0 ? FUSE_OPENDIR : FUSE_GETATTR, marker.ino,
			     &marker, sizeof(marker));
	if (rig->server >= 0) {
		EQUAL(server_gets(rig, FUSE_GETATTR, NULL), unique);
		server_answers(rig, unique, 0, NULL, 0);
	}
	kernel_gets(rig, unique, 0, NULL);
	if (rig->server < 0)
		return;
	server_notifies(rig, NOTIFY_INVAL_INODE, &marker, sizeof(marker));
	kernel_gets(rig, 0, NOTIFY_INVAL_INODE, &packet);
	EQUAL(memcmp(told_body(&packet), &marker, sizeof(marker)), 0);
}

void rig_close(struct rig *rig)
{
	/* Unlike the kernel's device, a socket at its end would kill who writes to it. */
	signal(SIGPIPE, SIG_IGN);
	if (rig->kernel >= 0)
		close(rig->kernel);
	channel_free(rig->channel);
	close(rig->device);
	close(rig->closed[0]);
	close(rig->closed[1]);
	if (rig->server >= 0)
		close(rig->server);
	EQUAL(count_descriptors(), rig->descriptors);
}

int main(int argc, char **argv)
{
	struct fact *fact;

	if (argc < 2 || argc > 4) {
		fprintf(stderr, "usage: %s --list | FACT [SEED [ROUNDS]]\n", argv[0]);
		return 2;
	}
	if (argc > 2)
		seed = strtoull(argv[2], NULL, 10);
	if (argc > 3)
		rounds = strtoull(argv[3], NULL, 10);
	for (fact = facts; fact; fact = fact->next) {
		if (strcmp(argv[1], "--list") == 0) {
			puts(fact->name);
		} else if (strcmp(argv[1], fact->name) == 0) {
			fact->prove();
			return 0;
		}
	}
	return strcmp(argv[1], "--list") == 0 ? 0 : 2;
}
