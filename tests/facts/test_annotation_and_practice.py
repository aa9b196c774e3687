"""The formulas and numbers of data/build/topics/annotation-and-practice.toml, worked through in code."""

import itertools
import math
import os
import re
import stat
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from scipy.stats import binom, norm

TOPICS = Path(__file__).parents[2] / "data/build/topics/annotation-and-practice.toml"


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def passage(topic, style):
    topics = tomllib.loads(TOPICS.read_text(encoding="utf-8"))["topic"]
    return next(p["text"] for t in topics for p in t["passage"] if (t["id"], p["style"]) == (topic, style))


def logit(p):
    return math.log(p / (1 - p))


def entropy(p):
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def test_comparisons_and_ratings():
    """Offsets cancel in differences, Thurstone's 0.921, 45 pairs, and five of six pairs by best–worst."""
    quality, offset, error = (
        np.array([4.0, 3.0]),
        np.array([[-1.0], [1.0]]),
        np.array([[0.2, -0.1], [0.0, 0.3]]),
    )
    ratings = quality + offset + error
    np.testing.assert_allclose(ratings[:, 0] - ratings[:, 1], 1 + error[:, 0] - error[:, 1])
    assert (4 - 1, 3 + 1) == (3, 4)
    assert 1 / (math.sqrt(2) * 0.5) == pytest.approx(1.414, abs=5e-4)
    assert norm.cdf(1 / (math.sqrt(2) * 0.5)) == pytest.approx(0.921, abs=5e-4)
    rng = np.random.default_rng(0)
    a, b = 1 + 0.5 * rng.normal(size=(2, 100_000)) * [[1], [1]] - [[0], [1]]
    assert np.mean(a > b) == pytest.approx(0.921, abs=0.005)
    assert len(list(itertools.combinations(range(10), 2))) == 10 * 9 // 2 == 45
    best, worst = 0, 3
    pairs = list(itertools.combinations(range(4), 2))
    assert len(pairs) == 6 and sum(best in p or worst in p for p in pairs) == 5


def test_ties_and_rankings():
    """Davidson's probabilities, 8 of 10 strict pairs, 6 and 13 orders of three, and a tie's slope."""

    def davidson(a, b, nu):
        return np.array([a, b, nu * math.sqrt(a * b)]) / (a + b + nu * math.sqrt(a * b))

    assert davidson(2.0, 0.7, 0.4).sum() == pytest.approx(1)
    for nu in (0.3, 1.0, 2.5):
        assert davidson(1.7, 1.7, nu)[2] == pytest.approx(nu / (2 + nu))
    assert davidson(1, 1, 1)[2] == pytest.approx(1 / 3)
    assert sum(len(pair) for pair in itertools.combinations(range(5), 2)) == 20  # texts in ten pairs
    assert davidson(3, 2, 0)[0] == pytest.approx(3 / 5)  # without ties: Bradley–Terry
    tiers = [0, 0, 1, 1, 2]
    strict = sum(i != j for i, j in itertools.combinations(tiers, 2))
    assert strict == (5**2 - (2**2 + 2**2 + 1**2)) / 2 == 8
    assert math.comb(5, 2) == 10 and math.factorial(3) == 6
    weak = {tuple(sorted(set(t)).index(i) for i in t) for t in itertools.product(range(3), repeat=3)}
    assert len(weak) == 13
    for value in (-1.3, 0.0, 2.0):
        z = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        (-0.5 * F.logsigmoid(z) - 0.5 * F.logsigmoid(-z)).backward()
        assert z.grad.item() == pytest.approx(sigmoid(value) - 0.5)


def test_inter_annotator_agreement():
    """Both κ examples, agreement of coin tossers, and a² + (1 − a)²."""

    def kappa(table):
        table = np.array(table) / np.sum(table)
        observed, chance = np.trace(table), table.sum(1) @ table.sum(0)
        return observed, chance, (observed - chance) / (1 - chance)

    assert kappa([[45, 5], [15, 35]]) == pytest.approx((0.8, 0.5, 0.6))
    observed, chance, k = kappa([[90, 5], [5, 0]])
    assert (observed, chance) == pytest.approx((0.9, 0.905)) and k == pytest.approx(-0.053, abs=5e-4)
    coins = list(itertools.product("AB", repeat=2))
    assert sum(x == y for x, y in coins) / len(coins) == 0.5
    right = [(a, b) for a in (1, 0) for b in (1, 0)]
    agree = sum((0.8 if a else 0.2) * (0.8 if b else 0.2) for a, b in right if a == b)
    assert agree == pytest.approx(0.8**2 + 0.2**2) == pytest.approx(0.68)


