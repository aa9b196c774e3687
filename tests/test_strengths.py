"""Strengths, weights and offsets by hand, and the table of pairs that they look at."""

import math

import numpy as np
import pytest
import torch

from ragkit import strengths
from ragkit.losses.pairwise import pair_loss
from ragkit.preferences.judgements import Ranking
from ragkit.preferences.pairs import Pairs, pairs_of
from ragkit.retrieval.corpus import Passage

close = torch.testing.assert_close


def pairs(**columns):
    """Two queries: q has a ranking c1 > c2 > c3 (three pairs), r one pair."""
    rows = {
        "query": ["q", "q", "q", "r"],
        "chosen": ["c1", "c1", "c2", "d1"],
        "rejected": ["c2", "c3", "c3", "d2"],
        "chosen_rank": [0, 0, 1, 0],
        "rejected_rank": [1, 2, 2, 1],
        "chosen_position": [2, 2, 0, 1],
        "rejected_position": [0, 1, 1, 0],
        "rating": [1, 3, 2, 2],
        "chosen_reward": [0.9, 0.9, 0.5, 0.2],
        "rejected_reward": [0.5, 0.1, 0.1, 0.1],
        "annotator": ["ann", "ann", "bob", "bob"],
    }
    return Pairs(**{**rows, **columns})


def test_constant_is_dpo():
    close(strengths.constant(0.1)(pairs()), torch.full((4,), 0.1))


def test_rank_gap():
    close(strengths.rank_gap(scale=0.5)(pairs()), torch.tensor([0.5, 1.0, 0.5, 0.5]))


def test_stated():
    close(strengths.stated(scale=0.1)(pairs()), torch.tensor([0.1, 0.3, 0.2, 0.2]))


@pytest.mark.parametrize("make", [strengths.rank_gap, strengths.stated])
def test_a_tie_keeps_a_strength_of_its_own(make):
    """Its rank gap and rating are 0: with h = 0 it would never pull the two together."""
    tied = pairs(target=[0.5, 1, 1, 1], rejected_rank=[0, 2, 2, 1], rating=[0, 3, 2, 2])
    h = make(scale=2.0, tie=0.3)(tied)
    assert h[0].item() == pytest.approx(0.3)
    x = torch.full((4,), 1.0, requires_grad=True)
    pair_loss(x, strength=h, target=torch.tensor(tied.target, dtype=torch.float32)).backward()
    assert x.grad[0] > 0  # pulled down, towards 0


def test_reward_gap_from_the_table_and_from_a_function():
    close(strengths.reward_gap(scale=2.0)(pairs()), torch.tensor([0.8, 1.6, 0.8, 0.2]))
    close(
        strengths.reward_gap(lambda query, text: float(text[1]))(pairs()),
        torch.tensor([-1.0, -2.0, -1.0, -1.0]),
    )


def test_advantage_of_three_and_of_two_answers():
    """q: rewards .9, .5, .1, population std 0.326599: gaps .4 and .8 are 1.224745 and 2.449490. r has two
    answers: 2, whatever their gap."""
    close(
        strengths.advantage()(pairs()), torch.tensor([1.224745, 2.449490, 1.224745, 2.0]), atol=1e-5, rtol=0
    )


def test_equal_rewards_have_no_advantage():
    flat = pairs(chosen_reward=[0.3] * 4, rejected_reward=[0.3] * 4)
    close(strengths.advantage()(flat), torch.zeros(4))


def test_learned_reliability():
    close(strengths.learned({"ann": 1.5, "bob": 0.2})(pairs()), torch.tensor([1.5, 1.5, 0.2, 0.2]))
    with pytest.raises(ValueError, match="annotator 'bob'"):
        strengths.learned({"ann": 1.5})(pairs())


def test_per_query_gives_each_query_the_same_say():
    """Three pairs at 1/3, one at 1: times 2, so that the mean is 1."""
    weights = strengths.per_query()(pairs())
    close(weights, torch.tensor([2 / 3, 2 / 3, 2 / 3, 2.0]))


def test_delta_ndcg_by_hand():
    """q in the present order c3, c2, c1 (scores 3, 2, 1) with grades c1 2, c2 1, c3 0: discounts 1, .63093,
    .5; the best is 2 + .63093 = 2.63093. |ΔnDCG|: (c1, c2) 1 · .13093 / 2.63093; (c1, c3) 2 · .5; (c2, c3) 1
    · .36907."""
    graded = pairs(chosen_grade=[2, 2, 1, 1], rejected_grade=[1, 0, 0, 0], annotator="ann")
    scores = torch.tensor([[1.0, 2.0], [1.0, 3.0], [2.0, 3.0], [5.0, 4.0]])
    found = strengths.delta_ndcg()(graded, scores)
    wanted = torch.tensor([0.13093 / 2.63093, 1.0 / 2.63093, 0.36907 / 2.63093, 0.36907])
    close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("others", [["bob"], ["ann"], ["bob", "ann", "cid"]])
