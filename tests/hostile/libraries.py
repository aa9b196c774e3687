"""Libraries: passages that no file can hold, folders that only look whole, searches for what is no number."""

import contextlib
import datetime
import hashlib
import json
import pickle

import numpy as np
import pytest
import torch

from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.lexical import hybrid_search, lexical_search
from ragkit.retrieval.library import Library
from ragkit.retrieval.search import retrieve
from tests.hostile import Door, refused

LOOP: dict = {}
LOOP["it"] = LOOP


def kept(passages, world):
    """Built, saved, loaded and searched."""
    library = Library.build(passages, world.words, progress=False)
    library.save(world.folder / "library")
    again = Library.load(world.folder / "library", world.words)
    found = hybrid_search(again, "what is x?", world.words.encode_query("what is x?"), 5)
    return again.passages == list(passages), len(found)


def came_back(out) -> bool:
    return out == (True, 1)


def one(**fields) -> list[Passage]:
    return [Passage(**{"id": "a", "text": "x"} | fields)]


PASSAGES = (
    ("an empty text", one(text=""), came_back),
    ("blanks for a text", one(text=" \n"), came_back),
    ("a null character", one(text="x\0y", id="a\0b"), came_back),
    ("a direction that is overridden", one(text="\u202egnp.exe", title="\u2066"), came_back),
    ("an id that leads away", one(id="../../etc/passwd"), came_back),
    ("an absolute path for an id", one(id="/etc/passwd"), came_back),
    ("an id with an escape and a line break", one(id="a\x1b[2J\nb"), came_back),
    ("an empty id", one(id=""), came_back),
    ("a separator of lines", one(text="x\u2028y\x85z"), came_back),
    ("a word of 100 kB", one(text="supercali" * 11_000), came_back),
    ("half of a letter in the text", one(text="x \ud800"), refused(r"passage 'a': no JSON file can hold .*\\ud800")),
    ("half of a letter in the id", one(id="\ud800"), refused("no JSON file can hold")),
    ("half of a letter in the title", one(title="\udfff"), refused("passage 'a': no JSON file")),
    ("NaN in the metadata", one(metadata={"v": float("nan")}), refused("passage 'a': no JSON file .*nan")),
    ("a date in the metadata", one(metadata={"d": datetime.date(2020, 1, 1)}), refused("passage 'a': .*date")),
    ("a set in the metadata", one(metadata={"s": {1}}), refused("passage 'a': .*set")),
    ("metadata that hold themselves", one(metadata=LOOP), refused("passage 'a': .*[Cc]ircular")),
    ("a number of 5,000 digits", one(metadata={"n": 10**5000}), refused("passage 'a': .*digits")),
    ("no metadata at all", one(metadata=None), refused("its metadata is None, and must be a dict", TypeError)),
    ("a list for the metadata", one(metadata=[1]), refused("its metadata is \\[1\\]", TypeError)),
    ("a number for an id", one(id=5), refused("passage 5: its id is 5, and must be a string", TypeError)),
    ("bytes for a text", one(text=b"x"), refused("passage 'a': its text is b'x'", TypeError)),
    ("no title at all", one(title=None), refused("passage 'a': its title is None", TypeError)),
    ("one id twice", one() + one(text="y"), refused("the id 'a' comes twice")),
    ("a text for the passages", "abc", refused("passages\\[0\\] is a str, not a Passage", TypeError)),
    ("one passage for a list", one()[0], refused("one Passage, not a list of them: \\[passage\\]", TypeError)),
    ("a row for a passage", [{"id": "a", "text": "x"}], refused("passages\\[0\\] is a dict", TypeError)),
)  # fmt: skip


def loaded(change, world):
    """A whole library of four passages, changed, and its checksums made right again."""
    at = world.folder / "library"
    texts = [Passage(str(n), f"text {n}") for n in range(4)]
    Library.build(texts, world.words, progress=False).save(at)
    change(at)
    return len(Library.load(at, world.words))


def manifest(**facts):
    def change(at) -> None:
        told = json.loads((at / "library.json").read_text())
        (at / "library.json").write_text(json.dumps(told | facts))

    return change


