"""Vectors by text, as many as fit."""

from collections import OrderedDict
from collections.abc import Sequence
from sys import getsizeof
from threading import Lock

import numpy as np

MEMORY = 2**28  # bytes: some 140,000 sentences at 384 dimensions
_ENTRY = 200  # bytes that Python needs for one of them beside text and numbers


class Memory:
    """The vectors of the texts last asked for, in at most `limit` bytes: the least recently used go first.

    What alone would take more than half of it, as a whole corpus does, is not kept: a library has those
    vectors, and all else would be gone. Threads may share it; a copy is empty.
    """

    def __init__(self, limit: int):
        self.limit, self.lock = limit, Lock()
        self._size = 0
        self._vectors: OrderedDict[str, np.ndarray] = OrderedDict()

    def get(self, texts: list[str]) -> dict[str, np.ndarray]:
        """The vectors that are here, by text."""
        with self.lock:
            found = {text: self._vectors[text] for text in texts if text in self._vectors}
            for text in found:
                self._vectors.move_to_end(text)
        return found

    def put(self, texts: list[str], vectors: Sequence[np.ndarray]) -> None:
        sizes = [_ENTRY + 4 * np.size(vector) + getsizeof(text) for text, vector in zip(texts, vectors)]
        if sum(sizes) > self.limit / 2:
            return
        with self.lock:
            for text, vector, size in zip(texts, vectors, sizes):
                if text not in self._vectors:
                    self._vectors[text] = vector.astype(np.float32)  # a copy: callers may change theirs
                    self._size += size
            while self._size > self.limit:
                text, vector = self._vectors.popitem(last=False)
                self._size -= _ENTRY + vector.nbytes + getsizeof(text)

    def __reduce__(self):
        return Memory, (self.limit,)
