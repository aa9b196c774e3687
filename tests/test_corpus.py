"""Reading passages from what people have, and splitting texts without losing any of them."""

import gzip
import json
import re
from itertools import chain, pairwise

import pytest

import ragkit.corpus
from ragkit.corpus import Passage, load_passages, read_jsonl, split_sentences, split_text
from ragkit.default_model import default_tokenizer

ROWS = [
    {"_id": "a", "title": "Alpha", "text": "First text.", "metadata": {"year": 1999}},
    {"_id": "b", "text": "Second text, of β.", "url": "kept"},
]
READ = [
    Passage("a", "First text.", "Alpha", {"year": 1999}),
    Passage("b", "Second text, of β.", "", {"url": "kept"}),
]


@pytest.fixture(scope="module")
def tokenizer():
    return default_tokenizer()


@pytest.fixture
def count(tokenizer):
    """The number of tokens that the encoder would see, its special tokens included."""
    return lambda text: len(tokenizer(text, verbose=False)["input_ids"])


@pytest.fixture
def no_tokenizer(monkeypatch):
    def fail():
        raise AssertionError("passages with ids must not be split")

    monkeypatch.setattr(ragkit.corpus, "default_tokenizer", fail)


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
        "See the *guide* and bold, one two, `List<int>`. ```html <b>[kept](as it is)</b> ```"
    )


