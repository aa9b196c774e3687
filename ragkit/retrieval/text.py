"""Sentences of a text: where they begin and end, and which headings stand above them; its words."""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

# A full stop after one of these ends no sentence.
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|et al|vs|cf|Eqs?|Figs?|Sec|Dr|Mr|Mrs|Ms|St|No|approx|resp)"
    r"|(?:^|[\s(][A-Z]\w* )[A-Z])\.$"
)
_END = re.compile(
    r"[.!?…][\"'”’)\]]*(?=\s+[\"'“‘(\[`*_]*(?:[^\sa-z]|[a-z]+[A-Z]))|[।॥؟۔]+(?=\s)"
    r"|[。！？｡]++(?:(?![」』”’）〉》】])|[」』”’）〉》】]+(?=\s))"  # no space follows these
)
# Blank lines and list items end a sentence; fenced code, headings and tables stand alone.
_PARAGRAPH_END = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+•]|\d+[.)])\s)|\Z")
_BLOCK = re.compile(
    r"^[ \t]*(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})[^\n]*$|^(?P<level>#{1,6})[ \t](?P<heading>[^\n]*)$"
    r"|(?<=\|\n)(?P<rule>\|(?:[ \t]*:?-+:?[ \t]*\|)++)[ \t]*$",
    re.M,
)
_ITEM = re.compile(r"(?:[-*+•]|(\d+)[.)])\s")
LONGEST_UNIT = 600  # characters of a list or a fence that is quoted whole
_PAIRED = (  # kana, Han, Hangul; Thai, Lao, Burmese, Khmer with their marks
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U000323af"
    "\u0e01-\u0e4e\u0e80-\u0ece\u1000-\u1049\u1780-\u17d3"
)
# For Python's \w the vowels that are marks are no letters: of Thaana, India's scripts, and Tibetan.
_SPELT = "\u0780-\u07b1\u0900-\u0963\u0966-\u0dff\u0f71-\u0f84\u0f8d-\u0fbc"
_WORD = re.compile(rf"([{_PAIRED}]+)|(?:[^\W{_PAIRED}]|[{_SPELT}])+")
_ONE = re.compile(r"\w[^\w]*|[^\w]+")  # a character with its marks
# What one may write or leave out: soft hyphens, joiners, accents that compose with no letter, and the vowel
# points of Hebrew and Arabic.
_OPTIONAL = re.compile(
    "[\u00ad\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f"
    "\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u200c\u200d\u2060\ufe00-\ufe0f\ufeff]+"
)
_DIRECTING = re.compile("[\u202a-\u202e\u2066-\u2069]")
STOP = set(
    """a an the of to in on at by for with from into and or but if is are was were be been do does did what
    which who how why when where it its this that these those i me my you your we our they their can could
    should would will not no such so as than then there""".split()
)


class Span(NamedTuple):
    """A sentence, or what stands alone. `kind`: prose, item, heading, code, header (a table's) or row.

    `path`: (level, words) of each heading above, outermost first; a heading's own comes last. `opening`: what
    its block begins with, for whoever cuts it: a fence's first line, a table's header.
    """

    start: int
    end: int
    kind: str
    path: tuple[tuple[int, str], ...] = ()
    opening: str = ""

    @property
    def section(self) -> str:
        return " > ".join(words for _, words in self.path)


