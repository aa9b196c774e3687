"""Works through the formulas, numbers and faiss behaviour stated in data/build/topics/indexes.toml."""

import hashlib
import itertools
import json
import math
import os
import pickle
import tomllib
from pathlib import Path

import faiss
import numpy as np
import pytest
from scipy import stats

faiss.omp_set_num_threads(1)
FAMILY = Path(__file__).parents[2] / "data/build/topics/indexes.toml"


def says(topic, *numbers):
    """The passages of `topic` state each of the numbers, so that a number changed there fails its test."""
    topics = {t["id"]: t for t in tomllib.loads(FAMILY.read_text(encoding="utf-8"))["topic"]}
    text = " ".join(passage["text"] for passage in topics[topic]["passage"])
    assert [number for number in numbers if number not in text] == []


def vectors(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype("float32")


def filled(index, x):
    index.add(x)
    return index


def test_exact_search():
    """Cost and size, the expansion of the squared distance, brute force against faiss, and id −1."""
    assert 100_000 * 384 == 38.4e6 and 4 * 100_000 * 384 == 153.6e6
    assert 100_000 * math.log2(10) < 0.01 * 38.4e6  # the heap is small beside the scores
    q, x = np.array([1.0, 2.0]), np.array([3.0, 1.0])
    assert (q @ q, x @ x, 2 * q @ x) == (5, 10, 10)
    assert ((q - x) ** 2).sum() == q @ q + x @ x - 2 * q @ x == 5
    near = np.float32([1000, 1000]), np.float32([1000, 1000.125])  # cancellation in the expansion
    expanded = near[0] @ near[0] + near[1] @ near[1] - 2 * (near[0] @ near[1])
    assert ((near[0] - near[1]) ** 2).sum() == 0.125**2 and abs(expanded - 0.125**2) > 0.1 * 0.125**2
    data, queries = vectors(500, 16), vectors(20, 16, seed=1)
    index = faiss.IndexFlatIP(16)
    assert index.is_trained  # nothing to train
    index.add(data)
    truth = np.argsort(-(queries @ data.T), axis=1)[:, :5]
    batch = index.search(queries, 5)[1]
    assert (batch == truth).all()
    assert (np.vstack([index.search(one[None], 5)[1] for one in queries]) == batch).all()
    ids = filled(faiss.IndexFlatIP(3), np.eye(3, dtype="float32")).search(np.eye(1, 3, dtype="float32"), 5)[1]
    assert sorted(ids[0, :3]) == [0, 1, 2] and (ids[0, 3:] == -1).all()
    assert ["first", "last"][-1] == "last"


def test_inverted_file_index():
    """Number of comparisons and its minimum, the imbalance factor, missed neighbours, nprobe, the warning."""

    def count(n, cells, opened):
        return cells + opened * n / cells

    assert count(1e6, 1000, 10) == 11_000 and round(1e6 / 11_000) == 91
    best = min(range(100, 20_000), key=lambda cells: count(1e6, cells, 10))
    assert best == 3162 == round(math.sqrt(10 * 1e6)) and round(count(1e6, best, 10)) == 6325

    def imbalance(*lists):
        return len(lists) * sum(n * n for n in lists) / sum(lists) ** 2

    assert imbalance(900, 100) == pytest.approx(1.64) and imbalance(500, 500) == 1
    visited = sum(n * n for n in (900, 100)) / 1000  # list length seen by a query like a stored vector
    assert visited == 820 and visited > 1000 / 2  # equal lists have 500
    x = vectors(2000, 16)
    exact = filled(faiss.IndexFlatL2(16), x)
    ivf = faiss.index_factory(16, "IVF40,Flat")
    assert not ivf.is_trained and ivf.nprobe == 1
    with pytest.raises(RuntimeError):
        ivf.add(x)
    ivf.train(x)
    centres = ivf.quantizer.reconstruct_n(0, 40)
    ivf.add(x)
    assert (ivf.quantizer.reconstruct_n(0, 40) == centres).all()
    sizes = [ivf.invlists.list_size(j) for j in range(40)]
    assert ivf.invlists.imbalance_factor() == pytest.approx(imbalance(*sizes), rel=1e-6)
    queries = vectors(100, 16, seed=1)
    truth, recalls = exact.search(queries, 5)[1], []
    for ivf.nprobe in (1, 4, 16, 40):
        found = ivf.search(queries, 5)[1]
        recalls.append(np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found, truth)]))
    assert recalls == sorted(recalls) and recalls[0] < 0.8 and recalls[-1] == 1
    ivf.nprobe = 1  # every miss lies in a cell that was not opened
    cell_of_query = ivf.quantizer.search(queries, 1)[1][:, 0]
    cell_of_vector = ivf.quantizer.search(x, 1)[1][:, 0]
    for row, found, cell in zip(truth, ivf.search(queries, 5)[1], cell_of_query):
        assert all(cell_of_vector[i] != cell for i in set(row) - set(found))
    assert faiss.ClusteringParameters().min_points_per_centroid == 39


