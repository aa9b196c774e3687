"""How well the small language model reads: `python -m tests.benchmarks.reading --questions FOLDER`.

Two sets that it was not trained on: of the questions in SQuAD format in FOLDER those on every tenth
paragraph, with that paragraph and two others as hits; and the corpus's test topics, with three retrieved
passages. Each figure stands beside a trivial baseline: the nearest sentence, always; and to abstain where its
similarity is below a threshold. An abstention on an answerable question counts as wrong.
"""

import argparse
import random
import re
import string
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ragkit.evaluation.measures import load_qrels, paired_interval
from ragkit.generation.decoding import PRIOR_SCALE
from ragkit.generation.generator import Generator
from ragkit.generation.prompt import FLOOR
from ragkit.retrieval.corpus import DATA, Hit, Passage, read_jsonl
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.library import Library, hybrid_search

sys.path.insert(0, str(DATA / "build"))
from tiny_lm_data import read_squad

FALSE_ABSTENTIONS = 0.08


@dataclass
class Case:
    """A question over its hits. `support`: the sentence that answers; `golds`: what an answer must hold;
    `judged`: ids of the passages that were judged to answer, where they were judged."""

    query: str
    hits: list[Hit]
    support: str = ""
    golds: list[str] = field(default_factory=list)
    judged: set[str] = field(default_factory=set)


@dataclass
class Reading:
    """What came of a case. `margin`: the similarity of "none" below which the model would answer."""

    case: Case
    nearest: str
    nearest_passage: str
    similarity: float
    alone: str  # the sentence with the largest p_θ
    chosen: str  # the sentence with the largest p_η·p_θ
    margin: float
    within: bool  # whether the evidence holds the support
    answers: dict = field(default_factory=dict)  # Answer by way of decoding


def squad_cases(folder: Path, limit: int | None, seed: int = 0) -> dict[str, list[Case]]:
    """Held-out questions; the same without the answering sentence; and over three other paragraphs."""
    rng = random.Random(seed)
    paragraphs = read_squad(folder, held_out=True)
    rows = [(home, *question) for home, p in enumerate(paragraphs) for question in p.questions]
    rows = rng.sample(rows, min(limit or len(rows), len(rows)))
    cases: dict[str, list[Case]] = {"answerable": [], "near miss": [], "off topic": []}
    for home, text, right, spans in rows:
        others = rng.sample([i for i in range(len(paragraphs)) if i != home], 2)
        support = paragraphs[home].sentences[right]
        golds = [support[a:b] for a, b in spans]
        texts = [paragraphs[i].text for i in (home, *others)]
        cases["answerable"].append(Case(text, _hits(texts), support, golds))
        left = " ".join(s for s in paragraphs[home].sentences if s != support)
        if not any(gold in t for gold in golds for t in (left, *texts[1:])):
            cases["near miss"].append(Case(text, _hits([left, *texts[1:]])))
        foreign = [p.text for p in paragraphs if p.article != paragraphs[home].article]
        cases["off topic"].append(Case(text, _hits(rng.sample(foreign, 3))))
    return cases


def _hits(texts: list[str]) -> list[Hit]:
    return [Hit(Passage(str(n), text), 0.0, n) for n, text in enumerate(texts, 1)]


def corpus_cases(encoder: Encoder, limit: int | None, k: int = 3) -> dict[str, list[Case]]:
    """The questions on test topics over what `ragkit ask` retrieves for them."""
    library = Library.load(DATA / "index", encoder)
    answers = {row["query_id"]: row for _, row in read_jsonl(DATA / "answers.jsonl")}
    qrels = load_qrels(DATA / "qrels.tsv")
    cases: dict[str, list[Case]] = {"answerable": [], "near miss": [], "off topic": []}
    for _, row in read_jsonl(DATA / "queries.jsonl"):
        if row["metadata"]["split"] == "test":
            hits = hybrid_search(library, row["text"], encoder.encode_query(row["text"]), k)
            if answer := answers.get(row["_id"]):
                judged = {passage for passage, grade in qrels[row["_id"]].items() if grade == 2}
                case = Case(row["text"], hits, answer["support"], [answer["key"]], judged)
                cases["answerable"].append(case)
            else:
                cases[row["metadata"]["kind"]].append(Case(row["text"], hits))
    return {kind: found[:limit] for kind, found in cases.items()}


def read(generator: Generator, case: Case) -> Reading:
    prompt = generator.prompt(case.query, case.hits)
    if not prompt.evidence:  # the best is below evidence.FLOOR
        return Reading(case, "", "", -np.inf, "", "", -np.inf, False)
    texts = [piece.text for piece in prompt.evidence]
    similarities = np.array([piece.score for piece in prompt.evidence])
    logs = generator.citation_log_probs(prompt)  # (n + 1,), last that of "none"
    product = logs[:-1] + PRIOR_SCALE * similarities
    return Reading(
        case=case,
        nearest=texts[0],
        nearest_passage=case.hits[prompt.evidence[0].hit - 1].passage.id,
        similarity=float(similarities[0]),
        alone=texts[int(logs[:-1].argmax())],
        chosen=texts[int(product.argmax())],
        margin=float(product.max() - logs[-1]) / PRIOR_SCALE,
        within=case.support in texts,
    )


