"""What the data card promises of data/, checked on the files that ship."""

import json
import sys
from collections import Counter

import numpy as np
import pytest

from ragkit import Encoder, Library, load_passages, load_qrels, load_queries
from ragkit.retrieval.corpus import DATA
from ragkit.retrieval.text import split_sentences

sys.path.insert(0, str(DATA / "build"))
import build_corpus
import pool_judgements


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def corpus():
    return load_passages(DATA)


@pytest.fixture(scope="module")
def queries():
    return rows("queries.jsonl")


@pytest.fixture(scope="module")
def families():
    return [build_corpus.read_family(path) for path in sorted((DATA / "build" / "topics").glob("*.toml"))]


def test_the_sources_are_in_form_and_their_code_runs(families):
    assert [line for family in families for line in build_corpus.check_family(family)] == []


def test_the_shipped_files_are_what_the_sources_give(families):
    corpus, queries, answers = build_corpus.assemble(families)
    assert rows("corpus.jsonl") == corpus
    assert rows("queries.jsonl") == queries
    assert rows("answers.jsonl") == answers
    grades = build_corpus.read_judgements(corpus, queries, answers)
    qrels = load_qrels(DATA / "qrels.tsv")
    assert {(q, p): grade for q, judged in qrels.items() for p, grade in judged.items()} == grades


def test_the_corpus_has_three_styles_of_at_least_80_topics(corpus):
    styles = Counter(passage.metadata["style"] for passage in corpus)
    topics = {passage.metadata["topic"] for passage in corpus}
    assert len(corpus) >= 240 and len(topics) >= 80
    assert styles == dict.fromkeys(build_corpus.STYLES, len(topics))


def test_the_card_counts_as_the_files_do(corpus, queries):
    card = " ".join((DATA / "README.md").read_text(encoding="utf-8").split())
    kinds = Counter(query["metadata"]["kind"] for query in queries)
    answerable = sum(query["metadata"]["answerable"] for query in queries)
    splits = Counter({p.metadata["topic"]: p.metadata["split"] for p in corpus}.values())
    grades = Counter(g for judged in load_qrels(DATA / "qrels.tsv").values() for g in judged.values())
    words = [len(passage.text.split()) for passage in corpus]
    for said in (
        f"{len(corpus)} passages on {splits.total()} topics",
        f"{len(queries):,} questions, {len(queries) - answerable} of which the corpus cannot answer",
        f"{min(words)} to {max(words)} words",
        f"train ({splits['train']}) and test ({splits['test']})",
        f"**near misses** ({kinds['near miss']};",
        f"**off-topic** questions ({kinds['off topic']})",
        f"{grades.total():,} pairs: {grades[0]:,} of grade 0, {grades[1]:,} of 1, {grades[2]:,} of 2",
    ):
        assert said in card, said


def test_every_passage_names_its_sources(corpus):
    for passage in corpus:
        for source in passage.metadata["sources"]:
            assert source["year"] and (source.get("arxiv") or source.get("title")), passage.id


def test_there_are_enough_questions_of_each_kind(queries):
    kinds = Counter(query["metadata"]["kind"] for query in queries)
    unanswerable = kinds["near miss"] + kinds["off topic"]
    assert len(queries) - unanswerable >= 360 and unanswerable >= 120
    assert kinds["near miss"] * 2 >= unanswerable
    assert {"what", "why", "how", "compare"} <= set(kinds)
    assert len({query["text"].lower().strip(" ?") for query in queries}) == len(queries)


def test_topics_are_either_for_training_or_for_testing(corpus, queries):
    split = {p.metadata["topic"]: p.metadata["split"] for p in corpus}
    assert set(split.values()) == {"train", "test"}
    for passage in corpus:
        assert passage.metadata["split"] == split[passage.metadata["topic"]]
    for query in queries:
        if "topic" in query["metadata"]:
            assert query["metadata"]["split"] == split[query["metadata"]["topic"]]


def test_every_answer_has_its_sentence_in_its_passage_and_its_key_in_the_sentence(corpus):
    texts = {passage.id: passage.text for passage in corpus}
    for answer in rows("answers.jsonl"):
        assert answer["support"] in split_sentences(texts[answer["passage_id"]]), answer["query_id"]
        assert answer["key"] in answer["support"], answer["query_id"]


def test_every_answerable_question_and_no_other_has_an_answering_passage(queries):
    qrels = load_qrels(DATA / "qrels.tsv")
    for query in queries:
        best = max(qrels.get(query["_id"], {"": 0}).values())
        assert (best == 2) == query["metadata"]["answerable"], query["_id"]
    assert set(qrels) <= set(load_queries(DATA / "queries.jsonl"))


def test_every_passage_of_a_questions_topic_is_judged_and_what_any_search_finds_first(queries):
    encoder, qrels = Encoder(), load_qrels(DATA / "qrels.tsv")
    pools = pool_judgements.pools(Library.load(DATA / "index", encoder), queries, encoder)
    assert {
        query["_id"]: left for query, ids in pools if (left := ids - set(qrels.get(query["_id"], {})))
    } == {}


def test_the_shipped_index_holds_the_corpus_as_this_encoder_encodes_it(corpus):
    encoder = Encoder()
    library = Library.load(DATA / "index", encoder)
    assert library.passages == corpus
    some = corpus[::30]
    vectors = encoder.encode_passages([passage.full_text for passage in some])
    assert encoder.truncated == 0
    stored = library._index.index.reconstruct_n(0, len(library))
    assert np.abs(stored[::30] - vectors).max() < 1e-4
    cosines = np.triu(stored @ stored.T, 1)
    assert cosines.max() <= 0.95


def test_every_passage_fits_the_encoders_window(corpus):
    tokenizer = Encoder().tokenizer
    lengths = [len(ids) for ids in tokenizer([p.full_text for p in corpus], verbose=False).input_ids]
    assert max(lengths) <= 256


def test_weights_are_small_and_safe():
    folder = DATA / "tiny-rag-lm"
    assert (folder / "model.safetensors").stat().st_size <= 15_000_000
    assert not [path for path in DATA.rglob("*") if path.suffix in (".pkl", ".pt", ".bin", ".pickle")]
    assert (folder / "README.md").is_file()


def test_the_dishes_are_as_many_as_the_card_says_and_indexed(encoder):
    folder, card = DATA / "dishes", (DATA / "README.md").read_text(encoding="utf-8")
    passages = load_passages(folder / "corpus.jsonl")
    lines = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line) for line in lines]
    assert f"{len(passages)} dishes and {len(queries)} questions" in card
    library = Library.load(folder / "index", encoder)
    assert list(library.passages) == passages
    assert len({query["text"] for query in queries}) == len(queries)
    assert {query["metadata"]["split"] for query in queries} == {"train", "test"}
    assert {passage.metadata["diet"] for passage in passages} == {"vegan", "vegetarian", "fish", "meat"}
