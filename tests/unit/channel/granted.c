// SPDX-License-Identifier: MIT
/*
 * What the channel does in a store by itself once a server has granted it, and what it leaves to
 * the server all the same. The store is real: two directories of a tmpfs, which takes root.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../../mbufffs/backends/handle.h"
#include "harness.h"

#define LIMIT 65536 /* bytes; as granted */
#define ROOT FUSE_ROOT_ID
#define KEPT 16

static struct store {
	char path[PATH_MAX];
	int areas;
	int32_t backings;		       /* ids that were given out */
	atomic_int kept[KEPT];		       /* what the kernel holds by them, 0: nothing */
	void (*closes)(void *rig, int32_t id); /* the rig's */
	bool refuses;			       /* backing ids */
	bool waits; /* with the next one: says so in reached, until told to go */
	int reached[2], go[2];
} store;

static int give_backing(void *rig, int fd)
{
	char byte = 0;

	CHECK(rig && fcntl(fd, F_GETFL) & O_PATH);
	if (store.waits) {
		EQUAL(write(store.reached[1], &byte, 1), 1);
		EQUAL(read(store.go[0], &byte, 1), 1);
	}
	if (store.refuses)
		return -EPERM;
	store.backings++;
	atomic_store(&store.kept[store.backings % KEPT], dup(fd));
	return store.backings;
}

static void let_go(int32_t id)
{
	const int fd = atomic_exchange(&store.kept[id % KEPT], 0);

	if (fd > 0)
		close(fd);
}

static void take_backing(void *rig, int32_t id)
{
	let_go(id);
	store.closes(rig, id);
}

