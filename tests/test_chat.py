"""The chat through its handlers, without a browser: asking, saying, learning, and finding it all again."""

# ruff: noqa: F401, F811  (fixtures of another file)

import gc
import html
import json
import tracemalloc
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
from comm import get_comm_manager

from ragkit.assistant import Assistant
from ragkit.generation.answer import Answer
from ragkit.generation.citing import claims
from ragkit.generation.generator import Evidence
from ragkit.preferences.judgements import Comparison, Exchange, Feedback
from ragkit.preferences.log import PreferenceLog
from ragkit.retrieval.corpus import Hit, Passage
from ragkit.retrieval.library import Library
from ragkit.widgets import learning, switches, thread
from ragkit.widgets.answer import SHOWN, reply, sources
from ragkit.widgets.chat import ChatApp
from ragkit.widgets.history import conversation
from tests.helpers import FakeEncoder, hits
from tests.simulated_rankings import simulated
from tests.test_widgets import (
    ATTACK,
    FakeGenerator,
    assistant,
    assistant_of,
    button,
    events,
    full,
    log,
    shown,
    types,
)
from tests.words_encoder import WordsEncoder


class Writer(FakeGenerator):
    """Writes word by word; has three answers to everything, and tells who asked for what."""

    name = "writer"

    def __init__(self):
        self.asked, self.seen = [], []

    def answer(self, query, hits, *, style="sentence", seed=None, on_text=None):
        self.asked.append((style, seed))
        if style == "free":
            raise ValueError("style='free': this one can only quote")
        words = {None: "the first answer of all", 1: "the first answer of all", 2: "the second one"}
        text = words.get(seed, "the third one") if style == "sentence" else "short"
        for word in text.split(" "):
            self.seen.append(on_text and on_text(word + " "))
        return Answer(text, [1], [], False, cited=[Evidence(hits[0].passage.text[:3], 1, 0.5)])


@pytest.fixture
def chat(assistant, log):
    return ChatApp(assistant, log)


def reopened(chat) -> ChatApp:
    """The same after a restart of the kernel: nothing but the log is left."""
    return ChatApp(chat.assistant, PreferenceLog(chat.log.folder, chat.log.annotator))


def kinds(log) -> list[str]:
    return [event["kind"] for event in events(log)]


# Asking


def test_the_chat_answers_and_logs_what_is_said(chat, log):
    chat.ask("What is DPO?")
    assert chat.error is None and chat.turn.answer.text in [p.text for p in chat.assistant.library.passages]
    assert "cited</span>" in shown(chat) and chat.status.startswith("Answered in")
    assert chat.good(True, "clear") == 2 and chat.good(True, "clear") is None  # once is enough
    assert chat.good(False, "wrong, after all") == 3
    (said,) = log.feedback()  # the latest word
    assert (said.good, said.note, said.query) == (False, "wrong, after all", "What is DPO?")
    assert said.details["generator"] == "fake" and [hit.rank for hit in said.hits] == [1, 2, 3]
    assert "✓ Bad answer" in shown(chat) and "✓ A bad answer: wrong, after all" in shown(chat)
    chat.undo()
    assert log.feedback()[0].good is True and "✓ Good answer" in shown(chat)
    chat.undo()
    assert log.feedback() == [] and "✓ " not in shown(chat).replace("Taken back ✓", "")
    chat.undo()
    assert chat.status == "Nothing to undo." and kinds(log) == ["turn", *2 * ["chat_feedback"], *2 * ["undo"]]


def test_text_is_shown_while_it_is_written_and_each_step_says_its_name(assistant, log, monkeypatch):
    monkeypatch.setattr("ragkit.widgets.turn.EVERY", 0.0)
    chat, seen = None, []

    class Watched(Writer):
        def answer(self, query, hits, **settings):
            seen.append((chat.status, "rk-step" in chat._line.value))
            write = settings.pop("on_text")

            def watching(text):
                write(text)
                seen.append((chat.status, shown(chat).split("rk-writing")[1].split(">")[1].split("<")[0]))

            return super().answer(query, hits, on_text=watching, **settings)

    assistant.generator = Watched()
    search = assistant.encoder.encode_query
    monkeypatch.setattr(assistant.encoder, "encode_query", lambda q: (seen.append(chat.status), search(q))[1])
    chat = ChatApp(assistant, log)
    chat.ask("What is DPO?")
    assert chat.error is None and seen[0] == "Searching 4 passages …"
    assert seen[1] == ("Reading what was found …", True)
    assert seen[2:4] == [("Writing …", "the "), ("Writing …", "the first ")]
    assert "rk-writing" not in shown(chat) and chat.status.startswith("Answered in")
    assert "aria-busy" in chat._guard.aria["rk-log"] and chat._guard.aria["rk-log"]["aria-busy"] == "false"


