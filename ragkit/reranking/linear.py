"""The linear residual, r = w · inputs: what it looks at, and its optimum, with ridge, by L-BFGS."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from ragkit.reranking.features import NAMES
from ragkit.reranking.guard import list_means
from ragkit.reranking.objective import Objective
from ragkit.reranking.table import Table

CAPACITIES = ("features", "embeddings")
DIRECTIONS, CROSSED = 16, 6
FARTHEST = 3.0  # in spreads: what is odder than anything seen in training must not decide alone
LOOSE = 1e-4  # the ridge on the effect of the shown place: a bias of our layout is no taste
ROUNDS = 4  # of weights that follow the scores


@dataclass(frozen=True)
class Inputs:
    """The numbers that are weighed, (N, F): each centred within its list, and divided by its spread within
    lists in training, since only differences within a list can change an order; cut at ±FARTHEST.

    "features": those of NAMES. "embeddings": these, the documents' coordinates on their DIRECTIONS principal
    directions (a linear residual on the frozen encoder), and the products of the query's and the document's
    coordinates on the first CROSSED of them (a bilinear one of low rank).
    """

    spread: np.ndarray  # (F,)
    centre: np.ndarray  # (D,)
    basis: np.ndarray  # (D, DIRECTIONS or fewer; 0 for "features")

    @classmethod
    def fit(cls, capacity: str, table) -> "Inputs":
        """Fitted to the documents of a `Table`, or of one `Described`."""
        vectors = table.vectors.astype(np.float64)
        centre = vectors.mean(0)
        embeddings = capacity == "embeddings"
        basis = _directions(vectors - centre) if embeddings else np.zeros((len(centre), 0))
        within = cls(np.ones(1), centre, basis)._centred(table)
        spread = np.sqrt((within**2).mean(0))
        return cls(np.where(spread > 1e-9, spread, 1.0), centre, basis)

    def __call__(self, lists) -> np.ndarray:
        """(N, F), of a `Table` or of one `Described`."""
        return np.clip(self._centred(lists) / self.spread, -FARTHEST, FARTHEST)

    def _centred(self, lists) -> np.ndarray:
        placed = (lists.vectors - self.centre) @ self.basis  # (N, DIRECTIONS)
        crossed = placed[:, :CROSSED] * ((lists.asked - self.centre) @ self.basis[:, :CROSSED])
        return centred(np.concatenate([lists.features, placed, crossed], axis=1), lists.of_list)


def centred(values: np.ndarray, of_list: np.ndarray) -> np.ndarray:
    """Minus the mean of its list, (N, F)."""
    return values - list_means(values, of_list)[0][of_list]


def _directions(vectors: np.ndarray) -> np.ndarray:
    """The principal directions of centred vectors as columns, the one of the largest spread first."""
    count = min(DIRECTIONS, len(vectors) - 1, vectors.shape[1])
    directions = np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1][:, :count]
    # The sign of a direction is arbitrary: fix it, so that the same data give the same weights.
    return directions * np.sign(directions[np.abs(directions).argmax(0), np.arange(count)])


@dataclass(frozen=True)
class LinearResidual:
    """`weights` (F,) on `inputs`; `first`: what one place earlier in the shown order is worth, in logits."""

    inputs: Inputs
    weights: np.ndarray
    first: float = 0.0

    def __call__(self, lists) -> np.ndarray:
        """r, (N,), in logits, of a `Table` or of one `Described`."""
        return self.inputs(lists) @ self.weights

    def parts(self, described) -> dict[str, np.ndarray]:
        """What each input adds, (K,) each; their sum is r. Directions of the embeddings count as one."""
        features, rest = np.split(self.inputs(described) * self.weights, [len(NAMES)], axis=1)
        return dict(zip(NAMES, features.T)) | ({"embedding": rest.sum(1)} if rest.size else {})

    def tensors(self) -> dict[str, np.ndarray]:
        """What it takes to make it again, by name."""
        return vars(self.inputs) | {"weights": self.weights, "first": np.array(self.first)}

    @classmethod
    def from_tensors(cls, encoder, tensors: dict[str, np.ndarray]) -> "LinearResidual":
        inputs = Inputs(*(tensors[name] for name in ("spread", "centre", "basis")))
        return cls(inputs, tensors["weights"], float(tensors["first"]))


@contextmanager
def one_thread():
    """One thread for PyTorch, BLAS and OpenMP inside; as before after. The steps of a linear fit are so small
    that waking a second takes longer: on a busy machine, the fit is ten times faster so."""
    before = torch.get_num_threads()
    try:
        with threadpool_limits(1):
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(before)


def solve(
    values: np.ndarray,
    table: Table,
    objective: Objective,
    ridge: float,
    start: np.ndarray | None = None,
    *,
    rough: bool = False,
) -> np.ndarray:
    """The weights (F,) on inputs `values`, (N, F), and after them the effect of the shown place: (F + 1,).

    Minimises mean loss + ridge/2 · |w|² from `start` (default 0). Weights that look at scores, as
    `delta_ndcg` does, are brought up to date a few times. `rough`: near the optimum will do.
    """
    w = np.zeros(values.shape[1] + 1) if start is None else start
    most, slope, change = (30, 1e-3, 1e-6) if rough else (200, 1e-6, 1e-12)
    until = {"maxiter": most, "gtol": slope, "ftol": change}
    for _ in range(ROUNDS if objective.moving else 1):
        loss = _with_ridge(_loss_of_weights(values, table, objective, w), ridge, len(w))
        w = minimize(_value_and_gradient, w, (loss,), jac=True, method="L-BFGS-B", options=until).x
        if not np.isfinite(w).all():
            raise ValueError(
                "the fit diverged: these pairs have no minimum; try another loss or more of them"
            )
    return w


def _value_and_gradient(w: np.ndarray, loss: Callable) -> tuple[float, np.ndarray]:
    w = torch.from_numpy(w).requires_grad_()
    value = loss(w)
    return value.item(), torch.autograd.grad(value, w)[0].numpy()


def _loss_of_weights(values: np.ndarray, table: Table, objective: Objective, w: np.ndarray) -> Callable:
    """The objective's values as a function of weights, (F + 1,); its knobs look at the scores by `w`."""
    loss, values = objective(table, table.base + values @ w[:-1]), torch.from_numpy(values)
    return lambda w: loss(values @ w[:-1], w[-1])


def _with_ridge(each: Callable, ridge: float, size: int) -> Callable:
    """The mean of `each`, and what holds the weights near 0."""
    held = torch.full((size,), ridge, dtype=torch.float64)
    held[-1] = LOOSE
    return lambda w: each(w).mean() + (held * w**2).sum() / 2
