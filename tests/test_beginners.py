"""What somebody new to the field asks first: answered from the right topic, by the sentence that defines."""

import json
import sys
from pathlib import Path

import pytest

from ragkit.generation import prompt
from ragkit.generation.definitions import asked_term, defined_terms, defines
from ragkit.generation.follow_up import complete_follow_up
from ragkit.generation.prompt import FLOOR, select_evidence
from ragkit.retrieval.corpus import DATA, load_passages, read_jsonl
from tests.helpers import hits

sys.path.insert(0, str(DATA / "build"))
import glossary

ROWS = json.loads((Path(__file__).parent / "beginners.json").read_text(encoding="utf-8"))


def topic(turn) -> str | None:
    return turn.sources[0].passage.metadata["topic"] if turn.sources else None


def test_all_beginners_questions_of_the_corpus_are_asked():
    queries = {row["text"]: row["metadata"] for _, row in read_jsonl(DATA / "queries.jsonl")}
    marked = {text for text, metadata in queries.items() if metadata.get("level") == "beginner"}
    assert len(marked) == 30 and marked <= {row["question"] for row in ROWS}
    assert all(queries[row["question"]]["topic"] == row["topic"] for row in ROWS)


def test_the_right_topic_answers(turns):
    right = [row["question"] for row in ROWS if topic(turns[row["question"]]) == row["topic"]]
    assert len(right) >= 32, {row["question"] for row in ROWS} - set(right)


def test_what_is_x_is_answered_by_the_sentence_that_says_so(turns):
    asked = {row["question"]: asked_term(row["question"]) for row in ROWS}
    asked = {question: term for question, term in asked.items() if term}
    said = [question for question, term in asked.items() if defines(turns[question].answer.text, term)]
    assert len(asked) == 28 and len(said) == 28, set(asked) - set(said)


def test_what_is_dpo_is_not_answered_from_the_passage_on_names(turns):
    turn = turns["What is DPO?"]
    assert topic(turn) == "dpo" and turn.answer.text.startswith(
        "Direct preference optimization (DPO) is a way"
    )
    assert "preference-strength" not in {hit.passage.metadata["topic"] for hit in turn.sources}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["question"])
def test_what_they_ask_next_stands_on_its_own(row):
    assert complete_follow_up(row["follow_up"], row["question"]) == row["becomes"]


@pytest.mark.parametrize(
    "query, term",
    [
        ("What is DPO?", "DPO"),
        ("what's an embedding", "embedding"),
        ("What are hard negatives?", "hard negatives"),
        ("What is meant by grounding?", "grounding"),
        ("what does RRF mean?", "RRF"),
        ("Why would I rerank?", None),
        ("What is the difference between a rating and a comparison of two answers?", None),
        ("", None),
    ],
)
def test_the_term_that_is_asked_for(query, term):
    assert asked_term(query) == term


@pytest.mark.parametrize(
    "sentence, terms",
    [
        ("An embedding is a list of numbers.", ["embedding"]),
        ("Low-rank adaptation (LoRA) is a way to fine-tune.", ["Low-rank adaptation", "LoRA"]),
        ("Proximal policy optimization, or PPO, is a method.", ["Proximal policy optimization", "PPO"]),
        ("HNSW (2016) is a graph.", ["HNSW"]),
        ("In this project, GRPO is a loss.", ["GRPO in this project"]),
        ("BM25 is blind to meaning.", []),
        ("DPO needs no reward model.", []),
        ("BM25 is the best of them.", []),
        ("Nobody knows.", []),
    ],
)
def test_what_a_sentence_defines(sentence, terms):
    assert defined_terms(sentence) == terms


def test_the_name_asked_for_is_the_whole_name():
    assert defines("RAG-Token is a variant of RAG.", "rag token")
    assert not defines("RAG-Token is a variant of RAG.", "RAG")
    assert defines("A hard negative is a passage.", "hard negatives")


def test_the_definition_is_the_evidence_only_where_one_is_asked_for(encoder):
    found = hits("A widget is a part of a page. Widgets are drawn when a page is shown.")
    texts = lambda query, found: [piece.text for piece in select_evidence(query, found, encoder)]  # noqa: E731
    assert texts("What is a widget?", found) == ["A widget is a part of a page."]
    assert len(texts("How is a widget drawn?", found)) == 2
    assert len(texts("What is a page?", found)) == 2  # nothing defines it


def test_a_definition_below_the_floor_keeps_nothing_out(encoder, monkeypatch):
    found = hits("A widget is a part of a page. What is a widget good for? Widgets are drawn on a page.")
    query = "What is a widget?"
    scores = {piece.text: piece.score for piece in select_evidence(query, found, encoder)}
    assert set(scores) == {"A widget is a part of a page."} and min(scores.values()) >= FLOOR
    monkeypatch.setattr(prompt, "defines", lambda sentence, term: False)
    scores = {piece.text: piece.score for piece in select_evidence(query, found, encoder)}
    lower = min(scores, key=scores.get)
    monkeypatch.setattr(prompt, "FLOOR", (min(scores.values()) + max(scores.values())) / 2)
    monkeypatch.setattr(prompt, "defines", lambda sentence, term: sentence == lower)
    assert len(select_evidence(query, found, encoder)) == len(scores) == 2


def test_grpo_is_the_published_method_and_names_the_other(turns):
    answer = turns["What is GRPO?"].answer.text
    assert answer.startswith("Group Relative Policy Optimization, or GRPO, is")
    assert "in this project the letters stand for Generalized Preference Optimization" in answer


def test_the_glossary_is_what_the_corpus_says():
    rows = glossary.entries()
    assert 40 <= len(rows) <= 75
    assert glossary.FILE.read_text(encoding="utf-8") == glossary.text(rows)
    texts = [passage.text for passage in load_passages(DATA)]
    assert all(any(row["sentence"] in text for text in texts) for row in rows)
    names = [row["names"][0].casefold() for row in rows]
    assert names == sorted(set(names)) and {"dpo", "rag", "ndcg", "embedding"} <= set(names)