def test_a_question_and_a_note_are_taken_as_typed_and_nothing_late_is(chat, log):
    for question in ("What is DPO?", "Who wrote the third text of all?"):
        field = chat._query
        line, serial = field.line, field.serial
        types(chat, field, question)
        chat._key(None, {"key": "enter", "slot": None}, None)
        assert chat.error is None and chat.turn.query == question
        line.value = question
        types(chat, field, "late", serial)
        assert field.text == field.line.value == ""
        types(chat, chat._thread.card().note, f"note on {question}")
        chat.good(True)
    assert [said.note for said in log.feedback()] == [
        "note on What is DPO?",
        "note on Who wrote the third text of all?",
    ]


def test_what_is_typed_while_it_answers_stays(assistant, log):
    class Typing(FakeGenerator):
        def answer(self, query, hits, **settings):
            types(chat, chat._query, "the next que")
            return super().answer(query, hits, **settings)

    assistant.generator = Typing()
    chat = ChatApp(assistant, log)
    for question in ("What is DPO?", "fail!"):
        types(chat, chat._query, question)
        chat.ask()
        assert chat._query.text == "the next que"
        assert question in shown(chat)  # also the one without an answer: it stands above what went wrong


def test_a_question_that_gets_no_answer_stays_in_its_field_and_says_why(chat):
    types(chat, chat._query, "fail!")
    chat.ask()
    assert chat._query.text == chat._query.line.value == "fail!"
    assert chat.status == "NO ANSWER: no memory" and shown(chat).count("NO ANSWER: no memory") == 2
    types(chat, chat._query, "What is DPO?")
    chat.ask()
    assert chat.error is None and "NO ANSWER" not in shown(chat) and "fail!" not in shown(chat)


def test_an_interrupt_is_told_and_loses_nothing(assistant, log):
    class Stopped(FakeGenerator):
        def answer(self, query, hits, *, on_text, **settings):
            on_text("as far as th")
            raise KeyboardInterrupt

    assistant.generator = Stopped()
    chat = ChatApp(assistant, log)
    types(chat, chat._query, "What is DPO?")
    chat.ask()
    assert chat.status == "NO ANSWER: KeyboardInterrupt" and chat._query.text == "What is DPO?"
    assert "as far as th" in shown(chat) and chat.turns == []


def test_a_follow_up_builds_on_the_question_before_and_says_what_was_made_of_it(chat):
    chat.ask("What does beta control in DPO?")
    chat.ask("and in IPO?")
    assert chat.turn.query == "What does beta control in IPO?" and chat.turn.query in shown(chat)
    assert "You typed: and in IPO?" in shown(chat)
    again = reopened(chat)
    assert "You typed: and in IPO?" in shown(again)
    again.ask("and in KTO?")
    assert again.turn.query == "What does beta control in KTO?"


def test_thanks_are_no_question_and_the_question_before_stays(chat):
    chat.ask("What does beta control in DPO?")
    chat.ask("Thank you!")
    assert len(chat.turns) == 1 and chat.error is None and "Nothing was asked" in shown(chat)
    chat.ask("and in IPO?")
    assert chat.turn.query == "What does beta control in IPO?"


def test_documents_and_candidates_are_those_of_the_switches(assistant, log, monkeypatch):
    asked, ask = [], Assistant.ask

    def keep(self, query, k, **settings):
        asked.append((k, settings.get("candidates")))
        return ask(self, query, k, **settings)

    monkeypatch.setattr(Assistant, "ask", keep)
    chat = ChatApp(assistant, log, 2, candidates=10)
    chat.ask("What is DPO?")
    chat.k = 7
    chat.ask("What is IPO?")
    button(chat, "k").value = 4
    chat.ask("What is KTO?")
    ChatApp(assistant, log, 2).ask("What is DPO?")
    assert asked == [(2, 10), (7, 10), (4, 10), (2, None)]
    with pytest.raises(ValueError, match="k=0: at least one document"):
        ChatApp(assistant, log, 0)


