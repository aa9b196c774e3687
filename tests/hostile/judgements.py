"""What people said: names and judgements on their way into a log, foreign files in its folder, files of others."""

import gzip
import json
import os

from ragkit.evaluation.measures import evaluate, load_qrels, load_queries
from ragkit.preferences.formats import from_trl, read_judgements
from ragkit.preferences.judgements import Comparison, Feedback, Ranking, Skip
from ragkit.preferences.log import PreferenceLog
from ragkit.preferences.pairs import pairs_of
from ragkit.retrieval.corpus import Hit, Passage
from tests.hostile import Door, nothing, refused

NAN, INF = float("nan"), float("inf")
PASSAGES = [Passage("a", "one"), Passage("b", "two")]


def ranking(**fields) -> Ranking:
    return Ranking(**{"query": "q", "passages": PASSAGES, "tiers": [[0], [1]]} | fields)


def by(name, world):
    """One ranking by this person; what lies in the log's folder then, and beside it."""
    (world.folder / "log").mkdir()
    PreferenceLog(world.folder / "log", name).record(ranking())
    (again,) = PreferenceLog(world.folder / "log").rankings()
    return again.annotator == name, [path.name for path in world.folder.rglob("*") if path.name != "log"]


def in_one_safe_file(out) -> bool:
    kept, (file,) = out
    return (
        kept
        and file.endswith(".jsonl")
        and not set(file) & set('/\\:*?"<>|\0\n\x1b\u202e~$')
        and len(file) < 70
    )


NAMES = (
    *((f"{name[:20]!r}", name, in_one_safe_file) for name in (
        "../../x", "/etc/passwd", "..", ".", "...", "a/b", "a\\b", "C:\\x", "a\0b", "CON", "NUL.txt", "x.", "x ..",
        ".hidden", "~root", "a*?<>|", "-rf", "$(id)", "`id`", "%2e%2e%2f", "x" * 5000, "🙂", "\u202egnp", "a\nb",
        "\x1b[31m", "\ud800", "me\u200b", "<b>",
    )),
    *((repr(name), name, refused("annotator=.*: a name, without spaces around it"))
      for name in ("", "  ", " me", "me ", "\tme", None, 5, b"me", ["me"])),
)  # fmt: skip


def said(make, world):
    judgement = make()
    log = PreferenceLog(world.folder / "log")
    log.record(judgement)
    again = PreferenceLog(world.folder / "log")
    return again.judgements(type(judgement)), again.problems()


def one_stands(out) -> bool:
    judgements, problems = out
    return len(judgements) == 1 and not problems


