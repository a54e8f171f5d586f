// SPDX-License-Identifier: GPL-2.0-only
/*
 * The old interface of /dev/mbuff: four commands by name, each of which selects its area, and then
 * read, write, lseek and mmap of the selected one.
 *
 * Sizes fit an int here, because they are what ioctl(2) returns.
 */
#include <linux/compat.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

#include "internal.h"

#define NAME_MAX_OLD (MBUFF_NAME_LEN - 1)

struct request {
	char name[MBUFF_NAME_LEN + 1];
	size_t name_len;
	u64 size;
};

static int check_request(struct request *request)
{
	request->name_len = strnlen(request->name, sizeof(request->name));
	if (request->name_len > NAME_MAX_OLD)
		return -ENAMETOOLONG;
	return name_check(request->name, request->name_len);
}

static long result_of(u64 size)
{
	return size > INT_MAX ? -EOVERFLOW : size;
}

static int accessible(struct file *device, struct mbuff_area *area)
{
	return area_permission(area, (device->f_mode & FMODE_READ ? MAY_READ : 0) |
					     (device->f_mode & FMODE_WRITE ? MAY_WRITE : 0));
}

static int file_flags(struct file *device)
{
	if (!(device->f_mode & FMODE_WRITE))
		return O_RDONLY;
	return device->f_mode & FMODE_READ ? O_RDWR : O_WRONLY;
}

/* A number and no reference: what is selected can go. Returns the size. */
static long select_area(struct file *device, struct mbuff_area *area)
{
	struct mbuff_session *session = device->private_data;

	atomic64_set(&session->selected, area->id);
	area->open_mode |= (__force unsigned int)(device->f_mode & (FMODE_READ | FMODE_WRITE));
	return result_of(area_size(area));
}

static long select_by_name(struct file *device, const struct request *request)
{
	struct mbuff_area *area = registry_find(request->name, request->name_len);
	long result;

	if (!area)
		return -EINVAL;
	result = accessible(device, area);
	if (!result)
		result = select_area(device, area);
	area_put(area);
	return result;
}

static long allocate(struct file *device, const struct request *request)
{
	struct mbuff_session *session = device->private_data;
	struct mbuff_wish wish = {
		.size = request->size,
		.whole_pages = true,
		.mode = session->mode,
		.gid = session->gid,
	};
	struct mbuff_area *area;
	long result;
	u64 left;

	/* A probe takes no count, so that nobody has to know that he should give it back. */
	if (!request->size) {
		result = select_by_name(device, request);
		return result == -EINVAL ? -EIO : result;
	}
	if (request->size > INT_MAX || PAGE_ALIGN(request->size) > INT_MAX)
		return -EINVAL;
	area = area_alloc(request->name, request->name_len, &wish);
	/* The name and the size are good, so it is there and smaller. */
	if (IS_ERR(area))
		return PTR_ERR(area) == -EINVAL ? -EIO : PTR_ERR(area);
	result = select_area(device, area);
	if (result < 0)
		holders_release(area, NULL, &left);
	area_put(area);
	return result;
}

static long deallocate(const struct request *request)
{
	struct mbuff_area *area = registry_find(request->name, request->name_len);
	u64 left = 0;
	long result;

	if (!area)
		return -EINVAL;
	result = area_permission(area, MAY_WRITE);
	if (!result)
		result = holders_release(area, NULL, &left);
	area_put(area);
	return result ? result : result_of(left);
}

static long old_ioctl(struct file *device, unsigned int number, struct request *request)
{
	int error = check_request(request);

	if (error)
		return error;
	switch (number) {
	case _IOC_NR(IOCTL_MBUFF_ALLOCATE):
		return allocate(device, request);
	case _IOC_NR(IOCTL_MBUFF_DEALLOCATE):
		return deallocate(request);
	default: /* INFO, SELECT */
		return select_by_name(device, request);
	}
}

long legacy_ioctl(struct file *file, unsigned int command, void __user *argument)
{
	struct mbuff_request_struct given;
	struct request request;

	switch (command) {
	case IOCTL_MBUFF_INFO:
	case IOCTL_MBUFF_ALLOCATE:
	case IOCTL_MBUFF_DEALLOCATE:
	case IOCTL_MBUFF_SELECT:
		break;
	default:
		return -ENOTTY;
	}
	if (copy_from_user(&given, argument, sizeof(given)))
		return -EFAULT;
	memcpy(request.name, given.name, sizeof(request.name));
	request.size = given.size;
	return old_ioctl(file, _IOC_NR(command), &request);
}

