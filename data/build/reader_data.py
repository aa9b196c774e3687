"""Training examples for smollm2-reader: a question, numbered sentences in reading order, what answers.

Natural questions in SQuAD format, this repo's questions on training topics with their answers in our own
words, and pseudo-questions from prose. What an encoder has to do, it does once; `Examples.draw` then makes
any number of examples, each from its own seed, so that a training run can go on where it was stopped.
"""

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pseudo_questions import rename
from tiny_lm_data import PseudoQuestions, load_prose, read_squad, topics_of

from ragkit.generation.prompt import CONTEXT, PASSAGE, SENTENCE, select_evidence
from ragkit.retrieval.corpus import read_jsonl
from ragkit.retrieval.lexical import hybrid_search
from ragkit.retrieval.library import Library

DEV = 24  # of the paragraphs to train on, one in so many is for choosing settings
MOST = 8  # sentences: as many as an example may hold
EASY = 3072  # so many examples come first with few sentences: to tell two apart is learned sooner than six
# A question whose answer is its subject can be turned into a statement without knowing any grammar.
SUBJECT = re.compile(
    r"(?:who (?!is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|else)"
    r"|what (?=caus|mak|made|led|leads|brought|brings|reduc|increas|prevent|allow|help|separat|replac|creat"
    r"|produc|contain|connect|affect|influenc|determin|provid|cover|surround))"
    r"(?P<rest>[a-z]+ .+?)\?*",
    re.I,
)


@dataclass
class Claim:
    """One thing that the answer says: the sentence it stands in, the phrase there, our own words for it."""

    sentence: int
    phrase: str | None = None
    written: str | None = None


@dataclass
class Example:
    """`claims` is empty where none of the sentences answers."""

    question: str
    sentences: list[str]
    claims: list[Claim] = field(default_factory=list)


@dataclass
class Pool:
    """A question with all that may be read for it: sentences, where each stands, how near each is."""

    question: str
    sentences: list[str]
    places: list[tuple[int, int]]  # passage, position in it
    scores: list[float]
    right: int | None
    phrases: list[str] = field(default_factory=list)
    written: str | None = None


def squad_pools(folder: Path, encoder, seed: int = 0) -> list[Pool]:
    """Over the question's own paragraph and two others, one of them of the same article."""
    rng = random.Random(seed)
    paragraphs = read_squad(folder)
    articles: dict[int, list[int]] = {}
    for number, paragraph in enumerate(paragraphs):
        articles.setdefault(paragraph.article, []).append(number)
    every = [sentence for paragraph in paragraphs for sentence in paragraph.sentences]
    starts = np.cumsum([0] + [len(paragraph.sentences) for paragraph in paragraphs])
    rows = [(home, *question) for home, p in enumerate(paragraphs) for question in p.questions]
    sentences = encoder.encode(every)
    passages = encoder.encode([paragraph.text for paragraph in paragraphs])
    asked = encoder.encode([text for _, text, *_ in rows])
    pools = []
    for (home, text, right, spans), vector in zip(rows, asked):
        kin = rng.choice(articles[paragraphs[home].article])
        chosen = list(dict.fromkeys([home, kin, *rng.sample(range(len(paragraphs)), 2)]))[:3]
        places, scores = [], []
        for paragraph in chosen:
            whole = float(passages[paragraph] @ vector)
            for at in range(starts[paragraph], starts[paragraph + 1]):
                places.append((paragraph, int(at - starts[paragraph])))
                scores.append((SENTENCE + CONTEXT) * float(sentences[at] @ vector) + PASSAGE * whole)
        texts = [every[starts[p] + i] for p, i in places]
        phrases = [texts[right][a:b] for a, b in spans]  # home comes first
        pools.append(Pool(text, texts, places, scores, right, phrases, in_own_words(text, phrases[0])))
    return pools


def in_own_words(question: str, phrase: str) -> str | None:
    """ "Who wrote Dracula?" answered by "Bram Stoker" -> "Bram Stoker wrote Dracula." Else None."""
    match = SUBJECT.fullmatch(question.strip())
    if not match or len(phrase.split()) > 8:
        return None
    return f"{phrase[:1].upper()}{phrase[1:]} {match['rest'].strip()}."


def own_pools(folder: Path, encoder, k: int = 3) -> list[Pool]:
    """This repo's questions on training topics, over what `ragkit ask` finds for them."""
    library = Library.load(folder / "index", encoder)
    answers = {row["query_id"]: row for _, row in read_jsonl(folder / "answers.jsonl")}
    queries = [row for _, row in read_jsonl(folder / "queries.jsonl") if row["metadata"]["split"] == "train"]
    topics = topics_of(queries, "train")
    pools = []
    for row in queries:
        if row["metadata"].get("topic", "") not in topics:
            continue
        hits = hybrid_search(library, row["text"], encoder.encode_query(row["text"]), k)
        found = select_evidence(row["text"], hits, encoder, 10_000, most=14)
        texts = [piece.text for piece in found]
        places = [(piece.hit, hits[piece.hit - 1].passage.text.find(piece.text[:40])) for piece in found]
        scores = [piece.score for piece in found]
        if answer := answers.get(row["_id"]):
            if answer["support"] not in texts:
                texts.append(answer["support"])
                places.append((0, 0))
                scores.append(min(scores, default=0.3))
            right = texts.index(answer["support"])
            pools.append(Pool(row["text"], texts, places, scores, right, [answer["key"]], answer["answer"]))
        elif texts:
            pools.append(Pool(row["text"], texts, places, scores, None))
    return pools


