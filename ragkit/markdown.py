"""Markdown of any dialect as plain text in one form: headings, prose, items, tables and fenced code.

One scanner goes line by line and tells blocks apart (CommonMark 0.31 and GitHub's tables; front matter; what
Obsidian, MkDocs, Docusaurus, Hugo, Jekyll, MyST and PowerShell's documentation add). What is no prose goes;
everything else stays, so that nothing is lost silently.
"""

import html
import json
import re
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

# --- blocks


class Block(NamedTuple):
    """`kind`: heading, prose, item, code or table. `info`: a heading's level, a fence's language, the indent."""

    kind: str
    text: str
    info: str = ""


_QUOTE = re.compile(r"(?: {0,3}>)*+ ?")
_FENCE = re.compile(r"(`{3,})([^`]*)$|(~{3,}|:{3,})(.*)$")
_ITEM = re.compile(r"([-*+•]|\d{1,9}[.)])(?: {1,4}|\t)(?=\S)")
_HEADING = re.compile(r"(#{1,6})(?:[ \t]+(.*))?$|<h([1-6])\b[^>]*>(.*)</h\3>$")
_RULE = re.compile(r"([-*_])(?:[ \t]*\1){2,}$")
_DELIMITER = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*+\|?$")
_CELL = re.compile(r"(?<!\\)\|")
# An indented body follows: MkDocs' admonitions and tabs, footnotes, definitions.
_OPENER = re.compile(
    r'(?:!!!|\?\?\?\+?)[ ]+[\w -]+(?:"(?P<named>[^"]*)")?$|===[!+]?[ ]+"(?P<tab>[^"]*)"$'
    r"|\[\^[^\]]+\]:[ \t]*(?P<note>.*)$|:[ \t]{1,3}(?P<meaning>\S.*)$"
)
_SLASHES = re.compile(r"/{3,}\s*(?:[\w-]+\s*(?:\|\s*(?P<title>.*))?)?$")  # PyMdown's blocks
# Not a word of prose: reference definitions, MDX imports and exports, MyST targets, tables of contents.
_NO_PROSE = re.compile(
    r"\[(?P<label>[^\[\]^][^\[\]]*)\]:\s*(?:\{\{.*\}\}|\S+)(?:\s+(?:\"[^\"]*\"|'[^']*'|\(.*\)))?$"
    r"|(?:im|ex)port\s(?:.*\sfrom\s*)?['\"{*].*$|import\s+\w+(?:,\s*\{[^}]*\})?\s+from\s*['\"].*$"
    r"|export\s+(?:const|default|function)\b.*$|\([\w:. -]+\)=$|\[TOC\]$|\[!(?:INCLUDE|VIDEO)\b.*$"
)
# Directives whose body is prose; that of any other is code.
_PROSE = set(
    "note tip hint info important warning caution danger error attention seealso admonition versionadded "
    "versionchanged versionremoved deprecated topic sidebar margin aside dropdown card grid grid-item "
    "grid-item-card tab-item tab-set tabs epigraph pull-quote highlights rubric glossary container div "
    "definition theorem exercise solution proof details example".split()
)
_CODE = re.compile(r"(?<!`)(`{1,6})(?!`)(.+?)(?<!`)\1(?!`)", re.S)
_COMMENT_END = {"<!--": "-->", "{/*": "*/}", "%%": "%%"}
_COMMENT = re.compile(rf"<!--|\{{/\*|(?<!\S)%%(?=\s|\w|$)|{_CODE.pattern}", re.S)
_UNREAD = re.compile(r"<(script|style|svg|pre)\b", re.I)


def _width(line: str) -> int:
    lead = line[: len(line) - len(line.lstrip(" \t"))]
    return len(lead.expandtabs(4))


def _dedent(line: str, columns: int) -> str:
    rest = line.lstrip(" \t")
    return " " * max(_width(line) - columns, 0) + rest if rest else ""


