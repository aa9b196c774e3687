"""The words inside a block of Markdown, without its marks."""

import html
import re

# Code between backticks: as many behind as before (no more than six, so that the search stays short).
CODE = r"(?<!`)(?P<ticks>`{1,6})(?!`)(?s:.+?)(?<!`)(?P=ticks)(?!`)"
_KEEP = re.compile(  # read as it stands; escapes as what they mean
    rf"\{{[\w:+-]+\}}(?P<role>`[^`]+`)|(?<!\w)\[`~?(?P<name>[\w.()]+)`\](?![\[(])|(?P<code>{CODE})"
    r"|\\(?P<escaped>[!-/:-@\[-`{-~])|<(?P<address>(?:[A-Za-z][\w+.-]*://|(?:mailto|tel|urn):)[^\s<>]*|[\w.+-]+@[\w.-]+)>"
    r"|(?P<formula>\$\$.+?\$\$|(?<![\w$])\$(?=\S)[^$\n]*?(?<![\s\\])\$(?![\w$]))"
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
# Not x[[1]], which indexes, and not [[ -f x ]], which tests.
_WIKILINK = re.compile(
    r"(?:(!)|(?<![A-Za-z0-9_)]))\[\[(?!\s+[-!$\"(])([^\[\]|#]*)(?:#([^\[\]|]*))?(?:\|([^\[\]]*))?\]\]"
)
_PICTURE = re.compile(
    r"\.(?:png|jpe?g|gif|svg|webp|avif|bmp|pdf|mp[34]|m4a|og[gv]|wav|flac|3gp|mov|mkv|webm|canvas)$", re.I
)
_REFERENCE = re.compile(r"(!?)\[([^\[\]]+)\](?:\[([^\[\]]*)\])?")
_MARKUP = re.compile(  # shortcodes, attribute lists, block names
    r"\{\{#[^{}]*\}\}|\{\{[<%](?:(?!\{\{).)*?[%>]\}\}|\{%(?:(?!\{%).)*?%\}|\{:[^{}\n]*\}|(?<=\s)\^[\w-]+\s*$"
    r"|\{[#:/@](?:if|else|each|await|key|html)\b[^{}]*\}"  # Svelte's
    r"|\{\s*[#.][A-Za-z][\w:.-]*(?:\s+(?:[#.][\w:.-]+|[\w-]+=(?:\"[^\"]*\"|[^\s{}\"]+)))*\s*\}",
    re.S,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[A-Za-z]\w{1,31});")
_RUN = re.compile(r"\*+|_+|~~|==")


class Inline:
    """Reads the words of a block.

    `blocks`: the source of each block of prose in the document, `labels`: of its reference definitions. They
    tell which tags and links it really has.
    """

    def __init__(self, blocks: list[str], labels: list[str]):
        tags = [tag for text in blocks if "<" in text for tag in _TAG.finditer(_KEEP.sub(" ", text))]
        self.elements = _ENDLESS | {
            tag["name"].lower() for tag in tags if tag["closing"] or tag["closed"] or "=" in tag["attributes"]
        }
        self.labels = {" ".join(label.lower().split()) for label in labels}

    def words(self, text: str) -> str:
        """The text without marks: links and tags as their words, entities and escapes as what they mean."""
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
        return "" if link[1] or label[0] == "^" else link[2]  # an image, a footnote's mark

    def _wikilink(self, link: re.Match) -> str:
        embedded, page, place, words = (part or "" for part in link.groups())
        if embedded and _PICTURE.search(page.strip("\\ ")):
            return ""
        page = page.strip().rpartition("/")[2]
        headings = [
            part.strip() for part in place.split("#") if not part.startswith("^")
        ]  # that names a block
        return words or " > ".join(part for part in (page, *headings) if part)


def _unmarked(text: str) -> str:
    """The text without the marks of emphasis: `*a*`, `__a__`, `~~a~~`, `==a==`; those within words stay.

    Stricter than CommonMark, for which 2**3 and 4**5 are bold in the middle: between two letters or figures a
    mark begins nothing, and ends only what began in the same word.
    """
    cuts: list[tuple[int, int]] = []
    opened: dict[str, list[tuple[int, int]]] = {"*": [], "_": [], "~": [], "=": []}
    for run in _RUN.finditer(text):
        start, end, stack = run.start(), run.end(), opened[run[0][0]]
        before, after = text[start - 1 : start] or " ", text[end : end + 1] or " "
        lettered = before.isascii() and before.isalnum()
        while stack and start < end and not before.isspace():
            first, last = stack[-1]
            if lettered and after.isascii() and after.isalnum():
                alike = run[0] == text[first:last] and run[0][0] == "*"
                if not alike or re.search(r"\s", text[last:start]):
                    break
            size = min(last - first, end - start)
            cuts += [(last - size, last), (start, start + size)]
            start += size
            stack.pop()
            if last - size > first:
                stack.append((first, last - size))
        if start < end and not after.isspace() and (not lettered or start > run.start()):
            stack.append((start, end))
    ends = [(0, 0), *sorted(cuts), (len(text), len(text))]
    return "".join(text[end:start] for (_, end), (start, _) in zip(ends, ends[1:]))
