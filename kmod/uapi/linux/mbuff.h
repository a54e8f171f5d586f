/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The ioctls of /dev/mbuff: named memory areas, made, opened, changed, watched and removed by name
 * or by number. The old interface of mbuff 0.7.3, on the same device, is in <mbuff.h>.
 *
 * All structures have the same layout for 32-bit and 64-bit programs.
 * A number, once released, keeps its meaning: what changes gets a new number. Padding, reserved
 * fields and unknown flags must be 0 (EINVAL), so that they can get a meaning later.
 */
#ifndef _UAPI_LINUX_MBUFF_H
#define _UAPI_LINUX_MBUFF_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define MBUFF_ABI 1

/* A name is a path: components of 1 to 255 bytes, none of them "." or "..", joined by '/'. */
#define MBUFF_NAME_BYTES_MAX 4095
#define MBUFF_COMPONENT_MAX 255

#define MBUFF_MAGIC 0xBE

/* Which area: by `id` if name_len is 0; else by name, and id is 0. No NUL ends the name. */
struct mbuff_which {
	__u64 id;
	__u64 name; /* address of the name's bytes */
	__u32 name_len;
	__u32 reserved;
};

struct mbuff_version {
	__u32 abi; /* MBUFF_ABI of the module */
	__u32 reserved;
};

/* Makes an area, with all its memory, in one step. Without size it has none yet. */
struct mbuff_create {
	__u64 name;
	__u32 name_len;
	__u32 flags; /* MBUFF_CREATE_* */
	__u64 size;  /* bytes, exact */
	__u32 mode;  /* permission and set-id bits, 07777 */
	__u32 uid;   /* ~0: the caller's; another one needs CAP_CHOWN */
	__u32 gid;
	__u32 reserved;
	__u64 id; /* out: the number of the area; never used again for another one */
};

/* Without this flag an area that exists is found: size, mode and owner stay as they are. */
#define MBUFF_CREATE_EXCL 0x1
#define MBUFF_CREATE_CONTIGUOUS 0x2 /* a new one is of MBUFF_KIND_CONTIGUOUS */
#define MBUFF_CREATE_TRANSIENT 0x4  /* a new one goes with its last user, once there was one */

/* Returns a descriptor of the area's memory: a regular file, to read, write and map. */
struct mbuff_open {
	struct mbuff_which which;
	__u32 flags; /* O_RDONLY, O_WRONLY or O_RDWR, and any of O_CLOEXEC, O_APPEND */
	__u32 how;   /* MBUFF_OPEN_* */
};

/*
 * For who serves the file to others: the descriptor counts for no user of the area, so an area that
 * lives by its users alone can go. It needs CAP_SYS_ADMIN, as it hides a user.
 */
#define MBUFF_OPEN_WEAK 0x1
/* The area never shrinks again: so /dev/udmabuf takes the descriptor. Needs the right to write. */
#define MBUFF_OPEN_SEALED 0x2

/*
 * Sets the size; every page is there when it returns. EBUSY if another size is asked for while the
 * area is held (by a kernel module or an uncleared mbuff_alloc); ENOSPC beyond the limit; ENOMEM if
 * memory is short. After an error nothing has changed.
 */
struct mbuff_resize {
	struct mbuff_which which;
	__u64 size;
};

/* Sets the attributes of which the bit is given in `valid`; with none it only asks who may. */
struct mbuff_change {
	struct mbuff_which which;
	__u32 valid; /* MBUFF_CHANGE_* */
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__s64 atime_ns; /* since 1970 */
	__s64 mtime_ns;
};

#define MBUFF_CHANGE_MODE 0x01
#define MBUFF_CHANGE_UID 0x02
#define MBUFF_CHANGE_GID 0x04
#define MBUFF_CHANGE_ATIME 0x08
#define MBUFF_CHANGE_MTIME 0x10

/*
 * Gives an area another name; an area that has that name is replaced. EBUSY if either is held.
 * With MBUFF_RENAME_TREE: `from` and `to` are directories, and all areas below move at once; EBUSY
 * if one of them is held; EEXIST if an area has a name at or below `to`; no area to move is
 * success.
 */
struct mbuff_rename {
	__u64 from;
	__u64 to;
	__u32 from_len;
	__u32 to_len;
	__u32 flags; /* MBUFF_RENAME_*, at most one of the first three; HOLD as for remove */
	__u32 reserved;
};

#define MBUFF_RENAME_NOREPLACE 0x1
#define MBUFF_RENAME_EXCHANGE 0x2
#define MBUFF_RENAME_TREE 0x4
#define MBUFF_RENAME_HOLD 0x8

/*
 * Removes the name at once; the memory goes with the last descriptor and mapping. EBUSY if held.
 * With MBUFF_REMOVE_HOLD the area can be asked for by number until MBUFF_IOC_FORGET, or until this
 * open file of /dev/mbuff is closed.
 */
struct mbuff_remove {
	struct mbuff_which which;
	__u32 flags;
	__u32 reserved;
};

#define MBUFF_REMOVE_HOLD 0x1

/* One counted holder of an area. */
struct mbuff_owner {
	__u32 kind; /* MBUFF_OWNER_* */
	__u32 pid;  /* of a process that lives, in the caller's namespace; else 0 */
	__u64 count;
	char name[64]; /* of the module, or the program at the time; ends with NUL */
};

#define MBUFF_OWNER_MODULE 1
#define MBUFF_OWNER_PROCESS 2

