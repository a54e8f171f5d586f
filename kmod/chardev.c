// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/mbuff and its ioctls, but for those that only ask (query.c) and the old ones (legacy.c).
 * Each command is copied in, checked as a whole, done, and copied out.
 */
#include <linux/compat.h>
#include <linux/file.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

static atomic64_t sessions = ATOMIC64_INIT(0);

/* A name of a program, to be freed with kfree(). */
static char *copy_name(u64 address, u32 len)
{
	char *name;
	int error;

	if (!len)
		return ERR_PTR(-EINVAL);
	if (len > MBUFF_NAME_BYTES_MAX)
		return ERR_PTR(-ENAMETOOLONG);
	name = memdup_user_nul(u64_to_user_ptr(address), len);
	if (IS_ERR(name))
		return name;
	error = name_check(name, len);
	if (error) {
		kfree(name);
		return ERR_PTR(error);
	}
	return name;
}

/* The area that a program means, with a reference. */
struct mbuff_area *area_which(const struct mbuff_which *which)
{
	struct mbuff_area *area;
	char *name;

	if (which->reserved)
		return ERR_PTR(-EINVAL);
	if (!which->name_len) {
		if (which->name)
			return ERR_PTR(-EINVAL);
		area = registry_find_id(which->id);
		return area ? area : ERR_PTR(-ENOENT);
	}
	if (which->id)
		return ERR_PTR(-EINVAL);
	name = copy_name(which->name, which->name_len);
	if (IS_ERR(name))
		return ERR_CAST(name);
	area = registry_find(name, which->name_len);
	kfree(name);
	return area ? area : ERR_PTR(-ENOENT);
}

/* Whose a new area is: as chown(2) would allow it to the caller. */
static int give(struct mbuff_area *area, u32 uid, u32 gid)
{
	struct iattr change = {};

	if (uid != ~0U) {
		change.ia_valid |= ATTR_UID;
		change.ia_uid = make_kuid(current_user_ns(), uid);
		if (!uid_valid(change.ia_uid))
			return -EINVAL;
	}
	if (gid != ~0U) {
		change.ia_valid |= ATTR_GID;
		change.ia_gid = make_kgid(current_user_ns(), gid);
		if (!gid_valid(change.ia_gid))
			return -EINVAL;
	}
	return change.ia_valid ? area_change(area, &change, 0) : 0;
}

static struct mbuff_area *make_area(const struct mbuff_create *create)
{
	struct mbuff_area *area = area_new(create->mode & 0777);
	int error;

	if (IS_ERR(area))
		return area;
	area->kept = !(create->flags & MBUFF_CREATE_TRANSIENT);
	if (create->flags & MBUFF_CREATE_CONTIGUOUS)
		area->kind = MBUFF_KIND_CONTIGUOUS;
	error = give(area, create->uid, create->gid);
	if (!error && create->mode & 07000) {
		/* After the owner, which takes these bits away. */
		struct iattr change = {
			.ia_valid = ATTR_MODE,
			.ia_mode = S_IFREG | create->mode,
		};

		error = area_change(area, &change, 0);
	}
	if (!error && create->size)
		error = area_resize(area, create->size, 0);
	if (error) {
		area_put(area);
		return ERR_PTR(error);
	}
	return area;
}

