"""Which item comes next, what is logged, and what undo brings back: without Jupyter."""

import random

import pytest

from ragkit.evaluation.agreement import chose_left, self_consistency, shown_first_effect
from ragkit.generation.answer import Answer
from ragkit.preferences import rank_session as tiers
from ragkit.preferences.compare_session import ComparisonSession
from ragkit.preferences.judgements import Ranking
from ragkit.preferences.log import PreferenceLog
from ragkit.preferences.rank_session import RankingSession
from ragkit.retrieval.corpus import Hit, Passage
from tests.helpers import hits


def find(query: str, k: int = 3) -> list[Hit]:
    return [Hit(Passage(f"{query}-{i}", f"text {i} of {query}"), 1.0 - i / 10, i + 1) for i in range(k)]


def queries(size: int) -> list[str]:
    return [f"q{number}" for number in range(size)]


def pairs(size: int) -> list[tuple]:
    return [(f"q{n}", f"first {n}", f"second {n}", hits("one", "two")) for n in range(size)]


def walk(session, judge=lambda session: session.save()) -> list:
    """Every view of the session, each judged."""
    views = []
    while view := session.next():
        views.append(view)
        judge(session)
    return views


# The order


@pytest.mark.parametrize(
    "before, slot, by, after",
    [
        ([[0], [1], [2]], 2, -1, [[0], [2], [1]]),
        ([[0], [1], [2]], 0, 2, [[1], [2], [0]]),
        ([[0], [1], [2]], 0, -1, [[0], [1], [2]]),  # at the end it stays
        ([[0], [1], [2]], 1, 9, [[0], [2], [1]]),
        ([[0, 1], [2]], 2, -1, [[2], [0, 1]]),  # past all of a tie
        ([[0, 1], [2]], 1, -1, [[1], [0], [2]]),  # out of its tie
        ([[0, 1], [2]], 0, 1, [[1], [0], [2]]),
        ([[0, 1, 2]], 1, 2, [[0, 2], [1]]),
        ([[0], [1]], 0, 0, [[0], [1]]),
    ],
)
def test_moving(before, slot, by, after):
    assert tiers.move(before, slot, by) == after


@pytest.mark.parametrize(
    "before, slot, target, after",
    [
        ([[0], [1], [2]], 2, 0, [[2], [0], [1]]),
        ([[0], [1], [2]], 0, 1, [[1], [0], [2]]),
        ([[0], [1], [2]], 1, 1, [[0], [1], [2]]),
        ([[0, 1], [2]], 2, 1, [[0], [2], [1]]),  # a tie is cut
        ([[0, 1, 2]], 0, 0, [[0], [1, 2]]),
        ([[0, 1], [2]], 2, 0, [[2], [0, 1]]),
    ],
)
def test_giving_a_place(before, slot, target, after):
    assert tiers.place(before, slot, target) == after


@pytest.mark.parametrize(
    "before, slot, after",
    [
        ([[0], [1], [2]], 0, [[0], [1], [2]]),
        ([[0], [1], [2]], 1, [[0, 1], [2]]),
        ([[0], [1, 2]], 1, [[0, 1, 2]]),
        ([[0, 1, 2]], 1, [[0], [1, 2]]),
        ([[0, 1, 2]], 2, [[0, 1], [2]]),
    ],
)
def test_tying(before, slot, after):
    assert tiers.tie(before, slot) == after


@pytest.mark.parametrize("change", [tiers.move, tiers.place])
@pytest.mark.parametrize("slot", [-1, 3])
def test_a_slot_that_is_not_there(change, slot):
    with pytest.raises(IndexError, match="of 3, counted from 0"):
        change([[0], [1, 2]], slot, 1)


@pytest.mark.parametrize("seed", range(20))
def test_no_document_is_ever_lost(seed):
    """2,000 random presses: all documents stay, each once, and no argument is changed."""
    draw, order = random.Random(seed), [[0], [1], [2], [3], [4]]
    for _ in range(100):
        before = [list(tier) for tier in order]
        change = draw.choice([tiers.move, tiers.place, tiers.tie])
        more = [] if change is tiers.tie else [draw.randrange(5)]
        changed = change(order, draw.randrange(5), *more)
        assert order == before and sorted(tiers.flat(changed)) == [0, 1, 2, 3, 4] and all(changed)
        order = changed


def test_places_of_ties():
    assert tiers.places([[3], [0, 1], [2]]) == [1, 2, 2, 4]
    assert [tiers.is_tied([[3], [0, 1], [2]], slot) for slot in range(4)] == [False, False, True, False]


# What is asked


