#!/usr/bin/env bash
# faiss-cpu 1.15.1: IO_FLAG_MMAP maps the lists of an inverted file, and reads any other index into memory.
#
# The flag is older than the code that can map flat storage, and means inverted lists only: a Flat, HNSW, SQ or PQ
# index comes back whole, in the process's own memory, without a word. IO_FLAG_MMAP_IFC maps all of them. Seen,
# 20,000 vectors of 384 dimensions, MB of the process's own memory that reading takes:
#
#                  no flag   MMAP   MMAP_IFC
#     Flat              29     29          0
#     HNSW8             31     31          0
#     SQ8                7      7          0
#     IVF50,Flat        30      0          1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet faiss-cpu==1.15.1 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PY'
import os
import subprocess
import sys

import faiss
import numpy as np

MEASURE = """
import sys
import faiss
own = lambda: next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))
before = own()
index = faiss.read_index(sys.argv[1], int(sys.argv[2]))
print(own() - before)
"""
vectors = np.random.default_rng(0).normal(size=(20_000, 384)).astype("float32")
flags = {"no flag": 0, "MMAP": faiss.IO_FLAG_MMAP, "MMAP_IFC": faiss.IO_FLAG_MMAP_IFC}
print(" " * 12, *(f"{name:>8}" for name in flags))
for kind in ("Flat", "HNSW8", "SQ8", "IVF50,Flat"):
    index = faiss.index_factory(384, kind, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        index.train(vectors[:5000])
    index.add(vectors)
    path = os.path.join(sys.argv[1], "index.faiss")
    faiss.write_index(index, path)
    taken = [
        float(subprocess.check_output([sys.executable, "-c", MEASURE, path, str(flag)])) for flag in flags.values()
    ]
    print(f"{kind:12}", *(f"{megabytes:8.0f}" for megabytes in taken))
    if kind != "IVF50,Flat":
        assert taken[1] > 0.9 * taken[0] > 1.5 * taken[2], taken
PY
