"""Many queries at once find what they find one by one, to the bit, whatever FAISS multiplies them with."""

import faiss
import numpy as np
import pytest

import ragkit.retrieval.nearest
from ragkit.retrieval.library import Library
from ragkit.retrieval.search import retrieve, retrieve_many
from tests.helpers import passages


class Given:
    """An encoder whose vectors are given: passage "3" has row 3."""

    name, fingerprint = "given", "0" * 64

    def __init__(self, rows):
        self.rows, self.dimension = rows, rows.shape[1]

    def encode_passages(self, texts, *, progress=True):
        return self.rows[[int(text) for text in texts]]


@pytest.fixture(params=[1, 2, 16], ids="{} threads".format)
def threads(request):
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(request.param)
    yield request.param
    faiss.omp_set_num_threads(before)


def twins(number: int, dimension: int = 32) -> np.ndarray:
    """Unit vectors, each of which is there twice."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(number // 2, dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.concatenate([rows, rows])[random.permutation(number)]


def built(rows: np.ndarray, kind: str = "Flat") -> Library:
    listed = passages(*map(str, range(len(rows))))
    return Library.build(listed, Given(rows), index=kind, progress=False, queries=rows[:0])


# FAISS multiplies matrices where there are 10,000 vectors and fewer queries than threads, and where there are
# 4,000 queries of 32 numbers.
@pytest.mark.parametrize("number, kind", [(12_000, "Flat"), (500, "Flat"), (500, "HNSW8")])
@pytest.mark.parametrize("queries", [1, 3, 900, 1100, 4100])
def test_at_once_is_one_by_one(threads, number, kind, queries):
    library = built(twins(number), kind)
    asked = np.random.default_rng(1).normal(size=(queries, 32)).astype(np.float32)
    for k in (1, 7):
        found = retrieve_many(library, asked, k)
        assert len(found) == queries and faiss.omp_get_max_threads() == threads
        for n in {*range(0, queries, 97), queries - 1}:
            assert found[n] == retrieve(library, asked[n], k)


@pytest.mark.parametrize("kind", ["IVF16,Flat", "IVF16,PQ4x4", "SQ8"])
def test_other_kinds_round_alike_too(threads, kind):
    library = built(twins(700), kind)
    asked = np.random.default_rng(1).normal(size=(4100, 32)).astype(np.float32)
    found = retrieve_many(library, asked, 5)
    assert all(found[n] == retrieve(library, asked[n], 5) for n in range(0, 4100, 211))


@pytest.mark.parametrize("queries", [1, 3, 1100])
def test_equal_vectors_have_equal_scores_and_keep_their_order(threads, queries):
    rows = twins(12_000)
    library = built(rows)
    asked = np.random.default_rng(1).normal(size=(queries, 32)).astype(np.float32)
    found = retrieve_many(library, asked, 8)
    for query, hits in zip(asked[:20], found):
        exact = np.argsort(-(rows.astype(float) @ query), kind="stable")[:8]
        assert [hit.passage.id for hit in hits] == [f"p{n}" for n in exact]
        scores = [hit.score for hit in hits]
        assert scores[::2] == scores[1::2] and len(set(scores)) == 4


def test_a_tie_that_is_wider_than_what_is_looked_at_is_seen_whole(threads):
    rows = np.ones((10_500, 4), np.float32)
    rows[5] *= 2
    library = built(rows)
    for queries in (1, 3):
        for hits in retrieve_many(library, np.ones((queries, 4)), 3):
            assert [hit.passage.id for hit in hits] == ["p5", "p0", "p1"]


def test_what_a_matrix_leaves_out_is_below_the_floor():
    rows = twins(12_000)
    index = built(rows)._index
    asked = np.random.default_rng(1).normal(size=(1100, 32)).astype(np.float32)
    flat = faiss.downcast_index(index.index)
    _, numbers, floor = ragkit.retrieval.nearest._by_matrix(index, flat, asked, 9, lambda: 1.0)
    for n in range(50):
        assert np.delete(rows @ asked[n], numbers[n]).max() <= floor[n]


@pytest.mark.parametrize("shape", [(32,), (3, 31), (2, 3, 32), ()])
def test_vectors_of_another_shape_are_refused(shape):
    with pytest.raises(
        ValueError, match=rf"shape \({', '.join(map(str, shape))},?\), and are to have \(Q, 32"
    ):
        retrieve_many(built(twins(20)), np.zeros(shape), 3)


def test_no_queries_find_nothing_and_a_wrong_number_is_named():
    library = built(twins(20))
    assert retrieve_many(library, np.zeros((0, 32)), 3) == retrieve_many(library, [], 3) == []
    assert retrieve_many(library, np.zeros((2, 32)), 0) == [[], []]
    assert retrieve_many(built(np.zeros((0, 32), np.float32)), np.zeros((2, 32)), 3) == [[], []]
    asked = np.zeros((3, 32))
    asked[1, 7] = np.nan
    with pytest.raises(ValueError, match=r"query_vector\[1, 7\] is nan"):
        retrieve_many(library, asked, 3)
