"""What can be read off a document beside its similarity: the numbers that a small reranker weighs."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragkit.text import split_sentences, split_text

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
KEPT = 200_000  # vectors: 300 MB at 384 dimensions
K1, B = 1.5, 0.75  # BM25's, as in `lexical_search`

FORMULA = re.compile(r"[=≈≤≥∑∏√∞∂∇±×÷·^]|[α-ωΑ-Ω]|\b(?:log|exp|softmax|argmax)\b|\\[a-z]+")
CODE = re.compile(r"`|\w\(|\w_\w|==|->|[{}\[\]]|\b(?:import|return|def)\b")
NUMBER = re.compile(r"\b\d[\d.,]*\b")
LIKENING = re.compile(
    r"\b(?:like an?|as if|as though|imagine|think of|picture|just as|much as|is an?)\b", re.I
)
YOU = re.compile(r"\b(?:you|your|yours)\b", re.I)
WORD = re.compile(r"\w+")
STOP = set(
    """a an the of to in on at by for with from and or but if is are was were be been do does did what
    which who how why when where it its this that these those i me my you your we our they can could
    should would will not no so as than there""".split()
)
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


class Describer:
    """Describes documents. What it encoded it keeps, by text: ids are unique within one list only.

    Once it has KEPT vectors, it forgets what the list at hand does not need.
    """

    def __init__(self, encoder):
        self.encoder = encoder
        self._vectors: dict[str, np.ndarray] = {}
        self._texts: dict[str, _Text] = {}

    def prepare(self, queries: Sequence[str], texts: Sequence[str], *, progress: bool = False) -> None:
        """Encode all that is new, at once: the texts, their chunks, their sentences."""
        texts, queries = set(texts), set(queries)
        known = {text: self._of(text) for text in sorted(texts)}
        pieces = {piece for one in known.values() for piece in (*one.chunks, *one.sentences)} | texts
        if len(self._vectors) > KEPT:
            needed = {"p" + piece for piece in pieces} | {"q" + query for query in queries}
            self._texts = known
            self._vectors = {name: self._vectors[name] for name in needed & self._vectors.keys()}
        self._encode(sorted(pieces), "p", self.encoder.passage_prefix, progress)
        self._encode(sorted(queries), "q", self.encoder.query_prefix, progress)

    def remember(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Passage vectors, (N, D), that this encoder has made already: those of a `Library`, say."""
        if np.shape(vectors) != (len(texts), self.encoder.dimension):
            raise ValueError(
                f"vectors of shape {np.shape(vectors)} for {len(texts)} texts: "
                f"({len(texts)}, {self.encoder.dimension}) was expected"
            )
        self._vectors.update(("p" + text, vector) for text, vector in zip(texts, vectors))

    def describe(self, query: str, texts: Sequence[str]) -> Described:
        texts = list(texts)
        self.prepare([query], texts)
        asked = self._vectors["q" + query].astype(np.float64)
        vectors = np.stack([self._vectors["p" + text] for text in texts])
        known = [self._of(text) for text in texts]
        lexical = np.log1p(bm25(query, [one.words for one in known]))
        rows = [
            [
                float(vector @ asked),
                self._best(one.chunks or [text], asked),
                self._best(one.sentences, asked),
                score,
                *one.style,
            ]
            for text, vector, one, score in zip(texts, vectors, known, lexical)
        ]
        return Described(query, texts, np.array(rows), vectors, asked)

    def _best(self, pieces: list[str], asked: np.ndarray) -> float:
        return max(float(self._vectors["p" + piece] @ asked) for piece in pieces)

    def _of(self, text: str) -> _Text:
        if text not in self._texts:
            sentences = split_sentences(text)[:MOST_SENTENCES] or [text]
            window, chunks = self.encoder.max_tokens, []
            if len(text) > window:  # a token has a letter at least: a shorter text is sure to fit
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    tokens = len(self.encoder.tokenizer(text, truncation=False, verbose=False)["input_ids"])
                if tokens > window:
                    chunks = split_text(text, self.encoder.tokenizer, max_tokens=window)
            words = Counter(word for word in WORD.findall(text.lower()) if word not in STOP)
            self._texts[text] = _Text(chunks, sentences, words, _style(text, sentences))
        return self._texts[text]

    def _encode(self, texts: list[str], kind: str, prefix: str, progress: bool) -> None:
        if new := [text for text in texts if kind + text not in self._vectors]:
            with warnings.catch_warnings():  # what lies beyond the window is in the chunks
                warnings.filterwarnings("ignore", ".*longer than the encoder's window")
                vectors = self.encoder.encode([prefix + text for text in new], progress=progress)
            self._vectors.update((kind + text, vector) for text, vector in zip(new, vectors))


def bm25(query: str, documents: list[Counter]) -> np.ndarray:
    """(K,): Okapi BM25 with Lucene's idf, the K documents as the whole collection."""
    asked = {word for word in WORD.findall(query.lower()) if word not in STOP}
    lengths = np.array([max(words.total(), 1) for words in documents], dtype=float)
    scores = np.zeros(len(documents))
    for word in sorted(asked):
        counts = np.array([words[word] for words in documents], dtype=float)
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