def test_every_query_once_and_one_in_ten_again_in_another_order(tmp_path):
    log = PreferenceLog(tmp_path)
    session = RankingSession(queries(40), find, log, seed=1)
    views = walk(session)
    first = [view for view in views if not view.repeat_of]
    again = [view for view in views if view.repeat_of]
    assert [view.query for view in first] == queries(40) and len(again) == 4
    by_item = {view.item: view for view in first}
    for view in again:
        before = by_item[view.item]
        assert view.order != before.order and sorted(view.order) == [0, 1, 2]
        assert views.index(view) - views.index(before) > 2  # not from memory
        (logged,) = [r for r in log.rankings() if r.item == view.item and not r.details.get("repeat_of")]
        assert view.repeat_of == logged.event_id
    assert str(session.progress) == "40 of 40, 4 repeats"
    assert self_consistency(log.rankings()).n == 4


@pytest.mark.parametrize("k", [2, 3])
def test_a_repeat_never_has_the_order_of_the_first_time(tmp_path, k):
    """Half of 60 items come back; of two documents one order is left."""
    settings = {"repeat_share": 0.5, "seed": 2}
    walk(RankingSession(queries(60), lambda q: find(q, k), log := PreferenceLog(tmp_path), **settings))
    first = {r.item: r.shown_order for r in log.rankings() if not r.details.get("repeat_of")}
    again = [r for r in log.rankings() if r.details.get("repeat_of")]
    assert len(again) == 30 and all(r.shown_order != first[r.item] for r in again)


def test_the_order_shown_says_nothing_of_the_retrievers(tmp_path):
    """Saved untouched, 300 items: each order about equally often, no effect of the retriever's order."""
    log = PreferenceLog(tmp_path)
    walk(RankingSession(queries(300), find, log, seed=0, repeat_share=0))
    orders = [tuple(ranking.shown_order) for ranking in log.rankings()]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6 and min(counts) > 25 and max(counts) < 80
    assert shown_first_effect(log.rankings()).mean == 0.5  # and who saves untouched is found out


def test_the_logged_seed_gives_the_order(tmp_path):
    log = PreferenceLog(tmp_path)
    walk(RankingSession(queries(12), find, log))
    for ranking in log.rankings():
        order = [0, 1, 2]
        random.Random(ranking.details["seed"]).shuffle(order)
        assert order == ranking.shown_order


def test_the_same_seed_shows_the_same_and_another_another(tmp_path):
    shown = []
    for place, seed in enumerate([1, 1, 2]):
        session = RankingSession(queries(20), find, PreferenceLog(tmp_path / str(place)), seed=seed)
        shown.append([(view.query, view.order) for view in walk(session)])
    assert shown[0] == shown[1] != shown[2]


def test_what_is_logged(tmp_path):
    log = PreferenceLog(tmp_path, "ann")
    session = RankingSession(["q"], find, log, seed=5, facts=lambda: {"encoder": "e"})
    view = session.next()
    view.tiers, view.why = [[2], [0, 1]], "because"
    assert session.save() == 1
    (ranking,) = log.rankings()
    assert ranking.tiers == [[2], [0, 1]] and ranking.scores == [1.0, 0.9, 0.8]
    assert [p.id for p in ranking.passages] == ["q-0", "q-1", "q-2"] and ranking.annotator == "ann"
    assert ranking.shown_order == view.order
    details = ranking.details
    assert details["view_id"] == view.view_id and details["encoder"] == "e" and details["why"] == "because"
    assert details["latency_ms"] >= 0 and details["seed"] == view.seed and "repeat_of" not in details


def test_a_restart_goes_on_where_it_stopped(tmp_path):
    """A new session and a new log object each time: the same items are asked, each once, repeats too."""
    asked = []
    for _ in range(100):
        session = RankingSession(queries(20), find, PreferenceLog(tmp_path))
        if (view := session.next()) is None:
            break
        asked.append((view.query, bool(view.repeat_of)))
        session.skip() if view.query == "q3" else session.save()
    assert [query for query, repeat in asked if not repeat] == queries(20)
    assert sum(repeat for _, repeat in asked) == 2 and len(set(asked)) == 22


def test_only_this_person_counts_and_only_these_documents(tmp_path):
    walk(RankingSession(queries(2), find, PreferenceLog(tmp_path, "bob")))
    walk(RankingSession(queries(2), lambda query: find(query, 2), PreferenceLog(tmp_path, "ann")))
    session = RankingSession(queries(2), find, PreferenceLog(tmp_path, "ann"))
    assert session.next().query == "q0" and str(session.progress) == "0 of 2, 0 repeats"


