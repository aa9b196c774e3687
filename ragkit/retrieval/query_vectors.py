"""What a search is asked with, checked before it looks: query vectors, and how many hits."""

import numpy as np

from ragkit.retrieval.corpus import shortened


def checked_vector(query_vector: np.ndarray, library) -> np.ndarray:
    """One query vector, (D,), also of a row, (1, D), as float32."""
    vector = _as_numbers(query_vector, library)
    if vector.shape not in ((library.dimension,), (1, library.dimension)):
        raise ValueError(
            f"the query vector has shape {vector.shape}, the library's vectors have ({library.dimension},): "
            f"encode the query with {library.encoder_name!r}"
        )
    return _finite(vector.reshape(-1))


def checked_vectors(query_vectors: np.ndarray, library) -> np.ndarray:
    """Query vectors, (Q, D), as float32."""
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
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k={k!r}: the number of hits is an integer")
    if k < 0:
        raise ValueError(f"k={k}: the number of hits cannot be negative")
    return int(k)
