"""A map of passages on which each dot tells its name: HTML and SVG alone, for saved notebooks, too."""

import textwrap
from collections.abc import Sequence

import numpy as np

from ragkit.widgets.figures import png
from ragkit.widgets.parts import escaped

WIDTH, HEIGHT, EDGE = 760, 470, 14  # of the drawing, in pixels
LINE = 54  # characters of a title in one line below the map, and two lines are all there is
# By Okabe and Ito, and three more; where families are more than that, they begin again.
FAMILIES = "#0072b2 #d55e00 #009e73 #e69f00 #cc79a7 #56b4e9 #737373 #b3a30e #7b4b2a".split()
# In a narrow window the drawing shrinks with its text: its letters are larger there, and the key is HTML.
STYLE = """
.rk-map {
  container-type: inline-size; padding: 8px;
  background: #fff; color: #1f1f1f; font: 13px system-ui, sans-serif;
}
.rk-map-parts { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: flex-start; }
.rk-map-parts > svg { flex: 1 1 480px; min-width: 0; max-width: 760px; height: auto; }
.rk-map-key { flex: 1 1 200px; }
.rk-map .rk-map-key ul {
  display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 0 0 8px; padding: 0; list-style: none;
}
.rk-map text { font: 13px system-ui, sans-serif; fill: #1f1f1f; }
.rk-map .rk-dot { cursor: pointer; outline: none; }
.rk-map .rk-dot > text { visibility: hidden; font-weight: 600; pointer-events: none; }
.rk-map .rk-dot > .rk-star { visibility: visible; font-size: 30px; pointer-events: auto; }
.rk-map .rk-dot:hover > text, .rk-map:not(:has(.rk-dot:hover)) .rk-dot:focus > text { visibility: visible; }
.rk-map .rk-dot:hover > circle, .rk-map .rk-dot:focus > circle { stroke: #000; stroke-width: 3; }
@container (max-width: 960px) { .rk-map text { font-size: 17px; } }
@container (max-width: 480px) { .rk-map text { font-size: 22px; } }
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
        """The map as an SVG. What a dot says stands in one place, below: over dots it could not be read."""
        dots = [self._dot(n) for n in range(len(self.titles)) if n not in self.nearest]
        dots += [self._dot(n) for n in self.nearest]  # over the others
        x, y = self.places[-1]
        star = (
            f'<g class="rk-dot" tabindex="0" role="img" aria-label="{escaped(self.question)}">'
            f'<text class="rk-star" x="{x:.0f}" y="{y + 9:.0f}" text-anchor="middle">★</text>'
            f"{_below(f'★ {self.question}')}</g>"
        )
        keys = [
            f'<li><span style="color:{colour}" aria-hidden="true">●</span> {escaped(family)}</li>'
            for family, colour in self.colours.items()
        ]
        hint = (
            f"★ the question; rings: the {len(self.nearest)} nearest. Point at a dot, click it or press Tab: "
            "its title appears below the map."
        )
        return (
            f'<div class="rk-map"><style>{STYLE}</style><div class="rk-map-parts">'
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 62}" width="{WIDTH}" role="group" '
            f'aria-label="{escaped(self.alt)}">{"".join(dots)}{star}</svg>'
            f'<div class="rk-map-key"><ul>{"".join(keys)}</ul>{hint}</div></div></div>'
        )

    def _dot(self, n: int) -> str:
        x, y = self.places[n]
        ring = n in self.nearest
        place = f"{self.nearest.index(n) + 1}. " if ring else ""
        said = f"{place}{self.titles[n]} ({self.families[n]})"
        halo = f'<circle cx="{x:.0f}" cy="{y:.0f}" r="11" fill="none" stroke="#000" stroke-width="1.5"/>'
        return (
            f'<g class="rk-dot" tabindex="{0 if ring else -1}" role="img">'
            f"<title>{escaped(said)}</title>{halo * ring}"
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="5" fill="{self.colours[self.families[n]]}"/>'
            f"{_below(said)}</g>"
        )

    def figure(self):
        """The same as a matplotlib figure, which pyplot does not know; its dots say nothing."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 5.6), facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        places = self.places * [1, -1]
        for family, colour in self.colours.items():
            own = np.array([name == family for name in self.families] + [False])
            axes.scatter(*places[own].T, s=14, color=colour, label=family)
        ring = {"s": 130, "facecolor": "none", "edgecolor": "black"}
        axes.scatter(*places[self.nearest].T, **ring, label=f"the {len(self.nearest)} nearest")
        axes.scatter(*places[-1], marker="*", s=260, color="black", label="the question")
        axes.set_axis_off()
        figure.legend(loc="outside lower center", frameon=False, ncols=3)
        return figure


def _below(text: str) -> str:
    """What a dot says, below the map, in two lines at most; its <title> has all of it."""
    lines = textwrap.wrap(text, LINE, max_lines=2, placeholder=" …")
    first, *second = map(escaped, lines)
    more = f' <tspan x="{EDGE}" dy="1.25em">{second[0]}</tspan>' if second else ""
    return f'<text x="{EDGE}" y="{HEIGHT + 24}">{first}{more}</text>'
