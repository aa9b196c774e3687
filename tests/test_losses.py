"""Preference losses against values worked by hand, closed forms, limits and each other."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ragkit.losses.group_relative import group_advantages, group_relative_loss
from ragkit.losses.log_probs import completion_log_probs
from ragkit.losses.pairwise import (
    SHAPES,
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
from ragkit.losses.unpaired import kto_loss

close = torch.testing.assert_close


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_margin_by_hand():
    """ρ⁺ = −1 − (−2) = 1, ρ⁻ = −3 − (−2.5) = −0.5, Δ = 1.5."""
    close(margin(double(-1.0), double(-3.0), double(-2.0), double(-2.5)), double(1.5))


def test_the_four_knobs_by_hand():
    """h = 0.5, m = 0.2, Δ = 2: z = 0.8. −log σ(0.8) = log(1 + e^−0.8) = 0.371101; −log σ(−0.8) = 1.171101.
    p = 0.7, w = 3: 3 · (0.7 · 0.371101 + 0.3 · 1.171101) = 1.833302."""
    found = pair_loss(double(2.0), strength=0.5, offset=0.2, target=0.7, weight=3.0)
    assert found.item() == pytest.approx(1.833302, abs=1e-6)


def test_whole_numbers_are_numbers():
    close(pair_loss(torch.tensor([1, -2])), pair_loss(torch.tensor([1.0, -2.0])))
    close(group_advantages(torch.tensor([[3, 2, 1]])), group_advantages(torch.tensor([[3.0, 2.0, 1.0]])))
    four = [torch.tensor([n, 2 * n]) for n in range(4)]
    assert preference_metrics(*four, 0.1) == preference_metrics(*(x.float() for x in four), 0.1)


@pytest.mark.parametrize("loss", [dpo_loss, robust_dpo_loss, ipo_loss, gpo_loss])
def test_beta_is_one_finite_number(loss):
    more = {"flip": 0.1} if loss is robust_dpo_loss else {}
    deltas = double(0.3, -1.0)
    close(loss(deltas, double(0.2)[0], **more), loss(deltas, 0.2, **more))
    for beta in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"(beta|tau|strength).*finite"):
            loss(deltas, beta, **more)
    if loss is not dpo_loss:  # which is grpo_loss with a constant
        with pytest.raises(ValueError, match=r"has shape \(2,\): one number"):
            loss(deltas, double(0.2, 0.3), **more)


@pytest.mark.parametrize(
    "kind", [np.float32, np.float64, np.array, torch.tensor, lambda x: torch.tensor(x).half()]
)
def test_numbers_of_numpy_and_torch_are_numbers(kind):
    """As one number for every knob; with a gradient on the margin, which NumPy's own product would refuse."""
    x = double(0.3, -1.0).requires_grad_()
    for loss in (grpo_loss, dpo_loss, ipo_loss, gpo_loss):
        close(loss(x, kind(0.25)), loss(x, 0.25))
    close(robust_dpo_loss(x, kind(0.25), kind(0.125)), robust_dpo_loss(x, 0.25, 0.125))
    close(dpo_loss(x, 0.5, label_smoothing=kind(0.25)), dpo_loss(x, 0.5, label_smoothing=0.25))
    close(plackett_luce_loss(x[None], beta=kind(0.25)), plackett_luce_loss(x[None], beta=0.25))
    if kind is not np.array:
        close(grpo_loss(x, [kind(0.25), kind(0.5)]), grpo_loss(x, double(0.25, 0.5)))
    for bad in ("0.25", None, [0.25], np.array([0.25])):
        with pytest.raises(ValueError, match="beta"):
            gpo_loss(x, bad)


@pytest.mark.parametrize(
    "bad",
    [{"kl": math.nan}, {"clip": (math.nan, 0.2)}, {"clip": (-0.1, 0.2)}, {"divisor": 0}]
    + [{"aggregation": "dr_grpo", "max_length": 0}],
)
def test_group_relative_knobs_are_checked(bad):
    logs, mask = double(-1.0, -2.0)[:, None], torch.ones(2, 1)
    with pytest.raises(ValueError, match=f"{list(bad)[-1]}="):
        group_relative_loss(logs, None, logs, mask, double(1.0, -1.0), **bad)


def test_metrics_check_shapes_and_beta():
    x = double(1.0, 2.0)
    with pytest.raises(ValueError, match="must agree"):
        preference_metrics(x, x[:1], x, x, 0.1)
    with pytest.raises(ValueError, match="beta is nan"):
        preference_metrics(x, x, x, x, math.nan)
    with pytest.raises(ValueError, match=r"tiers\[0, 1\] is nan"):
        plackett_luce_loss(x[None], torch.tensor([[0.0, math.nan]]), beta=1.0)


def test_weight_outside_and_strength_inside_differ():
    """At Δ = 2: 0.3 · log(1 + e^−2) = 0.0381; log(1 + e^−0.6) = 0.4375."""
    assert pair_loss(double(2.0), weight=0.3).item() == pytest.approx(0.0381, abs=1e-4)
    assert pair_loss(double(2.0), strength=0.3).item() == pytest.approx(0.4375, abs=1e-4)


