"""Questions made from any prose: a sentence's own words, asked back.

A span of a sentence is left out and becomes the answer; what kind of span it is (a date, a number, a name, a
reason) gives the question word, as in cloze translation (arXiv 1906.04980). No model takes part.
"""

import random
import re
import string

STOP = set(
    """a an the of to in on at by for with from and or but if then than that this these those it its is are
    was were be been being as not no do does did has have had can could will would may might must shall should
    you your we our they their he she his her i my me us them which who whom whose what when where why how so
    such there here also only into over under about up down out all any each more most other some""".split()
)
QUESTION_WORDS = "what|which|how|why|when|where|who|what is|how does|does|is|".split("|")
MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
NUMBERS = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|hundreds|thousands|millions"
# What an answer can look like, as the first group, and how one asks for it.
KINDS = [
    (
        rf"\b((?:\d{{1,2}} )?(?:{MONTHS})(?: \d{{1,2}})?(?:,? \d{{4}})?|(?:19|20|1[0-8])\d\ds?)\b",
        ["when", "when", "in what year", "what year", "on what date"],
    ),
    (r"(\d[\d,.]*\s?(?:%|percent|per cent))", ["what percentage", "how much", "what percent"]),
    (rf"\b((?:\d[\d,.]*\d|\d|{NUMBERS}))\b", ["how many", "how much", "what number of", "how long"]),
    (r"\b((?:because|since|so that|in order to|due to) [^,;:]{8,60})", ["why", "why", "for what reason"]),
    (r"\b((?:by|using|with|through) [a-z]+(?:ing)? ?[^,;:.]{0,30})", ["how", "how", "by what means"]),
    (r"\b(?:in|at|from|near) (?:the )?([A-Z][\w-]+(?: [A-Z][\w-]+)*)", ["where", "in what place", "which"]),
    (r"(?<=\w )([A-Z][\w-]+(?: (?:of |the |and )?[A-Z][\w-]+)*)", ["who", "who", "what", "which", "whom"]),
    (r"\b((?:an?|the) (?:[a-z-]+ ){1,4}[a-z-]+)\b", ["what", "which", "what kind of"]),
]
KINDS = [(re.compile(pattern), words) for pattern, words in KINDS]
# After these the question goes on with the word that follows the answer: "how many dogs …".
COUNTING = ("how many", "what number of", "what kind of", "which", "what percentage")


def _invent(rng: random.Random) -> str:
    """A name, a word or a number that no training text holds: what forces the model to copy."""
    kind = rng.random()
    if kind < 0.25:
        return str(rng.choice([rng.randint(0, 99), rng.randint(100, 99999), round(rng.random() * 100, 2)]))
    letters = "".join(
        rng.choice("bcdfghjklmnprstvwxz") + rng.choice(["a", "e", "i", "o", "u", "ou", "ea", "y"])
        for _ in range(rng.randint(1, 4))
    )
    word = letters + rng.choice(["", "n", "r", "s", "l", "th", "x"])
    if kind < 0.35:
        return word.upper()[: rng.randint(2, 5)] + rng.choice(["", "-" + str(rng.randint(1, 99))])
    if kind < 0.4:
        return "".join(
            rng.choice(string.ascii_letters + string.digits + "_βσπθλΔ") for _ in range(rng.randint(2, 9))
        )
    return word.capitalize() if kind < 0.75 else word


def disturb(sentence: str, rng: random.Random, most: float) -> str:
    """The sentence with some of its words, at most the share `most`, replaced by invented ones."""
    words = sentence.split(" ")
    for index in rng.sample(range(len(words)), k=max(1, int(len(words) * rng.uniform(0.05, most)))):
        bare = words[index].strip(".,;:!?()")
        if bare and bare.lower() not in STOP:
            words[index] = words[index].replace(bare, _invent(rng))
    return " ".join(words)


def rename(texts: list[str], rng: random.Random, most: int = 4) -> list[str]:
    """The texts with up to `most` names and numbers replaced, each by the same invented one everywhere."""
    found = {word for text in texts for word in re.findall(r"(?<=\w )[A-Z]\w+|\b\d[\d.,]*\b", text)}
    found = sorted(word.rstrip(".,") for word in found)
    if not found:
        return texts
    new = {}
    for word in rng.sample(found, min(len(found), rng.randint(1, most))):
        if word[0].isdigit():  # a year stays a number of four digits
            new[word] = "".join(rng.choice("123456789") if c.isdigit() else c for c in word)
        else:
            new[word] = _invent(rng).capitalize()
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in sorted(new, key=len, reverse=True)))
    return [pattern.sub(lambda match: new[match[0]], text) for text in texts]


