#!/usr/bin/env bash
# faiss-cpu 1.15.1: what a vector scores in a Flat index depends on the number of queries and of threads.
#
# Where a search has fewer queries than threads and the index 10,000 vectors or more, each thread multiplies its part
# of the vectors as a matrix (faiss/utils/distances.cpp, knn_db_parallel_impl); queries with 128,000 numbers in all are
# multiplied as a matrix, too. Matrices round otherwise than pairs of vectors, and by where a row stands: so equal rows
# differ. Else pairs are multiplied one by one. One query takes longer on two threads than on one: seen, 100,000
# vectors of 384 dimensions on two idle cores, 29 ms against 10. Of 20,000 vectors, each there twice, scores of the ten
# nearest to the first 20 queries:
#
#                                    as one by one on one thread   pairs of twins that differ
#     one by one, two threads                            52 of 200                     0 of 100
#     400 at once, one thread                            52 of 200                     8 of 100
#     400 at once, two threads                           54 of 200                     6 of 100
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet faiss-cpu==1.15.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import faiss
import numpy as np

random = np.random.default_rng(0)
vectors = random.normal(size=(10_000, 384)).astype("float32")
vectors = np.concatenate([vectors, vectors])[random.permutation(20_000)]  # each of them twice
queries = random.normal(size=(400, 384)).astype("float32")
index = faiss.IndexFlatIP(384)
index.add(vectors)


def scores(threads: int, at_once: bool) -> np.ndarray:
    faiss.omp_set_num_threads(threads)
    if at_once:
        return index.search(queries, 10)[0][:20]
    return np.concatenate([index.search(query[None], 10)[0] for query in queries[:20]])


first = scores(1, False)
for threads, at_once in ((1, False), (2, False), (1, True), (2, True)):
    found = scores(threads, at_once)
    same, twins = int((found == first).sum()), int((found[:, ::2] != found[:, 1::2]).sum())
    print(f"{threads} threads, {400 if at_once else 1} at once: {same} of 200 the same, {twins} of 100 twins differ")
    assert (same < 150) == (at_once or threads > 1)
    assert (twins > 0) == at_once
PY
