"""From a prompt to an answer: decoding, streaming, windows, citations, and quotes that are verbatim."""

import copy
import json
import logging
import math
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import ragkit.generation.generator
from ragkit.generation.answer import ABSTENTION
from ragkit.generation.answering import quoted
from ragkit.generation.decoding import PRIOR_SCALE, grounded, sampled
from ragkit.generation.generator import Generator
from ragkit.generation.prompt import Evidence, build_prompt, plain_ids
from ragkit.retrieval.corpus import Hit, Passage

QUESTION = "What does beta control in DPO?"


@contextmanager
def logits(generator, change):
    """The model with `change(step, logits)` in place of its logits; yields the list of steps so far."""
    steps = []

    def hook(module, inputs, output):
        steps.append(len(steps))
        return change(steps[-1], output)

    handle = generator.model.get_output_embeddings().register_forward_hook(hook)
    try:
        yield steps
    finally:
        handle.remove()


def writing(generator, text: str | list[int], end: int | None = None):
    """The model as one that writes `text` whatever it reads, then `end` (default: the tokenizer's)."""
    ids = plain_ids(generator.tokenizer, text) if isinstance(text, str) else text
    ids = [*ids, generator.tokenizer.eos_token_id if end is None else end]

    def change(step, output):
        forced = torch.full_like(output, -1e4)
        forced[..., ids[min(step, len(ids) - 1)]] = 0.0
        return forced

    return logits(generator, change)


def shaken(generator, seed: int) -> Generator:
    """The same generator with other random weights, made to answer."""
    other = copy.copy(generator)
    other.model = copy.deepcopy(generator.model)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.model.parameters():
            weight.normal_(0, 0.4, generator=noise)
        weight = other.model.get_input_embeddings().weight
        weight[other.tokenizer.convert_tokens_to_ids("<none>")] = 0
    return other


def told(generator, query: str, hits, **settings):
    """(pieces that `on_text` got, the answer)."""
    pieces = []
    return pieces, generator.answer(query, hits, on_text=pieces.append, **settings)


def long_hit(rank: int, words: int) -> Hit:
    return Hit(Passage(f"p{rank}", f"passage {rank} " + "lorem ipsum " * words), 1 / rank, rank)


# Decoding


def test_half_a_character_in_a_question_is_a_question_mark(encoder, tiny):
    hits = [Hit(Passage("a", "Tea is \ud83d green."), 1.0, 1)]
    assert tiny.answer("Is tea \ud83d green?", hits).text == "Tea is ? green."


def test_the_citations_log_probs_are_the_mean_over_both_orders(tiny, hits):
    prompt = tiny.prompt(QUESTION, hits)
    size = len(prompt.evidence)
    tokens = tiny.tokenizer.convert_tokens_to_ids([f"[{n}]" for n in range(1, size + 1)] + ["<none>"])
    found = []
    for evidence in (prompt.evidence, prompt.evidence[::-1]):
        read = build_prompt(tiny.tokenizer, QUESTION, evidence, "sentence", documents=True)
        with torch.inference_mode():
            logits = tiny.model(torch.tensor([read.ids])).logits[0, -1, tokens]
        found.append(logits.log_softmax(0))
    expected = torch.tensor([(found[0][i] + found[1][size - 1 - i]) / 2 for i in range(size)])
    expected = torch.cat([expected, (found[0][-1:] + found[1][-1:]) / 2])
    torch.testing.assert_close(torch.from_numpy(tiny.citation_log_probs(prompt)), expected, atol=1e-5, rtol=0)


def test_the_citation_is_the_largest_product_of_prior_and_likelihood(tiny, hits):
    prompt = tiny.prompt(QUESTION, hits)
    likelihood = tiny.citation_log_probs(prompt)
    for none_similarity in (-1.0, 0.0, 0.5, 2.0):
        model = copy.copy(tiny)
        model.none_similarity = none_similarity
        similarities = np.array([*(piece.score for piece in prompt.evidence), none_similarity])
        best = int((likelihood + PRIOR_SCALE * similarities).argmax())
        answer = model.answer(QUESTION, hits)
        assert answer.abstained == (best == len(prompt.evidence))
        assert answer.abstained or prompt.evidence[best].text == answer.text
    assert answer.abstained  # at the last one


def test_a_model_that_writes_freely_has_no_citation_token(qwen, hits):
    with pytest.raises(ValueError, match="writes freely"):
        qwen.citation_log_probs(qwen.prompt(QUESTION, hits))


