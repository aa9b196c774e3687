"""What is read off a document, against values worked by hand and another BM25."""

from collections import Counter

import bm25s
import numpy as np
import pytest

from ragkit.reranking.features import NAMES, bm25, describe, describe_all
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.library import K1, B
from tests.words_encoder import WordsEncoder


@pytest.fixture
def words():
    return WordsEncoder()


def row(described, index: int) -> dict[str, float]:
    return dict(zip(NAMES, described.features[index]))


def test_features_of_two_documents_by_hand(words):
    """Twenty words and fewer count as twenty: five per cent of one sign is log(1 + 5 · …)."""
    first = "Imagine a lamp. Set the log of x = 2 to 7. You see it."
    described = describe(words, "what does a lamp do?", [first, "River stone."])
    found = row(described, 0)
    count = len(first.split())
    assert found["length"] == pytest.approx(np.log1p(count))
    assert found["sentence length"] == pytest.approx(np.log1p(count / 3))
    assert found["formulas"] == pytest.approx(np.log1p(2 / 0.2))  # "=" and "log"
    assert found["numbers"] == pytest.approx(np.log1p(2 / 0.2))
    assert found["instructions"] == pytest.approx(1 / 3)  # "Set"
    assert found["likening"] == pytest.approx(np.log1p(1 / 0.2))  # "Imagine"
    assert found["speaks to you"] == pytest.approx(np.log1p(1 / 0.2))
    assert found["code"] == 0 and row(described, 1)["BM25"] == 0 < found["BM25"]
    asked = words.encode("what does a lamp do?")
    assert found["similarity"] == pytest.approx(float(words.encode(first) @ asked), abs=1e-6)
    best = max(float(words.encode(s) @ asked) for s in first.replace(". ", ".|").split("|"))
    assert found["best sentence"] == pytest.approx(best, abs=1e-6)
    assert found["best chunk"] == found["similarity"]


def test_bm25_is_what_bm25s_computes():
    texts = ["lamp lamp river", "river stone garden winter", "cloud", "lamp garden lamp lamp paper window"]
    split = [text.replace(",", "").split() for text in texts]
    index = bm25s.BM25(method="lucene", k1=K1, b=B)
    index.index(split, show_progress=False)
    expected = index.get_scores(["lamp", "garden", "nowhere"])
    np.testing.assert_allclose(bm25("lamp garden nowhere", [Counter(w) for w in split]), expected, atol=1e-6)


def test_a_text_beyond_the_window_has_chunks(encoder):
    padding = "The weather was mild and nothing happened on that day. " * 60
    found = describe(encoder, "Who wrote the letter?", [padding + "Ada wrote the letter.", padding])
    with_it, without = row(found, 0), row(found, 1)
    assert with_it["similarity"] == pytest.approx(without["similarity"], abs=0.02)
    assert with_it["best chunk"] > without["best chunk"] + 0.05
    assert with_it["length"] > 6


def test_a_long_text_is_described_without_a_warning(recwarn):
    describe(Encoder(), "q", ["word " * 400])  # a new one, that has warned of nothing
    assert not [w for w in recwarn if "window" in str(w.message)]


def test_many_queries_are_described_as_each_alone_and_encoded_at_once(words):
    lists = [
        ("a lamp", ["river stone. Cloud.", "paper"]),
        ("a river", ["paper", "garden"]),
        ("a lamp", ["x"]),
    ]
    calls = []
    encode = words.encode
    words.encode = lambda texts, **how: (calls.append(texts), encode(texts, **how))[1]
    for found, (query, texts) in zip(describe_all(words, lists), lists):
        alone = describe(WordsEncoder(), query, texts)
        assert (found.query, found.texts) == (query, texts)
        assert (found.features == alone.features).all() and (found.vectors == alone.vectors).all()
    assert len(calls) == 2 and all(len(set(texts)) == len(texts) for texts in calls)


@pytest.mark.parametrize("text", ["", " ", "?", "日本語のテキスト", "a" * 5000, "\ud800", "<b>&amp;"])
def test_odd_texts_have_finite_features(words, text):
    found = describe(words, "?", [text, "paper"])
    assert np.isfinite(found.features).all() and found.features.shape == (2, len(NAMES))