def test_the_model_is_chosen_and_loaded_when_first_used(assistant, log, monkeypatch):
    made, working = [], []

    def load(name, encoder):
        made.append((name, encoder, chat.status))
        if not working:
            raise OSError(2, "its weights are missing")
        return Writer()

    monkeypatch.setattr(switches, "Generator", load)
    chat = ChatApp(assistant, log, models={"other": "a-name"})
    assert chat.models.names == ["fake", "other"]
    chat.ask("What is DPO?")
    assert made == [] and log.judgements(Exchange)[0].details["generator"] == "fake"
    button(chat, "model").value = "other"
    types(chat, chat._query, "What is IPO?")
    chat.ask()
    assert chat.status == "NO ANSWER: its weights are missing" and chat._query.text == "What is IPO?"
    working.append(True)
    chat.ask()
    chat.ask("What is KTO?")
    assert made == [("a-name", assistant.encoder, "Loading other …")] * 2
    assert log.judgements(Exchange)[-1].details["generator"] == "writer"
    assert assistant.generator.name == "fake"  # the one that was given stays as it was


def test_a_model_that_ships_brings_the_other_one_along():
    given = SimpleNamespace(name="tiny-rag-lm")
    models = switches.Models(given, None, None)
    assert models.first == "tiny" and models.get("tiny") is given and "SmolLM2 reader" in models.names
    assert switches.Models(given, {"mine": given, "a": "b"}, None).names == ["mine", "a"]


def test_examples_are_questions_to_begin_with(assistant, log):
    chat = ChatApp(assistant, log, examples=["What is DPO?", ATTACK])
    assert "&lt;img" in shown(chat) and "<img" not in shown(chat)
    chat._key(None, {"key": "try", "slot": 0}, None)
    assert chat.turn.query == "What is DPO?" and chat._thread._greeting.layout.display == "none"


# Sources and citations


def marked(page: str) -> list[str]:
    return [each.split("</mark>")[0].split(">", 1)[1] for each in page.split("<mark ")[1:]]


@pytest.mark.parametrize(
    "text, cited, found",
    [
        ("β bounds it.", ["β bounds it."], ["β bounds it."]),
        ("β bounds it. [1] A coin is fair. [1]", ["β bounds\n it."], ["β bounds it."]),
        ("A coin\nis fair.", [], ["A coin is fair."]),  # as from an old log
        ("A fair coin, surely [1].", [], ["A coin is fair."]),
        ("A fair coin.", ["Nothing yet. β bounds it. A coin is fair."], ["A coin is fair."]),  # all of it
        ("Zebras.", [], []),
        ("", [], []),
    ],
)
def test_a_citation_marks_its_sentence(chat, text, cited, found):
    passage = Passage("p", "Nothing yet. β bounds it. A coin is fair.", "title")
    documents = [Hit(passage, 1.0, 1)]
    answer = Answer(text, [1], [], False, cited=[Evidence(each, 1, 0.5) for each in cited])
    page = sources(answer, documents, "card")
    assert marked(page) == found
    assert ('id="card-1"' in page) == bool(found)
    assert reply(answer, documents, "card").count('data-source="1"') == max(1, text.count("[1]"))


def test_only_what_the_answer_cites_is_a_link_and_what_stands_before_it_is_its_claim():
    page = reply(Answer("One [1]. Two [2] and [9].", [2], [], False), hits("a", "b"), "card")
    assert page.count("rk-cite") == 1 and "One [1]" in page and "[9]" in page
    twice = Answer("One [1]. Two [2] and three. [2]", [1, 2], [], False)
    assert claims(twice, 2) == [". Two", "and three."]