def test_greedy_is_the_argmax_of_each_step_whatever_the_model_recommends(llama, hits):
    """The fixture's generation_config asks for sampling, a repetition penalty and a maximal length."""
    prompt = llama.prompt(QUESTION, hits)
    ids = list(prompt.ids)
    with torch.inference_mode():
        for _ in range(24):
            ids.append(int(llama.model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in (1, 4):
                break
    expected = llama._text(ids[len(prompt.ids) :])
    assert expected
    assert llama.answer(QUESTION, hits, max_new_tokens=24).text == expected


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_what_a_decoder_writes_is_the_argmax_of_each_step_over_the_encoded_prompt(name, hits, request):
    model = request.getfixturevalue(name)
    prompt, ids = model.prompt(QUESTION, hits), [model.model.config.decoder_start_token_id]
    with torch.inference_mode():
        for _ in range(12):
            read = {"input_ids": torch.tensor([prompt.ids]), "decoder_input_ids": torch.tensor([ids])}
            ids.append(int(model.model(**read).logits[0, -1].argmax()))
            if ids[-1] == model.tokenizer.eos_token_id:
                break
    pieces, answer = told(model, QUESTION, hits, max_new_tokens=12)
    assert answer.text == model._text(ids[1:]) == "".join(pieces) != ""


def test_greedy_repeats(generator, hits):
    first, second = (generator.answer(QUESTION, hits, max_new_tokens=12) for _ in range(2))
    assert first == second and first.text != ABSTENTION
    assert first.prompt == generator.prompt(QUESTION, hits).text


def test_a_seed_repeats_and_another_may_differ(generator, hits):
    texts = [
        generator.answer(QUESTION, hits, seed=seed, temperature=2.0, max_new_tokens=8).text
        for seed in (1, 1, 2, 3, 4)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_the_callers_random_numbers_are_untouched_also_while_it_writes(qwen, hits):
    torch.manual_seed(7)
    expected = torch.rand(40)
    torch.manual_seed(7)
    found = [torch.rand(1)]
    settings = {"seed": 1, "temperature": 2.0, "max_new_tokens": 16}
    qwen.answer(QUESTION, hits, on_text=lambda piece: found.append(torch.rand(1)), **settings)
    assert 2 < len(found) < 40
    found.append(torch.rand(40 - len(found)))
    assert torch.equal(torch.cat(found), expected)


def test_sampled_draws_from_the_softmax_at_that_temperature():
    scores = torch.tensor([2.0, 1.0, 0.0, -math.inf])
    draw = sampled(seed=0, temperature=2.0)
    counts = torch.bincount(draw(None, scores.expand(20_000, 4)).argmax(-1), minlength=4)
    torch.testing.assert_close(counts / 20_000, torch.softmax(scores / 2.0, 0), atol=0.015, rtol=0)
    assert counts[3] == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_none_is_refused(tiny, hits, temperature):
    with pytest.raises(ValueError, match="temperature="):
        tiny.answer(QUESTION, hits, seed=1, temperature=temperature)


@pytest.mark.parametrize("end", [1, 4])
def test_every_end_token_of_the_model_ends_the_answer(llama, hits, end):
    with writing(llama, "Short.", end) as steps:
        answer = llama.answer(QUESTION, hits)
    assert answer.text == "Short."
    assert len(steps) == len(plain_ids(llama.tokenizer, "Short.")) + 1


def test_decoding_warns_of_nothing(generator, hits):
    from transformers.utils import logging as hf

    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    root = logging.getLogger("transformers")
    root.addHandler(handler)
    hf.warning_once.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            generator.answer(QUESTION, hits, max_new_tokens=4)
            generator.answer(QUESTION, hits, max_new_tokens=4, seed=1)
    finally:
        root.removeHandler(handler)
    assert [record.getMessage() for record in records] == []


# Streaming


def test_pieces_join_to_the_text(generator, hits):
    pieces, answer = told(generator, QUESTION, hits, max_new_tokens=24)
    assert "".join(pieces) == answer.text
    assert answer == generator.answer(QUESTION, hits, max_new_tokens=24)


@pytest.mark.parametrize("seed", range(6))
def test_pieces_join_whatever_bytes_the_model_writes(qwen, hits, seed):
    pieces, answer = told(qwen, QUESTION, hits, seed=seed, temperature=5.0, max_new_tokens=48)
    assert len(pieces) > 3
    assert "".join(pieces) == answer.text


def test_no_piece_holds_half_a_character(qwen, hits):
    text = "Zürich: naïve 損失 🙂🙃 ≤ fin"
    with writing(qwen, text):
        pieces, answer = told(qwen, QUESTION, hits)
    assert len(pieces) > 5
    assert "".join(pieces) == answer.text == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_text_cut_within_a_character_ends_before_it(qwen, hits):
    ids = plain_ids(qwen.tokenizer, "Ok 🙃")
    assert qwen.tokenizer.decode(ids[:-1]).endswith("\ufffd")
    with writing(qwen, ids):
        pieces, answer = told(qwen, QUESTION, hits, max_new_tokens=len(ids) - 1)
    assert "".join(pieces) == answer.text == "Ok"


def test_white_space_around_the_text_is_not_streamed(qwen, hits):
    with writing(qwen, " \n Two words \n\n"):
        pieces, answer = told(qwen, QUESTION, hits)
    assert "".join(pieces) == answer.text == "Two words"


def test_an_error_of_the_reader_stops_the_model(qwen, hits):
    def enough(piece):
        raise InterruptedError

    with writing(qwen, "lorem ipsum dolor " * 30) as steps, pytest.raises(InterruptedError):
        qwen.answer(QUESTION, hits, on_text=enough, max_new_tokens=300)
    assert len(steps) < 5


def test_an_error_in_the_model_reaches_the_reader(qwen, hits):
    ids = plain_ids(qwen.tokenizer, "one two three four")

    def change(step, output):
        if step == 3:
            raise RuntimeError("out of memory")
        forced = torch.full_like(output, -1e4)
        forced[..., ids[step]] = 0.0
        return forced

    pieces = []
    with logits(qwen, change), pytest.raises(RuntimeError, match="out of memory"):
        qwen.answer(QUESTION, hits, on_text=pieces.append)
    assert pieces


def test_two_answers_at_once_do_not_mix(qwen, hits):
    def answer(seed: int) -> str:
        return qwen.answer(QUESTION, hits, seed=seed, temperature=3.0, max_new_tokens=12).text

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(answer, (1, 2))) == [answer(1), answer(2)]


# Windows


def test_lowest_hits_are_dropped_with_a_warning(llama):
    hits = [long_hit(rank, 35) for rank in range(1, 9)]
    with pytest.warns(UserWarning, match=r"of 8 passages fit in the model's window of 1024 tokens") as caught:
        prompt = llama.prompt(QUESTION, hits)
    assert len(caught) == 1
    kept = [piece.hit for piece in prompt.evidence]
    assert 1 < len(kept) < 8
    assert kept == list(range(1, len(kept) + 1))
    assert len(prompt.ids) <= 1024 - 128
    assert f"passage {kept[-1]} lorem" in prompt.text and f"passage {kept[-1] + 1} lorem" not in prompt.text


def test_an_encoders_window_holds_the_prompt_and_no_answer(bart):
    with pytest.warns(UserWarning, match="the first passage was cut"):
        prompt = bart.prompt(QUESTION, [long_hit(1, 400)])
    assert bart.window - 20 <= len(prompt.ids) <= bart.window
    assert bart.prompt(QUESTION, [], max_new_tokens=10 * bart.window).ids


@pytest.mark.parametrize("words", [150, 300, 1000])
def test_one_passage_too_long_is_cut_with_a_warning(llama, words):
    hit = long_hit(1, words)
    with pytest.warns(UserWarning, match="the first passage was cut"):
        prompt = llama.prompt(QUESTION, [hit])
    [piece] = prompt.evidence
    assert hit.passage.full_text.startswith(piece.text)
    assert 1024 - 128 - 20 <= len(prompt.ids) <= 1024 - 128
    assert f"Question: {QUESTION}<|eot_id|>" in prompt.text


def test_a_passage_cut_between_the_bytes_of_a_character_still_fits(qwen):
    hit = Hit(Passage("p", "🙃損" * 500), 1.0, 1)
    for room in range(100, 108):
        with pytest.warns(UserWarning, match="was cut"):
            prompt = qwen.prompt("Why?", [hit], max_new_tokens=room)
        assert len(prompt.ids) <= 1024 - room
        assert len(prompt.evidence) == 1


def test_a_query_too_long_is_an_error_that_names_the_window(generator, hits):
    with pytest.raises(ValueError, match=rf"window is {generator.window} tokens"):
        generator.answer("why " * 2000, hits)


@pytest.mark.parametrize("query", ["", "  \n", None, 3])
def test_a_query_must_say_something(tiny, hits, query):
    with pytest.raises(ValueError, match="query="):
        tiny.answer(query, hits)


def test_without_hits_it_abstains(generator):
    pieces, answer = told(generator, QUESTION, [])
    assert (answer.text, answer.citations, answer.evidence, answer.abstained) == (ABSTENTION, [], [], True)
    assert pieces == [ABSTENTION]


def test_evidence_is_bounded_by_the_sentences_the_model_was_trained_on(tiny):
    text = " ".join(f"Fact {word} is about beta." for word in "one two three four five six seven".split())
    hits = [Hit(Passage(f"p{n}", f"{text} Text {n}."), 1.0, n) for n in range(1, 13)]
    prompt = tiny.prompt(QUESTION, hits)
    assert len(prompt.evidence) == tiny.sentences == 5
    assert "[6]" not in prompt.text
    assert len(prompt.ids) <= tiny.window - 128


def test_a_model_that_reads_more_sentences_than_it_has_numbers_is_refused(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"evidence_sentences": 10}))
    with pytest.raises(ValueError, match="no token for each"):
        Generator(folder)


