"""What is read off a document, against values worked by hand and another BM25."""

from collections import Counter

import bm25s
import numpy as np
import pytest

from ragkit.reranking.features import NAMES, bm25, describe, describe_all
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.lexical import K1, B
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


def test_what_documents_share_by_hand(words):
    texts = [
        "Lamp oil: lamp, lamp! Copyright 2020 river press.",  # two sentences of four words
        "The river runs. Oil burns in a lamp.",  # river runs | oil burns lamp
        "The river runs. Garden snow.",  # river runs | garden snow
    ]
    texts.append(texts[1])  # a copy is not another document
    described = describe(words, "Which lamp burns oil at night?", texts)  # lamp burns oil night
    first, second, third, copy = (row(described, n) for n in range(4))
    assert first["echo"] == pytest.approx(4 / 8) and second["echo"] == pytest.approx(3 / 5)
    assert first["shared"] == pytest.approx(1 / 4)  # river; not copyright, 2020, press
    assert second["shared"] == pytest.approx(2 / 2) and third["shared"] == pytest.approx(2 / 4)
    idf = {held: np.log1p((3.5 - held) / (held + 0.5)) for held in range(3)}  # of three different texts
    whole = 2 * idf[2] + idf[1] + idf[0]  # lamp, oil; burns; night
    assert first["coverage"] == pytest.approx(2 * idf[2] / whole)
    assert second["coverage"] == pytest.approx((2 * idf[2] + idf[1]) / whole) and third["coverage"] == 0
    assert first["boilerplate"] == pytest.approx(4 / 8) and second["boilerplate"] == pytest.approx(2 / 5)
    assert (described.features[3] == described.features[1]).all() and copy == second
    split = "lamp oil lamp lamp|copyright 2020 river press|river runs|oil burns lamp|river runs|garden snow"
    split = [sentence.split() for sentence in [*split.split("|"), "river runs", "oil burns lamp"]]
    scores = bm25("lamp burns oil night", [Counter(sentence) for sentence in split])
    assert first["BM25 sentence"] == pytest.approx(np.log1p(scores[0]))
    assert second["BM25 sentence"] == pytest.approx(np.log1p(scores[3])) and third["BM25 sentence"] == 0


def test_agreement_is_the_lower_place_and_position_that_of_the_nearest_sentence(words):
    texts = ["lamp lamp oil", "Garden. Snow falls. The lamp", "river", "snow"]
    described = describe(words, "lamp", texts)
    rows = [row(described, n) for n in range(4)]

    def beaten(name: str) -> list[float]:
        return [np.mean([np.heaviside(a[name] - b[name], 0.5) for b in rows if b is not a]) for a in rows]

    assert beaten("BM25") == pytest.approx([1, 2 / 3, 1 / 6, 1 / 6])  # two that tie
    assert [one["agreement"] for one in rows] == pytest.approx(
        np.minimum(beaten("similarity"), beaten("BM25"))
    )
    assert [one["position"] for one in rows] == [0, 1, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_list_does_not_show(words, seed):
    """To the last bit, with ties, copies and a sentence that several have."""
    texts = [
        "A lamp. The end.",
        "A river. The end.",
        "lamp oil",
        "lamp oil",
        "",
        "Oil! See www.example.org",
        "oil lamp",
    ]
    order = np.random.default_rng(seed).permutation(len(texts))
    plain, mixed = (describe(words, "lamp oil?", list(t)) for t in (texts, np.array(texts)[order]))
    assert (mixed.features == plain.features[order]).all()


def test_a_sentence_counts_wherever_it_stands(encoder):
    padding = [f"The weather of day {n} was mild and nothing happened." for n in range(60)]
    with_it = " ".join([*padding, "Ada wrote the letter."])
    found = describe(encoder, "Who wrote the letter?", [with_it, " ".join(padding)])
    assert row(found, 0)["best sentence"] > row(found, 1)["best sentence"] + 0.2
    assert row(found, 0)["position"] == 1


def test_the_nearest_sentence_is_read_with_its_text_and_alone(encoder):
    texts = ["The letter was long. Ada wrote it.", "Rivers run."]
    described = describe(encoder, "Who wrote it?", texts)
    [(_, vectors)] = encoder.encode_sentences(texts[:1], [[(0, 20), (21, 34)]])
    within, alone = vectors[1] @ described.asked, encoder.encode("Ada wrote it.") @ described.asked
    assert row(described, 0)["best sentence"] == pytest.approx((within + alone) / 2, abs=1e-6)
    assert row(described, 0)["position"] == 1 and abs(within - alone) > 0.01


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


def test_many_queries_are_described_as_each_alone_and_encoded_at_once(words, monkeypatch):
    lists = [
        ("a lamp", ["river stone. Cloud.", "paper"]),
        ("a river", ["paper", "garden"]),
        ("a lamp", ["x"]),
    ]
    calls = []
    for name in ("encode_sentences", "encode_passages"):
        plain = getattr(words, name)
        monkeypatch.setattr(
            words, name, lambda texts, *a, plain=plain, **k: (calls.append(texts), plain(texts, *a, **k))[1]
        )
    for found, (query, texts) in zip(describe_all(words, lists), lists):
        alone = describe(WordsEncoder(), query, texts)
        assert (found.query, found.texts) == (query, texts)
        assert (found.features == alone.features).all() and (found.vectors == alone.vectors).all()
    assert calls[0] == ["garden", "paper", "river stone. Cloud.", "x"] and len(calls) == 2
    assert len(calls[1]) == 4  # the nearest sentence of each


@pytest.mark.parametrize("text", ["", " ", "?", "日本語のテキスト", "a" * 5000, "\ud800", "<b>&amp;"])
@pytest.mark.parametrize("others", [[], ["paper"], ["paper", "paper"]])
@pytest.mark.parametrize("query", ["?", "paper of which"])
def test_odd_texts_and_lists_have_finite_features(words, text, others, query):
    found = describe(words, query, [text, *others])
    assert np.isfinite(found.features).all() and found.features.shape == (1 + len(others), len(NAMES))
