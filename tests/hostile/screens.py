"""What reaches a screen: the terminal gets no control character, a notebook no HTML but ours, neither a direction."""

import contextlib
import html.parser
import io
import re
import sys
import unicodedata
from unittest.mock import patch

from ragkit.__main__ import main
from ragkit.assistant import Turn
from ragkit.generation.answer import Answer
from ragkit.preferences.log import PreferenceLog
from ragkit.retrieval.corpus import Hit, Passage
from ragkit.retrieval.library import Library
from ragkit.widgets.chat import ChatApp
from ragkit.widgets.compare import CompareAnswers
from ragkit.widgets.figures import table
from ragkit.widgets.rank import RankDocuments
from tests.hostile import Door, refused

GOOD = "Beta controls how far DPO may move from the reference."
QUESTION = "What does beta control in DPO?"
TEXTS = {
    "a colour": "\x1b[31mred",
    "a title for the window": "\x1b]0;owned\x07",
    "a screen that is cleared": "\x1b[2J\x1b[H",
    "escapes of one character": "\x9b31m \x90q\x9c",
    "a link": "\x1b]8;;http://x\x1b\\click\x1b]8;;\x1b\\",
    "what goes back in the line": "\rOVER\b\b\b",
    "a bell and a null": "\x07\0",
    "a direction that is overridden": "\u202egnp.exe",
    "isolates that never end": "\u2066\u2067\u2068",
    "embeddings that never end": "\u202a\u202b",
    "delete": "\x7f",
    "half of a letter": "\ud800",
    "a script": "<script>alert(1)</script>",
    "a picture that calls": "<img src=x onerror=alert(1)>",
    "an end of ours": "</div></li></ul><h1>Trusted</h1>",
    "an attribute": '" onclick="alert(1)" x=\'',
    "entities": "&lt;b&gt; &#60;i&#62; &#x202e;",
    "a comment": "<!-- x -->",
    "markdown of a link": "[click](javascript:alert(1))",
}
STEERING = {
    *map(chr, [*range(10), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
}


def run(*arguments: str, typed: str = "") -> tuple[int, str]:
    """What a command gives and prints, both streams together."""
    out, before = io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(typed)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            return main(list(map(str, arguments))), out.getvalue()
    finally:
        sys.stdin = before


def asked(text, world):
    """A passage with the text in its id, title, section and words; asked, and then in a chat."""
    passage = Passage(f"id {text}", f"{GOOD} {text}", f"Title {text}", {"section": f"Section {text}"})
    Library.build([passage], world.encoder, progress=False).save(world.folder / "library")
    given = ("--library", world.folder / "library", "--generator", world.tiny_folder)
    question = f"{QUESTION} {readable(text)}"
    with (
        patch("ragkit.assistant.Encoder", lambda *_: world.encoder),
        patch("ragkit.assistant.Generator", lambda *_: world.tiny),
    ):
        chat = run("chat", *given, typed=f"{question}\nand {readable(text)}?\n\n")
        return run("ask", question, *given), chat


def readable(text: str) -> str:
    """As a terminal can give it."""
    return re.sub("[\0\n\r\ud800-\udfff]", "", text)


def plain(out) -> bool:
    """No control character but the line's end, no direction; the source is there, its star where it is cited."""
    return all(code == 0 and not STEERING & {*said} and "[1] Title" in said for code, said in out)


COMMANDS = (
    ("no folder", ("ask", "why?", "--library", "/nonexistent"), refused("ragkit: no library in '/nonexistent'")),
    ("a null character", ("ask", "why?", "--library", "a\0b"), refused(r"ragkit: no library in 'a\\x00b'")),
    ("no question", ("ask", " "), refused("ragkit: query=' ': a question")),
    ("no hit", ("ask", "why?", "--k", "0"), refused("ragkit: --k 0: at least one passage")),
    ("hits below 0", ("ask", "why?", "--k", "-1"), refused("ragkit: --k -1: at least one passage")),
    ("a generator that leads away", ("ask", "why?", "--generator", "../../x"), refused("ragkit: no generator '../../x'")),
    ("a reranker that is none", ("ask", "why?", "--generator", "tiny-rag-lm", "--reranker", "/none"), refused("ragkit: no reranker in '/none'")),
    ("an escape in a path", ("ask", "why?", "--library", "\x1b[31m"), refused("ragkit: no library in '\\\\x1b\\[31m'")),
    ("an encoder that leads away", ("index", "/nonexistent", "--encoder", "../../x"), refused("ragkit: no encoder '../../x'")),
)  # fmt: skip


def commanded(arguments, world):
    """A failure is one line, and no traceback; it is raised here, to be read as one."""
    code, said = run(*arguments)
    assert code == 2 and said.count("\n") == 1 and not STEERING & {*said}
    raise ValueError(said)


INDEXED = (
    ("nothing", {}, refused("ragkit: no passages in")),
    ("no text", {"a.md": b"\xe9"}, refused("ragkit: .*a\\.md \\(not UTF-8 text; save it as UTF-8")),
    ("null characters", {"a.txt": b"\0\0"}, refused("ragkit: .*null characters in it")),
    ("lists that never close", {"a.jsonl": b"[" * 99_999}, refused("ragkit: .*a\\.jsonl, line 1: .*recursion")),
    ("one id twice", {"c.jsonl": '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}'}, refused("line 2: the id 'a' stands already")),
    ("NaN", {"c.jsonl": '{"_id": "a", "text": "x", "v": NaN}'}, refused("no JSON file can hold .*nan")),
    ("an escape in a name", {"a\x1b[31m.md": b"\xe9"}, refused("ragkit: .*a\ufffd\\[31m\\.md")),
)  # fmt: skip


def indexed(files, world):
    (world.folder / "notes").mkdir()
    world.files({f"notes/{name}": data for name, data in files.items()})
    return commanded(("index", world.folder / "notes", "--out", world.folder / "library"), world)


# Notebooks


class Tags(html.parser.HTMLParser):
    """Every element and attribute there is, and what stands between them."""

    def __init__(self, text: str):
        super().__init__()
        self.seen, self.text = set(), ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.seen |= {tag, *(name for name, _ in attributes)}

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.seen.add("a comment")


OURS = set(
    """div span li ul details summary table caption tr th td class dir role aria-level aria-hidden title
draggable scope style a href aria-label aria-describedby data-source id open mark""".split()
)


def htmls(widget) -> list[str]:
    """The HTML of a widget and of all in it."""
    values = [widget.value] if type(widget).__name__ == "HTML" else []
    return values + [value for child in getattr(widget, "children", ()) for value in htmls(child)]


class Said:
    """An assistant that knows one turn."""

    generator = reranker = None

    def __init__(self, world, text: str):
        self.encoder, self.library = world.words, []
        passages = [Passage(f"id {text}", f"{GOOD} {text}", f"Title {text}"), Passage(f"{text} b", text, "")]
        self.hits = [Hit(passage, 1 / n, n) for n, passage in enumerate(passages, 1)]
        self.answer = Answer(f"{GOOD} {text}", [1], [], False)

    def find(self, query, k=3, **_):
        return self.hits

    def ask(self, query, k=3, **_):
        return Turn(query, None, self.hits, "", self.answer, {"generate": 0.0})


def panels(text, world):
    """All that the chat, the panel of rankings, that of comparisons and a table show of it."""
    assistant, name = Said(world, text), readable(text).strip() or "me"
    app = ChatApp(assistant, PreferenceLog(world.folder / "chat", name))
    app.ask(f"Question {text}")
    app.good(True, f"note {text}")
    app.ask(f"Another question {text}")
    app.rank()
    shown = htmls(app.box)
    rank = RankDocuments(
        assistant, [f"Question {text}"], PreferenceLog(world.folder / "rank", name), 2, seed=1
    )
    pair = (f"Question {text}", f"A {text}", assistant.answer, assistant.hits)
    compare = CompareAnswers([pair], PreferenceLog(world.folder / "compare", name), seed=1)
    compare.rate(1)
    compare.save()
    broken = ChatApp(assistant, PreferenceLog(world.folder / "broken", name))
    assistant.ask = lambda *_, **__: 1 / 0 if not text else (_ for _ in ()).throw(OSError(f"failed {text}"))
    broken.ask("why?")
    shown += [
        *htmls(rank.box),
        *htmls(compare.box),
        *htmls(broken.box),
        table([{text or "x": text}], text).data,
    ]
    labels = [
        value for panel in (app, rank, compare) for each in panel._aria.values() for value in each.values()
    ]
    errors = [panel.error for panel in (app, rank, compare)]
    return shown, labels, errors


def only_ours(out) -> bool:
    shown, labels, errors = out
    tags = [Tags(each) for each in shown]
    assert errors == [None] * 3
    assert not any(tag.seen - OURS for tag in tags), [tag.seen - OURS for tag in tags]
    said = "".join(tag.text for tag in tags) + "".join(labels)
    directing = {
        c for c in said if unicodedata.bidirectional(c) in ("LRO", "RLO", "LRE", "RLE", "LRI", "RLI", "FSI")
    }
    said.encode()  # no half of a letter, which a browser refuses
    return "Title" in said and "cited" in said and not directing


def printed(text: str):
    """No file of a library can hold half of a letter; all else comes out plain."""
    return refused("no JSON file can hold") if text == "\ud800" else plain


DOORS = (
    Door(
        "a passage in the terminal", asked, tuple((name, text, printed(text)) for name, text in TEXTS.items())
    ),
    Door("a command", commanded, COMMANDS),
    Door("a folder to index", indexed, INDEXED),
    Door("a text in a notebook", panels, tuple((name, text, only_ours) for name, text in TEXTS.items())),
)
