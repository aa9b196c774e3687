"""What a reranker minimises: against the loss functions themselves, finite differences, and by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ragkit import losses, strengths
from ragkit.preferences.judgements import Ranking
from ragkit.reranking.objective import PAIRWISE, Objective
from ragkit.retrieval.corpus import Passage
from tests.simulated_rankings import simulated
from tests.test_table import tabled, ties


@pytest.fixture(scope="module")
def table():
    return tabled([*simulated(4), ties(), *simulated(2, 3, seed=5)])


@pytest.fixture
def residual(table):
    return torch.from_numpy(np.random.default_rng(0).normal(size=len(table.base)))


def margin(table, values) -> torch.Tensor:
    chosen, rejected = torch.from_numpy(table.sides.T.copy())
    values = torch.as_tensor(values)
    return values[chosen] - values[rejected]


def test_reference_is_dpo_over_documents(table, residual):
    """Δ = log π(d⁺)/π_ref(d⁺) − log π(d⁻)/π_ref(d⁻), with both softmaxes written out."""
    log_ratio = torch.empty_like(residual)
    base = torch.from_numpy(table.base)
    for n in range(len(table)):
        rows = torch.from_numpy(table.of_list == n)
        log_ratio[rows] = (base + residual)[rows].log_softmax(0) - base[rows].log_softmax(0)
    found = Objective(anchor="reference", weight=strengths.constant(1.0), beta=0.3)(table)(residual)
    target = torch.from_numpy(table.pairs.target)
    expected = losses.dpo_loss(margin(table, log_ratio), 0.3, reduction="none")
    other = losses.dpo_loss(-margin(table, log_ratio), 0.3, reduction="none")
    torch.testing.assert_close(found, target * expected + (1 - target) * other)


def test_offset_is_ranknet(table, residual):
    """Burges' RankNet on the whole score: cross-entropy of σ(s⁺ − s⁻) with the target."""
    found = Objective(weight=strengths.constant(1.0))(table)(residual)
    logit = margin(table, torch.from_numpy(table.base) + residual)
    target = torch.from_numpy(table.pairs.target)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("loss", [name for name in PAIRWISE if name not in ("grpo", "robust_dpo")])
def test_each_loss_is_the_one_of_its_name(table, residual, loss):
    found = Objective(loss, weight=strengths.constant(1.0), beta=0.7)(table)(residual)
    x = margin(table, torch.from_numpy(table.base) + residual)
    shape = {"dpo": "logistic"}.get(loss, loss.removeprefix("gpo:"))
    if loss == "ipo":
        one = lambda x: (x - 1 / (2 * 0.7)) ** 2  # noqa: E731
    else:
        one = lambda x: losses.gpo_loss(x, 0.7, shape, reduction="none")  # noqa: E731
    target = torch.from_numpy(table.pairs.target)
    torch.testing.assert_close(found, target * one(x) + (1 - target) * one(-x))


def test_plackett_luce_of_two_is_dpo():
    table = tabled(simulated(5, 2))
    residual = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for anchor in ("offset", "reference"):
        for first in (0.0, 0.4):
            listwise = Objective("plackett_luce", beta=0.4, anchor=anchor, first=True)(table)
            pairwise = Objective(beta=0.4, anchor=anchor, first=True)(table)
            torch.testing.assert_close(listwise(residual, first), pairwise(residual, first))


def test_plackett_luce_leaves_out_what_was_not_judged(table):
    """Documents 0 and 4 of `ties` tie in the last tier; 2 is in none, so its score does not matter."""
    loss = Objective("plackett_luce")(table)
    residual = torch.zeros(len(table.base), dtype=torch.float64)
    before = loss(residual)
    moved = residual.clone()
    moved[22] = 5.0  # document 2 of the fifth list
    torch.testing.assert_close(loss(moved), before)
    moved[21] = 5.0
    assert not torch.allclose(loss(moved), before)
    assert len(before) == len(table)


def test_a_list_that_nobody_judged_is_no_row_of_plackett_luce():
    empty = Ranking("empty", [Passage("a", "a"), Passage("b", "b")], [])
    table = tabled([empty, *simulated(2)])
    assert len(Objective("plackett_luce")(table)(torch.zeros(12, dtype=torch.float64))) == 2


@pytest.mark.parametrize("loss", [*PAIRWISE, "plackett_luce"])
@pytest.mark.parametrize("anchor", ["offset", "reference"])
def test_gradients_are_finite_differences(table, residual, loss, anchor):
    values = Objective(loss, beta=0.6, anchor=anchor, first=True)(table)
    residual = residual.clone().requires_grad_()
    first = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, f: values(r, f).mean(), (residual, first), eps=1e-6, atol=1e-6)


def test_long_lists_do_not_outvote_short_ones():
    """One list of ten (45 pairs) and one of two (1 pair): each counts half."""
    table = tabled([*simulated(1, 10), *simulated(1, 2, seed=3)])
    values = Objective()(table)(torch.zeros(12, dtype=torch.float64))
    logit = margin(table, table.base)
    each = torch.nn.functional.softplus(-logit)
    expected = (each[:45].mean() + each[45:].mean()) / 2
    torch.testing.assert_close(values.mean(), expected)


def test_what_was_shown_first_is_an_offset(table, residual):
    """z = Δ + first · (place⁻ − place⁺): shown one place earlier is worth `first` logits."""
    values = Objective(first=True, weight=strengths.constant(1.0))(table)(residual, 0.5)
    gap = np.nan_to_num(table.pairs.rejected_position - table.pairs.chosen_position)
    z = margin(table, torch.from_numpy(table.base) + residual) + 0.5 * torch.from_numpy(gap)
    target = torch.from_numpy(table.pairs.target)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(z, target, reduction="none")
    torch.testing.assert_close(values, expected)


