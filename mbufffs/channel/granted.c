// SPDX-License-Identifier: MIT
/*
 * What a server has granted: to look into its store, and to make, size and remove plain small areas
 * there, without being asked. A server costs two more processes to wake and Python; the store
 * itself costs some system calls.
 *
 * Nothing here answers with an error. What does not succeed at once, and whatever needs a decision
 * (other kinds of files, set-id bits, large areas, nodes that a server has a part in), goes to the
 * server as if nobody had tried, and it decides. So does all that touches what a server is at work
 * on: what is done here falls between two of its requests, as if it were one of them.
 *
 * Only who has the turn comes here and sends requests on: what was found to be at rest stays so
 * until it is done.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../backends/handle.h"
#include "internal.h"

#define KEPT_MAX 64 /* requests that are looked through; with more of them, servers are asked */
#define BLOCK 4096  /* bytes; what pyfuse3 says of every file */
#define SET_ID (S_ISUID | S_ISGID)

/*
 * Whether no server is at work on the node, or on any names: which node it takes a name from, only
 * the server knows. L
 */
static bool at_rest(const struct channel *channel, uint64_t id)
{
	const struct request *request = channel->first;

	if (channel->count.kept > KEPT_MAX)
		return false;
	while (request && request->node != id && !request_changes_names(request))
		request = request->after;
	return !request;
}

/* Whether no server has a part in the node: one that it removed counts its links differently. L */
static bool is_plain(struct channel *channel, uint64_t id)
{
	const struct node *node = node_find(channel, id);

	return at_rest(channel, id) && (!node || !(node->watched || node->emptied));
}

/* Whether the kernel may ask us for this node: it asks for the root without ever looking it up. L
 */
static bool is_ours(struct channel *channel, uint64_t id)
{
	return channel->granted && (id == FUSE_ROOT_ID || node_find(channel, id)) &&
	       is_plain(channel, id);
}

static bool may_look(struct channel *channel, uint64_t id)
{
	bool ours;

	pthread_mutex_lock(&channel->lock);
	ours = is_ours(channel, id);
	pthread_mutex_unlock(&channel->lock);
	return ours;
}

/*
 * Bytes that an area must have less of to be changed here; 0: not this node. Without passthrough a
 * server keeps descriptors of areas, which removing them must close.
 */
static uint64_t may_change(struct channel *channel, uint64_t id)
{
	uint64_t limit;

	pthread_mutex_lock(&channel->lock);
	limit = channel->passthrough && is_ours(channel, id) ? channel->granted : 0;
	pthread_mutex_unlock(&channel->lock);
	return limit;
}

/*
 * Whether a server may be about to tell of a backing id. An id that is registered here meanwhile
 * would hide that it had been lost with that server (offered_backing).
 */
static bool is_registering(struct channel *channel)
{
	const struct request *request;

	pthread_mutex_lock(&channel->lock);
	for (request = channel->first; request; request = request->after) {
		const uint32_t opcode = request->opcode;

		if (opcode == FUSE_OPEN || opcode == FUSE_CREATE || opcode == FUSE_GETXATTR ||
		    opcode == FUSE_LISTXATTR || opcode == FUSE_SETXATTR ||
		    opcode == FUSE_REMOVEXATTR)
			break;
	}
	pthread_mutex_unlock(&channel->lock);
	return request;
}

/* -1: it is not there. */
static int node_open(const struct channel *channel, uint64_t id, int flags)
{
	if (id == FUSE_ROOT_ID)
		return channel->set.areas;
	return handle_open(channel->set.areas, id, flags | O_NOFOLLOW);
}

static void node_close(const struct channel *channel, int fd)
{
	if (fd != channel->set.areas)
		close(fd);
}

