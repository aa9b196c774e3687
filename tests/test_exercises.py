"""Each exercise's solution passes its check: every notebook runs again, solutions in place of stubs."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_notebooks import NOTEBOOKS

STUB = re.compile(r"^def (\w+)\(.*?\):\n(?:    .*\n|\n(?=    ))*?    return .*# your code.*\n", re.M)


def solved(notebook):
    """(the notebook with solutions, names of the functions that were stubs)"""
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    names = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and "# your code" in cell.source:
            stub = STUB.search(cell.source)
            assert stub, f"no stub that this test understands in\n{cell.source}"
            found = re.search(rf"```python\n(def {stub[1]}\(.*?)```", prose, re.S)
            assert found, f"no solution of {stub[1]}"
            cell.source = cell.source.replace(stub[0], found[1])
            names.append(stub[1])
    return notebook, names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_solutions_pass_their_checks(path):
    notebook, names = solved(nbformat.read(path, as_version=4))
    assert names
    # A check runs only once its stub gives something; this says whether each solution does.
    guards = "\n".join(f"assert {name} is not None" for name in names)
    notebook.cells.append(nbformat.v4.new_code_cell(guards))
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    printed = [o.text for c in notebook.cells if c.cell_type == "code" for o in c.outputs if "text" in o]
    assert path.name.startswith("00") or sum("right\n" in text for text in printed) == len(names)
