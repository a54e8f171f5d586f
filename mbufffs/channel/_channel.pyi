# SPDX-License-Identifier: MIT
# Types of the C extension; what it does is told in channel.h.
from typing import Any

class Channel:
    def __init__(
        self,
        device: int,
        *,
        passthrough: bool = ...,
        elsewhere: bool = ...,
        areas: int = ...,
        hidden: int = ...,
        grace_ms: int = ...,
        keep_limit: int = ...,
        deaths_max: int = ...,
    ) -> None: ...
    def attach(self, socket: int) -> None: ...
    def fileno(self) -> int: ...
    def counters(self) -> dict[str, Any]: ...
    def close(self) -> None: ...
    @property
    def state(self) -> str: ...
    @property
    def ready(self) -> bool: ...
    @property
    def passthrough(self) -> bool: ...
