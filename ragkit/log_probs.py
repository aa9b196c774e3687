"""Log-probabilities of completions under a model, without ever holding the logits of a whole batch."""

import inspect

import torch
from torch import Tensor
from torch.nn import functional as F

HALF = (torch.float16, torch.bfloat16)
LOGITS_AT_ONCE = 2**24  # numbers, 64 MB in float32: a chunk is as many tokens as that allows


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
    it. Differentiable in the model's weights. `chunk`: tokens whose logits exist at one time. Raises
    ValueError, with the row, where a completion is empty or includes the first token, before which there is
    nothing.
    """
    ids = input_ids if decoder_input_ids is None else decoder_input_ids
    mask = completion_mask.bool()
    if mask.shape != ids.shape:
        raise ValueError(f"completion_mask has shape {tuple(mask.shape)}, the ids have {tuple(ids.shape)}")
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}, input_ids {tuple(input_ids.shape)}"
        )
    if (empty := ~mask.any(1)).any():
        raise ValueError(f"row {int(empty.nonzero()[0])} has no completion token")
    real = attention_mask.bool() if decoder_input_ids is None else None
    if real is not None and (mask & ~real).any():
        row = int((mask & ~real).any(1).nonzero()[0])
        raise ValueError(f"row {row}: its completion_mask covers padding, which attention_mask leaves out")
    if mask[:, 0].any():
        raise ValueError(
            f"row {int(mask[:, 0].nonzero()[0])}: its first token has nothing before it, no prompt"
        )
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if decoder_input_ids is not None:
        inputs["decoder_input_ids"] = decoder_input_ids
    elif "position_ids" in inspect.signature(model.forward).parameters:
        # With padding on the left, positions must count from the first real token.
        inputs["position_ids"] = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
    states, head, dtype = _states(model, inputs)  # (B, T, H)
    counted = mask[:, 1:]  # token t is predicted at position t − 1
    targets = ids[:, 1:][counted]
    chunk = chunk or max(16, LOGITS_AT_ONCE // head.weight.shape[0])
    scored = states[:, :-1][counted]  # (N, H)
    picked = _LogProbs.apply(scored, head.weight, head.bias, targets, chunk, dtype)  # (N,)
    per_token = torch.zeros(ids.shape, dtype=picked.dtype, device=picked.device)
    per_token = per_token.masked_scatter(F.pad(counted, (1, 0)), picked)
    return per_token.sum(1), per_token


def _states(model, inputs: dict) -> tuple[Tensor, torch.nn.Linear, torch.dtype]:
    """What enters the model's output layer, (B, T, H), that layer, which itself sees one position only, and
    the precision in which it works.

    Raises NotImplementedError for a model that changes its logits afterwards (soft-capping, scaling): what is
    computed here would be another distribution.
    """
    head = model.get_output_embeddings()
    seen = []

    def keep(module, args):
        kind = args[0].device.type  # autocast may be on inside the model's forward alone: look here
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.weight.dtype
        seen.append((args[0], dtype))
        return (args[0][:, :1],)

    handle = head.register_forward_pre_hook(keep)
    try:
        logits = model(**inputs, use_cache=False).logits
    finally:
        handle.remove()
    ((states, dtype),) = seen
    with torch.no_grad():
        wanted = _logits(states[:, :1].to(dtype), head.weight.to(dtype), head.bias)
        slack = 0.02 if dtype in HALF else 1e-4
        if (logits - wanted).abs().max() > slack * (wanted.abs().max() + slack):
            raise NotImplementedError(f"{type(model).__name__} changes its logits after its output layer")
    return states, head, dtype


class _LogProbs(torch.autograd.Function):
    """log softmax(states · Wᵀ + b)[target] for (N, H) states, in chunks of rows; the backward pass makes the
    logits of a chunk once more, since keeping them is what costs memory."""

    @staticmethod
    def forward(ctx, states, weight, bias, targets, chunk, dtype=None):
        ctx.chunk, ctx.dtype = chunk, dtype or weight.dtype
        cast_weight = weight.to(ctx.dtype)
        out, lse = [], []
        for rows in states.split(chunk):
            logits = _logits(rows.to(ctx.dtype), cast_weight, bias)  # (chunk, V)
            lse.append(logits.logsumexp(1))
            done = sum(map(len, out))
            out.append(logits.gather(1, targets[done : done + len(rows), None])[:, 0] - lse[-1])
        ctx.save_for_backward(states, weight, bias, targets, torch.cat(lse))
        return torch.cat(out)

    @staticmethod
    def backward(ctx, grad):
        states, weight, bias, targets, lse = ctx.saved_tensors
        needs_states, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        cast_weight = weight.to(ctx.dtype)
        wide = torch.promote_types(ctx.dtype, torch.float32)
        d_states = torch.empty_like(states) if needs_states else None
        d_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device) if needs_weight else None
        d_bias = torch.zeros(bias.shape, dtype=wide, device=bias.device) if needs_bias else None
        for at in range(0, len(states), ctx.chunk):
            rows = slice(at, at + ctx.chunk)
            some = states[rows].to(ctx.dtype)
            d = _logits(some, cast_weight, bias)  # becomes ∂ loss / ∂ logits in place
            d.sub_(lse[rows, None]).exp_().mul_(-grad[rows, None])
            d.scatter_add_(1, targets[rows, None], grad[rows, None].to(d.dtype))
            if needs_bias:
                d_bias += d.sum(0)
            d = d.to(ctx.dtype)
            if needs_states:
                d_states[rows] = (d @ cast_weight).to(states.dtype)
            if needs_weight and ctx.dtype == wide:
                d_weight.addmm_(d.T, some)
            elif needs_weight:
                d_weight += d.T @ some  # half precision is multiplied as such, and summed wide
        d_weight = None if d_weight is None else d_weight.to(weight.dtype)
        d_bias = None if d_bias is None else d_bias.to(bias.dtype)
        return d_states, d_weight, d_bias, None, None, None


def _logits(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N, H), (V, H) → (N, V), half precision widened: a log-softmax over a vocabulary needs it."""
    logits = F.linear(states, weight, None if bias is None else bias.to(weight.dtype))
    return logits.float() if logits.dtype in HALF else logits
