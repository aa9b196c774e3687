"""The panels through their handlers, without a browser: what is shown, what is written, what goes wrong."""

import base64
import json
import os
import re
import shutil
import subprocess
import threading
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tinycss2
from comm import get_comm_manager
from setuptools import find_packages

import ragkit
from ragkit.assistant import Assistant
from ragkit.generation.answer import Answer
from ragkit.preferences import log as preference_log
from ragkit.preferences.judgements import Skip
from ragkit.preferences.log import PreferenceLog
from ragkit.preferences.rank_session import RankingSession, flat
from ragkit.preferences.session import Session, View
from ragkit.retrieval.corpus import Hit, Passage
from ragkit.retrieval.library import Library
from ragkit.widgets.chat import ChatApp
from ragkit.widgets.compare import CompareAnswers
from ragkit.widgets.panel import PICTURES
from ragkit.widgets.rank import RankDocuments, RankingPanel
from tests.helpers import FakeEncoder, hits

ATTACK = '<img src=x onerror="alert(1)"> & "quoted"'


class FakeGenerator:
    """Quotes the first hit, or says what it is told to say."""

    name, encoder = "fake", None

    def answer(self, query, hits, *, style="sentence", seed=None, on_text=None):
        if "fail" in query:
            raise OSError(12, "no memory")
        return Answer(hits[0].passage.text if hits else "none", [1] if hits else [], [], not hits)


def assistant_of(*texts: str) -> Assistant:
    encoder = FakeEncoder()
    passages = [Passage(f"p{n}", text, f"title {n} <b>") for n, text in enumerate(texts)]
    return Assistant(encoder, Library.build(passages, encoder, progress=False), FakeGenerator())


@pytest.fixture
def assistant():
    return assistant_of(ATTACK, "long " * 100, "third", "fourth")


@pytest.fixture
def log(tmp_path):
    return PreferenceLog(tmp_path / "log", "ann")


@pytest.fixture
def full(monkeypatch):
    """`full(True)`: from now on the disk is full; `full(False)`: no more."""
    fsync = os.fsync

    def set_full(value: bool) -> None:
        def fail(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail if value else fsync)

    return set_full


def events(log) -> list[dict]:
    lines = [line for path in log.folder.glob("*.jsonl") for line in path.read_bytes().splitlines()]
    return sorted((json.loads(line) for line in lines if line), key=lambda event: event["seq"])


def shown(panel) -> str:
    """All HTML and labels in the panel, as they are sent to the browser."""
    found, queue = [], [panel.box]
    while queue:
        widget = queue.pop()
        found += [str(getattr(widget, name)) for name in ("value", "description") if hasattr(widget, name)]
        queue += getattr(widget, "children", [])
    return "\n".join(found)


