"""A run of training as one figure that is redrawn in place."""

import time
from collections.abc import Mapping, Sequence

import ipywidgets
from IPython import get_ipython
from IPython.display import display

from ragkit.widgets.figures import COLOURS, image, png

# What is drawn together, by title: names in a row of the log, and what they are called in the figure.
PANELS = {
    "loss": {"loss": "held out", "train_loss": "trained on"},
    "reward": {"held_out/reward": "held out", "reward": "sampled"},
    "accuracy": {"rewards/accuracies": "held out"},
    "margin": {"rewards/margins": "held out"},
    "KL to the reference, nats": {"held_out/kl": "held out", "kl": "sampled"},
    "log-prob of an answer": {"logps/chosen": "chosen", "logps/rejected": "rejected"},
    "length, tokens": {"held_out/length": "held out", "length": "sampled"},
    "share": {"clipped": "tokens clipped", "without_spread": "groups without spread"},
}
SIDES = ("chosen", "rejected")  # these have colours of their own
EVERY = 3.0  # seconds between two drawings, at least; looks at what is held out are all drawn


class _Live(ipywidgets.HTML):
    def __repr__(self) -> str:  # what a saved notebook would show in its place
        return ""


class LiveFigure:
    """`tune(…, on_log=LiveFigure())`, or `tune_online`: a figure below the cell that is redrawn meanwhile.

    Outside a notebook nothing is shown. `.log` is what the latest run logged; `.figure()` all of it as a
    matplotlib figure, and `.alt` the same in words, for those who can't see it. `.keep()` leaves that in its
    place, once the run is over: a saved notebook has no live figures.
    """

    def __init__(self):
        self.log: list[dict] = []
        self._shown: ipywidgets.HTML | None = None
        self._drawn = -EVERY

    def __call__(self, row: Mapping) -> None:
        if self.log and row["step"] <= self.log[-1]["step"]:
            self.__init__()  # another run
        self.log.append(dict(row))
        looked = {"loss", "held_out/reward"} & row.keys()
        soon = time.monotonic() - self._drawn < EVERY and not looked
        if soon or getattr(get_ipython(), "kernel", None) is None:
            return
        if self._shown is None:
            self._shown = _Live()
            display(self._shown)
        self._shown.value = image(self.figure(), self.alt)
        self._drawn = time.monotonic()

    def keep(self) -> None:
        """Show the figure as it is now, as any other; the live one goes."""
        if self._shown is not None:
            self._shown.close()
            self._shown = None
        figure = self.figure()  # pyplot does not know it, so the notebook might not draw it
        still = {"image/png": png(figure, dpi=100), "text/plain": repr(figure)}
        display(still, raw=True, metadata={"image/png": {"alt": self.alt}})

    def _panels(self) -> dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]]:
        """By panel and line: steps and values, of what the log has."""
        found = {}
        for title, names in PANELS.items():
            for name, label in names.items():
                points = [(row["step"], row[name]) for row in self.log if row.get(name) is not None]
                if points:
                    found.setdefault(title, {})[label] = tuple(zip(*points))
        return found

    def figure(self):
        """A new matplotlib figure of the log, which pyplot does not know."""
        from matplotlib.figure import Figure

        panels = self._panels()
        rows, columns = max(1, -(-len(panels) // 3)), min(3, len(panels))
        height = 2.3 * rows  # inches; a layout that fits itself draws all of it twice
        figure = Figure(figsize=(9, height), facecolor="white")
        figure.subplots_adjust(0.06, 0.5 / height, 0.98, 1 - 0.3 / height, wspace=0.25, hspace=0.55)
        for place, (title, lines) in enumerate(panels.items(), 1):
            axis = figure.add_subplot(rows, columns, place)
            for (label, (steps, values)), usual in zip(lines.items(), ("held out", "trained on")):
                axis.plot(steps, values, ".-", label=label, color=COLOURS[label if label in SIDES else usual])
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("step", fontsize=8)
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            if len(lines) > 1:
                axis.legend(fontsize=7, frameon=False)
        return figure

    @property
    def alt(self) -> str:
        """The first and the last value of each line."""
        if not self.log:
            return "Training: nothing logged yet."
        said = [
            f"{title} ({label}) from {values[0]:.3g} to {values[-1]:.3g}"
            for title, lines in self._panels().items()
            for label, (_, values) in lines.items()
        ]
        return f"Training, step {self.log[-1]['step']}: {'; '.join(said)}."