static int part(const char *name)
{
	char path[PATH_MAX + 16];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", store.path, name);
	EQUAL(mkdir(path, 0755), 0);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

static void grants(struct rig *rig)
{
	static const uint64_t limit = LIMIT;

	server_notifies(rig, PRIVATE_GRANT, &limit, sizeof(limit));
	rig_settle(rig);
}

static void begin_with(struct rig *rig, bool passthrough)
{
	struct channel_settings settings = rig_settings();
	const char *directory = getenv("TMPDIR");

	snprintf(store.path, sizeof(store.path), "%s/XXXXXX", directory ? directory : "/dev/shm");
	CHECK(mkdtemp(store.path));
	store.areas = part("areas");
	settings.passthrough = passthrough;
	settings.areas = store.areas;
	settings.open_backing = give_backing;
	store.closes = settings.close_backing;
	settings.close_backing = take_backing;
	rig_open(rig, &settings);
	rig_serve(rig);
	grants(rig);
}

static void begin(struct rig *rig)
{
	begin_with(rig, true);
}

static void end(struct rig *rig)
{
	char command[PATH_MAX + 16];
	int32_t id;

	for (id = 0; id < KEPT; id++)
		let_go(id);
	rig_close(rig);
	close(store.areas);
	snprintf(command, sizeof(command), "rm -r %s", store.path);
	EQUAL(system(command), 0);
}

/* An area of the store that nobody has told the channel of; its node id. */
static uint64_t area(const char *name, off_t size)
{
	int fd = openat(store.areas, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	uint64_t node;

	CHECK(fd >= 0);
	if (size)
		EQUAL(posix_fallocate(fd, 0, size), 0);
	EQUAL(handle_of(fd, "", &node), 0);
	close(fd);
	return node;
}

static bool exists(int directory, const char *name)
{
	return !faccessat(directory, name, F_OK, AT_SYMLINK_NOFOLLOW);
}

/* Of what has no name any more, by its handle; 0: it has gone. */
static off_t memory_of(uint64_t node)
{
	int fd = handle_open(store.areas, node, O_PATH);
	struct stat stat;

	if (fd < 0)
		return 0;
	EQUAL(fstat(fd, &stat), 0);
	EQUAL(stat.st_nlink, 0);
	close(fd);
	return stat.st_blocks * 512;
}

static uint64_t asks(struct rig *rig, uint32_t opcode, uint64_t node, const char *name)
{
	return kernel_asks(rig, opcode, node, name, strlen(name) + 1);
}

static uint64_t asks_create(struct rig *rig, uint64_t node, const char *name, uint32_t mode)
{
	struct {
		struct fuse_create_in in;
		char name[64];
	} body = { .in = { .flags = O_RDWR | O_CREAT, .mode = S_IFREG | mode } };

	strcpy(body.name, name);
	return kernel_asks(rig, FUSE_CREATE, node, &body, sizeof(body.in) + strlen(name) + 1);
}

static uint64_t asks_size(struct rig *rig, uint64_t node, uint64_t size, uint32_t more)
{
	const struct fuse_setattr_in in = { .valid = FATTR_SIZE | more, .size = size };

	return kernel_asks(rig, FUSE_SETATTR, node, &in, sizeof(in));
}

static uint64_t asks_attributes(struct rig *rig, uint64_t node)
{
	static const struct fuse_getattr_in in;

	return kernel_asks(rig, FUSE_GETATTR, node, &in, sizeof(in));
}

/* It has come to the server, which says no. */
static void goes_to_the_server(struct rig *rig, uint32_t opcode, uint64_t unique)
{
	EQUAL(server_gets(rig, opcode, NULL), unique);
	server_answers(rig, unique, -EPERM, NULL, 0);
	kernel_gets(rig, unique, -EPERM, NULL);
}

static void is_done(struct rig *rig, uint64_t unique)
{
	kernel_gets(rig, unique, 0, NULL);
	CHECK(server_has_nothing(rig));
}

/* The entry that a look-up has found. */
static struct fuse_entry_out found(struct rig *rig, uint64_t directory, const char *name)
{
	uint64_t unique = asks(rig, FUSE_LOOKUP, directory, name);
	struct fuse_entry_out entry;
	struct packet packet;

	kernel_gets(rig, unique, 0, &packet);
	EQUAL(told_length(&packet), sizeof(entry));
	memcpy(&entry, told_body(&packet), sizeof(entry));
	CHECK(entry.entry_valid > 0);
	CHECK(server_has_nothing(rig));
	return entry;
}

static struct create_reply made(struct rig *rig, const char *name, uint32_t mode)
{
	uint64_t unique = asks_create(rig, ROOT, name, mode);
	struct create_reply reply;
	struct packet packet;

	kernel_gets(rig, unique, 0, &packet);
	EQUAL(told_length(&packet), sizeof(reply));
	memcpy(&reply, told_body(&packet), sizeof(reply));
	CHECK(server_has_nothing(rig));
	return reply;
}

static void is_as_the_store_says(const struct fuse_attr *attributes, const char *name)
{
	struct stat stat;

	EQUAL(fstatat(store.areas, name, &stat, AT_SYMLINK_NOFOLLOW), 0);
	EQUAL(attributes->mode, stat.st_mode);
	EQUAL(attributes->nlink, stat.st_nlink);
	EQUAL(attributes->size, stat.st_size);
	EQUAL(attributes->blocks, stat.st_blocks);
	EQUAL(attributes->uid, stat.st_uid);
	EQUAL(attributes->gid, stat.st_gid);
	EQUAL(attributes->mtime, stat.st_mtim.tv_sec);
	EQUAL(attributes->mtimensec, stat.st_mtim.tv_nsec);
	EQUAL(attributes->ctime, stat.st_ctim.tv_sec);
	EQUAL(attributes->ctimensec, stat.st_ctim.tv_nsec);
	EQUAL(attributes->atime, stat.st_atim.tv_sec);
	EQUAL(attributes->atimensec, stat.st_atim.tv_nsec);
}

/* A FORGET that the server gets, and what it says. */
static void server_hears(struct rig *rig, uint64_t node, uint64_t what)
{
	struct packet packet;

	server_takes(rig, &packet);
	EQUAL(asked(&packet)->opcode, FUSE_FORGET);
	EQUAL(asked(&packet)->nodeid, node);
	EQUAL(((const struct fuse_forget_in *)asked_body(&packet))->nlookup, what);
}

FACT(what_a_store_has_is_found_without_the_server)
{
	struct fuse_entry_out entry;
	struct packet packet;
	struct rig rig;
	uint64_t node, unique;

	begin(&rig);
	node = area("a", 5000);
	EQUAL(symlinkat("a", store.areas, "link"), 0);
	entry = found(&rig, ROOT, "a");
	EQUAL(entry.nodeid, node);
	EQUAL(entry.attr.ino, node);
	is_as_the_store_says(&entry.attr, "a");
	entry = found(&rig, ROOT, "link");
	is_as_the_store_says(&entry.attr, "link");
	EQUAL(found(&rig, ROOT, "b").nodeid, 0);
	unique = asks_attributes(&rig, ROOT);
	kernel_gets(&rig, unique, 0, &packet);
	EQUAL(((const struct fuse_attr_out *)told_body(&packet))->attr.ino, ROOT);
	is_as_the_store_says(&((const struct fuse_attr_out *)told_body(&packet))->attr, ".");
	unique = asks_attributes(&rig, node);
	kernel_gets(&rig, unique, 0, &packet);
	is_as_the_store_says(&((const struct fuse_attr_out *)told_body(&packet))->attr, "a");
	EQUAL(rig_counters(&rig).answered[FUSE_LOOKUP], 3);
	EQUAL(rig_counters(&rig).answered[FUSE_GETATTR], 2);
	end(&rig);
}

FACT(each_look_up_that_was_answered_counts)
{
	struct rig rig;
	uint64_t node;

	begin(&rig);
	node = area("a", 0);
	found(&rig, ROOT, "a");
	found(&rig, ROOT, "a");
	EQUAL(rig_counters(&rig).nodes, 1);
	kernel_forgets(&rig, node, 1);
	found(&rig, ROOT, "b"); /* so that it has been read */
	EQUAL(rig_counters(&rig).nodes, 1);
	kernel_forgets(&rig, node, 1);
	found(&rig, ROOT, "b");
	EQUAL(rig_counters(&rig).nodes, 0);
	device_wants_not(rig.unique + 2);
	asks(&rig, FUSE_LOOKUP, ROOT, "a");
	found(&rig, ROOT, "b");
	EQUAL(rig_counters(&rig).nodes, 0);
	end(&rig);
}

FACT(without_a_grant_the_server_is_asked)
{
	struct rig rig;
	uint64_t node;

	begin(&rig);
	node = area("a", 0);
	found(&rig, ROOT, "a");
	rig_restart(&rig); /* a grant ends with its server */
	rig_wait(&rig, CHANNEL_SERVING);
	rig_settle(&rig);
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "a"));
	goes_to_the_server(&rig, FUSE_GETATTR, asks_attributes(&rig, node));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "b", 0600));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, 0));
	goes_to_the_server(&rig, FUSE_OPEN, kernel_asks_open(&rig, node, 0));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	grants(&rig);
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	end(&rig);
}

