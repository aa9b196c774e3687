"""The formulas and numbers of data/build/topics/language-models.toml, worked through in code."""

import itertools
import math
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import Llama4TextConfig, SmolLM3Config

ROOT = Path(__file__).parents[2]
FAMILY = tomllib.loads((ROOT / "data/build/topics/language-models.toml").read_text(encoding="utf-8"))
TEXT = {f"{t['id']}-{p['style']}": p["text"] for t in FAMILY["topic"] for p in t["passage"]}


def softmax(scores):
    weights = np.exp(np.asarray(scores, dtype=float) - np.max(scores))
    return weights / weights.sum()


def pair_counts(words):
    """Counts of adjacent symbol pairs; `words` maps a tuple of symbols to its count."""
    counts = Counter()
    for word, count in words.items():
        for pair in itertools.pairwise(word):
            counts[pair] += count
    return counts


def merge(word, pair):
    """The symbols of `word` with every occurrence of `pair` joined, from left to right."""
    out, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def test_subword_tokenization():
    """Pair counts and merges of the worked text, vocabulary size, UTF-8 lengths, a moved boundary."""
    words = {tuple("low"): 5, tuple("lower"): 2, tuple("newest"): 6, tuple("widest"): 3}
    counts = pair_counts(words)
    top = max(counts.values())
    assert top == 6 + 3 == 9
    assert {pair for pair, count in counts.items() if count == top} == {("e", "s"), ("s", "t")}
    merged = Counter()
    for word, count in words.items():
        merged[merge(word, ("e", "s"))] += count
    counts = pair_counts(merged)
    assert counts[("es", "t")] == 9 and counts.most_common(1)[0][0] == ("es", "t")
    assert merge(("w", "i", "d", "es", "t"), ("es", "t"))[-1] == "est"

    # A + M bounds the vocabulary: each merge adds at most one new symbol.
    vocabulary = {symbol for word in words for symbol in word}
    alphabet, current = len(vocabulary), dict(words)
    for merges in range(1, 8):
        best = pair_counts(current).most_common(1)[0][0]
        vocabulary.add(best[0] + best[1])
        current = {merge(word, best): count for word, count in current.items()}
        assert len(vocabulary) <= alphabet + merges
    assert 256 + 5744 == 6000

    for code_point in itertools.chain(range(128, 0xD800, 97), range(0xE000, 0x110000, 997)):
        assert 2 <= len(chr(code_point).encode()) <= 4
    with pytest.raises(UnicodeDecodeError):  # half a character cannot be decoded
        "ï".encode()[:1].decode()

    def tokenize(text):
        return merge(merge(tuple(text), ("h", "e")), ("he", "n"))

    assert tokenize("he") == ("he",) and tokenize("hen") == ("hen",)
    assert tokenize("he") + tokenize("n") != tokenize("hen")


