"""Two processes of a launch against one: the same curves; and what one does when the other is in trouble.

By accelerate; and some of it by torchrun, which tells processes of each other in the same way.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from ragkit.generation.training_run import Tuned
from ragkit.losses import data_parallel
from ragkit.losses.data_parallel import LAUNCHED, Processes, is_main
from ragkit.retrieval import encoder as encoder_file
from tests.helpers import LAUNCHERS
from tests.run_notebooks import ROOT

CURVES = ["grpo", "kto", "ipo", "online", "linear", "cross"]
TORCHRUN = ["grpo", "linear", "cross"]
TROUBLE = ["interrupted", "broken", "other", "dies"]  # the last one ends the processes


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """(what one process found and each of two, how the two with trouble ended and what they said)."""
    folder = tmp_path_factory.mktemp("launched")
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    runs = {}
    for name, start, what in (
        ("one", [], CURVES),
        ("accelerate", ["-m", *LAUNCHERS["accelerate"]], CURVES + TROUBLE),
        ("torchrun", ["-m", *LAUNCHERS["torchrun"]], TORCHRUN),
    ):
        (folder / name).mkdir()
        command = [sys.executable, *start, "tests/launched.py", str(folder / name), *what]
        with open(folder / f"{name}.log", "w") as log:
            runs[name] = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        # Who waits for a process that is gone would do so for ten minutes.
        codes = {name: run.wait(timeout=540) for name, run in runs.items()}
    finally:
        for run in runs.values():
            run.terminate()
    said = {name: (folder / f"{name}.log").read_text() for name in runs}
    for name in ("one", "torchrun"):
        assert codes[name] == 0, said[name][-3000:]
    found = {path.relative_to(folder).with_suffix("").as_posix(): json.loads(path.read_text())
             for path in folder.glob("*/*.json")}  # fmt: skip
    return found, codes["accelerate"], said["accelerate"]


def numbers(found) -> list[float]:
    if isinstance(found, dict):
        found = [found[name] for name in sorted(found)]
    if isinstance(found, list):
        return [number for one in found for number in numbers(one)]
    return [np.nan if found is None else float(found)]


@pytest.mark.parametrize(
    "launcher, name", [*(("accelerate", name) for name in CURVES), *(("torchrun", name) for name in TORCHRUN)]
)
def test_two_processes_learn_what_one_does(launched, launcher, name):
    """7 comparisons of different lengths in batches of 4, 3 and 1; questions in batches of 3; lists of 3 to 5
    documents: losses, gradients, metrics, scores."""
    found, _, said = launched
    assert f"{launcher}/{name}-1" in found, said[-3000:]
    one = numbers(found[f"one/{name}-0"])
    assert name == "linear" or max(found[f"one/{name}-0"]["norms"]) > 1e-2
    for number in range(2):
        two = numbers(found[f"{launcher}/{name}-{number}"])
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-4)


def test_an_interrupt_of_one_ends_both_with_what_was_best(launched):
    main, other = (launched[0][f"accelerate/interrupted-{number}"]["found"] for number in range(2))
    assert main["interrupted"] and other["interrupted"] and main["steps"] == other["steps"] == [0, 1]
    assert main["seen"] == [0, 1] and other["seen"] == []


def test_a_failure_of_one_ends_both_and_says_where(launched):
    main, other = (launched[0][f"accelerate/broken-{number}"]["found"] for number in range(2))
    assert main["error"] == "OSError" and main["says"] == "the disk is full"
    assert other["error"] == "EndedElsewhere" and "process 0 of 2 failed" in other["says"]
    assert main["steps"] == other["steps"] == [0, 1]


def test_processes_with_different_settings_are_refused(launched):
    for number in range(2):
        said = launched[0][f"accelerate/other-{number}"]["found"]
        assert "2 processes of this launch were given different judgements or settings" in said


def test_a_process_that_dies_ends_the_other(launched):
    found, code, said = launched
    assert code != 0 and "exitcode  : 7" in said and "accelerate/dies-0" not in found


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_are_the_batch_and_even(count):
    costs = [90, 10, 20, 30, 10, 25]
    shares = []
    for number in range(count):
        one = Processes()
        one.number, one.count = number, count
        shares.append(one.share(costs))
        assert one.share(costs[:1]) == [0][number:]  # who has no example takes part
        assert one.share([]) == []
    assert sorted(example for share in shares for example in share) == [*range(6)]
    assert all(share == sorted(share) for share in shares)
    assert max(sum(costs[example] for example in share) for share in shares) <= max(
        90, sum(costs) / count + 10
    )


def test_the_whole_has_a_gradient_in_the_own_part_alone(monkeypatch):
    """Of the other process here rows 0 and 3 come, as 10 and 13."""
    theirs = torch.tensor([10.0, 0.0, 0.0, 13.0, 0.0])
    two = Processes()
    two.count, two.sum = 2, lambda values: values + theirs
    part = torch.tensor([4.0, 1.0, 2.0], requires_grad=True)
    whole = two.whole(part, [4, 1, 2], 5)
    assert whole.tolist() == [10, 1, 2, 13, 4]
    whole.square().sum().backward()
    assert part.grad.tolist() == [8, 2, 4]


def test_only_the_main_process_saves(monkeypatch, tmp_path):
    for name in LAUNCHED:
        monkeypatch.setenv(name, "1")
    assert not is_main()
    Tuned(None, [], {}, True).save(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    monkeypatch.setenv("RANK", "0")
    assert is_main()


def test_accelerate_set_up_for_one_process_is_an_error(monkeypatch):
    """Without a GPU it is, unless told: each process would train alone, and say nothing of it."""
    for name, value in zip(LAUNCHED, ("0", "0", "2", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("accelerate.PartialState", lambda **_: type("State", (), {"num_processes": 1}))
    with pytest.raises(RuntimeError, match=r"2 processes were launched, .*PartialState\(cpu=True\)"):
        data_parallel.processes()


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    assert encoder_file.default_device() == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    found = []
    for local in ("0", "3", "5"):
        monkeypatch.setenv("LOCAL_RANK", local)
        found.append(encoder_file.default_device())
    assert found == ["cuda:0", "cuda:3", "cuda:1"]
