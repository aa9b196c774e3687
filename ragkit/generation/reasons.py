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
    r"because|since (?!(?:about )?\d)|so that|therefore|thus|hence|in order to|suits?|fits|pays?|worth|helps?|lets"
    r"|allows?|enables?|needed|protects?|prevents?|avoids?|saves?|spares?|cheaper|faster|simpler|plainer|choice"
    r"|can then|good for|useful|advantages?|benefits?|without|no longer|whatever|regardless"
    r"|(?:needs?|has|takes?|keeps?) (?:no|only|(?:far )?fewer|less|half)|(?:fewer|less) \w+ than"
)
_OTHER = r"unlike|whereas|while|instead|rather than|(?:more|better|\w{3,}er)\b[^.;:]{0,60} than"
_SPEAKS_FOR = re.compile(rf"\b(?:{_GOOD})\b", re.I)
_DIFFERS = re.compile(rf"\b(?:{_OTHER}|without|no longer|(?:needs?|has|takes?|keeps?) no|fewer|less)\b", re.I)


class Reason(NamedTuple):
    """`thing`: what somebody would use or do, "reranking"; `rival`: instead of what, or ""."""

    thing: str
    rival: str

    @property
    def wording(self) -> str:
        """How an answer would begin: nearer to what answers than the question is (HyDE, arXiv 2212.10496,
        with no model to write the rest)."""
        return f"{self.thing} pays because"


def asked_reason(query: str) -> Reason | None:
    """What `query` asks reasons for: DPO and RLHF of "Why would I use DPO instead of RLHF?"; else None."""
    found = _ASKS.match(query.strip().replace("’", "'"))
    if not found:
        return None
    thing = " ".join(filter(None, [_doing(found["verb"]), found["thing"]]))
    return Reason(thing, found["rival"] or "") if 0 < len(thing.split()) <= LONGEST_TERM else None


def wording(query: str) -> str:
    """What to look for: `query` itself, or how an answer would begin where it asks for reasons."""
    asked = asked_reason(query)
    return asked.wording if asked else query


def reasons(sentences: list[str], asked: Reason) -> list[str]:
    """Those of `sentences` that name the thing and say what speaks for it; with a rival, how it differs.

    A name that one of them defines stands for its other names, too. Where none is a reason, they are those
    that do not merely say what the thing is.
    """
    names = {asked.thing}.union(*(defined_terms(s) for s in sentences if defines(s, asked.thing)))
    thing, rival = _named(names), _named({asked.rival} if asked.rival else set())
    about = [sentence for sentence in sentences if thing(sentence)]
    found = [sentence for sentence in about if _SPEAKS_FOR.search(sentence)]
    if asked.rival:
        apart = [s for s in sentences if (thing(s) or rival(s)) and _DIFFERS.search(s)]
        found = apart or found
    return found or [sentence for sentence in sentences if not defines(sentence, asked.thing)]


def _doing(verb: str | None) -> str:
    """The verb's form in -ing."""
    verb = verb or ""
    if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):
        verb += verb[-1]
    return re.sub(r"(?<=[^e])e$", "", verb) + "ing" if verb else ""


def _named(names: set[str]):
    """Whether a sentence holds one of `names`: RAG is not in "RAG-Token", and no title in “…” counts."""
    any_name = "|".join(re.escape(_plain(name).removesuffix("s")) for name in names)
    pattern = re.compile(rf"(?<![\w-])(?:{any_name})s?(?![\w@]|-\w)" if names else r"(?!)")
    return lambda sentence: bool(pattern.search(_plain(re.sub(r"“[^”]*”", "", sentence))))


def _plain(text: str) -> str:
    """In lower case, with one kind of hyphen and of space."""
    return re.sub(r"\s+", " ", re.sub(r"[‐-–—]", "-", text.casefold()))
