"""The conversation on the screen: a card for each of the latest turns, and a line for each older one."""

from collections.abc import Sequence

import anywidget
import ipywidgets

from ragkit.widgets.history import Entry, Opinions, Said
from ragkit.widgets.panel import Panel
from ragkit.widgets.parts import block, escaped, part, row, script, set_visible
from ragkit.widgets.turn import TurnCard

LIVE, OPENED = 5, 3  # turns that have a card: the latest, and older ones that were opened
LISTED = 200  # older turns that can be opened


class Scroll(anywidget.AnyWidget):
    """What the conversation needs from the browser beside a panel's guard: a citation shows its sentence, and
    {"show": class name} brings that part into view."""

    _esm, _css = script("chat.js"), script("chat.css")


class Thread:
    """The turns of a chat as a box of widgets, of which there are never many: older cards are closed.

    `chat` has the handlers that the buttons call: `good`, `undo`, `rank`, `another`, `fold`, `again`.
    `greeting`: HTML, shown as long as nothing was asked. `pending`: what is being answered, or could not be.
    """

    def __init__(self, chat: Panel, greeting: str):
        self.entries: list[Entry] = []
        self.pending: TurnCard | None = None
        self.unfolded = False  # whether the older turns are listed
        self._chat, self._cards = chat, {}
        self._opened: list[int] = []  # older turns that have a card
        self._lesson_at: int | None = None  # before which turn the lesson stands
        self._greeting = part(ipywidgets.HTML(greeting), "rk-welcome")
        self._fold = chat.button("", "fold", chat.fold)
        self._older = ipywidgets.HTML()
        self._lesson = ipywidgets.HTML()
        self._again = row(chat.button("Ask this again", "again", chat.again))
        self._learned = part(ipywidgets.VBox([self._lesson, self._again]), "rk-turn", "rk-lesson")
        self._scroll = part(Scroll(), "rk-guard")
        self._log = part(ipywidgets.VBox(), "rk-log")
        self.box = ipywidgets.VBox([self._log, self._scroll])
        # What scrolls takes the focus, so that it can be read by the keyboard, too.
        chat.describe("log", role="log", aria_label="Conversation", aria_live="polite", tabindex="0")

    # What it shows

    def entry(self, at: int | None = None) -> Entry:
        """A turn by its number, the last by default. Raises ValueError where nothing was asked."""
        if not self.entries:
            raise ValueError("ask a question first")
        if at is None:
            return self.entries[-1]
        if at not in range(len(self.entries)):
            raise IndexError(f"at={at!r}: turns count from 0 to {len(self.entries) - 1}")
        return self.entries[at]

    def card(self, at: int | None = None) -> TurnCard:
        """The card of a turn, made where there is none; an older turn then has one for a while."""
        entry, size = self.entry(at), len(self.entries)
        at = size - 1 if at is None else at
        if at < size - LIVE and at not in self._opened:
            self._opened = [*self._opened, at][-OPENED:]
        if at not in self._cards:
            self._cards[at] = TurnCard(self._chat, at, entry.turn.query, entry.note)
        return self._cards[at]

    def begin(self, query: str) -> TurnCard:
        """A card for a question that is not answered yet, in the place of one that could not be."""
        if self.pending is not None:
            self.pending.close()
        self.pending = TurnCard(self._chat, len(self.entries), query)
        self.show(f"rk-turn-{len(self.entries) + 1}")
        return self.pending

    def take(self, entry: Entry) -> None:
        """The pending question was answered."""
        self._cards[len(self.entries)], self.pending = self.pending, None
        self.entries.append(entry)
        self.show(f"rk-turn-{len(self.entries)}")

    def open(self, at: int) -> None:
        """Give an older turn a card, and show it."""
        self.card(at)
        self.show(f"rk-turn-{at + 1}")

    def teach(self, html: str, *, again: bool) -> None:
        """Show what was learned, below the last turn. `again`: whether that question can be asked again."""
        self._lesson.value, self._lesson_at = html, len(self.entries)
        set_visible(self._again, again)
        self.show("rk-lesson")

    def show(self, name: str) -> None:
        """Bring the part of this class into view, as soon as it is there."""
        self._scroll.send({"show": name})

    @property
    def notes(self) -> list:
        """The fields of the cards that are shown."""
        return [card.note for card in list(self._cards.values())]

    # Drawing

    def draw(self, opinions: Opinions | None) -> None:
        """`opinions`: what the log says, None where it can't be read."""
        size = len(self.entries)
        shown = sorted({*self._opened, *range(max(0, size - LIVE), size)})
        for at in [at for at in self._cards if at not in shown]:
            card = self._cards.pop(at)
            self.entries[at].note = card.note.text
            card.close()
        for at in shown:
            self.card(at).draw(self.entries[at], self._said(opinions, at))
        older = [at for at in range(size) if at not in shown]
        self._fold.description = f"Earlier: {len(older)} question{'' if len(older) == 1 else 's'}"
        self._older.value = self._lines(older, opinions) if self.unfolded else ""
        self._chat.describe("fold", aria_expanded=self.unfolded)
        for widget, visible in (
            (self._fold, older),
            (self._older, older and self.unfolded),
            (self._greeting, not (self.entries or self.pending)),
        ):
            set_visible(widget, bool(visible))
        boxes = [(at, self._cards[at].box) for at in shown]
        if self._lesson_at is not None:
            boxes.append((self._lesson_at - 0.5, self._learned))
        boxes = [box for _, box in sorted(boxes, key=lambda pair: pair[0])]
        boxes += [self.pending.box] if self.pending else []
        children = (self._greeting, self._fold, self._older, *boxes)
        if self._log.children != children:
            self._log.children = children

    def _said(self, opinions: Opinions | None, at: int) -> Said:
        return Said() if opinions is None else opinions.of(self.entries[at])

    def _lines(self, older: Sequence[int], opinions: Opinions | None) -> str:
        left_out = len(older) - LISTED
        lines = [block(f"… and {left_out:,} before these, in the log", "rk-hint")] if left_out > 0 else []
        for at in older[-LISTED:]:
            said = self._said(opinions, at)
            marks = [] if said.feedback is None else ["good" if said.feedback.good else "bad"]
            marks += ["ranked"] * (said.ranking is not None) + ["compared"] * bool(said.comparisons)
            told = block(" · ".join(marks), "rk-hint", "span") if marks else ""
            lines.append(f"<div>{press(self.entries[at].turn.query, 'open', at)} {told}</div>")
        return "".join(lines)


def press(text: str, key: str, slot: int) -> str:
    """A button as HTML: the panel's guard sends its key and its slot."""
    return f'<button class="rk-press rk-slot-{slot}" data-key="{key}">{escaped(text)}</button>'