#ifdef CONFIG_COMPAT
struct compat_request {
	u32 flags;
	char name[MBUFF_NAME_LEN + 1];
	u32 size;
	u32 reserved[4];
};

#define OLD_COMPAT(command) _IOWR(MBUFF_MAGIC, _IOC_NR(command), struct compat_request)

long legacy_compat_ioctl(struct file *file, unsigned int command, void __user *argument)
{
	struct compat_request given;
	struct request request;

	BUILD_BUG_ON(sizeof(given) != 60);
	switch (command) {
	case OLD_COMPAT(IOCTL_MBUFF_INFO):
	case OLD_COMPAT(IOCTL_MBUFF_ALLOCATE):
	case OLD_COMPAT(IOCTL_MBUFF_DEALLOCATE):
	case OLD_COMPAT(IOCTL_MBUFF_SELECT):
		break;
	default:
		return -ENOTTY;
	}
	if (copy_from_user(&given, argument, sizeof(given)))
		return -EFAULT;
	memcpy(request.name, given.name, sizeof(request.name));
	request.size = given.size;
	return old_ioctl(file, _IOC_NR(command), &request);
}
#endif

/*
 * A file of the selected area, to be put with fput(); EINVAL if there is none, or it has been
 * removed. The right to it was asked for when it was selected. A file with `weak` counts for no
 * user.
 */
static struct file *open_selected(struct file *device, bool weak)
{
	struct mbuff_session *session = device->private_data;
	struct mbuff_area *area = registry_find_id(atomic64_read(&session->selected));
	struct file *file = ERR_PTR(-EINVAL);

	if (!area)
		return file;
	/*
	 * For mmap(2) even if it has no name any more: then the file has the last reference, which
	 * ends later, without the lock of the address space.
	 */
	if (!weak || READ_ONCE(area->name))
		file = area_open(area, file_flags(device), weak ? session->number : 0);
	/* A user finds it by its name again, or does not get it. */
	if (!weak && !IS_ERR(file) && !registry_has_name(area)) {
		fput(file);
		file = ERR_PTR(-EINVAL);
	}
	area_put(area);
	return file;
}

ssize_t legacy_read(struct kiocb *iocb, struct iov_iter *to)
{
	struct file *file = open_selected(iocb->ki_filp, true);
	struct kiocb inner;
	ssize_t result;

	if (IS_ERR(file))
		return PTR_ERR(file);
	init_sync_kiocb(&inner, file);
	inner.ki_pos = iocb->ki_pos;
	result = file->f_op->read_iter(&inner, to);
	iocb->ki_pos = inner.ki_pos;
	fput(file);
	return result;
}

/* Within the area: here its size is what it was allocated with. */
ssize_t legacy_write(struct kiocb *iocb, struct iov_iter *from)
{
	struct file *file = open_selected(iocb->ki_filp, true);
	struct kiocb inner;
	ssize_t result;
	u64 size;

	if (IS_ERR(file))
		return PTR_ERR(file);
	size = i_size_read(file_inode(file));
	result = -ENOSPC;
	if (iov_iter_count(from) && iocb->ki_pos >= size)
		goto file;
	iov_iter_truncate(from, size - iocb->ki_pos);
	init_sync_kiocb(&inner, file);
	inner.ki_pos = iocb->ki_pos;
	result = file->f_op->write_iter(&inner, from);
	iocb->ki_pos = inner.ki_pos;
file:
	fput(file);
	return result;
}

loff_t legacy_llseek(struct file *file, loff_t offset, int whence)
{
	struct file *area = open_selected(file, true);
	loff_t result;

	if (IS_ERR(area))
		return PTR_ERR(area);
	result = fixed_size_llseek(file, offset, whence, i_size_read(file_inode(area)));
	fput(area);
	return result;
}

/* The mapping becomes one of the area's own file, which counts as a user of the area. */
int legacy_mmap(struct file *device, struct vm_area_struct *vma)
{
	struct file *file = open_selected(device, false);
	u64 start = (u64)vma->vm_pgoff << PAGE_SHIFT;
	u64 len = vma->vm_end - vma->vm_start;
	u64 size;
	int error;

	if (IS_ERR(file))
		return PTR_ERR(file);
	size = PAGE_ALIGN(i_size_read(file_inode(file)));
	error = -EFAULT;
	if (start > size || len > size - start)
		goto file;
	vma_set_file(vma, file);
	error = mbuff_mmap_file(file, vma);
file:
	fput(file);
	return error;
}
