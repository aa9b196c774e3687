"""Vectors in the making: files of some thousand passages each, made by any number of processes, each once."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.library_files import passage_line
from ragkit.retrieval.sentences import Arrays, Read, arrays_of
from ragkit.retrieval.storage import load_tensors, put, save_tensors, temporary

WORK = "work.json"
STORED = ("sizes", "places", "rows")  # of sentences
SHARD = 4096  # passages a file: half a minute's work of two cores, a second's of a GPU
KIND = {"format": "ragkit-shard", "version": 1}
ADVICE = "delete that file and run the same command again: it alone will be encoded again"


class Shard(NamedTuple):
    """Consecutive passages. Its name says where they stand and, by a digest, what they say."""

    name: str
    first: int  # the number of its first passage
    passages: list[Passage]

    @property
    def lines(self) -> bytes:
        """Its part of a library's file of passages."""
        return _lines(self.first, self.passages)


def shards_of(passages: Iterable[Passage], size: int = SHARD) -> Iterator[Shard]:
    """Passages in shards of `size`, in order."""
    first, batch = 0, []
    for passage in passages:
        batch.append(passage)
        if len(batch) == size:
            yield _shard(first, batch)
            first, batch = first + size, []
    if batch:
        yield _shard(first, batch)


class ShardFolder:
    """A folder of finished shards, and who works on which of the others.

    A shard is one file, put in place whole, so a killed process loses the one it was making. A claim is a
    lock that the system takes back from a process that dies. Raises ValueError where the folder was begun by
    another encoder or with shards of another size.
    """

    def __init__(self, folder: Path, encoder, size: int = SHARD, sentences: bool = False):
        self.path, self.dimension = folder, encoder.dimension
        self._work = folder / WORK
        facts = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "passages a shard": size}
        facts |= {"sentences": True} if sentences else {}
        begun = None
        while begun is None:
            with suppress(FileNotFoundError):  # another process has removed the folder meanwhile
                begun = self._begun(facts)
        if begun != facts:
            raise ValueError(
                f"{folder} holds work that was begun with other settings, {begun}, and these are {facts}: "
                "finish it with those, or begin anew (--full)"
            )

    def _begun(self, facts: dict) -> dict:
        """What the folder was begun with: this, unless it was there."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._work.exists():
            with temporary(self._work) as unfinished:
                unfinished.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
                put(unfinished, self._work)
        try:
            return json.loads(self._work.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{self._work} is damaged ({error}): --full begins anew") from error

    def exists(self) -> bool:
        """Whether nobody has put the library together, and deleted the shards, meanwhile."""
        return self._work.exists()

    def holds(self, name: str) -> bool:
        return (self.path / name).exists()

    def count(self) -> int:
        """How many shards are finished, of this input or of an earlier one."""
        return sum(1 for _ in self.path.glob("*.safetensors"))

    @contextmanager
    def claim(self, name: str, *, wait: float = 0) -> Iterator[bool]:
        """Whether this process alone works on `name` now, and nobody has finished it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / f"{name}.lock")
        try:
            lock.acquire(timeout=wait)
        except (Timeout, FileNotFoundError):  # at work, or done: the folder is gone
            yield False
            return
        try:
            yield self.exists() and not self.holds(name)
        finally:
            lock.release()

    def put(self, shard: Shard, vectors: np.ndarray, found: list[Read] | None = None) -> None:
        """Finish a shard: `vectors`, (n, D), of its passages, and what is stored of their sentences."""
        tensors = {"lines": np.frombuffer(shard.lines, np.uint8), "vectors": vectors.astype(np.float32)}
        if found is not None:
            numbers = range(shard.first, shard.first + len(found))
            tensors |= dict(zip(STORED, arrays_of(numbers, found)))
        save_tensors(self.path / shard.name, KIND, {}, tensors)

    def read(self, name: str) -> tuple[bytes, np.ndarray]:
        """(lines of passages, vectors) of a finished shard. Raises ValueError where its file is damaged."""
        _, tensors = load_tensors(self.path / name, KIND, ADVICE)
        return tensors["lines"].tobytes(), tensors["vectors"]

    def vectors(self, names: Iterable[str]) -> Iterator[np.ndarray]:
        return (self.read(name)[1] for name in names)

    def sentences(self, names: Iterable[str]) -> Iterator[Arrays]:
        """What is stored of sentences, as `write_blocks` takes it."""
        for name in names:
            _, tensors = load_tensors(self.path / name, KIND, ADVICE)
            yield tuple(tensors[part] for part in STORED)

    def sweep(self) -> None:
        """Delete what asking for a lock leaves of a folder that another process has removed."""
        if not self.exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def remove(self) -> None:
        self.remove_at(self.path)

    @staticmethod
    def remove_at(folder: Path) -> None:
        """Delete such a folder: first what says that it is there."""
        (folder / WORK).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _lines(first: int, passages: list[Passage]) -> bytes:
    return "".join(passage_line(n, passage) for n, passage in enumerate(passages, first)).encode()


def _shard(first: int, passages: list[Passage]) -> Shard:
    digest = hashlib.sha256(_lines(first, passages)).hexdigest()[:24]
    return Shard(f"{first:012}-{digest}.safetensors", first, passages)
