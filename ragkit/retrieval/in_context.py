"""Sentences' vectors from the run of the whole passage, so that each knows what stands around it.

This is late chunking (arXiv 2409.04701); a passage longer than the model's window runs in several.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import numpy as np

from ragkit.retrieval.text import readable
from ragkit.retrieval.windows import windows_of


def in_context(encoder, texts: list[str], spans: list[list[tuple[int, int]]], progress: bool) -> list:
    """Of each text, (W + S, D): its windows, then its sentences."""
    made: list[np.ndarray] = []
    rows, goals = [], []  # token ids; the vector of all of them, and the vectors of some: (vector, a, b)
    for head, ids, tail, sentences in _placed(encoder, texts, spans):
        room = max(encoder.max_tokens - len(head) - len(tail), 1)
        windows = windows_of(len(ids), sentences, room)
        vectors = np.zeros((len(windows) + len(sentences), encoder.dimension), dtype=np.float32)
        of_sentences = vectors[len(windows) :]
        for vector, (begin, end, inside) in zip(vectors, windows):
            rows.append(head + ids[begin:end] + tail)
            shift = len(head) - begin
            goals.append((vector, [(of_sentences[n], a + shift, b + shift) for n, a, b in inside]))
        if encoder.pooling == "cls":
            goals[-len(windows) :] = [(vector, []) for vector in vectors]
            rows += [head + ids[a:b][:room] + tail for a, b in sentences]
        made.append(vectors)
    for batch, pooled, states in encoder._run(rows, progress):
        for row, vector, state in zip(batch, pooled, states.cpu().numpy()):
            whole, parts = goals[row]
            whole[:] = vector
            for part, a, b in parts:  # a sentence beyond a window's end goes on in the next
                part += state[a:b].sum(0)
    for vectors in made:
        vectors[~vectors.any(1)] = vectors[0]  # a sentence without a token
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return made


def _placed(encoder, texts: list[str], spans: list[list[tuple[int, int]]]) -> Iterator[tuple]:
    """Of each text: token ids that open a window, its own, those that close one; its spans in tokens."""
    if not texts:
        return
    prefixed = [readable(encoder.passage_prefix + text) for text in texts]
    found = encoder.tokenizer(prefixed, return_offsets_mapping=True, truncation=False, verbose=False)
    for n, own in enumerate(spans):
        ids = found["input_ids"][n]
        inner = [i for i, source in enumerate(found.sequence_ids(n)) if source is not None]  # not special
        starts, ends = np.array([found["offset_mapping"][n][i] for i in inner]).reshape(-1, 2).T
        starts, ends = starts - len(encoder.passage_prefix), ends - len(encoder.passage_prefix)
        opening = int((ends <= 0).sum())  # the prefix's tokens
        first = (inner[0] if inner else len(ids)) + opening
        last = first + len(inner) - opening
        places = [(bisect_right(ends, a) - opening, bisect_left(starts, b) - opening) for a, b in own]
        yield ids[:first], ids[first:last], ids[last:], places
