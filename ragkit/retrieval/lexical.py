"""Search by words (BM25), and both ways of joining it with search by meaning."""

import numpy as np

from ragkit.retrieval.checks import check_k, checked_vector
from ragkit.retrieval.corpus import Hit, Passage, ranked
from ragkit.retrieval.library import Library
from ragkit.retrieval.text import words

LEXICAL = 0.6  # the share of BM25 in hybrid_search
K1, B = 1.5, 0.75  # of BM25: how much a repeated word adds, how far long passages are discounted


def lexical_search(library: Library, query: str, k: int) -> list[Hit]:
    """The k passages with the highest BM25 score (Lucene's variant, k1 = 1.5, b = 0.75), best first.

    Passages that share no word with the query are no hits. The word index is built on the first call after a
    change. What a word is: `text.words`; one letter is one, h and β are terms of this field. Raises TypeError
    for a query that is no string and a k that is no whole number, ValueError for k < 0.
    """
    passages = library.passages
    return _best(passages, _bm25(library, passages, query)[0], k, above=0.0)


def hybrid_search(library: Library, query: str, query_vector: np.ndarray, k: int) -> list[Hit]:
    """The k passages that are nearest by meaning and words, best first.

    score = (1 − w) · cosine + w · BM25 / its bound, w = LEXICAL: a convex combination, which keeps what ranks
    lose (arXiv 2210.11934). The bound, Σ idf of the query's words, is that of BM25 itself; so a best match
    counts little where it shares only common words, or few of many. Equal scores keep the library's order.
    Raises what `retrieve` and `lexical_search` raise.
    """
    passages, k = library.passages, check_k(k)
    lexical, bound = _bm25(library, passages, query)
    added = LEXICAL * lexical / bound
    cosines = library._cosines(checked_vector(query_vector, library), 1 - LEXICAL, added, k)
    return _best(passages, (1 - LEXICAL) * cosines + added, k)


def _bm25(library: Library, passages: list[Passage], query: str) -> tuple[np.ndarray, float]:
    """BM25 of each passage, (N,), and what it stays below: a word adds less than its idf."""
    import bm25s

    if not isinstance(query, str):
        raise TypeError(f"query is a {type(query).__name__}, not a string")
    asked = words(query)
    if library._bm25 is None and any(texts := [words(p.full_text) for p in passages]):
        made = bm25s.BM25(method="lucene", k1=K1, b=B)
        made.index(texts, show_progress=False)
        library._bm25 = made  # whole, whoever interrupts or comes meanwhile
    if library._bm25 is None or not asked:
        return np.zeros(len(passages)), 1.0
    known, holding = library._bm25.vocab_dict, np.diff(library._bm25.scores["indptr"])
    counts = np.array([holding[known[word]] if word in known else 0 for word in asked])
    bound = np.log1p((len(passages) - counts + 0.5) / (counts + 0.5)).sum()
    return library._bm25.get_scores(asked), float(bound)


def _best(passages: list[Passage], scores: np.ndarray, k: int, above: float = -np.inf) -> list[Hit]:
    best = np.argsort(-scores, kind="stable")[: check_k(k)]
    return ranked((passages[i], float(scores[i])) for i in best if scores[i] > above)


def best_of(*runs: list[Hit]) -> list[Hit]:
    """The hits of all runs, each passage once, by the best of its scores, which are of one kind."""
    best: dict[str, Hit] = {}
    for hit in sorted((hit for run in runs for hit in run), key=lambda hit: -hit.score):
        best.setdefault(hit.passage.id, hit)
    return ranked((hit.passage, hit.score) for hit in best.values())


def fuse(*runs: list[Hit], k: int | None = None, constant: float = 60.0) -> list[Hit]:
    """Reciprocal rank fusion: score(d) = Σ_runs 1 / (constant + rank of d), best first, the k best.

    Only ranks count, so runs whose scores have different scales mix: `fuse(dense, lexical, k=10)`. Source:
    Cormack, Clarke and Buettcher, SIGIR 2009, with their constant of 60.
    """
    scores: dict[str, float] = {}
    passages: dict[str, Passage] = {}
    for run in runs:
        for hit in run:
            scores[hit.passage.id] = scores.get(hit.passage.id, 0.0) + 1.0 / (constant + hit.rank)
            passages.setdefault(hit.passage.id, hit.passage)
    best = sorted(scores, key=lambda passage_id: -scores[passage_id])  # stable: ties as first met
    best = best if k is None else best[: check_k(k)]
    return ranked((passages[i], scores[i]) for i in best)