static long create(struct mbuff_session *session, void __user *argument)
{
	struct mbuff_create create;
	struct mbuff_area *area;
	bool made = false;
	char *name;
	long error;

	if (copy_from_user(&create, argument, sizeof(create)))
		return -EFAULT;
	if (create.flags &
		    ~(MBUFF_CREATE_EXCL | MBUFF_CREATE_CONTIGUOUS | MBUFF_CREATE_TRANSIENT) ||
	    create.mode & ~07777 || create.reserved || create.id)
		return -EINVAL;
	if (create.size > S64_MAX)
		return -EFBIG;
	name = copy_name(create.name, create.name_len);
	if (IS_ERR(name))
		return PTR_ERR(name);
	for (;;) {
		/* Memory only for an area that is not there: it can be much. */
		area = registry_find(name, create.name_len);
		if (area) {
			error = create.flags & MBUFF_CREATE_EXCL ? -EEXIST : 0;
			break;
		}
		area = make_area(&create);
		error = PTR_ERR_OR_ZERO(area);
		if (error)
			goto name;
		error = registry_add(area, name, create.name_len, session->number);
		made = !error;
		if (made)
			break;
		area_put(area);
		if (error != -EEXIST)
			goto name;
	}
	create.id = area->id;
	if (!error && copy_to_user(argument, &create, sizeof(create))) {
		error = -EFAULT;
		if (made)
			registry_remove(area, session->number);
	}
	area_put(area);
name:
	kfree(name);
	return error;
}

static long open_area(struct mbuff_session *session, void __user *argument)
{
	struct mbuff_open request;
	struct mbuff_area *area;
	struct file *file;
	int mask, fd;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	if (request.flags & ~(O_ACCMODE | O_CLOEXEC | O_APPEND) ||
	    (request.flags & O_ACCMODE) == O_ACCMODE ||
	    request.how & ~(MBUFF_OPEN_WEAK | MBUFF_OPEN_SEALED))
		return -EINVAL;
	if (request.how & MBUFF_OPEN_WEAK && !capable(CAP_SYS_ADMIN))
		return -EPERM;
	area = area_which(&request.which);
	if (IS_ERR(area))
		return PTR_ERR(area);
	mask = (request.flags & O_ACCMODE) == O_RDONLY ? MAY_READ :
	       (request.flags & O_ACCMODE) == O_WRONLY ? MAY_WRITE :
							 MAY_READ | MAY_WRITE;
	if (request.how & MBUFF_OPEN_SEALED)
		mask |= MAY_WRITE;
	fd = area_permission(area, mask);
	if (!fd && request.how & MBUFF_OPEN_SEALED)
		fd = area_seal(area);
	if (fd)
		goto area;
	fd = get_unused_fd_flags(request.flags & O_CLOEXEC);
	if (fd < 0)
		goto area;
	file = area_open(area, request.flags & ~O_CLOEXEC,
			 request.how & MBUFF_OPEN_WEAK ? session->number : 0);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		fd = PTR_ERR(file);
		goto area;
	}
	/* Who asked by name gets what has it, and not what lost its last user just now. */
	if (request.which.name_len && !(request.how & MBUFF_OPEN_WEAK) &&
	    !registry_has_name(area)) {
		fput(file);
		put_unused_fd(fd);
		fd = -ENOENT;
		goto area;
	}
	fd_install(fd, file);
area:
	area_put(area);
	return fd;
}

static long resize(struct mbuff_session *session, void __user *argument)
{
	struct mbuff_resize resize;
	struct mbuff_area *area;
	long error;

	if (copy_from_user(&resize, argument, sizeof(resize)))
		return -EFAULT;
	if (resize.size > S64_MAX)
		return -EFBIG;
	area = area_which(&resize.which);
	if (IS_ERR(area))
		return PTR_ERR(area);
	error = area_permission(area, MAY_WRITE);
	if (!error)
		error = area_resize(area, resize.size, session->number);
	area_put(area);
	return error;
}

