"""Indexing a corpus that need not fit into memory: the same library whatever happens on the way."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from ragkit.__main__ import main
from ragkit.retrieval import sinks, storage
from ragkit.retrieval.corpus import load_passages
from ragkit.retrieval.indexes import new_index, write_flat
from ragkit.retrieval.library import Library
from ragkit.retrieval.search import retrieve
from ragkit.retrieval.shards import ShardFolder
from ragkit.retrieval.streaming import index_corpus
from tests.helpers import LAUNCHERS, FakeEncoder

ROOT = Path(__file__).parent.parent


class Counting(FakeEncoder):
    """Which texts were encoded; raises at the text `until`."""

    tokenizer = None

    def __init__(self, seed: int = 0, until: str | None = None):
        super().__init__(seed)
        self.texts, self.until = [], until

    def encode_passages(self, texts, *, progress=True):
        if self.until in texts:
            raise KeyboardInterrupt
        self.texts += texts
        return super().encode_passages(texts)


def write(path: Path, number: int, changed: dict | None = None) -> Path:
    rows = ({"_id": f"p{n}", "text": (changed or {}).get(n, f"text {n}")} for n in range(number))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def corpus(tmp_path):
    return write(tmp_path / "corpus.jsonl", 50)


def index(corpus, to, encoder=None, **settings):
    encoder = encoder or Counting()
    return index_corpus(corpus, to, encoder, size=8, progress=False, **settings), encoder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_is_the_library_that_build_makes(corpus, tmp_path):
    (total, told), encoder = index(corpus, tmp_path / "streamed")
    assert (total, told, len(encoder.texts)) == (50, "", 50)
    Library.build(load_passages(corpus), encoder).save(tmp_path / "built")
    streamed, built = files(tmp_path / "streamed"), files(tmp_path / "built")
    streamed.pop("library.json"), built.pop("library.json")
    assert streamed == built  # byte by byte
    assert len(Library.load(tmp_path / "streamed", encoder)) == 50


@pytest.mark.parametrize("number", [0, 1, 7])
def test_a_flat_file_is_as_faiss_writes_it(number, tmp_path):
    rows = np.random.default_rng(0).normal(size=(number, 5)).astype(np.float32)
    made = new_index("Flat", 5)
    made.add_with_ids(rows, np.arange(number))
    faiss.write_index(made, str(tmp_path / "theirs"))
    write_flat(tmp_path / "ours", 5, number, [rows[:3], rows[3:]])
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    with pytest.raises(ValueError, match="bytes of vectors came"):
        write_flat(tmp_path / "short", 5, number + 1, [rows])


def test_an_interrupted_run_goes_on(corpus, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        index(corpus, tmp_path / "a", Counting(until="text 30"))
    (_, told), encoder = index(corpus, tmp_path / "a")
    assert "3 of 7 shards were there from a run that was interrupted" in told and "changed" not in told
    assert encoder.texts == [f"text {n}" for n in range(24, 50)]
    index(corpus, tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


KILLED = """
import sys
from pathlib import Path
from tests.helpers import die_at
from tests.test_streaming import Counting, index

class Logged(Counting):
    def encode_passages(self, texts, *, progress=True):
        with open(sys.argv[3], "a") as log:
            log.writelines(text + "\\n" for text in texts)
        return super().encode_passages(texts)

if step := int(sys.argv[4]):
    die_at(step - 1, "os.rename", "os.remove")