struct mbuff_attributes {
	__u64 id;
	__u64 size;	 /* bytes */
	__u64 allocated; /* bytes of pages */
	__u64 notified;	 /* notifications so far */
	__u32 mode;	 /* with S_IFREG */
	__u32 uid;
	__u32 gid;
	__u32 flags;	/* MBUFF_IS_* */
	__u32 count;	/* uncleared mbuff_alloc of programs */
	__u32 kcount;	/* those of kernel modules */
	__u32 open_cnt; /* open files and mappings, but not the weak ones */
	__u32 kind;	/* MBUFF_KIND_* */
	__u64 physical; /* where it begins; 0 for pages, and without CAP_SYS_ADMIN */
	__s64 atime_ns;
	__s64 mtime_ns;
	__s64 ctime_ns;
};

#define MBUFF_KIND_PAGES 0
#define MBUFF_KIND_CONTIGUOUS 1 /* one piece of physical memory; its size is from or to 0 */
#define MBUFF_KIND_RESERVED 2	/* a range reserved at boot, which lives as long as the module */

/*
 * Sets what memory an area will get, PAGES or CONTIGUOUS. EBUSY if it has memory already, or is
 * held; EPERM for who is not its owner.
 */
struct mbuff_kind {
	struct mbuff_which which;
	__u32 kind; /* MBUFF_KIND_* */
	__u32 reserved;
};

#define MBUFF_IS_KEPT 0x1    /* it stays without any user, until it is removed */
#define MBUFF_IS_REMOVED 0x2 /* it has no name any more */

struct mbuff_stat {
	struct mbuff_which which;
	__u64 owners; /* address of struct mbuff_owner[owners_max] */
	__u32 owners_max;
	__u32 owners_count; /* out: how many there are, maybe more than owners_max */
	struct mbuff_attributes attributes; /* out */
};

/*
 * Fills `buffer` with areas in the order of their numbers, from the first one above `after`. Each
 * entry is a struct mbuff_entry with the name behind it, padded to a multiple of 8 bytes. Returns
 * the bytes filled; 0 at the end; EINVAL if not one entry fits.
 */
struct mbuff_list {
	__u64 after;
	__u64 buffer;
	__u32 buffer_len;
	__u32 flags; /* MBUFF_LIST_* */
};

#define MBUFF_LIST_HELD 0x1 /* those removed with MBUFF_REMOVE_HOLD through this open file */

struct mbuff_entry {
	__u32 entry_len; /* bytes to the next one */
	__u32 name_len;
	struct mbuff_attributes attributes;
	/* char name[name_len] */
};

/* The limit and its use. */
struct mbuff_usage {
	__u64 max_bytes;
	__u64 used_bytes;
	__u64 max_areas;
	__u64 areas;
};

/*
 * MBUFF_IOC_EVENTS returns a descriptor that is readable when something has happened. read(2) gives
 * whole events, each with its names behind it, padded to a multiple of 8 bytes; EAGAIN with
 * O_NONBLOCK if there is none; EINVAL if not one fits. What this open file of /dev/mbuff did itself
 * is not told. An event of MBUFF_EVENT_LOST says that there were too many: list all anew. lseek(2)
 * to 0 makes the next read give again what the last one gave, but for notifications.
 *
 * Behind the structure: char name[name_len], old_name[old_name_len].
 */
struct mbuff_event {
	__u32 event_len; /* bytes to the next one */
	__u32 kind;	 /* MBUFF_EVENT_* */
	__u64 id;
	__u64 notified;	    /* notifications of the area so far */
	__u32 name_len;	    /* of the name behind: of what was created, removed or renamed */
	__u32 old_name_len; /* of a rename: of the name that it had, behind the new one */
};

#define MBUFF_EVENT_CREATED 1
#define MBUFF_EVENT_REMOVED 2
#define MBUFF_EVENT_RENAMED 3
#define MBUFF_EVENT_RESIZED 4
#define MBUFF_EVENT_CHANGED 5 /* mode, owner, times or kind */
#define MBUFF_EVENT_NOTIFIED 6
#define MBUFF_EVENT_LOST 7

#define MBUFF_EVENT_BYTES_MAX 8224 /* the longest event */

#define MBUFF_IOC_VERSION _IOR(MBUFF_MAGIC, 0x00, struct mbuff_version)
#define MBUFF_IOC_CREATE _IOWR(MBUFF_MAGIC, 0x01, struct mbuff_create)
#define MBUFF_IOC_OPEN _IOW(MBUFF_MAGIC, 0x02, struct mbuff_open)
#define MBUFF_IOC_RESIZE _IOW(MBUFF_MAGIC, 0x03, struct mbuff_resize)
#define MBUFF_IOC_CHANGE _IOW(MBUFF_MAGIC, 0x04, struct mbuff_change)
#define MBUFF_IOC_RENAME _IOW(MBUFF_MAGIC, 0x05, struct mbuff_rename)
#define MBUFF_IOC_REMOVE _IOW(MBUFF_MAGIC, 0x06, struct mbuff_remove)
#define MBUFF_IOC_STAT _IOWR(MBUFF_MAGIC, 0x07, struct mbuff_stat)
#define MBUFF_IOC_LIST _IOW(MBUFF_MAGIC, 0x08, struct mbuff_list)
#define MBUFF_IOC_EVENTS _IO(MBUFF_MAGIC, 0x09)
#define MBUFF_IOC_USAGE _IOR(MBUFF_MAGIC, 0x0a, struct mbuff_usage)
#define MBUFF_IOC_NOTIFY _IOW(MBUFF_MAGIC, 0x0b, struct mbuff_which)
#define MBUFF_IOC_FORGET _IOW(MBUFF_MAGIC, 0x0c, struct mbuff_which)
#define MBUFF_IOC_KIND _IOW(MBUFF_MAGIC, 0x0d, struct mbuff_kind)

#endif
