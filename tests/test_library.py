"""The library: exact search, changes that happen whole or not at all, and files that can be trusted."""

import json
import os
import re
import subprocess
import sys
import time
import unicodedata
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import ragkit
import ragkit.retrieval.storage
from ragkit.retrieval.corpus import Hit, Passage
from ragkit.retrieval.lexical import LEXICAL, fuse, hybrid_search, lexical_search
from ragkit.retrieval.library import Library
from ragkit.retrieval.milvus import encoder_of
from ragkit.retrieval.search import retrieve
from tests.helpers import WORDS, FakeEncoder, hits, passages, texts

ROOT = Path(__file__).parent.parent


@pytest.fixture
def encoder():
    return FakeEncoder()


@pytest.fixture
def library(encoder):
    return Library.build(passages(*texts(50)), encoder)


class Given:
    """An encoder whose vectors are given: passage "3" has row 3."""

    name, fingerprint = "given", "0" * 64

    def __init__(self, rows):
        self.rows = np.asarray(rows, dtype=np.float32)
        self.dimension = self.rows.shape[1]

    def encode_passages(self, texts, *, progress=True):
        return self.rows[[int(text) for text in texts]]


def given(rows) -> Library:
    return Library.build(passages(*map(str, range(len(rows)))), Given(rows))


def ids(found: list[Hit]) -> list[str]:
    return [hit.passage.id for hit in found]


def state(library: Library):
    """All that a search can tell."""
    vector = library._encoder.encode_query("x")
    return library.passages, retrieve(library, vector, 1000), lexical_search(library, "beta margin", 1000)


# --- retrieve


def test_retrieve_is_brute_force(library, encoder):
    rows = encoder.encode_passages([p.text for p in library.passages])
    for n in range(20):
        query = encoder.encode_query(f"query {n}")
        scores = rows @ query
        best = np.argsort(-scores)[:7]
        found = retrieve(library, query, 7)
        assert ids(found) == [f"p{i}" for i in best]
        assert np.allclose([hit.score for hit in found], scores[best], atol=1e-6)
        assert [hit.rank for hit in found] == [1, 2, 3, 4, 5, 6, 7]
        assert found[0].passage is library.passages[best[0]]


def test_ties_keep_the_order_of_the_library_at_the_cut_too():
    random = np.random.default_rng(0)
    for _ in range(100):
        number = int(random.integers(2, 300))
        rows = random.integers(-2, 3, size=(number, 4))
        query, k = random.integers(-1, 2, size=4), int(random.integers(1, number + 1))
        expected = np.argsort(-(rows @ query), kind="stable")[:k]
        assert ids(retrieve(given(rows), query, k)) == [f"p{i}" for i in expected]


def test_more_than_there_are_gives_all_and_none_gives_none(library, encoder):
    query = encoder.encode_query("x")
    assert len(retrieve(library, query, 51)) == len(lexical_search(library, " ".join(WORDS), 10**9)) == 50
    assert retrieve(library, query, 0) == lexical_search(library, "beta", 0) == []
    assert len(retrieve(library, query, np.int64(3))) == 3


@pytest.mark.parametrize(
    "k, error", [(-1, ValueError), (True, TypeError), (2.0, TypeError), ("2", TypeError)]
)
def test_a_number_of_hits_is_a_whole_number(library, encoder, k, error):
    for search in (
        lambda: retrieve(library, encoder.encode_query("x"), k),
        lambda: lexical_search(library, "beta", k),
        lambda: fuse(hits("a"), k=k),
    ):
        with pytest.raises(error, match=re.escape(f"k={k!r}: the number of hits")):
            search()


def test_an_empty_library_finds_nothing(encoder, tmp_path):
    empty = Library.build([], encoder)
    assert len(empty) == 0 and empty.passages == []
    assert retrieve(empty, encoder.encode_query("x"), 3) == lexical_search(empty, "beta", 3) == []
    empty.save(tmp_path)
    again = Library.load(tmp_path, encoder)
    again.add(passages("beta"))
    assert ids(retrieve(again, encoder.encode_query("x"), 3)) == ["p0"]


