"""Quality and speed of retrieval on a BEIR folder: `python -m tests.benchmarks.retrieval --beir FOLDER`.

The folder has corpus.jsonl (or .gz), queries.jsonl and qrels/test.tsv, as BEIR's data sets do.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np

from ragkit.evaluation.measures import evaluate, load_qrels, load_queries, paired_interval
from ragkit.retrieval.corpus import load_passages
from ragkit.retrieval.lexical import fuse, hybrid_search, lexical_search
from ragkit.retrieval.library import Library
from ragkit.retrieval.search import retrieve

MEASURES = ("nDCG@10", "R@100")
LATENCY_PASSAGES = 5000


def load(folder: Path, split: str, limit: int | None):
    """Passages, judged queries and judgements; of a limited number of passages the judged come first."""
    passages = load_passages(folder)
    qrels = load_qrels(folder / "qrels" / f"{split}.tsv")
    if limit is not None:
        judged = {passage for grades in qrels.values() for passage in grades}
        passages = sorted(passages, key=lambda passage: passage.id not in judged)[:limit]
        kept = {passage.id for passage in passages}
        qrels = {query: {p: g for p, g in grades.items() if p in kept} for query, grades in qrels.items()}
        qrels = {query: grades for query, grades in qrels.items() if grades}
    texts = load_queries(folder / "queries.jsonl")
    return passages, {query: texts[query] for query in qrels}, qrels


def report(runs: dict[str, dict], qrels: dict) -> None:
    found = {name: evaluate(run, qrels, MEASURES) for name, run in runs.items()}
    for measure in MEASURES:
        print(f"\n{measure} over {len(qrels)} queries, and its difference from dense with a 95 % interval")
        base = found["dense"][measure]
        for name, values in found.items():
            against = "" if name == "dense" else f"  {paired_interval(base, values[measure])}"
            print(f"  {name:6} {values[measure].mean:.4f}{against}")


def latency(name: str, work, queries: list) -> None:
    taken = []
    for query in queries:
        started = time.perf_counter()
        work(query)
        taken.append(1000 * (time.perf_counter() - started))
    median, late = np.percentile(taken, [50, 99])
    print(f"  {name:24} median {median:6.2f} ms, 99th percentile {late:6.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--beir", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--split", default="test", help="which of qrels/ (default: test)")
    parser.add_argument("--passages", type=int, metavar="N", help="only so many, the judged ones first")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    import faiss
    import torch

    from ragkit.retrieval.encoder import Encoder

    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message=".* texts are longer than")
    passages, queries, qrels = load(arguments.beir, arguments.split, arguments.passages)
    encoder = Encoder(memory=0)
    started = time.perf_counter()
    library = Library.build(passages, encoder)
    taken = time.perf_counter() - started
    print(
        f"{len(library):,} passages of {arguments.beir.resolve().name} encoded in {taken:.0f} s "
        f"on {arguments.threads} threads; {encoder.truncated} were longer than the window"
    )
    vectors = {query: encoder.encode_query(text) for query, text in queries.items()}
    dense = {query: retrieve(library, vector, 100) for query, vector in vectors.items()}
    lexical = {query: lexical_search(library, text, 100) for query, text in queries.items()}
    fused = {query: fuse(dense[query], lexical[query], k=100) for query in queries}
    hybrid = {query: hybrid_search(library, text, vectors[query], 100) for query, text in queries.items()}
    report({"dense": dense, "BM25": lexical, "RRF": fused, "hybrid": hybrid}, qrels)

    library.delete([passage.id for passage in passages[LATENCY_PASSAGES:]])
    print(f"\none query after another on {len(library):,} passages, k = 10")
    latency("retrieve", lambda vector: retrieve(library, vector, 10), list(vectors.values()))
    whole = list(queries.values())
    lexical_search(library, "builds the word index", 1)
    pairs = [(queries[query], vector) for query, vector in vectors.items()]
    latency("hybrid_search", lambda pair: hybrid_search(library, *pair, 10), pairs)
    latency("encode_query + retrieve", lambda q: retrieve(library, encoder.encode_query(q), 10), whole)


if __name__ == "__main__":
    main()
