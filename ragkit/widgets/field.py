"""A line of text that a person types, of which nothing is lost while the kernel is busy."""

import itertools
from collections.abc import Callable

import ipywidgets

from ragkit.retrieval.text import readable
from ragkit.widgets.parts import close, part


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
