"""From a corpus of any size to a library: read, encoded and written shard by shard, by one process or many.

In memory are one shard and eight bytes a passage. Each process reads all of the corpus, which takes seconds a
million passages, and encodes the shards that it gets.
"""

import errno
import hashlib
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ragkit.retrieval.corpus import Passage, stream_passages
from ragkit.retrieval.milvus_collection import is_milvus
from ragkit.retrieval.sentences import Read, read
from ragkit.retrieval.shards import SHARD, shards_of
from ragkit.retrieval.sinks import FolderSink, MilvusSink

FULL = {errno.ENOSPC, errno.EDQUOT}


def index_corpus(
    path: str | Path,
    to: str | Path,
    encoder,
    *,
    index: str | None = None,
    sentences: bool = False,
    full: bool = False,
    size: int = SHARD,
    rank: int = 0,
    workers: int = 1,
    progress: bool = True,
) -> tuple[int, str]:
    """(number of passages, what is to be said): a library at `to` of what `load_passages` reads from `path`.

    `to`: a folder, or for Milvus an address or a name that ends in .db. After an interrupt the same call goes
    on: what is encoded is not encoded again. `rank` of `workers` processes that make the same call at once.
    `index`: the kind of index in a folder (default: the one that is there, or "Flat"). `sentences`: store
    there what a reranker reads (default: as it is there, or not), see `Library.build`. `full` takes nothing
    over from before. `size`: passages a shard. Raises what `load_passages` raises, before the work;
    ValueError where `to` holds something else; OSError where the disk is full: then too it can go on.
    """
    if full and workers > 1:
        raise ValueError("full is for one process: others could lose their work. Name a new folder instead")
    if is_milvus(to):
        if index is not None:
            raise ValueError(f"index={index!r} is for folders: Milvus has its own")
        if sentences:
            raise ValueError("sentences=True is for folders: in Milvus, passages' vectors alone are stored")
        sink = MilvusSink(str(to), encoder, full, rank, workers)
    else:
        sink = FolderSink(Path(to), encoder, index, size, full, sentences)
    names, total = _surveyed(path, encoder.tokenizer, size)
    with _room_on_disk(to):
        sink.begin(names, total)
        _encode(path, sink, encoder, names, total, size, progress)
        return total, sink.finish(names, total)


def _surveyed(path, tokenizer, size: int) -> tuple[list[str], int]:
    """(names of the shards, number of passages) of a corpus, read once through: so what is wrong with it, and
    whether it has changed since the last time, shows before the work."""
    seen = array("Q")

    def passages() -> Iterator[Passage]:
        for _, passage in stream_passages(path, tokenizer):
            seen.append(_digest(passage.id))
            yield passage

    names = [shard.name for shard in shards_of(passages(), size)]
    if not names:
        raise ValueError(f"no passages in {str(path)!r}: what is there is empty")
    digests = np.sort(np.frombuffer(seen, dtype=np.uint64))
    twice = set(digests[1:][digests[1:] == digests[:-1]].tolist())
    places: dict[str, str] = {}
    if twice:
        for where, passage in stream_passages(path, tokenizer, warn=False):
            if _digest(passage.id) in twice and (first := places.setdefault(passage.id, where)) is not where:
                raise ValueError(f"{where}: the id {passage.id!r} stands already at {first}")
    return names, len(digests)


def _encode(path, sink, encoder, names: list[str], total: int, size: int, progress: bool) -> None:
    """Until every shard is there, made by this process or by another one."""
    from tqdm.auto import tqdm

    known, looked, missing = set(names), False, sink.missing(names)
    again = lambda: stream_passages(path, encoder.tokenizer, warn=False)  # noqa: E731
    bar = tqdm(total=total, desc="passages", unit="passage", delay=3, disable=not progress)
    with bar:
        while missing:
            if looked:  # it shows the bar, whatever its delay
                bar.reset(total)
            left = set(missing)
            for shard in shards_of((passage for _, passage in again()), size):
                if shard.name not in known:
                    raise ValueError(f"{str(path)!r} has changed while it was read: run the same again")
                if not looked:
                    sink.look(shard)
                if shard.name in left:
                    with sink.claim(shard) as mine:
                        if mine:
                            rest = sink.rest(shard)
                            sink.put(shard, rest, *_vectors(encoder, rest, progress, sink.stores))
                bar.update(len(shard.passages))
            looked = True
            # What others work on is waited for, and made here where they die.
            while (missing := sink.missing(names)) and not sink.unfinished(missing[0]):
                pass


def _vectors(
    encoder, passages: list[Passage], progress: bool, stores: bool
) -> tuple[np.ndarray, list[Read] | None]:
    """Vectors of passages, (n, D), and what is stored of their sentences."""
    if not passages:
        return np.empty((0, encoder.dimension), dtype=np.float32), [] if stores else None
    texts, found = [passage.full_text for passage in passages], None
    if stores:
        found = read(encoder, texts, progress=progress)
        vectors = np.stack([one.inside[0] for one in found])
    else:
        vectors = encoder.encode_passages(texts, progress=progress)
    if vectors.shape != (len(passages), encoder.dimension) or not np.isfinite(vectors).all():
        raise ValueError(
            f"the encoder gave vectors of shape {vectors.shape} for {len(passages)} passages, of which "
            f"{passages[0].id!r} is the first, or NaN or infinity in them"
        )
    return vectors, found


def _digest(passage_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(passage_id.encode(), digest_size=8).digest(), "little")


@contextmanager
def _room_on_disk(to) -> Iterator[None]:
    """A full disk is named as such: what is finished stays."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # FAISS raises the latter
        code = getattr(error, "errno", None)
        if code not in FULL and os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise OSError(
            code or errno.ENOSPC,
            f"no room left on the disk of {str(to)!r}: what is encoded is kept; make room, and run the same "
            "command again",
        ) from error