FACT(without_passthrough_a_store_is_looked_into_and_not_changed)
{
	struct rig rig;
	uint64_t node;

	begin_with(&rig, false);
	node = area("a", 0);
	EQUAL(found(&rig, ROOT, "a").nodeid, node);
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "b", 0600));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, 0));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	end(&rig);
}

FACT(an_area_is_made_with_its_mode_and_backing_id_whatever_this_umask_is)
{
	struct create_reply reply;
	struct rig rig;
	uint64_t node;

	begin(&rig);
	umask(077);
	reply = made(&rig, "a", 0666);
	is_as_the_store_says(&reply.entry.attr, "a");
	EQUAL(reply.entry.attr.mode, S_IFREG | 0666);
	EQUAL(handle_of(store.areas, "a", &node), 0);
	EQUAL(reply.entry.nodeid, node);
	EQUAL(reply.open.open_flags, OPEN_PASSTHROUGH | OPEN_NOFLUSH);
	EQUAL(reply.open.backing_id, 1);
	EQUAL(open_natively(&rig, node).backing_id, 1);
	EQUAL(rig_counters(&rig).nodes, 1);
	EQUAL(rig_counters(&rig).backing, 1);
	EQUAL(made(&rig, "b", 0).open.backing_id, 2);
	kernel_forgets(&rig, node, 1);
	EQUAL(closed_next(&rig), 1);
	end(&rig);
}

