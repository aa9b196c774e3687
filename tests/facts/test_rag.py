"""The formulas and numbers of data/build/topics/rag.toml, worked through in code."""

import itertools
import math
import re
import tomllib
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).parents[2] / "data" / "build" / "topics" / "rag.toml"


def passage(topic: str, style: str) -> str:
    """The text of one passage, as the TOML file has it."""
    topics = {t["id"]: t for t in tomllib.loads(SOURCE.read_text(encoding="utf-8"))["topic"]}
    return next(p["text"] for p in topics[topic]["passage"] if p["style"] == style)


def numbers(pattern: str, text: str) -> list[int]:
    """The whole numbers that the pattern's groups find."""
    return [int(group.replace(",", "")) for group in re.search(pattern, text).groups()]


def softmax(scores):
    exp = np.exp(scores - np.max(scores))
    return exp / exp.sum()


def rag_sequence(prior, tokens):
    """Σ_z p(z|x) Π_i p(y_i|x, z, y_<i), with tokens[z][i]."""
    return sum(w * math.prod(row) for w, row in zip(prior, tokens))


def rag_token(prior, tokens):
    """Π_i Σ_z p(z|x) p(y_i|x, z, y_<i)."""
    return math.prod(sum(w * row[i] for w, row in zip(prior, tokens)) for i in range(len(tokens[0])))


def test_retrieval_augmented_generation():
    """P(correct) = r·a₁ + (1 − r)·a₀: the worked 0.76, both partial derivatives, and a₁ = a₀."""

    def accuracy(r, a1, a0):
        return r * a1 + (1 - r) * a0

    assert math.isclose(0.8 * 0.9, 0.72) and math.isclose(0.2 * 0.2, 0.04)
    assert math.isclose(accuracy(0.8, 0.9, 0.2), 0.76)
    step = 1e-6
    by_retriever = (accuracy(0.8 + step, 0.9, 0.2) - accuracy(0.8, 0.9, 0.2)) / step
    by_generator = (accuracy(0.8, 0.9 + step, 0.2) - accuracy(0.8, 0.9, 0.2)) / step
    assert math.isclose(by_retriever, 0.9 - 0.2, rel_tol=1e-6)
    assert math.isclose(by_generator, 0.8, rel_tol=1e-6)
    assert math.isclose(accuracy(0.1, 0.5, 0.5), accuracy(0.9, 0.5, 0.5))


def test_rag_sequence():
    """The worked 0.494, that answers sum to one, that it is no product of mixtures, fast against thorough."""
    prior = [0.6, 0.4]
    assert math.isclose(rag_sequence(prior, [[0.9, 0.9], [0.1, 0.2]]), 0.494)
    assert math.isclose(0.6 * 0.81 + 0.4 * 0.02, 0.494)
    assert not math.isclose(rag_token(prior, [[0.9, 0.9], [0.1, 0.2]]), 0.494, rel_tol=0.1)
    # Two binary tokens, independent under each document: a distribution over four answers ...
    first, second = np.array([0.9, 0.1]), np.array([0.9, 0.2])
    table = {}
    for a, b in itertools.product([0, 1], repeat=2):
        rows = [[p if a else 1 - p, q if b else 1 - q] for p, q in zip(first, second)]
        table[a, b] = rag_sequence(prior, rows)
    assert math.isclose(sum(table.values()), 1)
    # ... under which the tokens are dependent, though they are independent given the document.
    marginals = (table[1, 0] + table[1, 1]) * (table[0, 1] + table[1, 1])
    assert abs(table[1, 1] - marginals) > 0.1
    # An answer with half a fact from each document scores below one that a single document explains.
    assert rag_sequence([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]]) < rag_sequence(
        [0.5, 0.5], [[0.9, 0.9], [0.1, 0.1]]
    )
    # Fast decoding drops the terms of documents whose beam lacks the candidate: a lower bound.
    assert 0.6 * 0.81 < rag_sequence(prior, [[0.9, 0.9], [0.1, 0.2]])
    # The retriever's prior is a softmax; the naive product underflows where the log-sum-exp does not.
    assert np.allclose(softmax(np.log(prior)), prior)
    assert math.prod([0.05] * 400) == 0 and math.isfinite(400 * math.log(0.05))


