"""What panels are put together from: text as HTML that does nothing else, and widgets with classes."""

import html
from pathlib import Path

import ipywidgets

from ragkit.retrieval.text import readable, shown


def escaped(text: str) -> str:
    """Text as HTML that shows it and does nothing else."""
    return html.escape(shown(readable(text)))


def block(text: str, classes: str = "", tag: str = "div", **attributes: str) -> str:
    """One HTML element around escaped text."""
    more = "".join(f' {name.replace("_", "-")}="{escaped(value)}"' for name, value in attributes.items())
    return f'<{tag} class="{classes}" dir="auto"{more}>{escaped(text)}</{tag}>'


def question(text: str) -> str:
    """A question as HTML: a heading."""
    return block(text, "rk-question", role="heading", aria_level="3")


def script(name: str) -> str:
    """The text of a file beside this one. anywidget 0.11 takes a path, too, but then keeps in memory every
    widget that was ever made of it, to tell it when the file changes."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def part(widget: ipywidgets.DOMWidget, *classes: str):
    """The widget, of these CSS classes."""
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
    """Widgets beside each other, of CSS classes parted by spaces."""
    return part(ipywidgets.HBox(children), *classes.split())


def set_visible(widget: ipywidgets.DOMWidget, visible: bool) -> None:
    widget.layout.display = None if visible else "none"
