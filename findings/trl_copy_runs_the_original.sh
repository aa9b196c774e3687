#!/usr/bin/env bash
# TRL 1.16.0: a deep copy of a model for which a DPOTrainer was made answers with the weights of the original.
#
# The trainer (as the ones for SFT, KTO, GRPO and RLOO) gives the model another forward, which keeps the first one in
# a closure; copy.deepcopy copies the weights, and not what a closure holds. So the copy has its own weights in
# state_dict(), while its calls, and generate(), run the model that it was copied from: the "best model so far", kept
# while training went on, answers as the last one, and a frozen copy is not frozen. Nothing warns, and it stays so
# after training. What to do: keep a clone of state_dict(), or `del copied.forward`, which gives the copy the forward
# of its class. Seen, the largest difference between the logits of a copy and those of the model before training:
#
#     copied before a trainer was made     0.000
#     copied after that                    3.118  (as the model that was trained on: 0.000)
#     copied after that, forward deleted   0.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 trl==1.16.0 accelerate==1.15.0 datasets==5.2.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import copy

import torch
from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

disable_progress_bars()
torch.manual_seed(0)
names = ["<pad>", "<eos>", *(f"w{i}" for i in range(60))]
words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<eos>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
model = LlamaForCausalLM(LlamaConfig(vocab_size=62, **shape, **special)).eval()
ids = torch.tensor([[2, 3, 4]])


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


settings = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
settings |= {"logging_strategy": "no", "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
settings = DPOConfig("out", max_steps=20, **settings)
rows = Dataset.from_list([{"prompt": "w0 w1", "chosen": " w2 w3", "rejected": " w4 w5"}])
before, ahead = logits(model), copy.deepcopy(model)
trainer = DPOTrainer(model, ahead, args=settings, train_dataset=rows, processing_class=tokenizer)
kept, mended = copy.deepcopy(model), copy.deepcopy(model)
del mended.forward
trainer.train()
assert not torch.equal(kept.lm_head.weight, model.lm_head.weight)  # the weights were copied


def apart(one, other):
    return (one - other).abs().max().item()


moved, as_trained = apart(logits(kept), before), apart(logits(kept), logits(model))
print(f"copied before a trainer was made     {apart(logits(ahead), before):.3f}")
print(f"copied after that                    {moved:.3f}  (as the model that was trained on: {as_trained:.3f})")
print(f"copied after that, forward deleted   {apart(logits(mended), before):.3f}")
assert moved > 0.1 and as_trained == 0
assert apart(logits(mended), before) < 1e-5 and apart(logits(ahead), before) < 1e-5
PY
