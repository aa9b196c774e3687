"""What people's rankings have in common: the numbers of `ragkit/reranking/prior.py`, from graded judgements.

    python data/build/learn_prior.py FOLDER …

Each FOLDER is in BEIR's form, its grades in `qrels/test.tsv`, or a file of lists, `NAME.jsonl`: `query`,
`texts`, `grades`. Where a query's judged documents have one grade only, its candidates are the first fifteen
by meaning and words, and what was not judged counts as grade 0. One model for all: features relative to their
own list, the same weights everywhere, a β for each folder; each folder counts the same, however many rankings
it has and of whatever kind. The texts stay where they are: only a weight a feature leaves them. Prints,
for each folder, what a prior that was learned without it changes there, and then the table.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from ragkit import Encoder, Library
from ragkit.evaluation.measures import load_qrels, load_queries
from ragkit.evaluation.rankings import compare
from ragkit.preferences.judgements import Ranking
from ragkit.reranking import prior
from ragkit.reranking.evidence import Told
from ragkit.reranking.features import NAMES, describe_all
from ragkit.reranking.guard import bounded
from ragkit.reranking.linear import centred
from ragkit.reranking.reranker import MAX_KL
from ragkit.reranking.table import Table
from ragkit.retrieval.corpus import Passage, load_passages
from ragkit.retrieval.lexical import hybrid_search

SPREAD = 0.15  # logits: the prior's standard deviation of a weight
TELLINGS = 500.0  # independent pairs that a folder counts for
CANDIDATES, LARGEST = 15, 24  # documents of a list: found by search; judged, the rest left out
QUERIES = 300  # of a folder
ROUNDS = 8  # of weights and β in turn


def lists_of(path: Path, encoder) -> list[tuple[str, list[str], np.ndarray]]:
    """(query, texts, grades) of a folder or a file."""
    if path.suffix == ".jsonl":
        rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return [(row["query"], row["texts"], np.array(row["grades"], dtype=float)) for row in rows]
    passages = {passage.id: passage for passage in load_passages(path)}
    queries, library, lists = load_queries(path / "queries.jsonl"), None, []
    qrels = load_qrels(path / "qrels" / "test.tsv", queries=queries, passages=passages)
    rng = np.random.default_rng(0)
    for query in rng.permutation(list(qrels))[:QUERIES]:
        grades, text = qrels[query], queries[query]
        if len(set(grades.values())) < 2:
            library = library or Library.build(passages.values(), encoder)
            hits = hybrid_search(library, text, encoder.encode_query(text), CANDIDATES)
            grades = {hit.passage.id: grades.get(hit.passage.id, 0) for hit in hits}
        kept = rng.permutation(list(grades))[:LARGEST]
        lists.append(
            (text, [passages[key].full_text for key in kept], np.array([grades[key] for key in kept]))
        )
    return lists


def tabled(lists: list, encoder) -> tuple[Table, list]:
    """The lists in which grades differ, as a table, and what is seen of them."""
    lists = [(query, texts, grades) for query, texts, grades in lists if len(set(grades)) > 1]
    rankings = []
    for query, texts, grades in lists:
        tiers = [np.flatnonzero(grades == grade).tolist() for grade in sorted(set(grades), reverse=True)]
        rankings.append(Ranking(query, [Passage(str(n), text) for n, text in enumerate(texts)], tiers))
    table = Table.build(rankings, describe_all(encoder, [(q, texts) for q, texts, _ in lists], progress=True))
    return table.strict(), [grades for *_, grades in lists]


def learn(tables: list[Table]) -> dict[str, tuple[float, float]]:
    """By feature, its weight and its usual spread within a list."""
    variances = [(centred(table.features, table.of_list) ** 2).mean(0) for table in tables]
    prior.SPREADS = np.sqrt(np.mean(variances, axis=0))
    told, values = [Told(table) for table in tables], [prior.standardised(table) for table in tables]
    for one in told:
        one.weight *= TELLINGS / one.weight.sum()
    w = np.zeros(len(NAMES))
    for _ in range(ROUNDS):
        betas = [_beta(one, one.base + one.apart(x @ w)) for one, x in zip(told, values)]
        w = _weights(told, values, betas, w)
    return {name: (round(float(a), 2), round(float(b), 3)) for name, a, b in zip(NAMES, w, prior.SPREADS)}


def _beta(told: Told, margin: np.ndarray) -> float:
    loss = lambda log_beta: -told.log_likelihood(np.exp(log_beta) * margin)  # noqa: E731
    return float(np.exp(minimize_scalar(loss, bounds=(-4, 1), method="bounded").x))


def _weights(told: list[Told], values: list[np.ndarray], betas: list[float], w: np.ndarray) -> np.ndarray:
    """Newton's step for the weights of all, taken whole: the loss is near its minimum's parabola."""
    slope, curvature = -w / SPREAD**2, np.eye(len(w)) / SPREAD**2
    for one, x, beta in zip(told, values, betas):
        z = beta * (one.base + one.apart(x @ w))
        slope = slope + beta * x.T @ one.slope(z)
        curvature = curvature + beta**2 * one.curvature(z, x)
    return w + np.linalg.solve(curvature, slope)


def main(paths: list[Path]) -> None:
    encoder = Encoder()
    found = {path.stem: tabled(lists_of(path, encoder), encoder) for path in paths}
    for name, (table, grades) in found.items():
        people = learn([other for key, (other, _) in found.items() if key != name])
        prior.WEIGHTS = np.array([people[feature][0] for feature in NAMES])
        after = bounded(prior.people(table), table.base, MAX_KL, table.of_list)
        lists = [np.split(scores, table.starts[1:]) for scores in (table.base, after)]
        gain = compare(*lists, grades, table.queries)
        print(f"{name:18} {len(table):4} queries", end="")
        print(
            *(f"  {key} {gain.base[key]:.3f} {gain.intervals[key]}" for key in ("nDCG@10", "pair accuracy"))
        )
    print("PEOPLE = {")
    for name, pair in learn([table for table, _ in found.values()]).items():
        print(f'    "{name}": {pair},')
    print("}")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
