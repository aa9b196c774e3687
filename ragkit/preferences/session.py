"""Which item a person judges next, in what order it is shown, and how it gets into the log; no Jupyter.

A session keeps nothing that matters: what is done is what the log says, so that it goes on after a restart of
the kernel where it stopped, and an undo works there, too. About one item in ten comes back some items later
in another order: that tells how far a person agrees with themselves, and what the layout does to them.
"""

import hashlib
import secrets
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ragkit.preferences.judgements import Judgement, Skip

# A repeat comes after this many other judgements at the least, and up to so many more; at the end of the list
# sooner, but never at once: that would ask for memory, not for agreement.
GAP, MORE_GAP, LAST_GAP = 4, 6, 2


@dataclass(frozen=True)
class Progress:
    """`done` of `total` items are judged or skipped; `repeats` were judged or skipped a second time."""

    done: int
    total: int
    repeats: int

    def __str__(self) -> str:
        repeats = f"{self.repeats} repeat{'' if self.repeats == 1 else 's'}"
        return f"{self.done} of {self.total}, {repeats}"


@dataclass(kw_only=True)
class View:
    """One showing of an item. Its `view_id` stays through retries, so that its judgement counts once."""

    query: str
    item: str
    seed: int
    repeat_of: str | None = None
    moves: int = 0
    why: str = ""
    saved: int | None = None  # the judgement's number in the log
    view_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    shown_at: float = field(default_factory=time.monotonic)


class Session:
    """What ranking and comparing share. `view`: what is shown now, None before `next` and when all is done.

    Raises ValueError for a repeat_share outside 0 … 1.
    """

    KIND: type  # of the judgements beside skips

    def __init__(self, log, keys: Sequence[str], *, seed: int | None, repeat_share: float, facts):
        if not 0 <= repeat_share <= 1:
            raise ValueError(f"repeat_share={repeat_share}: a share of the items, from 0 to 1")
        self.log, self._facts = log, facts or dict
        self.seed = secrets.randbits(32) if seed is None else seed
        self.view: Any = None
        self.left_out: dict[int, str] = {}  # items that can't be judged, and why
        self._keys = list(dict.fromkeys(keys))
        self._numbers = {key: number for number, key in enumerate(self._keys)}
        self._waiting: list = []  # views that an undo pushed aside
        self._said: list[Judgement] = []  # by this person, here and elsewhere, oldest first
        self._judged: list[tuple[int, Judgement]] = []  # those of items here, with the items' numbers
        self._first: dict[int, Judgement] = {}
        self._repeats: dict[int, Judgement] = {}
        # Which items come back depends on person and item alone, not on the seed: a restart changes nothing.
        # The last two would come back at once.
        drawn = sorted(range(len(self._keys) - 2), key=lambda n: self._draw("repeat", n))
        self._to_repeat = set(drawn[: int(repeat_share * len(self._keys) + 0.5)])

    @property
    def progress(self) -> Progress:
        """As of the last time that the log was read."""
        return Progress(len(self._first), len(self._keys) - len(self.left_out), len(self._repeats))

    @property
    def can_undo(self) -> bool:
        return bool(self._judged)

    def refresh(self) -> None:
        """Read in the log what of these items this person has said. `next` and `undo` do it, too."""
        said = self.log.judgements(self.KIND, Skip, annotator=self.log.annotator)
        same = said[: len(self._said)] == self._said  # not after an undo or another word on an old item
        known = len(self._said) if same else 0
        numbers = [self._number(judgement) for judgement in said[known:]]  # where this fails, nothing changes
        if not known:
            self._judged, self._first, self._repeats = [], {}, {}
        for number, judgement in zip(numbers, said[known:]):
            if number is not None:
                self._judged.append((number, judgement))
                which = self._repeats if judgement.details.get("repeat_of") else self._first
                which[number] = judgement
        self._said = said

    def next(self):
        """Show the next item: one that an undo pushed aside, a repeat that is due, or a new one.

        What was shown stays where this fails.
        """
        self.refresh()
        if self._waiting:
            self.view = self._waiting.pop()
            return self.view
        while True:
            fresh = [n for n in range(len(self._keys)) if n not in self._first and n not in self.left_out]
            number = self._due(bool(fresh))
            if number is None and not fresh:
                self.view = None
                return None
            before = self._first.get(number)
            number = self._choose(fresh) if number is None else number
            if why := self._unfit(number):
                self.left_out[number] = why
                continue
            self.view = self._show(number, self._seeds(number, before is not None), before)
            self.view.repeat_of = before and before.event_id
            return self.view

    def save(self) -> int:
        """Log what the view says; returns the event's number once it is on disk.

        Raises ValueError where nothing is shown, or too little is said.
        """
        return self._record(self._judge)

    def skip(self) -> int:
        """Log that the person did not want to judge this item; it is not asked again."""
        return self._record(lambda details: Skip(self.view.query, self.view.item, details=details))

    def undo(self) -> Judgement | None:
        """Take back this person's latest judgement or skip of these items, and show it again as it was.

        Returns it, or None where there is nothing to take back. What was being judged comes next.
        """
        self.refresh()
        if not self._judged:
            return None
        number, last = self._judged[-1]
        self.log.undo(last.event_id)
        if self.view is not None and self.view.saved is None:
            self._waiting.append(self.view)
        repeat_of = last.details.get("repeat_of")
        seed = last.details.get("seed")
        seeds = self._seeds(number, bool(repeat_of)) if seed is None else iter([seed])
        self.view = self._show(number, seeds, None)
        self.view.repeat_of, self.view.why = repeat_of, last.details.get("why", "")
        if not isinstance(last, Skip):
            self._restore(last)
        self.refresh()
        return last

    # A kind of item adds its KIND and these methods:
    # _number(judgement): of the item that was judged, or None where that is no item here;
    # _unfit(number): why the item can't be judged, or None;
    # _judge(details): what the view says;
    # _show(number, seeds, before): a view by the first of `seeds` that shows it otherwise than `before` did;
    # _restore(judgement): what was judged, into the view.

    def _choose(self, fresh: list[int]) -> int:
        return fresh[0]

    def _due(self, fresh: bool) -> int | None:
        left = self._to_repeat - self._repeats.keys()
        for place, (number, judgement) in enumerate(self._judged):
            if number not in left or isinstance(judgement, Skip) or judgement is not self._first[number]:
                continue
            gap = GAP + self._draw("gap", number) % (MORE_GAP + 1) if fresh else LAST_GAP
            if len(self._judged) - 1 - place >= gap:
                return number
        return None

    def _record(self, judge: Callable[[dict], Judgement]) -> int:
        """Write one judgement of the view, once. Raises what the log raises; the view then stays."""
        view = self.view
        if view is None:
            raise ValueError("nothing is shown, so nothing can be judged")
        if view.saved is None:
            latency = round(1000 * (time.monotonic() - view.shown_at))
            details = {"view_id": view.view_id, "seed": view.seed, "latency_ms": latency}
            details |= {"moves": view.moves, "why": view.why}
            details |= {"repeat_of": view.repeat_of} if view.repeat_of else {}
            view.saved = self.log.record(judge(self._facts() | details))
        return view.saved

    def _seeds(self, number: int, repeat: bool) -> Iterator[int]:
        return (self._draw(f"{self.seed} {repeat} {attempt}", number) for attempt in count())

    def _draw(self, purpose: str, number: int) -> int:
        """32 bits that depend on the purpose, the person and the item."""
        text = "\0".join((purpose, self.log.annotator, self._keys[number]))
        return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4])
