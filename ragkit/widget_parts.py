"""What the panels share: escaped HTML, buttons with names, a status line, and errors that are shown."""

import functools
import html
import time

import ipywidgets

from ragkit.widget_guard import Guard

FOLD = 320  # characters: a longer document is folded
# A click this soon after a new item came, in seconds, was meant for the one before it: a double click.
SETTLE = 0.5


def plain(text: str) -> str:
    """Text that a message to the browser can hold: halves of characters become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def escaped(text: str) -> str:
    """Text as HTML that shows it and does nothing else."""
    return html.escape(plain(text))


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


class Panel:
    """A box of widgets with a guard and a status line. Show it as a notebook cell's last line.

    `.status` is what the status line says, `.error` what the last handler failed with, or None. `on_keys`
    maps a key of the guard to a function of the slot (None where the focus is in no slot) and its target.
    """

    def __init__(self, name: str, *parts: ipywidgets.Widget):
        self.error: BaseException | None = None
        self.status = ""
        self.on_keys: dict = {}
        self._changed_at = 0.0
        self._line = part(ipywidgets.HTML(), "rk-status")
        self._guard = part(Guard(), "rk-guard")
        self._guard.on_msg(self._key)
        self.box = part(ipywidgets.VBox([self._guard, *parts, self._line]), "rk-panel")
        self._aria: dict[str, dict[str, str]] = {}
        self.describe(panel={"role": "region", "aria-label": name}, status={"role": "status"})

    def _repr_mimebundle_(self, **settings):
        return self.box._repr_mimebundle_(**settings)

    def draw(self) -> None:
        """Show what the state says."""
        raise NotImplementedError

    def redraw(self) -> None:
        self.draw()
        self._guard.aria = {name: dict(attributes) for name, attributes in self._aria.items()}

    def tell(self, text: str, *, failed: bool = False) -> None:
        self.status = text
        self._line.value = block(text, "rk-failed" if failed else "")

    def fail(self, what: str, error: BaseException) -> None:
        self.error = error
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        self.tell(reason if reason.startswith(what) else f"{what}: {reason}", failed=True)

    def describe(self, **parts: dict[str, str]) -> None:
        """ARIA attributes by part: `save={"aria-disabled": "true"}` for the part of class rk-save."""
        for name, attributes in parts.items():
            name = f"rk-{name.replace('_', '-')}"
            told = {key: plain(value) for key, value in attributes.items()}
            self._aria[name] = self._aria.get(name, {}) | told

    def follow(self, slot: int) -> None:
        """The focus goes where the document went; slots from 0, in class names from 1."""
        self._guard.send({"follow": slot + 1})

    def button(self, text: str, name: str, action, *classes: str) -> ipywidgets.Button:
        """A button that calls `action()`, of the class rk-name."""
        made = part(ipywidgets.Button(description=text), f"rk-{name}", *classes)
        made.on_click(lambda _: action())
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

    def _key(self, _, message: dict, __) -> None:
        action = self.on_keys.get(message.get("key"))
        if action is not None:
            action(message.get("slot"), message.get("target"))


def part(widget: ipywidgets.DOMWidget, *classes: str):
    for name in classes:
        widget.add_class(name)
    return widget


def row(*children, classes: str = "rk-buttons") -> ipywidgets.HBox:
    return part(ipywidgets.HBox(children), *classes.split())


def show(widget: ipywidgets.DOMWidget, visible: bool) -> None:
    widget.layout.display = None if visible else "none"


def flag(value: bool) -> str:
    return "true" if value else "false"
