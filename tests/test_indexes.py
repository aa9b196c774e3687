"""Indexes that are not exact: what they need, what they miss, and that nothing else changes."""

import re

import faiss
import numpy as np
import pytest

from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.indexes import FLAT, is_exact, new_index, recall
from ragkit.retrieval.lexical import hybrid_search, lexical_search
from ragkit.retrieval.library import Library
from ragkit.retrieval.search import retrieve

KINDS = ["HNSW16", "SQ8", "IVF8,Flat", "IVF8,PQ8x4", "HNSW16_SQ8", "PQ8x4", "PCA16,SQ8"]
D = 16


class Given:
    """An encoder whose vectors are given: the passage "3" has row 3."""

    name, fingerprint, dimension = "given", "0" * 64, D

    def __init__(self, number: int, seed: int = 0):
        random = np.random.default_rng(seed)
        centres = random.normal(size=(20, D))
        rows = centres[random.integers(0, 20, number)] + 0.5 * random.normal(size=(number, D))
        self.rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def encode_passages(self, texts, *, progress=True):
        return self.rows[[int(text) for text in texts]]


def build(kind: str, number: int = 1000, numbers=None, encoder=None, **settings) -> Library:
    encoder = encoder or Given(number)
    passages = [Passage(f"p{i}", str(n)) for i, n in enumerate(range(number) if numbers is None else numbers)]
    return Library.build(passages, encoder, index=kind, progress=False, **settings)


def ids(hits) -> list[str]:
    return [hit.passage.id for hit in hits]


@pytest.mark.parametrize("kind", KINDS)
def test_recall_is_the_share_of_what_flat_finds(kind):
    flat, library = build(FLAT), build(kind)
    own = np.sort(np.random.default_rng(0).choice(1000, 200, replace=False))
    shares = []
    for n in own:
        query = flat.vectors[n]
        wanted = [i for i in ids(retrieve(flat, query, 11)) if i != f"p{n}"][:10]
        found = [i for i in ids(retrieve(library, query, 11)) if i != f"p{n}"]
        shares.append(len({*wanted} & {*found}) / 10)
    # An own vector can fall out of the eleven that a coarse code finds; then eleven others were counted.
    assert library.recall.mean == pytest.approx(np.mean(shares), abs=0.01)
    assert library.recall.low < library.recall.mean < library.recall.high or library.recall.mean == 1
    assert (library.recall.k, library.recall.queries, library.recall.own) == (10, 200, True)
    assert str(library.recall) in repr(library) and str(library.recall).startswith(f"{kind} finds ")
    assert flat.recall is None


def test_recall_by_hand():
    # A found list for two queries: the first has both nearest; the second one of its two.
    rows = np.eye(4, dtype=np.float32)
    queries = np.array([[1, 0.9, 0.1, 0], [0, 0.1, 0.9, 1]], dtype=np.float32)

    class Found:
        ntotal = 4

        def search(self, asked, k):
            return None, np.array([[1, 0], [3, 1]])

    found = recall(Found(), "by hand", [rows[:3], rows[3:]], queries, k=2)
    assert found.mean == 0.75
    # Of one query whose two nearest tie with a third, any two are right; −1 is nothing found.
    tied = recall(Found(), "by hand", [rows], np.ones((2, 4), np.float32), k=2)
    assert tied.mean == 1
    Found.search = lambda self, asked, k: (None, np.array([[1, -1], [-1, -1]]))
    assert recall(Found(), "by hand", [rows], queries, k=2).mean == 0.25


def test_queries_that_are_given_are_what_recall_is_measured_on(capsys):
    queries = Given(30, seed=5).rows
    library = build("HNSW16", queries=queries)
    assert (library.recall.queries, library.recall.own) == (30, False)
    assert "(30 queries)" in str(library.recall) and capsys.readouterr().err == ""
    Library.build(library.passages, Given(1000), index="SQ8")
    assert re.fullmatch(
        r"SQ8 finds 0\.\d+ \[.*\] of the 10 nearest that Flat finds \(200 of .*\)\n", capsys.readouterr().err
    )
    with pytest.raises(ValueError, match="the query vectors have shape"):
        build("HNSW16", queries=queries[:, :3])
    assert build("HNSW16", number=1).recall is None


@pytest.mark.parametrize("kind", KINDS)
def test_files_keep_the_kind(kind, tmp_path):
    library = build(kind)
    library.save(tmp_path)
    queries = Given(20, seed=3).rows
    for again in (Library.load(tmp_path), Library.load(tmp_path, mmap=True)):
        assert (again.index, again.recall, len(again)) == (kind, library.recall, 1000)
        for query in queries:
            assert retrieve(again, query, 5) == retrieve(library, query, 5)
        assert (again.vectors == library.vectors).all()
    again.save(tmp_path / "copy")
    assert Library.load(tmp_path / "copy").index == kind


@pytest.mark.parametrize("kind", [FLAT, *KINDS])
def test_a_mapped_library_is_read_only(kind, tmp_path):
    build(kind).save(tmp_path)
    library = Library.load(tmp_path, Given(1000), mmap=True)
    for change in (
        lambda: library.add([Passage("new", "3")]),
        lambda: library.replace([Passage("p3", "4")]),
        lambda: library.delete("p3"),
    ):
        with pytest.raises(ValueError, match="loaded with mmap=True, to be read only"):
            change()
    assert len(library) == 1000


