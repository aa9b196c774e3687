"""Sentences and pieces of a text: where they begin and end, and which headings stand above them."""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

# A full stop after one of these ends no sentence.
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|et al|vs|cf|Eqs?|Figs?|Sec|Dr|Mr|Mrs|Ms|St|No|approx|resp)"
    r"|(?:^|[\s(][A-Z]\w* )[A-Z])\.$"
)
_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s+[\"'“‘(\[`*_]*(?:[^\sa-z]|[a-z]+[A-Z]))")
# Blank lines and list items end a sentence; fenced code, headings and tables stand alone.
_PARAGRAPH_END = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+•]|\d+[.)])\s)|\Z")
_BLOCK = re.compile(
    r"^[ \t]*(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})[^\n]*$|^(?P<level>#{1,6})[ \t](?P<heading>[^\n]*)$"
    r"|(?<=\|\n)(?P<rule>\|(?:[ \t]*:?-+:?[ \t]*\|)++)[ \t]*$",
    re.M,
)
_ITEM = re.compile(r"(?:[-*+•]|(\d+)[.)])\s")
LONGEST_UNIT = 600  # characters of a list or a fence that is quoted whole
_PAIRED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"  # kana, Han, Hangul
_WORD = re.compile(rf"([{_PAIRED}]+)|[^\W{_PAIRED}]+")
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
            path = (*(above for above in path if above[0] < level), (level, block["heading"].strip(" \t#")))
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

    Scripts that put no spaces between words (kana, Han) and Hangul come as pairs of neighbouring characters.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found: list[str] = []
    for match in _WORD.finditer(folded):
        run = match[0]
        found += [run[i : i + 2] for i in range(max(len(run) - 1, 1))] if match[1] else [run]
    return [word for word in found if word not in STOP]


def shown(text: str) -> str:
    """The text without what would change how the text around it is shown: characters that override or embed
    a direction of writing. Its letters keep their own; marks within it stay."""
    return _DIRECTING.sub("", text)


