"""A map of passages on which each dot tells its name: HTML and SVG alone, for saved notebooks, too."""

from collections.abc import Sequence

import numpy as np

from ragkit.widgets.figures import png
from ragkit.widgets.parts import escaped

WIDTH, HEIGHT, EDGE = 760, 470, 14  # of the drawing, in pixels
# By Okabe and Ito, and three more; where families are more than that, they begin again.
FAMILIES = "#0072b2 #d55e00 #009e73 #e69f00 #cc79a7 #56b4e9 #737373 #b3a30e #7b4b2a".split()
STYLE = """
.rk-map svg { background: #fff; max-width: 100%; height: auto; }
.rk-map text { font: 13px system-ui, sans-serif; fill: #1f1f1f; }
.rk-map .rk-soft { fill: #575757; font-size: 12px; }
.rk-map .rk-dot { cursor: pointer; outline: none; }
.rk-map .rk-dot > text { visibility: hidden; font-weight: 600; pointer-events: none; }
.rk-map .rk-dot > .rk-star { visibility: visible; font-size: 30px; pointer-events: auto; }
.rk-map .rk-dot:hover > text, .rk-map:not(:has(.rk-dot:hover)) .rk-dot:focus > text { visibility: visible; }
.rk-map .rk-dot:hover > circle, .rk-map .rk-dot:focus > circle { stroke: #000; stroke-width: 3; }
"""


class PassageMap:
    """Passages as dots and a question as a star. A dot pointed at, clicked or tabbed to says its name.

    `points`: (N, 2), and `titles`, `families`, N of each; `landing`: (2,), where `question` is; `nearest`:
    the passages' indices to be ringed, best first, which are also what Tab visits. Where no HTML can be
    shown, the output is a picture. Raises ValueError where points, titles and families are not as many.
    """

    def __init__(
        self,
        points: np.ndarray,
        titles: Sequence[str],
        families: Sequence[str],
        *,
        question: str,
        landing: np.ndarray,
        nearest: Sequence[int] = (),
    ):
        if not len(points) == len(titles) == len(families):
            raise ValueError(f"{len(points)} points, {len(titles)} titles and {len(families)} families")
        self.titles, self.families, self.question = list(titles), list(families), question
        self.nearest = [int(n) for n in nearest]
        both = np.vstack([points, landing]).astype(float)
        low, high = both.min(0), both.max(0)
        room = np.array([WIDTH, HEIGHT]) - 2 * EDGE
        self.places = EDGE + (both - low) / np.where(high > low, high - low, 1) * room  # (N + 1, 2)
        self.places[:, 1] = HEIGHT - self.places[:, 1]
        self.colours = dict(zip(sorted(set(families)), FAMILIES * (1 + len(families) // len(FAMILIES))))

    @property
    def alt(self) -> str:
        """The map in words."""
        ringed = "; ".join(self.titles[n] for n in self.nearest)
        families = ", ".join(self.colours)
        return (
            f"A map of {len(self.titles)} passages, in colours by family ({families}), with the question "
            f"“{self.question}” as a star. Nearest to it: {ringed}."
        )

    def __repr__(self) -> str:
        return f"<PassageMap of {len(self.titles)} passages: run this cell to point at them>"

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        data = {"text/html": self.html(), "image/png": png(self.figure()), "text/plain": repr(self)}
        return data, {"image/png": {"alt": self.alt}}

    def html(self) -> str:
        """The map as one SVG. What a dot says stands in one place, below: over dots it could not be read."""
        below = HEIGHT + 24
        dots = [self._dot(n) for n in range(len(self.titles)) if n not in self.nearest]
        dots += [self._dot(n) for n in self.nearest]  # over the others
        x, y = self.places[-1]
        star = (
            f'<g class="rk-dot" tabindex="0" role="img" aria-label="{escaped(self.question)}">'
            f'<text class="rk-star" x="{x:.0f}" y="{y + 9:.0f}" text-anchor="middle">★</text>'
            f'<text x="{EDGE}" y="{below}">★ {escaped(self.question)}</text></g>'
        )
        keys = [
            f'<circle cx="{WIDTH + 20}" cy="{20 + 22 * row}" r="5" fill="{colour}"/>'
            f'<text x="{WIDTH + 32}" y="{24 + 22 * row}">{escaped(family)}</text>'
            for row, (family, colour) in enumerate(self.colours.items())
        ]
        hints = (
            f"★ the question; rings: the {len(self.nearest)} nearest",
            "Point at a dot, click it or press Tab:",
        )
        hints = (*hints, "its title appears below the map.")
        under = 44 + 22 * len(self.colours)
        keys += [
            f'<text class="rk-soft" x="{WIDTH + 14}" y="{under + 20 * row}">{hint}</text>'
            for row, hint in enumerate(hints)
        ]
        return (
            f'<div class="rk-map"><style>{STYLE}</style>'
            f'<svg viewBox="0 0 {WIDTH + 240} {below + 12}" width="{WIDTH + 240}" role="group" '
            f'aria-label="{escaped(self.alt)}">{"".join(keys)}{"".join(dots)}{star}</svg></div>'
        )

    def _dot(self, n: int) -> str:
        x, y = self.places[n]
        title, family = escaped(self.titles[n]), escaped(self.families[n])
        ring = n in self.nearest
        said = f"{self.nearest.index(n) + 1}. {title}" if ring else title
        halo = f'<circle cx="{x:.0f}" cy="{y:.0f}" r="11" fill="none" stroke="#000" stroke-width="1.5"/>'
        return (
            f'<g class="rk-dot" tabindex="{0 if ring else -1}" role="img">'
            f"<title>{said} ({family})</title>{halo * ring}"
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="5" fill="{self.colours[self.families[n]]}"/>'
            f'<text x="{EDGE}" y="{HEIGHT + 24}">{said} ({family})</text></g>'
        )

    def figure(self):
        """The same as a matplotlib figure, which pyplot does not know; its dots say nothing."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 4.6), facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        places = self.places * [1, -1]
        for family, colour in self.colours.items():
            own = np.array([name == family for name in self.families] + [False])
            axes.scatter(*places[own].T, s=14, color=colour, label=family)
        ring = {"s": 130, "facecolor": "none", "edgecolor": "black"}
        axes.scatter(*places[self.nearest].T, **ring, label=f"the {len(self.nearest)} nearest")
        axes.scatter(*places[-1], marker="*", s=260, color="black", label="the question")
        axes.set_axis_off()
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
        return figure
