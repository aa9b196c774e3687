"""Which sentences a small model is given to read."""

import numpy as np
import pytest

from ragkit.generation.prompt import CONTEXT, PASSAGE, SENTENCE, Evidence, select_evidence
from ragkit.retrieval.corpus import Hit, Passage
from tests.helpers import hits


class Nearness:
    """An encoder for which a text is as near to any query as its largest digit: "About beta 7." is 0.7."""

    def tokenizer(self, text, *, add_special_tokens, **options):
        assert not add_special_tokens
        return {"input_ids": list(text)}  # a letter is a token

    def encode_query(self, query):
        return np.array([1, 0], dtype=np.float32)

    def encode_passages(self, texts, *, progress=True):
        numbers = [int(max(filter(str.isdigit, text), default=0)) / 10 for text in texts]
        return np.array([[number, 0] for number in numbers], dtype=np.float32)


def words(text: str) -> int:
    return len(text.split())


def select(found, budget=1000, **options):
    return select_evidence("query", found, Nearness(), budget, **options)


def test_the_nearest_sentences_come_first_each_with_its_hit():
    found = select(hits("Has 3. Has 9.", "Has 5."))
    assert found == [
        Evidence("Has 9.", 1, pytest.approx(0.9)),
        Evidence("Has 5.", 2, pytest.approx(0.5)),
        Evidence("Has 3.", 1, pytest.approx((SENTENCE + CONTEXT) * 0.3 + PASSAGE * 0.9)),
    ]


def test_title_section_and_question_above_a_sentence_count_and_a_question_is_no_answer():
    text = "## Linux\n\nIs it big 7? It is.\n\n### Arch 3\n\nIt was. How much 9?"
    assert select([Hit(Passage("a", text, "Size 1"), 1.0, 1)]) == [
        Evidence("It is.", 1, pytest.approx(CONTEXT * 0.7 + PASSAGE * 0.9), "Linux"),
        Evidence("It was.", 1, pytest.approx(CONTEXT * 0.3 + PASSAGE * 0.9), "Linux > Arch 3"),
    ]


@pytest.mark.parametrize(
    ("query", "sentence", "kept"),
    [
        ("How do I open the lid?", "How do I open the lid?", False),
        ("How do I open the lid?", "Opening the lid: how to do so?", False),
        ("how do i open the lid", "How to open the lid 1", True),  # it says more
        ("What opens lid 1?", "What opens the lid 1", False),
        ("Is the lid 1?", "The lid is 1.", True),  # it says yes
        ("What opens it?", "A lever 1.", True),
    ],
)
def test_a_sentence_that_repeats_the_question_is_no_answer(query, sentence, kept):
    found = select_evidence(query, hits(f"{sentence}\n\nThe rest 8."), Nearness(), 1000)
    assert ("The rest 8." in [piece.text for piece in found]) and (len(found) == 1 + kept)


def test_where_the_best_is_far_there_is_no_evidence(encoder):
    found = hits(
        "The kitchen opens at noon. Lunch is soup on Mondays.", "Values begin with a capital letter."
    )
    assert select_evidence("What is the capital of France?", found, encoder) == []
    assert select_evidence("When does the kitchen open?", found, encoder)[0].hit == 1


def test_equally_near_sentences_keep_the_order_of_the_hits():
    found = select(hits(*(f"Text {letter} 5." for letter in "abcdefghijklmnopqrstuvwxyz")))
    assert [piece.hit for piece in found] == list(range(1, 27))


def test_the_budget_counts_the_encoders_tokens_or_what_it_is_told_to_count():
    found = hits("Three words 9.", "Now four words 8.", "Two 7.")
    assert [piece.text for piece in select(found, 14 + 17 + 6)] == [
        "Three words 9.",
        "Now four words 8.",
        "Two 7.",
    ]
    # The second does not fit; the third, which is shorter, takes its place.
    assert [piece.text for piece in select(found, 14 + 17 - 1)] == ["Three words 9.", "Two 7."]
    assert [piece.text for piece in select(found, 5, count_tokens=words)] == ["Three words 9.", "Two 7."]
    assert [piece.text for piece in select(found, 4, count_tokens=words)] == ["Three words 9."]
    assert select(found, 1, count_tokens=words) == []


def test_the_budget_holds_with_the_real_tokenizer(encoder):
    text = (
        "Beta bounds how far the policy moves. A reward model is not needed. Ranks are fused. β is 0.1 here."
    )
    for budget in (3, 12, 20, 60):
        found = select_evidence("What does beta do?", hits(text), encoder, budget)
        ids = encoder.tokenizer([piece.text for piece in found] or [""], add_special_tokens=False)[
            "input_ids"
        ]
        assert sum(map(len, ids)) <= budget
        scores = [piece.score for piece in found]
        assert scores == sorted(scores, reverse=True) and all(score <= 1.0001 for score in scores)
    assert len(found) == 4 and found[0].text == "Beta bounds how far the policy moves."


def test_most_bounds_the_number():
    found = hits("Has 3. Has 9. Has 5.")
    assert [piece.text for piece in select(found, most=2)] == ["Has 9.", "Has 5."]
    assert select(found, most=0) == []
    assert len(select(found, most=7)) == 3


def test_code_and_headings_are_left_out():
    found = select(hits("# Heading 9\nText 2.\n```py\nx = 8. Code 7.\n```\n#1 of 3 is text too."))
    assert [piece.text for piece in found] == ["#1 of 3 is text too.", "Text 2."]
    assert select(hits("```\nonly code\n```", "## Only 5")) == []


def test_a_sentence_of_two_hits_counts_for_the_better():
    found = select(hits("Alone 4.", "Both\nhave 6. Mine 2.", "Both have 6. Both have 6."))
    assert [(piece.text, piece.hit) for piece in found] == [
        ("Both have 6.", 2),
        ("Alone 4.", 1),
        ("Mine 2.", 2),
    ]


def test_of_a_sentence_in_several_sections_or_after_several_questions_the_nearest_is_read():
    text = "## Linux 2\n\nForty.\n\n## Windows 8\n\nForty.\n\n## Free 1\n\nIs it 3? Yes. Is it 9? Yes."
    found = select([Hit(Passage("a", text, ""), 1.0, 1)])
    assert [(piece.text, piece.section) for piece in found] == [("Yes.", "Free 1"), ("Forty.", "Windows 8")]
    assert found[0].score == pytest.approx((CONTEXT + PASSAGE) * 0.9)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Where is it 9?\n\nIn Graz.", ("In Graz.", "Where is it 9?")),
        ("Q: Where is it 9? A: In Graz.", ("In Graz.", "Where is it 9?")),
        ("- Q1: Where is it 9?\n  - A1: In Graz.", ("In Graz.", "Where is it 9?")),
        ("Where is it 9? In Graz.", ("In Graz.", "")),  # running text
        ("Where is it 9? A: In Graz.", ("A: In Graz.", "")),
    ],
)
def test_a_question_that_heads_an_answer_is_read_with_it(text, read):
    (found,) = select(hits(text))
    assert (found.text, found.asked) == read
    assert found.headed == " ".join(filter(None, reversed(read)))


def test_no_hits_and_empty_hits_give_no_evidence():
    assert select([]) == select(hits("", "  \n")) == []


@pytest.mark.parametrize("budget", [0, -1, 2.5, None])
def test_a_budget_is_a_positive_number(budget):
    with pytest.raises(ValueError, match="a number of tokens, at least 1"):
        select(hits("Has 1."), budget)
