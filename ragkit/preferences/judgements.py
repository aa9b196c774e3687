"""What a person can say: a ranking of documents, a comparison of two answers, a thumb, or "skip"; and what
the chat answered."""

import hashlib
import math
import operator
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

from ragkit.retrieval.corpus import Hit, Passage, shortened

RATINGS = range(-3, 4)


@dataclass(frozen=True)
class Ranking:
    """A person's order of the documents c1, c2, c3 … that were found for a query.

    `tiers`: indices into `passages`, best first; those in one tier tie; what is in no tier was not judged.
    `shown_order`: the indices in the order in which they were shown. `scores`: those by which they were
    found. `details`: what else the log keeps (view_id, seed, repeat_of, latency_ms, why, and which `reranker`
    chose them, if any). Raises ValueError for an index that is not there or stands in two tiers, and an order
    that is not one.
    """

    query: str
    passages: list[Passage]
    tiers: list[list[int]]
    shown_order: list[int] | None = None
    scores: list[float] | None = None
    annotator: str = ""
    event_id: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    kind, words = "rank", ()  # in the log; words: what is called there as it is here

    def __post_init__(self):
        size = _passages(self.passages)
        put = object.__setattr__  # NumPy's numbers become Python's, which JSON knows
        try:
            tiers = [[_whole(index, "tiers") for index in tier] for tier in self.tiers]
        except TypeError:
            raise ValueError(
                f"tiers={self.tiers!r}: a list of lists of indices, best first: [[2], [0, 1]]"
            ) from None
        put(self, "tiers", [tier for tier in tiers if tier])  # an empty one is no step between two others
        placed = [index for tier in tiers for index in tier]
        for index in placed:
            if not 0 <= index < size:
                raise ValueError(f"tiers={self.tiers}: {index} is no index into {size} passages")
        if len(set(placed)) < len(placed):
            twice = next(index for index in placed if placed.count(index) > 1)
            raise ValueError(f"tiers={self.tiers}: passage {twice} stands in them twice")
        if self.shown_order is not None:
            put(self, "shown_order", [_whole(index, "shown_order") for index in self.shown_order])
            if sorted(self.shown_order) != list(range(size)):
                raise ValueError(f"shown_order={self.shown_order}: not an order of {size} passages")
        if self.scores is not None:
            put(self, "scores", [_finite(score, "scores") for score in self.scores])
            if len(self.scores) != size:
                raise ValueError(f"{len(self.scores)} scores for {size} passages")
        check_details(self.details, size)

    @property
    def ranks(self) -> list[int | None]:
        """The tier of each passage, from 0; None where it was not judged."""
        tier_of = {index: tier for tier, indices in enumerate(self.tiers) for index in indices}
        return [tier_of.get(index) for index in range(len(self.passages))]

    @property
    def search_scores(self) -> list[float] | None:
        """`scores`, if a search's; None for a reranker's, which hold what it learned already."""
        return None if self.details.get("reranker") else self.scores

    @cached_property
    def item(self) -> str:
        """Names what was judged, whoever judged it and in whatever order it was shown."""
        return _digest(self.kind, self.query, *sorted(f"{p.id}\0{p.title}\0{p.text}" for p in self.passages))


@dataclass(frozen=True)
class Comparison:
    """Which of two answers to a query is better: `rating` from −3 (A much better) to +3 (B much better).

    `hits`: what the answers were written from. `both_bad` goes with any rating, 0 included. Raises ValueError
    for another rating.
    """

    query: str
    answer_a: str
    answer_b: str
    rating: int
    both_bad: bool = False
    hits: list[Hit] = field(default_factory=list)
    annotator: str = ""
    event_id: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    kind, words = "pair", ("answer_a", "answer_b", "rating", "both_bad")

    def __post_init__(self):
        object.__setattr__(self, "rating", _whole(self.rating, "rating"))
        object.__setattr__(self, "both_bad", _flag(self.both_bad, "both_bad"))
        check_details(self.details, 2)
        if self.rating not in RATINGS:
            raise ValueError(f"rating={self.rating}: a whole number from -3 (A) to +3 (B)")

    @cached_property
    def item(self) -> str:
        return _digest(self.kind, self.query, *sorted((self.answer_a, self.answer_b)))


@dataclass(frozen=True)
class Feedback:
    """Whether an answer in the chat was good, and perhaps why."""

    query: str
    answer: str
    good: bool
    note: str = ""
    hits: list[Hit] = field(default_factory=list)
    annotator: str = ""
    event_id: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    kind, words = "chat_feedback", ("answer", "good", "note")

    def __post_init__(self):
        object.__setattr__(self, "good", _flag(self.good, "good"))

    @cached_property
    def item(self) -> str:
        return _digest(self.kind, self.query, self.answer)


@dataclass(frozen=True)
class Exchange:
    """A question of the chat and its answer: no judgement, but what a conversation is rebuilt from.

    Each is an item of its own, also where the same was asked and answered before.
    """

    query: str
    answer: str
    hits: list[Hit] = field(default_factory=list)
    annotator: str = ""
    event_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    details: dict[str, Any] = field(default_factory=dict)

    kind, words = "turn", ("answer",)

    @cached_property
    def item(self) -> str:
        return _digest(self.kind, self.query, self.answer, self.event_id)


@dataclass(frozen=True)
class Skip:
    """An item that a person chose not to judge; `item` as the judgement would have it."""

    query: str
    item: str
    annotator: str = ""
    event_id: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    kind, words = "skip", ()


Judgement = Ranking | Comparison | Feedback | Skip
KINDS = {kind.kind: kind for kind in (Ranking, Comparison, Feedback, Skip, Exchange)}


def check_details(details: dict, size: int) -> None:
    """Raises ValueError for what pairs could not take of a file's `rewards`, `margin` and `target`."""
    if not isinstance(details, dict):
        raise ValueError(f"details={shortened(details)}: a dict")
    rewards = details.get("rewards")
    if rewards is not None and (not isinstance(rewards, list | tuple) or len(rewards) != size):
        raise ValueError(f"rewards={shortened(rewards)}: a number, or None, for each of {size}")
    for value in (*(rewards or ()), details.get("margin"), details.get("target")):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise ValueError(f"{shortened(value)} among rewards, margin and target: numbers, or None")


def _passages(passages) -> int:
    """How many there are. Raises ValueError for what is no list of passages."""
    if not isinstance(passages, list | tuple):
        raise ValueError(f"passages={shortened(passages)}: a list of passages")
    for index, passage in enumerate(passages):
        if not isinstance(passage, Passage):
            raise ValueError(f"passages[{index}] is a {type(passage).__name__}, not a Passage")
    return len(passages)


def _finite(value, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name}: {shortened(value)} is not a finite number")
    return number


def _flag(value, name: str) -> bool:
    if isinstance(value, str) or value not in (True, False):
        raise ValueError(f"{name}={shortened(value)}: True or False")
    return bool(value)


def _whole(value, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name}: {value!r} is not a whole number") from None


def _digest(*texts: str) -> str:
    data = [text.encode("utf-8", "surrogatepass") for text in texts]
    # Lengths stand before the texts, so that no two lists of texts run together into the same bytes.
    return hashlib.sha256(b"".join(b"%d:" % len(text) + text for text in data)).hexdigest()