def test_a_number_of_the_document_is_no_citation():
    """It stands in brackets, and is one of the answer's sources; the reader did not write it."""
    text, mark = "Beta bounds it [1, as shown in [2]. [1]", len("Beta bounds it [1, as shown in [2]. ")
    answer = Answer(text, [1], [], False, marks=[(mark, mark + 3)])
    page = reply(answer, hits("a", "b"), "card")
    assert page.count('class="rk-cite"') == page.count('class="rk-own"') == 1
    assert page.index("rk-own") < page.index("rk-cite") and "is no citation" in page
    assert 'data-source="1">[1]</a></div>' in page and '">[2]</span>' in page
    assert claims(answer, 1) == ["Beta bounds it [1, as shown in [2]."]

    quoted = Answer("As [1] says, beta bounds it [2].", [1], [], False, marks=[])
    page = reply(quoted, hits("a", "b"), "card")
    assert page.count('class="rk-cite"') == 1 and page.count('class="rk-own"') == 2
    assert page.endswith("[1]</a></div>") and claims(quoted, 1) == [quoted.text]


def test_what_is_no_citation_is_none_after_a_restart(assistant, log):
    class Quoting:
        name, encoder = "quoting", None

        def answer(self, query, hits, **settings):
            return Answer("As [1] says [2]. [1]", [1], [], False, marks=[(17, 20)])

    assistant.generator = Quoting()
    ChatApp(assistant, log).ask("What is DPO?")
    again = ChatApp(assistant, PreferenceLog(log.folder, log.annotator))
    assert again.turn.answer.marks == [(17, 20)]
    page = reply(again.turn.answer, again.turn.hits, "card")
    assert page.count('class="rk-own"') == 2 and page.count('class="rk-cite"') == 1
    for odd in (None, "x", [3, "x", [1, 2, 3]], {"a": 1}):  # another program's words
        event = Exchange("q?", "As [1] says.", hits("a"), details={"citations": [1], "marks": odd})
        log.record(event)
    assert len(ChatApp(assistant, PreferenceLog(log.folder, log.annotator)).turns) == 5


def test_a_very_long_document_shows_what_is_cited(chat):
    (document,) = hits("word " * 200_000 + ". This is cited. " + "word " * 200_000)
    page = sources(Answer("This is cited.", [1], [], False), [document], "card")
    assert marked(page) == ["This is cited."] and len(page) < SHOWN + 1000


# What is said


def test_ranking_in_the_chat(chat, log):
    chat.ask("What is DPO?")
    ranking = chat.rank()
    assert ranking is chat.ranking and ranking.box in chat._thread.card()._bench.children
    ranking.move(0, 1)
    ranking.save()
    assert log.rankings()[0].query == "What is DPO?" and "Done. Undo shows it again." in shown(ranking)
    assert log.rankings()[0].passages == [hit.passage for hit in chat.turn.hits]
    assert "✓ Your order: [" in shown(chat) and "1 question; learning starts at 5" in shown(chat)
    ranking.undo()
    assert "Your order" not in shown(chat) and "Nothing ranked yet" in shown(chat)
    assert chat.rank() is None and chat.ranking is None and chat._thread.card()._bench.children == ()


def test_undo_in_the_chat_leaves_the_ranking(chat, log):
    chat.ask("a?")
    chat.good(True)
    chat.rank().save()
    chat.undo()
    assert log.feedback() == [] and len(log.rankings()) == 1


def test_another_answer_becomes_a_comparison_when_one_says_which_is_better(assistant, log):
    assistant.generator = Writer()
    chat = ChatApp(assistant, log)
    chat.ask("What is DPO?")
    panel = chat.another()
    assert panel is chat.comparing and chat.error is None and log.comparisons() == []
    assert chat.assistant.generator.asked[1:] == [("free", None), ("sentence", 1), ("sentence", 2)]
    assert "the second one" in shown(chat)
    left = panel.session.view.swapped  # the other one stands on the left
    panel.rate(-2 if left else 2)
    panel.save()
    (said,) = log.comparisons()
    assert (said.answer_a, said.answer_b, said.rating) == ("the first answer of all", "the second one", 2)
    assert said.hits == chat.turn.hits and said.details["generator"] == "writer"
    assert "The other answer, “the second one”, is better" in shown(chat)
    assert chat.another().session.view.answers[1].text == "short"
    assert chat.another().session.view.answers[1].text == "the third one"
    assert chat.another() is None and "no other answer" in chat.status and chat.error is None
    assert "The other answer, “the second one”, is better" in shown(reopened(chat))
    assert reopened(chat).another().session.view.answers[1].text == "short"  # what was compared is known