@pytest.mark.parametrize("shape", [(15,), (17,), (2, 16), (1, 2, 16), (16, 1), ()])
def test_a_vector_of_another_shape_is_refused(library, shape):
    for search in (retrieve, partial(hybrid_search, query="beta")):
        with pytest.raises(ValueError, match=r"shape .*the library's vectors have \(16,\).*'fake'"):
            search(library, query_vector=np.zeros(shape), k=3)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_refused(library, encoder, wrong):
    vector = encoder.encode_query("x")
    vector[5] = wrong
    with pytest.raises(ValueError, match=r"query_vector\[5\] is"):
        retrieve(library, vector, 3)


def test_a_row_a_list_and_float64_are_vectors_too(library, encoder):
    vector = encoder.encode_query("x")
    for same in (vector[None], vector.tolist(), vector.astype(np.float64)):
        assert retrieve(library, same, 3) == retrieve(library, vector, 3)
    assert hybrid_search(library, "x", vector[None], 3) == hybrid_search(library, "x", vector, 3)


# --- changes


def test_added_replaced_and_deleted_passages_are_found_as_if_built_so(library, encoder):
    library.delete(["p3", "p49", "p3"])
    library.delete("p0")
    library.add(passages("new one", "new two", first=100))
    library.replace([Passage("p7", "beta beta anew")])
    assert "p0" not in library and "p100" in library and len(library) == 49
    built = Library.build(library.passages, encoder)
    assert state(library) == state(built)
    assert ids(retrieve(library, encoder.encode_query("beta beta anew"), 1)) == ["p7"]
    assert library.passages[-1] == Passage("p7", "beta beta anew")


def test_vectors_stand_in_the_order_of_the_passages(library, encoder):
    np.testing.assert_allclose(
        library.vectors, encoder.encode_passages([p.full_text for p in library.passages]), atol=1e-6
    )
    gone = library.passages[1].id
    library.delete([gone])
    library.add([Passage("late", "comes last")])
    np.testing.assert_allclose(
        library.vectors, encoder.encode_passages([p.full_text for p in library.passages]), atol=1e-6
    )
    assert Library.build([], encoder).vectors.shape == (0, encoder.dimension)


@pytest.mark.parametrize("passage", [Passage(1, "text"), Passage("a", None), Passage("a", "text", None)])
def test_what_is_no_text_is_refused(passage, encoder):
    with pytest.raises(TypeError, match="must be a string"):
        Library.build([passage], encoder)


def test_vectors_of_some_passages(library, encoder, tmp_path):
    ids = [passage.id for passage in library.passages]
    library.save(tmp_path)
    for some in (library, Library.load(tmp_path, encoder)):
        assert (some.vectors_of([ids[2], ids[0]]) == library.vectors[[2, 0]]).all()
        assert some.vectors_of(iter(())).shape == (0, encoder.dimension)
        with pytest.raises(KeyError, match="no passage 'nowhere'"):
            some.vectors_of([ids[0], "nowhere"])


def test_a_number_that_is_used_again_does_no_harm(library, encoder, tmp_path):
    """Numbers are FAISS's names for passages; that of a deleted last passage comes back."""
    query = encoder.encode_query(library.passages[-1].text)
    for _ in range(3):
        library.delete("p49")
        library.add([Passage("p49", "another text")])
        assert library._numbers["p49"] == 49 and len(library._passages) == library._index.ntotal == 50
    assert retrieve(library, query, 1)[0].score < 0.99  # the old vector is gone
    assert ids(retrieve(library, encoder.encode_query("another text"), 1)) == ["p49"]
    library.delete("p49")
    library.save(tmp_path)
    again = Library.load(tmp_path, encoder)
    again.add([Passage("last", "the last text")])
    assert ids(retrieve(again, encoder.encode_query("the last text"), 1)) == ["last"]
    again.save(tmp_path)
    assert state(Library.load(tmp_path, encoder)) == state(again)
    assert state(again) == state(Library.build(again.passages, encoder))


