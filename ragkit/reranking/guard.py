"""How far what was learned is trusted, and how far it may move a ranking from the retriever's."""

import re
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from ragkit.reranking.features import NAMES

HARM = 0.95  # how sure it must be that held-out pairs are predicted worse, to keep the retriever
NOTHING = 0.001  # nats a pair: a harm that is none
STEPS = 25  # of bisection: α to 3e-8
# Full trust within the distance that this share of the training lists keep to; none at ENDS times that.
USUAL, ENDS = 0.85, 1.3
LEAST = 0.05  # added to every spread: below, differences count no further
SAME = 0.25  # the least spread of the signs of a question: who always asked four words may ask five
NEAR = 0.5  # the least limit: half a spread away is near, however alike the lists of training are
READ = {  # what is averaged over a list's documents, by kind
    "length": ("length", "sentence length"),
    "match": (
        "similarity",
        "best chunk",
        "best sentence",
        "BM25",
        "BM25 sentence",
        "echo",
        "shared",
        "coverage",
    ),
    "style": ("formulas", "code", "numbers", "instructions", "likening", "speaks to you"),
}
BLOCKS = {"question": 3, "topic": 2} | {kind: len(names) for kind, names in READ.items()}  # signs of each
ASKS = re.compile(r"(?:what|why|how|who|when|where|which|is|are|can|do|does|should)\b", re.I)


def error_and_harm(gain: np.ndarray) -> tuple[float, bool]:
    """The standard error of the mean of gains, (queries,), in nats a pair, and whether they show a harm."""
    error = float(np.std(gain, ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else float("inf")
    return error, gain.mean() + student.ppf(HARM, max(len(gain) - 1, 1)) * error < -NOTHING


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
    """Where the training lists lie, by five kinds of signs, the BLOCKS: the question's form; the topic, as
    cosines to `centre`, (D,); the documents' lengths; how well they match; their style.

    `mean` and `spread`, (B,): of the signs over lists. `limits`, (5,): the distance within which 90 % of
    lists keep in each kind. `limit`: the same for the kind in which a list is farthest, and USUAL of them.
    All by leaving a list out of what it is compared with.

    A person's taste in one kind of question says little of another kind: a reranker trained on short answers
    of laymen makes the order of scientific abstracts far worse than the retriever's. Any one of the kinds can
    tell; a mean over all signs would drown it.
    """

    centre: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    limits: np.ndarray
    limit: float

    @classmethod
    def fit(cls, table) -> "Domain":
        return cls.of(signs_of(table))

    @classmethod
    def of(cls, lists: dict[str, np.ndarray]) -> "Domain":
        """From the signs of lists, as `signs_of` gives them."""
        centre = lists["mean"].mean(0)
        signs = _about(lists, centre)
        count = len(signs)
        mean, variance = signs.mean(0), signs.var(0)
        if count < 3:  # no list can be left out
            return cls(centre, mean, np.full(len(mean), np.inf), np.ones(len(BLOCKS)), 1.0)
        away = signs - mean
        # Mean and variance of the others, for each list.
        others = mean - away / (count - 1)
        left = np.maximum(variance * count / (count - 1) - away**2 * count / (count - 1) ** 2, 0.0)
        spread = _floored(left * count / (count - 2))
        distances = _by_block((signs - others) / spread)
        limits = np.maximum(np.quantile(distances, 0.9, axis=0), NEAR)
        limit = max(float(np.quantile((distances / limits).max(1), USUAL)), NEAR)
        return cls(centre, mean, _floored(variance * (count + 1) / (count - 1)), limits, limit)

    def by_kind(self, lists) -> np.ndarray:
        """(L, 5), of a `Table` or of one `Described`, in the order of BLOCKS: the root mean square of
        (sign − mean) / spread, relative to the limit of each kind. 1 is the limit."""
        found = _by_block((_about(signs_of(lists), self.centre) - self.mean) / self.spread)
        return found / (self.limits * self.limit)

    def distance(self, lists) -> np.ndarray:
        """(L,): in the kind of signs in which a list is farthest."""
        return self.by_kind(lists).max(1)

    def trust(self, lists) -> np.ndarray:
        """(L,): the share of a residual to apply, from 1 for a list like those of training down to 0."""
        return np.clip((ENDS - self.distance(lists)) / (ENDS - 1), 0.0, 1.0)


def _floored(variance: np.ndarray) -> np.ndarray:
    """Spreads, (…, B), of variances."""
    spread = np.sqrt(variance) + LEAST
    spread[..., : BLOCKS["question"]] = np.maximum(spread[..., : BLOCKS["question"]], SAME)
    return spread


def signs_of(lists) -> dict[str, np.ndarray]:
    """What can be said of each list alone, (L, …): its own signs, the `mean` of its documents' vectors, the
    same of length 1, `toward`, and the query's vector, `asked`."""
    means = list_means(lists.features, lists.of_list)[0]
    texts = [query.strip() for query in lists.queries]
    question = [[np.log1p(len(q.split())), q.endswith("?"), bool(ASKS.match(q))] for q in texts]
    vectors = list_means(lists.vectors, lists.of_list)[0]
    toward = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    asked = lists.asked.reshape(len(texts), -1)
    kinds = {kind: means[:, [NAMES.index(name) for name in names]] for kind, names in READ.items()}
    own = {"question": np.array(question, dtype=float)} | kinds
    return own | {"mean": vectors, "toward": toward, "asked": asked}


def _about(lists: dict[str, np.ndarray], centre: np.ndarray) -> np.ndarray:
    """All signs, (L, B), in the order of BLOCKS."""
    away = centre / max(np.linalg.norm(centre), 1e-9)
    signs = lists | {"topic": np.stack([lists["toward"] @ away, lists["asked"] @ away], 1)}
    return np.concatenate([signs[kind] for kind in BLOCKS], axis=1)


def _by_block(z: np.ndarray) -> np.ndarray:
    """The root mean square of each block's columns, (L, 5), of z, (L, B)."""
    parts = np.split(z, np.cumsum(list(BLOCKS.values()))[:-1], axis=1)
    return np.stack([np.sqrt((part**2).mean(1)) for part in parts], axis=1)


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