UNSAVED = "NOT SAVED: .*"
SAID = (
    ("HTML and escapes in the answers", lambda: Comparison("q", "<b>", "\x1b[0m", 1), one_stands),
    ("half of a letter in the query", lambda: ranking(query="\ud800"), one_stands),
    ("a null character in the query", lambda: ranking(query="a\0b"), one_stands),
    ("a query of 1 MB", lambda: ranking(query="x" * 10**6), one_stands),
    ("an id that leads away", lambda: ranking(passages=[Passage("../../x", "x"), PASSAGES[1]]), one_stands),
    ("one id twice", lambda: ranking(passages=[PASSAGES[0], Passage("a", "zwei")]), one_stands),
    ("scores of 1e308", lambda: ranking(scores=[1e308, -1e308]), one_stands),
    ("an event that leads away", lambda: ranking(event_id="../../x"), one_stands),
    ("details that name a schema", lambda: ranking(details={"schema": 99}), one_stands),
    ("no query", lambda: ranking(query=None), refused(UNSAVED)),
    ("texts for passages", lambda: ranking(passages=["a", "b"]), refused("passages\\[0\\] is a str, not a Passage")),
    ("no passages", lambda: ranking(passages=None), refused("passages=None: a list of passages")),
    ("a number for an id", lambda: ranking(passages=[Passage(5, "x"), PASSAGES[1]]), refused(UNSAVED)),
    ("nothing for a text", lambda: ranking(passages=[Passage("a", None), PASSAGES[1]]), refused(UNSAVED)),
    ("NaN in the metadata", lambda: ranking(passages=[Passage("a", "x", "", {"v": NAN}), PASSAGES[1]]), refused(UNSAVED + "JSON")),
    ("a place that is not there", lambda: ranking(tiers=[[2]]), refused("tiers=\\[\\[2\\]\\]: 2 is no index into 2")),
    ("a place before the first", lambda: ranking(tiers=[[-1]]), refused("-1 is no index")),
    ("a place beyond all", lambda: ranking(tiers=[[10**30]]), refused("is no index into 2 passages")),
    ("one place twice", lambda: ranking(tiers=[[0, 0]]), refused("passage 0 stands in them twice")),
    ("NaN for a place", lambda: ranking(tiers=[[NAN]]), refused("tiers: nan is not a whole number")),
    ("a text for the tiers", lambda: ranking(tiers="ab"), refused("tiers: 'a' is not a whole number")),
    ("one list for the tiers", lambda: ranking(tiers=[0, 1]), refused("a list of lists of indices")),
    ("no tiers", lambda: ranking(tiers=None), refused("tiers=None: a list of lists")),
    ("an order too short", lambda: ranking(shown_order=[0]), refused("shown_order=\\[0\\]: not an order of 2")),
    ("NaN for a score", lambda: ranking(scores=[NAN, 1]), refused("scores: nan is not a finite number")),
    ("infinity for a score", lambda: ranking(scores=[INF, 1]), refused("scores: inf is not a finite number")),
    ("texts for scores", lambda: ranking(scores=["a", "b"]), refused("scores: 'a' is not a finite number")),
    ("nothing for a score", lambda: ranking(scores=[None, 1]), refused("scores: None is not a finite number")),
    ("a score too few", lambda: ranking(scores=[1]), refused("1 scores for 2 passages")),
    ("NaN in the details", lambda: ranking(details={"x": NAN}), refused(UNSAVED + "JSON")),
    ("a set in the details", lambda: ranking(details={"x": {1}}), refused(UNSAVED + "JSON")),
    ("details nested too deep", lambda: ranking(details={"x": nested(100_000)}), refused(UNSAVED + "recursion")),
    ("no details", lambda: ranking(details=None), refused("details=None: a dict")),
    ("rewards too few", lambda: ranking(details={"rewards": [1]}), refused("rewards=\\[1\\]: a number, or None, for each of 2")),
    ("texts for rewards", lambda: ranking(details={"rewards": ["x", 1]}), refused("'x' among rewards, margin and target")),
    ("a text for a margin", lambda: Comparison("q", "a", "b", 1, details={"margin": "x"}), refused("'x' among rewards")),
    ("a number for a view", lambda: ranking(details={"view_id": 5}), refused(UNSAVED)),
    ("a number for an event", lambda: ranking(event_id=5), refused(UNSAVED + "event_id is 5")),
    ("a rating of 4", lambda: Comparison("q", "a", "b", 4), refused("rating=4: a whole number from -3")),
    ("NaN for a rating", lambda: Comparison("q", "a", "b", NAN), refused("rating: nan is not a whole number")),
    ("a text for a rating", lambda: Comparison("q", "a", "b", "1"), refused("rating: '1' is not a whole number")),
    ("nothing for an answer", lambda: Comparison("q", None, "b", 1), refused(UNSAVED)),
    ("“no” for both bad", lambda: Comparison("q", "a", "b", 1, "no"), refused("both_bad='no': True or False")),
    ("“no” for good", lambda: Feedback("q", "a", "no"), refused("good='no': True or False")),
    ("nothing for a note", lambda: Feedback("q", "a", True, None), refused(UNSAVED)),
    ("a text for a hit", lambda: Comparison("q", "a", "b", 1, hits=["x"]), refused(UNSAVED)),
    ("NaN for a hit's score", lambda: Comparison("q", "a", "b", 1, hits=[Hit(PASSAGES[0], NAN, 1)]), refused(UNSAVED)),
    ("a text for a hit's rank", lambda: Comparison("q", "a", "b", 1, hits=[Hit(PASSAGES[0], 1.0, "x")]), refused(UNSAVED)),
    ("nothing for what was skipped", lambda: Skip("q", None), refused(UNSAVED)),
    ("a text for a judgement", lambda: "rank", refused("str: a Ranking, Comparison, Feedback, Skip or Exchange", TypeError)),
)  # fmt: skip


