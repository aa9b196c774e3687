"""How much of what rankings seem to say is believed: models averaged by their evidence, the retriever one of
them.

A model is a set of inputs, the β at which people choose by scores, and the spread that a prior, normal around
0, gives the weights: z = β · ((s_0 + w · x)⁺ − (s_0 + w · x)⁻), P(y⁺ preferred) = σ(z). Its evidence is the
probability of the pairs under that prior (Laplace's approximation; MacKay, Neural Computation 4, 1992). The
residual is the average of the models' weights; the retriever has none. So what little data say moves little,
what many say much, and nothing is thrown like a switch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_matrix
from scipy.special import expit

from ragkit.reranking.features import NAMES
from ragkit.reranking.objective import Objective
from ragkit.reranking.table import Table

BETAS = (0.01, 0.03, 0.1, 0.3, 0.8)  # logits of a person's choice for one of s_0
FAINT = 0.003  # the retriever's own least β, so that it explains noise no worse than a model does
SPREADS = (0.3, 0.7, 1.5)  # logits of s_0: standard deviations of the prior, where all inputs are weighed
ALONE = (0.7, 2.0)  # the same, where one is weighed alone
ODDS = 10.0  # before anything is seen: that the rankings say no more than the retriever
LEAST = 0.005  # a model with a smaller share is left out, its share with it
PLACE = 3.0  # logits: the prior's standard deviation of what a place is worth
PAIR = ("chosen", "rejected", "target", "weight", "base", "shift")  # columns of `Told`
STEPS = 25  # of Newton's method, which takes three to eight


@dataclass(frozen=True)
class Model:
    """The columns `first` to `end` of the inputs, weighed; `share`: the probability that it is this one."""

    first: int
    end: int
    beta: float
    spread: float
    share: float
    weights: np.ndarray  # (end − first,)

    @property
    def capacity(self) -> str:
        return "embeddings" if self.end > len(NAMES) else "features"


@dataclass(frozen=True)
class Evidence:
    """The models that matter, and what one place earlier is worth beside them, `first`, in logits."""

    models: tuple[Model, ...]
    first: float

    @property
    def share(self) -> float:
        """Of the residual that is believed, 0 to 1: what is left is the retriever's."""
        return sum(model.share for model in self.models)

    def weights(self, size: int) -> np.ndarray:
        """The average, (size,), the retriever's zeros in it."""
        total = np.zeros(size)
        for model in self.models:
            total[model.first : model.end] += model.share * model.weights
        return total