def test_only_a_weight_outside_makes_up_for_pairs_that_are_not_seen():
    """Seen with probabilities 0.9 and 0.3: weighted by one over these, the gradient of all is expected."""
    seen, x = double(0.9, 0.3), double(2.0, -1.0).requires_grad_()

    def expected(chance, **knobs):
        return torch.autograd.grad((chance * pair_loss(x, reduction="none", **knobs)).sum(), x)[0]

    close(expected(seen, weight=1 / seen), expected(double(1.0, 1.0)))
    inside = expected(seen, strength=1 / seen) - expected(double(1.0, 1.0))
    assert (inside.abs() > 0.02).all()


def test_a_negative_weight_is_unbounded_and_a_negative_strength_is_not():
    assert pair_loss(double(-1000.0), weight=-1.0).item() < -999
    assert pair_loss(double(-1000.0), strength=-1.0).item() == pytest.approx(0.0, abs=1e-12)


def test_an_offset_that_follows_the_winner_pulls_both_ways():
    """At h = m = 1 and p = 0.8 an offset of y⁺ ends at 1 + logit 0.8 = 2.386; ODPO's, on whoever won, where
    0.8 · σ(1 − Δ) = 0.2 · σ(1 + Δ), at 2.15; for a tie at 0."""
    x = torch.linspace(-1, 4, 50001, dtype=torch.float64)
    won, lost = (offset_dpo_loss(sign * x, 1.0, 1.0, reduction="none") for sign in (1, -1))
    fixed = pair_loss(x, offset=1.0, target=0.8, reduction="none")
    assert x[fixed.argmin()].item() == pytest.approx(1 + math.log(4), abs=1e-3)
    assert x[(0.8 * won + 0.2 * lost).argmin()].item() == pytest.approx(2.15, abs=0.01)
    assert x[(0.5 * won + 0.5 * lost).argmin()].item() == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("h, slope", [(0.0, 0.0), (0.1, 0.1 * (1 / (1 + math.exp(-0.1)) - 0.5))])
def test_a_tie_without_a_strength_of_its_own_has_no_gradient(h, slope):
    x = double(1.0).requires_grad_()
    grpo_loss(x, h, target=0.5).backward()
    assert x.grad.item() == pytest.approx(slope, abs=1e-12)


def test_what_both_sides_have_in_common_is_not_seen():
    chosen, rejected, start = double(-5.0), double(-9.0), double(-6.0)
    close(margin(chosen, rejected, start, start), margin(chosen - 30, rejected - 30, start, start))


@pytest.mark.parametrize(
    "shape, link",
    [
        ("logistic", lambda p: math.log(p / (1 - p))),
        ("savage", lambda p: math.log(p / (1 - p))),
        ("exponential", lambda p: math.log(p / (1 - p)) / 2),
        ("squared", lambda p: 2 * p - 1),
        ("truncated_quadratic", lambda p: 2 * p - 1),
        ("hinge", lambda p: math.copysign(1, p - 0.5)),
    ],
)
def test_where_each_shape_stops(shape, link):
    """The z at which p · f(z) + (1 − p) · f(−z) is least. Only a multiple of the logit fits Bradley–Terry."""
    z = torch.linspace(-4, 4, 16001, dtype=torch.float64)
    for p in (0.1, 0.4, 0.75):
        expected = pair_loss(z, target=p, shape=shape, reduction="none")
        assert z[expected.argmin()].item() == pytest.approx(link(p), abs=1e-3)


@pytest.mark.parametrize("h", [0.1, 1.0, -2.0])
def test_zero_margin_gives_log_2(h):
    assert grpo_loss(double(0.0), h).item() == pytest.approx(math.log(2), abs=1e-12)


def test_the_gradient_is_minus_h_sigma_of_minus_h_delta():
    """∂/∂Δ of −log σ(hΔ)."""
    x = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    h = torch.linspace(0.1, 2, 9, dtype=torch.float64)
    grpo_loss(x, h, reduction="none").sum().backward()
    close(x.grad, -h * torch.sigmoid(-h * x.detach()))


@pytest.mark.parametrize("p, h, m", [(0.8, 0.1, 0.0), (0.8, 1.0, 0.0), (0.6, 0.5, 0.3), (0.5, 2.0, 1.0)])
def test_the_optimum_is_where_it_is_said_to_be(p, h, m):
    """Δ* = (m + logit p) / h: there the derivative of the expected loss vanishes."""
    best = double((m + math.log(p / (1 - p))) / h).requires_grad_()
    pair_loss(best, strength=h, offset=m, target=p, weight=7.0).backward()
    assert abs(best.grad.item()) < 1e-12


def test_strong_pairs_move_first_and_stop_earlier():
    """|gradient| at h = 1 exceeds that at h = 0.1 until Δ ≈ 3.12, and is below it after."""

    def slope(h, at):
        x = double(at).requires_grad_()
        grpo_loss(x, h).backward()
        return -x.grad.item()

    assert slope(1.0, 3.11) > slope(0.1, 3.11) and slope(1.0, 3.13) < slope(0.1, 3.13)


def test_a_negative_strength_is_the_swapped_pair():
    x = double(-3.0, 0.2, 5.0)
    close(grpo_loss(x, -0.7, reduction="none"), grpo_loss(-x, 0.7, reduction="none"))


