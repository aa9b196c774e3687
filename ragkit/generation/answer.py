"""What a model answered, and which passages its text cites."""

import re
import unicodedata
from dataclasses import dataclass, field

from ragkit.generation.prompt import Evidence

ABSTENTION = "I don't know: the passages found do not answer this."
_NUMBER = r"(?:(?:passages?|sources?|documents?|docs?):?\s*)?[#^]?[1-9]\d*\^?"
_CITED = re.compile(
    rf"[\[【]\s*({_NUMBER}(?:[\s,;&–—‐-]+(?:(?:and|to)\s+)?{_NUMBER})*)\s*(?:†[^\]】]*)?[\]】]", re.I
)


@dataclass(frozen=True)
class Answer:
    """`citations` are 1-based positions in the hits given; `prompt` is what the model read.

    `replaced`: how many claims were written freely, said what their sentence does not, and became quotes.
    `cited`: the pieces of the evidence that the text cites, in its order.
    `marks`: where the text cites, as (start, end) of each [n]; what else stands in brackets is the document's
    own. None: not known, as of a model that writes freely; then each [n] with a number in `citations` cites.
    """

    text: str
    citations: list[int]
    evidence: list[Evidence]
    abstained: bool
    prompt: str = field(default="", repr=False)
    replaced: int = 0
    cited: list[Evidence] = field(default_factory=list)
    marks: list[tuple[int, int]] | None = None


def citations_in(text: str, given: list[int]) -> list[int]:
    """Which of the numbers `given` a text cites, in its order, once each.

    Read are the forms that models write: [1], [1, 2], [1][2], [1–3], [1]–[3], 【2】, 【2†source】, [^2],
    [passage 2]. Numbers in round brackets are not: they count steps as often.
    """
    text = re.sub(r"\]\s*([–—‐-])\s*\[", r"\1", unicodedata.normalize("NFKC", text))
    found: list[int] = []
    for group in _CITED.findall(text):
        for first, last in re.findall(r"(\d+)(?:\^?\s*(?:[–—‐-]|to\b)[\s^]*(\d+))?", group):
            found += [n for n in given if int(first) <= n <= int(last or first)]
    return list(dict.fromkeys(found))
