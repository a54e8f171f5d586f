// SPDX-License-Identifier: MIT
/* The channel's Python face: the type Channel of mbufffs.channel._channel. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <sys/ioctl.h>

#include "channel.h"

/* As in linux/fuse.h from protocol 7.40 on. */
struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};

#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

struct face {
	PyObject_HEAD
	struct channel *channel;
};

static int open_backing(void *context, int fd)
{
	struct backing_map map = { .fd = fd };
	const int id = ioctl((int)(intptr_t)context, BACKING_OPEN, &map);

	return id < 0 ? -errno : id;
}

static void close_backing(void *context, int32_t id)
{
	uint32_t number = (uint32_t)id;

	/* ENOENT: closed before. Nothing else can be wrong with it, and nobody waits for it. */
	(void)ioctl((int)(intptr_t)context, BACKING_CLOSE, &number);
}

static int face_init(struct face *self, PyObject *args, PyObject *keywords)
{
	static char *names[] = { "device",   "passthrough", "rings",	  "elsewhere", "areas",
				 "grace_ms", "keep_limit",  "deaths_max", NULL };
	struct channel_settings settings = {
		.grace_ms = 2000,
		.deaths_max = 10,
		.forget_ms = 5,
		.linger_us = 20, /* measured: docs/performance.md */
		.open_backing = open_backing,
		.close_backing = close_backing,
	};
	Py_ssize_t keep_limit = 64 << 20;
	int device, passthrough = 0, rings = 0, elsewhere = 0, error;

	if (self->channel) {
		PyErr_SetString(PyExc_RuntimeError, "a Channel is initialised once");
		return -1;
	}
	if (!PyArg_ParseTupleAndKeywords(args, keywords, "i|$pppiInI", names, &device, &passthrough,
					 &rings, &elsewhere, &settings.areas, &settings.grace_ms,
					 &keep_limit, &settings.deaths_max))
		return -1;
	settings.device = device;
	settings.context = (void *)(intptr_t)device;
	settings.passthrough = passthrough;
	settings.rings = rings;
	settings.elsewhere = elsewhere;
	settings.keep_limit = (size_t)keep_limit;
	self->channel = channel_new(&settings);
	if (!self->channel) {
		PyErr_SetFromErrno(PyExc_OSError);
		return -1;
	}
	error = channel_start(self->channel);
	if (error) {
		channel_free(self->channel);
		self->channel = NULL;
		errno = -error;
		PyErr_SetFromErrno(PyExc_OSError);
		return -1;
	}
	return 0;
}

static bool is_open(struct face *self)
{
	if (!self->channel)
		PyErr_SetString(PyExc_ValueError, "the channel is closed");
	return self->channel;
}

