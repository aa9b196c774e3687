"""Measures against numbers worked by hand, and intervals that hold what they promise."""

import gzip
import math

import numpy as np
import pytest

from ragkit.evaluation.measures import Interval, PerQuery, evaluate, load_qrels, load_queries, paired_interval
from tests.helpers import hits

# Grades 3 and 2 are relevant, and so is "far", which the run misses.
GRADES = {"good": 3, "fair": 2, "far": 1, "bad": 0}


def ranked(*ids: str) -> dict[str, float]:
    return {passage: -float(rank) for rank, passage in enumerate(ids)}


def value(measure: str, *ids: str, grades=GRADES) -> float:
    return evaluate({"q": ranked(*ids)}, {"q": grades}, [measure])[measure]["q"]


def test_ndcg_by_hand():
    # DCG of (bad, fair, x, good): 0/log₂2 + 2/log₂3 + 0 + 3/log₂5 = 1.262 + 1.292 = 2.554
    # ideal (3, 2, 1), with what was missed: 3/1 + 2/log₂3 + 1/log₂4 = 3 + 1.262 + 0.5 = 4.762
    assert value("nDCG@10", "bad", "fair", "x", "good") == pytest.approx(2.554 / 4.762, abs=5e-4)
    # at 2: DCG 1.262, ideal 4.262
    assert value("nDCG@2", "bad", "fair", "x", "good") == pytest.approx(1.262 / 4.262, abs=5e-4)
    assert value("nDCG@10", "good", "fair", "far") == pytest.approx(1)
    assert value("nDCG@10", "bad", "x") == 0


def test_reciprocal_rank_by_hand():
    assert value("RR", "x", "bad", "fair", "good") == pytest.approx(1 / 3)
    assert value("RR@2", "x", "bad", "fair", "good") == 0


def test_average_precision_by_hand():
    # fair at 1, good at 3 of three relevant ones: (1/1 + 2/3 + 0)/3 = 0.556
    assert value("AP", "fair", "x", "good", "bad") == pytest.approx((1 + 2 / 3) / 3)


def test_recall_by_hand():
    assert value("R@1", "fair", "x", "good") == pytest.approx(1 / 3)
    assert value("R@100", "fair", "x", "good") == pytest.approx(2 / 3)


def test_hits_count_by_their_ranks_and_scores_by_their_values():
    qrels = {"q": {"p1": 1}}
    for scores in ({"p0": 0.9, "p1": 0.8, "p2": 0.1}, {"p2": 0.1, "p1": 0.8, "p0": 0.9}, hits("a", "b", "c")):
        assert evaluate({"q": scores}, qrels, ["RR"])["RR"]["q"] == 0.5


def test_what_ties_keeps_its_order_whatever_the_measure():
    """trec_eval orders equal scores by descending id, other tools behind ir-measures by ascending id."""
    from dataclasses import replace

    tied = [replace(hit, score=1.0) for hit in hits("a", "b", "c")]
    for place in range(3):
        assert evaluate({"q": tied}, {"q": {f"p{place}": 1}}, ["RR"])["RR"]["q"] == pytest.approx(
            1 / (1 + place)
        )
    for scores, place in (({"p0": 1.0, "p1": 1.0}, 2), ({"p1": 1.0, "p0": 1.0}, 1)):
        found = evaluate(
            {"q": scores}, {"q": {"p1": 1}}, ["RR", "RR@10", "AP", "P@1", "Success@1", "Judged@1"]
        )
        assert found["RR"]["q"] == found["RR@10"]["q"] == found["AP"]["q"] == 1 / place
        assert found["P@1"]["q"] == found["Success@1"]["q"] == found["Judged@1"]["q"] == 2 - place


