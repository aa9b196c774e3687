"""Hostile input, as tables: for each door of ragkit the inputs, and what is right for each of them.

A row is (name, input, what is right). That is `refused(…)`, an error whose message matches, or a function of what
came out, which says whether it is safe; its name says how. `test_hostile.py` runs them all.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Refused:
    """A clear error: it names the value, or where it stands, and mostly what to do."""

    says: str  # a regular expression
    kinds: tuple[type[Exception], ...]

    def __str__(self) -> str:
        return f"{' or '.join(kind.__name__ for kind in self.kinds)}: {self.says}"


def refused(says: str, *kinds: type[Exception]) -> Refused:
    re.compile(says)
    return Refused(says, kinds or (ValueError,))


@dataclass(frozen=True)
class Door:
    """`open(given, world)` lets an input in and gives what came of it."""

    name: str
    open: Callable[[Any, Any], Any]
    rows: tuple[tuple[str, Any, Any], ...]


@dataclass
class World:
    """What doors need beside the input. Large models are asked for by name, and made once."""

    folder: Any  # of the test, empty
    fixture: Callable[[str], Any]

    def __getattr__(self, name: str):
        return self.fixture(name)

    def file(self, name: str, data: bytes | str):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
        return path

    def files(self, files: dict[str, bytes | str]):
        for name, data in files.items():
            self.file(name, data)
        return self.folder


def anything(out) -> bool:
    """Nothing to see but that it came through."""
    return True


def nothing(out) -> bool:
    return len(out) == 0


def equals(value) -> Callable:
    def safe(out) -> bool:
        return out == value

    safe.__name__ = f"equals {value!r:.60}"
    return safe
