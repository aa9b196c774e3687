from matplotlib.figure import Figure
from matplotlib.pyplot import get_fignums, subplots

from ragkit.widgets import COLOURS, show, table


def test_a_figure_is_shown_once_with_its_description(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "ragkit.widgets.figures.display", lambda *shown, metadata=None: seen.append((*shown, metadata))
    )
    figure, _ = subplots()
    show(figure, "Two lines cross, a < b.")
    [(shown, metadata), (words, _)] = seen
    assert isinstance(shown, Figure) and shown.get_facecolor() == (1, 1, 1, 1)
    assert metadata == {"image/png": {"alt": "Two lines cross, a < b."}}
    assert "<summary>" in words.data and "Two lines cross, a &lt; b." in words.data
    assert figure.number not in get_fignums()


def test_a_table_escapes_its_texts():
    made = table([{"<b>": "<script>", "n": 1234.5, "m": 50170}], "a & b").data
    assert "<script>" not in made and "&lt;script&gt;" in made and "&lt;b&gt;" in made
    assert "a &amp; b" in made and "1.23e+03" in made and "50,170" in made


def test_what_differs_in_a_figure_differs_in_colour():
    for one, other in [("policy", "reference"), ("chosen", "rejected"), ("before", "after")]:
        assert COLOURS[one] != COLOURS[other]
