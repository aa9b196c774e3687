"""Stored sentences: what a reranker reads is there, is that of the passage, and goes where it goes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ragkit.assistant import Assistant
from ragkit.reranking.features import describe
from ragkit.reranking.reranker import Reranker
from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.library import Library
from ragkit.retrieval.sentences import Sentences, read, sentence_places
from ragkit.retrieval.streaming import index_corpus
from tests.helpers import passages
from tests.words_encoder import WordsEncoder

ROOT = Path(__file__).parent.parent
LONG = "The lamp burns oil. It stands on a table! " + "A river carries stones. " * 60
TEXTS = [
    "The lamp burns oil. Oil is dear.",
    "",
    "One sentence alone",
    LONG,
    "Rivers carry stones. So they do.",
]


@pytest.fixture
def words():
    return WordsEncoder()


@pytest.fixture
def library(words):
    return Library.build(passages(*TEXTS), words, sentences=True, progress=False)


def same(one, other) -> bool:
    return one.places == other.places and all((a == b).all() for a, b in zip(one[1:], other[1:]))


def assert_stored(library: Library, encoder) -> None:
    """What is stored is what the encoder makes of each passage's text, and nothing else is."""
    for passage in library.passages:
        [found], [expected] = library.sentences_of([passage.id]), read(encoder, [passage.full_text])
        assert same(found, expected) and (library.vectors_of([passage.id]) == found.inside[0]).all()
    assert len(library._sentences) == len(library)


# --- what is stored


def test_of_each_passage_the_windows_and_the_sentences_twice(library, words):
    assert_stored(library, words)
    assert [len(one.places) for one in library.sentences_of(["p0", "p1", "p2"])] == [2, 1, 1]
    first = library.sentences_of(["p0"])[0]
    assert first.places == sentence_places(TEXTS[0]) == [(0, 19), (20, 32)]
    assert (first.alone == words.encode(["The lamp burns oil.", "Oil is dear."])).all()


def test_a_library_stores_none_unless_asked(words, tmp_path):
    library = Library.build(passages(*TEXTS), words, progress=False)
    library.save(tmp_path)
    assert not library.stores and len(list(tmp_path.iterdir())) == 3
    assert "sentences" not in (tmp_path / "library.json").read_text()


def test_they_go_where_the_passage_goes(library, words, tmp_path):
    for _ in range(2):
        library.delete(["p4", "p1"])
        library.replace([Passage("p0", "Other words. More of them. And more.")])
        library.add([Passage("p1", "It is back. With two.")])
        library.add([Passage("p4", "Given. A vector.")], np.eye(1, words.dimension))
        assert (library.vectors_of(["p4"]) == np.eye(1, words.dimension)).all()
        library.replace([Passage("p4", "Given. A vector.")])
        assert_stored(library, words)
        library.save(tmp_path)
        library = Library.load(tmp_path, words)
    with pytest.raises(KeyError, match="'p9'"):
        library.sentences_of(["p9"])


@pytest.mark.parametrize("change", ["add", "replace"])
def test_when_the_encoder_fails_nothing_changes(library, words, change, monkeypatch):
    before = [one.alone.copy() for one in library.sentences_of(["p0"])]
    encode = WordsEncoder.encode_passages
    monkeypatch.setattr(words, "encode_passages", lambda texts, **_: encode(words, texts) * np.nan)
    with pytest.raises(ValueError, match=r"NaN or infinity for passage 'p[06]'"):
        getattr(library, change)([Passage("p6" if change == "add" else "p0", "Any. Text.")])
    assert len(library) == len(library._sentences) == 5
    assert (library.sentences_of(["p0"])[0].alone == before[0]).all()


# --- on disk


@pytest.mark.parametrize("mmap", [False, True])
def test_they_are_saved_and_mapped(library, words, tmp_path, mmap):
    library.delete(["p1"])
    library.save(tmp_path)
    again = Library.load(tmp_path, words, mmap=mmap)
    assert again.stores and again.passages == library.passages
    assert_stored(again, words)
    [found] = again.sentences_of(["p3"])
    assert mmap == (not found.inside.flags.writeable)
    empty = Library.build([], words, sentences=True)
    empty.save(tmp_path / "empty")
    again = Library.load(tmp_path / "empty", words, mmap=False)
    again.add(passages("One. Two."))
    assert_stored(again, words)


def test_a_damaged_file_is_named(library, words, tmp_path):
    library.save(tmp_path)
    [path] = tmp_path.glob("sentences-*.npy")
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content, message in [
        (whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :], "is damaged: its sha256 is"),
        (whole[:-1], f"has {len(whole) - 1} bytes, not {len(whole)}: truncated"),
        (None, "is missing, though the manifest names it"),
    ]:
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(path.name) + f" {message}.*build the library again"):
            Library.load(tmp_path, words)


def broken(arrays, how: str):
    sizes, places, rows = (array.copy() for array in arrays)
    if how == "a passage too few":
        return sizes[:-1], places[: -sizes[-1, 2]], rows[: -(sizes[-1, 1] + 2 * sizes[-1, 2])]
    if how == "a row too few":
        return sizes, places, rows[:-1]
    if how == "half precision":
        return sizes, places, rows.astype(np.float16)
    if how == "a block too short":
        return sizes, places
    rows[3, 3] = np.nan
    return sizes, places, rows


