// SPDX-License-Identifier: MIT
/*
 * What need not be asked, because a server has told it: the attributes of directories that it has
 * just changed, and which names a directory has, so that any other name is known to be missing.
 *
 * A server tells before it replies, so what it tells is as new as all replies that came before.
 * Names are kept current here: one is there from the moment that a request for it is sent on, and
 * gone when the reply says so. What cannot be told for sure is forgotten, and asked again.
 */
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define EXCHANGE 2 /* RENAME_EXCHANGE of linux/fs.h */

struct name {
	struct entry entry; /* by hash */
	uint32_t length;
	char bytes[];
};

/* A name that a request makes or takes away. */
struct change {
	uint64_t directory;
	const char *name;
	size_t length;
	bool comes; /* else it goes, when the request succeeds */
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
	changes[0] = (struct change){ .directory = request->node, .comes = true };
	next = take_name(&changes[0], body + fixed, end);
	switch (request->opcode) {
	case FUSE_UNLINK:
	case FUSE_RMDIR:
		changes[0].comes = false;
		return 1;
	case FUSE_RENAME:
	case OP_RENAME2:
		break;
	default:
		return 1;
	}
	changes[0].comes = request->opcode == OP_RENAME2 &&
			   ((const struct fuse_rename2_in *)(const void *)body)->flags & EXCHANGE;
	changes[1] = (struct change){ .comes = true };
	memcpy(&changes[1].directory, body, sizeof(uint64_t)); /* begins both structures */
	take_name(&changes[1], next, end);
	return 2;
}

/* NULL: the kernel does not know it, or there is no memory. It always knows the root. */
static struct node *directory_of(struct channel *channel, uint64_t id)
{
	return id == FUSE_ROOT_ID ? node_make(channel, id) : node_find(channel, id);
}

/* Names of directories */

static uint64_t hash(const char *bytes, size_t length)
{
	uint64_t value = 0xcbf29ce484222325u;

	while (length--)
		value = (value ^ (uint8_t)*bytes++) * 0x100000001b3u;
	return value;
}

static struct name *name_find(const struct table *names, const char *bytes, size_t length)
{
	struct entry *entry = table_find(names, hash(bytes, length));

	for (; entry; entry = entry->next) {
		struct name *name = (struct name *)entry;

		if (name->length == length && memcmp(name->bytes, bytes, length) == 0)
			return name;
	}
	return NULL;
}

static void names_drop(struct node *node)
{
	if (!node->names)
		return;
	table_free(node->names);
	free(node->names);
	node->names = NULL;
}

static void name_add(struct channel *channel, struct node *node, const char *bytes, size_t length)
{
	struct name *name;

	if (!node->names || name_find(node->names, bytes, length))
		return;
	name = node->names->count < channel->set.names_max ? malloc(sizeof(*name) + length) : NULL;
	if (!name) {
		names_drop(node);
		return;
	}
	name->entry.key = hash(bytes, length);
	name->length = (uint32_t)length;
	memcpy(name->bytes, bytes, length);
	table_add(node->names, &name->entry);
}

bool known_missing(struct channel *channel, uint64_t directory, const char *name)
{
	const struct node *node = node_find(channel, directory);
	const size_t length = strlen(name);

	if (!node || !node->names || length > NAME_MAX || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0)
		return false;
	return !name_find(node->names, name, length);
}

static void names_come(struct channel *channel, const struct change *changes, int count)
{
	int i;

	for (i = 0; i < count; i++) {
		struct node *node = node_find(channel, changes[i].directory);

		if (node && changes[i].comes)
			name_add(channel, node, changes[i].name, changes[i].length);
	}
}