def scan(text: str, *, indented_code: bool = True) -> Iterator[Block]:
    """The blocks of Markdown `text` (without front matter), in order, their inline marks as they are.

    `indented_code`: whether four spaces make code, as they do everywhere but in MDX. A reference definition
    comes as a block of kind "label".
    """
    lines = text.split("\n")
    paragraph: list[str] = []
    inside: list[tuple[int, bool]] = []  # open bodies: the indent they ask for, and whether of a list
    directives: list[str] = []  # the fences of open directives whose body is prose
    kind, mark, quoted, at = "prose", "", 0, 0
    never: set[str] = set()  # ends of comments that come no more

    def indent() -> str:
        return "  " * sum(listed for _, listed in inside)

    def finish() -> Iterator[Block]:
        nonlocal kind, mark
        if paragraph:
            shift = indent()[: -2 if kind == "item" else None] if inside else ""
            yield Block(kind, mark + "".join(paragraph), shift)
            paragraph.clear()
        kind, mark = "prose", ""

    def within(line: str, depth: int) -> str:
        """The line without the quote marks and the indent of where we are."""
        return line if not depth else re.sub(rf"^(?: {{0,3}}>){{0,{min(depth, 9999)}}} ?", "", line)

    while at < len(lines):
        line = lines[at]
        at += 1
        quote = _QUOTE.match(line)[0] if ">" in line else ""
        depth = quote.count(">")
        if depth > quoted and paragraph and re.search(r"<[A-Za-z][^<>]*$", "".join(paragraph[-30:])):
            paragraph.append(line)  # no quote: a tag of several lines ends here
            continue
        line = line[len(quote) :] if depth else line
        content = line.strip()
        if not content:
            yield from finish()
            continue
        if depth != quoted and (depth > quoted or not paragraph):
            yield from finish()
            inside.clear()
        quoted = depth
        width = _width(line)
        if not paragraph or any(starts.match(content) for starts in (_ITEM, _FENCE, _OPENER)):
            shut = [n for n, (asked, _) in enumerate(inside) if width < asked]
            if shut:
                yield from finish()
                del inside[shut[0] :]
        base = inside[-1][0] if inside else 0
        item = _ITEM.match(content)
        listed = bool(inside) and inside[-1][1]
        if indented_code and not paragraph and width >= base + 4 and not (listed and item):
            code = [_dedent(line, base + 4)]
            while at < len(lines):
                following = within(lines[at], depth)
                if following.strip() and _width(following) < base + 4:
                    break
                code.append(_dedent(following, base + 4))
                at += 1
            yield Block("code", "\n".join(code).strip("\n"))
            continue
        if "<!--" in content or "%%" in content or "{/*" in content:
            content, start, rest = _uncommented(content)
            end = _COMMENT_END.get(start, "")
            if start and end not in never:
                ends = (n for n in range(at, len(lines)) if end in lines[n])
                if ahead := next(ends, 0):
                    lines[ahead] = " " * width + content + lines[ahead].partition(end)[2]
                    at = ahead
                    continue
                never.add(end)
            content = (content + rest).strip()
            if not content:
                continue
        opened = _UNREAD.match(content)
        if opened:
            end = re.compile(rf"</{opened[1]}\s*>", re.I)
            body, ahead = content, at
            tag = opened[1].lower()
            while tag not in never and not end.search(lines[ahead - 1]) and ahead < len(lines):
                ahead += 1
            if tag in never or not end.search(lines[ahead - 1]):
                never.add(tag)
            else:
                yield from finish()
                body = "\n".join([content, *lines[at:ahead]])
                at = ahead
                before, after = body[: end.search(body).start()], body[end.search(body).end() :]
                if tag == "pre":
                    yield Block("code", html.unescape(re.sub(r"</?[A-Za-z][^<>]*>", "", before)).strip("\n"))
                if after.strip():
                    at -= 1
                    lines[at] = after
                continue
        fence = _FENCE.match(content)
        if fence:
            marks = fence[1] or fence[3]
            info = (fence[2] or fence[4] or "").strip()
            if (
                directives
                and not info
                and marks[0] == directives[-1][0]
                and len(marks) >= len(directives[-1])
            ):
                directives.pop()
                yield from finish()
                continue
            name, _, title = info.lstrip("{").partition("}") if info.startswith("{") else (info, "", "")
            name = name.strip(". ").lower() if info.startswith("{") else name
            prose = info.startswith("{") and name.split(" ")[0] in _PROSE
            if marks[0] == ":" and not (info.startswith("{") and not prose and title):
                yield from finish()
                words = re.match(r"\{?[\w:.-]*\}?\s*(?:\[(?P<a>.*)\]|(?P<b>[^{}=]*))$", info)
                if words and not info.endswith(":::") and (words["a"] or words["b"]):
                    yield Block("prose", words["a"] or words["b"])
                at = _skip_options(lines, at)
                continue
            yield from finish()
            if prose:
                directives.append(marks)
                if title.strip():
                    yield Block("prose", title.strip())
                at = _skip_options(lines, at)
                continue
            end = re.compile(rf"\s*{re.escape(marks[0])}{{{len(marks)},}}\s*$")
            code = []
            while at < len(lines):
                following = within(lines[at], depth)
                if depth and ">" not in lines[at][: len(lines[at]) - len(following) + 1]:
                    break
                if following.strip() and inside and _width(following) < inside[-1][0] and not listed:
                    break
                at += 1
                if end.match(following):
                    break
                code.append(_dedent(following, width) if width else following)
            words = (title if title.strip() else name).strip(" .{}").split()
            language = re.match(r"[\w+#.-]*", words[0])[0] if words else ""
            yield Block("code", "\n".join(code), language)
            continue
        if depth and (alert := re.match(r"\[!\w+[^\]]*\][+-]?\s*(.*)$", content)):
            yield from finish()
            if alert[1]:
                yield Block("prose", alert[1])
            continue
        if opener := _OPENER.match(content):
            if opener["meaning"] and paragraph:
                paragraph[-1] = paragraph[-1].rstrip() + ": "
            else:
                yield from finish()
            inside.append((width + 4, False))
            if words := opener["note"] or opener["meaning"]:
                paragraph.append(words + " ")
            elif opener["named"] or opener["tab"]:
                yield Block("prose", opener["named"] or opener["tab"] + ":")
            continue
        if slashes := _SLASHES.match(content):
            yield from finish()
            if slashes["title"]:
                yield Block("prose", slashes["title"])
            continue
        if not paragraph and (none := _NO_PROSE.match(content)):
            if none["label"]:
                yield Block("label", none["label"])
            elif re.match(r"(?:im|ex)port\b[^}]*\{[^}]*$", content):  # goes on to its closing brace
                ends = (n for n in range(at, min(at + 200, len(lines))) if lines[n].startswith("}"))
                at = next(ends, at - 1) + 1
            continue
        if heading := _HEADING.match(content):
            yield from finish()
            words = heading[2] or heading[4] or ""
            if (open_ended := words.rstrip("#")) != words and open_ended[-1:] in ("", " ", "\t"):
                words = open_ended.rstrip()
            yield Block("heading", words, str(len(heading[1] or "") or heading[3]))
            continue
        if re.match(r"(=+|-{2,})$", content) and paragraph and kind == "prose" and not inside:
            words = "".join(paragraph).strip()
            if content[0] == "=" or (len(paragraph) <= 2 and not re.search(r"[.!?:;,]$", words)):
                paragraph.clear()
                yield Block("heading", words, "1" if content[0] == "=" else "2")
                continue
        if _RULE.match(content) or re.match(r"=+$", content):
            yield from finish()
            continue
        if "|" in content and at < len(lines):
            below = _QUOTE.sub("", lines[at], count=1).strip()
            if "-" in below and "|" in below and _DELIMITER.match(below):
                rows = [content]
                at += 1
                while at < len(lines) and "|" in (row := _QUOTE.sub("", lines[at], count=1).strip()):
                    rows.append(row)
                    at += 1
                if content[0] == "|" or len(_cells(content)) == len(_cells(below)):
                    yield from finish()
                    yield Block("table", "\n".join(rows))
                    continue
                at -= len(rows)
        if item and not (
            paragraph and kind == "prose" and re.match(r"\d", item[1]) and item[1] not in "1.1)"
        ):
            yield from finish()
            rest = _QUOTE.sub("", content[item.end() :], count=1)
            inside.append((width + item.end(), True))
            if _FENCE.match(rest):
                at -= 1
                lines[at] = " " * (width + item.end()) + rest
                quoted = 0
                continue
            kind, mark, content = "item", item[1] + " ", rest
        hard = line.endswith("  ") or (content.endswith("\\") and not content.endswith("\\\\"))
        paragraph.append(content.removesuffix("\\") + "\n" if hard else content + " ")
    yield from finish()