def as_file(name: str, **facts):
    """The vectors under another name."""

    def change(at) -> None:
        files = json.loads((at / "library.json").read_text())["files"]
        vectors = next(file for file in files if file.startswith("vectors"))
        manifest(
            files={file: told for file, told in files.items() if file != vectors}
            | {name or vectors: files[vectors] | facts}
        )(at)

    return change


def part(stem: str, data):
    """A forged file: `data`, or what it makes of the file's bytes."""

    def change(at) -> None:
        files = json.loads((at / "library.json").read_text())["files"]
        name = next(file for file in files if file.startswith(stem))
        new = data((at / name).read_bytes()) if callable(data) else data
        (at / name).write_bytes(new)
        files[name] = {"sha256": hashlib.sha256(new).hexdigest(), "bytes": len(new)}
        manifest(files=files)(at)

    return change


def rows(change):
    def forge(data: bytes) -> bytes:
        found = [json.loads(line) for line in data.splitlines()]
        change(found)
        return "".join(json.dumps(row) + "\n" for row in found).encode()

    return part("passages", forge)


def index(make):
    def forge(_) -> bytes:
        import faiss

        return faiss.serialize_index(make(faiss)).tobytes()

    return part("vectors", forge)


def filled(faiss, inner, values=1.0):
    made = faiss.IndexIDMap2(inner)
    made.add_with_ids(np.full((4, 24), values, np.float32), np.arange(4))
    return made


def kind(name: str, path):
    """Something else in the place of the manifest."""

    def change(at) -> None:
        (at / "library.json").unlink()
        path(at / "library.json")

    return change


AGAIN = "build the library again"
FOLDERS = (
    ("of a later version", manifest(version=2), refused("not a library that this ragkit reads: it says .*'version': 2")),
    ("of another format", manifest(format="x"), refused("it says \\{'format': 'x'")),
    ("of another encoder", manifest(fingerprint="x"), refused("built by encoder 'words' .*load that one")),
    ("of no encoder", manifest(encoder=None), refused(f"damaged \\(no encoder\\); {AGAIN}")),
    ("of another dimension", manifest(dimension=7), refused(f"do not belong together .*{AGAIN}")),
    ("of a text for a dimension", manifest(dimension="x"), refused("do not belong together")),
    ("a file that leads away", as_file("vectors-../../x"), refused(f"library\\.json is damaged .*{AGAIN}")),
    ("a file that leads away, as on Windows", as_file("vectors-..\\x"), refused("library\\.json is damaged")),
    ("an absolute path", as_file("/etc/passwd"), refused("library\\.json is damaged")),
    ("the folder above", as_file("vectors-.."), refused(f"is missing, though the manifest names it; {AGAIN}")),
    ("a null character", as_file("vectors-\0"), refused("is missing, though the manifest names it")),
    ("no checksum", as_file("", sha256=None), refused("library\\.json is damaged")),
    ("a text for a size", as_file("", bytes="x"), refused("bytes, not x: truncated or changed")),
    ("a list for the files", manifest(files=[1]), refused("library\\.json is damaged")),
    ("100,000 lists for a manifest", lambda at: (at / "library.json").write_text("[" * 100_000), refused("library\\.json is damaged .*recursion")),
    ("Latin-1 for a manifest", lambda at: (at / "library.json").write_bytes(b"\xe9"), refused("library\\.json is damaged")),
    ("a folder for a manifest", kind("folder", lambda at: at.mkdir()), refused("no library in", FileNotFoundError)),
    ("a link to nowhere for a manifest", kind("link", lambda at: at.symlink_to("/nonexistent")), refused("no library in", FileNotFoundError)),
    ("junk for vectors", part("vectors", b"junk" * 100), refused(f"library is damaged \\(.*{AGAIN}")),
    ("a pickle for vectors", part("vectors", pickle.dumps([1])), refused("library is damaged")),
    ("nothing for vectors", part("vectors", b""), refused("library is damaged")),
    ("half of the vectors", part("vectors", lambda data: data[:100]), refused("library is damaged")),
    ("vectors without numbers", index(lambda faiss: faiss.IndexFlatIP(24)), refused("library is damaged")),
    ("vectors of another measure", index(lambda faiss: filled(faiss, faiss.IndexFlatL2(24))), refused("numbers no passages, or measures otherwise")),
    ("an index that is not exact", index(lambda faiss: filled(faiss, faiss.IndexHNSWFlat(24, 4))), refused("library is damaged")),
    ("NaN for vectors", index(lambda faiss: filled(faiss, faiss.IndexFlatIP(24), np.nan)), refused(f"vectors hold NaN or infinity; {AGAIN}")),
    ("a passage without an id", rows(lambda rows: rows[0].pop("_id")), refused("library is damaged \\('_id'")),
    ("a passage with a number for a text", rows(lambda rows: rows[0].update(text=5)), refused("damaged .*passage '0': its text is 5")),
    ("a passage with a list for its metadata", rows(lambda rows: rows[0].update(metadata=[1])), refused("damaged .*metadata is \\[1\\]")),
    ("two passages of one id", rows(lambda rows: rows[1].update(_id="0")), refused("do not belong together")),
    ("two passages of one number", rows(lambda rows: rows[1].update(n=0)), refused("do not belong together")),
    ("a list for a number", rows(lambda rows: rows[0].update(n=[0])), refused("library is damaged")),
    ("a passage too few", rows(lambda rows: rows.pop()), refused("do not belong together")),
    ("passages that are no JSON", part("passages", b"junk"), refused("damaged .*line 1: Expecting value")),
    ("passages nested too deep", part("passages", b'{"a":' * 50_000), refused("damaged .*line 1: .*recursion")),
)  # fmt: skip


