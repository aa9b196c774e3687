"""Judgements as events of the log, in JSON, and back."""

import math

from ragkit.preferences.judgements import KINDS, Exchange, Judgement, Ranking, Skip, check_details
from ragkit.retrieval.corpus import Hit, Passage, shortened

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
