"""What to ask next: the query whose ranking would tell the reranker most."""

from collections.abc import Callable, Sequence

import numpy as np

from ragkit.reranking.linear import Inputs
from ragkit.reranking.prior import people
from ragkit.reranking.selection import MIDDLING
from ragkit.reranking.table import Table, base_scores
from ragkit.retrieval.corpus import Hit, Passage


class MostInformative:
    """For `RankDocuments(choose=…)`: of the remaining queries, the one with the most expected information.

    `find(query)` gives the hits that would be ranked, as `Assistant.find` does; `information` says how much
    their order would tell the reranker. `least`: so many queries are taken in order first, as long as the
    reranker has seen fewer. `look_at`: at most so many candidates are compared.
    """

    def __init__(self, reranker, find: Callable[[str], Sequence[Hit]], *, least: int = 5, look_at: int = 200):
        self.reranker, self.find, self.least, self.look_at = reranker, find, least, look_at
        self._passages: dict[str, list[Passage]] = {}

    def __call__(self, queries: Sequence[str]) -> str:
        if self.reranker.seen < self.least:
            return queries[0]
        return max(queries[: self.look_at], key=self._information)

    def _information(self, query: str) -> float:
        if query not in self._passages:
            self._passages[query] = [hit.passage for hit in self.find(query)]
        return information(self.reranker, query, self._passages[query])


def information(reranker, query: str, passages: Sequence[Passage]) -> float:
    """How much a ranking of these would tell, in nats: ½ log det(I + H⁻¹ Σ β² p (1 − p) x xᵀ).

    H: the curvature of the loss so far, x: the difference of two documents' inputs, p: the probability that
    the first is preferred; the sum runs over the K documents' pairs, so divided that it counts K − 1 of
    them. It is the expected gain of D-optimal design for a logistic model. Raises ValueError for a
    cross-encoder.
    """
    if reranker.capacity == "cross-encoder":
        raise ValueError("capacity='cross-encoder' can't tell what a ranking would teach it")
    described, fitted = reranker.describe(query, passages), reranker.fitted
    settings, residual, table = fitted.settings or MIDDLING, fitted.residual, fitted.table
    inputs = residual.inputs if residual else Inputs.fit(settings.capacity, table or described)
    values = inputs(described)
    weights = residual.weights if residual else np.zeros(values.shape[1])
    known = None if table is None else (inputs(table), table)
    curvature = precision(known, weights, settings.beta, settings.spread)
    a, b = np.triu_indices(len(passages), 1)
    scores = base_scores(described) + (people(described) if fitted.prior else 0.0) + values @ weights
    more = _fisher(values[a] - values[b], scores[a] - scores[b], settings.beta, len(passages))
    return float(np.linalg.slogdet(np.eye(len(more)) + np.linalg.solve(curvature, more))[1] / 2)


def precision(
    known: tuple[np.ndarray, Table] | None, weights: np.ndarray, beta: float, spread: float
) -> np.ndarray:
    """The curvature, (F, F), of the logistic loss summed over the queries of `known` (inputs and table), and
    of the prior on weights, which stands alone where nothing is known yet."""
    prior = np.eye(len(weights)) / spread**2
    if known is None or not len(known[1].pairs):
        return prior
    values, table = known
    chosen, rejected = table.sides.T
    scores = table.before + values @ weights
    sizes = np.bincount(table.of_list)[table.pair_list]
    x, z = values[chosen] - values[rejected], scores[chosen] - scores[rejected]
    return _fisher(x, z, beta, sizes) + prior


def _fisher(x: np.ndarray, z: np.ndarray, beta: float, sizes: np.ndarray | int) -> np.ndarray:
    """Σ β² p (1 − p) x xᵀ, (F, F), with p = σ(βz): K documents tell K − 1 times, not once a pair."""
    p = 1 / (1 + np.exp(-beta * z))
    return (x * (2 / sizes * beta**2 * p * (1 - p))[:, None]).T @ x