static long change(struct mbuff_session *session, void __user *argument)
{
	struct mbuff_change request;
	struct iattr change = {};
	struct mbuff_area *area;
	long error;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	if (request.valid & ~(MBUFF_CHANGE_MODE | MBUFF_CHANGE_UID | MBUFF_CHANGE_GID |
			      MBUFF_CHANGE_ATIME | MBUFF_CHANGE_MTIME) ||
	    (request.valid & MBUFF_CHANGE_MODE && request.mode & ~07777))
		return -EINVAL;
	if (request.valid & MBUFF_CHANGE_MODE) {
		change.ia_valid |= ATTR_MODE;
		change.ia_mode = S_IFREG | request.mode;
	}
	if (request.valid & MBUFF_CHANGE_UID) {
		change.ia_valid |= ATTR_UID;
		change.ia_uid = make_kuid(current_user_ns(), request.uid);
		if (!uid_valid(change.ia_uid))
			return -EINVAL;
	}
	if (request.valid & MBUFF_CHANGE_GID) {
		change.ia_valid |= ATTR_GID;
		change.ia_gid = make_kgid(current_user_ns(), request.gid);
		if (!gid_valid(change.ia_gid))
			return -EINVAL;
	}
	if (request.valid & MBUFF_CHANGE_ATIME) {
		change.ia_valid |= ATTR_ATIME | ATTR_ATIME_SET;
		change.ia_atime = ns_to_timespec64(request.atime_ns);
	}
	if (request.valid & MBUFF_CHANGE_MTIME) {
		change.ia_valid |= ATTR_MTIME | ATTR_MTIME_SET;
		change.ia_mtime = ns_to_timespec64(request.mtime_ns);
	}
	area = area_which(&request.which);
	if (IS_ERR(area))
		return PTR_ERR(area);
	error = change.ia_valid	      ? area_change(area, &change, session->number) :
		area_is_callers(area) ? 0 :
					-EPERM;
	area_put(area);
	return error;
}

/*
 * Keeps an area, whose reference the caller gives away, until it is forgotten. It has been removed:
 * that cannot fail any more, nor happen twice.
 */
static void hold(struct mbuff_session *session, struct mbuff_area *area)
{
	if (xa_insert(&session->held, area->id, area, GFP_KERNEL_ACCOUNT | __GFP_NOFAIL))
		area_put(area);
}

static long rename_areas(struct mbuff_session *session, void __user *argument)
{
	struct mbuff_rename request;
	struct mbuff_area *replaced;
	char *from, *to;
	u32 way;
	long error;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	way = request.flags & ~MBUFF_RENAME_HOLD;
	if (request.reserved || way & (way - 1) || way > MBUFF_RENAME_TREE)
		return -EINVAL;
	/* All areas below have owners of their own; who may rename them all is root. */
	if (way == MBUFF_RENAME_TREE && !capable(CAP_FOWNER))
		return -EPERM;
	from = copy_name(request.from, request.from_len);
	if (IS_ERR(from))
		return PTR_ERR(from);
	to = copy_name(request.to, request.to_len);
	if (IS_ERR(to)) {
		error = PTR_ERR(to);
		goto from;
	}
	error = registry_rename(from, request.from_len, to, request.to_len, way, session->number,
				&replaced);
	if (replaced && request.flags & MBUFF_RENAME_HOLD)
		hold(session, replaced);
	else if (replaced)
		area_put(replaced);
	kfree(to);
from:
	kfree(from);
	return error;
}

static long remove_area(struct mbuff_session *session, void __user *argument)
{
	struct mbuff_remove request;
	struct mbuff_area *area;
	long error;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	if (request.reserved || request.flags & ~MBUFF_REMOVE_HOLD)
		return -EINVAL;
	area = area_which(&request.which);
	if (IS_ERR(area))
		return PTR_ERR(area);
	error = area_may_remove(area) ? registry_remove(area, session->number) : -EPERM;
	if (!error && request.flags & MBUFF_REMOVE_HOLD)
		hold(session, area);
	else
		area_put(area);
	return error;
}

static long forget(struct mbuff_session *session, void __user *argument)
{
	struct mbuff_which which;
	struct mbuff_area *area;

	if (copy_from_user(&which, argument, sizeof(which)))
		return -EFAULT;
	if (which.name || which.name_len || which.reserved)
		return -EINVAL;
	if (which.id > ULONG_MAX)
		return -ENOENT;
	area = xa_erase(&session->held, which.id);
	if (!area)
		return -ENOENT;
	area_put(area);
	return 0;
}

