"""Log-probabilities of completions under a model, without ever holding the logits of a whole batch."""

import inspect
import sys
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ragkit.losses.pairwise import refuse_rows, refuse_shape, tensor

HALF = (torch.float16, torch.bfloat16)
LOGITS_AT_ONCE = {"cpu": 2**22, "cuda": 2**26}  # numbers, 16 MB and 256 MB in float32
KEPT = 2**26  # where the output layer learns, so many logits are kept rather than made twice: 256 MB


def completion_log_probs(
    model,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    decoder_input_ids: Tensor | None = None,
    *,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """(sums, per_token): log π(y|x), (B,), and its terms, (B, T), 0 where `completion_mask` is False.

    `input_ids`, `attention_mask`: (B, T), prompt and completion together, padded on either side; EOS belongs
    to the completion. `completion_mask`: (B, T), True on the completion's tokens. An encoder-decoder model
    gets the prompt as `input_ids` and as `decoder_input_ids`, (B, U), its start token and the completion;
    the mask, and what comes back, then refer to those. The value at t is that of token t given all before
    it. Differentiable in the model's weights. `chunk`: entries of the vocabulary whose logits exist at one
    time.

    `model` may be wrapped (peft's adapters, data parallelism on one device); a compiled one runs as it was
    before. Raises ValueError, with the row, where a completion is empty, covers padding, or includes the
    first token, before which there is nothing; NotImplementedError for prompt and prefix tuning, an output
    layer with an adapter, and a model that changes its logits after that layer.
    """
    ids = input_ids if decoder_input_ids is None else decoder_input_ids
    mask = tensor(completion_mask).bool()
    refuse_shape("completion_mask", mask, "the batch of ids", tensor(ids))
    refuse_shape("attention_mask", tensor(attention_mask), "input_ids", input_ids)
    packed = ((attention_mask != 0) & (attention_mask != 1)).any(1)
    refuse_rows(packed, ": attention_mask is 1 or 0; sequences packed into one row would see each other")
    refuse_rows(~mask.any(1), " has no completion token")
    real = attention_mask.bool() if decoder_input_ids is None else torch.ones_like(mask)
    refuse_rows(mask & ~real, ": its completion_mask covers padding, which attention_mask leaves out")
    first = real & (real.cumsum(1) == 1)  # of each row the first real token
    refuse_rows(mask & first, ": its first token has nothing before it, no prompt")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk={chunk}: a number of entries of the vocabulary, at least 1")
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if decoder_input_ids is not None:
        inputs["decoder_input_ids"] = decoder_input_ids
    states, head, dtype = _states(model, inputs)  # (B, T, H)
    counted = mask[:, 1:]  # token t is predicted at position t − 1
    targets = ids[:, 1:][counted]
    picked = _pick(states[:, :-1][counted], head, targets, chunk, dtype)  # (N,)
    per_token = torch.zeros(ids.shape, dtype=picked.dtype, device=picked.device)
    per_token = per_token.masked_scatter(F.pad(counted, (1, 0)), picked)
    return per_token.sum(1), per_token


def answers_log_probs(
    model, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]]
) -> tuple[Tensor, Tensor]:
    """(sums, per_token): log π(y|x), (N,), of all answers to all prompts in order, and its terms, (N, T), 0
    where an answer is over. Each prompt is read once.

    `answers[i]` are the answers to `prompts[i]`, as token ids, EOS included. They stand behind their prompt
    in one row, and none sees another: so K answers cost the prompt once and not K times. For causal models
    whose attention takes a mask of four dimensions (transformers' "sdpa" and "eager"). Differentiable in the
    model's weights. Raises ValueError for an empty prompt, an empty answer and a prompt without answers.
    """
    rows, groups, places, at, targets, lengths = [], [], [], [], [], []
    for row, (prompt, several) in enumerate(zip(prompts, answers, strict=True)):
        if not len(prompt) or not several or not all(map(len, several)):
            raise ValueError(f"prompt {row}: {len(prompt)} tokens, answers of {[*map(len, several)]} tokens")
        ids, group, place = [*prompt], [0] * len(prompt), [*range(len(prompt))]
        for number, answer in enumerate(several, 1):
            # Its first token is predicted at the prompt's last, each other one at the one before it.
            at += [(row, len(prompt) - 1), *((row, len(ids) + i) for i in range(len(answer) - 1))]
            lengths.append(len(answer))
            targets += answer
            ids += answer
            group += [number] * len(answer)
            place += range(len(prompt), len(prompt) + len(answer))
        rows.append(torch.tensor(ids))
        groups.append(torch.tensor(group))
        places.append(torch.tensor(place))
    device = next(model.parameters()).device
    pad = lambda columns, value: pad_sequence(columns, True, value).to(device)  # noqa: E731
    ids, group, place = pad(rows, 0), pad(groups, -1), pad(places, 0)
    length = ids.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    seen = earlier & ((group[:, None, :] == 0) | (group[:, None, :] == group[:, :, None]))  # (B, T, T)
    dtype = next(model.parameters()).dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)
    inputs = {"input_ids": ids, "attention_mask": mask[:, None], "position_ids": place}
    states, head, dtype = _states(model, inputs)
    row, column = torch.tensor(at, device=device).T
    picked = _pick(states[row, column], head, torch.tensor(targets, device=device), None, dtype)
    per_token = pad_sequence(picked.split(lengths), batch_first=True)
    return per_token.sum(1), per_token


