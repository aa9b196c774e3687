"""A follow-up question, completed from the question before it: rules of thumb, for English."""

import re
from itertools import takewhile

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
