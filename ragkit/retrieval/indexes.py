"""Kinds of FAISS index: what each needs to learn, and how much of exact search it finds."""

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

FLAT = "Flat"
EXAMPLES = (
    '"Flat" (exact), "HNSW32" (a graph), "IVF256,Flat" (256 cells), "SQ8" (a byte a number), '
    '"IVF256,PQ48" (cells, and 48 bytes a vector)'
)
PER_CENTROID = 39  # passages that FAISS's k-means wants for each centroid; with fewer it warns
CHUNK = 8192  # vectors that are compared at once


def new_index(kind: str, dimension: int):
    """An empty IndexIDMap2 over what FAISS's `index_factory` makes of `kind`, for inner products.

    Of an inverted file ("IVF…"), a search looks into the √n nearest of its n cells: FAISS's own setting, one
    cell, misses half of what is near. Raises ValueError for a kind that FAISS does not know, or that does not
    go by inner product.
    """
    import faiss

    try:
        if not isinstance(kind, str) or "IDMap" in kind:
            raise RuntimeError("a kind is a string, without IDMap: passages have their numbers anyway")
        inner = faiss.index_factory(dimension, kind, faiss.METRIC_INNER_PRODUCT)
        if inner.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise RuntimeError("it compares otherwise than by inner product")
    except (RuntimeError, TypeError) as error:
        why = re.sub(r"^.*\.cpp:\d+: (?:Error: )?", "", str(error), flags=re.DOTALL).strip()
        raise ValueError(
            f"index={kind!r}: no FAISS index for vectors of {dimension} numbers goes by this name ({why}). "
            f"Examples: {EXAMPLES}"
        ) from error
    if cells := faiss.try_extract_index_ivf(inner):
        cells.nprobe = max(1, round(cells.nlist**0.5))
        cells.make_direct_map()  # where each vector is, by its number
    return faiss.IndexIDMap2(inner)


def is_exact(kind: str) -> bool:
    """Whether vectors of such an index come out as they went in, bit for bit."""
    return all(
        part == FLAT or (part.startswith(("HNSW", "IVF")) and "_" not in part) for part in kind.split(",")
    )


def set_search(index, settings: dict[str, float]) -> None:
    """How hard a search looks: `nprobe` cells of an inverted file, `efSearch` candidates in a graph.

    They are saved with the index. Raises ValueError for what this kind of index does not have.
    """
    import faiss

    for name, value in settings.items():
        try:
            faiss.ParameterSpace().set_index_parameter(index.index, name, float(value))
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"search={{{name!r}: {value!r}}}: this kind of index has no such setting (an inverted file "
                "has nprobe, a graph efSearch)"
            ) from error


def learns_from(index) -> list[tuple[str, int]]:
    """What an index still has to learn, and from how many vectors at least."""
    import faiss

    index = faiss.downcast_index(index)
    if index.is_trained:
        return []
    if isinstance(index, faiss.IndexIDMap2):
        return learns_from(index.index)
    if isinstance(index, faiss.IndexRefine):
        return learns_from(index.base_index)
    found = [("itself", 1)]
    if isinstance(index, faiss.IndexPreTransform):
        steps = [faiss.downcast_VectorTransform(index.chain.at(n)) for n in range(index.chain.size())]
        for step in steps:
            least = PER_CENTROID * 256 if isinstance(step, faiss.OPQMatrix) else step.d_in
            found += [] if step.is_trained else [(f"its {type(step).__name__}", least)]
        return found + learns_from(index.index)
    if isinstance(index, faiss.IndexHNSW | faiss.IndexNSG):
        return found + learns_from(index.storage)
    if isinstance(index, faiss.IndexIVF):
        found.append((f"{index.nlist:,} cells", PER_CENTROID * index.nlist))
    if codes := getattr(index, "pq", None):
        found.append((f"{codes.ksub:,} codes", PER_CENTROID * codes.ksub))
    return found


def check_enough(index, kind: str, number: int) -> None:
    """Raises ValueError where `number` passages are too few for an index to learn from."""
    what, least = max(learns_from(index), key=lambda one: one[1], default=("", 0))
    if number < least:
        raise ValueError(
            f"index={kind!r} has to learn {what} from the passages, from {least:,} of them at least, and "
            f'there are {number:,}: take fewer cells, "IVF{max(number // PER_CENTROID, 1)},Flat" say, or one '
            'that learns next to nothing: "Flat", "HNSW32", "SQ8"'
        )


