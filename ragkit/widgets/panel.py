"""What the panels share: keys, buttons with names, a status line, and errors that are shown."""

import base64
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Sequence

import anywidget
import ipywidgets
import traitlets

from ragkit.preferences.judgements import Comparison, Feedback, Ranking, Skip
from ragkit.preferences.log import DEFAULT_ANNOTATOR
from ragkit.retrieval.corpus import DATA
from ragkit.retrieval.text import readable, shown
from ragkit.widgets.field import Field
from ragkit.widgets.parts import block, close, part, script

PICTURES = DATA.parent / "notebooks" / "figures"
# Seconds. A press this soon after a new item came was meant for the one before it; the same press this soon
# after itself is a double click, or a click that arrived twice (ipywidgets#3996).
SETTLE = 0.5


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
