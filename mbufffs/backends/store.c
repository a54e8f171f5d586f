// SPDX-License-Identifier: MIT
/* System calls on the store that Python's os module lacks; no rule about areas is in here. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "handle.h"

static PyObject *node_at(PyObject *self, PyObject *args)
{
	const char *name;
	uint64_t node;
	int directory;

	if (!PyArg_ParseTuple(args, "iy", &directory, &name))
		return NULL;
	if (handle_of(directory, name, &node))
		return PyErr_SetFromErrno(PyExc_OSError);
	return PyLong_FromUnsignedLongLong(node);
}

static PyObject *open_node(PyObject *self, PyObject *args)
{
	unsigned long long node;
	int store, flags, fd;

	if (!PyArg_ParseTuple(args, "iKi", &store, &node, &flags))
		return NULL;
	fd = handle_open(store, node, flags);
	if (fd < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	return PyLong_FromLong(fd);
}

static PyObject *rename_at(PyObject *self, PyObject *args)
{
	const char *old, *new;
	int olddirectory, newdirectory;
	unsigned int flags;

	if (!PyArg_ParseTuple(args, "iyiyI", &olddirectory, &old, &newdirectory, &new, &flags))
		return NULL;
	if (renameat2(olddirectory, old, newdirectory, new, flags))
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

static PyObject *allocate(PyObject *self, PyObject *args)
{
	long long offset, length;
	int fd, mode, failed;

	if (!PyArg_ParseTuple(args, "iiLL", &fd, &mode, &offset, &length))
		return NULL;
	do {
		Py_BEGIN_ALLOW_THREADS
		failed = fallocate(fd, mode, offset, length);
		Py_END_ALLOW_THREADS
	} while (failed && errno == EINTR && !PyErr_CheckSignals());
	if (PyErr_Occurred())
		return NULL;
	if (failed)
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

/*
 * Names from one getdents64 call into `size` bytes, each with the offset behind it; an empty list
 * is the end. tmpfs's offsets belong to the entries and stay theirs (kernel 6.6 and later), so a
 * directory can be read on from any of them by another process.
 */
static PyObject *entries(PyObject *self, PyObject *args)
{
	char buffer[32768] __attribute__((aligned(8)));
	unsigned int size;
	long long offset;
	PyObject *list;
	long length, at = 0;
	int fd;

	if (!PyArg_ParseTuple(args, "iLI", &fd, &offset, &size))
		return NULL;
	if (size > sizeof(buffer))
		size = sizeof(buffer);
	if (lseek(fd, offset, SEEK_SET) < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	length = syscall(SYS_getdents64, fd, buffer, size);
	if (length < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	list = PyList_New(0);
	while (list && at < length) {
		const struct dirent64_head {
			uint64_t ino;
			int64_t off;
			uint16_t reclen;
			uint8_t type;
			char name[];
		} *entry = (const void *)(buffer + at);
		PyObject *pair = Py_BuildValue("(yL)", entry->name, (long long)entry->off);

		if (!pair || PyList_Append(list, pair))
			Py_CLEAR(list);
		Py_XDECREF(pair);
		at += entry->reclen;
	}
	return list;
}

static PyMethodDef methods[] = {
	{ "node_at", node_at, METH_VARARGS, "node_at(dirfd, name) -> the node id of a name" },
	{ "open_node", open_node, METH_VARARGS, "open_node(storefd, node, flags) -> descriptor" },
	{ "rename_at", rename_at, METH_VARARGS, "renameat2(2)" },
	{ "allocate", allocate, METH_VARARGS, "allocate(fd, mode, offset, length): fallocate(2)" },
	{ "entries", entries, METH_VARARGS, "entries(fd, offset, size) -> [(name, next offset)]" },
	{ NULL, NULL, 0, NULL },
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "_store",
	.m_size = -1,
	.m_methods = methods,
};

PyMODINIT_FUNC PyInit__store(void)
{
	return PyModule_Create(&module);
}
