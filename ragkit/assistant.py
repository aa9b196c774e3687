"""The whole way from a question to an answer with sources, as one function that can be read."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np

from ragkit.corpus import DATA, Hit
from ragkit.encoder import Encoder
from ragkit.generator import DEFAULT, Answer, Generator
from ragkit.library import Library, check_encoder, library_encoder, retrieve


@dataclass(frozen=True)
class Turn:
    """One question and all that came of it. `timings`: seconds for each step."""

    query: str
    query_vector: np.ndarray
    hits: list[Hit]
    prompt: str
    answer: Answer
    timings: dict[str, float]

    @property
    def sources(self) -> list[Hit]:
        """The hits that the answer cites, in the order of its citations."""
        return [self.hits[number - 1] for number in self.answer.citations]


class Assistant:
    """Answers questions from a library. Raises ValueError where `encoder` did not build `library`."""

    def __init__(self, encoder: Encoder, library: Library, generator: Generator, reranker=None):
        check_encoder(encoder, library.fingerprint, library.encoder_name)
        self.encoder, self.library, self.generator, self.reranker = encoder, library, generator, reranker

    @classmethod
    def load(
        cls, library: str | Path = DATA / "index", generator: str = DEFAULT, *, encoder: str | None = None
    ) -> "Assistant":
        """The assistant over a saved library (default: the one that ships) and the encoder that built it."""
        built = Encoder(encoder or library_encoder(library))
        return cls(built, Library.load(library, built), Generator(generator, built))

    def ask(
        self,
        query: str,
        k: int = 3,
        *,
        style: str = "sentence",
        seed: int | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Turn:
        """Answer `query` from the k nearest passages (retrieval-augmented generation, arXiv 2005.11401)."""
        if not isinstance(query, str) or not query.strip():
            raise ValueError(f"query={query!r}: a question, as a string that is not empty")
        clock = [time.perf_counter()]

        # 1. The encoder makes a query vector.
        query_vector = self.encoder.encode_query(query)
        clock.append(time.perf_counter())

        # 2. f(library, query vector, k) returns k documents.
        hits = retrieve(self.library, query_vector, k)
        clock.append(time.perf_counter())

        # 3. A reranker, where there is one, puts them into the order that people prefer.
        if self.reranker is not None:
            hits = self.reranker.rerank(query, hits)
        clock.append(time.perf_counter())

        # 4. A language model answers from the query and the documents.
        answer = self.generator.answer(query, hits, style=style, seed=seed, on_text=on_text)
        clock.append(time.perf_counter())

        steps = ("encode", "retrieve", "rerank", "generate")
        timings = {step: after - before for step, before, after in zip(steps, clock, clock[1:])}
        return Turn(query, query_vector, hits, answer.prompt, answer, timings)


_ASKING = r"(?:what|why|how|when|where|which|who|does|do|did|is|are|was|can|could|should|will|would)\b"
_FOLLOW_UP = re.compile(
    r"(?:(?:and|but|so|ok(?:ay)?|then)\b[\s,]*)?(?:what|how)\s+about\s+(?P<about>.*\w.*?)[\s?]*$"
    rf"|(?:and|but)\s+(?!{_ASKING})(?P<and>.*\w.*?)[\s?]*$",
    re.I,
)
# What is taken for a name: two capitals or digits (DPO, nDCG, BM25), capitalised words inside a sentence
# (Milvus, Bradley-Terry), and lower-case consonants that no English word is made of (dpo, grpo, hnsw).
_NAME = re.compile(
    r"(?<!\w)(?:(?=\w*[A-Za-z])\w*[A-Z0-9]\w*[A-Z0-9]\w*(?:-\w+)*"
    r"|(?<=[\w,(] )[A-Z][a-z]+(?:[- ][A-Z]\w+)*|[A-Z][a-z]+(?:-[A-Z][a-z]+)+"
    r"|(?!(?:the|who|she|two|pro)\b)(?=\w{3})[b-df-hj-np-tv-xz]{2,5}[aeiou]?)(?!\w)"
)
_SHORT = re.compile(r"(?!(?:it|me|us|you|all|now|one)$)[a-z]{2,3}")  # after "what about" a name too: ipo, rag
_PREPOSITION = re.compile(r"^(?:for|in|with|of|on|to|by)\s+", re.I)
_POINTS_BACK = re.compile(r"\b(?:it|its|they|them|their)\b", re.I)
_POINTS_NEAR = re.compile(r"\b(?:this|that|these|those|ones?|else|instead|more(?=\W*$))\b", re.I)


def complete_follow_up(query: str, previous: str | None) -> str:
    """`query` made a question on its own with the help of the question before it.

    "and what about IPO?" after "What does beta control in DPO?" becomes "What does beta control in IPO?":
    the new name takes the place of the old one, of several that which ends most like it. Where there is no
    name to replace, or the question only points back ("why does it work?"), the earlier question is put in
    front. A question that stands alone stays as it is. These are rules of thumb, for English; the chat shows
    what they made.
    """
    if not previous:
        return query
    first = previous.split("?")[0].rstrip()  # of a question completed before: so that none grows and grows
    found = _FOLLOW_UP.match(query.strip())
    name = _NAME.search(query)
    if found:
        about = found["about"] or found["and"]
        new = _PREPOSITION.sub("", about)
        old = list(_NAME.finditer(previous))
        if old and len(new.split()) <= 4 and (name or _SHORT.fullmatch(new)):
            last = max(old, key=lambda match: (_shared_ending(match[0], new), match.start()))
            return previous[: last.start()] + new + previous[last.end() :]
        return f"{first}: {about}?"
    words = len(re.findall(r"\w+", query))
    back = _POINTS_BACK.search(query) if words <= 10 else None
    back = back or (_POINTS_NEAR.search(query) if words <= 6 else None)
    if (words <= 2 and not name) or (back and (not name or back.start() < name.start())):
        return f"{first}? {query}"
    return query


def _shared_ending(a: str, b: str) -> int:
    pairs = zip(reversed(a.lower()), reversed(b.lower()))
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
