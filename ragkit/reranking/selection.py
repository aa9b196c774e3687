"""Which settings, and does it help at all? Cross-validation by query, nested so that its answer is honest."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from ragkit.losses.pairwise import unchecked_pair_loss
from ragkit.losses.strengths import learned
from ragkit.reranking.features import Described
from ragkit.reranking.guard import Domain, bounded
from ragkit.reranking.linear import Inputs, LinearResidual, solve
from ragkit.reranking.objective import Objective
from ragkit.reranking.shown_place import shown_first
from ragkit.reranking.table import Table, base_scores

RIDGES = (0.1, 0.03, 0.01, 0.003)  # from the strongest on: each fit starts from the one before
BETAS = (0.1, 0.3)
FOLDS, INNER_FOLDS = 5, 3
MOST_PAIRS = 60  # of one list, while settings are chosen: pairs of a long list say the same again and again
SCALES = np.array([0.0, *np.geomspace(0.02, 5.0, 16)])
PRIOR = 1.0  # standard deviation of an annotator's log reliability, before anything was said


@dataclass(frozen=True)
class Settings:
    """What cross-validation chooses: the inputs, the loss's β, and the ridge."""

    capacity: str
    beta: float
    ridge: float


MIDDLING = Settings("features", BETAS[0], RIDGES[1])


@dataclass(frozen=True)
class Fitted:
    """What a reranker knows. No `objective`: it was not fitted; no `residual`: the retriever's order stays.

    `table`: the rankings that it was given, for `update` and active choice; they are not saved. `settings`:
    as they were chosen; none of a cross-encoder. `residual`: a LinearResidual or a CrossResidual.
    """

    objective: Objective | None = None
    table: Table | None = None
    settings: Settings | None = None
    residual: Callable[[Described], np.ndarray] | None = None
    domain: Domain | None = None

    def added(self, described: Described) -> np.ndarray:
        """What the residual adds to s_0, (K,), as far as it is to be trusted here; not bounded yet."""
        return self.domain.trust(described) * self.residual(described)

    def scores(self, described: Described, max_kl: float) -> np.ndarray:
        base = base_scores(described)
        return base if self.residual is None else bounded(self.added(described), base, max_kl)

    def tensors(self) -> dict[str, np.ndarray]:
        """What it takes to rerank, by name."""
        parts = {"residual": self.residual.tensors(), "domain": vars(self.domain)} if self.residual else {}
        return {f"{part}.{name}": np.asarray(x) for part in parts for name, x in parts[part].items()}

    @classmethod
    def from_tensors(cls, kind: type, encoder, settings: Settings | None, tensors: dict) -> "Fitted":
        """What gave `tensors`; `kind`: of the residual."""
        if not tensors:
            return cls(settings=settings)
        residual, domain = (
            {name.removeprefix(part): x for name, x in tensors.items() if name.startswith(part)}
            for part in ("residual.", "domain.")
        )
        residual = kind.from_tensors(encoder, residual)
        return cls(settings=settings, residual=residual, domain=Domain(**domain))


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
    """The residual that `objective` wants of `table`, with these settings."""
    inputs = Inputs.fit(settings.capacity, table)
    w = solve(inputs(table), table, objective.at(settings.beta), settings.ridge)
    return LinearResidual(inputs, w[:-1], float(w[-1]))


def resolved(objective: Objective, table: Table) -> Objective:
    """`objective` with `strength="learned"` made the reliabilities that `table` shows."""
    if objective.strength != "learned":
        return objective
    return replace(objective, strength=learned(reliabilities(table, objective)))


def reliabilities(table: Table, objective: Objective) -> dict[str, float]:
    """By annotator: the scale at which scores predict their pairs best; 1 is everybody together.

    The scores are of a model of middling settings that believes everybody alike. A scale of 2 means
    differences count double for this person, near 0 that they choose at random. Few pairs leave it near 1 (a
    normal prior on its logarithm); a query counts once, whatever the length of its lists.
    """
    scores = table.base + train(table, replace(objective, strength=None), MIDDLING)(table)
    z = scores[table.sides] @ [1.0, -1.0]
    names = np.array(table.pairs.annotator)
    # K documents have K − 1 differences in their K (K − 1) / 2 pairs.
    weight = 2.0 / np.sqrt(np.bincount(table.pair_list)[table.pair_list])

    def best(rows: np.ndarray, prior: float, start: float) -> float:
        x, p, w = (torch.from_numpy(column[rows]) for column in (z, table.pairs.target, weight))

        def loss(log_scale: float) -> float:
            total = unchecked_pair_loss(x, strength=np.exp(log_scale), target=p, weight=w).sum()
            return total.item() + (log_scale - start) ** 2 / (2 * prior**2)

        return minimize_scalar(loss, bounds=(start - 4, start + 3), method="bounded").x

    everybody = best(np.arange(len(names)), 10.0, 0.0)
    own = {name: best(np.flatnonzero(names == name), PRIOR, everybody) for name in np.unique(names).tolist()}
    return {name: float(np.exp(log_scale - everybody)) for name, log_scale in own.items()}


