"""One turn of the conversation on the screen: question, answer, sources beside it, what can be said of it."""

import time
import uuid

import ipywidgets

from ragkit.preferences.judgements import Comparison, Feedback, Ranking
from ragkit.widgets.answer import reply, sources
from ragkit.widgets.field import Field
from ragkit.widgets.history import Entry, Said
from ragkit.widgets.panel import Panel
from ragkit.widgets.parts import block, close, part, question, row, set_visible

EVERY = 0.05  # seconds between two drawings of a text that is being written
SHORT = 90  # characters of an answer that is only pointed to


class TurnCard:
    """The widgets of one turn. `chat`: the panel whose handlers the buttons call, with the turn's `number`,
    from 0. `ranking`, `comparing`: the panel that is open below the answer, or None."""

    def __init__(self, chat: Panel, number: int, query: str, note: str = ""):
        self.number, self.shown_at = number, time.monotonic()
        self.ranking = self.comparing = None
        self.others: set[str] = set()  # texts of other answers that were shown
        self._chat, self._at, self._written, self._drawn = chat, f"-{number + 1}", "", 0.0
        self._name = f"rk-{uuid.uuid4().hex[:8]}"  # of this card on the page
        asked = part(ipywidgets.HTML(question(query)), "rk-asked")
        self._reply, self._sources = ipywidgets.HTML(), part(ipywidgets.HTML(), "rk-documents")
        self._told = part(ipywidgets.HTML(), "rk-told")
        self.note = Field("Note (optional)", "rk-note")
        if note:
            self.note.fresh(note)
        make = lambda text, name, action: chat.button(text, name + self._at, action, f"rk-{name}")  # noqa: E731
        self._good = make("Good answer", "good", lambda: chat.good(True, at=number))
        self._poor = make("Bad answer", "poor", lambda: chat.good(False, at=number))
        undo = make("Undo", "undo", lambda: chat.undo(at=number))
        rank = make("Rank these documents", "rank", lambda: chat.rank(at=number))
        another = make("Show me another answer", "another", lambda: chat.another(at=number))
        saying = row(self._good, self._poor, undo, self.note.box)
        self._work = ipywidgets.VBox([saying, row(rank, another), self._told])
        left = part(ipywidgets.VBox([self._reply, self._work]), "rk-said")
        beside = part(ipywidgets.HBox([left, self._sources]), "rk-beside")
        self.bench = f"rk-bench{self._at}"  # the class of the part below the answer
        self._bench = part(ipywidgets.VBox(), self.bench, "rk-bench")
        self.box = part(ipywidgets.VBox([asked, beside, self._bench]), "rk-turn", f"rk-turn{self._at}")
        # What happens while documents are ranked is told by that panel's own status line.
        chat.describe(f"bench{self._at}", aria_live="off")
        chat.describe(f"turn{self._at}", role="group", aria_label=f"Question {number + 1}")
        set_visible(self._work, False)

    # While it is answered

    def write(self, text: str) -> None:
        """More of the answer."""
        self._written += text
        if time.monotonic() - self._drawn >= EVERY:
            self._reply.value = block(self._written, "rk-answer rk-writing")
            self._drawn = time.monotonic()

    def fail(self, why: str) -> None:
        """There is no answer."""
        self._reply.value = block(self._written, "rk-answer") + block(why, "rk-failed")

    # When it is answered

    def draw(self, entry: Entry, said: Said) -> None:
        turn = entry.turn
        typed = entry.asked if entry.asked != turn.query else ""
        self._reply.value = (block(f"You typed: {typed}", "rk-hint") if typed else "") + reply(
            turn.answer, turn.hits, self._name
        )
        self._sources.value = sources(turn.answer, turn.hits, self._name)
        self._told.value = "".join(block(line, "rk-hint") for line in spoken(said, turn))
        set_visible(self._work, True)
        word, chat = said.feedback, self._chat
        chat.mark(f"good{self._at}", self._good, word is not None and word.good)
        chat.mark(f"poor{self._at}", self._poor, word is not None and not word.good)
        chat.describe(f"undo{self._at}", aria_disabled=word is None)
        chat.describe(f"rank{self._at}", aria_expanded=self.ranking is not None)
        chat.describe(f"another{self._at}", aria_expanded=self.comparing is not None)

    def open(self, *, ranking=None, comparing=None) -> None:
        """Put this panel below the answer, in the place of what is there; or none."""
        before = [each for each in (self.ranking, self.comparing) if each is not None]
        self.ranking, self.comparing = ranking, comparing
        opened = ranking if comparing is None else comparing
        self._bench.children = [] if opened is None else [opened.box]
        for each in before:
            each.close()

    def close(self) -> None:
        self.open()
        self._chat.forget(self._at)
        self.note.close()
        close(self.box)


def spoken(said: Said, turn) -> list[str]:
    """What was said of a turn, in words; documents by their numbers in it."""
    lines = []
    if isinstance(said.feedback, Feedback):
        note = f": {said.feedback.note}" if said.feedback.note else ""
        lines.append(f"✓ {'A good' if said.feedback.good else 'A bad'} answer{note}")
    if isinstance(said.ranking, Ranking):
        lines.append(f"✓ Your order: {_order(said.ranking, turn.hits)}")
    return lines + [f"✓ {_comparison(one, turn.answer.text)}" for one in said.comparisons]


def _order(ranking: Ranking, hits: list) -> str:
    number = {(hit.passage.id, hit.passage.text): n for n, hit in enumerate(hits, 1)}
    named = [
        [f"[{number[ranking.passages[i].id, ranking.passages[i].text]}]" for i in tier]
        for tier in ranking.tiers
    ]
    return ", then ".join(" = ".join(tier) for tier in named)


def _comparison(one: Comparison, answer: str) -> str:
    """From the view of this answer, whichever of the two it was."""
    other = one.answer_b if one.answer_a == answer else one.answer_a
    better = one.rating if one.answer_b == other else -one.rating  # > 0: the other one is
    other = f"“{other if len(other) <= SHORT else other[: SHORT - 1] + '…'}”"
    if one.both_bad:
        return f"This answer and {other}: both bad"
    if better == 0:
        return f"This answer and {other}: even"
    how = {1: "slightly better", 2: "better", 3: "much better"}[abs(better)]
    return f"The other answer, {other}, is {how}" if better > 0 else f"This answer is {how} than {other}"
