"""Reading passages from what people have."""

import gzip
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

import ragkit.retrieval.corpus
from ragkit.retrieval.corpus import Passage, load_passages, read_jsonl
from ragkit.retrieval.default_encoder import default_tokenizer
from ragkit.retrieval.restructured import plain_restructured
from ragkit.retrieval.text import split_sentences

RST = """Setting up
==========

Keys
----

.. note:: Ask first.

A setup has a :ref:`factory <make>` and ``two|keys`` [1]_:

.. code-block:: python
   :linenos:

   x = 1. Then

- one

  .. unknown:: Stay
     :class: x

     *Here* too.

====  =====
Name  Size
====  =====
a     2|3
====  =====

.. toctree::

   nothing

.. [1] A foot note.
"""
RST_READ = """## Keys

Ask first.

A setup has a factory and `two|keys` :

```python
x = 1. Then
```

- one

  Stay

  Here too.

| Name | Size |
| --- | --- |
| a | 2\\|3 |

A foot note."""
ROWS = [
    {"_id": "a", "title": "Alpha", "text": "First text.", "metadata": {"year": 1999}},
    {"_id": "b", "text": "Second text, of β.", "url": "kept"},
]
READ = [
    Passage("a", "First text.", "Alpha", {"year": 1999}),
    Passage("b", "Second text, of β.", "", {"url": "kept"}),
]


@pytest.fixture
def no_tokenizer(monkeypatch):
    def fail():
        raise AssertionError("passages with ids must not be split")

    monkeypatch.setattr(ragkit.retrieval.corpus, "default_tokenizer", fail)


