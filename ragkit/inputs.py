"""What a linear residual looks at: a handful of readable features, perhaps the encoder's directions too."""

from dataclasses import dataclass

import numpy as np

from ragkit.features import NAMES

CAPACITIES = ("features", "embeddings")
DIRECTIONS, CROSSED = 16, 6
FARTHEST = 3.0  # in spreads: what is odder than anything seen in training must not decide alone


@dataclass(frozen=True)
class Inputs:
    """The numbers that are weighed, (N, F): each centred within its list, and divided by its spread within
    lists in training, since only differences within a list can change an order; cut at ±FARTHEST.

    "features": those of NAMES. "embeddings": these, the documents' coordinates on their DIRECTIONS principal
    directions (a linear residual on the frozen encoder), and the products of the query's and the document's
    coordinates on the first CROSSED of them (a bilinear one of low rank).
    """

    capacity: str
    spread: np.ndarray  # (F,)
    centre: np.ndarray  # (D,)
    basis: np.ndarray  # (D, DIRECTIONS or fewer)

    @classmethod
    def of(cls, capacity: str, table) -> "Inputs":
        """Fitted to a table's documents."""
        vectors = table.vectors.astype(np.float64)
        centre = vectors.mean(0)
        basis = np.zeros((vectors.shape[1], 0))
        if capacity == "embeddings":
            basis = _directions(vectors - centre)
        raw = cls(capacity, np.ones(1), centre, basis)
        within = _centred(raw._raw(table.features, table.vectors, table.asked), table.of_list)
        spread = np.sqrt((within**2).mean(0))
        return cls(capacity, np.where(spread > 1e-9, spread, 1.0), centre, basis)

    def __call__(self, table) -> np.ndarray:
        raw = self._raw(table.features, table.vectors, table.asked)
        return np.clip(_centred(raw, table.of_list) / self.spread, -FARTHEST, FARTHEST)

    def of_one(self, described) -> np.ndarray:
        """(K, F): the same for one list."""
        asked = np.repeat(described.asked[None], len(described.texts), 0)
        raw = self._raw(described.features, described.vectors, asked)
        return np.clip((raw - raw.mean(0)) / self.spread, -FARTHEST, FARTHEST)

    def _raw(self, features: np.ndarray, vectors: np.ndarray, asked: np.ndarray) -> np.ndarray:
        if self.capacity == "features":
            return features
        placed = (vectors - self.centre) @ self.basis  # (N, DIRECTIONS)
        crossed = placed[:, :CROSSED] * ((asked - self.centre) @ self.basis[:, :CROSSED])
        return np.concatenate([features, placed, crossed], axis=1)

    @property
    def names(self) -> list[str]:
        if self.capacity == "features":
            return list(NAMES)
        size = self.basis.shape[1]
        directions = [f"direction {n + 1}" for n in range(size)]
        return [*NAMES, *directions, *(f"query × direction {n + 1}" for n in range(min(CROSSED, size)))]


def _centred(values: np.ndarray, of_list: np.ndarray) -> np.ndarray:
    """Minus the mean of its list."""
    starts = np.searchsorted(of_list, np.arange(of_list[-1] + 1))
    sizes = np.diff([*starts, len(of_list)])
    return values - (np.add.reduceat(values, starts) / sizes[:, None])[of_list]


def _directions(centred: np.ndarray) -> np.ndarray:
    """The principal directions as columns, the one of the largest spread first."""
    count = min(DIRECTIONS, len(centred) - 1, centred.shape[1])
    directions = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]
    # The sign of a direction is arbitrary: fix it, so that the same data give the same weights.
    return directions * np.sign(directions[np.abs(directions).argmax(0), np.arange(count)])
