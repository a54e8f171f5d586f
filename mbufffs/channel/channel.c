// SPDX-License-Identifier: MIT
/* The channel's life, its table of nodes and its list of requests; what both directions use. */
#include "channel.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t now_ms(void)
{
	return now_us() / 1000;
}

void count_event(int fd)
{
	const uint64_t one = 1;

	/* Fails only when the counter is full, and then the reader is awake anyway. */
	if (write(fd, &one, sizeof(one)) < 0)
		return;
}

void channel_signal(struct channel *channel)
{
	count_event(channel->event);
}

void channel_wake(struct channel *channel)
{
	count_event(channel->wake);
}

void channel_end(struct channel *channel)
{
	pthread_mutex_lock(&channel->lock);
	channel->ended = true;
	if (channel->server >= 0)
		shutdown(channel->server, SHUT_RDWR);
	pthread_cond_signal(&channel->work);
	pthread_mutex_unlock(&channel->lock);
	if (channel->rings)
		rings_end(channel->rings);
	channel_wake(channel);
	channel_signal(channel);
}

void channel_fail(struct channel *channel, int error)
{
	pthread_mutex_lock(&channel->lock);
	if (!channel->ended && !channel->error)
		channel->error = error;
	pthread_mutex_unlock(&channel->lock);
	channel_end(channel);
}

/* 0 or -errno; -ENOENT: nobody waits for this reply any more. A ring does not say. */
int answer(struct channel *channel, uint64_t unique, int error, const void *body, size_t length)
{
	struct fuse_out_header header = {
		.len = (uint32_t)(sizeof(header) + length),
		.error = error,
		.unique = unique,
	};
	struct iovec parts[2] = {
		{ .iov_base = &header, .iov_len = sizeof(header) },
		{ .iov_base = (void *)body, .iov_len = length },
	};

	ssize_t written;

	if (channel->rings && rings_answer(channel->rings, unique, error, body, length))
		return 0;
	do
		written = writev(channel->set.device, parts, length ? 2 : 1);
	while (written < 0 && errno == EINTR);
	return written < 0 ? -errno : 0;
}

int answered(struct channel *channel, const struct fuse_in_header *header, int error,
	     const void *body, size_t length)
{
	/* Counted first: whoever sees the answer may ask for the counters next. */
	if (header->opcode < CHANNEL_OPCODES) {
		pthread_mutex_lock(&channel->lock);
		channel->count.answered[header->opcode]++;
		pthread_mutex_unlock(&channel->lock);
	}
	return answer(channel, header->unique, error, body, length);
}

/* Nodes. */

struct node *node_find(struct channel *channel, uint64_t id)
{
	return (struct node *)table_find(&channel->nodes, id);
}

struct node *node_make(struct channel *channel, uint64_t id)
{
	struct node *node = node_find(channel, id);

	if (node)
		return node;
	node = calloc(1, sizeof(*node));
	if (!node)
		return NULL;
	node->entry.key = id;
	table_add(&channel->nodes, &node->entry);
	return node;
}

void node_count(struct channel *channel, uint64_t id)
{
	struct node *node = id ? node_make(channel, id) : NULL;

	if (node)
		node->lookups++;
}

static void send_replyless(struct channel *channel, const void *message, size_t length)
{
	struct request *request = request_make(message, length);

	if (!request)
		return; /* the name stays hidden until the next server asks */
	request->replyless = true;
	request_append(channel, request);
	flush_requests(channel);
}

void flush_forgotten(struct channel *channel)
{
	struct forgotten *message = &channel->forgotten;

	if (!message->batch.count)
		return;
	message->header = (struct fuse_in_header){
		.opcode = FUSE_BATCH_FORGET,
		.len = (uint32_t)offsetof(struct forgotten, nodes[message->batch.count]),
	};
	send_replyless(channel, message, message->header.len);
	message->batch.count = 0;
}

