// SPDX-License-Identifier: MIT
/* The server's side: attaches servers, passes their replies on, and keeps the time of interrupts.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "internal.h"

/* L */
static void detach(struct channel *channel)
{
	struct request *request = channel->first, *after;
	bool reached = channel->greeted;

	close(channel->server);
	channel->server = -1;
	channel->stalled = false;
	channel->greeted = false;
	channel->granted = 0;
	channel->forgotten.batch.count = 0;
	for (; request; request = after) {
		after = request->after;
		/* From the first that was not sent on, none was: this server did not die of them.
		 */
		if (request == channel->unsent)
			reached = false;
		if (reached)
			request->deaths++;
		if (request->answered || request->replyless || request->greeting) {
			if (request->answered)
				invalidate_doubtful(channel, request);
			request_remove(channel, request);
		} else if (request->opcode == FUSE_STATFS && channel->statfs_known) {
			channel->count.answered[FUSE_STATFS]++;
			answer(channel, request->entry.key, 0, &channel->statfs,
			       sizeof(channel->statfs));
			request_remove(channel, request);
		}
	}
	channel->unsent = channel->first;
	channel_signal(channel);
}

int channel_attach(struct channel *channel, int socket)
{
	const int room = 2 * CHANNEL_MESSAGE_MAX;
	struct request *request, *after, *greeting = NULL;

	/* Without the right for more than the system's limit, that limit must do. */
	if (setsockopt(socket, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)))
		setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	pthread_mutex_lock(&channel->lock);
	if (channel->ended || channel->server >= 0) {
		int error = channel->ended ? -ENODEV : -EBUSY;

		pthread_mutex_unlock(&channel->lock);
		return error;
	}
	if (channel->ready) {
		greeting = request_make(channel->init->message, channel->init->length);
		if (!greeting) {
			pthread_mutex_unlock(&channel->lock);
			return -ENOMEM;
		}
		greeting->greeting = true;
	}
	for (request = channel->first; request; request = after) {
		after = request->after;
		if (!request->sends)
			continue;
		if (request->deaths >= channel->set.deaths_max) {
			answer(channel, request->entry.key, -EIO, NULL, 0);
			request_remove(channel, request);
			continue;
		}
		((struct fuse_in_header *)request->message)->pid |= SENT_AGAIN;
		channel->count.resent++;
	}
	if (greeting) {
		/* libfuse wants INIT before all else; the others move behind it. */
		request_append(channel, greeting);
		if (channel->first != greeting) {
			channel->last = greeting->before;
			channel->last->after = NULL;
			greeting->before = NULL;
			greeting->after = channel->first;
			channel->first->before = greeting;
			channel->first = greeting;
		}
	}
	channel->server = socket;
	channel->inherited = channel->ready;
	channel->unsent = channel->first;
	flush_requests(channel);
	/* What the last server would have told, nobody tells now. */
	wake_pollers(channel);
	pthread_mutex_unlock(&channel->lock);
	channel_wake(channel);
	channel_signal(channel);
	return 0;
}

enum change {
	CHECK_ONLY,
	COUNT,
	TAKE_BACK,
};

/* Changes the look-ups of each entry of a READDIRPLUS reply; false: it is malformed. L */
static bool change_directory(struct channel *channel, const char *body, size_t length,
			     enum change change)
{
	const size_t fixed = sizeof(struct fuse_direntplus);
	size_t offset = 0;

	while (length - offset >= fixed) {
		const struct fuse_direntplus *entry = (const void *)(body + offset);
		const size_t size = (fixed + entry->dirent.namelen + 7) & ~(size_t)7;
		const char *name = entry->dirent.name;
		const size_t namelen = entry->dirent.namelen;

		if (!namelen || size > length - offset)
			return false;
		offset += size;
		/* The kernel takes no look-up for these two. */
		if (name[0] == '.' && (namelen == 1 || (namelen == 2 && name[1] == '.')))
			continue;
		if (!entry->entry_out.nodeid)
			continue;
		if (change == TAKE_BACK)
			node_forget(channel, entry->entry_out.nodeid, 1);
		else if (change == COUNT)
			node_count(channel, entry->entry_out.nodeid);
	}
	return offset == length;
}

