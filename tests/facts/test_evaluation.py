"""Every formula and number in the passages of data/build/topics/evaluation.toml, worked through in code."""

import math
import random
import re
import string
import tomllib
import warnings
from collections import Counter
from fractions import Fraction
from itertools import combinations, permutations, product
from pathlib import Path

import numpy as np
from scipy import stats

TOPICS = Path(__file__).parents[2] / "data/build/topics/evaluation.toml"
TEXTS = {
    (topic["id"], passage["style"]): passage["text"]
    for topic in tomllib.loads(TOPICS.read_text(encoding="utf-8"))["topic"]
    for passage in topic["passage"]
}


def quoted(topic, style, pattern):
    """The numbers that the groups of `pattern` catch in a passage."""
    return [float(number) for number in re.search(pattern, TEXTS[topic, style]).groups()]


def close(value, quoted, digits):
    """True if `value` rounds to the number quoted in the text."""
    return round(value, digits) == quoted


def average_precision(ranked, relevant):
    """AP by its definition: precision at each relevant rank, divided by all relevant documents."""
    hits, total = 0, 0.0
    for rank, document in enumerate(ranked, start=1):
        if document in relevant:
            hits += 1
            total += hits / rank
    return total / len(relevant)


def test_precision_and_recall():
    """P@k, R@k and F1 as worked; recall never falls, P = R at k = |G|, the ceiling and the hit rate."""
    ranked, good = ["g1", "x", "g2", "x2", "x3", "g3", "x4"], {"g1", "g2", "g3", "g4"}
    hits = [len(set(ranked[:k]) & good) for k in range(1, len(ranked) + 1)]
    precision, recall = hits[4] / 5, hits[4] / len(good)
    assert (precision, recall) == (0.4, 0.5)
    assert close(2 * precision * recall / (precision + recall), 0.444, 3)
    assert close(2 * precision * recall, 0.4, 9) and close(precision + recall, 0.9, 9)
    assert all(a <= b for a, b in zip(hits, hits[1:]))
    assert hits[3] / 4 == hits[3] / len(good)
    assert close(2 * 1 * 0.01 / 1.01, 0.02, 2) and (1 + 0.01) / 2 == 0.505
    assert max(len(set(top) & {0, 1, 2}) / 10 for top in combinations(range(13), 10)) == 0.3
    for place in range(5):  # one relevant document: hit rate at 3 equals recall at 3
        assert float(place < 3) == len({place} & {0, 1, 2}) / 1


def test_ndcg():
    """Discounts, the worked list with both gains, agreement on 0/1 grades, and the flattering ideal."""

    def dcg(grades, gain=float):
        return sum(gain(g) / math.log2(i + 1) for i, g in enumerate(grades, start=1))

    def exponential(grade):
        return 2.0**grade - 1

    assert [round(1 / math.log2(i + 1), 3) for i in (1, 2, 3)] == [1, 0.631, 0.5]
    shown, judged = [3, 0, 2], [3, 2, 0, 0]
    assert dcg(shown) == 4 and close(dcg(judged), 4.262, 3) and close(4 / dcg(judged), 0.939, 3)
    assert dcg(shown, exponential) == 8.5 and close(dcg(judged, exponential), 8.893, 3)
    assert close(8.5 / dcg(judged, exponential), 0.956, 3)
    assert max(dcg(order) for order in permutations(judged)) == dcg(judged)
    assert all(dcg(g) == dcg(g, exponential) for g in product((0, 1), repeat=4))
    missed = dcg([1, 0, 0]) / dcg([3, 2, 1])
    assert close(missed, 0.21, 2) and dcg([1, 0, 0]) / dcg(sorted([1, 0, 0], reverse=True)) == 1


