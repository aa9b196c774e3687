"""Preference losses as pure functions of tensors: one core with four knobs, and what the field makes of it.

A pair is a preferred answer (or document) y⁺ and another one, y⁻, to the same x. The pairwise losses see it
through one number, the margin

    Δ = [log π_θ(y⁺|x) − log π_ref(y⁺|x)] − [log π_θ(y⁻|x) − log π_ref(y⁻|x)],

where π_θ is the policy that learns and π_ref the reference that it starts from. The same functions train a
language model (log-probs of a completion, summed over its tokens) and a reranker (log-probs of a document).

Half precision is reduced in float32; float64 stays float64. Strengths, targets and weights are detached, or
the model could lower the loss by changing the question; an offset keeps its gradient, so that it can be
fitted. `reduction`: "mean" over pairs (not divided by Σ weight) or "none", (B,).

All raise ValueError, with the index, for what is not finite, shapes that differ and constants out of their
range, and TypeError for what is no tensor.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

Knob = float | Tensor
SHAPES = {
    "logistic": lambda z: -logsigmoid(z),
    "hinge": lambda z: relu(1 - z),
    "squared": lambda z: (z - 1) ** 2,
    "exponential": lambda z: bounded_exp(-z),
    "truncated_quadratic": lambda z: relu(1 - z) ** 2,
    "savage": lambda z: torch.sigmoid(-z) ** 2,
}


def margin(
    policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor
) -> Tensor:
    """Δ, (B,): how much more than the reference the policy prefers y⁺ to y⁻. Four log-probs, (B,) each.

    Raises ValueError where their shapes differ: broadcasting would pair each with each.
    """
    four = [wide(x) for x in (policy_chosen, policy_rejected, ref_chosen, ref_rejected)]
    shapes = [tuple(x.shape) for x in four]
    if len(set(shapes)) > 1:
        raise ValueError(f"the four log-probs have shapes {', '.join(map(str, shapes))}; they must agree")
    chosen, rejected, ref_chosen, ref_rejected = four
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def pair_loss(
    margin: Tensor,
    *,
    strength: Knob = 1.0,
    offset: Knob = 0.0,
    target: Knob = 1.0,
    weight: Knob = 1.0,
    shape: str = "logistic",
    reduction: str = "mean",
) -> Tensor:
    """weight · [target · f(z) + (1 − target) · f(−z)] with z = strength · margin − offset, f(z) = −log σ(z).

    Each knob is a number or (B,). The strength h is an inverse temperature; the offset m says how far apart
    the two should end; the target p is the probability that y⁺ is the better one (0.5 for a tie); the weight
    w is how much the pair counts. A pair that is preferred with probability p has its optimum at Δ* = (m +
    logit p) / h, whatever w is. A strength below 0 is the swapped pair at |h|. `shape`: another f, as
    `gpo_loss` lists them. Raises ValueError, with the index, for a knob of another shape, NaN or infinity in
    one, and a target outside 0 … 1; TypeError for a margin that is no tensor.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape={shape!r}: one of {', '.join(SHAPES)}")
    margin = wide(margin)
    refuse_entries("margin", margin, ~margin.isfinite())
    h = _knob("strength", strength, margin).detach()
    p = _knob("target", target, margin).detach()
    refuse_entries("target", p, (p < 0) | (p > 1), "between 0 and 1")
    w = _knob("weight", weight, margin).detach()
    m = _knob("offset", offset, margin)
    losses = unchecked_pair_loss(margin, strength=h, offset=m, target=p, weight=w, shape=shape)
    return _reduce(losses, reduction)


def unchecked_pair_loss(
    margin: Tensor,
    *,
    strength: Knob,
    target: Knob,
    offset: Knob = 0.0,
    weight: Knob = 1.0,
    shape: str = "logistic",
) -> Tensor:
    """`pair_loss`, (B,), of knobs that were checked and have no gradient that counts: a fit asks it often."""
    f, z = SHAPES[shape], strength * margin - offset
    return weight * (target * f(z) + (1 - target) * f(-z))


def grpo_loss(
    margin: Tensor, strength: Knob, *, target: Knob = 1.0, weight: Knob = 1.0, reduction: str = "mean"
) -> Tensor:
    """−log σ(h·Δ), with a strength h for each pair: this project's "Generalized Preference Optimization".

    It is GPO (arXiv 2402.05749) with the logistic shape and a β for each pair; β-DPO (arXiv 2407.08639) sets
    one for each batch. Elsewhere GRPO means Group Relative Policy Optimization (arXiv 2402.03300,
    `group_relative.py`), or Group Robust Preference Optimization (arXiv 2405.20304). A constant h = β is DPO,
    exactly. An h from advantages equals a policy gradient to first order at π_θ = π_ref, and not beyond. A
    larger h moves its pair first and lets it stop earlier: means over different h cannot be compared.
    """
    return pair_loss(margin, strength=strength, target=target, weight=weight, reduction=reduction)


