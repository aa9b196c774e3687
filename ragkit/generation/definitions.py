"""Which sentence defines a term, and whether it is the one asked for: rules of thumb, for English."""

import re

_ASKS = re.compile(
    r"\W*what(?:'s|\s+is|\s+are|\s+does)\s+(?:meant\s+by\s+)?(?:an?\s+|the\s+)?"
    r"(?P<term>[^?.!,]+?)(?:\s+mean)?[\s?]*$",
    re.I,
)
# "Low-rank adaptation (LoRA) is a …", "Supervised fine-tuning, or SFT, is more …", "HNSW (…), of 2016, is …".
_DEFINES = re.compile(
    r"(?:in (?P<where>this \w+),\s+)?(?:an?\s+|the\s+)?(?P<term>\w[^\s,;:.()]*(?:\s+[^\s,;:.()]+){0,5}?)"
    r"(?:\s+\((?P<short>[^()]{1,60})\))?"
    r"(?:,\s+(?:(?:or|short for|also called)\s+(?P<other>[^,;]{1,50})|[^,;]{1,40}),)?"
    r"\s+(?:is|are)\s+(?:usually\s+|often\s+)?(?:an?|the|one of|two|any|how|more|[a-z]+ing)\b"
    r"(?!\s+(?:same|most|best|better|point|weakness|reason|case)\b)",
    re.I,
)
LONGEST_TERM = 5  # words


def asked_term(query: str) -> str | None:
    """The term that `query` asks to have defined, "DPO" of "What is DPO?"; None for any other question."""
    found = _ASKS.match(query.replace("’", "'"))
    return found["term"] if found and len(found["term"].split()) <= LONGEST_TERM else None


def defined_terms(sentence: str) -> list[str]:
    """The names of what `sentence` defines, if it begins as a definition does: a term and its other names.

    "In this project, GRPO is a loss" defines "GRPO in this project", not GRPO.
    """
    found = _DEFINES.match(sentence)
    names = found.group("term", "short", "other") if found else ()
    where = f" in {found['where']}" if found and found["where"] else ""
    return [name + where for name in names if name and not name.isdigit()]  # "STaR (2022)" has one name


def defines(sentence: str, term: str) -> bool:
    """Whether `sentence` begins by saying what `term` is, under any of its names, in singular or plural."""
    return _plain(term) in map(_plain, defined_terms(sentence))


def _plain(term: str) -> str:
    return re.sub(r"[\s‐-–—-]+", " ", term.casefold()).strip().removesuffix("s")
