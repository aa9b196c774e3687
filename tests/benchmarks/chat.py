"""An hour with the chat, `python -m tests.benchmarks.chat`: when the text begins, and how memory grows.

A scripted person asks questions of the corpus in turn, says of each answer whether it is good, ranks its
documents, compares every fifth with another one, opens an older turn, and lets it learn every fifty turns.
Memory is what the process has for itself after the given number of turns, beside that after the first ones,
by which every kind of click was made once; pages of the models' files are the system's, which drops them
where it needs the room. From Enter to the first text: of each question asked for the first time.
"""

import argparse
import gc
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from comm import get_comm_manager

from ragkit.assistant import Assistant  # before torch: see ragkit/__init__.py
from ragkit.evaluation.measures import load_queries
from ragkit.preferences.log import PreferenceLog
from ragkit.retrieval.corpus import DATA
from ragkit.widgets.chat import ChatApp

import torch  # isort: skip


def memory() -> tuple[float, float]:
    """What the process has for itself, and of files that are mapped, MiB each. Linux only."""
    status = Path("/proc/self/status").read_text()
    own, files = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024 for name in ("RssAnon", "RssFile"))
    return own, files


def clock() -> np.ndarray:
    """Seconds, (3,): by the clock, of this process's work, and that this thread waited for a core."""
    waited = int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    return np.array([time.perf_counter(), time.process_time(), waited])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument(
        "--warm", type=int, default=20, metavar="N", help="turns before the first look at memory"
    )
    parser.add_argument("--model", default="smollm2-reader")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    started = time.perf_counter()
    assistant = Assistant.load(generator=arguments.model)
    print(f"  {arguments.model}: {time.perf_counter() - started:.1f} s to start")
    questions = list(load_queries(DATA / "queries.jsonl").values())
    with tempfile.TemporaryDirectory() as folder:
        chat = ChatApp(assistant, PreferenceLog(folder, "scripted"))
        first, looks, wrong = [], {}, []
        answer = chat.assistant.generator.answer
        began = clock()

        def enter() -> None:
            nonlocal began
            began = clock()

        def watched(query, hits, *, on_text=None, **settings):
            def write(text):
                first.append(clock() - began)
                on_text(text)

            return answer(query, hits, on_text=write if on_text else None, **settings)

        chat.assistant.generator.answer = watched
        for n in range(arguments.turns):
            known = len(first)
            enter()
            chat.ask(questions[n % len(questions)])
            del first[known + 1 :]  # the first text of each answer
            clicks(chat, n, enter)
            if chat.error is not None:
                wrong.append(f"turn {n}: {chat.status}")
            if n + 1 in (arguments.warm, arguments.turns) or n % 50 == 49:
                gc.collect()
                looks[n + 1] = own, files = memory()
                print(f"  after {n + 1} turns: {own:.0f} MiB, and {files:.0f} of files", flush=True)
        waits = np.array(first)  # (turns, 3)
        for name, seconds in zip(("from Enter to the first text", "the work until then"), waits.T):
            middle, late, longest = np.quantile(seconds, (0.5, 0.95, 1))
            print(f"  {name}: median {middle:.2f} s, 95th percentile {late:.2f} s, longest {longest:.2f} s,")
            print(f"    the very first {seconds[0]:.2f} s; {len(first)} questions")
        print("  the slowest: turn, seconds, of which work and waiting for a core")
        for n in np.argsort(-waits[:, 0])[:10]:
            print(f"    {n + 1:5} {waits[n, 0]:6.2f} {waits[n, 1]:6.2f} {waits[n, 2]:6.2f}")
        grown = looks[arguments.turns][0] - looks[arguments.warm][0]
        print(f"  memory grew by {grown:+.0f} MiB from turn {arguments.warm} to {arguments.turns}")
        print(f"  {len(get_comm_manager().comms)} models of widgets in the end")
        print(f"  {len(wrong)} turns went wrong", *wrong[:5], sep="\n    ")


def clicks(chat, n: int, enter: Callable[[], None]) -> None:
    """What the person does after turn `n`; `enter()`: a question is asked now."""
    chat.good(n % 3 > 0, "as it should be" if n % 7 == 0 else "")
    if len(chat.turn.hits) > 1:
        ranking = chat.rank()
        ranking.place(len(chat.turn.hits) - 1, 0)
        ranking.save()
    if n % 5 == 4 and (comparing := chat.another()) is not None:
        comparing.rate(1)
        comparing.save()
    if n % 10 == 9:
        chat.fold()
        chat.open(n // 2)
    if n % 50 == 19:
        chat.learn()
        enter()
        chat.again()


if __name__ == "__main__":
    main()
