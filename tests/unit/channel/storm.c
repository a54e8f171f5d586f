// SPDX-License-Identifier: MIT
/*
 * Many clients at once under servers that die: a model of the kernel that checks each backing id.
 *
 * The model has the kernel's order: look-ups and opens count when a reply is taken, a node is
 * forgotten only when nobody holds it, and with as many look-ups as were taken.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

#define NODES 6
#define CLIENTS 4
#define IDS 200000

struct client {
	pthread_t thread;
	struct storm *storm;
	uint64_t lots;
	uint64_t unique; /* of what it waits for, 0: nothing */
	uint32_t opcode;
	int error;
	int32_t backing;
	pthread_cond_t answered;
};

struct storm {
	struct rig rig;	      /* first: its address is what on_close() gets */
	pthread_mutex_t lock; /* of all below */
	pthread_cond_t closing;
	struct {
		uint64_t lookups;
		int holders, opens;
		int32_t backing; /* while it is open */
	} nodes[NODES + 1];
	struct client clients[CLIENTS];
	uint64_t unique;
	bool closed[IDS];
	uint32_t closes, registered;
	int over[2]; /* a pipe: readable when the servers are to stop */
	unsigned deaths, interrupts;
};

static void on_close(void *context, int32_t id)
{
	struct storm *storm = context;
	int node;

	CHECK(id > 0 && id < IDS);
	pthread_mutex_lock(&storm->lock);
	CHECK(!storm->closed[id]);
	storm->closed[id] = true;
	storm->closes++;
	pthread_cond_signal(&storm->closing);
	for (node = 1; node <= NODES; node++)
		CHECK(!storm->nodes[node].opens || storm->nodes[node].backing != id);
	pthread_mutex_unlock(&storm->lock);
}

/* The kernel takes a reply. L */
static void take_reply(struct storm *storm, struct client *client, const struct packet *packet)
{
	const struct create_reply *create = told_body(packet);
	const struct open_reply *open = told_body(packet);
	uint64_t node = 0;
	int i;

	client->error = told(packet)->error;
	client->unique = 0;
	pthread_cond_signal(&client->answered);
	if (client->error)
		return;
	if (client->opcode == FUSE_READDIRPLUS) {
		for (i = 1; i <= NODES; i++)
			storm->nodes[i].lookups++;
		return;
	}
	if (client->opcode == FUSE_LOOKUP || client->opcode == FUSE_CREATE) {
		node = create->entry.nodeid;
		storm->nodes[node].lookups++;
		storm->nodes[node].holders++;
		open = &create->open;
	}
	if (client->opcode == FUSE_OPEN || client->opcode == FUSE_CREATE) {
		node = open->fh;
		EQUAL(open->open_flags, OPEN_PASSTHROUGH | OPEN_NOFLUSH);
		CHECK(!storm->closed[open->backing_id]);
		if (storm->nodes[node].opens)
			EQUAL(open->backing_id, storm->nodes[node].backing);
		storm->nodes[node].backing = open->backing_id;
		storm->nodes[node].opens++;
	}
}

static void *kernel_reads(void *argument)
{
	struct storm *storm = argument;
	struct packet packet;

	for (;;) {
		ssize_t length = recv(storm->rig.kernel, packet.bytes, PACKET_MAX, 0);
		int i;

		if (length <= 0)
			return NULL;
		packet.length = (size_t)length;
		if (!told(&packet)->unique)
			continue;
		pthread_mutex_lock(&storm->lock);
		for (i = 0; i < CLIENTS; i++) {
			if (storm->clients[i].unique == told(&packet)->unique)
				break;
		}
		CHECK(i < CLIENTS); /* an answer that nobody waits for, or a second one */
		take_reply(storm, &storm->clients[i], &packet);
		pthread_mutex_unlock(&storm->lock);
	}
}

