// SPDX-License-Identifier: MIT
/* The kernel's side: reads its messages, answers those that need no decision, keeps the others. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

static void malformed(struct channel *channel)
{
	pthread_mutex_lock(&channel->lock);
	channel->count.malformed++;
	pthread_mutex_unlock(&channel->lock);
}

/* The name that begins at `offset`, or NULL when it has no end within the message. */
static const char *name_at(const char *message, size_t length, size_t offset)
{
	if (offset >= length || !memchr(message + offset, 0, length - offset))
		return NULL;
	return message + offset;
}

/* Requests that are answered here, or answered wrongly when they are; false: forward it. */

static bool open_known(struct channel *channel, const struct fuse_in_header *header)
{
	struct open_reply reply = { .fh = header->nodeid };
	struct node *node;

	pthread_mutex_lock(&channel->lock);
	node = node_find(channel, header->nodeid);
	if (node && node->backing && !node->emptied) {
		node->opens++;
		node->reopened = true;
		reply.open_flags = OPEN_PASSTHROUGH | OPEN_NOFLUSH;
		reply.backing_id = node->backing;
	}
	pthread_mutex_unlock(&channel->lock);
	if (!reply.backing_id)
		return false;
	/*
	 * The id stays valid without the lock: it ends when the kernel forgets the node, and the
	 * kernel does not while it opens it.
	 */
	if (answered(channel, header, 0, &reply, sizeof(reply))) {
		pthread_mutex_lock(&channel->lock);
		node_released(channel, header->nodeid);
		pthread_mutex_unlock(&channel->lock);
	}
	return true;
}

static bool open_here(struct channel *channel, const struct fuse_in_header *header, uint32_t flags)
{
	if (flags & O_TRUNC && !granted_truncation(channel, header))
		return false;
	if (open_known(channel, header) || granted_open(channel, header))
		return true;
	/* It is empty, whatever becomes of the opening. */
	if (flags & O_TRUNC) {
		pthread_mutex_lock(&channel->lock);
		invalidate_attributes(channel, header->nodeid);
		pthread_mutex_unlock(&channel->lock);
	}
	return false;
}

static void open_directory(struct channel *channel, const struct fuse_in_header *header)
{
	/*
	 * Reading is stateless, by node and offset. The kernel drops a listing when the mount
	 * changes the directory, and there is no message that would let it drop one for sure.
	 */
	const struct open_reply reply = {
		.fh = header->nodeid,
		.open_flags = channel->set.elsewhere ? 0 : OPEN_CACHE_DIR | OPEN_KEEP_CACHE,
	};

	answered(channel, header, 0, &reply, sizeof(reply));
}

/*
 * Attributes that are not ours do not exist. The answer comes from here because the kernel asks for
 * security.capability at writes, where a round trip to the server would cost twenty times the
 * write.
 */
static bool foreign_attribute(struct channel *channel, const struct fuse_in_header *header,
			      const char *name)
{
	if (strncmp(name, XATTR_PREFIX, strlen(XATTR_PREFIX)) == 0 &&
	    strcmp(name, FALLOCATE_NAME) != 0)
		return false;
	answered(channel, header, -ENODATA, NULL, 0);
	return true;
}

static bool reserved_attribute(struct channel *channel, const struct fuse_in_header *header,
			       const char *name)
{
	if (strcmp(name, FALLOCATE_NAME) != 0)
		return false;
	answered(channel, header, -EPERM, NULL, 0);
	return true;
}

/* umount(8) and df must not hang on a mount whose server is just starting again. */
static bool statfs_without_server(struct channel *channel, const struct fuse_in_header *header)
{
	struct fuse_statfs_out reply;
	bool known;

	pthread_mutex_lock(&channel->lock);
	known = channel->server < 0 && channel->statfs_known;
	reply = channel->statfs;
	pthread_mutex_unlock(&channel->lock);
	if (!known)
		return false;
	answered(channel, header, 0, &reply, sizeof(reply));
	return true;
}

static void remember_poll(struct channel *channel, const struct fuse_poll_in *in)
{
	struct poller *poller;

	if (!(in->flags & FUSE_POLL_SCHEDULE_NOTIFY))
		return;
	pthread_mutex_lock(&channel->lock);
	if (!table_find(&channel->pollers, in->kh)) {
		/*
		 * Past this bound a promise is not kept by memory but by asking again: files that
		 * are closed are still here. If all are open, they may be so many.
		 */
		if (channel->pollers.count >= channel->pollers_max) {
			channel->pollers_max *= 2;
			wake_pollers(channel);
		}
		poller = calloc(1, sizeof(*poller));
		if (poller) {
			poller->entry.key = in->kh;
			table_add(&channel->pollers, &poller->entry);
		}
	}
	pthread_mutex_unlock(&channel->lock);
}