def test_mean_reciprocal_rank():
    """The worked MRR, both means of the ranks, the two gains, RR = AP for one relevant document, cut-offs."""
    ranks = [1, 2, 4]
    mrr = sum(1 / r for r in ranks) / 3
    assert close(mrr, 0.583, 3)
    assert close(1 / mrr, 1.714, 3) and math.isclose(1 / mrr, stats.hmean(ranks))
    assert close(sum(ranks) / 3, 2.333, 3)
    assert 1 - 1 / 2 == 0.5 and close(1 / 9 - 1 / 10, 0.011, 3)
    assert 1 - 1 / 2 == 1 / 2 - 0  # 1 to 2 costs as much as 2 to never found
    for rank in range(1, 8):
        ranked = ["x"] * (rank - 1) + ["good"] + ["x"] * 3
        assert math.isclose(average_precision(ranked, {"good"}), 1 / rank)

    def at(k):
        return sum(1 / r if r <= k else 0 for r in (1, 3, 12, 40)) / 4

    assert at(10) < at(100)
    assert (1 + 0.5 + 0) / 3 < (1 + 0.5) / 2  # dropping the silent query raises the mean


def test_average_precision():
    """The worked AP, the wrong divisor, the area, when AP = 1, both AP@10 rules and GMAP's doubling."""
    ranked, good = ["g1", "x", "g2", "y", "z", "g3", "w"], {"g1", "g2", "g3", "g4"}
    ap = average_precision(ranked, good)
    assert close(ap, 0.542, 3) and close(ap * 4 / 3, 0.722, 3)
    area, recall_before = 0.0, 0.0
    for k in range(1, len(ranked) + 1):
        hits = len(set(ranked[:k]) & good)
        area += (hits / 4 - recall_before) * hits / k
        recall_before = hits / 4
    assert math.isclose(area, ap)
    for order in permutations("abxyz"):
        perfect = set(order[:2]) == {"a", "b"}
        assert math.isclose(average_precision(order, {"a", "b"}), 1) == perfect
    found = sum(k / k for k in range(1, 11))  # ten relevant documents in the top ten, twenty in all
    assert found / 20 == 0.5 and found / min(20, 10) == 1.0
    assert average_precision("xa", {"a"}) == average_precision("ax", {"a"}) / 2

    def gmap(scores):
        return math.exp(sum(map(math.log, scores)) / len(scores))

    assert math.isclose(gmap([0.10, 0.4]), gmap([0.05, 0.8]))
    assert np.prod([0.0, 0.9, 0.9]) == 0


def test_judgements_and_pooling():
    """Pool size and its bounds, the range of P@10 with unjudged documents, and the worked bpref."""
    pool = set("ab") | set("bc") | set("ae")
    assert len(pool) == 4 and 3 * 2 == 6
    for lists in product(combinations("abcdef", 2), repeat=3):  # depth d = 2, S = 3 systems
        assert 2 <= len(set().union(*lists)) <= 6
    assert 6 + 1 + 3 == 10 and (6 / 10, (6 + 3) / 10) == (0.6, 0.9)

    def bpref(ranking, relevant_total, irrelevant_total):
        above, total = 0, 0.0
        for label in ranking:  # 1 relevant, 0 judged irrelevant, None unjudged
            if label == 0:
                above += 1
            elif label == 1:
                total += 1 - min(above, relevant_total) / min(relevant_total, irrelevant_total)
        return total / relevant_total

    assert bpref([1, 0, None, 1], 2, 3) == (1 + 0.5) / 2 == 0.75
    assert bpref([None, 1, 0, 1, None], 2, 3) == 0.75  # unjudged documents do not matter
    assert bpref([0, 0, 0, 1, 1], 2, 3) == 0