FACT(an_area_is_its_makers)
{
	struct {
		struct fuse_in_header header;
		struct fuse_create_in in;
		char name[4];
	} message = {
		.header = { .len = sizeof(message),
			    .opcode = FUSE_CREATE,
			    .unique = 77,
			    .nodeid = ROOT,
			    .uid = 1234,
			    .gid = 567 },
		.in = { .flags = O_RDWR | O_CREAT, .mode = S_IFREG | 0640 },
		.name = "a",
	};
	struct packet packet;
	struct rig rig;

	begin(&rig);
	kernel_sends_bytes(&rig, &message, sizeof(message));
	kernel_gets(&rig, 77, 0, &packet);
	is_as_the_store_says(&((const struct create_reply *)told_body(&packet))->entry.attr, "a");
	EQUAL(((const struct create_reply *)told_body(&packet))->entry.attr.uid, 1234);
	EQUAL(((const struct create_reply *)told_body(&packet))->entry.attr.gid, 567);
	end(&rig);
}

FACT(an_area_is_its_makers_whatever_this_group_is)
{
	struct rig rig;

	EQUAL(setegid(5), 0);
	begin(&rig);
	EQUAL(made(&rig, "a", 0640).entry.attr.gid, 0);
	EQUAL(setegid(0), 0);
	end(&rig);
}

FACT(an_area_for_which_there_is_no_memory_is_the_servers)
{
	struct rig rig;
	uint64_t unique;

	begin(&rig);
	allocation_fails(1);
	unique = asks_create(&rig, ROOT, "a", 0600);
	CHECK(allocation_failed());
	goes_to_the_server(&rig, FUSE_CREATE, unique);
	CHECK(!exists(store.areas, "a"));
	EQUAL(rig_counters(&rig).nodes, 0);
	end(&rig);
}

FACT(making_what_needs_a_decision_is_the_servers)
{
	struct rig rig;

	begin(&rig);
	area("there", 0);
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "there", 0600));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "a", 04711));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "a", 02711));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "a", 01711));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, 99, "a", 0600));
	EQUAL(fchmod(store.areas, 02777), 0); /* whose group new ones get */
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "a", 0600));
	EQUAL(fchmod(store.areas, 0777), 0);
	store.refuses = true;
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "a", 0600));
	CHECK(!exists(store.areas, "a"));
	EQUAL(rig_counters(&rig).nodes, 0);
	end(&rig);
}

FACT(an_area_whose_maker_has_gone_is_forgotten)
{
	struct rig rig;

	begin(&rig);
	device_wants_not(rig.unique + 2);
	asks_create(&rig, ROOT, "a", 0600);
	EQUAL(closed_next(&rig), 1);
	found(&rig, ROOT, "b");
	EQUAL(rig_counters(&rig).nodes, 0);
	CHECK(exists(store.areas, "a"));
	end(&rig);
}

FACT(an_area_is_opened_for_the_first_time_without_the_server)
{
	struct rig rig;
	uint64_t node;

	begin(&rig);
	node = area("a", 0);
	found(&rig, ROOT, "a");
	EQUAL(open_natively(&rig, node).backing_id, 1);
	EQUAL(open_natively(&rig, node).backing_id, 1);
	EQUAL(store.backings, 1);
	goes_to_the_server(&rig, FUSE_OPEN, kernel_asks_open(&rig, node, O_TRUNC));
	end(&rig);
}

FACT(an_area_that_is_being_removed_while_it_is_opened_is_not_given_out_emptied)
{
	struct rig rig;
	uint64_t node, unique;
	char byte = 0;

	EQUAL(pipe(store.reached), 0);
	EQUAL(pipe(store.go), 0);
	begin(&rig);
	node = area("a", LIMIT);
	found(&rig, ROOT, "a");
	store.waits = true;
	unique = kernel_asks_open(&rig, node, 0);
	EQUAL(read(store.reached[0], &byte, 1), 1);
	server_watches(&rig, node);
	server_notifies(&rig, PRIVATE_ASK, &node, sizeof(node));
	server_hears(&rig, node, FORGET_UNOPENED);
	EQUAL(write(store.go[1], &byte, 1), 1);
	goes_to_the_server(&rig, FUSE_OPEN, unique);
	EQUAL(closed_next(&rig), 1);
	end(&rig);
}