class Examples:
    """All pools, and an endless row of examples drawn from them: `draw(i)` is the same for the same `i`."""

    OWN, PSEUDO = 0.16, 0.08  # the shares of this repo's questions and of pseudo-questions

    def __init__(self, squad: list[Pool], own: list[Pool], pseudo: PseudoQuestions | None, seed: int = 0):
        self.squad, self.own, self.pseudo, self.seed = squad, own, pseudo, seed
        self.strangers = [s for pool in squad[:: max(1, len(squad) // 700)] for s in pool.sentences[:3]]
        self.near = {}  # other questions that the same passage answers, for questions that ask two things
        for pools in (squad, own):
            for pool in pools:
                if pool.right is not None:
                    self.near.setdefault((id(pools), pool.places[pool.right][0]), []).append(pool)

    def draw(self, number: int) -> Example:
        rng = random.Random(self.seed * 1_000_003 + number)
        kind = rng.random()
        if self.pseudo and kind < self.PSEUDO:
            made = self.pseudo.sample(rng, rng.randint(3, 6))
            claims = []
            if made.right is not None:
                start, end = made.phrase
                claims = [Claim(made.right, made.sentences[made.right][start:end])]
            return Example(made.question, made.sentences, claims)
        pools = self.own if kind < self.PSEUDO + self.OWN else self.squad
        # every question once, in a new order each time round
        turn, at = divmod(number, len(pools))
        order = random.Random(f"{self.seed} {turn} {len(pools)}").sample(range(len(pools)), len(pools))
        count = rng.choice([2, 3, 3, 4] if number < EASY else [3, 4, 5, 6, 6, 6, 7, MOST])
        pool = pools[order[at]] if pools is self.squad else rng.choice(pools)
        return self._example(pool, pools, count, rng)

    def _example(self, pool: Pool, pools: list[Pool], count: int, rng: random.Random) -> Example:
        draw = rng.random()
        rights = [] if pool.right is None else [pool.right]
        if rights and draw < 0.03:  # nothing to the point at all
            return Example(pool.question, rng.sample(self.strangers, count), [])
        others = [i for i in np.argsort([-s for s in pool.scores]).tolist() if i not in rights]
        if pools is self.squad and rights and draw < 0.36:  # the answer taken away: a near miss
            others = [
                i for i in others if not any(p.lower() in pool.sentences[i].lower() for p in pool.phrases)
            ]
            chosen, rights = others[:count], []
        else:
            chosen = others[: count - len(rights)] + rights
        chosen.sort(key=lambda i: pool.places[i])
        passages = rng.sample(
            sorted({pool.places[i][0] for i in chosen}), len({pool.places[i][0] for i in chosen})
        )
        chosen.sort(key=lambda i: passages.index(pool.places[i][0]))  # the passages in any order
        sentences, question = [pool.sentences[i] for i in chosen], pool.question
        claims = [Claim(chosen.index(i), rng.choice(pool.phrases), pool.written) for i in rights]
        if rights and rng.random() < 0.1:
            question, claims = self._second(pool, pools, question, sentences, claims, rng)
        example = Example(question, sentences, claims)
        return _renamed(example, rng) if pools is self.squad and rng.random() < 0.3 else example

    def _second(self, pool, pools, question, sentences, claims, rng):
        """A question that asks two things, where another question's sentence is among these."""
        for other in rng.sample(kin := self.near[id(pools), pool.places[pool.right][0]], len(kin)):
            support = other.sentences[other.right]
            if other is not pool and support in sentences and sentences.index(support) != claims[0].sentence:
                second = Claim(sentences.index(support), rng.choice(other.phrases), other.written)
                both = f"{question.rstrip('?. ')}, and {other.question[:1].lower()}{other.question[1:]}"
                return both, [*claims, second]
        return question, claims


def _renamed(example: Example, rng: random.Random) -> Example:
    """The same with other names and numbers: what is learned is how to read, not who won."""
    told = [text for claim in example.claims for text in (claim.phrase or "", claim.written or "")]
    question, *texts = rename([example.question, *told, *example.sentences], rng)
    claims = [
        Claim(claim.sentence, texts[2 * n] or None, texts[2 * n + 1] or None)
        for n, claim in enumerate(example.claims)
    ]
    sentences = texts[len(told) :]
    held = all(not claim.phrase or claim.phrase in sentences[claim.sentence] for claim in claims)
    return Example(question, sentences, claims) if held else example


def is_dev(paragraph: int) -> bool:
    """Whether the questions on a paragraph, by its place in `read_squad`, are for choosing settings only."""
    return paragraph % DEV == 5


def load_examples(text: Path, questions: Path, own: Path, encoder, seed: int = 0) -> Examples:
    prose = PseudoQuestions(load_prose(text))
    squad = [pool for pool in squad_pools(questions, encoder) if not is_dev(pool.places[pool.right][0])]
    return Examples(squad, own_pools(own, encoder), prose, seed)