def test_each_turn_keeps_its_own_word(chat, log):
    for question in ("What is DPO?", "Who is the third of all?", "Where is it written down?"):
        chat.ask(question)
    chat.good(False, at=0)
    chat.good(True, "so clear", at=1)
    chat.rank(at=0).save()
    assert [(said.query, said.good) for said in log.feedback()] == [
        (chat.turns[0].query, False),
        (chat.turns[1].query, True),
    ]
    assert log.rankings()[0].query == chat.turns[0].query and chat.ranking is None
    button(chat, "good-3").click()
    assert log.feedback()[-1].query == chat.turns[2].query
    chat.undo(at=1)
    assert [said.query for said in log.feedback()] == [chat.turns[0].query, chat.turns[2].query]
    chat.good(True, at=3)
    assert chat.status == "NOT SAVED: at=3: turns count from 0 to 2" and isinstance(chat.error, IndexError)


def test_what_goes_wrong_in_the_chat(chat, log, full):
    chat.good(True)
    assert chat.status == "NOT SAVED: ask a question first"
    chat.another()
    assert chat.status == "NO OTHER ANSWER: ask a question first"
    chat.ask()
    assert chat.status == "NO ANSWER: type a question first"
    chat.ask("first?")
    turn = chat.turn
    chat.ask("fail!")
    assert chat.status == "NO ANSWER: no memory" and chat.turn is turn
    full(True)
    assert chat.good(True) is None and chat.status.startswith("NOT SAVED: No space")
    assert "✓ Good" not in shown(chat) and log.feedback() == []
    full(False)
    assert chat.good(True) == 2


def test_an_answer_that_could_not_be_logged_is_shown_and_logged_later(chat, log, full):
    full(True)
    chat.ask("first?")
    assert chat.turn.query == "first?" and chat.status.startswith("NOT SAVED: No space")
    assert "first?" in shown(chat) and chat.error is not None and log.judgements(Exchange) == []
    full(False)
    chat.ask("What is the second of all?")
    assert chat.error is None and [turn.query for turn in reopened(chat).turns] == [
        "first?",
        "What is the second of all?",
    ]


def test_a_draw_that_fails_is_told(chat, monkeypatch):
    monkeypatch.setattr("ragkit.widgets.turn.sources", lambda *_: 1 / 0)
    chat.ask("What is DPO?")
    assert chat.status == "NOT SHOWN: division by zero" and chat.turn.query == "What is DPO?"
    monkeypatch.undo()
    chat.fold()
    assert chat.error is None and "cited</span>" in shown(chat)


def test_one_document_is_nothing_to_rank_in_the_chat(log):
    chat = ChatApp(assistant_of("only"), log)
    chat.ask("a?")
    assert chat.rank() is None and chat.status == "NOT DONE: 1 documents were found, and an order needs two"


def test_everything_is_escaped(log):
    chat = ChatApp(assistant_of(ATTACK, ATTACK + " two"), log)
    for _ in range(thread.LIVE + 2):
        chat.ask(ATTACK)
    chat.good(True, ATTACK)
    chat.rank().save()
    chat.fold()
    again = reopened(chat)
    again.fold()
    for each in (chat, again):
        assert each.error is None and "<img" not in shown(each) and "<b>" not in shown(each)
        assert shown(each).count("&lt;img src=x") > 10
    assert "<img" not in learning.moves(hits(ATTACK, "b"), hits(ATTACK, "b"), 1)


def test_half_characters_do_not_stop_the_chat(log):
    class Reads(FakeEncoder):
        def encode_query(self, query):
            return super().encode_query(query.encode("utf-8", "replace").decode())

    passages = [Passage("a", "one of two", "first"), Passage("b", "two")]
    library = Library.build(passages, Reads(), progress=False)
    chat = ChatApp(Assistant(Reads(), library, FakeGenerator()), log)
    chat.ask("q \ud800?")
    chat.good(True, "\ud800")
    json.dumps([shown(chat), chat._guard.aria], ensure_ascii=False).encode("utf-8")
    assert chat.error is None and reopened(chat).turn.query == "q \ud800?"