static bool makes_entry(uint32_t opcode)
{
	return opcode == FUSE_LOOKUP || opcode == FUSE_CREATE || opcode == FUSE_MKNOD ||
	       opcode == FUSE_MKDIR || opcode == FUSE_SYMLINK || opcode == FUSE_LINK;
}

/*
 * Look-ups are counted before the reply is written: the kernel may forget the node before the
 * writer runs again. They are taken back when nobody was there to take the reply. L
 */
static bool count_lookups(struct channel *channel, uint32_t opcode, const char *body, size_t length,
			  bool forget)
{
	/* Checked first: of a malformed reply the kernel takes no look-up at all. */
	if (opcode == FUSE_READDIRPLUS)
		return change_directory(channel, body, length, CHECK_ONLY) &&
		       change_directory(channel, body, length, forget ? TAKE_BACK : COUNT);
	if (makes_entry(opcode)) {
		const struct fuse_entry_out *entry = (const void *)body;

		if (length !=
		    (opcode == FUSE_CREATE ? sizeof(struct create_reply) : sizeof(*entry)))
			return false;
		if (forget)
			node_forget(channel, entry->nodeid, 1);
		else
			node_count(channel, entry->nodeid);
	}
	return true;
}

/* Keeps a fresh backing id for the node, or closes it. L */
static void drop_open(struct channel *channel, uint64_t id, struct open_reply *open)
{
	if (!channel->passthrough || (int32_t)open->fh <= 0)
		return;
	if (node_find(channel, id)) {
		edit_open_reply(channel, id, open);
		node_released(channel, id);
	} else {
		queue_close(channel, offered_backing(channel, open));
	}
}

/* A reply that came too late: of use is only what was done, and a backing id in it. L */
static void drop_reply(struct channel *channel, const struct request *request, char *body,
		       size_t length)
{
	struct create_reply *create = (void *)body;

	channel->count.dropped++;
	invalidate_doubtful(channel, request);
	if (request->opcode == FUSE_OPEN && length == sizeof(struct open_reply))
		drop_open(channel, request->node, (void *)body);
	if (request->opcode == FUSE_CREATE && length == sizeof(*create))
		drop_open(channel, create->entry.nodeid, &create->open);
}

/* Edits and counts a successful reply; false: it is malformed. L */
static bool edit_reply(struct channel *channel, const struct request *request, char *body,
		       size_t length)
{
	switch (request->opcode) {
	case FUSE_INIT:
		return edit_init_reply(channel, body, length);
	case FUSE_OPEN:
		return length == sizeof(struct open_reply) &&
		       edit_open_reply(channel, request->node, (void *)body);
	case FUSE_CREATE:
		if (length != sizeof(struct create_reply))
			return false;
		if (!((struct fuse_entry_out *)body)->nodeid) {
			drop_open(channel, 0, &((struct create_reply *)body)->open);
			return false;
		}
		if (!edit_open_reply(channel, ((struct fuse_entry_out *)body)->nodeid,
				     &((struct create_reply *)body)->open))
			return false;
		break;
	case FUSE_STATFS:
		if (length != sizeof(channel->statfs))
			return false;
		memcpy(&channel->statfs, body, length);
		channel->statfs_known = true;
		break;
	default:
		break;
	}
	return count_lookups(channel, request->opcode, body, length, false);
}

/* What the server has been asked to open counts: it may have agreed, its reply still to come. L */
static bool is_open(const struct channel *channel, const struct node *node)
{
	const struct request *request = node->opens ? NULL : channel->first;

	while (request && (request->opcode != FUSE_OPEN || request->node != node->entry.key ||
			   request->answered))
		request = request->after;
	return node->opens || request;
}

