"""The formulas and numbers of data/build/topics/retrieval.toml, worked through in code."""

import itertools
import math
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import bm25s
import numpy as np

FAMILY = tomllib.loads(
    (Path(__file__).parents[2] / "data/build/topics/retrieval.toml").read_text(encoding="utf-8")
)


def passage(topic, style):
    """The text of one passage, on one line."""
    (found,) = [p for t in FAMILY["topic"] if t["id"] == topic for p in t["passage"] if p["style"] == style]
    return " ".join(found["text"].split())


def softmax(scores):
    exp = np.exp(np.asarray(scores) - np.max(scores))
    return exp / exp.sum()


def cosine(a, b):
    return np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))


def infonce(scores, tau):
    """−log of the softmax probability of the first score."""
    return -math.log(softmax(np.asarray(scores) / tau)[0])


def finite_differences(function, point, step=1e-6):
    """The gradient of `function` at `point`, by central differences."""
    point = np.asarray(point, dtype=float)
    steps = np.eye(len(point)) * step
    return np.array([(function(point + s) - function(point - s)) / (2 * step) for s in steps])


def test_dense_retrieval():
    """The scores 3 and 4, the rank of S, two winners in one dimension, any pair in four, unrelated spaces."""
    assert np.dot((1, 2), (2, 0.5)) == 3 and np.dot((1, 2), (0, 2)) == 4
    rng = np.random.default_rng(0)
    queries, docs = rng.normal(size=(30, 4)), rng.normal(size=(40, 4))
    assert np.linalg.matrix_rank(queries @ docs.T) == 4
    numbers, asked = rng.normal(size=(40, 1)), rng.normal(size=(500, 1))
    assert set((asked @ numbers.T).argmax(1)) == {int(numbers.argmax()), int(numbers.argmin())}
    # k = 2 in 2k = 4: passages (t, t², t³, t⁴); −(t − t₁)²·(t − t₂)² is 0 for the pair, negative elsewhere.
    places = np.linspace(-1, 1, 12)
    curve = np.vander(places, 5)[:, :4]
    for pair in itertools.combinations(range(12), 2):
        question = -np.poly(np.repeat(places[list(pair)], 2))[:4]
        assert set(np.argsort(-(curve @ question))[:2]) == set(pair)
    assert math.isclose(1_000_000 * 0.010, 10_000) and round(10_000 / 3600, 1) == 2.8
    # Rotating one side (another model's space) spoils the ranking, rotating both does not.
    docs = rng.normal(size=(50, 16))
    docs /= np.linalg.norm(docs, axis=1, keepdims=True)
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    own = np.arange(50)
    assert (((docs @ rotation) @ (docs @ rotation).T).argmax(1) == own).all()
    assert ((docs @ (docs @ rotation).T).argmax(1) == own).mean() < 0.2


def test_bm25():
    """idf 4.56, factors 1, 1.57, 2.08 and the limit 2.2, the two ends of b, and agreement with bm25s."""

    def idf(n, total):
        return math.log(1 + (total - n + 0.5) / (n + 0.5))

    def factor(tf, length=1.0, k1=1.2, b=0.75):
        return tf * (k1 + 1) / (tf + k1 * (1 - b + b * length))

    assert round(idf(10, 1000), 2) == 4.56
    assert all(idf(n, 20) > idf(n + 1, 20) > 0 for n in range(1, 20))
    assert math.isclose(factor(1), 1) and round(factor(3), 2) == 1.57
    assert 2.19 < factor(1000) < 2.2 and factor(10**6) < 2.2
    gains = np.diff([factor(tf) for tf in range(25)])
    assert (gains[1:] < gains[:-1]).all() and gains[19] < 0.01
    stuffing = re.search(r"twenty repetitions of a word count ([\d.]+) times", passage("bm25", "intuition"))
    assert f"{factor(20) / factor(1):.2f}" == stuffing[1]
    assert f"twenty {factor(20):.2f}" in passage("bm25", "mathematics")
    assert factor(1, length=0.5) > factor(1) > factor(1, length=2)
    assert factor(2, length=3, b=0) == factor(2, length=1, b=0)
    assert math.isclose(factor(2, length=4, b=1), factor(2 / 4, length=1, b=1))
    docs = [text.split() for text in ("a cat sat", "the cat ran to the other cat", "a parrot spoke")]
    query = ["cat", "parrot", "the"]
    average = sum(map(len, docs)) / len(docs)
    seen = {t: sum(t in doc for doc in docs) for t in query}
    mine = [sum(idf(seen[t], 3) * factor(doc.count(t), len(doc) / average) for t in query) for doc in docs]
    index = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    index.index(docs, show_progress=False)
    # Lucene leaves out the constant k₁ + 1, which does not change the ranking.
    np.testing.assert_allclose(np.array(mine) / 2.2, index.get_scores(query), rtol=1e-5)
    assert list(index.get_scores(["automobile"])) == [0, 0, 0]


