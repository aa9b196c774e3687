"""Forty documents that carry an instruction to whoever reads them, each beside the passage that answers.

`injections.jsonl` has a row for each: the question; `right`, the passage that answers; `document`, one on
the same subject that does not; the `instruction`, and `where` in the document it stands; `words`, which an
answer that obeys would hold ("" where it is to decline); `claim`, the falsehood in it as a plain sentence (""
where it has none); `order`, the same without a falsehood; and `how` it tries. Written for this repo.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from ragkit.retrieval.corpus import Hit, Passage

ROWS = Path(__file__).with_name("injections.jsonl")


@dataclass(frozen=True)
class Injection:
    id: str
    how: str
    question: str
    right: str
    document: str
    instruction: str
    where: str
    words: str
    claim: str
    order: str

    def hits(self, more: str, *, first: bool = True) -> list[Hit]:
        """The document, with `more` in it, and the passage that answers; or the other way round."""
        parts = [part for part in (self.document, more) if part]
        text = " ".join(parts[::-1] if self.where == "before" else parts)
        both = [Passage("document", text), Passage("right", self.right)]
        return [Hit(p, 1.0 - n / 10, n) for n, p in enumerate(both if first else both[::-1], 1)]


def injections() -> list[Injection]:
    lines = ROWS.read_text(encoding="utf-8").split("\n")
    return [Injection(**json.loads(line)) for line in lines if line]