static void one_notification(struct channel *channel, const char *message, size_t length)
{
	const struct fuse_out_header *header = (const void *)message;
	const char *body = message + sizeof(*header);
	const size_t rest = length - sizeof(*header);
	size_t i;

	pthread_mutex_lock(&channel->lock);
	switch (header->error) {
	case PRIVATE_GRANT:
		if (rest == sizeof(uint64_t) && channel->set.areas > 0)
			memcpy(&channel->granted, body, sizeof(uint64_t));
		break;
	case PRIVATE_WATCH:
		for (i = 0; i + sizeof(uint64_t) <= rest; i += sizeof(uint64_t)) {
			struct node *node;
			uint64_t id;

			memcpy(&id, body + i, sizeof(id));
			node = node_make(channel, id);
			if (!node)
				continue;
			node->watched = true;
			if (!node->lookups)
				node_forget(channel, id, 0);
		}
		break;
	case PRIVATE_ASK:
		if (rest == sizeof(uint64_t)) {
			struct node *node;
			uint64_t id;

			memcpy(&id, body, sizeof(id));
			node = node_find(channel, id);
			if (!node || !node->lookups) {
				tell_forgotten(channel, id, FORGET_DONE);
				break;
			}
			node->watched = true;
			node->emptied = !is_open(channel, node);
			tell_forgotten(channel, id, node->emptied ? FORGET_UNOPENED : FORGET_OPEN);
		}
		break;
	case NOTIFY_POLL:
		if (rest == sizeof(struct fuse_notify_poll_wakeup_out)) {
			const struct fuse_notify_poll_wakeup_out *wakeup = (const void *)body;
			struct entry *entry = table_find(&channel->pollers, wakeup->kh);

			if (entry) {
				table_remove(&channel->pollers, entry);
				free(entry);
			}
		}
		queue_notification(channel, message, length);
		break;
	case NOTIFY_INVAL_INODE:
	case NOTIFY_INVAL_ENTRY:
	case NOTIFY_STORE:
	case NOTIFY_DELETE:
		queue_notification(channel, message, length);
		break;
	default:
		channel->count.malformed++;
		break;
	}
	pthread_mutex_unlock(&channel->lock);
}

/* A server may send several in one packet, which costs it as much as one. */
static void from_server_notifications(struct channel *channel, const char *message, size_t length)
{
	while (length >= sizeof(struct fuse_out_header)) {
		const struct fuse_out_header *header = (const void *)message;

		if (header->len < sizeof(*header) || header->len > length || header->unique)
			break;
		one_notification(channel, message, header->len);
		length -= header->len;
		message += header->len;
		if (header->len % 8)
			break;
	}
	if (length) {
		pthread_mutex_lock(&channel->lock);
		channel->count.malformed++;
		pthread_mutex_unlock(&channel->lock);
	}
}

/* The kernel has been told what the first server said to INIT. */
static void begin(struct channel *channel, bool well)
{
	bool rings;

	pthread_mutex_lock(&channel->lock);
	channel->ready = well;
	rings = channel->ringing = channel->ringing && well;
	pthread_mutex_unlock(&channel->lock);
	if (channel->rings)
		rings_begin(channel->rings, rings);
	channel_signal(channel);
}

static void from_server(struct channel *channel, char *message, size_t length)
{
	struct fuse_out_header *header = (void *)message;
	char *body = message + sizeof(*header);
	struct request *request;
	uint64_t unique, node;
	uint32_t opcode;
	bool greeting;
	int failed;

	if (length >= sizeof(*header) && length <= CHANNEL_MESSAGE_MAX && !header->unique) {
		from_server_notifications(channel, message, length);
		return;
	}
	if (length < sizeof(*header) || length > CHANNEL_MESSAGE_MAX || header->len != length) {
		pthread_mutex_lock(&channel->lock);
		channel->count.malformed++;
		pthread_mutex_unlock(&channel->lock);
		if (length < sizeof(*header) || !header->unique)
			return;
		/* A client may wait for what this should have been: it gets EIO, not eternity. */
		*header = (struct fuse_out_header){ .len = sizeof(*header),
						    .error = -EIO,
						    .unique = header->unique };
		length = sizeof(*header);
	}
	unique = header->unique;
	pthread_mutex_lock(&channel->lock);
	request = (struct request *)table_find(&channel->requests, unique);
	if (!request || !request->sends) {
		channel->count.dropped++;
		goto unlock;
	}
	if (request->answered) {
		if (!header->error)
			drop_reply(channel, request, body, length - sizeof(*header));
		else
			channel->count.dropped++;
		request_remove(channel, request);
		goto unlock;
	}
	opcode = request->opcode;
	node = request->node;
	greeting = request->greeting;
	if (opcode == FUSE_INIT)
		channel->greeted = true;
	if (!greeting &&
	    (header->error > 0 || header->error <= -512 ||
	     (!header->error && !edit_reply(channel, request, body, length - sizeof(*header))))) {
		channel->count.malformed++;
		*header = (struct fuse_out_header){ .len = sizeof(*header),
						    .error = -EIO,
						    .unique = unique };
		length = sizeof(*header);
	}
	if (!greeting)
		channel->count.replies++;
	request_remove(channel, request);
	pthread_mutex_unlock(&channel->lock);
	if (greeting)
		return;
	failed = answer(channel, unique, header->error, body, length - sizeof(*header));
	if (failed && !header->error) {
		pthread_mutex_lock(&channel->lock);
		channel->count.dropped++;
		/* First the open: taking the look-up back may free the node. */
		if (opcode == FUSE_OPEN) {
			node_released(channel, node);
			/* Made by this reply alone: its client has gone, and the kernel's node too.
			 */
			if (node_find(channel, node) && !node_find(channel, node)->lookups)
				node_forget(channel, node, 0);
		}
		if (opcode == FUSE_CREATE)
			node_released(channel, ((struct fuse_entry_out *)body)->nodeid);
		count_lookups(channel, opcode, body, length - sizeof(*header), true);
		pthread_mutex_unlock(&channel->lock);
	}
	if (opcode == FUSE_INIT)
		begin(channel, !header->error && !failed);
	return;
unlock:
	pthread_mutex_unlock(&channel->lock);
}

