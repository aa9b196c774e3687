"""Comparisons shown, judged, kept and exported, beside feedloop; and what is left of them after a kill -9."""

import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.sides import Side, installed, timed
from tests.benchmarks.table import Row, spoken


def collect_side(name: str, folder: str, threads: int):
    """Shows `comparisons` pairs one after another, judges each, and exports all that is there."""
    show, judge, export = {"ragkit": _collect_ours, "feedloop": _collect_feedloop}[name](folder)
    done = len(export())

    def work(comparisons):
        nonlocal done
        each = []
        for n in range(done, done + comparisons):
            show(f"question {n}?", f"answer {n}", f"another answer {n}")
            each.append(timed(judge)[1])
        done += comparisons
        kept, seconds = timed(export)
        return {"each": sorted(each)[len(each) // 2] if each else 0, "export": seconds, "kept": len(kept)}

    return work


def _collect_ours(folder):
    from ragkit.preferences.compare_session import ComparisonSession
    from ragkit.preferences.export import to_trl
    from ragkit.preferences.log import PreferenceLog
    from ragkit.preferences.pairs import pairs_of

    log, session = PreferenceLog(folder), None

    def show(*pair):
        nonlocal session
        session = ComparisonSession([pair], log, repeat_share=0)
        session.next()

    def judge():
        session.rate(2)
        session.save()

    return show, judge, lambda: to_trl(pairs_of(log.comparisons())) if log.comparisons() else []


def _collect_feedloop(folder):
    """Through its own functions and the handlers of its page, without the network between them."""
    import contextlib
    import io

    import feedloop
    from feedloop._db import Database
    from feedloop._models import FeedbackRequest
    from feedloop._routes import get_pending, post_feedback, set_db

    path = Path(folder) / "feedloop.db"
    feedloop._db, feedloop._server, feedloop._session_id = Database(path), object(), "one"
    set_db(feedloop._db)

    def show(prompt, a, b):
        feedloop.compare(prompt, [a, b])

    def judge():
        post_feedback(FeedbackRequest(comparison_id=get_pending("one").id, chosen_side="left"))

    def export():
        with contextlib.redirect_stdout(io.StringIO()):
            feedloop.export(str(path.with_suffix(".jsonl")))
        return path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()

    return show, judge, export


def collect(threads: int, comparisons: tuple[int, int], kills: int) -> list[Row]:
    """A comparison shown, judged and kept, then all of them exported; then a process is killed while it
    goes on, and what it had acknowledged is looked for."""
    names, took, lost = ["ragkit", "feedloop"], {}, {}
    for name in filter(installed, names):
        ready = partial(Side, "collect", name, threads=1)
        for number in comparisons:
            with tempfile.TemporaryDirectory() as place, ready(folder=place) as side:
                took[name, number] = side(comparisons=number)
        lost[name] = 0
        for _ in range(kills):
            with tempfile.TemporaryDirectory() as place:
                side = ready(folder=place)
                known = [side(comparisons=1)["kept"] for _ in range(5)][-1]
                side.kill()
                with ready(folder=place) as again:
                    lost[name] += known - again(comparisons=0)["kept"]
    last = comparisons[-1]

    def said(name):
        one = took[name, last]
        exported = f"{spoken(one['export'])} to export {last}"
        return f"{spoken(one['each'])}; {exported}; lost by {kills} kills: {lost[name]}"

    grows = " → ".join(f"{n}: {spoken(took['ragkit', n]['each'])}" for n in comparisons)
    theirs = said("feedloop") if ("feedloop", last) in took else ""
    return [Row("collect: a comparison shown, judged, kept", said("ragkit"), "feedloop", theirs, grows=grows)]


FEATURES = """
| what is collected, and how | ragkit | feedloop 1.5.3 |
| --- | --- | --- |
| two answers: which is better | yes | yes |
| by how much; both bad | yes | no |
| rankings of documents, with ties; thumbs with a note | yes | no |
| who stands left is drawn at random, and kept | yes | yes |
| some shown twice, to see how consistent a person is | yes | no |
| undo | yes, also after a restart | no |
| several annotators in one store | yes, a file each | no names |
| exported as | TRL, Argilla, Label Studio | TRL's DPO |
| kept in | JSON lines, append-only, on disk before it says so | SQLite |
| shown in | Jupyter, Voilà | a page of its own, which needs no notebook |
| hides what a model is sure of | no; asks what teaches most | yes, by a number that you give |

"""
