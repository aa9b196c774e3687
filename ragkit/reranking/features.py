"""What can be read off a document beside its similarity: the numbers that a small reranker weighs."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ragkit.retrieval.library import K1, B
from ragkit.retrieval.text import split_sentences, split_text, words

NAMES = (
    "similarity",  # of query and text, as far as the encoder's window goes
    "best chunk",  # the similarity of the nearest chunk, for a text longer than the window
    "best sentence",  # the similarity of the nearest sentence, wherever it stands
    "BM25",  # of the query's words, with the list as the collection; log(1 + score)
    "length",  # log(1 + words)
    "sentence length",  # log(1 + words in a sentence)
    "formulas",  # log(1 + signs of mathematics in a hundred words)
    "code",  # log(1 + signs of code in a hundred words)
    "numbers",  # log(1 + numbers in a hundred words)
    "instructions",  # share of the sentences that begin with a verb that tells you to do something
    "likening",  # log(1 + "like a", "imagine", "is a" … in a hundred words)
    "speaks to you",  # log(1 + "you", "your" in a hundred words)
)
MOST_SENTENCES = 30  # of a text, that are compared with the query
KEPT = 8192  # texts, of which what no query changes is kept: some 40 MB

FORMULA = re.compile(r"[=≈≤≥∑∏√∞∂∇±×÷·^]|[α-ωΑ-Ω]|\b(?:log|exp|softmax|argmax)\b|\\[a-z]+")
CODE = re.compile(r"`|\w\(|\w_\w|==|->|[{}\[\]]|\b(?:import|return|def)\b")
NUMBER = re.compile(r"\b\d[\d.,]*\b")
LIKENING = re.compile(
    r"\b(?:like an?|as if|as though|imagine|think of|picture|just as|much as|is an?)\b", re.I
)
YOU = re.compile(r"\b(?:you|your|yours)\b", re.I)
VERBS = set(
    """add allow apply ask avoid begin build call cap change check choose clip collect combine compare
    compute consider copy count create cut decide define discard divide do don't drop embed encode end
    expect feed fetch find fit fix follow freeze get give go group hold ignore import include index
    inspect install keep label leave let limit list load log look make mark mask measure merge mind mix
    move multiply name never note open order pad pass pick plot prefer print pull put raise rank read
    reduce remember remove repeat replace report rerun return run sample save score search select send
    set shuffle show skip sort split start stop store subtract sum swap take talk tell test treat
    truncate try tune turn update use validate vary wait warm watch weigh wrap write""".split()
)


@dataclass(frozen=True)
class Described:
    """K documents for one query: `features` (K, F), in the order of NAMES; `vectors` (K, D); `asked` (D,)."""

    query: str
    texts: list[str]
    features: np.ndarray
    vectors: np.ndarray
    asked: np.ndarray

    @property
    def of_list(self) -> np.ndarray:
        """(K,): as in a `Table`, of which this is one list."""
        return np.zeros(len(self.texts), dtype=int)

    @property
    def similarity(self) -> np.ndarray:
        """(K,): cosines of query and documents, what the retriever goes by."""
        return self.features[:, 0]


@dataclass(frozen=True)
class _Text:
    """What no query changes."""

    chunks: list[str]
    sentences: list[str]
    words: Counter
    style: list[float]


def describe(encoder, query: str, texts: Sequence[str]) -> Described:
    """What the documents `texts` are to `query`."""
    return describe_all(encoder, [(query, texts)])[0]


def describe_all(
    encoder, lists: Sequence[tuple[str, Sequence[str]]], *, progress: bool = False
) -> list[Described]:
    """The same for many queries, each with its documents, all that is new to `encoder` encoded at once."""
    documents = {text for _, texts in lists for text in texts}
    known = {text: _read(text, encoder.tokenizer, encoder.max_tokens) for text in documents}
    pieces = {piece for text, one in known.items() for piece in (text, *one.chunks, *one.sentences)}
    pieces, queries = sorted(pieces), sorted({query for query, _ in lists})
    # What lies beyond the window is in the chunks: nothing to warn about.
    found = encoder.encode_passages(pieces, progress=progress, warn=False)
    vectors = dict(zip(pieces, found))
    found = encoder.encode([encoder.query_prefix + query for query in queries], progress=False, warn=False)
    asked = dict(zip(queries, found.astype(np.float64)))
    return [_described(query, list(texts), asked[query], known, vectors) for query, texts in lists]


def _described(query: str, texts: list[str], asked: np.ndarray, known: dict, vectors: dict) -> Described:
    def nearest(pieces: list[str]) -> float:
        return max(float(vectors[piece] @ asked) for piece in pieces)

    lexical = np.log1p(bm25(query, [known[text].words for text in texts]))
    rows = []
    for text, score in zip(texts, lexical):
        one = known[text]
        near = [nearest([text]), nearest(one.chunks or [text]), nearest(one.sentences)]
        rows.append([*near, score, *one.style])
    return Described(query, texts, np.array(rows), np.stack([vectors[text] for text in texts]), asked)


@lru_cache(maxsize=KEPT)
def _read(text: str, tokenizer, window: int) -> _Text:
    sentences = split_sentences(text)[:MOST_SENTENCES] or [text]
    chunks = []
    if len(text) > window:  # a token has a letter at least: a shorter text is sure to fit
        tokens = len(tokenizer(text, truncation=False, verbose=False)["input_ids"])
        chunks = split_text(text, tokenizer, max_tokens=window) if tokens > window else []
    return _Text(chunks, sentences, Counter(words(text)), _style(text, sentences))


def bm25(query: str, documents: list[Counter]) -> np.ndarray:
    """(K,): Okapi BM25 with Lucene's idf, the K documents as the whole collection."""
    lengths = np.array([max(counts.total(), 1) for counts in documents], dtype=float)
    scores = np.zeros(len(documents))
    for word in sorted(set(words(query))):
        counts = np.array([document[word] for document in documents], dtype=float)
        found = (counts > 0).sum()
        idf = np.log1p((len(documents) - found + 0.5) / (found + 0.5))
        scores += idf * counts / (counts + K1 * (1 - B + B * lengths / lengths.mean()))
    return scores


def _style(text: str, sentences: list[str]) -> list[float]:
    words = max(len(text.split()), 1)
    hundred = max(words, 20) / 100  # of a few words, a share would say too much
    first = [(re.findall(r"[\w']+", sentence.lower()) or [""])[0] for sentence in sentences]

    def rate(pattern: re.Pattern) -> float:
        return float(np.log1p(len(pattern.findall(text)) / hundred))

    lengths = [float(np.log1p(words)), float(np.log1p(words / len(sentences)))]
    telling = float(np.mean([word in VERBS for word in first]))
    return [*lengths, rate(FORMULA), rate(CODE), rate(NUMBER), telling, rate(LIKENING), rate(YOU)]
