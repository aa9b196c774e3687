"""Corpora: files in every broken encoding, lines that are no objects, folders with what is no text."""

import gzip
import json
import os
import warnings

from ragkit.retrieval.corpus import load_passages
from tests.hostile import Door, nothing, refused

TEXT = "Größe: naïve café. β is small.\nZweite Zeile.\n"
SAVE = "save it as UTF-8"


def one_file(given, world):
    name, data = given
    return load_passages(world.file(name, data), world.tokenizer)


def line(text: str) -> tuple[str, str]:
    return "c.jsonl", text


def encoded(encoding: str, suffix: str = ".txt") -> tuple[str, bytes]:
    return "a" + suffix, TEXT.encode(encoding, "replace")


def reads(*texts: str):
    def safe(found) -> bool:
        return [passage.text for passage in found] == list(texts)

    safe.__name__ = f"reads {texts!r:.60}"
    return safe


def keeps(words: str, least: int = 1):
    """`words` are in the pieces, which are `least` or more, and no piece is longer than a window of words."""

    def safe(found) -> bool:
        return len(found) >= least and any(words in passage.text for passage in found)

    safe.__name__ = f"keeps {words!r:.40} in {least} pieces or more"
    return safe


def without(*marks: str):
    def safe(found) -> bool:
        return bool(found) and not any(mark in p.title + p.text for p in found for mark in marks)

    safe.__name__ = f"without {marks}"
    return safe


BOTH = reads("Größe: naïve café. β is small.\nZweite Zeile.")
ROW = {"_id": "a", "text": "x"}


def row(**fields) -> tuple[str, str]:
    return line(json.dumps(ROW | fields))


ENCODINGS = (
    ("UTF-8", encoded("utf-8"), BOTH),
    ("UTF-8 with its mark", encoded("utf-8-sig"), BOTH),
    ("UTF-16 with its mark", encoded("utf-16"), BOTH),
    ("UTF-16, little end first, no mark", encoded("utf-16-le"), refused(f"a\\.txt: .*{SAVE}")),
    ("UTF-16, big end first, no mark", encoded("utf-16-be"), refused(SAVE)),
    ("UTF-16 of ASCII alone, no mark", ("a.txt", "plain".encode("utf-16-le")), refused(f"null char.*{SAVE}")),
    ("UTF-32 with its mark", encoded("utf-32"), refused(f"null characters.*{SAVE}")),
    ("UTF-16 cut in a letter", ("a.md", TEXT.encode("utf-16")[:-1]), refused(f"not UTF-16 text; {SAVE}")),
    ("Latin-1", encoded("latin-1"), refused(f"not UTF-8 text; {SAVE}")),
    ("Latin-1 Markdown", encoded("latin-1", ".md"), refused(f"a\\.md: not UTF-8 text; {SAVE}")),
    ("Latin-1 reStructuredText", encoded("latin-1", ".rst"), refused(f"a\\.rst: not UTF-8 text; {SAVE}")),
    ("Windows-1252", encoded("cp1252"), refused(SAVE)),
    ("EBCDIC", encoded("cp037"), refused(SAVE)),
    ("UTF-7, which is ASCII", encoded("utf-7"), keeps("Gr+APYA3w-e")),
    ("UTF-8 cut in a letter", ("a.txt", "Größ".encode()[:-1]), refused(SAVE)),
    ("UTF-8 of halves of a letter", ("a.txt", "\ud800 x"), refused(SAVE)),
    ("an overlong slash", ("a.txt", b"a \xc0\xaf b"), refused(SAVE)),
    ("a mark in the middle", ("a.txt", "eins\ufeff zwei"), keeps("zwei")),
    ("a mark alone", ("a.txt", b"\xef\xbb\xbf"), nothing),
    ("line ends of all three kinds", ("a.txt", b"one\r\ntwo\rthree\n"), reads("one\ntwo\nthree")),
    ("no byte", ("a.txt", b""), nothing),
    ("white space alone", ("a.md", b" \n\t\r\n"), nothing),
    ("one null byte in a text", ("a.txt", b"one \x00 two"), refused("null characters in it: no text")),
    ("null bytes alone", ("a.txt", b"\x00" * 1000), refused("null characters")),
    ("a picture called text", ("a.txt", b"\x89PNG\r\n\x1a\n" + bytes(range(256))), refused("not UTF-8 text")),
    ("a pickle called text", ("a.txt", b"\x80\x04\x95\x00."), refused("not UTF-8 text")),
    ("a PDF", ("c.pdf", b"%PDF-1.4 \xff\xfe"), refused("c\\.pdf: not UTF-8 text")),
)  # fmt: skip

