"""Rewards of a written answer, for `tune_online`: any function of query, text and hits is one."""

import re
from collections import Counter
from collections.abc import Callable, Mapping

from ragkit.generation.answer import ABSTENTION, citations_in
from ragkit.retrieval.corpus import Hit
from ragkit.retrieval.text import words

# (query, text, hits) → a number, more is better, or None: this answer is not judged. [n] in a text is its
# n-th hit.
Reward = Callable[[str, str, list[Hit]], float | None]
_CITATION = re.compile(r"\[\d+\]")


def length_reward(target: int) -> Reward:
    """1 for an answer of `target` words, citations not counted; ½ for twice or half as many; 0 for none, and
    where the generator declines: that must never be better than an answer, however long. Raises ValueError
    for a target below 1."""
    if target < 1:
        raise ValueError(f"target={target}: a number of words, at least 1")

    def length(query: str, text: str, hits: list[Hit]) -> float:
        count = 0 if text == ABSTENTION else len(_CITATION.sub(" ", text).split())
        return min(count, target) / max(count, target)

    return length


def citation_reward(query: str, text: str, hits: list[Hit]) -> float:
    """1 for an answer that cites one of its hits, 0 for any other."""
    return float(bool(citations_in(text, list(range(1, len(hits) + 1)))))


def overlap_reward(references: Mapping[str, str]) -> Reward:
    """F1 of the words shared with the reference answer to the query (as SQuAD's, arXiv 1606.05250, section
    6.1), 0 to 1; None for a query without one."""

    def overlap(query: str, text: str, hits: list[Hit]) -> float | None:
        if query not in references:
            return None
        said, wanted = (Counter(words(_CITATION.sub(" ", one))) for one in (text, references[query]))
        return 2 * (said & wanted).total() / max(1, said.total() + wanted.total())

    return overlap
