"""What ragkit costs by itself: to start, to search, to learn from one more click, to train a reranker."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np

from ragkit.reranking.guard import Domain
from ragkit.reranking.linear import CAPACITIES, one_thread
from ragkit.reranking.objective import Objective
from ragkit.reranking.reranker import Reranker
from ragkit.reranking.selection import Fitted, started, train
from tests.benchmarks.sides import TORCH, installed
from tests.benchmarks.table import Row, in_turns, ratio, seconds, spoken
from tests.simulated_rankings import simulated
from tests.words_encoder import WordsEncoder


def _python(code: str) -> float:
    """Seconds that `code` says on its last line, in a Python of its own."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


IMPORT = "import time; t = time.perf_counter(); import ragkit; print(time.perf_counter() - t)"
FIRST = """import time; t = time.perf_counter()
from ragkit import Assistant
print(Assistant.load({library!r}).ask("what does beta control in DPO?").answer.text)
print(time.perf_counter() - t)"""


def start(threads: int, runs: int, answer: bool) -> list[Row]:
    """Processes of their own, their libraries in the system's cache after the first."""
    from ragkit.retrieval.corpus import DATA

    taken = [_python(IMPORT) for _ in range(runs + 1)][1:]
    rows = [Row("`import ragkit`", spoken(median(taken)), target="≤ 0.1 s", reached=median(taken) <= 0.1)]
    if answer:
        code = FIRST.format(library=str(DATA / "index"))
        taken = [_python(code) for _ in range(runs + 1)][1:]
        what = "first answer with the reader, from a cold start"
        rows.append(Row(what, spoken(median(taken)), target="≤ 4 s", reached=median(taken) <= 4))
    return rows