@pytest.mark.parametrize("measure", ["RR@10", "AP@2", "ERR@10", "nDCG(dcg='exp-log2')@10", "IPrec@0.1"])
def test_a_perfect_run_is_perfect_whatever_the_ids(measure):
    """Some of what ir-measures calls reads ids as numbers: "dev-1" as 1 and "dev-2" as 2, or cuts them."""
    queries = ["dev-1", "train-1", "q 1", "1", "ü", "10"]
    qrels = {query: {"a-1": 2, "b-1": 1, "c 1": 0} for query in queries}
    run = {query: {"a-1": 0.3, "b-1": 0.2, "c 1": 0.1} for query in queries}
    found = evaluate(run, qrels, [measure])[measure]
    assert list(found) == queries and len(set(found.values())) == 1
    if not measure.startswith("ERR"):
        assert found.mean == 1


@pytest.mark.parametrize("grade", [0.9, float("nan"), "high", None])
def test_a_grade_that_is_no_whole_number_is_refused(grade):
    with pytest.raises(ValueError, match=r"qrels of query 'q': grade .* is not a whole number"):
        evaluate({"q": ranked("a")}, {"q": {"a": grade, "b": 1}})
    assert evaluate({"q": ranked("a")}, {"q": {"a": 2.0, "b": np.int64(1)}}, ["R@1"])["R@1"]["q"] == 0.5


def test_a_score_that_is_nan_is_refused():
    with pytest.raises(ValueError, match="query 'q': the score of passage 'b' is nan"):
        evaluate({"q": {"a": 1.0, "b": math.nan}}, {"q": {"a": 1}})


def test_a_judged_query_that_is_missing_counts_as_0_and_an_unjudged_one_not():
    qrels = {"q": {"a": 1}, "missing": {"a": 1}, "empty": {"a": 1}, "no grades": {}}
    found = evaluate({"q": ranked("a"), "empty": [], "unjudged": ranked("a")}, qrels, ["nDCG@10", "R@5"])
    for measure in ("nDCG@10", "R@5"):
        assert found[measure] == {"q": 1.0, "missing": 0.0, "empty": 0.0}
        assert found[measure].mean == float(found[measure]) == 1 / 3


def test_two_names_of_one_measure_have_the_same_values():
    found = evaluate({"q": ranked("x", "good")}, {"q": GRADES}, ["RR", "MRR", "AP"])
    assert list(found) == ["RR", "MRR", "AP"]
    assert found["RR"] == found["MRR"] == {"q": 0.5}


def test_one_measure_may_be_a_string():
    assert list(evaluate({"q": ranked("good")}, {"q": GRADES}, "nDCG@10")) == ["nDCG@10"]


@pytest.mark.parametrize("measure", ["nonsense", "nDCG@", "nDCG@x", "R", "P", "", "nDCG@0", "R@-1", 5, None])
def test_an_unknown_measure_is_named(measure):
    with pytest.raises(ValueError, match="unknown measure in"):
        evaluate({"q": ranked("a")}, {"q": {"a": 1}}, ["AP", measure])


def test_a_run_of_other_queries_is_refused():
    with pytest.raises(ValueError, match=r"no query of the run is judged: the run has \['x'\], .*\['q'\]"):
        evaluate({"x": ranked("a")}, {"q": {"a": 1}})
    with pytest.raises(ValueError, match="no query of the run is judged"):
        evaluate({}, {"q": {"a": 1}})


# --- files


def test_qrels_are_read_with_and_without_a_header(tmp_path):
    for header in ("query-id\tcorpus-id\tscore\n", ""):
        (tmp_path / "test.tsv").write_text(header + "1\ta\t1\n1\tb\t0\n2\ta b\t-1\r\n\n")
        assert load_qrels(tmp_path / "test.tsv") == {"1": {"a": 1, "b": 0}, "2": {"a b": -1}}


