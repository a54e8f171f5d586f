/* SPDX-License-Identifier: MIT */
/*
 * Plays kernel and server to a channel, over socket pairs with hand-made messages, one fact a
 * process. It proves nothing itself. Every take is exact: what was not asked for fails the fact.
 */
#ifndef MBUFFFS_TESTS_HARNESS_H
#define MBUFFFS_TESTS_HARNESS_H

#include "channel.h"
#include "protocol.h"

/* Facts: `FACT(name) { ... }` in any file; the program proves the one that it is given by name. */

struct fact {
	const char *name;
	void (*prove)(void);
	struct fact *next;
};

void fact_add(struct fact *fact);

#define FACT(title)                                                    \
	static void title(void);                                       \
	static struct fact entry_of_##title = { #title, title, NULL }; \
	__attribute__((constructor)) static void add_##title(void)     \
	{                                                              \
		fact_add(&entry_of_##title);                           \
	}                                                              \
	static void title(void)

/* The second and third argument of the program, for facts that draw lots. */
extern uint64_t seed, rounds;

uint64_t draw(uint64_t *state, uint64_t below);

_Noreturn void fail(const char *file, int line, const char *what, long long got, long long wanted);

#define CHECK(truth) ((truth) ? (void)0 : fail(__FILE__, __LINE__, #truth, 0, 1))
#define EQUAL(got, wanted)                                                              \
	do {                                                                            \
		const long long got_ = (long long)(got), wanted_ = (long long)(wanted); \
		if (got_ != wanted_)                                                    \
			fail(__FILE__, __LINE__, #got, got_, wanted_);                  \
	} while (0)

/* Messages. */

#define PACKET_MAX 8192

struct packet {
	size_t length;
	_Alignas(8) char bytes[PACKET_MAX];
};

static inline const struct fuse_in_header *asked(const struct packet *packet)
{
	return (const void *)packet->bytes;
}

static inline const void *asked_body(const struct packet *packet)
{
	return packet->bytes + sizeof(struct fuse_in_header);
}

static inline const struct fuse_out_header *told(const struct packet *packet)
{
	return (const void *)packet->bytes;
}

static inline const void *told_body(const struct packet *packet)
{
	return packet->bytes + sizeof(struct fuse_out_header);
}

static inline size_t told_length(const struct packet *packet)
{
	return packet->length - sizeof(struct fuse_out_header);
}

/* The channel under test, and what surrounds it. */

struct rig {
	struct channel *channel;
	int kernel; /* the other end of what the channel takes for /dev/fuse */
	int device;
	int server;    /* our end of the present server's socket, -1: none */
	int closed[2]; /* backing ids that the channel has closed come out of [0] */
	uint64_t unique;
	int descriptors; /* open before there was a rig */
};

#define PATIENCE 10000 /* ms for what must come */
#define GRACE 600000   /* ms, of a clock that clock_advance() moves: never reached by waiting */
#define SENDS 3
#define PID 4711

struct channel_settings rig_settings(void);
void rig_open(struct rig *rig, const struct channel_settings *settings); /* NULL: rig_settings() */
/* With that failure, by its number, when the channel starts. */
void rig_open_failing(struct rig *rig, const struct channel_settings *settings,
		      void (*fails)(int number), int number);
/* On a descriptor of /dev/fuse, which the rig closes: the kernel plays itself. */
void rig_open_mounted(struct rig *rig, const struct channel_settings *settings, int device);
void rig_serve(struct rig *rig); /* attach a server, and INIT with all that a kernel offers */
void rig_restart(struct rig *rig);
void rig_wait(struct rig *rig, enum channel_state state);
void rig_wait_ready(struct rig *rig);
struct channel_counters rig_counters(struct rig *rig);
/* All that was sent before has been worked off, and brought nothing but what was taken already. */
void rig_settle(struct rig *rig);
/* Ends the connection, frees the channel; descriptors must be as many as before. */
void rig_close(struct rig *rig);

/* The kernel's part. */
uint64_t kernel_asks(struct rig *rig, uint32_t opcode, uint64_t node, const void *body,
		     size_t length);
void kernel_sends(struct rig *rig, uint32_t opcode, uint64_t unique, uint64_t node,
		  const void *body, size_t length);
void kernel_sends_bytes(struct rig *rig, const void *message, size_t length);
uint64_t kernel_inits(struct rig *rig, uint32_t flags, uint32_t flags2);
uint64_t kernel_asks_open(struct rig *rig, uint64_t node, uint32_t flags);
uint64_t kernel_asks_statfs(struct rig *rig);
void kernel_forgets(struct rig *rig, uint64_t node, uint64_t lookups);
void kernel_interrupts(struct rig *rig, uint64_t unique);
void kernel_takes(struct rig *rig, struct packet *packet);
/* The answer to `unique`, with this error; NULL when only that matters. */
void kernel_gets(struct rig *rig, uint64_t unique, int error, struct packet *packet);
struct open_reply kernel_gets_open(struct rig *rig, uint64_t unique);
bool kernel_has_nothing(struct rig *rig); /* now; say rig_settle() where "never" is meant */

/* The server's part. */
void server_attaches(struct rig *rig);
void server_dies(struct rig *rig);
void server_takes(struct rig *rig, struct packet *packet);
/* The next request, of this kind; its unique. NULL when only that matters. */
uint64_t server_gets(struct rig *rig, uint32_t opcode, struct packet *packet);
void server_sends_bytes(struct rig *rig, const void *message, size_t length);
void server_answers(struct rig *rig, uint64_t unique, int error, const void *body, size_t length);
void server_answers_init(struct rig *rig, uint64_t unique, uint32_t flags);
void server_answers_entry(struct rig *rig, uint64_t unique, uint64_t node);
void server_answers_open(struct rig *rig, uint64_t unique, uint64_t fh, uint32_t flags);
void server_answers_create(struct rig *rig, uint64_t unique, uint64_t node, uint64_t fh);
void server_answers_statfs(struct rig *rig, uint64_t unique, uint64_t blocks);
void server_notifies(struct rig *rig, int32_t code, const void *body, size_t length);
void server_watches(struct rig *rig, uint64_t node);
bool server_has_nothing(struct rig *rig);

/* Whole conversations. */
void look_up(struct rig *rig, uint64_t node);
struct open_reply open_node(struct rig *rig, uint64_t node, uint64_t fh); /* asks the server */
struct open_reply open_natively(struct rig *rig, uint64_t node);
struct open_reply create(struct rig *rig, uint64_t node, uint64_t fh);

int32_t closed_next(struct rig *rig); /* waits for it */
bool closed_nothing(struct rig *rig); /* now; after rig_settle(): at all */

/* One entry of a READDIRPLUS reply; where the next one goes. */
size_t directory_entry(char *buffer, size_t offset, uint64_t node, const char *name);

/* Faults, put between the channel and the C library (faults.c). All but the first hit once. */

void clock_advance(uint64_t milliseconds);
void clock_looks(int times);	/* waits until the channel has looked at the clock so often */
bool clock_was_looked_at(void); /* since the last clock_looks() */
void device_wants_not(uint64_t unique); /* writing the answer to it fails with ENOENT */
void device_fails(int error);		/* the next message is lost, and reading it fails so */
void packet_was(size_t length);		/* the server's next one, of which the channel got a part */
void sending_fails(int error);		/* to the server */
void polling_fails(int error);		/* in the channel */
void thread_fails(int number);		/* 1: the next to be started */
void allocation_fails(int number);	/* 1: the next one */
bool allocation_failed(void);		/* since the last allocation_fails(); waits for it */

#endif
