"""Markdown of any dialect as plain text in one form: headings, prose, items, tables and fenced code.

What is no prose goes; everything else stays, so that nothing is lost silently.
"""

import re

from ragkit.retrieval.front_matter import split_front_matter
from ragkit.retrieval.inline import Inline
from ragkit.retrieval.markdown_blocks import Scanner
from ragkit.retrieval.text import cells


def plain_markdown(text: str, *, indented_code: bool = True) -> tuple[str, str]:
    """(title, text) of a Markdown document: the title "" where neither front matter nor a heading gives one.

    The title is the front matter's (YAML, TOML, JSON, Pandoc's) or else the first level-1 heading's, and
    never a subheading; a level-1 heading that only repeats it is left out of the text. Paragraphs come on
    one line, code in ``` fences, tables as rows between |.
    """
    title, text = split_front_matter(text)
    blocks = Scanner(text, indented_code).scan()
    inline = Inline(
        [block.text for block in blocks if block.kind not in ("code", "label")],
        [block.text for block in blocks if block.kind == "label"],
    )
    title = inline.words(title)
    out: list[str] = []
    before, titled = "", False
    for kind, words, info in blocks:
        part = ""
        if kind == "code":
            part = fenced(words, info)
        elif kind == "table":
            part = table([[inline.words(cell) for cell in cells(row)] for row in words.split("\n")])
        elif kind == "heading":
            words = " ".join(inline.words(re.sub(r"(?<=\S)\[\[[^\[\]]*\]\]$", "", words)).split())
            if info == "1" and not titled and words and title in ("", words):
                title, titled = words, True
            elif words:
                part = f"{'#' * int(info)} {words}"
        elif kind != "label":
            mark = re.match(r"\S+ ", words)[0] if kind == "item" else ""
            said = inline.words(words[len(mark) :])
            # What only looks like a block of another kind, now that its escapes are read, is still prose.
            said = re.sub(r"^(?=#{1,6} |`{3}[^`\n]*$|`{4}|~{3})", r"\\", said, flags=re.M)
            part = info + mark + said.replace("\n", "\n" + info) if said else ""
        if part:
            out += ["\n" if kind == before == "item" else "\n\n", part]
            before = kind
    return title, "".join(out[1:]) or (f"# {title}" if titled else "")


def fenced(code: str, language: str = "") -> str:
    """The code in a fence that is longer than any in it."""
    marks = "`" * (1 + max((len(ticks) for ticks in re.findall(r"^\s*(`{3,})", code, re.M)), default=2))
    return f"{marks}{language}\n{code}\n{marks}"


def table(rows: list[list[str]]) -> str:
    """Rows between |, one line each, below the header `rows[0]`."""
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    escaped.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)