void tell_forgotten(struct channel *channel, uint64_t id, uint64_t what)
{
	const struct {
		struct fuse_in_header header;
		struct fuse_forget_in forget;
	} message = {
		.header = { .len = sizeof(message), .opcode = FUSE_FORGET, .nodeid = id },
		.forget = { .nlookup = what },
	};

	/* A later server asks about all its hidden names when it starts: nothing to keep for it. */
	if (channel->server < 0)
		return;
	flush_forgotten(channel);
	send_replyless(channel, &message, sizeof(message));
}

/* Nobody waits for it, and one message of many costs the server little more than one of one. L */
static void tell_forgotten_later(struct channel *channel, uint64_t id)
{
	struct forgotten *message = &channel->forgotten;

	if (channel->server < 0)
		return;
	if (!message->batch.count) {
		channel->forgotten_since = now_ms();
		channel_wake(channel); /* which keeps the time */
	}
	message->nodes[message->batch.count++] =
		(struct fuse_forget_one){ .nodeid = id, .nlookup = FORGET_DONE };
	if (!channel->set.forget_ms || message->batch.count == FORGOTTEN_MAX)
		flush_forgotten(channel);
}

static void queue_job(struct channel *channel, struct job *job)
{
	job->after = NULL;
	*channel->jobs_end = job;
	channel->jobs_end = &job->after;
	pthread_cond_signal(&channel->work);
}

/* L */
static void queue_close_job(struct channel *channel, int32_t backing, bool light)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return; /* the kernel keeps the file until the mount goes */
	job->close = backing;
	if (light) {
		job->after = channel->light;
		channel->light = job;
	} else {
		queue_job(channel, job);
	}
}

void node_forget(struct channel *channel, uint64_t id, uint64_t lookups)
{
	struct node *node = node_find(channel, id);

	if (!node)
		return;
	if (node->lookups > lookups) {
		node->lookups -= lookups;
		return;
	}
	table_remove(&channel->nodes, &node->entry);
	/* First the close: the memory of a removed area is to be back when its name goes. */
	if (node->backing) {
		channel->count.backing--;
		queue_close_job(channel, node->backing, node->removed && !node->reopened);
		if (node->removed)
			channel->returning = true;
	}
	if (node->watched)
		tell_forgotten_later(channel, id);
	free(node);
}

void node_released(struct channel *channel, uint64_t id)
{
	struct node *node = node_find(channel, id);

	if (node && node->opens)
		node->opens--;
}

/* Jobs. */

void queue_close(struct channel *channel, int32_t backing)
{
	queue_close_job(channel, backing, false);
}

void queue_notification(struct channel *channel, const void *message, size_t length)
{
	struct job *job = NULL;

	/* A client that keeps the kernel from taking them must not fill this process's memory. */
	if (channel->notifications < NOTIFICATIONS_MAX)
		job = calloc(1, sizeof(*job) + length);
	if (!job) {
		channel->count.dropped++;
		return;
	}
	channel->notifications++;
	job->length = (uint32_t)length;
	memcpy(job->notification, message, length);
	queue_job(channel, job);
}

/* Makes everybody who polls ask again; a spurious wake-up is allowed, a lost one is not. */
void wake_pollers(struct channel *channel)
{
	size_t slot;

	for (slot = 0; slot <= channel->pollers.mask; slot++) {
		while (channel->pollers.slots[slot]) {
			struct entry *entry = channel->pollers.slots[slot];
			struct {
				struct fuse_out_header header;
				struct fuse_notify_poll_wakeup_out wakeup;
			} notification = {
				.header = { .len = sizeof(notification), .error = NOTIFY_POLL },
				.wakeup = { .kh = entry->key },
			};

			queue_notification(channel, &notification, sizeof(notification));
			table_remove(&channel->pollers, entry);
			free(entry);
		}
	}
}

static void notify(struct channel *channel, const void *message, size_t length)
{
	/* Fails for what the kernel has forgotten meanwhile. */
	while (write(channel->set.device, message, length) < 0 && errno == EINTR)
		;
}

