"""How far what was learned is trusted, and how far it may move a ranking from the retriever's."""

from dataclasses import dataclass

import numpy as np

STEPS = 25  # of bisection: α to 3e-8
# Full trust within the distance that this share of the training lists keep to; none at ENDS times that.
USUAL, ENDS = 0.95, 1.5
LEAST = 0.05  # spread of a feature, below which differences count no further
NEAR = 0.5  # a distance that is near whatever was trained on


def kl_from_base(residual: np.ndarray, base: np.ndarray) -> float:
    """KL(softmax(base + residual) ‖ softmax(base)) over one list's documents, (K,) each; in nats."""
    return float(_kl(residual[:, None], base, np.zeros(len(base), dtype=int))[0, 0])


def bounded(
    residual: np.ndarray, base: np.ndarray, most: float, of_list: np.ndarray | None = None
) -> np.ndarray:
    """base + α · residual, with the largest α ≤ 1 that keeps the KL of each list from the base within `most`.

    `residual`: (N,), or (N, G) for G of them at once, and so the scores; `base`: (N,); `of_list`: the list of
    each document, (N,), one list unless given.
    """
    of_list = np.zeros(len(base), dtype=int) if of_list is None else of_list
    residuals = residual.reshape(len(base), -1)  # (N, G)
    far = _kl(residuals, base, of_list) > most  # (L, G)
    low, high = np.where(far, 0.0, 1.0), np.ones(far.shape)
    if far.any():
        for _ in range(STEPS):  # the KL grows with α: d KL/dα = α · Var(residual) ≥ 0
            middle = (low + high) / 2
            fits = _kl(middle[of_list] * residuals, base, of_list) <= most
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return (base[:, None] + low[of_list] * residuals).reshape(residual.shape)


def list_means(values: np.ndarray, of_list: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each list, (L, F), of values (N, F); and the lists' sizes, (L,)."""
    sizes = np.bincount(of_list)
    return np.add.reduceat(values, _starts(of_list)) / sizes[:, None], sizes


@dataclass(frozen=True)
class Domain:
    """Where the training lists lie: of their features' means, (F,), the `mean`, and the variances `between`
    the lists and `within` a list; `limit`: the distance within which USUAL of them are.

    A person's taste in one kind of documents says little of another kind: a reranker trained on short answers
    of laymen makes the order of scientific abstracts far worse than the retriever's.
    """

    mean: np.ndarray
    between: np.ndarray
    within: np.ndarray
    limit: float

    @classmethod
    def fit(cls, table) -> "Domain":
        means, sizes = list_means(table.features, table.of_list)
        within = ((table.features - means[table.of_list]) ** 2).sum(0) / max(sizes.sum() - len(sizes), 1)
        between = np.maximum(means.var(0) - within * np.mean(1 / sizes), 0.0)
        distances = cls(means.mean(0), between, within, 1.0).distance(table)
        return cls(means.mean(0), between, within, max(float(np.quantile(distances, USUAL)), NEAR))

    def distance(self, lists) -> np.ndarray:
        """(L,), of a `Table` or of one `Described`: the root mean square over the features of
        (list's mean − mean) / its spread for K documents."""
        means, sizes = list_means(lists.features, lists.of_list)
        spread = self.between + self.within / sizes[:, None] + LEAST**2
        return np.sqrt(((means - self.mean) ** 2 / spread).mean(1))

    def trust(self, lists) -> np.ndarray:
        """(L,): the share of a residual to apply, from 1 for a list like those of training down to 0."""
        return np.clip((ENDS - self.distance(lists) / self.limit) / (ENDS - 1), 0.0, 1.0)


def _starts(of_list: np.ndarray) -> np.ndarray:
    """(L,): where the documents of each list begin."""
    return np.searchsorted(of_list, np.arange(of_list[-1] + 1))


def _kl(residuals: np.ndarray, base: np.ndarray, of_list: np.ndarray) -> np.ndarray:
    """(L, G)."""
    starts = _starts(of_list)
    log_p = _log_softmax(base[:, None] + residuals, starts, of_list)
    log_q = _log_softmax(base[:, None], starts, of_list)
    return np.add.reduceat(np.exp(log_p) * (log_p - log_q), starts)


def _log_softmax(x: np.ndarray, starts: np.ndarray, of_list: np.ndarray) -> np.ndarray:
    x = x - np.maximum.reduceat(x, starts)[of_list]
    return x - np.log(np.add.reduceat(np.exp(x), starts))[of_list]