def test_attention():
    """Worked weights, the variance of dot products, mask before against after the softmax, PyTorch's mask."""
    assert np.round(softmax(np.array([2, 0]) / math.sqrt(4)), 3).tolist() == [0.731, 0.269]
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 4)), rng.normal(size=(5, 4)), rng.normal(size=(5, 2))
    matrix = np.stack([softmax(row) for row in q @ k.T / 2]) @ v
    for i in range(3):
        exps = [math.exp(q[i] @ k[j] / 2) for j in range(5)]
        by_hand = sum(e / sum(exps) * v[j] for j, e in enumerate(exps))
        assert np.allclose(matrix[i], by_hand)
    torch_out = F.scaled_dot_product_attention(*(torch.tensor(m)[None] for m in (q, k, v)))
    assert np.allclose(torch_out[0].numpy(), matrix)

    # Variance: exact over ±1 components (mean 0, variance 1), d = 3.
    signs = list(itertools.product([-1, 1], repeat=3))
    dots = np.array([np.dot(a, b) for a in signs for b in signs])
    assert dots.mean() == 0 and np.isclose(dots.var(), 3)
    assert np.isclose((dots / math.sqrt(3)).var(), 1)

    assert (2 * 7) ** 2 == 4 * 7**2  # twice the tokens, four times the scores
    scores = np.array([1.0, 0.5, 2.0])
    masked = softmax([1.0, 0.5, -np.inf])
    assert masked[2] == 0 and np.isclose(masked.sum(), 1)
    assert np.sum(softmax(scores) * [1, 1, 0]) < 1  # zeroed afterwards: no longer sums to one
    assert torch.full((3,), -math.inf).softmax(-1).isnan().all()
    for keep in (torch.zeros(3, 5, dtype=torch.bool), torch.full((3, 5), -math.inf, dtype=torch.float64)):
        by_torch = F.scaled_dot_product_attention(*(torch.tensor(m)[None] for m in (q, k, v)), attn_mask=keep)
        assert (by_torch == 0).all()  # a wholly masked row: zeros, where a softmax by hand gives NaN
    band = np.tri(40) - np.tri(40, k=-8)  # each token and the seven before it
    assert band.sum(1).max() == 8 and band.sum() <= 40 * 8

    q1, k1 = torch.ones(1, 1, 2), torch.zeros(1, 2, 2)
    v1 = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    out = F.scaled_dot_product_attention(q1, k1, v1, attn_mask=torch.tensor([[True, False]]))
    assert torch.equal(out[0, 0], v1[0, 0])  # True takes part


def test_causal_decoder():
    """The chain rule on a small joint distribution, the worked product, the mask's count and its effect."""
    joint = np.random.default_rng(0).dirichlet(np.ones(27)).reshape(3, 3, 3)
    for a, b, c in itertools.product(range(3), repeat=3):
        first = joint[a].sum()
        second = joint[a, b].sum() / first
        third = joint[a, b, c] / joint[a, b].sum()
        assert np.isclose(first * second * third, joint[a, b, c])
    assert math.isclose(0.5 * 0.4 * 0.25, 0.05)

    for n in range(1, 9):
        bias = np.where(np.tri(n) == 1, 0.0, -np.inf)
        weights = np.stack([softmax(row) for row in bias + 1.0])
        assert np.count_nonzero(weights) == n * (n + 1) // 2
        assert (np.count_nonzero(weights, axis=1) == np.arange(1, n + 1)).all()
    assert 4 * 5 // 2 == 10 and 4 * 4 == 16
    tokens = list("abcdef")
    assert len(list(zip(tokens[:-1], tokens[1:], strict=True))) == len(tokens) - 1

    # −100 leaves a position out of PyTorch's cross-entropy, which those models use.
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, -100, 4])
    assert torch.isclose(F.cross_entropy(logits, labels), F.cross_entropy(logits[[0, 2]], labels[[0, 2]]))