def test_choose_decides_what_comes_next(tmp_path):
    offered = []
    choose = lambda left: (offered.append(list(left)), left[-1])[1]  # noqa: E731
    session = RankingSession(queries(3), find, PreferenceLog(tmp_path), choose=choose)
    assert [view.query for view in walk(session)] == ["q2", "q1", "q0"]
    assert offered == [["q0", "q1", "q2"], ["q0", "q1"], ["q0"]]
    with pytest.raises(ValueError, match="choose gave 'x', which is not among the 3"):
        RankingSession(["a", "b", "c"], find, PreferenceLog(tmp_path), choose=lambda left: "x").next()


def test_queries_with_fewer_than_two_documents_are_left_out(tmp_path):
    found = {"none": 0, "one": 1, "two": 2}
    session = RankingSession(found, lambda query: find(query, found[query]), PreferenceLog(tmp_path))
    assert [view.query for view in walk(session)] == ["two"]
    assert str(session.progress) == "1 of 1, 0 repeats"
    assert sorted(session.left_out.values()) == [
        "1 document was found for “one”, and an order needs two",
        "no documents were found for “none”, and an order needs two",
    ]


@pytest.mark.parametrize("wrong", [[], [""], ["ok", None], [" "]])
def test_wrong_queries(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"no queries|query .*: a question"):
        RankingSession(wrong, find, PreferenceLog(tmp_path))


def test_wrong_share(tmp_path):
    with pytest.raises(ValueError, match="repeat_share=2"):
        RankingSession(["q"], find, PreferenceLog(tmp_path), repeat_share=2)


def test_a_query_that_comes_twice_is_asked_once(tmp_path):
    assert len(walk(RankingSession(["q", "r", "q"], find, PreferenceLog(tmp_path)))) == 2


# Undo and trouble


def test_undo_shows_the_item_again_as_it_was_and_then_the_one_that_was_open(tmp_path):
    log = PreferenceLog(tmp_path)
    session = RankingSession(queries(3), find, log)
    view = session.next()
    view.tiers = tiers.tie(view.tiers, 1)
    view.why = "same"
    session.save()
    opened = session.next()
    opened.tiers = tiers.move(opened.tiers, 2, -2)  # not saved yet, and not lost
    assert session.undo().query == "q0" and log.rankings() == []
    again = session.view
    assert (again.tiers, again.order, again.seed, again.why) == (view.tiers, view.order, view.seed, "same")
    assert again.view_id != view.view_id
    session.save()
    assert session.next() is opened


def test_undo_goes_back_over_restarts_skips_and_repeats(tmp_path):
    session = RankingSession(queries(12), find, PreferenceLog(tmp_path))
    walk(session, lambda s: s.skip() if s.view.query == "q7" else s.save())
    said = []
    for _ in range(13):  # 12 and one repeat
        session = RankingSession(queries(12), find, PreferenceLog(tmp_path))
        said.append((session.undo(), session.view))
    assert session.undo() is None and str(session.progress) == "0 of 12, 0 repeats"
    assert [view.query for judgement, view in said if not view.repeat_of] == queries(12)[::-1]
    for judgement, view in said:
        assert view.query == judgement.query and view.seed == judgement.details["seed"]
        if isinstance(judgement, Ranking):
            assert view.tiers == judgement.tiers and view.order == judgement.shown_order
    assert sum(bool(view.repeat_of) for _, view in said) == 1


def test_undo_leaves_what_was_said_elsewhere(tmp_path):
    """The latest word in the log is a comparison; undo in the ranking takes back the ranking."""
    log = PreferenceLog(tmp_path)
    ranking, comparing = RankingSession(["q"], find, log), ComparisonSession(pairs(1), log)
    walk(ranking)
    walk(comparing, lambda s: (s.rate(1), s.save()))
    assert ranking.undo().query == "q" and log.rankings() == [] and len(log.comparisons()) == 1
    assert ranking.undo() is None


def test_what_fails_can_be_saved_again_and_counts_once(tmp_path, monkeypatch):
    log = PreferenceLog(tmp_path)
    session = RankingSession(queries(2), find, log)
    view = session.next()
    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match="NOT SAVED"):
            session.save()
    assert session.view is view and view.saved is None and log.rankings() == []
    assert session.save() == session.save() and len(log.rankings()) == 1
    assert log.rankings()[0].details["view_id"] == view.view_id


def test_an_error_in_finding_the_next_keeps_what_is_shown(tmp_path):
    def sometimes(query):
        if query == "q1":
            raise OSError("the library is away")
        return find(query)

    session = RankingSession(queries(2), sometimes, PreferenceLog(tmp_path))
    view = session.next()
    session.save()
    with pytest.raises(OSError, match="away"):
        session.next()
    assert session.view is view and view.saved == 1


def test_what_was_read_before_an_error_is_not_counted_twice(tmp_path):
    broken, log = ["q3"], PreferenceLog(tmp_path)
    session = RankingSession(queries(6), lambda q: 1 / 0 if q in broken else find(q), log)
    other = RankingSession(queries(6), find, PreferenceLog(tmp_path))
    other.next(), other.save()
    session.next()
    walk(other)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            session.next()
    broken.clear()
    assert session.next() is None and len(session._judged) == len(log.rankings()) == 7


