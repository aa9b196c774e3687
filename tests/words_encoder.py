"""An encoder without a model whose similarities mean something: shared words."""

import hashlib
from functools import cache

import numpy as np


class WordsEncoder:
    """A text's vector is the mean of its words' vectors, which are drawn from hashes of the words."""

    name = "words"
    dimension = 24
    query_prefix = passage_prefix = ""

    def __init__(self, seed: int = 0):
        self.seed, self.encoded = seed, 0
        self._known: dict[str, np.ndarray] = {}
        self.fingerprint = hashlib.sha256(f"words {seed}".encode()).hexdigest()

    def encode(self, texts, *, progress: bool = True, warn: bool = True) -> np.ndarray:
        if isinstance(texts, str):
            return self.encode([texts])[0]
        new = {text for text in texts if text not in self._known}
        self.encoded += len(new)
        self._known.update((text, self._vector(text)) for text in new)
        return np.array([self._known[text] for text in texts], dtype=np.float32).reshape(-1, self.dimension)

    def encode_query(self, query: str) -> np.ndarray:
        return self.encode(query)

    def encode_passages(self, texts: list[str], *, progress: bool = True, warn: bool = True) -> np.ndarray:
        return self.encode(texts)

    def encode_sentences(
        self, texts, spans, *, progress=True, warn=False
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        sentences = [[text[start:end] for start, end in own] for text, own in zip(texts, spans)]
        self.encode([piece for text, own in zip(texts, sentences) for piece in (text, *own)])
        return [(self.encode([text]), self.encode(own)) for text, own in zip(texts, sentences)]

    def _vector(self, text: str) -> np.ndarray:
        total = np.full(self.dimension, 1e-3)
        for word in text.lower().split():
            total += _of_word(word, self.seed, self.dimension)
        return total / np.linalg.norm(total)


@cache
def _of_word(word: str, seed: int, dimension: int) -> np.ndarray:
    digest = hashlib.sha256(f"{seed} {word}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(list(digest)).normal(size=dimension)
