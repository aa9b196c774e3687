"""What stands in front of a Markdown document: YAML, TOML, JSON or Pandoc's title block; only the title is
read of it."""

import json
import re
import tomllib

_FRONT = re.compile(r"\A\s*^(---|\+\+\+)[ \t]*\n(.*?\n)??(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.S | re.M)
_LINES = r"[^\n]*(?:\n[ \t]+\S[^\n]*)*"  # and those that go on, indented
_PANDOC = re.compile(rf"\A%(?![^ \t\n])({_LINES})(?:\n%(?!%){_LINES}){{0,2}}[ \t]*(?:\n[ \t]*(?:\n|\Z)|\Z)")
_KEY = r"[\w\"' .$/@-]+[:=]"
_PROSE = re.compile(rf"\n[ \t]*\n(?=\S)(?!{_KEY}|[-#\[\]{{}}])")  # a paragraph: two rules, and words between
_NO_TITLE = re.compile(r"(?:null|~|true|false|yes|no)?$|\[.*\]$|-\s|\{", re.I | re.S)


def split_front_matter(text: str) -> tuple[str, str]:
    """(title, the text after the front matter): the title "" where it gives none that is a line of words."""
    if text.startswith("{"):
        return _json(text)
    if pandoc := _PANDOC.match(text):
        return " ".join(pandoc[1].split()), text[pandoc.end() :]
    found = _FRONT.match(text)
    fields = found[2] or "" if found else ""
    first = re.search(r"^[^\S\n]*[^\s#].*$", fields, re.M)
    if not found or not re.match(rf"{_KEY}|\[", first[0] if first else "a:") or _PROSE.search(fields):
        return "", text
    title = _toml(fields) if found[1] == "+++" else _yaml(fields)
    return title, text[found.end() :]


def _words(value) -> str:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _json(text: str) -> tuple[str, str]:
    try:
        fields, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return "", text
    rest = text[end:]
    # A file that is nothing else is no front matter: its text would be lost.
    return (_words(fields.get("title")), rest) if re.match(r"[ \t]*\n\s*\S", rest) else ("", text)


def _toml(fields: str) -> str:
    try:
        return _words(tomllib.loads(fields).get("title"))
    except (ValueError, RecursionError):
        found = re.search(r"^title[ \t]*=[ \t]*([\"'])(.*)\1", fields, re.M)
        return found[2] if found else ""


def _yaml(fields: str) -> str:
    """By hand, as many a document's front matter is no YAML: titles with a colon, templates."""
    line = re.search(r"^([\"']?)title\1[ \t]*:[ \t]*(.*(?:\n[ \t]+\S.*)*)", fields, re.M | re.I)
    title = " ".join(re.sub(r"^[>|][+-]?\s*\n", "", line[2]).split()) if line else ""
    title = re.sub(r"^(?:[&!]\S+ )+", "", title)  # an anchor, a tag
    if quoted := re.match(r"'((?:[^']|'')*)'", title):
        return quoted[1].replace("''", "'")
    if quoted := re.match(r'"((?:[^"\\]|\\.)*)"', title):
        try:
            return json.loads(quoted[0])
        except ValueError:
            return quoted[1]
    title = re.sub(r"(?:^|\s)#.*$", "", title)
    return "" if _NO_TITLE.match(title) else title
