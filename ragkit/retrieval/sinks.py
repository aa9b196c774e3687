"""Where a streamed corpus goes: a folder with a library, or Milvus. One interface for both.

`begin(names, total)`, once the names of all shards are known, and how many passages they hold;
`missing(names)`, those that are not there yet; `look(shard)`, at each as it is read the first time;
`claim(shard)`, whether it is ours to make; `rest(shard)`, its passages that are still to be encoded;
`put(shard, rest, vectors, found)`, where `found` is what is stored of sentences if it `stores` them;
`unfinished(name)`, once who works on another one is done with it, whether it is still to be made;
`finish(names, total)`, what is said at the end.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.indexes import (
    FLAT,
    PER_CENTROID,
    Recall,
    check_enough,
    is_exact,
    learns_from,
    new_index,
    recall,
    sample_rows,
    write_flat,
)
from ragkit.retrieval.library import Library
from ragkit.retrieval.library_files import library_facts
from ragkit.retrieval.sentences import Read, write_blocks
from ragkit.retrieval.shards import Shard, ShardFolder
from ragkit.retrieval.storage import PASSAGES, SENTENCES, VECTORS, LibraryFolder

UNFINISHED = ".unfinished"  # the folder of shards, inside the library's


class FolderSink:
    """A library on disk, put together from shards. `index`: its kind; None: as it is there, or "Flat".
    `sentences`: whether what a reranker reads is stored; if not asked for, as it is there.

    Of a library that is there already, vectors of texts that are the same are taken over. Any number of
    processes may work at once. Raises ValueError where the folder holds something else.
    """

    def __init__(
        self, folder: Path, encoder, index: str | None, size: int, full: bool, sentences: bool = False
    ):
        self.folder, self.encoder, self.size, self.full = LibraryFolder(folder), encoder, size, full
        path = self.folder.path
        if path.exists() and not path.is_dir():
            raise ValueError(f"{str(path)!r} is a file, and a library is a folder: name another")
        if strangers := self.folder.strangers():
            raise ValueError(
                f"{str(path)!r} holds something else ({strangers[0]!r}"
                f"{f' and {len(strangers) - 1} more' if strangers[1:] else ''}): name an empty folder"
            )
        there: dict = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            there = self.folder.manifest()
        self.index = index or there.get("index", FLAT)
        self.stores = sentences or bool(there.get("sentences"))
        new_index(self.index, encoder.dimension)  # else a wrong name is noticed after hours
        self._old: Library | None = None
        self._known: dict[str, Passage] = {}
        self._counts = {"new": 0, "changed": 0}
        self._same, self.told = 0, ""

    def begin(self, names: list[str], total: int) -> None:
        check_enough(new_index(self.index, self.encoder.dimension), self.index, total)
        stored = ["sentences"] if self.stores else []
        settings = [self.encoder.fingerprint, self.index, *stored]
        digest = hashlib.sha256("\n".join([*settings, *names]).encode())
        self._input = digest.hexdigest()
        self._fresh = not self.full and self._is_there()
        if self._fresh:
            self.told = ": 0 new, 0 changed, 0 gone since the last time"
            return
        path = self.folder.path / UNFINISHED
        if self.full and path.exists():
            ShardFolder.remove_at(path)
        self.shards = ShardFolder(path, self.encoder, self.size, self.stores)
        if not self.full and self._is_there():  # another process has finished since we looked
            self._fresh = True
            self.shards.remove()
            return
        if begun := self.shards.count():
            held = sum(map(self.shards.holds, names))
            self.told = f"; {held} of {len(names)} shards were there from a run that was interrupted"
            if held < begun:
                self.told += f", and the passages of {begun - held} others have changed since"
        if not self.full:
            with contextlib.suppress(FileNotFoundError, ValueError):  # none is there, or not this encoder's
                self._old = Library.load(self.folder.path, self.encoder, mmap=True)
                self._known = {passage.id: passage for passage in self._old.passages}

    def _is_there(self) -> bool:
        """Whether the folder holds, undamaged, the library that is asked for."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            manifest = self.folder.manifest()
            return manifest.get("input") == self._input and bool(self.folder.files(manifest))
        return False

    def missing(self, names: list[str]) -> list[str]:
        if self._fresh or not self.shards.exists():
            return []
        return [name for name in names if not self.shards.holds(name)]

    def claim(self, shard: Shard):
        return self.shards.claim(shard.name)

    def unfinished(self, name: str) -> bool:
        with self.shards.claim(name, wait=1) as free:
            return free and self.shards.exists()

    def look(self, shard: Shard) -> None:
        """Count what is new since the last time."""
        for passage in shard.passages:
            before = self._known.get(passage.id)
            self._counts["new"] += before is None
            self._counts["changed"] += before is not None and before != passage
            self._same += before is not None

    def rest(self, shard: Shard) -> list[Passage]:
        if self._old is None or not is_exact(self._old.index) or self._old.stores < self.stores:
            return shard.passages
        known = self._known
        return [p for p in shard.passages if p.id not in known or known[p.id].full_text != p.full_text]

    def put(self, shard: Shard, rest: list[Passage], vectors: np.ndarray, found: list[Read] | None) -> None:
        if len(rest) < len(shard.passages):
            place = {passage.id: n for n, passage in enumerate(shard.passages)}
            taken = list(place.keys() - {passage.id for passage in rest})
            whole = np.empty((len(place), self.encoder.dimension), dtype=np.float32)
            whole[[place[passage.id] for passage in rest]] = vectors
            whole[[place[passage_id] for passage_id in taken]] = self._old.vectors_of(taken)
            vectors = whole
            if self.stores:
                made = dict(zip([passage.id for passage in rest], found))
                made |= dict(zip(taken, self._old.sentences_of(taken)))
                found = [made[passage_id] for passage_id in place]
        self.shards.put(shard, vectors, found)

    def finish(self, names: list[str], total: int) -> str:
        """Put the library together, unless another process has: one does, the others wait for it."""
        if self._old is not None and sum(self._counts.values()) + self._same:
            gone = len(self._known) - self._same
            self.told += f": {self._counts['new']} new, {self._counts['changed']} changed, {gone} gone"
            self.told += " since the last time"
        while not self._fresh and self.shards.exists():
            with self.shards.claim("library", wait=1) as mine:
                if mine and self.shards.exists():
                    self._merge(names, total)
                    self.shards.remove()
        if not self._fresh:
            self.shards.sweep()
        found = self.folder.manifest().get("recall")
        return self.told + (f"; {Recall(**found)}" if found else "")

    def _merge(self, names: list[str], total: int) -> None:
        import faiss

        def write_passages(path: Path) -> None:
            with open(path, "wb") as file:
                file.writelines(self.shards.read(name)[0] for name in names)

        encoder, found = self.encoder, None
        if self.index == FLAT:
            vectors = self.shards.vectors(names)
            writers = {VECTORS: lambda path: write_flat(path, encoder.dimension, total, vectors)}
        else:
            made = self._made(names, total)
            own = sample_rows(total, 200)
            found = recall(made, self.index, self.shards.vectors(names), self._picked(names, own), own)
            writers = {VECTORS: lambda path: faiss.write_index(made, str(path))}
        whose = encoder.name, encoder.fingerprint, encoder.dimension
        facts = library_facts(*whose, self.index, found, self.stores)
        facts |= {"passages": total, "input": self._input}
        writers[PASSAGES] = write_passages
        if self.stores:
            writers[SENTENCES] = lambda path: write_blocks(path, self.shards.sentences(names))
        self.folder.write(facts, writers)

    def _made(self, names: list[str], total: int):
        """The index: it is in memory whole, and of the vectors only those that it learns from."""
        made = new_index(self.index, self.encoder.dimension)
        if not made.is_trained:
            # FAISS learns a centroid from 256 vectors at most.
            most = max(least for _, least in learns_from(made)) * 256 // PER_CENTROID
            made.train(self._picked(names, sample_rows(total, max(most, 2**16))))
        first = 0
        for vectors in self.shards.vectors(names):
            made.add_with_ids(vectors, np.arange(first, first + len(vectors), dtype=np.int64))
            first += len(vectors)
        return made

    def _picked(self, names: list[str], rows: np.ndarray) -> np.ndarray:
        """Some vectors by their numbers, which rise."""
        found, first = [], 0
        for vectors in self.shards.vectors(names):
            found.append(vectors[rows[(rows >= first) & (rows < first + len(vectors))] - first])
            first += len(vectors)
        return np.concatenate(found)


