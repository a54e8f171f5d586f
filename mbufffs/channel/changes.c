// SPDX-License-Identifier: MIT
/* Which names and nodes a request changes, and what the kernel must ask again when nobody knows. */
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "internal.h"

/* A name that a request makes or takes away. */
struct change {
	uint64_t directory;
	const char *name;
	size_t length;
};

/* Bytes before the first name of a request that changes directories; SIZE_MAX: it is no such. */
static size_t before_names(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_CREATE:
		return sizeof(struct fuse_create_in);
	case FUSE_MKNOD:
		return sizeof(struct fuse_mknod_in);
	case FUSE_MKDIR:
		return sizeof(struct fuse_mkdir_in);
	case FUSE_LINK:
		return sizeof(struct fuse_link_in);
	case FUSE_RENAME:
		return sizeof(struct fuse_rename_in);
	case OP_RENAME2:
		return sizeof(struct fuse_rename2_in);
	case FUSE_SYMLINK:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
		return 0;
	default:
		return SIZE_MAX;
	}
}

/* Takes the next name of the message; where the one behind it begins. */
static const char *take_name(struct change *change, const char *name, const char *end)
{
	change->name = name;
	change->length = name < end ? strnlen(name, (size_t)(end - name)) : 0;
	return name + change->length + 1;
}

/* The names of a request, at most two; their number. */
static int changes_of(const struct request *request, struct change changes[2])
{
	const char *body = request->message + sizeof(struct fuse_in_header);
	const char *end = request->message + request->length;
	const size_t fixed = before_names(request->opcode);
	const char *next;

	if (fixed == SIZE_MAX || fixed >= (size_t)(end - body))
		return 0;
	changes[0].directory = request->node;
	next = take_name(&changes[0], body + fixed, end);
	if (request->opcode != FUSE_RENAME && request->opcode != OP_RENAME2)
		return 1;
	memcpy(&changes[1].directory, body, sizeof(uint64_t)); /* begins both structures */
	take_name(&changes[1], next, end);
	return 2;
}

bool request_changes_names(const struct request *request)
{
	return before_names(request->opcode) != SIZE_MAX;
}

/* The node that gets another name, 0 for none. */
static uint64_t linked_by(const struct request *request)
{
	const char *body = request->message + sizeof(struct fuse_in_header);
	uint64_t node = 0;

	if (request->opcode == FUSE_LINK &&
	    request->length >= sizeof(struct fuse_in_header) + sizeof(struct fuse_link_in))
		memcpy(&node, body, sizeof(node)); /* begins the structure */
	return node;
}

static void invalidate_name(struct channel *channel, const struct change *change)
{
	struct {
		struct fuse_out_header header;
		struct fuse_notify_inval_entry_out entry;
		char name[NAME_MAX + 1];
	} notification = { .header = { .error = NOTIFY_INVAL_ENTRY } };

	if (!change->length || change->length > NAME_MAX)
		return;
	notification.entry.parent = change->directory;
	notification.entry.namelen = (uint32_t)change->length;
	memcpy(notification.name, change->name, change->length);
	notification.header.len =
		(uint32_t)(offsetof(__typeof__(notification), name) + change->length + 1);
	queue_notification(channel, &notification, notification.header.len);
}

void invalidate_attributes(struct channel *channel, uint64_t node)
{
	const struct {
		struct fuse_out_header header;
		struct fuse_notify_inval_inode_out inode;
	} notification = {
		.header = { .len = sizeof(notification), .error = NOTIFY_INVAL_INODE },
		.inode = { .ino = node, .off = -1 },
	};

	queue_notification(channel, &notification, sizeof(notification));
}

void invalidate_doubtful(struct channel *channel, const struct request *request)
{
	const void *body = request->message + sizeof(struct fuse_in_header);
	struct change changes[2];
	const int count = changes_of(request, changes);
	int i;

	for (i = 0; i < count; i++)
		invalidate_name(channel, &changes[i]);
	if (count == 2 && changes[1].directory != changes[0].directory)
		invalidate_attributes(channel, changes[1].directory);
	if (count)
		invalidate_attributes(channel, changes[0].directory);
	switch (request->opcode) {
	case FUSE_LINK:
		if (count)
			invalidate_attributes(channel, linked_by(request));
		break;
	case FUSE_OPEN:
		if (((const struct fuse_open_in *)body)->flags & O_TRUNC)
			invalidate_attributes(channel, request->node);
		break;
	case FUSE_SETATTR:
	case FUSE_FALLOCATE:
	case FUSE_SETXATTR:
	case FUSE_WRITE:
		invalidate_attributes(channel, request->node);
		break;
	default:
		break;
	}
}
