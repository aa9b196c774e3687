"""What is asked by "Why would I use X instead of Y?", and which sentences say what speaks for X: rules of
thumb, for English."""

import re
from typing import NamedTuple

from ragkit.generation.definitions import LONGEST_TERM, defined_terms, defines

_SOMEBODY = r"(?:i|you|we|one|people|someone|somebody|anyone|anybody)"
_HALF = r"(?:(?:ever|even|still|really|actually|bother to|want to|need to|have to)\s+)*"
_TAKE = r"(?:use|using|need|want|choose|pick|prefer|try)"
_ASKS = re.compile(
    rf"(?:(?:and|but|so|ok(?:ay)?|then)\b[\s,]*)?why\s+(?:"
    rf"(?:would|should|might|must|do)\s+{_SOMEBODY}\s+{_HALF}{_TAKE}\s+|(?:bother\s+)?(?:with|{_TAKE})\s+"
    rf"|(?:would|should|might|must)\s+{_SOMEBODY}\s+{_HALF}(?!get|see|have|be|not|never)(?P<verb>[a-z]+)\b\s*)"
    r"(?:an?\s+|the\s+|any\s+)?(?P<thing>[^?.!,;:]*?)"
    r"(?:\s+(?:instead\s+of|rather\s+than|over|and\s+not)\s+(?:an?\s+|the\s+)?(?P<rival>[^?.!,;:]+?))?"
    r"(?:\s+at\s+all)?[\s?]*$",
    re.I,
)
_GOOD = (
    r"because|since (?!(?:about )?\d)|so that|therefore|thus|hence|in order to|suits?|fits|pays?|worth|helps?"
    r"|lets|allows?|enables?|needed|protects?|prevents?|avoids?|saves?|spares?|cheaper|faster|simpler|plainer"
    r"|choice|can then|good for|useful|without|no longer|whatever|regardless"
    r"|(?:needs?|has|takes?|keeps?) (?:no|only|(?:far )?fewer|less|half)|(?:fewer|less) \w+ than"
)
_OTHER = r"unlike|whereas|while|instead|rather than|(?:more|better|\w{3,}er)\b[^.;:]{0,60} than"
_AGAINST = re.compile(
    r"\b(?:skip|doubt|distrust|beware|risks?|the price|weakness|blind|flaws|guarantee|worse|harms?|mistakes"
    r"|bugs?|errors?|overrated|little|lost)\b"
)
_SPEAKS_FOR = re.compile(rf"\b(?:{_GOOD})\b", re.I)
_DIFFERS = re.compile(rf"\b(?:{_OTHER}|without|no longer|(?:needs?|has|takes?|keeps?) no|fewer|less)\b", re.I)


class Reason(NamedTuple):
    """Somebody would `verb` the `thing`, instead of the `rival`; "" where none is said. What any thing can be
    done with, using it, is no verb."""

    verb: str
    thing: str
    rival: str

    @property
    def beginning(self) -> str:
        """How an answer would begin, beside the question: often nearer to what answers (HyDE, arXiv
        2212.10496, with no model to write the rest)."""
        return f"{' '.join(filter(None, [_doing(self.verb), self.thing]))} pays because"


def asked_reason(query: str) -> Reason | None:
    """What `query` asks reasons for: DPO and RLHF of "Why would I use DPO instead of RLHF?"; else None."""
    found = _ASKS.match(query.strip().replace("’", "'"))
    asked = Reason(*(found[part] or "" for part in Reason._fields)) if found else Reason("", "", "")
    return asked if 0 < len(f"{asked.verb} {asked.thing}".split()) <= LONGEST_TERM else None


def wordings(query: str) -> list[str]:
    """What to look for: `query`, and how an answer would begin where it asks for reasons."""
    asked = asked_reason(query)
    return [query, asked.beginning] if asked else [query]


def reasons(sentences: list[str], asked: Reason) -> list[str]:
    """Those of `sentences` that say what speaks for the thing, or, with a rival, how the two differ.

    They name it before the word that gives a reason: what stands behind it is mostly a reason for something
    else. What a sentence defines goes by all its names.
    """
    names = {asked.thing}.union(*(defined_terms(s) for s in sentences if defines(s, asked.thing)))
    parts, rival = [_holds(names)] if asked.thing else [], _holds({asked.rival})
    none = _holds(names, after=r"\bno ")
    if asked.verb:
        parts.append(re.compile(rf"\b{re.escape(asked.verb.lower()[:6].removesuffix('e'))}").search)
    good, differing = [], []
    for sentence in sentences:
        said = _plain(sentence)
        if _AGAINST.search(said) or none(said) or (asked.rival and defines(sentence, asked.thing)):
            continue
        if any(all(part(said[: cue.start()]) for part in parts) for cue in _SPEAKS_FOR.finditer(said)):
            good.append(sentence)
        first, than, _ = said.partition(" than ")
        named, turned = all(part(first) for part in parts), than and rival(first)
        if asked.rival and (named or rival(said)) and not turned and _DIFFERS.search(said):
            differing.append(sentence)
    return differing or good


def _doing(verb: str) -> str:
    """The verb's form in -ing."""
    if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):
        verb += verb[-1]
    return re.sub(r"(?<=[^e])e$", "", verb) + "ing" if verb else ""


def _holds(names: set[str], after: str = ""):
    """Whether a plain text holds one of `names`, after that: "RAG-Token" does not hold RAG."""
    any_name = "|".join(re.escape(_plain(name).removesuffix("s")) for name in names if name)
    return re.compile(rf"{after}(?<![\w-])(?:{any_name})s?(?![\w@]|-\w)" if any_name else r"(?!)").search


def _plain(text: str) -> str:
    """In lower case, with one kind of hyphen and of space, and without the titles in “…” that it cites."""
    return re.sub(r"\s+", " ", re.sub(r"[‐-–—]", "-", re.sub(r"“[^”]*”", "", text.casefold())))
