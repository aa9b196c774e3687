"""How often the 95 % interval of the shown place holds the truth: `python -m tests.benchmarks.shown_place`.

Random documents, so that no encoder is needed. Without noise an annotator is led by utility alone.
"""

import argparse
from itertools import combinations, product

import numpy as np

from ragkit.preferences.pairs import Pairs
from ragkit.reranking.features import NAMES
from ragkit.reranking.linear import one_thread
from ragkit.reranking.shown_place import shown_first
from ragkit.reranking.table import Table

RANKINGS, SIZES = (6, 12, 25, 50), (3, 5)


def world(
    count: int, size: int, seed: int, *, first: float = 0.0, noise: bool = True, taste: float = 2.0,
    hidden: float = 0.0, shuffled: bool = True, tie: float = 0.0,
) -> Table:  # fmt: skip
    """Rankings by one who likes feature 6 by `taste`, something that no input tells by `hidden`, in logits a
    standard deviation, and what is shown a place earlier by `first`; felt within `tie` is a tie.
    """
    rng = np.random.default_rng([seed, count, size])
    features, vectors = rng.normal(size=(count, size, len(NAMES))), rng.normal(size=(count, size, 24))
    base = features[..., 0]
    order = rng.permuted(np.tile(np.arange(size), (count, 1)), axis=1) if shuffled else np.argsort(-base)
    places = np.argsort(order)
    utility = taste * features[..., 6] + hidden * rng.normal(size=base.shape)
    felt = utility - first * places + noise * rng.gumbel(size=base.shape)
    ranks = np.empty((count, size), dtype=int)
    best = np.argsort(-felt)
    gaps = np.diff(-np.take_along_axis(felt, best, 1), prepend=-np.inf)
    np.put_along_axis(ranks, best, np.cumsum(gaps >= tie, axis=1) - 1, 1)
    left, right = np.array(list(combinations(range(size), 2))).T
    first_is_better = ranks[:, left] <= ranks[:, right]
    chosen, rejected = np.where(first_is_better, left, right), np.where(first_is_better, right, left)
    of, blank = np.repeat(np.arange(count), len(left)), [""] * (count * len(left))
    target = np.where(ranks[:, left] == ranks[:, right], 0.5, 1.0).ravel()
    pairs = Pairs(blank, blank, blank, of, of, target, chosen.ravel(), rejected.ravel())
    flat = [x.reshape(count * size, -1) for x in (features, vectors)]
    asked = rng.normal(size=(count, 24))
    scores = (base.ravel(), base.ravel(), np.zeros(base.size))
    columns = (*flat, *scores, ranks.ravel(), places.ravel().astype(float))
    queries = [f"q{n}" for n in range(count)]
    return Table(*columns, np.repeat(np.arange(count), size), pairs, queries, asked)


def covered(runs: int, count: int, size: int, *, first: float = 0.0, **more) -> tuple[np.ndarray, int]:
    """Intervals, (runs, 3), as estimate, low, high, and how many others were refused."""
    found = [shown_first(world(count, size, seed, first=first, **more))[0] for seed in range(runs)]
    return np.array([one[:3] for one in found if one]).reshape(-1, 3), sum(one is None for one in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=400)
    runs = parser.parse_args().runs
    for first, noise in ((0.0, True), (0.0, False), (0.8, True)):
        print(f"\n{first} logits a place, {'Gumbel' if noise else 'no'} noise, {runs} runs")
        for size, count in product(SIZES, RANKINGS):
            with one_thread():
                found, refused = covered(runs, count, size, first=first, noise=noise)
            mean, low, high = found.T
            share, zero = np.mean((low <= first) & (first <= high)), np.mean((low > 0) | (high < 0))
            print(
                f"{count:3} rankings of {size}: covers {share:.3f}, excludes 0 {zero:.2f}, median "
                f"{np.median(mean):+.2f} [{np.median(low):+.2f}, {np.median(high):+.2f}], refused {refused}"
            )


if __name__ == "__main__":
    main()
