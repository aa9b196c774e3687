"""Passages: what they are and where they are read from."""

import codecs
import gzip
import json
import re
import reprlib
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ragkit.retrieval.default_encoder import default_tokenizer
from ragkit.retrieval.markdown import plain_markdown
from ragkit.retrieval.pieces import split_document
from ragkit.retrieval.text import readable

DATA = Path(__file__).resolve().parents[2] / "data"  # what the repo ships
DOCUMENT_SUFFIXES = (".md", ".markdown", ".mdx", ".rst", ".txt")
LONGEST_PARAGRAPH = 30_000  # characters of reStructuredText: its reader's time grows with their square


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


def check_query(query: str) -> None:
    """Raises ValueError for a query that is no text or an empty one."""
    if not isinstance(query, str) or not query.strip():
        raise ValueError(f"query={query!r}: a question, as a string that is not empty")


def check_hits(hits: Iterable[Hit]) -> list[Hit]:
    """The hits as a list. Raises TypeError for one that is none, as a bare passage is."""
    if not isinstance(hits, Iterable):
        raise TypeError(f"hits={hits!r}: a list of hits, as retrieve gives them; [] for none")
    hits = list(hits)
    for index, hit in enumerate(hits):
        if not isinstance(hit, Hit):
            raise TypeError(f"hits[{index}] is a {type(hit).__name__}, not a Hit, as retrieve gives them")
    return hits


