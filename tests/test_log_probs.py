"""completion_log_probs against full logits, on tiny models with random weights."""

import copy
import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, T5Config
from transformers import T5ForConditionalGeneration as T5

from ragkit.losses.log_probs import answers_log_probs, completion_log_probs
from ragkit.retrieval.corpus import DATA

close = torch.testing.assert_close
V, EOS = 97, 1


def llama(**settings):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=V, pad_token_id=0, bos_token_id=2, eos_token_id=EOS, **sizes, **settings)
    model = LlamaForCausalLM(config).double()
    torch.nn.init.normal_(model.lm_head.weight)
    return model


def gpt2():
    """Learned positions: what padding on the left gets wrong where positions are not given."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=V, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    return GPT2LMHeadModel(config).double().eval()


def t5():
    torch.manual_seed(0)
    return T5(T5Config(vocab_size=V, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)).double().eval()


ROWS = [([5, 6, 7], [8, 9, EOS]), ([10, 11, 12, 13, 14], [15, EOS]), ([20], [21, 22, 23, 24, EOS])]


def padded(rows=ROWS, side="right", width=9):
    ids, attention, completion = [], [], []
    for prompt, answer in rows:
        pad = [0] * (width - len(prompt) - len(answer))
        for out, real in (
            (ids, prompt + answer),
            (attention, [1] * len(prompt + answer)),
            (completion, [0] * len(prompt) + [1] * len(answer)),
        ):
            out.append(real + pad if side == "right" else pad + real)
    return torch.tensor(ids), torch.tensor(attention), torch.tensor(completion)


def by_hand(model, prompt, answer):
    """log π(y|x) of one row without padding, from the full logits."""
    ids = torch.tensor([prompt + answer])
    log_probs = model(input_ids=ids).logits.log_softmax(-1)[0]
    return torch.stack([log_probs[len(prompt) + i - 1, token] for i, token in enumerate(answer)])


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_padded_batches_equal_single_rows_from_full_logits(make, side, chunk):
    """Left padding, right padding and none give the same; the end of sequence counts."""
    model = make()
    sums, per_token = completion_log_probs(model, *padded(side=side), chunk=chunk)
    _, _, mask = padded(side=side)
    for row, (prompt, answer) in enumerate(ROWS):
        wanted = by_hand(model, prompt, answer)
        close(per_token[row][mask[row].bool()], wanted)
        close(sums[row], wanted.sum())
    assert (per_token[mask == 0] == 0).all()


@pytest.mark.parametrize("make", [llama, gpt2, lambda: llama(tie_word_embeddings=True)])
def test_the_gradient_is_that_of_full_logits(make):
    model = make()
    ids, attention, mask = padded()
    upstream = torch.tensor([0.3, -1.0, 2.0]).double()
    (completion_log_probs(model, ids, attention, mask, chunk=3)[0] * upstream).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    total = sum(w * by_hand(model, prompt, answer).sum() for w, (prompt, answer) in zip(upstream, ROWS))
    total.backward()
    for name, parameter in model.named_parameters():
        close(found[name], parameter.grad, msg=lambda text, name=name: f"{name}: {text}")


class Around(torch.nn.Module):
    """As peft wraps a model: its forward names two inputs, and the model lies two levels down."""

    def __init__(self, model, **more):
        super().__init__()
        self.base, self.more = torch.nn.ModuleDict({"model": model}), more

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        return self.base["model"](input_ids=input_ids, attention_mask=attention_mask, **kwargs, **self.more)


class Narrow(Around):
    def forward(self, input_ids, attention_mask=None):
        return self.base["model"](input_ids=input_ids, attention_mask=attention_mask)


class Passing(GPT2LMHeadModel):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


def passing():
    model = gpt2()
    model.__class__ = Passing
    return model


def patched():
    """As accelerate prepares a model: its forward is replaced, and shows no names."""
    model = gpt2()
    plain = model.forward
    model.forward = lambda **kwargs: plain(**kwargs)
    return model


WRAPPED = {
    "adapters": lambda: Around(gpt2()),
    "adapters in adapters": lambda: Around(Around(llama())),
    "two inputs alone": lambda: Narrow(gpt2()),
    "subclass": passing,
    "patched": patched,
    "data parallel": lambda: torch.nn.DataParallel(gpt2()),
    "compiled": lambda: torch.compile(gpt2(), backend="eager"),
    "compiled inside": lambda: Around(torch.compile(gpt2(), backend="eager")),
}


@pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_models_count_their_positions_and_learn(make):
    """Value and gradient on either side of padding; afterwards the model gives all its logits, as before."""
    model = make()
    wanted = [by_hand(model, prompt, answer).sum() for prompt, answer in ROWS]
    sum(wanted).backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    for side in ("left", "right"):
        model.zero_grad()
        sums, _ = completion_log_probs(model, *padded(side=side))
        close(sums, torch.stack(wanted))
        sums.sum().backward()
        close([p.grad for p in model.parameters()], gradients)
    ids, attention, _ = padded()
    assert model(input_ids=ids, attention_mask=attention).logits.shape == (3, 9, V)


def test_a_graph_compiled_before_neither_misses_the_hooks_nor_keeps_them():
    model = gpt2()
    model.compile(backend="eager")
    ids, attention, mask = padded(side="left")
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    found = []
    for _ in range(2):
        logits = model(
            input_ids=ids, attention_mask=attention, position_ids=positions, use_cache=False
        ).logits
        assert logits.shape == (3, 9, V)
        found.append(completion_log_probs(model, ids, attention, mask)[0])
    close(found[0], found[1])
    close(found[0], torch.stack([by_hand(gpt2(), prompt, answer).sum() for prompt, answer in ROWS]))


class Saved(torch.nn.Module):
    """An output layer as peft's modules_to_save has it: the old one, and a copy that is trained."""

    def __init__(self, head, disabled):
        super().__init__()
        self.original_module, self.disable_adapters = head, disabled
        self.active_adapters = ["default"]
        self.modules_to_save = torch.nn.ModuleDict({"default": copy.deepcopy(head)})
        torch.nn.init.normal_(self.modules_to_save["default"].weight)

    def forward(self, x):
        return (self.original_module if self.disable_adapters else self.modules_to_save["default"])(x)


