"""The front page does what it says: its Python runs as it stands, its figures and files are there."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import ragkit
from ragkit.preferences.judgements import Comparison, Ranking
from ragkit.preferences.log import PreferenceLog
from ragkit.widgets.rank import RankDocuments
from tests.helpers import hits, passages

ROOT = Path(ragkit.__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
HUB = "HuggingFaceTB/SmolLM2-360M-Instruct"
NOTES = {
    "caching": "We decided to cache query vectors for an hour. A longer time brought stale answers.",
    "logging": "Each click is written to disk before the panel says saved. Nothing waits in memory.",
    "ranking": "A reranker puts the documents into the order that people prefer. It learns from rankings.",
}


@pytest.fixture
def names(tmp_path, monkeypatch, qwen_folder):
    """A reader's folder: notes, a log with judgements, and a model where the Hub's would be."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path/to/notes").mkdir(parents=True)
    for name, text in NOTES.items():
        (tmp_path / f"path/to/notes/{name}.md").write_text(f"# About {name}\n\n{text}\n", encoding="utf-8")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    log, found = PreferenceLog("my-log"), hits(*NOTES.values())
    for number in range(12):
        query = f"what did we decide about {[*NOTES][number % 3]}, {number}?"
        log.record(Ranking(query, passages(*NOTES.values()), [[2], [0], [1]]))
        log.record(
            Comparison(query, "[1] We cache.", f"[2] {number}: nothing waits.", 1 + number % 3, hits=found)
        )
    policy = ragkit.Generator(qwen_folder, device="cpu").model.train()
    batch = {"input_ids": torch.tensor([[5, 6, 7, 8]] * 2), "attention_mask": torch.ones(2, 4)}
    batch["completion_mask"] = torch.tensor([[0, 0, 1, 1]] * 2)
    return {
        "my_questions": ["what did we decide about caching?"],
        "policy": policy,
        "batches": [batch, batch | {"input_ids": torch.tensor([[5, 6, 9, 9]] * 2)}],
        "ref_chosen": torch.tensor([-8.0, -9.0]),
        "ref_rejected": torch.tensor([-9.0, -8.0]),
        "strength": torch.tensor([0.1, 0.3]),
        "questions_and_hits": [(f"what did we decide about {name}?", found) for name in NOTES],
    }


def test_its_python_runs_from_top_to_bottom(names, qwen_folder, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) >= 5
    short = {"max_new_tokens": 4, "steps": 1, "group": 2, "batch": 1, "progress": False, "held_out": 0.4}
    whole = ragkit.tune_online
    monkeypatch.setattr(ragkit, "tune_online", lambda *args, **kw: whole(*args, **kw, **short), raising=False)
    for block in blocks:
        if "Milvus" in block and find_spec("pymilvus") is None:  # pip install -e .[scale]
            continue
        exec(compile(block.replace(HUB, str(qwen_folder)), "README.md", "exec"), names)
    said = capsys.readouterr().out
    assert names["turn"].sources and "cache" in said
    assert isinstance(names["log"], PreferenceLog) and names["assistant"].reranker is not None
    assert names["policy"].get_input_embeddings().weight.grad.abs().sum() > 0
    assert Path("my-generator").is_dir() and Path("my-reranker").exists()
    assert RankDocuments is names["RankDocuments"]


def test_examples_are_short():
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        lines = [line for line in block.splitlines() if line and not line.startswith(("from ", "import "))]
        assert len(lines) <= 5, block


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CITATION.cff"])
def test_versions_agree(name):
    assert ragkit.__version__ in (ROOT / name).read_text(encoding="utf-8")
    assert f'version = "{ragkit.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_film_of_the_loop_is_small_short_and_wide_enough():
    from PIL import Image

    path = ROOT / "notebooks" / "figures" / "widget-loop.gif"
    assert f"({path.relative_to(ROOT)})" in README and path.stat().st_size < 1_500_000
    with Image.open(path) as film:
        times = []
        for frame in range(film.n_frames):
            film.seek(frame)
            times.append(film.info["duration"])
        assert film.n_frames >= 6 and sum(times) <= 15_000 and film.width >= 700
