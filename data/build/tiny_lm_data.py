"""Training examples for tiny-rag-lm: a question, a few numbered sentences, the one that answers.

Three sources: pseudo-questions made from any prose, natural questions in SQuAD format, and this repo's own
questions on training topics. All come out as `Example`s; `train_tiny_lm.py` turns those into tokens.
"""

import gzip
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pseudo_questions import disturb, easy_question, pseudo_question, rename

from ragkit.retrieval.text import split_sentences

# Of the natural questions' paragraphs, every tenth is for the report and never trained on.
HELD_OUT = 10
# Of the training topics, every sixth is for choosing settings and never trained on either.
DEV = 6


@dataclass
class Example:
    """One question over numbered sentences. `right` is None where none of them answers."""

    question: str
    sentences: list[str]
    right: int | None
    phrase: tuple[int, int] | None = None  # the answering span of the right sentence, in characters
    similarities: list[float] | None = None  # of the sentences to the question, where an encoder told


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


class PseudoQuestions:
    """Endless examples made from prose; `count` is how many sentences each holds.

    `articles` are more documents: a fifth of the examples come from them, however few they are.
    """

    def __init__(self, documents: list[list[list[str]]], articles: list[list[list[str]]] = ()):
        self.documents, self.articles = documents, articles

    def easy(self, rng: random.Random, count: int, longest: int) -> Example:
        """Stretches of sentences, full of invented words: only copying and matching lower the loss."""
        sentences = [disturb(s, rng, 0.8) for s in self._sentences(rng, count)]
        sentences = [_stretch(s, rng.randint(3, longest), rng) for s in sentences]
        right = rng.randrange(count)
        question, phrase = easy_question(sentences[right], rng)
        return Example(question, sentences, right, phrase)

    def sample(self, rng: random.Random, count: int) -> Example:
        sentences = self._sentences(rng, count)
        if rng.random() < 0.5:
            sentences = [disturb(sentence, rng, 0.3) for sentence in sentences]
        right = rng.randrange(count)
        question, phrase = pseudo_question(sentences[right], rng)
        if rng.random() < 0.1 and count > 1:
            return Example(question, sentences[:right] + sentences[right + 1 :], None)
        return Example(question, sentences, right, phrase)

    def _sentences(self, rng: random.Random, count: int) -> list[str]:
        use_articles = self.articles and rng.random() < 0.2
        document = rng.choice(self.articles if use_articles else self.documents)
        paragraph = rng.choice(document)
        sentences = list(paragraph) if rng.random() < 0.5 else [s for p in document for s in p]
        start = rng.randrange(len(sentences))
        sentences = sentences[start : start + count] if len(sentences) > count else sentences
        while len(sentences) < count:
            sentences = sentences + [rng.choice(rng.choice(document))]
        rng.shuffle(sentences)
        return sentences


def _stretch(sentence: str, length: int, rng: random.Random) -> str:
    words = sentence.split(" ")
    start = rng.randrange(max(1, len(words) - length + 1))
    return " ".join(words[start : start + length])


@dataclass
class Question:
    """A natural question: candidate sentences nearest first, and which one answers (None: none does)."""

    text: str
    sentences: list[str]
    similarities: list[float]
    right: int | None
    phrases: list[tuple[int, int]]


class NaturalQuestions:
    """Examples from real questions, the evidence ordered as the encoder orders it."""

    def __init__(self, questions: list[Question], strangers: list[str]):
        self.questions, self.strangers = questions, strangers

    def sample(self, rng: random.Random) -> Example:
        question = rng.choice(self.questions)
        count = rng.choice([1, 2, 3, 4, 5, 5, 5, 6])
        sentences = question.sentences
        chosen = list(range(min(count, len(sentences))))
        draw = rng.random()
        right, phrase = question.right, None
        if right is None:
            pass
        elif draw < 0.13:  # the answer taken away: abstain
            chosen = [i for i in range(min(count + 1, len(sentences))) if i != right]
            right = None
        elif draw < 0.17:  # nothing to the point at all: abstain
            strangers = rng.sample(self.strangers, count)
            far = sorted((rng.uniform(-0.05, 0.25) for _ in strangers), reverse=True)
            return Example(question.text, strangers, None, None, far)
        else:
            if right not in chosen:
                # Always in the last place it would teach to trust the last place.
                chosen[rng.randrange(len(chosen))] = right
            if draw < 0.32:
                rng.shuffle(chosen)
            phrase = rng.choice(question.phrases) if question.phrases else None
            right = chosen.index(right)
        near = [question.similarities[i] for i in chosen]
        example = Example(question.text, [sentences[i] for i in chosen], right, phrase, near)
        return _renamed(example, rng) if rng.random() < 0.4 else example


def _renamed(example: Example, rng: random.Random) -> Example:
    """The same example with other names and numbers: what is learned is how to read, not who won."""
    if example.right is None or example.phrase is None:
        question, *sentences = rename([example.question, *example.sentences], rng)
        return Example(question, sentences, example.right, None, example.similarities)
    (start, end), right = example.phrase, example.sentences[example.right]
    parts = [right[:start], right[start:end], right[end:]]
    question, before, phrase, after, *sentences = rename([example.question, *parts, *example.sentences], rng)
    sentences[example.right] = before + phrase + after
    span = (len(before), len(before) + len(phrase))
    return Example(question, sentences, example.right, span, example.similarities)