def normalised(text: str) -> list[str]:
    """Words as SQuAD's own scorer compares them: lower case, no punctuation, no articles."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def f1(text: str, golds: list[str]) -> float:
    best, found = 0.0, normalised(text)
    for gold in map(normalised, golds):
        common = sum((Counter(found) & Counter(gold)).values())
        best = max(best, 2 * common / (len(found) + len(gold)) if common else 0.0)
    return best


def line(label: str, base, after=None, note: str = "") -> None:
    """A share, and where there is one its baseline and their paired difference in points."""
    base = np.asarray(base, dtype=float)
    if after is None:
        print(f"  {label:58} {base.mean():6.1%}  {note}")
        return
    after = np.asarray(after, dtype=float)
    gap = paired_interval(100 * base, 100 * after)
    print(
        f"  {label:58} {after.mean():6.1%}  baseline {base.mean():6.1%}  "
        f"{gap.mean:+.1f} points [{gap.low:+.1f}, {gap.high:+.1f}]  {note}"
    )


def report(title: str, cases: dict[str, list[Case]], model: str, encoder: Encoder) -> None:
    quoting, free = Generator(model, encoder), Generator(model, encoder, grounded=False)
    found = {kind: [read(quoting, case) for case in some] for kind, some in cases.items()}
    asked = found["answerable"]
    print(f"\n{title}: " + ", ".join(f"{len(some)} {kind}" for kind, some in cases.items()))
    print("the citation, were it never to abstain; baseline: the nearest sentence")
    right = {
        way: [getattr(r, way) == r.case.support for r in asked] for way in ("nearest", "alone", "chosen")
    }
    line("the evidence holds the right sentence", [r.within for r in asked])
    line("the model's factor alone (trained as a correction)", right["nearest"], right["alone"])
    line("encoder × model", right["nearest"], right["chosen"])
    wrong = [chosen for chosen, nearest in zip(right["chosen"], right["nearest"]) if not nearest]
    line("right where the nearest sentence is wrong", wrong, note=f"of {len(wrong)}")

    for reading in asked:
        case = reading.case
        reading.answers = {
            "grounded": quoting.answer(case.query, case.hits),
            "free": free.answer(case.query, case.hits),
            "phrase": quoting.answer(case.query, case.hits, style="phrase"),
            "free phrase": free.answer(case.query, case.hits, style="phrase"),
        }
    print("the answer as given, an abstention counted as wrong; baseline: the nearest sentence")
    holds = [any(gold in r.nearest for gold in r.case.golds) for r in asked]
    cites = [not r.answers["grounded"].abstained and r.chosen == r.case.support for r in asked]
    line("cites the right sentence", right["nearest"], cites)
    if any(r.case.judged for r in asked):
        sources = [
            {r.case.hits[number - 1].passage.id for number in r.answers["grounded"].citations} for r in asked
        ]
        good = [bool(found & r.case.judged) for found, r in zip(sources, asked)]
        line("cites a passage judged to answer", [r.nearest_passage in r.case.judged for r in asked], good)
    for way in ("grounded", "free"):
        answers = [r.answers[way] for r in asked]
        text = [not a.abstained and any(g in a.text for g in r.case.golds) for a, r in zip(answers, asked)]
        line(f"{way}: the text holds the gold answer", holds, text)
        given = [a for a in answers if not a.abstained]
        line(f"{way}: verbatim in the evidence", [any(a.text in p.text for p in a.evidence) for a in given],
             note=f"of {len(given)} given")  # fmt: skip
    for way in ("phrase", "free phrase"):
        texts = ["" if r.answers[way].abstained else r.answers[way].text for r in asked]
        golds = [r.case.golds for r in asked]
        pairs = list(zip(texts, golds))
        line(f"{way}: exact match", [normalised(t) in map(normalised, g) for t, g in pairs])
        line(f"{way}: F1", [f1(r.nearest, r.case.golds) for r in asked], [f1(*pair) for pair in pairs])

    share = f"{FALSE_ABSTENTIONS:.0%}"
    print(f"abstention where {share} of the answerable are declined; baseline: a similarity threshold")
    margin = np.quantile([r.margin for r in asked], FALSE_ABSTENTIONS)
    similarity = np.quantile([r.similarity for r in asked], FALSE_ABSTENTIONS)
    for kind in ("near miss", "off topic"):
        below = [r.similarity < similarity for r in found[kind]]
        line(f"{kind} declined", below, [r.margin < margin for r in found[kind]], f"of {len(below)}")
    print(
        f"as shipped (none_similarity {quoting.none_similarity}; such a threshold here would be {margin:.3f})"
    )
    for kind, readings in found.items():
        far = [not r.nearest for r in readings]
        line(f"{kind} declined", [r.margin < quoting.none_similarity for r in readings])
        line(f"{kind} declined by the floor of {FLOOR} alone", far)


def latency(cases: list[Case], model: str) -> None:
    generator = Generator(model, Encoder(memory=0))
    taken = []
    for case in cases[:50]:
        started = time.perf_counter()
        generator.answer(case.query, case.hits)
        taken.append(1000 * (time.perf_counter() - started))
    median, late = np.percentile(taken, [50, 95])
    figures = f"median {median:.0f} ms, 95th percentile {late:.0f} ms ({len(taken)} questions)"
    print(f"\nan answer, its sentences encoded: {figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=Path, metavar="FOLDER", help="files in SQuAD format")
    parser.add_argument("--model", default="tiny-rag-lm")
    parser.add_argument("--limit", type=int, metavar="N", help="only so many questions of each kind")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    encoder = Encoder()
    own = corpus_cases(encoder, arguments.limit)
    report("the corpus's test topics", own, arguments.model, encoder)
    if arguments.questions:
        cases = squad_cases(arguments.questions, arguments.limit)
        report(f"held-out paragraphs of {arguments.questions.name}", cases, arguments.model, encoder)
    latency(own["answerable"], arguments.model)


if __name__ == "__main__":
    main()
