"""What rankings change, how sure that is, and what it costs: `python -m tests.benchmarks.reranker`.

Without options: the simulated annotators that ship, and speed. `--beir FOLDER`: a BEIR folder with graded
judgements, a question's judged documents as its candidates, five folds by query. `--only cross`: our
cross-encoder and sentence-transformers', trained on the same rankings (many minutes).
"""

import argparse
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from ragkit.evaluation.measures import load_qrels, load_queries
from ragkit.evaluation.rankings import compare, compare_on
from ragkit.preferences.judgements import Ranking
from ragkit.preferences.log import PreferenceLog
from ragkit.reranking.active import MostInformative
from ragkit.reranking.features import NAMES, describe_all
from ragkit.reranking.guard import Domain
from ragkit.reranking.linear import DIRECTIONS
from ragkit.reranking.reranker import Reranker
from ragkit.reranking.selection import Fitted, train
from ragkit.retrieval.corpus import DATA, Hit, Passage, load_passages
from ragkit.retrieval.encoder import Encoder

WITH_TASTE = ("simulated-code", "simulated-intuition", "simulated-mathematics")
TRUE_FIRST = {"simulated-first": 0.8}  # logits a place, as data/build/simulate_annotators.py has it


def simulated() -> tuple[dict[str, list[Ranking]], dict[str, list[Ranking]], dict]:
    """Rankings to train on and to test with by annotator, and hidden utilities by annotator and query."""
    rankings = [r for r in PreferenceLog(DATA / "preferences").rankings() if "repeat_of" not in r.details]
    names = sorted({ranking.annotator for ranking in rankings})
    split = {
        part: {n: [r for r in rankings if r.annotator == n and r.details["split"] == part] for n in names}
        for part in ("train", "test")
    }
    lines = (DATA / "preferences" / "hidden" / "utilities.jsonl").read_text(encoding="utf-8").splitlines()
    hidden = {(row["annotator"], row["query_id"]): row["utilities"] for row in map(json.loads, lines)}
    return split["train"], split["test"], hidden


def utilities(hidden: dict, ranking: Ranking) -> np.ndarray:
    found = hidden[ranking.annotator, ranking.details["query_id"]]
    return np.array([found[passage.id] for passage in ranking.passages])


def some(rankings: list[Ranking], count: int, draw: int) -> list[Ranking]:
    """The first `count`, or another draw of so many."""
    order = np.random.default_rng(draw).permutation(len(rankings)) if draw else range(len(rankings))
    return [rankings[i] for i in list(order)[:count]]


def read(encoder, rankings: list[Ranking]) -> None:
    """Let the encoder read, and keep, all that the rankings hold."""
    describe_all(encoder, [(r.query, [p.full_text for p in r.passages]) for r in rankings])


def gap(found, measure: str = "nDCG@3") -> float:
    """Of what lies between base and oracle (1), the share that was closed."""
    return found.intervals[measure].mean / (1 - found.base[measure])


def annotators(encoder, count: int, draws: int) -> None:
    print(f"\nSimulated annotators, {count} rankings, test topics, gains = hidden utilities, {draws} draws")
    train, test, hidden = simulated()
    for name, said in train.items():
        gains = [utilities(hidden, ranking) for ranking in test[name]]
        shares, kept, worse, covers, first = [], 0, 0, 0, None
        for draw in range(draws):
            reranker = Reranker(encoder)
            report = reranker.fit(some(said, count, draw), progress=False)
            found = compare_on(reranker, test[name], gains)
            shares.append(gap(found))
            kept += report.kept_base
            worse += found.intervals["nDCG@3"].high < 0
            true = TRUE_FIRST.get(name, 0.0)
            covers += report.first.low <= true <= report.first.high
            if draw == 0:
                first = found.intervals["nDCG@3"], report.first
        print(f"  {name:22} gap closed {np.mean(shares):+.2f} (of the first draw {shares[0]:+.2f})")
        print(f"  {'':22} first draw nDCG@3 {first[0]}; shown a place earlier {first[1]}")
        print(f"  {'':22} kept the base {kept}, significantly worse {worse}, covers the true {covers}")


