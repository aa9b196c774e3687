"""Rankings of one kind of question, tested on another: does a reranker harm what it was not trained for?

`python -m tests.benchmarks.reranker --only kinds --beir A B C`. Also: where graded lists come from.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ragkit.evaluation.measures import Interval, bootstrap, load_qrels, load_queries
from ragkit.evaluation.rankings import measure
from ragkit.preferences.judgements import Ranking
from ragkit.preferences.log import PreferenceLog
from ragkit.reranking.features import Described, describe_all
from ragkit.reranking.reranker import Reranker
from ragkit.reranking.table import base_scores
from ragkit.retrieval.corpus import DATA, Passage, load_passages, read_jsonl
from ragkit.retrieval.lexical import hybrid_search
from ragkit.retrieval.library import Library

QUESTIONS, DOCUMENTS = 300, 20  # of a folder, and of a question: drawn where there are more
FOUND = 15  # candidates of a question, where people judged only what is good
FEWEST = 0.2  # of a folder's judgements: the share of the lowest grade, with less of which that is so
SIZE, RANKINGS, HELD_OUT, TESTED = 10, 100, 100, 200  # documents and rankings of training; questions of tests
LEAST_MEAN, LEAST_LOW = -0.005, -0.02  # of nDCG@10: what another kind may lose, and its interval's lower end
MEASURES = ("nDCG@10", "pair accuracy")

Score = Callable[[Described], np.ndarray]


@dataclass(frozen=True)
class Judged:
    """What a person said, to train on, and how good the documents are, to test with: `gains`, (K,)."""

    ranking: Ranking
    gains: np.ndarray


def graded(query: str, passages: Sequence[Passage], gains: np.ndarray) -> Judged:
    tiers = [np.flatnonzero(gains == level).tolist() for level in sorted({*gains.tolist()}, reverse=True)]
    return Judged(Ranking(query, list(passages), tiers), gains)


def cut(one: Judged, size: int, rng: np.random.Generator) -> Judged:
    """At most so many of its documents, drawn, not all of one grade."""
    if len(one.gains) <= size:
        return one
    while True:
        kept = np.sort(rng.permutation(len(one.gains))[:size])
        if len({*one.gains[kept].tolist()}) > 1:
            return graded(one.ranking.query, [one.ranking.passages[i] for i in kept], one.gains[kept])


def of_folder(encoder, path: Path) -> list[Judged]:
    """A BEIR folder's questions with what was judged for them, in random order. `path`: the folder, for its
    qrels/test.tsv, or another file there.

    Where hardly any document was judged to be bad, the candidates are those that `hybrid_search` finds in the
    whole corpus, and what was not judged has grade 0.
    """
    folder, file = folder_of(path), path / "qrels" / "test.tsv" if path.is_dir() else path
    passages, texts = {p.id: p for p in load_passages(folder)}, load_queries(folder / "queries.jsonl")
    qrels = load_qrels(file, queries=texts, passages=passages)
    counts = Counter(grade for grades in qrels.values() for grade in grades.values())
    good_only = len(counts) == 1 or counts[min(counts)] < FEWEST * counts.total()
    library = Library.build(passages.values(), encoder, progress=False) if good_only else None
    rng, lists = np.random.default_rng(0), []
    for query in rng.permutation(sorted(qrels)).tolist():
        ids = found(library, encoder, texts[query], FOUND) if library else list(qrels[query])
        one = graded(texts[query], [passages[key] for key in ids], grades_of(qrels[query], ids))
        if len(one.ranking.tiers) > 1 and len(lists) < QUESTIONS:
            lists.append(cut(one, DOCUMENTS, rng))
    return lists


def folder_of(path: Path) -> Path:
    return path if path.is_dir() else path.parents[1]


def found(library: Library, encoder, query: str, k: int) -> list[str]:
    return [hit.passage.id for hit in hybrid_search(library, query, encoder.encode_query(query), k)]


def grades_of(grades: dict[str, int], ids: Sequence[str]) -> np.ndarray:
    return np.array([float(grades.get(key, 0)) for key in ids])


def topics(encoder) -> list[Judged]:
    """The questions of the corpus's own test topics, with what is found for them."""
    library, qrels = Library.load(DATA / "index", encoder), load_qrels(DATA / "qrels.tsv")
    passages, lists = {p.id: p for p in library.passages}, []
    for _, row in read_jsonl(DATA / "queries.jsonl"):
        if row["metadata"]["split"] == "test" and row["_id"] in qrels:
            ids = found(library, encoder, row["text"], SIZE)
            lists.append(graded(row["text"], [passages[i] for i in ids], grades_of(qrels[row["_id"]], ids)))
    order = np.random.default_rng(0).permutation(len(lists))
    return [lists[n] for n in order if len(lists[n].ranking.tiers) > 1]


