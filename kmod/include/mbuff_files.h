/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * What the functions of mbuff.h do where /dev/mbuff is absent: they work on the files in
 * $MBUFF_DIR, or /mnt/mbuff. mbuff.h includes this file; programs do not.
 *
 * An area is a file. Beside it the file .mbuff.NAME, the note, holds how often mbuff_alloc() made
 * or found NAME, and the inode number that tells whether NAME is still that file. Who is attached
 * keeps the note open with a shared flock(2), which ends with the process, whatever ended it. An
 * area without a note was made by other means: it is found, not counted, and never removed.
 *
 * Each call works under a lock of the directory, in an order that leaves nothing wrong behind one
 * who is killed: the note is written by one write(2), an area gets its name when all is done, and
 * loses it before its note goes.
 *
 * What the device does better:
 * - An area that nobody counts, whose last user ended without mbuff_detach(), is gone for these
 *   functions; but its file and its memory stay until the next call with its name, or rm.
 * - Mappings by mbuff_alloc() do not keep a name that has no count and nobody attached. They keep
 *   their memory, and the next mbuff_alloc() makes another area.
 * - Each mbuff_attach() holds a descriptor until mbuff_detach(). Who closes descriptors that he
 *   does not know is not attached any more: he keeps the memory, but not the name.
 * - rm and mv are not refused while the area is counted; the counts end with the name.
 * - Directories in a name must exist, and the mode (0660) is subject to the umask.
 */
#ifndef MBUFF_FILES_H
#define MBUFF_FILES_H

#include <dirent.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/syscall.h>

#if defined __STRICT_ANSI__ && !defined __cplusplus
/* The C library hides these where bare C is asked for. */
extern ssize_t readlink(const char *path, char *target, size_t size);
extern long syscall(long number, ...);
#if defined __USE_FILE_OFFSET64 && !defined __LP64__
extern int ftruncate(int fd, off_t length) __asm__("ftruncate64");
#else
extern int ftruncate(int fd, off_t length);
#endif
#endif

/* The directory may be everybody's: a note never leads elsewhere. */
#ifdef O_NOFOLLOW
#define MBUFF_FILES_NO_LINK O_NOFOLLOW
#else
#define MBUFF_FILES_NO_LINK __O_NOFOLLOW /* the same, where bare C is asked for */
#endif
#ifdef AT_FDCWD
#define MBUFF_FILES_HERE AT_FDCWD
#else
#define MBUFF_FILES_HERE (-100) /* as above */
#endif

/* One call's view of the area `name` and its count; the directory is locked meanwhile. */
struct mbuff_files {
	char area[1024], note[1024], fresh[1024]; /* paths; `fresh` is an area that is not done */
	int directory_fd, area_fd, note_fd;	  /* -1: there is none */
	unsigned long count;
};

static __inline__ void mbuff_files_end(struct mbuff_files *files)
{
	mbuff_close(files->note_fd);
	mbuff_close(files->area_fd);
	/* A child that another thread has forked meanwhile has the descriptor too, and its lock. */
	if (files->directory_fd >= 0)
		flock(files->directory_fd, LOCK_UN);
	mbuff_close(files->directory_fd);
}

/* Tells the area from a file that got its name later. 0: unknown, to a 32-bit program. */
static __inline__ unsigned long mbuff_files_inode(const struct mbuff_files *files)
{
	struct stat status;

	return fstat(files->area_fd, &status) ? 0 : (unsigned long)status.st_ino & 0xffffffffUL;
}

static __inline__ int mbuff_files_begin(struct mbuff_files *files, const char *name)
{
	const int set_id = getuid() != geteuid() || getgid() != getegid();
	const char *directory = set_id ? NULL : getenv("MBUFF_DIR");
	const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
	int above = (int)(base - name);
	unsigned long inode, noted;
	ssize_t length;
	char text[32];

	if (!directory || !*directory)
		directory = "/mnt/mbuff";
	if (strlen(directory) > sizeof(files->area) - 64) {
		errno = ENAMETOOLONG;
		return -1;
	}
	sprintf(files->area, "%s/%s", directory, name);
	sprintf(files->note, "%s/%.*s.mbuff.%s", directory, above, name, base);
	sprintf(files->fresh, "%s/%.*s.mbuff-new.%s", directory, above, name, base);
	files->area_fd = files->note_fd = -1;
	files->count = 0;

	files->directory_fd = open(directory, O_RDONLY | MBUFF_OPEN_FLAGS);
	if (files->directory_fd < 0)
		return -1;
	while (flock(files->directory_fd, LOCK_EX))
		if (errno != EINTR)
			goto failed;
	files->area_fd = open(files->area, O_RDWR | MBUFF_OPEN_FLAGS);
	if (files->area_fd >= 0)
		files->note_fd = open(files->note, O_RDWR | MBUFF_OPEN_FLAGS | MBUFF_FILES_NO_LINK);
	if (files->note_fd < 0) {
		if (errno != ENOENT)
			goto failed;
		return 0;
	}
	length = read(files->note_fd, text, sizeof(text) - 1);
	text[length > 0 ? length : 0] = '\0';
	inode = mbuff_files_inode(files);
	if (sscanf(text, "%lu %lu", &files->count, &noted) != 2 ||
	    (inode && noted && inode != noted)) {
		mbuff_close(files->note_fd);
		files->note_fd = -1;
	}
	return 0;
failed:
	mbuff_files_end(files);
	return -1;
}

