"""Passages: what they are, where they are read from, how long texts are split."""

import gzip
import json
import re
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragkit.default_model import default_tokenizer

DATA = Path(__file__).resolve().parent.parent / "data"  # what the repo ships
DOCUMENT_SUFFIXES = (".md", ".markdown", ".mdx", ".rst", ".txt")


@dataclass(frozen=True)
class Passage:
    """One unit of retrieval. `id` is unique within one library."""

    id: str
    text: str
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def full_text(self) -> str:
        """Title and text, as encoders and BM25 read them (BEIR's convention, arXiv 2104.08663)."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True)
class Hit:
    """A retrieved passage: its score (higher is better) and its rank, from 1."""

    passage: Passage
    score: float
    rank: int


def ranked(scored: Iterable[tuple[Passage, float]]) -> list[Hit]:
    """Hits of passages and their scores, in the order given, ranks from 1."""
    return [Hit(passage, score, rank) for rank, (passage, score) in enumerate(scored, 1)]


def load_passages(path: str | Path, tokenizer=None) -> list[Passage]:
    """Passages from a JSONL file, a BEIR folder, or a folder of Markdown or text; `.gz` is read too.

    - JSONL: one object a line with `_id` (or `id`), `text` and perhaps `title`, `metadata`; never split.
      Lines without an id are documents: they are split, and named by file and line.
    - A folder that holds `corpus.jsonl` is a BEIR folder; never split, since its ids are judged.
    - Any other folder: its Markdown and text files, at every depth, split at the window of `tokenizer`
      (default: the default encoder's) with overlap, named `path#part`.

    Raises FileNotFoundError where nothing is, ValueError with file and line where a line is broken.
    """
    path = Path(path).expanduser()
    if path.is_file():
        read = _read_jsonl if _is_jsonl(path) else _read_document
        return _unique(read(path, path.name, tokenizer))
    if not path.is_dir():
        raise FileNotFoundError(f"no file or folder {str(path)!r} to read passages from")
    for name in ("corpus.jsonl", "corpus.jsonl.gz"):
        if (path / name).is_file():
            return _unique(_read_jsonl(path / name, name, tokenizer))
    files = [f for f in sorted(path.rglob("*")) if f.is_file() and not _hidden(f.relative_to(path))]
    documents = [f for f in files if f.suffix.lower() in DOCUMENT_SUFFIXES]
    read = _read_document if documents else _read_jsonl
    files = documents or [f for f in files if _is_jsonl(f)]
    if not files:
        raise FileNotFoundError(
            f"no passages in {str(path)!r}: neither corpus.jsonl nor any file that ends in "
            f"{', '.join(DOCUMENT_SUFFIXES)} or .jsonl"
        )
    return _unique(pair for f in files for pair in read(f, f.relative_to(path).as_posix(), tokenizer))


def split_text(text: str, tokenizer, *, max_tokens: int = 256, overlap: int = 32) -> list[str]:
    """Pieces of `text`, each at most `max_tokens` of the tokenizer's tokens, its special tokens included.

    Pieces are substrings, cut between sentences where one ends in time, and otherwise between words. A piece
    begins with the last sentences of the one before, as far as `overlap` tokens hold them, so that a thought
    across a cut is whole in one of the two. Raises ValueError unless 0 <= overlap < max_tokens.
    """
    room = max_tokens - tokenizer.num_special_tokens_to_add()
    if not 0 <= overlap < room:
        raise ValueError(f"overlap={overlap} must be at least 0 and less than the {room} tokens of one piece")
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
    )
    starts = [start for start, _ in encoded["offset_mapping"]]  # the character where each token begins

    def tokens(start: int, end: int) -> int:
        return bisect_left(starts, end) - bisect_left(starts, start)

    def fits(start: int, end: int) -> bool:
        # Alone, a piece can come to more tokens than within the text: a word cut in two, a first word that
        # has lost the space before it. So it is counted again.
        if tokens(start, end) > room:
            return False
        alone = tokenizer(text[start:end].strip(), add_special_tokens=False, verbose=False)
        return len(alone["input_ids"]) <= room

    def cuts(start: int, end: int) -> Iterator[int]:  # the most wanted first
        first, last = bisect_left(starts, start), bisect_left(starts, end)
        for cut in starts[min(first + room, last - 1) : first : -1]:
            space = max(text.rfind(" ", start + 1, cut), text.rfind("\n", start + 1, cut))
            yield space if space > start else max(cut, start + 1)
        while end > start + 1:  # one token that alone is many
            end = (start + end) // 2
            yield end

    units: list[tuple[int, int]] = []  # sentences; those too long for one piece cut between words
    for start, end in sentence_spans(text):
        while end > start + 1 and not fits(start, end):
            cut = next((cut for cut in cuts(start, end) if fits(start, cut)), start + 1)
            units.append((start, cut))
            start = cut
        units.append((start, end))
    pieces: list[str] = []
    first = 0
    while first < len(units):
        last = first
        while last + 1 < len(units) and tokens(units[first][0], units[last + 1][1]) <= room:
            last += 1
        while last > first and not fits(units[first][0], units[last][1]):
            last -= 1
        pieces.append(text[units[first][0] : units[last][1]].strip())
        if last + 1 == len(units):
            break
        first, done = last + 1, first
        while first - 1 > done and tokens(units[first - 1][0], units[last][1]) <= overlap:
            if not fits(units[first - 1][0], units[last + 1][1]):
                break  # with this overlap the next sentence would not fit: no progress
            first -= 1
    return [piece for piece in pieces if piece]


# A full stop after one of these ends no sentence.
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|et al|vs|cf|Eqs?|Figs?|Sec|Dr|Mr|Mrs|Ms|St|No|approx|resp)"
    r"|(?:^|[\s(][A-Z]\w* )[A-Z])\.$"
)
_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s+[\"'“‘(\[`*_]*(?:[^\sa-z]|[a-z]+[A-Z]))")
# Fenced code and headings stand alone; blank lines and list items end a sentence.
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.S)
_BLOCK = re.compile(r"```.*?(?:```|\Z)|^#+[ \t][^\n]*$", re.S | re.M)
_PARAGRAPH_END = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+•]|\d+[.)])\s)|\Z")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence in `text`, in order; fenced code and headings are one span each."""
    spans: list[tuple[int, int]] = []
    position = 0
    for block in [*_BLOCK.finditer(text), None]:
        until = block.start() if block else len(text)
        while position < until:
            ending = _PARAGRAPH_END.search(text, position, until)
            stop, resume = ending.span() if ending else (until, until)
            for match in _END.finditer(text, position, stop):
                if not _ABBREVIATION.search(text, max(position, match.end() - 40), match.end()):
                    spans.append((position, match.end()))
                    position = match.end()
            spans.append((position, stop))
            position = max(resume, stop + 1) if stop < until else until
        if block:
            spans.append(block.span())
            position = block.end()
    trimmed = []
    for start, end in spans:
        piece = text[start:end]
        if body := piece.strip():
            start += len(piece) - len(piece.lstrip())
            trimmed.append((start, start + len(body)))
    return trimmed


def readable(text: str) -> str:
    """The text with "?" for halves of surrogate pairs, which a tokenizer and a browser refuse."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, in order, line breaks inside them as spaces; fenced code stays as it is."""
    found = [text[start:end] for start, end in sentence_spans(text)]
    return [piece if piece.startswith("```") else " ".join(piece.split()) for piece in found]


def read_jsonl(path: Path) -> Iterator[tuple[int, dict]]:
    """(line number, object) of each line of a JSONL file, `.gz` or plain; blank lines are passed over.

    Raises ValueError with file and line where a line is not a JSON object or not UTF-8.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    with opener(path, "rb") as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line.decode("utf-8-sig").rstrip())
                if not isinstance(row, dict):
                    raise ValueError(f"a JSON {type(row).__name__}, not an object")
                if b"\\ud" in line.lower():  # half of a surrogate pair is JSON, but no text to encode or save
                    json.dumps(row, ensure_ascii=False).encode()
                yield number, row
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: not a whole gzip file, broken after line {number}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error


# Each reader yields (where it stands, passage), so that an error can name the place.
def _read_jsonl(path: Path, name: str, tokenizer) -> Iterator[tuple[str, Passage]]:
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        identifier = row.pop("_id", row.pop("id", None))
        title, text, metadata = (
            row.pop("title", None) or "",
            row.pop("text", None),
            row.pop("metadata", None) or {},
        )
        if not isinstance(text, str) or not isinstance(title, str) or not isinstance(metadata, dict):
            raise ValueError(f"{where}: needs a string `text` (and `title` a string, `metadata` an object)")
        metadata = metadata | row  # fields that we don't know are kept
        if identifier is None:
            title = title or str(row.get("path", ""))
            for passage in _split_document(f"{name}:{number}", title, text, metadata, tokenizer):
                yield where, passage
        elif isinstance(identifier, str | int) and str(identifier):
            yield where, Passage(str(identifier), text, title, metadata)
        else:
            raise ValueError(f"{where}: `_id` must be a string that is not empty, not {identifier!r}")


def _read_document(path: Path, name: str, tokenizer) -> Iterator[tuple[str, Passage]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    if path.suffix.lower() in (".md", ".markdown", ".mdx"):
        text = _plain_markdown(text)
    heading = re.search(r"^#+\s+(.+?)\s*#*$", _FENCE.sub("", text), re.M)  # in code, # begins a comment
    title = heading[1] if heading else path.stem
    for passage in _split_document(name, title, text, {"path": name}, tokenizer):
        yield str(path), passage


def _split_document(name: str, title: str, text: str, metadata: dict, tokenizer) -> list[Passage]:
    """One passage a piece; the title goes in front of every piece, so its tokens are taken off the window."""
    tokenizer = tokenizer or default_tokenizer()
    window = min(tokenizer.model_max_length, 256)
    title = title.strip()[:200]
    room = window - len(tokenizer(title, add_special_tokens=False, verbose=False)["input_ids"])
    room = max(room, window // 2)
    pieces = split_text(text, tokenizer, max_tokens=room, overlap=min(32, room // 4))
    return [
        Passage(f"{name}#{part}", piece, title, metadata | {"part": part})
        for part, piece in enumerate(pieces, 1)
    ]


def _plain_markdown(text: str) -> str:
    """Markdown without what is not read aloud: front matter, comments, images, tags, links, bold marks.

    Code blocks that are told by their indentation get fences, by which the rest of ragkit tells them.
    """
    text = _fence_indented(re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S))
    parts, fences = _FENCE.split(text), _FENCE.findall(text)
    target = r"\((?:[^()]|\([^()]*\))*\)"
    for index, part in enumerate(parts):
        part = re.sub(rf"<!--.*?-->|!\[[^\]]*\]{target}", "", part, flags=re.S)
        part = re.sub(rf"\[([^\]]*)\]{target}", r"\1", part)
        # `inline code` keeps its <T>; a tag that parts two words leaves a space
        part = re.sub(r"(`[^`\n]+`)|</?(?:br|p|div|li|t[dhr])\b[^<>\n]*>", lambda m: m[1] or " ", part)
        part = re.sub(r"(`[^`\n]+`)|</?[A-Za-z][^<>\n]*>", lambda m: m[1] or "", part)
        parts[index] = re.sub(
            r"(`[^`\n]+`)|(\*\*|\b__)(?=\S)((?:.|\n(?!\s*\n))+?)(?<=\S)\2", lambda m: m[1] or m[3], part
        )
    return "".join(a + b for a, b in zip(parts, [*fences, ""]))


def _fence_indented(text: str) -> str:
    """Blocks indented by four spaces or a tab, after a blank line and outside lists, put into fences."""
    out: list[str] = []
    fenced = listed = False  # inside a fence; after a list item, whose paragraphs are indented too
    code: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line.lstrip().startswith("```"):
            fenced = not fenced
        indented = not fenced and not listed and re.match(r"(?: {4}|\t)\s*\S", line)
        if indented and (code or not out or not out[-1].strip()):
            code.append(re.sub(r"^(?: {4}|\t)", "", line))
            continue
        if code and not line.strip() and not fenced:
            code.append("")  # a blank line may stand inside the block
            continue
        if code:
            blank = len(code) - len("\n".join(code).rstrip("\n").split("\n"))
            out += ["```", *code[: len(code) - blank], "```", *[""] * blank]
            code = []
        if line.strip() and not fenced:
            listed = bool(re.match(r"\s*(?:[-*+•]|\d+[.)])\s", line)) or (listed and line[0] in " \t")
        out.append(line)
    if code:
        out += ["```", *"\n".join(code).rstrip("\n").split("\n"), "```", ""]
    return "\n".join(out[:-1])


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_jsonl(path: Path) -> bool:
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def _unique(pairs: Iterable[tuple[str, Passage]]) -> list[Passage]:
    places: dict[str, str] = {}
    passages = []
    for where, passage in pairs:
        if passage.id in places:
            raise ValueError(f"{where}: the id {passage.id!r} stands already at {places[passage.id]}")
        places[passage.id] = where
        passages.append(passage)
    return passages
