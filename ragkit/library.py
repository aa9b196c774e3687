"""The library: passages and their vectors, exact search, and what keeps the two from drifting apart."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ragkit.corpus import Hit, Passage, read_jsonl

_MANIFEST = "library.json"
_FORMAT = {"format": "ragkit-library", "version": 1}
_OURS = re.compile(
    r"\.?(vectors-[0-9a-f]{12}\.faiss|passages-[0-9a-f]{12}\.jsonl)(\.\d+\.tmp)?|\.library\.json\.\d+\.tmp"
)


class Library:
    """Passages with their vectors in a FAISS index (IDMap2 over Flat, inner product: exact search).

    Make one with `Library.build(passages, encoder)` or `Library.load(folder, encoder)`; search it with
    `retrieve`. `fingerprint` is that of the encoder that made the vectors; `read_only` is True for a mapped
    one.
    """

    def __init__(self, encoder_name: str, fingerprint: str, dimension: int, *, index=None, encoder=None):
        import faiss

        self.encoder_name, self.fingerprint, self.dimension = encoder_name, fingerprint, dimension
        self.read_only = False
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
        return f"Library({len(self):,} passages, {self.encoder_name}, {self.dimension} dimensions)"

    @property
    def passages(self) -> list[Passage]:
        """All passages, in the order in which they came."""
        return list(self._passages.values())

    def add(self, passages: Iterable[Passage], *, progress: bool = True) -> None:
        """Add new passages. Raises ValueError, and adds none, where an id is there already or comes twice."""
        passages = list(passages)
        self._check_ids(passages, known=False)
        self._insert(passages, progress)

    def replace(self, passages: Iterable[Passage], *, progress: bool = True) -> None:
        """Give known passages new texts. Raises KeyError, and changes none, where an id is unknown."""
        passages = list(passages)
        self._check_ids(passages, known=True)
        vectors = self._encode(passages, progress)  # first what can fail
        self.delete([passage.id for passage in passages])
        self._insert(passages, progress, vectors)

    def delete(self, passage_ids: Iterable[str]) -> None:
        """Remove passages by id. Raises KeyError, and removes none, where an id is unknown."""
        self._check_writable()
        passage_ids = [passage_ids] if isinstance(passage_ids, str) else list(dict.fromkeys(passage_ids))
        for passage_id in passage_ids:
            if passage_id not in self._numbers:
                raise KeyError(f"no passage {passage_id!r} in this library")
        numbers = [self._numbers.pop(passage_id) for passage_id in passage_ids]
        self._index.remove_ids(np.array(numbers, dtype=np.int64))
        for number in numbers:
            del self._passages[number]
        self._bm25 = None

    def save(self, folder: str | Path) -> None:
        """Write the library to `folder`, whole or not at all.

        The data files carry their checksum in their name and the manifest, put in place last and in one step,
        names them: whoever loads the folder, at any moment, gets the old library or the new one.
        """
        import faiss

        folder = Path(folder).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        old = _read_manifest(folder) if (folder / _MANIFEST).exists() else {"files": {}}
        lines = [
            {"n": n, "_id": p.id, "title": p.title, "text": p.text, "metadata": p.metadata}
            for n, p in self._passages.items()
        ]
        contents = {
            "vectors.faiss": faiss.serialize_index(self._index).tobytes(),
            "passages.jsonl": "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode(),
        }
        files = {}
        for name, content in contents.items():
            digest = hashlib.sha256(content).hexdigest()
            stem, suffix = name.split(".")
            files[f"{stem}-{digest[:12]}.{suffix}"] = {"sha256": digest, "bytes": len(content)}
            _write(folder / f"{stem}-{digest[:12]}.{suffix}", content)
        manifest = _FORMAT | {
            "encoder": self.encoder_name,
            "fingerprint": self.fingerprint,
            "dimension": self.dimension,
            "passages": len(self),
            "files": files,
        }
        _write(folder / _MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        for path in folder.iterdir():
            if path.name not in files and (path.name in old["files"] or _left_over(path)):
                path.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: str | Path, encoder=None, *, read_only: bool = False) -> "Library":
        """The library in `folder`, its files checked against their checksums.

        With `encoder`, the library is refused unless that encoder built it, and can be added to. With
        `read_only=True` the vectors are mapped from disk, not read into memory, and nothing can be changed.
        Raises FileNotFoundError where no library is, ValueError where one is damaged or does not fit.
        """
        folder = Path(folder).expanduser()
        manifest = _read_manifest(folder)
        while True:
            try:
                return cls._load(folder, manifest, encoder, read_only)
            except (OSError, RuntimeError, ValueError):
                before, manifest = manifest, _read_manifest(folder)
                if manifest == before:
                    raise
                # Else another process has saved a new version, and deleted these files, while we read.

    @classmethod
    def _load(cls, folder: Path, manifest: dict, encoder, read_only: bool) -> "Library":
        import faiss

        if encoder is not None:
            check_encoder(encoder, manifest["fingerprint"], manifest["encoder"])
        paths = {
            name.split("-")[0]: _checked(folder / name, facts) for name, facts in manifest["files"].items()
        }
        # IO_FLAG_MMAP alone would read a flat index into memory; a mapped one must never be written to.
        flags = faiss.IO_FLAG_MMAP_IFC if read_only else 0
        index = faiss.read_index(str(paths["vectors"]), flags)
        library = cls(
            manifest["encoder"], manifest["fingerprint"], manifest["dimension"], index=index, encoder=encoder
        )
        library.read_only = read_only
        for _, row in read_jsonl(paths["passages"]):
            library._passages[row["n"]] = Passage(row["_id"], row["text"], row["title"], row["metadata"])
        library._numbers = {passage.id: number for number, passage in library._passages.items()}
        stored = set(faiss.vector_to_array(index.id_map).tolist())
        if index.d != library.dimension or stored != set(library._passages):
            raise ValueError(
                f"{folder}: vectors and passages do not belong together ({index.ntotal} vectors of {index.d} "
                f"dimensions, {len(library)} passages of {library.dimension}); build the library again"
            )
        return library

    def _check_writable(self) -> None:
        if self.read_only:
            raise ValueError("this library was loaded read-only; load it without read_only=True to change it")

    def _check_ids(self, passages: list[Passage], *, known: bool) -> None:
        self._check_writable()
        seen = set()
        for passage in passages:
            if passage.id in seen:
                raise ValueError(f"the id {passage.id!r} comes twice; ids are unique within a library")
            seen.add(passage.id)
            if known and passage.id not in self._numbers:
                raise KeyError(f"no passage {passage.id!r} to replace; use add for new ones")
            if not known and passage.id in self._numbers:
                raise ValueError(
                    f"passage {passage.id!r} is in the library already; use replace to change it"
                )

    def _encode(self, passages: list[Passage], progress: bool) -> np.ndarray:
        if self._encoder is None:
            raise ValueError("this library was loaded without its encoder: Library.load(folder, encoder)")
        vectors = self._encoder.encode_passages([p.full_text for p in passages], progress=progress)
        if vectors.shape != (len(passages), self.dimension):
            raise ValueError(
                f"the encoder gave vectors of shape {vectors.shape} for {len(passages)} passages, not "
                f"({len(passages)}, {self.dimension})"
            )
        if not np.isfinite(vectors).all():
            bad = int(np.argmin(np.isfinite(vectors).all(axis=1)))
            raise ValueError(f"the encoder gave NaN or infinity for passage {passages[bad].id!r}")
        return vectors

    def _insert(self, passages: list[Passage], progress: bool, vectors: np.ndarray | None = None) -> None:
        if not passages:
            return
        vectors = self._encode(passages, progress) if vectors is None else vectors
        first = max(self._passages, default=-1) + 1
        numbers = np.arange(first, first + len(passages), dtype=np.int64)
        self._index.add_with_ids(vectors, numbers)
        for number, passage in zip(numbers.tolist(), passages):
            self._passages[number] = passage
            self._numbers[passage.id] = number
        self._bm25 = None


def retrieve(library: Library, query_vector: np.ndarray, k: int) -> list[Hit]:
    """The k passages with the largest inner product with the query vector, best first.

    This is f(library, query vector, k). `query_vector`: (D,), as `Encoder.encode_query` gives it. Fewer
    than k hits come back from a smaller library; none from an empty one. Equal scores keep the library's
    order.
    Raises ValueError for a vector of another dimension or with NaN or infinity in it, or for k < 0.
    """
    vector = np.asarray(query_vector, dtype=np.float32)
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
    k = min(_check_k(k), len(library))
    if k == 0:
        return []
    width = k
    while True:
        # FAISS takes any of the passages that tie for the last place: look on until the tie is seen whole.
        width = min(width + 1, len(library))
        scores, numbers = library._index.search(vector[None], width)  # (1, width) each
        if width == len(library) or scores[0, -1] < scores[0, k - 1]:
            break
        width *= 2
    found = sorted(zip((-scores[0]).tolist(), numbers[0].tolist()))[:k]
    return [Hit(library._passages[number], -score, rank) for rank, (score, number) in enumerate(found, 1)]


def lexical_search(library: Library, query: str, k: int) -> list[Hit]:
    """The k passages with the highest BM25 score (Lucene's variant, k1 = 1.5, b = 0.75), best first.

    Passages that share no word with the query are no hits. The word index is built on the first call after a
    change. One-letter words count: h and β are terms of this field.
    """
    import bm25s

    if not isinstance(query, str):
        raise TypeError(f"query is a {type(query).__name__}, not a string")
    k = min(_check_k(k), len(library))
    if k == 0:
        return []
    settings = {"token_pattern": r"(?u)\b\w+\b", "stopwords": "en", "show_progress": False}
    if library._bm25 is None:
        index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
        words = bm25s.tokenize([p.full_text for p in library._passages.values()], **settings)
        if not words.vocab:
            return []
        index.index(words, show_progress=False)
        library._bm25 = index
    words = bm25s.tokenize([query], return_ids=False, **settings)[0]
    if not words:
        return []
    scores = library._bm25.get_scores(words)  # (N,)
    best = np.lexsort((np.arange(len(scores)), -scores))[:k]
    passages = list(library._passages.values())
    return [Hit(passages[i], float(scores[i]), rank) for rank, i in enumerate(best, 1) if scores[i] > 0]


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
    return [Hit(passages[i], scores[i], rank) for rank, i in enumerate(best, 1)]


def check_encoder(encoder, fingerprint: str, encoder_name: str) -> None:
    """Raises ValueError unless `encoder` is the one with that fingerprint: vectors of two don't compare."""
    if encoder.fingerprint != fingerprint:
        raise ValueError(
            f"this library was built by encoder {encoder_name!r} ({fingerprint[:12]}…), which is not "
            f"{encoder.name!r} ({encoder.fingerprint[:12]}…): load that one, or build the library again"
        )


def library_encoder(folder: str | Path) -> str:
    """The name of the encoder that built the library in `folder`, from its manifest alone."""
    return _read_manifest(Path(folder).expanduser())["encoder"]


def _check_k(k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k={k!r}: the number of hits is an integer")
    if k < 0:
        raise ValueError(f"k={k}: the number of hits cannot be negative")
    return int(k)


def _write(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: a temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # not on Windows
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _left_over(path: Path) -> bool:
    """Whether a save that was killed left this file; one of the last hour may belong to a save under way."""
    return bool(_OURS.fullmatch(path.name)) and time.time() - path.stat().st_mtime > 3600


def _read_manifest(folder: Path) -> dict:
    path = folder / _MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"no library in {str(folder)!r}: it has no {_MANIFEST} (python -m ragkit index makes one)"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        kind = {key: manifest.get(key) for key in _FORMAT}
        files = manifest.get("files", {})
        if kind == _FORMAT:
            names = [name.split("-")[0] for name, facts in files.items() if {"sha256", "bytes"} <= {*facts}]
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); build the library again") from error
    if kind != _FORMAT:
        raise ValueError(f"{path} is not a library that this ragkit reads: it says {kind}, not {_FORMAT}")
    if sorted(names) != ["passages", "vectors"] or any("/" in name or "\\" in name for name in files):
        raise ValueError(f"{path} is damaged (its files are {files}); build the library again")
    missing = [key for key in ("encoder", "fingerprint", "dimension") if key not in manifest]
    if missing:
        raise ValueError(f"{path} is damaged (no {', '.join(missing)}); build the library again")
    return manifest


def _checked(path: Path, facts: dict) -> Path:
    """`path`, once its size and checksum are what the manifest says."""
    if not path.is_file():
        raise ValueError(
            f"{path} is missing, though the library's manifest names it; build the library again"
        )
    if (size := path.stat().st_size) != facts["bytes"]:
        raise ValueError(
            f"{path} has {size} bytes, not {facts['bytes']}: truncated or changed; build the library again"
        )
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != facts["sha256"]:
        raise ValueError(
            f"{path} is damaged: its sha256 is {found[:12]}…, not {facts['sha256'][:12]}…; "
            "build the library again"
        )
    return path
