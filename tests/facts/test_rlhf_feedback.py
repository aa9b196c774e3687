"""Formulas and numbers of rlhf.toml's passages on AI feedback, rejection sampling and distillation."""

import itertools
import math
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

TOPICS = Path(__file__).parents[2] / "data/build/topics/rlhf.toml"


def passage(topic, style):
    """The text of one passage, its sentences joined, to read numbers from."""
    found = next(t for t in tomllib.loads(TOPICS.read_text(encoding="utf-8"))["topic"] if t["id"] == topic)
    return " ".join(next(p["text"] for p in found["passage"] if p["style"] == style).split())


def numbers(pattern, text):
    """The groups of the pattern's one match in the text, as numbers (with a minus sign as in print)."""
    (found,) = re.finditer(pattern, text)
    return [float(group.replace("−", "-")) for group in found.groups()]


def kl(p, q):
    """KL(p‖q) in nats; 0·log 0 is 0."""
    return sum(a * math.log(a / b) for a, b in zip(p, q) if a)


def best_of(n, p):
    """Probabilities of best-of-n when answers are sorted by rising reward and no two tie."""
    return np.diff(np.concatenate([[0], np.cumsum(p)]) ** n)


def test_ai_feedback():
    """Order bias in probabilities and log-odds, self-preference in both orders, entropy of the optimum."""
    text = passage("ai-feedback", "mathematics")
    s, b, first, second = numbers(r"For s = ([\d.]+) and b = ([\d.]+) .* ([\d.]+) and ([\d.]+), so", text)
    assert [first, second] == pytest.approx([expit(s + b), expit(s - b)], abs=5e-4)
    assert first > 0.5 > second  # the two orders name different winners
    mean, log_odds = numbers(r"here to ([\d.]+); .* σ\(0\.5\) = ([\d.]+)\.", text)
    assert mean == pytest.approx((expit(s + b) + expit(s - b)) / 2, abs=5e-4)
    assert log_odds == pytest.approx(expit((logit(expit(s + b)) + logit(expit(s - b))) / 2), abs=5e-4)
    s, c, shown, p = numbers(r"s = (−[\d.]+) and c = ([\d.]+) .* σ\(([\d.]+)\) = ([\d.]+)\.", text)
    assert s < 0 < s + c == pytest.approx(shown) and expit(s + c) == pytest.approx(p, abs=5e-4)
    # β = 1, even reference: the optimum of a Bradley–Terry reward repeats the odds of the labels
    people, labeller = numbers(r"60 to 40, .* entropy ([\d.]+) nats; .* 95 to 5 leaves ([\d.]+) nats", text)
    for share, stated in ((0.60, people), (0.95, labeller)):
        tilted = 0.5 * np.exp([logit(share), 0])
        policy = tilted / tilted.sum()
        assert policy == pytest.approx([share, 1 - share])
        assert -(policy * np.log(policy)).sum() == pytest.approx(stated, abs=5e-4)


def test_rejection_sampling_fine_tuning():
    """Best-of-n against enumeration, its KL bound (ties too), win rate, rounds, and the chance of one hit."""
    text = passage("rejection-sampling-fine-tuning", "mathematics")
    p = np.array([0.1, 0.4, 0.3, 0.2])
    for n in (1, 2, 3):
        brute = np.zeros(4)
        for draw in itertools.product(range(4), repeat=n):
            brute[max(draw)] += p[list(draw)].prod()
        assert best_of(n, p) == pytest.approx(brute)

    def bound(n):
        return math.log(n) - (n - 1) / n

    assert numbers(r"is ([\d.]+) for n = 4 and ([\d.]+) for n = 16", text) == pytest.approx(
        [bound(4), bound(16)], abs=5e-4
    )
    rng = np.random.default_rng(0)
    for answers, n in itertools.product((2, 5, 50), (2, 4, 16)):
        q = rng.dirichlet(np.ones(answers))
        best = best_of(n, q)
        assert kl(best, q) < bound(n)
        # against one draw: a tie counts half, as it does when ties are broken by a coin
        wins = sum(best[i] * (q[:i].sum() + q[i] / 2) for i in range(answers))
        assert wins <= n / (n + 1) + 1e-12
    tied = np.array([(1 - 0.5**4) / 2, (1 - 0.5**4) / 2, 0.5**4])  # two best answers tie at 1/4 each
    assert kl(tied, [0.25, 0.25, 0.5]) < bound(4)
    thin = np.full(20_000, 1 / 20_000)
    assert kl(best_of(4, thin), thin) == pytest.approx(bound(4), abs=1e-3)
    (stated,) = numbers(r"two equally likely answers and n = 4 the KL divergence is only ([\d.]+)\.", text)
    assert stated == pytest.approx(kl(best_of(4, [0.5, 0.5]), [0.5, 0.5]), abs=5e-4)
    n, total = numbers(r"two rounds of best-of-(\d+), .* are best-of-(\d+)\.", text)
    assert best_of(n, best_of(n, p)) == pytest.approx(best_of(total, p))
    assert numbers(r"1 − 0\.9⁸ = ([\d.]+)\.", text) == pytest.approx([1 - 0.9**8], abs=5e-4)


def test_on_policy_distillation():
    """Both directions of the KL divergence, its one-sample estimate, the chain rule and the minimum."""
    text = passage("on-policy-distillation", "mathematics")
    teacher = numbers(r"teacher with \(([\d.]+), ([\d.]+), ([\d.]+)\)", text)
    keen = numbers(r"good token, \(([\d.]+), ([\d.]+), ([\d.]+)\)", text)
    reverse, forward = numbers(r"has reverse KL ([\d.]+) and forward KL ([\d.]+);", text)
    assert [kl(keen, teacher), kl(teacher, keen)] == pytest.approx([reverse, forward], abs=5e-4)
    even = [1 / 3] * 3
    even_reverse, even_forward = numbers(r"uniform student has ([\d.]+) and ([\d.]+)\.", text)
    assert [kl(even, teacher), kl(teacher, even)] == pytest.approx([even_reverse, even_forward], abs=5e-4)
    assert reverse < even_reverse and forward > even_forward
    # two tokens: the sum of tokenwise divergences on the student's prefixes is that of whole answers
    rng = np.random.default_rng(0)
    (s1, t1), (s2, t2) = rng.dirichlet(np.ones(3), 2), rng.dirichlet(np.ones(3), (2, 3))
    whole = kl((s1[:, None] * s2).ravel(), (t1[:, None] * t2).ravel())
    assert whole == pytest.approx(kl(s1, t1) + sum(s1[i] * kl(s2[i], t2[i]) for i in range(3)))
    estimate = [s1[i] * (math.log(s1[i]) - math.log(t1[i])) for i in range(3)]
    assert sum(estimate) == pytest.approx(kl(s1, t1)) and kl(t1, t1) == 0 < kl(s1, t1)


def test_on_policy_distillation_default_share():
    """TRL's own default for the share of batches that the student writes."""
    gkd = pytest.importorskip("trl.experimental.gkd", reason="pip install -e .[trl]")
    stated = numbers(r"lmbda = ([\d.]+)\)", passage("on-policy-distillation", "practice"))
    assert [gkd.GKDConfig.__dataclass_fields__["lmbda"].default] == stated == [0.5]
