"""Whether a sentence written freely says no more than the text that it cites. Rules, for English."""

import re

from ragkit.retrieval.text import words

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = re.compile(r"\b(?:not|no|never|none|nor|without|cannot|\w+n['’]t)\b", re.I)
_VERDICT = re.compile(r"(?:yes|no)\b", re.I)
_POSSESSIVE = re.compile(r"['’]s\b")
_COMMON = set(
    """a about after all also an and any are as at be because been before being between but by can could did
    do does each for from had has have he her his how if in into is it its may might more most must of on one
    only or other she should since so some such than that the their them then there these they this those to
    under until up used using was were what when where which while who whom whose why will with would you your
    yes""".split()
)


def supported(claim: str, cited: str, query: str) -> bool:
    """Whether `claim` holds nothing that neither `cited` nor `query` does.

    Numbers must stand in `cited`. Every word that carries meaning, names among them, must stand there or in
    `query`, in some form (the first five letters agree). A claim that denies must cite a text that does, and
    the other way round; and one that neither says yes or no nor holds a word that `query` lacks says nothing.
    True does not mean entailed: words may be there and be joined wrongly.
    """
    if not set(_NUMBER.findall(claim)) <= set(_NUMBER.findall(cited)):
        return False
    if bool(_NEGATION.search(claim)) != bool(_NEGATION.search(cited)):
        return False
    claim, cited, query = (_POSSESSIVE.sub("", text) for text in (claim, cited, query))
    asked, known = ({word[:5] for word in words(text)} for text in (query, f"{cited} {query}"))
    said = [word[:5] for word in words(claim) if word not in _COMMON]
    news = _VERDICT.match(claim) or not asked.issuperset(said)
    return bool(news) and known.issuperset(said)
