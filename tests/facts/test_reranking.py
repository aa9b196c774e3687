"""The formulas and numbers of data/build/topics/reranking.toml, worked through in code."""

import itertools
import math
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

TOPICS = Path(__file__).parents[2] / "data/build/topics/reranking.toml"


def passage(topic, style):
    """The text of one passage, to read its numbers from."""
    found = next(t for t in tomllib.loads(TOPICS.read_text(encoding="utf-8"))["topic"] if t["id"] == topic)
    return next(p["text"] for p in found["passage"] if p["style"] == style)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softmax(x):
    e = np.exp(np.asarray(x, dtype=float) - np.max(x))
    return e / e.sum()


def slope(f, x, k, eps=1e-5):
    """Central finite difference of f at x along coordinate k."""
    up, down = np.array(x, dtype=float), np.array(x, dtype=float)
    up[k] += eps
    down[k] -= eps
    return (f(up) - f(down)) / (2 * eps)


def test_cross_encoders():
    """Binary cross-entropy at s = 2 and its slope, the pair count, and a sigmoid that keeps the order."""

    def loss(s, y):
        return -y * math.log(sigmoid(s)) - (1 - y) * math.log(1 - sigmoid(s))

    assert loss(2, 1) == pytest.approx(0.127, abs=5e-4)
    assert loss(2, 0) == pytest.approx(2.127, abs=5e-4)
    for y, s in itertools.product((0, 1), (-1.5, 0.3, 2.0)):
        assert slope(lambda v, y=y: loss(v[0], y), [s], 0) == pytest.approx(sigmoid(s) - y, abs=1e-7)
    assert math.comb(10_000, 2) == 49_995_000
    scores = np.random.default_rng(0).normal(size=50) * 3
    assert (np.argsort(scores) == np.argsort([sigmoid(s) for s in scores])).all()
    # in floating point the top ties: the text's logits saturate, half of each does not
    text = passage("cross-encoders", "practice")
    stated = re.search(r"logit of ([\d.]+) in float16, ([\d.]+) in bfloat16 and ([\d.]+) in float32", text)
    for logit, kind in zip(stated.groups(), (torch.float16, torch.bfloat16, torch.float32)):
        top = torch.tensor([float(logit), float(logit) + 1, float(logit) - 1], dtype=kind)
        assert top.sigmoid()[0] == top.sigmoid()[1] == 1 > top.sigmoid()[2]


def test_cross_encoders_default_activation():
    """sentence-transformers: a sigmoid for one label, unless the configuration names another function."""
    peer = pytest.importorskip("sentence_transformers", reason="pip install -e .[peers]")
    for saved, labels, expected in (
        ({}, 1, torch.nn.Sigmoid),
        ({}, 3, torch.nn.Identity),
        ({"activation_fn": "torch.nn.Identity"}, 1, torch.nn.Identity),
    ):
        model = SimpleNamespace(
            config=SimpleNamespace(sentence_transformers=saved, num_labels=labels),
            num_labels=labels,
            _resolve_activation_fn=lambda path: getattr(torch.nn, path.rsplit(".", 1)[1])(),
        )
        assert isinstance(peer.CrossEncoder.get_default_activation_fn(model), expected)


def test_pointwise_pairwise_listwise():
    """One set of scores under three losses, the listwise minimum, term counts and pair counts."""
    y, s = np.array([2.0, 1, 0]), np.array([12.0, 11, 10])
    assert np.mean((s - y) ** 2) == 100

    def pairwise(s):
        pairs = [(i, j) for i in range(3) for j in range(3) if y[i] > y[j]]
        return np.mean([np.log1p(np.exp(-(s[i] - s[j]))) for i, j in pairs])

    def listwise(s):
        return -(softmax(y) * np.log(softmax(s))).sum()

    assert pairwise(s) == pytest.approx(0.251, abs=5e-4)
    assert listwise(s) == pytest.approx(0.832, abs=5e-4)
    rng = np.random.default_rng(0)
    assert all(listwise(s + rng.normal(size=3)) > listwise(s) for _ in range(200))
    assert pairwise(s + 7) == pytest.approx(pairwise(s)) and listwise(s + 7) == pytest.approx(listwise(s))
    assert 10 * 9 // 2 == len(list(itertools.combinations(range(10), 2))) == 45
    assert len(list(itertools.product(range(2), range(50)))) == 100