def test_a_pair_with_target_p_is_the_mixture_of_both_orders():
    x = double(-1.0, 0.5, 2.0)
    mixed = 0.3 * pair_loss(x, strength=0.7, reduction="none") + 0.7 * pair_loss(
        -x, strength=0.7, reduction="none"
    )
    close(pair_loss(x, strength=0.7, target=0.3, reduction="none"), mixed)


def test_constant_strength_is_dpo_and_smoothing_is_a_target():
    x = double(-2.0, 0.0, 3.0)
    close(grpo_loss(x, 0.1), dpo_loss(x, 0.1))
    by_hand = -0.9 * torch.nn.functional.logsigmoid(0.1 * x) - 0.1 * torch.nn.functional.logsigmoid(-0.1 * x)
    close(dpo_loss(x, 0.1, label_smoothing=0.1, reduction="none"), by_hand)


def test_per_pair_strengths_are_dpo_one_pair_at_a_time():
    x, h = double(-2.0, 0.4, 3.0), double(0.05, 0.5, 2.0)
    one_by_one = torch.stack([dpo_loss(a[None], float(b)) for a, b in zip(x, h)])
    close(grpo_loss(x, h), one_by_one.mean())


def test_robust_dpo_is_unbiased_under_flips():
    """Its expectation over labels flipped with probability ε is DPO on the true labels."""
    x, flip = double(-1.0, 0.3, 2.0), 0.2
    kept, flipped = (robust_dpo_loss(sign * x, 0.5, flip, reduction="none") for sign in (1, -1))
    close((1 - flip) * kept + flip * flipped, dpo_loss(x, 0.5, reduction="none"))


def test_ipo_by_hand_and_as_gpo():
    """τ = 0.25: target 1/(2τ) = 2; Δ = 1.5 gives 0.25. GPO's squared shape is β² times it at τ = β/2."""
    assert ipo_loss(double(1.5), 0.25).item() == pytest.approx(0.25)
    x = double(-1.0, 0.0, 4.0)
    close(gpo_loss(x, 0.3, "squared", reduction="none"), 0.09 * ipo_loss(x, 0.15, reduction="none"))


@pytest.mark.parametrize(
    "shape, value",
    [
        ("logistic", 0.474077),  # log(1 + e^−0.5)
        ("hinge", 0.5),
        ("squared", 0.25),
        ("exponential", 0.606531),  # e^−0.5
        ("truncated_quadratic", 0.25),
        ("savage", 0.142537),  # 1/(1 + e^0.5)² = 0.377541²
    ],
)
def test_gpos_shapes_by_hand(shape, value):
    """β = 0.25, Δ = 2: z = 0.5."""
    assert gpo_loss(double(2.0), 0.25, shape).item() == pytest.approx(value, abs=1e-6)


def test_plackett_luce_by_hand():
    """βρ = (1, 0, −1): log(e + 1 + e⁻¹) − 1 + log(1 + e⁻¹) − 0 + 0 = 0.407606 + 0.313262 = 0.720868."""
    found = plackett_luce_loss(double([2.0, 0.0, -2.0]), beta=0.5)
    assert found.item() == pytest.approx(0.720868, abs=1e-6)


def test_ties_by_breslow_by_hand():
    """Two that tie over one, all at 0: each of the two stands against all three: 2 · log 3."""
    found = plackett_luce_loss(double([0.0, 0.0, 0.0]), torch.tensor([[0, 0, 1]]), beta=1.0)
    assert found.item() == pytest.approx(2 * math.log(3), abs=1e-12)


def test_offsets_and_robust_by_hand():
    """ODPO: z = 0.5 · 2 − 0.4 = 0.6, log(1 + e^−0.6) = 0.437488. Robust, ε = 0.1, z = 1: −log σ(1) =
    0.313262, −log σ(−1) = 1.313262: (0.9 · 0.313262 − 0.1 · 1.313262) / 0.8 = 0.188262."""
    assert offset_dpo_loss(double(2.0), 0.5, 0.4).item() == pytest.approx(0.437488, abs=1e-6)
    assert robust_dpo_loss(double(2.0), 0.5, 0.1).item() == pytest.approx(0.188262, abs=1e-6)


def test_robust_dpo_is_not_bounded_below():
    assert robust_dpo_loss(double(1e4), 1.0, 0.1).item() < -1000


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_probabilities_of_all_orders_sum_to_1(size):
    ratios = torch.linspace(-1, 2, size).double()
    orders = [ratios[list(order)] for order in itertools.permutations(range(size))]
    losses = plackett_luce_loss(torch.stack(orders), beta=0.7, reduction="none")
    assert (-losses).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_two_items_are_dpo():
    ratios = torch.randn(6, 2).double()
    close(
        plackett_luce_loss(ratios, beta=0.3, reduction="none"),
        dpo_loss(ratios[:, 0] - ratios[:, 1], 0.3, reduction="none"),
    )


def test_an_untrained_policy_has_log_k_factorial():
    assert plackett_luce_loss(torch.zeros(2, 5).double(), beta=0.1).item() == pytest.approx(math.log(120))


def test_columns_may_come_in_any_order_when_tiers_say_so():
    ratios, tiers = torch.randn(3, 5).double(), torch.tensor([[0, 1, 1, 2, 3]]).expand(3, 5)
    shuffled = torch.randperm(5)
    close(
        plackett_luce_loss(ratios[:, shuffled], tiers[:, shuffled], beta=1.0),
        plackett_luce_loss(ratios, tiers, beta=1.0),
    )


