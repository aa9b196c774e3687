"""The library: passages and their vectors, exact search, and what keeps the two from drifting apart."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ragkit.retrieval.corpus import Hit, Passage, ranked, read_jsonl, shortened, unsaved
from ragkit.retrieval.storage import PASSAGES, VECTORS, LibraryFolder
from ragkit.retrieval.text import words

LEXICAL = 0.6  # the share of BM25 in hybrid_search
K1, B = 1.5, 0.75  # of BM25: how much a repeated word adds, how far long passages are discounted


class Library:
    """Passages with their vectors in a FAISS index (IDMap2 over Flat, inner product: exact search).

    Make one with `Library.build(passages, encoder)` or `Library.load(folder, encoder)`; search it with
    `retrieve`. `fingerprint` is that of the encoder that made the vectors.
    """

    def __init__(self, encoder_name: str, fingerprint: str, dimension: int, *, index=None, encoder=None):
        import faiss

        self.encoder_name, self.fingerprint, self.dimension = encoder_name, fingerprint, dimension
        self._encoder = encoder
        self._index = index or faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        # By the number that FAISS keeps. Numbers grow in the order in which passages came; that of a deleted
        # last passage is given again, so nothing outside the library may remember one.
        self._passages: dict[int, Passage] = {}
        self._numbers: dict[str, int] = {}  # the number of each passage id
        self._bm25 = None

    @classmethod
    def build(cls, passages: Iterable[Passage], encoder, *, progress: bool = True) -> "Library":
        """A library of `passages`, encoded by `encoder`. Raises ValueError where two share an id."""
        library = cls(encoder.name, encoder.fingerprint, encoder.dimension, encoder=encoder)
        library.add(passages, progress=progress)
        return library

    def __len__(self) -> int:
        return len(self._passages)

    def __contains__(self, passage_id: str) -> bool:
        return passage_id in self._numbers

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self):,} passages, {self.encoder_name}, {self.dimension} dimensions)"
        )

    def among(self, passage_ids: Iterable[str]) -> set[str]:
        """Those of some ids that are here."""
        return self._numbers.keys() & set(passage_ids)

    @property
    def passages(self) -> list[Passage]:
        """All passages, in the order in which they came."""
        return list(self._passages.values())

    @property
    def vectors(self) -> np.ndarray:
        """A copy of the passages' vectors, (N, D), in the order of `passages`."""
        return self._reconstructed(list(self._passages))

    def vectors_of(self, passage_ids: Iterable[str]) -> np.ndarray:
        """A copy of some passages' vectors, (N, D). Raises KeyError for an id that is not here."""
        return self._reconstructed(self._numbers_of(passage_ids))

    def add(self, passages: Iterable[Passage], *, progress: bool = True) -> None:
        """Add new passages. Raises ValueError, and adds none, where an id is there already or comes twice."""
        passages = self._checked(passages, known=False)
        if passages:
            self._insert(passages, self._encode(passages, progress))

    def replace(self, passages: Iterable[Passage], *, progress: bool = True) -> None:
        """Give known passages new texts. Raises KeyError, and changes none, where an id is unknown."""
        passages = self._checked(passages, known=True)
        vectors = self._encode(passages, progress)  # first what can fail
        self.delete([passage.id for passage in passages])
        self._insert(passages, vectors)

    def delete(self, passage_ids: Iterable[str]) -> None:
        """Remove passages by id. Raises KeyError, and removes none, where an id is unknown."""
        passage_ids = [passage_ids] if isinstance(passage_ids, str) else passage_ids
        numbers = self._numbers_of(dict.fromkeys(passage_ids))
        self._index.remove_ids(np.array(numbers, dtype=np.int64))
        for number in numbers:
            del self._numbers[self._passages.pop(number).id]
        self._bm25 = None

    def save(self, folder: str | Path) -> None:
        """Write the library to `folder`, whole or not at all.

        Whoever loads the folder, at any moment, gets the old library or the new one.
        """
        import faiss

        def write_passages(path: Path) -> None:
            with open(path, "w", encoding="utf-8", newline="\n") as file:
                for number, p in self._passages.items():
                    row = {"n": number, "_id": p.id, "title": p.title, "text": p.text, "metadata": p.metadata}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")

        facts = {"encoder": self.encoder_name, "fingerprint": self.fingerprint, "dimension": self.dimension}
        writers = {
            VECTORS: lambda path: faiss.write_index(self._index, str(path)),
            PASSAGES: write_passages,
        }
        LibraryFolder(folder).write(facts | {"passages": len(self)}, writers)

    @classmethod
    def load(cls, folder: str | Path, encoder=None) -> "Library":
        """The library in `folder`, its files checked against their checksums.

        With `encoder`, the library is refused unless that encoder built it, and can be added to.
        Raises FileNotFoundError where no library is, ValueError where one is damaged or does not fit.
        """
        versions = LibraryFolder(folder)
        manifest = versions.manifest()
        while True:
            try:
                return cls._load(versions, manifest, encoder)
            except (OSError, RuntimeError, ValueError):
                before, manifest = manifest, versions.manifest()
                if manifest == before:
                    raise
                # Else another process has saved a new version, and deleted these files, while we read.

    @classmethod
    def _load(cls, versions: LibraryFolder, manifest: dict, encoder) -> "Library":
        import faiss

        if encoder is not None:
            check_encoder(encoder, manifest["fingerprint"], manifest["encoder"])
        paths = versions.files(manifest)
        try:
            index = faiss.read_index(str(paths["vectors"]))
            if not isinstance(index, faiss.IndexIDMap2) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
                raise ValueError("its index numbers no passages, or measures otherwise than by inner product")
            vectors = _rows(index)
            passages = {}
            for _, row in read_jsonl(paths["passages"]):
                passages[row["n"]] = Passage(row["_id"], row["text"], row["title"], row["metadata"])
            _refuse_broken(passages.values())
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{versions.path} is damaged ({error}); build the library again") from error
        if not np.isfinite(vectors).all():
            raise ValueError(f"{versions.path}: its vectors hold NaN or infinity; build the library again")
        library = cls(
            manifest["encoder"], manifest["fingerprint"], manifest["dimension"], index=index, encoder=encoder
        )
        library._passages = passages
        library._numbers = {passage.id: number for number, passage in library._passages.items()}
        stored = set(faiss.vector_to_array(index.id_map).tolist())
        if index.d != library.dimension or stored != set(passages) or len(library._numbers) < len(passages):
            raise ValueError(
                f"{versions.path}: vectors and passages do not belong together "
                f"({index.ntotal} vectors of {index.d} dimensions, {len(library)} passages of "
                f"{library.dimension}); build the library again"
            )
        return library

    def _numbers_of(self, passage_ids: Iterable[str]) -> list[int]:
        try:
            return [self._numbers[passage_id] for passage_id in passage_ids]
        except KeyError as error:
            raise KeyError(f"no passage {error.args[0]!r} in this library") from None

    def _checked(self, passages: Iterable[Passage], *, known: bool) -> list[Passage]:
        if isinstance(passages, Passage):
            raise TypeError("passages is one Passage, not a list of them: [passage]")
        passages, seen = list(passages), set()
        _refuse_broken(passages)
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
        k = min(k, len(self))
        if k == 0:
            return []
        width = k
        while True:
            # FAISS takes any of those that tie for the last place: look on until the tie is seen whole.
            width = min(width + 1, len(self))
            scores, numbers = self._index.search(vector[None], width)  # (1, width) each
            if width == len(self) or scores[0, -1] < scores[0, k - 1]:
                break
            width *= 2
        found = sorted(zip((-scores[0]).tolist(), numbers[0].tolist()))[:k]
        return [(self._passages[number], -score) for score, number in found]

    def _cosines(self, vector: np.ndarray, added: np.ndarray, k: int) -> np.ndarray:
        """Cosines, (N,), by which hybrid_search finds the k best; `added`, (N,), is what words add."""
        # Row by row: a matrix product rounds equal rows differently by where they stand.
        return np.einsum("nd,d->n", _rows(self._index), vector)

    def _insert(self, passages: list[Passage], vectors: np.ndarray) -> None:
        first = max(self._passages, default=-1) + 1
        self._index.add_with_ids(vectors, np.arange(first, first + len(passages), dtype=np.int64))
        for number, passage in enumerate(passages, first):
            self._passages[number] = passage
            self._numbers[passage.id] = number
        self._bm25 = None