# Loading


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model", ""])
def test_an_unknown_name_says_what_to_do(name):
    with pytest.raises(OSError, match=r"no generator .* Off-line, use 'tiny-rag-lm' or a folder"):
        Generator(name)


@pytest.mark.parametrize("name", ["tiny-rag-lm", "smollm2-reader"])
def test_a_model_of_ours_missing_is_said_plainly(monkeypatch, tmp_path, name):
    monkeypatch.setattr(ragkit.generation.generator, "DATA", tmp_path)
    with pytest.raises(OSError, match=rf"no generator '{name}': .* is missing"):
        Generator(name)


def test_the_model_that_ships_quotes_numbered_sentences(encoder, hits):
    shipped = Generator("tiny-rag-lm", encoder, device="cpu")
    assert 1 < shipped.sentences <= 9
    answer = shipped.answer(QUESTION, hits)
    assert answer.abstained or answer.text in hits[answer.citations[0] - 1].passage.text


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\nsize 9", b""])
def test_damaged_weights_are_said_plainly(tiny_folder, tmp_path, content):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(OSError, match="no generator"):
        Generator(folder)


def test_on_a_cpu_weights_are_float32_elsewhere_as_stored(tiny_folder):
    for device in ("cpu", "cpu:0", torch.device("cpu")):
        assert Generator(tiny_folder, device=device).model.dtype == torch.float32
    assert Generator(tiny_folder, device="meta").model.dtype == torch.float16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_quotes_are_verbatim_too(tiny_folder, encoder, hits):
    generator = Generator(tiny_folder, encoder, device="cuda")
    for seed in (None, 1):
        answer = generator.answer(QUESTION, hits, seed=seed)
        assert any(answer.text in piece.text for piece in answer.evidence)


