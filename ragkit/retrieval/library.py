"""The library: passages and their vectors, search, and what keeps the two from drifting apart."""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ragkit.retrieval.checks import check_encoder, checked_passages, checked_vectors, passage_vectors
from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.indexes import (
    FLAT,
    check_enough,
    flat_rows,
    is_exact,
    new_index,
    recall,
    remove,
    sample_rows,
    set_search,
)
from ragkit.retrieval.library_files import library_facts, library_writers, read_library
from ragkit.retrieval.nearest import nearest
from ragkit.retrieval.sentences import Read, Sentences, arrays_of, read, remind
from ragkit.retrieval.storage import LibraryFolder
from ragkit.retrieval.threshold import undecided


class Library:
    """Passages with their vectors in a FAISS index: exact search by inner product, unless asked otherwise.

    Make one with `Library.build(passages, encoder)` or `Library.load(folder, encoder)`; search it with
    `retrieve`. `fingerprint` is that of the encoder that made the vectors; `index`, the kind of index as
    FAISS's `index_factory` names it; `recall`, how much of exact search it found when it was built (None: it
    is exact, or has been changed since).
    """

    index, recall, _mapped, _norm, _sentences = FLAT, None, False, None, None

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
        sentences: bool = False,
        progress: bool = True,
    ) -> "Library":
        """A library of `passages`, encoded by `encoder`. Raises ValueError where two share an id.

        `index`: "Flat" is exact; "HNSW32", "SQ8", "IVF256,Flat", "IVF256,PQ48" and other names that FAISS's
        `index_factory` knows are faster or smaller, and miss some of what is near. How many of the ten
        nearest they find is measured, on `queries`, (Q, D), or else on 200 of the passages' own vectors; it
        is said on stderr (unless `progress` is False) and kept as `recall`. `search`: how hard they look,
        {"nprobe": 32} cells of an inverted file or {"efSearch": 64} candidates in a graph.
        `sentences`: store what a reranker reads of passages, too (`lend`): (2 S + W) · 4 · D bytes for one of
        S sentences in W windows, some thirteen times its vector; encoding takes up to twice as long. What is
        added later is stored in the same way.
        Raises ValueError for a name that FAISS does not know, and for passages too few to learn from.
        """
        library = cls(encoder.name, encoder.fingerprint, encoder.dimension, index=index, encoder=encoder)
        set_search(library._index, search or {})
        library._sentences = Sentences() if sentences else None
        vectors = library._added(passages, None, progress)
        if index != FLAT and len(library) and (queries is None or len(queries)):
            own = sample_rows(len(vectors), 200) if queries is None else None
            asked = vectors[own] if queries is None else checked_vectors(queries, library)
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

    @property
    def stores(self) -> bool:
        """Whether vectors of sentences are stored beside those of passages."""
        return self._sentences is not None

    def lend(self, encoder, passages: Iterable[Passage]) -> None:
        """Have `encoder` remember what is stored of some of the passages: nobody has to encode them again.

        These are their vectors, unless the index has made them coarser; and where sentences are stored, all
        that a reranker asks for: it then waits for no document. `Assistant.find` does so. Raises KeyError for
        a passage that is not here.
        """
        passages = list(passages)
        ids, texts = [p.id for p in passages], [p.full_text for p in passages]
        if self.stores:
            remind(encoder, texts, self.sentences_of(ids))
        elif is_exact(self.index):
            encoder.remember(texts, self.vectors_of(ids))

    def sentences_of(self, passage_ids: Iterable[str]) -> list[Read]:
        """What is stored of some passages' sentences. Raises KeyError for an id that is not here."""
        return [self._sentences.of(number) for number in self._numbers_of(passage_ids)]

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
        made, found = (
            (None, None) if vectors is not None and not self.stores else self._read(passages, progress)
        )
        vectors = made if vectors is None else passage_vectors(vectors, passages, self.dimension)
        self._insert(passages, vectors, found)
        return vectors

    def replace(self, passages: Iterable[Passage], *, progress: bool = True) -> None:
        """Give known passages new texts. Raises KeyError, and changes none, where an id is unknown."""
        self._check_writable()
        passages = self._checked(passages, known=True)
        if not passages:
            return
        vectors, found = self._read(passages, progress)  # first what can fail
        self.delete([passage.id for passage in passages])
        self._insert(passages, vectors, found)

    def delete(self, passage_ids: Iterable[str]) -> None:
        """Remove passages by id. Raises KeyError, and removes none, where an id is unknown.

        FAISS can take nothing out of a graph (HNSW), nor renumber an inverted file: these are made again from
        their own vectors, which takes as long as building them did, without the encoding.
        """
        self._check_writable()
        passage_ids = [passage_ids] if isinstance(passage_ids, str) else passage_ids
        numbers = self._numbers_of(dict.fromkeys(passage_ids))
        if not numbers:
            return
        remove(self._index, np.array(numbers, dtype=np.int64))
        for number in numbers:
            del self._numbers[self._passages.pop(number).id]
        if self.stores:
            self._sentences.drop(numbers)
        self._bm25 = self.recall = None

    def save(self, folder: str | Path) -> None:
        """Write the library to `folder`, whole or not at all.

        Whoever loads the folder, at any moment, gets the old library or the new one.
        """
        whose = self.encoder_name, self.fingerprint, self.dimension
        facts = library_facts(*whose, self.index, self.recall, self.stores)
        writers = library_writers(self._index, self._passages, self._sentences)
        LibraryFolder(folder).write(facts | {"passages": len(self)}, writers)

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
        index, passages, found, sentences = read_library(versions, manifest, mmap)
        library = cls(
            *(manifest[key] for key in ("encoder", "fingerprint", "dimension")),
            index=manifest.get("index", FLAT),
            encoder=encoder,
        )
        library._index, library._passages, library._mapped = index, passages, mmap
        library._numbers = {passage.id: number for number, passage in passages.items()}
        library.recall, library._sentences = found, sentences
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
        return checked_passages(passages, self.among, known=known)

    def _encode(self, passages: list[Passage], progress: bool) -> np.ndarray:
        encode = self._its_encoder().encode_passages
        vectors = encode([p.full_text for p in passages], progress=progress)
        return passage_vectors(vectors, passages, self.dimension)

    def _its_encoder(self):
        if self._encoder is None:
            raise ValueError("this library was loaded without its encoder: Library.load(folder, encoder)")
        return self._encoder

    def _reconstructed(self, numbers: list[int]) -> np.ndarray:
        vectors = np.empty((len(numbers), self.dimension), dtype=np.float32)
        if numbers:
            self._index.reconstruct_batch(np.array(numbers, dtype=np.int64), vectors)
        return vectors

    def _nearest(self, vectors: np.ndarray, k: int) -> list[list[tuple[Passage, float]]]:
        """Of each of the vectors, (Q, D), the k best passages and their scores."""
        found = zip(*(part.tolist() for part in self._found(vectors, k)))
        return [[(self._passages[n], score) for score, n in zip(*one) if n >= 0] for one in found]

    def _found(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return nearest(self._index, vectors, min(k, len(self)), self._largest_norm)

    def _largest_norm(self) -> float:
        """No vector of a flat index has a larger one."""
        if self._norm is None:
            rows = flat_rows(self._index)
            self._norm = float(np.einsum("nd,nd->n", rows, rows).max(initial=0.0)) ** 0.5
        return self._norm

    def _cosines(self, vector: np.ndarray, weight: float, added: np.ndarray, k: int) -> np.ndarray:
        """Cosines, (N,), by which the k best are found of weight · cosine + added; `added`: (N,).

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
        scores, numbers = (part[0] for part in self._found(vector[None], max(2 * k, 100)))
        there = numbers >= 0
        scores, numbers = scores[there], numbers[there]
        cosines[np.searchsorted(order, numbers)] = scores
        floor = scores[-1] if len(scores) else np.inf
        rest = undecided(weight * cosines, added, weight * floor, k)
        cosines[rest] = np.einsum("nd,d->n", self._reconstructed(order[rest].tolist()), vector)
        return cosines

    def _read(self, passages: list[Passage], progress: bool) -> tuple[np.ndarray, list[Read] | None]:
        """Vectors of passages, and what is stored of their sentences."""
        if not self.stores:
            return self._encode(passages, progress), None
        found = read(self._its_encoder(), [p.full_text for p in passages], progress=progress)
        sums = np.stack([one.inside.sum(0) + one.alone.sum(0) for one in found])
        passage_vectors(sums, passages, self.dimension)  # NaN in one of them is in the sum, too
        return np.stack([one.inside[0] for one in found]), found

    def _insert(self, passages: list[Passage], vectors: np.ndarray, found: list[Read] | None = None) -> None:
        first = max(self._passages, default=-1) + 1
        if not self._index.is_trained:
            self._index.train(vectors)
        numbers = range(first, first + len(passages))
        self._index.add_with_ids(vectors, np.array(numbers, dtype=np.int64))
        if found:
            self._sentences.put(arrays_of(numbers, found))
        for number, passage in enumerate(passages, first):
            self._passages[number] = passage
            self._numbers[passage.id] = number
        self._bm25 = self.recall = self._norm = None
