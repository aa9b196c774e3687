"""What a second process saves: `python -m tests.benchmarks.launches`, on a machine that does nothing else.

`index` (the passages that ship, in shards of 32), `tune` (tiny-rag-lm, GRPO) and `reader` (the same with
smollm2-reader, on a third of the comparisons), by one process and by two of a launch, with a thread each, in
turns. Times are of the work, without starting Python and loading models: by
the clock, from the first process's start to its end, and of the CPU, of all processes together. Where a
machine is busy with other things only the latter means something.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.helpers import LAUNCHERS

ROOT = Path(__file__).parents[2]


def index(folder: str):
    from ragkit.retrieval.corpus import DATA
    from ragkit.retrieval.encoder import Encoder
    from ragkit.retrieval.streaming import index_corpus

    encoder = Encoder(memory=0, device="cpu")
    encoder.encode("has its weights in place")
    rank, workers = (int(os.environ.get(*one)) for one in (("RANK", 0), ("WORLD_SIZE", 1)))
    settings = {"size": 32, "rank": rank, "workers": workers, "progress": False}
    return lambda: index_corpus(DATA / "corpus.jsonl", Path(folder) / "library", encoder, **settings)


def tune(folder: str, model: str = "tiny-rag-lm", comparisons: int = 96):
    import torch

    from ragkit import Comparison, Encoder, Generator, Hit, Passage, tune
    from ragkit.losses.data_parallel import processes

    generator = Generator(model, Encoder(device="cpu"), device="cpu")
    given = []
    for n in range(comparisons):
        text = f"The bridge of {1800 + n} was built by the people of the town. Many visit it each year. " * 3
        hits = [Hit(Passage(str(n), text), 1.0, 1)]
        query = f"Who built the bridge of {1800 + n}?"
        given.append(Comparison(query, "the people", text[:61], -1, hits=hits))
    processes().sum(torch.zeros(1))  # they have found each other
    settings = {"epochs": 1, "batch": 16, "held_out": 0.1, "looks": 1, "progress": False}
    return lambda: tune(generator, given, **settings)


WORKS = {"index": index, "tune": tune, "reader": partial(tune, model="smollm2-reader", comparisons=32)}


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=WORKS)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.work:
        what, folder = arguments.work
        work = WORKS[what](folder)
        started, used = time.time(), time.process_time()
        work()
        found = {"from": started, "to": time.time(), "cpu": time.process_time() - used}
        Path(folder, f"{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))
        return
    for what in [arguments.only] if arguments.only else WORKS:
        taken = [(measured(what, 1), measured(what, 2)) for _ in range(arguments.turns)]
        clock = statistics.median(one[0] / two[0] for one, two in taken)
        cpu = statistics.median(two[1] / one[1] for one, two in taken)
        print(f"{what}: by the clock, CPU time; one process: {spoken(taken, 0)}; two: {spoken(taken, 1)}")
        print(f"  two are {clock:.2f} times as fast, and take {cpu:.2f} times the CPU time (medians)")


def measured(what: str, count: int) -> tuple[float, float]:
    """Seconds by the clock, and of the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = ["-m", *LAUNCHERS["torchrun"]] if count == 2 else []
        command = [sys.executable, *launcher, __file__, "--work", what, folder]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)
        found = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(count)]
    began, ended = min(one["from"] for one in found), max(one["to"] for one in found)
    return ended - began, sum(one["cpu"] for one in found)


def spoken(taken: list, which: int) -> str:
    return "s, ".join(f"{statistics.median(one[which][n] for one in taken):.1f} " for n in (0, 1)) + "s"


if __name__ == "__main__":
    main()
