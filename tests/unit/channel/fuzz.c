// SPDX-License-Identifier: MIT
/*
 * Random and spoiled messages on both sides, under servers that die. What must hold whatever comes:
 * nobody reads beyond a message, each request is answered exactly once in the end, and the kernel
 * is told nothing that it would refuse.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

#define UNIQUES 200000
#define PENDING 4096
#define BODY_MAX 1024

enum {
	UNASKED,
	ASKED,
	ANSWERED
};

struct fuzz {
	struct rig rig;
	uint64_t lots;
	atomic_uchar state[UNIQUES]; /* of the request with this number */
	uint64_t last;		     /* number used */
	atomic_int open;	     /* requests without an answer */
	int answers;		     /* an eventfd that counts them */
	struct {
		uint64_t unique;
		uint32_t opcode;
	} pending[PENDING]; /* what the present server was sent */
	unsigned seen;
	uint64_t id;
};

static const char *const names[] = {
	"a", "name", FALLOCATE_NAME, "user.mbuff.size", "security.capability", "", ".", ".."
};

static uint64_t lot(struct fuzz *fuzz, uint64_t below)
{
	return draw(&fuzz->lots, below);
}

/* Small numbers mostly, and those at which arithmetic goes wrong. */
static uint64_t number(struct fuzz *fuzz)
{
	switch (lot(fuzz, 8)) {
	case 0:
		return UINT64_MAX - lot(fuzz, 9);
	case 1:
		return (uint64_t)1 << lot(fuzz, 64);
	case 2:
		return lot(fuzz, UINT64_MAX);
	default:
		return lot(fuzz, 9);
	}
}

static size_t put_numbers(struct fuzz *fuzz, char *body, size_t bytes)
{
	size_t at;

	for (at = 0; at < bytes; at += sizeof(uint64_t)) {
		const uint64_t value = number(fuzz) | number(fuzz) << 32;

		memcpy(body + at, &value, sizeof(value));
	}
	return bytes;
}

static size_t put_name(struct fuzz *fuzz, char *body)
{
	const char *name = names[lot(fuzz, sizeof(names) / sizeof(*names))];

	memcpy(body, name, strlen(name) + 1);
	return strlen(name) + 1;
}

/* A body that the kernel could send with this opcode, but for its numbers; its length. */
static size_t request_body(struct fuzz *fuzz, uint32_t opcode, char *body)
{
	size_t length;

	switch (opcode) {
	case FUSE_LOOKUP:
	case FUSE_UNLINK:
	case FUSE_REMOVEXATTR:
		return put_name(fuzz, body);
	case FUSE_GETXATTR:
	case FUSE_MKDIR:
	case FUSE_LINK:
		length = put_numbers(fuzz, body, 8);
		return length + put_name(fuzz, body + length);
	case FUSE_SETXATTR:
		length = put_numbers(fuzz, body, lot(fuzz, 2) ? 8 : 16);
		length += put_name(fuzz, body + length);
		return length + put_numbers(fuzz, body + length, 8 * lot(fuzz, 4));
	case FUSE_CREATE:
	case FUSE_MKNOD:
	case OP_RENAME2:
		length = put_numbers(fuzz, body, 16);
		length += put_name(fuzz, body + length);
		return length + put_name(fuzz, body + length);
	case FUSE_INIT:
		return put_numbers(fuzz, body, 16 + 8 * lot(fuzz, 7));
	case FUSE_FALLOCATE:
		return put_numbers(fuzz, body, 32);
	case FUSE_POLL:
		put_numbers(fuzz, body, 24);
		((struct fuse_poll_in *)(void *)body)->flags = (uint32_t)lot(fuzz, 2);
		return 24;
	case FUSE_OPEN:
		put_numbers(fuzz, body, 8);
		((struct fuse_open_in *)(void *)body)->flags = lot(fuzz, 3) ? 0 : O_TRUNC;
		return 8;
	case FUSE_INTERRUPT:
		put_numbers(fuzz, body, 8);
		if (lot(fuzz, 4) && fuzz->last > 64)
			((struct fuse_interrupt_in *)(void *)body)->unique =
				fuzz->last - lot(fuzz, 64);
		return 8;
	case FUSE_BATCH_FORGET:
		put_numbers(fuzz, body, 8 + 16 * 6);
		((struct fuse_batch_forget_in *)(void *)body)->count = (uint32_t)lot(fuzz, 9);
		return 8 + 16 * 6;
	default:
		return put_numbers(fuzz, body, 8 * lot(fuzz, 9));
	}
}

