"""Notebooks with a reader's own log: cells that a run without one passes by."""

import json
import re
from itertools import cycle
from pathlib import Path

import pytest

from ragkit import PreferenceLog
from ragkit.generation.answer import ABSTENTION
from ragkit.retrieval.corpus import DATA
from ragkit.widgets import CompareAnswers, LiveFigure

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def run(name: str, log: Path, until: str) -> dict:
    """The names that a notebook's code cells make with `MY_LOG = log`, up to the first with `until` in it."""
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    names = {"__name__": "__main__"}
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            source = re.sub(r"^MY_LOG = None.*$", lambda _: f"MY_LOG = {str(log)!r}", source, flags=re.M)
            exec(source, names)
            if until in source:
                return names
    raise AssertionError(f"{name} has no cell with {until!r}")


@pytest.fixture
def log(tmp_path):
    """Forty comparisons, clicked one by one; some answers cite, some decline, some are ties."""
    shipped = [c for c in PreferenceLog(DATA / "preferences").comparisons() if not c.details.get("repeat_of")]
    others = cycle((lambda c: f"[1] {c.answer_b}", lambda c: c.answer_b, lambda c: ABSTENTION))
    pairs = {c.query: (c.query, f"[2] {c.answer_a}", other(c), c.hits) for c, other in zip(shipped, others)}
    panel = CompareAnswers([*pairs.values()][:40], PreferenceLog(tmp_path / "mine"), seed=0, repeat_share=0)
    for number in range(40):
        panel.rate([-3, 2, 1, 0, -1, 3][number % 6])
        panel.save()
        panel.next()
    return tmp_path / "mine"


def test_the_generator_is_tuned_on_ones_own_comparisons(log, monkeypatch, capsys):
    monkeypatch.setattr(LiveFigure, "keep", lambda self: None)
    names = run("05_tune_generator.ipynb", log, "tune(small, map(as_sentences, said)")
    said = names["said"]
    assert names["who"] == "you" and 30 <= len(said) < 40  # without the ties
    assert "comparisons by you" in capsys.readouterr().out
    learnt = names["learnt"]
    assert learnt.log[0]["loss"] == pytest.approx(0.693, abs=0.001) and learnt.log[-1]["step"] > 0


def test_too_few_of_ones_own_are_named(tmp_path, capsys):
    PreferenceLog(tmp_path / "few")
    names = run("05_tune_generator.ipynb", tmp_path / "few", "said, who =")
    assert names["who"].startswith("simulated") and "has 0 comparisons" in capsys.readouterr().out
