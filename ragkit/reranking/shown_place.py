"""Is what is shown first favoured, and by how much? With an interval that does not accuse the innocent."""

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import t as student

from ragkit.evaluation.measures import Interval
from ragkit.reranking.linear import Inputs, centred
from ragkit.reranking.table import Table

FEWEST = 6  # queries: five that all went with the page are no more than luck, 1 in 16
TASTES = (1.0, 2.5)  # logits: how far tastes are expected to spread documents, weak and strong ones
FARTHEST = 10.0  # logits a place: a limit beyond it is none
SHUFFLED = 3.0  # standard deviations that the order of a shuffled page may be from chance


def shown_first(table: Table) -> tuple[Interval | None, str]:
    """What one place earlier is worth, in logits, with its 95 % interval, and ""; or None, and why not.

    A score test of each b, turned round: b is in the interval if what a model of the taste with b leaves of
    the pairs goes with the place no more than by chance, by Student's t over queries. At b = 0 the taste is
    fitted without the place; so if pages were shuffled, 0 is left out by chance only, 2.5 % a side, whatever
    the taste, however little of it the inputs tell, and with or without noise. The size is less sure: too
    little taste in the model pulls b to 0, too much swells it. So the interval holds those of two models,
    with a weak and a strong prior on the taste; the estimate is the latter's. A taste that no input tells is
    noise to both, and b is in units of all noise, thus nearer to 0. A limit may be infinite.
    """
    gap = table.places[table.sides] @ [-1.0, 1.0]  # (P,): places by which y⁺ was shown earlier
    known = ~np.isnan(gap)
    queries = len(np.unique(table.pairs.group[known]))
    early = "too early to say whether what is shown first is favoured"
    if queries < FEWEST:
        return None, f"{early}: {queries} of at least {FEWEST} queries"
    if _follows_retriever(table):
        return None, "the pages follow the retriever's order, so place and taste can't be told apart"
    values = Inputs.fit("features", table)(table)
    weak, strong = (_score_test(values, table, gap, known, taste) for taste in TASTES)
    critical = float(student.ppf(0.975, queries - 1))
    low = min(_crossing(weak, critical), _crossing(strong, critical))
    high = max(_crossing(weak, -critical), _crossing(strong, -critical))
    if low <= 0 <= high and not np.isfinite([low, high]).all():
        return None, f"{early}: {queries} queries, and any size would do"
    return Interval(_crossing(strong, 0.0), low, high, queries), ""


def _follows_retriever(table: Table) -> bool:
    """Whether pages go with the order of s_0, either way round, as shuffled ones do once in 400 logs."""
    rank = np.empty(len(table.base))
    rank[np.lexsort((table.base, table.of_list))] = np.arange(len(rank))
    known = ~np.isnan(table.places)
    of_list = np.unique(table.of_list[known], return_inverse=True)[1]
    rank, place = (centred(column[known, None], of_list)[:, 0] for column in (rank, table.places))
    squares = np.bincount(of_list, rank**2) * np.bincount(of_list, place**2)
    # Of Σ rank · place over all orders of a list.
    variance = squares / np.maximum(np.bincount(of_list) - 1, 1)
    return abs(rank @ place) > SHUFFLED * np.sqrt(variance.sum())


def _score_test(
    values: np.ndarray, table: Table, gap: np.ndarray, known: np.ndarray, taste: float
) -> Callable[[float], float]:
    """The studentised score of pairs, which falls, as a function of b: by `values`, (N, F), and b · `gap`."""
    # K documents make K(K − 1)/2 pairs. So weighed, the score of a list ranked by chance varies as expected.
    size = (1 + np.sqrt(1 + 8 * np.bincount(table.pair_list)[table.pair_list[known]])) / 2
    gap, target, weight, sides = gap[known], table.pairs.target[known], 3 / (size + 1), table.sides[known]
    query = np.unique(table.pairs.group[known], return_inverse=True)[1]
    values = values[sides[:, 0]] - values[sides[:, 1]]  # (P, F)
    w, ridge = np.zeros(values.shape[1]), values.shape[1] / taste**2

    def loss(w: np.ndarray, b: float) -> float:
        z = values @ w + b * gap
        return weight @ (np.logaddexp(0, z) - target * z) + ridge / 2 * w @ w

    @cache
    def statistic(b: float) -> float:
        nonlocal w  # Newton's method, from where the last b left it: a step or two will do
        now = loss(w, b)
        while True:
            chance = expit(values @ w + b * gap)
            residual, curvature = weight * (target - chance), weight * chance * (1 - chance)
            hessian = values.T @ (curvature[:, None] * values) + ridge * np.eye(len(w))
            gradient = values.T @ residual - ridge * w
            step = np.linalg.solve(hessian, gradient)
            if gradient @ step < 1e-4:  # twice what is left to gain, in nats
                break
            while (then := loss(w + step, b)) > now:
                step /= 2
            w, now = w + step, then
        score, mixed = np.bincount(query, residual * gap), values.T @ (curvature * gap)
        expected = curvature @ gap**2 - mixed @ np.linalg.solve(hessian, mixed)
        # A few queries may be alike by luck: they vary no less than the model expects.
        return score.sum() / np.sqrt(max(len(score) * np.var(score, ddof=1), expected))

    return statistic


def _crossing(statistic: Callable[[float], float], level: float) -> float:
    """The b at which `statistic` has fallen to `level`; infinite beyond FARTHEST."""
    start, step = 0.0, 0.1 if statistic(0.0) > level else -0.1
    while (statistic(start + step) > level) == (step > 0):
        start, step = start + step, 2 * step
        if abs(start) > FARTHEST:
            return float(np.copysign(np.inf, step))
    return float(brentq(lambda b: statistic(b) - level, start, start + step, xtol=2e-3))
