// SPDX-License-Identifier: MIT
/* What the linker puts between the channel and the C library (--wrap): its clock, and failures. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

static atomic_ullong clock_offset, unwanted;
static atomic_size_t packet_length;
static atomic_int read_error, send_error, poll_error, thread_number, allocation_number;
static int looks = -1, failures = -1;
static _Thread_local bool ours;

__attribute__((constructor)) static void start_faults(void)
{
	looks = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	failures = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ours = true;
}

int __real_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);
ssize_t __real_read(int fd, void *buffer, size_t length);
ssize_t __wrap_read(int fd, void *buffer, size_t length);
ssize_t __real_recv(int fd, void *buffer, size_t length, int flags);
ssize_t __wrap_recv(int fd, void *buffer, size_t length, int flags);
ssize_t __real_write(int fd, const void *buffer, size_t length);
ssize_t __wrap_write(int fd, const void *buffer, size_t length);
ssize_t __real_writev(int fd, const struct iovec *parts, int count);
ssize_t __wrap_writev(int fd, const struct iovec *parts, int count);
ssize_t __real_send(int fd, const void *buffer, size_t length, int flags);
ssize_t __wrap_send(int fd, const void *buffer, size_t length, int flags);
int __real_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*start)(void *), void *argument);
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
	const uint64_t one = 1, offset = atomic_load(&clock_offset);
	int result = __real_clock_gettime(clock, time);

	if (clock != CLOCK_MONOTONIC)
		return result;
	time->tv_sec += (time_t)(offset / 1000);
	time->tv_nsec += (long)(offset % 1000) * 1000000;
	if (time->tv_nsec >= 1000000000) {
		time->tv_nsec -= 1000000000;
		time->tv_sec++;
	}
	if (__real_write(looks, &one, sizeof(one)) < 0)
		return -1;
	return result;
}

void clock_advance(uint64_t milliseconds)
{
	atomic_fetch_add(&clock_offset, milliseconds);
}

void clock_looks(int times)
{
	struct pollfd polled = { .fd = looks, .events = POLLIN };
	uint64_t one;

	while (__real_poll(&polled, 1, 0) > 0) /* earlier ones do not count */
		EQUAL(__real_read(looks, &one, sizeof(one)), sizeof(one));
	for (; times; times--) {
		EQUAL(__real_poll(&polled, 1, PATIENCE), 1);
		EQUAL(__real_read(looks, &one, sizeof(one)), sizeof(one));
	}
}

bool clock_was_looked_at(void)
{
	struct pollfd polled = { .fd = looks, .events = POLLIN };

	return __real_poll(&polled, 1, 0) > 0;
}

/* What lies behind a message is an earlier one's: let AddressSanitizer see who reads it. */
static void guard(char *buffer, size_t length, ssize_t result)
{
	if (result >= 0 && (size_t)result < length)
		ASAN_POISON_MEMORY_REGION(buffer + result, length - (size_t)result);
}

ssize_t __wrap_read(int fd, void *buffer, size_t length)
{
	ssize_t result;
	int error;

	if (length != CHANNEL_MESSAGE_MAX) /* an eventfd */
		return __real_read(fd, buffer, length);
	ASAN_UNPOISON_MEMORY_REGION(buffer, length);
	result = __real_read(fd, buffer, length);
	guard(buffer, length, result);
	error = atomic_exchange(&read_error, 0);
	if (!error)
		return result;
	errno = error;
	return -1;
}

ssize_t __wrap_recv(int fd, void *buffer, size_t length, int flags)
{
	ssize_t result;
	size_t longer;

	if (length != CHANNEL_MESSAGE_MAX)
		return __real_recv(fd, buffer, length, flags);
	ASAN_UNPOISON_MEMORY_REGION(buffer, length);
	result = __real_recv(fd, buffer, length, flags);
	guard(buffer, length, result);
	longer = result > 0 ? atomic_exchange(&packet_length, 0) : 0;
	return longer ? (ssize_t)longer : result;
}

void packet_was(size_t length)
{
	atomic_store(&packet_length, length);
}

void device_fails(int error)
{
	atomic_store(&read_error, error);
}

static bool is_unwanted(const void *message, size_t length)
{
	struct fuse_out_header header;

	if (ours || length < sizeof(header))
		return false;
	memcpy(&header, message, sizeof(header));
	return header.unique && header.unique == atomic_load(&unwanted);
}

ssize_t __wrap_write(int fd, const void *buffer, size_t length)
{
	if (!is_unwanted(buffer, length))
		return __real_write(fd, buffer, length);
	errno = ENOENT;
	return -1;
}

ssize_t __wrap_writev(int fd, const struct iovec *parts, int count)
{
	if (!is_unwanted(parts->iov_base, parts->iov_len))
		return __real_writev(fd, parts, count);
	errno = ENOENT;
	return -1;
}

void device_wants_not(uint64_t unique)
{
	atomic_store(&unwanted, unique);
}

ssize_t __wrap_send(int fd, const void *buffer, size_t length, int flags)
{
	int error = ours ? 0 : atomic_exchange(&send_error, 0);

	if (!error)
		return __real_send(fd, buffer, length, flags);
	errno = error;
	return -1;
}

void sending_fails(int error)
{
	atomic_store(&send_error, error);
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
	int error = ours ? 0 : atomic_exchange(&poll_error, 0);

	if (!error)
		return __real_poll(fds, count, timeout);
	errno = error;
	return -1;
}

void polling_fails(int error)
{
	atomic_store(&poll_error, error);
}

static bool counted_down(atomic_int *number)
{
	return atomic_load(number) > 0 && atomic_fetch_sub(number, 1) == 1;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*start)(void *), void *argument)
{
	if (!counted_down(&thread_number))
		return __real_pthread_create(thread, attributes, start, argument);
	/* POSIX leaves undefined what is in it then. */
	memset(thread, 0x55, sizeof(*thread));
	return EAGAIN;
}

void thread_fails(int number)
{
	atomic_store(&thread_number, number);
}

static void *no_memory(void)
{
	const uint64_t one = 1;

	EQUAL(__real_write(failures, &one, sizeof(one)), sizeof(one));
	errno = ENOMEM;
	return NULL;
}

void *__wrap_malloc(size_t size)
{
	return counted_down(&allocation_number) ? no_memory() : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return counted_down(&allocation_number) ? no_memory() : __real_calloc(count, size);
}

void allocation_fails(int number)
{
	uint64_t earlier;

	CHECK(__real_read(failures, &earlier, sizeof(earlier)) < 0 || earlier);
	atomic_store(&allocation_number, number);
}

bool allocation_failed(void)
{
	struct pollfd polled = { .fd = failures, .events = POLLIN };

	return __real_poll(&polled, 1, PATIENCE) == 1;
}
