#!/usr/bin/env bash
# torch 2.13.0, CPU: a bfloat16 nn.Linear keeps memory for every number of rows that it has ever multiplied.
#
# In bfloat16 a product is oneDNN's, which makes a program for its shape and keeps it, and with it a buffer: texts of
# many lengths, one by one, have many shapes. Nothing gives that memory back. In float32 such a layer is MKL's, which
# keeps nothing. Two caches hold the programs, oneDNN's and that of torch's bridge to it, and only both limits together
# help. Seen, one layer of 576 × 1,536 (1.7 MB), each of 1 to 1,024 rows once,
# on an EPYC with AVX512_BF16:
#
#     float32                                                                        12 MB more
#     bfloat16, one thread                                                          711 MB
#     bfloat16, two threads                                                       1,224 MB
#     bfloat16, one thread, ONEDNN_PRIMITIVE_CACHE_CAPACITY=16                      416 MB
#     bfloat16, one thread, LRU_CACHE_CAPACITY=16                                   622 MB
#     bfloat16, one thread, both                                                     98 MB
#
# So rows are best filled up to a few sizes. (On processors without AVX512_BF16 or AMX other code runs; not tried.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/grow.py" <<'PY'
import sys

import torch


def resident() -> float:
    """MB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


torch.set_num_threads(1)
layer = torch.nn.Linear(576, 1536, bias=False).to(getattr(torch, sys.argv[1]))
rows = torch.randn(1024, 576, dtype=layer.weight.dtype)
with torch.inference_mode():
    layer(rows)
    before = resident()
    for _ in range(2):  # the second time, nothing is new
        for size in range(1, 1025):
            layer(rows[:size])
    print(round(resident() - before))
PY
grep -qE "avx512_bf16|amx_bf16" /proc/cpuinfo || { echo "this processor multiplies no bfloat16: not tried"; exit 0; }
python="$folder/venv/bin/python"
plain=$("$python" "$folder/grow.py" float32)
low=$("$python" "$folder/grow.py" bfloat16)
one=$(ONEDNN_PRIMITIVE_CACHE_CAPACITY=16 "$python" "$folder/grow.py" bfloat16)
both=$(ONEDNN_PRIMITIVE_CACHE_CAPACITY=16 LRU_CACHE_CAPACITY=16 "$python" "$folder/grow.py" bfloat16)
echo "float32 $plain MB, bfloat16 $low MB, with oneDNN's cache limited $one MB, with both limited $both MB"
[ "$plain" -lt 60 ] && [ "$low" -gt 300 ] && [ "$one" -gt $((2 * both)) ]
