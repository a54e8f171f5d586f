/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the module's files know of each other; nothing of this leaves the module.
 *
 * Locks, in the order in which they are taken:
 *   registry_lock   names, counts, owners, who is in the registry
 *   inode lock      of an area's file: its size, what it is charged, its address in the kernel
 *   events          spinlocks inside events.c
 * The registry lock and an inode lock are never held together.
 */
#ifndef MBUFF_INTERNAL_H
#define MBUFF_INTERNAL_H

#include <linux/fs.h>
#include <linux/irq_work.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/rbtree.h>
#include <linux/types.h>
#include <linux/xarray.h>

#include "compat.h"
#include "include/mbuff.h"
#include "uapi/linux/mbuff.h"

#define MBUFF_DEFAULT_NAME "default"
/* Bytes of memory that an area never takes from the rest of the system. */
#define MBUFF_RESERVE (64UL << 20)
#define PAGES_PER_CHECK 256 /* allocated between two looks at free memory and signals */

struct module;
struct pid;
struct mbuff_contiguous;
struct mbuff_observed;
struct mbuff_reserved;

/* A counted holder: a module, or a process that called mbuff_alloc. Registry lock. */
struct mbuff_holder {
	struct list_head link;
	struct module *module;
	struct pid *pid;
	unsigned int count;
	char name[64];
};

/*
 * An area. The registry has a reference while it has a name; so has each open file of ours, each
 * kernel user, and who removed it with the promise to forget it.
 */
struct mbuff_area {
	struct kref references;
	u64 id;
	struct file *file; /* the memory; opened for the module alone, and pins no module */

	/* Registry lock. */
	struct rb_node by_name;
	char *name; /* NULL: it has been removed */
	unsigned int name_len;
	bool kept;	     /* stays without users */
	bool used;	     /* somebody has held it, or had it open: else it waits for the first */
	unsigned int count;  /* of programs; also read without the lock */
	unsigned int kcount; /* of modules; also read without the lock */
	struct list_head holders;
	struct mbuff_observed *observed; /* of /proc; NULL: it is not shown */

	atomic_t open_cnt;	/* open files, mappings included, but not the weak ones */
	unsigned int open_mode; /* FMODE_READ | FMODE_WRITE of all so far, for /proc alone */

	/* Inode lock of `file`. */
	void *address;	     /* in the kernel, while kcount is not 0 */
	struct page **pages; /* each with a reference, as long as there is an address */
	unsigned long pages_count;
	unsigned int kind; /* MBUFF_KIND_*; of contiguous or reserved memory there is more: */
	struct mbuff_contiguous *contiguous; /* NULL as long as it has no memory */
	struct mbuff_reserved *reserved;
	phys_addr_t physical; /* where it begins; also read without the lock */
	u64 charged;	      /* bytes of the limit: its size, in whole pages */
	u64 changed_by;	      /* the session whose change of attributes is under way */

	/* Notifications; events.c. */
	atomic64_t notified;
	struct irq_work wake;
	struct rb_node notified_node;
	u64 notified_at;
};

/* What mbuff_alloc asks for. */
struct mbuff_wish {
	struct module *module; /* the holder; NULL: the calling process, whose rights count */
	unsigned int kind;     /* of a new area; MBUFF_KIND_PAGES finds one of any kind */
	u64 size;	       /* bytes; an area that exists has as many or more */
	bool whole_pages;      /* a new one gets its size rounded up */
	umode_t mode;	       /* of a new area, as is the group */
	kgid_t gid;
};

/* An open file of /dev/mbuff. */
struct mbuff_session {
	u64 number;	     /* never used again; events carry it so that nobody hears of himself */
	atomic64_t selected; /* number of the area for read, write and mmap; 0: none */
	struct xarray held;  /* removed areas that can still be asked for by number */
	kgid_t gid; /* group and mode of the device node: the old interface's areas get them */
	umode_t mode;
};

/* area.c: one area's memory. */
extern const struct inode_operations *shmem_iops; /* under ours */
int areas_init(void);
const struct file_operations *area_operations(void);
struct mbuff_area *area_new(umode_t mode);
void area_get(struct mbuff_area *area);
void area_put(struct mbuff_area *area);
struct file *area_open(struct mbuff_area *area, unsigned int flags, u64 weak);
struct mbuff_area *area_of(const struct file *file);
int area_resize(struct mbuff_area *area, u64 size, u64 by);
int area_change(struct mbuff_area *area, struct iattr *change, u64 by);
int area_permission(struct mbuff_area *area, int mask);
bool area_is_callers(struct mbuff_area *area);
bool area_may_remove(struct mbuff_area *area);
int area_set_kind(struct mbuff_area *area, unsigned int kind, u64 by);
int area_seal(struct mbuff_area *area);
int area_map(struct mbuff_area *area);
void area_unmap(struct mbuff_area *area);
u64 area_size(const struct mbuff_area *area);
unsigned int areas_alive(void);

