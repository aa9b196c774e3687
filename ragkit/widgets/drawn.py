"""A panel that draws: where no kernel runs, its output is a picture, with what it shows in words."""

from ragkit.widgets.figures import image, png
from ragkit.widgets.panel import Panel


class DrawnPanel(Panel):
    """A panel with a `figure()` of its state, which pyplot does not know, and an `alt`: the same in words."""

    alt = ""

    def __repr__(self) -> str:
        return self.alt

    def figure(self):
        raise NotImplementedError

    def image(self) -> str:
        """The figure as HTML."""
        return image(self.figure(), self.alt)

    def picture(self) -> tuple[str, str]:
        return png(self.figure()), self.alt
