"""The figure of a run: one output that is redrawn, in words too, and nothing outside a notebook."""

import base64
import io
import re
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from ragkit.widgets import training
from ragkit.widgets.figures import COLOURS
from ragkit.widgets.training import LiveFigure

TUNE = [
    {"step": 0, "loss": 0.693, "train_loss": None, "rewards/accuracies": 0.0, "kl": 0.0, "length": 9.0},
    {"step": 5, "loss": 0.41, "train_loss": 0.5, "rewards/accuracies": 0.9, "kl": 1.25, "length": 6.5},
]
ONLINE = [
    {"step": 0, "held_out/reward": -1.0, "held_out/kl": 0.0},
    {"step": 1, "reward": -0.9, "kl": 0.0, "clipped": 0.1, "without_spread": 0.0},
    {"step": 2},  # all groups were skipped
    {"step": 3, "reward": -0.5, "kl": 0.2, "clipped": 0.0, "without_spread": 0.5, "held_out/reward": -0.4},
]


@pytest.fixture
def notebook(monkeypatch):
    """What was displayed, in a kernel's shell."""
    displayed = []
    monkeypatch.setattr(training, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(training, "display", lambda shown, **more: displayed.append(shown))
    return displayed


@pytest.mark.parametrize(
    ("log", "titles", "said"),
    [
        (
            TUNE,
            ["loss", "accuracy", "KL to the reference, nats", "length, tokens"],
            "Training, step 5: loss (held out) from 0.693 to 0.41; loss (trained on) from 0.5 to 0.5; ",
        ),
        (
            ONLINE,
            ["reward", "KL to the reference, nats", "share"],
            "Training, step 3: reward (held out) from -1 to -0.4; reward (sampled) from -0.9 to -0.5; ",
        ),
    ],
)
def test_the_figure_has_what_the_log_has(log, titles, said):
    live = LiveFigure()
    assert live.alt and not live.figure().axes
    for row in log:
        live(row)
    assert [axis.get_title() for axis in live.figure().axes] == titles
    assert live.alt.startswith(said)
    points = [point for row in log for point in [(row["step"], row.get("kl"))] if point[1] is not None]
    drawn = [line.get_xydata().tolist() for axis in live.figure().axes for line in axis.lines]
    assert [[*point] for point in points] in drawn
    assert live.log == log


def test_one_output_is_redrawn_at_each_look_and_not_too_often(notebook, monkeypatch):
    from matplotlib.image import imread

    clock = iter([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 9.0, 9.1])
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    live, values = LiveFigure(), []
    for row in [*ONLINE, {"step": 4, "reward": 0.0}, {"step": 5, "reward": 0.0}]:
        live(row)
        values.append(notebook[0].value)
    steps = [re.search(r"Training, step (\d)", value)[1] for value in values]
    assert steps == ["0", "0", "0", "3", "3", "5"]
    (png,) = re.findall(r'^<img src="data:image/png;base64,(\S+)" alt="Training, [^"<>]*">$', values[-1])
    assert imread(io.BytesIO(base64.b64decode(png))).shape[1] == 720
    monkeypatch.undo()
    assert len(notebook) == 1


def test_another_run_has_another_figure(notebook):
    live = LiveFigure()
    for row in TUNE * 2:
        live(row)
    first, second = notebook
    assert live.log == TUNE and "step 5" in first.value and "step 5" in second.value


def test_what_is_kept_takes_the_live_figures_place(notebook):
    live = LiveFigure()
    for row in TUNE:
        live(row)
    live.keep()
    shown, still = notebook
    assert shown.comm is None and still["text/plain"] == repr(live.figure())  # the first one is closed
    live({"step": 9, "loss": 0.3})
    assert len(notebook) == 3


def test_chosen_and_rejected_have_their_colours():
    live = LiveFigure()
    live({"step": 0, "loss": 0.7, "logps/chosen": -9.0, "logps/rejected": -8.0})
    colours = [line.get_color() for axis in live.figure().axes for line in axis.lines]
    assert colours == [COLOURS["held out"], COLOURS["chosen"], COLOURS["rejected"]]


def test_outside_a_notebook_nothing_is_shown(capsys):
    live = LiveFigure()
    for row in TUNE:
        live(row)
    assert capsys.readouterr() == ("", "") and live.log == TUNE


def test_in_a_kernel_the_output_does_not_depend_on_what_was_drawn():
    """As nbval needs it: a saved notebook holds one output, always the same; its state has the figure. And
    what is kept is a picture, though pyplot never drew one."""
    code = f"from ragkit.widgets import LiveFigure\nlive = LiveFigure()\nfor row in {TUNE}:\n    live(row)"
    cells = [nbformat.v4.new_code_cell(text) for text in (code, "live.keep()")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert output["output_type"] == "display_data" and output["data"]["text/plain"] == ""
    (states,) = (kind["state"].values() for kind in notebook.metadata.widgets.values())
    (image,) = (one["state"]["value"] for one in states if "value" in one["state"])
    assert image.startswith("<img src=") and "Training, step 5" in image
    (still,) = notebook.cells[1].outputs
    assert still["data"].keys() == {"image/png", "text/plain"} and still["metadata"]["image/png"]["alt"]