def test_position_bias_of_annotators():
    """σ(0.4), the shrunken win rate, the odds e^(2b) of repeated sides, the band for 400 and the offset."""
    assert sigmoid(0.5 * math.log(40 / 10)) == pytest.approx(2 / 3)
    assert 1 - binom.cdf(220, 400, 0.5) + binom.cdf(179, 400, 0.5) == pytest.approx(0.04, abs=5e-4)
    assert sigmoid(0.4) == pytest.approx(0.599, abs=5e-4)
    assert (sigmoid(2) + sigmoid(0)) / 2 == pytest.approx(0.690, abs=5e-4)
    assert sigmoid(1) == pytest.approx(0.731, abs=5e-4)
    for d, b in itertools.product((-1.0, 0.0, 0.7, 3.0), (-0.5, 0.0, 0.9)):
        a_left, a_right = sigmoid(d + b), sigmoid(d - b)  # P(A chosen) with A left and with A right
        left_twice, right_twice = a_left * (1 - a_right), (1 - a_left) * a_right
        assert left_twice / right_twice == pytest.approx(math.exp(2 * b))
    assert 0.5 * math.log(40 / 10) == pytest.approx(0.693, abs=5e-4)
    assert 2 * math.sqrt(0.25 / 400) == pytest.approx(0.05)
    left, right, b, d = 1, 2, 0.6, 0.3
    for winner, loser, z in ((left, right, d + b), (right, left, d - b)):
        assert d - b * (winner - loser) == pytest.approx(z)


def test_length_bias():
    """The length-controlled win rate, the penalised optimum's reward, and the gradient factor 0.269."""
    gamma, extra = 0.5, 2
    assert sigmoid(gamma * extra) == pytest.approx(0.731, abs=5e-4) and sigmoid(gamma * 0) == 0.5
    rng = np.random.default_rng(1)
    beta, alpha, length = 0.3, 0.02, np.array([10.0, 40, 25, 3])
    ref, reward = rng.dirichlet(np.ones(4)), rng.normal(size=4)

    def objective(s):
        pi = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
        return -(pi @ (reward - alpha * length) - beta * pi @ np.log(pi / ref))

    s = minimize(objective, np.log(ref), tol=1e-12).x
    implied = beta * (s - np.log(ref)) + alpha * length
    np.testing.assert_allclose(implied - implied[0], reward - reward[0], atol=1e-4)
    delta = torch.zeros((), requires_grad=True)
    (-F.logsigmoid(delta + 0.01 * 100)).backward()
    assert -delta.grad.item() == pytest.approx(0.269, abs=5e-4)
    assert 1 - sigmoid(0) == 0.5


def test_active_learning_of_preferences():
    """Entropies, the BALD scores of two ensembles, and the Fisher information p(1 − p)."""
    assert entropy(0.5) == 1 and entropy(0.9) == pytest.approx(0.469, abs=5e-4)

    def bald(ps):
        return entropy(np.mean(ps)) - np.mean([entropy(p) for p in ps])

    assert bald([0.9, 0.1]) == pytest.approx(0.531, abs=5e-4) and bald([0.5, 0.5]) == pytest.approx(0)
    for d in (0.0, 0.8, logit(0.9)):
        p, eps = sigmoid(d), 1e-4
        curvature = [
            (
                math.log(sigmoid(s * (d + eps)))
                - 2 * math.log(sigmoid(s * d))
                + math.log(sigmoid(s * (d - eps)))
            )
            / eps**2
            for s in (1, -1)
        ]
        assert -(p * curvature[0] + (1 - p) * curvature[1]) == pytest.approx(p * (1 - p), abs=1e-5)
    assert 0.5 * 0.5 == 0.25 and 0.9 * 0.1 == pytest.approx(0.09)


