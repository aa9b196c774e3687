"""The fitted weights, against scikit-learn's logistic regression and against many worlds."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ragkit import strengths
from ragkit.reranking.active import precision
from ragkit.reranking.features import NAMES, Described
from ragkit.reranking.linear import DIRECTIONS, FARTHEST, Inputs, LinearResidual, solve
from ragkit.reranking.objective import PAIRWISE, Objective
from tests.simulated_rankings import simulated
from tests.test_table import tabled


@pytest.fixture(scope="module")
def table():
    return tabled(simulated(30))


@pytest.mark.parametrize("capacity", ["features", "embeddings"])
def test_residual_ranknet_is_logistic_regression_on_differences(table, capacity):
    """DPO over documents with a linear residual: no intercept, C = 1 / (ridge · pairs)."""
    values = Inputs.fit(capacity, table)(table)
    ridge = 0.02
    found = solve(values, table, Objective(anchor="reference"), ridge)
    difference = values[table.sides[:, 0]] - values[table.sides[:, 1]]
    both = np.concatenate([difference, -difference])
    label = np.repeat([1, 0], len(difference))
    peer = LogisticRegression(
        C=1 / (2 * len(difference) * ridge), fit_intercept=False, tol=1e-10, max_iter=2000
    )
    np.testing.assert_allclose(found[:-1], peer.fit(both, label).coef_[0], atol=1e-3)
    assert found[-1] == 0.0  # not asked for


@pytest.mark.parametrize("loss", [*PAIRWISE, "plackett_luce"])
def test_every_loss_reaches_a_minimum(table, loss):
    """The gradient vanishes there, and from another start the same weights come out of the convex ones."""
    import torch

    values = Inputs.fit("features", table)(table)
    objective = Objective(loss, beta=0.3, first=True)
    w = torch.from_numpy(solve(values, table, objective, 0.1)).requires_grad_()
    held = torch.full_like(w, 0.1)
    held[-1] = 1e-4
    each = objective(table)(torch.from_numpy(values) @ w[:-1], w[-1])
    (each.mean() + (held * w**2).sum() / 2).backward()
    kinked = loss in ("gpo:hinge", "gpo:truncated_quadratic")
    assert w.grad.abs().max() < (0.02 if kinked else 2e-3)
    if loss in ("grpo", "dpo", "plackett_luce", "ipo", "gpo:squared"):
        start = np.random.default_rng(0).normal(size=len(w))
        np.testing.assert_allclose(solve(values, table, objective, 0.1, start), w.detach(), atol=0.01)


def test_more_ridge_is_less_residual(table):
    values = Inputs.fit("embeddings", table)(table)
    sizes = [np.abs(solve(values, table, Objective(), ridge)[:-1]).sum() for ridge in (1e-3, 1e-1, 1e3)]
    assert sizes[0] > sizes[1] > sizes[2] and sizes[2] < 1e-2


def test_weights_that_follow_the_scores_settle(table):
    objective = Objective(weight=strengths.delta_ndcg(), beta=0.3)
    values = Inputs.fit("features", table)(table)
    w = solve(values, table, objective, 0.1)
    again = solve(values, table, objective, 0.1, w)
    assert np.isfinite(w).all() and np.abs(again - w).max() < 0.2 * np.abs(w).max()


def test_inputs_are_cut_where_training_has_seen_nothing(table):
    inputs = Inputs.fit("features", table)
    strange = tabled(simulated(1, seed=9))
    strange.features[0] += 1e6
    assert np.abs(inputs(strange)).max() == FARTHEST
    one = Described("q", [""] * 5, strange.features, strange.vectors, strange.asked[0])
    np.testing.assert_allclose(inputs(one), inputs(strange), atol=1e-9)


def test_one_list_alone_is_what_it_is_in_a_table(table):
    from ragkit.reranking.features import describe
    from tests.words_encoder import WordsEncoder

    ranking = simulated(30)[4]
    described = describe(WordsEncoder(), ranking.query, [p.full_text for p in ranking.passages])
    for capacity in ("features", "embeddings"):
        inputs = Inputs.fit(capacity, table)
        np.testing.assert_allclose(inputs(described), inputs(table)[table.of_list == 4], atol=1e-9)
        weights = np.random.default_rng(0).normal(size=len(NAMES) + inputs.basis.shape[1])
        residual = LinearResidual(inputs, weights)
        np.testing.assert_allclose(sum(residual.parts(described).values()), residual(described), atol=1e-9)


def test_two_documents_of_one_list_are_enough_for_embeddings():
    inputs = Inputs.fit("embeddings", tabled(simulated(1, 2)))
    assert inputs.basis.shape == (24, 1) and inputs(tabled(simulated(1, 2))).shape == (2, len(NAMES) + 1)


def test_inputs_are_centred_and_spread_and_the_directions_are_principal(table):
    """Against scikit-learn's PCA of vectors less their list's mean."""
    from sklearn.decomposition import PCA

    inputs = Inputs.fit("embeddings", table)
    values, lists = inputs(table), range(len(table))
    for n in lists:
        np.testing.assert_allclose(values[table.of_list == n].mean(0)[len(NAMES) :], 0, atol=1e-9)
    away = np.concatenate([v - v.mean(0) for v in (table.vectors[table.of_list == n] for n in lists)])
    away = away.astype(float)
    pca = PCA(DIRECTIONS if len(away.T) > DIRECTIONS else None).fit(away)
    some = slice(0, 8)  # those whose variances lie well apart
    expected = pca.transform(away)[:, some]
    found = values[:, len(NAMES) :][:, some]
    np.testing.assert_allclose(
        np.abs(found), np.abs(expected) / np.sqrt(np.mean(expected[:, 0] ** 2)), atol=1e-5
    )
    varied = np.ptp(table.features, axis=0) > 0
    spread = (values[:, : len(NAMES)] ** 2).mean(0)[varied]
    assert (spread <= 1 + 1e-9).all() and (spread > 0.8).all()  # 1 but for what was cut
    shifted = replace(table, features=table.features + np.arange(30)[table.of_list][:, None])
    np.testing.assert_allclose(inputs(shifted), values, atol=1e-9)


def test_precision_is_the_curvature_of_the_logistic_loss():
    """Lists of two, each pair counted once: the sum's Hessian by finite differences, and the prior's."""
    table = tabled(simulated(12, 2))
    table = replace(table, prior=np.random.default_rng(1).normal(size=24))
    values = Inputs.fit("features", table)(table)
    rng = np.random.default_rng(0)
    w, beta, spread = 0.1 * rng.normal(size=values.shape[1]), 0.4, 0.7

    def total(w):
        z = beta * ((table.before + values @ w)[table.sides] @ [1.0, -1.0])
        return np.logaddexp(0, -z).sum() + w @ w / (2 * spread**2)

    found, step = precision((values, table), w, beta, spread), 1e-3
    for i, j in ((0, 0), (1, 6), (6, 6)):
        e, f = np.eye(len(w))[i] * step, np.eye(len(w))[j] * step
        numeric = (total(w + e + f) - total(w + e - f) - total(w - e + f) + total(w - e - f)) / (4 * step**2)
        assert found[i, j] == pytest.approx(numeric, rel=1e-3, abs=1e-4)
    np.testing.assert_allclose(precision(None, w, beta, spread), np.eye(len(w)) / spread**2)
