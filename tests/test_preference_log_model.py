"""The log against a plain model of it: any order of records, undos, retries, restarts and kernels.

And what a reader keeps between reads against a first read of the same files, whatever happened to them.
"""

import pytest

pytest.importorskip("hypothesis")
import json
import os
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ragkit.preferences.events import to_event
from ragkit.preferences.judgements import Comparison, Feedback, Ranking, Skip
from ragkit.preferences.log import PreferenceLog
from ragkit.retrieval.corpus import Passage

DOCS = [Passage("c1", "one"), Passage("c2", "two")]
kernels = some.sampled_from([("ann", 0), ("ann", 1), ("bob", 0)])
queries = some.sampled_from("pqr")


class Log(RuleBasedStateMachine):
    """The model: a list of (kernel, judgement, undone), newest last."""

    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.logs, self.said, self.sessions = {}, [], {}

    def teardown(self):
        for log in self.logs.values():
            log.close()
        self.folder.cleanup()

    def log(self, kernel):
        if kernel not in self.logs:
            self.logs[kernel] = PreferenceLog(self.folder.name, kernel[0])
        return self.logs[kernel]

    def record(self, kernel, judgement):
        self.log(kernel).record(judgement)
        session = self.sessions.setdefault(kernel, object())
        views = [row["view"] for row in self.said if not row["undone"]]
        if (view := judgement.details.get("view_id")) and view in views:
            return  # a retry
        key = kernel[0], judgement.kind, judgement.item, judgement.details.get("repeat_of")
        self.said.append(
            {
                "session": session,
                "who": kernel[0],
                "judgement": judgement,
                "key": key,
                "view": view,
                "undone": False,
            }
        )

    @rule(
        kernel=kernels,
        query=queries,
        tiers=some.sampled_from([[[0], [1]], [[1], [0]], [[0, 1]]]),
        view=some.sampled_from([None, "v", "w"]),
        repeat=some.sampled_from([None, "x"]),
    )
    def rank(self, kernel, query, tiers, view, repeat):
        details = ({"view_id": view} if view else {}) | ({"repeat_of": repeat} if repeat else {})
        self.record(kernel, Ranking(query, DOCS, tiers, details=details))

    @rule(kernel=kernels, query=queries, rating=some.integers(-3, 3))
    def compare(self, kernel, query, rating):
        self.record(kernel, Comparison(query, "a", "b", rating))

    @rule(kernel=kernels, query=queries)
    def skip(self, kernel, query):
        self.record(kernel, Skip(query, query))

    @rule(kernel=kernels)
    def restart(self, kernel):
        if kernel in self.logs:
            self.logs.pop(kernel).close()
            self.sessions.pop(kernel, None)

    @rule(kernel=kernels)
    def undo(self, kernel):
        standing = [row for row in self.standing() if row["who"] == kernel[0]]
        session = self.sessions.get(kernel)
        here = [row for row in standing if session is not None and row["session"] is session]
        found = self.log(kernel).undo()
        assert (found is None) == (not standing)
        if standing:
            (here or standing)[-1]["undone"] = True
            self.sessions.setdefault(kernel, object())

    def standing(self):
        latest = {}
        for row in self.said:
            if not row["undone"]:
                latest.pop(row["key"], None)
                latest[row["key"]] = row
        return list(latest.values())

    @invariant()
    def what_stands_is_what_was_said(self):
        if not hasattr(self, "logs"):
            return
        reader = PreferenceLog(self.folder.name, "reader")
        wanted = [row["judgement"] for row in self.standing()]
        for log in (reader, *self.logs.values()):
            for kind, found in (
                (Ranking, log.rankings()),
                (Comparison, log.comparisons()),
                (Skip, log.skipped()),
            ):
                mine = [j for j in wanted if isinstance(j, kind)]
                assert [(j.query, getattr(j, "tiers", 0), getattr(j, "rating", 0)) for j in found] == [
                    (j.query, getattr(j, "tiers", 0), getattr(j, "rating", 0)) for j in mine
                ]
        assert reader.problems() == []


TestLog = Log.TestCase
TestLog.settings = settings(max_examples=60, stateful_step_count=20, deadline=None, derandomize=True)


files = some.sampled_from("abc")
numbers = some.integers(1, 9)
ids = some.sampled_from(["e1", "e2", "e3", "e4", "e5"])


class Files(RuleBasedStateMachine):
    """Lines come late and twice, are torn, cut off and replaced; one reader looks often, one now and then."""

    @initialize()
    def start(self):
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.often, self.seldom = (PreferenceLog(self.folder, "ann") for _ in range(2))

    def teardown(self):
        self.place.cleanup()

    def path(self, file):
        return self.folder / f"{file}.jsonl"

    def append(self, file, seq, **event):
        names = {"schema": 1, "seq": seq, "session": file, "annotator": "ann"}
        with open(self.path(file), "a") as out:
            out.write(json.dumps(names | event) + "\n")

    @rule(
        file=files,
        seq=numbers,
        name=ids,
        query=queries,
        view=some.sampled_from([None, None, "v", "w"]),
        repeat=some.sampled_from([None, "x"]),
        kind=some.sampled_from([Ranking, Comparison, Skip]),
    )
    def say(self, file, seq, name, query, view, repeat, kind):
        what = {Ranking: (DOCS, [[seq % 2]]), Comparison: ("a", "b", seq % 4), Skip: (query,)}[kind]
        details = ({"view_id": view} if view else {}) | ({"repeat_of": repeat} if repeat else {})
        self.append(file, seq, event_id=name, **to_event(kind(query, *what, details=details)))

    @rule(file=files, seq=numbers, name=ids)
    def take_back(self, file, seq, name):
        self.append(file, seq, event_id=f"undo {file} {seq}", kind="undo", target=name)

    @rule(file=files, text=some.sampled_from(['{"schema": 1', "\n", "[]\n", "{}\n", '{"schema": 9}\n']))
    def write_something_else(self, file, text):
        with open(self.path(file), "a") as out:
            out.write(text)

    @rule(file=files, share=some.sampled_from([0, 0.3, 0.7, 1]))
    def cut(self, file, share):
        if self.path(file).exists():
            os.truncate(self.path(file), int(self.path(file).stat().st_size * share))

    @rule(file=files, other=files)
    def replace_by_a_copy(self, file, other):
        if self.path(other).exists():
            (self.folder / "new").write_bytes(self.path(other).read_bytes())
            os.replace(self.folder / "new", self.path(file))

    @rule(file=files)
    def remove(self, file):
        self.path(file).unlink(missing_ok=True)

    def found(self, log):
        try:
            judgements = log.judgements(Ranking, Comparison, Feedback, Skip)
            kept = log.judgements(Ranking, Comparison, Feedback, Skip)
            assert all(one is other for one, other in zip(judgements, kept, strict=True))
            return judgements, log.problems(), log._fold.last
        except ValueError as error:
            return str(error)

    @rule()
    def look(self):
        assert self.found(self.seldom) == self.found(PreferenceLog(self.folder))

    @invariant()
    def look_often(self):
        if hasattr(self, "often"):
            assert self.found(self.often) == self.found(PreferenceLog(self.folder))


TestFiles = Files.TestCase
TestFiles.settings = settings(max_examples=150, stateful_step_count=25, deadline=None, derandomize=True)
