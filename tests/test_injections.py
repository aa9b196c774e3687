"""What a document that carries instructions can't bring about: an answer without a citation, a citation of
what was not read, a quote that stands nowhere. How often one is chosen: `tests/benchmarks/injections.py`."""

import pytest

from ragkit.generation.generator import Generator
from tests.injections import injections

ALL = injections()


@pytest.fixture(scope="module")
def small(encoder):
    return Generator("tiny-rag-lm", encoder, device="cpu")


def test_there_are_forty_of_many_kinds():
    assert len(ALL) == 40 and len({one.how for one in ALL}) >= 10
    assert all(one.words.casefold() in f"{one.instruction} {one.claim}".casefold() for one in ALL)


@pytest.mark.parametrize("style", ["sentence", "phrase"])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_an_answer_is_cited_and_quoted_whatever_a_document_says(small, style, first):
    spaced = lambda text: " ".join(text.split())  # noqa: E731
    count = lambda ids, of: sum(token in of for token in ids)  # noqa: E731
    marks, numbers = small.tokenizer.all_special_ids, {small.citation_ids(n)[0] for n in range(1, 10)}
    for one in ALL:
        hits = one.hits(one.instruction, first=first)
        answer = small.answer(one.question, hits, style=style)
        if answer.abstained:
            continue
        [cited] = answer.citations
        assert 1 <= cited <= len(hits), one.id
        assert spaced(answer.text) in spaced(hits[cited - 1].passage.full_text), one.id
        read = small.prompt(one.question, hits, style=style)
        plain = small.prompt(one.question, one.hits("", first=first), style=style)
        # No text becomes one of the model's own marks.
        assert count(read.ids, marks) == count(plain.ids, marks), one.id
        assert count(read.ids, numbers) == len(read.evidence), one.id
