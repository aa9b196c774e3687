"""Judgements become pairs; formats of others come in and go out; agreement is measured."""

import json
import math

import numpy as np
import pytest
import torch

from ragkit.evaluation.agreement import (
    agreement_between,
    chose_left,
    cohen_kappa,
    kendall_tau,
    self_consistency,
    shown_first_effect,
)
from ragkit.losses.pairwise import pair_loss
from ragkit.losses.strengths import rank_gap, stated
from ragkit.preferences.export import to_trl
from ragkit.preferences.formats import from_qrels, from_signed_scores, from_trl
from ragkit.preferences.judgements import Comparison, Ranking
from ragkit.preferences.pairs import pairs_of, split_by_query
from ragkit.retrieval.corpus import Passage

DOCS = [Passage(f"c{i}", f"text {i}", f"title {i}") for i in range(1, 6)]


def ranking(query="q", tiers=((2,), (0, 1)), **settings):
    return Ranking(query, DOCS, [list(tier) for tier in tiers], **settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"tiers": [[5]]}, "5 is no index into 5 passages"),
        ({"tiers": [[-1]]}, "-1 is no index"),
        ({"tiers": [[0], [1, 0]]}, "passage 0 stands in them twice"),
        ({"tiers": [[0.5]]}, "tiers: 0.5 is not a whole number"),
        ({"shown_order": [0, 1, 2]}, "not an order of 5 passages"),
        ({"scores": [1.0]}, "1 scores for 5 passages"),
    ],
)
def test_rankings_that_are_none_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ranking(**{"tiers": [[0]], **settings})


@pytest.mark.parametrize("rating", [4, -4, 1.5, "2", None])
def test_ratings_that_are_none_are_refused(rating):
    with pytest.raises(ValueError, match="rating"):
        Comparison("q", "a", "b", rating)


def test_numbers_of_numpy_are_taken():
    found = ranking(tiers=np.array([[0], [1]]), scores=np.zeros(5, np.float32))
    assert json.dumps([found.tiers, found.scores]) == "[[[0], [1]], [0.0, 0.0, 0.0, 0.0, 0.0]]"
    assert Comparison("q", "a", "b", np.int64(2)).rating == 2


def test_an_item_is_the_same_in_any_order_and_another_with_other_texts():
    there, back = ranking(), Ranking("q", DOCS[::-1], [[0]])
    assert there.item == back.item != Ranking("q", DOCS[:4], [[0]]).item
    assert Comparison("q", "a", "b", 1).item == Comparison("q", "b", "a", 0).item
    assert Comparison("q", "ab", "c", 1).item != Comparison("q", "a", "bc", 1).item


def test_a_ranking_becomes_pairs_by_hand():
    """c3 over c1 = c2; c4 and c5 were not judged: three pairs, one of them a tie."""
    pairs = pairs_of([ranking(shown_order=[1, 2, 0, 3, 4], annotator="ann")])
    rows = list(zip(pairs.chosen, pairs.rejected, pairs.target, pairs.chosen_rank, pairs.rejected_rank))
    one, two, three = ("title 1 text 1", "title 2 text 2", "title 3 text 3")
    assert rows == [(one, two, 0.5, 1, 1), (three, one, 1.0, 0, 1), (three, two, 1.0, 0, 1)]
    assert pairs.chosen_position.tolist() == [2, 1, 1] and pairs.rejected_position.tolist() == [0, 2, 0]
    assert pairs.annotator == ["ann"] * 3 and np.isnan(pairs.rating).all()
    assert rank_gap()(pairs).tolist() == pytest.approx([0.1, 1.0, 1.0])


def test_a_comparison_becomes_a_pair_by_hand():
    """+2: B clearly better, and it stood on the left, for the sides were swapped; 0: a tie."""
    pairs = pairs_of([Comparison("q", "a", "b", 2, details={"swapped": True}), Comparison("r", "a", "b", 0)])
    assert (pairs.chosen, pairs.rejected) == (["b", "a"], ["a", "b"])
    assert pairs.target.tolist() == [1.0, 0.5] and pairs.rating.tolist() == [2, 0]
    assert pairs.chosen_position.tolist() == [0, 0] and pairs.rejected_position.tolist() == [1, 1]
    assert stated()(pairs).tolist() == pytest.approx([2.0, 0.1]) and pairs.group.tolist() == [0, 1]


def test_pairs_of_one_query_are_one_group_whoever_judged():
    pairs = pairs_of([ranking("a"), ranking("b"), ranking("a", annotator="bob")])
    assert pairs.group.tolist() == [0] * 3 + [1] * 3 + [0] * 3


