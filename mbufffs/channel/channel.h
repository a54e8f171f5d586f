/* SPDX-License-Identifier: MIT */
/*
 * The channel: carries FUSE messages between the kernel's connection and whichever server is alive,
 * and answers what needs no decision. It knows nothing of Python, of mounting, or of processes.
 */
#ifndef MBUFFFS_CHANNEL_H
#define MBUFFFS_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHANNEL_OPCODES 64

/* The largest message either side may send: a WRITE or READ reply of 32 pages, and headers. */
#define CHANNEL_MESSAGE_MAX (1u << 20)

struct channel_settings {
	int device;	  /* the /dev/fuse descriptor; the caller's, stays open while threads run */
	bool passthrough; /* ask the kernel for it; it may decline */
	bool rings;	/* FUSE over io_uring where passthrough is granted, if the kernel has it */
	bool elsewhere; /* directories change by other means than this mount, too */
	uint32_t grace_ms;   /* how long an interrupted request may wait for its reply */
	size_t keep_limit;   /* bytes of unanswered requests; more are refused with ENOMEM */
	uint32_t deaths_max; /* servers at work that may die over one request before it gets EIO */
	uint32_t forget_ms;  /* how long forgotten nodes may wait, to be told together */
	uint32_t linger_us;  /* how long the kernel's next message is awaited without sleeping */
	int areas; /* the root of the store, for what servers grant; the caller's. 0: there is none
		    */
	/* Begins a backing id (an ioctl on the device) for an open file: above 0, or -errno. */
	int (*open_backing)(void *context, int fd);
	/* Ends one; called from a thread of its own. */
	void (*close_backing)(void *context, int32_t id);
	void *context;
};

enum channel_state {
	CHANNEL_IDLE,	 /* no server: requests are kept */
	CHANNEL_SERVING, /* a server is attached */
	CHANNEL_ENDED,	 /* the mount is gone: nothing more will come */
};

struct channel_counters {
	uint64_t received[CHANNEL_OPCODES]; /* messages of the kernel */
	uint64_t answered[CHANNEL_OPCODES]; /* of these, answered without the server */
	uint64_t ringed;		    /* of the kernel's messages, come by a ring */
	uint64_t forwarded;		    /* messages to servers, those sent again too */
	uint64_t replies;		    /* replies of servers that were passed on */
	uint64_t resent;		    /* requests sent to another server once more */
	uint64_t dropped;		    /* replies that nobody waited for any more */
	uint64_t malformed;   /* messages of a wrong length or kind, from either side */
	uint64_t interrupted; /* requests answered EINTR */
	uint64_t kept;	      /* requests unanswered now */
	uint64_t kept_bytes;
	uint64_t nodes;	  /* nodes that the kernel knows now */
	uint64_t backing; /* of these, with a backing id */
};

struct channel;

/* NULL with errno on failure. Starts no thread yet. */
struct channel *channel_new(const struct channel_settings *settings);

/* Starts the threads; 0 or -errno. */
int channel_start(struct channel *channel);

/*
 * Gives the channel a new server's socket (SOCK_SEQPACKET). The channel owns it from then on.
 * -EBUSY while the last server's socket has not ended, -ENODEV once the mount is gone; the caller
 * keeps the descriptor on failure.
 */
int channel_attach(struct channel *channel, int socket);

/* An eventfd that counts changes of what the four functions below return. */
int channel_event(const struct channel *channel);

enum channel_state channel_state(struct channel *channel);
bool channel_ready(struct channel *channel);	   /* INIT has been answered */
bool channel_passthrough(struct channel *channel); /* ... and passthrough was granted */
bool channel_rings(struct channel *channel);	   /* ... and io_uring */
int channel_error(struct channel *channel); /* an errno: it has ended for it, not with the mount */

void channel_counters(struct channel *channel, struct channel_counters *counters);

/*
 * Waits for the threads, which end when reading the device fails, and frees everything. The caller
 * has ended the connection before (unmounted, or shut the socket down that stands for it).
 */
void channel_free(struct channel *channel);

#endif
