"""How well the generators that ship read: `python -m tests.benchmarks.reading --questions FOLDER`.

Two sets that none was trained on: of the questions in SQuAD format in FOLDER those on every tenth paragraph,
with that paragraph and two others as hits; and the corpus's test topics, with three retrieved passages. Every
model reads the same questions; differences are paired, with 95 % intervals over questions: from a trivial
baseline (the nearest sentence, always; to decline where its similarity is below a threshold) and from the
first model. Declining an answerable question counts as wrong.
"""

import argparse
import json
import re
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

from ragkit.evaluation.measures import paired_interval
from ragkit.generation.answer import Answer
from ragkit.generation.generator import SHIPPED, Generator
from ragkit.generation.prompt import FLOOR
from ragkit.generation.reader import Claim
from ragkit.retrieval.corpus import DATA
from ragkit.retrieval.encoder import Encoder
from tests.helpers import claims_of

sys.path.insert(0, str(DATA / "build"))
from reading_cases import Case, corpus_cases, squad_cases

FALSE_ABSTENTIONS = 0.08


@dataclass
class Reading:
    """What a model's citation probabilities make of a case. It declines where `margin` is below its own."""

    case: Case
    nearest: str = ""
    nearest_passage: str = ""
    similarity: float = -np.inf
    alone: str = ""  # the sentence with the largest p_θ
    chosen: str = ""  # the sentence with the largest p_η·p_θ
    margin: float = -np.inf  # log p_η·p_θ of the chosen one, less log p_θ of none
    within: bool = False  # whether the evidence holds the support

    def right(self, way: str) -> bool:
        return getattr(self, way) == self.case.support


@dataclass
class Said:
    """An answer and what it was joined from."""

    answer: Answer
    claims: list[Claim]

    def holds(self, golds: list[str]) -> bool:
        return not self.answer.abstained and any(gold in self.answer.text for gold in golds)

    def judged(self, case: Case) -> bool:
        return any(case.hits[number - 1].passage.id in case.judged for number in self.answer.citations)

    def rows(self) -> list[dict]:
        """Each claim with the sentence that it cites, for people to judge."""
        evidence = self.answer.evidence
        return [
            {"text": c.text, "cited": evidence[c.sentence].text, "replaced": c.replaced} for c in self.claims
        ]

    @property
    def verbatim(self) -> bool:
        return all(any(c.text in piece.text for piece in self.answer.evidence) for c in self.claims)


def read(generator: Generator, case: Case) -> Reading:
    prompt = generator.prompt(case.query, case.hits)
    if not prompt.evidence:  # the best is below prompt.FLOOR
        return Reading(case)
    texts = [piece.text for piece in prompt.evidence]
    similarities = np.array([piece.score for piece in prompt.evidence])
    logs = generator.citation_log_probs(prompt)  # (n + 1,), last that of "none"
    product = logs[:-1] + generator.prior_scale * similarities
    nearest = int(similarities.argmax())  # where it stands depends on the model
    return Reading(
        case=case,
        nearest=texts[nearest],
        nearest_passage=case.hits[prompt.evidence[nearest].hit - 1].passage.id,
        similarity=float(similarities[nearest]),
        alone=texts[int(logs[:-1].argmax())],
        chosen=texts[int(product.argmax())],
        margin=float(product.max() - logs[-1]),
        within=case.support in texts,
    )


def say(generator: Generator, reading: Reading, style: str) -> Said:
    case = reading.case
    if not generator.reader:  # the small model says one thing, of the sentence with the largest product
        answer, claims = generator.answer(case.query, case.hits, style=style), []
        if not answer.abstained:
            texts = [piece.text for piece in answer.evidence]
            claims = [Claim(answer.text, texts.index(reading.chosen))]
        return Said(answer, claims)
    with claims_of(generator) as claims:
        answer = generator.answer(case.query, case.hits, style=style)
    return Said(answer, claims)


def say_freely(generator: Generator, reading: Reading) -> Said:
    """In the model's own words; the small model has no such style, but need not be held to its sentence."""
    if generator.reader:
        return say(generator, reading, "free")
    with patch.object(generator, "grounded", False):
        return say(generator, reading, "sentence")


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


