"""The log: nothing acknowledged is lost, whatever happens, and what can't be read is reported."""

import errno
import json
import operator
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import ragkit.preferences.log
from ragkit.preferences.judgements import Comparison, Exchange, Feedback, Ranking, Skip
from ragkit.preferences.log import PreferenceLog
from ragkit.retrieval.corpus import Hit, Passage

DOCS = [Passage(f"c{i}", f"text {i}", f"title {i}", {"style": "code"}) for i in range(1, 4)]


def ranking(query="q", **settings):
    return Ranking(query, DOCS, **{"tiers": [[2], [0, 1]], **settings})


def lines(folder):
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_what_goes_in_comes_out(tmp_path):
    """Every field of every kind, with texts that are hard to write down."""
    hits = [Hit(DOCS[0], 0.5, 1)]
    nasty = 'a "quoted"\nline\u2028 ' + "損失 🙂 \x00 \x85 <img onerror=1> \ud800"
    said = [
        ranking(nasty, shown_order=[2, 0, 1], scores=[0.3, 0.2, 0.1], details={"seed": 3, "why": nasty}),
        Comparison("q", "a", nasty, -3, both_bad=True, hits=hits, details={"swapped": True}),
        Feedback("q", nasty, False, note="no", hits=hits),
        Skip("q", "item"),
    ]
    log = PreferenceLog(tmp_path, "ann")
    assert [log.record(judgement) for judgement in said] == [1, 2, 3, 4]
    again = PreferenceLog(tmp_path, "somebody else")
    for before, after in zip(
        said, again.rankings() + again.comparisons() + again.feedback() + again.skipped()
    ):
        assert after.annotator == "ann" and len(after.event_id) == 32
        assert replace(after, annotator="", event_id="") == before
    assert again.problems() == []


def test_an_event_can_be_read_alone(tmp_path):
    PreferenceLog(tmp_path).record(ranking(scores=[3, 2, 1]))
    (event,) = map(json.loads, lines(tmp_path))
    assert event["schema"] == 1 and event["kind"] == "rank" and event["ranking"] == [[2], [0, 1]]
    assert event["candidates"][2]["text"] == "text 3" and event["candidates"][0]["score"] == 3
    assert len(event["item"]) == 64 and event["ts"].endswith("+00:00")


def test_one_write_and_one_fsync_a_line(tmp_path, monkeypatch):
    log = PreferenceLog(tmp_path)
    log.record(ranking())
    calls = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda *a: (calls.append("write"), write(*a))[1])
    monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("fsync"), fsync(*a))[1])
    log.record(ranking("r"))
    assert calls == ["write", "fsync"]


def test_undo_is_a_tombstone_and_works_across_restarts(tmp_path):
    log = PreferenceLog(tmp_path, "ann")
    for query in "abc":
        log.record(ranking(query))
    assert log.undo() and [r.query for r in log.rankings()] == ["a", "b"]
    again = PreferenceLog(tmp_path, "ann")
    assert again.undo() and [r.query for r in again.rankings()] == ["a"]
    assert len(lines(tmp_path)) == 5  # nothing was taken out
    assert again.undo() and again.undo() is None and again.rankings() == []


def test_undo_takes_back_ones_own_words_alone(tmp_path):
    ann, bob = PreferenceLog(tmp_path, "ann"), PreferenceLog(tmp_path, "bob")
    ann.record(ranking("a"))
    bob.record(ranking("b"))
    assert ann.undo() and [r.query for r in ann.rankings()] == ["b"]
    assert ann.undo() is None


def test_undo_by_name(tmp_path):
    log = PreferenceLog(tmp_path, "ann")
    for query in "abc":
        log.record(ranking(query, event_id=f"event {query}"))
    assert log.undo("event b") == "event b" and [r.query for r in log.rankings()] == ["a", "c"]
    for name in ("event b", "nothing"):
        with pytest.raises(ValueError, match=f"event_id='{name}': no judgement of 'ann'"):
            log.undo(name)
    with pytest.raises(ValueError, match="no judgement of 'bob'"):
        PreferenceLog(tmp_path, "bob").undo("event a")


