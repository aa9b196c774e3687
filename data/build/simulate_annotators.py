"""Five simulated annotators judge real retrieval results; none of them is a person.

    python data/build/simulate_annotators.py

Each has a hidden utility for a passage, in logits, fixed here before anything is trained, and orders what it
is shown by utility plus standard Gumbel noise: a draw from Plackett–Luce. Writes `data/preferences/`: a log
for each annotator, as `PreferenceLog` reads it, and `utilities.jsonl`, what a learner should recover.
"""

import hashlib
import json
import random
from dataclasses import dataclass, replace

import numpy as np

from ragkit import Encoder, Generator, Library, Passage, retrieve
from ragkit.corpus import DATA
from ragkit.evaluation import load_qrels
from ragkit.events import write_log
from ragkit.judgements import Comparison, Ranking

SHOWN = 5  # passages in a ranking
RANKINGS = {"train": 110, "test": 40}  # queries for each annotator, by the split of their topic
COMPARISONS = {"train": 45, "test": 15}
REPEATED = 0.1  # of the items come back, in another order
WHEN = "2026-01-01T00:00:00.000+00:00"  # a script has no clock


@dataclass(frozen=True)
class Annotator:
    """Utility = relevance · grade + taste · [style] − shown · place; grade 0 to 2, place from 0."""

    name: str
    style: str = ""
    relevance: float = 1.5
    taste: float = 0.0
    shown: float = 0.0
    tie: float = 0.0  # what feels closer than this, in logits, is called even

    def utility(self, passage: Passage, grade: int) -> float:
        return self.relevance * grade + self.taste * (passage.metadata["style"] == self.style)


ANNOTATORS = [
    Annotator("simulated-intuition", "intuition", taste=3.0, tie=0.3),
    Annotator("simulated-mathematics", "mathematics", taste=3.0, tie=0.3),
    Annotator("simulated-code", "practice", taste=3.0, tie=0.3),
    Annotator("simulated-careless", relevance=0.2),
    Annotator("simulated-first", shown=0.8),
]


def order(felt: list[float], tie: float) -> list[list[int]]:
    """Indices by what was felt, best first; each that is within `tie` of the one before joins its tier."""
    tiers: list[list[int]] = []
    best = sorted(range(len(felt)), key=lambda i: -felt[i])
    for before, index in zip([None, *best], best):
        if before is not None and felt[before] - felt[index] < tie:
            tiers[-1].append(index)
        else:
            tiers.append([index])
    return tiers


def rankings(annotator: Annotator, items: list[dict], rng: np.random.Generator) -> list[Ranking]:
    out = []
    for number, item in enumerate(items):
        once = rank(annotator, item, f"{annotator.name}-r{number:03d}", rng)
        out.append(once)
        if rng.random() < REPEATED:
            again = rank(annotator, item, f"{once.event_id}-again", rng)
            out.append(replace(again, details=again.details | {"repeat_of": once.event_id}))
    return out


def rank(annotator: Annotator, item: dict, event_id: str, rng: np.random.Generator) -> Ranking:
    shown = rng.permutation(SHOWN).tolist()
    place = {index: position for position, index in enumerate(shown)}
    felt = [
        annotator.utility(hit.passage, grade) - annotator.shown * place[index] + rng.gumbel()
        for index, (hit, grade) in enumerate(zip(item["hits"], item["grades"]))
    ]
    return Ranking(
        item["query"],
        [hit.passage for hit in item["hits"]],
        order(felt, annotator.tie),
        shown,
        [round(hit.score, 6) for hit in item["hits"]],
        annotator.name,
        event_id,
        {"query_id": item["id"], "split": item["split"], "simulated": True},
    )


def comparisons(
    annotator: Annotator, items: list[dict], generator: Generator, rng: np.random.Generator
) -> list[Comparison]:
    """Two answers, each quoted from one passage; what is felt of a passage is felt of its quote."""
    out = []
    for number, item in enumerate(items):
        pair = [item["hits"][i] for i in sorted(rng.choice(SHOWN, 2, replace=False))]
        grades = [item["grades"][hit.rank - 1] for hit in pair]
        texts = [quote(generator, item, hit) for hit in pair]
        swapped = bool(rng.random() < 0.5)
        felt = [
            annotator.utility(hit.passage, grade) - annotator.shown * (side != swapped) + rng.gumbel()
            for side, (hit, grade) in enumerate(zip(pair, grades))
        ]
        rating = int(np.clip(np.round((felt[1] - felt[0]) / 1.2), -3, 3))
        names = (annotator.name, f"{annotator.name}-c{number:03d}")
        details = {"query_id": item["id"], "split": item["split"], "swapped": swapped, "simulated": True}
        out.append(Comparison(item["query"], *texts, rating, max(grades) == 0, pair, *names, details))
    return out


def quote(generator: Generator, item: dict, hit, cache: dict = {}) -> str:  # noqa: B006
    """The sentence that tiny-rag-lm quotes from this passage alone; it may not decline."""
    key = item["id"], hit.passage.id
    if key not in cache:
        cache[key] = generator.answer(item["query"], [hit]).text
    return cache[key]


def main() -> None:
    encoder = Encoder()
    library = Library.load(DATA / "index", encoder)
    generator = Generator("tiny-rag-lm", encoder)
    generator.none_similarity = -1.0  # an answer is wanted from each passage
    qrels = load_qrels(DATA / "qrels.tsv")
    queries = [json.loads(line) for line in (DATA / "queries.jsonl").open(encoding="utf-8")]
    queries = [query for query in queries if query["metadata"]["answerable"]]
    vectors = encoder.encode([query["text"] for query in queries])
    items: dict[str, list[dict]] = {"train": [], "test": []}
    for query, vector in zip(queries, vectors):
        hits = retrieve(library, vector, SHOWN)
        grades = [qrels[query["_id"]].get(hit.passage.id, 0) for hit in hits]
        item = {"id": query["_id"], "query": query["text"], "hits": hits, "grades": grades}
        split = query["metadata"]["split"]
        items[split].append(item | {"split": split})
    folder = DATA / "preferences"
    folder.mkdir(exist_ok=True)
    hidden = []
    for annotator in ANNOTATORS:
        seed = int(hashlib.sha256(annotator.name.encode()).hexdigest()[:8], 16)
        draw, rng = random.Random(seed), np.random.default_rng(seed)
        judged = [item for split, count in RANKINGS.items() for item in draw.sample(items[split], count)]
        asked = [item for split, count in COMPARISONS.items() for item in draw.sample(items[split], count)]
        said = rankings(annotator, judged, rng) + comparisons(annotator, asked, generator, rng)
        write_log(folder / f"{annotator.name}.jsonl", said, WHEN)
        for item in judged:
            utilities = {
                hit.passage.id: annotator.utility(hit.passage, grade)
                for hit, grade in zip(item["hits"], item["grades"])
            }
            names = {"annotator": annotator.name, "query_id": item["id"], "split": item["split"]}
            hidden.append(names | {"utilities": utilities})
        print(f"{annotator.name}: {len(said) - len(asked)} rankings, {len(asked)} comparisons")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in hidden)
    (folder / "hidden").mkdir(exist_ok=True)
    (folder / "hidden" / "utilities.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
