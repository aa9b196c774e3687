"""What a fit did, and how sure that is; why a document stands where it stands."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import norm

from ragkit.evaluation.measures import Interval
from ragkit.evaluation.rankings import Gain
from ragkit.retrieval.corpus import Hit

MOST = 5  # features shown; the rest count as one
SAID = "nDCG@10"  # the measure that is put in words
SURE = 0.95  # that a gain is one


@dataclass(frozen=True)
class FitReport:
    """What a fit did, and how sure that is.

    `base`, `after`, `intervals`: by measure, from predictions for queries that the weights did not see.
    `share`: of the residual that is believed, 0 to 1, and applied; the rest is the retriever's. `kept_base`:
    whether the retriever's order stays; `reason` says why. `kl`: how far the candidates of a query move from
    the retriever, mean, in nats; `held_back`: rankings cut to the bound. `first`: what it is worth to be
    shown one place earlier, in logits, where shown orders are known; else `first_unknown` says why not.
    `reliability`: of each annotator, where `strength="learned"`.
    """

    rankings: int
    queries: int
    kept_base: bool
    reason: str = ""
    share: float = 0.0
    base: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    kl: float = 0.0
    held_back: int = 0
    first: Interval | None = None
    first_unknown: str = ""
    reliability: dict[str, float] = field(default_factory=dict)

    def kept(self, reason: str) -> "FitReport":
        """The same, of a fit that keeps the retriever."""
        return replace(self, kept_base=True, share=0.0, reason=f"{reason}: the retriever is kept.")

    def sure(self, measure: str = SAID) -> float:
        """How sure it is that new queries of this kind gain, 0 to 1: a normal law's share above 0, by the
        interval. NaN where nothing was held out."""
        found = self.intervals.get(measure)
        if found is None:
            return float("nan")
        return float(norm.cdf(found.mean, scale=max(found.high - found.low, 1e-12) / (2 * norm.ppf(0.975))))

    def needed(self, measure: str = SAID) -> int | None:
        """How many rankings more make it SURE, if the gain is what it seems: an error falls with the root of
        their number. 0 where it is sure; None where no gain is to be seen."""
        sure = self.sure(measure)
        if not sure > 0.5 or not self.intervals[measure].mean > 0:
            return None
        return math.ceil(self.rankings * max((norm.ppf(SURE) / norm.ppf(sure)) ** 2 - 1, 0.0))

    @property
    def verdict(self) -> str:
        """The gain of SAID in a sentence: how sure it is, and how many rankings would make it surer."""
        if SAID not in self.intervals:
            return "Too few queries to hold some out, so what this is worth is not known yet."
        gain, more = self.intervals[SAID].mean, self.needed()
        said = f"{SAID} {gain:+.3f} on queries held out"
        if more is None:
            return f"{said}: no gain to be seen yet."
        if more == 0:
            return f"{said}: more than {SURE:.0%} sure to be a gain."
        about = float(f"{more:.1g}")  # it is as unsure as the gain
        said = f"{said}, {self.sure():.0%} sure to be a gain"
        return f"{said}; some {about:.0f} more rankings might make it {SURE:.0%}."

    def __str__(self) -> str:
        lines = [f"{self.rankings} rankings of {self.queries} queries. {self.reason}"]
        if self.intervals:
            lines += ["Held out by query:", str(Gain(self.base, self.after, self.intervals))]
        if not self.kept_base:
            lines.append(self.verdict)
            settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
            lines.append(f"Most probable: {settings}")
            moved = f"Moves {self.kl:.2f} nats from the retriever on average"
            lines.append(f"{moved}; {self.held_back} of {self.rankings} held back at the bound")
        if self.first or self.first_unknown:
            said = f"{self.first} logits" if self.first else self.first_unknown
            lines.append(f"Shown one place earlier: {said}")
        if self.reliability:
            named = ", ".join(f"{name} {value:.2f}" for name, value in self.reliability.items())
            lines.append(f"Reliability: {named}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Explanation:
    """Why one query's documents stand where they do; they are in the order they came in.

    `base`, (K,): s_0 less its mean over the list; `parts`: what each feature added, (K,) each; all in logits.
    `share`: the part of the residual that the bound on the KL let through. `after`: places from 1.
    """

    query: str
    hits: list[Hit]
    base: np.ndarray
    parts: dict[str, np.ndarray]
    share: float
    after: list[int]

    @property
    def scores(self) -> np.ndarray:
        """(K,): base and all parts, in logits; the order is theirs."""
        return self.base + sum(self.parts.values(), np.zeros(len(self.base)))

    def largest(self, most: int = MOST) -> dict[str, np.ndarray]:
        """The parts that differ most between the documents, and "others" for the rest."""
        names = sorted(self.parts, key=lambda name: -np.ptp(self.parts[name]))
        rest = sum(self.parts[name] for name in names[most:])
        return {name: self.parts[name] for name in names[:most]} | ({"others": rest} if names[most:] else {})

    def plot(self, most: int = MOST):
        """A small bar figure, one row of bars for each document, in the order after reranking."""
        import matplotlib.pyplot as plt

        rows = {"retriever": self.base} | self.largest(most)
        order = np.argsort(self.after)
        figure, axes = plt.subplots(
            1, len(order), sharey=True, figsize=(1.6 + 1.75 * len(order), 0.8 + 0.3 * len(rows)),
            layout="constrained", squeeze=False,
        )  # fmt: skip
        limit = 1.15 * max(np.abs(list(rows.values())).max(), 1e-3)
        for axis, i in zip(axes[0], order):
            values = [row[i] for row in rows.values()]
            colours = ["#888888", *("#0072b2" if value >= 0 else "#d55e00" for value in values[1:])]
            axis.barh(range(len(values)), values, color=colours)
            axis.axvline(0, color="black", linewidth=0.8)
            axis.set(xlim=(-limit, limit), yticks=range(len(rows)), yticklabels=list(rows))
            axis.invert_yaxis() if axis is axes[0][0] else None
            title = self.hits[i].passage.title or self.hits[i].passage.id
            short = title if len(title) <= 22 else title[:21] + "…"
            axis.set_title(f"{self.hits[i].rank} → {self.after[i]}\n{short}", fontsize=9, parse_math=False)
            axis.spines[["top", "right"]].set_visible(False)
        figure.supxlabel("logits added", fontsize=9)
        return figure

    def __str__(self) -> str:
        lines = []
        for i in np.argsort(self.after):
            parts = {"retriever": self.base} | self.largest()
            added = ", ".join(f"{name} {values[i]:+.2f}" for name, values in parts.items())
            lines.append(f"{self.hits[i].rank} → {self.after[i]}  {self.hits[i].passage.id}: {added}")
        return "\n".join(lines)


def explain(query: str, hits: list[Hit], base: np.ndarray, parts: dict, scores: np.ndarray) -> Explanation:
    """From s_0, (K,), the residual's parts, and the scores in the end, which are s_0 + share · residual."""
    residual = sum(parts.values(), np.zeros(len(base)))
    share = float((scores - base) @ residual / (residual @ residual)) if residual.any() else 1.0
    after = np.empty(len(hits), dtype=int)
    after[np.argsort(-scores, kind="stable")] = np.arange(1, len(hits) + 1)
    parts = {name: share * part for name, part in parts.items()}
    return Explanation(query, hits, base - base.mean(), parts, share, after.tolist())
