"""Formulas and numbers of the retrieval passages on LLM embedders, many languages and page images."""

import math
import re
import tomllib
from pathlib import Path

import numpy as np

from ragkit.retrieval.default_encoder import default_tokenizer

TOPICS = Path(__file__).parents[2] / "data/build/topics"


def passage(topic, style):
    """The text of one passage, its lines joined, to read numbers from."""
    files = [tomllib.loads(path.read_text(encoding="utf-8")) for path in TOPICS.glob("retrieval*.toml")]
    found = next(t for f in files for t in f["topic"] if t["id"] == topic)
    return " ".join(next(p["text"] for p in found["passage"] if p["style"] == style).split())


def number(text, pattern):
    """The number that the pattern's group finds in the text, thousands separators removed."""
    return float(re.search(pattern, text)[1].replace(",", ""))


def test_llm_embedders():
    """Operations, hours, bytes and milliseconds of 110 million and 7 billion parameters; causal states."""
    text = passage("llm-embedders", "mathematics")
    small, large, tokens, speed = 110e6, 7e9, number(text, r"([\d]+) tokens 4"), 200e12
    operations = [2 * n * tokens for n in (small, large)]
    assert operations == [4.4e10, 2.8e12] and "4.4·10¹⁰ 2.8·10¹²" in text
    seconds = [1e6 * o / speed for o in operations]
    assert seconds == [number(text, r"([\d,]+) s 14"), number(text, r"220 s ([\d,]+) s")]
    assert round(seconds[1] / 3600, 1) == number(text, r"that is ([\d.]+) hours") and seconds[0] < 4 * 60
    assert round(large / small) == number(text, r"([\d]+) times as long")
    vectors = [4 * dimensions for dimensions in (768, 4096)]
    assert vectors == [number(text, r"vector ([\d,]+) bytes"), number(text, r"3,072 bytes ([\d,]+) bytes")]
    assert [round(v * 1e6 / 1e9, 1) for v in vectors] == [3.1, 16.4] and "3.1 or 16.4 GB" in text
    weights = 2 * large
    assert weights == 1e9 * number(text, r"are ([\d]+) GB")
    assert weights / 2e12 == number(text, r"at least ([\d]+) ms at 2 TB/s") / 1e3
    assert weights / 50e9 == number(text, r"and ([\d]+) ms at a CPU's 50 GB/s") / 1e3

    def states(x, causal):
        """One layer of attention without weights, each position a mean of what it may see."""
        logits = np.where(np.tri(len(x), dtype=bool) | (not causal), x @ x.T, -np.inf)
        attention = np.exp(logits - logits.max(1, keepdims=True))
        return attention / attention.sum(1, keepdims=True) @ x

    x = np.random.default_rng(0).normal(size=(5, 4))
    y = np.vstack([x[:4], x[4:] + 1])  # another last word
    for causal in (True, False):
        same = np.isclose(states(x, causal), states(y, causal)).all(1)
        assert same.tolist() == ([True] * 4 + [False] if causal else [False] * 5)


def test_multilingual_retrieval():
    """0.63 against 0.72, the threshold 0.23, what centring removes, and 7 and 15 word pieces."""
    text = passage("multilingual-retrieval", "mathematics")
    share, right, wrong = (
        number(text, p) for p in (r"At λ² = ([\d.]+)", r"cosine ([\d.]+)", r"with ([\d.]+) scores")
    )
    basis = np.eye(8)  # meanings in the first four directions, languages in the last four

    def vector(cosine, language):
        meaning = cosine * basis[0] + math.sqrt(1 - cosine**2) * basis[1]
        return math.sqrt(1 - share) * meaning + math.sqrt(share) * basis[4 + language]

    query, good, bad = vector(1, 0), vector(right, 1), vector(wrong, 0)
    assert all(math.isclose(np.linalg.norm(v), 1) for v in (query, good, bad))
    assert math.isclose(query @ good, number(text, r"0.9 scores ([\d.]+),"))
    assert math.isclose(query @ bad, number(text, r"0.42 \+ 0.3 = ([\d.]+\d)"))
    assert math.isclose(query @ bad - share, 0.42)
    threshold = (right - wrong) / (1 + right - wrong)
    assert math.isclose(threshold, 0.3 / 1.3) and round(threshold, 2) == number(text, r"≈ ([\d.]+\d)")
    share = threshold
    assert math.isclose(vector(1, 0) @ vector(right, 1), vector(1, 0) @ vector(wrong, 0))
    share = 0.9  # one language: the order is that of the meanings, however large the share
    assert vector(1, 0) @ vector(right, 0) > vector(1, 0) @ vector(wrong, 0)
    english, german = (np.array([vector(c, k) for c in (1, right, wrong)]) for k in (0, 1))
    np.testing.assert_allclose(english - english.mean(0), german - german.mean(0), atol=1e-12)
    assert not np.allclose(english[:2] - english[:2].mean(0), german[1:] - german[1:].mean(0))  # other topics
    practice, tokenizer = passage("multilingual-retrieval", "practice"), default_tokenizer()
    pieces = [len(tokenizer.tokenize(sentence)) for sentence in re.findall(r'"([^"]+\.)"', practice)]
    assert pieces == [number(practice, r"needs (\d+) word"), number(practice, r"and (\d+) for")] == [7, 15]


def test_visual_documents():
    """1,024 patches, bytes a page, 264 GB, 2.64 million multiplications, 5 pixels, and merging by threes."""
    text = passage("visual-documents", "mathematics")
    patches = (448 // 14) ** 2
    assert 448 % 14 == 0 and patches == number(text, r"32·32 = ([\d,]+) patch")
    vectors = patches + 6
    assert vectors == number(text, r"and ([\d,]+) with six")
    full, merged, signs = vectors * 128 * 2, math.ceil(vectors / 3) * 128 * 2, vectors * 128 // 8
    single = 3072 * 2
    patterns = (r"128, float16 ([\d,]+)", r"threes ([\d,]+)", r"only ([\d,]+)", r"3,072, float16 ([\d,]+)")
    assert [full, merged, signs, single] == [number(text, pattern) for pattern in patterns]
    assert round(full * 1e6 / 1e9) == number(text, r"pages take ([\d]+) GB")
    assert round(full / single) == number(text, r"([\d]+) times as much")
    assert round(20 * vectors * 128 / 1e6, 2) == number(text, r"= ([\d.]+) million")
    inch = 448 / number(text, r"page, ([\d.]+) inches")
    assert round(inch) == number(text, r"gets ([\d]+) pixels") and round(297 / 25.4, 1) == 11.7
    assert round(inch * 10 / 72) == number(text, r"about ([\d]+) pixels tall")

    def maxsim(question, page):
        return (question @ page.T).max(1).sum()

    page, question = np.repeat(np.eye(4), 3, axis=0), np.eye(4)[:2]
    means = np.array([group.mean(0) for group in np.array_split(page, 4)])
    assert maxsim(question, means) == maxsim(question, page) == 2  # equal neighbours merge without loss
    assert len(np.array_split(np.zeros((vectors, 128)), -(-vectors // 3))) == 344