class Failing(FakeEncoder):
    """Raises, or gives what no encoder should, at the first text that holds "bad"."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def encode_passages(self, texts, *, progress=True):
        vectors = super().encode_passages(texts)
        if any("bad" in text for text in texts):
            if self.how == "raise":
                raise RuntimeError("out of memory")
            if self.how == "short":
                return vectors[:, :-1]
            if self.how == "few":
                return vectors[1:]
            vectors[-1, 3] = np.nan
        return vectors


@pytest.mark.parametrize("how", ["raise", "nan", "short", "few"])
@pytest.mark.parametrize("change, first", [("add", 5), ("replace", 3)])
def test_when_the_encoder_fails_nothing_changes(how, change, first):
    library = Library.build(passages(*texts(5)), Failing(how))
    before = state(library)
    reason = {"raise": "out of memory", "nan": f"NaN or infinity for passage 'p{first + 1}'"}
    with pytest.raises(
        (RuntimeError, ValueError), match=reason.get(how, r"vectors of shape \(.*not \(2, 16\)")
    ):
        getattr(library, change)(passages("good", "bad", first=first))
    assert state(library) == before


@pytest.mark.parametrize(
    "change, argument, message",
    [
        ("add", [Passage("new", "a"), Passage("p1", "b")], "'p1' is in the library already; use replace"),
        ("add", [Passage("new", "a"), Passage("new", "b")], "the id 'new' comes twice"),
        ("replace", [Passage("p1", "a"), Passage("new", "b")], "no passage 'new' to replace; use add"),
        ("replace", [Passage("p1", "a"), Passage("p1", "b")], "the id 'p1' comes twice"),
        ("delete", ["p1", "new"], "no passage 'new' in this library"),
    ],
)
def test_a_wrong_id_changes_nothing(library, change, argument, message):
    before = state(library)
    with pytest.raises((ValueError, KeyError), match=re.escape(message)):
        getattr(library, change)(argument)
    assert state(library) == before


def test_duplicates_cannot_be_built(encoder):
    with pytest.raises(ValueError, match="the id 'p0' comes twice"):
        Library.build([*passages("a"), *passages("b")], encoder)


def test_titles_are_searched_too(encoder):
    library = Library.build([Passage("a", "text", title="Zeta"), Passage("b", "text")], encoder)
    assert ids(lexical_search(library, "zeta", 5)) == ["a"]
    assert ids(retrieve(library, encoder.encode_query("Zeta text"), 1)) == ["a"]


# --- files


def test_a_saved_library_comes_back(library, encoder, tmp_path):
    library.add([Passage("odd", "β\u2028\n漢 😀", "Title", {"tags": ["x"], "n": 1})])
    library.delete("p4")
    library.save(tmp_path / "deep" / "er")
    again = Library.load(tmp_path / "deep" / "er", encoder)
    assert state(again) == state(library)
    assert (again.encoder_name, again.dimension) == ("fake", 16)
    assert encoder_of(tmp_path / "deep" / "er") == "fake"
    again.add(passages("new", first=100))
    assert len(again) == 51


def test_without_its_encoder_a_library_is_searched_but_not_added_to(library, encoder, tmp_path):
    library.save(tmp_path)
    again = Library.load(tmp_path)
    assert retrieve(again, encoder.encode_query("x"), 5) == retrieve(library, encoder.encode_query("x"), 5)
    with pytest.raises(ValueError, match=r"without its encoder: Library\.load\(folder, encoder\)"):
        again.add(passages("new", first=100))


def test_another_encoder_is_refused(library, tmp_path):
    library.save(tmp_path)
    with pytest.raises(ValueError, match=r"built by encoder 'fake' \(.*which is not 'fake' \(.*build"):
        Library.load(tmp_path, FakeEncoder(seed=1))


def the(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def edit(folder: Path, **changes) -> None:
    path = folder / "library.json"
    manifest = json.loads(path.read_text())
    for key, value in changes.items():
        manifest.pop(key) if value is None else manifest.update({key: value})
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("pattern", ["vectors-*", "passages-*"])
def test_a_damaged_file_is_named(library, tmp_path, pattern):
    library.save(tmp_path)
    path = the(tmp_path, pattern)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content, message in [
        (whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :], "is damaged: its sha256 is"),
        (whole[:-1], f"has {len(whole) - 1} bytes, not {len(whole)}: truncated"),
        (b"", "has 0 bytes"),
        (None, "is missing, though the manifest names it"),
    ]:
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(path.name) + f" {message}.*build the library again"):
            Library.load(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dimension": 15}, "vectors and passages do not belong together"),
        ({"dimension": None, "encoder": None}, "damaged (no encoder, dimension)"),
        ({"files": {}}, "damaged (its files are {})"),
        ({"files": None}, "damaged (its files are {})"),
        ({"files": ["vectors-1.faiss", "passages-1.jsonl"]}, "damaged"),
        ({"files": {"vectors-1.faiss": {}, "passages-1.jsonl": {}}}, "damaged (its files are"),
        ({"files": {"vectors-1.faiss": 5, "passages-1.jsonl": "x"}}, "damaged"),
        ({"files": {f"{n}-/../x": {"sha256": "", "bytes": 0} for n in ("vectors", "passages")}}, "damaged"),
        (
            {"format": "other", "files": [1]},
            "not a library that this ragkit reads: it says {'format': 'other'",
        ),
        ({"version": 2}, "not a library that this ragkit reads"),
    ],
)
def test_an_edited_or_foreign_manifest_is_refused(library, tmp_path, changes, message):
    library.save(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        Library.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe{}", b'"text"'])
def test_a_manifest_that_is_none_is_refused(library, tmp_path, content):
    library.save(tmp_path)
    (tmp_path / "library.json").write_bytes(content)
    for use in (lambda: Library.load(tmp_path), lambda: library.save(tmp_path)):
        with pytest.raises(ValueError, match=r"library\.json is damaged"):
            use()
    assert (tmp_path / "library.json").read_bytes() == content


def test_vectors_of_other_passages_are_refused(library, encoder, tmp_path):
    """Both files are whole, but they are not of one library."""
    other = Library.build(passages(*texts(49)), encoder)
    library.save(tmp_path / "a")
    other.save(tmp_path / "b")
    files = json.loads((tmp_path / "a" / "library.json").read_text())["files"]
    strange = json.loads((tmp_path / "b" / "library.json").read_text())["files"]
    name = next(name for name in strange if name.startswith("vectors"))
    (tmp_path / "b" / name).rename(tmp_path / "a" / name)
    edit(tmp_path / "a", files={n: f for n, f in files.items() if "passages" in n} | {name: strange[name]})
    with pytest.raises(ValueError, match=r"do not belong together \(49 vectors .* 50 passages"):
        Library.load(tmp_path / "a")


def test_a_folder_without_a_library_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no library\.json .*python -m ragkit index"):
        Library.load(tmp_path)


def test_what_cannot_be_saved_leaves_the_old_library(library, encoder, tmp_path):
    library.save(tmp_path)
    with pytest.raises(ValueError, match=r"passage 'new': no JSON file can hold .*a set"):
        library.add([Passage("new", "text", metadata={"a set": {1}})])
    library.passages[0].metadata["a set"] = {1}
    with pytest.raises(TypeError):
        library.save(tmp_path)
    assert len(Library.load(tmp_path, encoder)) == 50 and len(list(tmp_path.iterdir())) == 3


def test_a_library_that_is_replaced_while_it_is_loaded_is_loaded_new(library, encoder, tmp_path, monkeypatch):
    library.save(tmp_path)
    files = ragkit.retrieval.storage.LibraryFolder.files

    def saved_meanwhile(self, manifest):
        if "p0" in library:
            library.delete("p0")
            library.save(tmp_path)
        return files(self, manifest)

    monkeypatch.setattr(ragkit.retrieval.storage.LibraryFolder, "files", saved_meanwhile)
    assert state(Library.load(tmp_path, encoder)) == state(library)


SAVER = """
import itertools, os, random, signal, sys, time
from functools import partial
from ragkit.retrieval.library import Library
from tests.helpers import FakeEncoder, in_a_child, killed_at_every_step, passages