static int client_asks(struct client *client, uint32_t opcode, uint64_t node, const void *body,
		       size_t length)
{
	struct storm *storm = client->storm;
	uint64_t unique;
	int error;

	pthread_mutex_lock(&storm->lock);
	unique = client->unique = storm->unique += 2;
	client->opcode = opcode;
	pthread_mutex_unlock(&storm->lock);
	kernel_sends(&storm->rig, opcode, unique, node, body, length);
	if (!draw(&client->lots, 4))
		kernel_interrupts(&storm->rig, unique);
	clock_advance(1);
	pthread_mutex_lock(&storm->lock);
	while (client->unique)
		pthread_cond_wait(&client->answered, &storm->lock);
	error = client->error;
	storm->interrupts += error == -EINTR;
	pthread_mutex_unlock(&storm->lock);
	CHECK(error == 0 || error == -EINTR);
	return error;
}

static void release(struct client *client, uint64_t node)
{
	pthread_mutex_lock(&client->storm->lock);
	client->storm->nodes[node].opens--;
	pthread_mutex_unlock(&client->storm->lock);
	client_asks(client, FUSE_RELEASE, node, NULL, 0);
}

/* Gives up `held` holds of a node; the last one may let the kernel forget it. */
static void let_go(struct storm *storm, uint64_t node, int held, bool forget)
{
	struct fuse_forget_in in = { 0 };

	pthread_mutex_lock(&storm->lock);
	storm->nodes[node].holders -= held;
	if (!storm->nodes[node].holders && forget && storm->nodes[node].lookups) {
		in.nlookup = storm->nodes[node].lookups;
		storm->nodes[node].lookups = 0;
		kernel_sends(&storm->rig, FUSE_FORGET, storm->unique += 2, node, &in, sizeof(in));
	}
	pthread_mutex_unlock(&storm->lock);
}

static void *client_runs(void *argument)
{
	struct client *client = argument;
	uint64_t round;

	for (round = 0; round < rounds; round++) {
		const uint64_t node = 1 + draw(&client->lots, NODES);
		struct fuse_open_in in = { .flags = draw(&client->lots, 4) ? 0 : O_TRUNC };

		if (!draw(&client->lots, 8))
			client_asks(client, FUSE_READDIRPLUS, 1, NULL, 0);
		if (!draw(&client->lots, 3)) {
			if (client_asks(client, FUSE_CREATE, node, NULL, 0))
				continue;
			release(client, node);
		} else if (client_asks(client, FUSE_LOOKUP, node, NULL, 0)) {
			continue;
		}
		if (!client_asks(client, FUSE_OPEN, node, &in, sizeof(in)))
			release(client, node);
		let_go(client->storm, node, 1, draw(&client->lots, 2));
	}
	return NULL;
}

static uint64_t fresh_id(struct storm *storm)
{
	uint64_t id;

	pthread_mutex_lock(&storm->lock);
	id = ++storm->registered;
	pthread_mutex_unlock(&storm->lock);
	return id;
}

/* Answers one request; the node asked for stands in its header. */
static void serve(struct storm *storm, const struct packet *packet, uint64_t *lots)
{
	struct rig *rig = &storm->rig;
	const uint64_t unique = asked(packet)->unique, node = asked(packet)->nodeid;
	_Alignas(8) char body[4096];
	size_t length = 0;
	int i;

	switch (asked(packet)->opcode) {
	case FUSE_INIT:
		server_answers_init(rig, unique, 0);
		break;
	case FUSE_LOOKUP:
		server_answers_entry(rig, unique, node);
		break;
	case FUSE_OPEN:
		server_answers_open(rig, unique, fresh_id(storm), 0);
		break;
	case FUSE_CREATE:
		server_answers_create(rig, unique, node, fresh_id(storm));
		break;
	case FUSE_READDIRPLUS:
		for (i = 1; i <= NODES; i++)
			length = directory_entry(body, length, (uint64_t)i, "name");
		server_answers(rig, unique, 0, body, length);
		break;
	case FUSE_BATCH_FORGET:
		break;
	default:
		fail(__FILE__, __LINE__, "opcode", asked(packet)->opcode, 0);
	}
	if (!draw(lots, 8))
		server_watches(rig, 1 + draw(lots, NODES));
}

