"""ragkit and its peers, each in a process of its own, so that no side's threads fall on another's.

`with Side("encode", "OpenVINO", …) as side: side(texts=[…])` asks one line after another; the answer has the
seconds that the work took there. A peer's process never imports ragkit, which would set OpenMP for it too.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks.table import in_turns

ROOT = Path(__file__).parents[2]
TASKS = {
    "encode": "encoding.encode_side",
    "find": "finding.find_side",
    "index": "folder.index_side",
    "write": "decoding.write_side",
    "collect": "collecting.collect_side",
}
NEEDS = {
    "sentence-transformers": "sentence_transformers",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "OpenVINO, float32": "openvino",
    "haystack": "haystack",
    "LangChain": "langchain_text_splitters",
    "txtai": "txtai",
    "llama.cpp": "llama_cpp",
    "feedloop": "feedloop",
}
TORCH = "sentence-transformers"
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def installed(name: str) -> bool:
    return name not in NEEDS or find_spec(NEEDS[name]) is not None


class Side:
    """One tool at one task, ready: `side(**asked)` is what its process answers, `seconds` among it."""

    def __init__(self, task: str, name: str, **setup):
        self.name = name
        # Without what ragkit has set for this process: peers wait as OpenMP does by default.
        environment = {key: value for key, value in os.environ.items() if key not in WAITING}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.benchmarks.sides",
            task,
            name,
            json.dumps(setup),
        ]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=environment, cwd=ROOT, **pipes)
        self.start = self._answer()["seconds"]

    def __call__(self, **asked) -> dict:
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict:
        if line := self._process.stdout.readline():
            return json.loads(line)
        raise RuntimeError(f"{self.name}: its process ended; what it said stands above")

    def kill(self) -> None:
        """As a crash does it: the process has no time to put anything in order."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def beside(task: str, names: list[str], asks: list[dict], *, every: dict[str, int] | None = None, **setup):
    """Of each side that is installed: its answers to `asks`, in turns, None where it sat out; and its start.

    `every`: sides that take only each so-many-th turn.
    """
    every = every or {}
    with ExitStack() as stack:
        sides = {name: stack.enter_context(Side(task, name, **setup)) for name in names if installed(name)}

        def ask(name: str, turn: int):
            return sides[name](**asks[turn]) if turn % every.get(name, 1) == 0 else None

        found = in_turns({name: partial(ask, name) for name in sides}, len(asks))
        return found, {name: side.start for name, side in sides.items()}


def against(ours: list, theirs: list) -> tuple[list[float], list[float]]:
    """Seconds of the turns that both took."""
    both = [(a["seconds"], b["seconds"]) for a, b in zip(ours, theirs) if a and b]
    return tuple(map(list, zip(*both)))


def timed(work):
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


def main(task: str, name: str, setup: str) -> None:
    """Answers go to what was standard output when it began: what tools print there is no answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    setup = json.loads(setup)
    if name.startswith("ragkit"):
        import ragkit  # noqa: F401  # before torch
    module, function = TASKS[task].split(".")
    make = getattr(import_module(f"tests.benchmarks.{module}"), function)
    work, seconds = timed(lambda: make(name, **setup))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(setup["threads"])
    print(json.dumps({"seconds": seconds}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(work(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
