# SPDX-License-Identifier: MIT
"""What the kernel would ask next: the channel is told before the reply, and answers it itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from mbufffs.backends import Backend
from mbufffs.channel import attributes_message, names_message

FOREVER = 3600.0  # seconds; all changes come through the mount, so the kernel may believe its cache
NAMES_MAX = 1000  # of a directory; to tell of more would keep others waiting
MISSED_MAX = 1000  # directories of which is remembered that they have more


class Ahead:
    def __init__(self, backend: Backend, tell: Callable[[bytes], None]) -> None:
        self._backend = backend
        self._tell = tell
        self._messages: list[bytes] | None = None  # of the change under way
        self._missed: dict[int, int] = {}  # questions for names that are not there, by directory

    @contextlib.contextmanager
    def changing(self, *directories: int) -> Iterator[None]:
        """Around what may change directories: the kernel asks for their attributes at once."""
        messages = self._messages = []
        try:
            yield
        finally:
            self._messages = None
            for node in directories if self._backend.sole else ():
                # One that has gone is none that the kernel asks for.
                with contextlib.suppress(OSError):
                    found = self._backend.attributes(node)
                    messages.append(
                        attributes_message(node, found.stat, found.links, int(FOREVER)))
            if messages:
                self._tell(b"".join(messages))  # each write would wake the channel

    def tell(self, message: bytes) -> None:
        """At once; of a change under way, when it is done."""
        if self._messages is None:
            self._tell(message)
        else:
            self._messages.append(message)

    def missed(self, directory: int) -> None:
        """A name was not there, and the channel did not know: it is told all names that are.

        There may be too many. To see that costs more than a question, so it is tried at the first
        question, the second, the fourth and so on.
        """
        if not self._backend.sole:
            return
        if len(self._missed) > MISSED_MAX:
            self._missed.clear()
        asked = self._missed[directory] = self._missed.get(directory, 0) + 1
        if asked & (asked - 1):
            return
        names = self._backend.names(directory, NAMES_MAX)
        if names is not None:
            del self._missed[directory]
            self._tell(names_message(directory, names))