def test_rag_token():
    """The worked 0.25 against 0.13, the two cases of equality, the mixture as a distribution, the log bug."""
    prior, tokens = [0.5, 0.5], [[0.8, 0.1], [0.2, 0.9]]
    assert math.isclose(0.5 * (0.8 + 0.2), 0.5) and math.isclose(0.5 * (0.1 + 0.9), 0.5)
    assert math.isclose(rag_token(prior, tokens), 0.25)
    assert math.isclose(rag_sequence(prior, tokens), 0.13)
    assert math.isclose(0.5 * 0.08 + 0.5 * 0.18, 0.13)
    assert math.isclose(rag_token([0.3, 0.7], [[0.4], [0.9]]), rag_sequence([0.3, 0.7], [[0.4], [0.9]]))
    assert math.isclose(rag_token([1.0], [[0.4, 0.3]]), rag_sequence([1.0], [[0.4, 0.3]]))
    mixed = np.array([0.7, 0.3]) @ np.array([[0.9, 0.1], [0.2, 0.8]])
    assert np.allclose(mixed, [0.69, 0.31]) and math.isclose(mixed.sum(), 1)
    geometric = np.exp(np.array([0.7, 0.3]) @ np.log([[0.9, 0.1], [0.2, 0.8]]))
    assert geometric.sum() < 0.9


def test_retriever_gradient():
    """Posterior − prior against finite differences; ±0.4; sums to zero; vanishing; the query's gradient."""

    def log_p(scores, likelihood):
        return math.log(softmax(scores) @ likelihood)

    def gradient(scores, likelihood):
        prior = softmax(scores)
        return prior * likelihood / (prior @ likelihood) - prior

    rng = np.random.default_rng(0)
    scores, likelihood, step = rng.normal(size=5), rng.uniform(0.01, 0.9, size=5), 1e-6
    exact = gradient(scores, likelihood)
    for z in range(5):
        shift = step * np.eye(5)[z]
        numeric = (log_p(scores + shift, likelihood) - log_p(scores - shift, likelihood)) / (2 * step)
        assert math.isclose(numeric, exact[z], abs_tol=1e-8)
    assert math.isclose(exact.sum(), 0, abs_tol=1e-12)
    # Up if and only if the document explains the answer better than the prior-weighted average.
    assert np.array_equal(exact > 0, likelihood > softmax(scores) @ likelihood)
    prior = np.array([0.5, 0.5])
    assert np.allclose(prior * [0.9, 0.1] / (prior @ [0.9, 0.1]), [0.9, 0.1])
    assert np.allclose(gradient(np.zeros(2), np.array([0.9, 0.1])), [0.4, -0.4])
    assert np.allclose(gradient(scores, np.full(5, 0.3)), 0)
    documents, query = rng.normal(size=(5, 3)), rng.normal(size=3)
    by_query = gradient(documents @ query, likelihood) @ documents
    for i in range(3):
        shift = step * np.eye(3)[i]
        up, down = (log_p(documents @ (query + s * shift), likelihood) for s in (1, -1))
        assert math.isclose((up - down) / (2 * step), by_query[i], abs_tol=1e-8)


def test_fusion_in_decoder():
    """Pairs k·n² and (k·n)², counted and by formula; 2,000 keys; order of keys; passages encoded apart."""
    k, n = 10, 200
    assert (k * n**2, (k * n) ** 2, k * n) == (400_000, 4_000_000, 2_000)
    for small_k, small_n in [(2, 3), (3, 4)]:
        owner = np.repeat(np.arange(small_k), small_n)
        apart = int((owner[:, None] == owner[None, :]).sum())
        assert apart == small_k * small_n**2
        assert owner.size**2 == small_k * apart
    rng = np.random.default_rng(0)
    passages, question = rng.normal(size=(3, 5, 8)), rng.normal(size=(1, 8))

    def attend(queries, keys):
        return np.stack([softmax(query @ keys.T) @ keys for query in queries])

    plain, shuffled = passages.reshape(15, 8), passages[[2, 0, 1]].reshape(15, 8)
    assert np.allclose(attend(question, plain), attend(question, shuffled))
    # Encoded apart, two passages do not notice a change of the third; joined, they do.
    changed = passages.copy()
    changed[2] = 0
    apart = [np.stack([attend(p, p) for p in batch]) for batch in (passages, changed)]
    assert np.array_equal(apart[0][:2], apart[1][:2]) and not np.allclose(apart[0][2], apart[1][2])
    joined = [attend(batch.reshape(15, 8), batch.reshape(15, 8)) for batch in (passages, changed)]
    assert not np.allclose(joined[0][:10], joined[1][:10])