@pytest.mark.parametrize(
    "how, message",
    [
        ("a passage too few", "not those of its passages"),
        ("a row too few", "do not belong together"),
        ("half precision", "an array of float16"),
        ("a block too short", "end in the middle"),
        ("NaN", "hold NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_refused_though_its_checksum_is_right(library, words, tmp_path, how, message):
    blocks = [broken(arrays, how) for arrays in library._sentences.blocks()]
    library._sentences.blocks = lambda: blocks
    library.save(tmp_path)
    with pytest.raises(ValueError, match=f"is damaged.*{message}.*build the library again"):
        Library.load(tmp_path, words)


KILLED = """
import sys
from functools import partial
from ragkit.retrieval.library import Library
from tests.helpers import killed_at_every_step, passages
from tests.words_encoder import WordsEncoder

words, folder = WordsEncoder(), sys.argv[1]
old, new = (Library.build(passages(f"One {v}. Two."), words, sentences=True, progress=False) for v in "ab")
for step, done in enumerate(killed_at_every_step(partial(old.save, folder), partial(new.save, folder))):
    there = Library.load(folder, words)
    of = new if there.passages == new.passages else old
    assert there.passages == of.passages and (of is new or not done)
    assert (there.sentences_of(["p0"])[0].inside == of.sentences_of(["p0"])[0].inside).all()
print(step)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_save_that_is_killed_leaves_passages_and_their_own_sentences(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 12


# --- a corpus that is streamed


class Streamed(WordsEncoder):
    tokenizer = None

    def __init__(self):
        super().__init__()
        self.texts: list[str] = []

    def encode_sentences(self, texts, spans, **settings):
        self.texts += texts
        return super().encode_sentences(texts, spans, **settings)


def write(path: Path, texts: list[str]) -> Path:
    path.mkdir(exist_ok=True)
    file = path / "corpus.jsonl"
    file.write_text("".join(f'{{"_id": "p{n}", "text": "{text}"}}\n' for n, text in enumerate(texts)))
    return file


def test_a_streamed_corpus_has_them_too_and_takes_over_what_has_not_changed(tmp_path):
    texts = [f"Sentence {n}. Another one." for n in range(20)]
    corpus, to, encoder = write(tmp_path / "in", texts), tmp_path / "to", Streamed()
    settings = {"size": 8, "progress": False}
    index_corpus(corpus, to, encoder, **settings)
    assert not encoder.texts and not Library.load(to, encoder).stores
    index_corpus(corpus, to, encoder, sentences=True, **settings)
    assert encoder.texts == texts
    assert_stored(Library.load(to, encoder, mmap=True), WordsEncoder())
    corpus = write(tmp_path / "in", ["New text. It is new.", *texts[1:15]])
    encoder = Streamed()
    index_corpus(corpus, to, encoder, **settings)  # what is there stays as it is
    assert encoder.texts == ["New text. It is new."]
    found = Library.load(to, encoder)
    assert_stored(found, WordsEncoder())
    assert len(found) == 15
    with pytest.raises(ValueError, match="sentences=True is for folders"):
        index_corpus(corpus, tmp_path / "x.db", encoder, sentences=True)


# --- at a question


def test_no_document_is_read_at_a_question_and_no_score_changes(tmp_path):
    listed = passages(*TEXTS[2:], "The lamp. The lamp burns.", "A table stands there.")
    with pytest.warns(UserWarning, match="1 of 5 texts"):
        Library.build(listed, Encoder(), sentences=True, progress=False).save(tmp_path)
    for mmap in (False, True):
        fresh, anew = Encoder(), Encoder()
        library = Library.load(tmp_path, fresh, mmap=mmap)
        ran, run = [], fresh._run
        fresh._run = lambda rows, progress: ran.append(len(rows)) or run(rows, progress)  # noqa: B023
        assistant = Assistant(fresh, library, None, Reranker(fresh, prior="people"))
        for query in ("What burns oil?", "Where is the lamp?"):
            found = assistant.find(query, 4)
            assert ran == [1]  # the question
            ran.clear()
            expected = describe(anew, query, [hit.passage.full_text for hit in found]).features
            stored = describe(fresh, query, [hit.passage.full_text for hit in found]).features
            assert not ran and np.allclose(stored, expected, atol=2e-6)


@pytest.mark.parametrize("sentences", [False, True])
def test_an_encoder_is_lent_what_it_made_and_nothing_that_an_index_made_coarser(sentences):
    encoder, words = Encoder(), passages(TEXTS[0], TEXTS[4])
    library = Library.build(words, encoder, index="SQ8", sentences=sentences, progress=False)
    other = Encoder()
    library.lend(other, words)
    texts = [passage.full_text for passage in words]
    np.testing.assert_allclose(other.encode_passages(texts), encoder.encode_passages(texts), atol=1e-6)


def test_texts_of_several_windows_are_said_to_be_cut():
    fresh = Encoder()
    with pytest.warns(UserWarning, match="1 of 5 texts are longer than the encoder's window of 256"):
        library = Library.build(passages(*TEXTS), fresh, sentences=True, progress=False)
    assert fresh.truncated == 1
    [found] = library.sentences_of(["p3"])
    assert len(found.inside) - len(found.places) > 1
    assert np.allclose(library.vectors_of(["p3"]), Encoder().encode_passages([LONG], warn=False), atol=1e-6)


def test_numbers_that_are_given_again_have_their_own(words):
    stored = Sentences()
    with pytest.raises(KeyError):
        stored.of(0)
    library = Library.build(passages("One. Two."), words, sentences=True)
    library.delete("p0")
    assert len(library._sentences) == 0
    library.add(passages("Three."))
    assert_stored(library, words)
