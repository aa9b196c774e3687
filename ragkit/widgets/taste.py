"""What a person's rankings taught so far: how sure that is, their taste in words, their questions before and
after."""

import textwrap
from collections.abc import Sequence

import ipywidgets
import numpy as np

from ragkit.preferences.judgements import Ranking
from ragkit.preferences.log import PreferenceLog
from ragkit.reranking.reranker import MIN_QUERIES, Reranker
from ragkit.reranking.taste import TASTE, taste
from ragkit.retrieval.corpus import Hit
from ragkit.widgets.drawn import DrawnPanel
from ragkit.widgets.figures import COLOURS
from ragkit.widgets.panel import handler

SHOWN = 5  # documents of a question, before and after
WIDE = 46  # characters of a title


class TasteView(DrawnPanel):
    """Twelve bars of what is preferred, and `questions` before and after: `RankDocuments(…, on_save=view)`.

    `rankings`: a log, of which this annotator's count, read again at each call; or a list of rankings.
    A reranker of features alone learns from them, since each of its weights has a name. `.report` is what its
    fit said, `.taste` the bars (`ragkit.reranking.taste`), `.lists` (question, hits before, hits after).
    """

    def __init__(self, assistant, rankings: PreferenceLog | Sequence[Ranking], questions: Sequence[str] = ()):
        self.assistant, self.rankings = assistant, rankings
        self.reranker = Reranker(assistant.encoder, "features")
        self.report = None
        self.taste = self.before = taste(self.reranker)
        self.lists = [(query, hits, hits) for query in questions for hits in [assistant.find(query, SHOWN)]]
        self._image = ipywidgets.HTML()
        super().__init__("What your rankings taught", self._image, fields=[])
        self()

    @handler("NOT LEARNED")
    def __call__(self) -> None:
        """Learn from the rankings as they are now, and draw."""
        rankings = self.rankings
        if isinstance(rankings, PreferenceLog):
            rankings = [r for r in rankings.rankings() if r.annotator == self.rankings.annotator]
        self.step("Learning from your rankings …")
        reranker = Reranker(self.assistant.encoder, "features")
        self.report = reranker.fit(list(rankings), progress=False)
        self.reranker, self.before, self.taste = reranker, self.taste, taste(reranker)
        self.lists = [(query, hits, reranker.rerank(query, hits)) for query, hits, _ in self.lists]
        self.tell("")

    # In words

    @property
    def verdict(self) -> str:
        """How much was learned, and how sure that is."""
        report = self.report
        if report is None or report.queries < MIN_QUERIES:
            done = report.queries if report else 0
            return f"{done} of the {MIN_QUERIES} questions ranked that it takes to learn something."
        if report.kept_base:
            return f"{report.rankings} rankings. {report.reason}"
        said = f"{report.rankings} rankings; {report.share:.0%} of what they seem to say is believed."
        return f"{said} {report.verdict}"

    @property
    def sure(self) -> dict[str, str]:
        """By words of the taste, "more" or "less": those of which the interval leaves one half out."""
        return {
            words: "more" if found.low > 0.5 else "less"
            for words, found in self.taste.items()
            if found.low > 0.5 or found.high < 0.5
        }

    @property
    def alt(self) -> str:
        wants = "; ".join(f"{way} of “{words}”" for words, way in self.sure.items()) or "nothing yet"
        moved = "; ".join(
            f"“{query}” now begins with {_title(after[0])}"
            for query, before, after in self.lists
            if after and after[0].passage.id != before[0].passage.id
        )
        first = f"Another document comes first: {moved}." if moved else "No other document comes first."
        return f"{self.verdict} Surely wanted: {wants}. {first if self.lists else ''}".strip()

    # Drawing

    def draw(self) -> None:
        self._image.value = self.image()

    def figure(self):
        from matplotlib.figure import Figure

        parts = [0.26 * len(TASTE), *(0.24 * len(before) for _, before, _ in self.lists)]  # inches
        above, below = 0.62, 0.75  # of each part, for its title; of the bars, for their axis
        left = total = sum(parts) + above * len(parts) + below
        figure = Figure(figsize=(9, total), facecolor="white")
        for n, height in enumerate(parts):
            left -= above + height
            box = (
                (0.22, left / total, 0.74, height / total) if not n else (0, left / total, 1, height / total)
            )
            axes = figure.add_axes(box)
            if n:
                _draw_lists(axes, *self.lists[n - 1])
            else:
                self._draw_bars(axes)
                left -= below
        said = "\n".join(textwrap.wrap(self.verdict, 100))
        figure.text(0.02, 1 - 0.12 / total, said, fontsize=10, fontweight="bold", va="top")
        return figure

    def _draw_bars(self, axes) -> None:
        for row, (words, found) in enumerate(self.taste.items()):
            colour = COLOURS["after"] if words in self.sure else COLOURS["other"]
            axes.barh(row, found.mean - 0.5, left=0.5, height=0.6, color=colour, alpha=0.75)
            axes.plot([found.low, found.high], [row, row], color="black", linewidth=1.2)
            axes.plot(self.before[words].mean, row, "|", color=COLOURS["before"], markersize=11)
        axes.axvline(0.5, color="black", linewidth=1)
        far = max(0.15, *(abs(x - 0.5) for found in self.taste.values() for x in found[:3]))
        axes.set(xlim=(0.5 - 1.05 * far, 0.5 + 1.05 * far), ylim=(len(TASTE) - 0.5, -0.5))
        axes.set_yticks(range(len(TASTE)), list(TASTE), fontsize=9)
        ticks = np.arange(np.ceil(20 * (0.5 - far)), np.floor(20 * (0.5 + far)) + 1) / 20
        axes.set_xticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks], fontsize=8)
        axes.set_xlabel(
            "of two documents alike but for this, how often the one with more of it is preferred\n"
            "line: 95 % interval; blue: it leaves 50 % out; gray mark: before the latest save",
            fontsize=9,
        )
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)


def _draw_lists(axes, query: str, before: list[Hit], after: list[Hit]) -> None:
    """The documents of a question in two columns, and a line from where each was to where it is."""
    places = {hit.passage.id: place for place, hit in enumerate(before)}
    for place, hit in enumerate(after):
        was = places[hit.passage.id]
        up, same = place < was, place == was
        colour = COLOURS["after"] if up else COLOURS["before"]
        axes.plot([0.45, 0.53], [was, place], color=colour, linestyle="-" if up or same else "--")
        sign = "" if same else f"{'↑' if up else '↓'}{abs(was - place)}  "
        write = {"fontsize": 9, "va": "center", "parse_math": False}
        axes.text(0.44, was, _title(hit), ha="right", color=COLOURS["before"], **write)
        axes.text(0.54, place, sign + _title(hit), fontweight="bold" if up else "normal", **write)
    axes.set(xlim=(0, 1), ylim=(len(before) - 0.5, -0.5))
    axes.set_axis_off()
    asked = textwrap.shorten(query, 80, placeholder=" …")
    axes.text(0.02, -1.25, asked, fontsize=10, fontweight="bold", parse_math=False)
    axes.text(0.44, -0.75, "before", fontsize=8, ha="right", color=COLOURS["before"])
    axes.text(0.54, -0.75, "after", fontsize=8, color=COLOURS["after"])


def _title(hit: Hit) -> str:
    return textwrap.shorten(hit.passage.title or hit.passage.id, WIDE, placeholder=" …")
