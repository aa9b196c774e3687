"""What a linear residual looks at: a handful of readable features, perhaps the encoder's directions too."""

from dataclasses import dataclass

import numpy as np

from ragkit.bounds import list_means
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

    @property
    def names(self) -> list[str]:
        size = self.basis.shape[1]
        directions = [f"direction {n + 1}" for n in range(size)]
        return [*NAMES, *directions, *(f"query × direction {n + 1}" for n in range(min(CROSSED, size)))]


def centred(values: np.ndarray, of_list: np.ndarray) -> np.ndarray:
    """Minus the mean of its list, (N, F)."""
    return values - list_means(values, of_list)[0][of_list]


def _directions(vectors: np.ndarray) -> np.ndarray:
    """The principal directions of centred vectors as columns, the one of the largest spread first."""
    count = min(DIRECTIONS, len(vectors) - 1, vectors.shape[1])
    directions = np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1][:, :count]
    # The sign of a direction is arbitrary: fix it, so that the same data give the same weights.
    return directions * np.sign(directions[np.abs(directions).argmax(0), np.arange(count)])
