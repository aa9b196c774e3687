"""The linear residual, r = w · inputs: what it looks at, and its optimum, with ridge, by L-BFGS."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

from ragkit.reranking.features import NAMES
from ragkit.reranking.guard import list_means
from ragkit.reranking.objective import Objective
from ragkit.reranking.table import Table

CAPACITIES = ("features", "embeddings")
DIRECTIONS = 64
FARTHEST = 3.0  # in spreads: what is odder than anything seen in training must not decide alone
LOOSE = 1e-4  # the ridge on the effect of the shown place: a bias of our layout is no taste
ROUNDS = 4  # of weights that follow the scores


@dataclass(frozen=True)
class Inputs:
    """The numbers that are weighed, (N, F), each centred within its list, since only differences within a
    list can change an order.

    "features": those of NAMES, divided by their spread within lists in training and cut at ±FARTHEST.
    "embeddings": these, and the documents' coordinates on the DIRECTIONS in which vectors differ most within
    lists, all divided by the first one's spread: a linear residual on the frozen encoder, which the prior
    keeps small where the vectors differ little.
    """

    spread: np.ndarray  # (features,)
    basis: np.ndarray  # (D, DIRECTIONS or fewer; 0 for "features")

    @classmethod
    def fit(cls, capacity: str, table) -> "Inputs":
        """Fitted to the documents of a `Table`, or of one `Described`."""
        spread = np.sqrt((centred(table.features, table.of_list) ** 2).mean(0))
        basis = np.zeros((table.vectors.shape[1], 0), dtype=np.float32)
        if capacity == "embeddings":
            basis = _directions(centred(table.vectors.astype(np.float64), table.of_list))
        return cls(np.where(spread > 1e-9, spread, 1.0), basis)

    def __call__(self, lists) -> np.ndarray:
        """(N, F), of a `Table` or of one `Described`."""
        features = np.clip(centred(lists.features, lists.of_list) / self.spread, -FARTHEST, FARTHEST)
        placed = (lists.vectors @ self.basis).astype(np.float64)
        return np.concatenate([features, centred(placed, lists.of_list)], axis=1)


def centred(values: np.ndarray, of_list: np.ndarray) -> np.ndarray:
    """Minus the mean of its list, (N, F)."""
    return values - list_means(values, of_list)[0][of_list]


def _directions(vectors: np.ndarray) -> np.ndarray:
    """The principal directions of vectors, (N, D), as columns, the one of the largest spread first, which
    they are divided by."""
    count = min(DIRECTIONS, len(vectors) - 1, vectors.shape[1])
    variances, directions = np.linalg.eigh(vectors.T @ vectors / len(vectors))
    directions = directions[:, ::-1][:, :count]
    # The sign of a direction is arbitrary: fix it, so that the same data give the same weights.
    signed = directions * np.sign(directions[np.abs(directions).argmax(0), np.arange(count)])
    # In the precision of the vectors: thousands of them take a fifth of the time.
    return (signed / max(np.sqrt(max(variances[-1], 0.0)), 1e-9)).astype(np.float32)


@dataclass(frozen=True)
class LinearResidual:
    """`weights` (F,) on `inputs`."""

    inputs: Inputs
    weights: np.ndarray

    def __call__(self, lists) -> np.ndarray:
        """r, (N,), in logits, of a `Table` or of one `Described`."""
        return self.inputs(lists) @ self.weights

    def parts(self, described) -> dict[str, np.ndarray]:
        """What each input adds, (K,) each; their sum is r. Directions of the embeddings count as one."""
        features, rest = np.split(self.inputs(described) * self.weights, [len(NAMES)], axis=1)
        return dict(zip(NAMES, features.T)) | ({"embedding": rest.sum(1)} if rest.size else {})

    def tensors(self) -> dict[str, np.ndarray]:
        """What it takes to make it again, by name."""
        return vars(self.inputs) | {"weights": self.weights}

    @classmethod
    def from_tensors(cls, encoder, tensors: dict[str, np.ndarray]) -> "LinearResidual":
        return cls(Inputs(tensors["spread"], tensors["basis"]), tensors["weights"])


@cache
def _libraries() -> ThreadpoolController:
    """Those that are loaded, which takes milliseconds to find out."""
    return ThreadpoolController()


@contextmanager
def one_thread():
    """One thread for PyTorch, BLAS and OpenMP inside; as before after. The steps of a linear fit are so small
    that waking a second takes longer: on a busy machine, the fit is ten times faster so."""
    before = torch.get_num_threads()
    try:
        with _libraries().limit(limits=1):
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
    loss, values = objective(table, table.before + values @ w[:-1]), torch.from_numpy(values)
    return lambda w: loss(values @ w[:-1], w[-1])


def _with_ridge(each: Callable, ridge: float, size: int) -> Callable:
    """The mean of `each`, and what holds the weights near 0."""
    held = torch.full((size,), ridge, dtype=torch.float64)
    held[-1] = LOOSE
    return lambda w: each(w).mean() + (held * w**2).sum() / 2