folder, encoder, number = sys.argv[1], FakeEncoder(), 40
versions = [passages(*(f"passage {n} of version {v}" for n in range(number))) for v in range(8)]
libraries = [Library.build(version, encoder) for version in versions]

def check(*expected):
    library = Library.load(folder, encoder)
    assert library.passages in [versions[v] for v in expected]
    rows = library._index.index.reconstruct_n(0, number)
    assert (rows == encoder.encode_passages([p.text for p in library.passages])).all()

saves = [partial(library.save, folder) for library in libraries[:2]]
for step, done in enumerate(killed_at_every_step(*saves)):
    check(1) if done else check(0, 1)
print(step)

# Killed at random moments of many saves.
def save_on():
    for library in itertools.cycle(libraries):
        library.save(folder)

chance = random.Random(0)
for kill in range(20):
    child = in_a_child(save_on)
    time.sleep(chance.uniform(0, 0.08))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    check(*range(8))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_save_that_is_killed_leaves_a_whole_library(tmp_path, encoder):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", SAVER, str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 10

    # What the killed ones left goes with a later save, once it is too old to belong to one under way.
    left = list(tmp_path.iterdir())
    assert len(left) > 3
    for path in left:
        os.utime(path, (time.time() - 7200,) * 2)
    (tmp_path / "README.md").write_text("mine")
    library = Library.load(tmp_path, encoder)
    library.add(passages("one more", first=1000))
    library.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4 and (tmp_path / "README.md").exists()
    assert state(Library.load(tmp_path, encoder)) == state(library)


