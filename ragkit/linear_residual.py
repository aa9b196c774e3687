"""The linear residual: r = w · inputs, fitted to its optimum, with ridge, by L-BFGS."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize

from ragkit.inputs import Inputs
from ragkit.objective import Objective
from ragkit.table import Table

LOOSE = 1e-4  # the ridge on the effect of the shown place: a bias of our layout is no taste
ROUNDS = 4  # of weights that follow the scores


@dataclass(frozen=True)
class LinearResidual:
    """`weights` (F,) on `inputs`; `first`: what one place earlier in the shown order is worth, in logits."""

    inputs: Inputs
    weights: np.ndarray
    first: float = 0.0

    def of(self, described) -> np.ndarray:
        """r, (K,), in logits."""
        return self.inputs.of_one(described) @ self.weights

    def parts(self, described) -> dict[str, np.ndarray]:
        """What each input adds, (K,) each; their sum is `of`. Directions of the embeddings count as one."""
        added = self.inputs.of_one(described) * self.weights
        names = self.inputs.names
        parts = {name: added[:, n] for n, name in enumerate(names) if "direction" not in name}
        rest = [n for n, name in enumerate(names) if "direction" in name]
        return parts | ({"embedding": added[:, rest].sum(1)} if rest else {})


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
    values = torch.from_numpy(values)
    size = values.shape[1]
    held = _held(size, ridge)
    w = np.zeros(size + 1) if start is None else start
    moving = objective.moving
    for _ in range(ROUNDS if moving else 1):
        scores = table.base + values.numpy() @ w[:-1] if moving else None
        w = _minimum(values, objective(table, scores), held, w, rough)
    return w


def _minimum(values: torch.Tensor, loss, held: torch.Tensor, start: np.ndarray, rough: bool) -> np.ndarray:
    size = values.shape[1]

    def value_and_gradient(at: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.from_numpy(at).requires_grad_()
        total = loss(values @ w[:size], w[size]).mean() + (held * w**2).sum() / 2
        (gradient,) = torch.autograd.grad(total, w)
        return total.item(), gradient.numpy()

    until = (
        {"maxiter": 30, "gtol": 1e-3, "ftol": 1e-6}
        if rough
        else {"maxiter": 200, "gtol": 1e-6, "ftol": 1e-12}
    )
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=until).x
    if not np.isfinite(found).all():
        raise ValueError("the fit diverged: these pairs have no minimum; try another loss or more of them")
    return found


def standard_errors(
    values: np.ndarray, table: Table, objective: Objective, ridge: float, w: np.ndarray
) -> np.ndarray:
    """Of the solved weights, (F + 1,): the root of the diagonal of H⁻¹ G H⁻¹, where G sums gradients by query
    (the sandwich estimator), since pairs of one query are not independent."""
    at, values = torch.from_numpy(w), torch.from_numpy(values)
    loss = objective(table, table.base + values.numpy() @ w[:-1] if objective.moving else None)
    size, held = values.shape[1], _held(values.shape[1], ridge)

    def each(w):
        return loss(values @ w[:size], w[size])

    number = {query: n for n, query in enumerate(dict.fromkeys(table.queries))}
    lists = np.array([number[query] for query in table.queries])
    rows = len(each(at))
    of = lists[table.pair_list] if rows == len(table.pairs) else lists[:rows]

    def grouped(w):
        return torch.zeros(len(number), dtype=torch.float64).index_add(
            0, torch.from_numpy(of), each(w) / rows
        )

    hessian = torch.autograd.functional.hessian(lambda w: each(w).mean() + (held * w**2).sum() / 2, at)
    gradients = torch.autograd.functional.jacobian(grouped, at)  # (queries, F + 1)
    inverse = torch.linalg.pinv(hessian)
    return (inverse @ gradients.T @ gradients @ inverse).diagonal().clamp(min=0).sqrt().numpy()


def precision(
    known: tuple[np.ndarray, Table] | None, weights: np.ndarray, beta: float, ridge: float
) -> np.ndarray:
    """The curvature, (F, F), of the logistic loss summed over the queries of `known` (inputs and table).

    Mean loss + ridge/2 · |w|² is, times the number of queries, a log-likelihood and a normal prior; `ridge`
    alone stands where nothing is known yet.
    """
    identity = np.eye(len(weights))
    if known is None or not len(known[1].pairs):
        return ridge * identity
    values, table = known
    scores = table.base + values @ weights
    difference = values[table.sides[:, 0]] - values[table.sides[:, 1]]
    p = 1 / (1 + np.exp(-beta * (scores[table.sides] @ [1.0, -1.0])))
    sizes = np.bincount(table.of_list)[table.pair_list]
    each = 2 / sizes * beta**2 * p * (1 - p)  # K documents tell K − 1 times, not once a pair
    return (difference * each[:, None]).T @ difference + ridge * len(set(table.queries)) * identity


def _held(size: int, ridge: float) -> torch.Tensor:
    held = torch.full((size + 1,), float(ridge), dtype=torch.float64)
    held[-1] = LOOSE
    return held
