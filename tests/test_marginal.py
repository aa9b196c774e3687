"""The document as a latent variable: against enumeration, finite differences and Hugging Face's RAG."""

import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)

import ragkit.generation.generator
from ragkit import Generator
from ragkit.generation.marginal import Marginal, answer_ids, posterior, rag_sequence, rag_token
from ragkit.generation.smollm2 import base_folder
from tests.helpers import hits, small_smollm2
from tests.words_encoder import WordsEncoder

V, END = 7, 2
PROMPTS = [[3, 4, 5, 6], [3, 4, 6], [3, 4, 5, 5, 1]]
SCORES = [0.3, -0.5, 1.1]
ANSWERS = [[*ids, END] for n in range(3) for ids in itertools.product([0, 1, 3, 4, 5, 6], repeat=n)]


def causal():
    torch.manual_seed(0)
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "initializer_range": 0.6}
    return GPT2LMHeadModel(GPT2Config(vocab_size=V, bos_token_id=1, eos_token_id=END, **shape)).eval()


def encoder_decoder():
    torch.manual_seed(0)
    sides = {f"{side}_{name}": size for side in ("encoder", "decoder")
             for name, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))}  # fmt: skip
    config = BartConfig(
        vocab_size=V, d_model=16, max_position_embeddings=32, init_std=0.6, pad_token_id=0, bos_token_id=1,
        eos_token_id=END, decoder_start_token_id=END, forced_eos_token_id=None, **sides,
    )  # fmt: skip
    return BartForConditionalGeneration(config).eval()


MODELS = pytest.mark.parametrize("make", [causal, encoder_decoder])