def test_undo_in_one_kernel_leaves_the_others_latest(tmp_path):
    """Two kernels of one person: undo means the click that was made here."""
    one, two = PreferenceLog(tmp_path), PreferenceLog(tmp_path)
    one.record(ranking("one"))
    two.record(ranking("two"))
    one.undo()
    assert [r.query for r in two.rankings()] == ["two"]


def test_the_latest_word_on_an_item_stands_and_undo_brings_back_the_one_before(tmp_path):
    log = PreferenceLog(tmp_path)
    log.record(ranking(tiers=[[0]]))
    log.record(ranking("other"))
    log.record(ranking(tiers=[[1]], shown_order=[2, 1, 0]))
    assert [(r.query, r.tiers) for r in log.rankings()] == [("other", [[2], [0, 1]]), ("q", [[1]])]
    log.undo()
    assert log.rankings()[0].tiers == [[0]]


def test_a_repeat_is_another_item_and_so_is_another_annotators(tmp_path):
    log = PreferenceLog(tmp_path, "ann")
    log.record(ranking())
    log.record(ranking(details={"repeat_of": "the first"}))
    PreferenceLog(tmp_path, "bob").record(ranking())
    assert len(log.rankings()) == 3


def test_a_retry_counts_once(tmp_path):
    log = PreferenceLog(tmp_path)
    for _ in range(3):
        log.record(ranking(details={"view_id": "v"}))
        log.record(ranking("r", event_id="e"))
    assert len(log.rankings()) == 2


def test_an_empty_event_id_is_never_a_double(tmp_path):
    log = PreferenceLog(tmp_path)
    log.record(ranking("a", event_id=""))
    log.record(ranking("b", event_id=""))
    assert len(log.rankings()) == 2


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, monkeypatch):
    """The later word stands, also from another kernel, though its clock is a year behind."""
    monkeypatch.setattr("ragkit.preferences.log._now", lambda: "2026-01-01T00:00:00+00:00")
    PreferenceLog(tmp_path).record(ranking(tiers=[[0]]))
    monkeypatch.setattr("ragkit.preferences.log._now", lambda: "2025-01-01T00:00:00+00:00")
    PreferenceLog(tmp_path).record(ranking(tiers=[[1]]))
    assert [r.tiers for r in PreferenceLog(tmp_path).rankings()] == [[[1]]]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_two_kernels_at_once_have_a_file_each_and_see_each_other(tmp_path, order):
    logs = [PreferenceLog(tmp_path), PreferenceLog(tmp_path)]
    numbers = [logs[kernel].record(ranking(str(n))) for n, kernel in enumerate(order * 3)]
    assert numbers == [1, 2, 3, 4, 5, 6] and len(list(tmp_path.glob("*.jsonl"))) == 2
    assert [r.query for r in logs[0].rankings()] == list("012345")


def test_a_fork_gets_a_file_of_its_own(tmp_path):
    log = PreferenceLog(tmp_path)
    log.record(ranking("parent"))
    if not (child := os.fork()):
        log.record(ranking("child"))
        os._exit(0)
    os.waitpid(child, 0)
    log.record(ranking("parent again"))
    assert [r.query for r in log.rankings()] == ["parent", "child", "parent again"]
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


# What can go wrong


def refused(log, judgement, reason):
    with pytest.raises(OSError, match=f"NOT SAVED: .*{reason}"):
        log.record(judgement)


