"""What a learner turns and drags, without a browser: knobs, playground, and the checks of exercises."""

import base64
import math

import matplotlib.image
import nbformat
import numpy as np
import pytest
import torch

from ragkit.losses.pairwise import pair_loss
from ragkit.widgets import LossKnobs, PreferencePlayground, check
from ragkit.widgets.knobs import Knobs

ATTACK = '<img src=x onerror="alert(1)"> & $x^2$ "quoted"'


def html(panel) -> str:
    """All HTML in the panel, as it is sent to the browser."""
    found, queue = [], [panel.box]
    while queue:
        widget = queue.pop()
        found.append(str(getattr(widget, "value", "")))
        queue += getattr(widget, "children", [])
    return "\n".join(found)


def key(panel, name: str, slot: int | None = None, target: int | None = None) -> None:
    """As the guard sends it; slots from 1."""
    panel._pressed = None
    panel._key(None, {"key": name, "slot": slot, "target": target}, None)


# Knobs


@pytest.mark.parametrize("knobs", [Knobs(), Knobs(0.3, -1.2, 0.55, 2.0), Knobs(3.0, 2.0, 0.5, 0.1)])
def test_the_minimum_is_that_of_the_loss(knobs):
    at = torch.tensor([knobs.minimum], dtype=torch.float64, requires_grad=True)
    loss = pair_loss(at, strength=knobs.h, offset=knobs.m, target=knobs.p, weight=knobs.w)
    loss.backward()
    assert abs(at.grad.item()) < 1e-9 and loss.item() == pytest.approx(knobs.loss(at).item())


def test_the_ghost_is_the_curve_from_before_a_knob_was_taken():
    panel = LossKnobs()
    assert panel.before is None and "before" not in panel.alt
    for h in (1.1, 1.5, 2.0):  # as a slider sends it while it is dragged
        panel.sliders["h"].value = h
    assert panel.before == Knobs() and panel.now == Knobs(h=2.0)
    panel.sliders["w"].value = 0.5
    assert panel.before == Knobs(h=2.0) and panel.now == Knobs(h=2.0, w=0.5)
    assert "In gray, as it was before: h = 2, m = 0, p = 0.8, w = 1." in panel.alt
    panel.set(m=0.3, p=0.9)
    assert panel.before == Knobs(h=2.0, w=0.5) and panel.now == Knobs(2.0, 0.3, 0.9, 0.5)
    panel.again()
    assert panel.before is None and panel.now == Knobs()


def test_the_tasks_are_checked_with_a_sentence():
    panel = LossKnobs()
    assert panel.status.startswith(
        "The minimum sits at Δ = 1.39. Next, task 1: Make the minimum sit at Δ = 2"
    )
    panel.set(p=0.5, m=2.0)  # a tie is not what task 1 asks for; it is task 3
    assert panel.solved == {2} and "solves task 3. Next, task 1" in panel.status
    panel.set(p=0.8, m=0.6)
    assert panel.solved == {0, 2} and "Δ = 1.99. That solves task 1. Next, task 2" in panel.status
    panel.set(p=1.0)
    assert panel.status.startswith("At p = 1 there is no minimum")
    panel.set(p=0.8, w=0.5)
    assert panel.solved == {0, 1, 2} and "All tasks are solved" in panel.status
    assert html(panel).count("✓") == 3 and panel.error is None


def test_a_knob_that_is_not_there_is_an_error_that_is_shown():
    panel = LossKnobs()
    panel.set(beta=1.0)
    assert panel.status == "NOT DRAWN: beta: the knobs are h, m, p, w" and panel.now == Knobs()


# Playground