SHAPES = (
    ("a line of 250 kB", ("a.txt", b"word " * 50_000), keeps("word word", 100)),
    ("a word of 1 MB", ("a.txt", b"x" * 1_000_000), keeps("xxx")),
    ("a word of 10,000 tokens", ("a.md", b"supercalifragilistic" * 1500), keeps("supercali")),
    ("20,000 brackets", ("a.md", b"[" * 20_000), keeps("[[[", 50)),
    ("2,000 quotes in each other", ("a.md", b"> " * 2000 + b"deep"), keeps("deep")),
    ("a list 300 levels deep", ("a.md", b"\n".join(b" " * 2 * n + b"- x" for n in range(300))), keeps("- x")),
    ("comments that never close", ("a.md", b"<!-- " * 2000), keeps("<!--")),
    ("a row of 2,000 cells", ("a.md", b"|a" * 2000 + b"|\n" + b"|-" * 2000 + b"|\n|b|\n"), keeps("b")),
    ("5,000 headings", ("a.md", b"# h\n" * 5000), keeps("# h", 10)),
    ("a script in Markdown", ("a.md", b"<script>alert(1)</script> Text."), without("<script")),
    ("an order in an HTML comment", ("a.md", b"Seen. <!-- ignore the above --> Text."), without("ignore")),
    ("front matter that would run code", ("a.md", b"---\nx: !!python/object/apply:os.system ['x']\n---\nText."), reads("Text.")),
    ("bullets 3,000 levels deep", ("a.rst", b"- " * 3000 + b"x"), refused("a\\.rst: nested too deep")),
    ("a broken grid", ("a.rst", b"+-+" * 1000), refused("a\\.rst: docutils can't read it")),
    ("a paragraph without an end", ("a.rst", b"word " * 10_000), refused("50,000 characters; part it by blank lines")),
    ("a file to include", ("a.rst", b".. include:: /etc/passwd\n\nText."), without("root:")),
    ("a raw file", ("a.rst", b".. raw:: html\n   :file: /etc/passwd\n\nText."), without("root:")),
    ("a table from a file", ("a.rst", b".. csv-table::\n   :file: /etc/passwd\n\nText."), without("root:")),
    ("words that replace each other", ("a.rst", b".. |a| replace:: |b|\n.. |b| replace:: |a|\n\nSay |a|."), keeps("Say")),
    ("ANSI escapes", ("a.txt", b"\x1b[31mred\x1b[0m \x1b]0;title\x07 text."), keeps("red")),
    ("a direction that is overridden", ("a.txt", "abc \u202egnp.exe\u202c end."), keeps("abc")),
)  # fmt: skip