def remove(index, numbers: np.ndarray) -> None:
    """Remove vectors by their numbers, (N,) int64; graphs and inverted files are made again without them."""
    import faiss

    if isinstance(faiss.downcast_index(index.index), faiss.IndexFlatCodes):
        index.remove_ids(numbers)
        return
    stored = faiss.vector_to_array(index.id_map)
    kept = stored[~np.isin(stored, numbers)]
    vectors = np.empty((len(kept), index.d), dtype=np.float32)
    if len(kept):
        index.reconstruct_batch(kept, vectors)
    index.reset()  # what it has learnt, it keeps
    index.add_with_ids(vectors, kept)


def flat_rows(index) -> np.ndarray:
    """The vectors of a flat index of a library, (N, D), in the order of the passages; not a copy."""
    import faiss

    flat = faiss.downcast_index(index.index)
    found = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d) if flat.ntotal else np.empty(0)
    return found.reshape(-1, flat.d)


@dataclass(frozen=True)
class Recall:
    """How many of the k nearest by exact search an index finds: a mean over queries, with a 95 % interval."""

    index: str
    k: int
    mean: float
    low: float
    high: float
    queries: int
    own: bool  # the queries are passages of the library, each without itself

    def __str__(self) -> str:
        asked = f"{self.queries} of the passages' own vectors" if self.own else f"{self.queries} queries"
        return (
            f"{self.index} finds {self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] of the {self.k} nearest "
            f"that Flat finds ({asked})"
        )

    facts = asdict  # as JSON holds them


def sample_rows(number: int, most: int, seed: int = 0) -> np.ndarray:
    """At most `most` of `number` rows, drawn without replacement, in order."""
    chosen = np.random.default_rng(seed).choice(number, min(number, most), replace=False)
    return np.sort(chosen)


def recall(
    index, kind: str, chunks: Iterable[np.ndarray], queries: np.ndarray, own: np.ndarray | None = None, k=10
) -> Recall | None:
    """Recall at k of an index whose vectors have the numbers 0, 1, …; None where there is nothing to find.

    `chunks`: those vectors, (n, D) each, in order. `queries`: (Q, D). `own`: (Q,), where the queries are
    vectors of the library, their numbers. Who finds another passage that is just as near has found as much.
    """
    k = min(k, index.ntotal - (own is not None))
    if k < 1 or len(queries) == 0:
        return None
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    _, found = index.search(queries, k + (own is not None))  # (Q, k or k + 1); -1 where nothing was found
    scores = np.full(found.shape, -np.inf)
    best = np.empty((len(queries), 0))
    rows, first = np.arange(len(queries)), 0
    for chunk in _pieces(chunks):
        near = queries @ chunk.T
        if own is not None:
            inside = (own >= first) & (own < first + len(chunk))
            near[rows[inside], own[inside] - first] = -np.inf
        query, place = np.nonzero((found >= first) & (found < first + len(chunk)))
        scores[query, place] = near[query, found[query, place] - first]
        best = -np.sort(-np.concatenate([best, near], axis=1), axis=1)[:, :k]
        first += len(chunk)
    shares = np.minimum((scores >= best[:, -1:] - 1e-6).sum(1), k) / k
    mean, error = shares.mean(), shares.std() / len(shares) ** 0.5
    low, high = max(mean - 1.96 * error, 0.0), min(mean + 1.96 * error, 1.0)
    return Recall(kind, k, float(mean), float(low), float(high), len(queries), own is not None)


def _pieces(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for chunk in chunks:
        for start in range(0, len(chunk), CHUNK):
            yield chunk[start : start + CHUNK]


def write_flat(path: Path, dimension: int, number: int, chunks: Iterable[np.ndarray]) -> None:
    """A file as `faiss.write_index` writes one of `new_index("Flat")`, numbers 0, 1, …, and from vectors that
    are never in memory together: (n, D) float32 each, `number` in all. Raises ValueError for others."""
    # As in faiss/impl/index_write.cpp: dimension, number, two that mean nothing, trained, the metric.
    header = struct.pack("<iqqq?i", dimension, number, 1 << 20, 1 << 20, True, 0)
    with open(path, "wb") as file:
        file.write(b"IxM2" + header + b"IxFI" + header + struct.pack("<Q", number * dimension))
        written = sum(file.write(np.ascontiguousarray(chunk, "<f4").tobytes()) for chunk in chunks)
        if written != 4 * number * dimension:
            raise ValueError(f"{written:,} bytes of vectors came, and not those of {number:,}")
        file.write(struct.pack("<Q", number))
        for start in range(0, number, 2**16):
            file.write(np.arange(start, min(start + 2**16, number), dtype="<i8").tobytes())