def test_items_outside_the_mask_never_matter():
    """Whatever stands there, an infinity or NaN included; neither value nor gradient changes."""
    ratios = torch.tensor([[1.0, math.nan, 0.5, math.inf], [0.2, 0.1, 3.0, -math.inf]]).double()
    mask = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 0]])
    ratios.requires_grad_()
    losses = plackett_luce_loss(ratios, mask=mask, beta=1.0, reduction="none")
    close(losses[0], plackett_luce_loss(double([1.0, 0.5]), beta=1.0))
    close(losses[1], plackett_luce_loss(double([0.2, 0.1, 3.0]), beta=1.0))
    losses.sum().backward()
    assert ratios.grad.isfinite().all() and (ratios.grad[mask == 0] == 0).all()


def test_one_item_ranks_itself():
    assert plackett_luce_loss(double([3.0]), beta=1.0).item() == 0.0


def test_group_advantages_by_hand():
    """[3, 2, 1]: mean 2, population std sqrt(2/3) = 0.8165, sample std 1. Equal rewards: zeros, exactly."""
    rewards = double([3.0, 2.0, 1.0], [0.1, 0.1, 0.1])
    close(group_advantages(rewards), double([1.224745, 0.0, -1.224745], [0.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    close(group_advantages(rewards, scale="sample"), double([1.0, 0.0, -1.0], [0.0, 0.0, 0.0]))
    close(group_advantages(rewards, scale="none"), double([1.0, 0.0, -1.0], [0.0, 0.0, 0.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_spread_of_the_size_of_rounding_is_none(dtype):
    """Rewards a few last digits apart, of either sign and any size; one part in 10,000 is a spread."""
    eps = torch.finfo(dtype).eps
    for size in (1e-9, -0.3, 1e6):
        rewards = size * torch.tensor([[1.0, 1 + 3 * eps, 1 - 2 * eps], [1, 1, 1.0001]], dtype=dtype)
        assert rewards[0].unique().numel() > 1
        for scale in ("population", "sample"):
            found = group_advantages(rewards, scale=scale)
            assert (found[0] == 0).all() and found[1].abs().max() > 1


@pytest.mark.parametrize("gap", [0.01, 1.0, 100.0])
def test_two_answers_have_the_same_advantages_whatever_their_gap(gap):
    """So h from group-normalised advantages of a pair is a constant, 2: DPO."""
    close(group_advantages(double([gap, 0.0])), double([1.0, -1.0]))


def tokens(rows=4, length=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    now, old, ref = (torch.randn(rows, length, generator=generator).double() * 0.2 - 2 for _ in range(3))
    mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=generator)
    return now, old, ref, mask, double(1.0, -0.5, 0.3, -0.8)[:rows]


def test_group_relative_loss_by_hand():
    """One token, Â = 1: r = e^0.5 = 1.6487 is clipped to 1.2: −1.2. d = −0.3: k3 = e^−0.3 + 0.3 − 1 =
    0.040818, times r, times kl = 0.1: 0.006730. With Â = −1 the minimum keeps −r: +1.6487."""
    now, old, ref = double([-1.0]), double([-1.5]), double([-1.3])
    one = torch.ones(1, 1)
    found = group_relative_loss(now, old, ref, one, double(1.0), kl=0.1)
    assert found.item() == pytest.approx(-1.2 + 0.1 * math.exp(0.5) * 0.040818, abs=1e-6)
    plain = group_relative_loss(now, old, ref, one, double(1.0), kl=0.1, kl_correction=False)
    assert plain.item() == pytest.approx(-1.2 + 0.1 * 0.040818, abs=1e-6)
    assert group_relative_loss(now, old, None, one, double(-1.0), kl=0).item() == pytest.approx(math.exp(0.5))


def test_clip_has_two_sides():
    now, old, one = double([0.0], [0.0]), double([-1.0], [1.0]), torch.ones(2, 1)
    found = group_relative_loss(now, old, None, one, double(1.0, -1.0), clip=(0.3, 0.5), kl=0)
    assert found.item() == pytest.approx((-1.5 + 0.7) / 2)


def test_aggregations_differ_in_the_divisor_alone():
    now, old, ref, mask, advantages = tokens()
    per_token = torch.zeros_like(now)
    for i, j in itertools.product(*map(range, now.shape)):
        one = slice(i, i + 1), slice(j, j + 1)
        per_token[i, j] = group_relative_loss(
            now[one], old[one], ref[one], torch.ones(1, 1), advantages[i : i + 1]
        )
    per_token *= mask
    wanted = {
        "grpo": (per_token.sum(1) / mask.sum(1)).mean(),
        "dapo": per_token.sum() / mask.sum(),
        "dr_grpo": per_token.sum() / (len(now) * 9),
    }
    for name, value in wanted.items():
        longest = 9 if name == "dr_grpo" else None
        found = group_relative_loss(now, old, ref, mask, advantages, aggregation=name, max_length=longest)
        close(found, value)


def test_masked_tokens_never_matter():
    now, old, ref, mask, advantages = tokens()
    wanted = group_relative_loss(now, old, ref, mask, advantages)
    for bad in (math.nan, math.inf, -math.inf):
        broken = [x.masked_fill(~mask, bad) for x in (now, old, ref)]
        broken[0].requires_grad_()
        found = group_relative_loss(*broken, mask, advantages)
        close(found, wanted)
        found.backward()
        assert broken[0].grad.isfinite().all()


@pytest.mark.parametrize("aggregation", ["grpo", "dapo", "dr_grpo"])
def test_micro_batches_equal_the_batch(aggregation):
    """With the whole batch's divisor passed, however unequal the parts."""
    now, old, ref, mask, advantages = tokens()
    settings = {"aggregation": aggregation, "max_length": 9 if aggregation == "dr_grpo" else None}
    divisor = mask.sum() if aggregation == "dapo" else len(now)
    parts = [
        group_relative_loss(
            now[part], old[part], ref[part], mask[part], advantages[part], divisor=divisor, **settings
        )
        for part in (slice(0, 1), slice(1, 4))
    ]
    close(sum(parts), group_relative_loss(now, old, ref, mask, advantages, **settings))


def test_pairwise_micro_batches_equal_the_batch():
    x, h = torch.randn(7).double(), torch.rand(7).double()
    parts = [grpo_loss(x[part], h[part], reduction="none").sum() for part in (slice(0, 2), slice(2, 7))]
    close(sum(parts) / 7, grpo_loss(x, h))


@pytest.mark.parametrize("aggregation", ["grpo", "dapo", "dr_grpo"])
def test_rows_without_a_token_can_be_allowed(aggregation):
    """Then such a row is a sequence of loss 0, whatever stands in it; a batch of nothing else is 0, too."""
    now, old, ref, mask, advantages = tokens()
    settings = {"aggregation": aggregation, "max_length": 9 if aggregation == "dr_grpo" else None}
    whole = group_relative_loss(now, old, ref, mask, advantages, **settings)
    now, old, ref = (
        torch.cat([x, torch.full((1, 6), math.nan).double()]).requires_grad_() for x in (now, old, ref)
    )
    mask, advantages = (
        torch.cat([mask, torch.zeros(1, 6, dtype=torch.bool)]),
        torch.cat([advantages, double(3.0)]),
    )
    found = group_relative_loss(now, old, ref, mask, advantages, empty_rows=True, **settings)
    close(found, whole if aggregation == "dapo" else whole * 4 / 5)
    found.backward()
    assert now.grad.isfinite().all() and (now.grad[4] == 0).all()
    assert group_relative_loss(now, old, ref, mask & False, advantages, empty_rows=True, **settings) == 0


# A world of k answers, where expectations are sums.

REWARD = double(1.0, 0.2, -0.5, 0.7)
REF = double(0.1, -0.3, 0.4, 0.0).log_softmax(0)


def exact_gradient(policy, objective):
    logits = policy.clone().requires_grad_()
    objective(logits.log_softmax(0)).backward()
    return logits.grad


@pytest.mark.parametrize("kl", [0.0, 0.5])
def test_the_group_relative_gradient_is_the_exact_policy_gradient(kl):
    """On-policy, advantages R − E R, k3 corrected: the sampled loss, averaged exactly over all answers, has
    the gradient of −E R + kl · KL(π ‖ π_ref). Uncorrected, the KL's part is the gradient of KL(π_ref ‖
    π)."""
    policy = double(0.3, 0.1, -0.2, 0.5)
    weights = policy.softmax(0)  # how often each answer is sampled

    def sampled(corrected):
        def objective(log_pi):
            total = 0.0
            for i, weight in enumerate(weights):
                advantage = (REWARD[i] - (weights * REWARD).sum())[None]
                total = total + weight * group_relative_loss(
                    log_pi[i].reshape(1, 1),
                    None,
                    REF[i].reshape(1, 1),
                    torch.ones(1, 1),
                    advantage,
                    kl=kl,
                    kl_correction=corrected,
                )
            return total

        return exact_gradient(policy, objective)

    def exact(forward):
        def objective(log_pi):
            reverse = (log_pi.exp() * (log_pi - REF)).sum()
            apart = (REF.exp() * (REF - log_pi)).sum() if forward else reverse
            return -(log_pi.exp() * REWARD).sum() + kl * apart

        return exact_gradient(policy, objective)

    close(sampled(True), exact(forward=False))
    close(sampled(False), exact(forward=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("apart", [1e-7, 1e-3, 0.9, 1.1, 18.0, 20.0, 50.0, 300.0, 1e4])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_corrected_kls_gradient_is_the_log_ratio(dtype, apart, sign):
    """On policy, to the last digits, however near or far the reference is: log π − log π_ref."""
    now = torch.tensor([[sign * apart]], dtype=dtype, requires_grad=True)
    one, none = torch.ones(1, 1), torch.zeros(1, dtype=dtype)
    group_relative_loss(now, None, torch.zeros_like(now), one, none, kl=1.0).backward()
    close(now.grad, now.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("corrected", [True, False])
def test_the_kls_derivatives_off_policy(corrected):
    """r and d on either side of 1 and 0, against differences; the second derivative, too."""
    now, old, ref = (
        double(0.3, -2.0, 1.5, 0.0, 4.0),
        double(0.0, 1.0, 1.4, 0.7, -1.0),
        double(2.0, -4.0, 1.5, 1.1, 3.0),
    )

    def loss(now):
        return group_relative_loss(
            now[None], old[None], ref[None], torch.ones(1, 5), double(0.0), kl=0.3, kl_correction=corrected
        )

    ratio, d = (now - old).exp() if corrected else 1.0, ref - now
    close(loss(now), (0.3 * ratio * (d.exp() - d - 1)).mean())
    now.requires_grad_()
    assert gradcheck(loss, now) and gradgradcheck(loss, now)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("corrected", [True, False])
def test_far_ratios_stay_finite(dtype, corrected):
    """Value and gradient for every pair of log-ratios up to 1e4 and every sign of the advantage; a clipped
    token has no gradient, one that is not clipped keeps its direction."""
    sizes = torch.tensor([0.0, 20.0, 90.0, 800.0, 1e4])
    far = torch.cat([sizes, -sizes])
    now, ref = (x.reshape(1, -1).to(dtype) for x in torch.meshgrid(far, far, indexing="ij"))
    for old in (torch.zeros_like(now), None):
        for advantage in (-2.0, 0.0, 2.0):
            for kl in (0.0, 0.04):
                x = now.clone().requires_grad_()
                settings = {"kl": kl, "kl_correction": corrected, "aggregation": "dapo"}
                loss = group_relative_loss(
                    x, old, ref, torch.ones_like(x), torch.tensor([advantage]), **settings
                )
                loss.backward()
                assert loss.isfinite() and x.grad.isfinite().all()
                if not kl and old is not None:
                    moved = x.grad[now > 0]
                    assert (moved > 0).all() if advantage < 0 else (moved == 0).all()


def test_two_answers_with_h_from_rewards_are_leave_one_out_reinforce():
    """Drawn independently from π = π_ref with h = R₁ − R₂, the expected gradient is minus that of E R."""
    policy = REF.clone()

    def pairs(log_pi):
        total = 0.0
        for i, j in itertools.product(range(4), repeat=2):
            delta = margin(log_pi[i], log_pi[j], policy[i], policy[j])
            total = total + (policy[i] + policy[j]).exp() * grpo_loss(delta, REWARD[i] - REWARD[j])
        return total

    found = exact_gradient(policy, pairs)
    close(found, exact_gradient(policy, lambda log_pi: -(log_pi.exp() * REWARD).sum()))


def test_h_from_rewards_ignores_which_of_the_two_was_preferred():
    delta, gap = double(0.7, -1.2), double(0.4, -2.0)
    close(grpo_loss(delta, gap, reduction="none"), grpo_loss(-delta, -gap, reduction="none"))


def test_dpo_on_population_preferences_ends_at_the_closed_form():
    """Bradley–Terry labels of a known reward: the minimiser is π_ref · exp(R/β), normalised."""
    beta, logits = 0.5, torch.zeros(4).double().requires_grad_()
    pairs = torch.tensor(list(itertools.combinations(range(4), 2)))
    target = torch.sigmoid(REWARD[pairs[:, 0]] - REWARD[pairs[:, 1]])
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        ratios = logits.log_softmax(0) - REF
        loss = pair_loss(ratios[pairs[:, 0]] - ratios[pairs[:, 1]], strength=beta, target=target)
        loss.backward()
        return loss

    optimizer.step(closure)
    close(logits.detach().softmax(0), (REF + REWARD / beta).softmax(0), atol=1e-6, rtol=0)


# Calculus

SMOOTH = [shape for shape in SHAPES if "hinge" not in shape and "truncated" not in shape]


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, m: pair_loss(x, strength=0.7, offset=m, target=0.8, weight=2.0),
        lambda x, m: grpo_loss(x, torch.linspace(-1, 1, 5).double()),
        lambda x, m: offset_dpo_loss(x, 0.4, m),
        lambda x, m: robust_dpo_loss(x, 0.4, 0.1),
        lambda x, m: ipo_loss(x, 0.3),
        *[lambda x, m, shape=shape: gpo_loss(x, 0.4, shape) for shape in SMOOTH],
        lambda x, m: plackett_luce_loss(x[None], torch.tensor([[0, 1, 1, 2, 3]]), beta=0.8),
        lambda x, m: group_relative_loss(
            x[:, None],
            m[:, None],
            torch.full((5, 1), 0.2).double(),
            torch.ones(5, 1),
            torch.ones(5),
            clip=(9.0, 9.0),
        ),
    ],
)
def test_gradients_against_finite_differences(loss):
    x = torch.linspace(-1.2, 1.5, 5).double().requires_grad_()
    m = torch.linspace(0.1, 0.5, 5).double().requires_grad_()
    used = (x, m) if torch.autograd.grad(loss(x, m), m, allow_unused=True)[0] is not None else (x,)
    assert gradcheck(lambda *free: loss(*free, *(x, m)[len(free) :]), used)


def test_the_curvature_is_at_most_h_squared_over_4():
    x = torch.linspace(-6, 6, 101).double().requires_grad_()
    slope = torch.autograd.grad(grpo_loss(x, 1.5, reduction="none").sum(), x, create_graph=True)[0]
    curvature = torch.autograd.grad(slope.sum(), x)[0]
    assert curvature.max().item() == pytest.approx(1.5**2 / 4, abs=1e-9)


def test_strength_target_and_weight_are_detached_and_an_offset_is_not():
    knobs = {name: double(0.5).requires_grad_() for name in ("strength", "offset", "target", "weight")}
    x = double(1.0).requires_grad_()
    pair_loss(x, **knobs).backward()
    assert x.grad is not None and knobs["offset"].grad is not None
    assert all(knobs[name].grad is None for name in ("strength", "target", "weight"))


# Numbers at the edge


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [1e6, -1e6, 1e-6, 0.0])
def test_far_margins_stay_finite(dtype, size):
    """In value and gradient."""
    x = torch.tensor([size], dtype=dtype, requires_grad=True)
    losses = [grpo_loss(x, 1.0), pair_loss(x, target=0.3), robust_dpo_loss(x, 1.0, 0.2), ipo_loss(x, 0.1)]
    losses += [gpo_loss(x, 1.0, shape) for shape in SHAPES]
    losses.append(plackett_luce_loss(torch.cat([x, -x, x])[None], beta=1.0))
    for loss in losses:
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        (gradient,) = torch.autograd.grad(loss, x)
        assert loss.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_pair_loss_takes_gpos_shapes_with_every_knob(shape):
    """w · [p·f(z) + (1 − p)·f(−z)], z = hΔ − m, with f as `gpo_loss` has it; the gradient by differences."""
    x, h, m = double(-1.1, 0.3, 2.0), double(0.4, -0.7, 1.3), double(0.2, -0.1, 0.4)
    p, w = double(1.0, 0.5, 0.2), double(1.0, 2.0, 0.3)
    knobs = {"strength": h, "target": p, "weight": w, "shape": shape, "reduction": "none"}
    one, other = (gpo_loss(sign * (h * x - m), 1.0, shape, reduction="none") for sign in (1, -1))
    close(pair_loss(x, offset=m, **knobs), w * (p * one + (1 - p) * other))
    assert gradcheck(lambda x, m: pair_loss(x, offset=m, **knobs), (x.requires_grad_(), m.requires_grad_()))


@pytest.mark.parametrize("dtype, exact", [(torch.float32, 59.0), (torch.float64, 473.0)])
def test_the_exponential_goes_on_along_its_tangent(dtype, exact):
    """e⁻ᶻ to the last digit until there; then its slope stays, so that a pair far off is pulled back."""
    x = torch.tensor([-exact, -exact - 10, -1e4], dtype=dtype, requires_grad=True)
    losses = gpo_loss(x, 1.0, "exponential", reduction="none")
    (slope,) = torch.autograd.grad(losses.sum(), x)
    assert losses[0].item() == pytest.approx(math.exp(exact), rel=1e-5) == -slope[0].item()
    assert losses.isfinite().all() and (losses.diff() > 0).all()
    assert slope[1] == slope[2] and slope[2].isfinite() and slope[2] <= slope[0]


def test_half_precision_is_reduced_in_float32():
    """1,000 losses of log 2, summed in bfloat16, would stop at 256 · log 2."""
    found = grpo_loss(torch.zeros(1000, dtype=torch.bfloat16), 1.0, reduction="none").sum()
    assert found.item() == pytest.approx(1000 * math.log(2), rel=1e-5)


# What bad input gets


@pytest.mark.parametrize("knob", ["strength", "offset", "target", "weight"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_knobs_are_refused_with_the_index(knob, bad):
    with pytest.raises(ValueError, match=rf"{knob}\[1\] is "):
        pair_loss(torch.zeros(3), **{knob: torch.tensor([0.5, bad, 0.5])})
    with pytest.raises(ValueError, match=rf"{knob} is "):
        pair_loss(torch.zeros(3), **{knob: bad})


@pytest.mark.parametrize("shape", [(2,), (3, 1), (1, 3)])
def test_knobs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"strength has shape .* the margin has \(3,\)"):
        grpo_loss(torch.zeros(3), torch.ones(shape))


def test_log_probs_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\), \(3,\), \(3, 1\), \(3,\)"):
        margin(torch.zeros(3), torch.zeros(3), torch.zeros(3, 1), torch.zeros(3))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: pair_loss(torch.zeros(2), target=1.2), "target is 1.2; it must be between 0 and 1"),
        (lambda: pair_loss(torch.zeros(2), reduction="sum"), "reduction='sum': mean or none"),
        (lambda: dpo_loss(torch.zeros(2), math.nan), "strength is nan"),
        (lambda: gpo_loss(torch.zeros(2), 0.1, "cubic"), "shape='cubic': one of logistic"),
        (lambda: pair_loss(torch.zeros(2), shape="cubic"), "shape='cubic': one of logistic"),
        (lambda: ipo_loss(torch.zeros(2), 0.0), "tau=0.0"),
        (lambda: robust_dpo_loss(torch.zeros(2), 0.1, 0.5), "flip=0.5"),
        (lambda: plackett_luce_loss(torch.zeros(3), beta=1.0), r"shape \(3,\), not \(B, K\)"),
        (
            lambda: plackett_luce_loss(torch.zeros(2, 2), mask=torch.tensor([[1, 0], [0, 0]]), beta=1.0),
            "row 1 of the mask is empty",
        ),
        (lambda: plackett_luce_loss(torch.zeros(2, 2), torch.zeros(2, 3), beta=1.0), "tiers has shape"),
        (lambda: group_advantages(torch.zeros(4)), r"not \(G, K\)"),
        (lambda: group_advantages(torch.zeros(4, 1)), "two answers or more"),
        (lambda: group_advantages(torch.tensor([[1.0, math.nan]])), r"rewards\[0, 1\] is nan"),
        (lambda: group_advantages(torch.zeros(1, 2), scale="max"), "scale='max'"),
    ],
)
def test_bad_input_is_refused_with_its_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


ARRAY, FLAT = np.zeros((2, 3)), np.zeros(3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: pair_loss(FLAT),
        lambda: grpo_loss(FLAT, 0.1),
        lambda: robust_dpo_loss(FLAT, 0.1, 0.1),
        lambda: ipo_loss(FLAT, 0.1),
        lambda: margin(FLAT, torch.zeros(3), torch.zeros(3), torch.zeros(3)),
        lambda: preference_metrics(torch.zeros(3), torch.zeros(3), torch.zeros(3), FLAT, 0.1),
        lambda: plackett_luce_loss(ARRAY, beta=0.1),
        lambda: plackett_luce_loss(torch.zeros(2, 3), ARRAY, beta=0.1),
        lambda: plackett_luce_loss(torch.zeros(2, 3), mask=ARRAY, beta=0.1),
        lambda: kto_loss(FLAT, torch.ones(3), 0.0, beta=0.1),
        lambda: kto_loss(torch.zeros(3), FLAT, 0.0, beta=0.1),
        lambda: group_advantages(ARRAY),
        lambda: group_relative_loss(ARRAY, None, None, torch.ones(2, 3), torch.zeros(2), kl=0),
        lambda: group_relative_loss(torch.zeros(2, 3), None, None, ARRAY, torch.zeros(2), kl=0),
        lambda: group_relative_loss(torch.zeros(2, 3), None, ARRAY, torch.ones(2, 3), torch.zeros(2)),
        lambda: completion_log_probs(None, ARRAY, ARRAY, torch.ones(2, 3)),
    ],
)
def test_a_numpy_array_is_named_as_such(call):
    with pytest.raises(TypeError, match=r"not a NumPy array of shape \(.*3.*\): torch.from_numpy\(…\)"):
        call()


def test_other_things_than_tensors_are_named_too():
    """A knob may be an array, a list or a number; what is trained may not."""
    for bad, name in (([1.0, 2.0], "list"), (0.5, "float"), (np.float64(0.5), "float64")):
        with pytest.raises(TypeError, match=rf"a {name}: torch.tensor\(…\) makes one"):
            pair_loss(bad)
    close(grpo_loss(double(0.3, -1.0), np.array([0.2, 0.4])), grpo_loss(double(0.3, -1.0), double(0.2, 0.4)))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"aggregation": "mean"}, "aggregation='mean'"),
        ({"aggregation": "dr_grpo"}, "max_length=None"),
        ({"max_length": 5}, "max_length=5"),
        ({"ref_log_probs": None}, "needs ref_log_probs"),
        ({"mask": torch.zeros(4, 6)}, "row 0 of the mask is empty"),
        ({"advantages": torch.zeros(4, 1)}, r"advantages \(4, 1\)"),
        ({"advantages": torch.tensor([0.0, 0.0, math.nan, 0.0])}, r"advantages\[2\] is nan"),
        ({"old_log_probs": torch.zeros(4, 5)}, r"old_log_probs has shape \(4, 5\)"),
    ],
)
def test_bad_group_input_is_refused(change, message):
    names = ("log_probs", "old_log_probs", "ref_log_probs", "mask", "advantages")
    with pytest.raises(ValueError, match=message):
        group_relative_loss(**{**dict(zip(names, tokens())), **change})