@pytest.mark.parametrize("disabled", [False, True])
def test_an_output_layer_trained_whole_beside_the_old_one(disabled):
    model = llama()
    model.lm_head = Saved(model.lm_head, disabled)
    sums, _ = completion_log_probs(Around(model), *padded())
    close(sums, torch.stack([by_hand(model, prompt, answer).sum() for prompt, answer in ROWS]))
    sums.sum().backward()
    used, other = model.lm_head.original_module, model.lm_head.modules_to_save["default"]
    if not disabled:
        used, other = other, used
    assert used.weight.grad is not None and other.weight.grad is None


class LowRank(torch.nn.Module):
    """An adapter on the output layer, not yet trained: it changes nothing, but its weights want gradients."""

    def __init__(self, head):
        super().__init__()
        self.base_layer, self.weight, self.bias = head, head.weight, head.bias
        self.down, self.up = torch.nn.Linear(16, 2), torch.nn.Linear(2, V)
        torch.nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base_layer(x) + self.up(self.down(x))


def test_what_cannot_be_seen_through_is_refused_by_name():
    adapted = llama()
    adapted.lm_head = LowRank(adapted.lm_head)
    with pytest.raises(
        NotImplementedError, match=r"Around: its output layer is a .*LowRank. .*modules_to_save"
    ):
        completion_log_probs(Around(adapted), *padded())
    prefix = Around(llama(), past_key_values=[torch.zeros(1)])
    with pytest.raises(NotImplementedError, match=r"Around: prompt and prefix tuning.*; use LoRA"):
        completion_log_probs(prefix, *padded())
    with pytest.raises(TypeError, match="Linear holds no language model"):
        completion_log_probs(torch.nn.Linear(2, 2), *padded())
    twice = llama()
    plain = twice.forward
    twice.forward = lambda **kwargs: (plain(**kwargs), plain(**kwargs))[1]
    with pytest.raises(NotImplementedError, match="its output layer ran 2 times"):
        completion_log_probs(twice, *padded())


def test_finite_differences():
    """gradcheck of the chunked function itself, weights and bias included, in float64."""
    from ragkit.losses.log_probs import _LogProbs

    torch.manual_seed(0)
    states, weight, bias = (torch.randn(*s).double().requires_grad_() for s in ((5, 3), (7, 3), (7,)))
    targets = torch.tensor([0, 6, 3, 3, 1])
    assert torch.autograd.gradcheck(lambda *x: _LogProbs.apply(*x, targets, 2), (states, weight, bias))
    frozen = weight.detach(), bias.detach()  # here the derivative comes from the forward pass
    assert torch.autograd.gradcheck(lambda x: _LogProbs.apply(x, *frozen, targets, 2), states)
    (got,) = torch.autograd.grad(_LogProbs.apply(states, *frozen, targets, 2).sum(), states)
    whole = torch.nn.functional.linear(states, *frozen).log_softmax(1)[range(len(targets)), targets]
    assert torch.allclose(got, torch.autograd.grad(whole.sum(), states)[0], atol=1e-12)
    far = (
        1e3 * torch.eye(states.shape[1], dtype=torch.float64)[:1]
    )  # the largest logit comes in the last tile
    assert _LogProbs.apply(far, -frozen[0], None, targets[:1], 2).isfinite().all()