# Free text and its citations


@pytest.mark.parametrize(
    ("text", "citations"),
    [
        ("Beta [1, 2] matters [9].", [1, 2]),
        ("First [3], then [1], again [3][1].", [3, 1]),
        ("[2,1 , 2]", [2, 1]),
        ("No source, an index a[i] and [0] or [6].", []),
        ("A list [1, 2.5] and [x1].", []),
        ("A range [1–3], [2-3].", [1, 2, 3]),
        ("Another [1]–[3], a note [^2].", [1, 2, 3]),
        ("Neighbours [3][1], lenticular 【2】 and 【1†source】.", [3, 1, 2]),
        ("In words [passage 2; passage 3] and [Sources: 1 and 3].", [2, 3, 1]),
        ("Full width ［２］, turned round [3-1], a date [2020-01-02], steps (1) and (2).", [2]),
        ("Far [2–99999999999], open [1, [ 1  2", [2, 3, 4, 5]),
    ],
)
def test_citations_are_those_that_exist_in_order_once_each(generator_free, hits, text, citations):
    with writing(generator_free, text):
        answer = generator_free.answer(QUESTION, hits)
    assert (answer.text, answer.citations, answer.abstained) == (text, citations, False)
    assert [piece.hit for piece in answer.cited] == sorted(citations)


