"""What can be read off a document beside its similarity: the numbers that a small reranker weighs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from sys import intern

import numpy as np
from scipy.stats import rankdata

from ragkit.losses.data_parallel import Processes
from ragkit.reranking.style import BOILERPLATE, style
from ragkit.retrieval.lexical import K1, B
from ragkit.retrieval.sentences import sentence_places
from ragkit.retrieval.text import words

NAMES = (
    "similarity",  # of query and text, as far as the encoder's window goes
    "best chunk",  # the similarity of the nearest window, of a text longer than one
    "best sentence",  # of the nearest sentence: the mean of its similarity within the text and alone
    "BM25",  # of the query's words, with the list as the collection; log(1 + score)
    "length",  # log(1 + words)
    "sentence length",  # log(1 + words in a sentence)
    "formulas",  # log(1 + signs of mathematics in a hundred words)
    "code",  # log(1 + signs of code in a hundred words)
    "numbers",  # log(1 + numbers in a hundred words)
    "instructions",  # share of the sentences that begin with a verb that tells you to do something
    "likening",  # log(1 + "like a", "imagine", "is a" … in a hundred words)
    "speaks to you",  # log(1 + "you", "your" in a hundred words)
    "echo",  # share of its words that the question has already
    "shared",  # share of its distinct words, without the question's, that another document has: its cluster
    "coverage",  # share of the question's distinct words that it has, weighted by idf in the list
    "position",  # where its nearest sentence stands: 0 first, 1 last
    "agreement",  # share of the others that it beats, by similarity or by BM25, whichever is lower
    "BM25 sentence",  # of its best sentence, with the list's sentences as the collection; log(1 + score)
    "boilerplate",  # share of its words in sentences that another document has too, or about the page itself
)
KEPT = 8192  # texts, of which what no query changes is kept: 5 to 20 KB each


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
    def queries(self) -> list[str]:
        return [self.query]

    @property
    def similarity(self) -> np.ndarray:
        """(K,): cosines of query and documents, what the retriever goes by."""
        return self.features[:, 0]


@dataclass(frozen=True)
class _Text:
    """What no query changes."""

    spans: list[tuple[int, int]]  # where each sentence begins and ends
    said: list[tuple[str, ...]]  # the words of each
    about_page: list[bool]  # whether each is
    words: Counter
    style: dict[str, float]


def describe(encoder, query: str, texts: Sequence[str]) -> Described:
    """What the documents `texts` are to `query`."""
    return describe_all(encoder, [(query, texts)])[0]


def describe_all(
    encoder, lists: Sequence[tuple[str, Sequence[str]]], *, progress: bool = False
) -> list[Described]:
    """The same for many queries, each with its documents; each text goes through `encoder` once."""
    documents = sorted({text for _, texts in lists for text in texts})
    known = {text: _read(text) for text in documents}
    queries = sorted({query for query, _ in lists})
    found = encoder.encode([encoder.query_prefix + query for query in queries], progress=False, warn=False)
    asked = dict(zip(queries, found.astype(np.float64)))
    found = encoder.encode_sentences(documents, [known[text].spans for text in documents], progress=progress)
    read = dict(zip(documents, found))
    # Sentences that are read with their text tell less beside its own similarity: the nearest one of each
    # document is read alone too, which is a tenth of the work.
    nearest = {}
    for query, text in sorted({(query, text) for query, texts in lists for text in texts}):
        start, end = known[text].spans[(read[text][1] @ asked[query]).argmax()]
        nearest[query, text] = text[start:end]
    sentences = sorted(set(nearest.values()))
    alone = dict(zip(sentences, encoder.encode_passages(sentences, progress=False, warn=False)))
    described = []
    for query, texts in lists:
        vectors = [(*read[text], alone[nearest[query, text]]) for text in texts]
        described.append(_described(query, list(texts), asked[query], known, vectors))
    return described


def describe_together(
    group: Processes, encoder, lists: Sequence[tuple[str, Sequence[str]]], *, progress: bool = False
) -> list[Described]:
    """`describe_all`, of which each process of `group` does some lists."""
    own = group.share([sum(map(len, texts)) for _, texts in lists])
    found = describe_all(encoder, [lists[n] for n in own], progress=progress and group.main) if own else []
    if group.count == 1:
        return found
    sizes, wide = [len(texts) for _, texts in lists], encoder.dimension
    features = group.lists(own, [one.features for one in found], sizes, np.zeros((0, len(NAMES))))
    none = np.zeros((0, wide), dtype=np.float32)
    vectors = group.lists(own, [one.vectors for one in found], sizes, none)
    asked = group.lists(own, [one.asked[None] for one in found], [1] * len(lists), np.zeros((0, wide)))
    parts = zip(lists, features, vectors, asked)
    return [Described(query, list(texts), one, two, three[0]) for (query, texts), one, two, three in parts]


def _described(query: str, texts: list[str], asked: np.ndarray, known: dict, vectors: list) -> Described:
    """`vectors`: of each text, those of its windows and its sentences, and of the nearest sentence alone."""
    documents = [known[text] for text in texts]
    chunks, sentences, alone = zip(*([found @ asked for found in own] for own in vectors))
    similarity = np.array([cosines[0] for cosines in chunks])
    lexical = np.log1p(bm25(query, [one.words for one in documents]))
    columns = {
        "similarity": similarity,
        "best chunk": [cosines.max() for cosines in chunks],
        "best sentence": [(cosines.max() + own) / 2 for cosines, own in zip(sentences, alone)],
        "position": [cosines.argmax() / max(len(cosines) - 1, 1) for cosines in sentences],
        "BM25": lexical,
        "agreement": np.minimum(_beaten(similarity), _beaten(lexical)),
        **_overlaps(query, documents, [known[text] for text in set(texts)]),
        **{name: [one.style[name] for one in documents] for name in documents[0].style},
    }
    features = np.column_stack([columns[name] for name in NAMES])
    return Described(query, texts, features, np.stack([windows[0] for windows, _, _ in vectors]), asked)


def _overlaps(query: str, documents: list[_Text], different: list[_Text]) -> dict[str, Sequence[float]]:
    """What the documents say again of the query and of each other. `different`: two copies are one."""
    holders = Counter(word for one in different for word in one.words)
    sayers = Counter(said for one in different for said in set(one.said))
    wanted = {word: _idf(holders[word], len(different)) for word in sorted(set(words(query)))}
    whole = sum(wanted.values()) or 1.0
    sentences = bm25(query, [Counter(said) for one in documents for said in one.said])
    starts = np.cumsum([0, *(len(one.said) for one in documents[:-1])])
    rows = []
    for one in documents:
        own = one.words.keys() - wanted.keys()
        known = [said for said, about_page in zip(one.said, one.about_page) if about_page or sayers[said] > 1]
        size = max(one.words.total(), 1)
        rows.append(
            {
                "echo": sum(one.words[word] for word in wanted) / size,
                "shared": sum(holders[word] > 1 for word in own) / max(len(own), 1),
                "coverage": sum(idf for word, idf in wanted.items() if word in one.words) / whole,
                "boilerplate": sum(map(len, known)) / size,
            }
        )
    best = np.log1p(np.maximum.reduceat(sentences, starts))
    return {"BM25 sentence": best} | {name: [row[name] for row in rows] for name in rows[0]}


def _beaten(values: np.ndarray) -> np.ndarray:
    """The share of the other documents that each one beats, ties by half."""
    return (rankdata(values) - 1) / max(len(values) - 1, 1)


@lru_cache(maxsize=KEPT)
def _read(text: str) -> _Text:
    places = sentence_places(text)
    sentences = [text[start:end] for start, end in places]
    said = [tuple(map(intern, words(sentence))) for sentence in sentences]
    about_page = [bool(BOILERPLATE.search(sentence)) for sentence in sentences]
    return _Text(places, said, about_page, Counter(chain(*said)), style(text, sentences))


def bm25(query: str, documents: list[Counter]) -> np.ndarray:
    """(K,): Okapi BM25 with Lucene's idf, the K documents as the whole collection."""
    lengths = np.array([max(counts.total(), 1) for counts in documents], dtype=float)
    scores = np.zeros(len(documents))
    for word in sorted(set(words(query))):
        counts = np.array([document[word] for document in documents], dtype=float)
        weight = _idf((counts > 0).sum(), len(documents))
        scores += weight * counts / (counts + K1 * (1 - B + B * lengths / lengths.mean()))
    return scores


def _idf(holders: int, size: int) -> float:
    """How rare a word is that `holders` of `size` documents have, as Lucene counts it."""
    return float(np.log1p((size - holders + 0.5) / (holders + 0.5)))
