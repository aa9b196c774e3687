"""What a linear residual learns, and whether it would have helped on queries that it did not see."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from ragkit.losses.pairwise import unchecked_pair_loss
from ragkit.losses.strengths import learned
from ragkit.reranking.evidence import Evidence, Told, weigh
from ragkit.reranking.features import Described
from ragkit.reranking.guard import Domain, bounded
from ragkit.reranking.linear import Inputs, LinearResidual, solve
from ragkit.reranking.objective import LISTWISE, Objective
from ragkit.reranking.prior import people, people_parts
from ragkit.reranking.table import Table, base_scores
from ragkit.reranking.updating import Running

FOLDS = 5
LEAST_BETA = 0.1  # of a loss that is no likelihood: below, an IPO's target is beyond any bound
MOST_PAIRS = 60  # of one list: pairs of a long list say the same again and again
SCALES = np.array([0.0, *np.geomspace(0.02, 5.0, 16)])
PRIOR = 1.0  # standard deviation of an annotator's log reliability, before anything was said


@dataclass(frozen=True)
class Settings:
    """Of the most probable model: its inputs, the β of the loss, the spread of its prior on weights."""

    capacity: str
    beta: float
    spread: float


MIDDLING = Settings("features", 0.1, 0.7)


@dataclass(frozen=True)
class Fitted:
    """What a reranker knows. No `objective`: it was not fitted; no `residual`: nothing was learned.

    `tables`: the rankings that it was given, for `update` and active choice; `evidence`, the models that the
    residual is the average of; `running`, what `update` adds to. None of these is saved. `settings`: none of
    a cross-encoder. `residual`: a LinearResidual or a CrossResidual. `prior`: whether it starts from what
    people's rankings have in common.
    """

    objective: Objective | None = None
    tables: tuple[Table, ...] = ()
    evidence: Evidence | None = None
    settings: Settings | None = None
    residual: Callable[[Described], np.ndarray] | None = None
    domain: Domain | None = None
    prior: bool = False
    running: Running | None = None

    @cached_property
    def table(self) -> Table | None:
        """All rankings, one after another: joined when first asked for, which copies thousands of vectors."""
        return Table.join(self.tables) if len(self.tables) > 1 else next(iter(self.tables), None)

    @property
    def parts_told(self) -> tuple[Table, ...]:
        """The rankings in as few tables as were made of them."""
        return (self.table,) if self.tables and "table" in vars(self) else self.tables

    def added(self, described: Described) -> np.ndarray:
        """What is added to s_0, (K,): the prior, and the residual as far as it is to be trusted here; not
        bounded yet."""
        total = people(described) if self.prior else np.zeros(len(described.texts))
        return total + self.domain.trust(described) * self.residual(described) if self.residual else total

    def parts(self, described: Described) -> dict[str, np.ndarray]:
        """`added`, taken apart by what each input adds, (K,) each."""
        parts = people_parts(described) if self.prior else {}
        if self.residual:
            trust = self.domain.trust(described)
            for name, part in self.residual.parts(described).items():
                parts[name] = parts.get(name, 0.0) + trust * part
        return parts

    def scores(self, described: Described, max_kl: float, base: np.ndarray | None = None) -> np.ndarray:
        """`base`, (K,): where they start from, s_0 unless given."""
        return bounded(self.added(described), base_scores(described) if base is None else base, max_kl)

    def tensors(self) -> dict[str, np.ndarray]:
        """What it takes to rerank, by name."""
        parts = {"residual": self.residual.tensors(), "domain": vars(self.domain)} if self.residual else {}
        return {f"{part}.{name}": np.asarray(x) for part in parts for name, x in parts[part].items()}

    @classmethod
    def from_tensors(
        cls, kind: type, encoder, settings: Settings | None, prior: bool, tensors: dict
    ) -> "Fitted":
        """What gave `tensors`; `kind`: of the residual."""
        if not tensors:
            return cls(settings=settings, prior=prior)
        residual, domain = (
            {name.removeprefix(part): x for name, x in tensors.items() if name.startswith(part)}
            for part in ("residual.", "domain.")
        )
        residual = kind.from_tensors(encoder, residual)
        return cls(settings=settings, residual=residual, domain=Domain(**domain), prior=prior)


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


def train(
    table: Table, objective: Objective, capacities: Sequence[str], seed: int = 0
) -> tuple[LinearResidual, Evidence]:
    """What `objective` wants of `table`, each model's weights counted by its evidence.

    The evidence is the logistic loss's, whatever the loss: others are no likelihoods.
    """
    inputs = Inputs.fit(capacities[-1], table)
    values = inputs(table)
    evidence = weigh(values, thinned(table.strict(), seed), capacities, objective)
    if not objective.plain:
        evidence = _by(objective, values, thinned(table, seed), evidence)
    return LinearResidual(inputs, evidence.weights(values.shape[1])), evidence


def renewed(fitted: Fitted, new: Table, seed: int) -> Fitted:
    """With the rankings of `new` too: the same models, with the same shares, from where they are."""
    parts = (*fitted.parts_told, new)
    if not fitted.residual:
        return replace(fitted, tables=parts)
    inputs, evidence, running = fitted.residual.inputs, fitted.evidence, None
    if fitted.objective.plain:
        running, evidence = (fitted.running or started(fitted, seed)).more(
            new, thinned(new.strict(), seed), inputs, evidence, anchored=fitted.objective.anchor == "offset"
        )
        domain = running.domain()
    else:
        table = Table.join(parts)
        parts, domain = (table,), Domain.fit(table)
        evidence = _by(fitted.objective, inputs(table), thinned(table, seed), evidence)
    weights = evidence.weights(len(fitted.residual.weights))
    fitted = replace(fitted, tables=parts, evidence=evidence, running=running, domain=domain)
    return replace(fitted, residual=LinearResidual(inputs, weights))


def started(fitted: Fitted, seed: int) -> Running:
    """What the first update would else sum up."""
    told = thinned(fitted.table.strict(), seed), fitted.residual.inputs, fitted.evidence
    return Running.of(fitted.table, *told, anchored=fitted.objective.anchor == "offset")


def _by(objective: Objective, values: np.ndarray, table: Table, evidence: Evidence) -> Evidence:
    """The models with the weights at which `objective` is least, by the prior's ridge."""
    told = len(table) if objective.loss == LISTWISE else Told(table).weight.sum()
    # Of a preference a little above chance, IPO at τ = β / 4 makes what the logistic loss makes at β.
    scale = 0.25 if objective.loss == "ipo" else 1.0
    models = []
    for model in evidence.models:
        some, beta = values[:, model.first : model.end], max(scale * model.beta, LEAST_BETA)
        start = np.append(model.weights, 0.0)
        w = solve(some, table, objective.at(beta), 1 / (told * model.spread**2), start, rough=True)
        models.append(replace(model, weights=w[:-1]))
    return replace(evidence, models=tuple(models))