/* Makes some messages shorter, longer or different; never so that its number changes. */
static size_t spoil(struct fuzz *fuzz, char *message, size_t length, size_t header)
{
	size_t flips;

	switch (lot(fuzz, 12)) {
	case 0:
		length = lot(fuzz, length + 1);
		break;
	case 1:
		length += lot(fuzz, 64);
		break;
	case 2:
		for (flips = lot(fuzz, 8); flips && length > header; flips--)
			message[header + lot(fuzz, length - header)] ^= (char)(1 << lot(fuzz, 8));
		return length;
	case 3: /* as long as ever, but says something else */
		return length;
	default:
		break;
	}
	if (length >= sizeof(uint32_t))
		memcpy(message, &(uint32_t){ (uint32_t)length }, sizeof(uint32_t));
	return length ? length : 1;
}

static void kernel_speaks(struct fuzz *fuzz)
{
	static const uint32_t common[] = { FUSE_LOOKUP, FUSE_OPEN,  FUSE_CREATE, FUSE_FORGET,
					   FUSE_OPEN,	FUSE_MKDIR, FUSE_STATFS, FUSE_READDIRPLUS,
					   FUSE_POLL,	FUSE_LINK,  FUSE_RELEASE };
	_Alignas(8) char message[BODY_MAX] = { 0 };
	struct fuse_in_header *header = (void *)message;
	size_t length;

	header->opcode = lot(fuzz, 2) ? common[lot(fuzz, sizeof(common) / sizeof(*common))] :
			 lot(fuzz, 9) ? (uint32_t)lot(fuzz, 70) :
					(uint32_t)number(fuzz);
	header->unique = ++fuzz->last;
	header->nodeid = number(fuzz);
	length = sizeof(*header) + request_body(fuzz, header->opcode, message + sizeof(*header));
	header->len = (uint32_t)(length - !lot(fuzz, 40));
	length = spoil(fuzz, message, length, sizeof(*header));
	if (length >= sizeof(*header) && header->len == length && header->opcode != FUSE_FORGET &&
	    header->opcode != FUSE_BATCH_FORGET && header->opcode != FUSE_INTERRUPT) {
		atomic_store(&fuzz->state[fuzz->last], ASKED);
		atomic_fetch_add(&fuzz->open, 1);
	}
	kernel_sends_bytes(&fuzz->rig, message, length);
}

static size_t reply_body(struct fuzz *fuzz, uint32_t opcode, char *body)
{
	size_t length = 0, entries;

	memset(body, 0, 200);
	switch (opcode) {
	case FUSE_INIT:
		return put_numbers(fuzz, body, 64);
	case FUSE_OPEN:
		*(struct open_reply *)(void *)body = (struct open_reply){ .fh = ++fuzz->id };
		return 16;
	case FUSE_CREATE:
		((struct create_reply *)(void *)body)->open.fh = ++fuzz->id;
		*(uint64_t *)(void *)body = lot(fuzz, 9);
		return 144;
	case FUSE_LOOKUP:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_SYMLINK:
	case FUSE_LINK:
		*(uint64_t *)(void *)body = number(fuzz);
		return 128;
	case FUSE_STATFS:
		return put_numbers(fuzz, body, 80);
	case FUSE_READDIRPLUS:
		for (entries = lot(fuzz, 4); entries; entries--)
			length = directory_entry(body, length, number(fuzz),
						 names[lot(fuzz, sizeof(names) / sizeof(*names))]);
		return length;
	default:
		return put_numbers(fuzz, body, 8 * lot(fuzz, 9));
	}
}

static void server_speaks(struct fuzz *fuzz)
{
	static const int32_t codes[] = {
		1, 2, 3, 4, 5, 6, 7, PRIVATE_WATCH, PRIVATE_ASK, PRIVATE_GRANT, 0, -5, 999
	};
	_Alignas(8) char message[BODY_MAX] = { 0 };
	struct fuse_out_header *header = (void *)message;
	const unsigned chosen = fuzz->seen ? (unsigned)lot(fuzz, fuzz->seen) : 0;
	uint32_t opcode = FUSE_OPEN;
	size_t length;

	if (fuzz->seen && lot(fuzz, 16)) {
		header->unique = fuzz->pending[chosen].unique;
		opcode = fuzz->pending[chosen].opcode;
		if (lot(fuzz, 8)) /* else it answers once more some time */
			fuzz->pending[chosen] = fuzz->pending[--fuzz->seen];
	} else if (lot(fuzz, 2)) {
		header->unique = number(fuzz);
	}
	header->error = !header->unique ? codes[lot(fuzz, sizeof(codes) / sizeof(*codes))] :
			lot(fuzz, 4)	? 0 :
					  -(int32_t)(lot(fuzz, 600));
	length = sizeof(*header);
	if (header->error >= 0)
		length += reply_body(fuzz, opcode, message + sizeof(*header));
	header->len = (uint32_t)length;
	length = spoil(fuzz, message, length, sizeof(*header));
	server_sends_bytes(&fuzz->rig, message, length);
}