def test_a_full_disk_is_told_and_nothing_torn_is_left(tmp_path, monkeypatch):
    """Half of a line fits: it is cut off again, the person is told, and the next click is saved."""
    log = PreferenceLog(tmp_path)
    log.record(ranking("a"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    refused(log, ranking("b"), "No space left")
    monkeypatch.undo()
    log.record(ranking("c"))
    assert [r.query for r in log.rankings()] == ["a", "c"] and log.problems() == []


def test_where_a_torn_line_cannot_be_cut_off_the_next_one_starts_anew(tmp_path, monkeypatch):
    log = PreferenceLog(tmp_path)
    log.record(ranking("a"))
    write = os.write

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    monkeypatch.setattr(os, "ftruncate", fail)
    refused(log, ranking("b"), "No space left")
    monkeypatch.undo()
    log.record(ranking("c"))
    for reader in (log, PreferenceLog(tmp_path)):
        assert [r.query for r in reader.rankings()] == ["a", "c"]
        (problem,) = reader.problems()
        assert ":2: not JSON" in problem


def test_a_failed_fsync_is_not_saved_and_a_retry_counts_once(tmp_path, monkeypatch):
    log, said = PreferenceLog(tmp_path), ranking("a", details={"view_id": "v"})
    log.record(ranking("first"))
    fsync, failures = os.fsync, [OSError(errno.EIO, "Input/output error")]

    def once(fd):
        if failures:
            raise failures.pop()
        return fsync(fd)

    monkeypatch.setattr(os, "fsync", once)
    refused(log, said, "Input/output error")
    log.record(said)
    assert [r.query for r in log.rankings()] == ["first", "a"]


def test_a_really_full_disk(tmp_path):
    """/dev/full accepts nothing: what the operating system itself says."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    log = PreferenceLog(tmp_path)
    log.record(ranking("a"))
    log._descriptor = os.open("/dev/full", os.O_WRONLY)
    refused(log, ranking("b"), "No space left")


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    refused(PreferenceLog(tmp_path / "file"), ranking(), "")
    refused(PreferenceLog("/proc/nowhere"), ranking(), "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_told(tmp_path):
    tmp_path.chmod(0o500)
    refused(PreferenceLog(tmp_path), ranking(), "Permission denied")


def test_a_deleted_file_is_noticed(tmp_path):
    """What is appended to a file without a name would be gone with the process."""
    log = PreferenceLog(tmp_path)
    log.record(ranking("a"))
    for path in tmp_path.glob("*.jsonl"):
        path.unlink()
    log.record(ranking("b"))
    assert [r.query for r in PreferenceLog(tmp_path).rankings()] == ["b"]


WRITER = """
import sys
from ragkit.preferences.judgements import Ranking
from ragkit.retrieval.corpus import Passage
from ragkit.preferences.log import PreferenceLog
log = PreferenceLog(sys.argv[1], sys.argv[2])
docs = [Passage(str(i), "word " * 200) for i in range(5)]
for n in range(100_000):
    log.record(Ranking(f"{sys.argv[2]} {n}", docs, [[0], [1, 2]]))
    print(n, flush=True)
"""


def test_kill_9_of_four_writers_loses_nothing_that_was_acknowledged(tmp_path):
    """Each writer prints a number once `record` has returned; after SIGKILL all of those are in the log."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "abcd"]
    for writer in writers:
        assert writer.stdout.readline() == "0\n"
    time.sleep(0.5)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    told = {
        f"{name} {n.strip()}" for name, w in zip("abcd", writers) for n in ["0", *w.communicate()[0].split()]
    }
    log = PreferenceLog(tmp_path)
    found = [r.query for r in log.rankings()]
    assert told <= set(found) and len(set(found)) == len(found) <= len(told) + 4
    torn = log.problems()
    assert len(torn) <= 4 and all("torn" in problem for problem in torn)
    print(f"{len(told)} events acknowledged, {len(found)} found, {len(torn)} lines torn, none lost")
    log.record(ranking("after"))
    assert log.rankings()[-1].query == "after"


def test_lines_that_are_no_events_are_reported_and_skipped(tmp_path):
    log = PreferenceLog(tmp_path, "ann")
    log.record(ranking("a"))
    (path,) = tmp_path.glob("*.jsonl")
    good = json.loads(path.read_text())
    bad = [
        "{half",
        "[1]",
        json.dumps({"text": "foreign"}),
        json.dumps({k: v for k, v in good.items() if k != "seq"}),
        json.dumps({**good, "event_id": "x", "ranking": [[7]]}),
        json.dumps({k: v for k, v in good.items() if k != "candidates"}),
        "\udcff",
    ]
    (tmp_path / "foreign.jsonl").write_bytes("\n".join(bad).encode("utf-8", "surrogateescape") + b"\n\n{")
    assert [r.query for r in log.rankings()] == ["a"]
    found = log.problems()
    assert [p.split(" ")[0] for p in found] == [f"foreign.jsonl:{n}:" for n in (1, 2, 3, 4, 5, 6, 7, 9)]
    assert "torn" in found[-1] and "7 is no index" in found[4]


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(tmp_path):
    writer, reader = PreferenceLog(tmp_path), PreferenceLog(tmp_path)
    writer.record(ranking("a"))
    (path,) = tmp_path.glob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert reader.rankings() == [] and len(reader.problems()) == 1
    path.write_bytes(whole)
    assert len(reader.rankings()) == 1 and reader.problems() == []


def test_a_file_that_another_took_the_place_of_is_read_anew(tmp_path):
    """As an editor saves: the last line is the same, and the first one says something else."""
    log = PreferenceLog(tmp_path)
    for query in "ab":
        log.record(ranking(query))
    log.rankings()
    (path,) = tmp_path.glob("*.jsonl")
    (tmp_path / "new").write_text(path.read_text().replace('"query":"a"', '"query":"c"'))
    os.replace(tmp_path / "new", path)
    assert [r.query for r in log.rankings()] == ["c", "b"]


def test_another_schema_is_refused_with_what_to_do(tmp_path):
    log = PreferenceLog(tmp_path)
    log.record(ranking())
    (path,) = tmp_path.glob("*.jsonl")
    (tmp_path / "newer.jsonl").write_text(path.read_text().replace('"schema":1', '"schema":2'))
    with pytest.raises(ValueError, match=r"newer\.jsonl:1: schema 2, .* update ragkit, or move that file"):
        log.rankings()


@pytest.mark.parametrize("name", ["", " ann", "../../etc/passwd", "Zoë 🙂", "a" * 200])
def test_any_name_is_safe_as_a_file(tmp_path, name):
    if name != name.strip() or not name:
        with pytest.raises(ValueError, match="annotator="):
            PreferenceLog(tmp_path, name)
        return
    PreferenceLog(tmp_path / "log", name).record(ranking())
    assert len(list((tmp_path / "log").glob("*.jsonl"))) == 1 and len(list(tmp_path.iterdir())) == 1
    assert PreferenceLog(tmp_path / "log").rankings()[0].annotator == name


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    log = PreferenceLog(tmp_path / "none")
    assert log.rankings() == [] and log.problems() == [] and log.undo() is None
    assert not (tmp_path / "none").exists()


def test_what_is_no_judgement_is_refused(tmp_path):
    with pytest.raises(TypeError, match="dict: a Ranking"):
        PreferenceLog(tmp_path).record({"query": "q"})


@pytest.mark.parametrize(
    "bad, why",
    [
        (Ranking("q", [Passage(1, "a"), Passage(2, "b")], [[0], [1]]), "a broken rank event"),
        (Ranking("q", [Passage("a", "a", None), Passage("b", "b")], [[0], [1]]), "a broken rank event"),
        (ranking(details={"view_id": [1]}), "a broken rank event"),
        (ranking(details={"repeat_of": 3}), "a broken rank event"),
        (ranking(details={"why": {1, 2}}), "that JSON can't hold"),
        (ranking(annotator=3), "an event whose annotator is 3"),
        (ranking(event_id=5), "an event whose event_id is 5"),
        (ranking(query=7), "that JSON can't hold"),
        (Comparison("q", "a", None, 1), "that JSON can't hold"),
    ],
)
def test_what_no_reader_could_take_is_not_saved(tmp_path, bad, why):
    log = PreferenceLog(tmp_path)
    with pytest.raises(ValueError, match=f"NOT SAVED: .*{why}"):
        log.record(bad)
    assert not list(tmp_path.iterdir()) and log.problems() == []
    assert log.record(ranking()) == 1 and len(log.rankings()) == 1


def test_numpy_values_are_written_as_pythons(tmp_path):
    hits = [Hit(DOCS[0], np.float32(0.5), np.int64(1))]
    log = PreferenceLog(tmp_path)
    log.record(Comparison("q", "a", "b", np.int64(1), both_bad=np.bool_(True), hits=hits))
    log.record(Feedback("q", "a", np.bool_(True), hits=hits))
    assert log.comparisons()[0].both_bad is True and log.feedback()[0].good is True
    assert log.feedback()[0].hits == [Hit(DOCS[0], 0.5, 1)]


@pytest.mark.parametrize(
    "change",
    [
        {"shown_order": [0, 0, 0]},
        {"shown_order": "abc"},
        {"shown_order": [0.0, 1.0, 2.0]},
        {"ranking": [[0.0], [1]]},
        {"ranking": 3},
        {"candidates": [{"id": "a", "title": "", "text": "", "score": "x"}]},
        {"details": {"view_id": [1]}},
        {"details": {"repeat_of": {}}},
        {"kind": "undo", "target": ["x"]},
        {"kind": "undo", "target": None},
        {"query": None},
    ],
)
def test_an_odd_line_is_reported_and_the_others_are_read(tmp_path, change):
    log = PreferenceLog(tmp_path)
    log.record(ranking("first", shown_order=[0, 1, 2]))
    (event,) = map(json.loads, lines(tmp_path))
    odd = event | {"seq": 2, "event_id": "odd", "item": "odd", "query": "odd"} | change
    (tmp_path / "odd.jsonl").write_text(json.dumps(odd) + "\n")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "dangling.jsonl").symlink_to(tmp_path / "nowhere")
    assert len(log.problems()) == 1 and "odd.jsonl:1: " in log.problems()[0]
    assert [r.query for r in log.rankings()] == ["first"]
    assert log.undo() and log.rankings() == []


def test_undo_takes_back_what_was_written_here_under_another_name(tmp_path):
    log = PreferenceLog(tmp_path, "me")
    log.record(ranking("mine"))
    log.record(ranking("annas", annotator="anna", event_id="a1"))
    assert log.undo() == "a1" and [r.query for r in log.rankings()] == ["mine"]
    PreferenceLog(tmp_path, "anna").record(ranking("her own", annotator="anna"))
    assert log.undo() and log.undo() is None and [r.query for r in log.rankings()] == ["her own"]


def test_folding_takes_time_in_proportion_to_the_events(tmp_path):
    """Written as lines, since fsync is what takes time; one in ten is an undo. Ten times the events take ten
    times as long, where a square would be a hundred."""
    seconds = {}
    for count in (3_000, 30_000):
        folder = tmp_path / str(count)
        log = PreferenceLog(folder)
        log.record(ranking("q0"))
        log.close()
        (path,) = folder.glob("*.jsonl")
        event = json.loads(path.read_text())
        with open(path, "a") as file:
            for n in range(1, count):
                names = {"seq": n + 1, "event_id": str(n), "item": str(n), "query": f"q{n}"}
                if n % 10 == 9:
                    names |= {"kind": "undo", "target": str(n - 1)}
                file.write(json.dumps(event | names, separators=(",", ":")) + "\n")
        times = []
        for _ in range(3):  # the best of three: the first one may pay for another test's garbage
            reader = PreferenceLog(folder)
            started = time.process_time()  # what other processes do on this machine does not count
            found = reader._standing()
            times.append(time.process_time() - started)
            assert len(found) == 0.8 * count
            del reader, found
        seconds[count] = min(times)
    assert seconds[30_000] < 40 * seconds[3_000]


# What it keeps in memory


def test_a_text_that_many_events_have_is_in_memory_once(tmp_path):
    """Of 300 events about the same three documents, by two people; and when a file is read anew."""
    known = {"section": "a", "sources": [{"title": "b" * 10_000, "year": 2020}]}
    long = [Passage(f"c{n}", "−" * 20_000 + str(n), f"title {n}", known | {"n": n}) for n in range(3)]
    hits, said = [Hit(passage, 0.5, n) for n, passage in enumerate(long, 1)], []
    for name in ("me", "anna"):
        log = PreferenceLog(tmp_path, name)
        for n in range(50):
            facts = {"encoder_fingerprint": "f" * 64, "view_id": f"{name} {n}"}
            log.record(Ranking(f"query {n}", long, [[2], [0, 1]], details=facts))
            log.record(Feedback(f"query {n}", "an answer", True, hits=hits))
            log.record(Exchange(f"query {n}", "an answer", hits))
        log.close()
    log = PreferenceLog(tmp_path)
    tracemalloc.start()
    for again in (False, True):
        if again:
            path = next(tmp_path.glob("anna-*.jsonl"))
            os.replace(shutil.copy(path, tmp_path / "copy"), path)
        said = log.judgements(Ranking, Feedback, Exchange)
        assert len(said) == 300
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2_000_000  # three texts of 40 kB, and 5 kB an event; one has 150 kB by itself
    passages = [p for one in said for p in getattr(one, "passages", [])] + [h.passage for h in said[1].hits]
    for name in ("text", "title", "metadata"):  # twice: those of the file that was read anew
        assert len({id(getattr(passage, name)) for passage in passages}) <= 2 * 3
    assert len({id(one.details["encoder_fingerprint"]) for one in said if "view_id" in one.details}) <= 2


def test_of_an_event_whose_judgement_is_made_only_its_place_in_the_log_is_kept(tmp_path):
    log = PreferenceLog(tmp_path)
    said = [ranking("a", details={"view_id": "v"}), Feedback("b", "yes", True, hits=[Hit(DOCS[0], 0.5, 1)])]
    for one in said:
        log.record(one)
    made = log.judgements(Ranking, Feedback)
    for event, one in zip(log._standing(), made, strict=True):
        names = {None, "seq", "session", "kind", "annotator", "event_id", "item", "details"}
        assert set(event) == names and event[None] is one and event["details"] is one.details
    assert all(map(operator.is_, log.judgements(Ranking, Feedback), made))  # and it is not made again
    log.record(ranking("a", tiers=[[0], [1, 2]]))
    assert [one.query for one in log.rankings()] == ["a"] and log.rankings()[0].tiers == [[0], [1, 2]]
    assert log.undo() and log.rankings() == made[:1]  # all events are folded anew
    assert log.undo() and log.feedback() == [] and log.rankings() == made[:1]


def test_two_threads_may_ask_for_the_same_judgement_at_once(tmp_path, monkeypatch):
    log, make = PreferenceLog(tmp_path), ragkit.preferences.log.from_event
    log.record(ranking("a"))

    def slow(event):  # another thread makes it meanwhile
        monkeypatch.setattr(ragkit.preferences.log, "from_event", make)
        assert [one.query for one in log.rankings()] == ["a"]
        return make(event)

    monkeypatch.setattr(ragkit.preferences.log, "from_event", slow)
    assert [one.query for one in log.rankings()] == ["a"] and log.rankings()[0].passages == DOCS


def test_two_threads_that_record_at_once_get_two_numbers(tmp_path, monkeypatch):
    log, write, numbers = PreferenceLog(tmp_path), PreferenceLog._write, []
    other = threading.Thread(target=lambda: numbers.append(log.record(ranking("b"))))

    def slow(log, line):  # the other thread comes before the line is there
        monkeypatch.setattr(PreferenceLog, "_write", write)
        other.start()
        other.join(0.2)
        write(log, line)

    monkeypatch.setattr(PreferenceLog, "_write", slow)
    numbers.append(log.record(ranking("a")))
    other.join()
    assert sorted(numbers) == [1, 2] and [one.query for one in log.rankings()] == ["a", "b"]


def test_what_is_alike_but_not_the_same_stays_apart(tmp_path):
    """1, 1.0 and True are equal in Python; a text may look like metadata, and these may be very deep."""
    deep: list = []
    for _ in range(400):
        deep = [deep]
    kinds = [{"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": deep}, {}]
    log = PreferenceLog(tmp_path)
    for n, metadata in enumerate(kinds):
        passages = [Passage("c", "text", "", metadata), Passage("d", repr(metadata), "", metadata)]
        log.record(Ranking(f"{n}", passages, [[0], [1]]))
    for one, metadata in zip(log.rankings(), kinds, strict=True):
        assert [repr(passage.metadata) for passage in one.passages] == [repr(metadata)] * 2
        assert one.passages[1].text == repr(metadata)
    assert log.problems() == []
