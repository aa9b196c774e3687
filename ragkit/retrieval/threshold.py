"""The best by a sum of two scores, one of which is known of the nearest passages alone: Fagin's threshold
algorithm (Fagin, Lotem and Naor, PODS 2001)."""

import numpy as np


def undecided(known: np.ndarray, added: np.ndarray, floor: float, k: int) -> np.ndarray:
    """The places, (n,), of passages with nothing in `known`, (N,) (−inf), that can still be among the k ≥ 1
    best by known + added, (N,), where none of them has more there than `floor`."""
    there = np.isfinite(known)
    totals = np.sort((known + added)[there])[::-1]
    worst = totals[k - 1] if k <= len(totals) else -np.inf
    return np.flatnonzero(~there & (floor + added >= worst))
