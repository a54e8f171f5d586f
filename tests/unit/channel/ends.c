// SPDX-License-Identifier: MIT
/* Beginnings and ends: the device's, the server's, the channel's. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

/* That the socket has been shut down; what the server had been sent is still there. */
static void is_shut(struct rig *rig)
{
	struct pollfd polled = { .fd = rig->server, .events = POLLIN };
	struct packet packet;
	ssize_t length;

	do {
		EQUAL(poll(&polled, 1, PATIENCE), 1);
		length = recv(rig->server, packet.bytes, PACKET_MAX, 0);
	} while (length > 0);
	EQUAL(length, 0);
}

FACT(end_of_the_device_ends_all_and_shuts_the_servers_socket)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	EQUAL(channel_state(rig.channel), CHANNEL_SERVING);
	shutdown(rig.kernel, SHUT_RDWR);
	rig_wait(&rig, CHANNEL_ENDED);
	is_shut(&rig);
	rig_close(&rig);
}

FACT(enodev_of_the_device_ends_all_and_shuts_the_servers_socket)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	device_fails(ENODEV);
	kernel_asks(&rig, FUSE_GETATTR, 1, NULL, 0);
	rig_wait(&rig, CHANNEL_ENDED);
	is_shut(&rig);
	rig_close(&rig);
}

FACT(end_without_a_server_is_an_end_too)
{
	struct rig rig;

	rig_open(&rig, NULL);
	EQUAL(channel_state(rig.channel), CHANNEL_IDLE);
	shutdown(rig.kernel, SHUT_RDWR);
	rig_wait(&rig, CHANNEL_ENDED);
	rig_close(&rig);
}

FACT(interrupted_read_of_the_device_is_read_again)
{
	static const int errors[] = { EINTR, ENOENT, EAGAIN };
	struct rig rig;
	size_t i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	for (i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		device_fails(errors[i]);
		kernel_asks(&rig, FUSE_GETATTR, 1, NULL, 0);
		rig_settle(&rig);
	}
	rig_close(&rig);
}

FACT(second_server_is_ebusy_and_a_late_one_enodev)
{
	struct rig rig;
	int pair[2];

	rig_open(&rig, NULL);
	rig_serve(&rig);
	EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	EQUAL(channel_attach(rig.channel, pair[0]), -EBUSY);
	rig_settle(&rig);
	server_dies(&rig);
	shutdown(rig.kernel, SHUT_RDWR);
	rig_wait(&rig, CHANNEL_ENDED);
	EQUAL(channel_attach(rig.channel, pair[0]), -ENODEV);
	CHECK(fcntl(pair[0], F_GETFD) >= 0);
	close(pair[0]);
	close(pair[1]);
	rig_close(&rig);
}

FACT(channel_owns_the_socket_of_a_server_and_closes_it)
{
	struct rig rig;
	int pair[2];

	rig_open(&rig, NULL);
	EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	EQUAL(channel_attach(rig.channel, pair[0]), 0);
	close(pair[1]);
	rig_wait(&rig, CHANNEL_IDLE);
	EQUAL(fcntl(pair[0], F_GETFD), -1);
	rig_close(&rig);
}

FACT(what_is_no_socket_ends_as_a_server_that_has_gone)
{
	struct rig rig;

	rig_open(&rig, NULL);
	EQUAL(channel_attach(rig.channel, open("/dev/null", O_RDWR | O_CLOEXEC)), 0);
	rig_wait(&rig, CHANNEL_IDLE);
	rig_serve(&rig);
	rig_settle(&rig);
	rig_close(&rig);
}

FACT(event_tells_of_ready_of_death_and_of_the_end)
{
	struct pollfd polled = { .events = POLLIN };
	struct rig rig;
	uint64_t changes;

	rig_open(&rig, NULL);
	polled.fd = channel_event(rig.channel);
	EQUAL(poll(&polled, 1, 0), 0);
	rig_serve(&rig);
	rig_settle(&rig);
	EQUAL(poll(&polled, 1, PATIENCE), 1);
	EQUAL(read(polled.fd, &changes, sizeof(changes)), sizeof(changes));
	EQUAL(changes, 2);
	server_dies(&rig);
	shutdown(rig.kernel, SHUT_RDWR);
	rig_wait(&rig, CHANNEL_ENDED);
	rig_close(&rig);
}

