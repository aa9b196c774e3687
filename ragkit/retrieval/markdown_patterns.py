"""What each block of Markdown begins with, CommonMark's and each dialect's."""

import re
from typing import NamedTuple

from ragkit.retrieval.inline import CODE


class Block(NamedTuple):
    """`kind`: heading, prose, item, code, table or label (of a reference definition).

    `info`: a heading's level, a fence's language, the indent of prose in lists.
    """

    kind: str
    text: str
    info: str = ""


QUOTE = re.compile(r"(?: {0,3}>)*+ ?")
FENCE = re.compile(r"(`{3,})([^`]*)$|(~{3,}|:{3,})(.*)$")
ITEM = re.compile(r"([-*+•]|\d{1,9}[.)])(?: {1,4}|\t)(?=\S)")
HEADING = re.compile(r"(#{1,6})(?:[ \t]+(.*))?$|<h([1-6])\b[^>]*>(.*)</h\3>$")
RULE = re.compile(r"([-*_])(?:[ \t]*\1){2,}$|=+$|\+{3,}$")
DELIMITER = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*+\|?$")
COMMENT_END = {"<!--": "-->", "{/*": "*/}", "%%": "%%"}
COMMENT = re.compile(rf"<!--|\{{/\*|(?<!\S)%%(?=\s|\w|$)|{CODE}", re.S)
UNREAD = re.compile(r"<(script|style|svg|pre|table|h[1-6])\b|\{(?:\{[<%]|%)\s*(highlight)\s*(\w*).*$", re.I)
# An indented body follows: MkDocs' admonitions and tabs, footnotes, definitions.
OPENER = re.compile(
    r'(?:!!!|\?\?\?\+?)[ ]?(?=[\w"])(?:[\w-]+(?:[ ]+[\w-]+)*)?(?:[ ]*"(?P<named>.*)")?$'
    r'|===[!+]?[ ]+"(?P<tab>.*)"$'
    r"|\[(?P<label>\^[^\]]+)\]:[ \t]*(?P<note>.*)$|:[ \t]{1,3}(?P<meaning>\S.*)$"
)
SLASHES = re.compile(r"/{3,}\s*(?:[\w-]+\s*(?:\|\s*(?P<title>.*))?)?$")  # PyMdown's blocks
# Not a word of prose: reference definitions, MDX imports and exports, MyST targets, tables of contents.
NO_PROSE = re.compile(
    r"\[(?P<label>[^\[\]^][^\[\]]*)\]:\s*(?:<[^<>]*>|\{\{.*?\}\}|\S)++(?:\s+(?:\"[^\"]*\"|'[^']*'|\(.*\)))?$"
    r"|(?:im|ex)port\s(?:.*\sfrom\s*)?['\"{*].*$|import\s+\w+(?:,\s*\{[^}]*\})?\s+from\s*['\"].*$"
    r"|export\s+(?:const|default|function)\b.*$|\([\w:. -]+\)=$|\[TOC\]$|\[!(?:INCLUDE|VIDEO)\b.*$"
)
# Directives whose body is prose; that of any other is code.
PROSE = set(
    "note tip hint info important warning caution danger error attention seealso admonition versionadded "
    "versionchanged versionremoved deprecated topic sidebar margin aside dropdown card grid grid-item "
    "grid-item-card tab-item tab-set tabs epigraph pull-quote highlights rubric glossary container div "
    "definition theorem exercise solution proof details example list-table".split()
)
VERSIONS = {  # what Sphinx writes before the version
    "versionadded": "Added in version", "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version", "versionremoved": "Removed in version",
}  # fmt: skip