def test_cross_entropy_and_perplexity():
    """Worked perplexities, log 6000, the gradient, H(q) + KL(q‖p), bits per byte, mean over tokens."""
    probabilities = np.array([0.5, 0.25, 0.125])
    nats = -np.log(probabilities).mean()
    assert round(nats, 3) == 1.386 and np.isclose(nats / math.log(2), 2)
    assert np.isclose(math.exp(nats), 4)
    assert np.isclose(math.exp(nats), 1 / np.prod(probabilities) ** (1 / 3))
    assert round(math.log(6000), 2) == 8.70
    for size in (20, 6000):  # even bets: the perplexity is the number of choices
        assert np.isclose(math.exp(-np.log(np.full(5, 1 / size)).mean()), size)
    assert math.exp(-math.log(1.0)) == 1

    logits, target, step = np.array([0.3, -1.2, 2.0, 0.5]), 1, 1e-6
    gradient = softmax(logits) - np.eye(4)[target]
    for i in range(4):
        up, down = logits + step * np.eye(4)[i], logits - step * np.eye(4)[i]
        numeric = (-np.log(softmax(up)[target]) + np.log(softmax(down)[target])) / (2 * step)
        assert np.isclose(numeric, gradient[i], atol=1e-8)

    q, p = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.5, 0.3])
    cross = -(q * np.log(p)).sum()
    assert np.isclose(cross, -(q * np.log(q)).sum() + (q * np.log(q / p)).sum())
    assert cross > -(q * np.log(q)).sum()

    # One text of 4 bytes and probability 1/16: two tokens or four, the bits per byte agree.
    for tokens in (np.full(2, 1 / 4), np.full(4, 1 / 2)):
        assert np.isclose(-np.log2(tokens).sum() / 4, 1)
    assert not np.isclose(math.exp(math.log(4)), math.exp(math.log(2)))  # their perplexities do not

    batches = [[2.0] * 30, [8.0] * 2]
    assert sum(map(sum, batches)) / sum(map(len, batches)) == 2.375
    assert np.mean([np.mean(batch) for batch in batches]) == 5


def test_sampling_and_temperature():
    """The worked softmaxes, the ratio of two tokens, both limits of T, top-p against brute force."""
    z = np.array([2.0, 1.0, 0.0])
    assert np.round(softmax(z), 3).tolist() == [0.665, 0.245, 0.090]
    assert np.round(softmax(z / 0.5), 3).tolist() == [0.867, 0.117, 0.016]
    for temperature in (0.1, 0.5, 1, 3, 50):
        p = softmax(z / temperature)
        assert np.isclose(p[0] / p[2], math.exp((z[0] - z[2]) / temperature))
        assert (np.argsort(-p) == [0, 1, 2]).all()
    assert softmax(z / 0.01)[0] > 0.999999 and np.allclose(softmax(z / 1e6), 1 / 3, atol=1e-6)

    def nucleus(p, mass):
        """The smallest set that reaches `mass`, by trying every set; the likeliest of that size."""
        for size in range(1, len(p) + 1):
            best = max(itertools.combinations(range(len(p)), size), key=lambda s: p[list(s)].sum())
            if p[list(best)].sum() >= mass:
                return list(best)

    p = softmax(z)
    kept = nucleus(p, 0.9)
    assert kept == [0, 1] and round(p[kept].sum(), 3) == 0.910 and round(0.665 + 0.245, 3) == 0.910
    assert np.round(p[kept] / p[kept].sum(), 3).tolist() == [0.731, 0.269]
    flatter = softmax(z / 2)
    assert len(nucleus(flatter, 0.9)) == 3
    with np.errstate(divide="ignore", invalid="ignore"):  # T = 0: 2/0, 1/0 and 0/0
        assert not np.isfinite(softmax(z / 0.0)).all()
    # Log-probabilities at another temperature belong to another distribution.
    assert not np.allclose(softmax(z) / softmax(z / 0.5), 1)


def test_greedy_and_beam_search():
    """The worked tree, beams against full enumeration, the bias to short texts, length normalisation."""
    assert math.isclose(0.6 * 0.5, 0.30) and math.isclose(0.4 * 0.9, 0.36)
    rng = np.random.default_rng(1)

    def beam(first, later, width):
        """Beam search over texts of three tokens; each next token depends on the last one only."""
        texts = sorted(((math.log(p), (i,)) for i, p in enumerate(first)), reverse=True)[:width]
        for _ in range(2):
            grown = [(s + math.log(p), t + (i,)) for s, t in texts for i, p in enumerate(later[t[-1]])]
            texts = sorted(grown, reverse=True)[:width]
        return texts[0]

    missed = {1: 0, 2: 0, 16: 0}
    for _ in range(50):
        first, later = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4), size=4)
        score = {
            t: math.log(first[t[0]] * later[t[0], t[1]] * later[t[1], t[2]])
            for t in itertools.product(range(4), repeat=3)
        }
        best = max(score.values())
        for width in missed:
            missed[width] += beam(first, later, width)[0] < best - 1e-12
    assert missed[1] > missed[2] > missed[16] == 0  # neither greedy nor a narrow beam is sure
    assert -4 < -3 and -4 / 4**1 == -1 and -3 / 2**1 == -1.5 and -1 > -1.5


