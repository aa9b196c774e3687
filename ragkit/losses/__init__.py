"""Preference losses, the strengths that they take, and the log-probabilities that they look at."""

from ragkit.losses.group_relative import clipped_share, group_advantages, group_relative_loss
from ragkit.losses.log_probs import answers_log_probs, completion_log_probs
from ragkit.losses.pairwise import (
    dpo_loss,
    gpo_loss,
    grpo_loss,
    ipo_loss,
    margin,
    offset_dpo_loss,
    pair_loss,
    plackett_luce_loss,
    preference_metrics,
    robust_dpo_loss,
)
from ragkit.losses.strengths import (
    advantage,
    constant,
    delta_ndcg,
    inverse_propensity,
    learned,
    per_query,
    rank_gap,
    reward_gap,
    shown_position,
    stated,
    target_gap,
)
from ragkit.losses.unpaired import kto_loss

__all__ = [
    "StrengthDPOTrainer",
    "advantage",
    "answers_log_probs",
    "clipped_share",
    "completion_log_probs",
    "constant",
    "delta_ndcg",
    "dpo_loss",
    "gpo_loss",
    "group_advantages",
    "group_relative_loss",
    "grpo_loss",
    "inverse_propensity",
    "ipo_loss",
    "kto_loss",
    "learned",
    "margin",
    "offset_dpo_loss",
    "pair_loss",
    "per_query",
    "plackett_luce_loss",
    "preference_metrics",
    "rank_gap",
    "reward_function",
    "reward_gap",
    "robust_dpo_loss",
    "shown_position",
    "stated",
    "target_gap",
]


def __getattr__(name: str):
    if name in ("StrengthDPOTrainer", "reward_function"):  # TRL takes seconds to import
        from ragkit.losses import trl

        return getattr(trl, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