def test_product_quantization():
    """Code sizes, number of expressible vectors, table look-ups against decoded distances, refinement."""
    assert 4 * 384 == 1536 and 48 * 8 // 8 == 48 and 1536 / 48 == 32
    assert 256**8 == 2**64 and round(2**64 / 1e19, 1) == 1.8
    assert 30**3 == 27_000
    tables, code = ((0.1, 0.4), (0.3, 0.2)), (1, 0)
    assert sum(table[c] for table, c in zip(tables, code)) == pytest.approx(0.7)
    assert 384 % 48 == 0 and 384 % 50 != 0
    with pytest.raises(RuntimeError):
        faiss.IndexPQ(384, 50, 8)
    q, x = np.split(vectors(2050, 16), [50])
    pq = faiss.IndexPQ(16, 4, 4)
    index = faiss.IndexRefineFlat(pq)
    index.train(x)
    index.add(x)
    assert pq.sa_code_size() == 2
    books = faiss.vector_to_array(pq.pq.centroids).reshape(4, 16, 4)
    packed = faiss.vector_to_array(pq.codes).reshape(-1, 2)
    codes = np.stack([packed[:, 0] & 15, packed[:, 0] >> 4, packed[:, 1] & 15, packed[:, 1] >> 4], axis=1)
    table = ((q[0].reshape(4, 1, 4) - books) ** 2).sum(-1)  # once per query
    looked_up = table[np.arange(4), codes].sum(1)  # m look-ups per vector
    decoded = pq.reconstruct_n(0, 2000)
    assert np.allclose(looked_up, ((q[0] - decoded) ** 2).sum(1), atol=1e-4)
    assert np.allclose(np.sort(looked_up)[:5], pq.search(q[:1], 5)[0][0], atol=1e-4)
    assert len(set(map(tuple, codes))) < 2000  # two vectors share a code: no way back
    best = ((q[:, None] - x) ** 2).sum(-1).argmin(1)
    recalls = []
    for index.k_factor in (1, 10, 100):
        recalls.append((index.search(q, 1)[1][:, 0] == best).mean())
    assert recalls == sorted(recalls) and recalls[-1] > recalls[0]