def test_key_value_cache():
    """Bytes per token, 2 GiB at 4,096 tokens, tokens processed, four times smaller, cache equals full."""
    per_token = 2 * 32 * 32 * 128 * 2
    assert per_token == 524_288 and per_token * 4096 == 2 * 2**30
    for n in (1, 7, 100):
        assert sum(range(1, n + 1)) == n * (n + 1) // 2
    assert 100 * 101 // 2 == 5050
    assert per_token == 4 * (2 * 32 * 8 * 128 * 2)

    # Two causal layers: keys and values of a token stay the same when later tokens are added.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 8, generator=generator)
    wq, wk, wv = torch.randn(3, 2, 8, 8, generator=generator) / 8**0.5

    def full(x):
        for layer in range(2):
            q, k, v = (x @ w[layer] for w in (wq, wk, wv))
            x = x + F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
        return x

    keys, values = [[], []], [[], []]
    for t in range(6):
        hidden = x[t]
        for layer in range(2):
            keys[layer].append(hidden @ wk[layer])
            values[layer].append(hidden @ wv[layer])
            scores = torch.stack(keys[layer]) @ (hidden @ wq[layer]) / 8**0.5
            hidden = hidden + scores.softmax(-1) @ torch.stack(values[layer])
        assert torch.allclose(hidden, full(x)[t], atol=1e-4)
        assert torch.allclose(full(x[: t + 1])[t], full(x)[t], atol=1e-4)
    # With a window of w keys, a step reads the last w cached rows and no others.
    w = 3
    x1 = x[None]
    band = (torch.ones(6, 6).tril() - torch.ones(6, 6).tril(-w)).bool()
    window = F.scaled_dot_product_attention(x1, x1, x1, attn_mask=band)[0]
    for t in range(6):
        kept = x[max(0, t + 1 - w) : t + 1]
        assert torch.allclose((kept @ x[t] / 8**0.5).softmax(0) @ kept, window[t], atol=1e-5)
    # Another first token changes the deeper keys of all tokens after it: only whole prefixes can be shared.
    other = x.clone()
    other[0] += 1
    assert not torch.allclose(full(x)[1:], full(other)[1:], atol=1e-2)


def test_low_rank_adaptation():
    """Parameter counts, the rank, the start at the base model, the gradients, merging."""
    d = k = 4096
    assert 8 * (d + k) == 65_536 and d * k == 16_777_216
    # Weights and gradients of 2 bytes, a copy of 4 and Adam's two moments of 4 each.
    assert f"or {7 * (2 + 2 + 4 + 4 + 4)} GB for seven billion" in TEXT["low-rank-adaptation-intuition"]
    assert round(100 * 65_536 / 16_777_216, 2) == 0.39

    rng = np.random.default_rng(0)
    w, b, a = rng.normal(size=(5, 4)), rng.normal(size=(5, 2)), rng.normal(size=(2, 4))
    x, g, scale = rng.normal(size=4), rng.normal(size=5), 16 / 2
    assert np.linalg.matrix_rank(b @ a) == 2
    assert np.allclose((w + scale * b @ a) @ x, w @ x + scale * (b @ (a @ x)))
    assert np.array_equal(w @ x + scale * (np.zeros((5, 2)) @ a @ x), w @ x)

    def loss(b, a):  # linear in y, so that ∂L/∂y = g everywhere
        return g @ (w @ x + scale * b @ (a @ x))

    grad_b, grad_a = scale * np.outer(g, a @ x), scale * np.outer(b.T @ g, x)
    step = 1e-6
    for matrix, gradient in ((b, grad_b), (a, grad_a)):
        for i, j in np.ndindex(matrix.shape):
            old = matrix[i, j]
            matrix[i, j] = old + step
            up = loss(b, a)
            matrix[i, j] = old - step
            down = loss(b, a)
            matrix[i, j] = old
            assert np.isclose((up - down) / (2 * step), gradient[i, j], atol=1e-5)

    zero_b, zero_a = np.zeros_like(b), np.zeros_like(a)
    assert not np.outer(g, zero_a @ x).any() and not np.outer(zero_b.T @ g, x).any()
    assert np.outer(g, a @ x).any() and not np.outer(zero_b.T @ g, x).any()  # only B moves at first


