"""Training examples for tiny-rag-lm: a question, a few numbered sentences, the one that answers.

Three sources: pseudo-questions made from any prose, natural questions in SQuAD format, and this repo's own
questions on training topics. All come out as `Example`s; `train_tiny_lm.py` turns those into tokens.
"""

import gzip
import json
import random
import re
import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragkit.corpus import split_sentences

STOP = set(
    """a an the of to in on at by for with from and or but if then than that this these those it its is are
    was were be been being as not no do does did has have had can could will would may might must shall should
    you
    your we our they their he she his her i my me us them which who whom whose what when where why how so such
    there here also only into over under about up down out all any each more most other some""".split()
)
QUESTION_WORDS = [
    "what",
    "which",
    "how",
    "why",
    "when",
    "where",
    "who",
    "what is",
    "how does",
    "does",
    "is",
    "",
]
HELD_OUT = 10  # every tenth paragraph of the natural questions is never trained on


@dataclass
class Example:
    """One question over numbered sentences. `right` is None where none of them answers."""

    question: str
    sentences: list[str]
    right: int | None
    phrase: tuple[int, int] | None = None  # the answering span of the right sentence, in characters


def _lines(folder: Path, pattern: str):
    for path in sorted(folder.glob(pattern)):
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            yield from file


def clean(text: str) -> list[list[str]]:
    """The prose of a Markdown or reST document: paragraphs as lists of sentences of 5 to 45 words."""
    text = re.sub(r"```.*?```|~~~.*?~~~|<!--.*?-->", "\n\n", text, flags=re.S)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)  # links keep their words
    text = re.sub(r"<[^>\n]{1,200}>|:[a-z]+:(?=`)|\*\*|__", "", text)
    paragraphs = []
    for block in re.split(r"\n\s*\n", text):
        if re.match(r"\s*([#|>=~+-]|\d+\.|\.\.|\s{4})", block) or block.count("|") > 2:
            continue
        kept = [s for s in split_sentences(block) if 5 <= len(s.split()) <= 45 and s[-1] in ".?!"]
        kept = [s for s in kept if sum(c.isalpha() or c == " " for c in s) > 0.8 * len(s)]
        if kept:
            paragraphs.append(kept)
    return paragraphs


def load_prose(folder: Path) -> list[list[list[str]]]:
    """Documents (paragraphs of sentences) from JSON lines with a text field, .jsonl or .jsonl.gz."""
    documents = []
    for line in _lines(folder, "*.jsonl*"):
        paragraphs = clean(json.loads(line)["text"])
        if sum(map(len, paragraphs)) >= 6:
            documents.append(paragraphs)
    if not documents:
        raise SystemExit(f"{folder}: no .jsonl or .jsonl.gz file with prose in a text field")
    return documents


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