class Told:
    """What a table's pairs say, (P,) each, none of them a tie, of documents' scores: likelihood and slopes.

    A ranking of K documents is K(K − 1)/2 pairs, which say the same again and again. They are weighed so that
    the score of a list ranked by chance varies as its information says (a calibrated composite likelihood;
    Varin, Reid and Firth, Statistica Sinica 21, 2011): together they count 2P² / Σ d², d the number of
    documents below one minus those above. That is 1.5 · K (K − 1)/(K + 1) for an order of K, 1.8 for one good
    document among ten.
    """

    def __init__(self, table: Table, *, anchored: bool = True, first: float = 0.0):
        self.chosen, self.rejected = table.sides.T
        self.target = table.pairs.target
        self.size = len(table.before)
        self.base = anchored * self.apart(table.before)
        gap = np.nan_to_num(table.places[table.sides] @ [-1.0, 1.0])
        self.shift = first * gap
        above = np.bincount(self.chosen, minlength=self.size)
        squares = (above - np.bincount(self.rejected, minlength=self.size)).astype(float) ** 2
        of_list = table.of_list[self.chosen]
        pairs = np.bincount(of_list, minlength=len(table))
        self.weight = (2 * pairs / np.maximum(np.bincount(table.of_list, squares), 1.0))[of_list]

    def columns(self) -> dict[str, np.ndarray]:
        """What it knows of each pair, (P,) each, by name."""
        return {name: getattr(self, name) for name in PAIR}

    @classmethod
    def of(cls, columns: dict[str, np.ndarray], size: int) -> "Told":
        """The same from such columns, of pairs of `size` documents."""
        told = cls.__new__(cls)
        vars(told).update(columns, size=size)
        return told

    @cached_property
    def _graph(self) -> tuple[np.ndarray, csr_matrix]:
        """Which pair each entry is, and the matrix whose entries stand where two documents are a pair."""
        rows, columns = np.r_[self.chosen, self.rejected], np.r_[self.rejected, self.chosen]
        numbered = csr_matrix((np.arange(1, len(rows) + 1), (rows, columns)), (self.size, self.size))
        return numbered.data - 1, numbered.astype(float)

    def apart(self, values: np.ndarray) -> np.ndarray:
        """y⁺ minus y⁻, (P, …), of values of documents, (N, …)."""
        return values[self.chosen] - values[self.rejected]

    def log_likelihood(self, z: np.ndarray) -> np.ndarray:
        """Of logits z, (P, …), summed over the pairs."""
        return (self.weight * self.target) @ z - self.weight @ np.logaddexp(0, z)

    def slope(self, z: np.ndarray, p: np.ndarray | None = None) -> np.ndarray:
        """The log-likelihood's derivative by the scores of documents, (N,), at logits z, (P,); `p`, if known:
        σ(z)."""
        each = self.weight * (self.target - (expit(z) if p is None else p))
        return np.bincount(self.chosen, each, self.size) - np.bincount(self.rejected, each, self.size)

    def curvature(self, z: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Σ p (1 − p) x xᵀ over the pairs, (F, F), x the differences of `values`, (N, F): by documents, of
        which there are fewer than pairs."""
        p = expit(z)
        each = self.weight * p * (1 - p)
        degree = np.bincount(self.chosen, each, self.size) + np.bincount(self.rejected, each, self.size)
        order, beside = self._graph
        beside.data = np.r_[each, each][order]
        return values.T @ (degree[:, None] * values - beside @ values)


def most_probable(
    told: Told,
    values: np.ndarray,
    beta: float,
    precision: np.ndarray,
    start: np.ndarray,
    *,
    steps: int = STEPS,
) -> tuple[np.ndarray, float]:
    """The most probable weights on `values`, (F,), from `start`, and the log-evidence; by Newton's method.

    `precision`, (F,): the prior's, 1 / variance.
    """
    w, base = start, beta * told.base + told.shift

    def posterior(w: np.ndarray) -> tuple[np.ndarray, float]:
        z = base + beta * told.apart(values @ w)
        return z, told.log_likelihood(z) - w @ (precision * w) / 2

    z, now = posterior(w)
    for _ in range(steps):
        slope = beta * values.T @ told.slope(z) - precision * w
        factor = cho_factor(beta**2 * told.curvature(z, values) + np.diag(precision))
        step = cho_solve(factor, slope)
        if slope @ step < 1e-6:  # twice what is left to gain, in nats
            break
        z, then = posterior(w + step)
        while then < now:
            step /= 2
            z, then = posterior(w + step)
        w, now = w + step, then
    return w, now + np.log(precision).sum() / 2 - np.log(np.diag(factor[0])).sum()


def weigh(values: np.ndarray, table: Table, capacities: Sequence[str], objective: Objective) -> Evidence:
    """The models of `capacities` for `values`, (N, F), the features in front; each feature alone beside them.

    Every capacity is as probable as another, before anything is seen, and so is each of its models.
    """
    anchored = objective.anchor == "offset"
    place = _place(values[:, : len(NAMES)], table, anchored) if objective.first else 0.0
    told = Told(table, anchored=anchored, first=place)
    families = [_together(told, values[:, : len(NAMES)])] if "features" in capacities else []
    families += [_together(told, values)] if "embeddings" in capacities else []
    families += [_alone(told, values[:, : len(NAMES)])]
    none = _of_retriever(told)
    evidence = [none - np.log(len(none)) + np.log(ODDS * len(families))]
    evidence += [np.array([model.share for model in family]) - np.log(len(family)) for family in families]
    share = np.exp(np.concatenate(evidence) - np.concatenate(evidence).max())
    share = (share / share.sum())[len(none) :]
    models = [model for family in families for model in family]
    return Evidence(
        tuple(replace(model, share=float(p)) for model, p in zip(models, share) if p >= LEAST), place
    )


def retrievers(told: Told) -> tuple[np.ndarray, np.ndarray]:
    """Of the retriever alone: the probability of each β at which people choose by it, and the β."""
    none = _of_retriever(told)
    share = np.exp(none - none.max())
    return share / share.sum(), np.array([FAINT, *BETAS])


def _of_retriever(told: Told) -> np.ndarray:
    """The log-evidence of s_0 alone, by β."""
    return np.array([told.log_likelihood(beta * told.base + told.shift) for beta in (FAINT, *BETAS)])


def _together(told: Told, values: np.ndarray) -> list[Model]:
    """All of `values` weighed, at each β and spread; `share` is the log-evidence yet."""
    models = []
    for beta in BETAS:
        w = np.zeros(values.shape[1])
        for spread in SPREADS:
            w, evidence = most_probable(told, values, beta, np.full(len(w), spread**-2), w)
            models.append(Model(0, len(w), beta, spread, evidence, w))
    return models


def _alone(told: Told, values: np.ndarray) -> list[Model]:
    """Each of `values` alone, (F,) models for each β and spread, all of them at once."""
    models, x = [], told.apart(values)
    for beta in BETAS[1:]:
        base = (beta * told.base + told.shift)[:, None]
        w = np.zeros(values.shape[1])
        for spread in ALONE:
            for _ in range(STEPS):
                p = expit(base + beta * x * w)
                slope = (
                    beta * np.einsum("p,pf,pf->f", told.weight, told.target[:, None] - p, x) - w / spread**2
                )
                curved = beta**2 * np.einsum("p,pf,pf->f", told.weight, p * (1 - p), x**2) + spread**-2
                step = np.clip(slope / curved, -1.0, 1.0)
                w = w + step
                if (slope * step).max() < 1e-6:
                    break
            evidence = told.log_likelihood(base + beta * x * w) - w**2 / (2 * spread**2)
            evidence = evidence - np.log(spread) - np.log(curved) / 2
            models += [Model(j, j + 1, beta, spread, evidence[j], w[j : j + 1]) for j in range(len(w))]
    return models


def _place(values: np.ndarray, table: Table, anchored: bool) -> float:
    """What one place earlier is worth, in logits, beside a middling model of the taste; 0 where no place is
    known. Pages that are shuffled make it independent of the taste."""
    told, beta, spread = Told(table, anchored=anchored), BETAS[3], SPREADS[-1]
    shown = -np.where(np.isnan(table.places), 0.0, table.places)
    both = np.column_stack([values, shown / beta])
    precision = np.append(np.full(values.shape[1], spread**-2), PLACE**-2)
    return float(most_probable(told, both, beta, precision, np.zeros(len(precision)))[0][-1])


def held_out_share(scores: np.ndarray, table: Table) -> float:
    """The share, 0 to 1, of what `scores`, (N,), add to the retriever's, by the likelihood of pairs of lists
    that they did not see, each averaged over β, and the same odds."""
    told = Told(table)
    by_beta = [
        np.logaddexp.reduce([told.log_likelihood(beta * told.apart(one)) for beta in BETAS])
        for one in (scores, table.base)
    ]
    return float(expit(by_beta[0] - by_beta[1] - np.log(ODDS)))
