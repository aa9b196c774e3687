"""Where a reranker starts from, as it learns and as it ranks: the search's order of hits, or the encoder's.

    python -m tests.benchmarks.found_order [--prior people] [--beir FOLDER …]

**Simulated** annotators rank what `Assistant.find` finds, by meaning and words, for questions on the training
topics; rerankers that learned from these rankings reorder what it finds for questions on other topics. Three
ways: learned from the encoder's cosines and used on the search's order, as `Reranker` does; both from the
search's order; both from the cosines. Graded by the annotator's hidden utility, and by relevance alone. With
`--beir`, people's grades instead, of what `hybrid_search` finds among the documents that were judged for the
questions that are drawn. Draws of rankings are averaged; intervals, 95 %, are over questions.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from data.build.simulate_annotators import ANNOTATORS, Annotator, order
from ragkit import Assistant, Encoder, Library, Reranker
from ragkit.evaluation import load_qrels
from ragkit.evaluation.measures import PerQuery, load_queries, paired_interval
from ragkit.evaluation.rankings import measure
from ragkit.preferences.judgements import Ranking
from ragkit.reranking.features import describe_all
from ragkit.reranking.table import Table, as_found, base_scores
from ragkit.retrieval.corpus import DATA, Hit, Passage, load_passages, read_jsonl
from ragkit.retrieval.lexical import hybrid_search
from tests.benchmarks.kinds import graded

FOUND, SHOWN = 10, 5  # documents of a question that is reranked, and of one that is judged
HELD_OUT, POOL = 60, 60  # questions of a folder: to test with, and to train on
MEASURES = ("nDCG@3", "nDCG@10")
MEMORY = 2**31  # bytes of vectors kept


class FromSearch(Reranker):
    """Learns from where it ranks: the order of the search."""

    def _table(self, rankings: Sequence[Ranking], described: Sequence) -> Table:
        table = super()._table(rankings, described)
        return replace(table, base=table.found)


# What learns, and whether it is used on the search's order. The first is what the others are held against.
WAYS = {"as it is": (Reranker, True), "both search": (FromSearch, True), "both cosines": (Reranker, False)}


@dataclass(frozen=True)
class Asked:
    """A question, what was found for it, and the documents' grades, (K,)."""

    query: str
    hits: list[Hit]
    grades: np.ndarray

    @classmethod
    def of(cls, query: str, hits: list[Hit], grades: dict[str, int]) -> "Asked":
        return cls(query, hits, np.array([float(grades.get(hit.passage.id, 0)) for hit in hits]))

    @property
    def passages(self) -> list[Passage]:
        return [hit.passage for hit in self.hits]

    @property
    def scores(self) -> list[float]:
        return [hit.score for hit in self.hits]

    def some(self, rows: np.ndarray) -> "Asked":
        return Asked(self.query, [self.hits[n] for n in rows], self.grades[rows])


class Corpus(Sequence[Asked]):
    """The corpus's questions of one split, each searched for when it is asked for."""

    def __init__(self, encoder, split: str):
        self.assistant = Assistant(encoder, Library.load(DATA / "index", encoder), None)
        self.qrels, rows = (
            load_qrels(DATA / "qrels.tsv"),
            [row for _, row in read_jsonl(DATA / "queries.jsonl")],
        )
        self.rows = [r for r in rows if r["metadata"]["split"] == split and r["metadata"]["answerable"]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, n):
        if isinstance(n, slice):
            return [self[i] for i in range(len(self))[n]]
        row = self.rows[n]
        return Asked.of(row["text"], self.assistant.find(row["text"], FOUND), self.qrels[row["_id"]])


def of_folder(encoder, folder: Path) -> list[Asked]:
    """Questions of a BEIR folder for which documents of several grades are found."""
    passages, texts = {p.id: p for p in load_passages(folder)}, load_queries(folder / "queries.jsonl")
    qrels = load_qrels(folder / "qrels" / "test.tsv", queries=texts, passages=passages)
    drawn = np.random.default_rng(0).permutation(sorted(qrels)).tolist()[: HELD_OUT + POOL]
    kept = sorted({key for query in drawn for key in qrels[query]})
    library = Library.build([passages[key] for key in kept], encoder, progress=False)
    find = lambda text: hybrid_search(library, text, encoder.encode_query(text), FOUND)  # noqa: E731
    found = [Asked.of(texts[query], find(texts[query]), qrels[query]) for query in drawn]
    return [one for one in found if len({*one.grades.tolist()}) > 1]