index(Path(sys.argv[1]), Path(sys.argv[2]), Logged())
"""


def start(corpus, to, log, step=0):
    command = [sys.executable, "-c", KILLED, str(corpus), str(to), str(log), str(step)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize("step", [4, 9, 17])
def test_a_killed_run_goes_on(corpus, tmp_path, step):
    """Killed just before the step-th time that a file is renamed or removed: among shards, and at the end."""
    log = tmp_path / "log"
    assert start(corpus, tmp_path / "a", log, step).wait() == -signal.SIGKILL
    before = len(log.read_text().splitlines())
    assert start(corpus, tmp_path / "a", log).wait() == 0
    index(corpus, tmp_path / "b")
    assert {name: data for name, data in files(tmp_path / "a").items() if name[0] != "."} == files(
        tmp_path / "b"
    )
    texts = log.read_text().splitlines()
    assert set(texts) == {f"text {n}" for n in range(50)}
    assert len(texts) <= 50 + 8 and before < len(texts) + (step == 17)  # at most the shard it died in again


def test_two_processes_encode_each_shard_once(corpus, tmp_path):
    log = tmp_path / "log"
    workers = [start(corpus, tmp_path / "a", log) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    index(corpus, tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert sorted(log.read_text().splitlines()) == sorted(f"text {n}" for n in range(50))


def test_what_another_process_works_on_is_taken_over_when_it_dies(corpus, tmp_path, monkeypatch):
    folder = ShardFolder(tmp_path / "a" / sinks.UNFINISHED, Counting(), 8)
    name = index_names(corpus)[2]
    claim = folder.claim(name)
    assert claim.__enter__()
    order, unfinished = [], sinks.FolderSink.unfinished

    def dies(self, waited):
        order.append(waited)
        claim.__exit__(None, None, None)
        return unfinished(self, waited)

    monkeypatch.setattr(sinks.FolderSink, "unfinished", dies)
    _, encoder = index(corpus, tmp_path / "a")
    assert order == [name]
    assert encoder.texts[-8:] == [f"text {n}" for n in range(16, 24)] and len(encoder.texts) == 50


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_of_a_launch_share_the_work_and_one_that_is_killed(corpus, tmp_path, launcher):
    """`kill -9` of one ends the launch, and nothing that is finished is lost: the next one goes on.

    The other would take over what it was at, unless the launcher ends it first: then too it is killed.
    """
    log, script = tmp_path / "log", "tests/launched_index.py"

    def launch(*deadly):
        command = [sys.executable, "-m", *LAUNCHERS[launcher], script, corpus, tmp_path / "a", log, *deadly]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    killed = launch("text 33")
    assert killed.returncode != 0 and "SIGKILL" in killed.stderr, killed.stderr[-3000:]
    assert not (tmp_path / "a" / storage.MANIFEST).exists()
    kept = [*(tmp_path / "a" / sinks.UNFINISHED).glob("*.safetensors")]
    assert len(kept) >= 3  # of the four before the deadly one, all but what the other process was at
    resumed = launch()
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert resumed.stdout.count("50 passages in") == 1
    index(corpus, tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    texts = log.read_text().splitlines()
    assert sorted({*texts}) == sorted(f"text {n}" for n in range(50))
    assert len(texts) <= 50 + 8  # what the other one was at when the launch was ended


def index_names(corpus):
    from ragkit.retrieval.shards import shards_of

    return [shard.name for shard in shards_of(load_passages(corpus), 8)]


def test_a_changed_input_is_noticed(corpus, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        index(corpus, tmp_path / "a", Counting(until="text 30"))
    write(corpus, 50, {10: "another text"})
    (_, told), encoder = index(corpus, tmp_path / "a")
    assert "2 of 7 shards were there" in told and "passages of 1 others have changed since" in told
    assert len(encoder.texts) == 8 + 26 and "another text" in encoder.texts
    assert Library.load(tmp_path / "a").passages == load_passages(corpus)


def test_a_finished_library_takes_over_what_has_not_changed(corpus, tmp_path):
    index(corpus, tmp_path / "a")
    (_, told), encoder = index(corpus, tmp_path / "a")
    assert told == ": 0 new, 0 changed, 0 gone since the last time" and encoder.texts == []
    write(corpus, 48, {10: "another text"})
    (_, told), encoder = index(corpus, tmp_path / "a")
    assert told == ": 0 new, 1 changed, 2 gone since the last time" and encoder.texts == ["another text"]
    index(corpus, tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert len(index(corpus, tmp_path / "a", full=True)[1].texts) == 48
    _, encoder = index(corpus, tmp_path / "a", Counting(seed=1))  # another encoder's vectors are no use
    assert len(encoder.texts) == 48
    damaged = next((tmp_path / "a").glob("vectors-*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert len(index(corpus, tmp_path / "a", Counting(seed=1))[1].texts) == 48


@pytest.mark.parametrize("kind", ["HNSW8", "SQ8", "IVF4,Flat"])
def test_other_kinds_of_index(tmp_path, kind):
    corpus = write(tmp_path / "corpus.jsonl", 200)
    (_, told), encoder = index(corpus, tmp_path / "a", index=kind)
    assert f"; {kind} finds " in told and "(200 of the passages' own vectors)" in told
    library = Library.load(tmp_path / "a", encoder)
    assert library.index == kind and library.recall.mean > 0.5
    hit = retrieve(library, encoder.encode_query("text 77"), 1)[0]
    assert hit.passage.id == "p77" and hit.score == pytest.approx(1, abs=0.02)
    write(corpus, 201)
    (_, told), encoder = index(corpus, tmp_path / "a")  # the kind stays
    assert Library.load(tmp_path / "a").index == kind and "1 new" in told
    assert len(encoder.texts) == (201 if kind == "SQ8" else 1)  # from bytes no vector comes back exactly


def test_too_few_passages_for_a_kind_are_refused_before_the_work(corpus, tmp_path):
    encoder = Counting()
    with pytest.raises(ValueError, match=r"has to learn 64 cells.*2,496 of them at least, and there are 50"):
        index(corpus, tmp_path / "a", encoder, index="IVF64,Flat")
    assert encoder.texts == [] and not (tmp_path / "a").exists()


@pytest.mark.parametrize("part", ["shard", "library"])
def test_a_full_disk_leaves_what_can_be_gone_on_with(corpus, tmp_path, monkeypatch, part):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if part == "shard":
            put, left = ShardFolder.put, iter(range(3))
            patch.setattr(
                ShardFolder, "put", lambda *these: full() if next(left, None) is None else put(*these)
            )
        else:
            patch.setattr(sinks, "write_flat", full)
        with pytest.raises(OSError, match=r"no room left on the disk .*run the same command again") as error:
            index(corpus, tmp_path / "a")
        assert error.value.errno == errno.ENOSPC
    _, encoder = index(corpus, tmp_path / "a")
    assert len(encoder.texts) == (26 if part == "shard" else 0)
    index(corpus, tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_what_is_wrong_shows_before_the_work(corpus, tmp_path):
    encoder = Counting()
    with corpus.open("a") as file:
        file.write('{"_id": "p3", "text": "again"}\n')
    with pytest.raises(ValueError, match=r"line 51: the id 'p3' stands already at .*line 4"):
        index(corpus, tmp_path / "a", encoder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    for to, message in [("mine", "holds something else .'thesis.tex'"), ("corpus.jsonl", "is a file")]:
        with pytest.raises(ValueError, match=message):
            index(corpus, tmp_path / to, encoder)
    corpus.write_text("\n")
    with pytest.raises(ValueError, match="no passages in"):
        index(corpus, tmp_path / "a", encoder)
    with pytest.raises(ValueError, match="for one process"):
        index(corpus, tmp_path / "a", encoder, full=True, workers=2)
    assert encoder.texts == [] and not (tmp_path / "a").exists()


def test_work_of_another_encoder_is_not_gone_on_with(corpus, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        index(corpus, tmp_path / "a", Counting(until="text 30"))
    with pytest.raises(ValueError, match=r"begun with other settings.*--full"):
        index(corpus, tmp_path / "a", Counting(seed=1))
    assert len(index(corpus, tmp_path / "a", Counting(seed=1), full=True)[1].texts) == 50


def test_a_damaged_shard_is_named(corpus, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sinks.FolderSink, "_merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        index(corpus, tmp_path / "a")
    shard = sorted((tmp_path / "a" / sinks.UNFINISHED).glob("*.safetensors"))[1]
    data = bytearray(shard.read_bytes())
    data[-3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=f"{shard.name} is damaged.*delete that file and run the same"):
        index(corpus, tmp_path / "a")
    shard.unlink()
    assert len(index(corpus, tmp_path / "a")[1].texts) == 8


class Rows:
    """As much of MilvusLibrary as indexing needs."""

    kept: dict = {}  # noqa: RUF012

    @classmethod
    def open(cls, place, encoder):
        return cls()

    def among(self, ids):
        return self.kept.keys() & set(ids)

    def add(self, passages, vectors=None, *, progress=True):
        assert not self.among(p.id for p in passages)
        self.replace(passages, vectors)

    def replace(self, passages, vectors=None, *, progress=True):
        self.kept.update((p.id, (p.text, vector.tobytes())) for p, vector in zip(passages, vectors))

    def save(self):
        pass

    close = save


def test_milvus_is_asked_what_is_there(corpus, tmp_path, monkeypatch):
    module = type(sys)("ragkit.retrieval.milvus")
    module.MilvusLibrary = Rows
    monkeypatch.setitem(sys.modules, "ragkit.retrieval.milvus", module)
    monkeypatch.setattr(Rows, "kept", {})
    with pytest.raises(KeyboardInterrupt):
        index(corpus, "http://host:19530", Counting(until="text 30"))
    (total, told), encoder = index(corpus, "http://host:19530")
    assert (total, len(encoder.texts), len(Rows.kept)) == (50, 26, 50)
    assert told.startswith(": 26 encoded here, 24 were there already")
    write(corpus, 50, {10: "another text"})
    index(corpus, "http://host:19530", full=True)
    assert Rows.kept["p10"][0] == "another text"

    Rows.kept.clear()
    halves = [index(corpus, "http://host:19530", rank=rank, workers=2)[1].texts for rank in (0, 1)]
    assert sorted(map(len, halves)) == [24, 26] and len(Rows.kept) == 50
    with pytest.raises(ValueError, match="one process at a time"):
        index(corpus, "my.db", workers=2)
    with pytest.raises(ValueError, match="Milvus has its own"):
        index(corpus, "my.db", index="SQ8")


def test_the_terminal_tells_what_an_index_misses(tmp_path, encoder, capsys):
    corpus = write(tmp_path / "corpus.jsonl", 30)
    to = tmp_path / "a"
    assert main(["index", str(corpus), "--to", str(to), "--index", "HNSW8"]) == 0
    out = capsys.readouterr().out
    assert f"30 passages in {to}" in out and "HNSW8 finds " in out
    assert main(["index", str(corpus), "--to", str(to), "--index", "HNSWx"]) == 2
    assert "no FAISS index for vectors of 384 numbers" in capsys.readouterr().err


def test_a_worker_that_is_not_the_first_says_nothing(tmp_path, encoder, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    corpus = write(tmp_path / "corpus.jsonl", 3)
    assert main(["index", str(corpus), "--to", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == "" and len(Library.load(tmp_path / "a")) == 3
    assert storage.LibraryFolder(tmp_path / "a").strangers() == []
