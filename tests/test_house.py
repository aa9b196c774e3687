"""The house of `ragkit/`: its folders in the order of the data's way, and imports that run one way only."""

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import ragkit

ROOT = Path(ragkit.__file__).parent
FLOORS = [
    "retrieval",
    "preferences",
    "losses",
    "evaluation",
    "generation",
    "reranking",
    "assistant",
    "widgets",
]
FOLDERS = [name for name in FLOORS if name != "assistant"]
FILES = sorted(path for path in ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """The modules of ragkit that a file imports anywhere, in functions too."""
    known = {name_of(file) for file in FILES}
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & known or {node.module}
    return {name for name in found if name.split(".")[0] == "ragkit"}


GRAPH = {name_of(path): imports(path) for path in FILES}


def floor(module: str) -> int:
    return [*FLOORS, "__main__"].index(module.split(".")[1])


def test_no_import_runs_back_up_the_house():
    back = [
        (a, b)
        for a, uses in GRAPH.items()
        for b in uses
        if len(b.split(".")) > 1 and floor(b) > floor(a) and a != "ragkit"
    ]
    assert not back


def test_files_import_files_and_not_tables_of_contents():
    """A folder's `__init__` gathers the names of its own files; whoever in the house took names from there
    would tie all of its files to each other."""
    contents = {f"ragkit.{folder}" for folder in FOLDERS}
    assert not [(a, b) for a, uses in GRAPH.items() for b in uses & contents]
    for folder in contents:
        assert all(name.startswith(folder + ".") for name in GRAPH[folder])


def test_there_is_no_circle():
    rooms = {f"ragkit.{folder}" for folder in FOLDERS} | {"ragkit"}
    order = TopologicalSorter({a: uses - rooms for a, uses in GRAPH.items() if a not in rooms}).static_order()
    assert len(list(order)) >= len(FILES) - len(rooms)


def test_private_names_stay_in_their_file():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ragkit"):
                assert not [
                    alias.name
                    for alias in node.names
                    if alias.name.startswith("_") and alias.name != "__version__"
                ], path


def test_only_widgets_know_jupyter():
    for path in FILES:
        if "widgets" not in path.parts:
            assert not re.search(
                r"^\s*(?:import|from) (?:ipywidgets|anywidget|IPython)",
                path.read_text(encoding="utf-8"),
                re.M,
            )


def test_importing_ragkit_is_cheap():
    code = "import sys, ragkit; print({'torch', 'numpy', 'faiss', 'transformers'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.mark.parametrize("name", sorted({*ragkit.__all__, *FOLDERS, "assistant", "strengths"}))
def test_public_names_are_there(name):
    assert getattr(ragkit, name) is not None


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_table_of_contents_is_sorted_and_true(folder):
    module = import_module(f"ragkit.{folder}")
    assert module.__all__ == sorted(module.__all__, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(module, name) for name in module.__all__)


def test_notebooks_import_two_levels_deep():
    for path in sorted((ROOT.parent / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        assert not re.findall(r"(?:from|import) (ragkit\.\w+\.\S+)", code), path.name


def test_the_readme_draws_the_house_as_it_is():
    text = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    drawing = text[text.index("\nragkit/\n") :].split("```")[0]
    there = {path.name for path in ROOT.rglob("*") if path.suffix in (".py", ".js", ".css")}
    assert set(re.findall(r"\b\w+\.(?:py|js|css)\b", drawing)) == there - {"__init__.py"}
    assert re.findall(r"^  (\w+)/", drawing, re.M) == FOLDERS