def test_cyclic_preferences():
    """Log-odds round a triangle, the best fit to a cycle, the triad count, the random quarter, Condorcet."""
    u = np.array([0.3, -1.2, 2.0])
    assert sum(logit(sigmoid(u[i] - u[(i + 1) % 3])) for i in range(3)) == pytest.approx(0)
    assert logit(0.7) == pytest.approx(0.847, abs=5e-4) and 3 * logit(0.7) == pytest.approx(2.542, abs=5e-4)

    def nll(u):
        d = [u[i] - u[(i + 1) % 3] for i in range(3)]
        return -sum(0.7 * math.log(sigmoid(x)) + 0.3 * math.log(sigmoid(-x)) for x in d)

    fit = minimize(nll, u).x
    assert sigmoid(fit[0] - fit[1]) == pytest.approx(0.5, abs=1e-4)

    def circular(n, beats):
        return sum(
            all(sum((i, j) in beats for j in t) == 1 for i in t) for t in itertools.combinations(range(n), 3)
        )

    pairs, total = list(itertools.combinations(range(4), 2)), 0
    for flips in itertools.product((False, True), repeat=6):  # every tournament of four
        beats = {(j, i) if flip else (i, j) for (i, j), flip in zip(pairs, flips)}
        wins = sorted((sum(a == i for a, _ in beats) for i in range(4)), reverse=True)
        count = circular(4, beats)
        assert count == 4 * 3 * 2 / 6 - sum(w * (w - 1) / 2 for w in wins)
        assert wins != [2, 2, 1, 1] or count == 2
        total += count
    assert total / 2**6 / 4 == 0.25
    votes = ("ABC", "BCA", "CAB")
    assert all(sum(v.index(a) < v.index(b) for v in votes) == 2 for a, b in ("AB", "BC", "CA"))
    # a cycle has an unbeaten mixture: rock, paper, scissors in equal parts draws with everything
    beats = np.array([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]])
    np.testing.assert_allclose(beats @ np.full(3, 1 / 3), 0.5)


def test_logging_preferences(monkeypatch):
    """The fold of five lines, its indifference to repeats, colliding ids, and what the code syncs."""

    def fold(events):
        events = list({e["id"]: e for e in reversed(events)}.values())[::-1]  # the first of each id
        undone = {e["undo"] for e in events if "undo" in e}
        return {e["item"]: e["choice"] for e in events if "item" in e and e["id"] not in undone}

    events = [
        {"id": 1, "item": "x", "choice": "a"},
        {"id": 2, "item": "x", "choice": "b"},
        {"id": 3, "item": "y", "choice": "tie"},
        {"id": 4, "undo": 2},
        {"id": 3, "item": "y", "choice": "tie"},
    ]
    assert fold(events) == {"x": "a", "y": "tie"} == fold(events + events)
    n, space = 10**6, 2**122
    chance = -math.expm1(-n * (n - 1) / 2 / space)
    assert chance == pytest.approx(n**2 / 2**123, rel=1e-5) and round(math.log10(chance)) == -25
    small = 1 - math.prod(1 - i / 1000 for i in range(10))
    assert small == pytest.approx(10**2 / 2000, rel=0.15)  # the same rule, ten ids out of a thousand

    synced, fsync = [], os.fsync  # the code syncs the directory of the new file once, and each of two lines

    def record(file):
        descriptor = file if isinstance(file, int) else file.fileno()
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    exec(re.search(r"```python\n(.*?)```", passage("logging-preferences", "practice"), re.S)[1], {})
    assert synced == [True, False, False]


def test_simulated_annotators():
    """Flips at 0.9, the cap 1 − ε, and Gumbel noise against the Plackett–Luce probabilities."""
    p, eps = 0.9, 0.1
    flipped = (1 - eps) * p + eps * (1 - p)
    assert flipped == pytest.approx(0.82)
    assert logit(0.9) == pytest.approx(2.197, abs=5e-4) and logit(flipped) == pytest.approx(1.516, abs=5e-4)
    grid = sigmoid(np.linspace(-5, 30, 50))
    assert ((1 - eps) * grid + eps * (1 - grid)).max() <= 1 - eps and grid[-1] == pytest.approx(1)
    u = np.array([1.0, 0.0, -1.0])
    softmax = np.exp(u) / np.exp(u).sum()
    np.testing.assert_allclose(softmax, [0.665, 0.245, 0.090], atol=5e-4)
    temperature, rng, n = 0.5, np.random.default_rng(0), 100_000
    orders = np.argsort(-(u / temperature + rng.gumbel(size=(n, 3))), axis=1)
    weight = np.exp(u / temperature)
    for order in itertools.permutations(range(3)):
        rest = list(order)
        expected = math.prod(weight[i] / weight[rest[k:]].sum() for k, i in enumerate(order))
        assert (orders == order).all(1).mean() == pytest.approx(expected, abs=0.006)