def _uncommented(line: str) -> tuple[str, str, str]:
    """(the line without its comments, how one that is open at its end begins or "", the rest from there)."""
    kept, at = "", 0
    for found in _COMMENT.finditer(line):
        if found.start() < at or found[0] not in _COMMENT_END:
            continue
        end = line.find(_COMMENT_END[found[0]], found.end())
        if end < 0:
            return kept + line[at : found.start()], found[0], line[found.start() :]
        kept += line[at : found.start()]
        at = end + len(_COMMENT_END[found[0]])
    return kept + line[at:], "", ""


def _skip_options(lines: list[str], at: int) -> int:
    """Where a directive's body begins, after its `:option: value` lines."""
    while at < len(lines) and re.match(r"\s*:[\w-]+:(?:\s|$)", lines[at]):
        at += 1
    return at


# --- words inside a block

_KEEP = re.compile(  # read as it stands; escapes as what they mean
    rf"\{{[\w:+-]+\}}(?P<role>`[^`]+`)|(?<!\w)\[`~?(?P<name>[\w.()]+)`\](?![\[(])|(?P<code>{_CODE.pattern.replace(chr(92) + '1', chr(92) + '4')})"
    r"|\\(?P<escaped>[!-/:-@\[-`{-~])|<(?P<address>[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*|[\w.+-]+@[\w.-]+)>"
    r"|(?P<formula>\$\$.+?\$\$|(?<![\w$])\$(?=\S)[^$\n]*?(?<=\S)\$(?![\w$]))"
    r"|(?P<url>\bhttps?://[^\s<>()\[\]*\"'`|]+)",
    re.S,
)
_VALUE = r"(?:\"[^\"]*\"|'[^']*'|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}|[^\s\"'=<>`{]+)"
_TAG = re.compile(
    rf"<(?P<closing>/?)(?P<name>[A-Za-z][\w.:-]*)(?P<attributes>(?:\s+(?:[\w:@.-]++(?:\s*=\s*{_VALUE})?|\{{[^{{}}]*\}}))*+)\s*(?P<closed>/?)>"
)
_WORDS_OF_TAG = re.compile(r"\b(?:label|caption)=(?:\"([^\"]*)\"|'([^']*)')")
_ENDLESS = set("br hr wbr img p li td th tr dt dd div".split())  # tags that need no end
_APART = set("br p div li td th tr dt dd hr summary option".split())  # tags that part two words
_TARGET = r"\(\s*(?:<[^<>\n]*>|(?:[^()\s]|\([^()]*\))*+)(?:\s+(?:\"[^\"]*\"|'[^']*'|\([^()]*\)))?[^()]*\)"
_IMAGE = re.compile(rf"!\[[^\[\]]*\](?:{_TARGET}|\[[^\[\]]*\])")
_LINK = re.compile(rf"\[((?:[^\[\]]|\[[^\[\]]*\])*+)\]{_TARGET}")
_WIKILINK = re.compile(r"(!?)\[\[([^\[\]|#]*)(?:#\^?([^\[\]|]*))?(?:\|([^\[\]]*))?\]\]")
_PICTURE = re.compile(r"\.(?:png|jpe?g|gif|svg|webp|bmp|pdf|mp[34]|webm|canvas)$", re.I)
_REFERENCE = re.compile(r"(!?)\[([^\[\]^][^\[\]]*)\](?:\[([^\[\]]*)\])?")
_MARKUP = re.compile(  # shortcodes, attribute lists, footnote marks, block names
    r"\{\{[<%](?:(?!\{\{).)*?[%>]\}\}|\{%(?:(?!\{%).)*?%\}|\{:[^{}\n]*\}|\[\^[^\[\]\s]+\]|(?<=\s)\^[\w-]+$"
    r"|\{[#:/@](?:if|else|each|await|key|html)\b[^{}]*\}"  # Svelte's
    r"|\{\s*[#.][A-Za-z][\w:.-]*(?:\s+(?:[#.][\w:.-]+|[\w-]+=(?:\"[^\"]*\"|[^\s{}\"]+)))*\s*\}",
    re.S,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[A-Za-z]\w{1,31});")
