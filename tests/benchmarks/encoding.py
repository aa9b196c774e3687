"""Our encoder beside sentence-transformers' `encode`: `python -m tests.benchmarks.encoding`.

Runs of the two alternate, so that what else the machine does falls on both; ratios are taken pair by pair.
"""

import argparse
import statistics
import time

import numpy as np

from ragkit.retrieval.corpus import DATA, read_jsonl

WORDS = "a small reranker learns from clicks which document people want and β holds it near the first order ."


def mixed_passages(number: int, seed: int = 0) -> list[str]:
    """Passages of 5 to 230 words, cut from the corpus that ships, or from made-up text without one."""
    corpus = DATA / "corpus.jsonl"
    rows = [row["text"] for _, row in read_jsonl(corpus)] if corpus.exists() else [WORDS] * 50
    words = " ".join(rows).split()
    random = np.random.default_rng(seed)
    lengths = random.integers(5, 231, number)
    starts = [random.integers(0, max(1, len(words) - length)) for length in lengths]
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths)]


def seconds(work) -> tuple[float, np.ndarray]:
    started = time.perf_counter()
    vectors = work()
    return time.perf_counter() - started, vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--passages", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    import torch
    from sentence_transformers import SentenceTransformer

    from ragkit.retrieval.encoder import Encoder, default_folder

    torch.set_num_threads(arguments.threads)
    ours, theirs = Encoder(memory=0), SentenceTransformer(str(default_folder()), device="cpu")
    texts = mixed_passages(arguments.passages)
    sides = {
        "ragkit": lambda: ours.encode(texts, progress=False, warn=False),
        "sentence-transformers": lambda: theirs.encode(texts, show_progress_bar=False),
    }
    ours.encode(texts[:64], progress=False)
    theirs.encode(texts[:64], show_progress_bar=False)
    ours.truncated = 0
    times: dict[str, list[float]] = {name: [] for name in sides}
    vectors = {}
    for run in range(arguments.runs):
        for name in list(sides) if run % 2 == 0 else reversed(sides):
            taken, vectors[name] = seconds(sides[name])
            times[name].append(taken)

    lengths = [len(text.split()) for text in texts]
    print(
        f"{len(texts):,} passages of {min(lengths)} to {max(lengths)} words "
        f"({ours.truncated // arguments.runs} beyond the window), "
        f"{arguments.threads} threads, {arguments.runs} runs each"
    )
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(f"{name:22} median {middle:7.2f} s  {len(texts) / middle:7.0f} passages/s")
    ratios = [theirs / ours for ours, theirs in zip(*times.values())]
    print(
        f"sentence-transformers / ragkit, run by run: min {min(ratios):.2f}, "
        f"median {statistics.median(ratios):.2f}, max {max(ratios):.2f}"
    )
    print(f"largest difference of vectors: {np.abs(np.subtract(*vectors.values())).max():.1e}")


if __name__ == "__main__":
    main()