def test_a_young_file_may_belong_to_another_save(library, tmp_path):
    young = tmp_path / "vectors-0123456789ab.faiss"
    young.write_bytes(b"")
    library.save(tmp_path)
    assert young.exists()


def test_saving_again_leaves_three_files(library, tmp_path):
    library.save(tmp_path)
    library.save(tmp_path)
    library.delete("p0")
    library.save(tmp_path)
    assert sorted(p.name.split("-")[0] for p in tmp_path.iterdir()) == ["library.json", "passages", "vectors"]


def test_nothing_in_the_package_reads_pickles():
    sources = list(Path(ragkit.__file__).parent.rglob("*.py"))
    assert len(sources) > 30
    for source in sources:
        code = source.read_text(encoding="utf-8")
        assert not re.search(r"\b(pickle|joblib|dill|shelve|marshal|allow_pickle|torch\.load)\b", code), (
            source
        )


# --- words and fusion


def test_lexical_search_is_bm25s(library):
    import bm25s

    settings = {"token_pattern": r"(?u)\b\w+\b", "stopwords": "en", "show_progress": False}
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index(bm25s.tokenize([p.text for p in library.passages], **settings), show_progress=False)
    for query in ("beta margin", "what is the reward of a policy", "loss loss click", "12 query"):
        _, scores = index.retrieve(bm25s.tokenize(query, **settings), k=10, show_progress=False)
        ours = lexical_search(library, query, 10)
        assert [hit.rank for hit in ours] == list(range(1, 11))
        assert np.allclose([hit.score for hit in ours], scores[0], atol=1e-6)
        exact = index.get_scores(bm25s.tokenize([query], return_ids=False, **settings)[0])
        assert ids(ours) == [f"p{i}" for i in np.argsort(-exact, kind="stable")[:10]]


def test_bm25_by_hand(encoder):
    # Three passages of mean length 2; "cat" is in two of them: idf = ln(1 + (3 − 2 + ½)/(2 + ½)) = ln 1.6.
    # A word that a passage has f times counts f / (f + k1·(1 − b + b·length/2)): k1 = 1.5, b = 0.75
    # gives 2 / (2 + 2.0625) = 0.492 for length 3 and f = 2, and 1 / (1 + 0.9375) = 0.516 for length 1.
    library = Library.build(passages("cat cat dog", "cat", "red fish"), encoder)
    found = lexical_search(library, "cat", 5)
    assert ids(found) == ["p1", "p0"]
    expected = [np.log(1.6) / 1.9375, np.log(1.6) * 2 / 4.0625]
    assert [hit.score for hit in found] == pytest.approx(expected, rel=1e-5)


def test_passages_without_a_word_of_the_query_are_no_hits(encoder):
    library = Library.build(passages("beta one", "margin", "", "the of and"), encoder)
    assert ids(lexical_search(library, "beta unheard", 10)) == ["p0"]
    for nothing in ("unheard words", "the of and", "", "  ?! "):
        assert lexical_search(library, nothing, 10) == []


def test_a_library_without_words_has_no_lexical_hits(encoder):
    library = Library.build(passages("", "the", "?!"), encoder)
    assert lexical_search(library, "the beta", 10) == lexical_search(library, "?!", 10) == []


def test_one_letter_words_count(encoder):
    library = Library.build(passages("the strength β is small", "h has offset m", "nothing"), encoder)
    assert ids(lexical_search(library, "what is β?", 3)) == ["p0"]
    assert ids(lexical_search(library, "H", 3)) == ["p1"]


def test_equal_bm25_scores_keep_the_order_of_the_library(encoder):
    library = Library.build(passages(*["same words"] * 30), encoder)
    assert ids(lexical_search(library, "same", 7)) == [f"p{n}" for n in range(7)]


def test_the_word_index_follows_every_change(library):
    assert lexical_search(library, "zeta", 3) == []
    library.add([Passage("z", "zeta")])
    assert ids(lexical_search(library, "zeta", 3)) == ["z"]
    library.replace([Passage("z", "eta")])
    assert lexical_search(library, "zeta", 3) == [] and ids(lexical_search(library, "eta", 3)) == ["z"]
    library.delete("z")
    assert lexical_search(library, "eta", 3) == []