def test_chunking():
    """Chunk counts, 5 chunks, factor 1.28, the o + 1 guarantee, probability 0.5 (0.39), by brute force."""

    def windows(n, w, o):
        """Windows laid one after another until one of them reaches the end."""
        found = [(0, min(w, n))]
        while found[-1][1] < n:
            start = found[-1][0] + w - o
            found.append((start, min(start + w, n)))
        return found

    for n, w, o in itertools.product([11, 40, 97], [5, 8, 10], [0, 1, 4]):
        assert len(windows(n, w, o)) == 1 + math.ceil((n - w) / (w - o))
        assert len(windows(n, w, o)) == len(range(0, max(n - o, 1), w - o))
    assert 256 - 56 == 200 and len(windows(1000, 256, 56)) == 1 + math.ceil(744 / 200) == 5
    assert 256 / 200 == 1.28
    long = windows(200_000, 256, 56)
    assert math.isclose(sum(end - start for start, end in long) / 200_000, 1.28, abs_tol=0.001)

    def whole(start, length, found):
        return any(a <= start and start + length <= b for a, b in found)

    n, w, o = 400, 20, 6
    found = windows(n, w, o)
    assert all(whole(start, o + 1, found) for start in range(n - o))
    assert not all(whole(start, o + 2, found) for start in range(n - o - 1))
    for length in range(o + 1, w + 1):
        share = np.mean([whole(start, length, found) for start in range(5 * (w - o))])
        assert math.isclose(share, (w - length + 1) / (w - o))
    assert (256 - 157 + 1) / (256 - 56) == 0.5
    assert f"{(256 - 157 + 1) / 256:.2f} without overlap" in passage("chunking", "mathematics")


def test_prompt_and_context():
    """The budget of 3,400, 11 passages with 100 left over, 5 longer ones, 434; skipping never fits less."""
    budget = 4096 - 512 - 120 - 64
    assert budget == 3400
    assert divmod(budget, 300) == (11, 100)
    assert budget // 600 == 5
    (window,) = numbers("For C = ([0-9,]+),", passage("prompt-and-context", "mathematics"))
    fits = (window - 512 - 120 - 64) // 300
    assert window == 2**17 and f"gives {fits} passages" in passage("prompt-and-context", "mathematics")

    def pack(lengths, room, skip):
        used = 0
        for length in lengths:
            if used + length <= room:
                used += length
            elif not skip:
                break
        return used

    assert pack([300, 900, 250, 200], 800, skip=True) == 750
    assert pack([300, 900, 250, 200], 800, skip=False) == 300
    for lengths in itertools.product([1, 3, 5], repeat=4):
        assert pack(lengths, 7, skip=True) >= pack(lengths, 7, skip=False)


def test_citations_and_grounding():
    """Citation recall 0.8, precision 0.625, harmonic mean 0.70; citing everything hurts precision only."""
    # Sentence by citation: does the cited passage support the sentence? Five sentences, eight citations.
    support = [[True, True], [True, False], [True], [True, False], [False]]
    recall = np.mean([any(row) for row in support])
    precision = np.mean([cited for row in support for cited in row])
    assert sum(len(row) for row in support) == 8
    assert recall == 4 / 5 == 0.8 and precision == 5 / 8 == 0.625
    assert round(2 * recall * precision / (recall + precision), 2) == 0.70
    everything = [row + [False] * 4 for row in support]
    assert np.mean([any(row) for row in everything]) == recall
    assert np.mean([cited for row in everything for cited in row]) < precision


