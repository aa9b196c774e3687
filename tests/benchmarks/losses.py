"""Time and memory of DPO over a vocabulary, beside TRL's and Liger's: `python -m tests.benchmarks.losses`.

What is compared starts at a model's output layer: hidden states and the layer's weights in, the loss and the
gradients of both out. Eight pairs, random numbers, a reference whose log-probs are 0. Each variant runs in a
process of its own: first a tiny batch, so that what is loaded late does not count, then a full one, of which
the peak of memory is taken, then the timed ones. The peers' rows need the packages trl and liger-kernel.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

PAIRS, HIDDEN, BETA = 8, 576, 0.1
LENGTHS, VOCABULARIES = (256, 512), (49_152, 151_936)
VARIANTS = {
    "naive": "full logits, log_softmax, gather",
    "trl": "TRL, as DPOTrainer calls it",
    "trl_plain": "TRL without its metrics",
    "liger": "Liger, a pair at a time",
    "liger_compiled": "Liger, compiled",
    "ours": "ragkit",
}


def naive(states, weight, ids, mask):
    logits = torch.nn.functional.linear(states[:, :-1], weight)
    per_token = logits.float().log_softmax(-1).gather(2, ids[:, 1:, None])[:, :, 0]
    return _dpo((per_token * mask[:, 1:]).sum(1))


def trl(states, weight, ids, mask, outputs=("log_probs", "entropy", "mean_logits", "is_top1")):
    from trl.trainer.utils import add_fused_lm_head

    model = _only_the_output_layer(states, weight)
    add_fused_lm_head(model, outputs=outputs)
    labels = ids.masked_fill(~mask, -100)
    return _dpo(model(input_ids=ids, labels=labels, fused_lm_head=True).log_probs.sum(1))


def trl_plain(*inputs):
    return trl(*inputs, outputs=("log_probs",))


def liger(states, weight, ids, mask, compiled=False):
    from liger_kernel.chunked_loss.dpo_loss import LigerFusedLinearDPOLoss

    loss = LigerFusedLinearDPOLoss(beta=BETA, use_ref_model=False, compiled=compiled)
    return loss(weight, states[:, :-1], ids.masked_fill(~mask, -100)[:, 1:])[0]


def liger_compiled(*inputs):
    return liger(*inputs, compiled=True)


def ours(states, weight, ids, mask):
    from ragkit.losses.log_probs import completion_log_probs

    model = _only_the_output_layer(states, weight)
    return _dpo(completion_log_probs(model, ids, torch.ones_like(ids), mask)[0])


def _dpo(sums):
    from ragkit.losses.pairwise import dpo_loss, margin

    chosen, rejected = sums.chunk(2)
    return dpo_loss(margin(chosen, rejected, chosen.detach() * 0, rejected.detach() * 0), BETA)


def _only_the_output_layer(states, weight):
    """A "language model" whose layers below the last are `states`, with what TRL and we ask of one."""

    class Model(torch.nn.Module):
        config = SimpleNamespace(get_text_config=lambda: SimpleNamespace())

        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(1, 1, bias=False)
            self.head.weight = weight

        def get_output_embeddings(self):
            return self.head

        def base_model(self, **_):
            return SimpleNamespace(last_hidden_state=states)

        def forward(self, **_):
            return SimpleNamespace(logits=self.head(states))

    return Model()


def inputs(device, pairs, length, vocabulary, prompt_share):
    generator = torch.Generator(device).manual_seed(0)
    settings = {"device": device, "dtype": torch.bfloat16 if device == "cuda" else torch.float32}
    states = torch.empty(2 * pairs, length, HIDDEN, **settings).normal_(generator=generator)
    weight = torch.empty(vocabulary, HIDDEN, **settings).normal_(0, HIDDEN**-0.5, generator=generator)
    ids = torch.randint(vocabulary, (2 * pairs, length), generator=generator, device=device)
    first = max(1, round(length * prompt_share))  # the first token has nothing before it
    mask = (torch.arange(length, device=device) >= first).expand_as(ids)
    return states.requires_grad_(), torch.nn.Parameter(weight), ids, mask


def measure(name, length, vocabulary, prompt_share, threads, runs) -> dict:
    """One variant, here: seconds of each run, bytes above the inputs, and what it found."""
    import resource

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    variant = globals()[name]
    tiny = inputs(device, 1, 8, 64, prompt_share)
    variant(*tiny).backward()
    given = inputs(device, PAIRS, length, vocabulary, prompt_share)
    states, weight = given[:2]

    def once():
        states.grad = weight.grad = None
        started = time.perf_counter()
        loss = variant(*given)
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started, loss

    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        once()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        before = _resident() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        once()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
    found = [once() for _ in range(runs)]
    return {
        "seconds": [seconds for seconds, _ in found],
        "peak": peak,
        "found": [found[-1][1].item(), *(x.grad.double().norm().item() for x in (states, weight))],
    }


def _resident() -> int | None:
    """Bytes of memory that this process holds, where the system says so."""
    import resource

    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else None


def _available() -> int | None:
    """Bytes that a new process could take without swapping, where the system says so."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return None
    return next(int(row.split()[1]) * 1024 for row in info.read_text().splitlines() if "MemAvailable" in row)


