"""Rank the documents that were found for a question: buttons, keys, or dragging."""

from collections.abc import Callable, Sequence

import ipywidgets

from ragkit.preferences.rank_session import RankingSession, flat, is_tied, move, place, places, tie
from ragkit.widgets.judging import JudgingPanel
from ragkit.widgets.panel import handler, slot_keys
from ragkit.widgets.parts import block, part, row, set_visible

FOLD = 320  # characters: a longer document is folded
HINT = (
    "Best first. Click a document: 1 to 9 give it a place, Alt+↑ and Alt+↓ move it, "
    "= ties it with the one above; Ctrl+Enter saves."
)


class RankingPanel(JudgingPanel):
    """A ranking session on the screen. Its slots stay; the documents in them change.

    Slots count from 0, from the top. Each button and key calls one of the methods below, as a notebook can.
    """

    NOTHING = "Nothing to rank."
    PICTURE = (
        "widget-rank-light.png",
        "The ranking panel: on top the question, and how many are done; then documents in cards, each with "
        "its place, its name, its title and its text, and buttons More, Tie, Up and Down; below, Save this "
        "order, Skip, Undo, and a field for why.",
    )

    def __init__(self, session: RankingSession, k: int, on_save: Callable[[], object] | None = None):
        self._opened: set[int] = set()  # documents that "more" unfolded
        self._slots = [self._slot(slot) for slot in range(k)]
        save = self.settled(self.save)
        work = [part(ipywidgets.HTML(block(HINT, "rk-hint"))), *(slot["card"] for slot in self._slots)]
        order = self.button("Save this order", "save", save, "rk-main")
        super().__init__("Rank the documents", session, work, order, on_save=on_save)
        self.on_keys = {
            "save": lambda slot, _: save(),
            "=": lambda slot, _: slot and self.tie(slot - 1),
        } | slot_keys(self)
        self.next()

    # Handlers

    @handler("NOT DONE")
    def move(self, slot: int, by: int) -> None:
        """Move the document in `slot` up (by < 0) or down."""
        self._arrange(slot, lambda order: move(order, slot, by))

    @handler("NOT DONE")
    def place(self, slot: int, target: int) -> None:
        """Give the document in `slot` the slot `target`."""
        target = min(target, len(self._documents()) - 1)
        self._arrange(slot, lambda order: place(order, slot, target))

    @handler("NOT DONE")
    def tie(self, slot: int) -> None:
        """Tie the document in `slot` with the one above it, or cut that tie."""
        self._arrange(slot, lambda order: tie(order, slot))

    @handler("NOT DONE")
    def more(self, slot: int) -> None:
        """Unfold the document in `slot`, or fold it again."""
        self._opened ^= {self._documents()[slot]}

    @handler("NOT SAVED")
    def save(self, why: str = "") -> int:
        """Write the order as it stands to the log; then the next item comes. Returns the event's number."""
        if why:
            self._keep_why(why)
        view, number = self.session.view, self.session.save()
        self._next(f"Saved #{number} ✓  {spoken(view)}")
        self._log_changed()
        return number

    @handler("NOT DONE")
    def next(self) -> None:
        """Show the next item, or again the one that is not judged yet."""
        if not self._waits:
            self._next("")

    # Drawing

    def draw(self) -> None:
        super().draw()
        view = self.session.view
        documents, numbers = self._documents(), places(view.tiers) if view else []
        for slot, parts in enumerate(self._slots):
            set_visible(parts["card"], slot < len(documents))
            if slot < len(documents):
                self._draw_slot(slot, parts, documents, numbers)
        for name in ("save", "skip"):
            self.describe(name, aria_disabled=view is None)

    def _draw_slot(self, slot: int, parts: dict, documents: list[int], numbers: list[int]) -> None:
        view, n = self.session.view, slot + 1
        document = documents[slot]
        name, passage = view.name(document), view.hits[document].passage
        shared = numbers.count(numbers[slot]) > 1
        parts["title"].value = (
            '<span class="rk-handle" draggable="true" aria-hidden="true" title="Drag to move">⠿</span>'
            f'<span class="rk-place">{numbers[slot]}{" =" if shared else ""}</span>'
            f'<span class="rk-name">{name}</span>' + block(passage.title, "rk-title", "span")
        )
        long = len(passage.text) > FOLD
        folded = long and document not in self._opened
        parts["text"].value = block(passage.text, "rk-text rk-folded" if folded else "rk-text")
        set_visible(parts["more"], long)
        tied = is_tied(view.tiers, slot)
        above = view.name(documents[slot - 1]) if slot else ""
        parts["more"].description = more = "More" if folded else "Less"
        parts["tie"].description = "≠ Untie" if tied else "= Tie"
        set_visible(parts["tie"], bool(slot))
        last = slot == len(documents) - 1
        label = f"Place {numbers[slot]}: {name}, {passage.title}"
        self.describe(f"slot-{n}", role="group", aria_label=label, tabindex="-1")
        self.describe(f"up-{n}", aria_label=f"Move {name} up", aria_disabled=slot == 0 and not shared)
        self.describe(f"down-{n}", aria_label=f"Move {name} down", aria_disabled=last and not shared)
        self.describe(
            f"tie-{n}", aria_label=f"Untie {name} from {above}" if tied else f"Tie {name} with {above}"
        )
        self.describe(f"more-{n}", aria_label=f"{more} of {name}", aria_expanded=not folded)

    def _slot(self, slot: int) -> dict:
        """The widgets of one slot; which document they show comes later."""
        title, text = ipywidgets.HTML(), ipywidgets.HTML()
        buttons = {
            "more": self.button("More", f"more-{slot + 1}", lambda: self.more(slot), "rk-more"),
            "tie": self.button("= Tie", f"tie-{slot + 1}", lambda: self.tie(slot), "rk-tie"),
            "up": self.button("↑ Up", f"up-{slot + 1}", lambda: self.move(slot, -1), "rk-up"),
            "down": self.button("↓ Down", f"down-{slot + 1}", lambda: self.move(slot, 1), "rk-down"),
        }
        head = row(title, row(*buttons.values()), classes="rk-head")
        card = part(ipywidgets.VBox([head, text]), "rk-card", f"rk-slot-{slot + 1}")
        return {"card": card, "title": title, "text": text, **buttons}

    # The state

    def _documents(self) -> list[int]:
        return flat(self.session.view.tiers) if self.session.view else []

    def _arrange(self, slot: int, change: Callable) -> None:
        view, documents = self.session.view, self._documents()
        if not documents:
            raise IndexError("nothing is shown")
        if slot not in range(len(documents)):
            raise IndexError(f"slot={slot!r}: from 0 to {len(documents) - 1}")
        document = documents[slot]
        before, view.tiers = view.tiers, change(view.tiers)
        view.moves += view.tiers != before
        self.follow(self._documents().index(document))
        self.tell(spoken(view))

    def _fresh(self) -> None:
        self._opened.clear()
        super()._fresh()