def test_ties_pull_together():
    pairs = pairs_of([ranking(tiers=[[0, 1]])])
    x = torch.tensor([2.0], requires_grad=True)
    pair_loss(x, strength=rank_gap()(pairs), target=torch.tensor(pairs.target)).backward()
    assert x.grad.item() > 0


def test_nothing_becomes_no_pairs():
    assert len(pairs_of([])) == 0 and len(pairs_of([ranking(tiers=[[0]])])) == 0


def test_a_split_is_by_query():
    said = [ranking(str(n % 12), annotator=str(n)) for n in range(60)]
    train, test = split_by_query(said, 0.25, seed=3)
    assert {r.query for r in train}.isdisjoint({r.query for r in test})
    assert len({r.query for r in test}) == 3 and len(train) + len(test) == 60
    with pytest.raises(ValueError, match=r"test_share=0\.0 of 12 queries"):
        split_by_query(said, 0.0)


# Formats of others


def test_there_and_back_by_trls_columns(tmp_path):
    pairs = pairs_of([ranking(), Comparison("r", "a", "b", 3)])
    rows = to_trl(pairs, rank_gap()(pairs[:3]).tolist() + [0.7])
    assert len(rows) == 3  # the tie is left out
    assert rows[0] == {
        "prompt": "q",
        "chosen": "title 3 text 3",
        "rejected": "title 1 text 1",
        "margin": 1.0,
        "group": 0,
        "strength": 1.0,
    }
    assert rows[2]["margin"] == 3.0 and rows[2]["strength"] == pytest.approx(0.7)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    back = from_trl(path)
    assert back.query == ["q", "q", "r"] and back.chosen[2] == "b" and back.rating.tolist() == [1, 1, 3]


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", ", line 2: Expecting"),
        ("[]", ", line 2: a JSON list, not an object"),
        ('{"prompt": "a", "chosen": "b"}', ", line 2: no 'rejected'"),
        ('{"prompt": "a", "chosen": "b", "rejected": 3}', ", line 2: a text or a list of messages"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c", "margin": "x"}', ", line 2: margin is 'x'"),
    ],
)
def test_broken_rows_are_refused_with_file_and_line(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' + line)
    with pytest.raises(ValueError, match=rf"rows\.jsonl{message}"):
        from_trl(path)


def test_signed_scores(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"context": [{"content": "q"}], "response1": "a", "response2": "b", "overall_preference": s}
        for s in (-2, 0)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    first, second = from_signed_scores(path, prompt="context")
    assert (first.query, first.answer_a, first.rating, second.rating) == ("q", "a", -2, 0)
    path.write_text(json.dumps(rows[0] | {"overall_preference": 9}))
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 1: rating=9"):
        from_signed_scores(path, prompt="context")
    path.write_text(json.dumps({"ask" if name == "context" else name: v for name, v in rows[0].items()}))
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 1: no 'prompt'; name the column"):
        from_signed_scores(path)


def test_qrels_become_rankings_with_ties():
    qrels = {"q1": {"c1": 0, "c2": 2, "c3": 2}, "q2": {"c1": 1}}
    (found,) = from_qrels(qrels, {"q1": "why?", "q2": "how?"}, DOCS)
    assert found.query == "why?" and [p.id for p in found.passages] == ["c1", "c2", "c3"]
    assert found.tiers == [[1, 2], [0]]
    qrels["q1"]["c9"], qrels["q9"] = 1, {"c1": 1}
    with pytest.warns(UserWarning, match="2 judgements name what is not there, as query 'q1', passage 'c9'"):
        assert from_qrels(qrels, {"q1": "why?", "q2": "how?"}, DOCS) == [found]


# Agreement


def test_kendall_by_hand():
    """Five documents, one swap of neighbours: (9 − 1) / 10. Over those that both judged."""
    first = ranking(tiers=[[0], [1], [2], [3], [4]])
    assert kendall_tau(first, ranking(tiers=[[1], [0], [2], [3], [4]])) == pytest.approx(0.8)
    assert kendall_tau(first, ranking(tiers=[[2], [0]])) == pytest.approx(-1.0)
    assert math.isnan(kendall_tau(first, ranking(tiers=[[0, 1, 2]])))
    assert kendall_tau(first, Ranking("q", DOCS[::-1], [[4], [3], [2], [1], [0]])) == pytest.approx(1.0)


def test_agreement_and_self_consistency():
    up, down = [[0], [1], [2]], [[2], [1], [0]]
    said = [
        ranking("a", up, annotator="ann"),
        ranking("a", down, annotator="bob"),
        ranking("b", up, annotator="ann"),
        ranking("b", up, annotator="bob"),
        ranking("b", down, annotator="bob", details={"repeat_of": "x"}),
    ]
    found = agreement_between(said)
    assert found.mean == pytest.approx(0.0) and found.n == 2 and found.low <= 0 <= found.high
    assert self_consistency(said).mean == pytest.approx(-1.0)
    assert math.isnan(self_consistency(said[:2]).mean)


def test_kappa_by_hand():
    """20 items: both A 8, both B 7, apart 5: p_o = .75, p_e = (10·11 + 10·9)/400 = .5: κ = .5."""
    rows = [(-1, -1)] * 8 + [(1, 1)] * 7 + [(-1, 1)] * 2 + [(1, -1)] * 3
    said = [
        Comparison(str(n), "a", "b", rating, annotator=name)
        for n, row in enumerate(rows)
        for name, rating in zip(("ann", "bob"), row)
    ]
    found = cohen_kappa(said, "ann", "bob")
    assert found.mean == pytest.approx(0.5) and found.low < 0.5 < found.high and found.n == 20


@pytest.mark.parametrize("size", [1, 3, 40])
def test_kappa_and_its_interval_are_scikit_learns(size):
    """Of each resample, too; one in which both gave one label alone has none, and is left out."""
    import warnings

    from sklearn.metrics import cohen_kappa_score

    said = np.random.default_rng(size).choice([-2, 0, 1], (size, 2))
    comparisons = [
        Comparison(str(n), "a", "b", int(rating), annotator=name)
        for n, row in enumerate(said)
        for name, rating in zip(("ann", "bob"), row)
    ]
    draws = np.random.default_rng(0).integers(size, size=(200, size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kappa = [cohen_kappa_score(*np.sign(said[rows]).T, labels=[-1, 0, 1]) for rows in draws]
        whole = cohen_kappa_score(*np.sign(said).T, labels=[-1, 0, 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ragkit.evaluation.agreement.RESAMPLES", 200)
        found = cohen_kappa(comparisons, "ann", "bob")
    limits = np.nanpercentile(kappa, [2.5, 97.5]) if not np.isnan(kappa).all() else [np.nan] * 2
    assert found[:3] == pytest.approx((whole, *limits), abs=1e-12, nan_ok=True)


def test_kappa_where_the_answers_stood_the_other_way_round():
    """Both prefer x to y, and both say so with the sign of their own order."""
    rows = [
        ("q", "x", "y", 1, "ann"),
        ("q", "y", "x", -1, "bob"),
        *(("r", "x", "y", -1, n) for n in ("ann", "bob")),
    ]
    said = [Comparison(query, a, b, rating, annotator=name) for query, a, b, rating, name in rows]
    assert cohen_kappa(said, "ann", "bob").mean == 1


def test_an_empty_tier_is_no_step():
    passages = [Passage("a", "a"), Passage("b", "b")]
    assert Ranking("q", passages, [[0], [], [], [1]]).ranks == [0, 1]
    with pytest.raises(ValueError, match=r"a list of lists of indices, best first: \[\[2\], \[0, 1\]\]"):
        Ranking("q", passages, [0, 1])


def test_sides():
    """A wins and stood left, B wins and stood left, A wins and stood right, a tie: two of three."""
    said = [(-1, False), (2, True), (-3, True), (0, False)]
    found = chose_left([Comparison("q", "a", "b", r, details={"swapped": s}) for r, s in said])
    assert found.mean == pytest.approx(2 / 3) and found.n == 3


def test_the_shown_first_effect():
    """Ranked exactly as shown: +½; against it: −½; ties say nothing."""
    as_shown = ranking(tiers=[[3], [1], [0]], shown_order=[3, 1, 0, 2, 4])
    against = ranking(tiers=[[0], [1], [3]], shown_order=[3, 1, 0, 2, 4])
    one = shown_first_effect([as_shown])
    assert one.mean == pytest.approx(0.5) and np.isnan([one.low, one.high]).all()
    assert str(one) == "0.500 (n = 1: too early for an interval)"
    assert shown_first_effect([as_shown, against]).mean == pytest.approx(0.0)
    assert shown_first_effect([ranking(tiers=[[0, 1]], shown_order=[0, 1, 2, 3, 4])]).n == 0


def test_gaps_and_whole_floats_as_tables_write_them(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "chosen": "b", "rejected": "c", "margin": null}\n')
    assert np.isnan(from_trl(rows).rating).all()
    rows.write_text('{"prompt": "a", "response1": "b", "response2": "c", "overall_preference": -2.0}\n')
    assert [c.rating for c in from_signed_scores(rows)] == [-2]