def simulated() -> tuple[dict[str, list[Judged]], dict[str, list[Judged]]]:
    """Of each annotator that ships: rankings to train on, and to test with; gains are hidden utilities."""
    rows = [row for _, row in read_jsonl(DATA / "preferences" / "hidden" / "utilities.jsonl")]
    hidden = {(row["annotator"], row["query_id"]): row["utilities"] for row in rows}
    parts: dict[str, dict[str, list[Judged]]] = {part: defaultdict(list) for part in ("train", "test")}
    for one in PreferenceLog(DATA / "preferences").rankings():
        if "repeat_of" not in one.details:
            known = hidden[one.annotator, one.details["query_id"]]
            gains = np.array([known[passage.id] for passage in one.passages])
            parts[one.details["split"]][one.annotator].append(Judged(one, gains))
    return parts["train"], parts["test"]


def split(lists: Sequence[Judged], draw: int) -> tuple[list[Judged], list[Judged]]:
    """Rankings to train on, cut to SIZE, and the lists of HELD_OUT other questions, or of half of them."""
    rng = np.random.default_rng([draw, len(lists)])
    order, held_out = rng.permutation(len(lists)), min(HELD_OUT, len(lists) // 2)
    return [cut(lists[n], SIZE, rng) for n in order[held_out:]], [lists[n] for n in order[:held_out]]


def described(encoder, lists: Sequence[Judged]) -> list[Described]:
    return describe_all(
        encoder, [(one.ranking.query, [p.full_text for p in one.ranking.passages]) for one in lists]
    )


def measured(score: Score, seen: Sequence[Described], lists: Sequence[Judged]) -> dict:
    """By measure and question, as `measure` gives them."""
    return measure([score(one) for one in seen], [one.gains for one in lists], [one.query for one in seen])


def changes(score: Score, seen: Sequence[Described], lists: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """By measure and question: after minus base."""
    base, after = measured(base_scores, seen, lists), measured(score, seen, lists)
    return {name: {q: after[name][q] - base[name][q] for q in base[name]} for name in MEASURES}


def over_draws(found: Sequence[dict[str, dict[str, float]]]) -> list[Interval]:
    """The mean change of each of MEASURES, a question's draws averaged; intervals are over questions."""
    intervals = []
    for name in MEASURES:
        by_question = defaultdict(list)
        for one in found:
            for query, value in one[name].items():
                by_question[query].append(value)
        means = np.array([np.mean(values) for values in by_question.values()])
        intervals.append(bootstrap(lambda rows, means=means: means[rows].mean(1), len(means)))
    return intervals


def kinds(encoder, folders: Sequence[Path], draws: int) -> None:
    """Every kind trained on, every other one tested; and itself, on questions held out."""
    sets = {folder_of(path).name: of_folder(encoder, path) for path in folders}
    train, test = simulated()
    tests = {name: lists[:TESTED] for name, lists in {**sets, "topics": topics(encoder)}.items()}
    seen = {name: described(encoder, lists) for name, lists in tests.items()}
    print(
        f"\nTrained on {RANKINGS} rankings of {SIZE}, tested on other kinds, {draws} draws: change in",
        end=" ",
    )
    print(f"{' and '.join(MEASURES)} with 95 % intervals over questions; mean trust")
    start = Reranker(encoder, prior="people")
    for name, lists in tests.items():
        row = over_draws([changes(partial(scored, start), seen[name], lists)])
        print(f"  {'prior people, no click':22} → {name:15} {row[0]}  {row[1]}")
    broken, pairs = [], 0
    for name in [*sets, *train]:
        found, trusts = defaultdict(list), defaultdict(list)
        for draw in range(draws):
            known, new = (
                split(sets[name], draw) if name in sets else (shuffled(train[name], draw), test[name])
            )
            reranker = Reranker(encoder)
            reranker.fit([one.ranking for one in known[:RANKINGS]], progress=False)
            domain = reranker.fitted.domain
            for other in dict.fromkeys([name, *tests]):
                lists = new if other == name else tests[other]
                what = described(encoder, new) if other == name else seen[other]
                found[other].append(changes(partial(scored, reranker), what, lists))
                trusts[other] += [domain.trust(one)[0] if domain else 0.0 for one in what]
        for other, some in found.items():
            gain, accuracy = over_draws(some)
            to = "itself" if other == name else other
            print(f"  {name:22} → {to:15} {gain}  {accuracy}  trust {np.mean(trusts[other]):.2f}")
            if other != name:
                pairs += 1
                if gain.mean < LEAST_MEAN or gain.low < LEAST_LOW:
                    broken.append(f"{name} → {other}")
    print(f"Of {pairs} pairs, {len(broken)} break mean ≥ {LEAST_MEAN} or lower end ≥ {LEAST_LOW}", end="")
    print(f" of {MEASURES[0]}{': ' if broken else ''}{', '.join(broken)}")


def shuffled(lists: Sequence[Judged], draw: int) -> list[Judged]:
    return [lists[n] for n in np.random.default_rng(draw).permutation(len(lists))]


def scored(reranker: Reranker, one: Described) -> np.ndarray:
    """As `Reranker.score`, of what is described already."""
    return reranker.fitted.scores(one, reranker.max_kl)
