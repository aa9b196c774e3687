"""Group Relative Policy Optimization (arXiv 2402.03300), which most people mean by "GRPO", and its kin.

What is raised, and how precise it all is: as in `pairwise.py`.
"""

import torch
from torch import Tensor

from ragkit.losses.pairwise import (
    bounded_exp,
    finite_number,
    refuse_entries,
    refuse_rows,
    refuse_shape,
    tensor,
    wide,
)

AGGREGATIONS = ("grpo", "dr_grpo", "dapo")
RATIOS = ("token", "sequence")


def group_advantages(rewards: Tensor, *, scale: str = "population") -> Tensor:
    """(G, K) → (G, K): of K answers to each of G prompts, reward minus the group's mean, over its spread.

    `scale`: "population" divides by the standard deviation with K below the line, as NumPy does; "sample"
    with K − 1, as TRL does; "none" divides by nothing (arXiv 2503.20783). No ε is added; a group without
    spread gets zeros, and so does one whose spread is rounding: below some 1e-12 of the largest reward's size
    (6e-6 in float32). Source: arXiv 2402.03300.
    """
    rewards = wide(rewards)
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards has shape {tuple(rewards.shape)}, not (G, K) with two answers or more")
    refuse_entries("rewards", rewards, ~rewards.isfinite())
    above = rewards - rewards.amin(1, keepdim=True)  # a sum of large equal ones would be infinite
    centred = above - above.mean(1, keepdim=True)
    if scale == "none":
        return centred
    if scale not in ("population", "sample"):
        raise ValueError(f"scale={scale!r}: population, sample or none")
    spread = above.std(1, correction=int(scale == "sample"), keepdim=True)
    refuse_rows(~spread.isfinite(), " of the rewards: they lie so far apart that their spread is infinite")
    rounding = torch.finfo(rewards.dtype).eps ** 0.75 * rewards.abs().amax(1, keepdim=True)
    equal = rewards.amax(1, keepdim=True) - rewards.amin(1, keepdim=True) <= rounding
    return centred.masked_fill(equal, 0.0) / spread.masked_fill(equal, 1.0)


