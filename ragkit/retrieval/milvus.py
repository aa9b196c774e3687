"""A library kept by Milvus: in a folder of this machine (Milvus Lite) or on a cluster, by the same calls."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ragkit.retrieval.checks import check_encoder, passage_vectors
from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.library import Library
from ragkit.retrieval.milvus_collection import BYTES, FIELDS, Collection, is_milvus
from ragkit.retrieval.milvus_rows import (
    PAGE,
    pages,
    requests,
    row_key,
    row_order,
    row_passage,
    row_strings,
    row_vector,
)
from ragkit.retrieval.storage import LibraryFolder
from ragkit.retrieval.threshold import undecided

MOST = 16_384  # hits of one search, a limit of Milvus servers
REQUEST = 8 * 2**20  # bytes of a request; a server takes 64 MB
ANSWER = 32 * 2**20  # bytes of an answer, more or less: as many queries as it has room for go at once
TEXT = 4_096  # bytes of a row's texts, as a rule


class MilvusLibrary(Library):
    """A `Library` whose passages and vectors are rows of a Milvus collection, searched exactly.

    `place` is a folder of this machine, by a name that ends in .db, or the address of a server or cluster:
    "http://HOST:19530". `MilvusLibrary.open(place, encoder)` makes one, or goes on with it. A passage and its
    vector are one row: whoever is killed when, it is there whole or not at all. What others write to a server
    is found at once. Searches by words (BM25) keep all texts in this process's memory.

    `settings`: `collection`, the library's name there ("ragkit"); `token`, "user:password", for a server that
    asks for one; `timeout`, seconds after which a server that does not answer is given up (30).
    Whatever reaches for Milvus raises OSError where it does not answer.
    """

    def __init__(self, place, encoder=None, *, make=False, collection="ragkit", token="", timeout=30.0):
        self._encoder, self._collection = encoder, Collection(str(place), collection, token, timeout, make)
        self._last = 0  # the number of the row last written
        self._snapshot: list[Passage] | None = None  # the passages whose words are counted
        self._bm25 = None
        try:
            if make and not self._collection.call("has_collection"):
                self._collection.make(encoder.name, encoder.fingerprint, encoder.dimension)
            facts = self._collection.facts()
            self.encoder_name, self.fingerprint = facts["encoder"], facts["fingerprint"]
            self.dimension = facts["dimension"]
            if encoder is not None:
                check_encoder(encoder, self.fingerprint, self.encoder_name)
            self._collection.index()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, place: str | Path, encoder, **settings) -> "MilvusLibrary":
        """The library at `place`, made where none is. Raises ValueError where another encoder built it."""
        return cls(place, encoder, make=True, **settings)

    @classmethod
    def build(cls, passages: Iterable[Passage], encoder, place, *, progress=True, **settings):
        """A new library of `passages`. Raises ValueError where one with passages is at `place` already."""
        library = cls.open(place, encoder, **settings)
        if len(library):
            library.close()
            raise ValueError(
                f"a library with passages is at {library._collection} already: add to it "
                "(MilvusLibrary.open), or name another place or collection"
            )
        library.add(passages, progress=progress)
        return library

    @classmethod
    def load(cls, place: str | Path, encoder=None, **settings) -> "MilvusLibrary":
        """The library at `place`. Raises FileNotFoundError where none is; else as `open` does."""
        return cls(place, encoder, **settings)

    def __len__(self) -> int:
        return self._collection.call("query", filter="", output_fields=["count(*)"])[0]["count(*)"]

    def __contains__(self, passage_id: str) -> bool:
        return passage_id in self.among([passage_id])

    def among(self, passage_ids: Iterable[str]) -> set[str]:
        return {*self._fetched(passage_ids, "number")}

    def ids(self) -> set[str]:
        """The ids of all passages."""
        return {row["id"] for row in self._rows("id")}

    @property
    def passages(self) -> list[Passage]:
        """All passages, in the order in which they came."""
        if not self._is_fresh():
            rows = sorted(self._rows("number", *FIELDS), key=row_order)
            self._newest = rows[-1]["number"] if rows else 0
            self._snapshot, self._bm25 = [row_passage(row) for row in rows], None
            self._place_of = {passage.id: place for place, passage in enumerate(self._snapshot)}
        return list(self._snapshot)

    @property
    def vectors(self) -> np.ndarray:
        found = {row_order(row): row_vector(row) for row in self._rows("number", "id", "vector")}
        return np.array([found[key] for key in sorted(found)], np.float32).reshape(-1, self.dimension)

    def vectors_of(self, passage_ids: Iterable[str]) -> np.ndarray:
        passage_ids = list(passage_ids)
        found = self._found(passage_ids, "vector")
        return np.array([found[i] for i in passage_ids], np.float32).reshape(-1, self.dimension)

    def add(self, passages: Iterable[Passage], vectors=None, *, progress: bool = True) -> None:
        """Add new passages, with `vectors`, (N, D), where they are known. Raises as `Library.add` does.

        They are written in requests of 8 MB. One that fits into a single request is there whole or not at
        all; of many, those that came through before a failure stay: `among` tells which.
        """
        self._write(self._checked(passages, known=False), vectors, progress)

    def replace(self, passages: Iterable[Passage], vectors=None, *, progress: bool = True) -> None:
        """Give known passages new texts. Each is the old one or the new one, whatever happens meanwhile."""
        self._write(self._checked(passages, known=True), vectors, progress)

    def delete(self, passage_ids: Iterable[str]) -> None:
        passage_ids = [passage_ids] if isinstance(passage_ids, str) else list(dict.fromkeys(passage_ids))
        self._found(passage_ids, "number")
        for page in pages([row_key(passage_id) for passage_id in passage_ids]):
            self._collection.call("delete", ids=page)
        self._snapshot = None

    def save(self, folder: str | Path | None = None) -> None:
        """Have Milvus write its files (without that, too, a process that is killed loses nothing).

        Raises ValueError for another folder than its own.
        """
        if folder is not None and str(folder) != self._collection.place:
            raise ValueError(
                f"a MilvusLibrary stays where it is, {self._collection}, and is not saved to {folder}"
            )
        self._collection.call("flush")

    def close(self) -> None:
        """Leave the library, so that another process can open the folder."""
        self._collection.close()

    # --- what Library's searches ask for

    def _nearest(self, vectors: np.ndarray, k: int) -> list[list[tuple[Passage, float]]]:
        if k > MOST and (k := min(k, len(self))) > MOST:
            raise ValueError(f"k={k}: Milvus gives at most {MOST:,} hits for a question")
        found: list[list] = [[] for _ in vectors]
        left, width = list(range(len(vectors))), min(k + 1, MOST)
        while k and left:
            tied = []
            for n, (rows, scores, floor) in zip(left, self._search(vectors[left], width)):
                if len(rows) < width or width == MOST or floor < scores[k - 1]:
                    found[n] = [(row_passage(row), score) for row, score in zip(rows[:k], scores.tolist())]
                else:
                    tied.append(n)  # a tie for the last place is seen whole
            left, width = tied, min(2 * width, MOST)
        return found

    def _cosines(self, vector: np.ndarray, weight: float, added: np.ndarray, k: int) -> np.ndarray:
        """As in Library, but −inf where a passage can be none of the k best.

        What is not among the nearest is no nearer than the last of them.
        """
        cosines = np.full(len(added), -np.inf)
        rows, scores, floor = [], [], 0.0
        if k:
            [(rows, scores, floor)] = self._search(vector[None], min(max(2 * k, 100), MOST))
        for row, score in zip(rows, scores):
            if (place := self._place_of.get(row["id"])) is not None:
                cosines[place] = score
        rest = undecided(weight * cosines, added, weight * floor, k) if k else np.empty(0, np.int64)
        for page in pages(rest.tolist()):
            found = self._fetched((self._snapshot[place].id for place in page), "vector")
            there = [place for place in page if self._snapshot[place].id in found]
            vectors = np.array([found[self._snapshot[place].id] for place in there], np.float32)
            cosines[there] = np.einsum("nd,d->n", vectors.reshape(-1, self.dimension), vector)
        return cosines

    def _search(self, vectors: np.ndarray, width: int) -> Iterator[tuple[list[dict], np.ndarray, float]]:
        """(rows, scores, floor) of each of the vectors, (Q, D): the nearest rows, best first, and what no
        other row's score is above.

        Milvus may round the products of equal rows differently; they are multiplied again here, so that equal
        rows have equal scores, and the floor leaves room for that.
        """
        fields = ["number", *FIELDS, "vector"]
        step = max(ANSWER // (width * (4 * self.dimension + TEXT)), 1)
        for start in range(0, len(vectors), step):
            some = vectors[start : start + step]
            found = self._collection.call("search", data=some.tolist(), limit=width, output_fields=fields)
            for vector, one in zip(some, found):
                yield self._scored(vector, [dict(hit["entity"]) for hit in one], one, width)

    def _scored(self, vector: np.ndarray, rows: list[dict], found, width: int) -> tuple:
        vectors = np.array([row_vector(row) for row in rows], np.float32).reshape(-1, self.dimension)
        scores = np.einsum("nd,d->n", vectors, vector)
        longest = np.linalg.norm(vectors.astype(float), axis=1).max(initial=0.0)
        slack = 1e-6 * float(np.linalg.norm(vector.astype(float))) * longest
        order = sorted(range(len(rows)), key=lambda n: (-scores[n], *row_order(rows[n])))
        floor = found[-1]["distance"] + slack if len(rows) == width else -np.inf
        return [rows[n] for n in order], scores[order], floor

    def _checked(self, passages: Iterable[Passage], *, known: bool) -> list[Passage]:
        passages = super()._checked(passages, known=known)
        for passage in passages:
            for name, value in row_strings(passage).items():
                if (size := len(value.encode())) > BYTES:
                    raise ValueError(
                        f"passage {passage.id[:40]!r}: its {name} has {size:,} bytes, and Milvus holds "
                        f"{BYTES:,}: shorten it, or split the text (split_text)"
                    )
        return passages

    # --- rows

    def _write(self, passages: list[Passage], vectors, progress: bool) -> None:
        from tqdm.auto import tqdm

        if not passages:
            return
        if vectors is None:
            vectors = self._encode(passages, progress)
        else:
            vectors = passage_vectors(vectors, passages, self.dimension)
        # Numbers give the order, and grow by the clock: writers need not ask each other for the next one.
        first = max(self._last + 1, time.time_ns())
        self._last, self._snapshot = first + len(passages), None
        rows = (
            row_strings(passage) | {"key": row_key(passage.id), "number": number, "vector": vector}
            for number, (passage, vector) in enumerate(zip(passages, vectors), first)
        )
        with tqdm(total=len(passages), desc="writing", unit="passage", delay=3, disable=not progress) as bar:
            for batch in requests(rows, REQUEST):
                # And not insert: a request that is sent again, because its answer was lost, changes nothing.
                self._collection.call("upsert", data=batch)
                bar.update(len(batch))

    def _fetched(self, passage_ids: Iterable[str], field: str) -> dict[str, ...]:
        """A field of the passages that are here, by id."""
        keys = [row_key(passage_id) for passage_id in passage_ids if isinstance(passage_id, str)]
        rows = (self._collection.call("get", ids=page, output_fields=["id", field]) for page in pages(keys))
        return {row["id"]: row[field] for page in rows for row in page}

    def _found(self, passage_ids: list[str], field: str) -> dict[str, ...]:
        found = self._fetched(passage_ids, field)
        if missing := [passage_id for passage_id in passage_ids if passage_id not in found]:
            raise KeyError(f"no passage {missing[0]!r} in this library")
        return found

    def _rows(self, *fields: str) -> Iterator[dict]:
        """Some fields of all rows, page by page."""
        with self._collection.explained():
            settings = {"filter": "", "batch_size": 10 * PAGE, "output_fields": [*fields]}
            found = self._collection.call("query_iterator", **settings)
            while page := found.next():
                yield from page
            found.close()

    def _is_fresh(self) -> bool:
        """Whether the snapshot has what Milvus has: no fewer passages there, and none of a later number."""
        if self._snapshot is None or len(self) != len(self._snapshot):
            return False
        later = f"number > {self._newest}"
        return not self._collection.call("query", filter=later, limit=1, output_fields=["number"])


def load_library(place: str | Path, encoder=None) -> Library:
    """The library in a folder, or in Milvus. Raises what their `load` raises."""
    return (MilvusLibrary if is_milvus(place) else Library).load(place, encoder)


def encoder_of(place: str | Path) -> str:
    """The name of the encoder that built the library at `place`. Raises what their `load` raises."""
    if not is_milvus(place):
        return LibraryFolder(place).manifest()["encoder"]
    library = MilvusLibrary.load(place)
    library.close()
    return library.encoder_name
