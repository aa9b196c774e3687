#!/usr/bin/env bash
# faiss-cpu 1.15.1: of equal vectors in a Flat index, one query on two threads gives different scores.
#
# Where a search has fewer queries than threads and the index 10,000 vectors or more, each thread multiplies its part
# of the vectors as a matrix (faiss/utils/distances.cpp, knn_db_parallel_impl), whose rounding depends on where a row
# stands; so does that of many queries at once (queries · dimensions ≥ 128,000). With as many threads as queries, pairs
# are multiplied one by one, and equal rows score alike. With two threads a single query also takes longer than with
# one: seen, 100,000 vectors of 384 dimensions on two cores, 29 ms against 10 ms.
#
#                          threads 1   threads 2
#     twins that differ            0         some
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet faiss-cpu==1.15.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import time

import faiss
import numpy as np

random = np.random.default_rng(0)
vectors = random.normal(size=(10_000, 384)).astype("float32")
vectors = np.concatenate([vectors, vectors])[random.permutation(20_000)]  # each of them twice
index = faiss.IndexFlatIP(384)
index.add(vectors)
differ = {}
for threads in (1, 2):
    faiss.omp_set_num_threads(threads)
    taken, differ[threads] = [], 0
    for query in random.normal(size=(20, 384)).astype("float32"):
        started = time.perf_counter()
        scores, _ = index.search(query[None], 10)
        taken.append(time.perf_counter() - started)
        differ[threads] += int((scores[0, ::2] != scores[0, 1::2]).sum())
    print(f"{threads} threads: {differ[threads]} of 100 pairs of twins differ, {np.median(taken) * 1000:.0f} ms a query")
assert differ[1] == 0 < differ[2]
PY
