"""What rankings change, how sure that is, and what it costs: `python -m tests.benchmarks.reranker`.

Without options: the simulated annotators that ship, and speed. `--beir FOLDER …`: BEIR folders with graded
judgements. `--only human`: five folds by question of each folder. `--only power`: see `power.py`; `--only
kinds`: see `kinds.py`. `--only cross`: our cross-encoder and sentence-transformers', trained on the same
rankings (many minutes).
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ragkit.evaluation.measures import load_queries
from ragkit.evaluation.rankings import compare, compare_on
from ragkit.preferences.judgements import Ranking
from ragkit.reranking.active import MostInformative
from ragkit.reranking.features import NAMES
from ragkit.reranking.linear import DIRECTIONS
from ragkit.reranking.reranker import Reranker
from ragkit.reranking.table import base_scores
from ragkit.retrieval.corpus import DATA, Hit, Passage, load_passages
from ragkit.retrieval.encoder import Encoder
from tests.benchmarks.kinds import (
    Judged,
    cut,
    described,
    folder_of,
    kinds,
    of_folder,
    scored,
    shuffled,
    simulated,
)
from tests.benchmarks.power import power, sentence_transformers_scores

WITH_TASTE = ("simulated-code", "simulated-intuition", "simulated-mathematics")
TRUE_FIRST = {"simulated-first": 0.8}  # logits a place, as data/build/simulate_annotators.py has it
MEMORY = 2**31  # bytes of vectors kept: of all folders
CUT = 8  # documents of a ranking that a cross-encoder is trained on


def sides(lists: Sequence[Judged]) -> tuple[list[Ranking], list[np.ndarray]]:
    return [one.ranking for one in lists], [one.gains for one in lists]


def annotators(encoder, count: int, draws: int) -> None:
    print(f"\nSimulated annotators, {count} rankings, test topics, gains = hidden utilities, {draws} draws")
    train, test = simulated()
    for name, said in train.items():
        shares, kept, worse, covers, first = [], 0, 0, 0, None
        for draw in range(draws):
            reranker = Reranker(encoder)
            some = (shuffled(said, draw) if draw else said)[:count]
            report = reranker.fit(sides(some)[0], progress=False)
            found = compare_on(reranker, *sides(test[name]))
            interval = found.intervals["nDCG@3"]
            shares.append(interval.mean / (1 - found.base["nDCG@3"]))
            kept += report.kept_base
            worse += interval.high < 0
            true = TRUE_FIRST.get(name, 0.0)
            covers += report.first is not None and report.first.low <= true <= report.first.high
            first = first or (interval, report)
        print(f"  {name:22} of the way to 1 {np.mean(shares):+.2f} (first draw {shares[0]:+.2f})")
        print(f"  {'':22} first draw nDCG@3 {first[0]}, share {first[1].share:.2f}", end="; ")
        print(f"shown a place earlier {first[1].first or first[1].first_unknown}")
        print(f"  {'':22} kept the base {kept}, significantly worse {worse}, covers the true {covers}")


def human(encoder, folder: Path) -> None:
    """Out-of-fold predictions, pooled."""
    lists = of_folder(encoder, folder)
    sizes, seen = [len(one.gains) for one in lists], described(encoder, lists)
    print(
        f"\n{folder_of(folder).name}: {len(lists)} questions, {np.mean(sizes):.1f} documents each, five folds"
    )
    for capacity in ("auto", "features"):
        base, after, kept, shares, seconds = [None] * len(lists), [None] * len(lists), 0, [], []
        for fold in range(5):
            reranker = Reranker(encoder, capacity)
            started = time.perf_counter()
            # The lists are in random order.
            known = [one.ranking for n, one in enumerate(lists) if n % 5 != fold]
            report = reranker.fit(known, progress=False)
            seconds.append(time.perf_counter() - started)
            shares.append(report.share)
            kept += report.kept_base
            for n in range(fold, len(lists), 5):
                base[n], after[n] = base_scores(seen[n]), scored(reranker, seen[n])
        said = (
            f"shares {np.round(shares, 2).tolist()}, kept the base {kept} of 5, {max(seconds):.1f} s at most"
        )
        print(f"capacity {capacity}: {said}")
        print(compare(base, after, sides(lists)[1], [one.query for one in seen]))


def speed(encoder) -> None:
    """Candidates from the corpus; encoding is left out, and printed on its own."""
    print("\nSpeed, encoding left out")
    rng = np.random.default_rng(0)
    passages = load_passages(DATA / "corpus.jsonl")
    queries = list(load_queries(DATA / "queries.jsonl").values())
    longest = [_random(rng, passages, queries, n, 10) for n in range(500)]
    started = time.perf_counter()
    _read(encoder, longest)
    count = len({p.full_text for r in longest for p in r.passages})
    print(f"  encoding what was new of {count} passages: {time.perf_counter() - started:.1f} s")
    for count, size in ((50, 5), (300, 10)):
        short = [_cut(ranking, size) for ranking in longest[:count]]
        reranker = Reranker(encoder)
        _read(encoder, short)
        started = time.perf_counter()
        reranker.fit(short, progress=False)
        print(f"  fit, auto, {count} rankings of {size}: {time.perf_counter() - started:.1f} s")
    reranker = Reranker(encoder)
    report = reranker.fit(longest[:490], progress=False)
    taken = []
    for ranking in longest[490:]:
        started = time.perf_counter()
        reranker.update(ranking)
        taken.append(1000 * (time.perf_counter() - started))
    print(
        f"  update at 500 rankings of 10: median {np.median(taken):.0f} ms, most {max(taken):.0f} ms, ",
        end="",
    )
    print(f"{len(reranker.fitted.evidence.models)} models{', kept the base' if report.kept_base else ''}")
    ranking = longest[0]
    started = time.perf_counter()
    for _ in range(20):
        reranker.score(ranking.query, ranking.passages)
    print(f"  score 10 documents: {1000 * (time.perf_counter() - started) / 20:.1f} ms")
    print(f"  {len(NAMES)} features, {DIRECTIONS} directions")


def _read(encoder, rankings: list[Ranking]) -> None:
    """Let the encoder read, and keep, all that the rankings hold."""
    described(encoder, [Judged(ranking, np.zeros(0)) for ranking in rankings])


def _random(rng, passages: list[Passage], queries: list[str], n: int, size: int) -> Ranking:
    """Random candidates; who has more formulas tends to stand higher."""
    picked = [passages[i] for i in rng.choice(len(passages), size, replace=False)]
    felt = [passage.text.count("=") + rng.gumbel() for passage in picked]
    tiers = [[int(i)] for i in np.argsort(-np.array(felt))]
    return Ranking(f"{queries[n % len(queries)]} {n}", picked, tiers, rng.permutation(size).tolist())


def _cut(ranking: Ranking, size: int) -> Ranking:
    tiers = [tier for tier in ranking.tiers if tier[0] < size]
    shown = [i for i in ranking.shown_order if i < size]
    return replace(ranking, passages=ranking.passages[:size], tiers=tiers, shown_order=shown)


def active(encoder, draws: int) -> None:
    """The same number of rankings, asked at random or by what they would tell."""
    print(f"\nActive choice against random order, simulated annotators, mean nDCG@3 over {draws} draws")
    train, test = simulated()
    sizes = (15, 25, 40)
    for name in WITH_TASTE:
        curves = {"random": np.zeros((draws, len(sizes))), "active": np.zeros((draws, len(sizes)))}
        for draw in range(draws):
            pool = {one.ranking.query: one.ranking for one in shuffled(train[name], draw + 1)}
            for way, curve in curves.items():
                asked = _asked(encoder, pool, way, max(sizes))
                for column, size in enumerate(sizes):
                    reranker = Reranker(encoder)
                    reranker.fit(asked[:size], progress=False)
                    curve[draw, column] = compare_on(reranker, *sides(test[name])).after["nDCG@3"]
        difference = curves["active"] - curves["random"]
        for column, size in enumerate(sizes):
            d = difference[:, column]
            error = d.std(ddof=1) / len(d) ** 0.5 if draws > 1 else float("nan")
            means = [curve[:, column].mean() for curve in curves.values()]
            print(
                f"  {name:22} {size} rankings: random {means[0]:.3f}, active {means[1]:.3f}, "
                f"difference {d.mean():+.3f} ± {error:.3f}"
            )


def _asked(encoder, pool: dict[str, Ranking], way: str, count: int) -> list[Ranking]:
    if way == "random":
        return list(pool.values())[:count]
    reranker = Reranker(encoder)
    reranker.fit([], progress=False)
    find = lambda query: [Hit(p, 0.0, n) for n, p in enumerate(pool[query].passages, 1)]  # noqa: E731
    choose, left, asked = MostInformative(reranker, find), list(pool), []
    while len(asked) < count:
        query = choose(left)
        left.remove(query)
        asked.append(pool[query])
        reranker.update(pool[query])
    return asked


def cross(encoder, folders: Sequence[Path]) -> None:
    """Simulated rankings, or a BEIR folder's: three quarters of the questions to train, the rest to test."""
    train, test = simulated()
    _cross(encoder, "simulated-code", train["simulated-code"], test["simulated-code"])
    for folder in folders:
        lists, rng = of_folder(encoder, folder), np.random.default_rng(0)
        quarter = len(lists) // 4
        _cross(
            encoder, folder_of(folder).name, [cut(one, CUT, rng) for one in lists[quarter:]], lists[:quarter]
        )