@pytest.mark.parametrize(
    "text",
    [
        "corpus-id\tquery-id\tscore\n7\t3\t1\n8\t3\t0\n",
        "\ufeff3\t7\t1\n3\t8\t0\n",
        "\ufeffquery_id corpus_id relevance\r\n3 7 1.0\r\n3 8 0.0\r\n",
        "Score\tnote\tDocNo\ttopic\n1\tx\t7\t3\n0\t\t8\t3\n",
        "3\t7\t1\n3\t8\t0\n3\t7\t1\n",
        '"query-id"\t"corpus-id"\t"score"\n"3"\t"7"\t"1"\n3\t8\t0\n',
    ],
)
def test_columns_go_by_the_header_and_never_swap(tmp_path, text):
    (tmp_path / "q.tsv").write_text(text, encoding="utf-8")
    assert load_qrels(tmp_path / "q.tsv") == {"3": {"7": 1, "8": 0}}


def test_four_columns_are_read_where_they_are_named(tmp_path):
    (tmp_path / "q.trec").write_text("3 0 7 1\n3 Q0 8 0\n")
    with pytest.raises(ValueError, match=r"line 1: .* taken to be query, passage, grade; name others by"):
        load_qrels(tmp_path / "q.trec")
    columns = ("query", "iteration", "passage", "grade")
    assert load_qrels(tmp_path / "q.trec", columns=columns) == {"3": {"7": 1, "8": 0}}


def test_packed_judgements_are_read(tmp_path):
    packed = gzip.compress(b'3\t5" disk\t1\n')
    (tmp_path / "q.tsv.gz").write_bytes(packed)
    assert load_qrels(tmp_path / "q.tsv.gz") == {"3": {'5" disk': 1}}
    (tmp_path / "q.tsv.gz").write_bytes(packed[:-9])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        load_qrels(tmp_path / "q.tsv.gz")


@pytest.mark.parametrize("first", ["qid\tdoc\tjudged", "1\ta\thigh", "1\ta\t1_0", "score\tquery-id"])
def test_a_first_line_that_is_neither_header_nor_judgement_is_refused(tmp_path, first):
    (tmp_path / "q.tsv").write_text(f"{first}\n1\ta\t1\n")
    with pytest.raises(ValueError, match=r"q\.tsv, line 1: not query, passage and grade"):
        load_qrels(tmp_path / "q.tsv")


def test_ids_that_are_not_there_are_left_out_and_said(tmp_path):
    (tmp_path / "q.tsv").write_text("1\ta\t1\n1\tgone\t1\n9\ta\t1\n2\ta\t0\n")
    with pytest.warns(UserWarning, match=r"2 lines name .*q\.tsv, line 2: query '1', passage 'gone'"):
        assert load_qrels(tmp_path / "q.tsv", queries={"1", "2"}, passages=["a"]) == {
            "1": {"a": 1},
            "2": {"a": 0},
        }


def test_two_grades_for_one_passage_are_refused(tmp_path):
    (tmp_path / "q.tsv").write_text("1\ta\t1\n1\ta\t2\n")
    with pytest.raises(ValueError, match=r"line 2: a second grade for passage 'a' of query '1'"):
        load_qrels(tmp_path / "q.tsv")