def nested(depth: int) -> list:
    held: list = []
    for _ in range(depth):
        held = [held]
    return held


EVENT = {
    "schema": 1, "seq": 1, "session": "s", "annotator": "ann", "event_id": "e", "kind": "rank", "item": "i",
    "query": "q", "details": {}, "shown_order": None, "ranking": [[0], [1]],
    "candidates": [{"id": p.id, "title": "", "text": p.text, "score": None} for p in PASSAGES],
}  # fmt: skip
WHOLE = json.dumps(EVENT).encode() + b"\n"


def a_log(given, world):
    """A whole file and what is beside it: what stands, what can't be read, and whether one more can be said."""
    at = world.folder / "log"
    world.file("log/whole.jsonl", WHOLE)
    given(at) if callable(given) else world.file("log/foreign.jsonl", given)
    log = PreferenceLog(at)
    stands = len([*log.rankings(), *log.comparisons(), *log.feedback()])
    pairs_of([*log.rankings(), *log.comparisons(), *log.feedback()])
    number = PreferenceLog(at).record(ranking(query="more"))
    return stands, log.problems(), number


def odd(**fields) -> bytes:
    return json.dumps(EVENT | {"event_id": "odd", "item": "odd"} | fields).encode() + b"\n"


def reported(why: str):
    """The whole file stands alone, the problem is told with file and line, and the log goes on."""

    def safe(out) -> bool:
        stands, problems, number = out
        return (
            stands == 1
            and number == 2
            and any(p.startswith("foreign.jsonl:1: ") and why in p for p in problems)
        )

    safe.__name__ = f"reported: {why}"
    return safe


def stands(count: int):
    def safe(out) -> bool:
        found, problems, number = out
        return found == count and not problems and number >= 2

    safe.__name__ = f"{count} stand, and no problem"
    return safe


def document(**fields) -> dict:
    return {"candidates": [one | fields for one in EVENT["candidates"]]}


