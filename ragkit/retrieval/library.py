"""The library: passages and their vectors, search, and what keeps the two from drifting apart."""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ragkit.retrieval.corpus import Hit, Passage, ranked, shortened, unsaved
from ragkit.retrieval.indexes import (
    FLAT,
    check_enough,
    flat_rows,
    new_index,
    recall,
    remove,
    sample_rows,
    set_search,
)
from ragkit.retrieval.library_files import library_facts, library_writers, read_library, refuse_broken
from ragkit.retrieval.storage import LibraryFolder
from ragkit.retrieval.text import words

LEXICAL = 0.6  # the share of BM25 in hybrid_search
K1, B = 1.5, 0.75  # of BM25: how much a repeated word adds, how far long passages are discounted


class Library:
    """Passages with their vectors in a FAISS index: exact search by inner product, unless asked otherwise.

    Make one with `Library.build(passages, encoder)` or `Library.load(folder, encoder)`; search it with
    `retrieve`. `fingerprint` is that of the encoder that made the vectors; `index`, the kind of index as
    FAISS's `index_factory` names it; `recall`, how much of exact search it found when it was built (None: it
    is exact, or has been changed since).
    """

    index, recall, _mapped = FLAT, None, False

    def __init__(
        self, encoder_name: str, fingerprint: str, dimension: int, *, index: str = FLAT, encoder=None
    ):
        self.encoder_name, self.fingerprint, self.dimension = encoder_name, fingerprint, dimension
        self._encoder, self.index = encoder, index
        self._index = new_index(index, dimension)
        # By the number that FAISS keeps. Numbers grow in the order in which passages came; that of a deleted
        # last passage is given again, so nothing outside the library may remember one.
        self._passages: dict[int, Passage] = {}
        self._numbers: dict[str, int] = {}  # the number of each passage id
        self._bm25 = None

    @classmethod
    def build(
        cls,
        passages: Iterable[Passage],
        encoder,
        *,
        index: str = FLAT,
        search: dict[str, float] | None = None,
        queries: np.ndarray | None = None,
        progress: bool = True,
    ) -> "Library":
        """A library of `passages`, encoded by `encoder`. Raises ValueError where two share an id.

        `index`: "Flat" is exact; "HNSW32", "SQ8", "IVF256,Flat", "IVF256,PQ48" and other names that FAISS's
        `index_factory` knows are faster or smaller, and miss some of what is near. How many of the ten
        nearest they find is measured, on `queries`, (Q, D), or else on 200 of the passages' own vectors; it
        is said on stderr (unless `progress` is False) and kept as `recall`. `search`: how hard they look,
        {"nprobe": 32} cells of an inverted file or {"efSearch": 64} candidates in a graph.
        Raises ValueError for a name that FAISS does not know, and for passages too few to learn from.
        """
        library = cls(encoder.name, encoder.fingerprint, encoder.dimension, index=index, encoder=encoder)
        set_search(library._index, search or {})
        vectors = library._added(passages, None, progress)
        if index != FLAT and len(library) and (queries is None or len(queries)):
            own = sample_rows(len(vectors), 200) if queries is None else None
            asked = vectors[own] if queries is None else _checked_queries(library, queries)
            library.recall = recall(library._index, index, [vectors], asked, own)
            if progress and library.recall:
                print(library.recall, file=sys.stderr)
        return library

    def __len__(self) -> int:
        return len(self._passages)

    def __contains__(self, passage_id: str) -> bool:
        return passage_id in self._numbers

    def __repr__(self) -> str:
        told = f"{len(self):,} passages, {self.encoder_name}, {self.dimension} dimensions"
        kind = "" if self.index == FLAT else f"; {self.recall or self.index}"
        return f"{type(self).__name__}({told}{kind})"

    def among(self, passage_ids: Iterable[str]) -> set[str]:
        """Those of some ids that are here."""
        return self._numbers.keys() & set(passage_ids)

    @property
    def passages(self) -> list[Passage]:
        """All passages, in the order in which they came."""
        return list(self._passages.values())

    @property
    def vectors(self) -> np.ndarray:
        """A copy of the passages' vectors, (N, D), in the order of `passages`; as precise as the index."""
        return self._reconstructed(list(self._passages))

    def vectors_of(self, passage_ids: Iterable[str]) -> np.ndarray:
        """A copy of some passages' vectors, (N, D). Raises KeyError for an id that is not here."""
        return self._reconstructed(self._numbers_of(passage_ids))

    def add(self, passages: Iterable[Passage], vectors=None, *, progress: bool = True) -> None:
        """Add new passages, with `vectors`, (N, D), where they are known.

        Raises ValueError, and adds none, where an id is there already or comes twice.
        """
        self._added(passages, vectors, progress)

    def _added(self, passages: Iterable[Passage], vectors, progress: bool) -> np.ndarray:
        self._check_writable()
        passages = self._checked(passages, known=False)
        if not passages:
            return np.empty((0, self.dimension), np.float32)
        check_enough(self._index, self.index, len(passages))  # before the work
        if vectors is None:
            vectors = self._encode(passages, progress)
        else:
            vectors = self._fitting(np.asarray(vectors, dtype=np.float32), passages)
        self._insert(passages, vectors)
        return vectors

    def replace(self, passages: Iterable[Passage], *, progress: bool = True) -> None:
        """Give known passages new texts. Raises KeyError, and changes none, where an id is unknown."""
        self._check_writable()
        passages = self._checked(passages, known=True)
        vectors = self._encode(passages, progress)  # first what can fail
        self.delete([passage.id for passage in passages])
        self._insert(passages, vectors)

    def delete(self, passage_ids: Iterable[str]) -> None:
        """Remove passages by id. Raises KeyError, and removes none, where an id is unknown.

        FAISS can take nothing out of a graph (HNSW), nor renumber an inverted file: these are made again from
        their own vectors, which takes as long as building them did, without the encoding.
        """
        self._check_writable()
        passage_ids = [passage_ids] if isinstance(passage_ids, str) else passage_ids
        numbers = self._numbers_of(dict.fromkeys(passage_ids))
        remove(self._index, np.array(numbers, dtype=np.int64))
        for number in numbers:
            del self._numbers[self._passages.pop(number).id]
        self._bm25 = self.recall = None

    def save(self, folder: str | Path) -> None:
        """Write the library to `folder`, whole or not at all.

        Whoever loads the folder, at any moment, gets the old library or the new one.
        """
        facts = library_facts(self.encoder_name, self.fingerprint, self.dimension, self.index, self.recall)
        LibraryFolder(folder).write(
            facts | {"passages": len(self)}, library_writers(self._index, self._passages)
        )

    @classmethod
    def load(cls, folder: str | Path, encoder=None, *, mmap: bool = False) -> "Library":
        """The library in `folder`, its files checked against their checksums.

        With `encoder`, the library is refused unless that encoder built it, and can be added to. With `mmap`,
        the index stays on disk, whatever its kind: what a search reads of it, the system keeps in memory as
        long as there is room, once for all processes. Such a library cannot be changed.
        Raises FileNotFoundError where no library is, ValueError where one is damaged or does not fit.
        """
        versions = LibraryFolder(folder)
        manifest = versions.manifest()
        while True:
            try:
                return cls._load(versions, manifest, encoder, mmap)
            except (OSError, RuntimeError, ValueError):
                before, manifest = manifest, versions.manifest()
                if manifest == before:
                    raise
                # Else another process has saved a new version, and deleted these files, while we read.

    @classmethod
    def _load(cls, versions: LibraryFolder, manifest: dict, encoder, mmap: bool) -> "Library":
        if encoder is not None:
            check_encoder(encoder, manifest["fingerprint"], manifest["encoder"])
        index, passages, found = read_library(versions, manifest, mmap)
        library = cls(
            *(manifest[key] for key in ("encoder", "fingerprint", "dimension")),
            index=manifest.get("index", FLAT),
            encoder=encoder,
        )
        library._index, library._passages, library._mapped = index, passages, mmap
        library._numbers = {passage.id: number for number, passage in passages.items()}
        library.recall = found
        return library

    def _check_writable(self) -> None:
        if self._mapped:
            raise ValueError("this library was loaded with mmap=True, to be read only: load it without")

    def _numbers_of(self, passage_ids: Iterable[str]) -> list[int]:
        try:
            return [self._numbers[passage_id] for passage_id in passage_ids]
        except KeyError as error:
            raise KeyError(f"no passage {error.args[0]!r} in this library") from None

    def _checked(self, passages: Iterable[Passage], *, known: bool) -> list[Passage]:
        if isinstance(passages, Passage):
            raise TypeError("passages is one Passage, not a list of them: [passage]")
        passages, seen = list(passages), set()
        refuse_broken(passages)
        here = self.among(passage.id for passage in passages)
        for passage in passages:
            if why := unsaved(vars(passage)):
                raise ValueError(f"passage {passage.id!r}: {why}")
            if passage.id in seen:
                raise ValueError(f"the id {passage.id!r} comes twice; ids are unique within a library")
            seen.add(passage.id)
            if known and passage.id not in here:
                raise KeyError(f"no passage {passage.id!r} to replace; use add for new ones")
            if not known and passage.id in here:
                raise ValueError(f"{passage.id!r} is in the library already; use replace to change it")
        return passages

    def _encode(self, passages: list[Passage], progress: bool) -> np.ndarray:
        if self._encoder is None:
            raise ValueError("this library was loaded without its encoder: Library.load(folder, encoder)")
        vectors = self._encoder.encode_passages([p.full_text for p in passages], progress=progress)
        return self._fitting(vectors, passages)

    def _fitting(self, vectors: np.ndarray, passages: list[Passage]) -> np.ndarray:
        if vectors.shape != (len(passages), self.dimension):
            raise ValueError(
                f"vectors of shape {vectors.shape} were given for {len(passages)} passages, not "
                f"({len(passages)}, {self.dimension})"
            )
        if not np.isfinite(vectors).all():
            bad = int(np.argmin(np.isfinite(vectors).all(axis=1)))
            raise ValueError(f"the vectors hold NaN or infinity for passage {passages[bad].id!r}")
        return vectors

    def _reconstructed(self, numbers: list[int]) -> np.ndarray:
        vectors = np.empty((len(numbers), self.dimension), dtype=np.float32)
        if numbers:
            self._index.reconstruct_batch(np.array(numbers, dtype=np.int64), vectors)
        return vectors

    def _nearest(self, vector: np.ndarray, k: int) -> list[tuple[Passage, float]]:
        scores, numbers = self._found(vector, min(k, len(self)))
        return [(self._passages[n], score) for n, score in zip(numbers.tolist(), scores.tolist())]

    def _found(self, vector: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(scores, numbers) of the k best, (k,), or fewer where the index finds no more; equals in order."""
        if k == 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        width = k
        while True:
            # FAISS takes any of those that tie for the last place: look on until the tie is seen whole.
            width = min(width + 1, len(self))
            scores, numbers = self._index.search(vector[None], width)  # (1, width) each
            scores, numbers = scores[0], numbers[0]
            if width == len(self) or scores[-1] < scores[k - 1] or numbers[-1] < 0:
                break
            width *= 2
        there = numbers >= 0  # −1: a graph or the cells looked into had no more
        scores, numbers = scores[there], numbers[there]
        best = np.lexsort((numbers, -scores))[:k]
        return scores[best], numbers[best]

    def _cosines(self, vector: np.ndarray, added: np.ndarray, k: int) -> np.ndarray:
        """Cosines, (N,), by which hybrid_search finds the k best; `added`, (N,), is what words add.

        −inf where an index that is not exact sees that a passage can be none of them: one that is not among
        the nearest is no nearer than the last of those (Fagin's threshold algorithm).
        """
        if self.index == FLAT:
            # Row by row: a matrix product rounds equal rows differently by where they stand.
            return np.einsum("nd,d->n", flat_rows(self._index), vector)
        cosines = np.full(len(self), -np.inf)
        if k == 0 or len(self) == 0:
            return cosines
        order = np.fromiter(self._passages, np.int64, len(self))  # numbers grow
        scores, numbers = self._found(vector, min(max(2 * k, 100), len(self)))
        cosines[np.searchsorted(order, numbers)] = scores
        floor = scores[-1] if len(scores) else np.inf
        rest = undecided(cosines, added, floor, k)
        cosines[rest] = np.einsum("nd,d->n", self._reconstructed(order[rest].tolist()), vector)
        return cosines

    def _insert(self, passages: list[Passage], vectors: np.ndarray) -> None:
        first = max(self._passages, default=-1) + 1
        if not self._index.is_trained:
            self._index.train(vectors)
        self._index.add_with_ids(vectors, np.arange(first, first + len(passages), dtype=np.int64))
        for number, passage in enumerate(passages, first):
            self._passages[number] = passage
            self._numbers[passage.id] = number
        self._bm25 = self.recall = None


def undecided(cosines: np.ndarray, added: np.ndarray, floor: float, k: int) -> np.ndarray:
    """The places, (n,), of passages without a cosine (−inf) that can still be among the k ≥ 1 best, where
    none of them has one above `floor`: Fagin's threshold algorithm."""
    known = np.isfinite(cosines)
    totals = np.sort(((1 - LEXICAL) * cosines + added)[known])[::-1]
    worst = totals[k - 1] if k <= len(totals) else -np.inf
    return np.flatnonzero(~known & ((1 - LEXICAL) * floor + added >= worst))


def _checked_queries(library: Library, queries: np.ndarray) -> np.ndarray:
    return np.stack([_checked_vector(library, query) for query in queries])


def retrieve(library: Library, query_vector: np.ndarray, k: int) -> list[Hit]:
    """The k passages with the largest inner product with the query vector, best first.

    This is f(library, query vector, k). `query_vector`: (D,), as `Encoder.encode_query` gives it. Fewer
    than k hits come back from a smaller library; none from an empty one. Equal scores keep the library's
    order. What an index that is not exact misses: `Library.recall`.
    Raises ValueError for a vector of another dimension or with NaN or infinity in it, or for k < 0.
    """
    vector = _checked_vector(library, query_vector)
    return ranked(library._nearest(vector, _check_k(k)))


def _checked_vector(library: Library, query_vector: np.ndarray) -> np.ndarray:
    try:
        vector = np.asarray(query_vector, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # a text, or a tensor with its gradient
        raise ValueError(
            f"query_vector={shortened(query_vector)}: a vector of {library.dimension} numbers, as "
            f"encode_query gives it ({error})"
        ) from error
    if vector.shape == (1, library.dimension):
        vector = vector[0]
    if vector.shape != (library.dimension,):
        raise ValueError(
            f"the query vector has shape {vector.shape}, the library's vectors have ({library.dimension},): "
            f"encode the query with {library.encoder_name!r}"
        )
    if not np.isfinite(vector).all():
        bad = int(np.argmin(np.isfinite(vector)))
        raise ValueError(f"query_vector[{bad}] is {vector[bad]}; a query vector holds finite numbers only")
    return vector


def lexical_search(library: Library, query: str, k: int) -> list[Hit]:
    """The k passages with the highest BM25 score (Lucene's variant, k1 = 1.5, b = 0.75), best first.

    Passages that share no word with the query are no hits. The word index is built on the first call after a
    change. What a word is: `text.words`; one letter is one, h and β are terms of this field.
    """
    passages = library.passages
    return _best(passages, _bm25(library, passages, query)[0], k, above=0.0)


def hybrid_search(library: Library, query: str, query_vector: np.ndarray, k: int) -> list[Hit]:
    """The k passages that are nearest by meaning and words, best first.

    score = (1 − w) · cosine + w · BM25 / its bound, w = LEXICAL: a convex combination, which keeps what ranks
    lose (arXiv 2210.11934). The bound, Σ idf of the query's words, is that of BM25 itself; so a best match
    counts little where it shares only common words, or few of many. Equal scores keep the library's order.
    Raises what `retrieve` raises.
    """
    passages, k = library.passages, _check_k(k)
    lexical, bound = _bm25(library, passages, query)
    added = LEXICAL * lexical / bound
    cosines = library._cosines(_checked_vector(library, query_vector), added, k)
    return _best(passages, (1 - LEXICAL) * cosines + added, k)


def _bm25(library: Library, passages: list[Passage], query: str) -> tuple[np.ndarray, float]:
    """BM25 of each passage, (N,), and what it stays below: a word adds less than its idf."""
    import bm25s

    if not isinstance(query, str):
        raise TypeError(f"query is a {type(query).__name__}, not a string")
    asked = words(query)
    if library._bm25 is None and any(texts := [words(p.full_text) for p in passages]):
        library._bm25 = bm25s.BM25(method="lucene", k1=K1, b=B)
        library._bm25.index(texts, show_progress=False)
    if library._bm25 is None or not asked:
        return np.zeros(len(passages)), 1.0
    known, holding = library._bm25.vocab_dict, np.diff(library._bm25.scores["indptr"])
    counts = np.array([holding[known[word]] if word in known else 0 for word in asked])
    bound = np.log1p((len(passages) - counts + 0.5) / (counts + 0.5)).sum()
    return library._bm25.get_scores(asked), float(bound)


def _best(passages: list[Passage], scores: np.ndarray, k: int, above: float = -np.inf) -> list[Hit]:
    best = np.argsort(-scores, kind="stable")[: _check_k(k)]
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
    best = best if k is None else best[: _check_k(k)]
    return ranked((passages[i], scores[i]) for i in best)


def check_encoder(encoder, fingerprint: str, encoder_name: str) -> None:
    """Raises ValueError unless `encoder` is the one with that fingerprint: vectors of two don't compare."""
    if isinstance(encoder, str):
        raise TypeError(f"encoder={encoder!r} is a name: Encoder({encoder!r})")
    if encoder.fingerprint != fingerprint:
        raise ValueError(
            f"this library was built by encoder {encoder_name!r} ({fingerprint[:12]}…), which is not "
            f"{encoder.name!r} ({encoder.fingerprint[:12]}…): load that one, or build the library again"
        )


def library_encoder(folder: str | Path) -> str:
    """The name of the encoder that built the library in `folder`, from its manifest alone."""
    return LibraryFolder(folder).manifest()["encoder"]


def _check_k(k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k={k!r}: the number of hits is an integer")
    if k < 0:
        raise ValueError(f"k={k}: the number of hits cannot be negative")
    return int(k)
