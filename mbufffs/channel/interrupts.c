// SPDX-License-Identifier: MIT
/*
 * Clients that a signal has reached. The kernel tells by INTERRUPT, which comes by the device also
 * where requests come by rings, and may overtake its request there. Of a signal that came after the
 * client had asked, and before its request was handed over to a ring, it does not tell at all (seen
 * on 6.18): that client would wait, for SIGKILL even, until there is an answer. So the clients of
 * such requests are looked at.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

#define LOOK_FIRST 10	/* ms that a request has been here: signals are told of from then on */
#define LOOK_AGAIN 1000 /* ms: it tells once, and may do so when the client does not wait yet */
#define LOOKS 8		/* at once, as the lock is held meanwhile */
#define KILLED (UINT64_C(1) << (SIGKILL - 1))
#define DYING_GRACE 20 /* ms that the request of a client that ends anyway may still take */

/* The number in base 16 that follows the word, 0 if there is none. */
static uint64_t set_after(const char *text, const char *word)
{
	const char *found = strstr(text, word);

	return found ? strtoull(found + strlen(word), NULL, 16) : 0;
}

/* The signals that wait for this thread; SIGKILL is one where it is ending, but for a core dump. */
static uint64_t signals_of(uint32_t thread)
{
	char path[32], text[16384];
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/status", thread);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0)
		return 0;
	text[length] = 0;
	return (set_after(text, "\nSigPnd:") | set_after(text, "\nShdPnd:")) &
	       ~set_after(text, "\nSigBlk:");
}

static uint64_t signals_for(const struct request *request)
{
	const struct fuse_in_header *header = (const void *)request->message;

	return signals_of(header->pid & ~SENT_AGAIN);
}

static void mark(struct channel *channel, struct request *request, uint64_t signals)
{
	const uint64_t grace = channel->set.grace_ms;

	request->interrupted = now_ms() + 1;
	/* The answer does not matter to it, and others may wait for what it has locked. */
	if ((signals & KILLED) && grace > DYING_GRACE && request->interrupted > grace)
		request->interrupted -= grace - DYING_GRACE;
	channel->interrupts++;
	channel_wake(channel);
}

void interrupt(struct channel *channel, uint64_t unique)
{
	struct request *request;

	pthread_mutex_lock(&channel->lock);
	request = (struct request *)table_find(&channel->requests, unique);
	/* INIT has no client that could be interrupted. */
	if (request && !request->interrupted && !request->greeting)
		mark(channel, request, signals_for(request));
	pthread_mutex_unlock(&channel->lock);
}

void look_later(struct channel *channel, struct request *request)
{
	if (!channel->ringing)
		return;
	request->look_at = now_ms() + LOOK_FIRST;
	if (!channel->look_at) {
		channel->look_at = request->look_at;
		channel_wake(channel); /* which keeps the time */
	}
}

void mark_untold(struct channel *channel)
{
	struct request *request;
	uint64_t now;
	int looks = 0;

	if (!channel->look_at)
		return;
	now = now_ms();
	if (now < channel->look_at)
		return;
	channel->look_at = 0;
	for (request = channel->first; request; request = request->after) {
		uint64_t signals;

		if (!request->look_at || request->interrupted)
			continue;
		if (now >= request->look_at && looks++ < LOOKS) {
			request->look_at = now + LOOK_AGAIN;
			signals = signals_for(request);
			if (signals) {
				mark(channel, request, signals);
				continue;
			}
		}
		if (!channel->look_at || request->look_at < channel->look_at)
			channel->look_at = request->look_at;
	}
}

void answer_interrupted(struct channel *channel)
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
			if (request->sends)
				invalidate_doubtful(channel, request);
			request_remove(channel, request);
			continue;
		}
		/* Its reply is still to come and may carry a backing id. */
		request->answered = true;
		channel->interrupts--;
	}
}