def test_what_is_said_of_an_answer_is_logged_with_what_answered(assistant, log):
    """Not with the model and the number of documents that are chosen now; nor does a restart forget it."""

    class Other(FakeGenerator):
        name = "other"

    chat = ChatApp(assistant, log, models={"other": Other()})
    chat.ask("Why is HNSW fast?")
    button(chat, "model").value, chat.k = "other", 2
    chat.ask("What is BM25?")
    button(chat, "model").value, chat.k = "fake", 3
    chat.good(True, at=1)
    again = reopened(chat)
    again.good(False, at=0)
    said = {one.query: one.details for one in log.judgements(Feedback)}
    assert (said["What is BM25?"]["generator"], said["What is BM25?"]["k"]) == ("other", 2)
    assert (said["Why is HNSW fast?"]["generator"], said["Why is HNSW fast?"]["k"]) == ("fake", 3)


# Learning


TASTE = simulated(30, taste=8.0, annotator="ann")  # of somebody who likes formulas
QUESTION = TASTE[24].query


@pytest.fixture
def learner(tmp_path):
    """A chat over documents that nobody ranked yet; half of them have a formula."""
    encoder = WordsEncoder()
    passages = [passage for ranking in TASTE[20:] for passage in ranking.passages]
    library = Library.build(passages, encoder, progress=False)
    own = Assistant(encoder, library, FakeGenerator())
    return ChatApp(own, PreferenceLog(tmp_path / "log", "ann"))


@pytest.fixture
def trained(learner):
    """The same after twelve questions were ranked, and another one asked."""
    for ranking in TASTE[:12]:
        learner.log.record(ranking)
    learner.ask(QUESTION)
    return learner


def formulas(chat) -> int:
    return sum("=" in hit.passage.text for hit in chat.turn.hits)


def test_too_few_rankings_change_nothing_and_that_is_said(learner):
    report = learner.learn()
    assert report is learner.report and report.queries == 0 and learner.error is None
    assert "You ranked the documents of 0 questions, and it takes 5" in shown(learner)
    learner.ask(QUESTION)
    learner.rank().save()
    learner.learn()
    assert "of 1 question, and it takes 5 to tell a taste from chance." in shown(learner)
    assert "Rank those of 4 more questions" in shown(learner)
    assert learner.assistant.reranker is None and learner.status == "Nothing changes yet."
    assert "rk-moves" not in shown(learner)


def test_rankings_that_say_nothing_change_nothing_and_that_is_said(learner):
    for ranking in simulated(5, taste=0.0, seed=3):
        learner.log.record(replace(ranking, tiers=[list(range(5))], annotator="ann"))
    learner.learn()
    said = "Your 5 rankings of 5 questions change nothing yet: nobody preferred one document to another."
    assert said in shown(learner) and learner.assistant.reranker is None


def test_it_learns_and_shows_before_and_after_and_goes_on_so(trained):
    first = trained.turn.hits
    report = trained.learn()
    assert trained.error is None and not report.kept_base and trained.status == "Learned: used from now on."
    said = learning.sentences(report)
    assert said in html.unescape(shown(trained)) and report.verdict in said and said.count(". ") == 1
    assert 'class="rk-up"' in shown(trained) and 'aria-label="up ' in shown(trained)
    assert button(trained, "order").value == "my clicks"
    before = formulas(trained)
    trained.again()
    after = trained.turn.hits
    assert trained.turn.query == QUESTION and formulas(trained) > before
    assert trained.log.judgements(Exchange)[-1].details["reranker"] == trained.assistant.reranker.fingerprint
    button(trained, "order").value = "as found"
    trained.again()
    assert trained.turn.hits == first

    again = reopened(trained)  # what was learned is there, too
    assert again.error is None and button(again, "order").value == "my clicks"
    again.again()
    assert again.turn.hits == after
    other = ChatApp(trained.assistant, PreferenceLog(trained.log.folder, "bob"))
    assert other.turns == [] and button(other, "order").options == ("as found",)


def test_a_reranker_that_was_given_stays_the_callers_own(trained):
    class Turned:
        fingerprint = "turned"

        def rerank(self, query, hits):
            return hits[::-1]

    own = trained.assistant
    given = Assistant(own.encoder, own.library, own.generator, Turned())
    chat = ChatApp(given, trained.log)
    chat.learn()
    assert isinstance(given.reranker, Turned) and chat.assistant.reranker.fingerprint != "turned"
    again = ChatApp(given, PreferenceLog(trained.log.folder, "ann"))
    assert isinstance(again.assistant.reranker, Turned)  # it was asked for by name
    assert button(again, "order").options == ("as found", "my clicks")