def test_a_frozen_output_layer_gets_no_gradient():
    model = llama()
    model.lm_head.weight.requires_grad_(False)
    completion_log_probs(model, *padded())[0].sum().backward()
    assert model.lm_head.weight.grad is None and model.model.embed_tokens.weight.grad is not None


def test_encoder_decoder():
    """The mask refers to the decoder's ids; the first of them starts the decoder and is never scored."""
    model = t5()
    inputs, attention = torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    decoder = torch.tensor([[0, 11, 12, EOS], [0, 13, EOS, 0]])
    mask = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 0]])
    sums, per_token = completion_log_probs(model, inputs, attention, mask, decoder)
    logits = model(input_ids=inputs, attention_mask=attention, decoder_input_ids=decoder).logits
    wanted = logits[:, :-1].log_softmax(-1).gather(2, decoder[:, 1:, None])[:, :, 0] * mask[:, 1:]
    close(per_token[:, 1:], wanted)
    close(sums, wanted.sum(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_reduced_in_float32(dtype):
    model = llama().to(dtype)
    sums, per_token = completion_log_probs(model, *padded())
    assert per_token.dtype == torch.float32
    ids, attention, mask = padded()
    logits = model(input_ids=ids, attention_mask=attention).logits.float()
    wanted = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[:, :, 0] * mask[:, 1:]
    close(per_token[:, 1:], wanted, atol=0.05, rtol=0.02)
    sums.sum().backward()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in model.parameters())


def test_autocast_gives_the_gradient_of_what_it_computed():
    """In bfloat16 under autocast, weights in float32: within rounding of the float32 gradient."""
    model = llama().float()
    completion_log_probs(model, *padded())[0].sum().backward()
    wanted = model.lm_head.weight.grad.clone()
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums, _ = completion_log_probs(model, *padded())
    sums.sum().backward()
    found = model.lm_head.weight.grad
    assert found.dtype == torch.float32
    assert (found - wanted).norm() < 0.03 * wanted.norm()


def test_autocast_inside_the_model_alone_is_noticed():
    """As accelerate does it: the forward is wrapped, and what surrounds it knows nothing of autocast."""
    model = llama().float()
    plain = model.forward

    def wrapped(*args, **kwargs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = plain(*args, **kwargs)
        out.logits = out.logits.float()
        return out

    wanted = completion_log_probs(model, *padded())[0]
    model.forward = wrapped
    close(completion_log_probs(model, *padded())[0], wanted, atol=0.3, rtol=0.02)


def test_the_logits_of_a_batch_never_exist():
    """Watched at every operation: of the ten scored tokens no more than `chunk` logits each are made."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.ndim:
                seen.add(tuple(out.shape))
            return out

    model = llama()
    with Watch():
        completion_log_probs(model, *padded(), chunk=31)[0].sum().backward()
    scored = sum(len(answer) for _, answer in ROWS)
    assert (scored, 31) in seen and (scored, V) not in seen
    whole = [shape for shape in seen if shape[-1] == V]  # the weights, and the first position's for the check
    assert all(math.prod(shape) <= 16 * V for shape in whole)


@pytest.mark.parametrize(
    "mask, message",
    [
        ([[0, 1, 1], [0, 0, 0]], "row 1 has no completion token"),
        ([[1, 1, 1], [0, 1, 1]], "row 0: its first token"),
        ([[0, 1], [0, 1]], r"completion_mask has shape \(2, 2\)"),
    ],
)
def test_bad_masks_are_refused_by_row(mask, message):
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with pytest.raises(ValueError, match=message):
        completion_log_probs(llama(), ids, torch.ones_like(ids), torch.tensor(mask))


def test_a_row_without_a_prompt_is_refused_padded_or_not():
    ids, attended = torch.tensor([[5, 6, 7, 8], [0, 6, 7, 8]]), torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    good = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1]])
    assert completion_log_probs(llama(), ids, attended, good)[0].isfinite().all()
    for row, mask in ((0, [[1, 1, 1, 1], [0, 0, 1, 1]]), (1, [[0, 1, 1, 1], [0, 1, 1, 1]])):
        with pytest.raises(ValueError, match=f"row {row}: its first token has nothing before it"):
            completion_log_probs(llama(), ids, attended, torch.tensor(mask))
    with pytest.raises(ValueError, match="chunk=-1"):
        completion_log_probs(llama(), ids, attended, good, chunk=-1)


def test_padding_that_counts_as_completion_is_refused():
    ids, attention, mask = padded()
    mask[1, -1] = 1
    with pytest.raises(ValueError, match=r"row 1: .*padding"):
        completion_log_probs(llama(), ids, attention, mask)


def test_a_model_that_changes_its_logits_afterwards_is_refused():
    class Capped(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = 3 * torch.tanh(out.logits / 3)
            return out

    model = llama()
    model.__class__ = Capped
    with pytest.raises(NotImplementedError, match="Capped"):
        completion_log_probs(model, *padded())


def test_a_uniform_model_by_hand():
    """Zero weights in the output layer: each token costs log V, so three tokens cost 3 · log 97."""
    model = llama()
    torch.nn.init.zeros_(model.lm_head.weight)
    sums, _ = completion_log_probs(model, *padded(rows=ROWS[:1]))
    assert sums.item() == pytest.approx(-3 * math.log(V), abs=1e-9)


# Several answers to a prompt

SEVERAL = [
    ([5, 6, 7], [[8, 9, EOS], [10, EOS], [8, 9, 11, 12, EOS]]),
    ([10, 11, 12, 13, 14], [[15, EOS]]),
    ([20], [[EOS], [21, 22, EOS]]),
]


def tiny_rag_lm():
    return LlamaForCausalLM.from_pretrained(DATA / "tiny-rag-lm", dtype=torch.float64).eval()


def adapted(make):
    """With peft's adapters, away from their start, where they add nothing."""
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(make(), peft.LoraConfig(r=3, target_modules="all-linear")).double().eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.mark.parametrize(
    "make", [llama, gpt2, tiny_rag_lm, lambda: adapted(llama), lambda: adapted(tiny_rag_lm)]
)
def test_answers_in_one_row_are_scored_as_if_each_stood_alone(make):
    """Values, and gradients of every weight; one weight's against finite differences. (Llama's norms round to
    float32 whatever the model's precision.)"""
    model = make().eval()
    prompts, answers = zip(*SEVERAL)
    alone = [(prompt, answer) for prompt, several in SEVERAL for answer in several]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    numbers = torch.arange(1.0, 7.0).double()
    found, per_token = answers_log_probs(model, prompts, answers)
    wanted, each = completion_log_probs(model, *padded(alone))
    close(found, wanted, atol=1e-5, rtol=1e-6)
    for terms, others, (prompt, answer) in zip(per_token, each, alone):
        close(terms[: len(answer)], others[len(prompt) :][: len(answer)], atol=1e-5, rtol=1e-6)
        assert not terms[len(answer) :].any()
    both = [torch.autograd.grad((numbers * x).sum(), weights) for x in (found, wanted)]
    for one, other in zip(*both):
        close(one, other, atol=1e-6 * other.abs().max().item(), rtol=1e-5)
    weight, gradient = max(zip(weights, both[0]), key=lambda pair: pair[1].abs().max())
    place, step, values = int(gradient.abs().argmax()), 1e-3, []
    for way in (1, -2):
        with torch.no_grad():
            weight.view(-1)[place] += way * step
            values.append((numbers * answers_log_probs(model, prompts, answers)[0]).sum())
    close(gradient.view(-1)[place], (values[0] - values[1]) / (2 * step), rtol=2e-3, atol=0)


@pytest.mark.parametrize("prompt, several", [([], [[EOS]]), ([5], []), ([5], [[EOS], []])])
def test_an_empty_prompt_and_an_empty_answer_are_refused(prompt, several):
    with pytest.raises(ValueError, match="prompt 1: "):
        answers_log_probs(llama(), [[5], prompt], [[[EOS]], several])


def test_packed_sequences_are_refused():
    """A mask that numbers the sequences of a row, 1 1 2 2: the second would be read after the first."""
    ids, ends = torch.tensor([[5, 6, 7, 8]] * 2), torch.tensor([[0, 1, 0, 1]] * 2)
    with pytest.raises(ValueError, match="row 1: attention_mask is 1 or 0; sequences packed"):
        completion_log_probs(None, ids, torch.tensor([[1, 1, 1, 1], [1, 1, 2, 2]]), ends)