static void fill(struct fuse_attr *attributes, uint64_t id, const struct stat *found)
{
	*attributes = (struct fuse_attr){
		.ino = id,
		.size = (uint64_t)found->st_size,
		.blocks = (uint64_t)found->st_blocks,
		.atime = (uint64_t)found->st_atim.tv_sec,
		.mtime = (uint64_t)found->st_mtim.tv_sec,
		.ctime = (uint64_t)found->st_ctim.tv_sec,
		.atimensec = (uint32_t)found->st_atim.tv_nsec,
		.mtimensec = (uint32_t)found->st_mtim.tv_nsec,
		.ctimensec = (uint32_t)found->st_ctim.tv_nsec,
		.mode = found->st_mode,
		.nlink = (uint32_t)found->st_nlink,
		.uid = found->st_uid,
		.gid = found->st_gid,
		.rdev = (uint32_t)found->st_rdev,
		.blksize = BLOCK,
	};
}

static void fill_entry(struct fuse_entry_out *entry, uint64_t id, const struct stat *found)
{
	entry->nodeid = id;
	entry->entry_valid = FOREVER;
	entry->attr_valid = FOREVER;
	fill(&entry->attr, id, found);
}

/* What there is. */

/* Of a name in an open directory; 0, or ENOENT where there is none, or -1. */
static int find(int directory, const char *name, uint64_t *id, struct stat *found)
{
	if (handle_of(directory, name, id))
		return errno == ENOENT ? ENOENT : -1;
	return fstatat(directory, name, found, AT_SYMLINK_NOFOLLOW) ? -1 : 0;
}

bool granted_lookup(struct channel *channel, const struct fuse_in_header *header, const char *name)
{
	struct fuse_entry_out reply = { .entry_valid = FOREVER };
	struct stat stat;
	int directory, found;
	uint64_t id;
	bool plain;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || !may_look(channel, header->nodeid))
		return false;
	directory = node_open(channel, header->nodeid, O_PATH | O_DIRECTORY);
	if (directory < 0)
		return false;
	found = find(directory, name, &id, &stat);
	node_close(channel, directory);
	if (found == ENOENT) {
		/* Node 0: the kernel remembers that there is no such name. */
		answered(channel, header, 0, &reply, sizeof(reply));
		return true;
	}
	if (found)
		return false;
	pthread_mutex_lock(&channel->lock);
	plain = is_plain(channel, id);
	if (plain)
		node_count(channel, id);
	pthread_mutex_unlock(&channel->lock);
	if (!plain)
		return false;
	fill_entry(&reply, id, &stat);
	if (answered(channel, header, 0, &reply, sizeof(reply))) {
		pthread_mutex_lock(&channel->lock);
		node_forget(channel, id, 1);
		pthread_mutex_unlock(&channel->lock);
	}
	return true;
}

bool granted_attributes(struct channel *channel, const struct fuse_in_header *header)
{
	struct fuse_attr_out reply = { .attr_valid = FOREVER };
	struct stat found;
	int fd, failed;

	if (!may_look(channel, header->nodeid))
		return false;
	fd = node_open(channel, header->nodeid, O_PATH);
	if (fd < 0)
		return false;
	failed = fstat(fd, &found);
	node_close(channel, fd);
	if (failed)
		return false;
	fill(&reply.attr, header->nodeid, &found);
	answered(channel, header, 0, &reply, sizeof(reply));
	return true;
}

/* Opening and making. */

bool granted_open(struct channel *channel, const struct fuse_in_header *header)
{
	struct open_reply reply = { 0 };
	struct stat found;
	int fd, backing = 0;
	bool known = false;

	if (!may_change(channel, header->nodeid) || is_registering(channel))
		return false;
	fd = node_open(channel, header->nodeid, O_PATH);
	if (fd < 0)
		return false;
	if (!fstat(fd, &found) && S_ISREG(found.st_mode))
		backing = channel->set.open_backing(channel->set.context, fd);
	node_close(channel, fd);
	if (backing <= 0)
		return false;
	reply.fh = (uint64_t)backing;
	pthread_mutex_lock(&channel->lock);
	/* A server that is removing it may have asked meanwhile, and been told that it is not open.
	 */
	if (is_plain(channel, header->nodeid))
		known = edit_open_reply(channel, header->nodeid, &reply);
	else
		queue_close(channel, offered_backing(channel, &reply));
	pthread_mutex_unlock(&channel->lock);
	if (known && answered(channel, header, 0, &reply, sizeof(reply))) {
		pthread_mutex_lock(&channel->lock);
		node_released(channel, header->nodeid);
		pthread_mutex_unlock(&channel->lock);
	}
	return known;
}

