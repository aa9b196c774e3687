#!/usr/bin/env bash
# accelerate 1.15.0, on a machine without a GPU: two processes that are asked for are one, or two strangers.
#
# `accelerate launch --cpu --num_processes 2` starts one process and says nothing of the other (several on CPUs
# need mpirun, or `--multi_gpu`, which is torchrun). And in two processes that torchrun did start, PartialState()
# and Accelerator() each believe to be alone, unless cpu=True: no gradient is exchanged, each trains and saves by
# itself, without an error. Seen:
#
#     --cpu --num_processes 2:          num_processes 1, main True
#     torchrun, PartialState():         num_processes 1, main True; num_processes 1, main True
#     torchrun, PartialState(cpu=True): num_processes 2, main True; num_processes 2, main False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 accelerate==1.15.0
cat >"$folder/script.py" <<'PY'
import sys

from accelerate import PartialState

state = PartialState(cpu="cpu" in sys.argv)
print(f"num_processes {state.num_processes}, main {state.is_main_process}", flush=True)
PY
export HF_HOME="$folder" OMP_NUM_THREADS=1
python="$folder/venv/bin/python"
joined() { sort -r | paste -sd';' | sed 's/;/; /'; }
seen() {
    echo "--cpu --num_processes 2: $("$folder/venv/bin/accelerate" launch --cpu --num_processes 2 "$folder/script.py" cpu | joined)"
    for how in "" cpu; do
        echo "torchrun, PartialState(${how:+cpu=True}): $(
            "$python" -m torch.distributed.run --nproc-per-node 2 "$folder/script.py" $how | joined
        )"
    done
}
seen 2>"$folder/said" | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
--cpu --num_processes 2: num_processes 1, main True
torchrun, PartialState(): num_processes 1, main True; num_processes 1, main True
torchrun, PartialState(cpu=True): num_processes 2, main True; num_processes 2, main False
SEEN