def test_ranknet():
    """Probabilities, losses and slopes of a pair; ties; shifts; softplus; DPO with a uniform reference."""

    def loss(s, t):
        p = sigmoid(s[0] - s[1])
        return -t * math.log(p) - (1 - t) * math.log(1 - p)

    assert sigmoid(1) == pytest.approx(0.731, abs=5e-4)
    assert loss((1, 0), 1) == pytest.approx(0.313, abs=5e-4)
    assert loss((0, 1), 1) == pytest.approx(1.313, abs=5e-4)
    assert sigmoid(1) - 1 == pytest.approx(-0.269, abs=5e-4)
    assert sigmoid(-1) - 1 == pytest.approx(-0.731, abs=5e-4)
    for t, s in itertools.product((1, 0.5, 0), ((1.0, 0.0), (0.0, 1.0), (2.0, -0.4))):
        expected = sigmoid(s[0] - s[1]) - t
        assert slope(lambda v, t=t: loss(v, t), s, 0) == pytest.approx(expected, abs=1e-7)
        assert slope(lambda v, t=t: loss(v, t), s, 1) == pytest.approx(-expected, abs=1e-7)
        assert loss((s[0] + 5, s[1] + 5), t) == pytest.approx(loss(s, t))
    gaps = np.linspace(-3, 3, 601)
    values = [loss((g, 0), 0.5) for g in gaps]
    assert gaps[np.argmin(values)] == pytest.approx(0, abs=1e-9)
    assert min(values) == pytest.approx(math.log(2)) == pytest.approx(0.693, abs=5e-4)
    big = torch.tensor(800.0)
    assert torch.log1p(big.exp()).isinf() and F.softplus(big) == 800
    # DPO over candidates: pi = softmax(s), reference uniform, beta = 1
    s = torch.tensor([0.4, -1.0, 2.0])
    rho = s.log_softmax(0) - torch.full((3,), 1 / 3).log()
    assert torch.allclose(-F.logsigmoid(rho[0] - rho[1]), F.softplus(s[1] - s[0]))


def test_lambdarank():
    """Swap sizes against nDCG itself, the worked pushes, the slope, and that a weight keeps its place."""

    def ndcg(gains):
        dcg = sum(g / math.log2(r + 1) for r, g in enumerate(gains, 1))
        return dcg / sum(g / math.log2(r + 1) for r, g in enumerate(sorted(gains, reverse=True), 1))

    def swap(gains, i, j):
        ideal = sum(g / math.log2(r + 1) for r, g in enumerate(sorted(gains, reverse=True), 1))
        discount = abs(1 / math.log2(2 + i) - 1 / math.log2(2 + j))
        return abs(gains[i] - gains[j]) * discount / ideal

    gains = [0, 2, 1, 0, 3, 0, 1, 0, 0, 1]
    for i, j in itertools.combinations(range(10), 2):
        swapped = list(gains)
        swapped[i], swapped[j] = swapped[j], swapped[i]
        assert swap(gains, i, j) == pytest.approx(abs(ndcg(swapped) - ndcg(gains)))
    third, tenth = [0, 0, 1], [0] * 9 + [1]
    assert swap(third, 0, 2) == pytest.approx(0.5) and 1 / math.log2(4) == 0.5
    assert 1 / math.log2(10) == pytest.approx(0.301, abs=5e-4)
    assert 1 / math.log2(11) == pytest.approx(0.289, abs=5e-4)
    assert swap(tenth, 8, 9) == pytest.approx(0.012, abs=5e-4)
    assert swap(third, 0, 2) * sigmoid(0) == pytest.approx(0.25)
    assert swap(tenth, 8, 9) * sigmoid(0) == pytest.approx(0.006, abs=5e-4)
    w, s = 0.37, (0.3, 0.9)
    numeric = slope(lambda v: w * math.log1p(math.exp(v[1] - v[0])), s, 0)
    assert numeric == pytest.approx(-w * sigmoid(-(s[0] - s[1])), abs=1e-7)
    # the metric is flat between swaps: small drifts of the scores change nothing
    scores = np.array([0.3, 0.9, 0.1])
    for drift in (-0.05, 0.05):
        assert (np.argsort(-scores) == np.argsort(-(scores + [drift, 0, 0]))).all()