FACT(everything_that_is_kept_is_freed)
{
	static const struct fuse_poll_in poll_in = { .kh = 9, .flags = FUSE_POLL_SCHEDULE_NOTIFY };
	struct rig rig;
	int i;

	rig_open(&rig, NULL);
	rig_serve(&rig);
	create(&rig, 5, 77);
	for (i = 0; i < 100; i++)
		kernel_asks(&rig, FUSE_GETATTR, 1, NULL, 0);
	kernel_asks(&rig, FUSE_POLL, 5, &poll_in, sizeof(poll_in));
	for (i = 0; i < 100; i++)
		server_notifies(&rig, NOTIFY_INVAL_INODE, "...", 3);
	server_dies(&rig);
	kernel_asks(&rig, FUSE_GETATTR, 1, NULL, 0);
	server_attaches(&rig);
	rig_close(&rig);
}

FACT(channel_that_was_never_started_is_freed)
{
	const struct channel_settings settings = rig_settings();
	struct channel *channel = channel_new(&settings);
	int pair[2];

	CHECK(channel);
	EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	EQUAL(channel_attach(channel, pair[0]), 0);
	channel_free(channel);
	EQUAL(fcntl(pair[0], F_GETFD), -1);
	close(pair[1]);
}

/* A close that may take long, as BACKING_CLOSE of a large area does. */

static int gate[2];

static void close_slowly(void *context, int32_t id)
{
	const struct rig *rig = context;
	char go;

	EQUAL(write(rig->closed[1], &id, sizeof(id)), sizeof(id));
	EQUAL(read(gate[0], &go, 1), 1);
}

FACT(slow_close_of_an_id_holds_up_neither_clients_nor_servers)
{
	struct channel_settings settings = rig_settings();
	struct rig rig;
	uint64_t unique;

	settings.close_backing = close_slowly;
	EQUAL(pipe(gate), 0);
	rig_open(&rig, &settings);
	rig_serve(&rig);
	create(&rig, 5, 77);
	create(&rig, 6, 78);
	kernel_forgets(&rig, 5, 1);
	EQUAL(closed_next(&rig), 77);
	kernel_forgets(&rig, 6, 1);
	EQUAL(open_node(&rig, 5, 79).backing_id, 79);
	rig_restart(&rig);
	look_up(&rig, 7);
	unique = kernel_asks(&rig, FUSE_MKNOD, 1, "................name", 21);
	EQUAL(server_gets(&rig, FUSE_MKNOD, NULL), unique);
	CHECK(closed_nothing(&rig));
	EQUAL(write(gate[1], "x", 1), 1);
	EQUAL(closed_next(&rig), 78);
	EQUAL(write(gate[1], "x", 1), 1);
	rig_close(&rig);
	close(gate[0]);
	close(gate[1]);
}

FACT(ids_not_closed_at_the_end_are_left_to_the_kernel)
{
	struct channel_settings settings = rig_settings();
	struct rig rig;
	uint64_t node;

	settings.close_backing = close_slowly;
	EQUAL(pipe(gate), 0);
	rig_open(&rig, &settings);
	rig_serve(&rig);
	for (node = 5; node < 10; node++) {
		create(&rig, node, 70 + node);
		kernel_forgets(&rig, node, 1);
	}
	EQUAL(closed_next(&rig), 75);
	server_notifies(&rig, NOTIFY_INVAL_INODE, "...", 3);
	shutdown(rig.kernel, SHUT_RDWR);
	rig_wait(&rig, CHANNEL_ENDED);
	EQUAL(write(gate[1], "x", 1), 1);
	rig_close(&rig);
	close(gate[0]);
	close(gate[1]);
}