def test_the_shown_place_is_in_logits_whatever_the_loss_and_beta(table, residual):
    """β scales the margin, not the effect of the place; so dpo and grpo with β are one loss."""
    found = [Objective(loss, beta=0.3, first=True)(table)(residual, 0.5) for loss in ("dpo", "grpo")]
    torch.testing.assert_close(*found)


def test_knobs_are_those_of_the_pair_loss(table, residual):
    knobs = {"strength": strengths.rank_gap(0.5), "offset": strengths.shown_position(0.2)}
    table = table.take(np.arange(4))
    values = Objective(beta=2.0, weight=strengths.constant(3.0), **knobs)(table)(residual[:20])
    expected = losses.pair_loss(
        margin(table, torch.from_numpy(table.base) + residual[:20]),
        strength=2 * knobs["strength"](table.pairs, None).double(),
        offset=knobs["offset"](table.pairs, None).double(),
        weight=3.0,
        reduction="none",
    )
    torch.testing.assert_close(values, expected)


def test_knobs_are_checked_once_when_the_table_is_given(table, residual, monkeypatch):
    with pytest.raises(ValueError, match=r"strength\[0\] is inf"):
        Objective(beta=np.inf)(table)
    loss = Objective(strength=strengths.rank_gap(), offset=strengths.shown_position(0.2))(table)
    expected = loss(residual)
    monkeypatch.setattr(losses.pairwise, "_knob", None)  # a fit calls it hundreds of times
    assert torch.equal(loss(residual), expected)


def test_weights_that_follow_the_scores(table):
    moving = Objective(weight=strengths.delta_ndcg())
    assert moving.moving and not Objective(strength=strengths.rank_gap()).moving
    zeros = torch.zeros(len(table.base), dtype=torch.float64)
    values = moving(table, table.base)(zeros)
    weight = strengths.delta_ndcg()(table.pairs, torch.from_numpy(table.base[table.sides]))
    expected = Objective(weight=lambda pairs, scores=None: weight)(table)(zeros)
    torch.testing.assert_close(values, expected)


def test_a_knob_of_ones_own_says_that_it_needs_scores(table):
    """Then it gets the present ones, even where it would do without; otherwise none, whatever it raises."""
    seen = []

    def knob(pairs, scores=None):
        seen.append(scores)
        return torch.ones(len(pairs))

    assert not Objective(weight=knob).moving
    knob.needs_scores = True
    assert Objective(offset=knob).moving and not seen
    Objective(weight=knob)(table, table.base)
    torch.testing.assert_close(seen[0], torch.from_numpy(table.base[table.sides]))


def test_bad_names_and_knobs_are_named(table):
    with pytest.raises(ValueError, match=r"loss='hinge': one of grpo, dpo, .*plackett_luce"):
        Objective("hinge")
    with pytest.raises(ValueError, match="anchor='base': one of offset, reference"):
        Objective(anchor="base")
    with pytest.raises(ValueError, match="weight: plackett_luce takes whole lists"):
        Objective("plackett_luce", weight=strengths.per_query())
    with pytest.raises(ValueError, match="strength: loss='ipo' has none"):
        Objective("ipo", strength=strengths.constant(1.0))
    with pytest.raises(ValueError, match="a function of pairs, or"):
        Objective(strength="rank_gap")
    with pytest.raises(ValueError, match=r"gave \(3,\), not a tensor of shape"):
        Objective(strength=lambda pairs, scores: torch.ones(3))(table)
    with pytest.raises(ValueError, match="gave list, not a tensor"):
        Objective(offset=lambda pairs, scores: [1.0] * len(pairs))(table)
    bad = torch.ones(len(table.pairs))
    bad[7] = torch.nan
    with pytest.raises(ValueError, match="gave nan for pair 7"):
        Objective(weight=lambda pairs, scores: bad)(table)
    with pytest.raises(ValueError, match="no rewards"):
        Objective(strength=strengths.reward_gap())(table)


def test_at_changes_beta_alone():
    objective = Objective("dpo", anchor="reference")
    assert objective.at(0.3) == replace(objective, beta=0.3)


@pytest.mark.parametrize(
    "objective, plain",
    [
        *(({"loss": loss}, loss in ("grpo", "dpo")) for loss in (*PAIRWISE, "plackett_luce")),
        ({"anchor": "reference", "first": True, "beta": 0.3}, True),
        *(({knob: strengths.constant(1.0)}, False) for knob in ("strength", "weight", "offset")),
        ({"strength": "learned"}, False),
    ],
)
def test_plain_is_the_likelihood_of_pairs(objective, plain):
    assert Objective(**objective).plain is plain


def test_the_offset_is_where_training_starts_and_the_reference_leaves_it_out(table, residual):
    """A prior is a part of the offset, as s_0 is; DPO's margin over documents holds neither."""
    prior = np.random.default_rng(1).normal(size=len(table.base))
    with_prior = replace(table, prior=prior)
    for loss in ("grpo", "plackett_luce"):
        found = Objective(loss)(with_prior)(residual)
        torch.testing.assert_close(found, Objective(loss)(table)(residual + torch.from_numpy(prior)))
        reference = Objective(loss, anchor="reference")
        torch.testing.assert_close(reference(with_prior)(residual), reference(table)(residual))