def test_chat_templates():
    """The token count of the worked conversation, its masked loss, and the prefix property."""

    def template(messages, open_assistant=False):
        ids, mask = [], []
        for role, content in messages:
            ids += ["<start>", role, *content, "<end>"]
            # The opening of a turn is part of the prompt; the answer and its end token carry the loss.
            mask += [0, 0] + [int(role == "assistant")] * (len(content) + 1)
        return ids + ["<start>", "assistant"] * open_assistant, mask

    chat = [("user", ["q"] * 10), ("assistant", ["a"] * 20)]
    ids, mask = template(chat)
    assert len(ids) == len(mask) == 10 + 20 + 2 * 3 == 36
    assert sum(mask) == 21
    prompt, _ = template(chat[:1], open_assistant=True)
    assert ids[: len(prompt)] == prompt and ids[len(prompt) :] == ["a"] * 20 + ["<end>"]
    cost = np.where(np.array(ids) == "a", 1.0, 3.1)
    loss = (cost * mask).sum() / sum(mask)
    assert np.isclose(loss, (20 + 3.1) / 21) and round(loss, 2) == 1.10


def test_copying_and_induction():
    """The two-layer circuit in matrices, the weight of the match, 0.99⁵, the floor of random tokens."""

    def weight(c, n):
        return softmax([c] + [0.0] * (n - 1))[0]

    for c, n, rounded in ((10, 101, 0.995), (5, 101, 0.597), (5, 1001, 0.129)):
        assert np.isclose(weight(c, n), math.exp(c) / (math.exp(c) + n - 1))
        assert round(weight(c, n), 3) == rounded
    assert round(0.99**5, 3) == 0.951
    assert round(math.log(1000), 2) == 6.91

    # One-hot tokens: head one writes s_{j−1} into position j, head two matches s_t against these notes.
    rng = np.random.default_rng(0)
    half = rng.permutation(50)
    tokens = np.concatenate([half, half])
    one_hot = np.eye(50)[tokens]
    notes = np.vstack([np.zeros(50), one_hot[:-1]])
    right = 0
    for t in range(50, 99):
        a = softmax(20 * notes[: t + 1] @ one_hot[t])
        right += np.argmax(a @ one_hot[: t + 1]) == tokens[t + 1]
    assert right == 49  # every token of the second half but its first can be copied