def spoken(view) -> str:
    """An order in words: "c2, then c1 = c3"."""
    return ", then ".join(" = ".join(view.name(d) for d in tier) for tier in view.tiers)


class RankDocuments(RankingPanel):
    """Ask a person to rank the k documents that `assistant` finds for each of `queries`; `log` keeps it.

    What this annotator ranked or skipped before is not asked again. `seed`: of the orders shown; drawn at
    random, and logged, by default. `repeat_share`: how many items come back in another order. `choose`, of
    the list of the remaining queries, names the next one. `on_save()` is called after each save and undo, as
    a `TasteView` is. Raises ValueError for k < 2 and no queries.
    """

    def __init__(
        self,
        assistant,
        queries: Sequence[str],
        log,
        k: int = 3,
        *,
        seed: int | None = None,
        repeat_share: float = 0.1,
        choose: Callable[[list[str]], str] | None = None,
        on_save: Callable[[], object] | None = None,
    ):
        if k < 2:
            raise ValueError(f"k={k}: an order needs two documents at the least")
        settings = {"seed": seed, "repeat_share": repeat_share, "choose": choose}
        settings["facts"] = lambda: facts(assistant)
        session = RankingSession(queries, lambda query: assistant.find(query, k), log, **settings)
        super().__init__(session, k, on_save)
        self.check_name(log)


def facts(assistant) -> dict:
    """What was asked, for the log: a judgement of documents holds for what found them."""
    reranker = assistant.reranker
    return {
        "encoder": assistant.encoder.name,
        "encoder_fingerprint": assistant.encoder.fingerprint,
        "library_size": len(assistant.library),
        "reranker": None if reranker is None else getattr(reranker, "fingerprint", type(reranker).__name__),
    }
