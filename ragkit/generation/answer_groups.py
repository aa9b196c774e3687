"""Several answers to each of some questions, what they were rewarded with, and what a step on line lowers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ragkit.losses.group_relative import clipped_share, group_advantages, group_relative_loss


@dataclass
class Groups:
    """Answers that have a reward, N in all, to G prompts. `rewards`: by name, of each answer, weighted."""

    prompts: list[list[int]] = field(default_factory=list)
    answers: list[list[list[int]]] = field(default_factory=list)
    rewards: list[Tensor] = field(default_factory=list)  # (K, names) each, K ≥ 1
    truncated: list[bool] = field(default_factory=list)  # (N,)

    @cached_property
    def lengths(self) -> Tensor:
        return torch.tensor([len(ids) for answers in self.answers for ids in answers])

    def facts(self, log_ratio: Tensor, names: Sequence[str]) -> dict[str, float]:
        """What is logged of them. `log_ratio`: (N, T), log π_θ/π_ref of each token."""
        by_name = torch.cat(self.rewards).mean(0)
        spreads = torch.stack([rewards.sum(1).std(correction=0) for rewards in self.rewards])
        found = {"reward": by_name.sum().item()}
        if len(names) > 1:
            found |= {f"reward/{name}": value for name, value in zip(names, by_name.tolist())}
        return found | {
            "spread": spreads.mean().item(),
            "without_spread": (spreads == 0).double().mean().item(),
            "kl": log_ratio.sum(1).mean().item(),
            "length": self.lengths.double().mean().item(),
            "truncated": float(np.mean(self.truncated)),
        }


@dataclass(frozen=True)
class GroupObjective:
    """What a step lowers. Raises ValueError for settings that there are not."""

    kl: float
    clip: tuple[float, float]
    ratio: str
    scale: str
    aggregation: str
    mask_truncated: bool
    max_new_tokens: int

    def __post_init__(self):
        one = Groups([[0]], [[[0], [0]]], [torch.zeros(2, 1)], [False, False])
        self.loss(one, *torch.zeros(3, 2, 1))

    def loss(self, groups: Groups, now: Tensor, old: Tensor, ref: Tensor) -> Tensor:
        """Log-probs: (N, T), 0 where an answer is over."""
        return group_relative_loss(
            now,
            old,
            ref,
            *self._moved(groups),
            clip=self.clip,
            kl=self.kl,
            ratio=self.ratio,
            aggregation=self.aggregation,
            max_length=self.max_new_tokens if self.aggregation == "dr_grpo" else None,
            empty_rows=True,
        )

    def clipped(self, groups: Groups, now: Tensor, old: Tensor) -> float:
        return clipped_share(now, old, *self._moved(groups), clip=self.clip, ratio=self.ratio)

    def _moved(self, groups: Groups) -> tuple[Tensor, Tensor]:
        """Which tokens move the policy, (N, T), and the answers' advantages, (N,)."""
        mask = torch.arange(groups.lengths.max()) < groups.lengths[:, None]
        if self.mask_truncated:
            mask &= ~torch.tensor(groups.truncated)[:, None]
        totals = [rewards.sum(1)[None] for rewards in groups.rewards]
        return mask, torch.cat([group_advantages(one, scale=self.scale)[0] for one in totals]).float()
