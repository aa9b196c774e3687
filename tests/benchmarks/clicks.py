"""How long a click takes, from press to the next item, and how long a log takes to be folded the first time.

    python -m tests.benchmarks.clicks [--events 1000 10000] [--beside FOLDER_OF_ANOTHER_CHECKOUT]

A panel that ranks documents is pressed through its handler, without a browser; the assistant's encoder is
simulated and its library holds three passages, so that a search costs next to nothing. With `--beside` the
other checkout does the same in turns with this one: compare those, not runs at different times.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# By names that every version has, since another checkout runs this file too.
from ragkit import Assistant, Library, Passage, PreferenceLog, RankDocuments, Ranking
from tests.helpers import FakeEncoder

PASSAGES = [Passage(f"c{n}", f"text {n} " * 40, f"title {n}") for n in range(1, 4)]
HERE = Path(__file__).parents[2]


class FreeEncoder(FakeEncoder):
    def encode_query(self, query: str):
        return super().encode_query("")


def write_logs(folder: Path, events: int, annotators: int) -> None:
    """Simulated annotators rank the same queries, each in orders drawn at random; a file for each."""
    from ragkit.preferences.log import write_log  # not in the other checkout

    draw = random.Random(0)
    for who in range(annotators):
        rankings = [
            Ranking(
                f"question {n}?",
                PASSAGES,
                tiers=[[index] for index in draw.sample(range(3), 3)],
                shown_order=draw.sample(range(3), 3),
                scores=[0.3, 0.2, 0.1],
                annotator=f"annotator {who}",
                event_id=f"{who} {n}",
                details={"view_id": f"view {who} {n}", "seed": n, "step": n},
            )
            for n in range(events // annotators)
        ]
        write_log(folder / f"{who}.jsonl", rankings, "2026-01-01T00:00:00+00:00")


def measure(folder: Path, known: int, clicks: int) -> dict:
    """Seconds of the first fold, and milliseconds of each click, in this process."""
    started = time.perf_counter()
    PreferenceLog(folder).skipped()  # folds, and makes no judgement, for none was skipped
    cold = time.perf_counter() - started
    encoder = FreeEncoder()
    library = Library.build(PASSAGES, encoder, progress=False)
    log = PreferenceLog(folder, "annotator 0")
    queries = [f"question {n}?" for n in range(known + clicks + 2)]
    panel = RankDocuments(Assistant(encoder, library, None), queries, log, seed=1, repeat_share=0)
    panel.save()  # makes the file
    taken = []
    for _ in range(clicks):
        shown, started = panel.session.view, time.perf_counter()
        panel.save()
        taken.append(1000 * (time.perf_counter() - started))
        assert panel.error is None and panel.session.view not in (None, shown)
    return {"cold": cold, "clicks": taken}


def turn(checkout: Path, logs: Path, *settings: int) -> dict:
    """`measure` in a process of its own that imports `checkout`, on a copy of the logs."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(logs, folder, dirs_exist_ok=True)
        command = [sys.executable, __file__, "--turn", folder, *map(str, settings)]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        done = subprocess.run(
            command, env=environment, cwd=checkout, check=True, stdout=subprocess.PIPE, text=True
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--clicks", type=int, default=20, help="in each turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--annotators", type=int, default=1, help="the first one presses")
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="another checkout of ragkit")
    parser.add_argument("--turn", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        folder, known, clicks = arguments.turn
        print(json.dumps(measure(Path(folder), int(known), int(clicks))))
        return
    checkouts = {"here": HERE} | ({"beside": arguments.beside.resolve()} if arguments.beside else {})
    for events in arguments.events:
        known, clicks = events // arguments.annotators, min(arguments.clicks, max(3, 200_000 // events))
        with tempfile.TemporaryDirectory() as logs:
            write_logs(Path(logs), events, arguments.annotators)
            found = {name: [] for name in checkouts}
            for _ in range(arguments.turns):
                for name, checkout in checkouts.items():
                    found[name].append(turn(checkout, Path(logs), known, clicks))
        medians = {}
        for name, turns in found.items():
            taken = [click for each in turns for click in each["clicks"]]
            medians[name], cold = statistics.median(taken), min(each["cold"] for each in turns)
            print(
                f"{events:7,} events, {name:6}: a click {medians[name]:8.1f} ms, at worst {max(taken):8.1f} "
                f"({len(taken)} clicks); folded the first time in {cold:.2f} s",
                flush=True,
            )
        if arguments.beside:
            print(f"{'':7} a click here takes {medians['here'] / medians['beside']:.3f} of one beside")


if __name__ == "__main__":
    main()