def four(world) -> Library:
    texts = [Passage(str(n), f"text {n} of x") for n in range(4)]
    return Library.build(texts, world.words, progress=False)


def by_k(k, world):
    library, vector = four(world), world.words.encode_query("x")
    return [
        len(each)
        for each in (
            retrieve(library, vector, k),
            hybrid_search(library, "x", vector, k),
            lexical_search(library, "x", k),
        )
    ]


def all_four(out) -> bool:
    return out == [4, 4, 4]


K = (
    ("0", 0, lambda out: out == [0, 0, 0]),
    ("more than there are", 5, all_four),
    ("more than any", 2**70, all_four),
    ("-1", -1, refused("k=-1: the number of hits cannot be negative")),
    ("1.5", 1.5, refused("k=1.5: the number of hits is an integer", TypeError)),
    ("2.0", 2.0, refused("k=2.0", TypeError)),
    ("NaN", float("nan"), refused("k=nan", TypeError)),
    ("a text", "3", refused("k='3'", TypeError)),
    ("None", None, refused("k=None", TypeError)),
    ("True", True, refused("k=True", TypeError)),
)


def by_vector(make, world):
    return [hit.score for hit in retrieve(four(world), make(world.words.encode_query("x")), 2)]


def finite(scores) -> bool:
    return bool(np.isfinite(scores).all())


VECTORS = (
    ("NaN in one place", lambda v: np.where(np.arange(24) == 3, np.nan, v), refused("query_vector\\[3\\] is nan")),
    ("infinity", lambda v: v * np.inf, refused("query_vector\\[0\\] is -?inf")),
    ("beyond float32", lambda v: v.astype(float) * 1e300, refused("query_vector\\[0\\] is -?inf")),
    ("zeros", lambda v: v * 0, finite),
    ("1e37", lambda v: v * 1e37, finite),
    ("too short", lambda v: v[:10], refused("shape \\(10,\\), the library's vectors have \\(24,\\): encode the query with 'words'")),
    ("empty", lambda v: v[:0], refused("shape \\(0,\\)")),
    ("two of them", lambda v: np.stack([v, v]), refused("shape \\(2, 24\\)")),
    ("a number", lambda v: 1.0, refused("shape \\(\\)")),
    ("nothing", lambda v: None, refused("shape \\(\\)")),
    ("the question itself", lambda v: "what is x?", refused("query_vector='what is x\\?': a vector of 24 numbers, as encode_query")),
    ("a tensor with its gradient", lambda v: torch.tensor(v, requires_grad=True), refused("query_vector=.*a vector of 24 numbers")),
)  # fmt: skip


