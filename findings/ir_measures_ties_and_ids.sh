#!/usr/bin/env bash
# ir-measures 0.4.3: what a measure makes of equal scores depends on which tool it hands the run to.
#
# RR and RR@10 of one run differ though the relevant passage is among the first ten: RR goes to trec_eval, which
# puts the larger id first among equal scores, RR@10 to another provider, which puts the smaller one first. And
# ERR@10 goes to a script that cuts query ids to their number: of two queries called dev-1 and train-1, both
# ranked perfectly, it makes a third one, "1", and both themselves get 0. What to do: give numbers for ids, and
# scores that never tie. Seen:
#
#     relevant a, both score 1.0: RR 0.5, RR@10 1.0
#     relevant b, both score 1.0: RR 1.0, RR@10 0.5
#     ERR@10 of two queries that are ranked perfectly: {'1': 0.0918, 'dev-1': 0.0, 'train-1': 0.0}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ir-measures==0.4.3
"$folder/venv/bin/python" - <<'PY'
import ir_measures
from ir_measures import ERR, RR

run = {"1": {"a": 1.0, "b": 1.0}}
for relevant in "ab":
    found = ir_measures.calc_aggregate([RR, RR @ 10], {"1": {relevant: 1}}, run)
    print(f"relevant {relevant}, both score 1.0: RR {found[RR]}, RR@10 {found[RR @ 10]}")
    assert (found[RR], found[RR @ 10]) == ((0.5, 1.0) if relevant == "a" else (1.0, 0.5))

qrels = {query: {"a": 1, "b": 0} for query in ("dev-1", "train-1")}
perfect = {query: {"a": 2.0, "b": 1.0} for query in qrels}
found = {metric.query_id: metric.value for metric in ir_measures.iter_calc([ERR @ 10], qrels, perfect)}
print("ERR@10 of two queries that are ranked perfectly:", found)
assert found == {"1": 0.0918, "dev-1": 0.0, "train-1": 0.0}
PY