def test_metrics_have_trls_names_and_an_untrained_policy_is_half_accurate():
    chosen, rejected = double(-1.0, -2.0), double(-3.0, -1.0)
    found = preference_metrics(chosen, rejected, double(-1.5, -2.0), double(-2.5, -2.0), 0.1)
    wanted = {
        "rewards/chosen": 0.025,
        "rewards/rejected": 0.025,
        "rewards/accuracies": 0.5,
        "rewards/margins": 0.0,
        "logps/chosen": -1.5,
        "logps/rejected": -2.0,
    }
    assert found == pytest.approx(wanted)
    assert preference_metrics(chosen, rejected, chosen, rejected, 0.1)["rewards/accuracies"] == 0.5


@pytest.mark.parametrize("bad", [-1.0, 2.0, math.nan, 0.5])
def test_kto_refuses_what_is_no_truth(bad):
    """-1 for a bad answer would be read as True, and the answer be learned as a good one."""
    good = torch.tensor([1.0, bad, 0.0])
    with pytest.raises(ValueError, match=r"good\[1\] is .*; it must be True \(1\) or False \(0\)"):
        kto_loss(torch.zeros(3), good, 0.0, beta=0.1)
    same = kto_loss(torch.arange(3.0), torch.tensor([True, False, False]), 0.0, beta=0.1)
    assert kto_loss(torch.arange(3.0), torch.tensor([1, 0, 0]), 0.0, beta=0.1) == same