FACT(no_id_is_registered_beside_one_of_which_the_server_has_not_told)
{
	struct rig rig;
	uint64_t first, second, unique;

	begin(&rig);
	first = area("a", 0);
	second = area("b", 0);
	found(&rig, ROOT, "a");
	found(&rig, ROOT, "b");
	unique = kernel_asks_open(&rig, first, O_TRUNC);
	EQUAL(server_gets(&rig, FUSE_OPEN, NULL), unique);
	goes_to_the_server(&rig, FUSE_OPEN, kernel_asks_open(&rig, second, 0));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "c", 0600));
	server_answers_open(&rig, unique, 40, 0);
	EQUAL(kernel_gets_open(&rig, unique).backing_id, 40);
	store.backings = 40;
	EQUAL(open_natively(&rig, second).backing_id, 41);
	end(&rig);
}

FACT(ids_lost_with_a_server_are_closed_when_the_channel_registers_the_next)
{
	struct rig rig;
	uint64_t node;

	begin(&rig);
	node = area("a", 0);
	found(&rig, ROOT, "a");
	EQUAL(open_natively(&rig, node).backing_id, 1);
	rig_restart(&rig);
	rig_settle(&rig);
	grants(&rig);
	store.backings = 3; /* 2 and 3 were the dead server's */
	EQUAL(made(&rig, "b", 0600).open.backing_id, 4);
	EQUAL(closed_next(&rig), 2);
	EQUAL(closed_next(&rig), 3);
	end(&rig);
}

FACT(a_size_comes_with_its_memory)
{
	struct fuse_attr_out reply;
	struct packet packet;
	struct rig rig;
	uint64_t node, unique;

	begin(&rig);
	node = area("a", 0);
	found(&rig, ROOT, "a");
	unique = asks_size(&rig, node, 9000, FATTR_FH | FATTR_LOCKOWNER);
	kernel_gets(&rig, unique, 0, &packet);
	EQUAL(told_length(&packet), sizeof(reply));
	memcpy(&reply, told_body(&packet), sizeof(reply));
	EQUAL(reply.attr.size, 9000);
	EQUAL(reply.attr.blocks, 3 * 4096 / 512);
	is_as_the_store_says(&reply.attr, "a");
	is_done(&rig, asks_size(&rig, node, 100, 0));
	is_done(&rig, asks_size(&rig, node, LIMIT - 1, FATTR_KILL_SUIDGID));
	kernel_gets(&rig, asks_attributes(&rig, node), 0, &packet);
	memcpy(&reply, told_body(&packet), sizeof(reply));
	EQUAL(reply.attr.size, LIMIT - 1);
	EQUAL(reply.attr.blocks, LIMIT / 512);
	end(&rig);
}

/* Memory that no size tells of, and that goes when a size is set. */
static void grow_beyond_the_end(const char *name)
{
	int fd = openat(store.areas, name, O_RDWR | O_CLOEXEC);

	EQUAL(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, LIMIT), 0);
	close(fd);
}

FACT(a_size_that_needs_a_decision_is_the_servers)
{
	struct rig rig;
	uint64_t node, large;

	begin(&rig);
	node = area("a", 0);
	large = area("b", LIMIT);
	found(&rig, ROOT, "a");
	found(&rig, ROOT, "b");
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, LIMIT, 0));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, UINT64_MAX, 0));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, large, 5, 0));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, ROOT, 5, 0));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, 99, 5, 0));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, FATTR_MODE));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, FATTR_MTIME));
	EQUAL(fchmodat(store.areas, "a", 04755, 0), 0);
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, 0));
	node = area("c", 0);
	found(&rig, ROOT, "c");
	grow_beyond_the_end("c");
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 0, 0));
	end(&rig);
}

/* Without a link, and with its memory, as fstat(2) of an open descriptor would show it. */
static void is_there_without_a_name(struct rig *rig, uint64_t node)
{
	uint64_t unique = asks_attributes(rig, node);
	struct packet packet;

	kernel_gets(rig, unique, 0, &packet);
	EQUAL(((const struct fuse_attr_out *)told_body(&packet))->attr.nlink, 0);
	CHECK(server_has_nothing(rig));
	CHECK(memory_of(node) > 0);
}

