"""What waiting threads cost, with and without other work on the machine: `python -m tests.benchmarks.busy`.

Each measurement is a process of its own, since OpenMP reads its settings once, when torch loads it. "torch
first" imports torch before ragkit and so waits as OpenMP does by default; "ragkit first" is what a user of
ragkit has. The two take turns, so that what else the machine does falls on both. `--try NAME=VALUE …` adds
settings to compare, `--busy N` says how many processes that only compute run beside.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
TEXTS, CHUNK, STEPS = 300, 60, 10


def measure(first: str, patience: float) -> dict[str, float]:
    """Texts encoded and steps trained a second. Work that takes longer than `patience` seconds ends early."""
    importlib.import_module(first)
    import torch
    from transformers import LlamaForCausalLM

    from ragkit import Encoder, completion_log_probs, losses
    from ragkit.retrieval.corpus import DATA
    from tests.benchmarks.encoding import mixed_passages

    texts = mixed_passages(TEXTS)
    encoder = Encoder()
    encoder.encode(texts[:2], progress=False)
    encode = [
        lambda n=n: encoder.encode(texts[n : n + CHUNK], progress=False) for n in range(0, TEXTS, CHUNK)
    ]

    torch.manual_seed(0)
    model = LlamaForCausalLM.from_pretrained(DATA / "tiny-rag-lm", dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(16, 6000, (8, 160))  # four pairs: prompt and answer
    there, answers = torch.ones_like(ids), (torch.arange(160) >= 120).expand(8, 160)
    reference = completion_log_probs(model, ids, there, answers)[0].detach()  # (8,)

    def step():
        rho = completion_log_probs(model, ids, there, answers)[0] - reference
        losses.grpo_loss(rho[:4] - rho[4:], 0.1).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    return {"texts/s": CHUNK * rate(encode, patience), "steps/s": rate([step] * STEPS, patience)}


def rate(jobs, patience: float) -> float:
    started, done = time.perf_counter(), 0
    for job in jobs:
        job()
        done += 1
        if time.perf_counter() - started > patience:
            break
    return done / (time.perf_counter() - started)


def run(first: str, settings: dict[str, str], patience: float) -> dict[str, float]:
    environment = {key: value for key, value in os.environ.items() if key not in SETTINGS} | settings
    command = [sys.executable, "-m", "tests.benchmarks.busy", "--measure", first, "--patience", str(patience)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--busy", type=int, nargs="*", default=[0, 4], help="processes beside")
    parser.add_argument("--patience", type=float, default=60, help="seconds after which a measurement ends")
    parser.add_argument("--try", dest="tries", nargs="*", default=[], help="e.g. GOMP_SPINCOUNT=1000,OMP_…=…")
    parser.add_argument("--measure", choices=["torch", "ragkit"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.patience)))
        return

    sides = {"torch first": ("torch", {}), "ragkit first": ("ragkit", {})}
    for text in arguments.tries:
        sides[text] = ("torch", dict(pair.split("=") for pair in text.split(",")))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; {arguments.runs} runs, in turns")
    for count in arguments.busy:
        beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            found = {name: [] for name in sides}
            for turn in range(arguments.runs):
                for name in list(sides) if turn % 2 == 0 else reversed(sides):
                    found[name].append(run(*sides[name], arguments.patience))
        finally:
            for process in beside:
                process.kill()
        print(f"{count} busy processes beside")
        for unit in ("texts/s", "steps/s"):
            middle = {name: statistics.median(one[unit] for one in found[name]) for name in sides}
            for name, value in middle.items():
                ratio = value / middle["torch first"]
                print(f"  {name:40} {value:8.2f} {unit}, {ratio:.2f} times torch first", flush=True)


if __name__ == "__main__":
    main()
