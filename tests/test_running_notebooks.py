"""How notebooks are run here: a user's own settings change no output, and solutions are checked."""

import os
import subprocess
import sys

import nbformat
import pytest

from conftest import LONGEST
from tests.exercises import solved
from tests.run_notebooks import ENVIRONMENT, ROOT, run
from tests.test_notebooks import NOTEBOOKS

FIGURE = "import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])"
SETTINGS = """import locale, shutil, time
_ = locale.setlocale(locale.LC_ALL, "")
print(f"{1234.5:n}", time.tzname[0], shutil.get_terminal_size().columns)"""
EXERCISE = """def {0}(x):
    return None  # your code


if {0}(2) is not None:
    assert {0}(2) == 4
    print("right")"""


def code(source, *outputs):
    return nbformat.v4.new_code_cell(source, execution_count=1, outputs=list(outputs))


BUNDLES = """class Shown:
    def __init__(self, **kinds):
        self.kinds = {"text/plain": "words"} | {kind.replace("_", "/"): data for kind, data in kinds.items()}
    def _repr_mimebundle_(self, **_):
        return self.kinds
display(Shown(image_png="aGk=", text_html="<b>"))
display(Shown(text_html="<b>"))
display(Shown(image_png="aGk=", **{"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}))"""


def test_what_has_a_picture_is_saved_as_one(tmp_path):
    """A widget needs a kernel, and of HTML that nobody trusts little is left: neither hides the picture."""
    path = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BUNDLES)]), path)
    run(path)
    (cell,) = nbformat.read(path, as_version=4).cells
    kinds = [sorted(output.data) for output in cell.outputs]
    assert kinds == [["image/png", "text/plain"], ["text/html", "text/plain"], ["image/png", "text/plain"]]


def test_users_settings_change_no_output_and_wrong_solutions_are_found(tmp_path):
    """One notebook of three exercises, whose solutions are right, wrong, and never checked."""
    shown = nbformat.v4.new_output("display_data", {"text/plain": "<Figure size 640x480 with 1 Axes>"})
    printed = nbformat.v4.new_output("stream", text="1234.5 UTC 80\n")
    returned = {"double": "2 * x", "half": "x / 2", "nothing": "None"}
    solutions = "\n".join(f"```python\ndef {name}(x):\n    return {x}\n```" for name, x in returned.items())
    cells = [
        code(FIGURE, shown),
        code(SETTINGS, printed),
        *(code(EXERCISE.format(name)) for name in returned),
    ]
    notebook = nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_markdown_cell(solutions)])
    nbformat.write(notebook, tmp_path / "small.ipynb")

    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "matplotlibrc").write_text("figure.dpi: 150\n")
    profile = tmp_path / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_config.py").write_text("get_config().InlineBackend.figure_formats = {'svg'}\n")
    own = {"MPLCONFIGDIR": str(tmp_path / "matplotlib"), "IPYTHONDIR": str(tmp_path / "ipython")}
    own |= {"LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Tokyo", "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    kept = {key: value for key, value in os.environ.items() if key not in ENVIRONMENT}
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "conftest", "-p", "no:cacheprovider"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "small.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, env=kept | own, capture_output=True, text=True)
    assert "2 failed, 6 passed" in done.stdout, done.stdout + done.stderr
    failed = [line.split("::")[1].split(" - ")[0] for line in done.stdout.splitlines() if "FAILED" in line]
    assert failed == ["solution of half", "solution of nothing"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_notebook_has_exercises(path):
    assert any("# your code" in cell.source for cell in nbformat.read(path, as_version=4).cells)


def test_an_exercise_that_has_no_solution_is_an_error():
    source = EXERCISE.format("double")
    prose = "```python\ndef double(x):\n    return 2 * x\n```"
    assert "return 2 * x\n\n\nif double(2)" in solved(source, prose)[0]
    with pytest.raises(AssertionError, match="no solution of double"):
        solved(source, "")
    with pytest.raises(AssertionError, match="no stub"):
        solved("x = 1  # your code", prose)


def test_the_files_that_come_first_are_there_and_do(pytestconfig):
    assert all((ROOT / name).is_file() for name in LONGEST)
    assert not pytestconfig.getoption("loadscopereorder")
