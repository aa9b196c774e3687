"""How far judgements can be trusted: do people agree with each other, with themselves, and with our
layout?"""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import numpy as np

from ragkit.evaluation.measures import Interval, bootstrap
from ragkit.preferences.judgements import Comparison, Ranking

RESAMPLES = 2000


def kendall_tau(first: Ranking, second: Ranking) -> float:
    """τ-b of two rankings of the same documents, over those that both judged; NaN where all tie."""
    from scipy.stats import kendalltau

    keys = [[(passage.id, passage.text) for passage in r.passages] for r in (first, second)]
    ranks = [dict(zip(key, r.ranks)) for key, r in zip(keys, (first, second))]
    both = [key for key in ranks[0] if ranks[0][key] is not None and ranks[1].get(key) is not None]
    if len(both) < 2:
        return float("nan")
    return float(kendalltau(*([r[key] for key in both] for r in ranks)).statistic)


def agreement_between(rankings: Sequence[Ranking]) -> Interval:
    """Mean Kendall τ-b over pairs of annotators on the same item; items are resampled."""
    by_item: dict[str, list[Ranking]] = {}
    for ranking in rankings:
        if not ranking.details.get("repeat_of"):
            by_item.setdefault(ranking.item, []).append(ranking)
    return _mean(
        [kendall_tau(a, b) for a, b in combinations(group, 2) if a.annotator != b.annotator]
        for group in by_item.values()
    )


def self_consistency(rankings: Sequence[Ranking]) -> Interval:
    """Mean Kendall τ-b between an annotator's first ranking of an item and the repeat of it."""
    first = {(r.annotator, r.item): r for r in rankings if not r.details.get("repeat_of")}
    repeats = [(first.get((r.annotator, r.item)), r) for r in rankings if r.details.get("repeat_of")]
    return _mean([kendall_tau(before, ranking)] for before, ranking in repeats if before)


def cohen_kappa(comparisons: Sequence[Comparison], first: str, second: str) -> Interval:
    """Cohen's κ of two annotators over the comparisons that both made: A, even, or B."""
    one, other = ({c.item: c for c in comparisons if c.annotator == name} for name in (first, second))
    cells = []  # of the table of the first's and second's: 3 · row + column
    for a, b in ((one[item], other[item]) for item in one if item in other):
        turned = 1 if a.answer_a == b.answer_a else -1
        cells.append(3 * (np.sign(a.rating) + 1) + turned * np.sign(b.rating) + 1)
    cells = np.array(cells)

    def kappa(rows: np.ndarray) -> np.ndarray:
        table = np.stack([(cells[rows] == cell).sum(1) for cell in range(9)], 1).reshape(-1, 3, 3)
        agreed = len(cells) * table.trace(axis1=1, axis2=2)
        by_chance = (table.sum(1) * table.sum(2)).sum(1)
        with np.errstate(invalid="ignore"):  # where all agree on one label there is no κ: 0 / 0
            return (agreed - by_chance) / (len(cells) ** 2 - by_chance)

    return _estimate(kappa, len(cells))


def chose_left(comparisons: Sequence[Comparison]) -> Interval:
    """How often the answer on the left won, even ones and those of unknown sides left out; 0.5 where sides
    don't matter."""
    sides = [(c.rating < 0, c.details.get("swapped", False)) for c in comparisons if c.rating]
    return _mean([first != bool(swapped)] for first, swapped in sides if swapped is not None)


def shown_first_effect(rankings: Sequence[Ranking]) -> Interval:
    """How often, of two documents ranked apart, the one that was shown earlier was ranked higher; minus ½.

    0 where the shown order doesn't matter and was drawn at random. Rankings are resampled: their pairs are
    not independent.
    """
    wins = []
    for ranking in rankings:
        if ranking.shown_order is not None:
            ranks = ranking.ranks
            shown = [ranks[i] for i in ranking.shown_order if ranks[i] is not None]
            wins.append([(a < b) - 0.5 for a, b in combinations(shown, 2) if a != b])
    return _mean(wins)


def _mean(groups: Iterable[Sequence[float]]) -> Interval:
    """The mean over all values that are a number; groups are resampled, for theirs are not independent."""
    groups = [[value for value in group if value == value] for group in groups]
    groups = [group for group in groups if group]
    sums, sizes = np.array([sum(group) for group in groups]), np.array([len(group) for group in groups])
    return _estimate(lambda rows: sums[rows].sum(1) / sizes[rows].sum(1), len(groups))


def _estimate(statistic: Callable, n: int) -> Interval:
    return bootstrap(statistic, n, resamples=RESAMPLES, signed=False)
