// SPDX-License-Identifier: MIT
/*
 * Rings, on real mounts: only a kernel can play this kernel. Each is in a mount namespace of its
 * own, which goes with the process.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store.h"

#define CLIENTS 600	   /* more than two processors have slots */
#define SLOTS_AT_LEAST 256 /* in use, when all these wait: those of one processor */
#define ROUNDS 100

/* As in module.c, which these programs do without. */
struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};

static struct rig rig;
static char mountpoint[PATH_MAX + 4];

static int begin_backing(void *context, int fd)
{
	struct backing_map map = { .fd = fd };
	int id = ioctl(((struct rig *)context)->device, _IOW(229, 1, struct backing_map), &map);

	return id < 0 ? -errno : id;
}

static void end_backing(void *context, int32_t id)
{
	EQUAL(ioctl(((struct rig *)context)->device, _IOW(229, 2, uint32_t), &id), 0);
}

static void mounts(uint32_t grace_ms)
{
	struct channel_settings settings = rig_settings();
	int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char options[64];
	struct packet packet;
	uint64_t unique;

	CHECK(device >= 0);
	snprintf(store.path, sizeof(store.path), "%s/XXXXXX", getenv("TMPDIR"));
	CHECK(mkdtemp(store.path));
	snprintf(mountpoint, sizeof(mountpoint), "%s/m", store.path);
	EQUAL(mkdir(mountpoint, 0755), 0);
	EQUAL(unshare(CLONE_NEWNS), 0);
	EQUAL(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
	EQUAL(mount("rings", mountpoint, "fuse", 0, options), 0);
	/* That the descriptors are as many as before is said of those of the channel. */
	store.areas = open(store.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(store.areas >= 0);
	settings.rings = true;
	settings.grace_ms = grace_ms;
	settings.areas = store.areas;
	settings.open_backing = begin_backing;
	settings.close_backing = end_backing;
	rig_open_mounted(&rig, &settings, device);
	server_attaches(&rig);
	unique = server_gets(&rig, FUSE_INIT, &packet);
	server_answers_init(&rig, unique, 0);
	rig_wait_ready(&rig);
	CHECK(channel_rings(rig.channel));
}

static void unmounts(void)
{
	char command[PATH_MAX + 16];

	umount2(mountpoint, MNT_FORCE | MNT_DETACH);
	rig_wait(&rig, CHANNEL_ENDED);
	rig_close(&rig);
	close(store.areas);
	snprintf(command, sizeof(command), "rm -r %s", store.path);
	EQUAL(system(command), 0);
}

static char *path_of(char *path, const char *kind, int number)
{
	snprintf(path, PATH_MAX + 64, "%s/%s%d", mountpoint, kind, number);
	return path;
}

/*
 * A client is a process: as a thread of this one it would keep the mount's device open, and wait
 * for ever, where the fact fails.
 */
static pid_t begins(void (*work)(int number), int number)
{
	const pid_t client = fork();

	if (client)
		return client;
	close_range(3, ~0u, 0);
	work(number);
	_exit(0);
}

static int ends(pid_t client)
{
	int status;

	EQUAL(waitpid(client, &status, 0), client);
	CHECK(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void works(int number)
{
	char path[PATH_MAX + 64];
	struct stat stat_of;
	int i, fd;

	path_of(path, "area", number);
	for (i = 0; i < ROUNDS; i++) {
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		CHECK(fd >= 0);
		EQUAL(ftruncate(fd, 4096 + i), 0);
		EQUAL(pwrite(fd, &i, sizeof(i), 4096), sizeof(i));
		EQUAL(stat(path, &stat_of), 0);
		EQUAL(stat_of.st_size, 4096 + i > 4100 ? 4096 + i : 4100);
		close(fd);
		EQUAL(unlink(path), 0);
		EQUAL(stat(path, &stat_of), -1);
		EQUAL(errno, ENOENT);
	}
}

FACT(what_the_channel_answers_comes_and_goes_by_rings)
{
	static const uint64_t limit = LIMIT, nobody = 4711;
	pid_t clients[4];
	struct channel_counters count;
	int i;

	mounts(GRACE);
	server_notifies(&rig, PRIVATE_GRANT, &limit, sizeof(limit));
	/* What answers this has taken the grant. */
	server_notifies(&rig, PRIVATE_ASK, &nobody, sizeof(nobody));
	server_hears(&rig, nobody, FORGET_DONE);
	for (i = 0; i < 4; i++)
		clients[i] = begins(works, i);
	for (i = 0; i < 4; i++)
		EQUAL(ends(clients[i]), 0);
	count = rig_counters(&rig);
	EQUAL(count.received[FUSE_CREATE], 4 * ROUNDS);
	EQUAL(count.received[FUSE_UNLINK], 4 * ROUNDS);
	CHECK(count.ringed >= 4 * ROUNDS * 4);
	EQUAL(count.malformed, 0);
	unmounts();
}

/* Look-ups of one directory wait for the server all at once. */
static void looks(int number)
{
	char path[PATH_MAX + 64];
	struct stat stat_of;

	_exit(stat(path_of(path, "area", number), &stat_of) ? errno : 0);
}

static void clients_begin(pid_t *clients)
{
	int i;

	for (i = 0; i < CLIENTS; i++)
		clients[i] = begins(looks, i);
}

/* Answers what comes, as a server that has all areas; whether it was a look-up. */
static bool serves(void)
{
	static uint64_t node = 1000;
	struct fuse_entry_out entry = { .entry_valid = 3600, .attr_valid = 3600 };
	struct packet packet;

	server_takes(&rig, &packet);
	if (asked(&packet)->opcode == FUSE_FORGET || asked(&packet)->opcode == FUSE_BATCH_FORGET)
		return false;
	if (asked(&packet)->opcode != FUSE_LOOKUP) {
		server_answers(&rig, asked(&packet)->unique, -ENOSYS, NULL, 0);
		return false;
	}
	entry.attr.mode = S_IFREG | 0644;
	entry.attr.nlink = 1;
	entry.nodeid = entry.attr.ino = ++node;
	server_answers(&rig, asked(&packet)->unique, 0, &entry, sizeof(entry));
	return true;
}

FACT(more_clients_than_slots_wait_over_servers_deaths_and_each_is_answered_once)
{
	pid_t clients[CLIENTS];
	struct packet packet;
	int answered = 0, death, i;

	mounts(GRACE);
	clients_begin(clients);
	while (rig_counters(&rig).kept < SLOTS_AT_LEAST)
		sched_yield();
	for (death = 0; death < 2; death++) {
		for (i = 0; i < 10; i++)
			answered += serves();
		server_takes(&rig, &packet);
		server_dies(&rig);
		server_attaches(&rig);
		server_answers_init(&rig, server_gets(&rig, FUSE_INIT, NULL), 0);
	}
	while (answered < CLIENTS)
		answered += serves();
	for (i = 0; i < CLIENTS; i++)
		EQUAL(ends(clients[i]), 0);
	EQUAL(rig_counters(&rig).kept, 0);
	EQUAL(rig_counters(&rig).dropped, 0);
	unmounts();
}

static void wakes(int number)
{
	(void)number;
}

/* INTERRUPT may overtake its request, or not come at all (interrupts.c). */
FACT(an_interrupted_client_is_let_go_however_early_the_signal)
{
	const struct sigaction action = { .sa_handler = wakes };
	uint64_t state = seed;
	int i;

	mounts(1);
	server_dies(&rig);
	sigaction(SIGUSR1, &action, NULL);
	for (i = 0; i < 60; i++) {
		const time_t end = time(NULL) + PATIENCE / 1000;
		const pid_t client = begins(looks, i);
		int status;

		while (!waitpid(client, &status, WNOHANG)) {
			const struct timespec pause = { .tv_nsec = (long)draw(&state, 100000) };

			CHECK(time(NULL) <= end);
			nanosleep(&pause, NULL);
			kill(client, SIGUSR1);
		}
		EQUAL(status, EINTR << 8);
	}
	EQUAL(rig_counters(&rig).kept, 0);
	unmounts();
}

FACT(unmounting_by_force_lets_all_go_who_wait)
{
	pid_t clients[CLIENTS];
	int i, error;

	mounts(GRACE);
	server_dies(&rig);
	clients_begin(clients);
	while (rig_counters(&rig).kept < SLOTS_AT_LEAST)
		sched_yield();
	EQUAL(umount2(mountpoint, MNT_FORCE), -1);
	EQUAL(errno, EBUSY);
	rig_wait(&rig, CHANNEL_ENDED);
	for (i = 0; i < CLIENTS; i++) {
		error = ends(clients[i]);
		CHECK(error == ECONNABORTED || error == ENOTCONN);
	}
	unmounts();
}

static const struct init_request offers = { 7, 45, 128 << 10, INIT_EXTENDED,
					    INIT2_PASSTHROUGH | INIT2_OVER_IO_URING };

/* Played by a socket, which takes no such commands. */
FACT(a_kernel_that_offers_rings_and_refuses_them_is_the_end_and_not_a_hang)
{
	struct channel_settings settings = rig_settings();
	struct packet packet;
	uint64_t unique;

	settings.rings = true;
	rig_open(&rig, &settings);
	unique = kernel_asks(&rig, FUSE_INIT, 0, &offers, sizeof(offers));
	server_attaches(&rig);
	EQUAL(server_gets(&rig, FUSE_INIT, NULL), unique);
	server_answers_init(&rig, unique, 0);
	kernel_gets(&rig, unique, 0, &packet);
	EQUAL(((const struct init_reply *)told_body(&packet))->flags2,
	      INIT2_PASSTHROUGH | INIT2_OVER_IO_URING);
	rig_wait(&rig, CHANNEL_ENDED);
	CHECK(channel_error(rig.channel) > 0);
	rig_close(&rig);
}

FACT(rings_are_asked_for_only_where_they_are_offered_by_a_kernel_that_has_been_tried)
{
	struct init_request in = offers;
	int lacking;

	for (lacking = 0; lacking < 4; lacking++) {
		struct channel_settings settings = rig_settings();
		struct packet packet;
		uint64_t unique;

		in = offers;
		in.minor -= lacking == 0;
		in.flags2 -= lacking == 1 ? INIT2_OVER_IO_URING : 0;
		in.flags2 -= lacking == 2 ? INIT2_PASSTHROUGH : 0;
		settings.rings = lacking != 3;
		rig_open(&rig, &settings);
		unique = kernel_asks(&rig, FUSE_INIT, 0, &in, sizeof(in));
		server_attaches(&rig);
		EQUAL(server_gets(&rig, FUSE_INIT, NULL), unique);
		server_answers_init(&rig, unique, 0);
		kernel_gets(&rig, unique, 0, &packet);
		EQUAL(((const struct init_reply *)told_body(&packet))->flags2 & INIT2_OVER_IO_URING,
		      0);
		rig_wait_ready(&rig);
		CHECK(!channel_rings(rig.channel));
		EQUAL(channel_error(rig.channel), 0);
		rig_close(&rig);
	}
}

static bool has_rings_where(void (*fails)(int number), int number)
{
	struct channel_settings settings = rig_settings();
	struct packet packet;
	uint64_t unique;

	settings.rings = true;
	rig_open_failing(&rig, &settings, fails, number);
	unique = kernel_asks(&rig, FUSE_INIT, 0, &offers, sizeof(offers));
	server_attaches(&rig);
	EQUAL(server_gets(&rig, FUSE_INIT, NULL), unique);
	server_answers_init(&rig, unique, 0);
	kernel_gets(&rig, unique, 0, &packet);
	fails(0);
	if (((const struct init_reply *)told_body(&packet))->flags2 & INIT2_OVER_IO_URING) {
		rig_wait(&rig, CHANNEL_ENDED);
		rig_close(&rig);
		return true;
	}
	rig_settle(&rig);
	rig_close(&rig);
	return false;
}

FACT(rings_that_cannot_be_had_leave_nothing_and_the_device_serves)
{
	int number;

	/* A thread for each processor, before the three that every channel has. */
	CHECK(!has_rings_where(thread_fails, 1));
	/* What they live on, before the first request. */
	for (number = 1; number <= 3; number++)
		CHECK(!has_rings_where(allocation_fails, number));
	CHECK(has_rings_where(thread_fails, 0));
}
