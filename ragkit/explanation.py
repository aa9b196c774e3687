"""Why a document stands where it stands: what the retriever said, and what each feature added."""

from dataclasses import dataclass

import numpy as np

from ragkit.corpus import Hit

MOST = 5  # features shown; the rest count as one


@dataclass(frozen=True)
class Explanation:
    """One query's documents, in the order they came in.

    `base`, (K,): s_0 less its mean over the list; `parts`: what each feature added, (K,) each; all in logits.
    `shares`: the part of the residual that the bound on the KL let through. `after`: places from 1.
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
        rest = [self.parts[name] for name in names[most:]]
        others = {"others": np.sum(rest, axis=0)} if rest else {}
        return {name: self.parts[name] for name in names[:most]} | others

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
