"""How well scores order what people ranked: five measures, base beside after, and the learning curve."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ragkit.evaluation import Interval, PerQuery, evaluate, paired_interval
from ragkit.judgements import Ranking

MEASURES = ("nDCG@3", "nDCG@10", "MRR", "pair accuracy", "Kendall τ")


@dataclass(frozen=True)
class Gain:
    """Base and after, by measure: the means, and the difference with its interval over queries."""

    base: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [f"{'':14}  base  after  difference"]
        for name, interval in self.intervals.items():
            rows.append(f"{name:14} {self.base[name]:5.3f}  {self.after[name]:5.3f}  {interval}")
        return "\n".join(rows)


def measure(
    scores: Sequence[np.ndarray], gains: Sequence[np.ndarray], queries: Sequence[str]
) -> dict[str, PerQuery]:
    """Each measure by query, lists of one query averaged: {measure: {query: value}}.

    `scores` and `gains`: (K,) for each list; a NaN gain is a document that was not judged, and is left out.
    nDCG has linear gain (what is added to the worst document's grade), as trec_eval computes it; MRR looks
    for the first of the best documents; pair accuracy counts equal scores half; Kendall's is τ_b. A list in
    which all documents tie says nothing and is left out.
    """
    from scipy.stats import kendalltau

    values: dict[str, dict[str, list[float]]] = {name: {} for name in MEASURES}
    runs, qrels, best = {}, {}, {}
    for n, (score, gain) in enumerate(zip(scores, gains)):
        known = ~np.isnan(gain)
        score, gain = np.asarray(score, dtype=float)[known], np.asarray(gain, dtype=float)[known]
        if not len(gain) or gain.min() == gain.max():
            continue
        levels = np.unique(gain, return_inverse=True)[1] if (gain % 1).any() else gain - gain.min()
        order = np.argsort(-score, kind="stable")
        runs[str(n)] = {str(i): -float(place) for place, i in enumerate(order)}
        qrels[str(n)] = {str(i): int(level) for i, level in enumerate(levels)}
        best[str(n)] = {str(i): int(level == levels.max()) for i, level in enumerate(levels)}
        apart = (score[:, None] - score)[gain[:, None] > gain]
        tau = kendalltau(score, gain).statistic
        pairs = float(np.mean((apart > 0) + 0.5 * (apart == 0)))
        values["pair accuracy"].setdefault(queries[n], []).append(pairs)
        values["Kendall τ"].setdefault(queries[n], []).append(0.0 if np.isnan(tau) else float(tau))
    if runs:
        by_list = evaluate(runs, qrels, ("nDCG@3", "nDCG@10")) | {"MRR": evaluate(runs, best, ("RR",))["RR"]}
        for name, of_list in by_list.items():
            for n, value in of_list.items():
                values[name].setdefault(queries[int(n)], []).append(value)
    return {name: PerQuery({q: float(np.mean(v)) for q, v in rows.items()}) for name, rows in values.items()}


def compare(
    base: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
    gains: Sequence[np.ndarray],
    queries: Sequence[str],
) -> Gain:
    """Two ways to score the same lists. Empty where fewer than two queries say anything."""
    before, then = measure(base, gains, queries), measure(after, gains, queries)
    if len(before["MRR"]) < 2:
        return Gain()
    return Gain(
        {name: before[name].mean for name in MEASURES},
        {name: then[name].mean for name in MEASURES},
        {name: paired_interval(before[name], then[name]) for name in MEASURES},
    )


def compare_on(reranker, rankings: Sequence[Ranking], gains: Sequence[np.ndarray] | None = None) -> Gain:
    """The retriever and `reranker` on rankings that it was not fitted on; `gains`: by the rankings' tiers."""
    gains = [gains_of(ranking) for ranking in rankings] if gains is None else gains
    base = [reranker.base(ranking.query, ranking.passages) for ranking in rankings]
    after = [reranker.score(ranking.query, ranking.passages) for ranking in rankings]
    return compare(base, after, gains, [ranking.query for ranking in rankings])


def gains_of(ranking: Ranking) -> np.ndarray:
    """(K,): how many tiers lie below a document's own; NaN where it was not judged."""
    tiers = len(ranking.tiers)
    return np.array([np.nan if rank is None else tiers - 1.0 - rank for rank in ranking.ranks])


def learning_curve(
    make: Callable[[], object],
    rankings: Sequence[Ranking],
    held_out: Sequence[Ranking],
    sizes: Sequence[int],
    *,
    draws: int = 5,
    gains: Sequence[np.ndarray] | None = None,
    seed: int = 0,
) -> dict[int, list[Gain]]:
    """What `make()` reaches on `held_out` after so many rankings: `draws` gains for each size.

    Each draw takes the rankings in another order. Raises ValueError for a size beyond the rankings there are.
    """
    if max(sizes) > len(rankings):
        raise ValueError(f"size {max(sizes)}: there are {len(rankings)} rankings")
    curve: dict[int, list[Gain]] = {size: [] for size in sizes}
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(rankings))
        for size in sizes:
            reranker = make()
            reranker.fit([rankings[i] for i in order[:size]], progress=False)
            curve[size].append(compare_on(reranker, held_out, gains))
    return curve