def _pick(states: Tensor, head: torch.nn.Linear, targets: Tensor, chunk: int | None, dtype) -> Tensor:
    """(N,): log p of each target at its state, (N, H)."""
    if chunk is None and head.weight.requires_grad and len(targets) * len(head.weight) <= KEPT:
        logits = _logits(states.to(dtype), head.weight.to(dtype), head.bias)
        return -F.cross_entropy(logits, targets, reduction="none")
    chunk = chunk or max(256, LOGITS_AT_ONCE.get(targets.device.type, 2**24) // len(targets))
    return _LogProbs.apply(states, head.weight, head.bias, targets, chunk, dtype)


def _states(model, inputs: dict) -> tuple[Tensor, torch.nn.Linear, torch.dtype]:
    """What enters the model's output layer, (B, T, H), that layer, which itself sees one position only, and
    the precision in which it works. What the model returns in the end must be what that layer gave: soft-
    capped or scaled logits would be another distribution than is computed here.
    """
    name = type(model).__name__
    found = (module for module in model.modules() if hasattr(type(module), "get_output_embeddings"))
    inner = next(found, None)  # the language model in whatever wraps it
    if inner is None:
        raise TypeError(f"{name} holds no language model: nothing in it has get_output_embeddings")
    head = inner.get_output_embeddings()
    if hasattr(head, "modules_to_save"):  # peft trains a copy of the whole layer
        copies = head.modules_to_save
        head = head.original_module if head.disable_adapters else copies[head.active_adapters[0]]
    if not isinstance(head, torch.nn.Linear):
        raise NotImplementedError(
            f"{name}: its output layer is a {type(head).__module__}.{type(head).__name__}. Leave it out of "
            'the adapter\'s target_modules, or train it whole: modules_to_save=["lm_head"]'
        )
    settings = {"use_cache": False}
    if not {"decoder_input_ids", "position_ids"} & inputs.keys() and _takes_positions(type(inner)):
        # With padding on the left, positions must count from the first real token.
        settings["position_ids"] = (inputs["attention_mask"].long().cumsum(1) - 1).clamp(min=0)
    seen = []

    def enter(module, args, kwargs):
        if any(kwargs.get(given) is not None for given in ("inputs_embeds", "past_key_values")):
            raise NotImplementedError(f"{name}: prompt and prefix tuning put tokens of their own; use LoRA")
        return args, {**kwargs, **settings}

    def keep(module, args):
        kind = args[0].device.type  # autocast may be on inside the model's forward alone: look here
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.weight.dtype
        seen.append((args[0], dtype))
        return (args[0][:, :1],)

    # A compiled graph would not see the hooks, or keep them for ever. Without dynamo nothing is compiled.
    as_it_was = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    hooks = inner.register_forward_pre_hook(enter, with_kwargs=True), head.register_forward_pre_hook(keep)
    try:
        with as_it_was:
            logits = model(**inputs).logits
    finally:
        for hook in hooks:
            hook.remove()
    if len(seen) != 1:
        raise NotImplementedError(f"{name}: its output layer ran {len(seen)} times; pass the model inside it")
    ((states, dtype),) = seen
    with torch.no_grad():
        wanted = _logits(states[:, :1].to(dtype), head.weight.to(dtype), head.bias)
        slack = 0.02 if dtype in HALF else 1e-4
        if (logits - wanted).abs().max() > slack * (wanted.abs().max() + slack):
            raise NotImplementedError(f"{name} changes its logits after its output layer")
    return states, head, dtype


def _takes_positions(kind: type) -> bool:
    """Whether a class's forward takes position_ids, or hands what it is given up to one that does."""
    for base in kind.__mro__:
        if "forward" in vars(base):
            parameters = inspect.signature(base.forward).parameters
            if "position_ids" in parameters:
                return True
            if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
                return False
    return False


class _LogProbs(torch.autograd.Function):
    """log softmax(states · Wᵀ + b)[target] for (N, H) states, in tiles of `chunk` entries of the vocabulary.

    Tiles of the vocabulary, not of tokens: each row of W is read once, and its gradient written once. Where
    the layer is frozen, as under adapters, the derivative in the states is W[target] − Σ_v p_v W_v: a mean
    that the forward pass takes along, like attention over the vocabulary (arXiv 2205.14135), so no logits are
    made twice. Else the backward pass makes those of a tile once more, since keeping them is what costs
    memory.
    """

    @staticmethod
    def forward(ctx, states, weight, bias, targets, chunk, dtype=None):
        ctx.chunk, ctx.dtype = chunk, dtype or weight.dtype
        needs_states, *needs_layer = ctx.needs_input_grad[:3]
        ctx.with_mean = needs_states and not any(needs_layer)
        rows = states.to(ctx.dtype)
        wide = torch.promote_types(ctx.dtype, torch.float32)
        picked = torch.zeros(len(rows), dtype=wide, device=rows.device)
        top, total = torch.full_like(picked, -torch.inf), torch.zeros_like(picked)
        mean = torch.zeros(states.shape, dtype=wide, device=rows.device) if ctx.with_mean else None
        for tile, logits in _tiles(rows, weight, bias, ctx):
            row, column = _inside(targets, tile)
            picked[row] = logits[row, column]
            before, top = top, torch.maximum(top, logits.amax(1))
            p, kept = logits.sub_(top[:, None]).exp_(), (before - top).exp()
            total = total * kept + p.sum(1)
            if ctx.with_mean:
                _add_product(mean.mul_(kept[:, None]), p, weight[tile], ctx)
        lse = top + total.log()
        if ctx.with_mean:
            derivative = weight[targets].to(wide) - mean / total[:, None]
            ctx.save_for_backward(derivative.to(states.dtype))
        else:
            ctx.save_for_backward(states, weight, bias, targets, lse)
        return picked - lse

    @staticmethod
    def backward(ctx, grad):
        if ctx.with_mean:
            (derivative,) = ctx.saved_tensors
            return grad[:, None].to(derivative.dtype) * derivative, None, None, None, None, None
        states, weight, bias, targets, lse = ctx.saved_tensors
        needs_states, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        rows = states.to(ctx.dtype)
        # ∂ loss / ∂ logits is grad · (onehot − p). grad is put on what is (N, H), not on each tile.
        scaled = (rows * -grad[:, None]).to(ctx.dtype)
        d_states = torch.zeros(states.shape, dtype=lse.dtype, device=lse.device) if needs_states else None
        d_weight = torch.empty_like(weight) if needs_weight else None
        d_bias = torch.empty_like(bias) if needs_bias else None
        for tile, logits in _tiles(rows, weight, bias, ctx):
            p = logits.sub_(lse[:, None]).exp_()
            row, column = _inside(targets, tile)
            p[row, column] -= 1  # p − onehot
            if needs_bias:
                d_bias[tile] = -grad @ p
            if needs_weight:
                d_weight[tile] = p.to(ctx.dtype).T @ scaled
            if needs_states:
                _add_product(d_states, p, weight[tile], ctx)
        if needs_states:
            d_states = d_states.mul_(-grad[:, None]).to(states.dtype)
        return d_states, d_weight, d_bias, None, None, None


def _add_product(out: Tensor, p: Tensor, weight: Tensor, ctx) -> None:
    """out += p · weight in place; half precision is multiplied as such, and summed wide."""
    if ctx.dtype == out.dtype:
        out.addmm_(p, weight.to(ctx.dtype))
    else:
        out += p.to(ctx.dtype) @ weight.to(ctx.dtype)


def _tiles(states: Tensor, weight: Tensor, bias: Tensor | None, ctx):
    """Slices of the vocabulary, and the logits of each, (N, chunk)."""
    for at in range(0, len(weight), ctx.chunk):
        tile = slice(at, at + ctx.chunk)
        yield tile, _logits(states, weight[tile].to(ctx.dtype), None if bias is None else bias[tile])


def _inside(targets: Tensor, tile: slice) -> tuple[Tensor, Tensor]:
    """The rows whose target lies in a slice of the vocabulary, and where in it."""
    row = ((targets >= tile.start) & (targets < tile.stop)).nonzero()[:, 0]
    return row, targets[row] - tile.start


def _logits(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N, H), (V, H) → (N, V), half precision widened: a log-softmax over a vocabulary needs it."""
    logits = F.linear(states, weight, None if bias is None else bias.to(weight.dtype))
    return logits.float() if logits.dtype in HALF else logits