def test_what_is_dragged_up_is_better_by_one_step_of_the_loss():
    panel = PreferencePlayground({"a": 1.0, "b": 0.0, "c": -0.2}, strength=0.8)
    key(panel, "drop", 3, 1)
    moved = 0.8 * 0.5  # h σ(0)
    assert panel.said == [(2, 0, 0.8)] and panel.error is None
    torch.testing.assert_close(panel.scores, torch.tensor([1 - moved, 0.0, -0.2 + moved]).double())
    assert panel.order() == [0, 2, 1]
    assert panel.status == "c3 over c1, h = 0.8: each moved by 0.40, so Δ = 0.80. In order: c1, c3, c2."


def test_what_is_dragged_down_is_the_worse_one():
    panel = PreferencePlayground({"a": 1.0, "b": 0.0, "c": -0.2})
    key(panel, "drop", 1, 3)
    assert panel.said == [(2, 0, 1.0)]


@pytest.mark.parametrize(
    "name, slot, said",
    [
        ("up", 2, (1, 0)),
        ("down", 2, (2, 1)),
        ("1", 3, (2, 0)),
        ("9", 1, (2, 0)),
        ("up", 1, None),
        ("2", 2, None),
    ],
)
def test_keys_say_the_same(name, slot, said):
    panel = PreferencePlayground({"a": 1.0, "b": 0.0, "c": -0.2})
    key(panel, name, slot)
    assert [pair[:2] for pair in panel.said] == ([said] if said else [])
    key(panel, name, None)  # the focus is in no document
    assert len(panel.said) == bool(said) and panel.error is None


def test_a_stronger_preference_moves_farther_and_stops_earlier():
    """Of three steps each: the first is longer at h = 3, the third at h = 1."""
    steps = {}
    for h in (1.0, 3.0):
        panel = PreferencePlayground({"a": 0.0, "b": 0.0}, strength=h)
        panel.place(1, 0)
        scores = [panel.scores[1].item()]
        for _ in range(2):
            panel.train(1)
            scores.append(panel.scores[1].item())
        steps[h] = np.diff([0.0, *scores])
    assert steps[3.0][0] > steps[1.0][0] and steps[3.0][2] < steps[1.0][2]


def test_opposite_preferences_of_one_strength_cancel_in_the_end():
    panel = PreferencePlayground({"a": 0.5, "b": 0.0})
    panel.place(1, 0)
    assert panel.order() == [1, 0]
    panel.place(1, 0)
    panel.train(200)
    assert {pair[:2] for pair in panel.said} == {(1, 0), (0, 1)}
    torch.testing.assert_close(panel.scores, panel.reference, atol=1e-6, rtol=0)


def test_starting_again_and_nothing_to_train_on():
    panel = PreferencePlayground()
    panel.train()
    assert "Nothing was said yet" in panel.status and panel.scores is panel.reference
    panel.move(1, -1)
    assert panel.said and "next push" in html(panel)
    panel.again()
    assert not panel.said and panel.scores is panel.reference and "next push" not in html(panel)


def test_wrong_slots_and_documents_are_named():
    panel = PreferencePlayground()
    panel.place(7, 0)
    assert panel.status == "NOT DONE: slot=7: from 0 to 4" and not panel.said
    with pytest.raises(ValueError, match="1 documents: a preference needs two"):
        PreferencePlayground({"a": 0.0})


def test_titles_are_escaped_and_every_control_has_a_name():
    panel = PreferencePlayground({ATTACK: 1.0, "b": 0.0})
    panel.place(1, 0)
    assert "<img src=x" not in html(panel) and "&lt;img src=x" in html(panel)
    described = panel._guard.aria
    for slot in (1, 2):
        assert described[f"rk-slot-{slot}"]["aria-label"].startswith(f"Place {slot}: c")
        for way in ("up", "down"):
            assert described[f"rk-{way}-{slot}"]["aria-label"]
    assert described["rk-strength"]["aria-label"] == "strength h of the next preference"
    assert LossKnobs()._guard.aria["rk-knob-p"]["aria-label"] == "target p, from 0.5 to 1"
    data, metadata = panel._repr_mimebundle_()
    assert ATTACK in metadata["image/png"]["alt"] == data["text/plain"]


# Both