@pytest.fixture(params=["qwen", "llama", "bart"])
def generator_free(request):
    return request.getfixturevalue(request.param)


def test_a_dropped_passage_cannot_be_cited(llama):
    hits = [long_hit(rank, 35) for rank in range(1, 9)]
    with writing(llama, "See [1] and [8]."), pytest.warns(UserWarning):
        assert llama.answer(QUESTION, hits).citations == [1]


@pytest.mark.parametrize("text", ["I don't know.", "I don’t know, see [1].", "I do not know"])
def test_i_dont_know_is_an_abstention(generator_free, hits, text):
    with writing(generator_free, text):
        answer = generator_free.answer(QUESTION, hits)
    assert (answer.text, answer.citations, answer.abstained) == (text, [], True)


def test_a_model_that_writes_nothing_abstains(generator_free, hits):
    with writing(generator_free, " "):
        pieces, answer = told(generator_free, QUESTION, hits)
    assert (answer.text, answer.abstained) == (ABSTENTION, True)
    assert "".join(pieces) == ABSTENTION


# Quotes: tiny-rag-lm, whatever its weights are


@pytest.mark.parametrize("style", ["sentence", "phrase"])
@pytest.mark.parametrize("seed", range(10))
def test_quotes_are_verbatim_whatever_the_weights(tiny, hits, style, seed):
    model = shaken(tiny, seed)
    model.none_similarity = -100.0  # never "none": it is quotes that are looked at
    question = "What do naïve readers in Zürich call it?"  # its sentence has characters of many bytes
    for settings in ({}, {"seed": seed, "temperature": 4.0}):
        pieces, answer = told(model, question, hits, style=style, **settings)
        assert "".join(pieces) == answer.text
        [cited] = answer.citations
        sources = [piece.text for piece in answer.evidence if piece.hit == cited]
        assert answer.text and any(answer.text in source for source in sources), answer
        if style == "sentence":
            assert any(source.startswith(answer.text) for source in sources)


@pytest.mark.parametrize("size", range(1, 12))
def test_a_quote_cut_by_the_limit_is_verbatim(tiny, size):
    hit = Hit(Passage("p", "損🙃損🙃 is what they write."), 1.0, 1)
    spans = plain_ids(tiny.tokenizer, hit.passage.text)
    with writing(tiny, [tiny.tokenizer.convert_tokens_to_ids("[1]"), *spans]):
        answer = tiny.answer("What is what they write?", [hit], max_new_tokens=size)
    assert hit.passage.text.startswith(answer.text)


@pytest.mark.parametrize("text", ["5", "k", "1 2 3", "損 🙃 ≤ 🙂"])
def test_a_phrase_holds_at_least_one_character_however_early_it_ends(tiny, text):
    end = tiny.tokenizer.eos_token_id

    def hasty(step, output):  # any words, and the end as soon as it may come
        output = output.clone().normal_(generator=noise)
        output[..., end] = 99.0
        output[..., tiny.tokenizer.convert_tokens_to_ids("<none>")] = -99.0
        return output

    noise = torch.Generator().manual_seed(0)
    for _ in range(12):
        with logits(tiny, hasty):
            answer = tiny.answer(f"Is it {text}?", [Hit(Passage("p", text), 1.0, 1)], style="phrase")
        assert answer.text and answer.text in text


def test_citations_point_to_the_hit_that_the_sentence_is_from(tiny, hits, monkeypatch):
    prompt = tiny.prompt(QUESTION, hits)
    assert len({piece.hit for piece in prompt.evidence}) > 1
    for number, piece in enumerate(prompt.evidence):
        likelihood = np.full(len(prompt.evidence) + 1, -100.0, dtype=np.float32)
        likelihood[number] = 0.0
        monkeypatch.setattr(tiny, "citation_log_probs", lambda prompt, found=likelihood: found)
        answer = tiny.answer(QUESTION, hits)
        assert (answer.text, answer.citations, answer.cited) == (piece.text, [piece.hit], [piece])