def in_milvus(world):
    pytest.importorskip("milvus_lite", reason="pip install -e .[scale]")
    from ragkit.retrieval.milvus import MilvusLibrary

    return MilvusLibrary.open(world.folder / "library.db", world.words)


def kept_by_milvus(passages, world):
    """Added, closed, opened and searched."""
    with contextlib.closing(in_milvus(world)) as library:
        library.add(passages, progress=False)
    with contextlib.closing(in_milvus(world)) as again:
        found = hybrid_search(again, "what is x?", world.words.encode_query("what is x?"), 5)
        known = again.vectors_of(passage.id for passage in passages)
        same = again.passages == list(passages) and (known == again.vectors).all()
        return bool(same), len(found)


LONG = "and Milvus holds 65,535: shorten it, or split"
MILVUS_PASSAGES = (
    *(row for row in PASSAGES if row[0] != "a word of 100 kB"),
    ("an id that is a filter", one(id="x'] or id != '"), came_back),
    ("an id that is a list", one(id="a', 'b"), came_back),
    ("quotes, backslashes and braces for an id", one(id="\\\"'{ids}%\\u0027"), came_back),
    ("an id in two scripts and an emoji", one(id="日本-é-😀"), came_back),
    ("an id of 65,535 bytes", one(id="é" * 32_767 + "x"), came_back),
    ("a text of 65,535 bytes", one(text="x " * 32_767 + "y"), came_back),
    ("an id of 65,536 bytes", one(id="é" * 32_768), refused(f"passage 'é+': its id has 65,536 bytes, {LONG}")),
    ("a text of 40,000 letters in 80,000 bytes", one(text="é" * 40_000), refused(f"its text has 80,000 bytes, {LONG}")),
    ("a title of 100 kB", one(title="x" * 100_000), refused(f"passage 'a': its title has 100,000 bytes, {LONG}")),
    ("metadata of 100 kB", one(metadata={"x": "y" * 100_000}), refused(f"its metadata has 100,009 bytes, {LONG}")),
)  # fmt: skip


def deleted_by_milvus(passage_id, world):
    """What is left of four once that one is gone."""
    with contextlib.closing(in_milvus(world)) as library:
        library.add([Passage(each, "x") for each in ("a", "b", "c")], progress=False)
        library.add([Passage(passage_id, "x")], progress=False)
        library.delete(passage_id)
        return library.ids()


def three_left(out) -> bool:
    return out == {"a", "b", "c"}


IDS = tuple(
    (passage_id, passage_id, three_left)
    for passage_id in ("a', 'b", "x'] or id != 'x", "x', 'a', 'b', 'c", "' or 1 == 1 or '", "\\", "'", '"', "", "{key}")
)  # fmt: skip


def given_to_milvus(vectors, world):
    with contextlib.closing(in_milvus(world)) as library:
        try:
            library.add([Passage("a", "x"), Passage("b", "y")], vectors, progress=False)
        finally:
            assert len(library) == 0


ONES = np.ones((2, 24))
MILVUS_VECTORS = (
    ("NaN in one place", np.where(ONES.cumsum().reshape(2, 24) == 30, np.nan, 1), refused("NaN or infinity for passage 'b'")),
    ("infinity", ONES * np.inf, refused("NaN or infinity for passage 'a'")),
    ("beyond float32", ONES * 1e300, refused("NaN or infinity for passage 'a'")),
    ("one too few", ONES[:1], refused("vectors of shape \\(1, 24\\) were given for 2 passages, not \\(2, 24\\)")),
    ("too short", ONES[:, :23], refused("vectors of shape \\(2, 23\\)")),
    ("texts", ["x", "y"], refused("could not convert string to float")),
    ("rows of two lengths", [[1.0], [1.0, 2.0]], refused("inhomogeneous")),
)  # fmt: skip

DOORS = (
    Door("passages of a library", kept, PASSAGES),
    Door("passages of a library in Milvus", kept_by_milvus, MILVUS_PASSAGES),
    Door("an id that Milvus deletes", deleted_by_milvus, IDS),
    Door("vectors for a library in Milvus", given_to_milvus, MILVUS_VECTORS),
    Door("a library's folder", loaded, FOLDERS),
    Door("k of a search", by_k, K),
    Door("a query vector", by_vector, VECTORS),
)