/* Makes it the client's, and finds out what it has become; 0 or -1. */
static int own(int directory, const char *name, int fd, const struct fuse_in_header *header,
	       uint32_t mode, struct stat *found)
{
	if (fstat(fd, found))
		return -1;
	if ((found->st_uid != header->uid || found->st_gid != header->gid) &&
	    (fchownat(fd, "", header->uid, header->gid, AT_EMPTY_PATH) || fstat(fd, found)))
		return -1;
	if ((found->st_mode & ALLPERMS) == mode)
		return 0;
	/* This process has a umask of its own; the client's has been taken off by the kernel. */
	return fchmodat(directory, name, mode, 0) || fstat(fd, found) ? -1 : 0;
}

/* The backing id of the new area, or 0 and there is none. */
static int make(struct channel *channel, int directory, const struct fuse_in_header *header,
		uint32_t mode, const char *name, uint64_t *id, struct stat *found)
{
	int fd, backing = 0;

	/* Not open(2): a file that is open for writing could not be leased (shmem.py, empty). */
	if (mknodat(directory, name, S_IFREG | mode, 0))
		return 0;
	fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0) {
		if (!own(directory, name, fd, header, mode, found) && !handle_of(fd, "", id))
			backing = channel->set.open_backing(channel->set.context, fd);
		close(fd);
	}
	if (backing <= 0)
		unlinkat(directory, name, 0);
	return backing > 0 ? backing : 0;
}

bool granted_create(struct channel *channel, const struct fuse_in_header *header,
		    const struct fuse_create_in *in, const char *name)
{
	struct create_reply reply = { 0 };
	struct stat parent, found;
	int directory, backing = 0;
	bool known = false;
	uint64_t id = 0;

	if (in->mode & (ALLPERMS & ~ACCESSPERMS) || header->uid == UINT32_MAX ||
	    header->gid == UINT32_MAX || !may_change(channel, header->nodeid) ||
	    is_registering(channel))
		return false;
	directory = node_open(channel, header->nodeid, O_PATH | O_DIRECTORY);
	if (directory < 0)
		return false;
	if (!fstat(directory, &parent) && !(parent.st_mode & S_ISGID))
		backing =
			make(channel, directory, header, in->mode & ACCESSPERMS, name, &id, &found);
	if (backing) {
		reply.open.fh = (uint64_t)backing;
		pthread_mutex_lock(&channel->lock);
		known = edit_open_reply(channel, id, &reply.open);
		if (known)
			node_count(channel, id);
		pthread_mutex_unlock(&channel->lock);
		if (!known)
			unlinkat(directory, name, 0);
	}
	node_close(channel, directory);
	if (!known)
		return false;
	fill_entry(&reply.entry, id, &found);
	if (answered(channel, header, 0, &reply, sizeof(reply))) {
		pthread_mutex_lock(&channel->lock);
		node_released(channel, id);
		node_forget(channel, id, 1);
		pthread_mutex_unlock(&channel->lock);
	}
	return true;
}

/* Sizes. */

/* All memory that is new is there when it returns; 0, or -1 and nothing has changed. */
static int resize(int fd, const struct stat *found, off_t size)
{
	const off_t start = found->st_size & ~(off_t)(BLOCK - 1);

	if (size > found->st_size && fallocate(fd, 0, start, size - start))
		return -1;
	/* Also where it changes no size: it sets the times as POSIX says. */
	return ftruncate(fd, size);
}