/*
 * Takes all that comes for the kernel: nothing that it would refuse, nothing twice. A thread,
 * because the channel may write much at once, with its lock held, which the real device never
 * refuses and a socket does.
 */
static void *kernel_hears(void *argument)
{
	struct fuzz *fuzz = argument;
	const uint64_t one = 1;
	struct packet packet;
	ssize_t length;

	while ((length = recv(fuzz->rig.kernel, packet.bytes, PACKET_MAX, 0)) > 0) {
		unsigned char expected = ASKED;

		EQUAL(told(&packet)->len, length);
		if (!told(&packet)->unique) {
			CHECK(told(&packet)->error >= NOTIFY_POLL);
			CHECK(told(&packet)->error <= NOTIFY_DELETE);
			continue;
		}
		CHECK(told(&packet)->error <= 0 && told(&packet)->error > -512);
		CHECK(told(&packet)->unique < UNIQUES);
		CHECK(atomic_compare_exchange_strong(&fuzz->state[told(&packet)->unique], &expected,
						     ANSWERED));
		atomic_fetch_sub(&fuzz->open, 1);
		EQUAL(write(fuzz->answers, &one, sizeof(one)), sizeof(one));
	}
	return NULL;
}

static bool is_forget(const struct packet *packet)
{
	return asked(packet)->opcode == FUSE_FORGET || asked(packet)->opcode == FUSE_BATCH_FORGET;
}

static void server_hears(struct fuzz *fuzz)
{
	struct packet packet;

	while (fuzz->seen < PENDING && !server_has_nothing(&fuzz->rig)) {
		server_takes(&fuzz->rig, &packet);
		if (is_forget(&packet))
			continue;
		fuzz->pending[fuzz->seen].unique = asked(&packet)->unique;
		fuzz->pending[fuzz->seen++].opcode = asked(&packet)->opcode;
	}
}

static void server_changes(struct fuzz *fuzz)
{
	server_dies(&fuzz->rig);
	server_attaches(&fuzz->rig);
	fuzz->seen = 0;
}

FACT(random_messages_are_answered_once_each_and_harm_nothing)
{
	static struct fuzz fuzz;
	struct channel_settings settings = rig_settings();
	struct packet packet;
	pthread_t kernel;
	uint64_t round;

	rounds = rounds ? rounds : 20000;
	CHECK(rounds < UNIQUES);
	settings.keep_limit = 256 << 10;
	rig_open(&fuzz.rig, &settings);
	rig_serve(&fuzz.rig);
	fuzz.last = fuzz.rig.unique;
	fuzz.lots = seed;
	fuzz.answers = eventfd(0, EFD_CLOEXEC);
	pthread_create(&kernel, NULL, kernel_hears, &fuzz);
	for (round = 0; round < rounds; round++) {
		switch (lot(&fuzz, 8)) {
		case 0:
		case 1:
		case 2:
			kernel_speaks(&fuzz);
			break;
		case 3:
			server_hears(&fuzz);
			break;
		case 4:
			if (!lot(&fuzz, 50))
				clock_advance(GRACE);
			if (!lot(&fuzz, 100))
				server_changes(&fuzz);
			break;
		default:
			server_speaks(&fuzz);
			break;
		}
	}
	/* A last server, that answers all. */
	server_changes(&fuzz);
	while (atomic_load(&fuzz.open)) {
		struct pollfd polled[2] = { { .fd = fuzz.answers, .events = POLLIN },
					    { .fd = fuzz.rig.server, .events = POLLIN } };

		CHECK(poll(polled, 2, PATIENCE) > 0);
		if (polled[0].revents)
			EQUAL(read(fuzz.answers, &round, sizeof(round)), sizeof(round));
		if (!polled[1].revents)
			continue;
		server_takes(&fuzz.rig, &packet);
		if (!is_forget(&packet))
			server_answers(&fuzz.rig, asked(&packet)->unique, -EIO, NULL, 0);
	}
	shutdown(fuzz.rig.kernel, SHUT_RDWR);
	pthread_join(kernel, NULL);
	close(fuzz.answers);
	rig_close(&fuzz.rig);
}