def pseudo_question(
    sentence: str, rng: random.Random, easy: bool = False
) -> tuple[str, tuple[int, int] | None]:
    """A question that the sentence answers, made from its own words, and the span left out as the phrase."""
    defined = re.match(r"^(?:The |An? )?([^,;:]{3,50}?) (is|are|means) ", sentence)
    if defined and rng.random() < 0.4:
        question = f"What {'are' if defined[2] == 'are' else 'is'} {defined[1]}?"
        return (question.lower() if rng.random() < 0.4 else question), (
            defined.end(),
            len(sentence.rstrip(".!?")),
        )
    spans = [match.span() for match in re.finditer(r"\S+", sentence)]
    length = rng.randint(1, max(1, min(8, len(spans) // 2)))
    first = rng.randint(0, len(spans) - length)
    phrase = (spans[first][0], spans[first + length - 1][1])
    rest = [sentence[a:b].strip('.,;:!?()"') for a, b in spans[:first] + spans[first + length :]]
    content = [word for word in rest if word.lower() not in STOP] or rest
    kept = max(1, round(len(content) * rng.uniform(0.5 if easy else 0.25, 0.8)))
    chosen = sorted(rng.sample(range(len(content)), min(kept, len(content)))) if content else []
    words = [content[i] for i in chosen]
    if not easy and rng.random() < 0.5:
        rng.shuffle(words)
    question = " ".join([rng.choice(QUESTION_WORDS), *words]).strip() + rng.choice(["?", "?", ""])
    if not easy:
        question = question.lower() if rng.random() < 0.4 else question[:1].upper() + question[1:]
    while phrase[1] > phrase[0] + 1 and sentence[phrase[1] - 1] in ".,;:!?":
        phrase = (phrase[0], phrase[1] - 1)
    return question, phrase


class PseudoQuestions:
    """Endless examples made from prose; `count` is how many sentences each holds."""

    def __init__(self, documents: list[list[list[str]]]):
        self.documents = documents

    def sample(
        self, rng: random.Random, count: int, disturbed: float = 0.5, longest: int = 45, easy: bool = False
    ) -> Example:
        document = rng.choice(self.documents)
        paragraph = rng.choice(document)
        sentences = list(paragraph) if rng.random() < 0.5 else [s for p in document for s in p]
        start = rng.randrange(len(sentences))
        sentences = sentences[start : start + count] if len(sentences) > count else sentences
        while len(sentences) < count:
            sentences = sentences + [rng.choice(rng.choice(document))]
        if rng.random() < disturbed:
            most = 0.3 if disturbed < 1 else 0.8
            sentences = [disturb(sentence, rng, most) for sentence in sentences]
        if longest < 45:  # a stretch of each
            sentences = [_stretch(sentence, rng.randint(3, longest), rng) for sentence in sentences]
        rng.shuffle(sentences)
        right = rng.randrange(count)
        question, phrase = pseudo_question(sentences[right], rng, easy)
        if not easy and rng.random() < 0.05 and count > 1:
            return Example(question, sentences[:right] + sentences[right + 1 :], None)
        return Example(question, sentences, right, phrase)


def _stretch(sentence: str, length: int, rng: random.Random) -> str:
    words = sentence.split(" ")
    start = rng.randrange(max(1, len(words) - length + 1))
    return " ".join(words[start : start + length])


@dataclass
class Question:
    """A natural question: candidate sentences nearest first, and which one answers."""

    text: str
    sentences: list[str]
    right: int
    phrases: list[tuple[int, int]]


class NaturalQuestions:
    """Examples from real questions, the evidence ordered as the encoder orders it."""

    def __init__(self, questions: list[Question], strangers: list[str]):
        self.questions, self.strangers = questions, strangers

    def sample(self, rng: random.Random) -> Example:
        question = rng.choice(self.questions)
        count = rng.choice([2, 3, 4, 4, 5, 5, 6])
        chosen = list(range(min(count, len(question.sentences))))
        if question.right not in chosen:
            chosen[-1] = question.right
        draw = rng.random()
        if draw < 0.15:
            rng.shuffle(chosen)
        if 0.15 <= draw < 0.23:  # the answer taken away: abstain
            chosen = [i for i in range(min(count + 1, len(question.sentences))) if i != question.right]
            return Example(question.text, [question.sentences[i] for i in chosen], None)
        if 0.23 <= draw < 0.27:  # nothing to the point at all: abstain
            return Example(question.text, rng.sample(self.strangers, count), None)
        phrase = rng.choice(question.phrases) if question.phrases else None
        sentences = [question.sentences[i] for i in chosen]
        return Example(question.text, sentences, chosen.index(question.right), phrase)


def load_squad(folder: Path, encoder, held_out: bool = False, seed: int = 0) -> list[Question]:
    """Questions in SQuAD format; candidates are the sentences of the paragraph and of two others."""
    rng = random.Random(seed)
    rows = []  # (question, sentences of its paragraph, index of the right one, phrases)
    paragraphs = []
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.json.gz")]):
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            articles = json.load(file)["data"]
        for paragraph in (p for article in articles for p in article["paragraphs"]):
            paragraphs.append(split_sentences(paragraph["context"]))
            if (len(paragraphs) % HELD_OUT == 0) != held_out:
                continue
            for qa in paragraph["qas"]:
                if found := _locate(paragraphs[-1], paragraph["context"], qa["answers"]):
                    rows.append((" ".join(qa["question"].split()), len(paragraphs) - 1, *found))
    if not rows:
        raise SystemExit(f"{folder}: no question in SQuAD format whose answer is found in its paragraph")
    every = [sentence for paragraph in paragraphs for sentence in paragraph]
    starts = np.cumsum([0] + [len(p) for p in paragraphs])
    vectors = encoder.encode(every)
    asked = encoder.encode([row[0] for row in rows])
    questions = []
    for (text, home, right, phrases), vector in zip(rows, asked):
        others = rng.sample(range(len(paragraphs)), 2)
        pool = [i for p in dict.fromkeys([home, *others]) for i in range(starts[p], starts[p + 1])]
        pool.sort(key=lambda i: -float(vectors[i] @ vector))
        gold = pool.index(starts[home] + right)
        questions.append(Question(text, [every[i] for i in pool[:10]] + [every[pool[gold]]] * (gold >= 10),
                                  min(gold, 10), phrases))  # fmt: skip
    return questions


def _locate(sentences: list[str], context: str, answers: list[dict]):
    """(index of the answering sentence, spans of the answers in it), or None where no sentence holds one."""
    flat = " ".join(context.split())
    starts, position = [], 0
    for sentence in sentences:
        position = max(flat.find(sentence, position), 0)
        starts.append(position)
    first = len(" ".join(context[: answers[0]["answer_start"]].split()))
    right = max((i for i, start in enumerate(starts) if start <= first + 1), default=0)
    spans = []
    for answer in answers:
        text = " ".join(answer["text"].split()).strip(" .,;:")
        at = sentences[right].find(text)
        if text and at >= 0:
            spans.append((at, at + len(text)))
    return (right, spans) if spans else None


def load_own(folder: Path, encoder, split: str = "train") -> list[Question]:
    """This repo's questions on the topics of one split, the evidence chosen as `ragkit ask` chooses it."""
    passages = [json.loads(line) for line in _lines(folder, "corpus.jsonl")]
    texts = {p["_id"]: p["text"] for p in passages}
    answers = {a["query_id"]: a for a in map(json.loads, _lines(folder, "answers.jsonl"))}
    queries = [json.loads(line) for line in _lines(folder, "queries.jsonl")]
    queries = [q for q in queries if q["metadata"]["split"] == split and q["_id"] in answers]
    documents = encoder.encode([p["text"] for p in passages])
    asked = encoder.encode([q["text"] for q in queries])
    sentences = {key: split_sentences(text) for key, text in texts.items()}
    every = sorted({s for found in sentences.values() for s in found if "```" not in s})
    vectors = dict(zip(every, encoder.encode(every)))
    questions = []
    for query, vector in zip(queries, asked):
        answer = answers[query["_id"]]
        nearest = np.argsort(-(documents @ vector))[:3]
        pool = {s for i in nearest for s in sentences[passages[i]["_id"]] if "```" not in s}
        pool |= {answer["support"]}
        pool = sorted(pool, key=lambda s: -float(vectors[s] @ vector))[:10]
        if answer["support"] not in pool:
            pool.append(answer["support"])
        at = answer["support"].find(answer["key"])
        questions.append(Question(query["text"], pool, pool.index(answer["support"]),
                                  [(at, at + len(answer["key"]))]))  # fmt: skip
    return questions
