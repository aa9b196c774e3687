"""What the reranker's benchmarks measure with: lists that people graded, and other ways to use rankings."""

import json
import time
from contextlib import closing

import numpy as np
import pytest

from ragkit.reranking import evidence
from ragkit.reranking.answer_scorer import answers_table
from ragkit.reranking.table import base_scores
from ragkit.retrieval.library import Library
from ragkit.retrieval.milvus import MilvusLibrary
from ragkit.retrieval.search import retrieve
from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import collecting, growth, launches
from tests.benchmarks.answer_scorer import comparisons, places, texts_of, wins
from tests.benchmarks.kinds import FOUND, HELD_OUT, SIZE, changes, described, of_folder, split
from tests.benchmarks.milvus import compare
from tests.benchmarks.power import ways, world
from tests.benchmarks.table import HEAD, Row, in_turns, ratio, spoken, table, written
from tests.helpers import FakeEncoder, passages, texts
from tests.words_encoder import WordsEncoder


@pytest.fixture
def encoder():
    return WordsEncoder()


def beir(folder, grades, questions=4):
    """Question q is about word q; documents q-0, q-1 … are judged by `grades`, and "odd" is not."""
    lines = [f"q{q}\tq{q}-{n}\t{grade}" for q in range(questions) for n, grade in enumerate(grades)]
    texts = {line.split("\t")[1]: f"word{line[1]} tells this." for line in lines} | {"odd": "Nothing else."}
    rows = {"corpus": texts, "queries": {f"q{q}": f"word{q}" for q in range(questions)}}
    (folder / "qrels").mkdir()
    (folder / "qrels" / "pool.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))
    for name, own in rows.items():
        lines = [json.dumps({"_id": key, "text": text}) for key, text in own.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder / "qrels" / "pool.tsv"


def test_candidates_are_what_was_judged(encoder, tmp_path):
    lists = of_folder(encoder, beir(tmp_path, (0, 1, 2)))
    assert [one.ranking.tiers for one in lists] == [[[2], [1], [0]]] * 4
    assert {one.ranking.query for one in lists} == {f"word{q}" for q in range(4)}


@pytest.mark.parametrize("grades, most", [((1, 1), 9), ((0, *[1] * 9), FOUND)])
def test_candidates_are_found_where_hardly_any_bad_ones_were_judged(encoder, tmp_path, grades, most):
    for one in of_folder(encoder, beir(tmp_path, grades)):
        own = {f"q{one.ranking.query[-1]}-{n}": grade for n, grade in enumerate(grades)}
        ids = [passage.id for passage in one.ranking.passages]
        assert len(ids) == most and own.keys() <= {*ids}
        assert one.gains.tolist() == [own.get(key, 0) for key in ids]


def test_no_question_is_trained_on_and_tested(encoder):
    lists = world(encoder, 30, 1.0, 0)
    known, new = split(lists, draw=0)
    assert len(known) == len(new) == 15 < HELD_OUT
    assert not {one.ranking.query for one in known} & {one.ranking.query for one in new}
    assert all(len(one.gains) == SIZE for one in known)


@pytest.mark.parametrize("taste", [0.0, 4.0])
def test_each_way_finds_a_strong_taste_and_a_switch_adopts_nothing_without(encoder, taste):
    known, new = world(encoder, 20, taste, 0), world(encoder, 20, taste, 1)
    seen, odds = described(encoder, new), evidence.ODDS
    found = ways(encoder, [one.ranking for one in known])
    gains = {way: np.mean([*changes(score, seen, new)["nDCG@10"].values()]) for way, score in found.items()}
    assert odds == evidence.ODDS  # put back
    if taste:
        assert min(gains.values()) > 0.03
    else:
        assert all((found["switch"](one) == base_scores(one)).all() for one in seen)
        assert gains["ridge"] < 0  # it has no retriever to keep


def test_comparisons_of_answers_are_read_as_the_file_has_them(encoder, tmp_path):
    row = {"question": "What?", "passages": [["Title", "One here.", "Two there."]]}
    row |= {f"prediction {n}": f"answer{n}" for n in range(1, 5)}
    rows = [row | {"preference": [2, 1, 0, 1, 1, 2]}, row | {"question": "Why?", "preference": [1] * 6}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    said = comparisons(tmp_path / "rows.json")
    assert [one.rating for one in said[:6]] == [1, -1, 0, -1, -1, 1]
    assert (said[3].answer_a, said[3].answer_b) == ("answer2", "answer3")
    assert [hit.passage.full_text for hit in said[0].hits] == ["Title One here. Two there."]
    table = answers_table(encoder, said)
    texts = [text for own in texts_of(table) for text in own]
    assert [f"answer{place:.0f}" for place in places(table, said) + 1] == texts
    of = dict(zip(texts[:4], wins(table)[:4]))
    assert [of[f"answer{n}"] for n in range(1, 5)] == [1.5, 3, 0, 1.5]
    assert dict(zip(texts[4:], wins(table)[4:])) == {f"answer{n}": 4 - n for n in range(1, 5)}


@pytest.mark.parametrize("name", ["start", "search", "click", "collect"])
def test_rows_of_the_table_without_their_peers(name, monkeypatch):
    monkeypatch.setattr(collecting, "installed", lambda name: name == "ragkit")
    make, _, quick = benchmarks.ROWS[name]
    made = make(1, **quick)
    assert made and all(one.ours and "nan" not in one.ours for one in made)
    if name == "collect":
        assert made[0].cells()[3] == "not installed"
        assert made[0].ours.endswith("lost by 1 kills: 0")


def test_a_table_is_written_where_it_belongs():
    row = Row("search", "1 ms", "raw faiss", "2 ms", "0.50 ×", "≤ 1 ×", False, "10: 1 ms")
    text = "before\n<!-- a -->\nold\n<!-- /a -->\nbetween\n<!-- b -->\nkept\n<!-- /b -->\n"
    again = written(text, {"a": table([row])})
    assert again.splitlines()[0::2] == ["before", "| work | " + " | ".join(HEAD[1:]) + " |"] + [
        "| search | 1 ms | raw faiss | 2 ms | 0.50 × | ≤ 1 × | **no** | 10: 1 ms |",
        "between",
        "kept",
    ]
    assert written(again, {"a": "old"}) == text
    with pytest.raises(ValueError, match="no <!-- c -->"):
        written(text, {"c": ""})
    assert all(
        f"<!-- {name} -->\n" in benchmarks.FILE.read_text(encoding="utf-8") for name in benchmarks.ROWS
    )


def test_a_library_in_milvus_is_told_apart_from_a_good_one(tmp_path, capsys):
    pytest.importorskip("milvus_lite", reason="pip install -e .[scale]")
    encoder, own = FakeEncoder(), passages(*texts(20))
    queries = {str(n): text for n, text in enumerate(texts(4, seed=1))}
    vectors = {key: encoder.encode_query(text) for key, text in queries.items()}
    best = {key: retrieve(Library.build(own, encoder), vector, 1)[0] for key, vector in vectors.items()}
    qrels = {key: {hit.passage.id: 1} for key, hit in best.items()}
    with closing(MilvusLibrary.build(own, encoder, tmp_path / "library.db")) as there:
        compare(Library.build(own, encoder), there, queries, vectors, qrels, 5)
        assert capsys.readouterr().out.count("the same order for 4 of 4 questions") == 2
        there.delete([hit.passage.id for hit in best.values()])
        compare(Library.build(own, encoder), there, queries, vectors, qrels, 5)
    said = capsys.readouterr().out
    assert "retrieve, k = 5: the same hits in the same order for 0 of 4" in said
    assert "nDCG@10 1.0000 by FAISS, 0.0000 by Milvus" in said


def test_a_launchs_work_is_timed_without_its_start(tmp_path, monkeypatch):
    def work(folder):
        time.sleep(0.2)  # loads a model
        return lambda: time.sleep(0.01)

    monkeypatch.setitem(launches.WORKS, "index", work)
    monkeypatch.setenv("RANK", "1")
    launches.main(["--work", "index", str(tmp_path)])
    found = json.loads((tmp_path / "1.json").read_text())
    assert 0.01 <= found["to"] - found["from"] and found["cpu"] < 0.01 + found["to"] - found["from"]
    assert launches.spoken([((9.0, 8.0), (5.0, 4.0))], 1) == "5.0 s, 4.0 s"


def test_sides_take_turns_and_who_begins_alternates():
    seen = []
    found = in_turns({name: lambda n, name=name: seen.append((name, n)) or n for name in "ab"}, 3)
    assert seen == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert found == {"a": [0, 1, 2], "b": [0, 1, 2]} and ratio([2, 9, 4], [1, 3, 4]) == 2
    assert [spoken(x) for x in (2.0, 0.0123, 4.5e-5, 1e-8)] == ["2 s", "12.3 ms", "45 µs", "0.01 µs"]


def test_costs_are_drawn_from_the_table(tmp_path):
    """A cost of n² has the power 2 in the figure, whatever its units; what was not run is not drawn."""
    rows = [
        Row("search alone, 1,000 × 384, one query", "2 ms", grows="100: 20 µs → 1,000: 2 ms"),
        Row("a whole answer: 250 tokens read", "1 s", grows="125 tokens: 0.5 s → 250 tokens: 1 s"),
        Row("train a reranker on 50 rankings", "1 s"),
    ]
    found = growth.points(table(rows))
    assert found["passages"] == {"search alone": [(100, pytest.approx(20e-6)), (1000, 2e-3)]}
    assert found["rankings"] == {} and list(found["tokens of a prompt"].values()) == [
        [(125, 0.5), (250, 1.0)]
    ]
    growth.draw(table(rows), tmp_path / "costs.svg")
    drawn = (tmp_path / "costs.svg").read_text(encoding="utf-8")
    assert "search alone: n^2.00" in drawn and "reader: n^1.00" in drawn and "ranked" not in drawn
    growth.draw(table(rows), tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text(encoding="utf-8") == drawn


def test_the_figure_of_costs_is_the_tables(tmp_path):
    growth.draw(benchmarks.FILE.read_text(encoding="utf-8"), tmp_path / "costs.svg")
    assert (tmp_path / "costs.svg").read_bytes() == benchmarks.FIGURE.read_bytes()