/* Removes an area that nobody counts and nobody is attached to, as the device does by itself. */
static __inline__ void mbuff_files_settle(struct mbuff_files *files)
{
	if (files->note_fd < 0 || files->count || flock(files->note_fd, LOCK_EX | LOCK_NB))
		return;
	if (unlink(files->area)) { /* not ours to remove */
		flock(files->note_fd, LOCK_UN);
		return;
	}
	unlink(files->note);
	mbuff_close(files->note_fd);
	mbuff_close(files->area_fd);
	files->area_fd = files->note_fd = -1;
}

/* Always as many bytes, so that a single write replaces all of it. */
static __inline__ int mbuff_files_note(struct mbuff_files *files)
{
	char text[64];
	int length = sprintf(text, "%10lu %10lu\n", files->count, mbuff_files_inode(files));

	return lseek(files->note_fd, 0, SEEK_SET) ||
	       write(files->note_fd, text, (size_t)length) != length;
}

/* Makes the area, with all its memory, under another name. */
static __inline__ int mbuff_files_make(struct mbuff_files *files, size_t size)
{
	const int flags = O_RDWR | O_CREAT | MBUFF_OPEN_FLAGS;
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);

	unlink(files->fresh); /* somebody was killed */
	files->area_fd = open(files->fresh, flags | O_EXCL, 0660);
	if (files->area_fd < 0 ||
	    ftruncate(files->area_fd, (off_t)((size + page - 1) / page * page)))
		return -1;
	files->note_fd = open(files->note, flags | MBUFF_FILES_NO_LINK, 0660);
	return files->note_fd < 0 ? -1 : 0;
}

static __inline__ int mbuff_files_join(struct mbuff_files *files, int made, int how)
{
	if (how == MBUFF_COUNTED)
		files->count++;
	else if (flock(files->note_fd, LOCK_SH)) /* as long as the descriptor is open */
		return -1;
	if ((made || how == MBUFF_COUNTED) && mbuff_files_note(files))
		return -1;
	if (!made)
		return 0;
	/* By RENAME_NOREPLACE, which is 1: nothing that has got the name meanwhile goes. */
	return (int)syscall(SYS_renameat2, MBUFF_FILES_HERE, files->fresh, MBUFF_FILES_HERE,
			    files->area, 1);
}

static __inline__ void *mbuff_files_try(const char *name, size_t wanted, void *addr, int how)
{
	struct mbuff_files files;
	void *memory = MAP_FAILED;
	int made, error;

	if (mbuff_files_begin(&files, name))
		return MAP_FAILED;
	mbuff_files_settle(&files);
	made = files.area_fd < 0 && how != MBUFF_FOUND;
	if (files.area_fd < 0 && !made)
		errno = EINVAL;
	else if (!made || !mbuff_files_make(&files, wanted))
		memory = mbuff_map_fd(files.area_fd, wanted, addr, how);
	if (memory != MAP_FAILED && files.note_fd >= 0) {
		if (mbuff_files_join(&files, made, how)) {
			error = errno;
			mbuff_unmap_memory(memory);
			errno = error;
			memory = MAP_FAILED;
		} else if (how != MBUFF_COUNTED) {
			files.note_fd = -1; /* mbuff_files_leave() closes it */
		}
	}
	if (made) {
		error = errno;
		unlink(files.fresh);
		if (memory == MAP_FAILED)
			unlink(files.note);
		errno = error;
	}
	mbuff_files_end(&files);
	return memory;
}

/* Closes one of the descriptors by which this process is attached. */
static __inline__ void mbuff_files_leave(struct mbuff_files *files)
{
	char link[64], mine[2048], other[2048];
	DIR *open_files = opendir("/proc/self/fd");
	struct dirent *entry;
	ssize_t length;
	int fd;

	if (!open_files)
		return;
	sprintf(link, "/proc/self/fd/%d", files->note_fd);
	length = readlink(link, mine, sizeof(mine));
	while (length > 0 && (entry = readdir(open_files)) != NULL) {
		fd = atoi(entry->d_name);
		sprintf(link, "/proc/self/fd/%d", fd);
		if (fd != files->note_fd && readlink(link, other, sizeof(other)) == length &&
		    !memcmp(mine, other, (size_t)length)) {
			close(fd);
			break;
		}
	}
	closedir(open_files);
}

/* EINVAL: there is nothing to drop. */
static __inline__ int mbuff_files_drop(const char *name, int how)
{
	struct mbuff_files files;
	int error = 0;

	if (mbuff_files_begin(&files, name))
		return -1;
	if (files.note_fd >= 0) {
		if (how == MBUFF_COUNTED && files.count) {
			files.count--;
			if (mbuff_files_note(&files))
				error = errno;
		} else {
			mbuff_files_leave(&files);
			if (how == MBUFF_COUNTED)
				error = EINVAL;
		}
		mbuff_files_settle(&files);
	} else if (files.area_fd < 0) {
		error = EINVAL;
	}
	mbuff_files_end(&files);
	errno = error;
	return error ? -1 : 0;
}

/* EEXIST: somebody made the file at this moment by other means. */
static __inline__ void *mbuff_files_map(const char *name, size_t wanted, void *addr, int how)
{
	int tries = 3;
	void *memory;

	do {
		memory = mbuff_files_try(name, wanted, addr, how);
	} while (memory == MAP_FAILED && errno == EEXIST && --tries);
	return memory;
}

static __inline__ int mbuff_files_size(const char *name)
{
	struct mbuff_files files;
	off_t length = -1;

	if (mbuff_files_begin(&files, name))
		return -1;
	mbuff_files_settle(&files);
	errno = EINVAL;
	if (files.area_fd >= 0)
		length = lseek(files.area_fd, 0, SEEK_END);
	if (length != (int)length)
		errno = EOVERFLOW;
	mbuff_files_end(&files);
	return length == (int)length ? (int)length : -1;
}

#endif
