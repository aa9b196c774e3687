"""Which sentence of a passage a citation means: where an answer's [n] leads the reader's eye."""

import re
from typing import NamedTuple

from ragkit.generation.answer import Answer
from ragkit.retrieval.corpus import Hit
from ragkit.retrieval.text import spans, words

MARK = re.compile(r"\[([1-9]\d*)\]")


class Place(NamedTuple):
    """Characters `start` to `end` of a passage's text.

    `exact`: the sentence itself stands there; otherwise it is the one that shares most words with the claim.
    """

    start: int
    end: int
    exact: bool


def marks_of(answer: Answer) -> list[re.Match]:
    """The [n] in an answer's text by which it cites, in their order; not those of texts that it quotes."""
    found = [match for match in MARK.finditer(answer.text) if int(match[1]) in answer.citations]
    return [match for match in found if answer.marks is None or match.span() in answer.marks]


def cited_places(answer: Answer, hits: list[Hit]) -> dict[int, list[Place]]:
    """By citation, 1-based: the places in that hit's passage, in their order, which do not overlap.

    They are those of `answer.cited`. Where that is a whole passage, or where the answer does not say, as one
    from a log, it is the sentence nearest in words to what stands before the citation.
    """
    found = {}
    for number in answer.citations:
        passage = hits[number - 1].passage
        texts = [piece.text for piece in answer.cited if piece.hit == number]
        texts = [text for text in texts if text not in (passage.text, passage.full_text)]
        places = [_place(passage.text, text) for text in texts or claims(answer, number)]
        kept: list[Place] = []
        for place in sorted(filter(None, places)):
            if not kept or kept[-1].end <= place.start:
                kept.append(place)
        found[number] = kept
    return found


def claims(answer: Answer, number: int) -> list[str]:
    """What an answer says by citation `number`: what stands before each [number]; else all of it."""
    found, bare, start = [], "", 0
    for match in marks_of(answer):
        said = answer.text[start : match.start()]
        if int(match[1]) == number and said.strip():
            found.append(said.strip())
        bare, start = bare + said, match.end()
    return found or [(bare + answer.text[start:]).strip()]


def _place(text: str, wanted: str) -> Place | None:
    """Where `wanted` stands in `text`, with any white space between its words; or what is nearest to it."""
    match = re.search(r"\s+".join(map(re.escape, wanted.split())), text) if wanted.strip() else None
    if match:
        return Place(*match.span(), True)
    said = set(words(wanted))
    best, place = 0.0, None
    for span in spans(text):
        own = set(words(text[span.start : span.end]))
        shared = 2 * len(own & said) / max(len(own) + len(said), 1)  # Dice's coefficient
        if shared > best:
            best, place = shared, Place(span.start, span.end, False)
    return place
