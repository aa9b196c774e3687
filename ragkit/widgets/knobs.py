"""The four knobs of `pair_loss` as sliders over its curve, with tasks that are checked as they are turned."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets
import torch

from ragkit.losses.pairwise import pair_loss
from ragkit.widgets.drawn import DrawnPanel
from ragkit.widgets.figures import COLOURS
from ragkit.widgets.panel import handler
from ragkit.widgets.parts import block, part, row

NEAR = 0.05  # how near a minimum must be to where a task wants it; the sliders' steps allow no less
MARGINS = torch.linspace(-6, 8, 281, dtype=torch.float64)


@dataclass(frozen=True)
class Knobs:
    """The settings of `pair_loss`: strength h, offset m, target p, weight w."""

    h: float = 1.0
    m: float = 0.0
    p: float = 0.8
    w: float = 1.0

    @property
    def minimum(self) -> float | None:
        """The margin Δ at which the loss is smallest, (m + logit p) / h; None where it falls without end."""
        return None if self.p == 1 else (self.m + math.log(self.p / (1 - self.p))) / self.h

    def loss(self, margins: torch.Tensor) -> torch.Tensor:
        """(B,)"""
        knobs = {"strength": self.h, "offset": self.m, "target": self.p, "weight": self.w}
        return pair_loss(margins, **knobs, reduction="none")

    def ends_at(self, margin: float) -> bool:
        return self.minimum is not None and abs(self.minimum - margin) < NEAR

    def __str__(self) -> str:
        return f"h = {self.h:g}, m = {self.m:g}, p = {self.p:g}, w = {self.w:g}"


@dataclass(frozen=True)
class Task:
    text: str
    solved: Callable[[Knobs], bool]


TASKS = (
    Task(
        "Make the minimum sit at Δ = 2 for a pair that is no tie (p above 0.5).",
        lambda knobs: knobs.p > 0.5 and knobs.ends_at(2),
    ),
    Task(
        "Leave it there, and let the pair count half as much.",
        lambda knobs: knobs.p > 0.5 and knobs.ends_at(2) and knobs.w == 0.5,
    ),
    Task(
        "Now a tie, p = 0.5, that should end at Δ = 2 all the same.",
        lambda knobs: knobs.p == 0.5 and knobs.ends_at(2),
    ),
)
RANGES = {  # knob: (lowest, highest, step, what it is called)
    "h": (0.1, 3.0, 0.1, "strength h"),
    "m": (-2.0, 2.0, 0.1, "offset m"),
    "p": (0.5, 1.0, 0.05, "target p"),
    "w": (0.1, 3.0, 0.1, "weight w"),
}


class LossKnobs(DrawnPanel):
    """Sliders for h, m, p and w, and the curve of the loss; how it was before a knob was taken stays in gray.

    `.now` and `.before` are the settings drawn, `.solved` the numbers of the tasks that were solved, from 0.
    `set(h=2.0)` turns knobs as the sliders do.
    """

    def __init__(self, tasks: tuple[Task, ...] = TASKS, **knobs: float):
        self.tasks, self.solved = tasks, set()
        self.start = self.now = Knobs(**knobs)
        self.before: Knobs | None = None
        self._taken: str | None = None  # the knob that was turned last
        self._silent = False
        self.sliders = {name: self._slider(name) for name in RANGES}
        self._list, self._picture = ipywidgets.HTML(), ipywidgets.HTML()
        again = self.button("Start again", "again", self.again)
        sliders = row(*self.sliders.values(), classes="rk-knobs")
        parts = [self._list, sliders, self._picture, row(again)]
        super().__init__("The four knobs of the loss", *parts, fields=())
        for name, (low, high, _, called) in RANGES.items():
            self.describe(f"knob-{name}", role="group", aria_label=f"{called}, from {low:g} to {high:g}")
        self._read()
        self.redraw()

    @handler("NOT DRAWN")
    def set(self, **knobs: float) -> None:
        """Turn these knobs, within the sliders' ranges, all at once."""
        if unknown := knobs.keys() - RANGES.keys():
            raise ValueError(f"{', '.join(sorted(unknown))}: the knobs are {', '.join(RANGES)}")
        self._turn(knobs)
        self._taken, self.before = None, self.now
        self._read()

    @handler("NOT DRAWN")
    def again(self) -> None:
        """Back to where the knobs began, with no ghost; what was solved stays solved."""
        self._turn({name: getattr(self.start, name) for name in RANGES})
        self._taken = self.before = None
        self._read()

    def _turn(self, knobs: dict[str, float]) -> None:
        """Move sliders without a look at the curves between."""
        self._silent = True
        for name, value in knobs.items():
            self.sliders[name].value = value
        self._silent = False

    @handler("NOT DRAWN")
    def _turned(self, name: str) -> None:
        if name != self._taken:  # a knob that is turned on keeps the ghost of before it was taken
            self._taken, self.before = name, self.now
        self._read()

    def _read(self) -> None:
        # Sliders count in steps: 0.30000000000000004.
        self.now = Knobs(**{name: round(slider.value, 6) for name, slider in self.sliders.items()})
        self.solved |= {number for number, task in enumerate(self.tasks) if task.solved(self.now)}
        self.tell(self.sentence())

    def draw(self) -> None:
        done = [f"{'✓' if n in self.solved else '○'} {task.text}" for n, task in enumerate(self.tasks)]
        self._list.value = "".join(block(line, "rk-task") for line in done)
        self._picture.value = self.image()

    def sentence(self) -> str:
        """Where the minimum is, and what is asked for next."""
        left = [number for number in range(len(self.tasks)) if number not in self.solved]
        if self.now.minimum is None:
            said = "At p = 1 there is no minimum: nobody ever says otherwise, so the loss falls for ever."
        else:
            said = f"The minimum sits at Δ = {self.now.minimum:.2f}."
        if not self.tasks:
            return said
        right = [n for n in self.solved if self.tasks[n].solved(self.now)]
        if right:
            said += f" That solves task {max(right) + 1}."
        if left:
            return f"{said} Next, task {left[0] + 1}: {self.tasks[left[0]].text}"
        return f"{said} All tasks are solved."

    @property
    def alt(self) -> str:
        """The figure in words."""
        before = f" In gray, as it was before: {self.before}." if self.before else ""
        where = self.now.minimum
        where = "it falls without end" if where is None else f"its minimum is at Δ = {where:.2f}"
        return f"The loss of a pair against its margin Δ, at {self.now}: {where}.{before}"

    def figure(self):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.2), facecolor="white", layout="tight")
        axis = figure.add_subplot()
        if self.before:
            line = {"color": COLOURS["before"], "linestyle": "--", "label": f"before: {self.before}"}
            axis.plot(MARGINS, self.before.loss(MARGINS), **line)
        axis.plot(MARGINS, self.now.loss(MARGINS), color=COLOURS["after"], label=f"now: {self.now}")
        if (best := self.now.minimum) is not None:
            axis.axvline(best, color=COLOURS["after"], linestyle=":", linewidth=1)
            lowest = self.now.loss(torch.tensor([best], dtype=torch.float64)).item()
            axis.plot(best, lowest, "o", color=COLOURS["after"])
        axis.set(xlabel="margin Δ", ylabel="loss", xlim=(-6, 8), ylim=(0, 3.4))
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(facecolor="white", edgecolor="none", framealpha=1, fontsize=9, loc="upper right")
        return figure

    def _slider(self, name: str) -> ipywidgets.FloatSlider:
        low, high, step, called = RANGES[name]
        looks = {"description": called, "readout_format": ".2f", "tooltip": ""}
        slider = ipywidgets.FloatSlider(getattr(self.now, name), min=low, max=high, step=step, **looks)
        slider.observe(lambda _: self._silent or self._turned(name), "value")
        return part(slider, f"rk-knob-{name}")
