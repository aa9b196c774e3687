"""A playground: say which of two documents is better, and see how far the loss moves their scores."""

from collections.abc import Mapping

import ipywidgets
import torch

from ragkit.losses.pairwise import grpo_loss, margin
from ragkit.retrieval.text import readable
from ragkit.widgets.drawn import DrawnPanel
from ragkit.widgets.figures import COLOURS
from ragkit.widgets.panel import handler, slot_keys
from ragkit.widgets.parts import block, part, row

# Titles and scores, as a retriever might find them for "How do I keep basil alive?"
DOCUMENTS = {
    "Basil in the kitchens of Rome": 1.3,
    "Water it from below": 0.9,
    "Six hours of light a day": 0.2,
    "Buy a new one each week": -0.4,
    "Growing basil from seed": -1.0,
}
LINE = 320  # pixels: a document's axis
RATE = 1.0  # of a step: so far a score moves for each unit of push
HINT = (
    "Drag a document above another one: it is better than that. Or click it: 1 to 9 name the place that it "
    "should have, Alt+↑ and Alt+↓ put it before or behind its neighbour."
)


class PreferencePlayground(DrawnPanel):
    """Documents in the order of their scores; each preference is one step of the loss on the two of them.

    `documents`: titles, two or more, and the scores they begin with, which are the reference. `.scores` are
    those of now, (n,), `.said` the preferences so far as (better, other, strength), documents by number from
    0. Slots count from 0, from the top.
    """

    def __init__(self, documents: Mapping[str, float] = DOCUMENTS, *, strength: float = 1.0):
        if len(documents) < 2:
            raise ValueError(f"{len(documents)} documents: a preference needs two")
        self.titles = list(documents)
        self.reference = torch.tensor(list(documents.values()), dtype=torch.float64)
        self.scores = self.before = self.reference
        self.said: list[tuple[int, int, float]] = []
        self.strength = ipywidgets.FloatSlider(
            strength, min=0.1, max=3.0, step=0.1, description="strength h", readout_format=".1f", tooltip=""
        )
        part(self.strength, "rk-strength").observe(self._stronger, "value")
        self._slots = [self._slot(slot) for slot in range(len(documents))]
        self._said = ipywidgets.HTML()
        below = row(
            self.button("One more step", "once", lambda: self.train(1)),
            self.button("20 more steps", "train", self.train),
            self.button("Start again", "again", self.again),
        )
        cards = [slot["card"] for slot in self._slots]
        hint = ipywidgets.HTML(block(HINT, "rk-hint"))
        parts = [hint, self.strength, *cards, self._said, below]
        super().__init__("A playground of preferences", *parts, fields=())
        self.describe("strength", role="group", aria_label="strength h of the next preference")
        self.on_keys = slot_keys(self)
        self.redraw()

    # Handlers

    @handler("NOT DONE")
    def place(self, slot: int, target: int) -> None:
        """The document in `slot` goes where that of slot `target` is: above it, or below where it comes from
        above. So one of the two is the better one."""
        self._place(slot, min(target, len(self.titles) - 1))

    @handler("NOT DONE")
    def move(self, slot: int, by: int) -> None:
        """The document in `slot` goes above its neighbour (by < 0), or below."""
        if slot + by in range(len(self.titles)):
            self._place(slot, slot + by)
        else:
            self.tell(f"{self._name(self.order()[slot])} is {'first' if by < 0 else 'last'} already.")

    @handler("NOT DONE")
    def train(self, steps: int = 20) -> None:
        """So many steps on all that was said."""
        if not self.said:
            self.tell("Nothing was said yet: put a document above another one first.")
            return
        self.before = self.scores
        for _ in range(steps):
            self.scores = self._step(self.said)
        many = "One step" if steps == 1 else f"{steps} steps"
        self.tell(f"{many} on all that was said ({len(self.said)}). In order: {self.spoken()}.")

    @handler("NOT DONE")
    def again(self) -> None:
        """Forget what was said: the scores are the reference's."""
        self.scores = self.before = self.reference
        self.said = []
        self.tell("")

    @handler("NOT DONE")
    def _stronger(self, change) -> None:
        self.tell(f"The next preference has the strength h = {change['new']:g}.")

    # The state

    def order(self) -> list[int]:
        """The documents by score, best first."""
        return self.scores.argsort(descending=True, stable=True).tolist()

    def spoken(self) -> str:
        return ", ".join(map(self._name, self.order()))

    def margins(self) -> torch.Tensor:
        """Δ of each preference, (P,): how far the better one was moved ahead of the other."""
        return self._margins(self.scores, self.said)

    def _margins(self, scores: torch.Tensor, said: list[tuple[int, int, float]]) -> torch.Tensor:
        # Scores are log-probabilities but for a constant, which cancels.
        better, other = ([pair[side] for pair in said] for side in (0, 1))
        return margin(scores[better], scores[other], self.reference[better], self.reference[other])

    def _step(self, said: list[tuple[int, int, float]]) -> torch.Tensor:
        """The scores after one step down the loss."""
        scores = self.scores.clone().requires_grad_()
        strengths = torch.tensor([h for *_, h in said], dtype=torch.float64)
        grpo_loss(self._margins(scores, said), strengths, reduction="none").sum().backward()
        return (scores - RATE * scores.grad).detach()

    def _place(self, slot: int, target: int) -> None:
        order, h = self.order(), round(self.strength.value, 6)
        for name, value in (("slot", slot), ("target", target)):
            if value not in range(len(order)):
                raise IndexError(f"{name}={value!r}: from 0 to {len(order) - 1}")
        if slot == target:
            return
        moved, there = order[slot], order[target]
        better, other = (moved, there) if target < slot else (there, moved)
        new = (better, other, h)
        self.before, self.scores = self.scores, self._step([new])
        self.said.append(new)
        way, delta = (self.scores - self.before)[better], self.margins()[-1]
        self.tell(
            f"{self._name(better)} over {self._name(other)}, h = {h:g}: each moved by {way:.2f}, so "
            f"Δ = {delta:.2f}. In order: {self.spoken()}."
        )
        self.follow(self.order().index(moved))

    def _name(self, document: int) -> str:
        return f"c{document + 1}"

    # Drawing

    def draw(self) -> None:
        order = self.order()
        for slot, (parts, document) in enumerate(zip(self._slots, order)):
            name, title = self._name(document), self.titles[document]
            now, then = self.scores[document].item(), self.reference[document].item()
            parts["title"].value = (
                '<span class="rk-handle" draggable="true" aria-hidden="true" title="Drag to say">⠿</span>'
                f'<span class="rk-place">{slot + 1}</span><span class="rk-name">{name}</span>'
                + block(title, "rk-title", "span")
            )
            parts["track"].value = self._track(document)
            label = f"Place {slot + 1}: {name}, {title}, score {now:+.2f}, began at {then:+.2f}"
            self.describe(f"slot-{slot + 1}", role="group", aria_label=label, tabindex="-1")
            for way, end in (("up", 0), ("down", len(order) - 1)):
                words = f"{name} belongs one {'higher' if way == 'up' else 'lower'}"
                self.describe(f"{way}-{slot + 1}", aria_label=words, aria_disabled=slot == end)
        said = [
            f"{self._name(better)} over {self._name(other)}: h = {h:g}, Δ = {delta:.2f}, "
            f"next push {h * torch.sigmoid(-h * delta):.2f}"
            for (better, other, h), delta in zip(self.said, self.margins())
        ]
        self._said.value = "".join(block(line, "rk-hint") for line in said)

    @property
    def alt(self) -> str:
        """The figure in words."""
        said = ", ".join(f"{self._name(a)} over {self._name(b)} (h = {h:g})" for a, b, h in self.said)
        scores = ", ".join(
            f"{self._name(d)} {self.titles[d]} {self.reference[d]:+.2f} → {self.scores[d]:+.2f}"
            for d in self.order()
        )
        return (
            f"Documents by score, each from the reference's to its own: {scores}. Said: {said or 'nothing'}."
        )

    def figure(self):
        from matplotlib.figure import Figure

        order, span = self.order(), self._span()
        figure = Figure(figsize=(7, 0.6 + 0.4 * len(order)), facecolor="white", layout="tight")
        axis = figure.add_subplot()
        for place, document in enumerate(order):
            then, now = self.reference[document].item(), self.scores[document].item()
            axis.plot([then, now], [place, place], color=COLOURS["policy"])
            first = place == 0
            axis.plot(then, place, "o", mfc="white", mec=COLOURS["reference"], label="reference" * first)
            axis.plot(now, place, "o", color=COLOURS["policy"], label="policy" * first)
        labels = [f"{self._name(document)}  {readable(self.titles[document])}" for document in order]
        axis.set_yticks(range(len(order)), [label.replace("$", r"\$") for label in labels])
        axis.set(xlim=(-span, span), xlabel="score", ylim=(len(order) - 0.5, -0.5))
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(left=False)
        axis.legend(frameon=False, fontsize=9, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.98))
        return figure

    def _span(self) -> float:
        """How far the axis goes, to either side."""
        return max(2.5, 1.15 * max(self.scores.abs().max().item(), self.reference.abs().max().item()))

    def _track(self, document: int) -> str:
        """The document's dot on its line: a ring where it began, a bar from where it was before."""
        width, span = LINE, self._span()
        then, before, now = (
            width / 2 * (1 + scores[document].item() / span)
            for scores in (self.reference, self.before, self.scores)
        )
        ring, dot = COLOURS["reference"], COLOURS["policy"]
        return (
            f'<svg viewBox="0 0 {width + 60} 20" width="{width + 60}" height="20" aria-hidden="true">'
            f'<line x1="0" x2="{width}" y1="10" y2="10" stroke="currentColor" stroke-opacity="0.3"/>'
            f'<line x1="{before:.1f}" x2="{now:.1f}" y1="10" y2="10" stroke="{dot}" stroke-width="4"/>'
            f'<circle cx="{then:.1f}" cy="10" r="5" fill="none" stroke="{ring}" stroke-width="2"/>'
            f'<circle cx="{now:.1f}" cy="10" r="6" fill="{dot}"/>'
            f'<text x="{width + 8}" y="14" fill="currentColor" font-size="12">'
            f"{self.scores[document].item():+.2f}</text></svg>"
        )

    def _slot(self, slot: int) -> dict:
        """The widgets of one slot; which document they show comes later."""
        size = f"{LINE + 64}px"  # all dots are on one axis
        title = ipywidgets.HTML()
        track = ipywidgets.HTML(layout=ipywidgets.Layout(flex="0 0 auto", width=size, min_width=size))
        up = self.button("↑", f"up-{slot + 1}", lambda: self.move(slot, -1), "rk-up")
        down = self.button("↓", f"down-{slot + 1}", lambda: self.move(slot, 1), "rk-down")
        head = row(title, track, row(up, down), classes="rk-head rk-line")
        card = part(ipywidgets.VBox([head]), "rk-card", f"rk-slot-{slot + 1}")
        return {"card": card, "title": title, "track": track}
