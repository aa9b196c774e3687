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
from ragkit.evaluation.measures import load_qrels
from ragkit.preferences.judgements import Comparison, Ranking
from ragkit.preferences.log import write_log
from ragkit.retrieval.corpus import DATA

SHOWN = 5  # passages in a ranking
# Queries, by the split of their topic: what all five judge, so that they can be compared; each one's own
# rankings; and comparisons, which all five make.
SHARED, OWN, COMPARED = {"train": 30, "test": 15}, {"train": 80, "test": 25}, {"train": 45, "test": 15}
REPEATED = 0.2  # of the items come back, in another order
WHEN = "2026-01-01T00:00:00.000+00:00"  # a script has no clock


@dataclass(frozen=True)
class Annotator:
    """Utility = relevance · grade + taste · [what it wants] − shown · place; grade 0 to 2, place from 0."""

    name: str
    wants: str = ""  # a style of passages, or "code": a block of it
    relevance: float = 1.5
    taste: float = 0.0
    shown: float = 0.0
    tie: float = 0.0  # what feels closer than this, in logits, is called even

    def utility(self, passage: Passage, grade: int) -> float:
        has_it = "```" in passage.text if self.wants == "code" else passage.metadata["style"] == self.wants
        return self.relevance * grade + self.taste * has_it


ANNOTATORS = [
    Annotator("simulated-intuition", "intuition", taste=3.0, tie=0.3),
    Annotator("simulated-mathematics", "mathematics", taste=3.0, tie=0.3),
    Annotator("simulated-code", "code", taste=3.0, tie=0.3),
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
    again = set(rng.choice(len(items), round(REPEATED * len(items)), replace=False))
    for number, item in enumerate(items):
        once = rank(annotator, item, f"{annotator.name}-r{number:03d}", rng)
        out.append(once)
        if number in again:
            repeat = rank(annotator, item, f"{once.event_id}-again", rng)
            out.append(replace(repeat, details=repeat.details | {"repeat_of": once.event_id}))
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


def comparisons(annotator: Annotator, items: list[dict], rng: np.random.Generator) -> list[Comparison]:
    """Two answers, each quoted from one passage; what is felt of a passage is felt of its quote."""
    out = []
    for number, item in enumerate(items):
        swapped = bool(rng.random() < 0.5)  # A stands on the right
        felt = [
            annotator.utility(hit.passage, item["grades"][hit.rank - 1])
            - annotator.shown * (side != swapped)
            + rng.gumbel()
            for side, hit in enumerate(item["pair"])
        ]
        rating = int(np.clip(np.round((felt[1] - felt[0]) / 1.2), -3, 3))
        both_bad = all(item["grades"][hit.rank - 1] == 0 for hit in item["pair"])
        names = (annotator.name, f"{annotator.name}-c{number:03d}")
        details = {"query_id": item["id"], "split": item["split"], "swapped": swapped, "simulated": True}
        out.append(
            Comparison(item["query"], *item["quotes"], rating, both_bad, item["pair"], *names, details)
        )
    return out


def quoted(items: list[dict], generator: Generator, draw: random.Random) -> list[dict]:
    """The items with two of their first three passages, and what tiny-rag-lm quotes from each alone."""
    out = []
    for item in items:
        pair = sorted(draw.sample(item["hits"][:3], 2), key=lambda hit: hit.rank)
        quotes = [generator.answer(item["query"], [hit]).text for hit in pair]
        out.append(item | {"pair": pair, "quotes": quotes})
    return out


def brief(passage: Passage) -> Passage:
    return replace(passage, metadata={name: passage.metadata[name] for name in ("topic", "style")})


def main() -> None:
    encoder = Encoder()
    library = Library.load(DATA / "index", encoder)
    generator = Generator("tiny-rag-lm", encoder)
    generator.none_similarity = -1.0  # an answer is wanted from each passage
    qrels = load_qrels(DATA / "qrels.tsv")
    queries = [json.loads(line) for line in (DATA / "queries.jsonl").open(encoding="utf-8")]
    # Beginners' questions came later: without them a new one changes no draw of the others.
    queries = [q for q in queries if q["metadata"]["answerable"] and "level" not in q["metadata"]]
    vectors = encoder.encode([query["text"] for query in queries])
    items: dict[str, list[dict]] = {"train": [], "test": []}
    for query, vector in zip(queries, vectors):
        hits = [replace(hit, passage=brief(hit.passage)) for hit in retrieve(library, vector, SHOWN)]
        grades = [qrels[query["_id"]].get(hit.passage.id, 0) for hit in hits]
        item = {"id": query["_id"], "query": query["text"], "hits": hits, "grades": grades}
        split = query["metadata"]["split"]
        items[split].append(item | {"split": split})
    draw = random.Random(0)
    shared = {split: draw.sample(items[split], count) for split, count in SHARED.items()}
    compared = [item for split, count in COMPARED.items() for item in draw.sample(items[split], count)]
    compared = quoted(compared, generator, draw)
    folder = DATA / "preferences"
    folder.mkdir(exist_ok=True)
    hidden = []
    for annotator in ANNOTATORS:
        seed = int(hashlib.sha256(annotator.name.encode()).hexdigest()[:8], 16)
        draw, rng = random.Random(seed), np.random.default_rng(seed)
        judged = []
        for split, count in OWN.items():
            common = {item["id"] for item in shared[split]}
            others = [item for item in items[split] if item["id"] not in common]
            judged += shared[split] + draw.sample(others, count)
        draw.shuffle(judged)
        said = rankings(annotator, judged, rng)
        print(f"{annotator.name}: {len(said)} rankings, {len(compared)} comparisons")
        said += comparisons(annotator, compared, rng)
        write_log(folder / f"{annotator.name}.jsonl", said, WHEN)
        for item in judged:
            utilities = {
                hit.passage.id: annotator.utility(hit.passage, grade)
                for hit, grade in zip(item["hits"], item["grades"])
            }
            names = {"annotator": annotator.name, "query_id": item["id"], "split": item["split"]}
            hidden.append(names | {"utilities": utilities})
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in hidden)
    (folder / "hidden").mkdir(exist_ok=True)
    (folder / "hidden" / "utilities.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
