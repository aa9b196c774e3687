"""Strengths, weights and offsets: functions (pairs, scores) → (P,), for whichever knob of `pair_loss`.

Each factory makes one: `rank_gap(scale=0.5)`. `scores`: the current scores of the two sides, (P, 2), for
those that look at them. Any callable of this signature will do, in three lines:

    def by_length(pairs, scores=None):
        gaps = [abs(len(a) - len(b)) for a, b in zip(pairs.chosen, pairs.rejected)]
        return torch.tensor(gaps) / 100

One that looks at scores says so, `by_score.needs_scores = True`: then a fit calls it anew as they change.
Those here raise ValueError, with the pair, where it lacks what they look at.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ragkit.losses.group_relative import group_advantages
from ragkit.preferences.pairs import Pairs

Strength = Callable[[Pairs, Tensor | None], Tensor]
TIE = 0.1  # a tie has no gap and would get no gradient, so it keeps a strength of its own

# Strengths h


def constant(value: float = 0.1) -> Strength:
    """The same for every pair: as a strength, DPO's β (arXiv 2305.18290)."""
    return lambda pairs, scores=None: torch.full((len(pairs),), float(value))


def rank_gap(scale: float = 1.0, tie: float = TIE) -> Strength:
    """scale · (rank of y⁻ − rank of y⁺): first against third is twice first against second."""

    def strength(pairs: Pairs, scores: Tensor | None = None) -> Tensor:
        return _gap(pairs, pairs.rejected_rank - pairs.chosen_rank, "ranks", scale, tie)

    return strength


def stated(scale: float = 1.0, tie: float = TIE) -> Strength:
    """scale · the person's own words: 1 slightly, 2 clearly, 3 much better."""
    return lambda pairs, scores=None: _gap(pairs, pairs.rating, "ratings", scale, tie)


def reward_gap(reward: Callable[[str, str], float] | None = None, scale: float = 1.0) -> Strength:
    """scale · (R(x, y⁺) − R(x, y⁻)), by the pairs' own rewards, a reward model, or any function of two texts.

    With it the loss ignores which of the two was preferred: swapping a pair turns the signs of both h and Δ.
    """

    def strength(pairs: Pairs, scores: Tensor | None = None) -> Tensor:
        if reward is None:
            return _gap(pairs, pairs.chosen_reward - pairs.rejected_reward, "rewards", scale, None)
        both = zip(pairs.query, pairs.chosen, pairs.rejected)
        gaps = np.array([reward(query, chosen) - reward(query, rejected) for query, chosen, rejected in both])
        return _gap(pairs, gaps, "rewards", scale, None)

    return strength


def advantage(scale: float = 1.0) -> Strength:
    """scale · (Â⁺ − Â⁻), the advantages of `group_advantages` among the answers of the pairs' group.

    Of a group of two, that is 2 for any gap (population form): a constant. Use it with three answers or more.
    """

    def strength(pairs: Pairs, scores: Tensor | None = None) -> Tensor:
        both = _known(np.stack([pairs.chosen_reward, pairs.rejected_reward], 1), "rewards").T  # (2, P)
        texts = np.array([pairs.chosen, pairs.rejected], dtype=object)
        gaps = np.zeros(len(pairs))
        for group in np.unique(pairs.group):
            rows = np.flatnonzero(pairs.group == group)
            rewards = dict(zip(texts[:, rows].flat, both[:, rows].flat))
            if len(rewards) > 1:
                found = group_advantages(torch.tensor([list(rewards.values())], dtype=torch.float64))
                of = dict(zip(rewards, found[0].tolist()))
                gaps[rows] = [of[pairs.chosen[row]] - of[pairs.rejected[row]] for row in rows]
        return scale * torch.tensor(gaps, dtype=torch.float32)

    return strength


def learned(reliability: Mapping[str, float]) -> Strength:
    """A reliability for each annotator, as fitted elsewhere (the reranker does): whom to believe how much."""

    def strength(pairs: Pairs, scores: Tensor | None = None) -> Tensor:
        if missing := sorted(set(pairs.annotator) - set(reliability)):
            raise ValueError(f"no reliability for annotator {missing[0]!r}: known are {sorted(reliability)}")
        return torch.tensor([reliability[name] for name in pairs.annotator], dtype=torch.float32)

    return strength


# Weights w


def per_query() -> Strength:
    """1 / (number of the query's pairs), of mean 1: long lists don't outvote short ones."""

    def weight(pairs: Pairs, scores: Tensor | None = None) -> Tensor:
        _, inverse, counts = np.unique(pairs.group, return_inverse=True, return_counts=True)
        return _of_mean_1(1.0 / counts[inverse])

    return weight


