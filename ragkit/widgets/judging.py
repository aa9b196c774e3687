"""What ranking and comparing share on the screen: the item, how far one is, a reason, skip and undo."""

from collections.abc import Callable, Sequence

import ipywidgets

from ragkit.preferences.judgements import Judgement
from ragkit.preferences.session import Session, View
from ragkit.widgets.field import Field
from ragkit.widgets.panel import Panel, handler
from ragkit.widgets.parts import block, part, question, row, set_visible

# What was shown in this kernel and is not judged yet, by log, annotator and item: a cell that is run again
# goes on from there. Not in the log, which holds what a person decided and nothing else.
_OPEN: dict[tuple, View] = {}


class JudgingPanel(Panel):
    """A session on the screen, one item after another; `session.view` is None when all are done.

    `work`: the parts that show an item, and `buttons` those that judge it. `on_save()` is called after each
    save and undo; it may take its time, since what comes next is on the screen by then.
    """

    NOTHING = ""  # what is said where there is no item to judge

    def __init__(
        self,
        name: str,
        session: Session,
        work: Sequence,
        *buttons: ipywidgets.Button,
        on_save: Callable[[], object] | None = None,
    ):
        self.session, self._work, self._on_save = session, work, on_save
        self._question, self._progress = ipywidgets.HTML(), part(ipywidgets.HTML(), "rk-progress")
        self._why = Field("Why (optional)", "rk-why", keep=self._keep_why)
        actions = row(
            *buttons,
            self.button("Skip", "skip", self.settled(self.skip)),
            self.button("Undo", "undo", self.settled(self.undo)),
            self._why.box,
        )
        top = row(self._question, self._progress, classes="rk-top")
        super().__init__(name, top, *work, actions, fields=[self._why])

    # Handlers

    @handler("NOT SAVED")
    def skip(self) -> int:
        """Don't judge this item; it is not asked again."""
        self._check_skip()
        number = self.session.skip()
        self._next(f"Skipped, saved #{number} ✓")
        return number

    @handler("NOT SAVED")
    def undo(self) -> Judgement | None:
        """Take back the latest judgement or skip, also one of an earlier day, and show it again."""
        taken = self.session.undo()
        if taken is None:
            self.tell("Nothing to undo.")
            return None
        self._fresh()
        self.tell("Taken back ✓  Here it is again, as you left it.")
        self._log_changed()
        return taken

    # Drawing

    def draw(self) -> None:
        session = self.session
        self._progress.value = block(str(session.progress))
        self.describe("undo", aria_disabled=not session.can_undo)
        for each in self._work:
            set_visible(each, session.view is not None)
        if session.view is not None:
            self._question.value = question(session.view.query)
            return
        judged = session.progress.done
        missing = " ".join(f"Left out: {why}." for why in session.left_out.values())
        self._question.value = question(
            f"All {judged} done. Undo shows the last one again."
            if judged > 1
            else "Done. Undo shows it again."
            if judged
            else self.NOTHING
        )
        self._question.value += block(missing) if missing else ""

    # The state

    @property
    def _waits(self) -> bool:
        """Whether an item is shown that is not judged yet."""
        return self.session.view is not None and self.session.view.saved is None

    def _check_skip(self) -> None:
        """Raise ValueError where there is nothing to skip."""

    def _keep_why(self, why: str) -> None:
        """What was typed stays with the item, also where an undo pushes it aside."""
        if self.session.view is not None:
            self.session.view.why = why

    def _log_changed(self) -> None:
        """The log says something else: tell whoever asked. What they fail with is no failure to save."""
        if self._on_save is None:
            return
        self.redraw()
        try:
            self._on_save()
        except Exception as error:
            self.fail(f"{self.status}  BUT WHAT CAME AFTER FAILED", error)

    def _next(self, said: str) -> None:
        self.tell(said)
        if self.session.view is not None:
            _OPEN.pop(self._place(), None)
        try:
            self.session.next()
        except Exception as error:  # what was said is saved all the same; Save tries again
            self.fail(f"{said}  NO NEXT ITEM".strip(), error)
        else:
            self._fresh()

    def _place(self) -> tuple:
        """Where the item that is shown is kept open."""
        log, view = self.session.log, self.session.view
        return log.folder.resolve(), log.annotator, view.item, view.repeat_of

    def _fresh(self) -> None:
        view = self.session.view
        if view is not None:
            left = _OPEN.get(self._place(), view)
            if left is not view and left.saved is None and (left.moves or left.why):
                self.session.view = view = left
                self.tell(f"{self.status}  Here it is again, as you left it: not saved yet.".strip())
            _OPEN[self._place()] = view
        self._why.fresh(view.why if view else "")
        self.settle()
