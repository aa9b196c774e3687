"""What is read off a document, against values worked by hand and another BM25."""

import bm25s
import numpy as np
import pytest

import ragkit.features
from ragkit.features import K1, NAMES, WORD, B, Counter, Describer, bm25
from tests.words_encoder import WordsEncoder


@pytest.fixture
def describer():
    return Describer(WordsEncoder())


def row(described, index: int) -> dict[str, float]:
    return dict(zip(NAMES, described.features[index]))


def test_features_of_two_documents_by_hand(describer):
    """Twenty words and fewer count as twenty: five per cent of one sign is log(1 + 5 · …)."""
    first = "Imagine a lamp. Set the log of x = 2 to 7. You see it."
    described = describer.describe("what does a lamp do?", [first, "River stone."])
    found = row(described, 0)
    words = len(first.split())
    assert found["length"] == pytest.approx(np.log1p(words))
    assert found["sentence length"] == pytest.approx(np.log1p(words / 3))
    assert found["formulas"] == pytest.approx(np.log1p(2 / 0.2))  # "=" and "log"
    assert found["numbers"] == pytest.approx(np.log1p(2 / 0.2))
    assert found["instructions"] == pytest.approx(1 / 3)  # "Set"
    assert found["likening"] == pytest.approx(np.log1p(1 / 0.2))  # "Imagine"
    assert found["speaks to you"] == pytest.approx(np.log1p(1 / 0.2))
    assert found["code"] == 0 and row(described, 1)["BM25"] == 0 < found["BM25"]
    asked = describer.encoder.encode("what does a lamp do?")
    assert found["similarity"] == pytest.approx(float(describer.encoder.encode(first) @ asked), abs=1e-6)
    best = max(float(describer.encoder.encode(s) @ asked) for s in first.replace(". ", ".|").split("|"))
    assert found["best sentence"] == pytest.approx(best, abs=1e-6)
    assert found["best chunk"] == found["similarity"]


def test_bm25_is_what_bm25s_computes():
    texts = ["lamp lamp river", "river stone garden winter", "cloud", "lamp garden lamp lamp paper window"]
    split = [WORD.findall(text) for text in texts]
    index = bm25s.BM25(method="lucene", k1=K1, b=B)
    index.index(split, show_progress=False)
    expected = index.get_scores(["lamp", "garden", "nowhere"])
    np.testing.assert_allclose(bm25("lamp garden nowhere", [Counter(w) for w in split]), expected, atol=1e-6)


def test_a_text_beyond_the_window_has_chunks(encoder):
    describer = Describer(encoder)
    padding = "The weather was mild and nothing happened on that day. " * 60
    found = describer.describe("Who wrote the letter?", [padding + "Ada wrote the letter.", padding])
    with_it, without = row(found, 0), row(found, 1)
    assert with_it["similarity"] == pytest.approx(without["similarity"], abs=0.02)
    assert with_it["best chunk"] > without["best chunk"] + 0.05
    assert with_it["length"] > 6


def test_a_long_text_is_described_without_a_warning(encoder, recwarn):
    Describer(encoder).describe("q", ["word " * 400])
    assert not [w for w in recwarn if "window" in str(w.message)]


def test_what_was_encoded_is_not_encoded_again(describer):
    describer.describe("a lamp", ["river stone. Cloud.", "paper"])
    before = describer.encoder.encoded
    describer.describe("a lamp", ["paper", "river stone. Cloud."])
    assert describer.encoder.encoded == before


def test_vectors_made_elsewhere_are_not_made_again(describer):
    encoder, texts = describer.encoder, ["river stone", "paper"]
    expected = Describer(encoder).describe("a lamp", texts)
    vectors = encoder.encode(texts)
    before = encoder.encoded
    describer.remember(texts, vectors)
    found = describer.describe("a lamp", texts)
    assert encoder.encoded == before + 1  # the query: each text is its own only sentence
    assert (found.features == expected.features).all() and (found.vectors == expected.vectors).all()
    with pytest.raises(ValueError, match=r"shape \(2, 24\) for 1 texts: \(1, 24\)"):
        describer.remember(["paper"], vectors)


def test_it_forgets_what_is_not_at_hand_when_it_has_too_much(describer, monkeypatch):
    monkeypatch.setattr(ragkit.features, "KEPT", 5)
    expected = describer.describe("a lamp", ["river. stone.", "paper"])
    for number in range(20):
        described = describer.describe("a lamp", ["river. stone.", f"cloud {number}"])
        assert (described.features[0] == expected.features[0]).all()
        assert len(describer._vectors) <= 10 and len(describer._texts) <= 10
    before = describer.encoder.encoded
    again = describer.describe("a lamp", ["river. stone.", "paper"])
    assert (again.features == expected.features).all() and describer.encoder.encoded == before + 1


@pytest.mark.parametrize("text", ["", " ", "?", "日本語のテキスト", "a" * 5000, "\ud800", "<b>&amp;"])
def test_odd_texts_have_finite_features(describer, text):
    found = describer.describe("?", [text, "paper"])
    assert np.isfinite(found.features).all() and found.features.shape == (2, len(NAMES))