def resolved(objective: Objective, table: Table) -> Objective:
    """`objective` with `strength="learned"` made the reliabilities that `table` shows."""
    if objective.strength != "learned":
        return objective
    return replace(objective, strength=learned(reliabilities(table, objective)))


def reliabilities(table: Table, objective: Objective) -> dict[str, float]:
    """By annotator: the scale at which scores predict their pairs best; 1 is everybody together.

    The scores are of a model of the features that believes everybody alike. A scale of 2 means differences
    count double for this person, near 0 that they choose at random. Few pairs leave it near 1 (a normal prior
    on its logarithm); a query counts once, whatever the length of its lists.
    """
    scores = table.before + train(table, replace(objective, strength=None), ["features"])[0](table)
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


def out_of_fold(
    table: Table, objective: Objective, capacities: Sequence[str], max_kl: float, seed: int
) -> np.ndarray:
    """Scores, (N,), for each list by a model that did not see its query."""
    scores = table.base.copy()
    for known, new, rows in _splits(table, FOLDS, seed):
        residual, _ = train(known, resolved(objective, known), capacities, seed)
        added = new.prior + Domain.fit(known).trust(new)[new.of_list] * residual(new)
        scores[rows] = bounded(added, new.base, max_kl, new.of_list)
    return scores


def fit_linear(
    base: Fitted, capacities: Sequence[str], max_kl: float, seed: int
) -> tuple[Fitted, np.ndarray, dict]:
    """A linear residual for `base`'s table and objective; scores, (N,), of models that did not see a list's
    query; and, for the report, `share`, and `reliability` where it was fitted."""
    table, objective, facts = base.table, base.objective, {}
    scores = out_of_fold(table, objective, capacities, max_kl, seed)
    if objective.strength == "learned":
        facts["reliability"] = reliabilities(table, objective)
        objective = replace(objective, strength=learned(facts["reliability"]))
    residual, evidence = train(table, objective, capacities, seed)
    best = max(evidence.models, key=lambda model: model.share, default=None)
    fitted = replace(base, objective=objective, evidence=evidence, residual=residual if best else None)
    if best:
        settings = Settings(best.capacity, best.beta, best.spread)
        fitted = replace(fitted, settings=settings, domain=Domain.fit(table))
        if objective.plain:
            fitted = replace(fitted, running=started(fitted, seed))
    return fitted, scores, facts | {"share": evidence.share}


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