def dpo_loss(margin: Tensor, beta: float, *, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
    """−log σ(β·Δ), arXiv 2305.18290, eq. 7. With `label_smoothing` ε it is conservative DPO: target 1 − ε."""
    return pair_loss(margin, strength=beta, target=1.0 - label_smoothing, reduction=reduction)


def offset_dpo_loss(margin: Tensor, beta: float, offset: Knob, *, reduction: str = "mean") -> Tensor:
    """−log σ(β·Δ − m), arXiv 2402.10571: the pair should end at least about m/β apart."""
    return pair_loss(margin, strength=beta, offset=offset, reduction=reduction)


def robust_dpo_loss(margin: Tensor, beta: float, flip: float, *, reduction: str = "mean") -> Tensor:
    """[−(1−ε)·log σ(βΔ) + ε·log σ(−βΔ)] / (1−2ε), arXiv 2403.00409: unbiased where a share ε of the labels is
    flipped. It is not bounded below: a pair that is far on the right side keeps lowering it."""
    flip = finite_number("flip", flip)
    if not 0 <= flip < 0.5:
        raise ValueError(f"flip={flip}: the share of wrong labels, at least 0 and below 0.5")
    z = finite_number("beta", beta) * wide(margin)
    refuse_entries("margin", z, ~z.isfinite())
    return _reduce((-(1 - flip) * logsigmoid(z) + flip * logsigmoid(-z)) / (1 - 2 * flip), reduction)


def ipo_loss(margin: Tensor, tau: float, *, target: Knob = 1.0, reduction: str = "mean") -> Tensor:
    """(Δ − 1/(2τ))², arXiv 2310.12036, eq. 17: Δ is drawn to a value; certain labels do not drive it on.

    The margin's log-probs may be summed over tokens or averaged: the paper does not say. TRL first summed;
    it asked the authors, and averages since January 2024. The paper's results, says its source, are averaged.
    """
    tau = finite_number("tau", tau)
    if not tau > 0:
        raise ValueError(f"tau={tau}: more than 0")
    squared = {"strength": 2 * tau, "weight": 1 / (2 * tau) ** 2, "shape": "squared"}
    return pair_loss(margin, **squared, target=target, reduction=reduction)


def gpo_loss(margin: Tensor, beta: float, shape: str = "logistic", *, reduction: str = "mean") -> Tensor:
    """f(β·Δ) for the shapes f of GPO, arXiv 2402.05749.

    "logistic" is DPO; "hinge" max(0, 1 − z) is SLiC's with a reference; "squared" (z − 1)² is IPO (β² times
    it at τ = β/2); then "exponential" e⁻ᶻ (see `bounded_exp`), "truncated_quadratic" max(0, 1 − z)², and
    "savage" 1/(1 + eᶻ)², which is not convex.
    """
    return pair_loss(margin, strength=finite_number("beta", beta), shape=shape, reduction=reduction)


def plackett_luce_loss(
    log_ratios: Tensor,
    tiers: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    beta: float,
    reduction: str = "mean",
) -> Tensor:
    """Σ_k [log Σ_{j ≥ k} exp(β·ρ_j) − β·ρ_k]: a whole ranking at once (arXiv 2305.18290, appendix A.3).

    `log_ratios`: ρ = log π_θ − log π_ref, (B, K), best first. With `tiers`, (B, K), smaller is better, equal
    ones tie, and columns may come in any order. Ties are Breslow's: each member of a tier against all that
    remain, its own tier included. Where `mask` is False there is no item. K = 2 is DPO; all ratios 0 give
    log K!.
    """
    x = finite_number("beta", beta) * wide(log_ratios)
    if x.ndim != 2:
        raise ValueError(f"log_ratios has shape {tuple(x.shape)}, not (B, K)")
    if tiers is None:
        tiers = torch.arange(x.shape[1], device=x.device).expand_as(x)
    mask = torch.ones_like(x, dtype=torch.bool) if mask is None else tensor(mask).bool()
    refuse_shape("tiers", tensor(tiers), "log_ratios", x)
    refuse_shape("mask", mask, "log_ratios", x)
    refuse_rows(~mask.any(1), " of the mask is empty: no item to rank")
    if tiers.is_floating_point():
        refuse_entries("tiers", tiers, mask & ~tiers.isfinite())
    x = x.masked_fill(~mask, 0.0)
    refuse_entries("log_ratios", x, ~x.isfinite())
    remaining = (tiers[:, None, :] >= tiers[:, :, None]) & mask[:, None, :]  # (B, K, K): j still there at k
    remaining |= ~mask[:, :, None]  # a row that does not count must still be finite
    against = x[:, None, :].masked_fill(~remaining, -torch.inf).logsumexp(-1)  # (B, K)
    return _reduce(((against - x) * mask).sum(1), reduction)


def preference_metrics(
    policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: Knob
) -> dict[str, float]:
    """What to watch while training, by the names that TRL gives it. Watch "logps/chosen" too: the margin can
    grow while both sides fall. An even pair counts as half an accurate one, so that accuracy starts at 0.5
    (TRL's starts at 0). `beta`: a number, or the strengths, (B,)."""
    beta = _knob("beta", beta, margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected))
    chosen = beta * (wide(policy_chosen) - wide(ref_chosen)).detach()
    rejected = beta * (wide(policy_rejected) - wide(ref_rejected)).detach()
    accurate = (chosen > rejected).float() + 0.5 * (chosen == rejected).float()
    return {
        "rewards/chosen": chosen.mean().item(),
        "rewards/rejected": rejected.mean().item(),
        "rewards/accuracies": accurate.mean().item(),
        "rewards/margins": (chosen - rejected).mean().item(),
        "logps/chosen": wide(policy_chosen).detach().mean().item(),
        "logps/rejected": wide(policy_rejected).detach().mean().item(),
    }


