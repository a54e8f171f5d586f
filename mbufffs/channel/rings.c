// SPDX-License-Identifier: MIT
/* The rings (rings.h says what they are for). One thread has each, and nobody else touches it. */
#define _GNU_SOURCE
#include "rings.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

/*
 * Requests of one processor's clients that can be at work at once, here or at the server; more wait
 * in the kernel.
 */
#define SLOTS 256
#define ENTRIES 512 /* of a ring: each slot's command, and the wait for `wake` */
#define WAKE SLOTS  /* user_data of that wait */
#define BACK_WITHIN_MS 1000
#define LINGER_US 50 /* measured, as the next: docs/performance.md */
#define KEPT_US 30   /* at 100 open takes 43 to 140 us beside busy programs, not 18 */
#define PAGES 32     /* of a message: what edit.c leaves of INIT */

/* linux/io_uring.h as far as it is used, so that it compiles where there is none of 6.x. */
enum {
	OP_POLL_ADD = 6,
	OP_URING_CMD = 46,
	SETUP_SUBMIT_ALL = 1u << 7,
	SETUP_SQE128 = 1u << 10,
	SETUP_SINGLE_ISSUER = 1u << 12,
	SETUP_DEFER_TASKRUN = 1u << 13,
	ENTER_GETEVENTS = 1u << 0,
	ENTER_NO_IOWAIT = 1u << 7, /* an idle mount is no processor that waits for a disk */
	FEATURE_SINGLE_MMAP = 1u << 0,
	FEATURE_NO_IOWAIT = 1u << 17,
};

#define OFFSET_RINGS 0
#define OFFSET_COMMANDS 0x10000000

struct ring_parameters {
	uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd;
	uint32_t unused[3];
	struct {
		uint32_t head, tail, mask, entries, flags, dropped, array, unused;
		uint64_t address;
	} sq;
	struct {
		uint32_t head, tail, mask, entries, overflow, cqes, flags, unused;
		uint64_t address;
	} cq;
};

/* struct io_uring_sqe of 128 bytes, with fuse_uring_cmd_req at its end. */
struct command {
	uint8_t opcode, flags;
	uint16_t priority;
	int32_t fd;
	uint32_t operation, unused1;
	uint64_t address;
	uint32_t length, events;
	uint64_t user_data;
	uint32_t unused2[2];
	uint64_t fuse_flags, commit;
	uint16_t queue;
	uint8_t unused3[62];
};

struct completion {
	uint64_t user_data;
	int32_t result;
	uint32_t flags;
};

enum {
	FUSE_REGISTER = 1,
	FUSE_COMMIT_AND_FETCH = 2,
};

/* struct fuse_uring_req_header: fuse_in_header or fuse_out_header, the operation's own, and this.
 */
struct ring_message {
	char header[128], operation[128];
	uint64_t flags, commit;
	uint32_t payload_size, unused;
	uint64_t reserved;
};

_Static_assert(sizeof(struct ring_parameters) == 120, "io_uring_params");
_Static_assert(sizeof(struct command) == 128, "io_uring_sqe");
_Static_assert(sizeof(struct completion) == 16, "io_uring_cqe");
_Static_assert(sizeof(struct ring_message) == 288, "fuse_uring_req_header");

/* What carries one request here and its reply back; the kernel's while it waits for one. */
struct slot {
	struct entry entry; /* by unique, while the request is here */
	struct queue *queue;
	struct slot *after; /* answered by another thread than the queue's */
	struct ring_message *message;
	struct iovec parts[2]; /* that, and the payload */
};

struct queue {
	struct rings *rings;
	unsigned number; /* of its processor */
	pthread_t thread;
	bool started;
	int ring, wake;
	uint32_t *sq_tail, *cq_head, *cq_tail, cq_mask, sq_mask, wait_flags;
	const struct completion *completions;
	struct command *commands;
	void *ring_memory, *command_memory, *slot_memory;
	size_t ring_size, command_size, slot_size;
	uint32_t unsubmitted;
	uint32_t given; /* slots that the kernel has */
	struct lingering lingering;
	char *message;		    /* a request in one piece, as the device gives them */
	struct slot *answered_ones; /* by others, under rings.lock */
	struct slot slots[SLOTS];
};