static long set_kind(struct mbuff_session *session, void __user *argument)
{
	struct mbuff_kind request;
	struct mbuff_area *area;
	long error = -EPERM;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	if (request.reserved || request.kind > MBUFF_KIND_CONTIGUOUS)
		return -EINVAL;
	area = area_which(&request.which);
	if (IS_ERR(area))
		return PTR_ERR(area);
	if (area_is_callers(area))
		error = area_set_kind(area, request.kind, session->number);
	area_put(area);
	return error;
}

static long notify(void __user *argument)
{
	struct mbuff_which which;
	struct mbuff_area *area;
	long error;

	if (copy_from_user(&which, argument, sizeof(which)))
		return -EFAULT;
	area = area_which(&which);
	if (IS_ERR(area))
		return PTR_ERR(area);
	error = area_permission(area, MAY_WRITE);
	if (!error) {
		atomic64_inc(&area->notified);
		events_wake(area);
	}
	area_put(area);
	return error;
}

static long new_ioctl(struct mbuff_session *session, unsigned int command, void __user *argument)
{
	switch (command) {
	case MBUFF_IOC_VERSION:
		return query_version(argument);
	case MBUFF_IOC_CREATE:
		return create(session, argument);
	case MBUFF_IOC_OPEN:
		return open_area(session, argument);
	case MBUFF_IOC_RESIZE:
		return resize(session, argument);
	case MBUFF_IOC_CHANGE:
		return change(session, argument);
	case MBUFF_IOC_RENAME:
		return rename_areas(session, argument);
	case MBUFF_IOC_REMOVE:
		return remove_area(session, argument);
	case MBUFF_IOC_STAT:
		return query_stat(argument);
	case MBUFF_IOC_LIST:
		return query_list(session, argument);
	case MBUFF_IOC_EVENTS:
		return events_open(session->number);
	case MBUFF_IOC_USAGE:
		return query_usage(argument);
	case MBUFF_IOC_NOTIFY:
		return notify(argument);
	case MBUFF_IOC_FORGET:
		return forget(session, argument);
	case MBUFF_IOC_KIND:
		return set_kind(session, argument);
	}
	return -ENOTTY;
}

static long device_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	void __user *pointer = (void __user *)argument;
	long result = new_ioctl(file->private_data, command, pointer);

	return result == -ENOTTY ? legacy_ioctl(file, command, pointer) : result;
}

#ifdef CONFIG_COMPAT
static long device_compat_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	void __user *pointer = compat_ptr(argument);
	long result = new_ioctl(file->private_data, command, pointer);

	return result == -ENOTTY ? legacy_compat_ioctl(file, command, pointer) : result;
}
#endif

static int device_open(struct inode *inode, struct file *file)
{
	struct mbuff_session *session = kzalloc(sizeof(*session), GFP_KERNEL_ACCOUNT);

	if (!session)
		return -ENOMEM;
	session->number = atomic64_inc_return(&sessions);
	xa_init(&session->held);
	session->gid = inode->i_gid;
	session->mode = inode->i_mode & 0666;
	file->private_data = session;
	return 0;
}

static int device_release(struct inode *inode, struct file *file)
{
	struct mbuff_session *session = file->private_data;
	struct mbuff_area *area;
	unsigned long index;

	xa_for_each(&session->held, index, area)
		area_put(area);
	xa_destroy(&session->held);
	kfree(session);
	return 0;
}

static const struct file_operations device_fops = {
	.owner = THIS_MODULE,
	.open = device_open,
	.release = device_release,
	.unlocked_ioctl = device_ioctl,
#ifdef CONFIG_COMPAT
	.compat_ioctl = device_compat_ioctl,
#endif
	.read_iter = legacy_read,
	.write_iter = legacy_write,
	.llseek = legacy_llseek,
	.mmap = legacy_mmap,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mbuff",
	.fops = &device_fops,
	.mode = 0660,
};

int chardev_init(void)
{
	return misc_register(&device);
}

void chardev_exit(void)
{
	misc_deregister(&device);
}