@pytest.mark.parametrize("line", ["1 a 1", "1\ta", "1\ta\tx", "1\t0\ta\t1", "1\ta\t1.5"])
def test_a_broken_judgement_is_named(tmp_path, line):
    (tmp_path / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n1\ta\t1\n{line}\n")
    with pytest.raises(ValueError, match=r"test\.tsv, line 3: not query, passage and grade"):
        load_qrels(tmp_path / "test.tsv")


def test_queries_are_read(tmp_path):
    (tmp_path / "q.jsonl").write_text(
        '{"_id": 1, "text": "What is β?"}\n\n{"_id": "b", "text": "", "x": 1}\n'
    )
    assert load_queries(tmp_path / "q.jsonl") == {"1": "What is β?", "b": ""}


@pytest.mark.parametrize("line", ['{"_id": "a"}', '{"text": "t"}', '{"_id": "a", "text": 5}', "[1]", "{"])
def test_a_broken_query_is_named(tmp_path, line):
    (tmp_path / "q.jsonl").write_text(f'{{"_id": "1", "text": "t"}}\n{line}\n')
    with pytest.raises(ValueError, match=r"q\.jsonl, line 2"):
        load_queries(tmp_path / "q.jsonl")


# --- intervals


def test_no_difference_has_a_certain_interval():
    values = np.random.default_rng(0).random(20)
    assert paired_interval(values, values)[:4] == (0, 0, 0, 20)
    assert paired_interval([0.1, 0.2], [0.3, 0.4])[:4] == pytest.approx((0.2, 0.2, 0.2, 2))


def test_the_interval_holds_the_true_difference_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        base = random.beta(2, 2, 40)
        after = base + random.normal(0.05, 0.2, 40)
        _, low, high, *_ = paired_interval(base, after, resamples=400, seed=seed)
        inside += low <= 0.05 <= high
    assert 0.89 <= inside / 200 <= 0.98


def test_the_interval_is_of_paired_differences():
    """Queries differ much more than the two runs do: that spread must not widen the interval."""
    base = np.linspace(0, 1, 50)
    after = base + np.random.default_rng(0).normal(0.02, 0.01, 50)
    found = paired_interval(base, after)
    assert found.mean == pytest.approx((after - base).mean())
    normal = 1.96 * (after - base).std() / math.sqrt(50)
    assert found.high - found.mean == pytest.approx(normal, rel=0.1)
    assert found.mean - found.low == pytest.approx(normal, rel=0.1)
    narrow = paired_interval(base, after, confidence=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_queries_are_paired_by_name():
    base, after = PerQuery(a=0.1, b=0.9, c=0.4), PerQuery(c=0.5, a=0.2, b=1.0)
    assert paired_interval(base, after)[:4] == pytest.approx((0.1, 0.1, 0.1, 3))


def test_a_seed_gives_the_same_interval_again():
    base, after = np.random.default_rng(0).random((2, 30))
    first = paired_interval(base, after, seed=1, resamples=500)
    assert first == paired_interval(base, after, seed=1, resamples=500)
    other = paired_interval(base, after, seed=2, resamples=500)
    assert other.mean == first.mean and (other.low, other.high) != (first.low, first.high)


@pytest.mark.parametrize(
    "base, after, message",
    [
        ({"a": 1.0, "b": 0.0}, {"a": 1.0, "c": 0.0}, r"different queries: only one of them has \['b', 'c'\]"),
        ([1.0, 0.0], [1.0], r"shape \(2,\) and after \(1,\)"),
        ([1.0], [0.0], "two queries at least"),
        ([], [], "two queries at least"),
        ([[1.0, 2.0]], [[1.0, 2.0]], "one value a query"),
        ([1.0, 2.0, 3.0], [1.0, math.nan, 3.0], "value 1 of base or after is not finite"),
        (PerQuery(a=1.0, b=2.0), [1.0, 2.0], "shape"),
    ],
)
def test_what_cannot_be_paired_is_refused(base, after, message):
    with pytest.raises(ValueError, match=message):
        paired_interval(base, after)


def test_an_interval_prints_with_its_size_and_a_difference_with_its_sign():
    assert str(Interval(0.0314, -0.012, 0.1, 300)) == "+0.031 [-0.012, +0.100] (n = 300)"
    assert str(Interval(0.0314, -0.012, 0.1, 300, signed=False)) == "0.031 [-0.012, 0.100] (n = 300)"


@pytest.mark.parametrize("n", [2, 7, 300])
def test_the_bootstrap_is_scipys(n):
    from scipy.stats import bootstrap

    base, after = np.random.default_rng(n).random((2, n))
    settings = {"confidence_level": 0.9, "n_resamples": 500, "method": "percentile"}
    expected = bootstrap((after - base,), np.mean, **settings, rng=np.random.default_rng(3))
    found = paired_interval(base, after, confidence=0.9, resamples=500, seed=3)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), abs=1e-12)