def _refuse_broken(passages: Iterable[Passage]) -> None:
    """Raises TypeError for what is no passage, and for a part of one that is of another type."""
    for place, passage in enumerate(passages):
        if not isinstance(passage, Passage):
            raise TypeError(f"passages[{place}] is a {type(passage).__name__}, not a Passage")
        for name, kind in (("id", str), ("title", str), ("text", str), ("metadata", dict)):
            if not isinstance(value := getattr(passage, name), kind):
                wanted = "string" if kind is str else "dict"
                raise TypeError(f"passage {passage.id!r}: its {name} is {value!r}, and must be a {wanted}")


def _rows(index) -> np.ndarray:
    """The vectors of an index of a library, (N, D), in the order of the passages; not a copy."""
    import faiss

    flat = faiss.downcast_index(index.index)
    if not isinstance(flat, faiss.IndexFlat):
        raise ValueError(f"its index is a {type(flat).__name__}, and no list of all vectors")
    found = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d) if flat.ntotal else np.empty(0)
    return found.reshape(-1, flat.d)


def retrieve(library: Library, query_vector: np.ndarray, k: int) -> list[Hit]:
    """The k passages with the largest inner product with the query vector, best first.

    This is f(library, query vector, k). `query_vector`: (D,), as `Encoder.encode_query` gives it. Fewer
    than k hits come back from a smaller library; none from an empty one. Equal scores keep the library's
    order.
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