def test_a_word_index_that_is_interrupted_is_made_anew(library, monkeypatch):
    import bm25s

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(bm25s.BM25, "index", interrupted)
        lexical_search(library, "beta", 3)
    assert lexical_search(library, "beta", 3)


def test_a_query_that_is_no_string_is_refused(library):
    with pytest.raises(TypeError, match="query is a list, not a string"):
        lexical_search(library, ["beta"], 3)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("Zürich", unicodedata.normalize("NFD", "in Zürich")),
        (unicodedata.normalize("NFD", "café"), "Das CAFÉ"),
        ("STRASSE", "die Straße"),
        ("ﬁle ｘ１", "a file x1"),
        ("京都の寺", "東京都と京都"),
        ("기계학습", "새로운 기계학습을"),
    ],
)
def test_words_match_in_any_case_composition_and_script(encoder, query, text):
    library = Library.build(passages("something else", text, "東の寺 계기"), encoder)
    assert ids(lexical_search(library, query, 1)) == ["p1"]


def test_hybrid_search_by_hand():
    # Cosines with (1, 0) are 0.9, 0.4, 0; "2" stands in the last of three passages, each of one word.
    library = Library.build(passages("0", "1", "2"), Given([[0.9, 0.4], [0.4, 0.9], [0, 1]]))
    found = hybrid_search(library, "2", [1, 0], 3)
    assert ids(found) == ["p0", "p2", "p1"]
    # BM25 of one word of one is idf / (1 + k1), and its bound is idf: 1 / 2.5
    assert {hit.passage.id: hit.score for hit in found} == pytest.approx(
        {"p0": (1 - LEXICAL) * 0.9, "p1": (1 - LEXICAL) * 0.4, "p2": LEXICAL / 2.5}, abs=1e-6
    )
    # A word that no passage has is part of the bound: the same match counts for less.
    half = LEXICAL / 2.5 * np.log(1 + 2.5 / 1.5) / (np.log(1 + 2.5 / 1.5) + np.log(1 + 3.5 / 0.5))
    scores = {hit.passage.id: hit.score for hit in hybrid_search(library, "2 unheard", [1, 0], 3)}
    assert scores["p2"] == pytest.approx(half, abs=1e-6)
    assert ids(hybrid_search(library, "?", [1, 0], 2)) == ["p0", "p1"]


def test_equal_scores_keep_one_order_whatever_k_is():
    random = np.random.default_rng(3)
    rows = random.integers(0, 6, 400)  # twins all over: the passage "n" has row n of six
    library = Library.build(
        [Passage(f"p{i}", str(n)) for i, n in enumerate(rows)], Given(random.normal(size=(6, 8)))
    )
    library.delete([f"p{i}" for i in range(0, 400, 7)])
    query = random.normal(size=8)
    for search in (
        lambda k: retrieve(library, query, k),
        lambda k: lexical_search(library, "1 4", k),
        lambda k: hybrid_search(library, "1 4", query, k),
    ):
        whole = search(400)
        places = [(-hit.score, int(hit.passage.id[1:])) for hit in whole]
        assert places == sorted(places)  # that of the library
        for k in (1, 2, 10, 99, 101, 250):
            assert search(k) == whole[:k]


def test_fusion_by_hand():
    a, b, c, d = passages("a", "b", "c", "d")
    dense = [Hit(a, 0.9, 1), Hit(b, 0.8, 2), Hit(c, 0.7, 3)]
    lexical = [Hit(c, 12.0, 1), Hit(d, 3.0, 2)]
    found = fuse(dense, lexical)
    # c: 1/63 + 1/61, a: 1/61, b and d: 1/62, and b was met first
    assert [(hit.passage, hit.rank) for hit in found] == [(c, 1), (a, 2), (b, 3), (d, 4)]
    assert [hit.score for hit in found] == pytest.approx([1 / 63 + 1 / 61, 1 / 61, 1 / 62, 1 / 62])
    assert fuse(dense, lexical, k=2) == found[:2]
    # With a small constant the first rank is worth more: a has 1, c has 1/3 + 1 still, b and d 1/2
    assert [hit.score for hit in fuse(dense, lexical, constant=0)] == pytest.approx([4 / 3, 1, 1 / 2, 1 / 2])
    assert fuse() == fuse([], []) == fuse(dense, k=0) == []
