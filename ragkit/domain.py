"""Is this list like those that were trained on? Where it is not, what was learned is not to be trusted."""

from dataclasses import dataclass

import numpy as np

# Full trust within the distance that this share of the training lists keep to; none at ENDS times that.
USUAL, ENDS = 0.95, 1.5
LEAST = 0.05  # spread of a feature, below which differences count no further
NEAR = 0.5  # a distance that is near whatever was trained on


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
    def of(cls, table) -> "Domain":
        means, sizes = _means(table)
        centred = table.features - means[table.of_list]
        within = (centred**2).sum(0) / max(len(table.base) - len(table), 1)
        between = np.maximum(means.var(0) - within * np.mean(1 / sizes), 0.0)
        found = cls(means.mean(0), between, within, 1.0)
        limit = float(np.quantile(found._distance(means, sizes), USUAL))
        return cls(found.mean, between, within, max(limit, NEAR))

    def distance(self, described) -> float:
        """The root mean square over the features of (list's mean − mean) / its spread for K documents."""
        features = described.features
        return float(self._distance(features.mean(0)[None], np.array([len(features)]))[0])

    def trust(self, described) -> float:
        """The share of a residual to apply, from 1 for a list like those of training down to 0."""
        return float(self._trust(self.distance(described)))

    def trusts(self, table) -> np.ndarray:
        """The same for each list of a table, (L,)."""
        return self._trust(self._distance(*_means(table)))

    def _distance(self, means: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        spread = self.between + self.within / sizes[:, None] + LEAST**2
        return np.sqrt(((means - self.mean) ** 2 / spread).mean(1))

    def _trust(self, distance):
        return np.clip((ENDS - distance / self.limit) / (ENDS - 1), 0.0, 1.0)


def _means(table) -> tuple[np.ndarray, np.ndarray]:
    starts = table.starts
    sizes = np.diff([*starts, len(table.base)])
    return np.add.reduceat(table.features, starts) / sizes[:, None], sizes
