"""A library in Milvus beside FAISS's, on a BEIR folder: `python -m tests.benchmarks.milvus --beir FOLDER`.

The same vectors, and all questions of the split: are the hits the same, in the same order, how far are their
scores apart, and what is nDCG@10 of either?
"""

import argparse
import tempfile
import warnings
from pathlib import Path

from ragkit.evaluation.measures import evaluate
from ragkit.retrieval.lexical import hybrid_search
from ragkit.retrieval.library import Library
from ragkit.retrieval.milvus import MilvusLibrary
from ragkit.retrieval.search import retrieve
from ragkit.retrieval.streaming import index_corpus
from tests.benchmarks.retrieval import load

WAYS = {
    "retrieve": lambda library, text, vector, k: retrieve(library, vector, k),
    "hybrid_search": hybrid_search,
}


def compare(ours: Library, there: Library, queries: dict, vectors: dict, qrels: dict, k: int) -> None:
    for name, way in WAYS.items():
        runs = [
            {query: way(library, text, vectors[query], k) for query, text in queries.items()}
            for library in (ours, there)
        ]
        pairs = [(runs[0][query], runs[1][query]) for query in queries]
        same = sum([hit.passage for hit in a] == [hit.passage for hit in b] for a, b in pairs)
        apart = max(abs(x.score - y.score) for a, b in pairs for x, y in zip(a, b))
        faiss, milvus = (evaluate(run, qrels, ["nDCG@10"])["nDCG@10"].mean for run in runs)
        print(
            f"{name}, k = {k}: the same hits in the same order for {same} of {len(pairs)} questions; scores "
            f"at most {apart:.1e} apart; nDCG@10 {faiss:.4f} by FAISS, {milvus:.4f} by Milvus",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--beir", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--split", default="test", help="which of qrels/ (default: test)")
    parser.add_argument("--to", metavar="PLACE", help="x.db or an address, where no library is yet")
    parser.add_argument("--faiss", metavar="FOLDER", help="where FAISS's library is, or is to be kept")
    arguments = parser.parse_args()

    from ragkit.retrieval.encoder import Encoder

    warnings.filterwarnings("ignore", message=".* texts are longer than")
    encoder = Encoder(memory=0)
    _, queries, qrels = load(arguments.beir, arguments.split, None)
    vectors = {query: encoder.encode_query(text) for query, text in queries.items()}
    with tempfile.TemporaryDirectory() as folder:
        faiss = arguments.faiss or str(Path(folder) / "faiss")
        index_corpus(arguments.beir, faiss, encoder)
        ours = Library.load(faiss, encoder)
        there = MilvusLibrary.open(arguments.to or str(Path(folder) / "library.db"), encoder)
        if not len(there):
            there.add(ours.passages, ours.vectors)
        print(f"{len(ours):,} passages by FAISS, {len(there):,} in {arguments.to or 'Milvus Lite'}")
        for k in (10, 100):
            compare(ours, there, queries, vectors, qrels, k)
        there.close()


if __name__ == "__main__":
    main()
