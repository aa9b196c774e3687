"""What a library is given, checked at the door: passages and their vectors, an encoder, query vectors, how
many hits."""

from collections.abc import Callable, Iterable

import numpy as np

from ragkit.retrieval.corpus import Passage, shortened, unsaved


def checked_passages(
    passages: Iterable[Passage], among: Callable[[Iterable[str]], set[str]], *, known: bool
) -> list[Passage]:
    """Passages to be added to a library, or, if they are to be `known`, to replace others there.

    `among`: which of some ids are there. Raises TypeError for what is no passage, ValueError for one that no
    file can hold, an id that comes twice and one that is there already, and KeyError for one that is to be
    there and is not.
    """
    if isinstance(passages, Passage):
        raise TypeError("passages is one Passage, not a list of them: [passage]")
    passages, seen = list(passages), set()
    refuse_broken(passages)
    here = among(passage.id for passage in passages)
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


def refuse_broken(passages: Iterable[Passage]) -> None:
    """Raises TypeError for what is no passage, and for a part of one that is of another type."""
    for place, passage in enumerate(passages):
        if not isinstance(passage, Passage):
            raise TypeError(f"passages[{place}] is a {type(passage).__name__}, not a Passage")
        for name, kind in (("id", str), ("title", str), ("text", str), ("metadata", dict)):
            if not isinstance(value := getattr(passage, name), kind):
                wanted = "string" if kind is str else "dict"
                raise TypeError(f"passage {passage.id!r}: its {name} is {value!r}, and must be a {wanted}")


def passage_vectors(vectors: np.ndarray, passages: list[Passage], dimension: int) -> np.ndarray:
    """The passages' vectors, (N, D), as float32. Raises ValueError for another shape, NaN and infinity."""
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.shape != (len(passages), dimension):
        raise ValueError(
            f"vectors of shape {vectors.shape} were given for {len(passages)} passages, not "
            f"({len(passages)}, {dimension})"
        )
    if not np.isfinite(vectors).all():
        bad = int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise ValueError(f"the vectors hold NaN or infinity for passage {passages[bad].id!r}")
    return vectors


def check_encoder(encoder, fingerprint: str, encoder_name: str) -> None:
    """Raises ValueError unless `encoder` is the one with that fingerprint: vectors of two don't compare."""
    if isinstance(encoder, str):
        raise TypeError(f"encoder={encoder!r} is a name: Encoder({encoder!r})")
    if encoder.fingerprint != fingerprint:
        raise ValueError(
            f"this library was built by encoder {encoder_name!r} ({fingerprint[:12]}…), which is not "
            f"{encoder.name!r} ({encoder.fingerprint[:12]}…): load that one, or build the library again"
        )


def checked_vector(query_vector: np.ndarray, library) -> np.ndarray:
    """One query vector, (D,), also of a row, (1, D), as float32.

    Raises ValueError for another shape, and for what is no finite number.
    """
    vector = _as_numbers(query_vector, library)
    if vector.shape not in ((library.dimension,), (1, library.dimension)):
        raise ValueError(
            f"the query vector has shape {vector.shape}, the library's vectors have ({library.dimension},): "
            f"encode the query with {library.encoder_name!r}"
        )
    return _finite(vector.reshape(-1))


def checked_vectors(query_vectors: np.ndarray, library) -> np.ndarray:
    """Query vectors, (Q, D), as float32. Raises what `checked_vector` raises."""
    vectors = _as_numbers(query_vectors, library)
    if vectors.shape == (0,):  # an empty list
        vectors = vectors.reshape(0, library.dimension)
    if vectors.ndim != 2 or vectors.shape[1] != library.dimension:
        raise ValueError(
            f"the query vectors have shape {vectors.shape}, and are to have (Q, {library.dimension}): encode "
            f"the queries with {library.encoder_name!r}"
        )
    return _finite(vectors)


def _as_numbers(vectors: np.ndarray, library) -> np.ndarray:
    try:
        return np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # a text, or a tensor with its gradient
        raise ValueError(
            f"query_vector={shortened(vectors)}: a vector of {library.dimension} numbers, as "
            f"encode_query gives it ({error})"
        ) from error


def _finite(vectors: np.ndarray) -> np.ndarray:
    if not np.isfinite(vectors).all():
        bad = tuple(np.argwhere(~np.isfinite(vectors))[0].tolist())
        raise ValueError(
            f"query_vector[{', '.join(map(str, bad))}] is {vectors[bad]}; a query vector holds finite "
            "numbers only"
        )
    return vectors


def check_k(k: int) -> int:
    """How many hits, as Python's number. Raises TypeError for no whole number, ValueError for k < 0."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k={k!r}: the number of hits is an integer")
    if k < 0:
        raise ValueError(f"k={k}: the number of hits cannot be negative")
    return int(k)
