"""Several annotators: how far to believe each, or a reranker for each of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from ragkit.losses.pairwise import pair_loss
from ragkit.losses.strengths import learned
from ragkit.preferences.judgements import Ranking
from ragkit.reranking.objective import Objective
from ragkit.reranking.table import Table

LEARNED = "learned"
PRIOR = 1.0  # standard deviation of log reliability, before anything was said


def reliabilities(table: Table, scores: np.ndarray) -> dict[str, float]:
    """By annotator: the scale at which `scores`, (N,), predict their pairs best; 1 is everybody together.

    A scale of 2 means differences count double for this person, near 0 that they choose at random. Few pairs
    leave it near 1 (a normal prior on its logarithm); a query counts once, whatever the length of its lists.
    """
    z = scores[table.sides] @ [1.0, -1.0]
    names = np.array(table.pairs.annotator)
    lists = np.bincount(table.pair_list, minlength=len(table))[table.pair_list]
    weight = 2.0 / np.sqrt(lists)  # K documents have K − 1 differences in their K (K − 1) / 2 pairs

    def best(rows: np.ndarray, prior: float) -> float:
        x, target, w = torch.from_numpy(z[rows]), table.pairs.target[rows], weight[rows]

        def loss(log_scale: float) -> float:
            total = pair_loss(x, strength=np.exp(log_scale), target=target, weight=w, reduction="none").sum()
            return total.item() + (log_scale - start) ** 2 / (2 * prior**2)

        return minimize_scalar(loss, bounds=(start - 4, start + 3), method="bounded").x

    start = 0.0
    start = best(np.arange(len(names)), 10.0)
    return {
        name: float(np.exp(best(np.flatnonzero(names == name), PRIOR) - start))
        for name in sorted(set(names.tolist()))
    }


def resolved(
    objective: Objective, table: Table, train: Callable[[Table, Objective], np.ndarray]
) -> Objective:
    """`objective` with `strength="learned"` made the reliabilities that `table` shows.

    `train` gives scores, (N,), for a table's documents, everybody believed alike.
    """
    if objective.strength != LEARNED:
        return objective
    alike = replace(objective, strength=None)
    return replace(objective, strength=learned(reliabilities(table, train(table, alike))))


def fit_each(make: Callable[[], object], rankings: Sequence[Ranking], **settings) -> dict[str, tuple]:
    """One reranker for each annotator: {annotator: (reranker, report)}; `make()` gives a new one."""
    rankings = list(rankings.rankings() if hasattr(rankings, "rankings") else rankings)
    found = {}
    for name in sorted({ranking.annotator for ranking in rankings}):
        reranker = make()
        report = reranker.fit([one for one in rankings if one.annotator == name], **settings)
        found[name] = reranker, report
    return found
