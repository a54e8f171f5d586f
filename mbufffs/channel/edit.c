// SPDX-License-Identifier: MIT
/* What is changed in messages on their way, and why libfuse or pyfuse3 cannot say it themselves. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* The protocol of Linux 6.18, the first that this has been seen to work with; 6.14 began it. */
#define RINGS_MINOR 45

/*
 * pyfuse3 tells its handler neither which open file polls nor for what: both come where the handle
 * of the file would be, which says no more than the node. The kernel counts `kh` up from 1.
 */
void edit_poll(char *message)
{
	struct fuse_poll_in *in = (void *)(message + sizeof(struct fuse_in_header));

	in->fh = in->kh << 16 | (in->events & 0xffff);
}

bool edit_init_request(struct channel *channel, char *message, size_t length)
{
	struct fuse_in_header *header = (void *)message;
	struct init_request *in = (void *)(message + sizeof(*header));
	struct request *kept;

	channel->minor = in->minor;
	channel->offered = in->flags;
	channel->offered2 = 0;
	if ((in->flags & INIT_EXTENDED) && length >= sizeof(*header) + sizeof(*in))
		channel->offered2 = in->flags2;
	/*
	 * Without this flag libfuse takes and makes messages of 32 pages instead of 256. With
	 * passthrough there are no larger ones, and a message must fit the kernel's idea of a
	 * packet.
	 */
	in->flags &= ~INIT_MAX_PAGES;
	kept = request_make(message, length);
	if (!kept)
		return false;
	free(channel->init);
	channel->init = kept;
	return true;
}

bool edit_init_reply(struct channel *channel, char *body, size_t length)
{
	struct init_reply *out = (void *)body;
	uint32_t want = INIT_PARALLEL_DIROPS | INIT_CACHE_SYMLINKS | INIT_HANDLE_KILLPRIV_V2 |
			INIT_EXPLICIT_INVAL_DATA;

	if (length < sizeof(*out))
		return false;
	out->flags |= want & channel->offered;
	/*
	 * All changes come through this mount, so the page cache (used without passthrough) is
	 * right as it is; dropping it at each new mtime would tear pages from under mappings.
	 */
	out->flags &= ~(INIT_AUTO_INVAL_DATA | INIT_MAX_PAGES);
	if (channel->set.passthrough && (channel->offered & INIT_EXTENDED) &&
	    (channel->offered2 & INIT2_PASSTHROUGH)) {
		out->flags |= INIT_EXTENDED;
		out->flags2 |= INIT2_PASSTHROUGH;
		out->max_stack_depth = 1;
		channel->passthrough = true;
	}
	/* Without passthrough the data would be copied once more than by the device. */
	if (channel->rings && channel->passthrough && channel->minor >= RINGS_MINOR &&
	    (channel->offered2 & INIT2_OVER_IO_URING) && out->max_write <= rings_payload()) {
		out->flags2 |= INIT2_OVER_IO_URING;
		channel->ringing = true;
	}
	channel->setxattr_ext = out->flags & INIT_SETXATTR_EXT;
	return true;
}

/*
 * The backing id in a reply that was not looked at before, 0 for none. The kernel counts ids up,
 * and a server registers them one after the other, each just before its reply: so what lies between
 * the highest known id and the first of a new server was registered by one that was killed before
 * it could tell. Nobody uses these; left alone they would hold their files until the mount goes.
 */
int32_t offered_backing(struct channel *channel, const struct open_reply *reply)
{
	const int32_t offered = channel->passthrough ? (int32_t)reply->fh : 0;
	int32_t lost;

	if (offered <= 0)
		return 0;
	if (channel->inherited && offered > channel->backing_highest &&
	    offered - channel->backing_highest < BACKINGS_LOST_MAX)
		for (lost = channel->backing_highest + 1; lost < offered; lost++)
			queue_close(channel, lost);
	channel->inherited = false;
	if (offered > channel->backing_highest)
		channel->backing_highest = offered;
	return offered;
}

/*
 * The server registers a fresh backing id for every open that reaches it and offers it as fh. The
 * first one counts for the node; a second id beside an open file would be EIO in the kernel.
 */
bool edit_open_reply(struct channel *channel, uint64_t id, struct open_reply *reply)
{
	int32_t offered = offered_backing(channel, reply);
	struct node *node = node_make(channel, id);

	if (!node) {
		if (offered > 0)
			queue_close(channel, offered);
		return false;
	}
	if (offered > 0 && node->backing)
		queue_close(channel, offered);
	else if (offered > 0) {
		node->backing = offered;
		channel->count.backing++;
	}
	node->opens++;
	/* Reads and writes carry fh and nothing else: the node id serves any later server. */
	reply->fh = id;
	reply->open_flags &= ~OPEN_PASSTHROUGH;
	reply->backing_id = 0;
	if (node->backing) {
		reply->open_flags = OPEN_PASSTHROUGH | OPEN_NOFLUSH;
		reply->backing_id = node->backing;
	}
	return true;
}

/* pyfuse3 has no handler for FALLOCATE; the reply to a SETXATTR looks like the one to it. */
struct request *fallocate_as_setxattr(const struct channel *channel, const char *message)
{
	const struct fuse_in_header *header = (const void *)message;
	const struct fuse_fallocate_in *in = (const void *)(message + sizeof(*header));
	const struct fallocate_words words = { in->offset, in->length, in->mode };
	const size_t fixed = channel->setxattr_ext ? 16 : 8;
	_Alignas(uint64_t) char
		body[sizeof(*header) + 16 + sizeof(FALLOCATE_NAME) + sizeof(words)] = { 0 };
	const size_t length = sizeof(*header) + fixed + sizeof(FALLOCATE_NAME) + sizeof(words);
	const uint32_t size = sizeof(words);
	struct fuse_in_header rewritten = *header;

	rewritten.len = (uint32_t)length;
	rewritten.opcode = FUSE_SETXATTR;
	memcpy(body, &rewritten, sizeof(rewritten));
	memcpy(body + sizeof(rewritten), &size, sizeof(size));
	memcpy(body + sizeof(rewritten) + fixed, FALLOCATE_NAME, sizeof(FALLOCATE_NAME));
	memcpy(body + sizeof(rewritten) + fixed + sizeof(FALLOCATE_NAME), &words, sizeof(words));
	return request_make(body, length);
}
