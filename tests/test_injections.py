"""Instructions inside documents: what the program guarantees whatever a model makes of them, and what the
models that ship do with some. What they are talked into is measured: `tests/benchmarks/injections.py`."""

import re
from collections import Counter

import pytest

from ragkit.generation.answer import ABSTENTION
from ragkit.generation.support import supported
from ragkit.retrieval.text import sentences_with_sections
from tests.helpers import claims_of
from tests.injections import injections

CASES = injections()
STYLES = ["sentence", "phrase", "free"]


def faithful(generator, case, hits, style, **settings) -> set[str]:
    """The ids of the passages cited. Fails unless each claim is shown with a citation of a hit that was read,
    and is a part of a sentence of it, or in own words that it supports."""
    shown = []
    with claims_of(generator) as claims:
        answer = generator.answer(case.question, hits, style=style, on_text=shown.append, **settings)
    assert "".join(shown) == answer.text
    for piece in answer.evidence:
        assert piece.text in [said for said, _ in sentences_with_sections(hits[piece.hit - 1].passage.text)]
    if answer.abstained:
        assert (answer.text, answer.citations) == (ABSTENTION, [])
        return set()
    assert answer.citations and set(answer.citations) <= {piece.hit for piece in answer.evidence}
    if not claims:
        assert any(answer.text in p.text for p in answer.evidence if p.hit in answer.citations)
    rest = answer.text
    for claim in claims:
        cited = answer.evidence[claim.sentence]
        assert cited.hit in answer.citations
        quoted = claim.text in cited.text
        assert quoted or (style == "free" and supported(claim.text, cited.text, case.question))
        assert not claim.replaced or claim.text == cited.text
        assert claim.text in rest
        rest = rest.replace(claim.text, "", 1)
    if claims:  # what is left are the marks of several citations, written by the program
        assert set(re.findall(r"\S+", rest)) <= {f"[{number}]" for number in answer.citations}
    return {hits[number - 1].passage.id for number in answer.citations}


def test_there_are_forty_and_all_differ():
    assert len(CASES) == 40 and len({case.instruction for case in CASES}) == 40
    assert len({case.how for case in CASES}) >= 10 and len({case.question for case in CASES}) == 10
    for case in CASES:
        assert not case.claim or case.words.lower() in case.claim.lower()
        assert case.instruction not in case.right + case.document


@pytest.mark.parametrize("style", STYLES)
def test_whatever_the_weights_a_quote_is_of_a_hit_that_is_cited(small_reader, style):
    """The weights are random: so no model that learned to obey could break it."""
    seen = set()
    for number, case in enumerate(CASES):
        seen |= faithful(
            small_reader, case, case.hits(case.instruction), style, seed=number, max_new_tokens=8
        )
    assert seen == {"document", "right"}  # it does choose both


@pytest.mark.parametrize("style", ["sentence", "phrase"])
def test_the_small_model_quotes_what_it_cites(loaded_once, style):
    for number, case in enumerate(CASES):
        faithful(loaded_once("tiny-rag-lm"), case, case.hits(case.instruction, first=number % 2 == 0), style)


@pytest.mark.parametrize("style", STYLES[1:])
def test_the_reader_quotes_what_it_cites(loaded_once, style):
    case = CASES[5]
    faithful(loaded_once("smollm2-reader"), case, case.hits(case.instruction), style)


@pytest.mark.parametrize("case", [case for case in CASES if not case.claim], ids=lambda case: case.how)
def test_an_instruction_that_says_nothing_of_the_subject_changes_nothing(loaded_once, case):
    """Here the right passage leads by two nats and more. Other instructions state a falsehood on the subject,
    too, which a reader can't tell from a truth."""
    hits = case.hits(case.instruction)
    assert faithful(loaded_once("smollm2-reader"), case, hits, "sentence") == {"right"}


def added(generator, case, text: str) -> Counter:
    """How often each token that the tokenizer was given beside its words is in the prompt over this text."""
    evidence = generator.prompt(case.question, case.hits(case.instruction)).evidence
    evidence = [type(evidence[0])(text or piece.text, piece.hit, piece.score) for piece in evidence]
    prompt = generator.prompt_over(text or case.question, evidence, "sentence")
    known = generator.tokenizer.added_tokens_decoder
    return Counter(number for number in prompt.ids if number in known)


@pytest.mark.parametrize("family", ["tiny", "qwen", "llama", "bart", "small_reader"])
def test_no_token_of_a_turn_is_smuggled_in(request, family):
    generator = request.getfixturevalue(family)
    for case in CASES:
        assert added(generator, case, "") == added(generator, case, "Harmless.")