def test_rotary_positions():
    """Rotations compose to a difference; the worked cosine, lengths, slowest pair, bfloat16."""

    def rotation(angle):
        return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    assert np.allclose(
        rotation(0.7) @ [2, 3], [2 * math.cos(0.7) - 3 * math.sin(0.7), 2 * math.sin(0.7) + 3 * math.cos(0.7)]
    )
    for m, n in ((5, 3), (12, 10), (0, 7)):
        assert np.allclose(rotation(m).T @ rotation(n), rotation(n - m))
    e = np.array([1.0, 0.0])
    for m, n in ((5, 3), (12, 10)):
        assert round((rotation(m) @ e) @ (rotation(n) @ e), 3) == round(math.cos(2), 3) == -0.416

    def rope(x, m):
        d = len(x)
        theta = 10000.0 ** (-2 * np.arange(d // 2) / d)
        return np.concatenate([rotation(m * t) @ x[2 * i : 2 * i + 2] for i, t in enumerate(theta)])

    q, k = np.random.default_rng(0).normal(size=(2, 8))
    assert np.isclose(rope(q, 5) @ rope(k, 3), rope(q, 15) @ rope(k, 13))  # ten places along
    assert not np.isclose(rope(q, 5) @ rope(k, 3), rope(q, 5) @ rope(k, 4))
    assert np.isclose(np.linalg.norm(rope(q, 37)), np.linalg.norm(q))
    turn = 2 * math.pi / 10000 ** (-126 / 128)
    assert round(turn, -2) == 54_400

    # The other layout pairs the halves: the same vectors score differently, unless they are reordered.
    order = np.arange(8).reshape(2, 4).T.ravel()  # halves as neighbours: 0 4 1 5 2 6 3 7
    assert not np.isclose(rope(q, 5) @ rope(k, 3), rope(q[order], 5) @ rope(k[order], 3))

    for config in (SmolLM3Config(), Llama4TextConfig()):  # 0 marks a layer without rotation
        assert [i % 4 == 3 for i in range(config.num_hidden_layers)] == [not r for r in config.no_rope_layers]

    integers = torch.arange(0, 512, dtype=torch.float32)
    wrong = integers.to(torch.bfloat16).float() != integers
    assert not wrong[:257].any() and wrong[257]
    # Without positions and without a mask, attention does not care for the order of its tokens.
    x = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 1, 4, 0, 2])
    out = F.scaled_dot_product_attention(x[None], x[None], x[None])[0]
    moved = F.scaled_dot_product_attention(x[order][None], x[order][None], x[order][None])[0]
    assert torch.allclose(out[order], moved)
    assert max(np.arange(4096) / 2) < 2048  # positions divided by 2 stay in a trained range of 2,048


def test_test_time_compute():
    """1 − (1 − p)^n, majority votes against enumeration, pass@k against all subsets."""
    text = TEXT["test-time-compute-mathematics"]
    assert f"which is {1 - 0.7**10:.3f} for p = 0.3 and n = 10" in text

    def majority(p, n):
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n // 2 + 1, n + 1))

    for p in (0.6, 0.4):
        votes = itertools.product([0, 1], repeat=3)
        by_hand = sum(math.prod(p if v else 1 - p for v in vote) for vote in votes if sum(vote) > 1.5)
        assert np.isclose(majority(p, 3), by_hand)
        assert f"p = {p}: {majority(p, 3):.3f} for n = 3, {majority(p, 11):.3f} for n = 11" in text
        assert (majority(p, 11) < p) == (p < 0.5)  # voting makes it worse below one half

    right = [1] * 3 + [0] * 7  # n = 10 samples, c = 3 right
    for k in (1, 2, 5):
        subsets = list(itertools.combinations(right, k))
        assert np.isclose(1 - math.comb(7, k) / math.comb(10, k), sum(map(any, subsets)) / len(subsets))


def test_flash_attention():
    """The online softmax over blocks and its worked sums, the score matrix in MiB, the n²·d²/S count."""
    text = TEXT["flash-attention-mathematics"]
    first = math.exp(1 - 3) + 1
    then = first * math.exp(3 - 4) + 1
    assert f"l = e⁻² + 1 = {first:.3f}" in text and f"l = {first:.3f}·e⁻¹ + 1 = {then:.3f}" in text
    assert np.isclose(then, sum(math.exp(s - 4) for s in (1, 3, 4)))
    assert f"would fill {8192**2 * 2 // 2**20} MiB" in text
    assert "n²/16 for d = 64 and S = 65,536" in text and 65_536 / 64**2 == 16

    rng = np.random.default_rng(0)
    scores, values = 30 * rng.normal(size=50), rng.normal(size=(50, 4))
    m, total, out = -np.inf, 0.0, np.zeros(4)
    for start in range(0, 50, 7):
        block = slice(start, start + 7)
        top = max(m, scores[block].max())
        weights = np.exp(scores[block] - top)
        total = total * np.exp(m - top) + weights.sum()
        out, m = out * np.exp(m - top) + weights @ values[block], top
    assert np.allclose(out / total, softmax(scores) @ values)


