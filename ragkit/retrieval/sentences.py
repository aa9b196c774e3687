"""Stored vectors of passages' sentences, so that no question waits for a document to be read.

Of a passage with W windows and S sentences (W + 2 S) · 4 · D bytes: sentences as they stand in the text, from
the forward pass that makes the passage's own vector, and once more each alone, from a second pass.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ragkit.retrieval.text import spans

BLOCK = 4096  # passages that are written at once
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
TYPES = (np.int64, np.int64, np.float32)


class Read(NamedTuple):
    """What an encoder has made of a text; vectors are float32 of unit norm."""

    places: list[tuple[int, int]]  # where each of the S sentences begins and ends, in characters
    inside: np.ndarray  # (W + S, D): of its windows, the first being the text's own, and of its sentences
    alone: np.ndarray  # (S, D): of each sentence without the text around it


class Sentences:
    """What is stored of passages, by their numbers: in memory, or on disk where it is mapped.

    Rows of a passage that is dropped stay where they are until the library is saved and loaded again.
    """

    def __init__(self):
        # By number: the block's arrays, its first row and place there, W, S.
        self._where: dict[int, tuple[Arrays, int, int, int, int]] = {}

    def __len__(self) -> int:
        return len(self._where)

    def put(self, arrays: Arrays) -> None:
        """Take in a block, as `arrays_of` makes one."""
        row = place = 0
        for number, windows, count in arrays[0].tolist():
            self._where[number] = arrays, row, place, windows, count
            row, place = row + windows + 2 * count, place + count

    def of(self, number: int) -> Read:
        """What is stored of a passage. Raises KeyError where it is none."""
        (_, places, rows), row, place, windows, count = self._where[number]
        middle = row + windows + count
        own = list(map(tuple, places[place : place + count].tolist()))
        return Read(own, rows[row:middle], rows[middle : middle + count])

    def drop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            del self._where[number]

    def blocks(self) -> Iterator[Arrays]:
        """All that there is, in the order of the numbers."""
        numbers = sorted(self._where)
        for first in range(0, len(numbers), BLOCK):
            some = numbers[first : first + BLOCK]
            yield arrays_of(some, [self.of(number) for number in some])

    @classmethod
    def load(cls, path: Path, numbers: Iterable[int], dimension: int, mmap: bool) -> "Sentences":
        """From a file of `write_blocks`, of the passages `numbers`. Raises ValueError for others."""
        found = cls()
        for arrays in _blocks_in(path, mmap):
            _check(arrays, dimension, mmap)
            found.put(arrays)
        if found._where.keys() != set(numbers):
            raise ValueError("its sentences are not those of its passages")
        return found


def sentence_places(text: str) -> list[tuple[int, int]]:
    """Where each sentence of `text` begins and ends, in characters. Where it has none, it is one."""
    return [(span.start, span.end) for span in spans(text)] or [(0, len(text))]


def read(encoder, texts: list[str], *, progress: bool = True) -> list[Read]:
    """What `encoder` makes of texts and of all of their sentences."""
    places = [sentence_places(text) for text in texts]
    inside = encoder.encode_sentences(texts, places, progress=progress, warn=True)
    sentences = [text[start:end] for text, own in zip(texts, places) for start, end in own]
    alone = encoder.encode_passages(sentences, progress=progress, warn=False)
    ends = np.cumsum([len(own) for own in places])
    return [
        Read(own, np.concatenate(vectors), alone[end - len(own) : end])
        for own, vectors, end in zip(places, inside, ends)
    ]


def remind(encoder, texts: Sequence[str], found: Sequence[Read]) -> None:
    """Have `encoder` remember what it has made of `texts`."""
    encoder.remember_sentences(texts, [one.places for one in found], [one.inside for one in found])
    for text, one in zip(texts, found):
        sentences = [text[start:end] for start, end in one.places]
        encoder.remember([text, *sentences], np.concatenate([one.inside[:1], one.alone]))


def arrays_of(numbers: Sequence[int], found: Sequence[Read]) -> Arrays:
    """(N, 3): number, windows, sentences; (ΣS, 2): places; (Σ(W + 2 S), D): a passage's `inside`, `alone`."""
    sizes = [(n, len(one.inside) - len(one.places), len(one.places)) for n, one in zip(numbers, found)]
    parts = [sizes, [place for one in found for place in one.places]]
    rows = np.concatenate([part for one in found for part in (one.inside, one.alone)])
    return *(np.array(part, np.int64).reshape(len(part), -1) for part in parts), rows.astype(np.float32)


def write_blocks(path: Path, blocks: Iterable[Arrays]) -> None:
    """One file; each array as `np.save` writes it. Blocks need not be in memory together."""
    with open(path, "wb") as file:
        for array in (array for arrays in blocks for array in arrays):
            np.lib.format.write_array(file, np.ascontiguousarray(array))


def _blocks_in(path: Path, mmap: bool) -> Iterator[Arrays]:
    size, arrays = path.stat().st_size, []
    with open(path, "rb") as file:
        while file.tell() < size:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("its sentences are of another format")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype != TYPES[len(arrays)] or len(shape) != 2:
                raise ValueError(f"its sentences have an array of {dtype} and shape {shape}")
            if mmap and len(arrays) == 2 and shape[0]:
                array = np.memmap(path, dtype, "r", file.tell(), shape).view(np.ndarray)
                file.seek(array.nbytes, 1)
            else:
                array = np.fromfile(file, dtype, shape[0] * shape[1]).reshape(shape)
            arrays.append(array)
            if len(arrays) == 3:
                yield tuple(arrays)
                arrays = []
    if arrays:
        raise ValueError("its sentences end in the middle of a block")


def _check(arrays: Arrays, dimension: int, mmap: bool) -> None:
    sizes, places, rows = arrays
    windows, sentences = sizes[:, 1].sum(), sizes[:, 2].sum()
    if places.shape != (sentences, 2) or rows.shape != (windows + 2 * sentences, dimension):
        raise ValueError("its sentences' vectors and places do not belong together")
    if not mmap and not np.isfinite(rows).all():  # it would read what is mapped
        raise ValueError("its sentences' vectors hold NaN or infinity")
