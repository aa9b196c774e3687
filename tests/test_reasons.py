"""Why somebody would use a thing: what is asked, what says so, and whether the small model answers by it."""

import json
from pathlib import Path

import pytest

from ragkit.generation.prompt import select_evidence
from ragkit.generation.reasons import asked_reason, reasons, wordings
from ragkit.retrieval.lexical import best_of
from tests.helpers import hits

# `says`: how each sentence begins that answers. `set`: "developed on", "held back once", which were looked at
# after an earlier rule and before the last, and "held back", which were asked when the rule was as it is.
ROWS = json.loads((Path(__file__).parent / "reasons.json").read_text(encoding="utf-8"))


def right(row, turns) -> bool:
    return any(says in turns[row["question"]].answer.text for says in row["says"])


@pytest.mark.parametrize(
    "question", ["Why would I rerank?", "Why would I use RAG?", "Why would I use DPO instead of RLHF?"]
)
def test_what_beginners_ask_is_answered_by_a_reason(question, turns):
    row = next(row for row in ROWS if row["question"] == question)
    turn = turns[question]
    assert right(row, turns), turn.answer.text
    assert turn.sources[0].passage.metadata["topic"] == row["topic"]


@pytest.mark.parametrize("group, least", [("developed on", 15), ("held back once", 8), ("held back", 4)])
def test_so_many_questions_of_the_kind_are_answered(group, least, turns):
    wrong = [row["question"] for row in ROWS if row["set"] == group and not right(row, turns)]
    assert sum(row["set"] == group for row in ROWS) - len(wrong) >= least, wrong


@pytest.mark.parametrize(
    "query, reason",
    [
        ("Why would I rerank?", ("rerank", "", "")),
        ("Why would I use DPO instead of RLHF?", ("", "DPO", "RLHF")),
        ("why should I use an IVF index rather than a flat index", ("", "IVF index", "flat index")),
        ("Why do I need a reference model?", ("", "reference model", "")),
        ("And why would I fit Bradley-Terry?", ("fit", "Bradley-Terry", "")),
        ("Why use BM25 at all?", ("", "BM25", "")),
        ("Why would I use it?", ("", "it", "")),
        ("Why do I get NaN in ODPO?", None),
        ("Why does BM25 need no training?", None),
        ("Why should I report the experiments that I gave up on?", None),
        ("What is DPO?", None),
        ("", None),
    ],
)
def test_what_reasons_are_asked_for(query, reason):
    assert asked_reason(query) == reason


@pytest.mark.parametrize(
    "query, begins",
    [
        ("Why would I rerank?", "reranking pays because"),
        ("Why would I use a cache?", "cache pays because"),
        ("Why would I quantize vectors?", "quantizing vectors pays because"),
        ("Why would I fit it?", "fitting it pays because"),
        ("Why would I see it?", None),
        ("How does a cache work?", None),
    ],
)
def test_a_question_is_looked_for_by_itself_and_by_how_an_answer_would_begin(query, begins):
    assert wordings(query) == [query] + [begins] * bool(begins)


SENTENCES = [
    "A widget is a part of a page.",
    "Widgets save reading, because a picture is quicker than a table.",
    "A widget-tree is the right choice for menus.",
    "Skip widgets on paper, because nothing moves there.",
    "A table needs no widget, since it is all text.",
    "Menus save time.",
    "Unlike tables, widgets can move.",
]


def said(query: str, sentences: list[str] = SENTENCES) -> list[str]:
    return reasons(sentences, asked_reason(query))


def test_a_reason_names_the_thing_and_then_says_what_speaks_for_it():
    assert said("Why would I use widgets?") == SENTENCES[1:2]
    assert said("Why would I use widget-trees?") == SENTENCES[2:3]
    assert said("Why would I use menus?", [*SENTENCES, "Pages stay short, because menus hide."]) == [
        SENTENCES[5]
    ]


def test_with_a_rival_a_reason_says_how_the_two_differ():
    assert said("Why would I use widgets instead of tables?") == [SENTENCES[1], SENTENCES[6]]
    assert said("Why would I use tables instead of widgets?", SENTENCES[1:2]) == []
    assert said("Why would I use menus instead of tables?", SENTENCES[5:6]) == SENTENCES[5:6]


def test_where_nothing_is_a_reason_nothing_is_taken_away(encoder):
    texts = ["A widget is a part of a page.", "Widgets are drawn when a page is shown."]
    assert said("Why would I use a widget?", texts) == []
    assert len(select_evidence("Why would I use a widget?", hits(" ".join(texts)), encoder)) == 2


def test_another_name_is_the_thing_as_well():
    sentences = ["A page element (widget) is a part of a page.", "Page elements save time."]
    assert said("Why would I use a widget?", sentences) == sentences[1:]


def test_reasons_are_the_evidence_only_where_they_are_asked_for(encoder):
    found = hits(" ".join(SENTENCES[:2]))
    texts = lambda query: [piece.text for piece in select_evidence(query, found, encoder)]  # noqa: E731
    assert texts("Why would I use a widget?") == SENTENCES[1:2]
    assert set(texts("How does a widget save reading?")) == set(SENTENCES[:2])
    assert texts("Why would I use a kitchen?") == []


def test_a_passage_that_two_searches_find_counts_by_the_better():
    one, other = hits("a", "b"), hits("c", "b")
    merged = best_of([one[0], one[1]], other)
    assert [hit.rank for hit in merged] == list(range(1, len(merged) + 1))
    assert len({hit.passage.id for hit in merged}) == len(merged)
    assert [hit.score for hit in merged] == sorted((hit.score for hit in merged), reverse=True)
    assert best_of(one) == one and best_of() == []
