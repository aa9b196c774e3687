"""The log of what people said: append-only, one file for each annotator and process, nothing ever edited.

Each line is one event in JSON, and can be read alone: the texts of what was judged are in it. A line is one
write and one fsync; only then does `record` return. Readers merge all files of the folder. Undo appends a
tombstone. Files hold people's words: keep the folder out of a public repository unless they agreed.
"""

import errno
import gc
import json
import os
import re
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ragkit.events import KINDS, SCHEMA, fault, from_event, to_event, to_line
from ragkit.judgements import Comparison, Feedback, Judgement, Ranking, Skip


@contextmanager
def _without_collector():
    """Python's garbage collector looks at all dicts again and again while many are made: two thirds of the
    time that 100,000 events take, and there is no garbage among them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


_DECODER = json.JSONDecoder()  # json.loads would look for the encoding of each line anew
_BLOCK = 1000  # lines decoded at once


class PreferenceLog:
    """A folder of judgements. `annotator`: who judges through this object; readers see everybody.

    Any number of kernels may write to one folder at once: each has its own file. `seq`, an event's number, is
    one more than the highest in the folder when it was written (Lamport's clock), so that what came later
    counts as later, whatever the machine's clock says.
    """

    def __init__(self, folder: str | Path, annotator: str = "me"):
        if not annotator or annotator != annotator.strip():
            raise ValueError(f"annotator={annotator!r}: a name, without spaces around it")
        self.folder, self.annotator = Path(folder).expanduser(), annotator
        self._files: dict[Path, _File] = {}
        self._descriptor, self._owner, self._path = None, None, None
        self._torn = False

    # Writing

    def record(self, judgement: Judgement) -> int:
        """Write one judgement; returns its number once it is on disk.

        A judgement without an annotator gets this log's. One whose annotator and `event_id`, or whose
        `details["view_id"]`, are in the log already counts once, so that a retry after an error is safe.
        Raises OSError, with the reason and the folder, where it could not be written, and ValueError for what
        a reader could not take (an id that is no string, NaN): then it is not in the log.
        """
        if type(judgement) not in KINDS.values():
            raise TypeError(f"{type(judgement).__name__}: a Ranking, Comparison, Feedback or Skip")
        names = {"annotator": judgement.annotator or self.annotator}
        names["event_id"] = judgement.event_id or uuid.uuid4().hex
        try:
            event = to_event(judgement) | names
            to_line(event, 0, "", "")
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"NOT SAVED: a {judgement.kind} event that JSON can't hold ({error})") from error
        if why := fault(event | {"seq": 0, "session": ""}):
            raise ValueError(f"NOT SAVED: {why}")
        return self._append(event)

    def undo(self, event_id: str | None = None) -> str | None:
        """Take back a judgement: by default the latest that was written through this object, or else the
        annotator's latest of all.

        Returns its event_id, or None where nothing is left to take back. Raises ValueError for an event_id
        that is no judgement of this annotator's, or of this object's, that stands.
        """
        session = self._path.stem if self._path else None
        live = self._live()
        here = [event for event in live if event["session"] == session]
        mine = [
            event for event in live if event["session"] == session or event["annotator"] == self.annotator
        ]
        if event_id is not None and event_id not in {event["event_id"] for event in mine}:
            raise ValueError(f"event_id={event_id!r}: no judgement of {self.annotator!r} that stands")
        if not mine:
            return None
        target = event_id or (here or mine)[-1]["event_id"]
        names = {"annotator": self.annotator, "event_id": uuid.uuid4().hex, "target": target}
        self._append({"kind": "undo", **names})
        return target

    def close(self) -> None:
        if self._descriptor is not None and self._owner == os.getpid():
            os.close(self._descriptor)
        self._descriptor = None

    def _append(self, event: dict) -> int:
        try:
            self._open()
            number = 1 + max((file.last for file in self._read()), default=0)
            self._write(to_line(event, number, self._path.stem, _now()))
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(error.errno, f"NOT SAVED: {reason} ({self.folder})") from error
        return number

    def _open(self) -> None:
        if self._descriptor is not None:
            if self._owner == os.getpid() and os.fstat(self._descriptor).st_nlink:
                return
            # After a fork parent and child must not share a file; and what goes to a deleted one is lost.
            self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w-]+", "_", self.annotator)[:40]
        self._path = self.folder / f"{name}-{uuid.uuid4().hex[:12]}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._descriptor, self._owner, self._torn = os.open(self._path, flags, 0o644), os.getpid(), False
        if hasattr(os, "O_DIRECTORY"):  # the file's name must be on disk too
            directory = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _write(self, line: bytes) -> None:
        """One line, on disk. What a failed write leaves is cut off, or at least cut from the next line."""
        before = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, b"\n" + line if self._torn else line)
            if written != len(line) + self._torn:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._descriptor)
            self._torn = False
        except BaseException:
            try:
                os.ftruncate(self._descriptor, before)
                os.fsync(self._descriptor)
            except OSError:
                self._torn = True
            raise

    # Reading

    def rankings(self) -> list[Ranking]:
        """What stands, in order: undone ones left out, of several by one annotator on one item the latest."""
        return self._said(Ranking)

    def comparisons(self) -> list[Comparison]:
        return self._said(Comparison)

    def feedback(self) -> list[Feedback]:
        return self._said(Feedback)

    def skipped(self) -> list[Skip]:
        return self._said(Skip)

    def problems(self) -> list[str]:
        """Lines that could not be read, as "file:line: why"; the rest of their file was read."""
        self._read()
        return [problem for path in sorted(self._files) for problem in self._files[path].problems]

    @_without_collector()
    def _said(self, kind: type) -> list:
        return [from_event(event) for event in self._live() if event["kind"] == kind.kind]

    @_without_collector()
    def _live(self) -> list[dict]:
        """Fold the events: what was undone goes, doubles go, the latest word on an item stands."""
        events = sorted(self._events(), key=lambda event: (event["seq"], event["session"]))
        undone = _undone(events)
        ids, views, standing = set(), set(), {}
        for event in events:
            name = (event["annotator"], event["event_id"])  # two people's files may number alike
            if event["kind"] not in KINDS or name in undone or name in ids:
                continue
            details = event.get("details", {})
            view = details.get("view_id")
            if view and view in views:
                continue
            ids.add(name)
            views.add(view)
            key = (event["annotator"], event["kind"], event["item"], details.get("repeat_of"))
            standing.pop(key, None)  # a later word comes later in the order, too
            standing[key] = event
        return list(standing.values())

    def _events(self) -> list[dict]:
        return [event for file in self._read() for event in file.events]

    @_without_collector()
    def _read(self) -> list["_File"]:
        """All files, as they are now; what was read before is not read again."""
        paths = sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []
        paths = [path for path in paths if path.is_file()]
        self._files = {path: self._files.get(path) or _File(path) for path in paths}
        for file in self._files.values():
            file.read()
        return list(self._files.values())


def _undone(events: list[dict]) -> set[tuple[str, str]]:
    """(annotator, event_id) of what was taken back: the targets, and what a retry had written of the same
    view before. Of two people's events with one id, an undo means its own annotator's, or its session's."""
    undone, view_of, same_view, of_id = set(), {}, {}, {}
    for event in events:
        name = (event["annotator"], event["event_id"])
        if event["kind"] == "undo":
            said = of_id.get(event["target"], {})
            own = [name for name, session in said.items() if name[0] == event["annotator"]]
            own = own or [name for name, session in said.items() if session == event["session"]]
            own = own or list(said) or [(event["annotator"], event["target"])]
            undone.update(own)
            for target in own:
                undone.update(same_view.get(view_of.get(target), ()))
            continue
        of_id.setdefault(event["event_id"], {})[name] = event["session"]
        if view := event.get("details", {}).get("view_id"):
            view_of[name] = view
            same_view.setdefault(view, []).append(name)
    return undone


class _File:
    """One file of the folder, read as far as its last whole line."""

    def __init__(self, path: Path):
        self.path, self.offset, self.line, self.last = path, 0, 0, 0
        self.events: list[dict] = []
        self.problems: list[str] = []
        self.tail: list[str] = []

    def read(self) -> None:
        size = self.path.stat().st_size
        if size < self.offset:  # it was cut or replaced
            self.__init__(self.path)
        if size > self.offset:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self.problems = [problem for problem in self.problems if problem not in self.tail]
            try:
                lines = data[:whole].removeprefix(b"\xef\xbb\xbf").splitlines()  # an editor's mark
                for start in range(0, len(lines), _BLOCK):
                    self._take_all(lines[start : start + _BLOCK])
            except ValueError:  # a line of another schema: nothing of this file counts as read
                self.__init__(self.path)
                raise
            self.offset += whole
            self.tail = []
            if data[whole:].strip():
                self.tail = [f"{self.path.name}:{self.line + 1}: the last line is torn: it has no end"]
                self.problems += self.tail

    def _take_all(self, lines: list[bytes]) -> None:
        """Decode all lines at once, which shares their keys; one at a time where one of them is broken."""
        try:
            events = _DECODER.decode((b"[" + b",\n".join(lines) + b"]").decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            events = []
        whole = len(events) == len(lines)
        for index, line in enumerate(lines):
            self.line += 1
            if whole:
                self._take(events[index])
            elif line.strip():
                try:
                    event = _DECODER.decode(line.decode("utf-8", "surrogatepass"))
                except (ValueError, RecursionError) as error:
                    self._report(f"not JSON ({error})")
                else:
                    self._take(event)

    def _take(self, event: object) -> None:
        if not isinstance(event, dict) or "schema" not in event:
            return self._report("not an event of this log")
        if event["schema"] != SCHEMA:
            raise ValueError(
                f"{self.path}:{self.line}: schema {event['schema']!r}, and this ragkit reads {SCHEMA}: "
                "update ragkit, or move that file to another folder"
            )
        if why := fault(event):
            return self._report(why)
        self.events.append(event)
        self.last = max(self.last, event["seq"])

    def _report(self, why: str) -> None:
        self.problems.append(f"{self.path.name}:{self.line}: {why}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