struct rings {
	struct channel *channel;
	unsigned count;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct table waiting; /* slots whose request is here, by unique */
	unsigned waits;	      /* threads that are ready to begin */
	bool begun, ended;
	cpu_set_t allowed; /* what the keeper may run on */
	struct queue queues[];
};

size_t rings_payload(void)
{
	return PAGES * (size_t)sysconf(_SC_PAGESIZE);
}

static int enter(struct queue *queue, uint32_t wait)
{
	const int taken = (int)syscall(SYS_io_uring_enter, queue->ring, queue->unsubmitted, wait,
				       queue->wait_flags, NULL, 0);

	if (taken >= 0)
		queue->unsubmitted -= (uint32_t)taken;
	return taken < 0 && errno != EINTR ? -errno : 0;
}

static void push(struct queue *queue, const struct command *command)
{
	const uint32_t tail = *queue->sq_tail;

	queue->commands[tail & queue->sq_mask] = *command;
	__atomic_store_n(queue->sq_tail, tail + 1, __ATOMIC_RELEASE);
	queue->unsubmitted++;
}

static void push_wake(struct queue *queue)
{
	const struct command command = {
		.opcode = OP_POLL_ADD,
		.fd = queue->wake,
		.events = POLLIN,
		.user_data = WAKE,
	};

	push(queue, &command);
}

static void push_slot(struct queue *queue, struct slot *slot, uint32_t operation)
{
	const struct command command = {
		.opcode = OP_URING_CMD,
		.fd = queue->rings->channel->set.device,
		.operation = operation,
		.address = operation == FUSE_REGISTER ? (uintptr_t)slot->parts : 0,
		.length = operation == FUSE_REGISTER ? 2 : 0,
		.user_data = (uint64_t)(slot - queue->slots),
		.commit = slot->message->commit,
		.queue = (uint16_t)queue->number,
	};

	push(queue, &command);
	queue->given++;
}

/* Setting up. */

static bool map(struct queue *queue, const struct ring_parameters *parameters)
{
	const int rights = PROT_READ | PROT_WRITE, kind = MAP_SHARED | MAP_POPULATE;
	const size_t sq = parameters->sq.array + parameters->sq_entries * sizeof(uint32_t);
	const size_t cq = parameters->cq.cqes + parameters->cq_entries * sizeof(struct completion);
	char *memory;
	uint32_t i;

	queue->ring_size = sq > cq ? sq : cq;
	queue->command_size = parameters->sq_entries * sizeof(struct command);
	memory = mmap(NULL, queue->ring_size, rights, kind, queue->ring, OFFSET_RINGS);
	if (memory == MAP_FAILED)
		return false;
	queue->ring_memory = memory;
	queue->sq_tail = (void *)(memory + parameters->sq.tail);
	queue->sq_mask = *(uint32_t *)(memory + parameters->sq.mask);
	queue->cq_head = (void *)(memory + parameters->cq.head);
	queue->cq_tail = (void *)(memory + parameters->cq.tail);
	queue->cq_mask = *(uint32_t *)(memory + parameters->cq.mask);
	queue->completions = (void *)(memory + parameters->cq.cqes);
	for (i = 0; i < parameters->sq_entries; i++)
		((uint32_t *)(memory + parameters->sq.array))[i] = i;
	memory = mmap(NULL, queue->command_size, rights, kind, queue->ring, OFFSET_COMMANDS);
	if (memory == MAP_FAILED)
		return false;
	queue->command_memory = memory;
	/* A child would keep the ring, and with it the device, beyond this process's end. */
	madvise(queue->ring_memory, queue->ring_size, MADV_DONTFORK);
	madvise(queue->command_memory, queue->command_size, MADV_DONTFORK);
	queue->commands = (void *)memory;
	return true;
}

