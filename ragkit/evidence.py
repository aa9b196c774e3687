"""From whole passages to the few sentences that a small model can read."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ragkit.corpus import Hit
from ragkit.text import sentences_with_sections, split_sentences, words

SENTENCE, CONTEXT, PASSAGE = 0.35, 0.5, 0.15  # the shares of a score
# A best score below it: nothing was found. The highest that declines at most 1 % of what can be answered:
# 4 of 466 questions (test topics, topics kept back, SQuADShifts) and 14 of 18 off-topic ones. Measured by
# `python -m tests.benchmarks.reading --questions FOLDER`.
FLOOR = 0.29
_OPEN = re.compile(r"\W*(?:what|why|how|when|where|who)\b", re.I)


@dataclass(frozen=True)
class Evidence:
    """A piece of text that the generator reads. `hit`: the 1-based position of its hit, as in citations.

    `section`: the headings above it in the hit, "Install > Linux".
    """

    text: str
    hit: int
    score: float
    section: str = ""


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
    number. `count_tokens` says how the budget is counted (default: the encoder's tokens). What can be quoted:
    `text.sentences_with_sections`; a sentence that two hits share counts for the better hit. One that only
    asks, or repeats the query, answers nothing, but tells what the sentences after it are about.

    `score`, from cosines with the query: 0.35 · sentence + 0.5 · sentence under its title, section and
    question + 0.15 · its whole passage. Where the best score is below FLOOR, there is no evidence.
    """
    if not isinstance(budget, int) or budget < 1:
        raise ValueError(f"budget={budget!r}: a number of tokens, at least 1")
    if count_tokens is None:
        count_tokens = lambda text: len(encoder.tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    found: dict[str, tuple[int, str, str]] = {}  # position, section, with its context
    for position, hit in enumerate(hits, 1):
        under, asked = "", ""
        for sentence, section in sentences_with_sections(hit.passage.text):
            if section != under:
                under, asked = section, ""
            if _only_asks(sentence, query):
                asked = sentence
                continue
            parts = (hit.passage.title, section.replace(" > ", " "), asked, sentence)
            context = " ".join(filter(None, parts))
            found.setdefault(sentence, (position, section, context))
    if not found:
        return []
    positions, sections, contexts = zip(*found.values())
    texts = [*found, *contexts, *(hit.passage.full_text for hit in hits)]
    nearness = encoder.encode_passages(texts, progress=False) @ encoder.encode_query(query)
    alone, within, whole = np.split(nearness, [len(found), 2 * len(found)])
    scores = SENTENCE * alone + CONTEXT * within + PASSAGE * whole[np.array(positions) - 1]
    if scores.max() < FLOOR:
        return []
    chosen: list[Evidence] = []
    sentences = list(found)
    for index in (-scores).argsort(kind="stable"):  # of equal scores, the better hit's first
        if most is not None and len(chosen) == most:
            break
        cost = count_tokens(sentences[index])
        if cost <= budget:
            budget -= cost
            chosen.append(Evidence(sentences[index], positions[index], float(scores[index]), sections[index]))
    return chosen


def _only_asks(sentence: str, query: str) -> bool:
    if sentence.endswith("?") and len(split_sentences(sentence)) == 1:
        return True
    said, asked = set(words(sentence)), set(words(query))
    return bool(_OPEN.match(query)) and said <= asked and 4 * len(said) >= 3 * len(asked)
