"""One more ranking: what a fit has summed up is kept and added to, so a click costs a step and not a fit."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from ragkit.reranking.evidence import Evidence, Model, Told
from ragkit.reranking.guard import Domain, signs_of
from ragkit.reranking.linear import Inputs
from ragkit.reranking.table import Table

GROWN = 1 / 8  # of the pairs may be newer than a curvature before it is summed up anew


class Columns:
    """Arrays of equally many rows, to which `more` adds at the end: in room that is there already, so that
    it costs what is added, until that room is full. Earlier ones stay as they were."""

    def __init__(self, arrays: Mapping[str, np.ndarray], room: int = 0):
        self.size = len(next(iter(arrays.values())))
        self._room = max(room, self.size) * 5 // 4 + 64
        self._held = {x: np.empty((self._room, *some.shape[1:]), some.dtype) for x, some in arrays.items()}
        for name, some in arrays.items():
            self._held[name][: self.size] = some
        # Where those that share the room end. The one that goes on takes it out; another makes its own room.
        self._end = [self.size]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._held[name][: self.size]

    def all(self) -> dict[str, np.ndarray]:
        return {name: self[name] for name in self._held}

    def more(self, rows: Mapping[str, np.ndarray]) -> "Columns":
        end = self.size + len(next(iter(rows.values())))
        shared = self._end.pop() if self._end else None  # atomic, should two threads come at once
        if shared == self.size and end <= self._room:
            grown = copy.copy(self)
        else:
            self._end += [] if shared is None else [shared]
            grown = Columns(self.all(), room=end)
            grown._end.pop()
        for name, new in rows.items():
            grown._held[name][self.size : end] = new
        grown.size = end
        grown._end.append(end)
        return grown


@dataclass(frozen=True)
class Running:
    """What a step needs of all rankings: of documents their inputs, of pairs what `Told` has, of lists what
    `Domain` sees; and of each model its curvature, (F, F), exact when there were `exact` pairs."""

    documents: Columns
    pairs: Columns
    lists: Columns
    curvatures: tuple[np.ndarray, ...]
    exact: int

    @classmethod
    def of(
        cls, table: Table, strict: Table, inputs: Inputs, evidence: Evidence, *, anchored: bool
    ) -> "Running":
        """`strict`: the same table with the pairs that count."""
        told = Told(strict, anchored=anchored, first=evidence.first)
        values = inputs(table)
        curvatures = tuple(_curvature(told, values, model) for model in evidence.models)
        pairs = Columns(told.columns())
        return cls(Columns({"values": values}), pairs, Columns(signs_of(table)), curvatures, pairs.size)

    def more(
        self, table: Table, strict: Table, inputs: Inputs, evidence: Evidence, *, anchored: bool
    ) -> tuple["Running", Evidence]:
        """With the rankings of `table`, and the models one step of Newton's method nearer to their optimum.

        The slope is that of all pairs, so that what is reached in the end is exact; the curvature is that of
        older weights, which only the way there depends on.
        """
        told = Told(strict, anchored=anchored, first=evidence.first)
        values, before = inputs(table), self.documents.size
        documents, lists = self.documents.more({"values": values}), self.lists.more(signs_of(table))
        new = told.columns()
        pairs = self.pairs.more(new | {side: new[side] + before for side in ("chosen", "rejected")})
        whole = Told.of(pairs.all(), documents.size)
        if anew := pairs.size - self.exact > GROWN * pairs.size:
            curvatures = [_curvature(whole, documents["values"], model) for model in evidence.models]
        else:
            added = [_curvature(told, values, model) for model in evidence.models]
            curvatures = [old + more for old, more in zip(self.curvatures, added)]
        models = [
            replace(model, weights=_step(whole, documents["values"], model, curvature))
            for model, curvature in zip(evidence.models, curvatures)
        ]
        exact = pairs.size if anew else self.exact
        running = Running(documents, pairs, lists, tuple(curvatures), exact)
        return running, replace(evidence, models=tuple(models))

    def domain(self) -> Domain:
        return Domain.of(self.lists.all())


def _logits(told: Told, values: np.ndarray, model: Model) -> np.ndarray:
    some = values[:, model.first : model.end]
    return model.beta * (told.base + told.apart(some @ model.weights)) + told.shift


def _curvature(told: Told, values: np.ndarray, model: Model) -> np.ndarray:
    """Of the log-likelihood by the model's weights, without the prior's."""
    some = values[:, model.first : model.end]
    return model.beta**2 * told.curvature(_logits(told, values, model), some)


def _step(told: Told, values: np.ndarray, model: Model, curvature: np.ndarray) -> np.ndarray:
    some, w = values[:, model.first : model.end], model.weights
    precision, z = model.spread**-2, _logits(told, values, model)
    p = expit(z)
    slope = model.beta * some.T @ told.slope(z, p) - precision * w
    step = cho_solve(cho_factor(curvature + precision * np.eye(len(w))), slope)
    if slope @ step < 1e-6:  # twice what is left to gain, in nats
        return w
    along = model.beta * told.apart(some @ step)
    # What the step gains is at least this, for p (1 − p) grows along it by no more than the exponential of
    # how far logits go. Near the optimum that tells; where it does not, both likelihoods are summed up, which
    # takes as long as all else.
    bent = told.weight @ (p * (1 - p) * along**2) * np.exp(np.abs(along).max()) + precision * step @ step
    if slope @ step >= bent / 2:
        return w + step
    now = told.log_likelihood(z) - precision * w @ w / 2
    while told.log_likelihood(z + along) - precision * (w + step) @ (w + step) / 2 < now:
        step, along = step / 2, along / 2
    return w + step