def test_hnsw():
    """Level distribution, a worked draw, link memory, defaults, efSearch against recall, the metric trap."""
    m_l = 1 / math.log(16)
    assert round(-math.log(0.05), 3) == 2.996 and round(m_l, 3) == 0.361
    assert round(-math.log(0.05) * m_l, 2) == 1.08 and math.floor(-math.log(0.05) * m_l) == 1
    u = (np.arange(1_000_000) + 0.5) / 1_000_000
    level = np.floor(-np.log(u) * m_l)
    assert np.mean(level >= 1) == pytest.approx(1 / 16, abs=1e-5)
    assert np.mean(level >= 2) == pytest.approx(1 / 256, abs=1e-5)
    assert round(math.log(1e6) / math.log(16)) == 5
    links = 2 * 16 + 16 * sum(16.0**-layer for layer in range(1, 40))
    assert links == pytest.approx(2 * 16 + 16 / 15) and round(4 * links) == 132
    x, queries = vectors(3000, 24), vectors(60, 24, seed=1)
    index = faiss.IndexHNSWFlat(24, 8)
    assert (index.hnsw.efConstruction, index.hnsw.efSearch) == (40, 16)
    assert index.is_trained and index.metric_type == faiss.METRIC_L2
    assert [index.hnsw.nb_neighbors(layer) for layer in (0, 1, 2)] == [16, 8, 8]
    index.add(x)
    levels = faiss.vector_to_array(index.hnsw.levels)  # faiss counts layers from 1
    assert np.mean(levels >= 2) == pytest.approx(1 / 8, abs=0.02)
    truth, recalls = filled(faiss.IndexFlatL2(24), x).search(queries, 5)[1], []
    for index.hnsw.efSearch in (5, 40, 400):
        found = index.search(queries, 5)[1]
        recalls.append(np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found, truth)]))
    assert recalls == sorted(recalls) and recalls[0] < 0.9 and recalls[-1] > 0.98
    index.hnsw.efSearch = 2  # below k: still k ids, of lower recall than with a higher efSearch
    low = index.search(queries, 5)[1]
    assert (low >= 0).all()
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(low, truth)]) < recalls[0]
    pair, query = np.array([[1, 0], [5, 5]], dtype="float32"), np.array([[1, 0.1]], dtype="float32")
    inner = faiss.IndexHNSWFlat(2, 8, faiss.METRIC_INNER_PRODUCT)
    assert filled(faiss.IndexHNSWFlat(2, 8), pair).search(query, 1)[1][0, 0] == 0
    assert filled(inner, pair).search(query, 1)[1][0, 0] == 1


def test_locality_sensitive_hashing():
    """Collision probability by simulation, the banding numbers, Hamming distance, centring, MinHash."""
    assert 1 - 60 / 180 == pytest.approx(2 / 3) and 1 - 30 / 180 == pytest.approx(5 / 6)

    def meet(p, bits, tables):
        return 1 - (1 - p**bits) ** tables

    assert round(meet(5 / 6, 8, 10), 2) == 0.93 and round(meet(1 / 2, 8, 10), 2) == 0.04
    assert meet(5 / 6, 12, 10) < meet(5 / 6, 8, 10) < meet(5 / 6, 8, 20)  # bits lose, tables win back
    assert meet(1 / 2, 12, 10) < meet(1 / 2, 8, 10)
    assert 64 * 60 / 180 == pytest.approx(21.33, abs=0.01)
    rng = np.random.default_rng(0)
    planes = rng.normal(size=(40_000, 2))
    for degrees in (30, 60, 90):
        y = np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
        same = (planes[:, 0] > 0) == (planes @ y > 0)
        assert same.mean() == pytest.approx(1 - degrees / 180, abs=0.01)
        together = same.reshape(500, 10, 8).all(2).any(1).mean()
        assert together == pytest.approx(meet(1 - degrees / 180, 8, 10), abs=0.04)
    x = rng.normal(size=(200, 8)) + 10  # all point roughly one way
    bits = np.random.default_rng(1).normal(size=(8, 32))

    def split(data):
        share = (data @ bits > 0).mean(0)
        return np.minimum(share, 1 - share).mean()

    assert split(x) < 0.1 and split(x - x.mean(0)) > 0.4
    a, b = {0, 1, 2}, {1, 2, 3}
    orders = list(itertools.permutations(range(4)))
    equal = sum(min(order[i] for i in a) == min(order[i] for i in b) for order in orders) / len(orders)
    assert equal == len(a & b) / len(a | b) == 0.5


