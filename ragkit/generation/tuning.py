"""Tune a generator on what people prefer: the losses that order documents also change how a model writes.

    tuned = tune(generator, log.comparisons())
    tuned.generator.answer(query, hits)
"""

import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ragkit.generation.generator import Generator
from ragkit.generation.judged_answers import Hits, JudgedAnswers, judged_answers
from ragkit.generation.policy import Policy
from ragkit.losses.pairwise import finite_number, ipo_loss, pair_loss, plackett_luce_loss
from ragkit.losses.strengths import Strength, stated
from ragkit.losses.unpaired import kto_loss
from ragkit.preferences.judgements import Comparison, Feedback, Ranking
from ragkit.preferences.pairs import Pairs

LOSSES = ("grpo", "dpo", "ipo", "plackett_luce", "kto")
# SimPO (arXiv 2405.14734): the mean log-prob of a token, no reference, and a margin to reach, γ = offset.
SIMPO = {"loss": "dpo", "beta": 2.0, "offset": 1.0, "reference": False, "normalise": True}


@dataclass(frozen=True)
class Objective:
    """What a step lowers. `loss` is one of

    - "grpo": −log σ(h·Δ − offset), h from `strength`; "dpo" (arXiv 2305.18290): the same, h = `beta`
    - "ipo" (arXiv 2310.12036): (Δ − 1/(2·`beta`))², on log-probs averaged over tokens
    - "plackett_luce" (arXiv 2305.18290, appendix A.3): all answers to a question that were ranked, at once
    - "kto" (arXiv 2402.01306): single answers, liked or not: thumbs, and both sides of pairs

    `normalise`: log-probs a token instead of an answer, so that length by itself is no advantage.
    `reference`: without one, log π_θ stands where log π_θ − log π_ref does (see `SIMPO`). `supervised`: so
    many times the mean −log π_θ of the tokens of the better answers is added, which keeps that from rising
    while the margin grows. Raises ValueError for other losses, and β that is not above 0.
    """

    loss: str = "grpo"
    strength: Strength = field(default_factory=stated)
    beta: float = 0.1
    offset: float = 0.0
    normalise: bool = False
    reference: bool = True
    supervised: float = 0.0

    def __post_init__(self):
        if self.loss not in LOSSES:
            raise ValueError(f"loss={self.loss!r}: one of {', '.join(LOSSES)}")
        if not finite_number("beta", self.beta) > 0:
            raise ValueError(f"beta={self.beta}: more than 0")
        if not finite_number("supervised", self.supervised) >= 0:
            raise ValueError(f"supervised={self.supervised}: 0 or more")

    def ratios(self, log_probs: Tensor, ref: Tensor, lengths: Tensor) -> Tensor:
        """(N,): what the loss sees of each answer."""
        x = log_probs - ref if self.reference else log_probs
        return x / lengths if self.normalise or self.loss == "ipo" else x


class Tuned:
    """`generator`: the tuned one. `log`: one dict each time that the held-out answers were looked at.

    `kept_base`: nothing was better on them than the model as it was, so `generator` answers as before.
    """