static void forget_batch(struct channel *channel, const char *message, size_t length)
{
	const struct fuse_batch_forget_in *in =
		(const void *)(message + sizeof(struct fuse_in_header));
	const struct fuse_forget_one *one = (const void *)(in + 1);
	size_t room = (length - sizeof(struct fuse_in_header) - sizeof(*in)) / sizeof(*one);
	uint32_t i;

	if (in->count > room) {
		malformed(channel);
		return;
	}
	pthread_mutex_lock(&channel->lock);
	for (i = 0; i < in->count; i++)
		node_forget(channel, one[i].nodeid, one[i].nlookup);
	pthread_mutex_unlock(&channel->lock);
}

/* Bytes that a request of this kind has at least after its header; what is not read here: 0. */
static size_t body_minimum(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_FORGET:
		return sizeof(struct fuse_forget_in);
	case FUSE_BATCH_FORGET:
		return sizeof(struct fuse_batch_forget_in);
	case FUSE_INTERRUPT:
		return sizeof(struct fuse_interrupt_in);
	case FUSE_OPEN:
		return sizeof(struct fuse_open_in);
	case FUSE_GETXATTR:
		return sizeof(struct fuse_getxattr_in) + 1;
	case FUSE_SETXATTR:
		return 8 + 1;
	case FUSE_REMOVEXATTR:
		return 1;
	case FUSE_FALLOCATE:
		return sizeof(struct fuse_fallocate_in);
	case FUSE_POLL:
		return sizeof(struct fuse_poll_in);
	case FUSE_INIT:
		return 16;
	case OP_RENAME2:
		return sizeof(struct fuse_rename2_in) + 2;
	default:
		return 0;
	}
}

static bool answered_here(struct channel *channel, const char *message, size_t length)
{
	const struct fuse_in_header *header = (const void *)message;
	const void *body = message + sizeof(*header);
	const char *name = NULL;
	size_t fixed;

	switch (header->opcode) {
	case FUSE_OPEN:
		return open_here(channel, header, ((const struct fuse_open_in *)body)->flags);
	case FUSE_OPENDIR:
		open_directory(channel, header);
		return true;
	case FUSE_RELEASE:
		pthread_mutex_lock(&channel->lock);
		node_released(channel, header->nodeid);
		pthread_mutex_unlock(&channel->lock);
		answered(channel, header, 0, NULL, 0);
		return true;
	case FUSE_RELEASEDIR:
	case FUSE_FLUSH:
	case FUSE_DESTROY:
		/* Servers keep nothing for an open file, so that any server serves it. */
		answered(channel, header, 0, NULL, 0);
		return true;
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
		/* Memory has no disk behind it. The kernel takes this as success, once for all. */
		answered(channel, header, -ENOSYS, NULL, 0);
		return true;
	case FUSE_IOCTL:
		/* Areas have none, yet many a library asks each file that it opens for its
		 * terminal. */
		answered(channel, header, -ENOTTY, NULL, 0);
		return true;
	case FUSE_GETXATTR:
		name = name_at(message, length, sizeof(*header) + sizeof(struct fuse_getxattr_in));
		if (!name)
			break;
		return foreign_attribute(channel, header, name);
	case FUSE_SETXATTR:
		pthread_mutex_lock(&channel->lock);
		fixed = channel->setxattr_ext ? 16 : 8;
		pthread_mutex_unlock(&channel->lock);
		name = name_at(message, length, sizeof(*header) + fixed);
		if (!name)
			break;
		return reserved_attribute(channel, header, name);
	case FUSE_REMOVEXATTR:
		name = name_at(message, length, sizeof(*header));
		if (!name)
			break;
		return reserved_attribute(channel, header, name);
	case FUSE_LOOKUP:
		name = name_at(message, length, sizeof(*header));
		return name && granted_lookup(channel, header, name);
	case FUSE_GETATTR:
		return granted_attributes(channel, header);
	case FUSE_CREATE:
		name = name_at(message, length, sizeof(*header) + sizeof(struct fuse_create_in));
		return name && granted_create(channel, header, body, name);
	case FUSE_SETATTR:
		return length >= sizeof(*header) + sizeof(struct fuse_setattr_in) &&
		       granted_resize(channel, header, body);
	case FUSE_UNLINK:
		name = name_at(message, length, sizeof(*header));
		return name && granted_unlink(channel, header, name);
	case FUSE_STATFS:
		return statfs_without_server(channel, header);
	default:
		return false;
	}
	malformed(channel);
	answered(channel, header, -EINVAL, NULL, 0);
	return true;
}

