# SPDX-License-Identifier: MIT
"""The cases there are, by name. Importing a module of cases adds its own."""

from __future__ import annotations

from collections.abc import Callable

from tests.mount.posix.side import Case

CASES: dict[str, Case] = {}
NEED_ROOT: set[str] = set()


def case(function: Case) -> Case:
    """Adds a case: a sequence of calls that anybody may make."""
    CASES[f"{function.__module__.rpartition('.')[2]}.{function.__name__}"] = function
    return function


def case_of_root(function: Case) -> Case:
    """Adds a case that changes users, or does what only root may."""
    NEED_ROOT.add(f"{function.__module__.rpartition('.')[2]}.{function.__name__}")
    return case(function)


def case_for_each(name: str, values: tuple[str, ...], *, root: bool = False
                  ) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds a case for each value of the argument `name`."""
    def add(function: Callable[..., None]) -> Callable[..., None]:
        for value in values:
            def one(side: object, value: str = value) -> None:
                function(side, **{name: value})

            full = f"{function.__module__.rpartition('.')[2]}.{function.__name__}[{value}]"
            CASES[full] = one  # type: ignore[assignment]
            if root:
                NEED_ROOT.add(full)
        return function
    return add