static PyObject *face_attach(struct face *self, PyObject *args)
{
	int socket, error;

	if (!PyArg_ParseTuple(args, "i", &socket) || !is_open(self))
		return NULL;
	error = channel_attach(self->channel, socket);
	if (error) {
		errno = -error;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	Py_RETURN_NONE;
}

static PyObject *face_fileno(struct face *self, PyObject *unused)
{
	if (!is_open(self))
		return NULL;
	return PyLong_FromLong(channel_event(self->channel));
}

static PyObject *face_close(struct face *self, PyObject *unused)
{
	struct channel *channel = self->channel;

	self->channel = NULL;
	if (channel) {
		Py_BEGIN_ALLOW_THREADS
		channel_free(channel);
		Py_END_ALLOW_THREADS
	}
	Py_RETURN_NONE;
}

static int put(PyObject *dictionary, const char *name, uint64_t number)
{
	PyObject *value = PyLong_FromUnsignedLongLong(number);
	int failed = !value || PyDict_SetItemString(dictionary, name, value);

	Py_XDECREF(value);
	return failed;
}

static PyObject *numbers(const uint64_t *values)
{
	PyObject *list = PyList_New(CHANNEL_OPCODES);
	Py_ssize_t i;

	for (i = 0; list && i < CHANNEL_OPCODES; i++) {
		PyObject *value = PyLong_FromUnsignedLongLong(values[i]);

		if (!value) {
			Py_DECREF(list);
			return NULL;
		}
		PyList_SET_ITEM(list, i, value);
	}
	return list;
}

static PyObject *face_counters(struct face *self, PyObject *unused)
{
	struct channel_counters count;
	PyObject *all, *received, *answered;

	if (!is_open(self))
		return NULL;
	channel_counters(self->channel, &count);
	all = PyDict_New();
	received = numbers(count.received);
	answered = numbers(count.answered);
	if (!all || !received || !answered || PyDict_SetItemString(all, "received", received) ||
	    PyDict_SetItemString(all, "answered", answered) || put(all, "ringed", count.ringed) ||
	    put(all, "forwarded", count.forwarded) || put(all, "replies", count.replies) ||
	    put(all, "resent", count.resent) || put(all, "dropped", count.dropped) ||
	    put(all, "malformed", count.malformed) || put(all, "interrupted", count.interrupted) ||
	    put(all, "kept", count.kept) || put(all, "kept_bytes", count.kept_bytes) ||
	    put(all, "nodes", count.nodes) || put(all, "backing", count.backing))
		Py_CLEAR(all);
	Py_XDECREF(received);
	Py_XDECREF(answered);
	return all;
}

static PyObject *face_state(struct face *self, void *unused)
{
	static const char *const names[] = { "idle", "serving", "ended" };

	if (!is_open(self))
		return NULL;
	return PyUnicode_FromString(names[channel_state(self->channel)]);
}

static PyObject *face_ready(struct face *self, void *unused)
{
	if (!is_open(self))
		return NULL;
	return PyBool_FromLong(channel_ready(self->channel));
}

static PyObject *face_passthrough(struct face *self, void *unused)
{
	if (!is_open(self))
		return NULL;
	return PyBool_FromLong(channel_passthrough(self->channel));
}

static PyObject *face_rings(struct face *self, void *unused)
{
	if (!is_open(self))
		return NULL;
	return PyBool_FromLong(channel_rings(self->channel));
}

static PyObject *face_error(struct face *self, void *unused)
{
	if (!is_open(self))
		return NULL;
	return PyLong_FromLong(channel_error(self->channel));
}

static void face_dealloc(struct face *self)
{
	/* Not closed: its threads may be reading still, so it must outlive its last reference. */
	Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef methods[] = {
	{ "attach", (PyCFunction)face_attach, METH_VARARGS, "Give it a new server's socket." },
	{ "fileno", (PyCFunction)face_fileno, METH_NOARGS, "An eventfd that counts changes." },
	{ "counters", (PyCFunction)face_counters, METH_NOARGS, "What has been counted so far." },
	{ "close", (PyCFunction)face_close, METH_NOARGS, "Wait for the end of the mount." },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef attributes[] = {
	{ "state", (getter)face_state, NULL, "idle, serving or ended", NULL },
	{ "ready", (getter)face_ready, NULL, "INIT has been answered", NULL },
	{ "passthrough", (getter)face_passthrough, NULL, "the kernel has granted it", NULL },
	{ "rings", (getter)face_rings, NULL, "messages come by io_uring", NULL },
	{ "error", (getter)face_error, NULL, "errno for which it has ended, 0: none", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyTypeObject face_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mbufffs.channel._channel.Channel",
	.tp_basicsize = sizeof(struct face),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = PyType_GenericNew,
	.tp_init = (initproc)face_init,
	.tp_dealloc = (destructor)face_dealloc,
	.tp_methods = methods,
	.tp_getset = attributes,
	.tp_doc =
		"Carries FUSE messages between a /dev/fuse descriptor and one server after another.",
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "_channel",
	.m_size = -1,
};

PyMODINIT_FUNC PyInit__channel(void)
{
	PyObject *created = PyModule_Create(&module);

	if (!created || PyType_Ready(&face_type) ||
	    PyModule_AddObjectRef(created, "Channel", (PyObject *)&face_type)) {
		Py_XDECREF(created);
		return NULL;
	}
	return created;
}
