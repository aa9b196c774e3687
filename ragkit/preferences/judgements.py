"""What a person can say: a ranking of documents, a comparison of two answers, a thumb, or "skip"; what the
chat answered; and each of them as an event of the log, in JSON."""

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
_NAMES = {"event_id": str, "annotator": str, "kind": str, "session": str}
LAST = 2**53  # more events than any log has: a larger number is none of ours
_SCORES = {float, int, type(None)}


def to_event(judgement: Judgement | Exchange) -> dict:
    """What of a judgement the log keeps beside its names: JSON values only, texts included."""
    event = {"kind": judgement.kind, "item": judgement.item}
    event |= {"query": judgement.query, "details": judgement.details}
    event |= {name: getattr(judgement, name) for name in judgement.words}
    if isinstance(judgement, Ranking):
        scores = judgement.scores or [None] * len(judgement.passages)
        event["candidates"] = [_candidate(p, score=s) for p, s in zip(judgement.passages, scores)]
        event |= {"shown_order": judgement.shown_order, "ranking": judgement.tiers}
    elif not isinstance(judgement, Skip):
        event["candidates"] = [
            _candidate(hit.passage, score=float(hit.score), rank=int(hit.rank)) for hit in judgement.hits
        ]
    return event


def from_event(event: dict) -> Judgement | Exchange:
    """The judgement of an event that is without `fault`."""
    kind = KINDS[event["kind"]]
    words = {name: event[name] for name in ("query", "annotator", "event_id", *kind.words)}
    words["details"] = event.get("details", {})
    if kind is Skip:
        return Skip(item=event["item"], **words)
    candidates = event["candidates"]
    passages = [Passage(c["id"], c["text"], c["title"], c.get("metadata", {})) for c in candidates]
    if kind is Ranking:
        scores = [c.get("score") for c in candidates]
        words |= {"shown_order": event["shown_order"], "scores": None if None in scores else scores}
        return Ranking(passages=passages, tiers=event["ranking"], **words)
    return kind(hits=[Hit(p, c["score"], c["rank"]) for p, c in zip(passages, candidates)], **words)


def fault(event: dict) -> str | None:
    """Why readers could not take this event; None for a good one."""
    for name, kind in _NAMES.items():
        if not isinstance(event.get(name), kind):
            return f"an event whose {name} is {event.get(name)!r}"
    if type(seq := event.get("seq")) is not int or not 0 <= seq < LAST:
        return f"an event whose seq is {shortened(seq)}"
    try:
        details = event.get("details", {})
        for name in ("view_id", "repeat_of"):
            if (value := details.get(name)) is not None:
                "" + value
        if event["kind"] == "undo":
            "" + event["target"]
        elif event["kind"] in KINDS:
            _check(event)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        return f"a broken {event['kind']} event ({reason})"
    return None


def _check(event: dict) -> None:
    """Raises where `from_event` would, or should. Most events are read and never used: a ranking whose
    indices are plain is not made, which takes a third of the time."""
    "" + event["query"] + event["item"]
    for name in KINDS[event["kind"]].words:
        if name not in ("rating", "both_bad", "good"):
            "" + event[name]
    candidates = event.get("candidates", ())
    for candidate in candidates:
        if not type(candidate["id"]) is type(candidate["title"]) is type(candidate["text"]) is str:
            raise TypeError("a document whose id, title or text is no text")
        score = candidate.get("score")
        if type(score) not in _SCORES or not (score is None or -math.inf < score < math.inf):
            raise TypeError(f"a score of {score!r}")
        if type(candidate.get("metadata", {})) is not dict:
            raise TypeError(f"a document whose metadata is {candidate['metadata']!r:.40}")
    if event["kind"] == Ranking.kind:
        places, shown = [index for tier in event["ranking"] for index in tier], event["shown_order"]
        indices = places if shown is None else places + shown
        plain = set(map(type, indices)) == {int} and 0 <= min(indices) and max(indices) < len(candidates)
        plain = plain and len(set(places)) == len(places)
        check_details(event.get("details", {}), len(candidates))
        if plain and (shown is None or len(set(shown)) == len(shown) == len(candidates)):
            return
    from_event(event)


def _candidate(passage: Passage, **numbers) -> dict:
    event = {"id": passage.id, "title": passage.title, "text": passage.text}
    return event | ({"metadata": passage.metadata} if passage.metadata else {}) | numbers


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