def judged(one: Asked, rng: np.random.Generator, annotator: Annotator) -> Ranking:
    """The first SHOWN documents as the annotator orders them on a shuffled page."""
    one = one.some(np.arange(min(SHOWN, len(one.hits))))
    shown = rng.permutation(len(one.hits))
    felt = utilities(one, annotator) - annotator.shown * np.argsort(shown) + rng.gumbel(size=len(shown))
    tiers = order(felt.tolist(), annotator.tie)
    return Ranking(one.query, one.passages, tiers, shown.tolist(), one.scores, annotator.name)


def by_grades(one: Asked, rng: np.random.Generator) -> Ranking:
    """SHOWN of the documents as they were graded, not all of one grade."""
    while True:
        some = one.some(np.sort(rng.permutation(len(one.hits))[:SHOWN]))
        if len({*some.grades.tolist()}) > 1:
            return replace(graded(one.query, some.passages, some.grades).ranking, scores=some.scores)


def utilities(one: Asked, annotator: Annotator) -> np.ndarray:
    return np.array([annotator.utility(hit.passage, grade) for hit, grade in zip(one.hits, one.grades)])


def compared(
    encoder,
    name: str,
    pool: Sequence[Asked],
    judge: Callable[[Asked, np.random.Generator], Ranking],
    new: list[Asked],
    gains: dict[str, list[np.ndarray]],
    arguments: argparse.Namespace,
) -> None:
    """Print, by the number of rankings of `pool`, what each of WAYS reaches on `new`."""
    queries = [one.query for one in new]
    seen = describe_all(encoder, [(one.query, [p.full_text for p in one.passages]) for one in new])
    base = [base_scores(one) for one in seen]
    searched = [as_found(own, one.scores) for own, one in zip(base, new)]

    def reached(reranker: Reranker, start: list[np.ndarray]) -> dict[tuple[str, str], PerQuery]:
        scores = [reranker.fitted.scores(one, reranker.max_kl, own) for one, own in zip(seen, start)]
        by_gains = {by: measure(scores, own, queries) for by, own in gains.items()}
        return {(by, name): found[name] for by, found in by_gains.items() for name in MEASURES}

    none = reached(Reranker(encoder, prior=arguments.prior), searched)
    for size in arguments.sizes:
        shares, found = defaultdict(list), defaultdict(list)
        for draw in range(arguments.draws):
            rng = np.random.default_rng([draw, 77])
            rankings = [judge(pool[n], rng) for n in rng.permutation(len(pool))[:size]]
            fitted = {kind: kind(encoder, prior=arguments.prior) for kind in (Reranker, FromSearch)}
            for kind, reranker in fitted.items():
                shares[kind].append(reranker.fit(rankings, progress=False).share)
            for way, (kind, used) in WAYS.items():
                for cell, values in reached(fitted[kind], searched if used else base).items():
                    found[cell, way].append(values)
        cosines, search = (f"{np.mean(shares[kind]):.0%}" for kind in shares)
        print(
            f"{name}, {size} rankings; believed from the cosines {cosines}, from the search's order {search}"
        )
        for cell, before in none.items():
            means = {way: over_draws(found[cell, way]) for way in WAYS}
            first, *others = means
            said = [f"nothing learned {before.mean:.3f}", f"{first} {means[first].mean:.3f}"]
            said += [f"{way} {paired_interval(means[first], means[way])}" for way in others]
            print(f"  {' '.join(cell)}: {'; '.join(said)}", flush=True)


def over_draws(values: list[PerQuery]) -> PerQuery:
    return PerQuery({query: float(np.mean([one[query] for one in values])) for query in values[0]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 20, 50])
    parser.add_argument("--questions", type=int, default=100, help="to test with")
    parser.add_argument("--draws", type=int, default=3, help="of the rankings")
    parser.add_argument("--prior", choices=["people"])
    parser.add_argument("--annotators", nargs="+", default=[one.name for one in ANNOTATORS])
    parser.add_argument("--beir", type=Path, nargs="+", default=[], metavar="FOLDER", help="instead of these")
    arguments = parser.parse_args()
    encoder = Encoder(memory=MEMORY)
    for folder in arguments.beir:
        lists = of_folder(encoder, folder)
        new, pool = lists[: len(lists) // 2], lists[len(lists) // 2 :]
        gains = {"relevance": [one.grades for one in new]}
        compared(encoder, folder.name, pool, by_grades, new, gains, arguments)
    if arguments.beir:
        return
    new, pool = Corpus(encoder, "test")[: arguments.questions], Corpus(encoder, "train")
    for annotator in ANNOTATORS:
        if annotator.name in arguments.annotators:
            gains = {"utility": [utilities(one, annotator) for one in new]}
            gains["relevance"] = [one.grades for one in new]
            judge = partial(judged, annotator=annotator)
            compared(encoder, annotator.name, pool, judge, new, gains, arguments)


if __name__ == "__main__":
    main()