def test_a_text_file_is_taken_as_it_is(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("if a <b and c> d: x[1](y)")
    assert load_passages(tmp_path, tokenizer)[0].text == "if a <b and c> d: x[1](y)"


@pytest.mark.parametrize(
    "text, title",
    [
        ("intro\n\n## The title ##\n\n# later", "The title"),
        ("no heading", "file"),
        ("```sh\n# a comment\n```\ntext", "file"),
    ],
)
def test_the_title_is_the_first_heading_or_the_file_name(tmp_path, tokenizer, text, title):
    (tmp_path / "file.md").write_text(text)
    assert load_passages(tmp_path / "file.md", tokenizer)[0].title == title


def test_windows_line_ends_and_byte_order_marks_do_no_harm(tmp_path, tokenizer):
    (tmp_path / "a.md").write_bytes(b"\xef\xbb\xbf---\r\nx: y\r\n---\r\n# T\r\n\r\nBody.\r\n")
    (found,) = load_passages(tmp_path, tokenizer)
    assert (found.title, found.text) == ("T", "# T\n\nBody.")


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
        (b'{"_id": "c", "text": "half \\ud83d"}', "surrogates not allowed"),
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


def test_a_text_file_that_is_not_utf8_is_named(tmp_path, tokenizer):
    (tmp_path / "latin.txt").write_bytes("Zürich".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8"):
        load_passages(tmp_path, tokenizer)


def test_nothing_to_read_says_what_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"neither corpus\.jsonl nor any file that ends in \.md"):
        load_passages(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        load_passages(tmp_path / "absent")


def test_read_jsonl_counts_blank_lines(tmp_path):
    (tmp_path / "x.jsonl").write_text('\n{"a": 1}\n\n{"a": 2}')
    assert list(read_jsonl(tmp_path / "x.jsonl")) == [(2, {"a": 1}), (4, {"a": 2})]


# --- splitting


def covers(text: str, pieces: list[str]) -> bool:
    """Whether the pieces stand in `text` in order, with nothing but space left outside them."""
    ends = {-1: 0}  # where the last piece may begin: where it then ends
    for piece in pieces:
        following = {}
        for start, end in ends.items():
            place = text.find(piece, start + 1)
            while place >= 0 and not text[end:place].strip():
                following[place] = place + len(piece)
                place = text.find(piece, place + 1)
        ends = following
    return any(not text[end:].strip() for end in ends.values())


def test_covers_sees_a_gap_and_a_wrong_order():
    assert covers("a b c", ["a b", "b c"]) and covers(" ", [])
    assert not covers("a b c", ["a", "c"]) and not covers("a b", ["b", "a"]) and not covers("a b", ["a"])


def weird_texts(st):
    parts = st.sampled_from(
        [" ", " ", " ", "\n", "\n\n", "word", "Word", "nDCG", "β", ". ", "? ", "e.g. ", "1.5", "```", "- "]
        + ["\n# head\n", "\n- ", "[SEP]", "漢字", "😀", "e\u0301", "\u200b", "\u2028", "\x1c", "½", "٣", "'"]
        + ["antidisestablishmentarianism", "a1b2c3d4" * 20, "https://x.y/?q=%20&r=1"]
    )  # fmt: skip
    return st.lists(parts, max_size=60).map("".join) | st.text(max_size=80)


def for_weird_texts(check, **more):
    hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis: pip install -e .[oracles]")
    st = hypothesis.strategies
    settings = hypothesis.settings(max_examples=200, deadline=None, derandomize=True, database=None)
    more = {name: getattr(st, kind)(*bounds) for name, (kind, *bounds) in more.items()}
    settings(hypothesis.given(text=weird_texts(st), **more)(check))()


def test_pieces_fit_and_together_hold_the_whole_text(tokenizer, count):
    def check(text, window, overlap):
        pieces = split_text(text, tokenizer, max_tokens=window, overlap=min(overlap, window - 3))
        assert all(count(piece) <= window for piece in pieces)
        assert all(piece == piece.strip() != "" for piece in pieces)
        assert covers(text, pieces)

    for_weird_texts(check, window=("integers", 4, 40), overlap=("integers", 0, 20))


def test_pieces_fit_where_the_space_before_a_word_is_part_of_its_token():
    """As in RoBERTa's and GPT's tokens: at the start of a piece, a word can come to more tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    merges = [("Ġ", "C"), ("ĠC", "a"), ("ĠCa", "t")]  # Ġ is a space: " Cat" is one token, "Cat" is three
    tokens = [*pre_tokenizers.ByteLevel.alphabet(), *(a + b for a, b in merges)]
    words = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    assert [len(tokenizer.tokenize(text)) for text in ("Cat", " Cat")] == [3, 1]
    text = "Cat Cat Cat. " * 20
    for window in range(8, 40):
        pieces = split_text(text, tokenizer, max_tokens=window, overlap=0)
        assert all(len(tokenizer(piece)["input_ids"]) <= window for piece in pieces) and covers(text, pieces)
    # An emoji is four tokens that begin at one letter: no window smaller than that can hold it, but it ends.
    assert split_text("😀😀", tokenizer, max_tokens=2, overlap=0) == ["😀", "😀"]


def test_a_piece_begins_with_the_last_sentences_of_the_one_before(tokenizer, count):
    text = sentences(60)
    own = count("Sentence 10 says what a library holds.") - 2
    pieces = [split_sentences(p) for p in split_text(text, tokenizer, max_tokens=100, overlap=4 * own + 1)]
    assert len(pieces) > 3
    for before, after in pairwise(pieces):
        assert after[:4] == before[-4:] and after[4] not in before
    none = [split_sentences(p) for p in split_text(text, tokenizer, max_tokens=100, overlap=0)]
    assert [*chain(*none)] == split_sentences(text)


def test_a_text_that_fits_is_one_piece_and_an_empty_one_none(tokenizer):
    assert split_text("  One. Two.\n", tokenizer) == ["One. Two."]
    assert split_text(" \n\t ", tokenizer) == split_text("", tokenizer) == []


def test_a_long_sentence_is_cut_between_words(tokenizer):
    pieces = split_text("word " * 500, tokenizer, max_tokens=50)
    assert {word for piece in pieces for word in piece.split()} == {"word"}
    assert [len(piece.split()) for piece in pieces] == [48] * 10 + [20]


def test_what_is_left_of_a_cut_word_fits_too(tokenizer, count):
    """Within the word, "ishmentarian" is one token; alone it is four."""
    pieces = split_text("antidisestablishmentarianism", tokenizer, max_tokens=4, overlap=0)
    assert "".join(pieces) == "antidisestablishmentarianism"
    assert all(count(piece) <= 4 for piece in pieces)


@pytest.mark.parametrize("overlap", [-1, 8, 10])
def test_an_overlap_that_leaves_no_room_is_refused(tokenizer, overlap):
    with pytest.raises(ValueError, match="less than the 8 tokens of one piece"):
        split_text("text", tokenizer, max_tokens=10, overlap=overlap)


# --- sentences


@pytest.mark.parametrize(
    "text, expected",
    [
        ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ("Use it, e.g. BM25, i.e. Words.", ["Use it, e.g. BM25, i.e. Words."]),
        ("Smith et al. Show it. See Fig. 3 vs. Eq. 2.", ["Smith et al. Show it.", "See Fig. 3 vs. Eq. 2."]),
        ("Dr. Who met Mr. X and John F. Kennedy.", ["Dr. Who met Mr. X and John F. Kennedy."]),
        ("k1 = 1.5 and b = 0.75. Then 2.", ["k1 = 1.5 and b = 0.75.", "Then 2."]),
        ("A measure. nDCG is one. eBay is none.", ["A measure.", "nDCG is one.", "eBay is none."]),
        ("It stops. 3 are left. β is small.", ["It stops.", "3 are left.", "β is small."]),
        ("version 2.0 of x.y.z was out. it went on", ["version 2.0 of x.y.z was out. it went on"]),
        ('He said "Go." He (really!) went. “Yes.”', ['He said "Go."', "He (really!) went.", "“Yes.”"]),
        ("a line\nthat goes on. Next\tone.", ["a line that goes on.", "Next one."]),
        ("no full stop\n\nnext paragraph", ["no full stop", "next paragraph"]),
        ("# Heading. With a stop\ntext", ["# Heading. With a stop", "text"]),
        ("items:\n- a\n- two\n  on\n2) three\n* four", ["items:", "- a", "- two on", "2) three", "* four"]),
        ("Run:\n```py\na = 1.  \nB. C\n```\nDone.", ["Run:", "```py\na = 1.  \nB. C\n```", "Done."]),
        ("open ```code. Never Closed", ["open", "```code. Never Closed"]),
        ("", []),
        (" \n \n", []),
    ],
)  # fmt: skip
def test_sentences(text, expected):
    assert split_sentences(text) == expected


def test_sentences_never_lose_a_letter():
    def check(text):
        assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())

    for_weird_texts(check)


MARKDOWN = """# Guide

Take **all
of it** and __this__, but `**not**` here, nor 2**3 and a__b__c.

    $ run --now
    x = 1

    y = 2

After the block.

- an item

    still **the item**

Text again.

```python
def f():

    return 1
```
"""


def test_bold_and_indented_code_of_markdown_reach_no_sentence(tmp_path):
    (tmp_path / "guide.md").write_text(MARKDOWN, encoding="utf-8")
    (passage,) = load_passages(tmp_path)
    found = split_sentences(passage.text)
    assert "Take all of it and this, but `**not**` here, nor 2**3 and a__b__c." in found
    assert "```\n$ run --now\nx = 1\n\ny = 2\n```" in found
    assert "```python\ndef f():\n\n    return 1\n```" in found
    assert "Two stars ** apart\n\nare ** no bold." in ragkit.corpus._plain_markdown(
        "Two stars ** apart\n\nare ** no bold."
    )
    assert "still the item" in found  # a list's second paragraph is no code
    assert not [s for s in found if "$ run" in s and not s.startswith("```")]


@pytest.mark.parametrize(
    "text, plain",
    [
        ("plain\n", "plain\n"),
        ("", ""),
        ("    all code", "```\nall code\n```"),
        ("a\n\n\tcode\n", "a\n\n```\ncode\n```"),
        ("a line\n    that goes on\n", "a line\n    that goes on\n"),
        ("1. one\n\n    of one\n\nafter\n\n    code\n", "1. one\n\n    of one\n\nafter\n\n```\ncode\n```"),
    ],
)
def test_indented_code_gets_fences(text, plain):
    assert ragkit.corpus._plain_markdown(text).rstrip("\n") == plain.rstrip("\n")