/* Or tells how much there is: what was forgotten before must have given back its own. */
static bool wants_memory(uint32_t opcode)
{
	return opcode != FUSE_LOOKUP && opcode != FUSE_GETATTR && opcode != FUSE_UNLINK &&
	       opcode != FUSE_RMDIR;
}

/* The server must know what may come back, before this request. L */
static void tell_of_memory(struct channel *channel, uint32_t opcode)
{
	if (!wants_memory(opcode))
		return;
	if (channel->returning)
		tell_forgotten(channel, 0, FORGET_DONE);
	channel->returning = false;
	flush_forgotten(channel);
}

/* Keeps the request until it has a reply, and sends it to the server if there is one. */
static void forward(struct channel *channel, char *message, size_t length)
{
	const struct fuse_in_header *header = (const void *)message;
	struct request *request;

	pthread_mutex_lock(&channel->lock);
	if (header->opcode == OP_RENAME2) {
		struct fuse_rename2_in *in = (void *)(message + sizeof(*header));

		in->flags &= (1u << EXCHANGE_TAG_SHIFT) - 1;
		in->flags |= (channel->exchange_tag++ % EXCHANGE_TAGS) << EXCHANGE_TAG_SHIFT;
	}
	if (channel->count.kept_bytes + length > channel->set.keep_limit)
		request = NULL;
	else if (header->opcode == FUSE_INIT && !edit_init_request(channel, message, length))
		request = NULL;
	else if (header->opcode == FUSE_FALLOCATE)
		request = fallocate_as_setxattr(channel, message);
	else
		request = request_make(message, length);
	if (request) {
		tell_of_memory(channel, header->opcode);
		request_append(channel, request);
		look_later(channel, request);
		flush_requests(channel);
	}
	pthread_mutex_unlock(&channel->lock);
	if (!request)
		answer(channel, header->unique, -ENOMEM, NULL, 0);
}

void from_kernel(struct channel *channel, char *message, size_t length)
{
	const struct fuse_in_header *header = (const void *)message;
	const void *body = message + sizeof(*header);

	if (length < sizeof(*header) || header->len != length) {
		malformed(channel);
		return;
	}
	pthread_mutex_lock(&channel->lock);
	if (header->opcode < CHANNEL_OPCODES)
		channel->count.received[header->opcode]++;
	pthread_mutex_unlock(&channel->lock);
	if (length - sizeof(*header) < body_minimum(header->opcode)) {
		malformed(channel);
		if (header->opcode != FUSE_FORGET && header->opcode != FUSE_BATCH_FORGET &&
		    header->opcode != FUSE_INTERRUPT)
			answer(channel, header->unique, -EINVAL, NULL, 0);
		return;
	}
	switch (header->opcode) {
	case FUSE_FORGET:
		pthread_mutex_lock(&channel->lock);
		node_forget(channel, header->nodeid,
			    ((const struct fuse_forget_in *)body)->nlookup);
		pthread_mutex_unlock(&channel->lock);
		return;
	case FUSE_BATCH_FORGET:
		forget_batch(channel, message, length);
		return;
	case FUSE_INTERRUPT:
		interrupt(channel, ((const struct fuse_interrupt_in *)body)->unique);
		return;
	case FUSE_POLL:
		remember_poll(channel, body);
		edit_poll(message);
		break;
	default:
		break;
	}
	if (!answered_here(channel, message, length))
		forward(channel, message, length);
}

static bool has_message(void *argument)
{
	const struct channel *channel = argument;
	struct pollfd device = { .fd = channel->set.device, .events = POLLIN };

	return poll(&device, 1, 0) != 0;
}

void *device_loop(void *argument)
{
	struct channel *channel = argument;
	char *message = channel->device_message;
	/* On another processor than its clients nothing is won by a pause: measured. */
	struct lingering lingering = { .us = channel->set.linger_us };

	for (;;) {
		ssize_t length = read(channel->set.device, message, CHANNEL_MESSAGE_MAX);

		/* ENOENT: the request was interrupted before it could be read. */
		if (length < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue;
		/* ENODEV: unmounted, or the connection was aborted. */
		if (length <= 0)
			break;
		pthread_mutex_lock(&channel->turn);
		from_kernel(channel, message, (size_t)length);
		pthread_mutex_unlock(&channel->turn);
		do_light_jobs(channel);
		if (channel->set.linger_us && !channel_rings(channel) && !has_message(channel))
			linger(&lingering, has_message, channel);
	}
	channel_end(channel);
	return NULL;
}
