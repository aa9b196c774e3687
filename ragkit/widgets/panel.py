"""What the panels share: escaped HTML, buttons with names, a status line, and errors that are shown."""

import base64
import contextlib
import functools
import html
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import anywidget
import ipywidgets
import traitlets

from ragkit.preferences.judgements import Comparison, Feedback, Ranking, Skip
from ragkit.preferences.log import DEFAULT_ANNOTATOR
from ragkit.retrieval.corpus import DATA
from ragkit.retrieval.text import readable, shown

PICTURES = DATA.parent / "notebooks" / "figures"
FOLD = 320  # characters: a longer document is folded
# Seconds. A press this soon after a new item came was meant for the one before it; the same press this soon
# after itself is a double click, or a click that arrived twice (ipywidgets#3996).
SETTLE = 0.5


def escaped(text: str) -> str:
    """Text as HTML that shows it and does nothing else."""
    return html.escape(shown(readable(text)))


def block(text: str, classes: str = "", tag: str = "div", **attributes: str) -> str:
    """One HTML element around escaped text."""
    more = "".join(f' {name.replace("_", "-")}="{escaped(value)}"' for name, value in attributes.items())
    return f'<{tag} class="{classes}" dir="auto"{more}>{escaped(text)}</{tag}>'


def question(text: str) -> str:
    return block(text, "rk-question", role="heading", aria_level="3")


def handler(failure: str):
    """Makes a panel's method one handler, for buttons, keys, notebooks and tests alike.

    What it raises is shown in the status line, after the word for the failure, and kept in `.error`; the
    panel stays as it was.
    """

    def decorate(method):
        @functools.wraps(method)
        def handle(self, *arguments, **settings):
            self.error, result = None, None
            try:
                result = method(self, *arguments, **settings)
            except (Exception, KeyboardInterrupt) as error:
                self.fail(failure, error)
            try:
                self.redraw()
            except Exception as error:
                self.fail("NOT SHOWN", error)
            return result

        return handle

    return decorate