def test_abstention():
    """Coverage 0.6 and risk 0.1; p − λ(1 − p) > 0 exactly above λ/(1 + λ); λ = 3 gives 0.75."""
    assert 60 / 100 == 0.6 and 6 / 60 == 0.1
    for cost in (0.5, 1, 3, 9):
        threshold = cost / (1 + cost)
        assert math.isclose(threshold - cost * (1 - threshold), 0, abs_tol=1e-12)
        for p in np.linspace(0.01, 0.99, 99):
            if not math.isclose(p, threshold):
                assert (p - cost * (1 - p) > 0) == (p > threshold)
    assert 3 / (1 + 3) == 0.75
    right = np.array([1, 1, 1, 0, 1, 0])
    risk = np.cumsum(1 - right) / np.arange(1, 7)
    assert np.flatnonzero(risk <= 0.2).max() + 1 == 5


def test_lost_in_the_middle():
    """0.695 in rank order, 0.735 with the best at the ends, no better order; 0.61 and 0.74 if rising."""
    accuracy = np.array([0.8, 0.6, 0.5, 0.6, 0.8])
    holds = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
    assert math.isclose(holds.sum(), 1)

    def expected(order, curve):
        return float(holds[[rank - 1 for rank in order]] @ curve)

    ends = [1, 3, 5, 4, 2]
    assert [1, 2, 3, 4, 5][::2] + [1, 2, 3, 4, 5][1::2][::-1] == ends
    assert math.isclose(expected([1, 2, 3, 4, 5], accuracy), 0.695)
    assert math.isclose(expected(ends, accuracy), 0.735)
    values = [expected(order, accuracy) for order in itertools.permutations([1, 2, 3, 4, 5])]
    assert math.isclose(max(values), 0.735)
    text = passage("lost-in-the-middle", "mathematics")
    rising = np.array([float(x) for x in re.search("end, with accuracies (.*?):", text)[1].split(", ")])
    assert f"it gives {expected(ends, rising):.2f}" in text
    assert f"best passage last, gives {expected([5, 4, 3, 2, 1], rising):.2f}" in text
    flat = [expected(order, np.full(5, 0.7)) for order in itertools.permutations([1, 2, 3, 4, 5])]
    assert np.allclose(flat, 0.7)


def test_prompt_injection():
    """1 − (1 − p)^k by enumeration, 0.18, 0.006, 0.45, and shared weaknesses beat the product."""
    p, k = 0.02, 10
    brute = sum(
        math.prod(p if bad else 1 - p for bad in case)
        for case in itertools.product([False, True], repeat=k)
        if any(case)
    )
    assert math.isclose(brute, 1 - (1 - p) ** k)
    assert round(1 - 0.98**10, 2) == 0.18
    assert math.isclose(0.3 * 0.2 * 0.1, 0.006)
    assert round(1 - 0.994**100, 2) == 0.45
    # Half of the attacks are of a kind that two defences both miss more often: each misses 0.3 overall.
    together = 0.5 * 0.5 * 0.5 + 0.5 * 0.1 * 0.1
    assert together > 0.3 * 0.3


def test_agentic_search():
    """0.729 and 0.970 with a retry, by enumeration; 17,000 tokens read or 6,500 with a cache; masked loss."""
    text = passage("agentic-search", "mathematics")
    assert f"{0.9**3:.3f}" in text and f"{(1 - (1 - 0.9) ** 2) ** 3:.3f}" in text
    tries = itertools.product([True, False], repeat=6)  # three look-ups, two tries each
    brute = sum(
        math.prod(0.9 if ok else 0.1 for ok in case)
        for case in tries
        if all(case[2 * i] or case[2 * i + 1] for i in range(3))
    )
    assert math.isclose(brute, 0.99**3)
    question, result, rounds = numbers("q = ([0-9,]+), r = ([0-9,]+) and T = ([0-9]+)", text)
    prompts = [question + t * result for t in range(1, rounds + 1)]
    assert sum(prompts) == rounds * question + result * rounds * (rounds + 1) / 2 == 17_000
    assert prompts[-1] == 6_500  # with a cache, each token is read once
    assert "17,000" in text and "6,500" in text


