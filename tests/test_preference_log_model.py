"""The log against a plain model of it: any order of records, undos, retries, restarts and kernels."""

import pytest

pytest.importorskip("hypothesis")
import tempfile

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ragkit.corpus import Passage
from ragkit.judgements import Comparison, Ranking, Skip
from ragkit.preference_log import PreferenceLog

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
