/* SPDX-License-Identifier: MIT */
/* The FUSE wire format as far as the channel reads or edits it; no code. */
#ifndef MBUFFFS_PROTOCOL_H
#define MBUFFFS_PROTOCOL_H

#include <linux/fuse.h>
#include <stdint.h>

/*
 * Debian 12 ships the header of protocol 7.38, the kernels that matter speak 7.41 and later: what
 * is newer stands here under a name of its own, so that it compiles against any header.
 */
enum {
	INIT_PARALLEL_DIROPS = 1u << 18,
	INIT_AUTO_INVAL_DATA = 1u << 12,
	INIT_MAX_PAGES = 1u << 22,
	INIT_CACHE_SYMLINKS = 1u << 23,
	INIT_EXPLICIT_INVAL_DATA = 1u << 25,
	INIT_HANDLE_KILLPRIV_V2 = 1u << 28,
	INIT_SETXATTR_EXT = 1u << 29,
	INIT_EXTENDED = 1u << 30,
	INIT2_PASSTHROUGH = 1u << 5, /* in flags2, as all with a 2 */
	INIT2_OVER_IO_URING = 1u << 9,
};

enum {
	OPEN_KEEP_CACHE = 1u << 1,
	OPEN_CACHE_DIR = 1u << 3,
	OPEN_NOFLUSH = 1u << 5,
	OPEN_PASSTHROUGH = 1u << 7,
};

enum {
	OP_RENAME2 = 45,
	OP_STATX = 52,
	NOTIFY_POLL = 1,
	NOTIFY_INVAL_INODE = 2,
	NOTIFY_INVAL_ENTRY = 3,
	NOTIFY_STORE = 4,
	NOTIFY_DELETE = 6,
};

/* fuse_init_in up to what protocol 7.36 added; older kernels send the first 16 bytes. */
struct init_request {
	uint32_t major, minor, max_readahead, flags, flags2;
};

/* fuse_init_out, 64 bytes since protocol 7.23. */
struct init_reply {
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion_threshold;
	uint32_t max_write, time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2, max_stack_depth;
	uint32_t unused[6];
};

/* fuse_open_out; its last field was padding before protocol 7.40. */
struct open_reply {
	uint64_t fh;
	uint32_t open_flags;
	int32_t backing_id;
};

struct create_reply {
	struct fuse_entry_out entry;
	struct open_reply open;
};

_Static_assert(sizeof(struct init_reply) == 64, "fuse_init_out");
_Static_assert(sizeof(struct open_reply) == 16, "fuse_open_out");
_Static_assert(sizeof(struct fuse_entry_out) == 128, "fuse_entry_out");
_Static_assert(sizeof(struct create_reply) == 144, "reply of CREATE");

/*
 * Private words between server and channel.
 *
 * A message of the server with unique 0 is a notification; this code, far above the kernel's, is
 * never passed on. Its body is a list of u64 node ids: "tell me with a BATCH_FORGET when the kernel
 * has forgotten them", and also those that it does not know.
 */
#define PRIVATE_WATCH 0x4d42

/*
 * As above for one node id, and answered at once by a FORGET whose count is one of FORGET_*: a
 * server that removes a large area wants to give its memory back before rm(1) returns, which it may
 * when nobody has it open.
 */
#define PRIVATE_ASK 0x4d43

enum {
	FORGET_UNOPENED = 0, /* the kernel knows the node, no file of it is open */
	FORGET_DONE = 1,     /* the kernel has forgotten it; all FORGETs but answers are this */
	FORGET_OPEN = 2,
};

/*
 * What this server leaves to the channel (granted.c): a u64, the bytes that plain areas must have
 * less of. It holds until that server's end.
 */
#define PRIVATE_GRANT 0x4d44

/*
 * The reserved attribute name under which FALLOCATE reaches pyfuse3, which has no handler for it.
 * Clients never reach it. Its value is struct fallocate_words.
 */
#define FALLOCATE_NAME "user.mbuff.fallocate"
#define XATTR_PREFIX "user.mbuff."

struct fallocate_words {
	uint64_t offset, length, mode;
};

/*
 * RENAME2 with RENAME_EXCHANGE is the one request that must not be repeated blindly: the bits of
 * its flags from this one on carry a number, the same when it is sent again, by which the server
 * finds its note that it has been done (backends/shmem.py).
 */
#define EXCHANGE_TAG_SHIFT 8
#define EXCHANGE_TAGS (1u << 23)

/* Bit 31 of the header's pid: this request was sent to an earlier server, and may have been done.
 */
#define SENT_AGAIN (1u << 31)

#endif