def test_plackett_luce_ranking():
    """Worked probabilities, the sum over orders, log K!, slopes, K = 2, IIA, top-k and Breslow ties."""

    def prob(weights, stages=None):
        stages = len(weights) if stages is None else stages
        return math.prod(weights[i] / sum(weights[i:]) for i in range(stages))

    w = [3.0, 2.0, 1.0]
    orders = [list(p) for p in itertools.permutations(w)]
    assert prob(w) == pytest.approx(1 / 3) and prob(w[::-1]) == pytest.approx(1 / 15)
    assert sum(map(prob, orders)) == pytest.approx(1)
    assert -math.log(prob([1, 1, 1])) == pytest.approx(math.log(6)) == pytest.approx(1.792, abs=5e-4)
    for k in range(2, 7):
        assert -math.log(prob([1] * k)) == pytest.approx(math.log(math.factorial(k)))
    slopes = [slope(lambda s: -math.log(prob(list(np.exp(s)))), np.log(w), k) for k in range(3)]
    assert slopes == pytest.approx([-0.5, 0, 0.5], abs=1e-6)
    by_rule = [sum(w[k] / sum(w[i:]) for i in range(k + 1)) - 1 for k in range(3)]
    assert slopes == pytest.approx(by_rule, abs=1e-6)
    assert prob([3.0, 2.0]) == pytest.approx(sigmoid(math.log(3) - math.log(2)))  # Bradley-Terry
    # a further document never changes the odds between two others (here: first before second)
    above = sum(prob(o) for o in orders if o.index(3.0) < o.index(2.0))
    assert above == pytest.approx(3 / 5)
    # the first k factors are the probability of the top k, whatever follows
    four = [4.0, 3.0, 2.0, 1.0]
    top = sum(prob(list(p)) for p in itertools.permutations(four) if p[:2] == (3.0, 1.0))
    assert prob([3.0, 1.0, 4.0, 2.0], stages=2) == pytest.approx(top)
    # Breslow: tied documents with weights 3 and 2 before 1; each against all that remain
    breslow = 3 / 6 * 2 / 6
    both_orders = prob([3.0, 2.0, 1.0]) + prob([2.0, 3.0, 1.0])
    assert 0 < breslow < both_orders


def test_reranker_distillation():
    """Margin-MSE on the worked scores, the softened list, its KL, and the largest margin of two cosines."""

    def margin_mse(t, s):
        return ((t[0] - t[1]) - (s[0] - s[1])) ** 2

    assert margin_mse((9, 4), (12, 7)) == 0
    assert margin_mse((9, 4), (0.8, 0.3)) == pytest.approx(20.25)
    p = softmax(np.array([4.0, 2, 0]) / 2)
    assert p == pytest.approx([0.665, 0.245, 0.090], abs=5e-4)
    q = softmax([0.7, 0.7, 0.7])
    assert (p * np.log(p / q)).sum() == pytest.approx(0.266, abs=5e-4)

    def list_slope(temperature):
        t, s = torch.tensor([4.0, 2, 0]), torch.zeros(3, requires_grad=True)
        p = (t / temperature).softmax(0)
        (p * (p.log() - (s / temperature).log_softmax(0))).sum().backward()
        return s.grad.norm().item()

    assert list_slope(100) / list_slope(200) == pytest.approx(4, rel=0.02)  # like 1/T²
    cosines = np.linspace(-1, 1, 201)
    assert np.ptp(cosines) == 2


def test_llm_reranking():
    """Call counts by simulation, what one sliding pass guarantees, and the yes/no probability."""
    yes, no = math.exp(3), math.exp(1)
    assert yes / (yes + no) == pytest.approx(sigmoid(2)) == pytest.approx(0.881, abs=5e-4)

    def sliding(ranking, w, a):
        ranking, calls, end = list(ranking), 0, len(ranking)
        while True:
            start = max(0, end - w)
            ranking[start:end] = sorted(ranking[start:end])  # a perfect model: small is good
            calls += 1
            if start == 0:
                return ranking, calls
            end -= a

    rng = np.random.default_rng(0)
    for n, w, a in ((100, 20, 10), (50, 20, 5), (37, 8, 3), (20, 20, 10), (23, 10, 6)):
        ranking, calls = sliding(rng.permutation(n), w, a)
        assert calls == math.ceil((n - w) / a) + 1
        assert ranking[: w - a] == list(range(w - a))
    assert math.ceil((100 - 20) / 10) + 1 == 9
    assert len(list(itertools.permutations(range(100), 2))) == 100 * 99 == 9900


def test_feature_rerankers():
    """Worked scores and winning chance, exchange rate, cancelling features, trees and rescaling."""
    w, first, second = np.array([0.2, 5]), np.array([12, 0.6]), np.array([9, 0.8])
    assert w @ first == pytest.approx(5.4) and w @ second == pytest.approx(5.8)
    assert sigmoid(w @ (first - second)) == pytest.approx(sigmoid(-0.4)) == pytest.approx(0.401, abs=5e-4)
    assert 5 * 0.2 / 0.2 == pytest.approx(5)
    # a feature that is the same for every candidate cancels, whatever its weight
    wide = np.append(w, 3.7)
    gap = wide @ (np.append(first, 7) - np.append(second, 7))
    assert gap == pytest.approx(w @ (first - second))
    # any threshold split of a feature is also a split of its increasing rescaling
    x = np.random.default_rng(0).normal(size=30)
    rescaled = 3 * x + 2
    for cut in x:
        assert ((x <= cut) == (rescaled <= 3 * cut + 2)).all()