/* Whether the node is an area that has this size now, and what else it is. */
static bool set_size(struct channel *channel, uint64_t id, uint64_t size, struct stat *found)
{
	const uint64_t limit = may_change(channel, id);
	bool done = false;
	int fd;

	if (id == FUSE_ROOT_ID || size >= limit)
		return false;
	/* Never to wait for a lease, which a server may hold. */
	fd = node_open(channel, id, O_RDWR | O_NONBLOCK);
	if (fd < 0)
		return false;
	if (!fstat(fd, found) && S_ISREG(found->st_mode) && !(found->st_mode & SET_ID) &&
	    (uint64_t)found->st_size < limit && (uint64_t)found->st_blocks * 512 < limit &&
	    !resize(fd, found, (off_t)size) && !fstat(fd, found))
		done = true;
	node_close(channel, fd);
	return done;
}

bool granted_resize(struct channel *channel, const struct fuse_in_header *header,
		    const struct fuse_setattr_in *in)
{
	const uint32_t alone = FATTR_SIZE | FATTR_FH | FATTR_LOCKOWNER | FATTR_KILL_SUIDGID;
	struct fuse_attr_out reply = { .attr_valid = FOREVER };
	struct stat found;

	if (!(in->valid & FATTR_SIZE) || in->valid & ~alone ||
	    !set_size(channel, header->nodeid, in->size, &found))
		return false;
	fill(&reply.attr, header->nodeid, &found);
	answered(channel, header, 0, &reply, sizeof(reply));
	return true;
}

bool granted_truncation(struct channel *channel, const struct fuse_in_header *header)
{
	struct stat found;

	return set_size(channel, header->nodeid, 0, &found);
}

/* Removing. */

/*
 * Keeps an area that is to lose its last name for whoever has it open, or knows it in another way,
 * until the kernel forgets it: its backing id does that. 0 or -1.
 */
static int keep(struct channel *channel, int directory, const char *name, uint64_t id)
{
	struct open_reply reply = { 0 };
	const struct node *node;
	int fd, backing;
	bool kept;

	pthread_mutex_lock(&channel->lock);
	node = node_find(channel, id);
	kept = node && node->backing;
	pthread_mutex_unlock(&channel->lock);
	if (kept)
		return 0;
	if (is_registering(channel))
		return -1;
	fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -1;
	backing = channel->set.open_backing(channel->set.context, fd);
	close(fd);
	if (backing <= 0)
		return -1;
	reply.fh = (uint64_t)backing;
	pthread_mutex_lock(&channel->lock);
	kept = edit_open_reply(channel, id, &reply);
	if (kept)
		node_released(channel, id); /* nobody has opened it by that */
	pthread_mutex_unlock(&channel->lock);
	return kept ? 0 : -1;
}

/* 0 or -1. */
static int take_away(struct channel *channel, int directory, const char *name, uint64_t limit)
{
	struct stat found;
	struct node *node;
	uint64_t id;
	bool may;

	if (find(directory, name, &id, &found) || !S_ISREG(found.st_mode) ||
	    (uint64_t)found.st_blocks * 512 >= limit)
		return -1;
	pthread_mutex_lock(&channel->lock);
	/* Only a node that the kernel knows has an end that we hear of. */
	may = node_find(channel, id) && is_plain(channel, id);
	pthread_mutex_unlock(&channel->lock);
	if (!may)
		return -1;
	if (found.st_nlink > 1)
		return unlinkat(directory, name, 0);
	if (keep(channel, directory, name, id) || unlinkat(directory, name, 0))
		return -1;
	pthread_mutex_lock(&channel->lock);
	node = node_find(channel, id);
	if (node) {
		node->removed = true;
		/* Its FORGET may be overtaken by what wants its memory. */
		channel->returning = true;
		/* What was open then may grow, and what is mapped, up to its size. */
		node->reopened = node->opens || (uint64_t)found.st_size >= limit;
	}
	pthread_mutex_unlock(&channel->lock);
	return 0;
}

bool granted_unlink(struct channel *channel, const struct fuse_in_header *header, const char *name)
{
	const uint64_t limit = may_change(channel, header->nodeid);
	int directory, failed;

	if (!limit)
		return false;
	directory = node_open(channel, header->nodeid, O_PATH | O_DIRECTORY);
	if (directory < 0)
		return false;
	failed = take_away(channel, directory, name, limit);
	node_close(channel, directory);
	if (failed)
		return false;
	answered(channel, header, 0, NULL, 0);
	return true;
}