/* One server: answers `life` requests, some of them late, and dies over one; false: it is over. */
static bool server_runs(struct storm *storm, int fd, uint64_t life, uint64_t *lots)
{
	struct pollfd polled[2] = { { .fd = fd, .events = POLLIN },
				    { .fd = storm->over[0], .events = POLLIN } };
	struct packet packet, late = { 0 };
	int since = 0;

	while (life--) {
		ssize_t length;

		if (late.length && (since++ > 30 || poll(polled, 2, 10) == 0)) {
			serve(storm, &late, lots);
			late.length = 0;
		}
		CHECK(poll(polled, 2, -1) > 0);
		if (polled[1].revents)
			return false;
		length = recv(fd, packet.bytes, PACKET_MAX, 0);
		CHECK(length > 0);
		packet.length = (size_t)length;
		if (!late.length && !draw(lots, 32)) {
			late = packet;
			since = 0;
		} else if (life || draw(lots, 2)) {
			serve(storm, &packet, lots);
		}
	}
	return true;
}

static void *servers_run(void *argument)
{
	struct storm *storm = argument;
	uint64_t lots = seed ^ 0x5e7;
	bool again;

	do {
		server_attaches(&storm->rig);
		again = server_runs(storm, storm->rig.server, 20 + draw(&lots, 400), &lots);
		server_dies(&storm->rig);
		storm->deaths++;
	} while (again);
	return NULL;
}

FACT(storm_of_clients_under_dying_servers_never_meets_a_closed_id)
{
	static struct storm storm;
	struct channel_settings settings = rig_settings();
	pthread_t kernel, servers;
	struct timespec end;
	uint64_t node;
	int i;

	rounds = rounds ? rounds : 1000;
	pthread_mutex_init(&storm.lock, NULL);
	pthread_cond_init(&storm.closing, NULL);
	settings.grace_ms = 5;
	settings.deaths_max = UINT32_MAX;
	settings.close_backing = on_close;
	rig_open(&storm.rig, &settings);
	EQUAL(pipe(storm.over), 0);
	rig_serve(&storm.rig);
	storm.unique = storm.rig.unique;
	server_dies(&storm.rig);
	pthread_create(&kernel, NULL, kernel_reads, &storm);
	pthread_create(&servers, NULL, servers_run, &storm);
	for (i = 0; i < CLIENTS; i++) {
		storm.clients[i].storm = &storm;
		storm.clients[i].lots = seed * CLIENTS + (uint64_t)i;
		pthread_cond_init(&storm.clients[i].answered, NULL);
		pthread_create(&storm.clients[i].thread, NULL, client_runs, &storm.clients[i]);
	}
	for (i = 0; i < CLIENTS; i++)
		pthread_join(storm.clients[i].thread, NULL);

	/* With all forgotten, each id that a server has told is closed. */
	for (node = 1; node <= NODES; node++)
		let_go(&storm, node, 0, true);
	client_asks(&storm.clients[0], FUSE_RELEASE, 1, NULL, 0);
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 10;
	pthread_mutex_lock(&storm.lock);
	while (storm.registered != storm.closes)
		EQUAL(pthread_cond_timedwait(&storm.closing, &storm.lock, &end), 0);
	pthread_mutex_unlock(&storm.lock);
	EQUAL(rig_counters(&storm.rig).nodes, 0);
	EQUAL(rig_counters(&storm.rig).backing, 0);
	CHECK(storm.interrupts);
	EQUAL(write(storm.over[1], "x", 1), 1);
	pthread_join(servers, NULL);
	CHECK(storm.deaths > 3);
	shutdown(storm.rig.kernel, SHUT_RDWR);
	pthread_join(kernel, NULL);
	close(storm.over[0]);
	close(storm.over[1]);
	rig_close(&storm.rig);
}
