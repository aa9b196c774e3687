"""One file of the log: what an event's line is, and reading as far as the last whole one."""

import json
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ragkit import __version__
from ragkit.preferences.events import fault
from ragkit.preferences.judgements import KINDS

SCHEMA = 1
_BLOCK = 1000  # lines decoded at once
_DECODER = json.JSONDecoder()  # json.loads would look for the encoding of each line anew
_OF_ONE = {"event_id", "item", "ts", "view_id"}  # no other event has this text


class LogFile:
    """`events` are those read so far, as JSON has them, and `problems` are the lines that are none."""

    def __init__(self, path: Path):
        self.path, self.state = path, (0, 0, 0)  # number, time of the last change, size
        self.offset, self.line, self.last = 0, 0, b""  # bytes and lines read, the last line
        self.events: list[dict] = []
        self.problems: list[str] = []
        self.tail: list[str] = []  # the problem with what follows the last whole line

    def read(self, shared: dict[Hashable, Any]) -> bool:
        """Read what is new. Returns whether what was read before is there no more: it was cut or replaced.

        `shared`: what events have in common, of all files, by its text; what is new in these is put there.
        """
        stat = self.path.stat()
        state = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if state == self.state:
            return False
        with open(self.path, "rb") as file:
            file.seek(self.offset - len(self.last))
            data = file.read()
            lost = self.offset > 0 and (stat.st_ino != self.state[0] or not data.startswith(self.last))
            if lost:
                self.__init__(self.path)
                file.seek(0)
                data = file.read()
        self.state = state
        data = data[len(self.last) :]
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].removeprefix(b"\xef\xbb\xbf").splitlines()  # an editor's mark
        for start in range(0, len(lines), _BLOCK):
            self._take_all(lines[start : start + _BLOCK], shared)
        if whole:
            self.last = data[data.rfind(b"\n", 0, whole - 1) + 1 : whole]
        self.offset += whole
        torn = f"{self.path.name}:{self.line + 1}: the last line is torn: it has no end"
        self.tail = [torn] if data[whole:].strip() else []
        return lost

    def _take_all(self, lines: list[bytes], shared: dict[Hashable, Any]) -> None:
        """Decode all lines at once, which shares their keys; each alone where one of them is broken."""
        try:
            events = _DECODER.decode((b"[" + b",\n".join(lines) + b"]").decode("utf-8", "surrogatepass"))
            if len(events) != len(lines):
                raise ValueError("not one value")
        except (ValueError, RecursionError) as error:
            if len(lines) > 1:
                for line in lines:
                    self._take_all([line], shared)
            else:
                self.line += 1
                if lines[0].strip():
                    self._report(f"not JSON ({error})")
            return
        for event in events:
            self.line += 1
            self._take(event, shared)

    def _take(self, event: object, shared: dict[Hashable, Any]) -> None:
        if not isinstance(event, dict) or "schema" not in event:
            return self._report("not an event of this log")
        if event["schema"] != SCHEMA:
            raise ValueError(
                f"{self.path}:{self.line}: schema {event['schema']!r}, and this ragkit reads {SCHEMA}: "
                "update ragkit, or move that file to another folder"
            )
        if why := fault(event):
            return self._report(why)
        if event["kind"] in KINDS:
            _share(event, shared)
        self.events.append(event)

    def _report(self, why: str) -> None:
        self.problems.append(f"{self.path.name}:{self.line}: {why}")


def _share(event: dict, shared: dict[Hashable, Any]) -> None:
    """Put what other events have, too, in the place of what is equal to it. The same passages are found,
    ranked and compared, and each event has all of their texts; in memory they are there once."""
    candidates = event.get("candidates", ())
    for part in (event, event.get("details", {}), *candidates):
        for name, value in part.items():
            if type(value) is str and name not in _OF_ONE:
                part[name] = shared.setdefault(value, value)
    for candidate in candidates:
        if metadata := candidate.get("metadata"):
            with suppress(RecursionError):
                # A pair, which no text equals. By its text, since 1 and 1.0 and True are equal, too.
                candidate["metadata"] = shared.setdefault(("metadata", repr(metadata)), metadata)


def to_line(event: dict, seq: int, session: str, ts: str) -> bytes:
    event = {"schema": SCHEMA, "seq": seq, "session": session, "ts": ts, "ragkit": __version__, **event}
    line = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return line.encode("utf-8", "surrogatepass") + b"\n"