def test_log_probability_numerics():
    """Underflow at 400 tokens, log-sum-exp, log-sigmoid, spacing of the formats, and log(1 − p)."""
    assert 0.1**400 == 0 and 400 * math.log(0.1) == pytest.approx(-921, abs=0.1)
    assert 1000 + math.log(2) == pytest.approx(1000.693, abs=5e-4)
    assert torch.tensor([1000.0, 1000.0]).logsumexp(0).item() == pytest.approx(1000.693, abs=5e-4)
    with pytest.raises(OverflowError):
        math.exp(1000)
    for z in (-800.0, -3.0, 0.0, 2.5, 900.0):
        stable = min(z, 0) - math.log1p(math.exp(-abs(z)))
        assert stable == pytest.approx(F.logsigmoid(torch.tensor(z, dtype=torch.float64)).item())
        assert abs(z) > 10 or stable == pytest.approx(math.log(sigmoid(z)))
    for dtype, gap in ((torch.bfloat16, 2), (torch.float16, 0.25), (torch.float32, 2**-15)):
        for start in (256.0, 300.0, 510.0):
            x = torch.tensor(start, dtype=dtype)
            assert (x + gap).item() - x.item() == gap and (x + gap * 0.49).item() == x.item()
    assert 2**-15 == pytest.approx(0.00003, abs=1e-6)
    assert torch.tensor(-301.0).bfloat16().item() == -300
    assert math.log(1 - (1 - 2**-40)) == pytest.approx(math.log(-math.expm1(math.log1p(-(2**-40)))))
    x = torch.zeros((), requires_grad=True)
    torch.where(x > 0, x.log(), 0).backward()
    assert x.grad.isnan()
    logp = -1e-20  # here 1 − p is lost, the stable form is not
    assert 1 - math.exp(logp) == 0 and math.log(-math.expm1(logp)) == pytest.approx(math.log(1e-20))


def test_training_stability():
    """Convergence up to 2/λ, curvature h²/4, the clipped gradient, Adam's first step, the mean of pairs."""

    def factor(eta, lam=10.0, x=1.0):
        return (x - eta * lam * x) / x

    assert factor(0.19) == pytest.approx(-0.9) and factor(0.21) == pytest.approx(-1.1)
    for eta in (0.001, 0.1, 0.199, 0.201, 0.5, -0.1):
        assert (abs(factor(eta)) < 1) == (0 < eta < 2 / 10)
    delta = np.linspace(-20, 20, 4001)
    for h in (0.1, 1.0, 2.0):
        curvature = h**2 * sigmoid(h * delta) * sigmoid(-h * delta)
        numeric = np.gradient(-h * sigmoid(-h * delta), delta)
        np.testing.assert_allclose(numeric[1:-1], curvature[1:-1], atol=1e-4)
        assert curvature.max() == pytest.approx(h**2 / 4)
    g = torch.nn.Parameter(torch.zeros(2))
    g.grad = torch.tensor([3.0, 4.0])
    torch.nn.utils.clip_grad_norm_([g], 1.0)
    assert g.grad.tolist() == pytest.approx([0.6, 0.8], abs=1e-5)
    for size in (1e-3, 0.1, 1.0, 1e4):  # the clipped gradient is one of them: the step is the same
        grad, mean, square = np.array([size, -3 * size]), 0.0, 0.0
        mean, square = 0.9 * mean + 0.1 * grad, 0.999 * square + 0.001 * grad**2
        step = 0.01 * (mean / (1 - 0.9)) / (np.sqrt(square / (1 - 0.999)) + 1e-8)
        assert step == pytest.approx([0.01, -0.01], rel=1e-3)
    assert (1 * 2 + 3 * 0) / (1 + 3) == 0.5 and (2 + 0) / 2 == 1
