/* SPDX-License-Identifier: MIT */
/* What the channel's C files share: its state, and who may touch it. No other file includes it. */
#ifndef MBUFFFS_CHANNEL_INTERNAL_H
#define MBUFFFS_CHANNEL_INTERNAL_H

#include <pthread.h>

#include "channel.h"
#include "protocol.h"
#include "rings.h"

/* A hash table of entries that are embedded, as first member, in what they find. */
struct entry {
	struct entry *next;
	uint64_t key;
};

struct table {
	struct entry **slots;
	size_t mask, count;
};

bool table_init(struct table *table);
struct entry *table_find(const struct table *table, uint64_t key);
void table_add(struct table *table, struct entry *entry);
void table_remove(struct table *table, struct entry *entry);
/* Frees the entries too: what they are embedded in has them first and is from malloc(). */
void table_free(struct table *table);

/*
 * A request that has no reply yet. It is freed when its reply has come, so that it can be sent to
 * the next server if this one dies. All requests stand in one list in the order of their arrival;
 * those from channel.unsent on have not been sent to the present server.
 */
struct request {
	struct entry entry; /* by unique */
	struct request *before, *after;
	uint64_t node;
	uint64_t interrupted; /* when, in ms of CLOCK_MONOTONIC; 0: not */
	uint64_t look_at;     /* when to look for signals, in ms of CLOCK_MONOTONIC; 0: never */
	uint32_t opcode;
	uint32_t length;
	uint32_t sends;	 /* servers that were sent this request */
	uint32_t deaths; /* of these, that had begun to work and died over it */
	bool answered;	 /* the client has gone with EINTR: drop the reply, do not send again */
	bool greeting;	 /* the kept INIT for a later server: the kernel must not see its reply */
	bool replyless;	 /* a FORGET */
	_Alignas(uint64_t) char message[]; /* a header begins it */
};

/* A node that the kernel knows. It goes when the kernel's count of look-ups reaches 0. */
struct node {
	struct entry entry; /* by node id */
	uint64_t lookups;
	uint64_t opens;	 /* replies to OPEN and CREATE less RELEASEs */
	int32_t backing; /* the backing id of all opens of this node, 0: none yet */
	bool watched;	 /* the server wants to hear of its end */
	bool emptied;	 /* the server was told that it is not open, and decides who may open it */
	bool removed;	 /* by granted.c: only its backing id keeps it */
	bool reopened;	 /* it was open then, or since, or mapped: it may have grown */
};

/* Work that may block in the kernel and so has a thread of its own. What is 0 is not to be done. */
struct job {
	struct job *after;
	int32_t close;	     /* a backing id to end */
	uint32_t length;     /* of: */
	char notification[]; /* a message to write to the device */
};

struct poller {
	struct entry entry; /* by the kernel's poll handle */
};

#define FOREVER 3600	   /* seconds; as in operations.py: all changes come through the mount */
#define POLLERS_FIRST 4096 /* open files that are remembered to be waiting, to begin with */
#define NOTIFICATIONS_MAX 65536
#define FORGOTTEN_MAX 64       /* nodes that one message tells of */
#define BACKINGS_LOST_MAX 4096 /* a wider gap is no gap: the kernel's count has come round */

/* A message that is still being filled; batch.count are in it. */
struct forgotten {
	struct fuse_in_header header;
	struct fuse_batch_forget_in batch;
	struct fuse_forget_one nodes[FORGOTTEN_MAX];
};

/*
 * Threads: the device thread reads the kernel's messages, and so do those of the rings where there
 * are some; the server thread reads the servers' and keeps the time, the worker does jobs. One lock
 * guards everything below it. It is never held over a call that may block, but for a look into
 * /proc: sends to the server are non-blocking, and writing a reply to the device only wakes its
 * waiter. Notifications may wait for locks that a client holds who waits for the server, and
 * closing a backing id may free gigabytes: these are jobs.
 */
struct channel {
	struct channel_settings set;
	int event, wake; /* eventfds: to the caller; to the server thread */
	pthread_t device_thread, server_thread, worker_thread;
	bool started;
	char *device_message, *server_message; /* what each of the two readers reads into */

	struct rings *rings;  /* NULL: none are to be had */
	pthread_mutex_t turn; /* of those who read from the kernel: one message is done at a time */

	pthread_mutex_t lock;
	pthread_cond_t work;
	int server;		 /* the present server's socket, -1: none */
	int32_t backing_highest; /* of all ids that servers have told of */
	bool inherited;		 /* the present server has told of none yet, and is not the first */
	bool greeted;		 /* the present server has answered its INIT */
	uint64_t granted; /* by the present server: bytes of areas that granted.c may change */
	bool returning; /* memory of what granted.c removed may be; servers have not heard of it */
	int error;	/* for which it has ended, the mount being there still; 0: none */
	bool ended, ready, passthrough, ringing, setxattr_ext;
	bool stalled; /* the server's socket was full: wait until it can take more */

