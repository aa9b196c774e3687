"""The whole loop on one page: ask, read the answer with its sources, say what you think, let it learn."""

import ctypes
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy

import ipywidgets

from ragkit.assistant import Turn
from ragkit.generation.follow_up import NOTHING_ASKED, asks_nothing, complete_follow_up
from ragkit.preferences.judgements import Feedback
from ragkit.preferences.rank_session import RankingSession
from ragkit.retrieval.corpus import Hit
from ragkit.widgets import learning
from ragkit.widgets.compare import CompareAnswers
from ragkit.widgets.field import Field
from ragkit.widgets.history import Opinions, Said, conversation, entry_of
from ragkit.widgets.panel import Panel, handler
from ragkit.widgets.parts import block, part, question, row
from ragkit.widgets.rank import RankingPanel, facts
from ragkit.widgets.switches import Switches
from ragkit.widgets.thread import Thread, press

CANDIDATES = 10  # documents from which what was learned chooses, where nothing else is said
WELCOME = (
    "Ask a question. Then say what you think of the answer, and put its documents in the order that helped "
    "you. After five ranked questions, “Learn from my clicks” makes the search prefer what you prefer."
)


class ChatApp(Panel):
    """A chat over `assistant`'s library; what was answered and what is said of it goes into `log`.

    `.turns` are what was asked and answered, those of this annotator in the log among them, `.turn` the last
    of them; `.ranking` and `.comparing` are the panels that are open below it, `.report` is what the latest
    `learn()` found. `k` and `candidates` as in `Assistant.ask`; what was learned chooses from CANDIDATES.
    `models`: what can answer, by the name that the switch shows: {"tiny": "tiny-rag-lm"}; each is loaded when
    first used. `examples`: questions to begin with. `.assistant` is a copy, whose model and reranker change.
    Methods that take `at` are about the turn of this number, by default the last. Raises ValueError for
    k < 1.
    """

    PICTURE = (
        "widget-chat-light.png",
        "The chat panel: questions and answers, under each answer its sources, and buttons to say whether it "
        "is good, to rank its documents and to see another answer; below, a field for the next question.",
    )

    def __init__(
        self,
        assistant,
        log,
        k: int = 3,
        *,
        candidates: int | None = None,
        models: Mapping[str, object] | None = None,
        examples: Sequence[str] = (),
    ):
        self.assistant, self.log, self.candidates = copy(assistant), log, candidates
        self.examples, self.report = list(examples), None
        self._query = Field("Question", "rk-query", "rk-enter")
        self._switches = Switches(self.assistant, k, models)
        self.models = self._switches.models
        super().__init__("Chat", fields=[self._query])
        part(self.box, "rk-chat")
        tries = "".join(press(text, "try", n) for n, text in enumerate(self.examples))
        self._thread = Thread(self, block(WELCOME) + tries)
        self._invitation = ipywidgets.HTML()
        learn = row(self._invitation, self.button("Learn from my clicks", "learn", self.learn))
        asking = row(self._query.box, self.button("Ask", "ask", self.ask, "rk-main"))
        self.put(row(self._switches.boxes, learn, classes="rk-top"), self._thread.box, asking)
        self.on_keys = {
            "enter": lambda *_: self.ask(),
            "open": lambda slot, _: self.open(slot),
            "try": lambda slot, _: self.ask(self.examples[slot]),
        }
        self._restore()
        self.check_name(log)

    @property
    def turns(self) -> list[Turn]:
        return [entry.turn for entry in self._thread.entries]

    @property
    def turn(self) -> Turn | None:
        """What was asked and answered last; None before the first question."""
        return self._thread.entries[-1].turn if self._thread.entries else None

    @property
    def k(self) -> int:
        return self._switches.k

    @k.setter
    def k(self, k: int) -> None:
        self._switches.k = k

    @property
    def ranking(self) -> RankingPanel | None:
        return self._thread.card().ranking if self.turn else None

    @property
    def comparing(self) -> CompareAnswers | None:
        return self._thread.card().comparing if self.turn else None

    # Handlers

    @handler("NO ANSWER")
    def ask(self, query: str = "") -> None:
        """Answer a question, by default the one in the field; "and for IPO?" builds on the one before."""
        asked = (query or self._query.text).strip()
        if not asked:
            raise ValueError("type a question first")
        if not query:
            self._query.fresh()  # now, so that what is typed meanwhile stays
        if asks_nothing(asked):
            self.tell(NOTHING_ASKED)
            return
        try:
            self._answer(complete_follow_up(asked, self.turn and self.turn.query), asked)
        except BaseException:
            if not (query or self._query.text):
                self._query.fresh(asked)
            raise

    @handler("NO ANSWER")
    def again(self) -> None:
        """Ask the last question once more: what was learned since may bring other documents."""
        entry = self._thread.entry()
        self._answer(entry.turn.query, entry.asked)

    @handler("NOT SAVED")
    def good(self, good: bool, note: str = "", *, at: int | None = None) -> int | None:
        """Say whether the answer is good; the latest word counts. Returns the event's number."""
        entry, card, said = self._thread.entry(at), self._thread.card(at), self._said(at).feedback
        turn, note = entry.turn, note or card.note.text
        if said is not None and (said.good, said.note) == (good, note):
            return None  # a double click says nothing new
        event = uuid.uuid4().hex
        details = entry.facts | {
            "view_id": event,
            "latency_ms": round(1000 * (time.monotonic() - card.shown_at)),
            "citations": list(turn.answer.citations),
            "abstained": turn.answer.abstained,
        }
        said = Feedback(turn.query, turn.answer.text, good, note, turn.hits, event_id=event, details=details)
        number = self.log.record(said)
        self.tell(f"Saved #{number} ✓  {'A good' if good else 'A bad'} answer.")
        return number

    @handler("NOT SAVED")
    def undo(self, *, at: int | None = None) -> str | None:
        """Take back the latest word on this answer. Returns its event_id; None where there is none."""
        said = self._said(at).feedback
        if said is None:
            self.tell("Nothing to undo.")
            return None
        self.log.undo(said.event_id)
        self.tell("Taken back ✓")
        return said.event_id

    @handler("NOT DONE")
    def rank(self, *, at: int | None = None) -> RankingPanel | None:
        """Open the panel in which this answer's documents are ranked, or close it. Returns it."""
        entry, card = self._thread.entry(at), self._thread.card(at)
        turn = entry.turn
        if card.ranking is not None:
            card.open()
            return None
        if len(turn.hits) < 2:
            raise ValueError(f"{len(turn.hits)} documents were found, and an order needs two")
        found, known = lambda query: turn.hits, lambda: entry.facts
        session = RankingSession([turn.query], found, self.log, repeat_share=0, facts=known)
        card.open(ranking=RankingPanel(session, len(turn.hits)))
        self._watch(card)
        return card.ranking

    @handler("NO OTHER ANSWER")
    def another(self, *, at: int | None = None) -> CompareAnswers | None:
        """Open a panel in which this answer and another one from the same documents are compared. Returns it,
        or None where the model has no other."""
        entry, card = self._thread.entry(at), self._thread.card(at)
        turn = entry.turn
        self._switches.take_model(self.step)
        self.step("Writing another answer …")
        known = {text for one in self._said(at).comparisons for text in (one.answer_a, one.answer_b)}
        other = self.assistant.another(turn, known | card.others)
        give_back()
        if other is None:
            self.tell("The model has no other answer: whatever was tried says the same again.")
            return None
        card.others.add(other.text)
        pair = (turn.query, turn.answer, other, turn.hits)
        known = entry.facts | {"other_generator": self._facts()["generator"]}
        card.open(comparing=CompareAnswers([pair], self.log, repeat_share=0, facts=lambda: known))
        self._watch(card)
        self.tell("Here are both. Which is better?")
        return card.comparing

    @handler("NOT LEARNED")
    def learn(self):
        """Train the reranker on this person's rankings, use it from now on, and show the documents of the
        last question before and after. Returns the report.

        Where the rankings are too few, or show nothing, that is said, and the order stays.
        """
        self.step("Learning from your rankings …")
        reranker, self.report = learning.learned(self.assistant.encoder, Opinions(self.log).rankings)
        told = question("What I learned") + block(learning.sentences(self.report))
        if reranker is not None:
            before = self._found() if self.turn else []
            self._switches.offer(reranker, choose=True)
            if self.turn:
                read = f"The answer is written from the first {self.k}, above the line."
                told += block(f"{self.turn.query} {read}", "rk-hint rk-below")
                told += learning.moves(before, self._found(), self.k)
        self._thread.teach(told, again=reranker is not None and self.turn is not None)
        self.tell("Learned: used from now on." if reranker else "Nothing changes yet.")
        if reranker is not None:
            self.safely("LEARNED, BUT NOT SAVED", lambda: learning.save(reranker, self.log))
        give_back()
        return self.report

    @handler("NOT OPENED")
    def open(self, at: int) -> None:
        """Show an older turn as a card again."""
        self._thread.open(at)

    @handler("NOT DONE")
    def fold(self) -> None:
        """List the older turns, or fold them again."""
        self._thread.unfolded = not self._thread.unfolded

    # Drawing

    def draw(self) -> None:
        opinions = self.safely("NOT READ", lambda: Opinions(self.log))
        self._thread.draw(opinions)
        self.fields = [self._query, *self._thread.notes]
        ranked = learning.ranked_questions(opinions.rankings) if opinions else 0
        self._invitation.value = block(learning.invitation(ranked), "rk-hint")

    # The state

    def _answer(self, query: str, asked: str) -> None:
        card = self._thread.begin(query)
        try:
            self.describe("log", aria_busy=True)  # it is read out once, when it is whole
            self.redraw()
            self._switches.take_model(self.step)
            settings = {"on_text": card.write, "on_step": self._step} | self._candidates()
            turn = self.assistant.ask(query, self.k, **settings)
        except BaseException as error:
            self.fail("NO ANSWER", error)
            card.fail(self.status)
            raise
        finally:
            self.describe("log", aria_busy=False)
            give_back()
        card.shown_at = time.monotonic()
        self._thread.take(entry_of(turn, asked, self._facts()))
        self.tell(f"Answered in {sum(turn.timings.values()):.1f} s.")
        for entry in self._thread.entries:
            if not entry.logged:
                record = lambda entry=entry: self.log.record(entry.exchange)  # noqa: E731
                entry.logged = self.safely("NOT SAVED", record) is not None

    def _step(self, name: str) -> None:
        size = len(self.assistant.library)
        said = {"searching": f"Searching {size:,} passages …", "reading": "Reading what was found …"}
        self.step(said.get(name, f"{name.capitalize()} …"))

    def _candidates(self) -> dict:
        chosen = self.candidates or (CANDIDATES if self._switches.by_clicks else None)
        return {} if chosen is None else {"candidates": chosen}

    def _found(self) -> list[Hit]:
        """The documents from which the last question's are chosen, in the present order."""
        most = max(self.candidates or CANDIDATES, self.k)
        return self.assistant.find(self.turn.query, most)

    def _facts(self) -> dict:
        return facts(self.assistant) | {
            "generator": getattr(self.assistant.generator, "name", None),
            "k": self.k,
        }

    def _said(self, at: int | None = None) -> Said:
        """What stands in the log of a turn now."""
        entry = self._thread.entry(at)
        return Opinions(self.log).of(entry)

    def _watch(self, card) -> None:
        """What is said in a card's own panel shows in the chat, too."""
        panel = card.ranking or card.comparing
        panel.on_draw = self.redraw
        self._thread.show(card.bench)

    @handler("NOT RESTORED")
    def _restore(self) -> None:
        """The conversation as the log has it, and what was learned from it."""
        self._thread.entries = conversation(self.log)
        if self.turn:
            self._thread.show(f"rk-turn-{len(self.turns)}")
        reranker = self.safely("WHAT WAS LEARNED", lambda: learning.load(self.log, self.assistant.encoder))
        if reranker is not None:
            self._switches.offer(reranker, choose=self.assistant.reranker is None)


def give_back() -> None:
    """Return freed memory to the system. Tensors of many sizes come and go with an answer, and glibc keeps
    the room between those that stay: 100 MB in an hour's chat."""
    with suppress(AttributeError, OSError, TypeError):  # another library than glibc
        ctypes.CDLL(None).malloc_trim(0)
