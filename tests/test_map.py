"""The map of passages: each dot tells its name, whatever is in it."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from ragkit.widgets.map import EDGE, HEIGHT, LINE, WIDTH, PassageMap

ATTACK = '</title><script>alert(1)</script> & "quoted"'
POINTS = np.array([[0.0, 0.0], [1.0, 2.0], [-3.0, 1.0]])


def made(**changes) -> PassageMap:
    settings = {"question": ATTACK, "landing": np.array([0.5, 0.5]), "nearest": [2, 0]} | changes
    return PassageMap(POINTS, ["one", "two", ATTACK], ["a", "b", ATTACK], **settings)


def parsed(page: str) -> ElementTree.Element:
    return ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])


def test_each_dot_says_its_name_and_family_and_no_name_is_code():
    page = made().html()
    assert "<script" not in page and page.count("<title>") == 3
    titles = [node.text for node in parsed(page).iter("title")]
    assert titles == ["two (b)", f"1. {ATTACK} ({ATTACK})", "2. one (a)"]
    assert [node.text for node in parsed(page).iter("text")][-1] == f"★ {ATTACK}"


def test_a_long_name_takes_two_lines_and_no_more():
    page = PassageMap([[0, 0]], [40 * "<word> "], ["a"], question="q", landing=[1, 1]).html()
    dot = next(node for node in parsed(page).iter("text"))
    first, second = dot.text, next(dot.iter("tspan")).text
    assert first.startswith("<word> <word>") and len(first) <= LINE + 1 and len(second) <= LINE
    assert second.endswith(" …") and page.count("<tspan") == 1
    (title,) = parsed(page).iter("title")
    assert title.text.count("<word>") == 40


def test_tab_visits_the_nearest_and_the_question_in_order():
    dots = parsed(made().html()).iter("g")
    assert [node.get("tabindex") for node in dots] == ["-1", "0", "0", "0"]


def test_dots_lie_in_the_drawing_and_up_is_up():
    places = made().places
    assert (places >= EDGE - 1e-9).all() and (places <= [WIDTH - EDGE + 1e-9, HEIGHT - EDGE + 1e-9]).all()
    assert places[1, 1] < places[0, 1] and places[2, 0] < places[0, 0]
    assert np.isfinite(PassageMap([[1, 1]], ["x"], ["y"], question="q", landing=[1, 1]).places).all()


def test_many_families_have_a_colour_each_as_far_as_there_are_colours():
    names = [f"family {n:02}" for n in range(30)]
    made = PassageMap(np.zeros((30, 2)), names, names, question="q", landing=np.zeros(2))
    assert len(made.colours) == 30 and len(set(made.colours.values())) == 9


def test_where_no_html_can_be_shown_it_is_a_picture_and_words():
    data, metadata = made()._repr_mimebundle_()
    assert set(data) == {"text/html", "image/png", "text/plain"}
    assert data["text/plain"] == "<PassageMap of 3 passages: run this cell to point at them>"
    alt = metadata["image/png"]["alt"]
    assert alt.startswith("A map of 3 passages") and alt.endswith(f"Nearest to it: {ATTACK}; one.")
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", data["image/png"])


def test_what_does_not_fit_together_is_said():
    with pytest.raises(ValueError, match="3 points, 2 titles and 3 families"):
        PassageMap(POINTS, ["a", "b"], ["x"] * 3, question="q", landing=np.zeros(2))