@dataclass
class Paragraph:
    """One paragraph of an article: its text, its sentences, and questions with where they are answered."""

    article: int
    text: str
    sentences: list[str]
    questions: list[tuple[str, int, list[tuple[int, int]]]]  # text, right sentence, spans of the phrases


def read_squad(folder: Path, held_out: bool = False) -> list[Paragraph]:
    """The paragraphs to train on, or those held out, of files in SQuAD format (.json or .json.gz)."""
    paragraphs, number, articles = [], 0, 0
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.json.gz")]):
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            data = json.load(file)["data"]
        for article in data:
            articles += 1
            for row in article["paragraphs"]:
                number += 1
                if (number % HELD_OUT == 0) == held_out:
                    sentences = split_sentences(row["context"])
                    asked = [(qa, _locate(sentences, row["context"], qa["answers"])) for qa in row["qas"]]
                    questions = [(" ".join(qa["question"].split()), *found) for qa, found in asked if found]
                    paragraphs.append(Paragraph(articles, row["context"], sentences, questions))
    if not any(paragraph.questions for paragraph in paragraphs):
        raise SystemExit(f"{folder}: no question in SQuAD format whose answer is found in its paragraph")
    return paragraphs


def load_squad(folder: Path, encoder, seed: int = 0) -> tuple[list[Question], list[list[list[str]]]]:
    """Questions to train on, and the articles that they are about (paragraphs of sentences).

    A question's candidates are the sentences of its paragraph and of two others, nearest first.
    """
    rng = random.Random(seed)
    paragraphs = read_squad(folder)
    articles: dict[int, list[list[str]]] = {}
    for paragraph in paragraphs:
        articles.setdefault(paragraph.article, []).append(paragraph.sentences)
    every = [sentence for paragraph in paragraphs for sentence in paragraph.sentences]
    starts = np.cumsum([0] + [len(paragraph.sentences) for paragraph in paragraphs])
    rows = [(home, *question) for home, p in enumerate(paragraphs) for question in p.questions]
    vectors = encoder.encode(every)
    asked = encoder.encode([text for _, text, *_ in rows])
    questions = []
    for (home, text, right, phrases), vector in zip(rows, asked):
        near = dict.fromkeys([home, *rng.sample(range(len(paragraphs)), 2)])
        pool = [i for p in near for i in range(starts[p], starts[p + 1])]
        near = {i: float(vectors[i] @ vector) for i in pool}
        pool.sort(key=lambda i: -near[i])
        gold = pool.index(starts[home] + right)
        chosen = pool[:10] if gold < 10 else [*pool[:10], pool[gold]]
        sentences, similarities = [every[i] for i in chosen], [near[i] for i in chosen]
        questions.append(Question(text, sentences, similarities, min(gold, 10), phrases))
    return questions, list(articles.values())


def _locate(
    sentences: list[str], context: str, answers: list[dict]
) -> tuple[int, list[tuple[int, int]]] | None:
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


def topics_of(queries: list[dict], part: str) -> set[str]:
    """The topics of one part: "train" and "dev" share the split "train", "test" is the split "test"."""
    names = sorted({q["metadata"].get("topic", "") for q in queries if q["metadata"]["split"] == "train"})
    dev = set(names[1::DEV])
    train = set(names) - dev
    return {"train": train, "dev": dev}[part]


def load_own(folder: Path, encoder) -> list[Question]:
    """This repo's questions on training topics, the evidence chosen as `ragkit ask` chooses it.

    Near misses and off-topic questions are among them: none of their sentences answers.
    """
    passages = [json.loads(line) for line in _lines(folder, "corpus.jsonl")]
    answers = {a["query_id"]: a for a in map(json.loads, _lines(folder, "answers.jsonl"))}
    queries = [json.loads(line) for line in _lines(folder, "queries.jsonl")]
    topics = topics_of(queries, "train")
    queries = [q for q in queries if q["metadata"]["split"] == "train"]
    queries = [q for q in queries if q["metadata"].get("topic", "") in topics]
    documents = encoder.encode([f"{p['title']}\n{p['text']}" for p in passages])
    asked = encoder.encode([q["text"] for q in queries])
    sentences = [[s for s in split_sentences(p["text"]) if "```" not in s] for p in passages]
    every = sorted({s for found in sentences for s in found})
    vectors = dict(zip(every, encoder.encode(every)))
    questions = []
    for query, vector in zip(queries, asked):
        pool = {s for i in np.argsort(-(documents @ vector))[:3] for s in sentences[i]}
        pool = sorted(pool, key=lambda s: -float(vectors[s] @ vector))[:10]
        answer = answers.get(query["_id"])
        if answer and answer["support"] not in pool:
            pool.append(answer["support"])
        near = [float(vectors[s] @ vector) for s in pool]
        if answer:
            at = answer["support"].find(answer["key"])
            span = (at, at + len(answer["key"]))
            questions.append(Question(query["text"], pool, near, pool.index(answer["support"]), [span]))
        else:
            questions.append(Question(query["text"], pool, near, None, []))
    return questions