def test_contextual_chunk_embeddings():
    """Pairs 4,096² and 16·256², factor 16; 65,536 tokens for prefixes; chunk means give the whole."""
    text = passage("contextual-chunk-embeddings", "mathematics")
    n, chunks = 4_096, 16
    assert n == chunks * 256 and n**2 == chunks * (chunks * 256**2)
    for number in (n**2, chunks * 256**2, chunks * n):
        assert f"{number:,}" in text
    rng = np.random.default_rng(0)
    tokens, cuts = rng.normal(size=(12, 5)), [(0, 3), (3, 4), (4, 12)]
    means = np.stack([tokens[a:b].mean(0) for a, b in cuts])
    lengths = np.array([b - a for a, b in cuts])
    assert np.allclose(lengths @ means / 12, tokens.mean(0))
    # A causal encoder hides later text: the first chunk is the same whether encoded alone or not.

    def causal(x):
        scores = np.where(np.tri(len(x)) > 0, x @ x.T, -np.inf)
        return np.stack([softmax(row) @ x for row in scores])

    assert np.allclose(causal(tokens)[:3], causal(tokens[:3]))
    assert not np.allclose(causal(tokens)[4:], causal(tokens[4:]))


def test_calibrated_abstention():
    """k = ⌊α(n + 1)⌋, the rank argument by enumeration, Beta's spread, k = 2, 1 − 0.05^(1/60)."""
    text = passage("calibrated-abstention", "mathematics")

    def at_most(k, n, p):
        return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))

    n, alpha = 99, 0.05
    k = math.floor(round(alpha * (n + 1), 9))
    assert k == 5 and "the fifth smallest" in text
    # Of n + 1 exchangeable scores each is the new one equally often: below the k-th smallest in k cases.
    for small, kept in [(4, 1), (5, 2)]:
        orders = list(itertools.permutations(range(small + 1)))
        below = [order[-1] < sorted(order[:-1])[kept - 1] for order in orders]
        assert math.isclose(np.mean(below), kept / (small + 1))
    smallest = next(m for m in range(1, 99) if math.floor(round(alpha * (m + 1), 9)) >= 1)
    assert f"fewer than {smallest} " in text
    assert f"standard deviation of {math.sqrt(k * (n + 1 - k) / ((n + 1) ** 2 * (n + 2))):.3f}" in text
    # The declined share exceeds α exactly when fewer than k of the n confidences fall in its lowest α.
    exceeds = {k: at_most(k - 1, n, alpha) for k in range(1, 6)}
    assert max(k for k in exceeds if exceeds[k] <= 0.1) == 2 and "lower k to 2" in text
    bound = 1 - 0.05 ** (1 / 60)
    assert f"≈ {bound:.3f}" in text and math.isclose((1 - bound) ** 60, 0.05)
    # An increasing rescaling keeps the order, and with it the risk–coverage curve.
    scores = np.random.default_rng(0).uniform(size=50)
    assert np.array_equal(np.argsort(scores), np.argsort(1 / (1 + np.exp(-3 * scores))))


def test_multi_hop_questions():
    """Mean recall 0.675, the bounds 0.35 and 0.4 of joint recall, 0.38, 0.77; the turning point 0.81."""
    text = passage("multi-hop-questions", "mathematics")
    first, second, bridge, again = 0.95, 0.4, 0.9, 0.9
    assert f"r₁ = {first} " in text and f"r₂ = {second}." in text
    assert f"(r₁ + r₂)/2 = {(first + second) / 2:.3f}" in text
    low, high = max(0, first + second - 1), min(first, second)
    assert f"between {low:.2f} and {high}, however" in text
    assert f"{first * second:.2f} if they are independent" in text
    # The bounds are reached: nest the two events, or spread them over as many of 100 cases as possible.
    ones = np.arange(100)
    assert ((ones < 95) & (ones < 40)).mean() == high
    assert math.isclose(((ones < 95) & (ones >= 60)).mean(), low)
    assert f"0.95·0.9·0.9 ≈ {first * bridge * again:.2f}" in text
    assert f"once r₂ exceeds {bridge * again:.2f}" in text
    for r in (0.80, 0.82):  # one search with independent finds against two in a row
        assert (first * r > first * bridge * again) == (r > 0.81)