/* Reads what the server has sent; false: it has gone. */
static bool drain(struct channel *channel, int server, char *message)
{
	for (;;) {
		/* MSG_TRUNC: the true length, so that a packet that is too long is known as such.
		 */
		ssize_t length =
			recv(server, message, CHANNEL_MESSAGE_MAX, MSG_DONTWAIT | MSG_TRUNC);

		/* A reset comes first, but what the server wrote before its death is there. */
		if (length < 0 && (errno == EINTR || errno == ECONNRESET))
			continue;
		if (length < 0)
			return errno == EAGAIN;
		if (length == 0)
			return false;
		from_server(channel, message, (size_t)length);
	}
}

/* Milliseconds until then, at least 1. */
static int until(uint64_t then)
{
	const uint64_t now = now_ms();

	return then > now ? (int)(then - now) : 1;
}

void *server_loop(void *argument)
{
	struct channel *channel = argument;
	uint64_t wakes;

	for (;;) {
		struct pollfd polled[2] = { { .fd = channel->wake, .events = POLLIN } };
		int timeout = -1;
		bool ended;

		pthread_mutex_lock(&channel->lock);
		ended = channel->ended;
		polled[1].fd = channel->server;
		polled[1].events = (short)(POLLIN | (channel->stalled ? POLLOUT : 0));
		/* Room can be missing elsewhere than in the socket, so do not wait for it alone. */
		if (channel->stalled)
			timeout = 50;
		if (channel->interrupts)
			timeout = 10;
		else if (channel->look_at)
			timeout = until(channel->look_at);
		if (channel->forgotten.batch.count)
			timeout = (int)channel->set.forget_ms;
		pthread_mutex_unlock(&channel->lock);
		if (ended)
			break;
		/* Whatever it is, want of memory say, passes; a mount without this thread hangs. */
		if (poll(polled, 2, timeout) < 0)
			continue;
		if ((polled[0].revents & POLLIN) && read(channel->wake, &wakes, sizeof(wakes)) < 0)
			continue;
		if (polled[1].fd >= 0 && polled[1].revents & (POLLIN | POLLHUP | POLLERR) &&
		    !drain(channel, polled[1].fd, channel->server_message)) {
			pthread_mutex_lock(&channel->lock);
			detach(channel);
			pthread_mutex_unlock(&channel->lock);
		}
		pthread_mutex_lock(&channel->lock);
		if (channel->stalled)
			flush_requests(channel);
		mark_untold(channel);
		if (channel->interrupts)
			answer_interrupted(channel);
		if (channel->forgotten.batch.count &&
		    now_ms() >= channel->forgotten_since + channel->set.forget_ms)
			flush_forgotten(channel);
		pthread_mutex_unlock(&channel->lock);
	}
	return NULL;
}
