"""What must hold of every notebook as a file; nbval checks what its cells give."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell) -> str:
    return "".join(cell["source"])


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_every_cell_was_run_once_in_order(code):
    # nbval never checks a cell whose count is null, so a cell that was not run would pass unseen.
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))


def shows(cell) -> bool:
    """Whether the cell prints or draws whenever it runs: not in a function, nor under a condition."""
    skipped = (ast.FunctionDef, ast.ClassDef, ast.If)
    statements = [node for node in ast.parse(source(cell)).body if not isinstance(node, skipped)]
    calls = [node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return any(getattr(call.func, "id", "") in ("print", "display", "show") for call in calls)


def test_cells_that_print_or_draw_have_outputs(code):
    assert sum(map(shows, code)) > len(code) / 4
    assert not [source(cell) for cell in code if shows(cell) and not cell["outputs"]]


def test_no_output_is_an_unexpected_error(code):
    for cell in code:
        if "raises-exception" not in cell["metadata"].get("tags", []):
            assert all(output["output_type"] != "error" for output in cell["outputs"]), source(cell)


def test_few_cells_are_hidden_from_nbval(code):
    hidden = [c for c in code if any(t.startswith("nbval-") for t in c["metadata"].get("tags", []))]
    assert len(hidden) * 12 <= len(code)


def test_every_figure_has_alt_text(code):
    for cell in code:
        for output in cell["outputs"]:
            for kind in ("image/png", "image/svg+xml"):
                if kind in output.get("data", {}):
                    assert output["metadata"].get(kind, {}).get("alt"), source(cell)


def test_markdown_images_have_alt_text_and_are_local(notebook):
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]*)", source(cell)):
                assert alt and not target.startswith("http"), target
            assert "<img" not in source(cell)


def test_the_kernel_is_python3_and_no_widget_state_is_kept(notebook):
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in notebook["metadata"]


def test_no_path_of_a_machine_is_in_it(path):
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"(?:/(?:home|root|Users|tmp|work|opt)/|[A-Z]:\\\\)[^\s\"']{0,60}", text)
    assert not found


def test_no_output_names_a_place_in_memory(path):
    """It is another one in each run, and says nothing to a reader."""
    assert " at 0x" not in path.read_text(encoding="utf-8")


def test_ragkit_is_imported_before_what_loads_openmp(code):
    """How threads wait is read once, when torch is loaded; `import ragkit` sets it."""
    text = "\n".join(map(source, code))
    modules = "ragkit|torch|faiss|transformers|sklearn|trl|datasets"
    assert re.findall(rf"^ *(?:import|from) ({modules})\b", text, re.M)[0] == "ragkit"


def test_it_is_small(path):
    assert path.stat().st_size < 2_000_000


def test_cells_are_short(code):
    assert all(len(source(cell).splitlines()) <= 40 for cell in code)


def minutes_to_read(notebook) -> float:
    """200 words of prose a minute, and 20 lines of code; not what is folded, as hints and figures' cells."""
    words = lines = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            prose = re.sub(r"<details>.*?</details>|```.*?```|\$[^$]*\$", "", source(cell), flags=re.S)
            words += len(prose.split())
        elif not cell["metadata"].get("jupyter", {}).get("source_hidden"):
            lines += sum(bool(line.strip()) for line in source(cell).splitlines())
    return words / 200 + lines / 20


def test_minutes_to_read_are_honest(notebook):
    said = re.search(r"(\d+) minutes to read", source(notebook["cells"][0]))
    assert said and 0.75 < int(said[1]) / minutes_to_read(notebook) < 1.25  # people differ by more


def test_the_readme_says_the_same_minutes():
    for path in NOTEBOOKS:
        head = source(json.loads(path.read_text(encoding="utf-8"))["cells"][0])
        (said,) = re.findall(r"(\d+) minutes to read", head)
        told = re.search(rf"^\| \[\w+\]\(notebooks/{path.name}\) \|.*\| (\d+)", README, re.M)
        assert f"notebooks/{path.name}" in README and (not told or told[1] == said), path.name


def test_the_head_says_what_to_bring_how_long_it_takes_and_where_to_go(path, notebook):
    head = source(notebook["cells"][0])
    assert "**The question of this" in head and "**You need**" in head and "the cells run in" in head
    first, last = path == NOTEBOOKS[0], path == NOTEBOOKS[-1]
    assert first or re.search(r"\*\*Before this:\*\* \[[^]]+\]\(\w+\.ipynb\)", head)
    assert last or re.search(r"\*\*Next:\*\* \[[^]]+\]\(\w+\.ipynb\)", head)


def folded(cell) -> bool:
    return cell["metadata"].get("jupyter", {}).get("source_hidden", False)


def test_after_three_cells_of_code_somebody_says_something(notebook):
    kinds = "".join(cell["cell_type"][0] for cell in notebook["cells"])
    assert "c" * 4 not in kinds, kinds


def test_long_cells_draw_a_figure_and_are_folded_below_its_message(notebook):
    for before, cell in zip(notebook["cells"], notebook["cells"][1:]):
        if cell["cell_type"] == "code":
            draws = re.search(r"^(?:show|table)\(", source(cell), re.M)
            assert folded(cell) or len(source(cell).splitlines()) <= 25, source(cell)
            assert not folded(cell) or draws or len(source(cell).splitlines()) <= 25, source(cell)
            assert not (folded(cell) and draws) or before["cell_type"] == "markdown", source(cell)


def test_one_title(notebook):
    text = "\n".join(source(c) for c in notebook["cells"] if c["cell_type"] == "markdown")
    assert len(re.findall(r"^# ", text, re.M)) == 1