class UnreadableText(ValueError):
    """A file that cannot be read as text."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def load_passages(path: str | Path, tokenizer=None) -> list[Passage]:
    """Passages from a JSONL file, a BEIR folder, or a folder of Markdown or text; `.gz` is read too.

    - JSONL: one object a line with `_id` (or `id`), `text` and perhaps `title`, `metadata`; never split.
      Lines without an id are documents: they are split, and named by file and line.
    - A folder that holds `corpus.jsonl` is a BEIR folder; never split, since its ids are judged.
    - Any other folder: its Markdown, reStructuredText and text files, at every depth, split at the window of
      `tokenizer` (default: the default encoder's) with overlap, named `path#part`; the headings above a
      piece are its `metadata["section"]`: "Install > Linux". Files that are no text (UTF-8, or UTF-16 with
      its mark) are passed over, and one warning at the end names them.

    Raises FileNotFoundError where nothing is, ValueError with file and line where a line is broken, or where
    no file could be read.
    """
    return _unique(stream_passages(path, tokenizer))


def stream_passages(path: str | Path, tokenizer=None, *, warn: bool = True) -> Iterator[tuple[str, Passage]]:
    """(where it stands, passage) of what `load_passages` reads, one at a time; whether ids are unique is not
    looked at. `warn`: whether to say which files were passed over."""
    path = Path(path).expanduser()
    given = cache(lambda: tokenizer or default_tokenizer())  # loaded once, and only where texts are split
    if path.is_file():
        yield from _read(path, path.name, given)
        return
    if not path.is_dir():
        raise FileNotFoundError(f"no file or folder {str(path)!r} to read passages from")
    for name in ("corpus.jsonl", "corpus.jsonl.gz"):
        if (path / name).is_file():
            yield from _read(path / name, name, given)
            return
    files = [f for f in sorted(path.rglob("*")) if f.is_file() and not _hidden(f.relative_to(path))]
    documents = [f for f in files if f.suffix.lower() in DOCUMENT_SUFFIXES]
    files = documents or [f for f in files if _is_jsonl(f)]
    if not files:
        raise FileNotFoundError(
            f"no passages in {str(path)!r}: neither corpus.jsonl nor any file that ends in "
            f"{', '.join(DOCUMENT_SUFFIXES)} or .jsonl"
        )
    skipped: list[str] = []
    for file in files:
        name = file.relative_to(path).as_posix()
        try:
            yield from _read(file, name, given)
        except UnreadableText as error:
            skipped.append(f"{name} ({error.reason})")
        except OSError as error:  # it may not be read, or is gone by now
            skipped.append(f"{readable(name)} ({error.strerror})")
    if skipped:
        told = f"skipped {len(skipped)} of {len(files)} files: {', '.join(skipped)}"
        if len(skipped) == len(files):
            raise ValueError(f"{path}: {told}")
        if warn:
            warnings.warn(told, stacklevel=4)


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
                if b"\\ud" in line.lower() and (half := _HALF.search(json.dumps(row, ensure_ascii=False))):
                    raise ValueError(f"{half[0]!r} is half of a character, and no text: write both halves")
                yield number, row
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: not a whole gzip file, broken after line {number}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error


_HALF = re.compile("[\ud800-\udfff]")


def shortened(value) -> str:
    """A value of any kind, in an error."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"a {type(value).__name__} with too many digits"


def unsaved(value) -> str | None:
    """Why no file can hold this, as JSON in UTF-8; None where one can."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:  # a set, NaN, half of a character, a circle
        return f"no JSON file can hold {shortened(value)}: {error}"
    return None


def _read(path: Path, name: str, given: Callable) -> Iterator[tuple[str, Passage]]:
    """(where it stands, passage) of each in a file, so that an error can name the place; `given()`: the
    tokenizer."""
    name = readable(name)  # on disk it is bytes, of any kind
    if not _is_jsonl(path):
        for passage in _split_document(name, path, "", _decoded(path), {"path": name}, given):
            yield str(path), passage
        return
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        identifier = row.pop("_id", row.pop("id", None))
        text, title, metadata = (row.pop(key, None) for key in ("text", "title", "metadata"))
        title, metadata = "" if title is None else title, {} if metadata is None else metadata
        for key, value, kind in (("text", text, str), ("title", title, str), ("metadata", metadata, dict)):
            if not isinstance(value, kind):
                wanted = "a string" if kind is str else "an object"
                raise ValueError(f"{where}: needs {wanted} `{key}`, not {value!r:.60}")
        metadata = metadata | row  # fields that we don't know are kept
        if why := unsaved(metadata):
            raise ValueError(f"{where}: {why}")
        if identifier is None:
            place = Path(str(row.get("path", "")))
            for passage in _split_document(f"{name}:{number}", place, title, text, metadata, given):
                yield where, passage
        elif type(identifier) in (str, int) and str(identifier).strip():
            yield where, Passage(str(identifier), text, title, metadata)
        else:
            raise ValueError(f"{where}: `_id` must be a string that is not empty, not {identifier!r}")


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if utf16 else "UTF-8"
        raise UnreadableText(path, f"not {kind} text; save it as UTF-8") from error
    if "\0" in text:  # which UTF-16 without its mark, and UTF-32, have between their letters
        raise UnreadableText(path, "null characters in it: no text, or not UTF-8; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _split_document(
    name: str, path: Path, title: str, text: str, metadata: dict, given: Callable
) -> Iterator[Passage]:
    """One passage a piece; the title goes in front of every piece, so its tokens are taken off the window."""
    found, suffix = "", path.suffix.lower()
    if suffix in (".md", ".markdown", ".mdx"):
        found, text = plain_markdown(text, indented_code=suffix != ".mdx")
    elif suffix == ".rst":
        from ragkit.retrieval.restructured import plain_restructured

        if (longest := max(map(len, re.split(r"\n\s*\n", text)))) > LONGEST_PARAGRAPH:
            raise UnreadableText(path, f"a paragraph of {longest:,} characters; part it by blank lines")
        try:
            found, text = plain_restructured(text)
        except RecursionError as error:
            raise UnreadableText(path, "nested too deep") from error
        except LookupError as error:  # docutils has some for what is no table after all
            raise UnreadableText(path, f"docutils can't read it: {error}") from error
    tokenizer = given()
    window = min(tokenizer.model_max_length, 256)
    title = readable((title or found or path.stem).strip()[:200])
    taken = len(tokenizer(title, add_special_tokens=False, verbose=False)["input_ids"])
    room = max(window - taken, window // 2)
    pieces = split_document(text, tokenizer, max_tokens=room, overlap=min(32, room // 4))
    for part, (piece, section) in enumerate(pieces, 1):
        told = {"part": part} | ({"section": section} if section else {})
        yield Passage(f"{name}#{part}", piece, title, metadata | told)


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
