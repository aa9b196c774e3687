"""The nearest vectors of a FAISS index, their scores the same to the bit however many are asked for at once.

FAISS multiplies a few queries by many vectors one pair after another, so that a score depends on nothing but
its pair. Many queries, or fewer than there are threads, it multiplies as matrices: four times as fast with
many, slower with one, and rounded otherwise, by where a vector stands, so that of equal ones some differ
(findings/faiss_one_query_on_two_threads.sh). So what matrices find is multiplied again, pair by pair.
"""

from collections.abc import Callable

import numpy as np

MATRIX = 128_000  # numbers in the queries of one search from which on FAISS multiplies matrices
FEWER = 4  # of these, so many times fewer are filled up to them: that is faster still
DIVIDED = 8  # threads a query from which on matrices are faster with few queries, too


def nearest(index, queries: np.ndarray, k: int, norm: Callable) -> tuple[np.ndarray, np.ndarray]:
    """(scores, numbers) of the k best of each query, (Q, k), best first; equal ones by their numbers.

    `index`: one of `indexes.new_index`, of k vectors at least; `norm()`, where it is flat: no vector has a
    larger one. `queries`: (Q, D) float32. A number of −1 is none: a graph or the cells looked into had no
    more.
    """
    scores = np.empty((len(queries), k), np.float32)
    numbers = np.empty((len(queries), k), np.int64)
    left, width = np.arange(len(queries)), k
    while k and len(left):
        # FAISS takes any of those that tie for the last place: look on until the tie is seen whole.
        width = min(width + 1, index.ntotal)
        found, there, floor = _searched(index, queries[left], width, norm)
        if not (found[:, 1:] < found[:, :-1]).all():
            order = np.lexsort((there, -found))
            found, there = np.take_along_axis(found, order, 1), np.take_along_axis(there, order, 1)
        scores[left], numbers[left] = found[:, :k], there[:, :k]
        seen = (floor < found[:, k - 1]) | (there[:, -1] < 0) | (width == index.ntotal)
        left, width = left[~seen], 2 * width
    return scores, numbers


def _searched(index, queries: np.ndarray, width: int, norm: Callable) -> tuple:
    """(scores, numbers), (Q, width) each, and what no other vector's score is above, (Q,)."""
    import faiss

    queries = np.ascontiguousarray(queries)
    count, wide = queries.shape
    threads = faiss.omp_get_max_threads()
    flat = faiss.downcast_index(index.index)
    if isinstance(flat, faiss.IndexFlat) and (
        count * wide * FEWER >= MATRIX or (threads >= DIVIDED * count and count * wide < MATRIX)
    ):
        return _by_matrix(index, flat, queries, width, norm)
    found, step = [], max((MATRIX - 1) // wide, 1)
    try:
        for start in range(0, count, step):
            some = queries[start : start + step]
            faiss.omp_set_num_threads(min(threads, len(some)))  # of this thread alone
            found.append(index.search(some, width))
    finally:
        faiss.omp_set_num_threads(threads)
    scores, numbers = (np.concatenate(part) for part in zip(*found))
    return scores, numbers, scores[:, -1]


def _by_matrix(index, flat, queries: np.ndarray, width: int, norm: Callable) -> tuple:
    """The same from products of matrices, of which the found ones are multiplied again, pair by pair."""
    import faiss

    count, wide = queries.shape
    filled = queries
    if count * wide * FEWER >= MATRIX > count * wide:
        filled = np.zeros((-(-MATRIX // wide), wide), np.float32)
        filled[:count] = queries
    rough, places = flat.search(filled, width)
    rough, places = rough[:count, -1], np.ascontiguousarray(places[:count])
    scores = np.empty((count, width), np.float32)
    pointers = (faiss.swig_ptr(array) for array in (queries, scores, places))
    asked, scored, placed = pointers
    flat.compute_distance_subset(count, asked, width, scored, placed)
    # A sum of D products is off by D roundings of half a unit at most, and here are two such sums.
    slack = wide * 2.0**-23 * norm() * np.linalg.norm(queries.astype(float), axis=1)
    return scores, faiss.vector_to_array(index.id_map)[places], rough + slack