def test_scalar_and_binary_quantization():
    """Step, worked code, error bounds, sign inner product, sizes, ranges, and the two-stage search."""
    s = 2 / 255
    code = round((0.3 + 1) / s)
    assert round(s, 5) == 0.00784 and code == 166 and round(-1 + s * code, 3) == 0.302
    x = np.linspace(-1, 1, 100_001)
    error = -1 + s * np.round((x + 1) / s) - x
    assert np.abs(error).max() <= s / 2 + 1e-12 and (error**2).mean() == pytest.approx(s**2 / 12, rel=0.01)
    assert (4 * 384, 384, 384 // 8) == (1536, 384, 48) and 1536 / 384 == 4 and 1536 / 48 == 32
    u, v = np.ones(384), np.ones(384)
    v[:96] = -1
    assert u @ v == 384 - 2 * 96 == 192 and u @ v / 384 == 0.5
    data, queries = vectors(1000, 128), vectors(50, 128, seed=1)
    scores = queries @ data.T
    truth = np.argsort(-scores, axis=1)[:, :10]

    def rounded(low, high):
        step = (high - low) / 255
        return low + step * np.round((data - low) / step)

    def recall(approximate, keep=10):
        found = np.argsort(-approximate, axis=1)[:, :keep]
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth)])

    assert recall(queries @ rounded(data.min(0), data.max(0)).T) > 0.95
    hamming = ((queries > 0)[:, None] != (data > 0)).sum(-1)
    assert recall(-hamming) < 0.7 and recall(-hamming, keep=100) > recall(-hamming) + 0.2
    data[:, 0] *= 1000  # one wide coordinate
    rest = slice(1, None)
    own = np.abs(rounded(data.min(0), data.max(0)) - data)[:, rest].mean()
    shared = np.abs(rounded(data.min(), data.max()) - data)[:, rest].mean()
    assert shared > 100 * own
    assert np.ptp(np.percentile(data[:, 1], [1, 99])) < np.ptp(data[:, 1])  # clipping makes finer steps
    trained = faiss.IndexScalarQuantizer(128, faiss.ScalarQuantizer.QT_8bit)
    trained.train(data)
    assert trained.sa_code_size() == 128 and faiss.vector_to_array(trained.sq.trained).size == 2 * 128


def test_ids_and_deletion():
    """The position shift, entries to fetch past tombstones, colliding ids, and what faiss does."""
    left = [i for i in range(6) if i not in {1, 4}]
    assert all(left.index(i) == i - sum(j < i for j in (1, 4)) for i in left)
    assert left.index(2) == 1 and left.index(5) == 3
    assert 10 / (1 - 0.2) == 12.5
    n, live, k = 100_000, 80_000, 10  # exact expectation when entries are drawn without replacement
    assert k * (n + 1) / (live + 1) == pytest.approx(12.5, abs=0.01)
    assert round(math.comb(10**6, 2) / 2**32) == round(10**12 / 2**33) == 116
    assert 10**12 / 2**64 == pytest.approx(5.4e-8, abs=0.05e-8)
    assert math.comb(10**6, 2) / 2**63 == pytest.approx(10**12 / 2**64, rel=1e-5)
    assert round(math.sqrt(2**63) / 1e9) == round(2**31.5 / 1e9) == 3  # trials for a collision on purpose
    assert 2**63 - 1 == np.iinfo("int64").max  # every 63-bit id fits
    x = np.eye(4, dtype="float32")
    flat = filled(faiss.IndexFlatIP(4), x)
    flat.remove_ids(np.array([1]))
    assert flat.search(x[3:], 1)[1][0, 0] == 2  # was 3
    with pytest.raises(RuntimeError):
        faiss.IndexIDMap2(flat)  # must be empty
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(4))
    index.add_with_ids(x, np.array([10, 20, 30, 40]))
    index.remove_ids(np.array([20]))
    assert index.ntotal == 3 and index.search(x[2:3], 1)[1][0, 0] == 30
    index.add_with_ids(x[:1], np.array([10]))
    assert index.ntotal == 4 and list(index.search(x[:1], 2)[1][0]) == [10, 10]
    index.remove_ids(np.array([10]))
    index.add_with_ids(x[1:2], np.array([10]))
    assert index.ntotal == 3 and index.search(x[1:2], 1)[1][0, 0] == 10
    with pytest.raises(RuntimeError):
        filled(faiss.IndexHNSWFlat(4, 8), x).remove_ids(np.array([1]))


