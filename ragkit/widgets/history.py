"""The conversation as the log has it: each turn, and what this person said of it."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ragkit.assistant import Turn
from ragkit.generation.answer import Answer
from ragkit.generation.prompt import Evidence
from ragkit.preferences.judgements import Comparison, Exchange, Feedback, Ranking
from ragkit.preferences.log import PreferenceLog

FACTS = ("encoder", "encoder_fingerprint", "library_size", "reranker", "generator", "k")


@dataclass
class Entry:
    """One turn of the chat. `asked`: as it was typed; `exchange`: its event for the log; `note`: typed so far
    for the next thumb."""

    turn: Turn
    asked: str
    exchange: Exchange
    note: str = ""
    logged: bool = True

    @property
    def facts(self) -> dict:
        """What answered, as far as the log has it: what is said of the turn holds for that."""
        details = self.exchange.details
        return {name: details[name] for name in FACTS if name in details}

    @cached_property
    def answer_item(self) -> str:
        return Feedback(self.turn.query, self.turn.answer.text, True).item

    @cached_property
    def documents_item(self) -> str:
        return Ranking(self.turn.query, [hit.passage for hit in self.turn.hits], []).item


@dataclass(frozen=True)
class Said:
    """What stands in the log of one turn: the latest thumb and ranking, and the comparisons of its answer."""

    feedback: Feedback | None = None
    ranking: Ranking | None = None
    comparisons: list[Comparison] = field(default_factory=list)


class Opinions:
    """What one annotator said of turns of the chat. Raises OSError and ValueError as the log does."""

    def __init__(self, log: PreferenceLog):
        found = log.judgements(Feedback, Ranking, Comparison, annotator=log.annotator)
        self._by_item = {judgement.item: judgement for judgement in found}
        self._comparisons: dict[tuple[str, str], list[Comparison]] = {}
        for one in found:
            for text in {one.answer_a, one.answer_b} if isinstance(one, Comparison) else ():
                self._comparisons.setdefault((one.query, text), []).append(one)
        self.rankings = [one for one in found if isinstance(one, Ranking)]

    def of(self, entry: Entry) -> Said:
        compared = self._comparisons.get((entry.turn.query, entry.turn.answer.text), [])
        return Said(self._by_item.get(entry.answer_item), self._by_item.get(entry.documents_item), compared)


def entry_of(turn: Turn, asked: str, facts: dict) -> Entry:
    """A turn that was just answered, not logged yet. `facts`: what else the log keeps of it."""
    answer = turn.answer
    details = facts | {
        "asked": asked,
        "citations": list(answer.citations),
        "cited": [[piece.hit, piece.text] for piece in answer.cited],
        "marks": None if answer.marks is None else [list(mark) for mark in answer.marks],
        "abstained": answer.abstained,
        "seconds": {step: round(seconds, 4) for step, seconds in turn.timings.items()},
    }
    exchange = Exchange(turn.query, answer.text, turn.hits, details=details)
    return Entry(turn, asked, exchange, logged=False)


def conversation(log: PreferenceLog) -> list[Entry]:
    """This annotator's turns, in order; also those of logs that kept a turn only where a thumb was given."""
    entries, answered = [], set()
    for event in log.judgements(Exchange, Feedback, annotator=log.annotator):
        known = (event.query, event.answer) in answered
        if isinstance(event, Feedback) and known:
            continue
        answered.add((event.query, event.answer))
        turn = _turn(event)
        exchange = event
        if isinstance(event, Feedback):
            exchange = Exchange(event.query, event.answer, event.hits, details=event.details)
        asked = event.details.get("asked")
        entries.append(Entry(turn, asked if isinstance(asked, str) else event.query, exchange))
    return entries


def _turn(event: Exchange | Feedback) -> Turn:
    """What can be known of a turn from its event. What another program wrote into the details may be odd."""
    hits, details = event.hits, event.details
    numbers = range(1, len(hits) + 1)
    citations = [n for n in _list(details.get("citations")) if type(n) is int and n in numbers]
    pairs = [each for each in _list(details.get("cited")) if isinstance(each, list) and len(each) == 2]
    cited = [
        Evidence(text, n, 0.0) for n, text in pairs if type(n) is int and n in numbers and type(text) is str
    ]
    marks = details.get("marks")  # anything but a list: not known
    marks = [tuple(mark) for mark in marks if isinstance(mark, list)] if isinstance(marks, list) else None
    answer = Answer(event.answer, citations, [], bool(details.get("abstained")), cited=cited, marks=marks)
    return Turn(event.query, np.zeros(0, np.float32), hits, "", answer, {})


def _list(value) -> list:
    return value if isinstance(value, list) else []