def in_its_own_process(name: str, settings: dict) -> dict | str:
    """What `measure` returns, or why there is nothing."""
    command = [sys.executable, "-m", __spec__.name, "--one", json.dumps({"name": name, **settings})]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    return (done.stderr.strip().splitlines() or ["no message"])[-1][:70]


def report(settings: dict, cuda: bool) -> float:
    """Prints a table; returns the largest relative deviation from the first row that ran."""
    length, vocabulary = settings["length"], settings["vocabulary"]
    tokens = 2 * PAIRS * (length - 1)
    first = max(1, round(length * settings["prompt_share"]))
    gradients = (2 if cuda else 4) * HIDDEN * (2 * PAIRS * length + vocabulary)
    print(
        f"\n{2 * PAIRS} sequences of T = {length}, the first {first} tokens prompt; H = {HIDDEN}, "
        f"V = {vocabulary:,}\nof each peak {gradients / 1e6:,.0f} MB are the two gradients themselves"
    )
    print(f"{'':34}{'seconds':>9}{'× naive':>9}{'× TRL':>8}{'peak, MB':>11}{'× naive':>9}{'× TRL':>8}")
    rows = {}
    for name, label in VARIANTS.items():
        need, room = 3 * 4 * tokens * vocabulary + gradients, _available()
        if name == "naive" and not cuda and room is not None and need > 0.9 * room:
            print(f"{label:34}left out: about {need / 1e9:.0f} GB, {room / 1e9:.0f} GB are free")
            continue
        row = in_its_own_process(name, settings)
        if isinstance(row, str):
            print(f"{label:34}left out: {row}")
            continue
        rows[name] = [statistics.median(row["seconds"]), row["peak"] / 1e6, row["found"]]
        against = [
            f"{rows[name][column] / rows[peer][column]:.2f}" if peer in rows else "–"
            for column in (0, 1)
            for peer in ("naive", "trl")
        ]
        seconds, peak = (rows[name][column] for column in (0, 1))
        print(
            f"{label:34}{seconds:9.3f}{against[0]:>9}{against[1]:>8}{peak:11,.0f}{against[2]:>9}{against[3]:>8}",
            flush=True,
        )
    wanted, *others = (found for _, _, found in rows.values())
    return max((abs(x / y - 1) for found in others for x, y in zip(found, wanted)), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one small shape, to see that all of it runs")
    parser.add_argument("--vocabularies", type=int, nargs="+", default=VOCABULARIES, metavar="V")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, metavar="T")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--prompt-share", type=float, default=0.5, help="0: all tokens but the first are completion"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(**json.loads(arguments.one))))
        return
    cuda = torch.cuda.is_available()
    print(
        f"forward and backward, median of {arguments.runs} runs after one, "
        + ("bfloat16 on a GPU" if cuda else f"float32, {arguments.threads} threads")
        + "\nragkit, and TRL on a GPU, make logits of completion tokens alone; the others of the prompt's too"
    )
    shapes = [(v, t) for v in arguments.vocabularies for t in arguments.lengths]
    worst = 0.0
    for vocabulary, length in [(8_192, 64)] if arguments.quick else shapes:
        settings = {"length": length, "vocabulary": vocabulary, "prompt_share": arguments.prompt_share}
        worst = max(worst, report({**settings, "threads": arguments.threads, "runs": arguments.runs}, cuda))
    print(f"\nloss and norms of both gradients agree within {worst:.1e} of their size")


if __name__ == "__main__":
    main()
