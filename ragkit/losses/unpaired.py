"""Losses of single answers that were liked or not: what a thumb says, without another answer beside it."""

import torch
from torch import Tensor

from ragkit.losses.pairwise import finite_number, refuse_entries, refuse_shape, tensor, wide


def kto_loss(log_ratios: Tensor, good: Tensor, kl: float | Tensor, *, beta: float) -> Tensor:
    """Kahneman–Tversky optimisation (arXiv 2402.01306, eqs. 7 and 8), (B,) → a number.

    An answer that was liked has the loss 1 − σ(β·(ρ − z₀)), any other 1 − σ(β·(z₀ − ρ)), with ρ = log π_θ −
    log π_ref in `log_ratios` and z₀ = max(0, `kl`), from which gains and losses are counted: an estimate of
    KL(π_θ‖π_ref), which the paper takes from answers to other prompts. `good`: True or 1 where it was
    liked, False or 0 elsewhere. Each of the two kinds counts as much as the other, whatever their numbers.
    Raises ValueError where shapes differ, for what is not finite, and for any other `good`.
    """
    x, beta = wide(log_ratios), finite_number("beta", beta)
    refuse_entries("log_ratios", x, ~x.isfinite())
    if not x.numel():
        raise ValueError("no answers: of none there is no mean")
    refuse_shape("good", tensor(good), "log_ratios", x)
    zero = torch.as_tensor(kl, dtype=x.dtype, device=x.device).detach().clamp(min=0.0)
    refuse_entries("kl", zero, ~zero.isfinite())
    refuse_entries("good", good, (good != 0) & (good != 1), "True (1) or False (0)")
    good = good.bool()
    losses = torch.sigmoid(beta * torch.where(good, zero - x, x - zero))
    kinds = [losses[kind] for kind in (good, ~good) if kind.any()]
    return torch.stack([kind.mean() for kind in kinds]).mean()