def tensor(x: Tensor) -> Tensor:
    """What every loss lets in. Raises TypeError for what is no tensor, and says how to make one of it."""
    if isinstance(x, Tensor):
        return x
    array = type(x).__module__ == "numpy" and getattr(x, "ndim", 0)
    what = f"a NumPy array of shape {x.shape}" if array else f"{x!r:.40}, a {type(x).__name__}"
    how = "torch.from_numpy" if array else "torch.tensor"
    raise TypeError(f"this takes a tensor, not {what}: {how}(…) makes one of it")


def wide(x: Tensor) -> Tensor:
    """Half precision and whole numbers as float32, all else as it is."""
    x = tensor(x)
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def bounded_exp(x: Tensor) -> Tensor:
    """eˣ, and its tangent where x is above ⅔ of the logarithm of the largest number (59 in float32, 473 in
    float64): so that losses and gradients stay finite up to log-ratios of 1e4, products of two included.
    Up there an exact gradient would be lost anyway; this one keeps its direction and stops growing."""
    limit = 2 / 3 * math.log(torch.finfo(x.dtype).max)
    return x.clamp(max=limit).exp() * (1 + (x - limit).clamp(min=0))


def finite_number(name: str, value: float) -> float:
    """A number, or what holds one (NumPy's, torch's), as Python's. Raises ValueError for anything else."""
    if shape := tuple(getattr(value, "shape", ())):
        raise ValueError(f"{name} has shape {shape}: one number; grpo_loss takes one a pair")
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r}: a finite number")
    return value


def _knob(name: str, value: Knob, margin: Tensor) -> Tensor:
    """The knob as a tensor that broadcasts over the pairs, once it is finite."""
    try:
        knob = torch.as_tensor(value, dtype=margin.dtype, device=margin.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}={value!r}: a number, or one a pair") from error
    if knob.ndim:
        refuse_shape(name, knob, "the margin", margin)
    refuse_entries(name, knob, ~knob.isfinite())
    return knob


def refuse_shape(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raises ValueError where the two differ in shape: broadcasting would pair each with each."""
    if value.shape != other.shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, {other_name} has {tuple(other.shape)}")


def refuse_rows(bad: Tensor, why: str) -> None:
    """Raises ValueError, with the row, where anything in `bad`, (B,) or (B, T), is True."""
    if bad.any():
        raise ValueError(f"row {int(bad.nonzero()[0, 0])}{why}")


def refuse_entries(name: str, value: Tensor, bad: Tensor, wanted: str = "finite") -> None:
    """Raises ValueError, with index and value, where anything in `bad`, of the value's shape, is True."""
    if bad.any():
        where = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name}{where or ''} is {float(value.detach()[tuple(where)]):g}; it must be {wanted}"
        )


def _reduce(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "mean":
        if not losses.numel():
            raise ValueError("no pairs: of none there is no mean")
        return losses.mean()
    raise ValueError(f"reduction={reduction!r}: mean or none")