FOLDERS = (
    ("a corpus", b'{"_id": "a", "text": "b"}\n', reported("not an event of this log")),
    ("a picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), reported("not JSON")),
    ("a pickle", b"\x80\x04\x95.\n", reported("not JSON")),
    ("UTF-16", odd().decode().encode("utf-16"), reported("not JSON")),
    ("Latin-1", odd(query="X").replace(b"X", b"\xe9"), reported("not JSON")),
    ("half of a line, at the end", WHOLE[:50], reported("torn")),
    ("half of a line, at the start", WHOLE[50:], reported("not JSON")),
    ("null bytes, as after a crash", b"\0" * 4096, reported("torn")),
    ("a line of null bytes", b"\0" * 99 + b"\n", reported("not JSON")),
    ("line ends of old", odd().replace(b"\n", b"\r"), reported("torn")),
    ("line ends of Windows", odd().replace(b"\n", b"\r\n"), stands(2)),
    ("a mark in front", b"\xef\xbb\xbf" + odd(), stands(2)),
    ("separators of lines", odd(query="a\u2028b\x85c"), stands(2)),
    ("blank lines", b"\n\n" + odd() + b"\n", stands(2)),
    ("nothing", b"", stands(1)),
    ("a line of 1 MB", odd(query="x" * 10**6), stands(2)),
    ("the same event again", WHOLE * 3, stands(1)),
    ("half of a letter", odd(query="\ud800"), stands(2)),
    ("100,000 lists in each other", b"[" * 100_000 + b"]" * 100_000 + b"\n", reported("recursion")),
    ("a number of 5,000 digits", odd(seq="N").replace(b'"N"', b"9" * 5000), reported("digits")),
    ("the largest number", odd(seq=10**4000), reported("an event whose seq is 1000")),
    ("NaN for a number", odd(seq=NAN), reported("an event whose seq is nan")),
    ("a number below 0", odd(seq=-5), reported("an event whose seq is -5")),
    ("true for a number", odd(seq=True), reported("an event whose seq is True")),
    ("a schema of tomorrow", odd(schema=2), refused("foreign\\.jsonl:1: schema 2, .*update ragkit, or move that file")),
    ("a text for a schema", odd(schema="1"), refused("schema '1', and this ragkit reads 1")),
    ("a kind that is none", odd(kind="rm -rf"), stands(1)),
    ("infinity for a score", odd(**document(score=INF)), reported("a score of inf")),
    ("a list for the metadata", odd(**document(metadata=[1])), reported("metadata is [1]")),
    ("a number for a text", odd(**document(text=5)), reported("no text")),
    ("no documents", odd(candidates=None), reported("a broken rank event")),
    ("a text for the tiers", odd(ranking="ab"), reported("a broken rank event")),
    ("a list for the details", odd(details=[]), reported("a broken rank event")),
    ("a list for a view", odd(details={"view_id": [1]}), reported("a broken rank event")),
    ("rewards too few", odd(details={"rewards": [1]}), reported("a number, or None, for each of 2")),
    ("a list for an item", odd(item=["x"]), reported("a broken rank event")),
    ("a number for an answer", odd(kind="pair", candidates=[], answer_a=5, answer_b="b", rating=1, both_bad=False), reported("a broken pair event")),
    ("“no” for a thumb", odd(kind="chat_feedback", candidates=[], answer="a", good="no", note=""), reported("good='no': True or False")),
    ("a list for a note", odd(kind="chat_feedback", candidates=[], answer="a", good=True, note=[]), reported("a broken chat_feedback event")),
    ("an undo of nothing", odd(kind="undo", target="nothing"), stands(1)),
    ("an undo of itself", odd(kind="undo", target="odd"), stands(1)),
    ("other files", lambda at: (at / "notes.txt").write_text("hi"), stands(1)),
    ("a folder called like a log", lambda at: (at / "b.jsonl").mkdir(), stands(1)),
    ("a link to another file of it", lambda at: (at / "b.jsonl").symlink_to(at / "whole.jsonl"), stands(1)),
    ("a link to nowhere", lambda at: (at / "b.jsonl").symlink_to("/nonexistent"), stands(1)),
    ("a link to itself", lambda at: (at / "b.jsonl").symlink_to(at / "b.jsonl"), stands(1)),
    ("a link to the folder", lambda at: (at / "b.jsonl").symlink_to(at), stands(1)),
    ("a link to a device", lambda at: (at / "b.jsonl").symlink_to("/dev/null"), stands(1)),
    ("a pipe that nobody writes to", lambda at: os.mkfifo(at / "b.jsonl"), stands(1)),
)  # fmt: skip


def rows(given, world):
    """Judgements of rows, and the pairs that are trained on."""
    found = read_judgements(given)
    pairs_of(found)
    return found


PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
TWO = {"prompt": "q", "first": "a", "second": "b"}
MANY = {"prompt": "q", "answers": ["a", "b", "c"]}
THUMB = {"prompt": "q", "completion": "a"}
ARGILLA = {"fields": {"prompt": "q", "response-1": "a", "response-2": "b"}}
STUDIO = {"data": {"prompt": "q", "items": [{"id": "a", "body": "x"}]}}


def argilla(*values) -> list[dict]:
    return [ARGILLA | {"responses": {"r": [{"user_id": "../../x", "value": value} for value in values]}}]


def studio(*results) -> list[dict]:
    return [STUDIO | {"annotations": [{"completed_by": "<b>", "result": list(results)}]}]


def ranker(**buckets) -> dict:
    return {"type": "ranker", "value": {"ranker": buckets}}


def one_judgement(found) -> bool:
    return len(found) == 1


ROWS = (
    *((f"{value!r} for a prompt", [PAIR | {"prompt": value}], refused("row 0: (no 'prompt'|a text or a list of messages|a message without)"))
      for value in (None, 5, "", "  ", [], ["x"], NAN, [{"role": "user"}], [None], b"x")),
    *((f"{value!r} for the chosen one", [PAIR | {"chosen": value}], refused("row 0: (no 'chosen'|a text or a list of messages|a message without)"))
      for value in (None, 5, [], {}, True, [{"content": 5}])),
    ("half of a letter in an answer", [PAIR | {"chosen": "\ud800"}], one_judgement),
    ("one text for both", [PAIR | {"chosen": "b"}], refused("row 0: chosen and rejected are the same text: 'b'")),
    ("a judge whose name leads away", [PAIR | {"annotator": "../../x"}], one_judgement),
    *((f"{str(value)[:9]} for a margin", [PAIR | {"margin": value}], refused("row 0: margin is .*, not a finite number"))
      for value in ("x", INF, True, [], 10**400)),
    ("NaN for a margin, as a gap", [PAIR | {"margin": NAN}], one_judgement),
    ("1e308 for a reward", [PAIR | {"score_chosen": 1e308}], one_judgement),
    ("a target of 2", [PAIR | {"target": 2}], refused("pair 0: target 2 is not a probability")),
    ("a number for a context", [PAIR | {"context": [5]}], refused("row 0: a passage is a text, or has one: not 5")),
    ("infinity for a context's score", [PAIR | {"context": [{"text": "x", "score": INF}]}], refused("score is inf, not a finite")),
    ("a number for a context's title", [PAIR | {"context": [{"text": "x", "title": 5}]}], lambda found: found[0].hits[0].passage.title == "5"),
    *((f"{str(value)[:9]} for a vote", [TWO | {"score": value}, TWO | {"score": -1}], refused("row 0: (rating=|a vote of)"))
      for value in (4, -4, INF, "A", True, 0.5, 1e308)),
    *((f"{value} for a vote", [TWO | {"score": value}, TWO | {"score": -1}], refused("row 0: two answers without a vote on them"))
      for value in (NAN, None)),  # a gap, as tables have it
    *((f"{str(value)[:12]} for ranks", [MANY | {"ranks": value}], refused("row 0: (a rank is|.* ranks and|the answers have neither)"))
      for value in ([1, 2], [NAN] * 3, [INF, 1, 2], ["a", "b", "c"], None, "abc", [1, 2, 3, 4], [True, False, True], [10**400, 1, 2])),
    ("a text for the answers", [MANY | {"answers": "ab", "ranks": [1, 2]}], refused("row 0: answers are a list, not 'ab'")),
    ("a number for an answer", [MANY | {"answers": [5], "ranks": [1]}], refused("row 0: a text or a list of messages")),
    ("one answer at two ranks", [MANY | {"answers": ["a", "a"], "ranks": [1, 2]}], refused("one text stands at two ranks")),
    ("a thumb called up", [THUMB | {"label": "up"}], refused("a thumb of 'up': write labels=")),
    ("a thumb of 1", [THUMB | {"label": 1}], refused("a thumb of 1: write labels=")),
    ("infinity for a reward", [THUMB | {"reward": INF}], refused("a score is inf, not a finite number")),
    ("a field of Argilla's that is not there", argilla(["nope"]), refused("row 0: 'r' ranks 'nope'; fields are")),
    ("a number for an answer of Argilla's", argilla(5), refused("question 'r' is no ranking")),
    ("a text for a rank of Argilla's", argilla([{"value": "response-1", "rank": "x"}]), refused("a rank is 'x'")),
    ("a user of Argilla's whose name leads away", argilla(["response-1", "response-2"]), lambda found: found[0].annotator == "../../x"),
    ("an item of Label Studio's that is not there", studio(ranker(**{"1": ["zz"]})), refused("row 0: not Label Studio's format")),
    ("buckets of Label Studio's without worth", studio(ranker(good=["a"], bad=[])), refused("buckets good, bad: say what each is worth")),
    ("one item in two buckets", studio(ranker(**{"1": ["a"], "2": ["a"]})), refused("passage 0 stands in them twice")),
    ("a bucket of 5,000 digits", studio(ranker(**{"9" * 5000: ["a"], "1": []})), refused("row 0: .*digits")),
    ("a result of Label Studio's without a type", studio({}), refused("row 0: not Label Studio's format")),
    ("no row", [], nothing),
    ("an empty row", [{}], refused("row 0: columns : name those that hold the answers")),
    *((f"{value!r} for a row", [value], refused("row 0 is a .*, not a mapping")) for value in (None, 5, "x", b"x", [1])),
    ("one row for the rows", PAIR, refused("row 0 is a str, not a mapping: \\[{column: value}, …\\]")),
    ("nothing for the rows", None, refused("row 0 is a NoneType, not a mapping")),
)  # fmt: skip


def foreign(given, world):
    name, data = given
    return from_trl(world.file(name, data))


FILES = (
    ("an array of rows", ("a.json", json.dumps([PAIR])), one_judgement),
    ("nothing", ("a.jsonl", b""), nothing),
    ("half of an array", ("a.json", b'[{"prompt": "q"'), refused("a\\.json: not a JSON array")),
    ("numbers in an array", ("a.json", b"[1]"), refused("a\\.json, item 0: a JSON int, not an object")),
    ("100,000 lists in each other", ("a.json", b"[" * 100_000), refused("a\\.json: not a JSON array .*recursion")),
    ("objects that never close", ("a.jsonl", b'{"a":' * 50_000), refused("a\\.jsonl, line 1: .*recursion")),
    ("a number of 5,000 digits", ("a.json", b'[{"prompt": ' + b"9" * 5000 + b"}]"), refused("a\\.json: .*digits")),
    ("Latin-1", ("a.json", '[{"prompt": "é"}]'.encode("latin-1")), refused("a\\.json: .*utf-8")),
    ("UTF-16", ("a.jsonl", json.dumps(PAIR).encode("utf-16")), refused("a\\.jsonl, line 1: .*utf-8")),
    ("no gzip", ("a.jsonl.gz", b"xx"), refused("a\\.jsonl\\.gz: not a whole gzip file")),
    ("half of a gzip", ("a.json.gz", gzip.compress(json.dumps([PAIR]).encode())[:-9]), refused("not a whole gzip file")),
    ("a table of commas", ("a.csv", b"prompt,chosen,rejected\nq,a,b\n"), refused("a\\.csv: a table, and JSON is read here: .* pandas\\.read_csv")),
    ("a pickle", ("a.jsonl", b"\x80\x04."), refused("a\\.jsonl, line 1: 'utf-8' codec")),
)  # fmt: skip


def qrels(given, world):
    data, *columns = given if isinstance(given, tuple) else (given,)
    return load_qrels(world.file("q.tsv", data), **({"columns": columns} if columns else {}))


def one_grade(found) -> bool:
    return [grade for grades in found.values() for grade in grades.values()] == [1]


LINE = "line 1: not query, passage and grade"
QRELS = (
    ("with a mark", b"\xef\xbb\xbfq\td\t1\n", one_grade),
    ("ends of lines of Windows", "q\td\t1\r\n", one_grade),
    ("an id that leads away", "../../q\t/etc/passwd\t1\n", one_grade),
    ("an id with a separator of lines", "q\u2028x\td\x0c\t1\n", one_grade),
    ("an id with a null character", "q\0\td\t1\n", one_grade),
    ("nothing", "", nothing),
    ("a header alone", "query-id\tcorpus-id\tscore\n", nothing),
    ("NaN", "q\td\tnan\n", refused(f"{LINE}.*grade nan is not a whole number")),
    ("infinity", "q\td\tinf\n", refused(f"{LINE}.*grade inf")),
    ("1e308", "q\td\t1e308\n", refused(f"{LINE}.*not a whole number within")),
    ("half a grade", "q\td\t0.5\n", refused("grade 0.5 is not a whole number.*scale the grades first")),
    ("a word", "q\td\tyes\n", refused(f"{LINE}.*'yes'")),
    ("a grade of 5,000 digits", "q\td\t" + "9" * 5000 + "\n", refused(LINE)),
    ("two columns", "q\td\n", refused(f"{LINE}.*name others by a header")),
    ("TREC's four columns", "q 0 d 1\n", refused(f"{LINE}.*or by `columns`")),
    ("a run of TREC's", "q Q0 d 1 0.5 tag\n", refused(LINE)),
    ("a second grade", "q\td\t1\nq\td\t2\n", refused("line 2: a second grade for passage 'd' of query 'q'")),
    ("Latin-1", b"q\xe9\td\t1\n", refused("q\\.tsv: not UTF-8 text .*save it as UTF-8")),
    ("UTF-16", "q\td\t1\n".encode("utf-16"), refused("q\\.tsv: not UTF-8 text")),
    ("columns that are none", ("q\td\t1\n", "a", "b", "c"), refused("columns=.*: without 'grade'")),
)  # fmt: skip


def queries(given, world):
    return load_queries(world.file("q.jsonl", given))


QUERIES = (
    ("no id", '{"text": "x"}', refused("line 1: a query needs `_id` and a string `text`, not {'text': 'x'}")),
    ("null for an id", '{"_id": null, "text": "x"}', refused("line 1: a query needs `_id`")),
    ("a list for an id", '{"_id": ["1"], "text": "x"}', refused("line 1: a query needs `_id`")),
    ("a number for a text", '{"_id": "1", "text": 5}', refused("line 1: a query needs")),
    ("one id for two queries", '{"_id": "1", "text": "x"}\n{"_id": 1, "text": "y"}', refused("line 2: the id 1 stands already at another query")),
    ("one query twice", '{"_id": "1", "text": "x"}\n{"_id": 1, "text": "x"}', lambda found: found == {"1": "x"}),
)  # fmt: skip


def measured(given, world):
    run, grades, *measures = given
    return evaluate({"q": run}, {"q": grades}, measures or ("nDCG@10",))


MEASURED = (
    ("NaN for a score", ({"d": NAN}, {"d": 1}), refused("run of query 'q': the score of passage 'd' is nan")),
    ("a text for a score", ({"d": "x"}, {"d": 1}), refused("the score of passage 'd' is 'x'")),
    ("nothing for a score", ({"d": None}, {"d": 1}), refused("the score of passage 'd' is None")),
    ("infinity and 1e308 for scores", ({"d": INF, "e": 1e308}, {"d": 1}), lambda out: out["nDCG@10"]["q"] == 1.0),
    ("a number beyond floats for a score", ({"d": 10**400, "e": 1}, {"d": 1}), lambda out: out["nDCG@10"]["q"] == 1.0),
    ("NaN for a grade", ({"d": 1.0}, {"d": NAN}), refused("qrels of query 'q': grade nan is not a whole number")),
    ("1e308 for a grade", ({"d": 1.0}, {"d": 1e308}), refused("grade 1e\\+308 is not a whole number within")),
    ("2**40 for a grade", ({"d": 1.0}, {"d": 2**40}), refused("grade 1099511627776 is not a whole number within")),
    ("a text for a grade", ({"d": 1.0}, {"d": "1"}), refused("grade '1' is not a whole number")),
    ("ids with breaks and halves of letters", ({"\ud800\n\0": 1.0}, {"\ud800\n\0": 1}), lambda out: out["nDCG@10"]["q"] == 1.0),
    ("a cutoff of 0", ({"d": 1.0}, {"d": 1}, "nDCG@0"), refused("unknown measure .*cutoff")),
    ("a cutoff beyond all", ({"d": 1.0}, {"d": 1}, "nDCG@99999999999999999999"), refused("unknown measure .*cutoff")),
    ("code for a measure", ({"d": 1.0}, {"d": 1}, "__import__('os')"), refused("unknown measure")),
    ("nothing for a measure", ({"d": 1.0}, {"d": 1}, ""), refused("unknown measure")),
)  # fmt: skip

DOORS = (
    Door("an annotator's name", by, NAMES),
    Door("a judgement", said, SAID),
    Door("a log's folder", a_log, FOLDERS),
    Door("rows of preferences", rows, ROWS),
    Door("a file of preferences", foreign, FILES),
    Door("a qrels file", qrels, QRELS),
    Door("a file of queries", queries, QUERIES),
    Door("a run that is measured", measured, MEASURED),
)
