"""A judgement as one line of JSON and back: the fields of the log."""

import json
from collections.abc import Sequence
from pathlib import Path

from ragkit import __version__
from ragkit.corpus import Hit, Passage
from ragkit.judgements import Comparison, Feedback, Judgement, Ranking, Skip

SCHEMA = 1
KINDS = {kind.kind: kind for kind in (Ranking, Comparison, Feedback, Skip)}
SCORES = {float, int, type(None)}
REQUIRED = [("event_id", str), ("seq", int), ("annotator", str), ("kind", str), ("session", str)]


def to_line(event: dict, seq: int, session: str, ts: str) -> bytes:
    event = {"schema": SCHEMA, "seq": seq, "session": session, "ts": ts, "ragkit": __version__, **event}
    line = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return line.encode("utf-8", "surrogatepass") + b"\n"


def write_log(path: Path, judgements: Sequence[Judgement], ts: str) -> None:
    """A whole log at once, the same bytes every time: for judgements that a script makes.

    Each judgement needs its annotator and event_id.
    """
    events = [
        to_event(judgement) | {"annotator": judgement.annotator, "event_id": judgement.event_id}
        for judgement in judgements
    ]
    path.write_bytes(b"".join(to_line(event, n, path.stem, ts) for n, event in enumerate(events, 1)))


def to_event(judgement: Judgement) -> dict:
    """What of a judgement the log keeps beside its names: JSON values only, texts included."""
    event = {"kind": judgement.kind, "item": judgement.item}
    event |= {"query": judgement.query, "details": judgement.details}
    if isinstance(judgement, Ranking):
        scores = [None] * len(judgement.passages) if judgement.scores is None else judgement.scores
        event["candidates"] = [_passage(p) | {"score": s} for p, s in zip(judgement.passages, scores)]
        event["shown_order"], event["ranking"] = judgement.shown_order, judgement.tiers
    elif isinstance(judgement, Comparison):
        event |= {"answer_a": judgement.answer_a, "answer_b": judgement.answer_b}
        event |= {"rating": judgement.rating, "both_bad": bool(judgement.both_bad)}
        event["candidates"] = [_hit(hit) for hit in judgement.hits]
    elif isinstance(judgement, Feedback):
        event |= {"answer": judgement.answer, "good": bool(judgement.good), "note": judgement.note}
        event["candidates"] = [_hit(hit) for hit in judgement.hits]
    return event


def from_event(event: dict) -> Judgement:
    names = {name: event[name] for name in ("query", "annotator", "event_id")}
    names["details"] = event.get("details", {})
    if event["kind"] == Skip.kind:
        return Skip(item=event["item"], **names)
    candidates = event["candidates"]
    passages = [Passage(c["id"], c["text"], c["title"], c.get("metadata", {})) for c in candidates]
    if event["kind"] == Ranking.kind:
        scores = [c.get("score") for c in candidates]
        return Ranking(
            passages=passages,
            tiers=event["ranking"],
            shown_order=event["shown_order"],
            scores=None if None in scores else scores,
            **names,
        )
    hits = [Hit(passage, c["score"], c["rank"]) for passage, c in zip(passages, candidates)]
    if event["kind"] == Comparison.kind:
        told = {name: event[name] for name in ("answer_a", "answer_b", "rating", "both_bad")}
        return Comparison(hits=hits, **told, **names)
    return Feedback(answer=event["answer"], good=event["good"], note=event["note"], hits=hits, **names)


def fault(event: dict) -> str | None:
    """Why readers could not take this event; None for a good one."""
    get = event.get
    names = (
        type(get("event_id")) is type(get("annotator")) is type(get("kind")) is type(get("session")) is str
    )
    if not names or type(get("seq")) is not int:
        for name, kind in REQUIRED:
            if not isinstance(get(name), kind):
                return f"an event whose {name} is {get(name)!r}"
    try:
        if event["kind"] in KINDS:
            check(event)
        elif event["kind"] == "undo" and not isinstance(event.get("target"), str):
            return f"an undo of {event.get('target')!r}"
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        return f"a broken {event['kind']} event ({reason})"
    return None


def check(event: dict) -> None:
    """Raises where `from_event` would, at a fraction of its cost: most events are read and never used."""
    "" + event["query"] + event["item"]
    details = event.get("details", {})
    for name in ("view_id", "repeat_of"):
        if (value := details.get(name)) is not None:
            "" + value
    if event["kind"] == Skip.kind:
        return
    size = 0
    for candidate in event["candidates"]:
        if not type(candidate["id"]) is type(candidate["title"]) is type(candidate["text"]) is str:
            raise TypeError("a document whose id, title or text is no text")
        if type(candidate.get("score")) not in SCORES:
            raise TypeError(f"a score of {candidate['score']!r}")
        size += 1
    if event["kind"] != Ranking.kind:
        from_event(event)
        return
    places, shown = [index for tier in event["ranking"] for index in tier], event["shown_order"]
    told = places if shown is None else places + shown
    simple = places and set(map(type, told)) == {int} and min(told) >= 0 and max(told) < size
    simple = simple and len(set(places)) == len(places)
    if not simple or (shown is not None and not len(set(shown)) == len(shown) == size):
        from_event(event)  # it knows what is wrong, if something is


def _passage(passage: Passage) -> dict:
    found = {"id": passage.id, "title": passage.title, "text": passage.text}
    return found | ({"metadata": passage.metadata} if passage.metadata else {})


def _hit(hit: Hit) -> dict:
    return _passage(hit.passage) | {"score": float(hit.score), "rank": int(hit.rank)}