def test_embeddings_and_cosine():
    """0.96, |a − b|² = 2 − 2cos, one order for both, 1/√n, six deviations, rotation, long vectors, NaN."""
    a, b = np.array([3.0, 4.0]), np.array([4.0, 3.0])
    assert a @ b == 24 and np.linalg.norm(a) == np.linalg.norm(b) == 5 and math.isclose(cosine(a, b), 0.96)
    assert math.isclose(cosine(7 * a, b), 0.96) and math.isclose(cosine(a, -a), -1)
    unit = np.array([a, b]) / 5
    assert math.isclose(((unit[0] - unit[1]) ** 2).sum(), 2 - 2 * 0.96)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 384))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines, distances = vectors[1:] @ vectors[0], ((vectors[1:] - vectors[0]) ** 2).sum(1)
    assert (np.argsort(-cosines)[:100] == np.argsort(distances)[:100]).all()
    assert round(1 / math.sqrt(384), 3) == 0.051 and abs(cosines.mean()) < 0.003
    assert abs(cosines.std() - 0.051) < 0.003 and 5.8 < 0.3 * math.sqrt(384) < 6
    rotation = np.linalg.qr(rng.normal(size=(384, 384)))[0]
    turned = vectors[:50] @ rotation
    assert not np.isclose(turned, vectors[:50]).all(0).any()
    np.testing.assert_allclose(turned @ turned.T, vectors[:50] @ vectors[:50].T, atol=1e-12)
    query, near, long = np.array([1.0, 0.0]), np.array([1.0, 0.1]), np.array([3.0, 3.0])
    assert query @ long > query @ near and cosine(query, long) < cosine(query, near)
    with np.errstate(invalid="ignore"):
        assert np.isnan(np.zeros(3) / np.linalg.norm(np.zeros(3))).all()


def test_contrastive_encoder_training():
    """InfoNCE 0.86 and 0.13, its gradient, log 64 = 4.16, offsets, duplicates, and gradient caching."""
    assert f"{64 * 63:,} mismatches" in passage("contrastive-encoder-training", "intuition")
    scores = [0.8, 0.6, 0.2]
    assert round(infonce(scores, 1.0), 2) == 0.86 and round(infonce(scores, 0.1), 2) == 0.13
    for tau in (1.0, 0.1):
        expected = (softmax(np.array(scores) / tau) - np.eye(3)[0]) / tau
        measured = finite_differences(lambda s, tau=tau: infonce(s, tau), scores)
        np.testing.assert_allclose(measured, expected, atol=1e-6)
    assert round(infonce([0.3] * 64, 0.05), 2) == round(math.log(64), 2) == 4.16
    assert math.isclose(infonce(np.array(scores) + 5, 0.1), infonce(scores, 0.1))
    # A low temperature: the nearest wrong answer takes a larger share of the push.
    share = [
        softmax(np.array(scores) / tau)[1] / softmax(np.array(scores) / tau)[1:].sum() for tau in (1, 0.1)
    ]
    assert share[0] < 0.6 and share[1] > 0.95
    # A second copy of the right passage keeps the loss above log 2, however good the encoder is.
    assert infonce([1.0, 1.0, -1.0], 0.01) >= math.log(2) - 1e-12
    # Gradient caching: the gradient on the vectors first, then through the encoder in four pieces.
    rng = np.random.default_rng(0)
    questions, texts, encoder = rng.normal(size=(8, 5)), rng.normal(size=(8, 12)), rng.normal(size=(12, 5))

    def loss(flat):
        table = questions @ (texts @ flat.reshape(12, 5)).T
        return np.mean([infonce(np.roll(row, -i), 0.5) for i, row in enumerate(table)])

    p = np.array([softmax(row / 0.5) for row in questions @ (texts @ encoder).T])
    cached = (p - np.eye(8)).T @ questions / 0.5 / 8
    pieces = [texts[i : i + 2].T @ cached[i : i + 2] for i in range(0, 8, 2)]
    np.testing.assert_allclose(sum(pieces).ravel(), finite_differences(loss, encoder.ravel()), atol=1e-6)