def _cross(encoder, name: str, train: list[Judged], test: list[Judged]) -> None:
    (known, _), (new, gains), queries = sides(train), sides(test), [one.ranking.query for one in test]
    print(f"\nCross-encoders, {name}: {len(known)} rankings to train, {len(new)} to test")
    base = [base_scores(one) for one in described(encoder, test)]
    described(encoder, train)  # so that no encoding is timed
    for capacity in ("auto", "cross-encoder"):
        reranker = Reranker(encoder, capacity)
        started = time.perf_counter()
        report = reranker.fit(known, progress=False)
        seconds = time.perf_counter() - started
        after = [reranker.score(ranking.query, ranking.passages) for ranking in new]
        print(f"ours, {capacity}, {seconds:.0f} s{', kept the base' if report.kept_base else ''}")
        print(compare(base, after, gains, queries))
    started = time.perf_counter()
    after = sentence_transformers_scores(known, new)
    print(
        f"sentence-transformers' CrossEncoder, RankNetLoss, 3 epochs, {time.perf_counter() - started:.0f} s"
    )
    print(compare(base, after, gains, queries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--beir", type=Path, nargs="+", default=[], metavar="FOLDER",
        help="graded judgements: a folder, or a file in its qrels/ where that is not test.tsv",
    )  # fmt: skip
    parser.add_argument("--rankings", type=int, default=50, help="of each annotator (default: 50)")
    parser.add_argument("--draws", type=int, help="of the rankings (default: 5, and 2 for kinds)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cross", action="store_true", help="a CrossEncoder in power, too (minutes)")
    tasks = {
        "annotators": lambda: annotators(encoder, arguments.rankings, arguments.draws or 5),
        "speed": lambda: speed(encoder),
        "active": lambda: active(encoder, arguments.draws or 5),
        "human": lambda: [human(encoder, folder) for folder in arguments.beir],
        "power": lambda: power(encoder, arguments.beir, arguments.draws or 5, cross=arguments.cross),
        "kinds": lambda: kinds(encoder, arguments.beir, arguments.draws or 2),
        "cross": lambda: cross(encoder, arguments.beir),
    }
    parser.add_argument(
        "--only", choices=tasks, nargs="+", default=["annotators", "speed", "active", "human"]
    )
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    encoder = Encoder(memory=MEMORY)
    for task in arguments.only:
        tasks[task]()


if __name__ == "__main__":
    main()
