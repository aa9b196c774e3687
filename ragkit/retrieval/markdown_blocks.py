"""The blocks of Markdown of any dialect, told apart line by line by one scanner: CommonMark 0.31 and GitHub's
tables; what Obsidian, MkDocs, Docusaurus, Hugo, Jekyll, MyST and PowerShell's documentation add."""

import html
import re

from ragkit.retrieval import markdown_patterns as begins
from ragkit.retrieval.markdown_patterns import Block
from ragkit.retrieval.tables import grid_rows, html_rows
from ragkit.retrieval.text import cells


def _width(line: str) -> int:
    return len(re.match(r"[ \t]*", line)[0].expandtabs(4))


def _dedent(line: str, columns: int) -> str:
    rest = line.lstrip(" \t")
    return " " * max(_width(line) - columns, 0) + rest if rest else ""


class Scanner:
    """Reads lines one after another; `found` are the blocks so far. `indented_code`: whether four spaces make
    code, which they don't in MDX."""

    def __init__(self, text: str, indented_code: bool):
        self.lines, self.at = text.split("\n"), 0
        self.indented_code = indented_code
        self.found: list[Block] = []
        self.paragraph: list[str] = []  # with its `kind` and an item's `mark`
        self.kind, self.mark = "prose", ""
        self.inside: list[tuple[int, bool]] = []  # open bodies: the indent they ask for, whether of a list
        self.directives: list[str] = []  # the fences of open directives whose body is prose
        self.quoted = self.width = 0  # of the line that is read: its quote marks, its indent
        self.parted = 0  # up to this line, no table or heading of several lines
        self.never: set[str] = set()  # ends of comments and elements that come no more

    def scan(self) -> list[Block]:
        doors = (
            self.unread,
            self.fence,
            self.body,
            self.no_prose,
            self.heading,
            self.rule,
            self.grid,
            self.table,
        )
        while self.at < len(self.lines):
            line = self.lines[self.at]
            self.at += 1
            quote = begins.QUOTE.match(line)[0] if ">" in line else ""
            depth = quote.count(">")
            if depth > self.quoted and re.search(r"<[A-Za-z][^<>]*$", "".join(self.paragraph[-30:])):
                self.paragraph.append(line)  # no quote: a tag of several lines ends here
                continue
            line = line[len(quote) :]
            content = line.strip()
            if not content:
                self.finish()
                continue
            if depth > self.quoted or (depth < self.quoted and not self.paragraph):
                self.finish()
                self.inside.clear()
            self.quoted, self.width = depth, _width(line)
            lazy = self.paragraph and not any(
                door.match(content) for door in (begins.ITEM, begins.FENCE, begins.OPENER)
            )
            shut = [] if lazy else [n for n, (asked, _) in enumerate(self.inside) if self.width < asked]
            if shut:
                self.finish()
                del self.inside[shut[0] :]
            if self.indented(line, content):
                continue
            content = self.without_comments(content)
            if content and not any(door(content) for door in doors):
                self.prose(line, content)
        self.finish()
        return self.found

    def finish(self) -> None:
        """The paragraph ends here."""
        if self.paragraph:
            lists = sum(listed for _, listed in self.inside) - (self.kind == "item")
            self.found.append(Block(self.kind, self.mark + "".join(self.paragraph), "  " * lists))
            self.paragraph.clear()
        self.kind, self.mark = "prose", ""

    def add(self, kind: str, words: str, info: str = "") -> bool:
        self.finish()
        if words or kind == "code":
            self.found.append(Block(kind, words, info))
        return True

    def ahead(self) -> str:
        """The next line without the quote marks of where we are."""
        line = self.lines[self.at]
        return re.sub(rf"^(?: {{0,3}}>){{0,{min(self.quoted, 9999)}}} ?", "", line) if self.quoted else line

    def indented(self, line: str, content: str) -> bool:
        base, listed = self.inside[-1] if self.inside else (0, False)
        item = listed and begins.ITEM.match(content)
        if item or self.paragraph or not self.indented_code or self.width < base + 4:
            return False
        code = [_dedent(line, base + 4)]
        while self.at < len(self.lines) and (not self.ahead().strip() or _width(self.ahead()) >= base + 4):
            code.append(_dedent(self.ahead(), base + 4))
            self.at += 1
        return self.add("code", "\n".join(code).strip("\n"))

    def until(self, end: str) -> int:
        """The next line that holds what the pattern `end` says; 0 where none does."""
        lines = () if end in self.never else range(self.at, len(self.lines))
        place = next((n for n in lines if re.search(end, self.lines[n])), 0)
        if not place:
            self.never.add(end)
        return place

    def without_comments(self, content: str) -> str:
        """The line without its comments; what stands before a long one is put before what follows it."""
        if not any(start in content for start in begins.COMMENT_END):
            return content
        kept, at = "", 0
        for found in begins.COMMENT.finditer(content):
            if found.start() < at or not (close := begins.COMMENT_END.get(found[0])):
                continue  # in another comment, or code
            end = content.find(close, found.end())
            if close == "%%" and end >= 0 and content[end + 2 : end + 3].strip():
                continue  # two signs in a sentence
            before = kept + content[at : found.start()]
            if end >= 0:
                kept, at = before, end + len(close)
            elif place := self.until(re.escape(close)):
                self.at = place
                self.lines[place] = " " * self.width + before + self.lines[place].partition(close)[2]
                return ""
            else:
                break
        return (kept + content[at:]).strip()

    def unread(self, content: str) -> bool:
        """What has an end of its own: <pre> and highlighted code; scripts, styles and pictures go."""
        if not (opened := begins.UNREAD.match(content)):
            return False
        tag, language = (opened[1] or opened[2]).lower(), opened[3] or ""
        end = rf"(?i)</{tag}\s*>|\{{(?:\{{[<%]|%)\s*(?:end|/\s*){tag}.*"
        here = re.search(end, content)
        whole = tag == "table" or tag[-1].isdigit()
        if whole and (self.at <= self.parted or (here and tag != "table" and here.end() == len(content))):
            return False  # a heading on one line
        place = self.at - 1 if here else self.until(end)
        if not (here or place):
            return False
        body = "\n".join([content, *self.lines[self.at : place + 1]])
        closing = re.search(end, body)
        rows = html_rows(body[: closing.end()]) if tag == "table" else []
        if whole and not rows and (tag == "table" or re.search(r"\n\s*\n", body)):
            self.parted = place + 1  # other blocks are in it
            return False
        self.at = place + 1
        code = body[opened.end() if opened[2] else 0 : closing.start()]
        if tag == "pre":
            code = html.unescape(re.sub(r"</?[A-Za-z][^<>]*>", "", code))
        if tag in ("pre", "highlight"):
            self.add("code", code.strip("\n"), language)
        elif tag == "table":
            self.add("table", "\n".join(rows))
        elif whole:
            self.add("heading", " ".join(code.partition(">")[2].split()), tag[1])
        if rest := body[closing.end() :].strip():
            self.at -= 1
            self.lines[self.at] = rest
        return True

    def fence(self, content: str) -> bool:
        if not (fence := begins.FENCE.match(content)):
            return False
        marks, info = fence[1] or fence[3], (fence[2] or fence[4] or "").strip()
        if not info and self.directives and marks.startswith(self.directives[-1]):
            self.directives.pop()
            return self.add("prose", "")
        directive = re.match(r"\{\s*([\w:.-]+)[^}]*\}\s*(.*)$", info)
        name, title = directive.groups() if directive else (info, "")
        prose = bool(directive) and name.lower() in begins.PROSE
        if prose or (marks[0] == ":" and not (directive and title)):
            if prose and marks[0] != ":":
                self.directives.append(marks)
            elif words := re.match(r"[\w.-]*\s*(?:\[(.*)\]|([^{}=:]*))$", info):
                title = words[1] or words[2]
            if name in begins.VERSIONS and title:
                title = f"{begins.VERSIONS[name]} {title}."
            self.add("prose", title)
            while self.at < len(self.lines) and re.match(r"\s*:[\w-]+:(?:\s|$)", self.lines[self.at]):
                self.at += 1  # options
            return True
        end = re.compile(rf"\s*{marks[0]}{{{len(marks)},}}\s*$")
        asked, listed = self.inside[-1] if self.inside else (0, True)
        code = []
        while self.at < len(self.lines):
            line = self.ahead()
            left = self.quoted and not self.lines[self.at].lstrip().startswith(">")
            if left or (line.strip() and not listed and _width(line) < asked):
                break
            self.at += 1
            if _width(line) < self.width + 4 and end.match(line):
                break
            code.append(_dedent(line, self.width) if self.width else line)
        language = re.match(r"[\w+#-]*", (title or name).strip(" .{}"))[0]
        return self.add("code", "\n".join(code), language)

    def body(self, content: str) -> bool:
        """Where a body of prose begins, or ends by its marks: admonitions, tabs, footnotes, definitions."""
        if self.quoted and (alert := re.match(r"\[!\w+[^\]]*\][+-]?\s*(.*)$", content)):
            return self.add("prose", alert[1])
        if slashes := begins.SLASHES.match(content):
            return self.add("prose", slashes["title"] or "")
        if not (opener := begins.OPENER.match(content)):
            return False
        if opener["meaning"] and self.paragraph:
            self.paragraph[-1] = self.paragraph[-1].rstrip() + ": "
        else:
            self.add("prose", opener["named"] or (opener["tab"] and opener["tab"] + ":") or "")
            self.add("label", opener["label"] or "")
        self.inside.append((self.width + 4, False))
        if words := opener["note"] or opener["meaning"]:
            self.paragraph.append(words + " ")
        return True

    def no_prose(self, content: str) -> bool:
        if self.paragraph or not (none := begins.NO_PROSE.match(content)):
            return False
        if re.match(r"(?:im|ex)port\b[^}]*\{[^}]*$", content):  # goes on to its closing brace
            following = self.lines[self.at : self.at + 200]
            self.at += next((n for n, line in enumerate(following, 1) if line.startswith("}")), 0)
        return self.add("label", none["label"] or "")

    def heading(self, content: str) -> bool:
        if heading := begins.HEADING.match(content):
            words = heading[2] or heading[4] or ""
            bare = words.rstrip("#")
            words = bare.rstrip() if not bare or bare[-1] in " \t" else words
            return self.add("heading", words, str(len(heading[1] or "") or heading[3]))
        if not self.paragraph or self.kind != "prose" or self.inside or not re.match(r"(=+|-{2,})$", content):
            return False
        words = "".join(self.paragraph).strip()
        if content[0] == "-" and (len(self.paragraph) > 2 or re.search(r"[.!:;,]$", words)):
            return False  # a rule under a paragraph
        self.paragraph.clear()
        return self.add("heading", words, "1" if content[0] == "=" else "2")

    def rule(self, content: str) -> bool:
        return bool(begins.RULE.match(content)) and self.add("prose", "")

    def grid(self, content: str) -> bool:
        if self.paragraph or self.at <= self.parted or not re.match(r"\+(?:[-=:]+\+)+$", content):
            return False
        drawn, at = [content], self.at
        while self.at < len(self.lines) and (row := self.ahead().strip())[:1] in ("|", "+"):
            drawn.append(row)
            self.at += 1
        if rows := grid_rows(drawn):
            return self.add("table", "\n".join(rows))
        self.at, self.parted = at, self.at
        return False

    def table(self, content: str) -> bool:
        if "|" not in content or self.at == len(self.lines):
            return False
        below = self.ahead().strip()
        fits = content[0] == "|" or len(cells(content)) == len(cells(below))
        if "|" not in below or not begins.DELIMITER.match(below) or not fits:
            return False
        rows = [content]
        self.at += 1
        while self.at < len(self.lines) and "|" in (row := self.ahead().strip()):
            rows.append(row)
            self.at += 1
        return self.add("table", "\n".join(rows))

    def prose(self, line: str, content: str) -> None:
        item = begins.ITEM.match(content)
        # Within a paragraph a figure with a full stop is a year, say, but for 1.
        year = item and self.paragraph and self.kind == "prose" and item[1][:-1] not in ("", "1")
        if item and not year:
            self.finish()
            self.inside.append((self.width + item.end(), True))
            content = begins.QUOTE.sub("", content[item.end() :], count=1)
            if begins.FENCE.match(content):
                self.width += item.end()
                self.fence(content)
                return
            self.kind, self.mark = "item", item[1] + " "
        hard = line.endswith("  ") or re.search(r"(?<!\\)\\$", content)
        self.paragraph.append(content.removesuffix("\\") + "\n" if hard else content + " ")