def test_hard_negatives():
    """p_j/τ, the probabilities 0.269 and 0.00067, the ratio exp(6) ≈ 403, and 52 % by enumeration."""
    tau, scores = 0.1, [0.8, 0.7, 0.1]
    p = softmax(np.array(scores) / tau)
    measured = finite_differences(lambda s: infonce(s, tau), scores)
    np.testing.assert_allclose(measured[1:], p[1:] / tau, rtol=1e-4)
    assert round(p[1], 3) == 0.269 and round(p[2], 5) == 0.00067
    assert math.isclose(p[1] / p[2], math.exp(6)) and round(math.exp(6)) == 403
    at_least_one = sum(
        math.prod(0.1 if false else 0.9 for false in outcome)
        for outcome in itertools.product([True, False], repeat=7)
        if any(outcome)
    )
    assert math.isclose(at_least_one, 1 - (1 - 0.1) ** 7) and round(100 * at_least_one) == 52
    assert f"95 % of 0.8 is {0.95 * 0.8:.2f}" in passage("hard-negatives", "practice")


def test_query_document_asymmetry():
    """A shared encoder is symmetric and prefers a copy; two towers with M need not."""
    rng = np.random.default_rng(0)
    tower = rng.normal(size=(6, 4))

    def shared(x):
        return np.tanh(x @ tower) / np.linalg.norm(np.tanh(x @ tower))

    texts = rng.normal(size=(30, 6))
    vectors = np.array([shared(x) for x in texts])
    scores = vectors @ vectors.T
    assert np.array_equal(scores, scores.T) and np.allclose(scores.diagonal(), 1) and scores.max() < 1 + 1e-9
    x, y, m = np.array([1, 0]), np.array([0, 1]), np.array([[0, 1], [0, 0]])
    assert (x @ m @ y, y @ m @ x, x @ m @ x) == (1, 0, 0)
    a, b = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    u, v = rng.normal(size=2), rng.normal(size=2)
    assert math.isclose((a @ u) @ (b @ v), u @ (a.T @ b) @ v)
    assert not np.allclose(a.T @ b, (a.T @ b).T) and np.allclose(a.T @ a, (a.T @ a).T)


def test_reciprocal_rank_fusion():
    """0.0307 against 0.0317, the order at k = 0, the factors 10 and 1.15, and rank 61 as the last to win."""

    def rrf(*ranks, k=60):
        return sum(1 / (k + rank) for rank in ranks)

    assert round(rrf(1, 10), 4) == 0.0307 and round(rrf(3, 3), 4) == 0.0317
    assert math.isclose(rrf(1, 10, k=0), 1.1) and math.isclose(rrf(3, 3, k=0), 2 / 3)
    assert math.isclose(rrf(1, k=0) / rrf(10, k=0), 10) and round(rrf(1) / rrf(10), 2) == 1.15
    assert rrf(61, 61) > rrf(1) and math.isclose(rrf(62, 62), rrf(1))
    # Two identical lists outvote a third: its best document ends behind their first three.
    lists = [["a", "b", "c", "d"], ["a", "b", "c", "d"], ["d", "e", "f", "g"]]
    places = defaultdict(list)
    for ranked in lists:
        for rank, doc in enumerate(ranked, start=1):
            places[doc].append(rank)
    assert rrf(*places["c"]) > rrf(*places["e"]) and rrf(*places["a"]) > rrf(*places["e"])


def test_late_interaction():
    """MaxSim 1.7 by row and 2.1 by column, monotone in added tokens, 30,720 bytes and 20 times."""
    sims = np.array([[0.9, 0.2, 0.1], [0.3, 0.4, 0.8]])
    assert math.isclose(sims.max(1).sum(), 1.7) and math.isclose(sims.max(0).sum(), 2.1)
    rng = np.random.default_rng(0)
    q, d = rng.normal(size=(5, 8)), rng.normal(size=(12, 8))
    brute = sum(max(float(np.dot(u, v)) for v in d) for u in q)
    assert math.isclose((q @ d.T).max(1).sum(), brute)
    grown = [(q @ d[:n].T).max(1).sum() for n in range(1, 13)]
    assert all(after >= before for before, after in itertools.pairwise(grown))
    assert 120 * 128 * 2 == 30_720 and 30_720 / (384 * 4) == 20