def test_paired_bootstrap():
    """The standard error by listing all 4⁴ draws, the variance identity, absence, and scipy's NaN."""
    d = np.array([0.3, 0.1, -0.1, 0.1])
    replicates = np.array([d[list(draw)].mean() for draw in product(range(4), repeat=4)])
    assert math.isclose(replicates.mean(), 0.1) and math.isclose(d.var(), 0.02)
    assert math.isclose(replicates.var(), d.var() / 4) and close(replicates.std(), 0.071, 3)
    paired, unpaired = 0.09 + 0.09 - 2 * 0.8 * 0.09, 0.09 + 0.09
    assert close(math.sqrt(paired), 0.19, 2) and close(math.sqrt(unpaired), 0.42, 2)
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    y = y + x
    cov = np.cov(x, y, bias=True)
    assert math.isclose((x - y).var(), cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    absent = sum(0 not in draw for draw in product(range(5), repeat=5)) / 5**5
    assert math.isclose(absent, (1 - 1 / 5) ** 5) and close((1 - 1 / 1000) ** 1000, 0.37, 2)
    same = np.array([0.2, 0.9, 0.4, 0.7])

    def mean_difference(a, b):
        return float(np.mean(a) - np.mean(b))

    def interval(**options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = stats.bootstrap(
                (same, same), mean_difference, paired=True, vectorized=False, n_resamples=50, rng=0, **options
            )
        return result.confidence_interval

    assert math.isnan(interval().low)
    assert tuple(interval(method="percentile")) == (0, 0)


def test_significance_and_many_tests():
    """Coin guessers, family-wise error, Bonferroni, Holm, Benjamini–Hochberg, sign-flip floor, peeking."""
    lucky = sum(math.comb(10, k) for k in (8, 9, 10)) / 2**10
    assert 1 - (1 - lucky) ** 20 > 0.5
    assert close(1 - 0.95**20, 0.64, 2)
    for p_all in product((0.01, 0.02, 0.04, 0.3), repeat=3):  # Holm keeps all that Bonferroni keeps
        assert bonferroni(p_all) <= holm(p_all)
    example = (0.01, 0.02, 0.04)
    assert [round(0.05 / m, 4) for m in (3, 2, 1)] == [0.0167, 0.025, 0.05]
    assert bonferroni(example) == {0} and holm(example) == {0, 1, 2}
    grid = [Fraction(k, 20) for k in range(1, 21)]  # two independent p-values on a grid, α = 1/10
    bad = sum(min(p) <= Fraction(1, 20) for p in product(grid, repeat=2))
    assert Fraction(bad, 400) <= Fraction(1, 10)
    bad = sum(min(p, 21 - p) <= 1 for p in range(1, 21))  # two p-values that are as opposed as can be
    assert Fraction(bad, 20) <= Fraction(1, 10)
    p_null = np.random.default_rng(0).random((4000, 6))  # Benjamini–Hochberg: four true differences of ten
    p_all = np.sort(np.hstack([p_null, np.full((4000, 4), 1e-6)]), axis=1)
    passed = p_all <= 0.05 * np.arange(1, 11) / 10
    reported = 10 - passed[:, ::-1].argmax(axis=1)
    assert (reported - 4 >= 0).all() and ((reported - 4) / reported).mean() <= 0.05
    d = [10, 5, 20, 2, 8]
    totals = [sum(s * x for s, x in zip(signs, d)) for signs in product((1, -1), repeat=5)]
    assert sum(abs(t) >= sum(d) for t in totals) / len(totals) == 2 / 32 == 0.0625
    # Peeking after every query from the 6th to the 30th finds a "win" more often than 5 % of the time.
    steps = np.where(np.random.default_rng(0).random((2000, 30)) < 0.5, 1, -1).cumsum(axis=1)
    floor = [stats.binom.ppf(0.025, n, 0.5) for n in range(6, 31)]
    losses = (np.arange(1, 31) - steps)[:, 5:] / 2
    extreme = (losses < floor) | (losses > np.arange(6, 31) - floor)
    assert extreme[:, -1].mean() <= 0.05 < extreme.any(axis=1).mean()


def bonferroni(p_values, alpha=0.05):
    """Indices kept by Bonferroni's correction."""
    return {i for i, p in enumerate(p_values) if p <= alpha / len(p_values)}


def holm(p_values, alpha=0.05):
    """Indices kept by Holm's step-down correction."""
    kept = set()
    for step, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] > alpha / (len(p_values) - step):
            break
        kept.add(i)
    return kept


def kendall(a, b):
    """Kendall's coefficient without ties, by listing the pairs; also C and D."""
    signs = [np.sign((a[i] - a[j]) * (b[i] - b[j])) for i, j in combinations(range(len(a)), 2)]
    return sum(signs) / len(signs), signs.count(1), signs.count(-1)


def test_rank_correlation():
    """τ and r_s against scipy, pair probability, swaps, chance, weak systems, τ-b, top-weighted measures."""
    a, b = [1, 2, 3, 4], [1, 3, 2, 4]
    tau, same, opposite = kendall(a, b)
    assert (same, opposite) == (5, 1) and close(tau, 0.667, 3)
    assert math.isclose(tau, stats.kendalltau(a, b).statistic)
    squares = sum((x - y) ** 2 for x, y in zip(a, b))
    spearman = 1 - 6 * squares / (4 * (16 - 1))
    assert squares * 6 == 12 and spearman == 0.8 and math.isclose(spearman, stats.spearmanr(a, b).statistic)
    assert close((1 + tau) / 2, 0.833, 3) and math.isclose((1 + tau) / 2, same / 6)
    for n in (4, 6):
        swapped = [1, 0, *range(2, n)]
        assert math.isclose(1 - kendall(range(n), swapped)[0], 4 / (n * (n - 1)))
    assert math.isclose(4 / (4 * 3), 1 / 3)
    assert quoted("rank-correlation", "intuition", r"the (\d+) pairs") == [math.comb(10, 2)]
    assert sum(kendall(a, order)[0] == 1 for order in permutations(a)) == 1 and math.factorial(4) == 24
    assert kendall([1, 2, 3], [3, 2, 1])[0] == -1
    assert close(kendall(range(10), [2, 1, 0, *range(3, 10)])[0], 0.867, 3)
    top, bottom = kendall(range(6), [1, 0, 2, 3, 4, 5])[0], kendall(range(6), [0, 1, 2, 3, 5, 4])[0]
    assert top == bottom

    def tau_ap(order):  # items are their own true ranks
        right = [sum(above < x for above in order[:i]) / i for i, x in enumerate(order) if i]
        return 2 * sum(right) / len(right) - 1

    def overlap(x, y, p=0.9):
        depths = range(1, min(len(x), len(y)) + 1)
        return (1 - p) * sum(p ** (d - 1) * len(set(x[:d]) & set(y[:d])) / d for d in depths)

    assert tau_ap([0, 1, 2, 3]) == 1 and tau_ap([3, 2, 1, 0]) == -1
    assert tau_ap([1, 0, 2, 3, 4, 5]) < tau_ap([0, 1, 2, 3, 5, 4])
    assert overlap("abcdef", "bacdef") < overlap("abcdef", "abcedf") < overlap("abcdef", "abcdef")
    assert 0 < overlap("abcd", "axby") < overlap("abcd", "abxy")
    tied, other = [1, 1, 2, 3], [1, 2, 3, 4]  # τ-b: tied pairs leave the denominator of their own list
    pairs = list(combinations(range(4), 2))
    signs = sum(np.sign((tied[i] - tied[j]) * (other[i] - other[j])) for i, j in pairs)
    assert math.isclose(stats.kendalltau(tied, other).statistic, signs / math.sqrt((6 - 1) * 6))


def tidy(text):
    """Lower case, no punctuation, no articles, single spaces; as a list of words."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return [w for w in text.split() if w not in {"a", "an", "the"}]


def test_exact_match_and_f1():
    """The quiz answers, the worked overlap, both forms of F1, word order, negation and empty answers."""

    def scores(prediction, reference):
        p, r = tidy(prediction), tidy(reference)
        overlap = sum(min(p.count(w), r.count(w)) for w in set(p))
        assert overlap == sum((Counter(p) & Counter(r)).values())
        if not p or not r:
            return p == r, overlap, 0.0, 0.0, float(p == r)
        return p == r, overlap, overlap / len(p), overlap / len(r), 2 * overlap / (len(p) + len(r))

    assert scores("the city of Paris", "Paris")[0] is False and scores("the city of Paris", "Paris")[4] == 0.5
    assert tidy("The Nile.") == tidy("nile")
    exact, overlap, precision, recall, f1 = scores("physicist Marie Skłodowska Curie", "Marie Curie")
    assert (exact, overlap, precision, recall) == (False, 2, 0.5, 1) and close(f1, 0.667, 3)
    assert math.isclose(f1, 4 / 6) and math.isclose(f1, 2 * precision * recall / (precision + recall))
    assert scores("7 May", "May 7")[0] is False and scores("7 May", "May 7")[4] == 1
    assert close(scores("not guilty", "guilty")[4], 0.667, 3)
    assert scores("", "")[4] == 1 and scores("perhaps", "")[4] == 0


def drafts(first, second, k):
    """All equally likely team-draft pages: the coin of every round, tried both ways."""
    for coins in product((0, 1), repeat=(k + 1) // 2):
        page = {}
        for coin in coins:
            for team in (coin, 1 - coin):
                if len(page) < k:
                    page[next(d for d in (first, second)[team] if d not in page)] = team
        yield page


def test_interleaving():
    """Each position is owned half the time, the worked preference and sign test, the missed gap, the page."""
    for second in permutations("abcde"):
        pages = [list(page.values()) for page in drafts("abcde", second, 5)]
        assert all(sum(column) * 2 == len(pages) for column in zip(*pages))
    wins, losses, ties = 40, 30, 30
    assert close((wins + ties / 2) / (wins + losses + ties) - 0.5, 0.05, 9)
    assert (70 / 4, 70 / 2) == (17.5, 35) and close((40 - 35) / math.sqrt(17.5), 1.20, 2)
    assert stats.binomtest(40, 70).pvalue > 0.05
    credit = [page["c"] for page in drafts("abc", "bca", 3)]
    assert credit.count(0) == credit.count(1) > 0
    for seed in range(20):
        shown, rng = {}, random.Random(seed)
        while len(shown) < 4:
            for team in rng.sample(["A", "B"], 2):
                shown[next(d for d in {"A": "pqrs", "B": "qptu"}[team] if d not in shown)] = team
        assert sorted(shown) == ["p", "q", "r", "t"] and list(shown.values()).count("A") == 2


def test_llm_as_a_judge():
    """Quality gap and order bias from the two orders, the worked numbers, and the corrected pass rate."""

    def logit(p):
        return math.log(p / (1 - p))

    def sigmoid(z):
        return 1 / (1 + math.exp(-z))

    for s_a, s_b, bias in ((0.3, -0.5, 0.9), (1.0, 1.5, -0.4)):
        p = sigmoid(s_a - s_b + bias)  # A first: the first answer wins
        q = 1 - sigmoid(s_b - s_a + bias)  # B first: A wins if the first answer does not
        assert math.isclose((logit(p) + logit(q)) / 2, s_a - s_b)
        assert math.isclose((logit(p) - logit(q)) / 2, bias)
    gap, bias = (logit(0.8) + logit(0.5)) / 2, (logit(0.8) - logit(0.5)) / 2
    assert close(gap, 0.693, 3) and close(bias, 0.693, 3) and math.isclose(sigmoid(gap), 2 / 3)
    true_rate = (0.6 - 0.2) / (0.9 - 0.2)
    assert close(true_rate, 0.571, 3)
    assert math.isclose(true_rate * 0.9 + (1 - true_rate) * 0.2, 0.6)


def test_retrieval_benchmarks():
    """A perfect ranker's MRR with one label of three, the two averages, and the best of ten attempts."""
    orders = list(permutations("abc"))  # only a is labelled
    mrr = sum(1 / (order.index("a") + 1) for order in orders) / len(orders)
    assert math.isclose(mrr, sum(1 / i for i in range(1, 4)) / 3)
    m, text = "retrieval-benchmarks", "mathematics"
    assert quoted(m, text, r"is (0\.\d+) for m = 3") == [round(mrr, 3)]
    a, b = (np.array(quoted(m, text, name + r" (0.\d+), (0.\d+) and (0.\d+)")) for name in ("scores", "B"))
    assert quoted(m, text, r"mean, (0.\d+) against (0.\d+),") == [round(a.mean(), 2), round(b.mean(), 2)]
    assert (b > a).sum() == 2
    x = np.linspace(-8, 8, 160001)  # E max of ten = ∫ x · 10 φ(x) Φ(x)⁹ dx
    best = float(np.trapezoid(x * 10 * stats.norm.pdf(x) * stats.norm.cdf(x) ** 9, x))
    assert quoted(m, text, r"look (\d\.\d+)·s too good") == [round(best, 2)]
    s, gain = quoted(m, text, r"s = (0.\d+) this is a gain of (0.\d+)")
    assert close(best * s, gain, 3)


def test_nugget_evaluation():
    """Allowance, precision, F with β = 3, and both vital scores."""
    vital, total, okay, length = (3, 5, 2, 800)
    m, text = "nugget-evaluation", "mathematics"
    assert quoted(m, text, r"r = (\d) of (\d), a = (\d) and L = (\d+)") == [vital, total, okay, length]
    recall, precision = vital / total, 100 * (vital + okay) / length
    f3 = 10 * precision * recall / (9 * precision + recall)
    found = quoted(m, text, r"recall is (0.\d+), precision 500/800 = (0.\d+) and F₃ = (0.\d+)\.")
    assert found == [recall, precision, round(f3, 3)] and 100 * (vital + okay) == 500
    credit = [1, 1, 0.5, 0]
    strict, lenient = sum(x == 1 for x in credit) / 4, sum(credit) / 4
    assert quoted(m, text, r"strict score is (0.\d+) and the lenient one (0.\d+)\.") == [strict, lenient]
    assert sum(x == 1 for x in credit + [1]) / 5 == 0.6


def test_arena_ratings():
    """Expected scores, the scale, the two orders of two games, and the interval after a hundred votes."""
    m, text = "arena-ratings", "mathematics"

    def expected(lead):
        return 1 / (1 + 10 ** (-lead / 400))

    low, high = quoted(m, text, r"100 points means an expected score of (0.\d+), one of 400 points (0.\d+)\.")
    assert close(expected(100), low, 3) and close(expected(400), high, 3)
    scale = 400 / math.log(10)
    assert quoted(m, text, r"400/ln 10 = (\d+\.\d)") == [round(scale, 1)]
    assert math.isclose(expected(250), 1 / (1 + math.exp(-250 / scale)))

    def play(results, k=32):
        a = b = 1000
        for won in results:
            step = k * (won - expected(a - b))
            a, b = a + step, b - step
        return a

    win_first, loss_first = quoted(m, text, r"leave A at (\d+\.\d+), the reverse at (\d+\.\d+);")
    assert close(play([1, 0]), win_first, 2) and close(play([0, 1]), loss_first, 2)
    assert play([1] * 30 + [0] * 30) < 1000 < play([0] * 30 + [1] * 30)
    error = 1 / math.sqrt(100 * 0.5 * 0.5)
    found = quoted(m, text, r"error of (0.\d), or (\d+\.\d) points, and a 95 % interval of ±(\d+) points")
    assert found == [error, round(error * scale, 1), round(1.96 * error * scale)]
    wins = np.random.default_rng(0).binomial(1000, 0.64, 4000)  # the formula against simulated votes
    assert abs(np.log(wins / (1000 - wins)).std() * math.sqrt(1000 * 0.64 * 0.36) - 1) < 0.05


def test_claim_checking():
    """Share of claims, ten claims at 95 %, FActScore's penalty, and how many flags are right."""
    m, text = "claim-checking", "mathematics"
    assert quoted(m, text, r"four of five supported claims give (0.\d)") == [4 / 5]
    assert quoted(m, text, r"0\.95¹⁰ = (0.\d+)") == [round(0.95**10, 3)]
    assert quoted(m, text, r"is (0.\d+) for n = 5") == [round(math.exp(1 - 10 / 5), 3)]
    assert math.exp(1 - 10 / 10) == 1

    def right(share):
        return share * 0.8 / (share * 0.8 + (1 - share) * 0.05)

    hit, false, flagged = quoted(m, text, r"Then (0.\d+) \+ (0.\d+) = (0.\d+) of")
    assert (
        math.isclose(hit, 0.1 * 0.8)
        and math.isclose(false, 0.9 * 0.05)
        and math.isclose(flagged, hit + false)
    )
    assert quoted(m, text, r"flagged, (\d+) % of them rightly") == [round(100 * right(0.1))]
    assert quoted(m, text, r"a mere (\d+) % of such") == [round(100 * right(0.02))]
