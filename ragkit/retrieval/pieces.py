"""Pieces of a text, as long as an encoder's window: cut between sentences, each to be read alone."""

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache

from ragkit.retrieval.text import Span, spans

AT_ONCE = 200_000  # characters that are made tokens at one time


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
    starts = _starts(text, tokenizer)

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


def _starts(text: str, tokenizer) -> array:
    """The character where each token begins. What a tokenizer keeps of a text takes a hundred times its room,
    so a long one is read in parts, cut where a word begins."""
    starts, at = array("q"), 0
    while at < len(text):
        end = min(at + AT_ONCE, len(text))
        if end < len(text):
            space = max(text.rfind(" ", at + 1, end), text.rfind("\n", at + 1, end))
            end = space if space > at else end
        encoded = tokenizer(
            text[at:end],
            add_special_tokens=False,
            return_offsets_mapping=True,
            truncation=False,
            verbose=False,
        )
        starts.extend(at + start for start, _ in encoded["offset_mapping"])
        at = end
    return starts


def _mark(opening: str) -> str:
    """The backticks or tildes that a fence's first line begins with."""
    return opening[: len(opening) - len(opening.lstrip(opening[0]))]
