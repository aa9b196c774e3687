"""Hostile input: what goes in at each door, and whether it is refused clearly or comes out safe.

The tables are in `tests/hostile/`. To read them as one: `python -m tests.test_hostile`.
"""

import warnings

import pytest

from tests.hostile import Refused, World, corpora, judgements, libraries, models, numbers, questions, screens
from tests.simulated_rankings import simulated
from tests.words_encoder import WordsEncoder

DOORS = [
    door
    for table in (corpora, libraries, models, judgements, questions, numbers, screens)
    for door in table.DOORS
]
ROWS = [(door, *row) for door in DOORS for row in door.rows]
LONGEST = 1500  # characters of an error: it is read, not searched


@pytest.fixture(scope="module")
def words():
    return WordsEncoder()


@pytest.fixture(scope="module")
def fitted(words):
    from ragkit.reranking.reranker import Reranker

    reranker = Reranker(words, "features", max_kl=3.0)
    reranker.fit(simulated(20), progress=False)
    assert reranker.fitted.residual is not None
    return reranker


@pytest.fixture
def world(tmp_path, request):
    return World(tmp_path, request.getfixturevalue)


@pytest.mark.parametrize(
    "door, name, given, right", ROWS, ids=[f"{door.name}: {name}" for door, name, *_ in ROWS]
)
def test_hostile_input(door, name, given, right, world):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not isinstance(right, Refused):
            out = door.open(given, world)
            assert right(out), f"{name} at {door.name}: {out!r:.500}"
            return
        with pytest.raises(right.kinds, match=f"(?s){right.says}") as caught:
            door.open(given, world)
    said = str(caught.value)
    assert len(said) < LONGEST and "has no attribute" not in said and "not subscriptable" not in said


def test_there_are_two_hundred_of_them_and_each_is_named_once():
    assert len(ROWS) >= 200
    assert len({(door.name, name) for door, name, *_ in ROWS}) == len(ROWS)
    assert all(isinstance(right, Refused) or right.__name__ for *_, right in ROWS)


def as_table() -> str:
    """All rows in Markdown: the door, the input, what is right."""
    lines = ["| door | input | what is right |", "|---|---|---|"]
    for door, name, _, right in ROWS:
        told = f"refused: `{right.says}`" if isinstance(right, Refused) else right.__name__.replace("_", " ")
        lines.append(f"| {door.name} | {name} | {told} |".replace("<lambda>", "safe, see the row"))
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_table())
