"""What a person can say: a ranking of documents, a comparison of two answers, a thumb, or "skip"."""

import hashlib
import operator
from dataclasses import dataclass, field
from typing import Any

from ragkit.corpus import Hit, Passage

RATINGS = range(-3, 4)


@dataclass(frozen=True)
class Ranking:
    """A person's order of the documents c1, c2, c3 … that were found for a query.

    `tiers`: indices into `passages`, best first; those in one tier tie; what is in no tier was not judged.
    `shown_order`: the indices in the order in which they were shown. `scores`: the retriever's, for the
    record. `details`: what else the log keeps (view_id, seed, repeat_of, latency_ms, why). Raises ValueError
    for an index that is not there or stands in two tiers, and an order that is not one.
    """

    query: str
    passages: list[Passage]
    tiers: list[list[int]]
    shown_order: list[int] | None = None
    scores: list[float] | None = None
    annotator: str = ""
    event_id: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    kind = "rank"

    def __post_init__(self):
        size = len(self.passages)
        put = object.__setattr__  # NumPy's numbers become Python's, which JSON knows
        try:
            tiers = [[_whole(index, "tiers") for index in tier] for tier in self.tiers]
        except TypeError:
            raise ValueError(
                f"tiers={self.tiers!r}: a list of lists of indices, best first: [[2], [0, 1]]"
            ) from None
        put(self, "tiers", [tier for tier in tiers if tier])  # an empty one is no step between two others
        if self.shown_order is not None:
            put(self, "shown_order", [_whole(index, "shown_order") for index in self.shown_order])
        if self.scores is not None:
            put(self, "scores", [float(score) for score in self.scores])
        placed = [index for tier in self.tiers for index in tier]
        for index in placed:
            if not 0 <= index < size:
                raise ValueError(f"tiers={self.tiers}: {index} is no index into {size} passages")
        if len(set(placed)) < len(placed):
            twice = next(index for index in placed if placed.count(index) > 1)
            raise ValueError(f"tiers={self.tiers}: passage {twice} stands in them twice")
        if self.shown_order is not None and sorted(self.shown_order) != list(range(size)):
            raise ValueError(f"shown_order={self.shown_order}: not an order of {size} passages")
        if self.scores is not None and len(self.scores) != size:
            raise ValueError(f"{len(self.scores)} scores for {size} passages")

    @property
    def ranks(self) -> list[int | None]:
        """The tier of each passage, from 0; None where it was not judged."""
        tier_of = {index: tier for tier, indices in enumerate(self.tiers) for index in indices}
        return [tier_of.get(index) for index in range(len(self.passages))]

    @property
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

    kind = "pair"

    def __post_init__(self):
        object.__setattr__(self, "rating", _whole(self.rating, "rating"))
        if self.rating not in RATINGS:
            raise ValueError(f"rating={self.rating}: a whole number from -3 (A) to +3 (B)")

    @property
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

    kind = "chat_feedback"

    @property
    def item(self) -> str:
        return _digest(self.kind, self.query, self.answer)


@dataclass(frozen=True)
class Skip:
    """An item that a person chose not to judge; `item` as the judgement would have it."""

    query: str
    item: str
    annotator: str = ""
    event_id: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    kind = "skip"


Judgement = Ranking | Comparison | Feedback | Skip


def _whole(value, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name}: {value!r} is not a whole number") from None


def _digest(*texts: str) -> str:
    data = [text.encode("utf-8", "surrogatepass") for text in texts]
    # Lengths stand before the texts, so that no two lists of texts run together into the same bytes.
    return hashlib.sha256(b"".join(b"%d:" % len(one) + one for one in data)).hexdigest()