def human(encoder, folder: Path, split: str, seed: int) -> None:
    """Out-of-fold predictions, pooled; gain = grade − 1."""
    rankings, gains = judged(folder, split)
    sizes = [len(ranking.passages) for ranking in rankings]
    print(f"\n{folder.name}: {len(rankings)} questions, {np.mean(sizes):.1f} judged answers each, five folds")
    for capacity in ("auto", "features"):
        folds = np.random.default_rng(seed).permutation(len(rankings)) % 5
        base, after, kept, chosen, seconds = [], [], 0, Counter(), []
        order = []
        for fold in range(5):
            reranker = Reranker(encoder, capacity)
            known = [r for r, f in zip(rankings, folds) if f != fold]
            read(encoder, known)
            started = time.perf_counter()
            report = reranker.fit(known, progress=False)
            seconds.append(time.perf_counter() - started)
            kept += report.kept_base
            chosen[report.settings.get("capacity", "base")] += 1
            for n in np.flatnonzero(folds == fold):
                order.append(n)
                base.append(reranker.base(rankings[n].query, rankings[n].passages))
                after.append(reranker.score(rankings[n].query, rankings[n].passages))
        found = compare(base, after, [gains[n] for n in order], [rankings[n].query for n in order])
        print(f"capacity {capacity}: chose {dict(chosen)}, kept the base {kept} of 5, {max(seconds):.1f} s")
        print(found)


def judged(folder: Path, split: str) -> tuple[list[Ranking], list[np.ndarray]]:
    passages = {passage.id: passage for passage in load_passages(folder)}
    texts = load_queries(folder / "queries.jsonl")
    rankings, gains = [], []
    for query, grades in load_qrels(folder / "qrels" / f"{split}.tsv").items():
        ids = [key for key in grades if key in passages]
        levels = np.array([grades[key] for key in ids])
        tiers = [np.flatnonzero(levels == level).tolist() for level in sorted({*levels}, reverse=True)]
        rankings.append(Ranking(texts[query], [passages[key] for key in ids], tiers))
        gains.append(levels - 1.0)
    return rankings, gains


def speed(encoder) -> None:
    """Candidates from the corpus; encoding is left out, and printed on its own."""
    print("\nSpeed, encoding left out")
    rng = np.random.default_rng(0)
    passages = load_passages(DATA / "corpus.jsonl")
    queries = list(load_queries(DATA / "queries.jsonl").values())
    longest = [_random(rng, passages, queries, n, 10) for n in range(500)]
    started = time.perf_counter()
    read(encoder, longest)
    count = len({p.full_text for r in longest for p in r.passages})
    print(f"  encoding what was new of {count} passages: {time.perf_counter() - started:.1f} s")
    for count, size in ((50, 5), (300, 10)):
        short = [_cut(ranking, size) for ranking in longest[:count]]
        reranker = Reranker(encoder)
        read(encoder, short)
        started = time.perf_counter()
        reranker.fit(short, progress=False)
        print(f"  fit, auto, {count} rankings of {size}: {time.perf_counter() - started:.1f} s")
    reranker = Reranker(encoder, "embeddings")
    reranker.fit(longest[:490], progress=False)
    if reranker.fitted.residual is None:  # noise may keep the base, and then nothing is brought up to date
        reranker.fitted = _forced(reranker.fitted)
    taken = []
    for ranking in longest[490:]:
        started = time.perf_counter()
        reranker.update(ranking)
        taken.append(1000 * (time.perf_counter() - started))
    print(f"  update at 500 rankings of 10: median {np.median(taken):.0f} ms, most {max(taken):.0f} ms")
    ranking = longest[0]
    started = time.perf_counter()
    for _ in range(20):
        reranker.score(ranking.query, ranking.passages)
    print(f"  score 10 documents: {1000 * (time.perf_counter() - started) / 20:.1f} ms")
    print(f"  {len(NAMES)} features, {DIRECTIONS} directions")


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


def _forced(fitted: Fitted) -> Fitted:
    residual = train(fitted.table, fitted.objective, fitted.settings)
    return replace(fitted, residual=residual, domain=Domain.fit(fitted.table))


