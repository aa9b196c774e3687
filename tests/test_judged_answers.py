"""What was said of answers becomes token ids after the prompts that they were written to."""

import pytest

from ragkit.generation.answer import ABSTENTION
from ragkit.generation.judged_answers import judged_answers, written_ids
from ragkit.preferences.judgements import Comparison, Feedback, Ranking, Skip
from ragkit.preferences.pairs import Pairs
from ragkit.retrieval.corpus import Passage

QUERY, OTHER = "What does beta control in DPO?", "What does BM25 count?"
SENTENCE = "Beta controls how far DPO may move from the reference."


def answers(sheet, tiny):
    return [[tiny.tokenizer.decode(ids).strip() for ids in several] for several in sheet.answers]


def test_a_comparison_is_read_as_it_was_written(tiny, hits):
    said = [Comparison(QUERY, SENTENCE, "how far", 2, hits=hits)]
    said += [Comparison(OTHER, "words", "k1", 0, hits=hits)]
    said += [Comparison(QUERY, "how far", "no limit", -1, hits=hits), Skip(QUERY, "item")]
    sheet = judged_answers(tiny, said)
    assert sheet.queries == [QUERY, OTHER]  # a prompt and an answer stand there once
    assert sheet.prompts == [tiny.prompt(query, hits).ids for query in (QUERY, OTHER)]
    number = 1 + [piece.text for piece in tiny.prompt(QUERY, hits).evidence].index(SENTENCE)
    cited = [f"[{number}] how far<eos>", f"[{number}] {SENTENCE}<eos>"]
    assert answers(sheet, tiny)[0] == [*cited, "no limit<eos>"]
    assert sheet.pair_places.tolist() == [[0, 0, 1], [1, 0, 1], [0, 0, 2]]
    assert sheet.pairs.target.tolist() == [1, 0.5, 1] and sheet.pairs.rating.tolist() == [2, 0, 1]
    assert sheet.lists == [(0, [0, 1], [0, 1]), (1, [0, 1], [0, 0]), (0, [0, 2], [0, 1])]
    assert sheet.labels == [(0, 0, True), (0, 1, False), (0, 0, True), (0, 2, False)]  # a tie is no label


def test_rankings_and_thumbs_take_what_was_read_from_the_call(tiny, hits):
    texts = ["one", "two", "three", "unjudged"]
    ranking = Ranking(QUERY, [Passage(text, text) for text in texts], [[0], [1, 2]])
    thumbs = [Feedback(OTHER, "words", True, hits=hits), Feedback(OTHER, "k1", False)]
    for read in ({QUERY: hits, OTHER: hits}, lambda query: hits):
        sheet = judged_answers(tiny, [ranking, *thumbs], hits=read)
        assert answers(sheet, tiny)[0] == ["one<eos>", "two<eos>", "three<eos>"]
        assert sheet.pair_places.tolist() == [[0, 0, 1], [0, 0, 2], [0, 1, 2], [1, 0, 1]]
        assert sheet.lists == [(1, [0, 1], [0, 1]), (0, [0, 1, 2], [0, 1, 1])]
        assert sheet.labels[-2:] == [(1, 0, True), (1, 1, False)] and len(sheet.labels) == 6


def test_a_table_of_pairs_will_do(tiny, hits):
    pairs = Pairs([QUERY, QUERY], ["a", "b"], ["b", "c"], target=[0.3, 0.5])
    sheet = judged_answers(tiny, pairs, hits={QUERY: hits})
    assert sheet.lists == [(0, [0, 1], [1, 0]), (0, [1, 2], [0, 0])]
    assert sheet.labels == [(0, 0, False), (0, 1, True)]


def test_what_cannot_be_used_is_named(tiny, hits):
    with pytest.raises(ValueError, match=r"beta control.*no hits were logged"):
        judged_answers(tiny, [Comparison(QUERY, "a", "b", 1)], hits={OTHER: hits})
    with pytest.raises(ValueError, match=r"window of 512: 'far far"):
        judged_answers(tiny, [Comparison(QUERY, "far " * 600, "b", 1, hits=hits)])
    with pytest.raises(ValueError, match="nothing to learn from"):
        judged_answers(tiny, [Skip(QUERY, "item")])
    said = [Comparison(query, "a", "b", 1, hits=hits) for query in ("How long do eggs boil?", QUERY)]
    with pytest.warns(UserWarning, match=r"left out.* 1 queries .*'How long do eggs boil\?'"):
        sheet = judged_answers(tiny, said)
    assert sheet.queries == sheet.pairs.query == [QUERY]


def test_how_an_answer_is_cited(tiny, hits, qwen):
    prompt = tiny.prompt(QUERY, hits)
    number = 1 + [piece.text for piece in prompt.evidence].index(SENTENCE)
    text = lambda said, **how: tiny.tokenizer.decode(written_ids(tiny, prompt, said, **how)).strip()  # noqa: E731
    assert text("how far") == f"[{number}] how far<eos>" and text("how far", cite=False) == "how far<eos>"
    of_second = [n for n, piece in enumerate(prompt.evidence, 1) if piece.hit == 2]
    assert text("[2] how far", cite=False) == f"[{of_second[0]}] how far<eos>"
    too_high = written_ids(tiny, prompt, "[9] how far")  # so many were not read: mere text
    assert too_high[0] != tiny.citation_ids(9)[0] and tiny.tokenizer.decode(too_high[:-1]) == " [9] how far"
    assert text(ABSTENTION) == "<none><eos>"
    free = qwen.prompt(QUERY, hits)
    assert qwen.tokenizer.decode(written_ids(qwen, free, "[1] how far")) == "[1] how far<|im_end|>"


def test_a_citation_is_of_a_hit_and_of_its_nearest_sentence(tiny, hits):
    """[n] in what a person judged is the n-th hit, whichever of its sentences was read, and where."""
    prompt = tiny.prompt(QUERY, hits)
    assert len({piece.hit for piece in prompt.evidence}) < len(prompt.evidence)
    for number, piece in enumerate(prompt.evidence, 1):
        first = written_ids(tiny, prompt, f"[{piece.hit}] {piece.text}")[:1]
        assert first == tiny.citation_ids(number)[:1]


def test_the_reader_cites_whatever_it_says(small_reader, hits):
    prompt = small_reader.prompt(QUERY, hits)
    texts = [piece.text for piece in prompt.evidence]
    text = lambda said: small_reader.tokenizer.decode(written_ids(small_reader, prompt, said))  # noqa: E731
    number = 1 + texts.index(SENTENCE)
    assert text("It controls how far one moves.") == f"{number}] It controls how far one moves.<|im_end|>"
    assert text(ABSTENTION) == "0]<|im_end|>"