def test_without_grounding_it_writes_freely_but_still_cites_first(tiny, hits):
    free = copy.copy(tiny)
    free.grounded = False
    number = tiny.tokenizer.convert_tokens_to_ids("[1]")
    with writing(tiny, [number, *plain_ids(tiny.tokenizer, "nothing that stands there")]):
        assert free.answer(QUESTION, hits).text == "nothing that stands there"
        assert tiny.answer(QUESTION, hits).text in tiny.prompt(QUESTION, hits).evidence[0].text
    with writing(tiny, plain_ids(tiny.tokenizer, "no number")):
        assert free.answer(QUESTION, hits).citations


def test_a_whole_sentence_costs_one_step_and_is_streamed_word_by_word(tiny, hits):
    second = tiny.tokenizer.convert_tokens_to_ids("[2]")
    with writing(tiny, [second]) as steps:
        pieces, answer = told(tiny, QUESTION, hits)
    assert len(steps) == 1 and len(pieces) > 5
    assert "".join(pieces) == answer.text == answer.evidence[1].text


def test_none_is_an_abstention(tiny, hits):
    with writing(tiny, [tiny.tokenizer.convert_tokens_to_ids("<none>")]) as steps:
        pieces, answer = told(tiny, QUESTION, hits)
    assert (answer.text, answer.citations, answer.abstained) == (ABSTENTION, [], True)
    assert len(answer.evidence) == 5
    assert pieces == [ABSTENTION]
    assert len(steps) == 1


def test_a_model_without_opinion_leaves_the_choice_to_the_encoder(tiny):
    texts = ["Rain falls in Spain.", "Beta controls how far DPO moves."]
    hits = [Hit(Passage(f"p{n}", text), 1.0, n) for n, text in enumerate(texts, 1)]
    assert [piece.hit for piece in tiny.prompt(QUESTION, hits).evidence] == [2, 1]
    farther = tiny.tokenizer.convert_tokens_to_ids("[2]")

    def leaning(nats):
        return lambda step, output: torch.zeros_like(output).index_fill_(-1, torch.tensor([farther]), nats)

    for nats in (0.0, 0.5, 20.0):  # a liking for a place is none for a sentence: both orders are read
        with logits(tiny, leaning(nats)):
            assert tiny.answer(QUESTION, hits).citations == [2]


# The logits processor by itself: ten tokens, the sentence [7 5 8 5 6]

END = 9
SPAN = [7, 5, 8, 5, 6]


def allowed(written, *, span=SPAN, logit=None, **settings):
    """{token: score} of what may follow two tokens and `written`."""
    scores = torch.zeros(1, 10) if logit is None else torch.tensor([logit])
    out = grounded(2, span, END, **settings)(torch.tensor([[0, 0, *written]]), scores)[0]
    return {token: float(score) for token, score in enumerate(out) if score > -math.inf}


@pytest.mark.parametrize(
    ("written", "after"),
    [
        ([], {5, 6, 7, 8}),
        ([5], {8, 6, END}),  # two places in the sentence go on differently
        ([5, 6], {END}),
        ([5, 8], {5, END}),
        ([7, 5, 8, 5, 6], {END}),
    ],
)
def test_only_a_span_of_the_sentence_goes_on(written, after):
    logit = [float(n) for n in range(10)]
    assert allowed(written, logit=logit) == {token: float(token) for token in after}  # their own scores


@pytest.mark.parametrize(
    ("written", "after"),
    [([], {4, 6}), ([4], {5}), ([4, 5], {6, END}), ([6], {END})],
)
def test_spans_begin_and_end_at_edges_only(written, after):
    # tokens 4 and 5 are halves of one character
    assert set(allowed(written, span=[4, 5, 6], edges=[0, 2, 3])) == after


def test_each_row_of_a_batch_goes_its_own_way():
    out = grounded(1, SPAN, END)(torch.tensor([[0, 7], [0, 8], [0, 6]]), torch.zeros(3, 10))
    assert [row.argmax().item() for row in out] == [5, 5, END]


def test_the_prior_counts_evidence_scores_not_positions(tiny):
    evidence = [Evidence("Far.", 1, 0.1), Evidence("Near.", 2, 0.9)]
    prompt = build_prompt(tiny.tokenizer, "Why?", evidence, "sentence", documents=True)
    with logits(tiny, lambda step, output: torch.zeros_like(output)):
        answer = quoted(tiny, prompt, None, 0.7, 16, None)
    assert answer.citations == [2]


def test_a_model_that_can_only_quote_says_so(tiny, hits):
    with pytest.raises(ValueError, match="can only quote; use 'sentence' or 'phrase'"):
        tiny.answer(QUESTION, hits, style="free")