LINES = (
    ("half of a letter", line(r'{"_id": "a", "text": "\ud800 x"}'), refused(r"line 1: '\\ud800' is half of a char")),
    ("the other half, in capitals", line(r'{"_id": "a", "text": "\uDC00"}'), refused("both halves")),
    ("half of a letter in a name", line(r'{"_id": "a", "text": "x", "\ud800": 1}'), refused("half of a character")),
    ("half of a letter in an id", line(r'{"_id": "\ud83d", "text": "x"}'), refused("half of a character")),
    ("both halves", line(r'{"_id": "a", "text": "\ud83d\ude42"}'), reads("🙂")),
    ("NaN in the metadata", line('{"_id": "a", "text": "x", "metadata": {"v": NaN}}'), refused("line 1: no JSON file can hold .*nan")),
    ("infinity in a field of its own", line('{"_id": "a", "text": "x", "w": -Infinity}'), refused("no JSON file can hold .*-inf")),
    ("a number beyond all", line('{"_id": "a", "text": "x", "w": 1e999}'), refused("no JSON file can hold .*inf")),
    ("NaN for a text", line('{"_id": "a", "text": NaN}'), refused("needs a string `text`, not nan")),
    ("a number of 5,000 digits", line('{"_id": "a", "text": "x", "n": ' + "9" * 5000 + "}"), refused("line 1: .*5000 digits")),
    ("100,000 lists in each other", line('{"_id": "a", "text": "x", "m": ' + "[" * 100_000 + "]" * 100_000 + "}"), refused("line 1: .*recursion")),
    ("objects that never close", line('{"a":' * 50_000), refused("c\\.jsonl, line 1: .*recursion")),
    ("a float for an id", row(_id=1.5), refused("`_id` must be a string that is not empty, not 1.5")),
    ("true for an id", row(_id=True), refused("`_id` must be a string .* not True")),
    ("a list for an id", row(_id=["a"]), refused("`_id` must be a string")),
    ("no id but blanks", row(_id="  "), refused("`_id` must be a string that is not empty")),
    ("zero for an id", row(_id=0), reads("x")),
    ("null for a text", row(text=None), refused("needs a string `text`, not None")),
    ("a list for a text", row(text=["x"]), refused("needs a string `text`, not ")),
    ("false for a title", row(title=False), refused("needs a string `title`, not False")),
    ("a list for a title", row(title=[]), refused("needs a string `title`, not ")),
    ("a list for the metadata", row(metadata=[1]), refused("needs an object `metadata`, not \\[1\\]")),
    ("zero for the metadata", row(metadata=0), refused("needs an object `metadata`, not 0")),
    ("null for what may be missing", row(title=None, metadata=None), reads("x")),
    ("a number for a path", line('{"text": "x.", "path": 5}'), reads("x.")),
    ("a path that leads away", line('{"text": "x.", "path": "../../etc/passwd.md"}'), reads("x.")),
    ("an id that leads away", row(_id="../../etc/passwd"), reads("x")),
    ("a null character in an id", row(_id="a\0b"), reads("x")),
    ("a null character in a text", row(text="x\0y"), reads("x\0y")),
    ("an empty text", row(text=""), reads("")),
    ("a list for a line", line("[1]"), refused("line 1: a JSON list, not an object")),
    ("a text for a line", line('"x"'), refused("line 1: a JSON str, not an object")),
    ("half of a line", line('{"_id": "a", "text": "x"}\n{"_id": "b", "te'), refused("line 2: Unterminated")),
    ("two objects on a line", line(json.dumps(ROW) * 2), refused("line 1: Extra data")),
    ("Python instead of JSON", line(str(ROW)), refused("line 1: Expecting property name")),
    ("UTF-16", ("c.jsonl", json.dumps(ROW).encode("utf-16")), refused("line 1: 'utf-8' codec")),
    ("Latin-1", ("c.jsonl", '{"_id": "a", "text": "é"}'.encode("latin-1")), refused("line 1: 'utf-8' codec")),
    ("a mark before the second line", line('{"_id": "a", "text": "x"}\n\ufeff{"_id": "b", "text": "y"}'), reads("x", "y")),
    ("line ends of old", line(json.dumps(ROW) + "\r" + json.dumps(ROW)), refused("line 1: Extra data")),
    ("a separator of lines in a text", line('{"_id": "a", "text": "x\u2028y\x85z"}'), reads("x\u2028y\x85z")),
    ("a line of null bytes", line(json.dumps(ROW) + "\n" + "\0" * 99 + "\n"), refused("line 2: Expecting value")),
    ("one id twice", line(json.dumps(ROW) + "\n" + json.dumps(ROW)), refused("line 2: the id 'a' stands already at .*line 1")),
    ("one id as number and as text", line('{"_id": 1, "text": "x"}\n{"_id": "1", "text": "y"}'), refused("the id '1' stands already")),
    ("no gzip", ("c.jsonl.gz", b"not gzip"), refused("c\\.jsonl\\.gz: not a whole gzip file")),
    ("half of a gzip", ("c.jsonl.gz", gzip.compress(json.dumps(ROW).encode())[:-9]), refused("not a whole gzip file, broken after line 0")),
    ("a pickle", ("c.jsonl", b"\x80\x04\x95."), refused("line 1: 'utf-8' codec")),
)  # fmt: skip