/* Frees it. */
static void do_job(struct channel *channel, struct job *job)
{
	if (job->length)
		notify(channel, job->notification, job->length);
	if (job->close)
		channel->set.close_backing(channel->set.context, job->close);
	free(job);
}

void do_light_jobs(struct channel *channel)
{
	for (;;) {
		struct job *job;

		pthread_mutex_lock(&channel->lock);
		job = channel->light;
		if (job)
			channel->light = job->after;
		pthread_mutex_unlock(&channel->lock);
		if (!job)
			break;
		do_job(channel, job);
	}
}

static void *worker_loop(void *argument)
{
	struct channel *channel = argument;

	pthread_mutex_lock(&channel->lock);
	for (;;) {
		struct job *job = channel->jobs;

		/* The kernel ends all backing ids itself when the connection goes. */
		if (channel->ended)
			break;
		if (!job) {
			pthread_cond_wait(&channel->work, &channel->lock);
			continue;
		}
		channel->jobs = job->after;
		if (!channel->jobs)
			channel->jobs_end = &channel->jobs;
		if (job->length)
			channel->notifications--;
		pthread_mutex_unlock(&channel->lock);
		do_job(channel, job);
		pthread_mutex_lock(&channel->lock);
	}
	pthread_mutex_unlock(&channel->lock);
	return NULL;
}

/* Requests. */

struct request *request_make(const void *message, size_t length)
{
	const struct fuse_in_header *header = message;
	struct request *request = calloc(1, sizeof(*request) + length);

	if (!request)
		return NULL;
	request->entry.key = header->unique;
	request->node = header->nodeid;
	request->opcode = header->opcode;
	request->length = (uint32_t)length;
	memcpy(request->message, message, length);
	return request;
}

void request_append(struct channel *channel, struct request *request)
{
	request->before = channel->last;
	request->after = NULL;
	if (channel->last)
		channel->last->after = request;
	else
		channel->first = request;
	channel->last = request;
	if (!channel->unsent)
		channel->unsent = request;
	if (!request->replyless)
		table_add(&channel->requests, &request->entry);
	channel->count.kept++;
	channel->count.kept_bytes += request->length;
}

void request_remove(struct channel *channel, struct request *request)
{
	if (channel->unsent == request)
		channel->unsent = request->after;
	if (request->before)
		request->before->after = request->after;
	else
		channel->first = request->after;
	if (request->after)
		request->after->before = request->before;
	else
		channel->last = request->before;
	if (!request->replyless)
		table_remove(&channel->requests, &request->entry);
	if (request->interrupted && !request->answered)
		channel->interrupts--;
	channel->count.kept--;
	channel->count.kept_bytes -= request->length;
	free(request);
}

void flush_requests(struct channel *channel)
{
	channel->stalled = false;
	while (channel->unsent && channel->server >= 0) {
		struct request *request = channel->unsent;
		ssize_t sent = send(channel->server, request->message, request->length,
				    MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EMSGSIZE) {
			answer(channel, request->entry.key, -EIO, NULL, 0);
			request_remove(channel, request);
			continue;
		}
		if (sent < 0) {
			/* Full: the server thread waits until it is not. Gone: it will see that. */
			if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM) {
				channel->stalled = true;
				channel_wake(channel);
			}
			return;
		}
		channel->count.forwarded++;
		request->sends++;
		channel->unsent = request->after;
		if (request->replyless)
			request_remove(channel, request);
	}
}

/* The face. */

struct channel *channel_new(const struct channel_settings *settings)
{
	struct channel *channel = calloc(1, sizeof(*channel));

