"""How costs grow, drawn from the table: `python -m tests.benchmarks` ends with it."""

import re

import numpy as np

from ragkit.widgets.figures import BLUE, GRAY, GREEN, ORANGE, PURPLE, RED
from tests.benchmarks.table import spoken

UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}
POINT = re.compile(r"([\d,]+)(?: tokens)?: ([\d.]+(?:e[+-]?\d+)?) (s|ms|µs)")
DRAWN = {  # what it grows with: (how a row's work begins, what the figure calls it)
    "passages": {
        "search alone,": "search alone",
        "question → hits, 5,000 passages: encode, search;": "encode, search",
        "question → hits, 5,000 passages: and BM25": "… and words",
        "question → hits, 5,000 passages: and a reranker": "… and reranked, each hit read",
        "question → hits, 5,000 passages: the same, of a library": "… reranked, sentences stored",
        "index a folder of Markdown": "index a folder",
    },
    "rankings": {
        "update after one more click, at 500": "one more click",
        "train a reranker on": "a fit, and other lists ranked",
    },
    "tokens of a prompt": {"a whole answer": "an answer of the reader"},
}


def points(text: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """{what it grows with: {name: [(size, seconds), …]}} of BENCHMARKS.md; what was not run is left out."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    found = {axis: {} for axis in DRAWN}
    for axis, wanted in DRAWN.items():
        for beginning, name in wanted.items():
            for cells in rows:
                said = POINT.findall(cells[-1]) if cells[0].startswith(beginning) else []
                if len(said) > 1 and name not in found[axis]:
                    found[axis][name] = [
                        (float(n.replace(",", "")), float(t) * UNITS[unit]) for n, t, unit in said
                    ]
    return found


def draw(text: str, path) -> None:
    """The figure, as SVG; the same text gives the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

    found = {axis: lines for axis, lines in points(text).items() if lines}
    style = {"svg.hashsalt": "ragkit", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(style):
        figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 3.2), squeeze=False)
        for ax, (axis, lines) in zip(axes[0], found.items()):
            looks = zip(lines.items(), (BLUE, ORANGE, GREEN, PURPLE, RED, GRAY), "os^DvP", strict=False)
            for (name, line), colour, marker in looks:
                sizes, seconds = np.array(line).T
                power = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
                ax.loglog(sizes, seconds, color=colour, marker=marker, label=f"{name}: n^{power:.2f}")
            sizes, seconds = np.array([point for line in lines.values() for point in line]).T
            ticks = 10.0 ** np.arange(np.ceil(np.log10(sizes.min())), np.log10(sizes.max()) + 0.01)
            ticks = ticks if len(ticks) > 1 else np.unique(sizes)
            ax.set_xticks(ticks, [f"{size:,.0f}" for size in ticks])
            ax.set(xlabel=axis, ylabel="time" if ax is axes[0][0] else None)
            ax.xaxis.set_minor_locator(NullLocator())
            narrow = seconds.max() < 5 * seconds.min()
            ax.yaxis.set_major_locator(
                FixedLocator(np.unique(seconds)) if narrow else LogLocator(subs=(1, 2, 5))
            )
            ax.yaxis.set_major_formatter(lambda taken, _: spoken(taken))
            ax.yaxis.set_minor_locator(NullLocator())
            ax.grid(alpha=0.3)
            ax.spines[["top", "right"]].set_visible(False)
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False)
        figure.set_facecolor("white")
        figure.subplots_adjust(wspace=0.35)
        figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