/* The number of the session for which a file was opened that counts for no user, or 0. */
static inline u64 area_weak_of(const struct file *file)
{
	return (uintptr_t)file->private_data;
}

/* size.c: how large an area is, and what that costs. */
extern unsigned long long max_bytes;
u64 areas_bytes(void);
u64 areas_max_bytes(void);
void areas_uncharge(u64 bytes);
void area_uncharge_to(struct mbuff_area *area, u64 size);
int area_memory_left(u64 bytes);
int area_setattr(struct mbuff_idmap *idmap, struct dentry *dentry, struct iattr *change);
ssize_t area_write_iter(struct kiocb *iocb, struct iov_iter *from);
long area_fallocate(struct file *file, int mode, loff_t offset, loff_t len);

static inline bool area_is_held(const struct mbuff_area *area)
{
	return READ_ONCE(area->count) || READ_ONCE(area->kcount);
}

/* contiguous.c, reserved.c: memory with an address in the machine. */
int contiguous_init(void);
void contiguous_exit(void);
int contiguous_fill(struct mbuff_area *area, u64 size);
void contiguous_release(struct mbuff_area *area);
bool contiguous_scrubs(void);
bool contiguous_can_be_pinned(const struct mbuff_area *area);
int reserved_init(const struct file_operations *area_fops);
void reserved_exit(void);
void reserved_is_ready(void);
void reserved_release(struct mbuff_area *area);
void *reserved_memory(const struct mbuff_area *area);

/* registry.c: names. Functions that end in _locked want the registry lock. */
extern struct mutex registry_lock;
int name_check(const char *name, size_t len);
struct mbuff_area *registry_find_locked(const char *name, size_t len);
struct mbuff_area *registry_find(const char *name, size_t len);
struct mbuff_area *registry_find_id(u64 id);
bool registry_has_name(struct mbuff_area *area);
struct mbuff_area *registry_after(u64 id);
int registry_add(struct mbuff_area *area, const char *name, size_t len, u64 by);
int registry_add_locked(struct mbuff_area *area, const char *name, size_t len, u64 by);
int registry_remove(struct mbuff_area *area, u64 by);
int registry_rename(const char *from, size_t from_len, const char *to, size_t to_len,
		    unsigned int flags, u64 by, struct mbuff_area **replaced);
void registry_forget(struct mbuff_area *area);
bool registry_reap_locked(struct mbuff_area *area);
void registry_reap(struct mbuff_area *area);
unsigned int registry_count(void);
unsigned int registry_max(void);

/* holders.c: who is counted. */
bool holder_has_ended(const struct mbuff_holder *holder);
int holders_add_locked(struct mbuff_area *area, struct module *module);
int holders_release(struct mbuff_area *area, struct module *module, u64 *left);
void holders_release_all(struct module *module);
void holders_drop_all(struct mbuff_area *area);

/* alloc.c: finding or making an area and being counted as its holder, in one step. */
struct mbuff_area *area_alloc(const char *name, size_t len, const struct mbuff_wish *wish);

/* events.c: who is told of what. */
void events_tell(struct mbuff_area *area, unsigned int kind, u64 by);
void events_tell_renamed(struct mbuff_area *area, const char *old_name, u64 by);
void events_tell_growth(struct mbuff_area *area);
void events_wake(struct mbuff_area *area);
void events_area_init(struct mbuff_area *area);
void events_area_gone(struct mbuff_area *area);
int events_open(u64 by);

/* legacy.c: the old interface of /dev/mbuff. */
long legacy_ioctl(struct file *file, unsigned int command, void __user *argument);
#ifdef CONFIG_COMPAT
long legacy_compat_ioctl(struct file *file, unsigned int command, void __user *argument);
#endif
ssize_t legacy_read(struct kiocb *iocb, struct iov_iter *to);
ssize_t legacy_write(struct kiocb *iocb, struct iov_iter *from);
loff_t legacy_llseek(struct file *file, loff_t offset, int whence);
int legacy_mmap(struct file *file, struct vm_area_struct *vma);

/* query.c: the ioctls that only ask. */
long query_version(void __user *argument);
long query_usage(void __user *argument);
long query_stat(void __user *argument);
long query_list(struct mbuff_session *session, void __user *argument);

/* chardev.c, observe.c, kapi.c: the faces; each has its part in /dev, /proc and other modules. */
struct mbuff_area *area_which(const struct mbuff_which *which);
int chardev_init(void);
void chardev_exit(void);
int observe_init(void);
void observe_exit(void);
void observe_add(struct mbuff_area *area);
void observe_remove(struct mbuff_area *area);
void observe_settle(void);
int kapi_init(void);
void kapi_exit(void);

#endif
