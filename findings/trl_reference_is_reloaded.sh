#!/usr/bin/env bash
# TRL 1.16.0: DPOTrainer without `ref_model` does not start from the model that it is given.
#
# Its documentation says that without `ref_model` the reference is "the initial policy corresponding to `model`, i.e.
# the model state before DPO training starts", and early versions copied the model. Now it loads the checkpoint that
# is named in the model's config once more. Where the model was changed in memory (tuned a first time, adapters
# merged, weights averaged), policy and reference differ at step 0: the loss does not start at log 2 = 0.6931, and
# the KL penalty pulls back to the checkpoint. Nothing warns. What to do: pass `ref_model=copy.deepcopy(model)`, or
# set `precompute_ref_log_probs=True`. Seen, the first loss of one model, noise added after loading:
#
#     ref_model=None                                 1.9129
#     ref_model=None, precompute_ref_log_probs=True  0.6931
#     ref_model=copy.deepcopy(model)                 0.6931
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 trl==1.16.0 accelerate==1.15.0 datasets==5.2.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import copy
import math

import torch
from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

disable_progress_bars()
torch.manual_seed(0)
names = ["<pad>", "<eos>", *(f"w{i}" for i in range(60))]
words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<eos>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
LlamaForCausalLM(LlamaConfig(vocab_size=62, **shape, **special)).save_pretrained("checkpoint")

model = AutoModelForCausalLM.from_pretrained("checkpoint")
with torch.no_grad():  # in place of a first round of tuning
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter))


def first_loss(ref_model=None, **settings):
    settings = DPOConfig("out", use_cpu=True, bf16=False, report_to="none", disable_tqdm=True, beta=0.5, **settings)
    rows = Dataset.from_list([{"prompt": "w1 w2", "chosen": " w3 w4 w9", "rejected": " w5 w6 w7"}])
    trainer = DPOTrainer(
        copy.deepcopy(model), ref_model, args=settings, train_dataset=rows, processing_class=tokenizer
    )
    return trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader()))).item()


reloaded, precomputed, copied = first_loss(), first_loss(precompute_ref_log_probs=True), first_loss(copy.deepcopy(model))
print(f"ref_model=None                                 {reloaded:.4f}")
print(f"ref_model=None, precompute_ref_log_probs=True  {precomputed:.4f}")
print(f"ref_model=copy.deepcopy(model)                 {copied:.4f}")
assert abs(reloaded - math.log(2)) > 0.1
assert abs(precomputed - math.log(2)) < 1e-5 and abs(copied - math.log(2)) < 1e-5
PY