	if (!channel)
		return NULL;
	channel->set = *settings;
	channel->server = -1;
	channel->pollers_max = POLLERS_FIRST;
	channel->jobs_end = &channel->jobs;
	pthread_mutex_init(&channel->turn, NULL);
	pthread_mutex_init(&channel->lock, NULL);
	pthread_cond_init(&channel->work, NULL);
	channel->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	channel->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (channel->event < 0 || channel->wake < 0 || !table_init(&channel->requests) ||
	    !table_init(&channel->nodes) || !table_init(&channel->pollers) ||
	    !(channel->device_message = malloc(CHANNEL_MESSAGE_MAX)) ||
	    !(channel->server_message = malloc(CHANNEL_MESSAGE_MAX))) {
		int error = errno;

		channel_free(channel);
		errno = error;
		return NULL;
	}
	return channel;
}

int channel_start(struct channel *channel)
{
	int error;

	if (channel->set.rings)
		channel->rings = rings_new(channel);
	error = pthread_create(&channel->worker_thread, NULL, worker_loop, channel);

	if (error)
		return -error;
	error = pthread_create(&channel->server_thread, NULL, server_loop, channel);
	if (error)
		goto end_worker;
	error = pthread_create(&channel->device_thread, NULL, device_loop, channel);
	if (error)
		goto end_server;
	channel->started = true;
	return 0;

end_server:
	channel_end(channel);
	pthread_join(channel->server_thread, NULL);
end_worker:
	channel_end(channel);
	pthread_join(channel->worker_thread, NULL);
	return -error;
}

void channel_free(struct channel *channel)
{
	struct request *request, *after;
	struct job *job;

	if (channel->started) {
		pthread_join(channel->device_thread, NULL);
		pthread_join(channel->server_thread, NULL);
		pthread_join(channel->worker_thread, NULL);
	}
	if (channel->rings)
		rings_free(channel->rings);
	for (request = channel->first; request; request = after) {
		after = request->after;
		request_remove(channel, request);
	}
	while ((job = channel->jobs)) {
		channel->jobs = job->after;
		free(job);
	}
	while ((job = channel->light)) {
		channel->light = job->after;
		free(job);
	}
	free(channel->init);
	free(channel->device_message);
	free(channel->server_message);
	table_free(&channel->requests);
	table_free(&channel->nodes);
	table_free(&channel->pollers);
	if (channel->server >= 0)
		close(channel->server);
	if (channel->event >= 0)
		close(channel->event);
	if (channel->wake >= 0)
		close(channel->wake);
	pthread_cond_destroy(&channel->work);
	pthread_mutex_destroy(&channel->lock);
	pthread_mutex_destroy(&channel->turn);
	free(channel);
}

int channel_event(const struct channel *channel)
{
	return channel->event;
}

enum channel_state channel_state(struct channel *channel)
{
	enum channel_state state;

	pthread_mutex_lock(&channel->lock);
	state = channel->ended	     ? CHANNEL_ENDED :
		channel->server >= 0 ? CHANNEL_SERVING :
				       CHANNEL_IDLE;
	pthread_mutex_unlock(&channel->lock);
	return state;
}

bool channel_ready(struct channel *channel)
{
	bool ready;

	pthread_mutex_lock(&channel->lock);
	ready = channel->ready;
	pthread_mutex_unlock(&channel->lock);
	return ready;
}

bool channel_passthrough(struct channel *channel)
{
	bool passthrough;

	pthread_mutex_lock(&channel->lock);
	passthrough = channel->passthrough;
	pthread_mutex_unlock(&channel->lock);
	return passthrough;
}

bool channel_rings(struct channel *channel)
{
	bool ringing;

	pthread_mutex_lock(&channel->lock);
	ringing = channel->ringing;
	pthread_mutex_unlock(&channel->lock);
	return ringing;
}

int channel_error(struct channel *channel)
{
	int error;

	pthread_mutex_lock(&channel->lock);
	error = channel->error;
	pthread_mutex_unlock(&channel->lock);
	return error;
}

void channel_counters(struct channel *channel, struct channel_counters *counters)
{
	pthread_mutex_lock(&channel->lock);
	*counters = channel->count;
	counters->nodes = channel->nodes.count;
	pthread_mutex_unlock(&channel->lock);
}
