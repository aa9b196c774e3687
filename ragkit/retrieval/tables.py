"""Tables that are drawn or written as HTML, as rows between |."""

import re

_ROW = re.compile(r"<tr\b[^<>]*>(.*?)(?=</?tr\b|</table|\Z)", re.S | re.I)
_CELL = re.compile(r"<(t[hd])\b([^<>]*)>(.*?)(?=</?t[hdr]\b|</?tbody|</?thead|</table|\Z)", re.S | re.I)
_BLOCKS = re.compile(r"\n\s*\n|\b(?:row|col)span\b|<(?:pre|ul|ol|h[1-6])\b|<table\b.*<table\b", re.S | re.I)


def html_rows(markup: str) -> list[str]:
    """The rows of a <table>; none where it has no header, spans cells or holds blocks.

    The cells are still Markdown and HTML.
    """
    rest = re.sub(r"<[^<>]*>", "", _CELL.sub("", markup))
    if rest.strip() or _BLOCKS.search(markup):
        return []
    rows = [_CELL.findall(row) for row in _ROW.findall(markup)]
    if len(rows) < 2 or not rows[0] or any(tag.lower() != "th" for tag, *_ in rows[0]):
        return []
    return [_row([" ".join(words.split()).replace("|", "\\|") for *_, words in row]) for row in rows if row]


def grid_rows(lines: list[str]) -> list[str]:
    """The rows of a table that is drawn with +---+ and |, as Pandoc reads it; none where cells are merged."""
    edges = [place for place, sign in enumerate(lines[0]) if sign == "+"]
    rows, held = [], [[] for _ in edges[1:]]
    for line in lines[1:]:
        if re.fullmatch(r"\+[-=:+]+\+", line):
            rows.append(_row([" ".join(" ".join(cell).split()).replace("|", "\\|") for cell in held]))
            held = [[] for _ in edges[1:]]
        elif len(line) != len(lines[0]) or any(line[place] != "|" for place in edges):
            return []
        else:
            for cell, start, end in zip(held, edges, edges[1:]):
                cell.append(line[start + 1 : end])
    return rows


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