	struct table requests, nodes, pollers;
	size_t pollers_max;
	struct request *first, *last, *unsent;
	unsigned interrupts; /* requests with a mark that are not answered */
	uint64_t look_at;    /* the first of these times of requests; 0: never */
	struct job *jobs, **jobs_end;
	unsigned notifications; /* among the jobs */
	struct job *light;	/* of which the device thread does each when it comes up */
	struct request *init;	/* the kernel's INIT, kept for every later server */
	uint32_t minor, offered, offered2; /* what that INIT offered */
	struct forgotten forgotten;	   /* nodes that the server is still to hear of */
	uint64_t forgotten_since; /* when the first of them came, in ms of CLOCK_MONOTONIC */
	struct fuse_statfs_out statfs;
	bool statfs_known;
	uint32_t exchange_tag;
	struct channel_counters count;
};

/* channel.c: what both sides use. Those marked L are called with the lock held. */
void channel_signal(struct channel *channel);
void channel_wake(struct channel *channel);
void channel_end(struct channel *channel);
void channel_fail(struct channel *channel, int error);
void count_event(int fd);
uint64_t now_us(void);
uint64_t now_ms(void);
int answer(struct channel *channel, uint64_t unique, int error, const void *body, size_t length);
int answered(struct channel *channel, const struct fuse_in_header *header, int error,
	     const void *body, size_t length);
struct node *node_find(struct channel *channel, uint64_t id);		  /* L */
struct node *node_make(struct channel *channel, uint64_t id);		  /* L, NULL: no memory */
void node_count(struct channel *channel, uint64_t id);			  /* L */
void tell_forgotten(struct channel *channel, uint64_t id, uint64_t what); /* L */
void flush_forgotten(struct channel *channel);				  /* L */
void node_forget(struct channel *channel, uint64_t id, uint64_t lookups); /* L */
void node_released(struct channel *channel, uint64_t id);		  /* L */
void do_light_jobs(struct channel *channel);
void queue_close(struct channel *channel, int32_t backing);			      /* L */
void queue_notification(struct channel *channel, const void *message, size_t length); /* L */
void wake_pollers(struct channel *channel);					      /* L */
struct request *request_make(const void *message, size_t length);
void request_append(struct channel *channel, struct request *request); /* L */
void request_remove(struct channel *channel, struct request *request); /* L, frees it */
void flush_requests(struct channel *channel);			       /* L */

/* changes.c. The last: nobody knows whether the request has been done; the kernel asks again. L */
bool request_changes_names(const struct request *request);
void invalidate_doubtful(struct channel *channel, const struct request *request);
void invalidate_attributes(struct channel *channel, uint64_t node); /* L */

/* granted.c: false where the server must be asked. */
bool granted_lookup(struct channel *channel, const struct fuse_in_header *header, const char *name);
bool granted_attributes(struct channel *channel, const struct fuse_in_header *header);
/* What O_TRUNC asks for, before the opening: that it is done twice does no harm. */
bool granted_truncation(struct channel *channel, const struct fuse_in_header *header);
bool granted_open(struct channel *channel, const struct fuse_in_header *header);
bool granted_create(struct channel *channel, const struct fuse_in_header *header,
		    const struct fuse_create_in *in, const char *name);
bool granted_resize(struct channel *channel, const struct fuse_in_header *header,
		    const struct fuse_setattr_in *in);
bool granted_unlink(struct channel *channel, const struct fuse_in_header *header, const char *name);

/* interrupts.c */
void interrupt(struct channel *channel, uint64_t unique);
/* The request may have come by a ring: mark_untold() shall look at its client. L */
void look_later(struct channel *channel, struct request *request);
/* Looks for signals that the kernel has not told of, where it is time to. L */
void mark_untold(struct channel *channel);
/* Answers with EINTR those whose clients have waited long enough after a signal. L */
void answer_interrupted(struct channel *channel);

struct lingering {
	uint32_t us;	  /* at most */
	uint32_t kept_us; /* who has the processor for longer, keeps us from it; 0: nobody does */
	uint64_t pause;	  /* us */
	uint64_t resume;  /* when, by now_us() */
};

/* linger.c: until there is something to be seen; whether there was. */
bool linger(struct lingering *lingering, bool (*look)(void *), void *context);

/* device.c and server.c: the two readers. */
void from_kernel(struct channel *channel, char *message, size_t length);
void *device_loop(void *channel);
void *server_loop(void *channel);

/* edit.c: what is changed in passing. */
void edit_poll(char *message);
bool edit_init_request(struct channel *channel, char *message, size_t length);		/* L */
bool edit_init_reply(struct channel *channel, char *body, size_t length);		/* L */
int32_t offered_backing(struct channel *channel, const struct open_reply *reply);	/* L */
bool edit_open_reply(struct channel *channel, uint64_t node, struct open_reply *reply); /* L */
struct request *fallocate_as_setxattr(const struct channel *channel, const char *message);

#endif
