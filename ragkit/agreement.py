"""How far judgements can be trusted: do people agree with each other, with themselves, and with our
layout?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ragkit.judgements import Comparison, Ranking

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, from `n` units (queries or items) resampled."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


def kendall_tau(first: Ranking, second: Ranking) -> float:
    """τ-b of two rankings of the same documents, over those that both judged; NaN where all tie."""
    from scipy.stats import kendalltau

    ranks = [dict(zip(map(_key, r.passages), r.ranks)) for r in (first, second)]
    both = [key for key in ranks[0] if ranks[0][key] is not None and ranks[1].get(key) is not None]
    if len(both) < 2:
        return float("nan")
    return float(kendalltau(*([r[key] for key in both] for r in ranks)).statistic)


def agreement_between(rankings: Sequence[Ranking]) -> Estimate:
    """Mean Kendall τ-b over pairs of annotators on the same item; items are resampled."""
    by_item: dict[str, list[Ranking]] = {}
    for ranking in rankings:
        if not ranking.details.get("repeat_of"):
            by_item.setdefault(ranking.item, []).append(ranking)
    taus = []
    for group in by_item.values():
        found = [kendall_tau(a, b) for a, b in combinations(group, 2) if a.annotator != b.annotator]
        taus.append([tau for tau in found if tau == tau])
    return _estimate([group for group in taus if group], lambda groups: np.mean(np.concatenate(groups)))


def self_consistency(rankings: Sequence[Ranking]) -> Estimate:
    """Mean Kendall τ-b between an annotator's first ranking of an item and the repeat of it."""
    first = {(r.annotator, r.item): r for r in rankings if not r.details.get("repeat_of")}
    taus = []
    for ranking in rankings:
        before = first.get((ranking.annotator, ranking.item))
        if ranking.details.get("repeat_of") and before and (tau := kendall_tau(before, ranking)) == tau:
            taus.append(tau)
    return _estimate(taus, np.mean)


def cohen_kappa(comparisons: Sequence[Comparison], first: str, second: str) -> Estimate:
    """Cohen's κ of two annotators over the comparisons that both made: A, even, or B."""
    import warnings

    from sklearn.metrics import cohen_kappa_score

    of: dict[str, dict[str, Comparison]] = {first: {}, second: {}}
    for comparison in comparisons:
        if comparison.annotator in of:
            of[comparison.annotator][comparison.item] = comparison
    both = [
        (_side(one), _side(of[second][item]) * (1 if one.answer_a == of[second][item].answer_a else -1))
        for item, one in of[first].items()
        if item in of[second]
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resample in which all agree on one label has no κ: NaN, left out
        return _estimate(both, lambda rows: cohen_kappa_score(*zip(*rows), labels=[-1, 0, 1]))


def chose_left(comparisons: Sequence[Comparison]) -> Estimate:
    """How often the answer on the left won, even ones and those of unknown sides left out; 0.5 where sides
    don't matter."""
    wins = [
        float((comparison.rating < 0) != bool(comparison.details.get("swapped")))
        for comparison in comparisons
        if comparison.rating and comparison.details.get("swapped", False) is not None
    ]
    return _estimate(wins, np.mean)


def shown_first_effect(rankings: Sequence[Ranking]) -> Estimate:
    """How often, of two documents ranked apart, the one that was shown earlier was ranked higher; minus ½.

    0 where the shown order doesn't matter and was drawn at random. Rankings are resampled: their pairs are
    not independent.
    """
    shares = []
    for ranking in rankings:
        if ranking.shown_order is None:
            continue
        ranks = ranking.ranks
        found = [
            float(ranks[a] < ranks[b])
            for a, b in combinations(ranking.shown_order, 2)
            if ranks[a] is not None and ranks[b] is not None and ranks[a] != ranks[b]
        ]
        if found:
            shares.append(found)
    return _estimate(shares, lambda groups: np.mean(np.concatenate(groups)) - 0.5)


def _side(comparison: Comparison) -> int:
    return int(np.sign(comparison.rating))


def _key(passage) -> tuple[str, str]:
    return passage.id, passage.text


def _estimate(units: list, statistic: Callable, seed: int = 0) -> Estimate:
    """The statistic, and the percentiles of it over resamples of the units."""
    if not units:
        nan = float("nan")
        return Estimate(nan, nan, nan, 0)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(units), size=(RESAMPLES, len(units)))
    found = [statistic([units[i] for i in row]) for row in draws]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return Estimate(float(statistic(units)), float(low), float(high), len(units))
