/* SPDX-License-Identifier: MIT */
/*
 * FUSE over io_uring, as Linux 6.14 brought it: one ring for each processor, whose thread is woken
 * where its client waits.
 * FORGET, INTERRUPT and notifications go by the device all the same.
 */
#ifndef MBUFFFS_CHANNEL_RINGS_H
#define MBUFFFS_CHANNEL_RINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct channel;
struct rings;

/* One for each processor, their threads waiting; NULL: io_uring is not to be had. */
struct rings *rings_new(struct channel *channel);

/* Bytes after its header that a message can have at most. */
size_t rings_payload(void);

/* INIT has been answered; `used`: with the flag that asks for them. They begin, or end. */
void rings_begin(struct rings *rings, bool used);

/*
 * Answers the request if it came by a ring; false: it did not. Called by any thread; another's
 * answer takes a moment more to reach the kernel.
 */
bool rings_answer(struct rings *rings, uint64_t unique, int error, const void *body, size_t length);

/* Their threads end; what is unanswered stays so. */
void rings_end(struct rings *rings);

/* Waits for that. */
void rings_free(struct rings *rings);

#endif