def test_what_one_kernel_ranked_and_another_skipped_is_no_repeat(tmp_path):
    ranked, skipped = (RankingSession(["q"], find, PreferenceLog(tmp_path)) for _ in range(2))
    ranked.next(), skipped.next()
    ranked.save(), skipped.skip()
    late = RankingSession(["q", *queries(9)], find, PreferenceLog(tmp_path), repeat_share=1)
    views = walk(late)
    assert "q" not in [view.query for view in views] and len(views) == 9 + 7


def test_a_library_that_finds_the_same_in_another_order_keeps_the_judgement(tmp_path):
    """Indices are into the logged passages; what is restored is the documents."""
    session = RankingSession(["q"], find, PreferenceLog(tmp_path))
    session.next().tiers = [[0], [1, 2]]
    session.save()
    turned = RankingSession(["q"], lambda query: find(query)[::-1], PreferenceLog(tmp_path))
    assert turned.next() is None
    turned.undo()
    assert turned.view.tiers == [[2], [1, 0]]


# Comparisons


def test_ratings_are_of_the_sides_shown(tmp_path):
    """Always the left, much: logged as −3 or, where the sides were swapped, +3."""
    log = PreferenceLog(tmp_path)
    session = ComparisonSession(pairs(40), log, seed=3, repeat_share=0)
    views = walk(session, lambda s: (s.rate(-3), s.save()))
    assert {view.swapped for view in views} == {True, False}
    for view, said in zip(views, log.comparisons()):
        assert said.rating == (3 if view.swapped else -3) and said.details["swapped"] is view.swapped
        assert said.answer_a.startswith("first") and len(said.hits) == 2
        assert view.sides[0] == (said.answer_b if view.swapped else said.answer_a)
        assert random.Random(said.details["seed"]).getrandbits(1) == view.swapped
    assert chose_left(log.comparisons()).mean == 1.0


def test_repeats_swap_sides(tmp_path):
    log = PreferenceLog(tmp_path)
    views = walk(ComparisonSession(pairs(30), log), lambda s: (s.rate(0), s.save()))
    first = {view.item: view.swapped for view in views if not view.repeat_of}
    again = [view for view in views if view.repeat_of]
    assert len(again) == 3 and all(view.swapped != first[view.item] for view in again)


def test_undo_of_a_comparison_brings_back_side_and_rating(tmp_path):
    for swapped_input in (False, True):
        log = PreferenceLog(tmp_path / str(swapped_input))
        session = ComparisonSession([("q", "a", "b")], log)
        session.next()
        left = session.view.sides[0]
        session.rate(-2)
        session.view.both_bad = True
        session.save()
        pair = ("q", "b", "a") if swapped_input else ("q", "a", "b")
        again = ComparisonSession([pair], log)
        again.undo()
        assert (again.view.sides[0], again.view.rating, again.view.both_bad) == (left, -2, True)
        again.save()
        assert log.comparisons()[0].details["swapped"] == (log.comparisons()[0].answer_b == left)


def test_both_bad_needs_no_rating_and_nothing_at_all_is_refused(tmp_path):
    log = PreferenceLog(tmp_path)
    session = ComparisonSession(pairs(1), log)
    session.next()
    with pytest.raises(ValueError, match="choose a rating first"):
        session.save()
    session.view.both_bad = True
    session.save()
    (said,) = log.comparisons()
    assert said.both_bad and said.rating == 0
    session.undo()
    assert session.view.both_bad and session.view.rating is None
    with pytest.raises(ValueError, match="rating=4"):
        session.rate(4)


def test_answers_may_be_answers_and_equal_ones_are_left_out(tmp_path):
    a, b = (Answer(name, [1], [], False) for name in ("one", "two"))
    session = ComparisonSession(
        [("q", a, b), ("q", "same", "same"), ("q", a, "two")], PreferenceLog(tmp_path)
    )
    assert len(walk(session, lambda s: (s.rate(1), s.save()))) == 1
    assert list(session.left_out.values()) == ["both answers to “q” are the same"]


@pytest.mark.parametrize(
    "wrong", [("q", "a"), ("q", "a", ""), ("q", 1, "b"), 5, ("", "a", "b"), (1, "a", "b")]
)
def test_wrong_pairs(tmp_path, wrong):
    with pytest.raises(ValueError, match="pair 0 is not"):
        ComparisonSession([wrong], PreferenceLog(tmp_path))
    with pytest.raises(ValueError, match="no pairs"):
        ComparisonSession([], PreferenceLog(tmp_path))