def test_saving_an_index(tmp_path):
    """File size, loading time, the flipped bit and its checksum, pickle, and replacing a file."""
    assert 4 * 100_000 * 384 == 153.6e6 and 8 * 100_000 == 0.8e6
    assert round(154.4e6 / 500e6, 2) == 0.31 and 100_000 / 200 == 500
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(384))
    index.add_with_ids(vectors(1000, 384), np.arange(1000))
    assert 0 < faiss.serialize_index(index).size - 1000 * (4 * 384 + 8) < 200
    half = np.array([0.5], dtype="float32")
    flipped = (half.view("uint32") ^ np.uint32(1 << 30)).view("float32")[0]
    assert flipped == 2.0**127 and round(2**127 / 1e38, 1) == 1.7
    assert round(2**-32 / 1e-10, 1) == 2.3
    x = np.full((3, 4), 0.5, dtype="float32")
    x[1:, 1:] = -0.5
    path, temporary = tmp_path / "index.faiss", tmp_path / "index.tmp"
    faiss.write_index(filled(faiss.IndexFlatIP(4), x), str(temporary))
    for target in (temporary, tmp_path):  # a directory can be opened and synced as a file can
        handle = os.open(target, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        if target == temporary:
            os.replace(temporary, path)
    assert not temporary.exists()
    whole = path.read_bytes()
    damaged = bytearray(whole)
    start = whole.index(x.tobytes()) + 16  # first number of vector 1
    assert damaged[start + 3] == 0x3F
    damaged[start + 3] ^= 0x40
    path.write_bytes(damaged)
    loaded = faiss.read_index(str(path))  # no complaint
    assert loaded.ntotal == 3
    query = np.array([[0.01, 0.9, 0.9, 0.9]], dtype="float32")
    assert (query @ x.T).argmax() == 0 and loaded.search(query, 1)[1][0, 0] == 1
    assert hashlib.sha256(whole).digest() != hashlib.sha256(damaged).digest()

    class Payload:
        def __reduce__(self):
            return (str.upper, ("code ran",))

    assert pickle.loads(pickle.dumps(Payload())) == "CODE RAN"  # loading called a function of our choice
    assert json.loads(json.dumps({"text": "only data"})) == {"text": "only data"}


def test_metadata_filtering():
    """Candidates for a filter, the empty-result probability, pre-filter cost, and selectors in faiss."""
    assert round(10 / 0.02) == 500 and 100 * 0.02 == 2
    assert round(0.98**100, 2) == 0.13 == round(stats.binom.pmf(0, 100, 0.02), 2)
    assert 1_000_000 * 0.02 == 20_000
    x, query = vectors(1000, 16), vectors(1, 16, seed=1)
    index = filled(faiss.IndexFlatIP(16), x)
    allowed = np.arange(0, 1000, 50)  # 2 %
    selector = faiss.IDSelectorBatch(allowed)
    inside = index.search(query, 5, params=faiss.SearchParameters(sel=selector))[1][0]
    before = allowed[np.argsort(-(x[allowed] @ query[0]))[:5]]
    assert (inside == before).all()
    after = [i for i in index.search(query, 100)[1][0] if i in set(allowed)]
    assert len(after) < 5 and list(before[: len(after)]) == after  # post-filtering comes back short
    scores = x @ query[0]
    friendly = set(np.argsort(-scores)[:20])  # an attribute correlated with the query: all 20 pass
    assert len(friendly & set(index.search(query, 100)[1][0])) == 20 != 100 * 0.02
    chain = {0: [1], 1: [0, 2], 2: [1, 3], 3: [2]}  # a strict filter disconnects a graph
    kept = {0, 3}
    assert all(not (set(chain[node]) & kept) for node in kept)


def test_recall_and_latency():
    """Worked recall, standard error, mean against median, Little's law, ties, random against clustered."""
    assert len({1, 2, 3, 4, 5} & {1, 2, 3, 5, 9}) / 5 == 0.8
    assert 0.2 / math.sqrt(400) == pytest.approx(0.01)
    times = [10] * 9 + [210]
    assert np.mean(times) == 30 and np.median(times) == 10
    assert 200 * 0.05 == 10
    arrivals = np.arange(10_000) / 200  # Little's law by counting: each query stays 0.05 s
    moments = np.linspace(1, 49, 1000) + 1e-4
    in_flight = [((arrivals <= t) & (t < arrivals + 0.05)).sum() for t in moments]
    assert np.mean(in_flight) == pytest.approx(10, abs=0.1)
    x = vectors(50, 8)
    doubled = filled(faiss.IndexFlatL2(8), np.vstack([x, x]))
    scores, ids = doubled.search(x[:1], 2)
    assert set(ids[0]) == {0, 50} and scores[0, 0] == scores[0, 1]

    def ivf_recall(data, queries):
        index = faiss.index_factory(16, "IVF20,Flat")
        index.train(data)
        index.add(data)
        truth = filled(faiss.IndexFlatL2(16), data).search(queries, 5)[1]
        found = index.search(queries, 5)[1]
        return np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found, truth)])

    centres = np.repeat(5 * vectors(20, 16, seed=2), 50, axis=0)
    clustered, random = centres + vectors(1000, 16), vectors(1000, 16)
    queries = vectors(1000, 16, seed=3)
    assert ivf_recall(clustered, (centres + queries)[::10]) > ivf_recall(random, queries[::10]) + 0.2