def search(threads: int, sizes: tuple[int, int], batch: int, turns: int) -> list[Row]:
    """Exact search for ten nearest among random unit vectors of 384 dimensions."""
    import faiss

    from ragkit import Library, Passage
    from ragkit.retrieval.search import retrieve, retrieve_many
    from tests.helpers import FakeEncoder

    faiss.omp_set_num_threads(threads)
    rng = np.random.default_rng(0)
    medians, rows = {}, []
    for size in sizes:
        vectors = rng.normal(size=(size, 384)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        asked = vectors[rng.integers(size, size=batch)] + 0.05 * rng.normal(size=(batch, 384))
        asked = asked.astype(np.float32)

        class Given(FakeEncoder):
            dimension = 384

            def encode_passages(self, texts, *, progress=True):
                return vectors  # noqa: B023

        library = Library.build([Passage(str(n), "") for n in range(size)], Given(), progress=False)
        index = faiss.IndexFlatIP(384)
        index.add(vectors)

        def of_numpy(vector, k=10, vectors=vectors):
            scores = vectors @ vector
            best = np.argpartition(-scores, k)[:k]
            return best[np.argsort(-scores[best])]

        sides = {
            "ragkit": lambda n: seconds(lambda: retrieve(library, asked[n % batch], 10)),  # noqa: B023
            "faiss": lambda n: seconds(lambda: index.search(asked[n % batch][None], 10)),  # noqa: B023
            "numpy": lambda n: seconds(lambda: of_numpy(asked[n % batch])),  # noqa: B023
        }
        found = in_turns(sides, turns)
        medians[size] = {name: median(taken) for name, taken in found.items()}
    many = {
        "ragkit": lambda n: seconds(lambda: retrieve_many(library, asked, 10)),
        "faiss": lambda n: seconds(lambda: index.search(asked, 10)),
    }
    many = in_turns(many, 3)
    grows = " → ".join(f"{size:,}: {spoken(medians[size]['ragkit'])}" for size in sizes)
    work = f"search alone, {sizes[-1]:,} × 384"
    compared = (
        (f"{work}, one query", found, "faiss", 1.05, grows),
        (f"{work}, one query", found, "numpy", None, ""),
        (f"{work}, {batch} queries at once", many, "faiss", 1.05, ""),
    )
    for work, took, peer, target, grows in compared:
        factor = ratio(took["ragkit"], took[peer])
        wanted = (f"≤ {target} ×", factor <= target) if target else ("", None)
        ours, theirs = (spoken(median(took[name])) for name in ("ragkit", peer))
        rows.append(Row(work, ours, "raw " + peer, theirs, f"{factor:.2f} × its time", *wanted, grows))
    return rows


def fitted_to(reranker, rankings):
    """What `fit` makes of them, without the five folds in which it is tested."""
    table = reranker._table(rankings, [reranker.describe(one.query, one.passages) for one in rankings])
    objective = Objective(first=True)
    with one_thread():
        residual, evidence = train(table, objective, CAPACITIES)
    fitted = Fitted(objective, (table,), evidence, residual=residual, domain=Domain.fit(table))
    return replace(fitted, running=started(fitted, 0))


def click(threads: int, sizes: tuple[int, ...], targets: tuple, clicks: int) -> list[Row]:
    """One more ranking of ten documents, its texts encoded before; the encoder is simulated, the sizes are
    the real one's."""

    class Wide(WordsEncoder):
        dimension = 384

    medians, anew = {}, {}
    for size in sizes:
        rankings = simulated(size + clicks, size=10)
        reranker = Reranker(Wide())
        reranker.fitted = fitted_to(reranker, rankings[:size])
        taken = []
        for ranking in rankings[size:]:
            reranker.describe(ranking.query, ranking.passages)
            taken.append(seconds(lambda: reranker.update(ranking)))  # noqa: B023
        medians[size] = median(taken)
        fitted = reranker.fitted
        with one_thread():
            anew[size] = seconds(partial(train, fitted.table, fitted.objective, CAPACITIES))
    grows = " → ".join(f"{size:,}: {spoken(medians[size])}" for size in sizes)
    return [
        Row(
            f"update after one more click, at {size:,} rankings of ten",
            spoken(medians[size]),
            "our own fit, anew",
            spoken(anew[size]),
            f"{medians[size] / anew[size]:.3f} × its time",
            f"≤ {spoken(target)}",
            medians[size] <= target,
            grows,
        )
        for size, target in zip(sizes, targets)
    ]


def rank(threads: int, rankings: int, tested: int) -> list[Row]:
    """A simulated annotator that ships; texts are encoded within the time. The CrossEncoder starts from the
    encoder's weights too."""
    import torch

    from ragkit import Encoder
    from ragkit.evaluation.rankings import compare
    from ragkit.reranking.table import base_scores
    from tests.benchmarks.kinds import described
    from tests.benchmarks.kinds import simulated as shipped
    from tests.benchmarks.power import sentence_transformers_scores

    torch.set_num_threads(threads)
    train_on, test_on = (lists["simulated-mathematics"] for lists in shipped())
    known, held_out = [one.ranking for one in train_on[:rankings]], test_on[:tested]
    new, gains = [one.ranking for one in held_out], [one.gains for one in held_out]
    took, scores = {}, {}
    for size in (max(len(known) // 2, 1), len(known)):
        reranker = Reranker(Encoder())
        took[size] = seconds(lambda: reranker.fit(known[:size], progress=False))  # noqa: B023
        scores["ragkit"] = [reranker.score(one.query, one.passages) for one in new]
    base = [base_scores(one) for one in described(reranker.encoder, held_out)]
    if installed(TORCH):
        took[TORCH] = seconds(lambda: scores.update({TORCH: sentence_transformers_scores(known, new)}))
    after = {
        name: compare(base, own, gains, [one.query for one in new]).intervals["nDCG@3"]
        for name, own in scores.items()
    }
    work = f"train a reranker on {len(known)} rankings, and rank {len(new)} others"
    ours = f"{spoken(took[len(known)])}, nDCG@3 {after['ragkit']} over the retriever"
    grows = " → ".join(f"{size}: {spoken(took[size])}" for size in took if size != TORCH)
    peer = "CrossEncoderTrainer, 3 epochs"
    if TORCH not in took:
        return [Row(work, ours, peer, grows=grows)]
    factor = took[TORCH] / took[len(known)]
    theirs = f"{spoken(took[TORCH])}, nDCG@3 {after[TORCH]}"
    return [Row(work, ours, peer, theirs, f"{factor:.1f} × as fast", "≥ 10 ×", factor >= 10, grows)]