def one_by_one(model, answer):
    """(k, T), each prompt alone and whole, by transformers' own logits."""
    rows = []
    with torch.no_grad():
        for prompt in PROMPTS:
            if model.config.is_encoder_decoder:
                written = torch.tensor([[model.config.decoder_start_token_id, *answer[:-1]]])
                logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=written).logits[0]
            else:
                logits = model(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
            rows.append(logits.log_softmax(-1)[range(len(answer)), answer])
    return torch.stack(rows)


@MODELS
@pytest.mark.parametrize("gradients", [True, False])
def test_the_log_probs_are_those_of_each_prompt_alone(make, gradients):
    model = make()
    marginal = Marginal(model, PROMPTS, SCORES, ends=[END])
    for answer in ([END], [3, END], [5, 1, 4, 6, END]):
        with torch.set_grad_enabled(gradients):
            found = marginal.log_probs(answer)
        assert found.requires_grad is gradients
        assert torch.allclose(found.detach(), one_by_one(model, answer), atol=2e-5)


def test_prompts_without_a_common_start_and_alone_are_fine():
    model = causal()
    for prompts in ([[3, 4], [5, 4, 1]], [[3]], [[3, 4], [3, 4]]):
        marginal = Marginal(model, prompts, [0.0] * len(prompts), ends=[END])
        with torch.no_grad():
            found = marginal.log_probs([5, END])
        assert torch.allclose(found, marginal.log_probs([5, END]), atol=1e-5)


def table(model):
    """p(y|x) of all answers up to two tokens and the end: (by sequence, by token)."""
    scores, logs = torch.tensor(SCORES), {tuple(answer): one_by_one(model, answer) for answer in ANSWERS}
    prior = scores.softmax(0)
    by_sequence = {y: float((prior * log.sum(1).exp()).sum().log()) for y, log in logs.items()}
    by_token = {y: float((prior[:, None] * log.exp()).sum(0).log().sum()) for y, log in logs.items()}
    return by_sequence, by_token


@MODELS
def test_both_formulas_and_both_searches_agree_with_enumeration(make):
    model = make()
    marginal = Marginal(model, PROMPTS, SCORES, ends=[END])
    by_sequence, by_token = table(model)
    for y in list(by_sequence)[::7]:
        with torch.no_grad():
            logs = marginal.log_probs(y)
        assert rag_sequence(marginal.scores, logs).item() == pytest.approx(by_sequence[y], abs=1e-4)
        assert rag_token(marginal.scores, logs).item() == pytest.approx(by_token[y], abs=1e-4)
    everything = {"beams": 200, "max_new_tokens": 3}
    for written, expected in (
        (marginal.write_by_token(**everything), by_token),
        (marginal.write_by_sequence(**everything), by_sequence),
        (
            marginal.write_by_sequence(**everything, thorough=False),
            by_sequence,
        ),  # every beam has every answer
    ):
        found = {tuple(one.ids): one.log_prob for one in written}
        assert found == pytest.approx(expected, abs=1e-4)
        assert [one.log_prob for one in written] == sorted(found.values(), reverse=True)


def test_a_narrow_search_finds_less_and_fast_is_a_bound_from_below():
    marginal = Marginal(causal(), PROMPTS, SCORES, ends=[END])
    by_sequence, by_token = table(marginal.model)
    narrow = {"beams": 2, "max_new_tokens": 3}
    for cut in itertools.product(range(V), repeat=3):  # where the limit cuts
        logs = one_by_one(marginal.model, list(cut))
        by_sequence.setdefault(cut, rag_sequence(marginal.scores, logs).item())
        by_token.setdefault(cut, rag_token(marginal.scores, logs).item())
    for one in marginal.write_by_token(**narrow):
        assert one.log_prob == pytest.approx(by_token[tuple(one.ids)], abs=1e-4)
    thorough = {tuple(one.ids): one.log_prob for one in marginal.write_by_sequence(**narrow)}
    fast = {tuple(one.ids): one.log_prob for one in marginal.write_by_sequence(**narrow, thorough=False)}
    assert thorough.keys() == fast.keys()
    assert all(fast[y] <= thorough[y] + 1e-5 for y in fast) and any(fast[y] < thorough[y] - 0.1 for y in fast)
    assert thorough == pytest.approx({y: by_sequence[y] for y in thorough}, abs=1e-4)


def test_an_answer_that_the_limit_cuts_is_given_only_where_none_ends():
    marginal = Marginal(causal(), PROMPTS, SCORES, ends=[])
    assert all(len(one.ids) == 4 for one in marginal.write_by_token(beams=3, max_new_tokens=4))


def test_one_token_makes_the_two_equal_and_more_do_not():
    scores, logs = torch.randn(5, 4), -torch.rand(5, 4, 6)
    assert torch.allclose(rag_sequence(scores, logs[..., :1]), rag_token(scores, logs[..., :1]))
    assert not torch.allclose(rag_sequence(scores, logs), rag_token(scores, logs), atol=0.01)


def test_the_gradient_of_a_documents_score_is_posterior_minus_prior():
    torch.manual_seed(1)
    scores, logs = torch.randn(4, dtype=torch.double), -3 * torch.rand(4, 6, dtype=torch.double)
    expected = posterior(scores, logs) - scores.softmax(0)
    step = 1e-6 * torch.eye(4, dtype=torch.double)
    differences = (rag_sequence(scores + step, logs) - rag_sequence(scores - step, logs)) / 2e-6
    assert torch.allclose(differences, expected, atol=1e-9)
    assert torch.autograd.gradcheck(rag_sequence, (scores.requires_grad_(), logs.requires_grad_()))
    assert torch.autograd.gradcheck(rag_token, (scores, logs))
    (found,) = torch.autograd.grad(rag_sequence(scores, logs), scores)
    assert torch.allclose(found, expected)


def test_an_answer_that_is_over_adds_nothing():
    scores, logs = torch.randn(3), -torch.rand(3, 4)
    longer = torch.cat([logs, torch.zeros(3, 2)], 1)
    for formula in (rag_sequence, rag_token):
        assert torch.allclose(formula(scores, longer), formula(scores, logs))


@pytest.mark.parametrize(
    "formula, kind", [(rag_sequence, RagSequenceForGeneration), (rag_token, RagTokenForGeneration)]
)
def test_hugging_faces_loss_is_the_same(formula, kind):
    """Their `get_nll`, which takes logits and adds the prior at the second token."""
    answer, logits = [5, 1, 4, END], torch.randn(len(SCORES), 5, V)
    theirs = object.__new__(kind)
    torch.nn.Module.__init__(theirs)
    generator = SimpleNamespace(pad_token_id=0, bos_token_id=1)
    theirs.config = SimpleNamespace(n_docs=len(SCORES), bos_token_id=1, generator=generator)
    loss = theirs.get_nll(logits, torch.tensor([SCORES]), torch.tensor([[1, *answer]]))
    logs = logits.log_softmax(-1)[:, range(len(answer)), answer]
    assert formula(torch.tensor(SCORES), logs).item() == pytest.approx(-loss.item(), abs=1e-5)


@pytest.mark.parametrize("folder", ["tiny_folder", "qwen_folder", "llama_folder", "t5_folder", "bart_folder"])
def test_any_generator_gives_its_prompts_and_reads_its_own_answer(folder, request):
    generator = Generator(str(request.getfixturevalue(folder)), WordsEncoder())
    found = hits("Beta holds the policy.", "The reward is a scalar.")
    marginal = Marginal.of(generator, "what holds the policy?", found)
    prompts = [generator.tokenizer.decode(prompt) for prompt in marginal.prompts]
    assert "Beta" in prompts[0] and "reward" not in prompts[0]
    answer = answer_ids(generator, "Beta")
    assert answer[-1] in marginal.ends
    if folder in ("t5_folder", "bart_folder"):
        assert answer == generator.tokenizer(text_target="Beta").input_ids
    with torch.no_grad():
        logs = marginal.log_probs(answer)
    assert torch.allclose(logs, marginal.log_probs(answer), atol=1e-3) and logs.shape == (2, len(answer))


def test_the_readers_documents_are_its_sentences_each_cited_already(monkeypatch, tmp_path):
    """A small reader: SmolLM2's tokens, random weights and an adapter on them."""
    base, folder = tmp_path / "base", tmp_path / "reader"
    small_smollm2(layers=1).save_pretrained(base)
    AutoTokenizer.from_pretrained(base_folder(progress=False)).save_pretrained(base)
    folder.mkdir()
    name = "base_model.model.model.layers.0.mlp.up_proj"
    adapter = {f"{name}.lora_A.weight": torch.randn(4, 24), f"{name}.lora_B.weight": torch.randn(32, 4)}
    save_file(adapter, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    (folder / "reader.json").write_text(json.dumps({"evidence_sentences": 6, "prior_scale": 8.0}))
    monkeypatch.setattr(ragkit.generation.generator, "base_folder", lambda: base)
    generator = Generator(str(folder), WordsEncoder(), device="cpu")

    found = hits("Beta holds the policy. The policy writes.", "The reward holds a scalar.")
    query, text = "what holds the policy?", "Beta holds it."
    marginal, pieces = Marginal.of(generator, query, found), generator.prompt(query, found).evidence
    assert [piece.hit for piece in pieces] == [1, 1, 2]
    assert marginal.scores.tolist() == pytest.approx([8 * piece.score for piece in pieces])
    answer = answer_ids(generator, text)
    for prompt, piece in zip(marginal.prompts, pieces):
        alone = generator.prompt_over(query, [piece], "sentence").ids
        assert [*prompt, *answer] == [*alone, *generator.reader.format.answer_ids([(0, text)])]
    assert marginal.ends == {answer[-1]}
    with torch.no_grad():
        logs = marginal.log_probs(answer)
    for prompt, row in zip(marginal.prompts, logs):
        logits = generator.model(torch.tensor([[*prompt, *answer[:-1]]])).logits[0, len(prompt) - 1 :]
        assert torch.allclose(row, logits.log_softmax(-1)[range(len(answer)), answer], atol=1e-4)


@pytest.mark.parametrize(
    "prompts, scores, message",
    [
        ([], [], "0 prompts"),
        ([[1]], [0.0, 1.0], "1 prompts and scores of shape"),
        ([[1], []], [0.0, 1.0], "prompt 1 is empty"),
        ([[1], [2]], [0.0, float("nan")], "not all are finite"),
    ],
)
def test_what_cannot_be_summed_over_is_refused(prompts, scores, message):
    with pytest.raises(ValueError, match=message):
        Marginal(causal(), prompts, scores, ends=[END])


def test_an_empty_answer_and_an_empty_search_are_refused():
    marginal = Marginal(causal(), PROMPTS, SCORES, ends=[END])
    with pytest.raises(ValueError, match="at least one token"):
        marginal.log_probs([])
    with pytest.raises(ValueError, match="beams=0"):
        marginal.write_by_token(beams=0)