def test_sharding_and_vector_databases():
    """Merging shards is exact, candidate and machine counts, and the probability of a slow shard."""
    scores = np.random.default_rng(0).normal(size=800)
    shard = np.random.default_rng(1).integers(8, size=800)
    candidates = []
    for s in range(8):
        mine = np.flatnonzero(shard == s)
        candidates += list(mine[np.argsort(-scores[mine])[:10]])
    assert len(candidates) == 8 * 10 == 80
    assert sorted(candidates, key=lambda i: -scores[i])[:10] == list(np.argsort(-scores)[:10])
    size = 100_000_000 * 384 * 4
    assert size == 153.6e9 and math.ceil(size / 32e9) == 5 and 2 * 5 == 10
    assert round(100 * (1 - 0.99**100)) == 63
    slow = np.random.default_rng(2).random((20_000, 100)) < 0.01
    assert slow.any(1).mean() == pytest.approx(1 - 0.99**100, abs=0.01)
    full = np.bincount([int(hashlib.sha256(str(i).encode()).hexdigest(), 16) % 8 for i in range(8000)])
    assert full.min() > 900 and full.max() < 1100  # a hash fills the shards about equally


def test_diskann():
    """Robust prune at two values of α, the shrinking distance, bytes on page and in memory, read rounds."""

    def prune(p, x, alpha):
        left, links = sorted(range(len(x)), key=lambda i: math.dist(p, x[i])), []
        while left:
            links.append(left.pop(0))
            left = [v for v in left if alpha * math.dist(x[links[-1]], x[v]) > math.dist(p, x[v])]
        return links

    pair = [(1, 0), (0.88, 1.796)]
    assert math.dist(pair[0], pair[1]) == pytest.approx(1.8, abs=1e-3)
    assert math.hypot(*pair[1]) == pytest.approx(2, abs=1e-3) and round(1.2 * 1.8, 2) == 2.16
    assert prune((0, 0), pair, 1.0) == [0] and prune((0, 0), pair, 1.2) == [0, 1]
    assert round(math.log(100) / math.log(1.2), 1) == 25.3 and math.ceil(math.log(100) / math.log(1.2)) == 26
    points = [tuple(row) for row in vectors(120, 4)]
    counts = []
    for alpha in (1.0, 1.2, 1.5):
        links = {p: [q for q in points if q != p] for p in points}
        links = {p: [others[i] for i in prune(p, others, alpha)] for p, others in links.items()}
        for here, target in itertools.permutations(points[:40], 2):
            best = min(math.dist(q, target) for q in links[here])
            assert best * alpha <= math.dist(here, target) + 1e-9  # no limit on R: a hop divides by α
        counts.append(sum(map(len, links.values())))
    assert counts[0] < counts[1] < counts[2]  # a larger α keeps more links
    node = 4 * 384 + 4 + 4 * 64
    assert node == 1796 and 4096 // node == 2
    assert 100_000_000 // 2 * 4096 == 204.8e9 and 100_000_000 * 32 == 3.2e9
    assert round(math.sqrt(1.2), 2) == 1.10
    assert 40 / 4 == 10 and 10 * 100e-6 == pytest.approx(1e-3)
    says(
        "diskann", "1.2·1.8 = 2.16", "at most 26 hops (ln 100 / ln 1.2 = 25.3)", "1,796 bytes, two to a page"
    )
    says("diskann", "204.8 GB of SSD, and 3.2 GB", "acts like 1.10", "10 rounds, or 1 ms at 100 µs")