FACT(a_removed_area_stays_until_the_kernel_has_forgotten_it)
{
	struct rig rig;
	uint64_t node;

	begin(&rig);
	node = area("a", 100);
	found(&rig, ROOT, "a");
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	CHECK(!exists(store.areas, "a"));
	is_there_without_a_name(&rig, node);
	is_done(&rig, asks_size(&rig, node, 50, 0));
	is_there_without_a_name(&rig, node);
	kernel_forgets(&rig, node, 1);
	EQUAL(closed_next(&rig), 1);
	EQUAL(memory_of(node), 0);
	CHECK(server_has_nothing(&rig));
	end(&rig);
}

FACT(a_removed_area_that_is_open_keeps_its_backing_id)
{
	struct rig rig;
	uint64_t node;

	begin(&rig);
	node = made(&rig, "a", 0600).entry.nodeid;
	is_done(&rig, asks_size(&rig, node, 100, 0));
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	EQUAL(open_natively(&rig, node).backing_id, 1); /* by a descriptor with O_PATH */
	is_there_without_a_name(&rig, node);
	EQUAL(store.backings, 1);
	kernel_forgets(&rig, node, 1);
	EQUAL(closed_next(&rig), 1);
	EQUAL(memory_of(node), 0);
	end(&rig);
}

FACT(a_removed_area_outlives_the_server)
{
	struct rig rig;
	uint64_t node;

	begin(&rig);
	node = area("a", 100);
	found(&rig, ROOT, "a");
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	rig_restart(&rig);
	rig_settle(&rig);
	CHECK(memory_of(node) > 0);
	grants(&rig);
	is_there_without_a_name(&rig, node);
	kernel_forgets(&rig, node, 1);
	EQUAL(closed_next(&rig), 1);
	EQUAL(memory_of(node), 0);
	end(&rig);
}

FACT(one_name_of_several_just_goes)
{
	struct rig rig;
	uint64_t node;

	begin(&rig);
	node = area("a", 0);
	EQUAL(linkat(store.areas, "a", store.areas, "b", 0), 0);
	found(&rig, ROOT, "a");
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	CHECK(exists(store.areas, "b"));
	EQUAL(found(&rig, ROOT, "b").nodeid, node);
	EQUAL(found(&rig, ROOT, "b").attr.nlink, 1);
	EQUAL(store.backings, 0);
	end(&rig);
}

FACT(removing_what_needs_a_decision_is_the_servers)
{
	struct rig rig;

	begin(&rig);
	area("large", LIMIT);
	area("unknown", 0); /* to the kernel: nobody would tell of its end */
	EQUAL(symlinkat("a", store.areas, "link"), 0);
	EQUAL(mkdirat(store.areas, "directory", 0700), 0);
	found(&rig, ROOT, "large");
	found(&rig, ROOT, "link");
	found(&rig, ROOT, "directory");
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "large"));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "unknown"));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "link"));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "directory"));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "none"));
	area("small", 0);
	found(&rig, ROOT, "small");
	store.refuses = true; /* nothing would keep it */
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "small"));
	CHECK(exists(store.areas, "small"));
	CHECK(exists(store.areas, "large") && exists(store.areas, "unknown"));
	end(&rig);
}

FACT(a_server_hears_that_memory_may_be_coming_back_before_it_gives_some_away)
{
	struct rig rig;
	uint64_t node, other, unique;

	begin(&rig);
	node = area("a", 100);
	other = area("b", 0);
	found(&rig, ROOT, "a");
	found(&rig, ROOT, "b");
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	kernel_forgets(&rig, node, 1);
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "..")); /* needs none */
	unique = asks_size(&rig, other, LIMIT, 0);
	server_hears(&rig, node, FORGET_DONE);
	goes_to_the_server(&rig, FUSE_SETATTR, unique);
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, other, LIMIT, 0)); /* once */
	end(&rig);
}

