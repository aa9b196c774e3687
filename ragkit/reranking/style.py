"""How a text is written, which no query changes: its length, its signs, its phrases."""

import re
from collections.abc import Sequence

import numpy as np

FORMULA = re.compile(r"[=≈≤≥∑∏√∞∂∇±×÷·^]|[α-ωΑ-Ω]|\b(?:log|exp|softmax|argmax)\b|\\[a-z]+")
CODE = re.compile(r"`|\w\(|\w_\w|==|->|[{}\[\]]|\b(?:import|return|def)\b")
NUMBER = re.compile(r"\b\d[\d.,]*\b")
LIKENING = re.compile(
    r"\b(?:like an?|as if|as though|imagine|think of|picture|just as|much as|is an?)\b", re.I
)
YOU = re.compile(r"\b(?:you|your|yours)\b", re.I)
BOILERPLATE = re.compile(
    r"https?://|www\.|©|\b(?:copyright|(?:all|some) rights reserved|terms of (?:use|service)|privacy policy"
    r"|click here|read more|see also|sign (?:up|in)|subscribe|share this|skip to|last (?:updated|modified)"
    r"|table of contents|cookies?)\b",
    re.I,
)  # what stands around a text on its page
VERBS = set(
    """add allow apply ask avoid begin build call cap change check choose clip collect combine compare
    compute consider copy count create cut decide define discard divide do don't drop embed encode end
    expect feed fetch find fit fix follow freeze get give go group hold ignore import include index
    inspect install keep label leave let limit list load log look make mark mask measure merge mind mix
    move multiply name never note open order pad pass pick plot prefer print pull put raise rank read
    reduce remember remove repeat replace report rerun return run sample save score search select send
    set shuffle show skip sort split start stop store subtract sum swap take talk tell test treat
    truncate try tune turn update use validate vary wait warm watch weigh wrap write""".split()
)


def style(text: str, sentences: Sequence[str]) -> dict[str, float]:
    """The features of a text in sentences that no query changes, by name."""
    count = max(len(text.split()), 1)
    hundred = max(count, 20) / 100  # of a few words, a share would say too much
    first = [(re.findall(r"[\w']+", sentence.lower()) or [""])[0] for sentence in sentences]

    def rate(pattern: re.Pattern) -> float:
        return float(np.log1p(len(pattern.findall(text)) / hundred))

    return {
        "length": float(np.log1p(count)),
        "sentence length": float(np.log1p(count / len(sentences))),
        "formulas": rate(FORMULA),
        "code": rate(CODE),
        "numbers": rate(NUMBER),
        "instructions": float(np.mean([word in VERBS for word in first])),
        "likening": rate(LIKENING),
        "speaks to you": rate(YOU),
    }