def test_what_cannot_be_learned_or_kept_is_told(trained, monkeypatch):
    fit = learning.learned
    monkeypatch.setattr(learning, "learned", lambda *_: 1 / 0)
    assert trained.learn() is None and trained.status == "NOT LEARNED: division by zero"
    monkeypatch.setattr(learning, "learned", fit)

    def no_room(*_):
        raise OSError(28, "disk full")

    monkeypatch.setattr(learning, "save", no_room)
    trained.learn()
    assert trained.status == "LEARNED, BUT NOT SAVED: disk full" and trained.assistant.reranker is not None


def test_what_was_learned_by_another_encoder_or_is_damaged_is_told_and_the_chat_opens(trained):
    trained.learn()
    other = WordsEncoder(1)
    library = Library.build(list(trained.assistant.library.passages), other, progress=False)
    chat = ChatApp(Assistant(other, library, FakeGenerator()), trained.log)
    assert len(chat.turns) == 1 and "WHAT WAS LEARNED: the reranker in" in chat.status
    (file,) = trained.log.folder.glob("*.safetensors")
    file.write_bytes(b"not one")
    again = reopened(trained)
    assert again.status.startswith("WHAT WAS LEARNED") and len(again.turns) == 1
    again.ask(TASTE[22].query)
    assert again.error is None


def test_moves_tell_who_went_where():
    before = hits("a", "b", "c")
    told = learning.moves(before, [before[2], before[0], before[1]], 2)
    assert [each.split('"')[0] for each in told.split('aria-label="')[1:]] == ["up 2", "down 1", "down 1"]
    assert ">↑2<" in told and told.count(">↓1<") == 2 and told.count("rk-last") == 2
    assert 'd="M0 75 C50 75 50 15 100 15"' in told
    assert learning.moves(before, before, 2).count("not moved") == 3


# After a restart


def test_the_conversation_is_there_again_with_what_was_said(assistant, log):
    assistant.generator = Writer()
    chat = ChatApp(assistant, log)
    chat.ask("What is DPO?")  # nothing is said of it
    chat.ask("Who is the third of all?")
    chat.good(True, "so clear")
    chat.rank().save()
    chat.ask("What is DPO?")  # once more
    again = reopened(chat)
    assert again.error is None and [turn.query for turn in again.turns] == [turn.query for turn in chat.turns]
    for old, new in zip(chat.turns, again.turns):
        assert (new.answer.text, new.answer.citations) == (old.answer.text, old.answer.citations)
        assert new.hits == old.hits and new.sources == old.sources
    assert "✓ Good answer" in shown(again) and "so clear" in shown(again) and "Your order" in shown(again)
    assert marked(shown(again)) == marked(shown(chat)) != []
    again.undo(at=1)
    assert log.feedback() == []
    again.ask("And the next one of all?")
    assert len(again.turns) == 4 and kinds(log).count("turn") == 4


def test_only_ones_own_turns_come_back(assistant, log):
    ChatApp(assistant, log).ask("What is DPO?")
    assert ChatApp(assistant, PreferenceLog(log.folder, "bob")).turns == []


def test_logs_from_before_there_were_turns_in_them_can_be_read(assistant, log):
    found = hits("The first. It is cited.", "b")
    log.record(Feedback("old?", "It is cited.", True, "good one", found, details={"citations": [1]}))
    chat = ChatApp(assistant, log)
    assert chat.error is None and chat.turn.query == "old?" and chat.turn.sources == found[:1]
    assert marked(shown(chat)) == ["It is cited."] and "good one" in shown(chat)
    chat.ask("What is DPO?")
    assert [turn.query for turn in reopened(chat).turns] == ["old?", "What is DPO?"]


def test_odd_details_in_a_log_are_passed_over(assistant, log):
    odd = {
        "citations": [7, "1", True, 1],
        "cited": [[1], [1, 2], ["1", "x"], [9, "x"], 3, [1, "a"]],
        "asked": 3,
    }
    log.record(Exchange("q?", "a", hits("a", "b"), details=odd))
    log.record(Exchange("r?", "a", [], details={"citations": 3, "cited": "x"}))
    chat = ChatApp(assistant, log)
    assert chat.error is None and [turn.answer.citations for turn in chat.turns] == [[1], []]
    assert [(piece.text, piece.hit) for piece in chat.turns[0].answer.cited] == [("a", 1)]


