"""Libraries in Milvus: FAISS's hits, rows that stay whole whoever is killed, errors that say what to do.

In a folder, by Milvus Lite; with RAGKIT_MILVUS_URI=http://HOST:19530 on that server too: each test makes a
database there, and drops it.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from ragkit.__main__ import main
from ragkit.assistant import Assistant
from ragkit.retrieval import milvus
from ragkit.retrieval.corpus import DATA, Passage
from ragkit.retrieval.lexical import hybrid_search, lexical_search
from ragkit.retrieval.library import Library
from ragkit.retrieval.milvus import MilvusLibrary, encoder_of, load_library
from ragkit.retrieval.milvus_collection import BYTES, Collection, is_milvus
from ragkit.retrieval.search import retrieve, retrieve_many
from tests.helpers import LAUNCHERS, WORDS, FakeEncoder, passages, texts

pytest.importorskip("pymilvus", reason="pip install -e .[scale]")
lite = pytest.importorskip("milvus_lite", reason="pip install -e .[scale]")

ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
SERVER = os.environ.get("RAGKIT_MILVUS_URI", "").rstrip("/")


@pytest.fixture
def encoder():
    return FakeEncoder()


@pytest.fixture(params=["lite", "server"] if SERVER else ["lite"])
def place(tmp_path, request):
    if request.param == "lite":
        yield str(tmp_path / "library.db")
        return
    from pymilvus import MilvusClient

    name, client = f"ragkit_{uuid.uuid4().hex}", MilvusClient(SERVER)
    client.create_database(name)
    yield f"{SERVER}/{name}"
    inside = MilvusClient(f"{SERVER}/{name}")
    for collection in inside.list_collections():
        inside.drop_collection(collection)
    inside.close()
    client.drop_database(name)
    client.close()


@pytest.fixture
def library(encoder, place):
    library = MilvusLibrary.build(passages(*texts(50)), encoder, place, progress=False)
    yield library
    library.close()


def searches(library, queries, encoder, ks=(1, 3, 10, 1000)):
    for query in queries:
        vector = encoder.encode_query(query)
        for k in ks:
            yield query, k, "retrieve", retrieve(library, vector, k)
            yield query, k, "lexical", lexical_search(library, query, k)
            yield query, k, "hybrid", hybrid_search(library, query, vector, k)


def assert_the_same(one, other, queries, encoder, ks=(1, 3, 10, 1000)):
    """All that can be seen of two libraries."""
    assert one.passages == other.passages and len(one) == len(other)
    np.testing.assert_array_equal(one.vectors, other.vectors)
    for a, b in zip(searches(one, queries, encoder, ks), searches(other, queries, encoder, ks)):
        assert [hit.passage for hit in a[-1]] == [hit.passage for hit in b[-1]], a[:3]
        np.testing.assert_allclose([h.score for h in a[-1]], [h.score for h in b[-1]], atol=1e-5)


# --- the same hits as FAISS


def test_the_hits_of_the_corpus_are_those_of_faiss(encoder, place):
    from ragkit.retrieval.encoder import Encoder

    encoder = Encoder()
    faiss = Library.load(DATA / "index", encoder)
    there = MilvusLibrary.open(place, encoder)
    there.add(faiss.passages, faiss.vectors)
    queries = ["What does beta control in DPO?", "why does HNSW need so much memory?", "kappa", "h"]
    assert_the_same(there, faiss, queries, encoder, ks=(1, 3, 10, 398))
    there.close()


def test_changes_are_those_of_a_library(library, encoder, place):
    faiss = Library.build(passages(*texts(50)), encoder)
    for each in (faiss, library):
        each.delete(["p3", "p49", "p3"])
        each.delete("p0")
        each.add(passages("new one", "new two", first=100))
        each.replace([Passage("p7", "beta beta anew", "β", {"tags": ["x"], "n": 10**20})])
    queries = ["beta margin", "beta beta anew", "?"]
    assert_the_same(library, faiss, queries, encoder)
    assert "p0" not in library and "p100" in library and 5 not in library
    assert library.ids() == {passage.id for passage in faiss.passages}
    assert library.among(["p0", "p1", "p100"]) == {"p1", "p100"}
    assert (library.vectors_of(["p9", "p7"]) == faiss.vectors_of(["p9", "p7"])).all()
    assert library.vectors_of([]).shape == (0, encoder.dimension)
    library.save()
    library.close()
    again = MilvusLibrary.load(place, encoder)
    assert_the_same(again, faiss, queries, encoder)
    again.add(passages("last", first=200))
    assert again.passages[-1].id == "p200"
    again.close()


class Given:
    """An encoder whose vectors are given: passage "3" has row 3."""

    name, fingerprint = "given", "0" * 64

    def __init__(self, rows):
        self.rows = np.asarray(rows, dtype=np.float32)
        self.dimension = self.rows.shape[1]

    def encode_passages(self, texts, *, progress=True):
        return self.rows[[int(text.split()[0]) for text in texts]]


def test_equal_scores_keep_the_order_of_the_library(place):
    random = np.random.default_rng(3)
    for kind in ("whole_numbers", "any_numbers"):
        twins = random.integers(0, 6, 400)
        rows = random.integers(-2, 3, (6, 8)) if kind == "whole_numbers" else random.normal(size=(6, 8))
        listed = [Passage(f"p{i}", f"{n} {WORDS[i % 3]}") for i, n in enumerate(twins)]
        faiss = Library.build(listed, Given(rows))
        there = MilvusLibrary.build(listed, Given(rows), place, collection=kind)
        for each in (faiss, there):
            each.delete([f"p{i}" for i in range(0, 400, 7)])
        query = random.normal(size=8) if kind == "any_numbers" else random.integers(-1, 2, 8)
        for k in (1, 2, 10, 99, 101, 343, 400):
            ours, theirs = (retrieve(each, query, k) for each in (there, faiss))
            assert [hit.passage for hit in ours] == [hit.passage for hit in theirs]
            both = np.array([query, query[::-1]])
            assert retrieve_many(there, both, k) == [retrieve(there, vector, k) for vector in both]
            ours, theirs = (hybrid_search(each, "beta 3", query, k) for each in (there, faiss))
            assert [hit.passage for hit in ours] == [hit.passage for hit in theirs]
        there.close()


def test_many_queries_go_in_requests_that_have_room(library, encoder, monkeypatch):
    asked = encoder.encode_passages([f"query {n}" for n in range(30)])
    found = [retrieve(library, vector, 4) for vector in asked]
    sent, call = [], library._collection.call
    monkeypatch.setattr(
        library._collection, "call", lambda name, **told: sent.append(len(told["data"])) or call(name, **told)
    )
    assert retrieve_many(library, asked, 4) == found and sent == [30]
    monkeypatch.setattr(milvus, "ANSWER", 300_000)
    assert retrieve_many(library, asked, 4) == found and sent[1:] == [14, 14, 2]
    assert retrieve_many(library, asked[:0], 4) == []


def test_hybrid_search_finds_what_words_alone_bring_up(encoder, place):
    """The best by words are far from the nearest hundred by meaning."""
    listed = passages(*texts(700, seed=1), "zeta eta", "zeta theta")
    faiss, there = Library.build(listed, encoder), MilvusLibrary.build(listed, encoder, place)
    queries = [f"{word} {n}" for n, word in enumerate(["zeta", "beta margin", "eta", "loss click rank"])]
    assert_the_same(there, faiss, queries, encoder, ks=(1, 5, 60, 300))
    vector = encoder.encode_query("far")
    assert not {"p700", "p701"} & {hit.passage.id for hit in retrieve(there, vector, 100)}
    assert {"p700", "p701"} == {hit.passage.id for hit in hybrid_search(there, "zeta", vector, 2)}
    there.close()


def test_searches_at_the_limits(library, encoder, monkeypatch):
    vector = encoder.encode_query("x")
    assert retrieve(library, vector, 0) == hybrid_search(library, "beta", vector, 0) == []
    assert len(retrieve(library, vector, 2**70)) == len(hybrid_search(library, "?", vector, 10**9)) == 50
    monkeypatch.setattr(milvus, "MOST", 20)
    assert len(retrieve(library, vector, 20)) == 20
    assert len(hybrid_search(library, "beta", vector, 30)) == 30
    with pytest.raises(ValueError, match="k=50: Milvus gives at most 20 hits"):
        retrieve(library, vector, 60)


def test_an_empty_library_finds_nothing(encoder, place):
    library = MilvusLibrary.build([], encoder, place)
    assert len(library) == 0 and library.passages == [] and library.ids() == set()
    assert library.vectors.shape == (0, 16) and "?" not in library
    vector = encoder.encode_query("x")
    assert retrieve(library, vector, 3) == hybrid_search(library, "x", vector, 3) == []
    library.close()


# --- writing


class Failing(FakeEncoder):
    def encode_passages(self, texts, *, progress=True):
        vectors = super().encode_passages(texts)
        vectors[[("bad" in text) for text in texts], 3] = np.nan
        return vectors


@pytest.mark.parametrize(
    "change, argument, message",
    [
        ("add", passages("new", "b", first=49), "'p49' is in the library already; use replace"),
        ("add", [Passage("new", "a"), Passage("new", "b")], "the id 'new' comes twice"),
        ("replace", [Passage("p1", "a"), Passage("new", "b")], "no passage 'new' to replace; use add"),
        ("delete", ["p1", "new"], "no passage 'new' in this library"),
        ("vectors_of", ["p1", "new"], "no passage 'new' in this library"),
        ("add", passages("good", "bad", first=60), "NaN or infinity for passage 'p61'"),
        ("replace", passages("good", "bad", first=3), "NaN or infinity for passage 'p4'"),
    ],
)
def test_what_is_wrong_changes_nothing(place, change, argument, message):
    library = MilvusLibrary.build(passages(*texts(50)), Failing(), place)
    before = library.passages, library.vectors
    with pytest.raises((ValueError, KeyError), match=re.escape(message)):
        getattr(library, change)(argument)
    assert library.passages == before[0] and (library.vectors == before[1]).all()
    library.close()


def test_a_failure_between_requests_keeps_what_came_through(encoder, place, monkeypatch):
    library, listed = MilvusLibrary.open(place, encoder), passages(*texts(40))
    monkeypatch.setattr(milvus, "REQUEST", 2_000)
    sizes, call = [], library._collection.call

    def failing(name, **arguments):
        if name == "upsert":
            sizes.append(len(arguments["data"]))
            if len(sizes) == 3:
                raise OSError("away")
        return call(name, **arguments)

    monkeypatch.setattr(library._collection, "call", failing)
    with pytest.raises(OSError, match="away"):
        library.add(listed)
    there = library.among(passage.id for passage in listed)
    assert len(there) == len(library) == sum(sizes[:2]) and max(sizes) < 20
    library.add([passage for passage in listed if passage.id not in there])  # and so one goes on
    assert_the_same(library, Library.build(listed, encoder), ["beta margin"], encoder)
    library.close()


def test_two_libraries_at_one_place_see_each_other(library, encoder, place):
    other = MilvusLibrary.load(place, encoder)
    for change in (
        lambda: other.add([Passage("z", "zeta")]),
        lambda: other.replace([Passage("z", "zeta zeta", "twice")]),
        lambda: (other.delete("p1"), other.add([Passage("y", "zeta too")])),
        lambda: other.delete("z"),
    ):
        change()
        assert library.passages == other.passages
        assert_the_same(library, other, ["zeta", "beta"], encoder, ks=(1, 60))
    other.close()
    assert retrieve(library, encoder.encode_query("x"), 1)  # the folder is still open here
    with pytest.raises(ValueError, match="this library is closed; open it again"):
        other.passages  # noqa: B018


WRITER = """
import itertools, sys
from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.milvus import MilvusLibrary
from tests.helpers import FakeEncoder