def delta_ndcg() -> Strength:
    """|ΔnDCG|: how much nDCG would change if the two swapped places in the present order: LambdaRank's
    weight, in LiPO-λ (arXiv 2402.01878) too. Needs `scores` as they are now: call it each step.

    Gain is the grade, or where there are none 2^(−rank); the discount is 1 / log2(1 + place). Each judgement
    (`Pairs.judgement`) has its own gains: of two who rank one list, neither changes the other's weights.
    """

    def weight(pairs: Pairs, scores: Tensor | None = None) -> Tensor:
        if scores is None or scores.shape != (len(pairs), 2):
            found = None if scores is None else tuple(scores.shape)
            raise ValueError(f"delta_ndcg needs the current scores, ({len(pairs)}, 2); it got {found}")
        scores = _known(scores.detach().cpu().double().numpy(), "current scores")
        gains = np.stack([pairs.chosen_grade, pairs.rejected_grade], 1)
        if np.isnan(gains).all():
            gains = 2.0 ** -np.stack([pairs.chosen_rank, pairs.rejected_rank], 1)
        gains = _known(gains, "grades or ranks")
        texts = np.array([pairs.chosen, pairs.rejected], dtype=object).T
        weights = np.zeros(len(pairs))
        for judgement in np.unique(pairs.judgement):
            rows = np.flatnonzero(pairs.judgement == judgement)
            now = dict(zip(texts[rows].flat, scores[rows].flat))
            gain = dict(zip(texts[rows].flat, gains[rows].flat))
            order = sorted(now, key=lambda text: -now[text])
            discount = {text: 1 / np.log2(2 + place) for place, text in enumerate(order)}
            best = sum(g * d for g, d in zip(sorted(gain.values(), reverse=True), discount.values()))
            for row in rows:
                a, b = texts[row]
                weights[row] = abs((gain[a] - gain[b]) * (discount[a] - discount[b])) / (best or 1.0)
        return torch.tensor(weights, dtype=torch.float32)

    weight.needs_scores = True
    return weight


def inverse_propensity(propensity: Callable[[int], float], clip: float = 10.0) -> Strength:
    """1 / (probability that y⁺ was looked at where it was shown), clipped, of mean 1 (arXiv 1608.04468).

    For clicks, where what is shown low is seldom seen; complete rankings have no such bias.
    """

    def weight(pairs: Pairs, scores: Tensor | None = None) -> Tensor:
        positions = _known(pairs.chosen_position, "positions")
        seen = np.array([propensity(int(position)) for position in positions], dtype=float)
        if not ((seen > 0) & (seen <= 1)).all():
            row = int(np.flatnonzero(~((seen > 0) & (seen <= 1)))[0])
            raise ValueError(f"pair {row}: a propensity of {seen[row]:g}; it must be above 0, at most 1")
        return _of_mean_1(np.minimum(1.0 / seen, clip))

    return weight


# Offsets m


def target_gap(scale: float = 1.0) -> Strength:
    """scale · log(R⁺ − R⁻), arXiv 2402.10571: the wider the gap in reward, the farther apart they end."""

    def offset(pairs: Pairs, scores: Tensor | None = None) -> Tensor:
        gap = _known(pairs.chosen_reward - pairs.rejected_reward, "rewards")
        if (gap <= 0).any():
            row = int(np.flatnonzero(gap <= 0)[0])
            raise ValueError(f"pair {row}: the reward of y⁺ is not above that of y⁻ ({gap[row]:+g}): no log")
        return scale * torch.tensor(np.log(gap), dtype=torch.float32)

    return offset


def shown_position(size: Tensor | float = 0.0) -> Strength:
    """size · (position of y⁺ − position of y⁻): what was shown first is preferred a little. `size` can be a
    parameter with a gradient: then it is fitted with the model."""

    def offset(pairs: Pairs, scores: Tensor | None = None) -> Tensor:
        gap = _known(pairs.chosen_position, "positions") - _known(pairs.rejected_position, "positions")
        return size * torch.tensor(gap, dtype=torch.float32)

    return offset


def _known(column: np.ndarray, name: str) -> np.ndarray:
    column = np.asarray(column, dtype=float)
    if not np.isfinite(column).all():
        row = int(np.argwhere(~np.isfinite(column))[0][0])
        raise ValueError(f"pair {row} has no {name} (or no finite ones), which this strength needs")
    return column


def _gap(pairs: Pairs, gap: np.ndarray, name: str, scale: float, tie: float | None) -> Tensor:
    """scale · gap, and `tie` where the target is 0.5 and a gap would be none."""
    gap = scale * np.asarray(gap, dtype=float)
    if tie is not None:
        gap = np.where(pairs.target == 0.5, tie, gap)
    return torch.tensor(_known(gap, name), dtype=torch.float32)


def _of_mean_1(weights: np.ndarray) -> Tensor:
    return torch.tensor(weights / weights.mean() if len(weights) else weights, dtype=torch.float32)
