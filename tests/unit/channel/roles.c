// SPDX-License-Identifier: MIT
/* Kernel and server as the facts play them: one message, or one conversation, a function. */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "harness.h"

static bool readable(int fd, int timeout)
{
	struct pollfd polled = { .fd = fd, .events = POLLIN };

	return poll(&polled, 1, timeout) > 0;
}

static void take(int fd, struct packet *packet)
{
	ssize_t length;

	CHECK(readable(fd, PATIENCE));
	length = recv(fd, packet->bytes, PACKET_MAX, MSG_TRUNC);
	CHECK(length > 0 && length <= PACKET_MAX);
	packet->length = (size_t)length;
}

static void give(int fd, const void *header, size_t header_length, const void *body, size_t length)
{
	const struct iovec parts[2] = {
		{ .iov_base = (void *)header, .iov_len = header_length },
		{ .iov_base = (void *)body, .iov_len = length },
	};

	EQUAL(writev(fd, parts, length ? 2 : 1), header_length + length);
}

/* The kernel. */

void kernel_sends_bytes(struct rig *rig, const void *message, size_t length)
{
	give(rig->kernel, message, length, NULL, 0);
}

void kernel_sends(struct rig *rig, uint32_t opcode, uint64_t unique, uint64_t node,
		  const void *body, size_t length)
{
	const struct fuse_in_header header = {
		.len = (uint32_t)(sizeof(header) + length),
		.opcode = opcode,
		.unique = unique,
		.nodeid = node,
		.pid = PID,
	};

	give(rig->kernel, &header, sizeof(header), body, length);
}

uint64_t kernel_asks(struct rig *rig, uint32_t opcode, uint64_t node, const void *body,
		     size_t length)
{
	rig->unique += 2;
	kernel_sends(rig, opcode, rig->unique, node, body, length);
	return rig->unique;
}

uint64_t kernel_inits(struct rig *rig, uint32_t flags, uint32_t flags2)
{
	const struct init_request in = { 7, 41, 128 << 10, flags, flags2 };

	return kernel_asks(rig, FUSE_INIT, 0, &in, sizeof(in));
}

uint64_t kernel_asks_open(struct rig *rig, uint64_t node, uint32_t flags)
{
	const struct fuse_open_in in = { .flags = flags };

	return kernel_asks(rig, FUSE_OPEN, node, &in, sizeof(in));
}

uint64_t kernel_asks_statfs(struct rig *rig)
{
	return kernel_asks(rig, FUSE_STATFS, 1, NULL, 0);
}

void kernel_forgets(struct rig *rig, uint64_t node, uint64_t lookups)
{
	const struct fuse_forget_in in = { .nlookup = lookups };

	kernel_asks(rig, FUSE_FORGET, node, &in, sizeof(in));
}

void kernel_interrupts(struct rig *rig, uint64_t unique)
{
	const struct fuse_interrupt_in in = { .unique = unique };

	/* Bit 0 marks the kernel's own numbers for interrupts. */
	kernel_sends(rig, FUSE_INTERRUPT, unique | 1, 0, &in, sizeof(in));
}

void kernel_takes(struct rig *rig, struct packet *packet)
{
	take(rig->kernel, packet);
	CHECK(packet->length >= sizeof(struct fuse_out_header));
	EQUAL(told(packet)->len, packet->length);
}

void kernel_gets(struct rig *rig, uint64_t unique, int error, struct packet *packet)
{
	struct packet local;

	packet = packet ? packet : &local;
	kernel_takes(rig, packet);
	EQUAL(told(packet)->unique, unique);
	EQUAL(told(packet)->error, error);
	if (error < 0)
		EQUAL(told_length(packet), 0);
}

struct open_reply kernel_gets_open(struct rig *rig, uint64_t unique)
{
	struct open_reply reply;
	struct packet packet;

	kernel_gets(rig, unique, 0, &packet);
	EQUAL(told_length(&packet), sizeof(reply));
	memcpy(&reply, told_body(&packet), sizeof(reply));
	return reply;
}

bool kernel_has_nothing(struct rig *rig)
{
	return !readable(rig->kernel, 0);
}

/* The server. */

void server_attaches(struct rig *rig)
{
	int pair[2];

	EQUAL(rig->server, -1);
	EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	EQUAL(channel_attach(rig->channel, pair[0]), 0);
	rig->server = pair[1];
}

void server_dies(struct rig *rig)
{
	close(rig->server);
	rig->server = -1;
	rig_wait(rig, CHANNEL_IDLE);
}

void server_takes(struct rig *rig, struct packet *packet)
{
	take(rig->server, packet);
	CHECK(packet->length >= sizeof(struct fuse_in_header));
	EQUAL(asked(packet)->len, packet->length);
}