def jsonl(*rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def sentences(number: int) -> str:
    return " ".join(f"Sentence {n} says what a library holds." for n in range(number))


# --- reading


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_jsonl_is_read_plain_or_compressed(tmp_path, no_tokenizer, name):
    pack = gzip.compress if name.endswith(".gz") else bytes
    (tmp_path / name).write_bytes(pack(jsonl(*ROWS)))
    assert load_passages(tmp_path / name) == READ


def test_blank_lines_a_byte_order_mark_and_numbers_as_ids_are_fine(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(
        b"\xef\xbb\xbf" + jsonl({"_id": 7, "text": "t"}) + b"\n \n" + jsonl({"id": "8", "text": "u"})
    )
    assert [(p.id, p.text) for p in load_passages(tmp_path / "x.jsonl")] == [("7", "t"), ("8", "u")]


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_a_beir_folder_is_never_split(tmp_path, no_tokenizer, name):
    long = {"_id": "long", "text": sentences(100)}
    pack = gzip.compress if name.endswith(".gz") else bytes
    (tmp_path / name).write_bytes(pack(jsonl(*ROWS, long)))
    (tmp_path / "queries.jsonl").write_bytes(jsonl({"_id": "q", "text": "not a passage"}))
    (tmp_path / "notes.md").write_text("Not a passage either.")
    assert load_passages(tmp_path) == [*READ, Passage("long", sentences(100))]


def test_jsonl_without_ids_is_split_and_named_by_line(tmp_path, tokenizer, count):
    rows = [{"text": "Short."}, {"text": sentences(100), "title": "Long", "source": "s"}]
    (tmp_path / "x.jsonl").write_bytes(jsonl(*rows))
    short, *pieces = load_passages(tmp_path / "x.jsonl", tokenizer)
    assert (short.id, short.text) == ("x.jsonl:1#1", "Short.")
    assert len(pieces) > 2 and [p.id for p in pieces] == [f"x.jsonl:2#{n}" for n in range(1, len(pieces) + 1)]
    assert all(count(p.full_text) <= 256 and p.title == "Long" for p in pieces)
    assert pieces[1].metadata == {"source": "s", "part": 2}


def test_a_folder_of_texts_is_split_at_the_window_with_overlap(tmp_path, tokenizer, count):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "guide.md").write_text("# The Guide\n\n" + sentences(120))
    (tmp_path / "note.TXT").write_text("One line.")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    *pieces, note = load_passages(tmp_path, tokenizer)
    assert note == Passage("note.TXT#1", "One line.", "note", {"path": "note.TXT", "part": 1})
    assert [p.id for p in pieces] == [f"deep/er/guide.md#{n}" for n in range(1, len(pieces) + 1)]
    assert {p.title for p in pieces} == {"The Guide"}
    assert all(180 < count(p.full_text) <= 256 for p in pieces[:-1])
    for before, after in pairwise(pieces):
        assert split_sentences(after.text)[0] in split_sentences(before.text)


def test_the_default_tokenizer_is_loaded_once_for_a_folder(tmp_path, tokenizer, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        ragkit.retrieval.corpus, "default_tokenizer", lambda: loaded.append(tokenizer) or tokenizer
    )
    for name in "abc":
        (tmp_path / f"{name}.md").write_text("# A note\n\nIt is short.\n")
    assert len(load_passages(tmp_path)) == 3 and len(loaded) == 1


def test_the_title_takes_its_part_of_the_window(tmp_path, tokenizer, count):
    title = "A heading that goes on for as long as headings can, and then for a few words more"
    (tmp_path / "a.md").write_text(f"# {title}\n\n{sentences(120)}")
    pieces = load_passages(tmp_path, tokenizer)
    assert all(p.title == title and count(p.full_text) <= 256 for p in pieces)
    assert any(count(p.full_text) > 230 for p in pieces)


def test_a_small_window_still_splits(tmp_path, count):
    small = default_tokenizer()
    small.model_max_length = 32
    (tmp_path / "a.md").write_text(f"# Guide\n\n{sentences(20)}")
    assert all(count(p.full_text) <= 32 for p in load_passages(tmp_path, small))


def test_markdown_loses_what_is_not_read_aloud(tmp_path, tokenizer):
    (tmp_path / "a.md").write_text(
        "---\ntitle: front matter\n---\n"
        "[![build](https://x.y/badge.svg)](https://x.y/ci) <!-- a\ncomment -->\n"
        "See [the *guide*](https://en.w.org/wiki/Beta_(letter)) and ![a picture](p.png) "
        "<b>bold</b>, one<br>two, `List<int>`.\n\n"
        "```html\n<b>[kept](as it is)</b>\n```\n"
    )
    (found,) = load_passages(tmp_path, tokenizer)
    assert " ".join(found.text.split()) == (
        "See the guide and bold, one two, `List<int>`. ```html <b>[kept](as it is)</b> ```"
    )


def test_a_text_file_is_taken_as_it_is(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("if a <b and c> d: x[1](y)")
    assert load_passages(tmp_path, tokenizer)[0].text == "if a <b and c> d: x[1](y)"


@pytest.mark.parametrize(
    "text, title",
    [
        ("intro\n\n## Not this\n\n# The *title* ##\n\n# later\n\ntext", "The title"),
        ("The title\n===\n\ntext", "The title"),
        ("---\ndate: 1\ntitle: 'It''s: one' # so\n---\n# Another\n\ntext", "It's: one"),
        ('---\ntitle: "An \\"exact\\" one"\n---\ntext', 'An "exact" one'),
        ("---\ntitle: >-\n  Over two\n  lines\nx: y\n---\ntext", "Over two lines"),
        ("+++\ntitle = 'From TOML'\n[extra]\ntitle = 'not this'\n+++\ntext", "From TOML"),
        ("<h1 align=center>By <i>HTML</i></h1>\n\ntext", "By HTML"),
        ('<h1 align="center">\n  <img src="logo.png"><br>\n  Of lines\n</h1>\n\ntext', "Of lines"),
        ('{\n  "title": "From {JSON}",\n  "tags": ["a"]\n}\n\ntext', "From {JSON}"),
        ("% By Pandoc,\n  of two lines\n% An Author\n\ntext", "By Pandoc, of two lines"),
        ('+++\nbroken = = 1\ntitle = "Still"\n+++\ntext', "Still"),
        ('\n---\n"title": Below a blank line\n...\ntext', "Below a blank line"),
        ("---\ntitle: 2024\n---\ntext", "2024"),
        ("---\ntitle: &name Anchored\n---\ntext", "Anchored"),
        ("---\ntitle: null\n---\n# The heading\n\ntext", "The heading"),
        ("---\ntitle: ~\n---\n# The heading\n\ntext", "The heading"),
        ("---\ntitle: [a, b]\n---\n# The heading\n\ntext", "The heading"),
        ("---\ntitle:\n  - a\n---\n# The heading\n\ntext", "The heading"),
        ("---\ntitle: {{ page.name }}\n---\n# The heading\n\ntext", "The heading"),
        ("---\nNote: words said once.\n\nA paragraph.\n\n---\n\ntext", "file"),
        ("## Only a subheading\n\ntext", "file"),
        ("---\n\nA rule above.\n\n---\n\ntext", "file"),
        ("no heading", "file"),
        ("```sh\n# a comment\n```\ntext", "file"),
    ],
)  # fmt: skip
def test_the_title_is_the_front_matters_or_a_first_level_headings_or_the_file_name(
    tmp_path, tokenizer, text, title
):
    (tmp_path / "file.md").write_text(text)
    (found,) = load_passages(tmp_path / "file.md", tokenizer)
    assert found.title == title
    assert (found.full_text.count(title) == 1 and "text" in found.text) or "no heading" == found.text


@pytest.mark.parametrize(
    "text", ['{"words": "said"}\n', "---\nNote: words said.\n\nMore words.\n\n---\n\nThe end."]
)
def test_what_only_looks_like_front_matter_is_text(tmp_path, tokenizer, text):
    (tmp_path / "a.md").write_text(text)
    (found,) = load_passages(tmp_path, tokenizer)
    assert re.findall(r"\w+", found.text) == re.findall(r"\w+", text)


def test_a_note_that_is_only_its_title_is_still_a_passage(tmp_path, tokenizer):
    (tmp_path / "a.md").write_text("# Ask Mia about the keys\n")
    assert [p.text for p in load_passages(tmp_path, tokenizer)] == ["# Ask Mia about the keys"]


def test_windows_line_ends_and_byte_order_marks_do_no_harm(tmp_path, tokenizer):
    (tmp_path / "a.md").write_bytes(b"\xef\xbb\xbf---\r\nx: y\r\n---\r\n# T\r\n\r\nBody.\r\n")
    (found,) = load_passages(tmp_path, tokenizer)
    assert (found.title, found.text) == ("T", "Body.")


def test_hidden_files_and_folders_are_passed_over(tmp_path, tokenizer):
    root = tmp_path / ".hidden" / "docs"  # what lies above the folder is not our business
    for name in (".venv/lib/readme.md", ".notes.md", "a/.git/b.md", "a/seen.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("Text.")
    assert [p.id for p in load_passages(root, tokenizer)] == ["a/seen.md#1"]


def test_a_folder_of_jsonl_files_is_read_in_order(tmp_path):
    (tmp_path / "2.jsonl").write_bytes(jsonl({"_id": "b", "text": "u"}))
    (tmp_path / "1.jsonl").write_bytes(jsonl({"_id": "a", "text": "t"}))
    assert [p.id for p in load_passages(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    "line, reason",
    [
        (b'{"_id": "c", "text": "cut', "Unterminated string"),
        (b'["a", "list"]', "a JSON list, not an object"),
        (b'{"_id": "c"}', "needs a string `text`"),
        (b'{"_id": "c", "text": 5}', "needs a string `text`"),
        (b'{"_id": "", "text": "t"}', "`_id` must be a string that is not empty"),
        (b'{"_id": ["c"], "text": "t"}', "`_id` must be a string that is not empty"),
        (b'{"_id": "c", "text": "\xff"}', "utf-8"),
        (b'{"_id": "c", "text": "half \\ud83d"}', "'\\ud83d' is half of a character"),
    ],
)
@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_a_broken_line_is_named(tmp_path, line, reason, name):
    pack = gzip.compress if name.endswith(".gz") else bytes
    (tmp_path / name).write_bytes(pack(jsonl(ROWS[0]) + b"\n" + line + b"\n" + jsonl(ROWS[1])))
    with pytest.raises(ValueError, match=rf"{re.escape(name)}, line 3: .*{re.escape(reason)}"):
        load_passages(tmp_path / name)


def test_a_whole_surrogate_pair_is_a_letter(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"_id": "c", "text": "\\ud83d\\ude00"}')
    assert load_passages(tmp_path / "x.jsonl")[0].text == "😀"


@pytest.mark.parametrize("damage", ["cut", "changed", "garbled", "not gzip"])
def test_a_damaged_gz_is_named(tmp_path, damage):
    whole = gzip.compress(jsonl(*({"_id": str(n), "text": f"text {n * n}"} for n in range(2000))))
    middle = len(whole) // 2
    broken = {
        "cut": whole[:middle],
        "changed": whole[:middle] + bytes(20) + whole[middle + 20 :],  # its checksum is wrong
        "garbled": whole[:10] + b"\xff" + whole[11:],  # it is no deflate stream
        "not gzip": b"PK" + whole[2:],
    }[damage]
    (tmp_path / "x.jsonl.gz").write_bytes(broken)
    with pytest.raises(ValueError, match=r"x\.jsonl\.gz"):
        load_passages(tmp_path / "x.jsonl.gz")


def test_duplicate_ids_are_refused_with_both_places(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(jsonl(*ROWS, ROWS[0]))
    with pytest.raises(ValueError, match=r"line 3: the id 'a' stands already at .*line 1"):
        load_passages(tmp_path / "x.jsonl")


def test_files_in_another_encoding_are_named_and_stop_nothing(tmp_path, tokenizer):
    (tmp_path / "latin.txt").write_bytes("Zürich".encode("latin-1"))
    (tmp_path / "cut.txt").write_bytes("Zürich".encode("utf-16")[:-1])
    with pytest.raises(
        ValueError, match=r"2 of 2 files: cut\.txt \(not UTF-16 text; .*\), latin\.txt \(not UTF-8 text; .*\)"
    ):
        load_passages(tmp_path, tokenizer)
    with pytest.raises(ValueError, match=r"latin\.txt: not UTF-8 text"):
        load_passages(tmp_path / "latin.txt", tokenizer)
    for name in ("utf-16-le", "utf-16-be"):
        (tmp_path / f"{name}.md").write_bytes("\ufeff# Bern\r\n\r\nÄnderung.".encode(name))
    (tmp_path / "deep.rst").write_text("- " * 3000 + "x")
    with pytest.warns(
        UserWarning, match=r"skipped 3 of 5 files: cut.txt .*, deep.rst \(nested too deep\), "
    ) as told:
        found = load_passages(tmp_path, tokenizer)
    assert [(p.title, p.text) for p in found] == [("Bern", "Änderung.")] * 2 and len(told) == 1


def test_a_file_that_may_not_be_read_stops_nothing(tmp_path, tokenizer, monkeypatch):
    def read(path, of=Path.read_bytes):
        if path.stem == "mine":
            raise PermissionError(13, "Permission denied", str(path))
        return of(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    for name in ("mine", "ours"):
        (tmp_path / f"{name}.md").write_text("Text.")
    with pytest.warns(UserWarning, match=r"skipped 1 of 2 files: mine.md \(Permission denied\)"):
        assert [p.title for p in load_passages(tmp_path, tokenizer)] == ["ours"]
    with pytest.raises(PermissionError):
        load_passages(tmp_path / "mine.md", tokenizer)


def test_restructured_text_is_read_by_its_own_rules(tmp_path, tokenizer):
    (tmp_path / "a.rst").write_text(RST)
    (found,) = load_passages(tmp_path, tokenizer)
    assert (found.title, found.metadata["section"]) == ("Setting up", "Keys")
    assert found.text == RST_READ


@pytest.mark.parametrize(
    "source, read",
    [
        (".. versionadded:: 2.0\n", "Added in version 2.0."),
        (".. deprecated:: 3.1\n   Use *x*.", "Deprecated since version 3.1: Use x."),
        (".. class:: Popen\n\n   Runs it.", "Popen\n\nRuns it."),
        (".. only:: html\n\n   Seen.", "Seen."),
        ("-v, --verbose  Talk more.\n-q  Say nothing.", "-v, --verbose: Talk more.\n\n-q: Say nothing."),
        ("Sub heading\n-----\n\nText.", "## Sub heading\n\nText."),
    ],
)  # fmt: skip
def test_what_sphinx_adds_to_restructured_text(source, read):
    assert plain_restructured(f"Title\n=====\n\n{source}\n") == ("Title", read)


def test_a_line_without_an_id_is_read_as_its_path_says(tmp_path, tokenizer):
    rows = [
        {"path": "docs/a.md", "text": "# Tea\n\n## Green\n\n**Hot**"},
        {"path": "b.txt", "text": "**as is**"},
    ]
    (tmp_path / "x.jsonl").write_bytes(jsonl(*rows))
    found = [
        (p.title, p.text, p.metadata.get("section")) for p in load_passages(tmp_path / "x.jsonl", tokenizer)
    ]
    assert found == [("Tea", "## Green\n\nHot", "Green"), ("b", "**as is**", None)]


# --- what a piece goes on with, it repeats


def test_pieces_stand_alone(tmp_path, tokenizer, count):
    code = "\n".join(f"    step_{n} = run(name='step {n}')" for n in range(80))
    rows = "\n".join(f"| disk-{n} | {n} TB | rack {n % 7} \\| row {n} |" for n in range(60))
    steps = "\n".join(f"{n}. Turn the valve with number {n} to the left." for n in range(1, 60))
    (tmp_path / "a.md").write_text(
        f"# Plant\n\n## Boiler\n\n### Start\n\nIt starts like so:\n\n~~~py\ndef f():\n{code}\n~~~\n\n"
        f"| Disk | Size | Place |\n|---|--:|---|\n{rows}\n\n"
        f"## Pump\n\n{sentences(30)}\n\nDo this:\n\n{steps}\n"
    )
    pieces = load_passages(tmp_path, tokenizer)
    assert all(count(p.full_text) <= 256 for p in pieces) and {p.title for p in pieces} == {"Plant"}
    sections = [p.metadata["section"] for p in pieces]
    assert sections == sorted(sections) and set(sections) == {"Boiler > Start", "Pump"}
    for piece, section in zip(pieces, sections):
        heads = {"Pump": ["## Pump"], "Boiler > Start": ["## Boiler", "### Start"]}[section]
        lines = [line for line in piece.text.split("\n") if line]
        assert lines[: len(heads)] == heads and not lines[-1].startswith("#")
        fences = [line for line in lines if line.startswith("```")]
        assert fences == ["```py", "```"] * (len(fences) // 2)
        assert not lines[-1].endswith("like so:")
        if any("disk-" in line for line in lines):
            assert lines[lines.index("| Disk | Size | Place |") + 1] == "| --- | --- | --- |"
        if any("valve" in line for line in lines):
            assert "Do this:" in lines
    whole = "\n".join(p.text for p in pieces)
    assert all(line in whole for line in [*code.split("\n"), *steps.split("\n"), *sentences(30).split(". ")])
    assert all(f"| disk-{n} | {n} TB | rack {n % 7} \\| row {n} |\n" in whole + "\n" for n in range(60))


def test_nothing_to_read_says_what_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"neither corpus\.jsonl nor any file that ends in \.md"):
        load_passages(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        load_passages(tmp_path / "absent")


def test_read_jsonl_counts_blank_lines(tmp_path):
    (tmp_path / "x.jsonl").write_text('\n{"a": 1}\n\n{"a": 2}')
    assert list(read_jsonl(tmp_path / "x.jsonl")) == [(2, {"a": 1}), (4, {"a": 2})]


def test_what_leads_is_in_one_piece_with_what_follows(tmp_path, tokenizer):
    for number in range(20, 36):  # the cut falls on each place in turn
        (tmp_path / "a.md").write_text(
            f"# T\n\n{sentences(number)}\n\nYou need this:\n\n- an item that goes on for some words more\n\n"
            f"#### Later\n\n{sentences(9)}\n\n| A | B |\n|---|---|\n| c | d |\n"
        )
        pieces = load_passages(tmp_path, tokenizer)
        ends = [piece.text.split("\n")[-1] for piece in pieces]
        assert not [end for end in ends if end.startswith("#") or end.endswith((":", "--- |"))]
        assert len(pieces) > 1


def test_headings_and_openings_take_no_more_than_half_of_a_piece(tmp_path, tokenizer, count):
    code = "\n".join(f"step_{n} = run(name='step {n}')" for n in range(80))
    (tmp_path / "a.md").write_text(f"# T\n\n## {'long ' * 150}\n\n### Short\n\n```{'a+' * 90}\n{code}\n```\n")
    pieces = load_passages(tmp_path, tokenizer)
    assert all(count(p.full_text) <= 256 and p.text.count("```") % 2 == 0 for p in pieces)
    assert all("```\nstep_" in p.text for p in pieces[2:])