def spans(text: str) -> list[Span]:
    """The spans of `text`, in order; nothing but white space is outside them."""
    found: list[Span] = []
    path: tuple[tuple[int, str], ...] = ()
    at = 0
    while at < len(text):
        block = _BLOCK.search(text, at)
        start = block.start() if block else len(text)
        if block and block["rule"]:
            start = text.rfind("\n", at, start - 1) + 1 or at
        lead = ""
        for begin, end in _sentences(text, at, start):
            item = bool(_ITEM.match(text, begin, end))
            if not item and text[end - 1] == ":":
                lead = " ".join(text[begin:end].split())
            elif not item and text[begin - 2 : begin] == "\n\n":
                lead = ""
            found.append(Span(begin, end, "item" if item else "prose", path, lead if item else ""))
        if not block:
            break
        at = block.end()
        if block["fence"]:
            mark = block["fence"]
            last = re.compile(rf"^[ \t]*{mark[0]}{{{len(mark)},}}[ \t]*$", re.M).search(text, at)
            at = last.end() if last else len(text)
            found.append(Span(*_trim(text, start, at), "code", path, block[0].strip()))
        elif block["level"]:
            level = len(block["level"])
            words = re.sub(r"(?:^|[ \t]+)#+[ \t]*$", "", block["heading"]).strip()  # not the sign of C#
            path = (*(above for above in path if above[0] < level), (level, words))
            found.append(Span(*_trim(text, start, at), "heading", path))
        else:
            opening = text[start:at].strip()
            found.append(Span(*_trim(text, start, at), "header", path, opening))
            while row := re.compile(r"\n(\|[^\n]*\|)[ \t]*(?=\n|\Z)").match(text, at):
                found.append(Span(*row.span(1), "row", path, opening))
                at = row.end()
    return found


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def _sentences(text: str, position: int, until: int) -> Iterator[tuple[int, int]]:
    while position < until:
        ending = _PARAGRAPH_END.search(text, position, until)
        stop, resume = ending.span() if ending else (until, until)
        ends = [
            match.end()
            for match in _END.finditer(text, position, stop)
            if not _ABBREVIATION.search(text, max(position, match.end() - 40), match.end())
            and not text[position : match.end() - 1].strip().isdigit()  # a step's number
        ]
        for end in [*ends, stop]:
            if text[position:end].strip():
                yield _trim(text, position, end)
            position = end
        position = max(resume, stop + 1) if stop < until else until


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, in order, line breaks inside them as spaces; fenced code stays as it is."""
    return [_said(text, span) for span in spans(text)]


def _said(text: str, span: Span) -> str:
    words = text[span.start : span.end]
    return words if span.kind == "code" else " ".join(words.split())


def sentences_with_sections(text: str) -> list[tuple[str, str]]:
    """(words, section) of each thing in `text` that can be quoted, in order; `section`: "Install > Linux".

    A sentence that ends in a colon comes with its list or its code, steps come together in their order (a
    long list in several runs), and a table's row as "header: value; header: value". Headings, and code that
    no sentence leads to, are left out.
    """
    found: list[tuple[str, str]] = []
    all_spans = spans(text)
    at = 0
    while at < len(all_spans):
        span, first = all_spans[at], at
        at += 1
        if span.kind == "row":
            pairs = zip(cells(span.opening.split("\n")[0]), cells(text[span.start : span.end]))
            found.append(("; ".join(f"{a}: {b}" if a else b for a, b in pairs if b), span.section))
        if span.kind not in ("prose", "item"):
            continue
        words = _said(text, span)
        lead = words if words.endswith(":") else ""
        steps = bool((step := _ITEM.match(words)) and step[1])
        while at < len(all_spans) and (lead or steps):
            following = all_spans[at]
            gap = text[all_spans[at - 1].end : following.start]
            more = _said(text, following)
            joined = ""
            if following.kind == "code" and words.endswith(":"):
                joined = f"{words}\n{more}"
            elif following.kind == "item" and (lead or _ITEM.match(more)[1]):
                joined = f"{words}{gap[:1] if all_spans[at - 1].kind == 'code' else ' '}{more}"
            elif following.kind == "prose" and at - 1 > first - steps and gap.count("\n") < 2:
                joined = f"{words} {more}"  # an item's next sentence
            too_long = len(joined) > LONGEST_UNIT
            if not joined or (too_long and following.kind == "code"):
                break
            if too_long:
                found.append((words, span.section))
                joined = f"{lead} {more}".strip()
            words = joined
            at += 1
        found.append((words, span.section))
    return [(words, section) for words, section in found if words]


def cells(row: str) -> list[str]:
    """The cells of a table's row, with or without | at its ends."""
    row = row.strip().removeprefix("|")
    row = row if row.endswith("\\|") else row.removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)]


def words(text: str) -> list[str]:
    """The words of `text` by which it is searched: of any case, composed or not, without those in STOP.

    Scripts that put no spaces between words (kana, Han, Thai) and Hangul come as pairs of neighbouring
    characters. What one may leave out (_OPTIONAL) is left out, Turkish i's are one, and `_a_` is emphasis.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if not folded.isascii():
        folded = _OPTIONAL.sub("", folded).replace("ı", "i")
    found: list[str] = []
    for match in _WORD.finditer(folded):
        run = match[0]
        if match[1]:
            each = _ONE.findall(run)
            found += map("".join, zip(each, each[1:])) if len(each) > 1 else [run]
        else:
            found.append((run[0] == run[-1] == "_" and run.strip("_")) or run)
    return [word for word in found if word not in STOP]


def shown(text: str) -> str:
    """The text without what would change how the text around it is shown: characters that override or embed
    a direction of writing. Its letters keep their own; marks within it stay."""
    return _DIRECTING.sub("", text)


def readable(text: str) -> str:
    """The text with "?" for halves of surrogate pairs, which a tokenizer and a browser refuse."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
