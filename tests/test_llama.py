"""The forward pass beside transformers'; caches, copied words and threads change nothing but the time."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import ragkit.generation.llama
from ragkit.generation.decoding import grounded, sampled
from ragkit.generation.llama import FEW, ROWS, Llama, fast_dtype

IDS = torch.randint(0, 90, (40,), generator=torch.Generator().manual_seed(1)).tolist()
COPIED = [7, 8, 9, 10, 11, 12, 13, 14, 15]


def random_model(**settings) -> LlamaForCausalLM:
    shape = {
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 48,
        "vocab_size": 90, "num_hidden_layers": 3, "intermediate_size": 80, "initializer_range": 0.2,
        "max_position_embeddings": 128, "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**shape | settings)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
    model.generation_config.pad_token_id = 0
    return model


@pytest.fixture(scope="module")
def model():
    return random_model()


def ours(model, dtype=torch.float32) -> Llama:
    return Llama(model.config, model.state_dict(), dtype=dtype)


@pytest.fixture(scope="module")
def llama(model):
    return ours(model)


def theirs(model, ids) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


def close(one, other, tolerance=1e-5) -> bool:
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_key_value_heads": 6}, {"num_key_value_heads": 1}, {"tie_word_embeddings": False},
     {"rope_parameters": {"rope_type": "default", "rope_theta": 1e3}}, {"rms_norm_eps": 1e-2}],
    ids=str,
)  # fmt: skip
def test_logits_are_those_of_transformers(settings):
    model = random_model(**settings)
    llama = ours(model)
    assert close(llama.logits(IDS, llama.cache(), keep=len(IDS)), theirs(model, IDS))


def test_what_is_cached_is_not_read_again_and_changes_nothing(model, llama, monkeypatch):
    expected, read = theirs(model, IDS), []
    embedding = torch.Tensor.__getitem__

    class Embedding:
        def __getitem__(self, ids):
            read.append(len(ids))
            return embedding(weight, ids)

    weight = llama._embedding
    monkeypatch.setattr(llama, "_embedding", Embedding())
    cache = llama.cache()
    for end, keep, new in ((10, 3, 10), (11, 1, 1), (25, 2, 14), (25, 4, 4), (40, 1, 15), (12, 1, 1)):
        assert close(llama.logits(IDS[:end], cache, keep=keep), expected[end - keep : end])
        assert read[-1] == new and cache.ids == IDS[:end]


def test_continuations_of_one_prompt_take_turns_and_a_copy_goes_its_own_way(model, llama):
    cache = llama.cache()
    llama.logits(IDS, cache)
    copies = [cache.copy() for _ in range(3)]
    for token, own in enumerate(copies):
        ids = [*IDS, token, token + 1]
        for one in (cache, own):
            assert close(llama.logits(ids, one, keep=2), theirs(model, ids)[-2:])
    other = [*IDS[:20], 3, 4, 5]  # a start in common
    assert close(llama.logits(other, cache), theirs(model, other)[-1:])
    assert [own.ids for own in copies] == [[*IDS, token, token + 1] for token in range(3)]
    for own in copies:  # none has written over another's
        ids = [*own.ids, 1]
        assert close(llama.logits(ids, own), theirs(model, ids)[-1:])


def test_a_failure_leaves_no_half_read_tokens_behind(model, llama, monkeypatch):
    cache = llama.cache()
    llama.logits(IDS[:10], cache)
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(ragkit.generation.llama.F, "silu", lambda x: 1 / 0)
        llama.logits([*IDS[:5], *IDS[20:]], cache)
    assert cache.ids == IDS[:5]
    assert close(llama.logits(IDS, cache), theirs(model, IDS)[-1:])


@pytest.mark.parametrize("guesses", [0, 1, 4])
def test_greedy_decoding_is_that_of_transformers(model, llama, guesses):
    ids = torch.tensor([IDS])
    out = model.generate(ids, attention_mask=ids.ge(0), max_new_tokens=30, do_sample=False, eos_token_id=None)
    seen = []
    new = llama.generate(
        IDS, llama.cache(), max_new_tokens=30, ends=(), guesses=guesses, emit=lambda ids: seen.append([*ids])
    )
    assert new == out[0, len(IDS) :].tolist()
    assert seen == [new[:n] for n in range(1, 31)]
    assert llama.generate(IDS, llama.cache(), max_new_tokens=30, ends=new[4:5], guesses=guesses) == new[:5]


@pytest.mark.parametrize("guesses", [0, 4])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_processors_are_those_of_transformers(model, llama, guesses, seed):
    prompt, end = [*IDS, *COPIED, 1], 2

    def processors():
        draw = [] if seed is None else [sampled(seed, 0.7)]
        return [grounded(len(prompt), COPIED, end), *draw]

    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=ids.ge(0), max_new_tokens=20, do_sample=False, eos_token_id=end,
        logits_processor=processors(),
    )  # fmt: skip
    settings = {"max_new_tokens": 20, "ends": [end], "guesses": guesses, "processors": processors()}
    assert llama.generate(prompt, llama.cache(), **settings) == out[0, len(prompt) :].tolist()


def test_copied_words_cost_fewer_passes_and_draw_the_same(llama, monkeypatch):
    passes, read = [], llama.logits

    def copying(ids, cache, *, keep):
        """The model as one that copies, now and then something else."""
        passes.append(keep)
        scores = read(ids, cache, keep=keep)
        for row, place in zip(scores, range(len(ids) - keep, len(ids))):
            at = place - len(prompt) + 1
            row[COPIED[at % 9] if at % 7 else 50] += 40
        return scores

    prompt = [*IDS, *COPIED, 1]
    monkeypatch.setattr(llama, "logits", copying)
    written = {}
    for guesses in (0, 4):
        passes.clear()
        settings = {"max_new_tokens": 40, "ends": (), "processors": [sampled(0, 3.0)]}
        written[guesses] = llama.generate(prompt, llama.cache(), guesses=guesses, **settings), len(passes)
        assert max(passes) == guesses + 1
    assert written[0][0] == written[4][0] and written[0][1] == 40
    assert written[4][1] < 30


@pytest.mark.skipif(fast_dtype() == torch.float32, reason="this processor multiplies no bfloat16")
@pytest.mark.parametrize("new, tolerance", [(40, 0.3), (FEW, 0.01)])
def test_low_precision_stays_near(model, new, tolerance):
    llama = ours(model, None)
    expected, cache = theirs(model, IDS).log_softmax(-1), llama.cache()
    found = [llama.logits(IDS[: end + new], cache, keep=new) for end in range(0, len(IDS) - new + 1, new)]
    found = torch.cat(found).log_softmax(-1)
    assert 0 < (found - expected[: len(found)]).abs().max() < tolerance


def test_few_numbers_of_rows_are_multiplied_whatever_the_lengths(model, monkeypatch):
    """A product of numbers that the processor need not be fast with: bfloat16 works everywhere."""
    seen, linear = set(), torch.nn.functional.linear
    keep = lambda x, weight: (seen.add(len(x)), linear(x, weight))[1]  # noqa: E731
    monkeypatch.setattr(ragkit.generation.llama.F, "linear", keep)
    llama = ours(model, torch.bfloat16)
    for length in range(FEW + 1, len(IDS) + 1):
        alone = llama.logits(IDS[:length], llama.cache())
        assert alone.shape == (1, 90) and alone.isfinite().all()
    assert seen == {ROWS, 2 * ROWS}


def test_threads_share_a_model(llama):
    prompts = [IDS[start : start + 20] for start in range(16)]
    write = lambda ids: llama.generate(ids, llama.cache(), max_new_tokens=12, ends=())  # noqa: E731
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(write, prompts)] == [*map(write, prompts)]


LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"mlp_bias": True}, "mlp_bias=True"),
        ({"rope_parameters": LINEAR}, "rope_type='linear'"),
    ],
)
def test_what_is_not_supported_is_said(settings, told):
    config = LlamaConfig(**settings)
    with pytest.raises(ValueError, match=told):
        Llama(config, {})


@pytest.mark.parametrize("length, keep", [(0, 1), (129, 1), (5, 6), (5, 0)])
def test_a_text_that_the_window_does_not_hold_is_refused(llama, length, keep):
    with pytest.raises(ValueError, match=f"{keep} of {length} tokens"):
        llama.logits([1] * length, llama.cache(), keep=keep)


def test_layers_that_are_made_in_threads_are_the_same(model):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            llama = ours(model, torch.bfloat16)
            torch.set_num_threads(1)
            found.append(llama.logits(IDS, llama.cache(), keep=5))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_a_weight_that_is_missing_says_so_from_a_thread(model):
    state = {name: weight for name, weight in model.state_dict().items() if "layers.1.mlp.up" not in name}
    with pytest.raises(KeyError, match="up_proj"):
        Llama(model.config, state)


def test_who_only_reads_packs_nothing_to_write_with(model):
    """The first tokens to be written ask for each matrix once more, whichever thread writes them."""
    asked = []

    class State(dict):
        def __getitem__(self, name):
            asked.append(name)
            return super().__getitem__(name)

    llama = Llama(model.config, State(model.state_dict()), dtype=torch.bfloat16)
    cache, made = llama.cache(), len(asked)
    llama.logits(IDS, cache, keep=FEW + 1)
    assert len(asked) == made
    with ThreadPoolExecutor(3) as pool:
        several = [pool.submit(llama.logits, [*IDS, 1], cache.copy()) for _ in range(3)]
    assert asked[made:].count("model.layers.1.mlp.up_proj.weight") == 1 and len(asked) - made == 3 * 7
    expected = llama.logits([*IDS, 1], cache)
    assert all(torch.equal(found.result(), expected) for found in several)
    assert len(asked) - made == 3 * 7
