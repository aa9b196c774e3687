"""What must hold of the losses for any numbers: properties, with examples chosen by hypothesis."""

import math

import pytest
import torch

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as some

from ragkit.losses.group_relative import group_advantages, group_relative_loss
from ragkit.losses.pairwise import dpo_loss, gpo_loss, grpo_loss, pair_loss, plackett_luce_loss

close = torch.testing.assert_close
number = some.floats(-50, 50)
positive = some.floats(0.01, 10)
settings.register_profile("ragkit", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("ragkit")


def row(values):
    return torch.tensor(values, dtype=torch.float64)


columns = some.lists(number, min_size=1, max_size=6).map(row)


@given(columns, positive)
def test_a_constant_strength_is_dpo(x, beta):
    close(grpo_loss(x, torch.full_like(x, beta)), dpo_loss(x, beta))
    close(grpo_loss(x, beta), gpo_loss(x, beta, "logistic"))


@given(columns, number)
def test_swapping_the_pair_is_negating_h(x, h):
    close(grpo_loss(-x, h, reduction="none"), grpo_loss(x, -h, reduction="none"))


@given(columns, number, some.floats(0, 1))
def test_swapping_the_pair_is_the_other_target(x, m, p):
    one = pair_loss(x, strength=0.7, offset=m, target=p, reduction="none")
    close(one, pair_loss(-x, strength=0.7, offset=-m, target=1 - p, reduction="none"))


@given(number, some.floats(0, 1))
def test_at_a_margin_of_0_every_strength_costs_log_2(h, p):
    assert pair_loss(row([0.0]), strength=h, target=p).item() == pytest.approx(math.log(2), abs=1e-12)


@given(some.floats(0.02, 0.98), positive, some.floats(-3, 3), positive)
def test_the_optimum_is_m_plus_logit_p_over_h_whatever_the_weight(p, h, m, w):
    x = row([(m + math.log(p / (1 - p))) / h]).requires_grad_()
    pair_loss(x, strength=h, offset=m, target=p, weight=w).backward()
    assert abs(x.grad.item()) < 1e-9 * max(1, h * w)


@given(some.lists(number, min_size=2, max_size=6), some.randoms(use_true_random=False))
def test_a_ranking_does_not_depend_on_the_order_of_columns_or_on_a_constant(values, rng):
    ratios, tiers = row([values]), torch.tensor([[rng.randrange(3) for _ in values]])
    order = list(range(len(values)))
    rng.shuffle(order)
    wanted = plackett_luce_loss(ratios, tiers, beta=0.3)
    close(plackett_luce_loss(ratios[:, order] + 7.0, tiers[:, order], beta=0.3), wanted)


@given(some.lists(number, min_size=3, max_size=6), some.integers(0, 5))
def test_a_masked_item_never_matters(values, which):
    """Taking an item out by the mask is taking its column out."""
    which %= len(values)
    mask = torch.ones(1, len(values), dtype=torch.bool)
    mask[0, which] = False
    kept = [v for i, v in enumerate(values) if i != which]
    close(plackett_luce_loss(row([values]), mask=mask, beta=0.3), plackett_luce_loss(row([kept]), beta=0.3))


@given(some.lists(number, min_size=2, max_size=8), positive, number)
def test_advantages_are_centred_and_ignore_scale_and_shift(values, scale, shift):
    values = [round(value, 2) for value in values]  # spreads of 1e−15 are rounding, not reward
    found = group_advantages(row([values]))
    assert abs(found.sum().item()) < 1e-6
    close(group_advantages(scale * row([values]) + shift), found, atol=1e-6, rtol=1e-6)


@given(some.lists(some.floats(-3, 0), min_size=1, max_size=6).map(row), some.floats(-2, 2))
def test_on_policy_the_ratio_is_1_and_the_loss_minus_the_advantage(log_probs, advantage):
    mask, advantages = torch.ones(len(log_probs), 1), torch.full_like(log_probs, advantage)
    found = group_relative_loss(log_probs[:, None], None, None, mask, advantages, kl=0)
    assert found.item() == pytest.approx(-advantage, abs=1e-12)


@given(some.floats(-1e6, 1e6), some.floats(-10, 10), some.sampled_from([torch.float32, torch.bfloat16]))
def test_any_margin_gives_a_finite_loss_and_gradient(value, h, dtype):
    x = torch.tensor([value], dtype=dtype, requires_grad=True)
    loss = pair_loss(x, strength=h, target=0.9)
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all()