def group_relative_loss(
    log_probs: Tensor,
    old_log_probs: Tensor | None,
    ref_log_probs: Tensor | None,
    mask: Tensor,
    advantages: Tensor,
    *,
    clip: tuple[float, float] = (0.2, 0.2),
    kl: float = 0.04,
    kl_correction: bool = True,
    ratio: str = "token",
    aggregation: str = "grpo",
    max_length: int | None = None,
    divisor: float | None = None,
    empty_rows: bool = False,
) -> Tensor:
    """The loss of Group Relative Policy Optimization, arXiv 2402.03300: the "GRPO" that most people mean.

    For each token, −min(r·Â, clip(r, 1 − ε_low, 1 + ε_high)·Â) + kl·k3, with r = π_θ/π_old and
    k3 = exp(d) − d − 1, d = log π_ref − log π_θ. Log-probs per token and `mask`: (B, T), B = G·K sequences;
    `advantages`: (B,), as `group_advantages(rewards).flatten()`. `old_log_probs` None: the policy that
    sampled is the policy now. `kl_correction` multiplies k3 by r: without it the gradient is not that of the
    KL whose value k3 estimates. Far out, r and k3 go on along their tangents (`bounded_exp`).

    `ratio` "sequence" (GSPO, arXiv 2507.18071, eq. 7): all tokens of a sequence have the ratio
    (π_θ(y|x)/π_old(y|x))^(1/|y|), and are clipped or not together; with "grpo" as aggregation that is GSPO.
    The r that multiplies k3 stays a token's.

    `aggregation` sets what the sum is divided by, and nothing else: "grpo" each sequence's length, then B;
    "dapo" (arXiv 2503.14476) the number of tokens; "dr_grpo" (arXiv 2503.20783) B · `max_length`. A batch in
    micro-batches gives the same gradient, summed, if each gets the whole batch's `divisor`: its number of
    sequences, or of tokens for "dapo". A group must not be split before its advantages are made.
    `empty_rows`: a row without a token is refused unless this allows it; then it is a sequence of loss 0.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation={aggregation!r}: one of {', '.join(AGGREGATIONS)}")
    if ratio not in RATIOS:
        raise ValueError(f"ratio={ratio!r}: one of {', '.join(RATIOS)}")
    kl = finite_number("kl", kl)
    if not all(0 <= finite_number("clip", edge) for edge in clip):
        raise ValueError(f"clip={clip}: (ε_low, ε_high), 0 or more")
    for name, value in (("max_length", max_length), ("divisor", divisor)):
        if value is not None and not finite_number(name, value) > 0:
            raise ValueError(f"{name}={value}: more than 0")
    if (aggregation == "dr_grpo") != (max_length is not None):
        raise ValueError(f"max_length={max_length}: 'dr_grpo' divides by it, and it alone")
    now, advantages, mask = wide(log_probs), wide(advantages).detach(), tensor(mask).bool()
    if not empty_rows:
        refuse_rows(~mask.any(1), " of the mask is empty: no token was written (empty_rows=True allows it)")
    if not len(now):
        raise ValueError("no sequences: of none there is no mean")
    if mask.shape != now.shape or advantages.shape != now.shape[:1]:
        raise ValueError(
            f"log_probs {tuple(now.shape)}, mask {tuple(mask.shape)}, advantages {tuple(advantages.shape)}: "
            "(B, T), (B, T) and (B,)"
        )
    refuse_entries("advantages", advantages, ~advantages.isfinite())
    for name, value in (("old_log_probs", old_log_probs), ("ref_log_probs", ref_log_probs)):
        if value is not None:
            refuse_shape(name, tensor(value), "log_probs", now)
    old = now.detach() if old_log_probs is None else wide(old_log_probs).detach()
    # What is masked may hold anything: it is put to 0 before it can become infinite.
    log_ratio = (now - old).masked_fill(~mask, 0.0)
    refuse_entries("log_probs", log_ratio, ~log_ratio.isfinite())
    r = _ratio(log_ratio, mask, ratio)
    advantages = advantages[:, None]  # (B, 1)
    losses = -torch.minimum(r * advantages, r.clamp(1 - clip[0], 1 + clip[1]) * advantages)
    if kl:
        if ref_log_probs is None:
            raise ValueError(f"kl={kl} needs ref_log_probs; pass kl=0 to go without a reference")
        ref = wide(ref_log_probs).detach()
        refuse_entries("ref_log_probs", ref, mask & ~ref.isfinite())
        if kl_correction:
            losses = losses + kl * _CorrectedK3.apply(log_ratio, (ref - old).masked_fill(~mask, 0.0))
        else:
            d = (ref - now).masked_fill(~mask, 0.0)
            losses = losses + kl * (bounded_exp(d) - d - 1)
    losses = losses.masked_fill(~mask, 0.0)
    if aggregation == "dapo":
        return losses.sum() / (mask.sum().clamp(min=1) if divisor is None else divisor)
    lengths = mask.sum(1).clamp(min=1) if aggregation == "grpo" else max_length
    return (losses.sum(1) / lengths).sum() / (len(now) if divisor is None else divisor)


def clipped_share(
    log_probs: Tensor,
    old_log_probs: Tensor,
    mask: Tensor,
    advantages: Tensor,
    *,
    clip: tuple[float, float],
    ratio: str = "token",
) -> float:
    """The share of tokens that `group_relative_loss` clips, which the advantage moves no more.

    Log-probs and `mask`: (B, T), `advantages`: (B,), as there.
    """
    log_ratio = (log_probs - old_log_probs).detach().masked_fill(~mask, 0.0)
    r, advantages = _ratio(log_ratio, mask, ratio), advantages[:, None]
    out = (r > 1 + clip[1]) & (advantages > 0) | (r < 1 - clip[0]) & (advantages < 0)
    return (out & mask).sum().item() / max(1, mask.sum().item())


def _ratio(log_ratio: Tensor, mask: Tensor, ratio: str) -> Tensor:
    """(B, T): r of each token, or of its sequence. `log_ratio` is 0 where masked."""
    if ratio == "sequence":
        log_ratio = (log_ratio.sum(1, True) / mask.sum(1, True).clamp(min=1)).expand_as(log_ratio)
    return bounded_exp(log_ratio)


class _CorrectedK3(torch.autograd.Function):
    """r · (exp(d) − d − 1) of x = log r and a = log π_ref − log π_old, where d = a − x.

    Its derivative in x is −r·d: on policy the log-ratio to the reference. Autograd would get there by
    subtracting two numbers of the size of exp(d), which leave nothing of it at 20 nats.
    """

    @staticmethod
    def forward(ctx, x, a):
        ctx.save_for_backward(x, a)
        r, d = bounded_exp(x), a - x
        near = r * (torch.expm1(d.clamp(max=1.0)) - d)
        return torch.where(d > 1, bounded_exp(a) - r * (d + 1), near)

    @staticmethod
    def backward(ctx, grad):
        x, a = ctx.saved_tensors
        return grad * bounded_exp(x) * (x - a), None