def test_graph_rag():
    """PageRank 7/12, 4/12, 1/12 solved exactly, 0.46 and 0.35 at d = 0.85, by walking; 834 calls."""
    text = passage("graph-rag", "mathematics")
    adjacency = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    moves, seed = adjacency / adjacency.sum(0), np.array([1.0, 0, 0])

    def pagerank(d):
        return np.linalg.solve(np.eye(3) - d * moves, (1 - d) * seed)

    assert "p is 7/12, 4/12 and 1/12" in text
    assert np.allclose(pagerank(0.5), [7 / 12, 4 / 12, 1 / 12])
    assert f"B gets {pagerank(0.85)[1]:.2f} and the seed only {pagerank(0.85)[0]:.2f}" in text
    # The share of time of a walker, summed over the number of steps since the last jump.
    walked = sum(0.5 * 0.5**n * np.linalg.matrix_power(moves, n) @ seed for n in range(60))
    assert np.allclose(walked, pagerank(0.5))
    practice = passage("graph-rag", "practice")
    tokens, size, calls = numbers(
        "([0-9,]+) tokens in chunks of ([0-9,]+), .* are ([0-9]+) extraction", practice
    )
    assert calls == math.ceil(tokens / size)


def test_long_context_or_retrieval():
    """200,100 against 1,600, factor 125; 632,000, 4,002,000 and 32,000; from the second on; 41,600."""
    text = passage("long-context-or-retrieval", "mathematics")
    collection, question, everything, retrieved = numbers(
        "D = ([0-9,]+) and a question of ([0-9]+) make ([0-9,]+) per question, against ([0-9,]+)", text
    )
    assert everything == collection + question and retrieved == 5 * 300 + question
    assert f"{everything / retrieved:.0f} times as much" in text

    def cached(n):
        return 1.25 * collection + 0.1 * collection * (n - 1) + question * n

    costs = [f"{cost:,.0f}" for cost in (cached(20), 20 * everything, 20 * retrieved)]
    assert f"cost {costs[0]} with the cache, {costs[1]} without it and {costs[2]} with retrieval" in text
    assert cached(1) > everything and all(cached(n) < n * everything for n in range(2, 50))
    assert "from the second question on" in text and f"{1.25 + 0.1:.2f}·D" in text
    share = float(re.search(r"for f = ([0-9.]+) about", text)[1])
    assert f"for f = {share} about {round(retrieved + everything * share, -2):,.0f}." in text


def test_tool_use_security():
    """Readers are intersected, in any order, and never grow; 60 trifectas in one session, none when split."""
    text = passage("tool-use-security", "mathematics")
    first, second, result = (
        set(re.findall("[A-Z][a-z]+", group)) for group in re.findall(r"\{([A-Za-z, ]+)\}", text)
    )
    assert first & second == result and "Dan" in second - result
    people = [set(c) for r in range(4) for c in itertools.combinations("abc", r)]
    for a, b, c in itertools.product(people, repeat=3):
        assert a & (b & c) == (a & b) & c <= a
    private, untrusted, sending, trifectas = numbers(
        "([0-9]+) tools that read private data, ([0-9]+) that read untrusted text "
        "and ([0-9]+) that send make .* = ([0-9]+) complete",
        text.replace("\n", " "),
    )
    kinds = ["private"] * private + ["untrusted"] * untrusted + ["sending"] * sending

    def complete(tools):
        return sum(len(set(triple)) == 3 for triple in itertools.combinations(tools, 3))

    assert complete(kinds) == trifectas
    assert all(complete([k for k in kinds if k != left_out]) == 0 for left_out in set(kinds))
