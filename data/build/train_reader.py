"""Train smollm2-reader: a low-rank adapter on SmolLM2-135M-Instruct that reads numbered sentences.

    python data/build/train_reader.py --text FOLDER --questions FOLDER --own data --work FOLDER \\
        --out data/smollm2-reader

`--text` holds JSON lines with a text field, `--questions` files in SQuAD format; nothing is downloaded.
Stopped by whatever means, the same command goes on from the last checkpoint in `--work`, with the examples
that it would have had. One question gives two branches after a shared prompt, the phrase and the answer in
other words: both are read in one pass, under a mask that hides one from the other.
"""

import argparse
import itertools
import json
import math
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from reader_data import EASY, Example, Examples, load_examples
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoConfig, AutoTokenizer

from ragkit.generation.reader import ADAPTER, CONFIG, SETTINGS
from ragkit.generation.reader_format import Format
from ragkit.generation.smollm2 import base_folder

RANK, SCALE = 24, 2.0
FIRST = 1 / 3  # of the blocks, the lowest, carry no adapter: a sixth less work, since no gradient goes there
TOKENS = (
    2000  # a step; while examples are easy half of that: matching appears after so many steps, not tokens
)
KEEP = 100  # a checkpoint every so many steps
CITE, WORD = 2.0, 0.5  # weights of a citation, of a token of what is said
TELL, TAP = 3.0, 2 / 3  # the weight of the second task, and the share of the blocks below it
PARTS = {  # matrices that have one input are joined, and share one A
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


@dataclass
class Row:
    """One example as tokens: `branch` 0 is the prompt, 1 and 2 what may follow it."""

    ids: list[int]
    branch: list[int]
    positions: list[int]
    weights: list[float]  # of each token as a target
    ends: list[int]  # where the sentences end
    answers: list[float]  # of each sentence, whether it answers


def encode(example: Example, form: Format, rng: random.Random) -> Row:
    ids, ends = form.evidence_ids(example.question, example.sentences)
    cited = {claim.sentence for claim in example.claims}
    answers = [float(number in cited) for number in range(len(ends))]
    row = Row(ids, [0] * len(ids), list(range(len(ids))), [0.0] * len(ids), ends, answers)
    styles = ["phrase", rng.choice(["free", "free", "sentence"])]
    if not example.claims:
        styles = [rng.choice(["phrase", "sentence", "free"])]
    for number, style in enumerate(styles, 1):
        if style == "free" and not all(claim.written for claim in example.claims):
            style = "sentence"
        if style == "sentence" and len(example.claims) == 1 and rng.random() < 0.5:
            continue  # copying is soon learned, and the citation is asked for in the other branch already
        asked = form.style_ids(style)
        answer = form.answer_ids(_claims(example, style))
        cut = asked + answer
        row.positions += range(len(ids), len(ids) + len(cut))
        row.ids = row.ids + cut
        row.branch += [number] * len(cut)
        row.weights += [0.0] * len(asked) + [CITE] + [WORD] * (len(answer) - 1)
    return row


def _claims(example: Example, style: str) -> list[tuple[int, str]]:
    texts = {
        "phrase": lambda claim: claim.phrase,
        "sentence": lambda claim: example.sentences[claim.sentence],
        "free": lambda claim: claim.written,
    }
    claims = example.claims if style != "phrase" else example.claims[:1]
    return [(claim.sentence, texts[style](claim)) for claim in claims]


class Reader:
    """The base in bfloat16, frozen, and the adapter's A and B in float32."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype = torch.bfloat16):
        self.device, config = device, AutoConfig.from_pretrained(folder, local_files_only=True)
        self.heads, self.keys, self.size = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.theta, self.eps = config.rope_parameters["rope_theta"], config.rms_norm_eps
        count = config.num_hidden_layers
        self.first, self.tap = round(FIRST * count), round(TAP * count)
        weights = {k: v.to(device, dtype) for k, v in load_file(folder / "model.safetensors").items()}
        self.table, self.norm = weights["model.embed_tokens.weight"], weights["model.norm.weight"]
        self.layers, self.adapter = [], {}
        self.rows = {name: [] for name in PARTS}  # of each part of a joined matrix
        for number in range(count):
            get = lambda name, n=number: weights[f"model.layers.{n}.{name}.weight"]  # noqa: E731
            layer = {"before": get("input_layernorm"), "after": get("post_attention_layernorm")}
            for name, parts in PARTS.items():
                layer[name] = torch.cat([get(part) for part in parts])
                self.rows[name] = [len(get(part)) for part in parts]
                if number >= self.first:
                    out, size = layer[name].shape
                    a = torch.randn(RANK, size, device=device) / math.sqrt(size)
                    self.adapter[f"{number}.{name}.A"] = a
                    self.adapter[f"{number}.{name}.B"] = torch.zeros(out, RANK, device=device)
            self.layers.append(layer)
        self.adapter["tell.weight"] = torch.zeros(1, self.table.shape[1], device=device)
        self.adapter["tell.bias"] = torch.full((1,), -1.5, device=device)  # one sentence of five answers
        for tensor in self.adapter.values():
            tensor.requires_grad_()

    def _linear(self, x, number: int, name: str):
        y = F.linear(x, self.layers[number][name])
        if number < self.first:
            return y
        a, b = self.adapter[f"{number}.{name}.A"], self.adapter[f"{number}.{name}.B"]
        return y + F.linear(F.linear(x, a.to(x.dtype)), (SCALE * b).to(x.dtype))

    def states(self, ids, positions, mask):
        """(B, T, H) of the last block, normalised, and of the TAP-th. `mask`: (B, T, T), what sees what."""
        frequencies = self.theta ** (-torch.arange(0, self.size, 2, device=self.device) / self.size)
        angles = positions[..., None] * frequencies
        turn = torch.cat([angles, angles], -1)[:, None]  # (B, 1, T, D)
        x, hidden = F.embedding(ids, self.table), ~mask[:, None, None]
        cos, sin = turn.cos().to(x.dtype), turn.sin().to(x.dtype)
        for number in range(len(self.layers)):
            x = self._block(x, number, cos, sin, hidden)
            if number + 1 == self.tap:
                tapped = x
        return F.rms_norm(x, (x.shape[-1],), self.norm, self.eps), tapped

    def tell(self, states):
        """Logits of whether a sentence answers, from the state at its end: (N, H) -> (N,)."""
        states = F.rms_norm(states.float(), (states.shape[-1],))
        return F.linear(states, self.adapter["tell.weight"], self.adapter["tell.bias"])[:, 0]

    def _block(self, x, number, cos, sin, hidden):
        rows, length, width = x.shape
        layer = self.layers[number]
        h = self._linear(F.rms_norm(x, (width,), layer["before"], self.eps), number, "qkv")
        h = h.view(rows, length, -1, self.size).transpose(1, 2)
        q, k, v = h.split([self.heads, self.keys, self.keys], 1)
        half = self.size // 2
        q, k = (z * cos + torch.cat([-z[..., half:], z[..., :half]], -1) * sin for z in (q, k))
        # Heads that share keys stand under each other: one product for three heads, and no copies of k, v.
        # Products and a softmax of our own: with a mask, twice as fast in bfloat16 as the fused kernel here.
        q = q.reshape(rows, self.keys, -1, self.size)
        scores = (q @ k.transpose(-1, -2)).view(rows, self.keys, -1, length, length) * self.size**-0.5
        shares = scores.masked_fill(hidden, -1e9).softmax(-1).view(rows, self.keys, -1, length)
        h = (
            (shares @ v)
            .view(rows, self.heads, length, self.size)
            .transpose(1, 2)
            .reshape(rows, length, width)
        )
        x = x + self._linear(h, number, "o")
        gate, up = self._linear(F.rms_norm(x, (width,), layer["after"], self.eps), number, "gate_up").chunk(
            2, -1
        )
        return x + self._linear(F.silu(gate) * up, number, "down")


def loss_of(reader: Reader, rows: list[Row]) -> tuple[torch.Tensor, dict]:
    """The summed weighted cross-entropy of what follows the prompts; logits are made only where it counts.

    With a second task, in training only: to tell at each sentence's end whether it answers, two thirds of the
    way up. It gives a signal for every sentence, below the blocks that have to name one.
    """
    size, device = max(len(row.ids) for row in rows), reader.device
    ids, positions, branch = (torch.zeros(len(rows), size, dtype=torch.long) for _ in range(3))
    weights = torch.zeros(len(rows), size)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        positions[number, : len(row.ids)] = torch.tensor(row.positions)
        branch[number, : len(row.ids)] = torch.tensor(row.branch)
        weights[number, : len(row.ids)] = torch.tensor(row.weights)
    ids, positions, branch, weights = (t.to(device) for t in (ids, positions, branch, weights))
    before = torch.ones(size, size, dtype=torch.bool, device=device).tril()
    mask = before & ((branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None]))
    states, tapped = reader.states(ids, positions, mask)
    ends = [(number, end) for number, row in enumerate(rows) for end in row.ends]
    answers = torch.tensor([answer for row in rows for answer in row.answers], device=device)
    share = torch.tensor([1 / len(row.ends) for row in rows for _ in row.ends], device=device)
    told = reader.tell(tapped[tuple(torch.tensor(ends, device=device).T)])
    telling = F.binary_cross_entropy_with_logits(told, answers, reduction="none")
    states = states[:, :-1]
    counted = weights[:, 1:] > 0
    logits = F.linear(states[counted], reader.table).float()
    losses = F.cross_entropy(logits, ids[:, 1:][counted], reduction="none")
    weight = weights[:, 1:][counted]
    cited = weight == CITE
    parts = {
        "cite": losses[cited].detach().mean().item(),
        "right": (logits[cited].argmax(-1) == ids[:, 1:][counted][cited]).float().mean().item(),
        "words": losses[~cited].detach().mean().item(),
        "tell": telling.detach().mean().item(),
    }
    return (losses * weight).sum() + TELL * (telling * share).sum(), parts


def batches(rows: list[Row], rng: random.Random, most: int) -> list[list[Row]]:
    """Rows of like length together, at most `most` tokens a batch with their padding, in random order."""
    out: list[list[Row]] = [[]]
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if out[-1] and (len(out[-1]) + 1) * len(row.ids) > most:
            out.append([])
        out[-1].append(row)
    rng.shuffle(out)
    return out


def chunk(examples: Examples, number: int, form: Format, seed: int, size: int = 256) -> list[list[Row]]:
    """The batches of examples number·size to (number + 1)·size."""
    rng = random.Random(f"{seed} {number}")
    rows = [encode(examples.draw(i), form, rng) for i in range(number * size, (number + 1) * size)]
    most = TOKENS if number * size >= EASY else TOKENS // 2
    return batches([row for row in rows if len(row.ids) <= 640], rng, most)


def save(folder: Path, tensors: dict[str, torch.Tensor], name: str, about: dict | None = None) -> None:
    partial = folder / f"{name}.partial"
    save_file({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, partial, metadata=about)
    os.replace(partial, folder / name)


def export(reader: Reader, folder: Path) -> None:
    """The adapter as the library peft reads it: bfloat16, and A repeated for each matrix that shares it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors, layers = {}, range(reader.first, len(reader.layers))
    for number, (name, parts) in itertools.product(layers, PARTS.items()):
        for part, b in zip(parts, reader.adapter[f"{number}.{name}.B"].split(reader.rows[name])):
            full = f"base_model.model.model.layers.{number}.{part}"
            tensors[f"{full}.lora_A.weight"] = reader.adapter[f"{number}.{name}.A"].bfloat16().clone()
            tensors[f"{full}.lora_B.weight"] = b.bfloat16().clone()
    save(folder, tensors, ADAPTER, {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "r": RANK,
        "lora_alpha": int(SCALE * RANK),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(part.split(".")[1] for parts in PARTS.values() for part in parts),
        "layers_to_transform": [*layers],
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    settings = {"evidence_sentences": 6, "none_similarity": 0.0, "prior_scale": 0.0}  # then calibrated
    if not (folder / SETTINGS).exists():
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def train(reader: Reader, examples: Examples, form: Format, arguments) -> None:
    names, parameters = list(reader.adapter), list(reader.adapter.values())
    optimizer = torch.optim.AdamW(parameters, lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.0)
    checkpoint = arguments.work / "checkpoint.safetensors"
    step, number, queue, tokens, running = 0, -1, [], 0, {}
    if checkpoint.exists():
        from safetensors import safe_open

        with safe_open(checkpoint, "pt") as file:
            about = json.loads(file.metadata()["about"])
            kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        step, number, running = about["step"], about["number"], about["running"]
        for name, parameter in zip(names, parameters):
            parameter.data.copy_(kept[name])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": kept[f"{name}.m"].to(reader.device),
                "exp_avg_sq": kept[f"{name}.v"].to(reader.device),
            }
        queue = chunk(examples, number, form, arguments.seed)[: about["left"]]
        print(f"goes on at step {step}", flush=True)
    started = time.time()
    while step < arguments.steps:
        rate = arguments.rate * min(1.0, (step + 1) / 40)
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / arguments.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        while not queue:
            queue = chunk(examples, number := number + 1, form, arguments.seed)
        rows = queue.pop()
        loss, parts = loss_of(reader, rows)
        loss = loss / sum(sum(row.weights) for row in rows)
        loss.backward()
        tokens += sum(len(row.ids) for row in rows)
        for key, value in {**parts, "loss": loss.item()}.items():
            if value == value:  # a batch may hold nothing but citations
                running[key] = 0.98 * running.get(key, value) + 0.02 * value
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 20 == 0:
            told = "  ".join(f"{key} {value:.3f}" for key, value in running.items())
            took = time.time() - started
            print(
                f"step {step}/{arguments.steps}  {took / 60:.1f} min  {tokens / took:.0f} tokens/s  {told}",
                flush=True,
            )
        if step % KEEP == 0 or step == arguments.steps:
            state = optimizer.state
            kept = dict(reader.adapter)
            kept |= {f"{name}.m": state[p]["exp_avg"] for name, p in zip(names, parameters)}
            kept |= {f"{name}.v": state[p]["exp_avg_sq"] for name, p in zip(names, parameters)}
            about = {"step": step, "number": number, "left": len(queue), "running": running}
            save(arguments.work, kept, checkpoint.name, {"about": json.dumps(about)})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, required=True, help="folder of JSON lines with a text field")
    parser.add_argument("--questions", type=Path, required=True, help="folder of questions in SQuAD format")
    parser.add_argument("--own", type=Path, required=True, help="this repo's data folder")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(arguments)

    from ragkit.retrieval.encoder import Encoder

    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    folder = base_folder()
    reader = Reader(folder, arguments.device)
    examples = load_examples(arguments.text, arguments.questions, arguments.own, Encoder(), arguments.seed)
    print(f"{len(examples.squad):,} + {len(examples.own)} questions", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    train(reader, examples, Format(tokenizer), arguments)
    export(reader, arguments.out)


if __name__ == "__main__":
    main()