def test_a_log_that_cannot_be_read_is_told_and_the_chat_answers(assistant, log):
    log.folder.mkdir()
    (log.folder / "x.jsonl").write_text('{"schema": 99}\n')
    chat = ChatApp(assistant, log)
    assert "schema 99" in chat.status and isinstance(chat.error, ValueError)
    chat.ask("What is DPO?")
    assert chat.turn.query == "What is DPO?" and "schema 99" in chat.status
    assert "cited</span>" in shown(chat)


def test_a_turn_is_no_judgement_that_an_undo_takes_back(log):
    log.record(Comparison("q", "a", "b", 1, event_id="mine"))
    log.record(Exchange("q", "a"))
    log.record(Exchange("q", "a"))
    assert len(log.judgements(Exchange)) == 2  # each is an item of its own
    assert log.undo() == "mine" and log.undo() is None
    assert log.undo(log.judgements(Exchange)[0].event_id) and len(log.judgements(Exchange)) == 1
    assert len(conversation(log)) == 1


# A long conversation


def models() -> int:
    return len(get_comm_manager().comms)


def test_older_turns_fold_open_again_and_fold_back(chat):
    for n in range(thread.LIVE + 6):
        chat.ask(f"What is question number {n} of all?")
    assert len(chat.turns) == thread.LIVE + 6 and "Earlier: 6 questions" in shown(chat)
    assert "number 5 of all" not in shown(chat) and "number 6 of all" in shown(chat)
    types(chat, chat._thread.card(6).note, "half a tho")
    button(chat, "fold").click()
    assert "number 5 of all" in shown(chat) and 'data-key="open"' in shown(chat)
    chat._key(None, {"key": "open", "slot": 2}, None)
    assert "Earlier: 5 questions" in shown(chat) and chat.error is None
    chat.good(True, at=2)
    for at in (0, 1, 3, 4):
        chat.open(at)
    assert "Earlier: 3 questions" in shown(chat)  # as many as OPENED have a card
    assert "good</span>" in shown(chat).split('data-key="open">What is question number 2')[1][:200]
    boxes = [box for box in chat._thread._log.children if "rk-turn" in box._dom_classes]
    assert [f"number {n} of" in str(box.children[0].value) for n, box in zip((1, 3, 4), boxes)] == [True] * 3
    chat.ask("What is the last of all?")
    chat.open(6)
    assert chat._thread.card(6).note.text == "half a tho"
    chat.open(99)
    assert chat.status.startswith("NOT OPENED: at=99")


def test_a_closed_panel_leaves_memory(chat):
    chat.ask("What is DPO?")
    closed = weakref.ref(chat.rank())
    chat.rank()
    gc.collect()
    assert closed() is None


def many(chat, turns: int) -> None:
    """So many turns with everything that can be said of each."""
    for n in range(turns):
        chat.ask(f"What is number {n} of {len(chat.turns)} in all?")
        chat.good(n % 2 == 0, "so it is")
        chat.rank().save()
        chat.another()
        chat.comparing.rate(1)
        chat.comparing.save()
    assert chat.error is None
    gc.collect()


def test_a_long_conversation_keeps_as_many_widgets_as_a_short_one(assistant, log):
    assistant.generator = Writer()
    chat = ChatApp(assistant, log)
    many(chat, 12)
    before, attributes = models(), len(chat._guard.aria)
    many(chat, 12)
    assert models() == before and len(chat._guard.aria) <= attributes


def test_a_turn_costs_little_memory(log):
    """Of 50 MB for 300 turns, what Python's objects may take of one; documents of 1,000 characters."""
    assistant = assistant_of(*(f"{n} long sentences are here. " * 40 for n in range(4)))
    assistant.generator = Writer()
    chat = ChatApp(assistant, log)
    tracemalloc.start()
    try:
        many(chat, 12)
        before = tracemalloc.get_traced_memory()[0]
        many(chat, 20)
        grown = (tracemalloc.get_traced_memory()[0] - before) / 20
    finally:
        tracemalloc.stop()
    assert grown < 50e6 / 300