def compare(label: str, models: dict[str, list], baseline: list | None = None, name: str = "nearest") -> None:
    """A figure of each model, (n,) values, and its paired differences from a baseline and the first."""
    first, *_ = models
    size = len(models[first])
    print(f"  {label} (n = {size})")
    if not size:
        return
    if baseline is not None:
        print(f"    {name:18} {np.mean(baseline):6.1%}")
    for model, values in models.items():
        others = {} if baseline is None else {name: baseline}
        if model != first:
            others[first] = models[first]
        gaps = []
        for other, base in others.items() if size > 1 else ():
            gap = paired_interval(100 * np.array(base, float), 100 * np.array(values, float))
            gaps.append(f"{gap.mean:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}] from {other}")
        print(f"    {model:18} {np.mean(values):6.1%}  {'; '.join(gaps)}")


def each(models: dict[str, list], measure: Callable) -> dict[str, list]:
    return {model: [measure(one) for one in some] for model, some in models.items()}


def report(title: str, cases: dict[str, list[Case]], models: dict[str, Generator], free: int) -> list[dict]:
    """Prints all figures of one set; returns what was written freely, for people to judge."""
    print(f"\n{title}: " + ", ".join(f"{len(some)} {kind}" for kind, some in cases.items()))
    found = {
        kind: {name: [read(generator, case) for case in some] for name, generator in models.items()}
        for kind, some in cases.items()
    }
    asked = found["answerable"]
    citations(asked)
    quotes(asked, {m: [say(models[m], r, "sentence") for r in rs] for m, rs in asked.items()})
    phrases(asked, {m: [say(models[m], r, "phrase") for r in rs] for m, rs in asked.items()})
    abstentions(found, models)
    if not free:
        return []
    some = {m: rs[:: max(1, len(rs) // free)][:free] for m, rs in asked.items()}
    written = {m: [say_freely(models[m], r) for r in rs] for m, rs in some.items()}
    in_own_words(some, written)
    return [
        {"set": title, "model": m, "question": r.case.query, "claims": one.rows()}
        for m in models
        for r, one in zip(some[m], written[m])
        if one.claims
    ]


def citations(asked: dict[str, list[Reading]]) -> None:
    print("the citation, were it never to decline")
    nearest = [r.right("nearest") for r in first_of(asked)]
    compare("the evidence holds the right sentence", each(asked, lambda r: r.within))
    compare("the model's factor alone", each(asked, lambda r: r.right("alone")), nearest)
    compare("encoder × model", each(asked, lambda r: r.right("chosen")), nearest)
    wrong = {m: [r for r, near in zip(rs, nearest) if not near] for m, rs in asked.items()}
    compare("encoder × model where the nearest sentence is wrong", each(wrong, lambda r: r.right("chosen")))


def first_of(models: dict[str, list]) -> list:
    """Of the baseline: every model has the same nearest sentence, and all sets are in one order."""
    return next(iter(models.values()))


def quotes(asked: dict[str, list[Reading]], said: dict[str, list[Said]]) -> None:
    print("the quote as given, declining counted as wrong")
    both = {m: list(zip(asked[m], said[m])) for m in asked}
    baseline = first_of(asked)
    cites = each(both, lambda row: not row[1].answer.abstained and row[0].right("chosen"))
    compare("cites the right sentence (of several, first)", cites, [r.right("nearest") for r in baseline])
    if any(r.case.judged for r in baseline):
        near = [r.nearest_passage in r.case.judged for r in baseline]
        compare("cites a passage judged to answer", each(both, lambda row: row[1].judged(row[0].case)), near)
    golden(asked, said)
    compare("quotes more than one sentence", each(said, lambda one: len(one.claims) > 1))
    compare("verbatim, where all answer", given(said, lambda one: one.verbatim))


def golden(asked: dict[str, list[Reading]], said: dict[str, list[Said]]) -> None:
    held = {m: [one.holds(r.case.golds) for r, one in zip(asked[m], said[m])] for m in asked}
    near = [any(gold in r.nearest for gold in r.case.golds) for r in first_of(asked)]
    compare("the text holds the gold answer", held, near)


def given(said: dict[str, list[Said]], measure: Callable) -> dict[str, list]:
    """Of the questions that every model answered."""
    rows = [row for row in zip(*said.values()) if not any(one.answer.abstained for one in row)]
    return {model: [measure(row[at]) for row in rows] for at, model in enumerate(said)}


def phrases(asked: dict[str, list[Reading]], said: dict[str, list[Said]]) -> None:
    print("the phrase, declining counted as wrong; baseline: the whole nearest sentence")
    texts = each(said, lambda one: "" if one.answer.abstained else one.answer.text)
    rows = {m: [(text, r.case.golds) for text, r in zip(texts[m], asked[m])] for m in asked}
    compare("exact match", each(rows, lambda row: normalised(row[0]) in map(normalised, row[1])))
    compare("F1", each(rows, lambda row: f1(*row)), [f1(r.nearest, r.case.golds) for r in first_of(asked)])


def abstentions(found: dict[str, dict[str, list[Reading]]], models: dict[str, Generator]) -> None:
    print(f"declined, at {FALSE_ABSTENTIONS:.0%} of the answerable; baseline: a similarity threshold")
    asked = found["answerable"]
    limits = {m: np.quantile([r.margin for r in rs], FALSE_ABSTENTIONS) for m, rs in asked.items()}
    far = np.quantile([r.similarity for r in first_of(asked)], FALSE_ABSTENTIONS)
    for kind in ("near miss", "off topic"):
        below = [r.similarity < far for r in first_of(found[kind])]
        declined = {m: [r.margin < limits[m] for r in rs] for m, rs in found[kind].items()}
        compare(kind, declined, below, "similarity")
    print(f"declined, as shipped; baseline: the floor of {FLOOR} alone, where there is no evidence")
    for m, generator in models.items():
        scale, own = generator.prior_scale, generator.none_similarity
        could = f"; {limits[m] / scale:.3f} for the figures above" if scale else ""
        print(f"    {m:18} prior_scale {scale:g}, none_similarity {own:g}{could}")
    own = {m: generator.prior_scale * generator.none_similarity for m, generator in models.items()}
    for kind, readings in found.items():
        below = [not r.nearest for r in first_of(readings)]
        compare(kind, {m: [r.margin < own[m] for r in rs] for m, rs in readings.items()}, below, "floor")


def in_own_words(asked: dict[str, list[Reading]], said: dict[str, list[Said]]) -> None:
    print("written freely (the small model: not held to its sentence)")
    compare("declined", each(said, lambda one: one.answer.abstained))
    golden(asked, said)
    compare("says more than one thing", each(said, lambda one: len(one.claims) > 1))
    compare("verbatim, where all answer", given(said, lambda one: one.verbatim))
    print("  replaced: written, not supported by what it cites, so quoted")
    for model, some in said.items():
        replaced, claims = sum(one.answer.replaced for one in some), sum(len(one.claims) for one in some)
        print(f"    {model:18} {replaced / max(claims, 1):6.1%} of {claims} claims")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=Path, metavar="FOLDER", help="files in SQuAD format")
    parser.add_argument("--models", nargs="+", default=SHIPPED, metavar="NAME", help="names or folders")
    parser.add_argument("--limit", type=int, metavar="N", help="only so many questions of each kind")
    parser.add_argument("--free", type=int, default=60, metavar="N", help="of each set, answered freely")
    parser.add_argument("--free-out", type=Path, metavar="FILE", help="what was written, as JSON lines")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    encoder = Encoder()  # one for all: a sentence is encoded once
    models = {name: Generator(name, encoder) for name in arguments.models}
    sets = {"the corpus's test topics": corpus_cases(encoder, "test", arguments.limit)}
    if folder := arguments.questions:
        sets[f"held-out paragraphs of {folder.name}"] = squad_cases(folder, "test", arguments.limit)
    written = []
    for title, cases in sets.items():
        written += report(title, cases, models, arguments.free)
    if arguments.free_out:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in written]
        arguments.free_out.write_text("".join(lines), encoding="utf-8")
    print("\nspeed, each model in a process of its own", flush=True)
    for name in arguments.models:
        limit = str(min(arguments.limit or 50, 50))
        command = ["tests.benchmarks.reading_speed", name, "--limit", limit]
        subprocess.run([sys.executable, "-m", *command, "--threads", str(arguments.threads)], check=True)


if __name__ == "__main__":
    main()
