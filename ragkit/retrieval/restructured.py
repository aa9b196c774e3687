"""reStructuredText, read by docutils, in the one form that `markdown.plain_markdown` gives."""

import re
from collections.abc import Iterator

from docutils import nodes, utils
from docutils.core import publish_doctree
from docutils.parsers.rst import Directive, Parser, directives, roles
from docutils.parsers.rst.languages import en

from ragkit.retrieval.markdown import fenced, table
from ragkit.retrieval.markdown_patterns import VERSIONS

# Directives of Sphinx, which docutils does not know: with nothing to read, and with code in their body.
_UNREAD = set("toctree currentmodule module py:module highlight index autosummary literalinclude".split())
_CODE = set("code code-block sourcecode prompt doctest testcode testoutput productionlist".split())
_CODE |= {"ipython", "mermaid", "graphviz"}
_UNSAID = set("only ifconfig grid tab-set cssclass rst-class".split())  # their argument is no words
_DIRECTIVE = re.compile(r"^[ \t]*(?:[-*+]|\d+\.)?[ \t]*\.\.[ \t]+(?:\|[^|\n]+\|[ \t]+)?([\w:.+-]+)::", re.M)
# Docutils' own "class" is of style sheets; that of an API has a name as Python's classes have them.
_API = re.compile(r"^[ \t]*\.\.[ \t]+class::[ \t]+(?:[\w.]*[A-Z.]|\w+\()", re.M)
_ROLE = re.compile(r":([\w:.+-]+):`|`:([\w:.+-]+):")
# What a mail's header is to a mail: PEPs begin so.
_HEADER = re.compile(r"\A(?:[A-Z][\w-]*:[^\n]*\n(?:[ \t]+[^\n]*\n)*){2,}(?=\n)")


def plain_restructured(text: str) -> tuple[str, str]:
    """(title, text) of a reStructuredText document, as `plain_markdown` gives them.

    The title is a header's ("Title: …"), or else the first level-1 heading. Roles read as their words, and
    the body of a directive that docutils does not know is prose.
    """
    header = _HEADER.match(text)
    named = re.search(r"^Title:[ \t]*(.*)$", header[0], re.M) if header else None
    title = named[1].strip() if named else ""
    for name in {found.lower() for found in _DIRECTIVE.findall(text)}:
        if name in _CODE or name not in en.directives or (name == "class" and _API.search(text)):
            directives.register_directive(name, _Directive)
    for name in {prefix or suffix for prefix, suffix in _ROLE.findall(text.lower())}:
        if name not in en.roles:
            roles.register_local_role(name, _role)
    settings = {
        "report_level": 5, "halt_level": 6, "warning_stream": "", "file_insertion_enabled": False,
        "line_length_limit": len(text) + 1, "doctitle_xform": False, "docinfo_xform": False,
        "_disable_config": True,
    }  # fmt: skip
    body = text[header.end() :] if header else text
    tree = publish_doctree(body, parser=Parser(), settings_overrides=settings)
    parts = [part for part in _parts(tree, 0) if part.strip()]
    first = next((n for n, part in enumerate(parts) if part.startswith("# ")), None)
    if first is not None and title in ("", parts[first][2:]):
        title = parts.pop(first)[2:]
    return title, "\n\n".join(parts) or (f"# {title}" if title else "")


def _role(role, rawtext, text, lineno, inliner, options=None, content=()):
    """The words of `:role:`words <target>``."""
    return [nodes.inline(rawtext, re.sub(r"\s*<[^<>]*>$", "", utils.unescape(text).lstrip("~!")))], []


class _Directive(Directive):
    """Code, nothing, or else prose, as its name says."""

    optional_arguments, final_argument_whitespace, has_content = 1, True, True

    def run(self):
        name = self.name.lower()
        lines = "".join(self.arguments).split("\n")
        argument = "\n".join(line for line in lines if not re.match(r"\s*:[\w-]+:(\s|$)", line))
        if name in _CODE:
            code = "\n".join(self.content)
            return [nodes.literal_block(code, code, language=argument)] if code else []
        if name in _UNREAD or "auto" in name:
            return []
        held = nodes.container()
        if name in VERSIONS and argument.strip():
            version, *more = argument.split(None, 1)
            said = f"{VERSIONS[name]} {version}" + (f": {more[0].strip()}" if more else ".")
            held += nodes.paragraph("", "", *self.state.inline_text(said, self.lineno)[0])
        elif self.arguments and name not in _UNSAID:
            held += nodes.paragraph("", "", *self.state.inline_text(argument, self.lineno)[0])
        self.state.nested_parse(self.content, self.content_offset, held)
        return [held]


def _words(node) -> str:
    """The words of an inline node, code between backticks."""
    match node:
        case nodes.Text():
            return node.astext()
        case nodes.literal():
            return f"`{node.astext()}`"
        case nodes.footnote_reference() | nodes.image() | nodes.system_message():
            return ""
    return "".join(map(_words, node.children))


def _line(node) -> str:
    return " ".join(_words(node).split())


def _parts(node, level: int, indent: str = "") -> Iterator[str]:
    """The blocks below `node`; `level`: of the headings above."""
    for child in node.children:
        match child:
            case nodes.section():
                yield from _parts(child, level + 1)
            case nodes.title():
                mark = "#" * min(max(level, 1), 6) + " " if isinstance(node, nodes.section) else ""
                yield mark + _line(child)
            case nodes.literal_block() | nodes.doctest_block() | nodes.math_block():
                yield fenced(child.astext(), str(child.get("language", "")))
            case nodes.bullet_list() | nodes.enumerated_list():
                items = []
                for number, item in enumerate(child.children, child.get("start", 1)):
                    mark = "- " if isinstance(child, nodes.bullet_list) else f"{number}. "
                    items.append(indent + mark + "\n\n".join(_parts(item, level, indent + "  ")).lstrip())
                yield "\n".join(items)
            case nodes.definition_list_item() | nodes.field():
                term, *rest = child.children
                told = "\n\n".join(part for one in rest for part in _parts(one, level, indent))
                yield f"{_line(term)}: {told}" if told else _words(term)
            case nodes.tgroup():
                groups = [part for part in child.children if isinstance(part, nodes.thead | nodes.tbody)]
                rows = [row for group in groups for row in group]
                yield table(
                    [[" ".join(" ".join(_parts(cell, level)).split()) for cell in row] for row in rows]
                )
            case nodes.option_list_item():
                options, told = child.children
                said = ", ".join(option.astext() for option in options)
                yield f"{indent}{said}: " + " ".join(_parts(told, level))
            case nodes.system_message() if child.get("level", 3) < 3:  # a warning: all is there
                pass
            case nodes.system_message():
                yield from (fenced(raw.astext()) for raw in child.findall(nodes.literal_block))
            case nodes.Invisible() | nodes.raw() | nodes.label() | nodes.image():
                pass
            case nodes.TextElement():
                yield indent + _line(child)
            case _:
                yield from _parts(child, level, indent)
