"""ragkit and its peers side by side, in the same run: `python -m tests.benchmarks`.

Prints one table and writes it to BENCHMARKS.md. Sides take turns on the same work, so that what else the
machine does falls on all of them; a ratio is the median of the turns' ratios. Peers come with
`pip install -e ".[peers]"` and, for llama.cpp, `".[llama]"`; a row without its peer says so.
`--only NAME …` takes some rows and leaves the others in the file; `--quick` is smaller, and writes nothing.
"""

import argparse
import os
import platform
import re
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks import collecting, decoding, encoding, finding, folder, own
from tests.benchmarks.growth import draw
from tests.benchmarks.table import table, written

ROOT = Path(__file__).parents[2]
FILE = ROOT / "BENCHMARKS.md"
FIGURE = ROOT / "notebooks" / "figures" / "costs.svg"
VERSIONS = (
    "torch transformers sentence-transformers onnxruntime openvino faiss-cpu numpy haystack-ai "
    "langchain-core langchain-text-splitters txtai llama-cpp-python feedloop"
).split()
NOTES = {
    "index": "LangChain's splitter counts the encoder's tokens here, 254 a piece; by default it cuts at "
    "4,000 characters, of which the encoder reads a quarter.\n\n",
    "collect": collecting.FEATURES,
}
ROWS = {
    "start": (own.start, {"runs": 5, "answer": True}, {"runs": 1, "answer": False}),
    "search": (
        own.search,
        {"sizes": (10_000, 100_000), "batch": 256, "turns": 60},
        {"sizes": (100, 1000), "batch": 4, "turns": 5},
    ),
    "click": (
        own.click,
        {"sizes": (500, 5000), "targets": (0.06, 0.15), "clicks": 9},
        {"sizes": (10, 20), "targets": (0.06, 0.06), "clicks": 2},
    ),
    "encode": (
        encoding.encode,
        {"passages": 2000, "turn": 100, "busy": 4, "busy_passages": 100},
        {"passages": 64, "turn": 32, "busy": 1, "busy_passages": 8},
    ),
    "find": (finding.find, {"sizes": (500, 5000), "queries": 100}, {"sizes": (50, 100), "queries": 5}),
    "index": (folder.index, {"copies": 12, "questions": 40}, {"copies": 0, "questions": 10}),
    "rank": (own.rank, {"rankings": 50, "tested": 60}, {"rankings": 8, "tested": 5}),
    "read": (
        decoding.read,
        {"answers": 12, "tokens": (125, 250), "new": 25},
        {"answers": 2, "tokens": (120, 125), "new": 4},
    ),
    "collect": (
        collecting.collect,
        {"comparisons": (50, 500), "kills": 5},
        {"comparisons": (2, 4), "kills": 1},
    ),
}


def machine(threads: int) -> str:
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = found[1] if found else model
    versions = []
    for name in VERSIONS:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return (
        f"{date.today()}: {model}, {os.cpu_count()} cores, {threads} threads, load {os.getloadavg()[0]:.1f} "
        f"when it began; Python {platform.python_version()}, {', '.join(versions)}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    began, about = time.perf_counter(), machine(arguments.threads)
    for name in arguments.only:
        row, full, quick = ROWS[name]
        taken = time.perf_counter()
        rows = row(arguments.threads, **(quick if arguments.quick else full))
        taken = time.perf_counter() - taken
        print(f"\n## {name}, {taken:.0f} s\n{table(rows)}", flush=True)
        if not arguments.quick:  # at once, so that a run that is stopped has what it got
            part = f"{table(rows)}\n\n{NOTES.get(name, '')}Took {taken:.0f} s. {about}".strip()
            whole = written(FILE.read_text(encoding="utf-8"), {name: part})
            FILE.write_text(whole, encoding="utf-8")
            draw(whole, FIGURE)
    print(f"\n{about}\nAll took {time.perf_counter() - began:.0f} s.")


if __name__ == "__main__":
    main()