def _random_span(sentence: str, rng: random.Random) -> tuple[int, int]:
    spans = [match.span() for match in re.finditer(r"\S+", sentence)]
    length = rng.randint(1, max(1, min(8, len(spans) // 2)))
    first = rng.randint(0, len(spans) - length)
    start, end = spans[first][0], spans[first + length - 1][1]
    while end > start + 1 and sentence[end - 1] in ".,;:!?":
        end -= 1
    return start, end


def _inflect(word: str, rng: random.Random) -> str:
    """Another form of the word, so that matching does not stop at equal tokens."""
    for ending in ("ing", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) > len(ending) + 3:
            return word[: -len(ending)] + rng.choice(["", "", "s", "ed", "ing"])
    return word + rng.choice(["s", "ed", "ing"]) if word.isalpha() and len(word) > 3 else word


def _keep(words: list[str], rng: random.Random, least: float) -> list[str]:
    """Some of the words that carry meaning, in order."""
    content = [word for word in words if word.lower() not in STOP] or words
    kept = max(2, round(len(content) * rng.uniform(least, 0.8)))
    return [content[i] for i in sorted(rng.sample(range(len(content)), min(kept, len(content))))]


def _bare(text: str) -> list[str]:
    return [word for word in (word.strip('.,;:!?()"') for word in text.split()) if word]


def easy_question(sentence: str, rng: random.Random) -> tuple[str, tuple[int, int]]:
    """Half or more of the sentence's words in order, behind a question word; and the span left out."""
    start, end = _random_span(sentence, rng)
    words = _keep(_bare(sentence[:start] + sentence[end:]), rng, 0.5)
    return " ".join([rng.choice(QUESTION_WORDS), *words]).strip() + rng.choice(["?", "?", ""]), (start, end)


def pseudo_question(sentence: str, rng: random.Random) -> tuple[str, tuple[int, int]]:
    """A question that the sentence answers, made from its own words, and the span that is the answer."""
    defined = re.match(r"^(?:The |An? )?([^,;:]{3,50}?) (is|are|means) ", sentence)
    if defined and rng.random() < 0.3:
        question = f"What {'are' if defined[2] == 'are' else 'is'} {defined[1]}?"
        span = (defined.end(), len(sentence.rstrip(".!?")))
        return (question.lower() if rng.random() < 0.4 else question), span
    found = [(match.span(1), asked) for kind, asked in KINDS for match in kind.finditer(sentence)]
    found = [(span, asked) for span, asked in found if span[1] - span[0] < 0.6 * len(sentence)]
    if found and rng.random() < 0.8:
        # first one of the kinds that occur, then one of its spans: dates are rarer than nouns
        asked = rng.choice(list({tuple(asked) for _, asked in found}))
        (start, end) = rng.choice([span for span, kind in found if tuple(kind) == asked])
        word = rng.choice(asked)
    else:
        (start, end), word = _random_span(sentence, rng), rng.choice(QUESTION_WORDS)
    before, after = _bare(sentence[:start]), _bare(sentence[end:])
    if word in (
        "how many",
        "what number of",
        "what kind of",
        "which",
        "what percentage",
    ):  # "how many dogs …"
        words = after[:1] + _keep(before + after[1:], rng, 0.25) if after else _keep(before, rng, 0.25)
    else:
        words = _keep(before + after, rng, 0.25)
        if rng.random() < 0.3:
            rng.shuffle(words)
    words = [_inflect(w, rng) if rng.random() < 0.12 else w for w in words]
    if rng.random() < 0.5:  # "when was …", as people ask
        words.insert(0, rng.choice(["is", "was", "did", "does", "do", "are", "were", "the"]))
    question = " ".join([word, *words]).strip()
    question = question.lower() if rng.random() < 0.4 else question[:1].upper() + question[1:]
    return question + rng.choice(["?", "?", ""]), (start, end)