def test_rabitq():
    """Agreement, unbiasedness and bound over random rotations, and the recall with and without a rotation."""
    rng, d, true = np.random.default_rng(0), 384, 0.3
    o, w = np.eye(d)[0], np.eye(d)[1]
    q = true * o + math.sqrt(1 - true**2) * w
    rotated = np.linalg.qr(rng.normal(size=(300, d, d)))[0]
    po, pq = rotated @ o, rotated @ q
    b = np.sign(po) / math.sqrt(d)
    s, raw = (b * po).sum(1), (b * pq).sum(1)
    assert np.allclose(s, np.abs(po).sum(1) / math.sqrt(d)) and np.allclose((b**2).sum(1), 1)
    assert round(math.sqrt(2 / math.pi), 3) == 0.798 == pytest.approx(s.mean(), abs=0.003)
    estimate = raw / s
    assert abs(estimate.mean() - true) < 4 * estimate.std() / math.sqrt(300)
    assert round(raw.mean(), 2) == round(true * 0.798, 2) == 0.24
    margin = np.sqrt(1 - s**2) / s * 1.9 / math.sqrt(d - 1)
    assert (np.abs(estimate - true) <= margin).mean() > 0.9
    assert margin.mean() == pytest.approx(0.073, abs=0.001)
    assert (
        math.sqrt(1 - 0.8**2) / 0.8 == pytest.approx(0.75) and round(0.75 * 1.9 / math.sqrt(383), 3) == 0.073
    )
    assert 384 // 8 + 8 == faiss.IndexRaBitQ(384).code_size == 56
    scale = np.arange(1, 129) ** -0.7
    x, queries = ((rng.normal(size=(n, 128)) * scale).astype("float32") for n in (5000, 200))
    truth = filled(faiss.IndexFlatL2(128), x).search(queries, 10)[1]

    def recall(factory, keep):
        index = faiss.index_factory(128, factory)
        index.train(x)
        index.add(x)
        found = index.search(queries, keep)[1]
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth)])

    assert recall("RaBitQ", 10) == pytest.approx(0.13, abs=0.02)
    assert recall("RR128,RaBitQ", 10) == pytest.approx(0.47, abs=0.02)
    assert recall("RR128,RaBitQ", 100) == pytest.approx(0.98, abs=0.01)
    says(
        "rabitq",
        "0.13 without the rotation and 0.47 with",
        "the latter to 0.98",
        "takes 56 bytes, of which 8",
    )
    says("rabitq", "≈ 0.798", "0.30 would come out as 0.24", "0.75·1.9/√383 ≈ 0.073")


def test_deletion_and_privacy():
    """The slowest copy, missed stores, overlapping windows, noise against cosine, bytes that stay."""
    assert max(1, 7, 30, 35) == 35
    assert round(100 * (1 - 0.98**5), 1) == 9.6
    starts = range(0, 10_000, 50)
    assert max(sum(start <= token < start + 200 for start in starts) for token in range(5000)) == 4
    rng, d = np.random.default_rng(0), 768
    unit = rng.normal(size=(2000, d))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for noise, stated in ((0.01, 0.96), (0.1, 0.34)):
        moved = unit + noise * rng.normal(size=unit.shape)
        cosine = ((unit * moved).sum(1) / np.linalg.norm(moved, axis=1)).mean()
        assert round(1 / math.sqrt(1 + noise**2 * d), 2) == stated == pytest.approx(cosine, abs=0.006)
    says(
        "deletion-and-privacy", "complete after 35 days", "9.6 % for five stores at p = 2 %", "up to 4 chunks"
    )
    says("deletion-and-privacy", "0.96 at λ = 0.01 and 0.34 at λ = 0.1")
    x = vectors(3, 8)
    hnsw = filled(faiss.IndexHNSWFlat(8, 4), x)
    live = faiss.SearchParametersHNSW(sel=faiss.IDSelectorBatch([0, 2]))
    assert 1 not in hnsw.search(x, 2, params=live)[1]
    assert x[1].tobytes() in faiss.serialize_index(hnsw).tobytes()  # hidden, not gone
    rebuilt = filled(faiss.IndexHNSWFlat(8, 4), x[[0, 2]])
    assert x[1].tobytes() not in faiss.serialize_index(rebuilt).tobytes()
