"""From query vectors to hits: f(library, query vector, k)."""

import numpy as np

from ragkit.retrieval.checks import check_k, checked_vector, checked_vectors
from ragkit.retrieval.corpus import Hit, ranked
from ragkit.retrieval.library import Library


def retrieve(library: Library, query_vector: np.ndarray, k: int) -> list[Hit]:
    """The k passages with the largest inner product with the query vector, best first.

    This is f(library, query vector, k). `query_vector`: (D,), as `Encoder.encode_query` gives it. Fewer
    than k hits come back from a smaller library; none from an empty one. Equal scores keep the library's
    order. What an index that is not exact misses: `Library.recall`.
    Raises ValueError for a vector of another dimension or with NaN or infinity in it, or for k < 0.
    """
    vector = checked_vector(query_vector, library)
    return ranked(library._nearest(vector[None], check_k(k))[0])


def retrieve_many(library: Library, query_vectors: np.ndarray, k: int) -> list[list[Hit]]:
    """What `retrieve` finds for each of the query vectors, (Q, D), to the bit, in a fraction of the time.

    Raises what `retrieve` raises.
    """
    vectors = checked_vectors(query_vectors, library)
    return [ranked(found) for found in library._nearest(vectors, check_k(k))]
