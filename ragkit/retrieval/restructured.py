"""reStructuredText, read by docutils, in the one form that `markdown.plain_markdown` gives."""

import re
from collections.abc import Iterator

from docutils import nodes, utils
from docutils.core import publish_doctree
from docutils.parsers.rst import Directive, Parser, directives, roles
from docutils.parsers.rst.languages import en

from ragkit.retrieval.markdown import fenced

# Directives of Sphinx, which docutils does not know: with nothing to read, and with code in their body.
_UNREAD = set("toctree currentmodule module py:module highlight index autosummary literalinclude".split())
_CODE = set(
    "code-block sourcecode prompt doctest testcode testoutput productionlist ipython mermaid graphviz".split()
)
_DIRECTIVE = re.compile(r"^[ \t]*(?:[-*+]|\d+\.)?[ \t]*\.\.[ \t]+(?:\|[^|\n]+\|[ \t]+)?([\w:.+-]+)::", re.M)
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
        if name in _CODE or name == "code":
            directives.register_directive(name, _Code)
        elif name not in en.directives:
            directives.register_directive(name, _Unread if name in _UNREAD or "auto" in name else _Prose)
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


def _without_options(lines: list[str]) -> str:
    return "\n".join(line for line in lines if not re.match(r"\s*:[\w-]+:(\s|$)", line))


class _Prose(Directive):
    optional_arguments, final_argument_whitespace, has_content = 1, True, True

    def run(self):
        held = nodes.container()
        if self.arguments:
            words, _ = self.state.inline_text(_without_options(self.arguments[0].split("\n")), self.lineno)
            held += nodes.paragraph("", "", *words)
        self.state.nested_parse(self.content, self.content_offset, held)
        return [held]


class _Code(_Prose):
    def run(self):
        code = "\n".join(self.content)
        language = _without_options("".join(self.arguments).split("\n"))
        return [nodes.literal_block(code, code, language=language)] if code else []


class _Unread(_Prose):
    def run(self):
        return []


def _words(node) -> str:
    """The words of an inline node, code between backticks."""
    if isinstance(node, nodes.Text):
        return node.astext()
    if isinstance(node, nodes.literal):
        return f"`{node.astext()}`"
    if isinstance(node, nodes.footnote_reference | nodes.image | nodes.system_message):
        return ""
    return "".join(map(_words, node.children))


def _parts(node, level: int, indent: str = "") -> Iterator[str]:
    """The blocks below `node`; `level`: of the headings above."""
    for child in node.children:
        if isinstance(child, nodes.section):
            yield from _parts(child, level + 1)
        elif isinstance(child, nodes.title):
            mark = "#" * min(max(level, 1), 6) + " " if isinstance(node, nodes.section) else ""
            yield mark + " ".join(_words(child).split())
        elif isinstance(child, nodes.literal_block | nodes.doctest_block | nodes.math_block):
            yield fenced(child.astext(), str(child.get("language", "")))
        elif isinstance(child, nodes.bullet_list | nodes.enumerated_list):
            first = child.get("start", 1)
            bullets = isinstance(child, nodes.bullet_list)
            items = []
            for number, item in enumerate(child.children, first):
                mark = "- " if bullets else f"{number}. "
                items.append(indent + mark + "\n\n".join(_parts(item, level, indent + "  ")).lstrip())
            yield "\n".join(items)
        elif isinstance(child, nodes.definition_list_item | nodes.field):
            term, *rest = child.children
            told = "\n\n".join(part for one in rest for part in _parts(one, level, indent))
            yield f"{' '.join(_words(term).split())}: {told}" if told else _words(term)
        elif isinstance(child, nodes.tgroup):
            rows = [
                row for part in child.children if isinstance(part, nodes.thead | nodes.tbody) for row in part
            ]
            lines = [
                " | ".join(
                    " ".join(" ".join(_parts(cell, level)).split()).replace("|", "\\|") for cell in row
                )
                for row in rows
            ]
            lines.insert(1, " | ".join(["---"] * len(rows[0]))) if rows else None
            yield "\n".join(f"| {line} |" for line in lines)
        elif isinstance(child, nodes.system_message):
            yield from (fenced(raw.astext()) for raw in child.findall(nodes.literal_block))
        elif isinstance(child, nodes.TextElement):
            if not isinstance(
                child, nodes.comment | nodes.raw | nodes.substitution_definition | nodes.target | nodes.label
            ):
                yield indent + " ".join(_words(child).split())
        elif not isinstance(child, nodes.Invisible | nodes.image):
            yield from _parts(child, level, indent)