def choose(
    table: Table, objective: Objective, capacities: Sequence[str], max_kl: float, seed: int
) -> Settings:
    """The settings whose scores predict held-out pairs best, of all capacities, strengths of ridge and β.

    By the log-loss of pairs, at the best scale; nDCG of fifty rankings is too noisy to choose by.
    """
    grid = [Settings(*row) for row in product(capacities, BETAS, RIDGES)]
    table = thinned(table, seed)
    scores = np.zeros((len(table.base), len(grid)))
    for known, new, rows in _splits(table, INNER_FOLDS, seed):
        if not len(known.pairs):
            continue
        residuals = []  # in the order of the grid
        for capacity in capacities:
            inputs = Inputs.fit(capacity, known)
            values, unseen = inputs(known), inputs(new)
            for beta in BETAS:
                w = None
                for ridge in RIDGES:
                    w = solve(values, known, objective.at(beta), ridge, w, rough=True)
                    residuals.append(unseen @ w[:-1])
        scores[rows] = bounded(np.stack(residuals, 1), new.base, max_kl, new.of_list)
    return grid[int(np.argmin([pair_losses(column, table)[1] for column in scores.T]))]


def out_of_fold(
    table: Table, objective: Objective, capacities: Sequence[str], max_kl: float, seed: int
) -> np.ndarray:
    """Scores, (N,), for each list by a model that did not see its query, nor did the choice of settings."""
    scores = table.base.copy()
    for known, new, rows in _splits(table, FOLDS, seed):
        seen = resolved(objective, known)
        settings = choose(known, seen, capacities, max_kl, seed + 1)
        residual = train(known, seen, settings)
        added = Domain.fit(known).trust(new)[new.of_list] * residual(new)
        scores[rows] = bounded(added, new.base, max_kl, new.of_list)
    return scores


def fit_linear(
    base: Fitted, capacities: Sequence[str], max_kl: float, seed: int
) -> tuple[Fitted, np.ndarray, dict]:
    """A linear residual for `base`'s table and objective; scores, (N,), of models that did not see a list's
    query; and, for the report, what it says of the shown place and of reliabilities."""
    table, objective, facts = base.table, base.objective, {}
    scores = out_of_fold(table, objective, capacities, max_kl, seed)
    if objective.strength == "learned":
        facts["reliability"] = reliabilities(table, objective)
        objective = replace(objective, strength=learned(facts["reliability"]))
    settings = choose(table, objective, capacities, max_kl, seed)
    if objective.first:
        facts["first"], facts["first_unknown"] = shown_first(table)
    return Fitted(objective, table, settings, train(table, objective, settings)), scores, facts


def pair_losses(scores: np.ndarray, table: Table) -> tuple[np.ndarray, float]:
    """(queries,): the mean −log σ of each query's pairs, ties by their target; and the mean of them all.

    At the scale of scores that suits them best, so that what counts is how they are ordered and spaced.
    """
    z = torch.from_numpy(scores[table.sides] @ [1.0, -1.0])
    target, group = torch.from_numpy(table.pairs.target), table.pairs.group
    counts = np.bincount(group)
    by_scale = [np.bincount(group, unchecked_pair_loss(z, strength=s, target=target)) for s in SCALES]
    best = min((loss[counts > 0] / counts[counts > 0] for loss in by_scale), key=np.mean)
    return best, float(best.mean())


def thinned(table: Table, seed: int) -> Table:
    """The table with at most MOST_PAIRS pairs of each list, drawn at random."""
    counts = np.bincount(table.pair_list, minlength=len(table))
    if not len(counts) or counts.max() <= MOST_PAIRS:
        return table
    rng = np.random.default_rng(seed)
    place = np.empty(len(table.pairs), dtype=int)
    order = np.lexsort((rng.random(len(table.pairs)), table.pair_list))
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    return table.with_pairs(np.flatnonzero(place < MOST_PAIRS))