def test_diversity_and_mmr():
    """The worked MMR values, the level λ, and the two ends λ = 1 and λ = 0."""
    rel, sim = np.array([0.90, 0.88, 0.70]), np.array([1, 0.95, 0.20])

    def value(lam):
        return lam * rel - (1 - lam) * sim

    assert value(0.5)[1:] == pytest.approx([-0.035, 0.25])
    assert value(0.9)[1:] == pytest.approx([0.697, 0.61])
    level = 0.75 / 0.93
    assert level == pytest.approx(0.806, abs=5e-4)
    assert value(level)[1] == pytest.approx(value(level)[2])
    assert value(level + 0.01)[1] > value(level + 0.01)[2]
    assert (value(1) == rel).all() and (value(0) == -sim).all()

    def dcg(gains):
        return sum(g / math.log2(r + 1) for r, g in enumerate(gains, 1))

    # nDCG does not punish repetition: two copies earn what two different documents of that grade earn
    grade = {"report": 1, "copy of report": 1, "other fact": 1}
    assert dcg([grade["report"], grade["copy of report"]]) == dcg([grade["report"], grade["other fact"]])


def test_click_models():
    """Position-based and cascade numbers, inverse weighting, the swap estimate, clipping, sample size."""
    assert 0.2 / 0.5 == pytest.approx(0.4) and 0.4 > 0.3 / 1
    gamma = 0.4
    for theta in (1, 0.5, 0.1):
        assert theta * gamma * (1 / theta) == pytest.approx(gamma)  # E[click / θ]
    attraction = [0.3, 0.4, 0.5]
    cascade = [g * math.prod(1 - a for a in attraction[:r]) for r, g in enumerate(attraction)]
    assert cascade == pytest.approx([0.3, 0.28, 0.21])
    # enumerate what the reader would find attractive: the first such result gets the click
    brute = [0.0, 0.0, 0.0]
    for likes in itertools.product((0, 1), repeat=3):
        p = math.prod(a if like else 1 - a for a, like in zip(attraction, likes))
        if any(likes):
            brute[likes.index(1)] += p
    assert brute == pytest.approx(cascade)
    assert (60 / 1000) / (120 / 1000) == 0.5
    # without a change of ranks: halving looks and doubling attraction gives the same click rate
    assert 1 * 0.2 == pytest.approx(0.5 * 0.4)
    w = np.array([1, 1, 1, 10])
    assert w.sum() ** 2 / (w**2).sum() == pytest.approx(1.64, abs=5e-3)
    # clipping at 10: expectation too low for θ = 0.05, but far less variance
    theta, weights = 0.05, (1 / 0.05, 10)
    p = theta * gamma
    means, variances = [p * v for v in weights], [p * (1 - p) * v**2 for v in weights]
    assert means[0] == pytest.approx(gamma) and means[1] < gamma and variances[1] == variances[0] / 4


def test_overfitting_few_labels():
    """Cover's count against brute force and the worked numbers; the standard error; implied pairs."""
    from scipy.optimize import linprog

    def count(n, d):
        return 2 * sum(math.comb(n - 1, k) for k in range(d))

    rng = np.random.default_rng(0)
    for n, d in ((4, 2), (5, 3), (6, 3), (4, 4)):
        x = rng.normal(size=(n, d))
        found = 0
        for signs in itertools.product((-1, 1), repeat=n):
            a = -np.array(signs)[:, None] * x
            result = linprog(np.zeros(d), A_ub=a, b_ub=-np.ones(n), bounds=[(None, None)] * d, method="highs")
            found += result.status == 0
        assert found == count(n, d)
    assert count(20, 20) == 2**20 == 1_048_576
    assert count(40, 20) == 2**39
    assert count(20, 5) == 10_072 and 10_072 / 1_048_576 == pytest.approx(0.01, abs=5e-4)
    assert math.sqrt(0.75 * 0.25 / 20) == pytest.approx(0.097, abs=5e-4)
    # three ranked documents: two neighbouring pairs imply the third
    for a, b, c in itertools.permutations(range(3)):
        if a > b > c:
            assert a > c
    assert math.comb(3, 2) == 3
    # a zero correction keeps the retriever's order
    base = rng.normal(size=8)
    assert (np.argsort(-(base + np.zeros(8))) == np.argsort(-base)).all()