_RUN = re.compile(r"\*+|_+|~~|==")


def _tags(text: str) -> Iterator[re.Match]:
    return _TAG.finditer(_KEEP.sub(" ", text)) if "<" in text else iter(())


class _Inline:
    """The words of a block. `elements`, `labels`: the tags and link labels that the document really has."""

    def __init__(self, blocks: list[Block]):
        prose = [b.text for b in blocks if b.kind in ("prose", "item", "heading", "table")]
        found = [tag for text in prose for tag in _tags(text)]
        self.elements = _ENDLESS | {
            tag["name"].lower()
            for tag in found
            if tag["closing"] or tag["closed"] or "=" in tag["attributes"]
        }
        self.labels = {" ".join(b.text.lower().split()) for b in blocks if b.kind == "label"}

    def words(self, text: str) -> str:
        kept: list[str] = []

        def keep(found: re.Match) -> str:
            role, escaped = found["role"], found["escaped"]
            if role:
                role = re.sub(r"\s*<[^<>]*>$", "", role.strip("`").lstrip("~!"))
            kept.append(
                role or (found["name"] and f"`{found['name']}`") or escaped or found["address"] or found[0]
            )
            return f"\0{len(kept) - 1}\0"

        text = _KEEP.sub(keep, text.replace("\0", "\ufffd"))
        if "[" in text:
            text = _WIKILINK.sub(self._wikilink, text)
            for _ in range(2):  # an image in a link, a link in brackets
                text = _LINK.sub(r"\1", _IMAGE.sub("", text))
        if "{" in text or "^" in text:
            text = _MARKUP.sub("", text)
        if "[" in text and self.labels:
            text = _REFERENCE.sub(self._reference, text)
        if "<" in text:
            text = _TAG.sub(self._tag, text)
        text = _unmarked(text)
        if "&" in text:
            text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
        text = re.sub(r"[ \t\xa0]*\n[ \t\xa0]*", "\n", re.sub(r"[ \t\xa0]+", " ", text)).strip()
        return re.sub(r"\0(\d+)\0", lambda found: kept[int(found[1])], text)

    def _tag(self, tag: re.Match) -> str:
        name = tag["name"].lower()
        if name not in self.elements:
            return tag[0]
        told = " ".join(a or b for a, b in _WORDS_OF_TAG.findall(tag["attributes"]))
        return f" {told} " if told else " " * (name in _APART)

    def _reference(self, link: re.Match) -> str:
        label = " ".join((link[3] or link[2]).lower().split())
        if label not in self.labels:
            return link[0]
        return "" if link[1] else link[2]

    def _wikilink(self, link: re.Match) -> str:
        embedded, page, heading, words = (part or "" for part in link.groups())
        if embedded and _PICTURE.search(page.strip("\\ ")):
            return ""
        page = page.strip().rpartition("/")[2]
        return words or " > ".join(part for part in (page, heading.strip()) if part)


