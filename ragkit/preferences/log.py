"""The log of what people said: append-only, one file for each annotator and process, nothing ever edited.

Each line is one event in JSON, and can be read alone: the texts of what was judged are in it. A line is one
write and one fsync; only then does `record` return. Readers merge all files of the folder. Undo appends a
tombstone. Files hold people's words: keep the folder out of a public repository unless they agreed.
"""

import errno
import os
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from threading import RLock

from ragkit import uncollected
from ragkit.preferences.events import fault, from_event, to_event
from ragkit.preferences.judgements import KINDS, Comparison, Exchange, Feedback, Judgement, Ranking, Skip
from ragkit.preferences.log_file import LogFile, to_line
from ragkit.retrieval.storage import sync_directory

DEFAULT_ANNOTATOR = "me"
# What of an event is looked at again once its judgement is made.
_KEPT = {None, "seq", "session", "kind", "annotator", "event_id", "item", "details"}
_order = itemgetter("seq", "session")


class PreferenceLog:
    """A folder of judgements. `annotator`: who judges through this object; readers see everybody.

    Any number of kernels may write to one folder at once: each has its own file. `seq`, an event's number, is
    one more than the highest in the folder when it was written (Lamport's clock), so that what came later
    counts as later, whatever the machine's clock says.
    """

    def __init__(self, folder: str | Path, annotator: str = DEFAULT_ANNOTATOR):
        if not isinstance(annotator, str) or not annotator or annotator != annotator.strip():
            raise ValueError(f"annotator={annotator!r}: a name, without spaces around it")
        if "\0" in str(folder):
            raise ValueError(f"folder={str(folder)!r}: no folder can have a null character in its name")
        self.folder, self.annotator = Path(folder).expanduser(), annotator
        self._files: dict[Path, LogFile] = {}
        self._fold, self._shared = _Fold(), {}
        self._descriptor, self._owner, self._path = None, None, None
        self._torn = False
        self._one_at_a_time = RLock()  # of threads: a number is read off the log, and then written

    # Writing

    def record(self, judgement: Judgement | Exchange) -> int:
        """Write one judgement, or what the chat answered; returns its number once it is on disk.

        A judgement without an annotator gets this log's. One whose annotator and `event_id`, or whose
        `details["view_id"]`, are in the log already counts once, so that a retry after an error is safe.
        Raises OSError, with the reason and the folder, where it could not be written, and ValueError for what
        a reader could not take (an id that is no string, NaN): then it is not in the log.
        """
        if not isinstance(judgement, Judgement | Exchange):
            raise TypeError(f"{type(judgement).__name__}: a Ranking, Comparison, Feedback, Skip or Exchange")
        names = {"annotator": judgement.annotator or self.annotator}
        names["event_id"] = judgement.event_id or uuid.uuid4().hex
        try:
            event = to_event(judgement) | names
            to_line(event, 0, "", "")
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            why = "a part of another type" if isinstance(error, AttributeError) else error
            raise ValueError(f"NOT SAVED: a {judgement.kind} event that JSON can't hold ({why})") from error
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
        mine = [e for e in self._standing() if e["session"] == session or e["annotator"] == self.annotator]
        if event_id is not None and event_id not in {event["event_id"] for event in mine}:
            raise ValueError(f"event_id={event_id!r}: no judgement of {self.annotator!r} that stands")
        if event_id is None:
            mine = [event for event in mine if event["kind"] != Exchange.kind]  # nobody judged there
        if not mine:
            return None
        here = [event for event in mine if event["session"] == session]
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
            with self._one_at_a_time:
                self._open()
                self._read()
                number = 1 + self._fold.last[0]
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
        sync_directory(self.folder)

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
        return self.judgements(Ranking)

    def comparisons(self) -> list[Comparison]:
        return self.judgements(Comparison)

    def feedback(self) -> list[Feedback]:
        return self.judgements(Feedback)

    def skipped(self) -> list[Skip]:
        return self.judgements(Skip)

    @uncollected()
    def judgements(self, *kinds: type, annotator: str | None = None) -> list[Judgement | Exchange]:
        """Those of these kinds, and of this annotator where one is named, that stand; in order.

        Each is made once: what is asked for again is the same object, which nobody may change.
        """
        names = {kind.kind for kind in kinds}
        events = [event for event in self._standing() if event["kind"] in names]
        events = [event for event in events if annotator in (None, event["annotator"])]
        for event in events:
            if None not in event:  # a key that no line of JSON has
                _make(event)
        return [event[None] for event in events]

    def problems(self) -> list[str]:
        """Lines that could not be read, as "file:line: why"; the rest of their file was read."""
        with self._one_at_a_time:
            self._read()
            return [problem for file in self._files.values() for problem in [*file.problems, *file.tail]]

    def _standing(self) -> list[dict]:
        with self._one_at_a_time:
            self._read()
            return list(self._fold.standing.values())

    @uncollected()
    def _read(self) -> None:
        """Read what is new in the folder, and fold it in. What does not simply come last – an undo, or what
        another kernel wrote at the same moment – folds all events anew; they are not read again."""
        paths = sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []
        before, fresh = self._files, []
        self._files = {path: before.get(path) or LogFile(path) for path in paths if path.is_file()}
        lost = not before.keys() <= self._files.keys()
        try:
            for file in self._files.values():
                known = len(file.events)
                lost |= file.read(self._shared)
                fresh += file.events[known:]
            if lost or any(event["kind"] == "undo" or _order(event) <= self._fold.last for event in fresh):
                fresh = [event for file in self._files.values() for event in file.events]
                self._fold, self._shared = _Fold(), {} if lost else self._shared
            self._fold.take(sorted(fresh, key=_order))
        except BaseException:  # a line of another schema, or an interrupt: nothing counts as read
            self._files, self._fold, self._shared = {}, _Fold(), {}
            raise


class _Fold:
    """What stands: what was undone goes, doubles go, of several words on an item the latest stays."""

    def __init__(self):
        self.last = (0, "")  # the order of the last event
        self.standing: dict[tuple, dict] = {}
        self._ids, self._views, self._undone = set(), set(), set()

    def take(self, events: list[dict]) -> None:
        """Events in order, after those taken before; with an undo among them they must be all there are."""
        if any(event["kind"] == "undo" for event in events):
            self._undone = _undone(events)
        ids, views, undone, standing = self._ids, self._views, self._undone, self.standing
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
        if events:
            self.last = max(self.last, _order(events[-1]))


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
            undone.update(own, *(same_view.get(view_of.get(target), ()) for target in own))
            continue
        of_id.setdefault(event["event_id"], {})[name] = event["session"]
        if view := event.get("details", {}).get("view_id"):
            view_of[name] = view
            same_view.setdefault(view, []).append(name)
    return undone


def _make(event: dict) -> None:
    """Put the judgement of an event into it, in the place of what it is made from."""
    whole = dict(event)  # of one moment: another thread may be at the same event
    if None not in whole:
        event[None] = from_event(whole)
        for name in whole.keys() - _KEPT:
            event.pop(name, None)


def write_log(path: Path, judgements: Sequence[Judgement], ts: str) -> None:
    """A whole log at once, the same bytes every time: for judgements that a script makes.

    Each judgement needs its annotator and event_id.
    """
    lines = []
    for number, judgement in enumerate(judgements, 1):
        names = {"annotator": judgement.annotator, "event_id": judgement.event_id}
        lines.append(to_line(to_event(judgement) | names, number, path.stem, ts))
    path.write_bytes(b"".join(lines))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
