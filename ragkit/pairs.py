"""What people prefer, as data: pairs to train on."""

from dataclasses import dataclass, fields

import numpy as np

UNKNOWN = np.nan


@dataclass(frozen=True, eq=False)
class Pairs:
    """One row a pair, as columns: y⁺ in `chosen`, y⁻ in `rejected`, and what a strength may look at.

    `group` numbers the query that a pair is about, (P,); without it equal queries make a group. `target`: the
    probability that y⁺ is the better one (1 unless given, 0.5 for a tie). The rest is NaN (or "") where it is
    not known: the tiers in which the two were ranked and the places at which they were shown, both from 0;
    `rating`, how strongly y⁺ was preferred (1 slightly, 2 clearly, 3 much); grades and rewards of the two;
    who judged. Raises ValueError for a column of another length and a target outside 0 … 1.
    """

    query: list[str]
    chosen: list[str]
    rejected: list[str]
    group: np.ndarray | None = None
    target: np.ndarray | float = 1.0
    chosen_rank: np.ndarray | float = UNKNOWN
    rejected_rank: np.ndarray | float = UNKNOWN
    chosen_position: np.ndarray | float = UNKNOWN
    rejected_position: np.ndarray | float = UNKNOWN
    rating: np.ndarray | float = UNKNOWN
    chosen_grade: np.ndarray | float = UNKNOWN
    rejected_grade: np.ndarray | float = UNKNOWN
    chosen_reward: np.ndarray | float = UNKNOWN
    rejected_reward: np.ndarray | float = UNKNOWN
    annotator: list[str] | str = ""

    def __post_init__(self):
        size = len(self.query)
        put = object.__setattr__  # the only place that sets them
        if self.group is None:
            number = {query: i for i, query in enumerate(dict.fromkeys(self.query))}
            put(self, "group", [number[query] for query in self.query])
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name in ("query", "chosen", "rejected", "annotator"):
                value = [value] * size if isinstance(value, str) and name == "annotator" else list(value)
            else:
                value = np.asarray(value, dtype=np.int64 if name == "group" else np.float64)
                value = np.full(size, value) if value.ndim == 0 else value
            if len(value) != size:
                raise ValueError(f"{name} has {len(value)} rows, query has {size}")
            put(self, name, value)
        if not ((self.target >= 0) & (self.target <= 1)).all():
            row = int(np.flatnonzero(~((self.target >= 0) & (self.target <= 1)))[0])
            raise ValueError(f"pair {row}: target {self.target[row]:g} is not a probability")

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, rows) -> "Pairs":
        """Some of the rows: a slice, a mask or indices, (P,) or (n,). Groups keep their numbers."""
        rows = np.arange(len(self))[rows]
        if rows.ndim == 0:
            raise TypeError("pairs are columns: take rows by a slice, a mask or indices")
        kept = {}
        for name in (field.name for field in fields(self)):
            column = getattr(self, name)
            kept[name] = [column[row] for row in rows] if isinstance(column, list) else column[rows]
        return Pairs(**kept)
