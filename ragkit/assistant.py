"""The whole way from a question to an answer with sources, as one function that can be read."""

import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragkit.generation.answer import Answer
from ragkit.generation.generator import DEFAULT, Generator, default_generator
from ragkit.generation.reasons import wordings
from ragkit.retrieval.checks import check_encoder
from ragkit.retrieval.corpus import DATA, Hit, check_query, ranked
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.lexical import best_of, hybrid_search
from ragkit.retrieval.library import Library
from ragkit.retrieval.milvus import encoder_of, load_library

# Style and seed of an answer other than the first, in the order in which they are tried.
OTHER_WAYS = [("free", None), ("sentence", 1), ("sentence", 2), ("phrase", None), ("sentence", 3)]


@dataclass(frozen=True)
class Turn:
    """One question and all that came of it. `timings`: seconds for each step.

    Of one that was read from a log, the vector, the prompt and the answer's evidence are empty.
    """

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
        cls,
        library: str | Path = DATA / "index",
        generator: str | None = None,
        *,
        encoder: str | None = None,
        reranker: str | Path | None = None,
    ) -> "Assistant":
        """The assistant over a saved library (default: the one that ships) and the encoder that built it.

        `library`: a folder, or what `MilvusLibrary` calls a place. `generator` (default: smollm2-reader, or
        tiny-rag-lm where that is not installed): a name or a folder; `reranker`: what `Reranker.save` wrote.
        Raises OSError where one of them is missing, ValueError where one is damaged or does not fit.
        """
        encoder = encoder or encoder_of(library)
        with ThreadPoolExecutor(1) as beside:
            # The reader is made beside the rest. Of the time until the first answer most goes into its
            # weights (checked, merged, packed), and there no thread waits for Python's lock. Other models
            # are loaded by transformers, which one thread at a time can do.
            reader = beside.submit(Generator, DEFAULT) if generator in (None, DEFAULT) else None
            built = Encoder(encoder)
            passages = load_library(library, built)
            # A first search meanwhile: it imports what counts words, counts them, and packs weights.
            hybrid_search(passages, "", built.encode_query(""), 1)
            if generator is None:
                answering = default_generator(built, reader.result)
            else:
                answering = reader.result() if reader else Generator(generator, built)
        answering.encoder, trained = built, None
        if reranker is not None:
            from ragkit.reranking.reranker import Reranker

            trained = Reranker.load(reranker, built)
        return cls(built, passages, answering, trained)

    def find(
        self,
        query: str,
        k: int = 3,
        candidates: int | None = None,
        *,
        timings: dict[str, float] | None = None,
    ) -> list[Hit]:
        """The k passages to answer `query` from, best first; scores as in `hybrid_search` or the reranker's.

        `candidates`: with a reranker, how many passages it chooses the k from; k unless given. `timings`
        gets each step's seconds.
        """
        check_query(query)
        clock = [time.perf_counter()]

        # 1. The encoder makes a query vector; of "Why would I use X?" also of how an answer would begin.
        sought = {text: self.encoder.encode_query(text) for text in wordings(query)}
        clock.append(time.perf_counter())

        # 2. f(library, query vector, k) returns k documents; here, the query's words count too.
        count = k if self.reranker is None else max(k, candidates or k)
        runs = [hybrid_search(self.library, text, vector, count) for text, vector in sought.items()]
        hits = best_of(*runs)[:count]
        if hasattr(self.encoder, "remember"):  # the steps to come need not encode them again
            self.library.lend(self.encoder, [hit.passage for hit in hits])
        clock.append(time.perf_counter())

        # 3. A reranker, where there is one, puts them into the order that people prefer.
        if self.reranker is not None:
            hits = ranked((hit.passage, hit.score) for hit in self.reranker.rerank(query, hits)[:k])
        clock.append(time.perf_counter())

        if timings is not None:
            steps = ("encode", "retrieve", "rerank")
            timings |= {step: after - before for step, before, after in zip(steps, clock, clock[1:])}
        return hits

    def ask(
        self,
        query: str,
        k: int = 3,
        *,
        style: str = "sentence",
        seed: int | None = None,
        on_text: Callable[[str], None] | None = None,
        on_step: Callable[[str], None] | None = None,
        candidates: int | None = None,
    ) -> Turn:
        """Answer `query` from what `find` finds (retrieval-augmented generation, arXiv 2005.11401).

        `on_text` gets the answer's text as it is written; `on_step` the name of each step as it begins:
        "searching", "reading", and "writing" with the first text.
        """
        tell = on_step or (lambda step: None)
        tell("searching")
        timings: dict[str, float] = {}
        hits = self.find(query, k, candidates, timings=timings)

        # 4. A language model answers from the query and the documents.
        tell("reading")
        written = False

        def write(text: str) -> None:
            nonlocal written
            if not written:
                tell("writing")
            written = True
            if on_text:
                on_text(text)

        started = time.perf_counter()
        answer = self.generator.answer(query, hits, style=style, seed=seed, on_text=write)
        timings["generate"] = time.perf_counter() - started
        return Turn(query, self.encoder.encode_query(query), hits, answer.prompt, answer, timings)

    def another(self, turn: Turn, known: Collection[str] = ()) -> Answer | None:
        """Another answer from the documents of `turn`, neither its own nor one of the texts `known`.

        Tried are the model's own words, other draws, and a phrase, as far as the model has these styles. None
        where every try says what was said before, or declines. Raises what the generator raises to all.
        """
        said, trouble, tried = {turn.answer.text, *known}, None, False
        for style, seed in OTHER_WAYS:
            try:
                answer = self.generator.answer(turn.query, turn.hits, style=style, seed=seed)
            except ValueError as error:  # a model may lack a style
                trouble = error
                continue
            tried = True
            if answer.text not in said and not answer.abstained:
                return answer
        if not tried:
            raise trouble
        return None
