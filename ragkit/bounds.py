"""How far a ranking may move from the retriever's: a bound on the KL divergence of each query."""

import numpy as np

STEPS = 25  # of bisection: α to 3e-8


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
            middle = np.where(far, (low + high) / 2, 1.0)
            fits = _kl(middle[of_list] * residuals, base, of_list) <= most
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        low = np.where(far, low, 1.0)
    return (base[:, None] + low[of_list] * residuals).reshape(residual.shape)


def _starts(of_list: np.ndarray) -> np.ndarray:
    """(L,): where the documents of each list begin."""
    return np.searchsorted(of_list, np.arange(of_list[-1] + 1))


def list_means(values: np.ndarray, of_list: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each list, (L, F), of values (N, F); and the lists' sizes, (L,)."""
    sizes = np.bincount(of_list)
    return np.add.reduceat(values, _starts(of_list)) / sizes[:, None], sizes


def _kl(residuals: np.ndarray, base: np.ndarray, of_list: np.ndarray) -> np.ndarray:
    """(L, G)."""
    starts = _starts(of_list)
    log_p = _log_softmax(base[:, None] + residuals, starts, of_list)
    log_q = _log_softmax(base[:, None], starts, of_list)
    return np.add.reduceat(np.exp(log_p) * (log_p - log_q), starts)


def _log_softmax(x: np.ndarray, starts: np.ndarray, of_list: np.ndarray) -> np.ndarray:
    x = x - np.maximum.reduceat(x, starts)[of_list]
    return x - np.log(np.add.reduceat(np.exp(x), starts))[of_list]