void known_names_told(struct channel *channel, uint64_t directory, const char *names, size_t length)
{
	struct node *node = directory_of(channel, directory);
	const char *end = names + length;
	const struct request *request;
	struct change changes[2];

	if (!node)
		return;
	names_drop(node);
	node->names = calloc(1, sizeof(*node->names));
	if (!node->names || !table_init(node->names)) {
		free(node->names);
		node->names = NULL;
		return;
	}
	while (names < end) {
		const size_t size = strnlen(names, (size_t)(end - names));

		name_add(channel, node, names, size);
		names += size + 1;
	}
	/* The server may have told this before it came to what was sent to it meanwhile. */
	for (request = channel->first; request; request = request->after)
		names_come(channel, changes, changes_of(request, changes));
}

/* Attributes of directories */

const struct fuse_attr_out *known_attributes(struct channel *channel, uint64_t id)
{
	const struct node *node = node_find(channel, id);

	return node ? node->attributes : NULL;
}

void known_attributes_told(struct channel *channel, uint64_t id, const struct fuse_attr_out *told)
{
	struct node *node = directory_of(channel, id);

	if (!node)
		return;
	if (!node->attributes)
		node->attributes = malloc(sizeof(*node->attributes));
	if (node->attributes)
		memcpy(node->attributes, told, sizeof(*told));
}

static void attributes_drop(struct node *node)
{
	free(node->attributes);
	node->attributes = NULL;
}

static void known_attributes_drop(struct channel *channel, uint64_t id)
{
	struct node *node = node_find(channel, id);

	if (node)
		attributes_drop(node);
}

/* What happens to them */

void known_drop(struct node *node)
{
	names_drop(node);
	attributes_drop(node);
}

void known_sent(struct channel *channel, struct request *request)
{
	struct change changes[2];
	int count = changes_of(request, changes), i;

	for (i = 0; i < count; i++)
		known_attributes_drop(channel, changes[i].directory);
	if (count == 2) {
		const struct node *node = node_find(channel, changes[1].directory);

		/* If both names are of one file, the old one stays. */
		request->replaces = !node || !node->names ||
				    name_find(node->names, changes[1].name, changes[1].length);
	}
	names_come(channel, changes, count);
}

void known_replied(struct channel *channel, const struct request *request)
{
	struct change changes[2];
	int count = changes_of(request, changes), i;

	switch (request->opcode) {
	case FUSE_SETATTR:
	case FUSE_SETXATTR:
	case FUSE_REMOVEXATTR:
	case FUSE_READDIR: /* the time of last access */
	case FUSE_READDIRPLUS:
		known_attributes_drop(channel, request->node);
		break;
	default:
		break;
	}
	for (i = 0; i < count; i++) {
		struct node *node = node_find(channel, changes[i].directory);
		struct name *name = NULL;

		if (node && node->names && !changes[i].comes && !request->replaces)
			name = name_find(node->names, changes[i].name, changes[i].length);
		if (name) {
			table_remove(node->names, &name->entry);
			free(name);
		}
	}
}

/* What the kernel must ask again */

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

static void invalidate_attributes(struct channel *channel, uint64_t node)
{
	const struct {
		struct fuse_out_header header;
		struct fuse_notify_inval_inode_out inode;
	} notification = {
		.header = { .len = sizeof(notification), .error = NOTIFY_INVAL_INODE },
		.inode = { .ino = node, .off = -1 },
	};

	known_attributes_drop(channel, node);
	queue_notification(channel, &notification, sizeof(notification));
}

void known_doubt(struct channel *channel, const struct request *request)
{
	const void *body = request->message + sizeof(struct fuse_in_header);
	struct change changes[2];
	int count = changes_of(request, changes), i;
	uint64_t linked;

	for (i = 0; i < count; i++) {
		struct node *node = node_find(channel, changes[i].directory);

		if (node)
			known_drop(node);
		invalidate_name(channel, &changes[i]);
	}
	if (count == 2 && changes[1].directory != changes[0].directory)
		invalidate_attributes(channel, changes[1].directory);
	if (count)
		invalidate_attributes(channel, changes[0].directory);
	switch (request->opcode) {
	case FUSE_LINK:
		if (!count)
			break;
		memcpy(&linked, body, sizeof(linked));
		invalidate_attributes(channel, linked); /* whose links are more */
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
