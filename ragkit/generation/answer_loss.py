"""What a step of tuning lowers: a loss by name, of answers that were judged."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ragkit.generation.judged_answers import JudgedAnswers
from ragkit.generation.training_run import held_out_queries
from ragkit.losses.pairwise import finite_number, ipo_loss, pair_loss, plackett_luce_loss, preference_metrics
from ragkit.losses.strengths import Strength, stated
from ragkit.losses.unpaired import kto_loss

PAIRWISE = ("grpo", "dpo", "ipo")
LOSSES = (*PAIRWISE, "plackett_luce", "kto")
# SimPO (arXiv 2405.14734): the mean log-prob of a token, no reference, and a margin to reach, γ = offset.
SIMPO = {"loss": "dpo", "beta": 2.0, "offset": 1.0, "reference": False, "normalise": True}


@dataclass(frozen=True)
class AnswerLoss:
    """`loss` is one of

    - "grpo": −log σ(h·Δ − offset), h from `strength`; "dpo" (arXiv 2305.18290): the same, h = `beta`
    - "ipo" (arXiv 2310.12036): (Δ − 1/(2·`beta`))², on log-probs averaged over tokens
    - "plackett_luce" (arXiv 2305.18290, appendix A.3): all answers to a question that were ranked, at once
    - "kto" (arXiv 2402.01306): single answers, good or not: thumbs, and both sides of pairs

    `strength`: a function of pairs, as in `losses/strengths.py`, or "stated": `beta` times 1 for "slightly",
    2 for "clearly", 3 for "much better", and for a tie `beta`. `normalise`: log-probs a token instead
    of an answer, so that length by itself is no advantage. `reference`: without one, log π_θ stands where
    log π_θ − log π_ref does (see `SIMPO`). `supervised`: so many times the mean −log π_θ of the tokens of the
    better answers is added, which keeps them likely while the margin grows. `offset`: a number, or a function
    of pairs as a strength is: −α·(length of chosen − length of rejected) takes out of the margin what length
    explains (R-DPO, arXiv 2403.19159). Raises ValueError for another loss or strength, for β that is not
    above 0, and for what a loss does not have.
    """

    loss: str = "grpo"
    strength: Strength | str = "stated"
    beta: float = 0.1
    offset: Strength | float = 0.0
    normalise: bool = False
    reference: bool = True
    supervised: float = 0.0

    def __post_init__(self):
        if self.loss not in LOSSES:
            raise ValueError(f"loss={self.loss!r}: one of {', '.join(LOSSES)}")
        if isinstance(self.strength, str) and self.strength != "stated":
            raise ValueError(f'strength={self.strength!r}: a function of pairs, or "stated"')
        if not finite_number("beta", self.beta) > 0:
            raise ValueError(f"beta={self.beta}: more than 0")
        if not finite_number("supervised", self.supervised) >= 0:
            raise ValueError(f"supervised={self.supervised}: 0 or more")
        none = not callable(self.offset) and not finite_number("offset", self.offset)
        if self.loss not in ("grpo", "dpo") and not none:
            raise ValueError(f"offset={self.offset}: loss={self.loss!r} has none; use grpo or dpo")
        if self.loss == "kto" and not self.reference:
            raise ValueError("reference=False: kto counts gains and losses from one")

    def seen(self, log_probs: Tensor, lengths: Tensor) -> Tensor:
        """(N,): log-probs of answers as this loss takes them."""
        return log_probs / lengths if self.normalise or self.loss == "ipo" else log_probs


class Examples:
    """Judged answers in the form that one loss takes.

    The N answers are numbered through, prompt by prompt; each row of what was said belongs to a prompt. For
    "kto", each prompt has one more answer, last, which was given to another query. `usable`: the prompts of
    which something is said that the loss can use. Raises ValueError where there are none.
    """

    def __init__(self, sheet: JudgedAnswers, objective: AnswerLoss, window: int):
        self.objective, self.queries, self.prompts = objective, sheet.queries, sheet.prompts
        self.answers = [[*answers] for answers in sheet.answers]
        if objective.loss == "kto":
            for place, query in enumerate(sheet.queries):
                turned = [*range(place + 1, len(sheet.queries)), *range(place)]
                other = next((one for one in turned if sheet.queries[one] != query), place)
                room = window - len(self.prompts[place])
                self.answers[place].append(sheet.answers[other][0][:room])
        counts = [len(answers) for answers in self.answers]
        self.first = np.concatenate([[0], np.cumsum(counts)])
        self.lengths = torch.tensor([len(ids) for answers in self.answers for ids in answers])
        self.pair_prompts = sheet.pair_places[:, 0]
        self.pair_sides = torch.from_numpy(sheet.pair_places[:, 1:] + self.first[self.pair_prompts, None])
        self.pairs, self.lists, self.labels = sheet.pairs, sheet.lists, sheet.labels
        self.target = torch.from_numpy(sheet.pairs.target)
        if objective.loss in PAIRWISE:
            self.usable = set(self.pair_prompts.tolist())
            self.strength = self._strength(objective) if objective.loss == "grpo" else None
            self.offset = torch.zeros(len(self.pairs)) + (
                objective.offset(self.pairs, None) if callable(objective.offset) else objective.offset
            )
        else:
            rows = self.lists if objective.loss == "plackett_luce" else self.labels
            self.usable = {row[0] for row in rows}
        if not self.usable:
            wanted = "no thumb and no pair" if objective.loss == "kto" else "no two answers to compare"
            raise ValueError(f"loss={objective.loss!r} has nothing to learn from: {wanted}")

    def _strength(self, objective: AnswerLoss) -> Tensor:
        if objective.strength != "stated":
            return objective.strength(self.pairs, None)
        if unsaid := np.isnan(self.pairs.rating[self.pairs.target != 0.5]).sum():
            raise ValueError(
                f"strength='stated': of {len(self.pairs)} pairs {unsaid} come with no such words (thumbs and "
                "rankings have none); use loss='dpo', or another strength: constant(0.1), rank_gap(0.1)"
            )
        return stated(objective.beta, tie=objective.beta)(self.pairs, None)

    def split(self, held_out: float, seed: int) -> tuple[list[int], list[int]]:
        """(train, held out): usable prompts; all that was said on a query is on one side."""
        out = held_out_queries([self.queries[place] for place in self.usable], held_out, seed)
        sides = [], []
        for place in sorted(self.usable):
            sides[self.queries[place] in out].append(place)
        return sides

    def numbers(self, places: Collection[int]) -> Tensor:
        """The numbers of all answers to these prompts, in order."""
        numbers = [n for place in places for n in range(*self.first[place : place + 2])]
        return torch.tensor(numbers, dtype=torch.long)

    def tokens(self, place: int) -> int:
        """How many a model reads of this prompt and all answers to it."""
        return len(self.prompts[place]) + sum(map(len, self.answers[place]))

    def said(self) -> list:
        """All that is learnt from, and how, in a form that can be compared."""
        settings = [value for value in vars(self.objective).values() if not callable(value)]
        facts = [settings, self.prompts, self.answers, self.lists, self.labels]
        if self.objective.loss in PAIRWISE:
            facts += [self.pair_sides.tolist(), self.target.tolist(), self.offset.tolist()]
            facts += [] if self.strength is None else [self.strength.tolist()]
        return facts

    def loss(self, places: Collection[int], log_probs: Tensor, ref: Tensor) -> Tensor:
        """The loss of what was said on the prompts at `places`. `log_probs`, `ref`: (N,), whole."""
        o, places = self.objective, set(places)
        x = o.seen(log_probs - ref if o.reference else log_probs, self.lengths)
        if o.loss in PAIRWISE:
            rows = np.flatnonzero([prompt in places for prompt in self.pair_prompts])
            chosen, rejected = self.pair_sides[rows].T
            target = self.target[rows]
            delta = x[chosen] - x[rejected]
            if o.loss == "ipo":
                loss = ipo_loss(delta, o.beta, target=target)
            else:
                strength = self.strength[rows] if o.loss == "grpo" else o.beta
                loss = pair_loss(delta, strength=strength, offset=self.offset[rows], target=target)
            better = chosen[target > 0.5]
        elif o.loss == "plackett_luce":
            lists = [one for one in self.lists if one[0] in places]
            numbers = [torch.tensor(answers) + self.first[prompt] for prompt, answers, _ in lists]
            tiers = pad_sequence([torch.tensor(tiers) for *_, tiers in lists], True, -1)
            rows = pad_sequence(numbers, True, 0)
            loss = plackett_luce_loss(x[rows], tiers, tiers >= 0, beta=o.beta)
            better = rows[(tiers == 0) & (tiers.amax(1, keepdim=True) > 0)]
        else:
            numbers, good = self._labels(places)
            others = torch.tensor([self.first[place + 1] - 1 for place in places])
            loss = kto_loss(x[numbers], good, x[others].mean(), beta=o.beta)
            better = numbers[good]
        if o.supervised and len(better):
            loss = loss - o.supervised * log_probs[better].sum() / self.lengths[better].sum()
        return loss

    def metrics(self, places: Collection[int], log_probs: Tensor, ref: Tensor) -> dict[str, float]:
        """`preference_metrics` of these prompts' pairs; without any, of each good answer with each other.

        Rewards are of log-probs as the loss sees them, "logps/…" those of whole answers.
        """
        o, rows = self.objective, np.flatnonzero([prompt in places for prompt in self.pair_prompts])
        strict = rows[self.pairs.target[rows] > 0.5]
        chosen, rejected = self.pair_sides[strict].T
        beta = self.strength[strict] if o.loss == "grpo" else o.beta
        if not len(strict) and o.loss == "kto":
            numbers, good = self._labels(places)
            chosen, rejected = torch.cartesian_prod(numbers[good], numbers[~good]).reshape(-1, 2).T
        now = o.seen(log_probs, self.lengths)
        before = o.seen(ref, self.lengths) if o.reference else torch.zeros_like(ref)
        found = preference_metrics(now[chosen], now[rejected], before[chosen], before[rejected], beta)
        whole = {"logps/chosen": log_probs[chosen], "logps/rejected": log_probs[rejected]}
        return found | {name: value.mean().item() for name, value in whole.items()}

    def _labels(self, places: Collection[int]) -> tuple[Tensor, Tensor]:
        labels = [one for one in self.labels if one[0] in places]
        numbers = torch.tensor([self.first[prompt] + answer for prompt, answer, _ in labels])
        return numbers, torch.tensor([good for *_, good in labels])
