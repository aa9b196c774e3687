"""From whole passages to the few sentences that a small model can read."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from ragkit.corpus import Hit
from ragkit.text import split_sentences


@dataclass(frozen=True)
class Evidence:
    """A piece of text that the generator reads. `hit`: the 1-based position of its hit, as in citations."""

    text: str
    hit: int
    score: float


def select_evidence(
    query: str,
    hits: list[Hit],
    encoder,
    budget: int = 256,
    *,
    most: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
) -> list[Evidence]:
    """The sentences of the hits that are nearest to the query, nearest first, within `budget` tokens.

    A sentence that would not fit is passed over and a shorter one may take its place; `most` bounds their
    number. `count_tokens` says how the budget is counted (default: the encoder's tokens). Fenced code and
    headings are left out, since they are no sentences; a sentence that two hits share counts for the better
    hit. `score` is the cosine similarity of sentence and query.
    """
    if not isinstance(budget, int) or budget < 1:
        raise ValueError(f"budget={budget!r}: a number of tokens, at least 1")
    if count_tokens is None:
        count_tokens = lambda text: len(encoder.tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    sources: dict[str, int] = {}
    for position, hit in enumerate(hits, 1):
        for sentence in split_sentences(hit.passage.text):
            if not re.match(r"```|#+ ", sentence):
                sources.setdefault(sentence, position)
    sentences = list(sources)
    if not sentences:
        return []
    scores = encoder.encode_passages(sentences, progress=False) @ encoder.encode_query(query)
    chosen: list[Evidence] = []
    for index in (-scores).argsort(kind="stable"):  # of equal scores, the better hit's first
        if most is not None and len(chosen) == most:
            break
        cost = count_tokens(sentences[index])
        if cost <= budget:
            budget -= cost
            chosen.append(Evidence(sentences[index], sources[sentences[index]], float(scores[index])))
    return chosen