def test_delta_ndcg_takes_each_rankings_own_gains(others):
    """Whoever else ranks the list otherwise, or the same person on another day."""
    passages = [Passage(name, name) for name in "abcd"]
    first = Ranking("q", passages, [[3], [0, 2], [1]], annotator="ann")
    rest = [Ranking("q", passages, [[1], [2], [n % 2 * 3], [3 - n % 2 * 3]], annotator=name)
            for n, name in enumerate(others)]  # fmt: skip
    together = pairs_of([first, *rest])

    def scores(table):
        return torch.tensor([list(map(ord, sides)) for sides in zip(table.chosen, table.rejected)])

    found = strengths.delta_ndcg()(together, scores(together))
    each = [strengths.delta_ndcg()(one, scores(one)) for one in map(pairs_of, ([r] for r in [first, *rest]))]
    close(found, torch.cat(each))
    by_hand = Pairs(**{n: getattr(together, n) for n in ("query", "chosen", "rejected", "annotator")},
                    chosen_rank=together.chosen_rank, rejected_rank=together.rejected_rank)  # fmt: skip
    if others == ["bob"]:  # without numbers, what one annotator said on a query is one judgement
        close(strengths.delta_ndcg()(by_hand, scores(together)), found)


def test_a_spread_of_the_size_of_rounding_is_no_advantage():
    """Rewards summed in another order: 0.7 + 0.1 is 0.7999999999999999. A real gap keeps its size."""
    equal = pairs(chosen_reward=[0.8, 0.8, 0.7 + 0.1, 0.2], rejected_reward=[0.7 + 0.1, 0.8, 0.8, 0.1])
    close(strengths.advantage()(equal), torch.tensor([0.0, 0.0, 0.0, 2.0]))


def test_delta_ndcg_needs_scores():
    with pytest.raises(ValueError, match=r"\(4, 2\); it got None"):
        strengths.delta_ndcg()(pairs())
    with pytest.raises(ValueError, match="pair 2 has no current scores"):  # NaN has no place in an order
        strengths.delta_ndcg()(pairs(), torch.zeros(4, 2).index_fill(0, torch.tensor([2]), math.nan))


def test_inverse_propensity_is_clipped_and_of_mean_1():
    """Positions 2, 2, 0, 1 seen with 1/(1 + position)²: 9, 9, 1, 4, clipped at 5: 5, 5, 1, 4, over 3.75."""
    found = strengths.inverse_propensity(lambda position: 1 / (1 + position) ** 2, clip=5.0)(pairs())
    close(found, torch.tensor([5.0, 5.0, 1.0, 4.0]) / 3.75)
    with pytest.raises(ValueError, match="pair 2: a propensity of 0"):
        strengths.inverse_propensity(lambda position: position / 2)(pairs())


def test_target_gap():
    close(strengths.target_gap(scale=2.0)(pairs())[0], torch.tensor(2 * math.log(0.4)))
    with pytest.raises(ValueError, match=r"pair 3: the reward of y⁺ is not above that of y⁻ \(-0.1\)"):
        strengths.target_gap()(pairs(rejected_reward=[0.5, 0.1, 0.1, 0.3]))


def test_shown_position_can_be_fitted():
    size = torch.tensor(0.3, requires_grad=True)
    offset = strengths.shown_position(size)(pairs())
    close(offset, 0.3 * torch.tensor([2.0, 1.0, -1.0, 1.0]))
    pair_loss(torch.zeros(4), offset=offset).backward()
    assert size.grad is not None


@pytest.mark.parametrize(
    "strength, column",
    [
        (strengths.rank_gap(), "rejected_rank"),
        (strengths.stated(), "rating"),
        (strengths.reward_gap(), "chosen_reward"),
        (strengths.advantage(), "chosen_reward"),
        (strengths.target_gap(), "chosen_reward"),
        (strengths.shown_position(), "chosen_position"),
        (strengths.inverse_propensity(lambda position: 1.0), "chosen_position"),
    ],
)
def test_what_is_not_known_is_an_error_with_the_pair(strength, column):
    broken = pairs()
    getattr(broken, column)[1] = np.nan
    with pytest.raises(ValueError, match="pair 1 has no "):
        strength(broken)


def test_a_scoring_function_of_ones_own_fits_any_knob():
    def by_length(pairs, scores=None):
        return torch.tensor([abs(len(a) - len(b)) for a, b in zip(pairs.chosen, pairs.rejected)]) / 10

    knob = by_length(pairs(rejected=["longer", "c3", "c3", "d2"]))
    for name in ("strength", "weight", "offset"):
        assert pair_loss(torch.zeros(4), **{name: knob}).isfinite()


def test_pairs_fill_what_is_not_given():
    table = Pairs(query=["b", "a", "b"], chosen=["x"] * 3, rejected=["y"] * 3)
    assert table.group.tolist() == [0, 1, 0] and table.target.tolist() == [1.0] * 3
    assert np.isnan(table.rating).all() and table.annotator == [""] * 3 and len(table) == 3


def test_pairs_can_be_cut():
    table = pairs()
    for rows in (slice(1, 3), np.array([False, True, True, False]), [1, 2]):
        part = table[rows]
        assert (
            part.rejected == ["c3", "c3"] and part.rating.tolist() == [3, 2] and part.group.tolist() == [0, 0]
        )
    with pytest.raises(TypeError, match="take rows by a slice"):
        table[1]


def test_pairs_refuse_columns_of_another_length_and_targets_that_are_no_probabilities():
    with pytest.raises(ValueError, match="rating has 2 rows, query has 4"):
        pairs(rating=[1, 2])
    with pytest.raises(ValueError, match=r"pair 2: target 1\.5"):
        pairs(target=[1, 1, 1.5, 1])
