"""Ask, read the answer with its sources, and say what you think of both."""

import time
import uuid
from collections.abc import Mapping
from copy import copy

import ipywidgets

from ragkit.generation.follow_up import NOTHING_ASKED, asks_nothing, complete_follow_up
from ragkit.preferences.judgements import Feedback, Ranking
from ragkit.preferences.rank_session import RankingSession
from ragkit.widgets.compare import CompareAnswers, sources
from ragkit.widgets.panel import Field, Panel, block, handler, part, question, row, show
from ragkit.widgets.rank import RankingPanel, facts


class ChatApp(Panel):
    """A chat over `assistant`'s library; what is said of answers and documents goes into `log`.

    `.turns` are what was asked and answered so far, `.turn` the last of them, `.ranking` the panel in which
    its documents are ranked, `.comparing` the one in which two answers are compared, `.report` what the last
    `learn()` found. `k` and `candidates` as in `Assistant.ask`. `models`: what answers, by the name that the
    switch shows: {"SmolLM2 reader": "smollm2-reader", "tiny": "tiny-rag-lm"}; each is loaded when first used.
    """

    def __init__(
        self,
        assistant,
        log,
        k: int = 3,
        *,
        candidates: int | None = None,
        models: Mapping[str, str] | None = None,
    ):
        self.assistant, self.log, self.k = copy(assistant), log, k
        self.models = dict(models or {})
        self.report, self.comparing = None, None
        self.settings = {} if candidates is None else {"candidates": candidates}
        self.turns: list = []
        self.ranking: RankingPanel | None = None
        self._said: Feedback | None = None  # what stands in the log for this answer
        self._shown_at = 0.0
        self._query = Field("Question", "rk-query", "rk-enter")
        self._answer = part(ipywidgets.HTML(), "rk-reply")
        self._good = self.button("Good answer", "good", lambda: self.good(True))
        self._bad = self.button("Bad answer", "poor", lambda: self.good(False))
        self._note = Field("Note (optional)", "rk-note")
        undo = self.button("Undo", "undo", self.undo)
        rank = self.button("Rank these documents", "rank", self.rank)
        below = row(self._good, self._bad, undo, rank, self._note.box)
        asking = row(self._query.box, self.button("Ask", "ask", self.ask, "rk-main"))
        self._card = part(ipywidgets.VBox([self._answer, below]), "rk-card")
        self._documents = ipywidgets.VBox([])
        super().__init__("Chat", asking, self._card, self._documents, fields=[self._query, self._note])
        self._earlier = part(ipywidgets.HTML(), "rk-earlier")
        self.box.children += (self._earlier,)  # below the status line, which it would push out of sight
        self.on_keys = {"enter": lambda *_: self.ask()}
        self.check_name(log)
        self.redraw()

    @property
    def turn(self):
        """What was asked and answered last; None before the first question."""
        return self.turns[-1] if self.turns else None

    # Handlers

    @handler("NO ANSWER")
    def ask(self, query: str = "") -> None:
        """Answer a question, by default the one in the field; "and for IPO?" builds on the one before."""
        asked = (query or self._query.text).strip()
        if not asked:
            raise ValueError("type a question first")
        if asks_nothing(asked):
            self._query.fresh()
            self.tell(NOTHING_ASKED)
            return
        previous = self.turn.query if self.turn else None
        self.tell("Searching and writing …")
        turn = self.assistant.ask(complete_follow_up(asked, previous), self.k, **self.settings)
        self.turns.append(turn)
        self.ranking = None
        self._query.fresh()
        self._note.fresh()
        self._documents.children = []
        self._shown_at = time.monotonic()
        self._said = self._standing()
        self.tell(f"Answered in {sum(turn.timings.values()):.1f} s.")

    @handler("NOT SAVED")
    def good(self, good: bool, note: str = "") -> int | None:
        """Say whether the answer is good; the latest word counts. Returns the event's number."""
        turn = self._asked()
        note = note or self._note.text
        if self._said is not None and (self._said.good, self._said.note) == (good, note):
            return None  # a double click says nothing new
        event = uuid.uuid4().hex
        details = facts(self.assistant) | {
            "view_id": event,
            "latency_ms": round(1000 * (time.monotonic() - self._shown_at)),
            "generator": getattr(self.assistant.generator, "name", None),
            "citations": list(turn.answer.citations),
            "abstained": turn.answer.abstained,
        }
        said = Feedback(turn.query, turn.answer.text, good, note, turn.hits, event_id=event, details=details)
        number = self.log.record(said)
        self._said = said
        self.tell(f"Saved #{number} ✓  {'A good' if good else 'A bad'} answer.")
        return number

    @handler("NOT SAVED")
    def undo(self) -> str | None:
        """Take back the latest word on this answer. Returns its event_id; None where there is none."""
        self._asked()
        said = self._standing()
        if said is None:
            self.tell("Nothing to undo.")
            return None
        self.log.undo(said.event_id)
        self._said = self._standing()
        self.tell("Taken back ✓")
        return said.event_id

    @handler("NOT DONE")
    def rank(self) -> RankingPanel | None:
        """Open the panel in which this answer's documents are ranked, or close it. Returns it."""
        turn = self._asked()
        if self.ranking is not None:
            self.ranking, self._documents.children = None, []
            return None
        if len(turn.hits) < 2:
            raise ValueError(f"{len(turn.hits)} documents were found, and an order needs two")
        found, known = lambda query: turn.hits, lambda: facts(self.assistant)
        session = RankingSession([turn.query], found, self.log, repeat_share=0, facts=known)
        self.ranking = RankingPanel(session, len(turn.hits))
        self._documents.children = [self.ranking.box]
        return self.ranking

    @handler("NOT DONE")
    def another(self):
        """Another answer to the question, beside the first: which is better goes into the log."""
        turn = self._asked()
        for seed in range(1, 9):
            other = self.assistant.generator.answer(turn.query, turn.hits, seed=seed)
            if other.text != turn.answer.text:
                break
        else:
            self.tell("Eight tries gave the same answer again: the model is sure of it.")
            return None
        pair = (turn.query, turn.answer, other, turn.hits)
        self.comparing = CompareAnswers([pair], self.log, repeat_share=0)
        self._documents.children = [self.comparing.box]
        return self.comparing

    @handler("NOT LEARNED")
    def learn(self):
        """Train the reranker on this person's rankings, and use it from now on. Returns its report."""
        from ragkit.reranking.reranker import Reranker

        mine = self.log.judgements(Ranking, annotator=self.log.annotator)
        reranker = Reranker(self.assistant.encoder, prior="people")
        self.report = reranker.fit(mine, progress=False)
        if not self.report.kept_base:
            self.assistant.reranker = reranker
        self.tell(str(self.report))
        return self.report

    # Drawing

    def draw(self) -> None:
        turn = self.turn
        show(self._card, turn is not None)
        if turn is None:
            return
        self._answer.value = question(turn.query) + _answered(turn)
        self._earlier.value = earlier(self.turns[:-1])
        said = self._said
        self.mark("good", self._good, said is not None and said.good)
        self.mark("poor", self._bad, said is not None and not said.good)
        self.describe("undo", aria_disabled=said is None)
        self.describe("rank", aria_expanded=self.ranking is not None)

    # The state

    def _asked(self):
        if self.turn is None:
            raise ValueError("ask a question first")
        return self.turn

    def _standing(self) -> Feedback | None:
        """What this person's latest word on this answer is, today or on an earlier day."""
        item = Feedback(self.turn.query, self.turn.answer.text, True).item
        mine = self.log.judgements(Feedback, annotator=self.log.annotator)
        return next((feedback for feedback in reversed(mine) if feedback.item == item), None)


def earlier(turns: list) -> str:
    """Questions and answers as folded HTML, the latest first."""
    if not turns:
        return ""
    items = [f"<li>{block(turn.query, 'rk-title')}{_answered(turn)}</li>" for turn in reversed(turns)]
    name = f"Earlier in this chat: {len(turns)} question{'s' if len(turns) > 1 else ''}"
    return f"<details>{block(name, tag='summary')}<ul>{''.join(items)}</ul></details>"


def _answered(turn) -> str:
    return block(turn.answer.text, "rk-answer") + sources(turn.answer, turn.hits)