def _unmarked(text: str) -> str:
    """The text without the marks of emphasis: `*a*`, `__a__`, `~~a~~`, `==a==`; those within words stay."""
    cuts: list[tuple[int, int]] = []
    opened: dict[str, list[tuple[int, int]]] = {"*": [], "_": [], "~": [], "=": []}
    for run in _RUN.finditer(text):
        start, end, stack = run.start(), run.end(), opened[run[0][0]]
        before, after = text[start - 1 : start] or " ", text[end : end + 1] or " "
        if not before.isspace():
            while stack and start < end:
                first, last = stack[-1]
                alike = (
                    last - first == end - start
                    and run[0][0] == "*"
                    and not re.search(r"\s", text[last:start])
                )
                if after.isalnum() and before.isalnum() and not alike:
                    break
                size = min(last - first, end - start)
                cuts += [(last - size, last), (start, start + size)]
                start += size
                stack.pop()
                if last - size > first:
                    stack.append((first, last - size))
        if start < end and not after.isspace() and (not before.isalnum() or start > run.start()):
            stack.append((start, end))
    ends = [(0, 0), *sorted(cuts), (len(text), len(text))]
    return "".join(text[end:start] for (_, end), (start, _) in zip(ends, ends[1:]))


# --- a whole document

_FRONT = re.compile(r"\A(---|\+\+\+)[ \t]*\n(.*?\n)??(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.S)


def plain_markdown(text: str, *, indented_code: bool = True) -> tuple[str, str]:
    """(title, text) of a Markdown document: the title "" where neither front matter nor a heading gives one.

    The title is the front matter's (YAML or TOML) or else the first level-1 heading's, and never a
    subheading; a level-1 heading that only repeats it is left out of the text. Paragraphs come on one line,
    code in ``` fences, tables as rows between |.
    """
    title, text = _front_matter(text)
    blocks = list(scan(text, indented_code=indented_code))
    inline = _Inline(blocks)
    title = inline.words(title)
    out: list[str] = []
    before, titled = "", False
    for kind, words, info in blocks:
        if kind == "code":
            part = fenced(words, info)
        elif kind == "table":
            rows = [
                [inline.words(cell).replace("|", "\\|") for cell in _cells(row)] for row in words.split("\n")
            ]
            rows.insert(1, ["---"] * len(rows[0]))
            part = "\n".join(f"| {' | '.join(row).replace(chr(10), ' ')} |" for row in rows)
        elif kind == "heading":
            words = " ".join(inline.words(re.sub(r"(?<=\S)\[\[[^\[\]]*\]\]$", "", words)).split())
            if info == "1" and not titled and words and title in ("", words):
                title, titled = words, True
                continue
            part = f"{'#' * int(info)} {words}" if words else ""
        elif kind != "label":
            mark = re.match(r"\S+ ", words)[0] if kind == "item" else ""
            said = inline.words(words[len(mark) :])
            # What only looks like a block of another kind, now that its escapes are read, is still prose.
            said = re.sub(r"^(?=#{1,6} |`{3}|~{3})", r"\\", said, flags=re.M)
            part = info + mark + said.replace("\n", "\n" + info) if said else ""
        else:
            part = ""
        if part:
            out += ["\n" if kind == before == "item" else "\n\n", part]
            before = kind
    return title, "".join(out[1:]) or (f"# {title}" if titled else "")


def fenced(code: str, language: str = "") -> str:
    """The code in a fence that is longer than any in it."""
    marks = "`" * (1 + max((len(ticks) for ticks in re.findall(r"^\s*(`{3,})", code, re.M)), default=2))
    return f"{marks}{language}\n{code}\n{marks}"


def _cells(row: str) -> list[str]:
    row = row.strip()
    row = row[1:] if row.startswith("|") else row
    row = row[:-1] if row.endswith("|") and not row.endswith("\\|") else row
    return [cell.strip().replace("\\|", "|") for cell in _CELL.split(row)]


def _front_matter(text: str) -> tuple[str, str]:
    """(title, the text after the front matter)."""
    found = _FRONT.match(text)
    fields = found[2] or "" if found else ""
    first = re.search(r"^[^\S\n]*[^\s#].*$", fields, re.M)
    if not found or not re.match(r"[\w\"' -]+[:=]|\[", first[0] if first else "a:"):
        return "", text  # two rules, say
    rest = text[found.end() :]
    if found[1] == "+++":
        try:
            return str(tomllib.loads(fields).get("title", "")), rest
        except tomllib.TOMLDecodeError:
            return "", rest
    line = re.search(r"^title[ \t]*:[ \t]*(.*(?:\n[ \t]+\S.*)*)", fields, re.M | re.I)
    title = " ".join(re.sub(r"^[>|][+-]?\s*\n", "", line[1]).split()) if line else ""
    if title[:1] == '"' and (quoted := re.match(r'"(?:[^"\\]|\\.)*"', title)):
        try:
            return json.loads(quoted[0]), rest
        except ValueError:
            return quoted[0].strip('"'), rest
    if title[:1] == "'" and (quoted := re.match(r"'((?:[^']|'')*)'", title)):
        return quoted[1].replace("''", "'"), rest
    return re.sub(r"(?:^|\s)#.*$", "", title), rest