def test_speculative_decoding():
    """The worked acceptance, exactness of the kept token, tokens per pass against enumeration, speed-up."""
    text = TEXT["speculative-decoding-mathematics"]
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.7, 0.2, 0.1])
    alpha = np.minimum(p, q).sum()
    assert f"{alpha:.1f} for p = (0.5, 0.3, 0.2) and q = (0.7, 0.2, 0.1)" in text
    assert np.isclose(alpha, q @ np.minimum(1, p / q))
    for seed in range(20):
        p, q = np.random.default_rng(seed).dirichlet(np.ones(5), size=2)
        rest = np.maximum(0, p - q)
        rejected = 1 - q @ np.minimum(1, p / q)
        assert np.isclose(rest.sum(), rejected)
        assert np.allclose(q * np.minimum(1, p / q) + rejected * rest / rest.sum(), p)

    def expected(a, gamma):
        return (1 - a ** (gamma + 1)) / (1 - a)

    # The run of accepted drafts, and one token that the target adds.
    by_hand = sum(
        math.prod(0.8 if kept else 0.2 for kept in run) * (1 + [*run, False].index(False))
        for run in itertools.product([True, False], repeat=4)
    )
    assert np.isclose(expected(0.8, 4), by_hand)
    assert f"{expected(0.8, 4):.2f} for α = 0.8 and γ = 4" in text
    assert f"3.36/{4 * 0.05 + 1:.1f} = {expected(0.8, 4) / (4 * 0.05 + 1):.2f}" in text
    assert "at α = 0.5 no draft length gets beyond 2" in TEXT["speculative-decoding-practice"]
    assert expected(0.5, 3) < expected(0.5, 30) < 2.0 + 1e-9


def test_weight_quantisation():
    """Absmax codes with and without the outlier, the bound s/2, bits per weight, the scaled channel."""
    text = TEXT["weight-quantisation-mathematics"]

    def absmax(w):
        s = np.abs(w).max() / 127
        return s, np.round(w / s)

    s, codes = absmax(np.array([0.40, -1.27, 0.04]))
    assert f"have s = {s:.2f} and the codes 40, −127 and 4" in text and codes.tolist() == [40, -127, 4]
    s, codes = absmax(np.array([0.40, -1.27, 0.04, 12.7]))
    assert f"s becomes {s:.1f} and the codes 4, −13, 0 and 127" in text and codes.tolist() == [4, -13, 0, 127]
    w = np.random.default_rng(0).normal(size=1000)
    s, codes = absmax(w)
    assert s / 4 < np.abs(codes * s - w).max() <= s / 2 + 1e-12

    bits = 4 + 16 / 128
    assert f"{bits} for b = 4 and g = 128" in text and f"{7e9 * bits / 8 / 1e9:.2f} GB" in text
    assert 7e9 * 16 / 8 == 14e9 and "are 14 GB" in TEXT["weight-quantisation-intuition"]

    # W·x = (W·D)·(D⁻¹·x), and at the same step a doubled channel is rounded half as coarsely.
    rng = np.random.default_rng(1)
    weights, x, d = rng.normal(size=(3, 4)), rng.normal(size=4), np.array([1.0, 2.0, 1.0, 0.5])
    assert np.allclose(weights @ x, (weights * d) @ (x / d))
    errors = [np.abs(np.round(scale * w / 0.1) * 0.1 / scale - w).mean() for scale in (1, 2)]
    assert 1.8 < errors[0] / errors[1] < 2.2