@pytest.mark.parametrize("kind", [FLAT, *KINDS])
def test_equal_passages_keep_the_order_of_the_library(kind):
    encoder = Given(1000)
    numbers = [*range(990), *([7] * 30), *range(990, 1000)]
    library = build(kind, numbers=numbers, encoder=encoder)
    query = encoder.rows[7]
    twins = ["p7", *(f"p{i}" for i in range(990, 1020))]
    for k in (1, 2, 7, 31):
        found = [i for i in ids(retrieve(library, query, 100)) if i in twins]
        assert found == twins  # in the order of the library
        # Those that share a coarse code with the twins can stand among them.
        assert ids(retrieve(library, query, k)) == ids(retrieve(library, query, 100))[:k] or kind not in (
            FLAT,
            "SQ8",
        )


@pytest.mark.parametrize("kind", [FLAT, *KINDS])
def test_what_is_deleted_is_gone_and_the_rest_is_found(kind):
    library = build(kind)
    query = Given(1000).rows[500]
    before = library.vectors
    library.delete([f"p{n}" for n in range(0, 1000, 2) if n != 500])
    library.replace([Passage("p1", "0")])
    library.add([Passage("new", "2")])
    assert len(library) == 502 and library.recall is None
    left = {passage.id for passage in library.passages}
    assert set(ids(retrieve(library, query, 502))) <= left
    assert "p500" in ids(retrieve(library, query, 20))
    assert "new" in ids(retrieve(library, Given(1000).rows[2], 20))
    rest = [f"p{n}" for n in range(3, 1000, 2)]
    tolerance = 0 if is_exact(kind) else 0.4  # of coarse codes, codes are made once more
    assert abs(library.vectors_of(rest) - before[3::2]).mean() <= tolerance


@pytest.mark.parametrize("kind", ["HNSW32", "IVF8,Flat"])
def test_hybrid_search_is_that_of_flat_where_the_index_finds_all(kind):
    flat, library = build(FLAT), build(kind, search={"nprobe": 8} if "IVF" in kind else {"efSearch": 1000})
    for n in range(20):
        for query in (str(n), f"{n} {n + 1} 77", "?"):
            expected = hybrid_search(flat, query, Given(20, seed=4).rows[n], 10)
            found = hybrid_search(library, query, Given(20, seed=4).rows[n], 10)
            assert ids(found) == ids(expected)
            np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], atol=1e-6)
    assert ids(lexical_search(library, "77", 1)) == ["p77"]
    assert hybrid_search(library, "77", flat.vectors[0], 0) == []
    empty = Library.build([], Given(1), index=kind)
    assert hybrid_search(empty, "77", flat.vectors[0], 3) == retrieve(empty, flat.vectors[0], 3) == []


def test_to_change_nothing_changes_nothing(monkeypatch):
    library = build("SQ8")
    before = library.recall
    monkeypatch.setattr(library, "_encoder", None)  # and nothing is encoded
    for change in (library.add, library.replace, library.delete):
        change([])
    assert library.recall is before is not None


def test_an_index_looks_as_hard_as_it_is_told():
    little, much = (build("IVF32,Flat", number=2000, search={"nprobe": n}).recall.mean for n in (1, 32))
    usual = build("IVF32,Flat", number=2000)
    assert faiss.extract_index_ivf(usual._index).nprobe == 6  # √32
    assert little < much == 1 and little <= usual.recall.mean
    with pytest.raises(ValueError, match=r"search=\{'nprobe': 3\}: this kind of index has no such setting"):
        build("HNSW16", search={"nprobe": 3})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("HNWS32", "could not parse index string HNWS32"),
        ("PQ7", "multiple of the number of subquantizers"),
        ("LSH", "metric == METRIC_L2"),
        ("IDMap,Flat", "without IDMap"),
        ("", "could not parse"),
        (None, "a kind is a string"),
        (32, "a kind is a string"),
    ],
)
def test_an_unknown_kind_is_refused_with_examples(kind, message):
    with pytest.raises(ValueError, match=f'index={kind!r}: .*{message}.*Examples: "Flat" .*"HNSW32"'):
        build(kind, number=3)


@pytest.mark.parametrize(
    ("kind", "what", "least"),
    [
        ("IVF64,Flat", "64 cells", "2,496"),
        ("IVF4,PQ8x4", "16 codes", "624"),
        ("PQ8", "256 codes", "9,984"),
        ("OPQ8,IVF4,PQ8x4", "its OPQMatrix", "9,984"),
        ("PCA8,Flat", "its PCAMatrix", "16"),
    ],
)
def test_too_few_passages_to_learn_from_are_refused_before_the_work(kind, what, least):
    encoder = Given(10)
    encoder.encode_passages = None
    with pytest.raises(
        ValueError, match=f"has to learn {what} .* from {least} of them at least, and there are 10: take"
    ):
        build(kind, number=10, encoder=encoder)


def test_the_least_is_enough():
    kind = "IVF2,PQ8x1"  # 2 cells, 2 codes: 78
    with pytest.raises(ValueError, match="from 78 of them at least, and there are 77"):
        build(kind, number=77)
    assert len(build(kind, number=78)) == 78


def test_an_index_of_another_kind_than_the_manifest_says_is_refused(tmp_path):
    build("HNSW16").save(tmp_path)
    path = tmp_path / "library.json"
    path.write_text(path.read_text().replace('"HNSW16"', '"SQ8"'))
    with pytest.raises(ValueError, match="its index is a IndexHNSWFlat, and not 'SQ8'"):
        Library.load(tmp_path)


def test_faiss_is_left_as_it_is():
    """The graph of a library is that of FAISS's own factory: nothing between them."""
    rows = Given(1000).rows
    theirs = faiss.index_factory(D, "HNSW16", faiss.METRIC_INNER_PRODUCT)
    theirs.add(rows)
    ours = new_index("HNSW16", D)
    ours.add_with_ids(rows, np.arange(1000))
    assert (theirs.search(rows[:50], 10)[1] == ours.search(rows[:50], 10)[1]).all()