@pytest.fixture
def clock(monkeypatch):
    """`clock[0] += 1` lets a second pass. Without that, none does."""
    now = [100.0]
    monkeypatch.setattr("ragkit.widgets.panel.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def button(panel, name: str):
    queue = [panel.box]
    for widget in queue:
        if f"rk-{name}" in getattr(widget, "_dom_classes", ()):
            return widget
        queue += getattr(widget, "children", [])
    raise LookupError(name)


def types(panel, field, text: str, serial: int | None = None) -> None:
    """As the guard tells it; in the line that is shown by default."""
    message = {"key": "typed", "field": field.serial if serial is None else serial, "text": text}
    panel._key(None, message, None)


def names(panel) -> list[str]:
    """The documents' names, from the top."""
    return [panel.session.view.name(document) for document in flat(panel.session.view.tiers)]


# Ranking


def test_ranking_writes_what_is_shown(assistant, log):
    panel = RankDocuments(assistant, ["a?", "b?"], log, seed=1)
    assert panel.error is None and names(panel) == ["c1", "c2", "c3"] and "a?" in shown(panel)
    panel.move(2, -1)
    assert names(panel) == ["c1", "c3", "c2"] and panel.status == "c1, then c3, then c2"
    panel.place(2, 0)
    panel.tie(1)
    assert panel.status == "c2 = c1, then c3"
    view = panel.session.view
    assert panel.save("because") == 1
    assert panel.status == "Saved #1 ✓  c2 = c1, then c3" and "b?" in shown(panel)
    (ranking,) = log.rankings()
    assert ranking.tiers == view.tiers and ranking.shown_order == view.order
    assert ranking.details["why"] == "because" and ranking.details["moves"] == 3
    assert ranking.details["encoder_fingerprint"] == FakeEncoder().fingerprint
    assert ranking.scores == [hit.score for hit in view.hits]


def test_the_why_that_was_typed_is_saved_and_then_gone(assistant, log):
    panel = RankDocuments(assistant, ["a?", "b?"], log)
    panel._why.line.value = "typed"
    panel.save()
    assert log.rankings()[0].details["why"] == "typed"
    assert panel._why.text == panel._why.line.value == ""
    panel.undo()
    assert panel._why.text == panel._why.line.value == "typed"


def test_what_the_guard_says_was_typed_is_saved_and_nothing_late_reaches_the_next_item(assistant, log):
    panel = RankDocuments(assistant, ["a?", "b?", "c?"], log, repeat_share=0)
    for why in ("first", "second"):
        field, line, serial = panel._why, panel._why.line, panel._why.serial
        types(panel, field, why)
        panel.save()
        line.value = why  # what ipywidgets held back
        types(panel, field, "late", serial)
        assert field.text == field.line.value == "" and field.line is not line
    panel.skip()
    assert [event["details"]["why"] for event in events(log)] == ["first", "second", ""]
    assert panel.error is None


def test_the_latest_that_was_typed_counts_whichever_way_it_came(assistant, log):
    panel = RankDocuments(assistant, ["a?"], log)
    types(panel, panel._why, "12")
    panel._why.line.value = "1"
    assert panel._why.text == "1"
    types(panel, panel._why, "123")
    assert panel._why.text == "123"
    types(panel, panel._why, "")
    panel.save()
    assert log.rankings()[0].details["why"] == ""


def test_a_why_stays_with_an_item_that_is_skipped_or_pushed_aside(assistant, log):
    panel = RankDocuments(assistant, ["a?", "b?"], log, repeat_share=0)
    types(panel, panel._why, "not for me")
    panel.skip()
    types(panel, panel._why, "half a th")
    panel.undo()
    assert panel.session.view.query == "a?" and panel._why.line.value == "not for me"
    panel.save()
    assert panel.session.view.query == "b?" and panel._why.line.value == "half a th"
    panel.save()
    assert [said.details["why"] for said in log.rankings()] == ["not for me", "half a th"]


def test_lines_are_closed_one_item_later_and_leave_nothing_behind(assistant, log):
    panel = RankDocuments(assistant, [f"{n}?" for n in range(9)], log, repeat_share=0)
    first = panel._why.line
    panel.save()
    assert first.comm is not None  # what it says late still finds someone
    panel.save()
    assert first.comm is None
    models = len(get_comm_manager().comms)
    for _ in range(5):
        panel.save()
    assert len(get_comm_manager().comms) == models > 0 and panel.error is None


def test_skip_undo_and_the_end(assistant, log):
    panel = RankDocuments(assistant, ["a?", "b?"], log)
    panel.skip()
    assert panel.status == "Skipped, saved #1 ✓"
    panel.save()
    assert "All 2 done" in shown(panel) and "2 of 2, 0 repeats" in shown(panel)
    panel.undo()
    assert panel.status.startswith("Taken back ✓") and panel.session.view.query == "b?"
    panel.undo()
    assert panel.session.view.query == "a?"
    panel.undo()
    assert panel.status == "Nothing to undo." and panel.error is None
    assert [event["kind"] for event in events(log)] == ["skip", "rank", "undo", "undo"]
    panel.save()
    assert panel.session.view.query == "b?"


def test_not_saved_says_why_and_can_be_saved_again(assistant, log, full):
    panel = RankDocuments(assistant, ["a?", "b?"], log)
    panel.move(0, 2)
    view, order = panel.session.view, names(panel)
    full(True)
    assert panel.save() is None
    assert panel.status.startswith("NOT SAVED: No space left on device")
    assert isinstance(panel.error, OSError) and "NOT SAVED" in shown(panel)
    assert panel.session.view is view and names(panel) == order
    panel.skip()
    assert panel.status.startswith("NOT SAVED") and panel.session.view is view
    full(False)
    assert panel.save() == 1 and panel.error is None
    assert len(events(log)) == 1 and log.rankings()[0].details["view_id"] == view.view_id


def test_an_undo_that_fails_takes_nothing_back(assistant, log, full):
    panel = RankDocuments(assistant, ["a?"], log)
    panel.save()
    full(True)
    assert panel.undo() is None and panel.status.startswith("NOT SAVED") and len(log.rankings()) == 1
    full(False)
    assert panel.undo().query == "a?" and log.rankings() == []


def test_saved_is_said_also_where_the_next_item_fails(assistant, log, monkeypatch):
    panel = RankDocuments(assistant, ["a?", "b?"], log)
    monkeypatch.setattr(assistant.encoder, "encode_query", lambda query: 1 / 0)
    assert panel.save() == 1
    assert panel.status.startswith("Saved #1 ✓") and "NO NEXT ITEM: division by zero" in panel.status
    assert isinstance(panel.error, ZeroDivisionError)
    monkeypatch.undo()
    assert panel.save() == 1 and panel.session.view.query == "b?" and len(events(log)) == 1


def test_an_unreadable_log_is_shown_not_hidden(assistant, log):
    log.folder.mkdir()
    (log.folder / "x.jsonl").write_text('{"schema": 99}\n')
    panel = RankDocuments(assistant, ["a?"], log)
    assert "schema 99" in panel.status and isinstance(panel.error, ValueError)


def test_a_handler_that_is_called_wrongly_changes_nothing(assistant, log):
    panel = RankDocuments(assistant, ["a?"], log)
    panel.move(7, 1)
    assert isinstance(panel.error, IndexError) and panel.status.startswith("NOT DONE")
    panel.save()
    panel.save()
    assert panel.status == "NOT SAVED: nothing is shown, so nothing can be judged" and len(events(log)) == 1


def test_documents_and_questions_are_escaped(assistant, log):
    panel = RankDocuments(assistant, [ATTACK], log, k=4)
    compare = CompareAnswers([(ATTACK, ATTACK, "b", hits(ATTACK))], log)
    compare.rate(1)
    compare.save(ATTACK)
    chat = ChatApp(assistant, log)
    chat.ask(ATTACK)
    for each in (panel, compare, chat):
        assert each.error is None and "<img" not in shown(each) and "&lt;img src=x" in shown(each)
        assert "<b>" not in shown(each)
    panel.save()
    assert log.rankings()[0].query == ATTACK  # and the log has what was said, unchanged


def test_half_characters_do_not_stop_a_panel(log):
    """A message to the browser can't hold them; the log can."""
    found = [Hit(Passage(f"p{n}", f"text {n} \ud800", "title \ud800"), 1.0, n) for n in (1, 2)]
    panel = RankingPanel(RankingSession(["q \ud800"], lambda query: found, log), 2)
    json.dumps([shown(panel), panel._guard.aria], ensure_ascii=False).encode("utf-8")
    types(panel, panel._why, "\ud800")
    panel.save()
    assert panel.error is None and log.rankings()[0].passages[0].text.endswith("\ud800")
    panel.undo()
    assert panel.error is None and panel._why.line.value == "?" and panel._why.text == "\ud800"


def test_a_long_document_folds_until_more_and_stays_open_when_it_moves(assistant, log):
    panel = RankDocuments(assistant, ["a?"], log, k=4)
    long = next(d for d, hit in enumerate(panel.session.view.hits) if len(hit.passage.text) > 400)
    slot = lambda: flat(panel.session.view.tiers).index(long)  # noqa: E731
    folded = lambda: ["rk-folded" in parts["text"].value for parts in panel._slots]  # noqa: E731
    assert folded() == [number == slot() for number in range(4)]
    panel.more(slot())
    assert folded() == [False] * 4
    panel.move(slot(), 1 if slot() == 0 else -1)
    assert folded() == [False] * 4
    panel.more(slot())
    assert folded()[slot()]
    panel.more(slot())
    panel.save()
    panel.undo()
    assert folded()[slot()]  # a new item starts folded


def test_every_control_has_a_name_and_says_its_state(assistant, log):
    panel = RankDocuments(assistant, ["a?"], log)
    aria = panel._guard.aria
    assert aria["rk-up-1"] == {"aria-label": "Move c1 up", "aria-disabled": "true"}
    assert aria["rk-down-1"] == {"aria-label": "Move c1 down", "aria-disabled": "false"}
    assert aria["rk-undo"]["aria-disabled"] == "true" and aria["rk-status"] == {"role": "status"}
    panel.tie(1)
    aria = panel._guard.aria
    assert aria["rk-tie-2"]["aria-label"] == "Untie c2 from c1"
    assert aria["rk-up-1"]["aria-disabled"] == "false"  # it can leave the tie upwards
    assert aria["rk-slot-2"]["aria-label"].startswith("Place 1: c2, title")
    panel.save()
    assert panel._guard.aria["rk-save"]["aria-disabled"] == "true"


@pytest.mark.parametrize(
    "key, slot, order",
    [("3", 1, "c2 c3 c1"), ("1", 3, "c3 c1 c2"), ("up", 2, "c2 c1 c3"), ("down", 2, "c1 c3 c2")]
    + [("9", 1, "c2 c3 c1"), ("up", 1, "c1 c2 c3"), ("1", None, "c1 c2 c3"), ("x", 1, "c1 c2 c3")],
)
def test_keys(assistant, log, key, slot, order):
    panel = RankDocuments(assistant, ["a?"], log)
    panel._key(None, {"key": key, "slot": slot}, None)
    assert names(panel) == order.split() and panel.error is None


def test_dropping_a_card(assistant, log):
    panel = RankDocuments(assistant, ["a?"], log)
    panel._key(None, {"key": "drop", "slot": 1, "target": 3}, None)
    assert names(panel) == ["c2", "c3", "c1"]


def test_a_second_click_at_once_is_not_for_the_next_item(assistant, log, clock):
    panel = RankDocuments(assistant, ["a?", "b?", "c?"], log)
    save = panel.settled(panel.save)
    clock[0] += 1
    save()
    clock[0] += 0.1
    save()
    assert len(events(log)) == 1 and "press again" in panel.status
    clock[0] += 1
    save()
    assert len(events(log)) == 2


def judged(kind: str, assistant, log, clock):
    """A panel in the middle of its work: two judgements can be taken back, and a third can be saved."""
    if kind == "chat":
        panel = ChatApp(assistant, log)
        panel.ask("What is DPO?")
        panel.good(True)
        panel.good(False)
        types(panel, panel._query, "What is IPO?")
    elif kind == "rank":
        panel = RankDocuments(assistant, list("abcde"), log, k=4, repeat_share=0)
        panel.save()
        panel.save()
    else:
        panel = CompareAnswers([(query, "x", "y") for query in "abcde"], log, repeat_share=0)
        for _ in range(2):
            panel.rate(1)
            panel.save()
            panel.next()
        panel.rate(2)
        if kind == "saved":
            panel.save()
    clock[0] += 1
    return panel


@pytest.mark.parametrize(
    "kind, name",
    [("rank", name) for name in "up-3 up-2 down-1 tie-2 more-1 save skip undo".split()]
    + [("compare", name) for name in "rate-1 bad save skip undo next".split()]
    + [("saved", name) for name in "next undo".split()]
    + [("chat", name) for name in "ask good undo rank".split()],
)
def test_a_double_click_is_one_click(log, clock, kind, name):
    panel = judged(kind, assistant_of(*(400 * f"{letter} " for letter in "wxyz")), log, clock)
    seen = lambda: (shown(panel), events(log), panel.status)  # noqa: E731
    before = seen()
    button(panel, name).click()
    once = seen()
    assert once != before
    clock[0] += 0.1
    button(panel, name).click()
    assert seen() == once
    clock[0] += 1
    button(panel, name).click()
    assert (seen() != once) or name in ("rate-1", "good", "next", "save")


@pytest.mark.parametrize(
    "key, slot, target", [("4", 1, None), ("=", 2, None), ("up", 3, None), ("drop", 1, 3)]
)
def test_a_key_that_arrives_twice_is_one_key(assistant, log, clock, key, slot, target):
    panel = RankDocuments(assistant, ["a?"], log, k=4)
    orders = []
    for seconds in (0.1, 1.0, 0.1):
        panel._key(None, {"key": key, "slot": slot, "target": target}, None)
        orders.append(panel.session.view.tiers)
        clock[0] += seconds
    assert orders[0] == orders[1] != orders[2]


def test_two_presses_at_once_are_taken_one_after_the_other(log):
    """As in JupyterLab, where a key and a click come in two threads."""
    panel, order = CompareAnswers([("q", "a", "b")], log), []

    def slowly():
        second.start()
        second.join(0.2)
        order.append("key")

    second = threading.Thread(target=panel._press, args=(("rk-bad",), lambda: order.append("click")))
    panel._press(("7", None, None), slowly)
    second.join(60)
    assert order == ["key", "click"]


def test_an_order_that_is_not_saved_survives_a_new_panel(assistant, log):
    make = lambda name="ann": RankDocuments(  # noqa: E731
        assistant, ["a?", "b?"], PreferenceLog(log.folder, name), k=4, repeat_share=0
    )
    panel = make()
    panel.place(3, 0)
    panel.tie(2)
    types(panel, panel._why, "half a th")
    other = make("someone else").session.view
    assert other.moves == 0 and other.why == ""
    again = make()
    assert again.session.view.tiers == panel.session.view.tiers and names(again) == ["c4", "c1", "c2", "c3"]
    assert again._why.line.value == "half a th" and again.status.endswith("as you left it: not saved yet.")
    assert events(log) == []
    again.save()
    panel.save()  # in a view that stayed open: the same judgement
    (ranking,) = log.rankings()
    assert ranking.details["moves"] == 2 and ranking.details["why"] == "half a th"
    last = make()
    assert last.session.view.query == "b?" and "as you left it" not in last.status
    last.move(0, 1)
    last.undo()  # pushes it aside
    once_more = make()
    assert once_more.session.view.query == "a?" and names(once_more) == ["c4", "c1", "c2", "c3"]
    once_more.save()
    assert once_more.session.view.query == "b?" and names(once_more) == ["c2", "c1", "c3", "c4"]
    assert once_more.status.startswith("Saved #3 ✓") and "as you left it" in once_more.status


@pytest.mark.parametrize("say", [lambda panel: panel.rate(2), lambda panel: panel.both_bad()])
def test_a_rating_that_is_not_saved_survives_a_new_panel(log, say):
    panel = CompareAnswers([("q", "a", "b")], log)
    say(panel)
    again = CompareAnswers([("p", "a", "b"), ("q", "a", "b")], PreferenceLog(log.folder, "ann"))
    again.skip()
    assert (again.session.view.rating, again.session.view.both_bad) == (
        panel.session.view.rating,
        panel.session.view.both_bad,
    )
    again.save()
    again.next()
    assert len(log.comparisons()) == 1 and "All 2 done" in shown(again)


def test_who_judges_under_the_name_that_nobody_chose_is_told_of_others(assistant, tmp_path):
    log = PreferenceLog(tmp_path)
    makers = [
        lambda log: RankDocuments(assistant, ["a?", "b?"], log),
        lambda log: CompareAnswers([("q", "a", "b")], log),
        lambda log: ChatApp(assistant, log),
    ]
    assert not any("You judge as" in shown(make(log)) for make in makers)
    makers[0](log).save()
    for make in makers:
        assert "You judge as “me”" in shown(make(PreferenceLog(tmp_path)))
        assert "already (1)" in shown(make(PreferenceLog(tmp_path)))
        assert "You judge as" not in shown(make(PreferenceLog(tmp_path, "ann")))


def test_a_new_panel_goes_on_where_the_old_one_stopped(assistant, log):
    RankDocuments(assistant, ["a?", "b?"], log).save()
    again = RankDocuments(assistant, ["a?", "b?"], PreferenceLog(log.folder, "ann"))
    assert again.session.view.query == "b?" and str(again.session.progress) == "1 of 2, 0 repeats"
    assert again.undo().query == "a?"


def test_a_small_library_and_wrong_settings(log):
    few = assistant_of("one", "two")
    panel = RankDocuments(few, ["a?"], log, k=5)
    assert names(panel) == ["c1", "c2"]
    assert [parts["card"].layout.display for parts in panel._slots] == [None, None, "none", "none", "none"]
    one = RankDocuments(assistant_of("one"), ["a?"], log)
    assert "Nothing to rank." in shown(one) and "1 document was found for “a?”" in shown(one)
    with pytest.raises(ValueError, match="k=1: an order needs two"):
        RankDocuments(few, ["a?"], log, k=1)
    with pytest.raises(ValueError, match="no queries"):
        RankDocuments(few, [], log)


def test_the_choice_of_the_next_item_can_be_handed_over(assistant, log):
    panel = RankDocuments(assistant, ["a?", "b?", "c?"], log, choose=lambda left: left[-1])
    assert panel.session.view.query == "c?"
    panel.save()
    assert panel.session.view.query == "b?"


def test_the_reranker_decides_what_is_shown(assistant, log):
    class Turned:
        def rerank(self, query, hits):
            return hits[::-1]

    before = RankDocuments(assistant, ["a?"], log, seed=1).session.view.hits
    assistant.reranker = Turned()
    panel = RankDocuments(assistant, ["a?"], log, seed=1)
    assert panel.session.view.hits == [replace(hit, rank=n) for n, hit in enumerate(before[::-1], 1)]
    panel.save()
    assert log.rankings()[0].details["reranker"] == "Turned"


# Comparing


def test_comparing_writes_the_rating_of_the_side(log):
    panel = CompareAnswers([(f"q{n}", f"a{n}", f"b{n}", hits("x")) for n in range(12)], log, repeat_share=0)
    swapped = []
    for _ in range(12):
        swapped.append(panel.session.view.swapped)
        panel.rate(-2)
        panel.save()
        panel.next()
    assert set(swapped) == {True, False}
    assert [said.rating for said in log.comparisons()] == [2 if each else -2 for each in swapped]
    assert "All 12 done" in shown(panel)


def test_sources_are_hidden_until_saved(log):
    answers = [Answer("one", [2], [], False), Answer("two", [], [], False)]
    panel = CompareAnswers([("q", *answers, hits("x", "y"))], log)
    panel.rate(0)
    assert "p0" not in shown(panel) and "Sources" not in shown(panel)
    panel.save()
    assert "[2] p1  – cited" in shown(panel) and panel.status == "Saved #1 ✓  Even"


def test_the_why_of_a_comparison_is_saved_and_nothing_late_reaches_the_next(log):
    panel = CompareAnswers([("q", "a", "b"), ("r", "c", "d")], log)
    line, serial = panel._why.line, panel._why.serial
    panel.rate(1)
    types(panel, panel._why, "because")
    panel.save()
    panel.next()
    line.value = "because"
    types(panel, panel._why, "late", serial)
    assert panel._why.text == panel._why.line.value == ""
    types(panel, panel._why, "no idea")
    panel.skip()
    assert [event["details"]["why"] for event in events(log)] == ["because", "no idea"]


def test_a_comparison_is_saved_once_and_closed(log):
    panel = CompareAnswers([("q", "a", "b")], log)
    panel.save()
    assert panel.status == "NOT SAVED: choose a rating first"
    panel.next()
    assert panel.status == "Save or skip this one first." and panel.session.view is not None
    panel.both_bad()
    assert panel.save() == panel.save() == 1
    for change in (lambda: panel.rate(1), panel.both_bad, panel.skip):
        change()
        assert "this one is saved" in panel.status
    assert len(events(log)) == 1 and panel._guard.aria["rk-save"]["aria-disabled"] == "true"
    panel.undo()
    assert panel.session.view.both_bad and "✓ Both bad" in shown(panel)
    panel.both_bad()
    panel.rate(1)
    panel.save()
    (said,) = log.comparisons()
    assert abs(said.rating) == 1 and not said.both_bad


def test_a_wrong_rating_is_refused(log):
    panel = CompareAnswers([("q", "a", "b")], log)
    panel.rate(5)
    assert panel.status == "NOT DONE: rating=5: a whole number from -3 (left) to +3 (right)"
    assert panel.session.view.rating is None


def test_keys_of_comparing(log, clock):
    panel = CompareAnswers([("q", "a", "b"), ("r", "c", "d")], log)
    press = lambda key: panel._key(None, {"key": key, "slot": None}, None)  # noqa: E731
    clock[0] += 1
    press("7")
    assert panel.session.view.rating == 3
    press("0")
    assert panel.session.view.both_bad
    press("save")
    press("save")
    assert panel.session.view.saved == 1  # the sources can be read
    clock[0] += 1
    press("save")
    assert len(events(log)) == 1 and panel.session.view.query == "r"


def test_a_comparison_that_fails_stays(log, full):
    panel = CompareAnswers([("q", "a", "b", hits("secret"))], log)
    panel.rate(3)
    full(True)
    panel.save()
    assert panel.status.startswith("NOT SAVED: No space") and panel.session.view.saved is None
    assert "Sources" not in shown(panel)
    full(False)
    assert panel.save() == 1 and len(log.comparisons()) == 1


# What a click costs


@pytest.mark.parametrize("ranks", [True, False])
def test_a_click_looks_into_the_log_once_and_no_judgement_is_made_twice(assistant, log, monkeypatch, ranks):
    made, looks = [], []
    make, refresh = preference_log.from_event, Session.refresh
    monkeypatch.setattr(preference_log, "from_event", lambda e: (made.append(e["event_id"]), make(e))[1])
    monkeypatch.setattr(Session, "refresh", lambda session: (looks.append(1), refresh(session))[1])
    other = PreferenceLog(log.folder, log.annotator)  # another kernel of the same person
    queries, pairs = [f"{n}?" for n in range(8)], [(f"{n}?", "a", "b") for n in range(8)]
    panel = RankDocuments(assistant, queries, log) if ranks else CompareAnswers(pairs, log)
    for n, click in enumerate([panel.save, panel.skip, panel.save, panel.undo, panel.save]):
        other.record(Skip(f"elsewhere {n}", str(n)))
        clicks = [click]
        if not ranks and click == panel.save:
            panel.rate(1)
            clicks.append(panel.next)
        for each in clicks:
            looks.clear()
            each()  # an undo looks before, what is the latest, and after, what stands now
            assert panel.error is None and len(looks) == (2 if each == panel.undo else 1)
    assert len(set(made)) == len(made) >= 8


# What Jupyter shows


@pytest.mark.parametrize("make", [RankDocuments, CompareAnswers, ChatApp])
def test_a_panel_is_shown_as_a_widget_and_where_no_kernel_is_as_a_picture(assistant, log, make, monkeypatch):
    arguments = {
        RankDocuments: [assistant, ["a?"]],
        CompareAnswers: [[("a?", "b", "c")]],
        ChatApp: [assistant],
    }
    panel = make(*arguments[make], log)
    data, metadata = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"] == f"<{make.__name__}: run this cell to use it>"
    assert base64.b64decode(data["image/png"]) == (PICTURES / panel.PICTURE[0]).read_bytes()
    assert metadata["image/png"]["alt"].startswith("The ")
    monkeypatch.setattr("ragkit.widgets.panel.PICTURES", log.folder)  # where the notebooks are not
    data, metadata = panel._repr_mimebundle_()
    assert "image/png" not in data and metadata == {} and len(data) >= 2


def test_no_part_asks_for_an_icon_or_holds_a_view_of_its_own(assistant, log):
    """Icons would come from another host's font; what is shown is the session's view and nothing else."""
    panel = RankDocuments(assistant, ["a?"], log)
    assert not [parts for parts in panel._slots for part in parts.values() if getattr(part, "icon", "")]
    assert not [value for value in vars(panel).values() if isinstance(value, View)]


# What the browser gets


@pytest.fixture
def module_folder():
    return Path(ragkit.__file__).parent


@pytest.mark.skipif(shutil.which("node") is None, reason="no node")
def test_the_script_is_javascript(module_folder):
    for script in module_folder.rglob("*.js"):  # from standard input: a file of that name would be no module
        check = ["node", "--check", "--input-type=module"]
        done = subprocess.run(check, input=script.read_bytes(), capture_output=True)
        assert done.returncode == 0, done.stderr.decode()


def test_the_style_is_css_and_all_of_it_is_used(module_folder):
    """Of each class with our prefix that a style is for, the code must speak."""

    def walk(nodes):
        for node in nodes:
            assert node.type != "error", (node.source_line, node.message)
            yield node
            for inner in ("prelude", "content"):
                yield from walk(getattr(node, inner, None) or [])

    style = "".join(path.read_text(encoding="utf-8") for path in sorted(module_folder.rglob("*.css")))
    rules = tinycss2.parse_stylesheet(style, skip_whitespace=True)
    for rule in rules:
        if rule.type == "qualified-rule":
            list(walk(tinycss2.parse_blocks_contents(rule.content)))
    used = {node.value for node in walk(rules) if node.type == "ident" and node.value.startswith("rk-")}
    code = "".join(path.read_text(encoding="utf-8") for path in module_folder.rglob("*.[pj][ys]"))
    assert len(used) > 20 and not {name for name in used if not re.search(rf"{name[3:]}\b", code)}


def test_what_is_installed_has_all_files(module_folder):
    root = module_folder.parent
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = find_packages(str(root), include=settings["packages"]["find"]["include"])
    folders = {root / name.replace(".", "/") for name in packages}
    data = ["*.py", *settings["package-data"]["*"]]
    files = {path for path in module_folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert files and not {f for f in files if f.parent not in folders or not any(map(f.match, data))}