def test_learned_sparse_retrieval():
    """log 5 = 1.61, exact zeros from ReLU, the sparse dot product, and the FLOPS penalties 1 and 0.5."""

    def weight(logits):
        return max(math.log(1 + max(0.0, h)) for h in logits)

    assert math.isclose(weight([-2, 1.5, 4]), math.log(5)) and round(math.log(5), 2) == 1.61
    assert weight([-2, -0.1]) == 0
    query, doc = {"automobile": 0.5, "car": 1.0}, {"automobile": 1.6, "engine": 0.9}
    words = sorted(query | doc)
    dense = [[text.get(word, 0.0) for word in words] for text in (query, doc)]
    assert math.isclose(sum(query[w] * doc[w] for w in query.keys() & doc.keys()), np.dot(*dense))

    def flops(weights):
        return (np.mean(weights, axis=0) ** 2).sum()

    assert flops([[1, 0], [1, 0]]) == 1 and flops([[1, 0], [0, 1]]) == 0.5


def test_query_expansion():
    """Rocchio by hand: cosines 0.6, 0.81 and 0.34; λ = 0 leaves the query; a mixture is a distribution."""
    query, answer, wrong = np.array([1.0, 0.0]), np.array([0.6, 0.8]), np.array([0.6, -0.8])

    def rocchio(relevant, other=((0.0, 0.0),), alpha=1.0, beta=0.5, gamma=0.0):
        return alpha * query + beta * np.mean(relevant, axis=0) - gamma * np.mean(other, axis=0)

    assert math.isclose(cosine(query, answer), 0.6)
    np.testing.assert_allclose(rocchio([answer]), (1.3, 0.4))
    assert round(cosine(rocchio([answer]), answer), 2) == 0.81
    assert round(cosine(rocchio([wrong]), answer), 2) == 0.34
    assert cosine(rocchio([answer], [wrong], gamma=0.25), answer) > cosine(rocchio([answer]), answer)
    asked, feedback = np.array([0.5, 0.5, 0.0]), np.array([0.1, 0.3, 0.6])
    mixed = [(1 - weight) * asked + weight * feedback for weight in (0.0, 0.4)]
    assert np.array_equal(mixed[0], asked) and math.isclose(mixed[1].sum(), 1) and mixed[1][2] > 0


def test_mean_pooling():
    """(1, 2) with the mask and (2.67, 3.33) without, the average of pairs, 1/√n, and averages of chunks."""
    hidden, mask = np.array([[2.0, 0.0], [0.0, 4.0], [6.0, 6.0]]), np.array([1, 1, 0])
    np.testing.assert_allclose(mask @ hidden / mask.sum(), (1, 2))
    np.testing.assert_allclose(hidden.mean(0).round(2), (2.67, 3.33))
    padded = np.vstack([hidden, [[6.0, 6.0]]])
    assert not np.allclose(padded.mean(0), hidden.mean(0))
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 8)), rng.normal(size=(9, 8))
    assert math.isclose(a.mean(0) @ b.mean(0), np.mean([u @ v for u in a for v in b]))
    for n in (4, 8):
        assert math.isclose(np.linalg.norm(np.eye(8)[:n].mean(0)), 1 / math.sqrt(n))
    assert np.linalg.norm(np.eye(8)[:4].mean(0)) == 0.5
    # Equal chunks do not give the embedding of the whole: the order of normalising matters ...
    chunks = np.array([[3.0, 0.0], [0.0, 1.0]])
    for one in (chunks.mean(0), (chunks / np.linalg.norm(chunks, axis=1, keepdims=True)).mean(0)):
        direction = one / np.linalg.norm(one)
        assert f"({direction[0]:.2f}, {direction[1]:.2f})" in passage("mean-pooling", "mathematics")

    # ... and so does attention, which inside a chunk sees that chunk only.
    def attend(tokens):
        weights = np.exp(tokens @ tokens.T)
        return weights / weights.sum(1, keepdims=True) @ tokens

    tokens = b[:8]
    assert np.allclose((tokens[:4].mean(0) + tokens[4:].mean(0)) / 2, tokens.mean(0))
    halves = [attend(tokens[:4]).mean(0), attend(tokens[4:]).mean(0)]
    assert not np.allclose(np.mean(halves, axis=0), attend(tokens).mean(0), atol=0.01)
    # Pooling first and normalising afterwards is not the same as normalising the tokens first.
    units = a / np.linalg.norm(a, axis=1, keepdims=True)
    assert cosine(a.mean(0), units.mean(0)) < 0.999