def active(encoder, draws: int) -> None:
    """The same number of rankings, asked at random or by what they would tell."""
    print(f"\nActive choice against random order, simulated annotators, mean nDCG@3 over {draws} draws")
    train, test, hidden = simulated()
    sizes = (15, 25, 40)
    for name in WITH_TASTE:
        gains = [utilities(hidden, ranking) for ranking in test[name]]
        curves = {"random": np.zeros((draws, len(sizes))), "active": np.zeros((draws, len(sizes)))}
        for draw in range(draws):
            pool = {ranking.query: ranking for ranking in some(train[name], len(train[name]), draw + 1)}
            for way, curve in curves.items():
                asked = _asked(encoder, pool, way, max(sizes))
                for column, size in enumerate(sizes):
                    reranker = Reranker(encoder)
                    reranker.fit(asked[:size], progress=False)
                    curve[draw, column] = compare_on(reranker, test[name], gains).after["nDCG@3"]
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


def cross(encoder, folder: Path | None, split: str) -> None:
    """Simulated rankings, or a BEIR folder's: three quarters of the questions to train, the rest to test."""
    if folder is None:
        train, test, hidden = simulated()
        known, new = train["simulated-code"], test["simulated-code"]
        gains = [utilities(hidden, ranking) for ranking in new]
    else:
        rankings, levels = judged(folder, split)
        order = np.random.default_rng(0).permutation(len(rankings))
        cut = 3 * len(order) // 4
        known = [_cut_judged(rankings[n], 8) for n in order[:cut]]
        new, gains = [rankings[n] for n in order[cut:]], [levels[n] for n in order[cut:]]
    print(f"\nCross-encoders: {len(known)} rankings to train, {len(new)} to test")
    queries = [ranking.query for ranking in new]
    reranker = Reranker(encoder, "cross-encoder")
    read(encoder, [*known, *new])
    base = [reranker.base(ranking.query, ranking.passages) for ranking in new]
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


def _cut_judged(ranking: Ranking, size: int) -> Ranking:
    """The first documents, in tiers as before."""
    tiers = [[i for i in tier if i < size] for tier in ranking.tiers]
    return replace(ranking, passages=ranking.passages[:size], tiers=[tier for tier in tiers if tier])


def sentence_transformers_scores(known: list[Ranking], new: list[Ranking]) -> list[np.ndarray]:
    """Scores, (K,) for each new ranking, by a CrossEncoder that starts from the same weights as ours."""
    import tempfile

    from datasets import Dataset
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )

    from ragkit.retrieval.encoder import default_folder

    rows: dict[str, list] = {"query": [], "docs": [], "labels": []}
    for ranking in known:
        told = [(p.full_text, r) for p, r in zip(ranking.passages, ranking.ranks) if r is not None]
        if len({rank for _, rank in told}) > 1:
            rows["query"].append(ranking.query)
            rows["docs"].append([text for text, _ in told])
            rows["labels"].append([float(len(ranking.tiers) - 1 - rank) for _, rank in told])
    model = CrossEncoder(str(default_folder()), num_labels=1, max_length=192, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        settings = CrossEncoderTrainingArguments(
            output_dir=folder,
            num_train_epochs=3,
            learning_rate=5e-5,
            warmup_steps=0.1,
            per_device_train_batch_size=4,
            seed=0,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            logging_strategy="no",
        )
        data = Dataset.from_dict(rows)
        CrossEncoderTrainer(
            model=model, args=settings, train_dataset=data, loss=losses.RankNetLoss(model)
        ).train()
    asked = [[(ranking.query, p.full_text) for p in ranking.passages] for ranking in new]
    return [np.asarray(model.predict(pairs, show_progress_bar=False), dtype=float) for pairs in asked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--beir", type=Path, metavar="FOLDER", help="graded judgements of people")
    parser.add_argument("--split", default="test", help="which of qrels/ (default: test)")
    parser.add_argument("--rankings", type=int, default=50)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("annotators", "speed", "active", "beir", "cross"), nargs="*")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    only = arguments.only or ("annotators", "speed", "active", *(("beir",) if arguments.beir else ()))
    encoder = Encoder()
    if "annotators" in only:
        annotators(encoder, arguments.rankings, arguments.draws)
    if "speed" in only:
        speed(encoder)
    if "active" in only:
        active(encoder, arguments.draws)
    if "beir" in only:
        human(encoder, arguments.beir, arguments.split, arguments.seed)
    if "cross" in only:
        cross(encoder, arguments.beir, arguments.split)


if __name__ == "__main__":
    main()
