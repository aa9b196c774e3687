"""What indexing and searching many passages takes: `python -m tests.benchmarks.indexing stream --passages N`.

- `stream`: `index_corpus` on N short passages of JSONL, its peak of memory and its time. Their vectors are
  drawn at random, in no time, unless `--encoder` encodes them. `--to x.db` or an address: into Milvus, and
  searches there afterwards.
- `search`: `retrieve` beside FAISS alone, one query at a time, and an index with numbers beside one without.
- `mmap`: the memory of a library's index, read and mapped; before and after 100 searches.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.library import Library
from ragkit.retrieval.milvus import load_library
from ragkit.retrieval.milvus_collection import is_milvus
from ragkit.retrieval.search import retrieve
from ragkit.retrieval.streaming import index_corpus


class RandomEncoder:
    """Not an encoder: vectors near one of a thousand centres, all drawn at random."""

    name, fingerprint, dimension, tokenizer = "random", "0" * 64, 384, None

    def __init__(self):
        self.random = np.random.default_rng(0)
        self.centres = self.random.normal(size=(1000, self.dimension)).astype(np.float32)

    def encode_passages(self, texts, *, progress=True):
        centres = self.centres[self.random.integers(0, len(self.centres), len(texts))]
        noise = self.random.standard_normal((len(texts), self.dimension), dtype=np.float32)
        vectors = centres + 0.7 * noise
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def stream(number: int, index: str | None, real: bool, to: str | None) -> None:
    import faiss  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        path, to = Path(folder) / "corpus.jsonl", to or str(Path(folder) / "library")
        with path.open("w") as file:
            for n in range(number):
                text = f"Passage {n} of {number}: what was said of subject {n % 997} on day {n % 31}."
                file.write(json.dumps({"_id": f"p{n}", "text": text}) + "\n")
        encoder = RandomEncoder()
        if real:
            from ragkit.retrieval.encoder import Encoder

            encoder = Encoder(memory=0)
        before, started, used = peak(), time.perf_counter(), time.process_time()
        total, told = index_corpus(path, to, encoder, index=index, progress=is_milvus(to))
        taken, used = time.perf_counter() - started, time.process_time() - used
        size = sum(file.stat().st_size for file in Path(to).rglob("*") if file.is_file()) / 2**20
        print(
            f"{total:,} passages, {to if is_milvus(to) else index or 'Flat'}, {encoder.name}: {taken:.0f} s "
            f"({used:.0f} s of CPU time), memory {before:.0f} MB before, {peak():.0f} MB at its peak; "
            f"{size:,.0f} MB on disk{told}",
            flush=True,
        )
        if is_milvus(to):
            searched(to, encoder)


def searched(place: str, encoder) -> None:
    """A library in Milvus opened anew, and ten searches."""
    started = time.perf_counter()
    library = load_library(place, encoder)
    print(f"opened in {time.perf_counter() - started:.1f} s: {len(library):,} passages", flush=True)
    taken, used = [], []
    for vector in encoder.encode_passages(["a subject"] * 11):
        started, before = time.perf_counter(), time.process_time()
        retrieve(library, vector, 10)
        taken.append(time.perf_counter() - started)
        used.append(time.process_time() - before)
    print(
        f"the first search {taken[0]:.2f} s; ten more: median {np.median(taken[1:]):.2f} s, at most "
        f"{max(taken[1:]):.2f} s, CPU time {np.median(used[1:]):.2f} s; memory {resident()}, {peak():.0f} MB "
        "at its peak"
    )
    library.close()


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident() -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith("Rss")}
    return f"{sizes['RssAnon']:,.0f} MB of its own, {sizes['RssFile']:,.0f} MB of files"


def random_library(number: int, index: str) -> Library:
    passages = [Passage(f"p{n}", "") for n in range(number)]
    return Library.build(passages, RandomEncoder(), index=index)


def search(number: int) -> None:
    import faiss

    library = random_library(number, "Flat")
    vectors, queries = library.vectors, RandomEncoder().encode_passages([""] * 256)
    raw = faiss.IndexFlatIP(library.dimension)
    raw.add(vectors)
    ways = {
        "1 query: FAISS": lambda: [raw.search(query[None], 10) for query in queries[:50]],
        "1 query: retrieve": lambda: [retrieve(library, query, 10) for query in queries[:50]],
        "256 queries: FAISS": lambda: raw.search(queries, 10),
        "256 queries: with numbers": lambda: library._index.search(queries, 10),
    }
    taken = {name: [] for name in ways}
    for _ in range(9):  # in turns: whatever else runs here hits all alike
        for name, way in ways.items():
            started = time.process_time()
            way()
            taken[name].append((time.process_time() - started) / (50 if name.startswith("1 ") else 1))
    for name, seconds in taken.items():
        print(
            f"{name:26} median {1000 * np.median(seconds):7.2f}, least {1000 * min(seconds):7.2f} ms of CPU"
        )


def mmap(number: int, index: str) -> None:
    import subprocess
    import sys

    with tempfile.TemporaryDirectory() as folder:
        random_library(number, index).save(folder)
        size = next(Path(folder).glob("vectors-*")).stat().st_size / 2**20
        print(f"{number:,} vectors, {index}: {size:,.0f} MB on disk")
        for mapped in (False, True):
            subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.indexing", "_load", folder, str(mapped)], check=True
            )


def _load(folder: str, mapped: bool) -> None:
    import faiss  # noqa: F401

    queries, before = RandomEncoder().encode_passages([""] * 100), resident()
    library = Library.load(folder, mmap=mapped)
    loaded = resident()
    for query in queries:
        retrieve(library, query, 10)
    print(f"  mmap={mapped}: before {before}; loaded {loaded}; after 100 searches {resident()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["stream", "search", "mmap", "_load"])
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--index", help="the kind of index (default: Flat)")
    parser.add_argument("--to", metavar="PLACE", help="where (default: a folder that is deleted at the end)")
    parser.add_argument("--encoder", action="store_true", help="encode, and draw nothing at random")
    arguments = parser.parse_args()
    if arguments.what == "stream":
        stream(arguments.passages, arguments.index, arguments.encoder, arguments.to)
    elif arguments.what == "search":
        search(arguments.passages)
    elif arguments.what == "mmap":
        mmap(arguments.passages, arguments.index or "Flat")
    else:
        _load(arguments.rest[0], arguments.rest[1] == "True")


if __name__ == "__main__":
    main()