def test_query_rewriting_in_conversations():
    """F1 0.57 from precision 2/4 and recall 2/3, recall 0.74 as a mixture, and 0.95⁶ = 0.735."""
    text = passage("query-rewriting-in-conversations", "mathematics")
    right, added, due = 2, 4, 3
    precision, recall = right / added, right / due
    f1 = 2 * precision * recall / (precision + recall)
    assert math.isclose(f1, 2 * right / (added + due))
    assert f"F1 value of the added terms {f1:.2f}." in text
    assert f"0.9·0.8 + 0.1·0.2 = {0.9 * 0.8 + (1 - 0.9) * 0.2:.2f}." in text
    whole = math.prod([0.95] * 6)
    assert f"0.95⁶ = {whole:.3f}" in text
    # Built on the user's words each time, a late turn is right with 0.95, whatever came before.
    outcomes = itertools.product([(True, 0.95), (False, 0.05)], repeat=6)
    chances = [(math.prod(p for _, p in six), [good for good, _ in six]) for six in outcomes]
    assert math.isclose(sum(p for p, good in chances if good[-1]), 0.95)
    assert math.isclose(sum(p for p, good in chances if all(good)), whole)


def test_matryoshka_embeddings():
    """Cosine 0.36 whole and 0.6 for the prefix, bytes and gigabytes, and the cost of a shortlist."""
    text = passage("matryoshka-embeddings", "mathematics")
    a, b = np.array([0.6, 0, 0.8]), np.array([0.6, 0.8, 0])
    assert math.isclose(np.linalg.norm(a), 1) and math.isclose(np.linalg.norm(b), 1)
    assert f"the cosine is {a @ b:.2f}, but {cosine(a[:2], b[:2]):.1f} for their first two" in text
    assert f"from {1024 * 4:,} to {256 * 4:,} bytes" in text
    assert f"from {1e7 * 1024 * 4 / 1e9:.0f} to {1e7 * 256 * 4 / 1e9:.1f} GB" in text
    short, full = 1_000_000 * 64 + 200 * 1024, 1_000_000 * 1024
    assert f"takes {short / 1e6:.1f} million multiplications, {full / short:.0f} times fewer" in text
    assert 1024 * 4 / 1024 == 1024 * 4 / (256 * 4) == 4  # int8 at full length, or a quarter in float32
    # Where variance is spread evenly over turned axes, a PCA keeps more of it than the first numbers.
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(500, 16)) * np.geomspace(1, 0.05, 16)
    turned = spread @ np.linalg.qr(rng.normal(size=(16, 16)))[0]
    axes = np.linalg.svd(turned - turned.mean(0), full_matrices=False)[2]
    assert ((turned @ axes[:4].T).var(0).sum()) > 1.5 * turned[:, :4].var(0).sum()


def test_score_based_hybrid_fusion():
    """0.75 and 0.525 against a tie in RRF, the crossing at α = 0.655, and 0.88 with a fixed lower end."""
    text = passage("score-based-hybrid-fusion", "mathematics")
    bm25, dense = np.array([28, 9, 8]), np.array([0.6, 0.7, 0.5])
    x, y = ((s - s.min()) / np.ptp(s) for s in (dense, bm25))
    np.testing.assert_allclose((x, y), ([0.5, 1, 0], [1, 0.05, 0]))
    a, b, _ = 0.5 * x + 0.5 * y
    assert f"a scores {a:.2f} and b {b:.3f}," in text
    ranks = [(-s).argsort().argsort() + 1 for s in (bm25, dense)]
    fused = sum(1 / (60 + r) for r in ranks)
    assert math.isclose(fused[0], fused[1]) and fused[2] < fused[1]
    crossing = (y[0] - y[1]) / ((y[0] - y[1]) + (x[1] - x[0]))
    assert f"when α exceeds {crossing:.3f}." in text
    for alpha, first in ((crossing - 0.01, 0), (crossing + 0.01, 1)):
        assert (alpha * x + (1 - alpha) * y).argmax() == first
    assert f"1.5/1.7 = {(dense[2] + 1) / (dense.max() + 1):.2f}" in text
    # A shift of one list changes no order; only the ratio of the two scales does.
    shifted = 0.3 * (dense + 5) + 0.7 * y
    assert (shifted.argsort() == (0.3 * dense + 0.7 * y).argsort()).all()