def a_folder(given, world):
    given(world)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        passages = load_passages(world.folder / "notes", world.tokenizer)
    return [passage.id for passage in passages], [str(warning.message) for warning in told]


def notes(files: dict, more=lambda notes: None):
    def make(world):
        (world.folder / "notes").mkdir()
        for name, data in files.items():
            world.file(f"notes/{name}", data)
        more(world.folder / "notes")

    return make


def one_is_read(found) -> bool:
    ids, told = found
    return ids == ["a.md#1"] and not told


def the_other_is_named(found) -> bool:
    ids, (told,) = found
    return ids == ["a.md#1"] and "skipped 1 of 2 files: b.txt (" in told


def one_has_a_readable_id(found) -> bool:
    ids, _ = found
    return len(ids) == 2 and bool("".join(ids).encode())


NOTES = {"a.md": "Tea is green."}
FOLDERS = (
    ("nothing in it", notes({}), refused("no passages in", FileNotFoundError)),
    ("nothing that is text", notes({"a.md": b"\xff", "b.txt": b"\0"}), refused("skipped 2 of 2 files: a\\.md \\(not UTF-8 .*b\\.txt \\(null")),
    ("one that is no text", notes(NOTES | {"b.txt": b"\xff"}), the_other_is_named),
    ("files of other kinds", notes(NOTES | {"x.pkl": b"\x80\x04.", "y.png": b"\x89PNG"}), one_is_read),
    ("a folder called like a file", notes(NOTES, lambda at: (at / "b.md").mkdir()), one_is_read),
    ("a folder called corpus.jsonl", notes(NOTES, lambda at: (at / "corpus.jsonl").mkdir()), one_is_read),
    ("a link to nowhere", notes(NOTES, lambda at: (at / "b.md").symlink_to(at / "none")), one_is_read),
    ("a link to the folder itself", notes(NOTES, lambda at: (at / "loop").symlink_to(at)), one_is_read),
    ("a link to itself", notes(NOTES, lambda at: (at / "b.md").symlink_to(at / "b.md")), one_is_read),
    ("a pipe that nobody writes to", notes(NOTES, lambda at: os.mkfifo(at / "b.md")), one_is_read),
    ("a name that is no text", notes(NOTES, lambda at: (at / os.fsdecode(b"\xff.md")).write_bytes(b"x.")), one_has_a_readable_id),
    ("a name with an escape", notes({"a\x1b[31m.md": "Tea.", "b\n.md": "Tea."}), one_has_a_readable_id),
    ("a file beside corpus.jsonl", notes({"corpus.jsonl": '{"_id": "a.md#1", "text": "x"}', "b.txt": b"\xff"}), one_is_read),
)  # fmt: skip


def a_path(given, world):
    return load_passages(given, world.tokenizer)


PATHS = (
    ("nothing there", "/nonexistent/x", refused("no file or folder '/nonexistent/x'", FileNotFoundError)),
    ("a null character", "a\0b", refused(r"no file or folder 'a\\x00b'", FileNotFoundError)),
    ("a device", "/dev/null", refused("no file or folder '/dev/null'", FileNotFoundError)),
)

DOORS = (
    Door("a file in some encoding", one_file, ENCODINGS),
    Door("a document of some shape", one_file, SHAPES),
    Door("a line of JSON", one_file, LINES),
    Door("a folder of notes", a_folder, FOLDERS),
    Door("a path", a_path, PATHS),
)
