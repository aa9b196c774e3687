"""Steps of DPO with low-rank adapters, ours beside TRL's: `python -m tests.benchmarks.tuning_step [NAME …]`.

The same model, rank, pairs and batch; questions of the corpus over three passages, the sentence that answers
against another one. Reference log-probs are computed before, on both sides. Each side runs in a process of
its own, in turns; the first step does not count. Memory is the peak above what was resident before the
first step. Ours reads a pair's prompt once, TRL reads it with each answer.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from ragkit.generation.generator import Generator
from ragkit.generation.policy import Policy
from ragkit.losses.pairwise import dpo_loss, margin
from ragkit.retrieval.encoder import Encoder
from tests.benchmarks.losses import _resident
from tests.benchmarks.tuning import cases

RANK, RATE, BETA = 8, 1e-4, 0.1


def pairs(generator: Generator, count: int) -> list[tuple[list[int], list[list[int]]]]:
    """(prompt, [better, other]) as token ids."""
    from ragkit.generation.judged_answers import written_ids

    rows = []
    for case in cases(generator, "train", count):
        prompt = generator.prompt(case.query, case.hits)
        answers = [written_ids(generator, prompt, text) for text in (case.support, case.other)]
        rows.append((prompt.ids, answers))
    return rows


def ours(generator: Generator, rows: list, batch: int, times: list[float]) -> list[float]:
    policy, losses = Policy(generator, RANK), []
    prompts, answers = [row[0] for row in rows], [row[1] for row in rows]
    batches = [slice(at, at + batch) for at in range(0, len(rows), batch)]
    optimiser = torch.optim.AdamW(policy.trained(), RATE)
    with torch.no_grad():
        before = [policy.log_probs(prompts[some], answers[some]) for some in batches]
    for some, ref in zip(batches, before):
        times.append(time.perf_counter())
        now = policy.log_probs(prompts[some], answers[some])
        loss = dpo_loss(margin(now[::2], now[1::2], ref[::2], ref[1::2]), BETA)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    times.append(time.perf_counter())
    return losses


def trl(generator: Generator, rows: list, batch: int, times: list[float]) -> list[float]:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            times.append(time.perf_counter())

        def on_train_end(self, *_, **__):
            times.append(time.perf_counter())

    tokenizer = generator.tokenizer
    end = tokenizer.eos_token
    texts = [[tokenizer.decode(ids) for ids in (prompt, *answers)] for prompt, answers in rows]
    names = ("prompt", "chosen", "rejected")
    data = Dataset.from_list(
        [dict(zip(names, (p, *(a.removesuffix(end) for a in two)))) for p, *two in texts]
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = DPOConfig(
            folder, per_device_train_batch_size=batch, num_train_epochs=1, learning_rate=RATE, beta=BETA,
            max_length=None, precompute_ref_log_probs=True, report_to=[], logging_steps=1, save_strategy="no",
            disable_tqdm=True, use_cpu=True, bf16=False, gradient_checkpointing=False,
            dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = DPOTrainer(
            generator.new_model().float(), args=settings, train_dataset=data, processing_class=tokenizer,
            callbacks=[Clock()],
            peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"),
        )  # fmt: skip
        trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def measure(side: str, name: str, batch: int, steps: int) -> dict:
    torch.set_num_threads(2)
    generator = Generator(name, Encoder(), device="cpu")
    rows, times = pairs(generator, batch * (steps + 1)), []
    before = _resident()
    losses = {"ours": ours, "trl": trl}[side](generator, rows, batch, times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    seconds = [b - a for a, b in zip(times, times[1:])][1:]
    tokens = sum(len(prompt) + sum(map(len, two)) for prompt, two in rows) / len(rows)
    return {"seconds": seconds, "peak": peak, "first": losses[0], "tokens": tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=["tiny-rag-lm", "smollm2-reader"])
    parser.add_argument("--batch", type=int, default=8, help="pairs a step")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--one", type=json.loads)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(**given.one)))
        return
    for name in given.names:
        found = {"ours": [], "trl": []}
        for _ in range(given.turns):
            for side, runs in found.items():
                one = json.dumps({"side": side, "name": name, "batch": given.batch, "steps": given.steps})
                command = [sys.executable, "-m", __spec__.name, "--one", one]
                runs.append(
                    json.loads(
                        subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).splitlines()[
                            -1
                        ]
                    )
                )
        print(
            f"{name}: {given.batch} pairs a step, rank {RANK}, {found['ours'][0]['tokens']:.0f} tokens a pair"
        )
        speed, peak = {}, {}
        for side, runs in found.items():
            speed[side] = given.batch / statistics.median(s for run in runs for s in run["seconds"])
            peak[side] = max(run["peak"] for run in runs) / 2**20
            said = f"{speed[side]:6.2f} pairs a second, peak {peak[side]:6.0f} MiB"
            print(f"  {side:5} {said}, first loss {runs[0]['first']:.4f}")
        faster, less = speed["ours"] / speed["trl"], peak["ours"] / peak["trl"]
        print(f"  ours is {faster:.2f} times as fast, with {less:.2f} of the memory")


if __name__ == "__main__":
    main()