uint64_t server_gets(struct rig *rig, uint32_t opcode, struct packet *packet)
{
	struct packet local;

	packet = packet ? packet : &local;
	server_takes(rig, packet);
	EQUAL(asked(packet)->opcode, opcode);
	return asked(packet)->unique;
}

void server_sends_bytes(struct rig *rig, const void *message, size_t length)
{
	give(rig->server, message, length, NULL, 0);
}

void server_answers(struct rig *rig, uint64_t unique, int error, const void *body, size_t length)
{
	const struct fuse_out_header header = {
		.len = (uint32_t)(sizeof(header) + length),
		.error = error,
		.unique = unique,
	};

	give(rig->server, &header, sizeof(header), body, length);
}

void server_answers_init(struct rig *rig, uint64_t unique, uint32_t flags)
{
	const struct init_reply out = {
		.major = 7, .minor = 38, .flags = flags, .max_write = 131072
	};

	server_answers(rig, unique, 0, &out, sizeof(out));
}

void server_answers_entry(struct rig *rig, uint64_t unique, uint64_t node)
{
	const struct fuse_entry_out out = { .nodeid = node };

	server_answers(rig, unique, 0, &out, sizeof(out));
}

void server_answers_open(struct rig *rig, uint64_t unique, uint64_t fh, uint32_t flags)
{
	const struct open_reply out = { .fh = fh, .open_flags = flags };

	server_answers(rig, unique, 0, &out, sizeof(out));
}

void server_answers_create(struct rig *rig, uint64_t unique, uint64_t node, uint64_t fh)
{
	const struct create_reply out = {
		.entry.nodeid = node,
		.open = { .fh = fh, .open_flags = OPEN_KEEP_CACHE },
	};

	server_answers(rig, unique, 0, &out, sizeof(out));
}

void server_answers_statfs(struct rig *rig, uint64_t unique, uint64_t blocks)
{
	const struct fuse_statfs_out out = { .st.blocks = blocks };

	server_answers(rig, unique, 0, &out, sizeof(out));
}

void server_notifies(struct rig *rig, int32_t code, const void *body, size_t length)
{
	server_answers(rig, 0, code, body, length);
}

void server_watches(struct rig *rig, uint64_t node)
{
	server_notifies(rig, PRIVATE_WATCH, &node, sizeof(node));
}

bool server_has_nothing(struct rig *rig)
{
	return !readable(rig->server, 0);
}

/* Conversations. */

void look_up(struct rig *rig, uint64_t node)
{
	uint64_t unique = kernel_asks(rig, FUSE_LOOKUP, 1, "name", 5);

	EQUAL(server_gets(rig, FUSE_LOOKUP, NULL), unique);
	server_answers_entry(rig, unique, node);
	kernel_gets(rig, unique, 0, NULL);
}

struct open_reply open_node(struct rig *rig, uint64_t node, uint64_t fh)
{
	uint64_t unique = kernel_asks_open(rig, node, 0);

	EQUAL(server_gets(rig, FUSE_OPEN, NULL), unique);
	server_answers_open(rig, unique, fh, OPEN_KEEP_CACHE);
	return kernel_gets_open(rig, unique);
}

struct open_reply open_natively(struct rig *rig, uint64_t node)
{
	return kernel_gets_open(rig, kernel_asks_open(rig, node, 0));
}

struct open_reply create(struct rig *rig, uint64_t node, uint64_t fh)
{
	uint64_t unique = kernel_asks(rig, FUSE_CREATE, 1, "................name", 21);
	struct create_reply reply;
	struct packet packet;

	EQUAL(server_gets(rig, FUSE_CREATE, NULL), unique);
	server_answers_create(rig, unique, node, fh);
	kernel_gets(rig, unique, 0, &packet);
	EQUAL(told_length(&packet), sizeof(reply));
	memcpy(&reply, told_body(&packet), sizeof(reply));
	EQUAL(reply.entry.nodeid, node);
	return reply.open;
}

int32_t closed_next(struct rig *rig)
{
	int32_t id;

	CHECK(readable(rig->closed[0], PATIENCE));
	EQUAL(read(rig->closed[0], &id, sizeof(id)), sizeof(id));
	return id;
}

bool closed_nothing(struct rig *rig)
{
	return !readable(rig->closed[0], 0);
}

size_t directory_entry(char *buffer, size_t offset, uint64_t node, const char *name)
{
	struct fuse_direntplus entry = {
		.entry_out.nodeid = node,
		.dirent = { .ino = node, .off = offset, .namelen = (uint32_t)strlen(name) },
	};
	const size_t end = offset + sizeof(entry) + strlen(name);
	const size_t padded = (end + 7) & ~(size_t)7;

	memcpy(buffer + offset, &entry, sizeof(entry));
	memcpy(buffer + offset + sizeof(entry), name, strlen(name));
	memset(buffer + end, 0, padded - end);
	return padded;
}