@pytest.mark.parametrize("make", [LossKnobs, PreferencePlayground])
def test_the_output_is_a_live_panel_and_a_picture_in_words_too(make, tmp_path):
    data, metadata = make()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and data["text/plain"].endswith(".")
    assert metadata["image/png"]["alt"] == data["text/plain"]
    (tmp_path / "a.png").write_bytes(base64.b64decode(data["image/png"]))
    assert matplotlib.image.imread(tmp_path / "a.png").shape[1] == 560


# Exercises


def none(x):
    return None


def half(x):
    return x / 2


def minus(x):
    return -2.0 * x


def off(x):
    return 2.0 * x + 0.1


def stop(x):
    return x["a"]


def several(x):
    return torch.stack([2.0 * torch.as_tensor(x)] * 3)


def words(x):
    return "two"


def right(x):
    return torch.tensor(2.0 * x, requires_grad=True)


@pytest.mark.parametrize(
    "function, said",
    [
        (right, "right"),
        (none, "none(1) gives nothing yet: write your code in place of None, and run the cell"),
        (half, "not yet: half(1) gives 0.5, where 2 is wanted; it is 0.25 times what is wanted, each time"),
        (minus, "not yet: minus(1) gives -2, where 2 is wanted; all signs are turned round"),
        (off, "not yet: off(1) gives 2.1, where 2 is wanted"),
        (stop, "not yet: stop(1) stops with TypeError: 'float' object is not subscriptable"),
        (several, "not yet: several(1) gives an array of shape (3,), where one number is wanted"),
        (words, "not yet: words(1) gives 'two', where a number is wanted"),
    ],
)
def test_an_answer_gets_one_sentence(function, said, capsys):
    check(function, ((1.0,), 2.0), ((-3.0,), -6.0))
    assert capsys.readouterr().out == f"{said}\n"


def test_an_answer_of_many_numbers_and_one_that_is_judged_by_what_it_does(capsys):
    x = torch.linspace(0, 1, 6)
    check(lambda x: x**2, ((x,), x * x))
    check(half, ((x,), torch.zeros(6)), through=lambda halves: 2 * halves - x)
    check(none, ((x,), 0.0), through=lambda nothing: 1 / nothing)
    check(half, ((1.0,), 2.0), through=minus)
    check(half, ((x,), x))
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["right", "right"] and told[2].startswith(
        "none([0, 0.2, 0.4, 0.6, …]) gives nothing yet"
    )
    assert told[3] == "not yet: minus(half(1)) gives -1, where 2 is wanted"
    assert told[4].startswith("not yet: half([0, 0.2, 0.4, 0.6, …]) gives [0, 0.1, 0.2, 0.3, …], where")


def test_what_has_no_short_name_is_called_by_its_kind(capsys):
    """Not by where it lies in memory, which is another place in each run."""

    def drawn(function, rng):
        return function(1.0)

    check(drawn, ((half, np.random.default_rng(0)), 0.7))
    assert capsys.readouterr().out == "not yet: drawn(half, Generator) gives 0.5, where 0.7 is wanted\n"


def test_a_wrong_answer_that_is_not_a_number_is_wrong(capsys):
    check(lambda x: math.nan, ((1.0,), 2.0))
    assert capsys.readouterr().out.startswith("not yet: <lambda>(1) gives nan, where 2 is wanted")


def test_in_a_saved_notebook_the_picture_alone_is_left(tmp_path):
    """A kernel that is gone has no panel: what is kept is what can be seen."""
    from tests.run_notebooks import run

    cells = [nbformat.v4.new_code_cell("from ragkit.widgets import LossKnobs\nLossKnobs()")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    run(tmp_path / "a.ipynb")
    (output,) = nbformat.read(tmp_path / "a.ipynb", as_version=4).cells[0].outputs
    assert set(output.data) == {"text/plain", "image/png"}
    assert output.metadata["image/png"]["alt"].startswith("The loss of a pair")
