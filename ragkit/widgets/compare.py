"""Which of two answers is better, and how strongly."""

from collections.abc import Callable, Sequence

import ipywidgets

from ragkit.generation.answer import Answer
from ragkit.preferences.compare_session import ComparisonSession, text
from ragkit.widgets.judging import JudgingPanel
from ragkit.widgets.panel import handler
from ragkit.widgets.parts import block, part, row

SCALE = {
    -3: "A much better",
    -2: "A better",
    -1: "A slightly",
    0: "Even",
    1: "B slightly",
    2: "B better",
    3: "B much better",
}
HINT = "Keys: 1 to 7 rate from A to B, 0 says that both are bad, Ctrl+Enter saves and goes on."


class CompareAnswers(JudgingPanel):
    """Ask a person which of two answers to a query is better; `log` keeps it.

    `pairs_of_answers`: (query, answer_a, answer_b) or (query, answer_a, answer_b, hits); an answer is a text
    or an `Answer`. On the screen, A is the one on the left; which one that is, a logged seed decides. The
    sources appear once the rating is saved, so that they can't sway it. What `facts()` returns, the log
    keeps too. Raises ValueError for no pairs and for one of another form.
    """

    NOTHING = "Nothing to compare."
    PICTURE = (
        "widget-compare-light.png",
        "The comparing panel: on top the question; then two answers side by side, A and B; a row of seven "
        "buttons from A much better over Even to B much better, and Both bad; below, Save, Next, Skip, Undo, "
        "and a field for why.",
    )

    def __init__(
        self,
        pairs_of_answers: Sequence[tuple],
        log,
        *,
        seed: int | None = None,
        repeat_share: float = 0.1,
        facts: Callable[[], dict] | None = None,
    ):
        session = ComparisonSession(pairs_of_answers, log, seed=seed, repeat_share=repeat_share, facts=facts)
        self._panes = [ipywidgets.HTML(), ipywidgets.HTML()]
        cards = [
            part(ipywidgets.VBox([pane]), "rk-card", f"rk-pane-{side}")
            for side, pane in zip("ab", self._panes)
        ]
        self._scale = {
            rating: self.button(name, f"rate-{rating + 4}", lambda rating=rating: self.rate(rating))
            for rating, name in SCALE.items()
        }
        self._bad = self.button("Both bad", "bad", self.both_bad)
        save = self.button("Save", "save", self.settled(self.save), "rk-main")
        following = self.button("Next", "next", self.settled(self.next))
        scale = row(*self._scale.values(), self._bad, classes="rk-scale")
        work = [row(*cards, classes="rk-panes"), scale, ipywidgets.HTML(block(HINT, "rk-hint"))]
        super().__init__("Compare two answers", session, work, save, following)
        go = self.settled(self._save_or_next)
        self.on_keys = {"save": lambda *_: go(), "0": lambda *_: self.both_bad()}
        self.on_keys |= {
            str(rating + 4): lambda *_, rating=rating: self.rate(rating) for rating in self._scale
        }
        for side in "ab":
            self.describe(f"pane-{side}", role="group", aria_label=f"Answer {side.upper()}")
        self.check_name(log)
        self.next()

    # Handlers

    @handler("NOT DONE")
    def rate(self, rating: int) -> None:
        """From −3, the left answer (A on the screen) is much better, to +3, the right one is."""
        self._check_open()
        self.session.rate(rating)
        self.tell(SCALE[rating])

    @handler("NOT DONE")
    def both_bad(self) -> None:
        """Say that neither answer will do, or take that back; a rating may stand beside it."""
        self._check_open()
        view = self.session.view
        view.both_bad, view.moves = not view.both_bad, view.moves + 1
        self.tell("Both bad" if view.both_bad else "Not both bad")

    @handler("NOT SAVED")
    def save(self, why: str = "") -> int:
        """Write the rating to the log, and show the sources. Returns the event's number."""
        if why:
            self._keep_why(why)
        number = self.session.save()
        self.tell(f"Saved #{number} ✓  {self._spoken()}")
        self.session.refresh()
        return number

    @handler("NOT DONE")
    def next(self) -> None:
        """Show the next pair; one that is neither saved nor skipped stays."""
        if self._waits:
            self.tell("Save or skip this one first.")
        else:
            self._next("")

    # Drawing

    def draw(self) -> None:
        super().draw()
        view = self.session.view
        saved = view is not None and view.saved is not None
        if view is not None:
            for name, pane, answer in zip("AB", self._panes, view.sides):
                pane.value = block(name, "rk-title") + block(text(answer), "rk-answer")
                pane.value += sources(answer, view.hits) if saved else ""
        rating, bad = (None, False) if view is None else (view.rating, view.both_bad)
        for each, button in self._scale.items():
            self.mark(f"rate-{each + 4}", button, each == rating)
        self.mark("bad", self._bad, bad)
        for name in ("bad", "skip", *(f"rate-{each + 4}" for each in self._scale)):
            self.describe(name, aria_disabled=not self._waits)
        self.describe("save", aria_disabled=saved or (rating is None and not bad))
        self.describe("next", aria_disabled=not saved)

    # The state

    def _save_or_next(self) -> None:
        if self._waits:
            self.save()
        else:
            self.next()

    def _check_open(self) -> None:
        if not self._waits:
            saved = self.session.view is not None
            raise ValueError("this one is saved; Undo takes it back" if saved else "nothing is shown")

    _check_skip = _check_open

    def _spoken(self) -> str:
        view = self.session.view
        said = [] if view.rating is None else [SCALE[view.rating]]
        return ", ".join(said + ["both bad"] * view.both_bad)


def sources(answer, hits: list) -> str:
    """The hits as an HTML list, those that the answer cites marked in words."""
    if not hits:
        return ""
    cited = answer.citations if isinstance(answer, Answer) else []
    items = []
    for number, hit in enumerate(hits, 1):
        mark = "  – cited" if number in cited else ""
        items.append(block(f"[{number}] {hit.passage.title or hit.passage.id}{mark}", tag="li"))
    return block("Sources", "rk-hint rk-below") + f'<ul class="rk-sources">{"".join(items)}</ul>'