def readable(text: str) -> str:
    """The text with "?" for halves of surrogate pairs, which a tokenizer and a browser refuse."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def split_text(text: str, tokenizer, *, max_tokens: int = 256, overlap: int = 32) -> list[str]:
    """Pieces of `text`, each at most `max_tokens` of the tokenizer's tokens, its special tokens included.

    Pieces are substrings, cut between sentences where one ends in time, and otherwise between words. A piece
    begins with the last sentences of the one before, as far as `overlap` tokens hold them, so that a thought
    across a cut is whole in one of the two. Raises ValueError unless 0 <= overlap < max_tokens.
    """
    units = [Span(span.start, span.end, "prose") for span in spans(text)]
    return [piece for piece, _ in _cut(text, units, tokenizer, max_tokens, overlap)]


def split_document(
    text: str, tokenizer, *, max_tokens: int = 256, overlap: int = 32
) -> list[tuple[str, str]]:
    """(piece, section) of each piece of `text`, like `split_text`'s; what a piece goes on with, it repeats.

    The headings above a piece's beginning stand in front of it, each fence that is cut is closed and opened
    again, and a table's rows keep their header: so each piece reads, and is split into sentences, alone.
    """
    return _cut(text, spans(text), tokenizer, max_tokens, overlap)


def _cut(text: str, units: list[Span], tokenizer, max_tokens: int, overlap: int) -> list[tuple[str, str]]:
    """(piece, the section of the first thing in it) of each piece of at most `max_tokens`."""
    room = max_tokens - tokenizer.num_special_tokens_to_add()
    if not 0 <= overlap < room:
        raise ValueError(f"overlap={overlap} must be at least 0 and less than the {room} tokens of one piece")
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
    )
    starts = [start for start, _ in encoded["offset_mapping"]]  # the character where each token begins

    def tokens(start: int, end: int) -> int:
        return bisect_left(starts, end) - bisect_left(starts, start)

    def count(piece: str) -> int:
        return len(tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"])

    cost = cache(count)

    @cache
    def before(first: Span) -> str:
        """What a piece repeats that begins with `first`: its headings and opening, up to half of a piece."""
        path = first.path[:-1] if first.kind == "heading" else first.path
        opens = first.opening and first.kind in ("row", "line", "item")
        opening = f"{first.opening}\n" if opens else ""
        for outermost in range(len(path) + 1):
            headings = "".join(f"{'#' * level} {words}\n\n" for level, words in path[outermost:])
            if cost(whole := headings + opening) <= room // 2:
                return whole
        return f"{_mark(opening)}\n" if opening[:1] in ("`", "~") else ""

    def piece(first: Span, last: Span) -> str:
        words = text[first.start : last.end]
        if last.kind == "line":
            return f"{before(first)}{words.strip(chr(10))}\n{_mark(last.opening)}"
        return before(first) + words.strip("\n" if first.kind == "line" else None)

    def may_fit(first: Span, last: Span) -> bool:
        return tokens(first.start, last.end) + cost(before(first)) <= room

    def fits(first: Span, last: Span) -> bool:
        # Alone, a piece can come to more tokens than within the text: a word cut in two, a first word that
        # has lost the space before it. So it is counted again.
        return may_fit(first, last) and count(piece(first, last)) <= room

    def cuts(unit: Span) -> Iterator[int]:  # the most wanted first
        start, end = unit.start, unit.end
        first, last = bisect_left(starts, start), bisect_left(starts, end)
        for cut in starts[min(first + room - cost(before(unit)), last - 1) : first : -1]:
            space = max(text.rfind(" ", start + 1, cut), text.rfind("\n", start + 1, cut))
            yield space if space > start else max(cut, start + 1)
        while end > start + 1:  # one token that alone is many
            end = (start + end) // 2
            yield end

    def parts(unit: Span) -> Iterator[Span]:
        """The unit; the lines of code that is too long; what is still too long between words."""
        if unit.kind == "code" and not fits(unit, unit):
            for line in re.finditer(r"(?<=\n)[^\n]*\S[^\n]*(?=\n|\Z)", text[unit.start : unit.end]):
                if line.end() + unit.start < unit.end or not line[0].strip().startswith(_mark(unit.opening)):
                    start, end = line.start() + unit.start, line.end() + unit.start
                    yield from parts(unit._replace(start=start, end=end, kind="line"))
            return
        while unit.end > unit.start + 1 and not fits(unit, unit):
            heads = (unit._replace(end=cut) for cut in cuts(unit))
            head = next((part for part in heads if fits(part, part)), unit._replace(end=unit.start + 1))
            yield head
            unit = unit._replace(start=head.end)
        yield unit

    def better_end(first: int, last: int) -> int:
        """Before a section that begins in the piece's second half, and not between what leads and follows."""
        for at in range(last + 1, first + 1, -1):
            if units[at].kind == "heading" and tokens(units[first].start, units[at].start) >= room // 2:
                last = at - 1
                break
        for end in range(last, first, -1):
            leads = text[units[end].end - 1] == ":" and units[end + 1].kind in ("item", "code", "line")
            if units[end].kind not in ("heading", "header") and not leads:
                return end
        return last

    units = [part for unit in units for part in parts(unit)]
    pieces: list[tuple[str, str]] = []
    first = 0
    while first < len(units):
        last, begin = first, units[first]
        while last + 1 < len(units) and may_fit(begin, units[last + 1]):
            last += 1
        while last > first and not fits(begin, units[last]):
            last -= 1
        if last + 1 < len(units):
            last = better_end(first, last)
        told = next((unit for unit in units[first : last + 1] if unit.kind != "heading"), begin)
        pieces.append((piece(begin, units[last]), told.section))
        if last + 1 == len(units):
            break
        first, done = last + 1, first
        while first - 1 > done and {units[first - 1].kind, units[first].kind} <= {"prose", "item"}:
            before_it = units[first - 1]
            # With an overlap that leaves no room for the next sentence, there would be no progress.
            if tokens(before_it.start, units[last].end) > overlap or not fits(before_it, units[last + 1]):
                break
            first -= 1
    return [(words, section) for words, section in pieces if words]


def _mark(opening: str) -> str:
    """The backticks or tildes that a fence's first line begins with."""
    return opening[: len(opening) - len(opening.lstrip(opening[0]))]
