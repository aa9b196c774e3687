"""Which settings, and does it help at all? Cross-validation by query, nested so that its answer is honest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch

from ragkit.evaluation.measures import Interval
from ragkit.losses.pairwise import pair_loss
from ragkit.reranking.annotators import LEARNED, reliabilities, resolved
from ragkit.reranking.guard import Domain, Fitted, bounded
from ragkit.reranking.linear import Inputs, LinearResidual, solve, standard_errors
from ragkit.reranking.objective import Objective
from ragkit.reranking.table import Table

RIDGES = (0.1, 0.03, 0.01, 0.003)  # from the strongest on: each fit starts from the one before
BETAS = (0.1, 0.3)
FOLDS, INNER_FOLDS = 5, 3
MOST_PAIRS = 60  # of one list, while settings are chosen: pairs of a long list say the same again and again
SCALES = np.array([0.0, *np.geomspace(0.02, 5.0, 16)])


@dataclass(frozen=True)
class Settings:
    capacity: str
    beta: float
    ridge: float


MIDDLING = Settings("features", BETAS[0], RIDGES[1])


def folds_of(queries: Sequence[str], count: int, seed: int) -> np.ndarray:
    """(L,): the fold of each ranking; all rankings of one query are in one."""
    distinct = sorted(set(queries))
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold = {query: int(place) % count for query, place in zip(distinct, np.argsort(order))}
    return np.array([fold[query] for query in queries])


def _splits(table: Table, count: int, seed: int) -> Iterator[tuple[Table, Table, np.ndarray]]:
    """(known, new, rows) for each fold that holds something out: `rows` are the new documents, a mask."""
    fold = folds_of(table.queries, count, seed)
    for held_out in range(count):
        out = fold == held_out
        if out.any():
            yield table.take(np.flatnonzero(~out)), table.take(np.flatnonzero(out)), out[table.of_list]


def train(table: Table, objective: Objective, settings: Settings) -> LinearResidual:
    inputs = Inputs.fit(settings.capacity, table)
    w = solve(inputs(table), table, objective.at(settings.beta), settings.ridge)
    return LinearResidual(inputs, w[:-1], float(w[-1]))


def quick_scores(table: Table, objective: Objective) -> np.ndarray:
    """Scores, (N,), of a model of middling settings on the documents that it was trained on."""
    return table.base + train(table, objective, MIDDLING)(table)


def shown_first(table: Table, objective: Objective, capacity: str) -> Interval:
    """What a place is worth, beside the richest model of the taste: one that it misses pulls it to 0.

    Without s_0, which would be noise to it; similarity is among the inputs.
    """
    settings = Settings(capacity, 1.0, RIDGES[-1])
    objective = replace(objective, anchor="reference")
    rich = train(table, objective, settings)
    w = np.append(rich.weights, rich.first)
    error = 1.96 * float(standard_errors(rich.inputs(table), table, objective, settings.ridge, w)[-1])
    return Interval(rich.first, rich.first - error, rich.first + error, len(set(table.queries)))


def choose(
    table: Table,
    objective: Objective,
    capacities: Sequence[str],
    max_kl: float,
    seed: int,
    folds: int = INNER_FOLDS,
) -> Settings:
    """The settings whose scores predict held-out pairs best, of all capacities, strengths of ridge and β.

    By the log-loss of pairs, at the best scale; nDCG of fifty rankings is too noisy to choose by.
    """
    grid = [Settings(*row) for row in product(capacities, BETAS, RIDGES)]
    table = thinned(table, seed)
    scores = np.zeros((len(table.base), len(grid)))
    for known, new, rows in _splits(table, folds, seed):
        if not len(known.pairs):
            continue
        residuals = np.zeros((rows.sum(), len(grid)))
        for capacity in capacities:
            inputs = Inputs.fit(capacity, known)
            values, unseen = inputs(known), inputs(new)
            w = None
            for column, settings in enumerate(grid):
                if settings.capacity != capacity:
                    continue
                w = None if settings.ridge == RIDGES[0] else w
                w = solve(values, known, objective.at(settings.beta), settings.ridge, w, rough=True)
                residuals[:, column] = unseen @ w[:-1]
        scores[rows] = bounded(residuals, new.base, max_kl, new.of_list)
    return grid[int(np.argmin([pair_losses(column, table)[1] for column in scores.T]))]


def out_of_fold(
    table: Table, objective: Objective, capacities: Sequence[str], max_kl: float, seed: int
) -> np.ndarray:
    """Scores, (N,), for each list by a model that did not see its query, nor did the choice of settings."""
    scores = table.base.copy()
    for known, new, rows in _splits(table, FOLDS, seed):
        seen = resolved(objective, known, quick_scores)
        settings = choose(known, seen, capacities, max_kl, seed + 1)
        residual = train(known, seen, settings)
        added = Domain.fit(known).trust(new)[new.of_list] * residual(new)
        scores[rows] = bounded(added, new.base, max_kl, new.of_list)
    return scores


def fit_linear(
    base: Fitted, capacities: Sequence[str], max_kl: float, seed: int
) -> tuple[Fitted, np.ndarray, dict]:
    """A linear residual for `base`'s table and objective; scores, (N,), of models that did not see a list's
    query; and, for the report, `first` and `reliability` where they were fitted."""
    table, objective, facts = base.table, base.objective, {}
    scores = out_of_fold(table, objective, capacities, max_kl, seed)
    if objective.strength == LEARNED:
        alike = quick_scores(table, replace(objective, strength=None))
        facts["reliability"] = reliabilities(table, alike)
        objective = resolved(objective, table, quick_scores)
    settings = choose(table, objective, capacities, max_kl, seed)
    if objective.first:
        facts["first"] = shown_first(table, objective, capacities[-1])
    return Fitted(objective, table, settings, train(table, objective, settings)), scores, facts


def pair_losses(scores: np.ndarray, table: Table) -> tuple[np.ndarray, float]:
    """(queries,): the mean −log σ of each query's pairs, ties by their target; and the mean of them all.

    At the scale of scores that suits them best, so that what counts is how they are ordered and spaced.
    """
    z = torch.from_numpy(scores[table.sides] @ [1.0, -1.0])
    counts = np.bincount(table.pairs.group)
    best = None
    for scale in SCALES:
        loss = pair_loss(z, strength=scale, target=table.pairs.target, reduction="none")
        mean = np.bincount(table.pairs.group, loss)[counts > 0] / counts[counts > 0]
        if best is None or mean.mean() < best[1]:
            best = mean, float(mean.mean())
    return best


def thinned(table: Table, seed: int) -> Table:
    """The table with at most MOST_PAIRS pairs of each list, drawn at random."""
    counts = np.bincount(table.pair_list, minlength=len(table))
    if not len(counts) or counts.max() <= MOST_PAIRS:
        return table
    rng = np.random.default_rng(seed)
    place = np.empty(len(table.pairs), dtype=int)
    order = np.lexsort((rng.random(len(table.pairs)), table.pair_list))
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    kept = np.flatnonzero(place < MOST_PAIRS)
    return table.with_pairs(kept)