static bool make_slots(struct queue *queue)
{
	const size_t payload = rings_payload();
	char *memory;
	size_t i;

	/* One page is used of most of it. The messages come last, side by side. */
	queue->slot_size = SLOTS * (payload + sizeof(struct ring_message));
	memory = mmap(NULL, queue->slot_size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return false;
	queue->slot_memory = memory;
	for (i = 0; i < SLOTS; i++) {
		struct slot *slot = &queue->slots[i];

		slot->queue = queue;
		slot->message = (struct ring_message *)(memory + SLOTS * payload) + i;
		slot->parts[0].iov_base = slot->message;
		slot->parts[0].iov_len = sizeof(*slot->message);
		slot->parts[1].iov_base = memory + i * payload;
		slot->parts[1].iov_len = payload;
	}
	return true;
}

/* In the queue's own thread: the kernel lets no other use the ring. */
static bool set_up(struct queue *queue)
{
	struct ring_parameters parameters = {
		.flags =
			SETUP_SQE128 | SETUP_SUBMIT_ALL | SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN,
	};

	queue->ring = (int)syscall(SYS_io_uring_setup, ENTRIES, &parameters);
	if (queue->ring < 0 || !(parameters.features & FEATURE_SINGLE_MMAP))
		return false;
	queue->wait_flags = ENTER_GETEVENTS;
	if (parameters.features & FEATURE_NO_IOWAIT)
		queue->wait_flags |= ENTER_NO_IOWAIT;
	queue->message = malloc(sizeof(struct fuse_in_header) +
				sizeof(queue->slots->message->operation) + rings_payload());
	return queue->message && map(queue, &parameters) && make_slots(queue);
}

static void tear_down(struct queue *queue)
{
	pthread_mutex_lock(&queue->rings->lock);
	if (queue->wake >= 0)
		close(queue->wake);
	queue->wake = -1;
	pthread_mutex_unlock(&queue->rings->lock);
	if (queue->ring >= 0)
		close(queue->ring);
	queue->ring = -1;
	if (queue->ring_memory)
		munmap(queue->ring_memory, queue->ring_size);
	if (queue->command_memory)
		munmap(queue->command_memory, queue->command_size);
	if (queue->slot_memory)
		munmap(queue->slot_memory, queue->slot_size);
	queue->ring_memory = queue->command_memory = queue->slot_memory = NULL;
	free(queue->message);
	queue->message = NULL;
}

/* At work. */

/* The request in one piece, as the device would have given it; 0: it is none. */
static size_t assemble(struct queue *queue, const struct slot *slot)
{
	const struct ring_message *message = slot->message;
	const struct fuse_in_header *header = (const void *)message->header;
	const size_t payload = message->payload_size;
	size_t operation;

	if (payload > slot->parts[1].iov_len || header->len < sizeof(*header) + payload)
		return 0;
	operation = header->len - sizeof(*header) - payload;
	if (operation > sizeof(message->operation))
		return 0;
	memcpy(queue->message, header, sizeof(*header));
	memcpy(queue->message + sizeof(*header), message->operation, operation);
	memcpy(queue->message + sizeof(*header) + operation, slot->parts[1].iov_base, payload);
	return header->len;
}

static void take(struct queue *queue, struct slot *slot)
{
	struct rings *rings = queue->rings;
	struct channel *channel = rings->channel;
	const size_t length = assemble(queue, slot);

	slot->entry.key = ((const struct fuse_in_header *)slot->message->header)->unique;
	pthread_mutex_lock(&rings->lock);
	table_add(&rings->waiting, &slot->entry);
	pthread_mutex_unlock(&rings->lock);
	if (!length) {
		answer(channel, slot->entry.key, -EIO, NULL, 0);
		return;
	}
	pthread_mutex_lock(&channel->turn);
	pthread_mutex_lock(&channel->lock);
	channel->count.ringed++;
	pthread_mutex_unlock(&channel->lock);
	from_kernel(channel, queue->message, length);
	pthread_mutex_unlock(&channel->turn);
	/* Not before: the client may run at once, and would keep this processor with the turn. */
	enter(queue, 0);
}

static void send_answered(struct queue *queue)
{
	struct rings *rings = queue->rings;
	struct slot *slot, *after;
	uint64_t wakes;

	/* Fails only when there is nothing to be read. */
	(void)!read(queue->wake, &wakes, sizeof(wakes));
	pthread_mutex_lock(&rings->lock);
	slot = queue->answered_ones;
	queue->answered_ones = NULL;
	pthread_mutex_unlock(&rings->lock);
	for (; slot; slot = after) {
		after = slot->after;
		push_slot(queue, slot, FUSE_COMMIT_AND_FETCH);
	}
	push_wake(queue);
}

static bool is_ended(struct rings *rings)
{
	bool ended;

	pthread_mutex_lock(&rings->lock);
	ended = rings->ended;
	pthread_mutex_unlock(&rings->lock);
	return ended;
}

/* Whether a slot comes back empty because the connection has gone. */
static bool is_end(int result)
{
	return result == -ENOTCONN || result == -ECONNABORTED || result == -ECANCELED;
}

/*
 * What the kernel has done since; false: nothing. A slot that it refuses is one client that waits
 * for ever, or all of them, as it keeps them until it has slots of every queue: so that is the end.
 */
static bool look(struct queue *queue)
{
	uint32_t head = *queue->cq_head;
	bool any = false;

	while (head != __atomic_load_n(queue->cq_tail, __ATOMIC_ACQUIRE)) {
		const struct completion done = queue->completions[head & queue->cq_mask];

		__atomic_store_n(queue->cq_head, ++head, __ATOMIC_RELEASE);
		any = true;
		if (done.user_data == WAKE) {
			send_answered(queue);
			continue;
		}
		queue->given--;
		if (done.result >= 0)
			take(queue, &queue->slots[done.user_data]);
		else if (!is_end(done.result))
			channel_fail(queue->rings->channel, -done.result);
	}
	return any;
}

static bool submit_and_look(void *queue)
{
	enter(queue, 0);
	return look(queue);
}

/*
 * The connection has gone, and with it the kernel gives the slots back. Until it has, each keeps
 * the device open, and the device the areas: whoever waits for this process must find them free.
 */
static void take_back(struct queue *queue)
{
	int patience;

	for (patience = BACK_WITHIN_MS; queue->given && patience; patience--) {
		enter(queue, 0);
		if (!look(queue))
			usleep(1000);
	}
}

/* Where its clients are, if the keeper may run there at all. */
static void bind_to_processor(struct queue *queue)
{
	cpu_set_t own;

	if (!CPU_ISSET(queue->number, &queue->rings->allowed))
		return;
	CPU_ZERO(&own);
	CPU_SET(queue->number, &own);
	pthread_setaffinity_np(pthread_self(), sizeof(own), &own);
}

static void serve(struct queue *queue)
{
	size_t i;

	for (i = 0; i < SLOTS; i++)
		push_slot(queue, &queue->slots[i], FUSE_REGISTER);
	push_wake(queue);
	/* First: all clients wait for the slots of all queues, and that processor may be taken. */
	enter(queue, 0);
	bind_to_processor(queue);
	while (!is_ended(queue->rings)) {
		/* EBUSY and the like pass. */
		if (enter(queue, 1))
			sched_yield();
		if (look(queue))
			while (linger(&queue->lingering, submit_and_look, queue))
				;
	}
	take_back(queue);
}

static void *queue_loop(void *argument)
{
	struct queue *queue = argument;
	struct rings *rings = queue->rings;
	const bool able = set_up(queue);
	bool begun;

	pthread_mutex_lock(&rings->lock);
	if (able)
		rings->waits++;
	else
		rings->ended = true;
	pthread_cond_broadcast(&rings->changed);
	while (!rings->begun && !rings->ended)
		pthread_cond_wait(&rings->changed, &rings->lock);
	begun = rings->begun;
	pthread_mutex_unlock(&rings->lock);
	if (begun)
		serve(queue);
	else
		tear_down(queue);
	return NULL;
}

/* The face. */

/*
 * The kernel wants a queue for each processor that may ever be there, numbered from 0, and keeps
 * all requests waiting until it has them. 0: it has others.
 */
static unsigned processors(void)
{
	char text[32] = { 0 };
	unsigned last = 0;
	char end = 0;
	const int fd = open("/sys/devices/system/cpu/possible", O_RDONLY | O_CLOEXEC);
	const ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	if (length <= 0)
		return 0;
	if (strcmp(text, "0\n") == 0)
		return 1;
	if (sscanf(text, "0-%u%c", &last, &end) != 2 || end != '\n' || last >= CPU_SETSIZE)
		return 0;
	return last + 1;
}

struct rings *rings_new(struct channel *channel)
{
	const unsigned count = processors();
	struct rings *rings;
	unsigned i;
	bool able;

	if (!count)
		return NULL;
	rings = calloc(1, sizeof(*rings) + count * sizeof(struct queue));
	if (!rings)
		return NULL;
	rings->channel = channel;
	if (sched_getaffinity(0, sizeof(rings->allowed), &rings->allowed))
		CPU_ZERO(&rings->allowed);
	pthread_mutex_init(&rings->lock, NULL);
	pthread_cond_init(&rings->changed, NULL);
	if (!table_init(&rings->waiting))
		rings->ended = true;
	for (i = 0; i < count && !is_ended(rings); i++) {
		struct queue *queue = &rings->queues[i];

		*queue = (struct queue){ .rings = rings,
					 .lingering = { LINGER_US, KEPT_US, 0, 0 },
					 .number = i,
					 .ring = -1,
					 .wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
		rings->count++;
		if (queue->wake < 0 || pthread_create(&queue->thread, NULL, queue_loop, queue))
			rings_end(rings);
		else
			queue->started = true;
	}
	pthread_mutex_lock(&rings->lock);
	while (!rings->ended && rings->waits < rings->count)
		pthread_cond_wait(&rings->changed, &rings->lock);
	able = !rings->ended;
	pthread_mutex_unlock(&rings->lock);
	if (able)
		return rings;
	rings_free(rings);
	return NULL;
}

void rings_begin(struct rings *rings, bool used)
{
	if (!used) {
		rings_end(rings);
		return;
	}
	pthread_mutex_lock(&rings->lock);
	rings->begun = true;
	pthread_cond_broadcast(&rings->changed);
	pthread_mutex_unlock(&rings->lock);
}

static void fill(struct slot *slot, uint64_t unique, int error, const void *body, size_t length)
{
	const struct fuse_out_header header = {
		.len = (uint32_t)(sizeof(header) + length),
		.error = error,
		.unique = unique,
	};

	memcpy(slot->message->header, &header, sizeof(header));
	if (length)
		memcpy(slot->parts[1].iov_base, body, length);
	slot->message->payload_size = (uint32_t)length;
}

bool rings_answer(struct rings *rings, uint64_t unique, int error, const void *body, size_t length)
{
	struct slot *slot;
	struct queue *queue;

	pthread_mutex_lock(&rings->lock);
	slot = (struct slot *)table_find(&rings->waiting, unique);
	if (slot)
		table_remove(&rings->waiting, &slot->entry);
	pthread_mutex_unlock(&rings->lock);
	if (!slot)
		return false;
	if (length > slot->parts[1].iov_len) {
		error = -EIO;
		length = 0;
	}
	fill(slot, unique, error, body, length);
	queue = slot->queue;
	if (pthread_equal(queue->thread, pthread_self())) {
		push_slot(queue, slot, FUSE_COMMIT_AND_FETCH);
		return true;
	}
	pthread_mutex_lock(&rings->lock);
	slot->after = queue->answered_ones;
	queue->answered_ones = slot;
	count_event(queue->wake);
	pthread_mutex_unlock(&rings->lock);
	return true;
}

void rings_end(struct rings *rings)
{
	unsigned i;

	pthread_mutex_lock(&rings->lock);
	rings->ended = true;
	pthread_cond_broadcast(&rings->changed);
	for (i = 0; i < rings->count; i++)
		if (rings->queues[i].wake >= 0)
			count_event(rings->queues[i].wake);
	pthread_mutex_unlock(&rings->lock);
}

void rings_free(struct rings *rings)
{
	unsigned i;

	rings_end(rings);
	for (i = 0; i < rings->count; i++) {
		if (rings->queues[i].started)
			pthread_join(rings->queues[i].thread, NULL);
		tear_down(&rings->queues[i]);
	}
	free(rings->waiting.slots);
	pthread_cond_destroy(&rings->changed);
	pthread_mutex_destroy(&rings->lock);
	free(rings);
}
