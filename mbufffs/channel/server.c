// SPDX-License-Identifier: MIT
/* The server's side: attaches servers, passes their replies on, and keeps the time of interrupts. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "internal.h"

/* Answers with EINTR those whose clients have waited long enough after a signal. L */
static void answer_interrupted(struct channel *channel)
{
	const uint64_t now = now_ms();
	struct request *request = channel->first, *after;

	for (; request && channel->interrupts; request = after) {
		after = request->after;
		if (!request->interrupted || request->answered ||
		    now < request->interrupted + channel->set.grace_ms)
			continue;
		answer(channel, request->entry.key, -EINTR, NULL, 0);
		channel->count.interrupted++;
		if (!request->sends || channel->server < 0) {
			request_remove(channel, request);
			continue;
		}
		/* Its reply is still to come and may carry a backing id. */
		request->answered = true;
		channel->interrupts--;
	}
}

/* L */
static void detach(struct channel *channel)
{
	struct request *request = channel->first, *after;

	close(channel->server);
	channel->server = -1;
	channel->stalled = false;
	for (; request; request = after) {
		after = request->after;
		if (request->opcode == FUSE_STATFS && channel->statfs_known) {
			channel->count.answered[FUSE_STATFS]++;
			answer(channel, request->entry.key, 0, &channel->statfs,
			       sizeof(channel->statfs));
			request_remove(channel, request);
		} else if (request->answered || request->replyless || request->greeting) {
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
		if (request->sends >= channel->set.sends_max) {
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
	channel->unsent = channel->first;
	flush_requests(channel);
	/* What the last server would have told, nobody tells now. */
	wake_pollers(channel);
	pthread_mutex_unlock(&channel->lock);
	channel_wake(channel);
	channel_signal(channel);
	return 0;
}

/* Adds `sign` look-ups for each entry of a READDIRPLUS reply; false: it is malformed. L */
static bool count_directory(struct channel *channel, const char *body, size_t length, bool forget)
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
		if (forget)
			node_forget(channel, entry->entry_out.nodeid, 1);
		else
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
	if (opcode == FUSE_READDIRPLUS)
		return count_directory(channel, body, length, forget);
	if (makes_entry(opcode)) {
		const struct fuse_entry_out *entry = (const void *)body;

		if (length < sizeof(*entry))
			return false;
		if (forget)
			node_forget(channel, entry->nodeid, 1);
		else
			node_count(channel, entry->nodeid);
	}
	return true;
}

/* A reply that came too late: nothing but a backing id in it needs care. L */
static void drop_reply(struct channel *channel, const struct request *request, char *body,
		       size_t length)
{
	struct open_reply *open = NULL;
	uint64_t id = request->node;

	channel->count.dropped++;
	if (request->opcode == FUSE_OPEN && length == sizeof(*open)) {
		open = (void *)body;
	} else if (request->opcode == FUSE_CREATE && length == sizeof(struct create_reply)) {
		open = &((struct create_reply *)body)->open;
		id = ((struct create_reply *)body)->entry.nodeid;
	}
	if (!open || !channel->passthrough || (int32_t)open->fh <= 0)
		return;
	if (node_find(channel, id)) {
		edit_open_reply(channel, id, open);
		node_released(channel, id);
	} else {
		queue_close(channel, (int32_t)open->fh);
	}
}

/* Edits and counts a successful reply; false: it is malformed. L */
static bool edit_reply(struct channel *channel, const struct request *request, char *body,
		       size_t length)
{
	switch (request->opcode) {
	case FUSE_INIT:
		if (!edit_init_reply(channel, body, length))
			return false;
		channel->ready = true;
		break;
	case FUSE_OPEN:
		return length == sizeof(struct open_reply) &&
		       edit_open_reply(channel, request->node, (void *)body);
	case FUSE_CREATE:
		if (length != sizeof(struct create_reply) || !((struct fuse_entry_out *)body)->nodeid)
			return false;
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

static void from_server_notification(struct channel *channel, const char *message, size_t length)
{
	const struct fuse_out_header *header = (const void *)message;
	const char *body = message + sizeof(*header);
	const size_t rest = length - sizeof(*header);
	size_t i;

	pthread_mutex_lock(&channel->lock);
	switch (header->error) {
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
			node->emptied = !node->opens;
			tell_forgotten(channel, id, node->opens ? FORGET_OPEN : FORGET_UNOPENED);
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

static void from_server(struct channel *channel, char *message, size_t length)
{
	struct fuse_out_header *header = (void *)message;
	char *body = message + sizeof(*header);
	struct request *request;
	uint64_t unique, node;
	uint32_t opcode;
	bool greeting;

	if (length < sizeof(*header) || length > CHANNEL_MESSAGE_MAX || header->len != length) {
		pthread_mutex_lock(&channel->lock);
		/* A client may wait for what this should have been: it gets EIO, not eternity. */
		request = length < sizeof(*header) ?
				  NULL :
				  (struct request *)table_find(&channel->requests, header->unique);
		channel->count.malformed++;
		if (request) {
			answer(channel, request->entry.key, -EIO, NULL, 0);
			request_remove(channel, request);
		}
		pthread_mutex_unlock(&channel->lock);
		return;
	}
	unique = header->unique;
	if (!unique) {
		from_server_notification(channel, message, length);
		return;
	}
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
	if (write_device(channel, message, length) && !header->error) {
		pthread_mutex_lock(&channel->lock);
		channel->count.dropped++;
		/* First the open: taking the look-up back may free the node. */
		if (opcode == FUSE_OPEN)
			node_released(channel, node);
		if (opcode == FUSE_CREATE)
			node_released(channel, ((struct fuse_entry_out *)body)->nodeid);
		count_lookups(channel, opcode, body, length - sizeof(*header), true);
		pthread_mutex_unlock(&channel->lock);
	}
	if (opcode == FUSE_INIT)
		channel_signal(channel);
	return;
unlock:
	pthread_mutex_unlock(&channel->lock);
}

/* Reads what the server has sent; false: it has gone. */
static bool drain(struct channel *channel, int server, char *message)
{
	for (;;) {
		/* MSG_TRUNC: the true length, so that a packet that is too long is known as such. */
		ssize_t length = recv(server, message, CHANNEL_MESSAGE_MAX, MSG_DONTWAIT | MSG_TRUNC);

		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0)
			return errno == EAGAIN;
		if (length == 0)
			return false;
		from_server(channel, message, (size_t)length);
	}
}

void *server_loop(void *argument)
{
	struct channel *channel = argument;
	char *message = malloc(CHANNEL_MESSAGE_MAX);
	uint64_t wakes;

	for (;;) {
		struct pollfd polled[2] = { { .fd = channel->wake, .events = POLLIN } };
		int timeout = -1;
		bool ended;

		pthread_mutex_lock(&channel->lock);
		ended = channel->ended || !message;
		polled[1].fd = channel->server;
		polled[1].events = (short)(POLLIN | (channel->stalled ? POLLOUT : 0));
		/* Room can be missing elsewhere than in the socket, so do not wait for it alone. */
		if (channel->interrupts || channel->stalled)
			timeout = 50;
		pthread_mutex_unlock(&channel->lock);
		if (ended)
			break;
		if (poll(polled, 2, timeout) < 0 && errno != EINTR)
			break;
		if ((polled[0].revents & POLLIN) && read(channel->wake, &wakes, sizeof(wakes)) < 0 &&
		    errno != EAGAIN)
			break;
		if (polled[1].fd >= 0 && polled[1].revents & (POLLIN | POLLHUP | POLLERR) &&
		    !drain(channel, polled[1].fd, message)) {
			pthread_mutex_lock(&channel->lock);
			detach(channel);
			pthread_mutex_unlock(&channel->lock);
		}
		pthread_mutex_lock(&channel->lock);
		if (channel->stalled)
			flush_requests(channel);
		if (channel->interrupts)
			answer_interrupted(channel);
		pthread_mutex_unlock(&channel->lock);
	}
	free(message);
	return NULL;
}