FACT(a_node_that_a_server_is_at_work_on_is_left_to_it)
{
	static const struct fuse_setattr_in chmod = { .valid = FATTR_MODE };
	struct rig rig;
	uint64_t node, other, unique;

	begin(&rig);
	node = area("a", 0);
	other = area("b", 0);
	found(&rig, ROOT, "a");
	found(&rig, ROOT, "b");
	unique = kernel_asks(&rig, FUSE_SETATTR, node, &chmod, sizeof(chmod));
	EQUAL(server_gets(&rig, FUSE_SETATTR, NULL), unique);
	goes_to_the_server(&rig, FUSE_GETATTR, asks_attributes(&rig, node));
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "a"));
	goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, 0));
	goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "a"));
	is_done(&rig, asks_attributes(&rig, other));
	is_done(&rig, asks_size(&rig, other, 5, 0));
	is_done(&rig, asks(&rig, FUSE_UNLINK, ROOT, "b"));
	server_answers(&rig, unique, -EPERM, NULL, 0);
	kernel_gets(&rig, unique, -EPERM, NULL);
	is_done(&rig, asks_size(&rig, node, 5, 0));
	end(&rig);
}

FACT(while_a_server_is_at_work_on_names_all_is_left_to_it)
{
	static const uint32_t opcodes[] = { FUSE_CREATE, FUSE_MKNOD,  FUSE_MKDIR,
					    FUSE_LINK,	 FUSE_RENAME, OP_RENAME2,
					    FUSE_UNLINK, FUSE_RMDIR,  FUSE_SYMLINK };
	const char body[128] = { 0 };
	struct rig rig;
	uint64_t node, unique;
	size_t i;

	begin(&rig);
	node = area("a", 0);
	found(&rig, ROOT, "a");
	for (i = 0; i < sizeof(opcodes) / sizeof(*opcodes); i++) {
		unique = kernel_asks(&rig, opcodes[i], 99, body, sizeof(body));
		EQUAL(server_gets(&rig, opcodes[i], NULL), unique);
		goes_to_the_server(&rig, FUSE_GETATTR, asks_attributes(&rig, node));
		goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "a"));
		goes_to_the_server(&rig, FUSE_SETATTR, asks_size(&rig, node, 5, 0));
		goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "b", 0600));
		goes_to_the_server(&rig, FUSE_UNLINK, asks(&rig, FUSE_UNLINK, ROOT, "a"));
		server_answers(&rig, unique, -EPERM, NULL, 0);
		kernel_gets(&rig, unique, -EPERM, NULL);
		is_done(&rig, asks_attributes(&rig, node));
	}
	end(&rig);
}

FACT(what_a_server_is_at_work_on_is_left_to_it_though_the_client_has_gone)
{
	char mkdir[sizeof(struct fuse_mkdir_in) + 2] = { 0 };
	struct rig rig;
	uint64_t unique;

	begin(&rig);
	mkdir[sizeof(struct fuse_mkdir_in)] = 'm';
	unique = kernel_asks(&rig, FUSE_MKDIR, ROOT, mkdir, sizeof(mkdir));
	EQUAL(server_gets(&rig, FUSE_MKDIR, NULL), unique);
	kernel_interrupts(&rig, unique);
	rig_settle(&rig);
	clock_advance(GRACE);
	kernel_gets(&rig, unique, -EINTR, NULL);
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "a"));
	server_answers(&rig, unique, -EEXIST, NULL, 0);
	rig_settle(&rig);
	EQUAL(found(&rig, ROOT, "a").nodeid, 0);
	end(&rig);
}

FACT(names_that_no_directory_can_have_are_the_servers)
{
	char longest[257];
	struct rig rig;

	begin(&rig);
	memset(longest, 'x', 256);
	longest[256] = 0;
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "."));
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, ".."));
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, longest));
	longest[255] = 0;
	EQUAL(found(&rig, ROOT, longest).nodeid, 0);
	end(&rig);
}

FACT(a_grant_without_a_store_grants_nothing)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	grants(&rig);
	goes_to_the_server(&rig, FUSE_LOOKUP, asks(&rig, FUSE_LOOKUP, ROOT, "a"));
	goes_to_the_server(&rig, FUSE_CREATE, asks_create(&rig, ROOT, "a", 0600));
	rig_close(&rig);
}
