#!/usr/bin/env bash
# transformers 5.23.0: a model loaded from a GGUF file is made of float32 weights, and counts as quantised.
#
# For most architectures (Llama, Qwen2, …) `from_pretrained(…, gguf_file=…)` unpacks the file, as it always has, so
# that its model can be trained on. But the model keeps the mark of a quantised one: Trainer refuses it, with LoRA
# adapters too, `.float()` and `.half()` refuse it, and save_pretrained cannot save it. What to do: load it with
# `quantization_config=GgufConfig(dequantize=True)`. The weights are the same, bit for bit, and all of that works.
# Seen, one small Llama in Q4_1, plain and with that setting:
#
#     weights           float32           float32
#     .float()          ValueError        works
#     save_pretrained   ValueError        works
#     Trainer           ValueError        works
#     Trainer, LoRA     ValueError        works
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2 gguf==0.19.0 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - <<'PY' 2> "$folder/log" || { cat "$folder/log"; exit 1; }
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GgufConfig, Trainer, TrainingArguments

writer = GGUFWriter("tiny.gguf", "llama")
writer.add_vocab_size(64)
writer.add_embedding_length(64)
writer.add_feed_forward_length(96)
writer.add_block_count(1)
writer.add_head_count(4)
writer.add_head_count_kv(4)
writer.add_context_length(128)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_freq_base(10000.0)
matrices = {"attn_q": (64, 64), "attn_k": (64, 64), "attn_v": (64, 64), "attn_output": (64, 64)}
matrices |= {"ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96)}
matrices = {"token_embd": (64, 64)} | {f"blk.0.{name}": size for name, size in matrices.items()}
random = np.random.default_rng(0)
for name, size in matrices.items():
    packed = quantize(random.normal(size=size).astype(np.float32), GGMLQuantizationType.Q4_1)
    writer.add_tensor(f"{name}.weight", packed, raw_dtype=GGMLQuantizationType.Q4_1)
for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
    writer.add_tensor(f"{name}.weight", np.ones(64, np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()


def load(**settings):
    return AutoModelForCausalLM.from_pretrained(".", gguf_file="tiny.gguf", **settings)


def train(model):
    Trainer(model, TrainingArguments("out", use_cpu=True, report_to="none"))


tried = {
    ".float()": lambda model: model.float(),
    "save_pretrained": lambda model: model.save_pretrained("saved"),
    "Trainer": train,
    "Trainer, LoRA": lambda model: train(get_peft_model(model, LoraConfig(target_modules=["q_proj"]))),
}


def outcome(act, model):
    try:
        act(model)
        return "works"
    except ValueError:
        return "ValueError"


plain, whole = load(), load(quantization_config=GgufConfig(dequantize=True))
assert {p.dtype for model in (plain, whole) for p in model.parameters()} == {torch.float32}
assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), whole.parameters()))
print(f"{'weights':18}{'float32':18}float32")
for name, act in tried.items():
    found = outcome(act, load()), outcome(act, load(quantization_config=GgufConfig(dequantize=True)))
    print(f"{name:18}{found[0]:18}{found[1]}")
    assert found == ("ValueError", "works"), name
PY