def script(name: str) -> str:
    """The text of a file beside this one. anywidget 0.11 takes a path, too, but then keeps in memory every
    widget that was ever made of it, to tell it when the file changes."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def slot_keys(panel) -> dict:
    """What keys and a drop do to the document in a slot, 1-based, by the panel's `move` and `place`, which
    count from 0. Slot 0 is none: a key that was pressed elsewhere."""
    keys = {
        "up": lambda slot, _: slot and panel.move(slot - 1, -1),
        "down": lambda slot, _: slot and panel.move(slot - 1, 1),
        "drop": lambda slot, target: panel.place(slot - 1, target - 1),
    }
    for place in range(1, 10):
        keys[str(place)] = lambda slot, _, place=place: slot and panel.place(slot - 1, place - 1)
    return keys


class Guard(anywidget.AnyWidget):
    """What a panel needs from the browser: keys, names for screen readers, the look, a lost kernel noticed.

    It sits in a panel and watches over the nearest element around it of class `rk-panel`; without it the
    panel works, but for these. `aria`: attributes by class name of the panel's parts. It sends {"key",
    "slot"} for a hot key, {"key": "click"} before a button's click and {"key": "typed", "field", "text"} for
    each change of a field's line. It takes {"follow": slot}, which moves the focus to that slot; any message
    tells it that the kernel is there, and {} nothing else.
    """

    _esm, _css = script("panel.js"), script("panel.css")
    aria = traitlets.Dict().tag(sync=True)


class Field:
    """A line of text that belongs to one item: `fresh` puts a new line there for the next one.

    `.box` is what a panel shows, `.text` the latest that was typed, `.line` the widget in which it is typed;
    `keep`, if given, is called with the text whenever it changes.
    ipywidgets holds back what is typed while the kernel is busy, but no click. So the guard tells what is
    typed at once, and what comes late from an old line is for no item any more.
    """

    _serials = itertools.count(1)  # of lines; no two in a kernel have the same

    def __init__(self, description: str, *classes: str, keep: Callable[[str], None] | None = None):
        self.keep = keep
        self.box = part(ipywidgets.HBox(), "rk-field")
        self._description, self._classes, self._shared = description, classes, {}
        self._old: ipywidgets.Text | None = None
        self.line: ipywidgets.Text | None = None
        self.fresh()

    def fresh(self, text: str = "") -> None:
        """Put a new line there, with this text in it."""
        if self._old is not None:
            self._old.close()  # not sooner: a message from it may be under way, and need someone to take it
        if self.line is not None:
            self.line.unobserve(self._changed, "value")
        self._old, self.serial, self.text = self.line, next(self._serials), text
        # Without a tooltip the browser would show "null".
        line = ipywidgets.Text(readable(text), description=self._description, tooltip="", **self._shared)
        self._shared = {"layout": line.layout, "style": line.style}  # these would stay when a line is closed
        line.observe(self._changed, "value")
        self.line = part(line, *self._classes, f"rk-field-{self.serial}")
        self.box.children = [line]

    def close(self) -> None:
        """Take it off the page for good."""
        for line in (self._old, self.line):
            if line is not None:
                line.unobserve_all("value")
                close(line)
        close(self.box)

    def typed(self, serial: int, text: str) -> None:
        """Take what the guard says was typed in the line of this number."""
        if serial == self.serial:
            self.text = text
            if self.keep is not None:
                self.keep(text)

    def _changed(self, change) -> None:
        self.typed(self.serial, change["new"])


class Panel:
    """A box of widgets with a guard and a status line. Show it as a notebook cell's last line.

    `.status` is what the status line says, `.error` what the last handler failed with, or None. `on_keys`
    maps a key of the guard to a function of the slot (None where the focus is in no slot) and its target.
    `fields` are those among the parts in which a person types. `on_draw`, if set, is called whenever the
    panel was drawn. `PICTURE`: a file in PICTURES, and what it shows in words.
    """

    PICTURE = ("", "")

    def __init__(self, name: str, *parts: ipywidgets.Widget, fields: Sequence[Field]):
        self.error: BaseException | None = None
        self.status = ""
        self.on_keys: dict = {}
        self.on_draw: Callable[[], None] | None = None
        self.fields = list(fields)
        self._changed_at = 0.0  # when a new item came
        self._pressed, self._pressed_at = None, 0.0  # what was pressed last, and when that was done
        self._lock = threading.Lock()  # JupyterLab handles a key and a click at once, in two threads
        self._line = part(ipywidgets.HTML(), "rk-status")
        self._guard = part(Guard(), "rk-guard")
        self._guard.on_msg(self._key)
        self.box = part(ipywidgets.VBox(), "rk-panel")
        self.put(*parts)
        self._aria: dict[str, dict[str, str]] = {}
        # Whatever is clicked takes the focus, or else the next key would be JupyterLab's.
        self.describe("panel", role="region", aria_label=name, tabindex="-1")
        self.describe("status", role="status")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: run this cell to use it>"

    def picture(self) -> tuple[str, str]:
        """Of such a panel, for who has no kernel: a PNG in base64, "" where there is none, and the same in
        words."""
        file, words = self.PICTURE
        there = bool(file) and (PICTURES / file).is_file()
        return base64.b64encode((PICTURES / file).read_bytes()).decode() if there else "", words

    def _repr_mimebundle_(self, **settings) -> tuple[dict, dict]:
        # A front end shows the first type that it can: a widget before a picture, where a kernel is.
        data = self.box._repr_mimebundle_(**settings) | {"text/plain": repr(self)}
        png, words = self.picture()
        if not png:
            return data, {}
        return data | {"image/png": png}, {"image/png": {"alt": words}}

    def put(self, *parts: ipywidgets.Widget) -> None:
        """Make these the panel's parts, above the status line."""
        self.box.children = (self._guard, *parts, self._line)

    def draw(self) -> None:
        """Show what the state says."""
        raise NotImplementedError

    def redraw(self) -> None:
        self.draw()
        self._guard.aria = {name: dict(attributes) for name, attributes in self._aria.items()}
        if self.on_draw is not None:
            self.on_draw()

    def close(self) -> None:
        """Take the panel off the page for good, with all of its parts."""
        for field in self.fields:
            field.close()
        close(self.box)

    def tell(self, text: str, *, failed: bool = False) -> None:
        self.status = text
        self._line.value = block(text, "rk-failed" if failed else "")

    def step(self, text: str) -> None:
        """Say what is being done. It is seen where that takes longer than half a second: the style waits."""
        self.status = text
        self._line.value = block(text, "rk-step")

    def fail(self, what: str, error: BaseException) -> None:
        self.error = error
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        self.tell(reason if reason.startswith(what) else f"{what}: {reason}", failed=True)

    def safely(self, what: str, action: Callable):
        """What `action()` returns; where it fails, that is shown, and the rest goes on: then None."""
        try:
            return action()
        except (OSError, ValueError) as error:
            self.fail(what, error)
            return None

    def describe(self, name: str, **attributes: str | bool) -> None:
        """Attributes for screen readers: `"save", aria_disabled=True` for the part of class rk-save."""
        told = self._aria.setdefault(f"rk-{name}", {})
        for key, value in attributes.items():
            value = str(value).lower() if isinstance(value, bool) else shown(readable(value))
            told[key.replace("_", "-")] = value

    def forget(self, ending: str) -> None:
        """No more attributes for parts whose names end so: they are off the page."""
        self._aria = {name: told for name, told in self._aria.items() if not name.endswith(ending)}

    def mark(self, name: str, button: ipywidgets.Button, chosen: bool) -> None:
        """A tick on a button that says what is chosen, or none."""
        button.description = "✓ " * chosen + button.description.removeprefix("✓ ")
        self.describe(name, aria_pressed=chosen)

    def follow(self, slot: int) -> None:
        """The focus goes where the document went; slots from 0, in class names from 1."""
        self._guard.send({"follow": slot + 1})

    def check_name(self, log) -> None:
        """Say so where judgements under the name that nobody chose are there already, perhaps another's."""
        there = 0
        if log.annotator == DEFAULT_ANNOTATOR:
            with contextlib.suppress(OSError, ValueError):  # whoever reads the log next shows that
                there = len(log.judgements(Ranking, Comparison, Feedback, Skip, annotator=log.annotator))
        if there:
            note = (
                f"You judge as “{log.annotator}”, the name used where none is given. This log has judgements "
                f"by that name already ({there}). If they are not yours, give a name of your own first: "
                'PreferenceLog(folder, "your name").'
            )
            self.box.children = (ipywidgets.HTML(block(note, "rk-hint")), *self.box.children)

    def button(self, text: str, name: str, action, *classes: str) -> ipywidgets.Button:
        """A button that calls `action()`, of the class rk-name; once for two clicks at once."""
        made = part(ipywidgets.Button(description=text), f"rk-{name}", *classes)
        made.on_click(lambda _: self._press((name,), action))
        return made

    def settled(self, action):
        """`action`, but not right after a new item came."""

        def press():
            if time.monotonic() - self._changed_at < SETTLE:
                self.tell("This is another item already: look at it, and press again.")
            else:
                action()

        return press

    def settle(self) -> None:
        """A new item is shown from now on."""
        self._changed_at = time.monotonic()

    def _press(self, what: tuple, action, *arguments) -> None:
        with self._lock:
            if what != self._pressed or time.monotonic() - self._pressed_at >= SETTLE:
                action(*arguments)
                self._pressed, self._pressed_at = what, time.monotonic()

    def _key(self, _, message: dict, __) -> None:
        key = message.get("key")
        if key == "typed":
            self._pressed = None  # what is pressed next is about another text
            for field in self.fields:
                field.typed(message.get("field"), message.get("text"))
            return
        self._guard.send({})
        if key in self.on_keys:
            where = message.get("slot"), message.get("target")
            self._press((key, *where), self.on_keys[key], *where)


def part(widget: ipywidgets.DOMWidget, *classes: str):
    for name in classes:
        widget.add_class(name)
    return widget


def close(widget: ipywidgets.Widget) -> None:
    """Close a widget with all that is in it, which ipywidgets leaves open, and with it in memory."""
    for child in getattr(widget, "children", ()):
        close(child)
    for name in ("layout", "style"):
        if hasattr(widget, name):
            getattr(widget, name).close()
    widget.close()


def row(*children, classes: str = "rk-buttons") -> ipywidgets.HBox:
    return part(ipywidgets.HBox(children), *classes.split())


def show(widget: ipywidgets.DOMWidget, visible: bool) -> None:
    widget.layout.display = None if visible else "none"