class MilvusSink:
    """A library in Milvus. Which passages are there, Milvus is asked by their ids: after an interrupt, those
    are not encoded again. A new text under an old id is taken with `full` only; nothing is deleted.

    Of several processes, each takes its share of the shards: a server for all, and no shared disk.
    """

    stores = False

    def __init__(self, place: str, encoder, full: bool, rank: int, workers: int):
        from ragkit.retrieval.milvus import MilvusLibrary

        if workers > 1 and "://" not in place:
            raise ValueError(f"{place!r} is opened by one process at a time: run one worker, or a server")
        self.library = MilvusLibrary.open(place, encoder)
        self.full, self.rank, self.workers = full, rank, workers
        self._done: set[str] = set()
        self._there = self._added = 0

    def begin(self, names: list[str], total: int) -> None:
        pass

    def missing(self, names: list[str]) -> list[str]:
        return [name for name in names[self.rank :: self.workers] if name not in self._done]

    @contextlib.contextmanager
    def claim(self, shard: Shard) -> Iterator[bool]:
        yield True

    def unfinished(self, name: str) -> bool:
        return True

    def look(self, shard: Shard) -> None:
        pass

    def rest(self, shard: Shard) -> list[Passage]:
        here = set() if self.full else self.library.among(passage.id for passage in shard.passages)
        self._there += len(here)
        return [passage for passage in shard.passages if passage.id not in here]

    def put(self, shard: Shard, rest: list[Passage], vectors: np.ndarray, found: None) -> None:
        here = self.library.among(passage.id for passage in rest) if self.full else set()
        for write, wanted in ((self.library.replace, True), (self.library.add, False)):
            rows = [n for n, passage in enumerate(rest) if (passage.id in here) == wanted]
            write([rest[n] for n in rows], vectors[rows], progress=False)
        self._done.add(shard.name)
        self._added += len(rest)

    def finish(self, names: list[str], total: int) -> str:
        self.library.save()
        self.library.close()
        there = f", {self._there} were there already, by their ids (--full takes their texts anew)"
        return f": {self._added} encoded here{there if self._there else ''}"