library = MilvusLibrary.open(sys.argv[1], FakeEncoder())
named = lambda step, numbers: [Passage(f"p{n}", f"p{n} of {sys.argv[2]}.{step}") for n in numbers]
library.delete(library.ids())
library.add(named(0, range(40)))
for step in itertools.count(1):
    print(step, flush=True)
    library.replace(named(step, range(40)))
    library.delete([f"p{n}" for n in range(5)])
    library.add(named(step, range(5)))
"""


def test_a_writer_that_is_killed_leaves_whole_rows(place, encoder):
    # Little memory, so that it writes its files out and merges them all the while.
    environment = ENVIRONMENT | {"MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES": "20000"}
    for run, steps in enumerate((1, 4, 9, 23)):
        arguments = [sys.executable, "-c", WRITER, place, str(run)]
        with subprocess.Popen(
            arguments, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as writer:
            for _ in range(steps):
                told = writer.stdout.readline() or pytest.fail(writer.stderr.read())
            writer.kill()
        library = MilvusLibrary.load(place, encoder)
        found, vectors = library.passages, library.vectors
        assert len(found) in (35, 40) and {p.id for p in found} >= {f"p{n}" for n in range(5, 40)}
        assert all(passage.text.startswith(f"{passage.id} of {run}.") for passage in found)
        np.testing.assert_array_equal(vectors, encoder.encode_passages([p.full_text for p in found]))
        batches = [
            {p.text.split(" of ")[1] for p in found if (int(p.id[1:]) < 5) is few} for few in (False, True)
        ]
        assert len(batches[0]) == 1 and len(batches[1]) <= 1  # each of them whole
        assert int(batches[0].pop().split(".")[1]) >= int(told) - 1  # and none that was written is lost
        for passage, vector in zip(found, vectors):
            assert retrieve(library, vector, 1)[0].passage == passage
        library.close()


@pytest.mark.parametrize("step", ["create_index", "load_collection"])
def test_who_is_killed_while_making_a_library_leaves_one_to_go_on_with(encoder, place, monkeypatch, step):
    real = Collection.call

    def killed(self, name, **arguments):
        if name == step:
            raise KeyboardInterrupt
        return real(self, name, **arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Collection, "call", killed)
        MilvusLibrary.open(place, encoder)
    library = MilvusLibrary.open(place, encoder)
    library.add(passages("beta"))
    assert retrieve(library, encoder.encode_query("x"), 1)[0].passage.id == "p0"
    library.close()


def test_a_string_of_as_many_bytes_as_milvus_holds_comes_back(encoder, place):
    library = MilvusLibrary.open(place, encoder)
    fits = [Passage("β" * 100, "損" * 21_845, "a" * BYTES)]
    assert len(fits[0].text.encode()) == BYTES
    library.add(fits)
    for bad in (Passage("long", fits[0].text + "x"), Passage("long", "x", "β" * 32_768)):
        with pytest.raises(ValueError, match=r"passage 'long': its (text|title) has 65,536 bytes"):
            library.add([bad])
    assert library.passages == fits
    library.close()


# --- what is refused, and how


def test_another_encoder_is_refused(library, place):
    for how in (MilvusLibrary.load, MilvusLibrary.open):
        with pytest.raises(ValueError, match=r"built by encoder 'fake' \(.*which is not 'fake' \(.*build"):
            how(place, FakeEncoder(seed=1))
    again = MilvusLibrary.load(place)
    with pytest.raises(ValueError, match="loaded without its encoder"):
        again.add(passages("new", first=100))
    again.close()


def test_a_collection_of_someone_else_is_refused(encoder, place):
    from pymilvus import MilvusClient

    library = MilvusLibrary.open(place, encoder, collection="mine")
    client = MilvusClient(place)
    client.create_collection("plain", dimension=16)
    for change in (
        {"dimension": 17},
        {"format": "other"},
        {"encoder": None},
    ):
        facts = {
            "format": "ragkit-library",
            "version": 1,
            "encoder": "fake",
            "fingerprint": "x",
            "dimension": 16,
        }
        facts = {key: value for key, value in (facts | change).items() if value is not None}
        client.alter_collection_properties("mine", {"ragkit": str(facts).replace("'", '"')})
        with pytest.raises(ValueError, match=r"the collection 'mine' at .* is no library of this ragkit"):
            MilvusLibrary.load(place, encoder, collection="mine")
    with pytest.raises(ValueError, match=r"the collection 'plain' at .* is no library of this ragkit"):
        MilvusLibrary.open(place, encoder, collection="plain")
    with pytest.raises(FileNotFoundError, match=r"the collection 'none' at .* is not there"):
        MilvusLibrary.load(place, encoder, collection="none")
    library.close()
    client.close()


def test_a_place_that_is_none_is_refused(encoder, tmp_path, library, place):
    with pytest.raises(
        FileNotFoundError, match=r"no library in '.*none\.db' \(MilvusLibrary\.open makes one"
    ):
        load_library(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "file.db").write_text("mine")
    with pytest.raises(ValueError, match=r"file\.db' is a file, and a library of Milvus Lite is a folder"):
        MilvusLibrary.open(tmp_path / "file.db", encoder)
    with pytest.raises(ValueError, match=r"place='folder': a folder's name ends in \.db; a server is http"):
        MilvusLibrary.open("folder", encoder)
    with pytest.raises(ValueError, match=r"passages is at .* already: add to it"):
        MilvusLibrary.build(passages("new", first=100), encoder, place)
    with pytest.raises(ValueError, match="stays where it is"):
        library.save(tmp_path / "folder")
    Library.build(passages("x"), encoder).save(tmp_path / "faiss.db")
    assert not is_milvus(tmp_path / "faiss.db") and len(load_library(tmp_path / "faiss.db")) == 1


def test_without_the_extra_it_says_how_to_install_it(encoder, place, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(OSError, match=r'pymilvus, which is not installed: pip install -e "\.\[scale\]"'):
        MilvusLibrary.open(place, encoder)


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]


def test_a_server_that_is_away_is_named_and_no_password_is(encoder, capsys):
    address = f"http://ada:secret@127.0.0.1:{free_port()}"
    with pytest.raises(OSError, match=r"Milvus at http://127\.0\.0\.1:\d+ does not answer") as error:
        MilvusLibrary.open(address, encoder)
    assert "name a folder: library.db" in str(error.value) and "secret" not in str(error.value)
    assert main(["ask", "what is beta?", "--library", address]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("ragkit: Milvus at http://127.0.0.1:") and err.count("\n") == 1 and not out


@pytest.fixture
def server(tmp_path):
    """Milvus Lite as a process of its own, at the address that is given."""
    port = free_port()
    where = ["--data-dir", str(tmp_path / "served.db"), "--host", "127.0.0.1", "--port", str(port)]
    told = [sys.executable, "-m", "milvus_lite", "server", *where]
    with subprocess.Popen(told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            with socket.socket() as some:
                if some.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.1)
        yield process, f"http://127.0.0.1:{port}"
        process.kill()


def test_a_server_takes_the_same_calls_and_may_go_away(server, encoder, tmp_path):
    process, address = server
    listed = passages(*texts(50))
    there = MilvusLibrary.build(listed, encoder, address, timeout=2.0)
    assert_the_same(there, Library.build(listed, encoder), ["beta margin"], encoder)
    assert encoder_of(address) == "fake" and len(load_library(address, encoder)) == 50
    # Its folder is in use.
    with pytest.raises(OSError, match=r"served\.db' is in use by another process.*milvus-lite server --host"):
        MilvusLibrary.load(tmp_path / "served.db", encoder)
    uses = (
        lambda: retrieve(there, encoder.encode_query("x"), 3),
        lambda: there.add(passages("new", first=100)),
        lambda: there.passages,
    )
    for sign in (signal.SIGSTOP, signal.SIGKILL):  # it takes connections, and does not answer; it is gone
        process.send_signal(sign)
        for use in uses:
            with pytest.raises(OSError, match=f"Milvus at {address} does not answer"):
                use()
    there.close()
    kept = MilvusLibrary.load(tmp_path / "served.db", encoder)
    assert kept.passages == listed
    kept.close()


def test_processes_of_a_launch_fill_a_server_and_go_on_after_a_kill(server, tmp_path):
    _, address = server
    rows = [{"_id": f"p{n}", "text": f"text {n}"} for n in range(50)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script = ["tests/launched_index.py", tmp_path / "corpus.jsonl", address, tmp_path / "log"]
    for deadly, code in ((["text 33"], 1), ([], 0)):
        command = [sys.executable, "-m", *LAUNCHERS["torchrun"], *script, *deadly]
        run = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
        assert run.returncode == code and ("SIGKILL" in run.stderr) == code, run.stderr[-3000:]
    assert "50 passages in http" in run.stdout
    there, encoder = MilvusLibrary.load(address), FakeEncoder()
    assert {passage.id: passage.text for passage in there.passages} == {r["_id"]: r["text"] for r in rows}
    texts = [passage.text for passage in there.passages]
    np.testing.assert_array_equal(there.vectors, encoder.encode_passages(texts))
    assert len((tmp_path / "log").read_text().splitlines()) <= 50 + 8  # what the other one was at, again
    there.close()


# --- who takes it


def test_an_assistant_answers_from_it(place, encoder, tiny_folder, capsys):
    from ragkit.retrieval.encoder import Encoder

    built = Encoder()
    listed = passages("Beta is a knob of the loss.", "A cat sat on a mat.", "The reward is a number.")
    MilvusLibrary.build(listed, built, place, progress=False).close()
    assistant = Assistant.load(place, str(tiny_folder))
    turn = assistant.ask("what is beta?", 2)
    assert turn.hits[0].passage == listed[0]
    faiss = Assistant(built, Library.build(listed, built, progress=False), assistant.generator)
    assert [hit.passage for hit in faiss.find("what is beta?", 3)] == [
        hit.passage for hit in assistant.find("what is beta?", 3)
    ]
    assistant.library.close()
    assert main(["ask", "what is beta?", "--library", place, "--generator", str(tiny_folder)]) == 0
    assert "(p0, " in capsys.readouterr().out
