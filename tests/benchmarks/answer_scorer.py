"""Which answer do people prefer? `python -m tests.benchmarks.answer_scorer FOLDER`.

FOLDER holds QA-Feedback's `dev_feedback.json.gz` (arXiv 2306.01693; allenai/FineGrainedRLHF): questions, the
passages that were read, four answers, and of each two of them which one a person preferred, or neither. How
strongly nobody said; "grpo" gets how many more of the other answers the better one beat.

Five folds by question, so that each answer is scored by weights that did not see its question, and that for
each seed of the folds. Accuracy: ties left out. Log-loss: ties with a target of 0.5, at the scale of scores
that suits them best, so that only how they are ordered and spaced counts; log 2 is a coin's. Intervals are of
the mean over seeds, questions resampled; ± is the standard deviation over seeds. Length: the correlation of
score and log length among the answers to one question. "Its part left out": the feature is fitted, and then
its weight set to 0; `controls` does more (see `AnswerScorer`).

"majority" always takes the answer that stands first in the file: as sides are there, that is the side more
often preferred; with sides exchanged at random there is none. `--also`: the reranker with answers for
documents, alone and with what was read beside them, unjudged; a head on the encoder's states of question and
answer read together (each some minutes more).
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, combinations
from pathlib import Path

import numpy as np

from ragkit.evaluation.measures import bootstrap
from ragkit.losses.strengths import rank_gap
from ragkit.preferences.formats import read_rows
from ragkit.preferences.judgements import Comparison, Ranking
from ragkit.reranking.answer_scorer import (
    FEATURES,
    Weighed,
    answers_table,
    held_out_scores,
    right_pairs,
    train_scores,
)
from ragkit.reranking.features import describe_all
from ragkit.reranking.linear import centred
from ragkit.reranking.objective import Objective
from ragkit.reranking.reranker import Reranker
from ragkit.reranking.selection import FOLDS, folds_of, pair_losses
from ragkit.reranking.table import Table
from ragkit.retrieval.corpus import Passage, ranked
from ragkit.retrieval.encoder import Encoder

ANSWERS = 4
VOTES = {0: 0, 1: -1, 2: 1}  # of the file, as ratings: the first of two is better, or the second
SEEDS = range(5)


def comparisons(path: Path) -> list[Comparison]:
    """Six of each question, A before B as in the file."""
    found = []
    for _, row in read_rows(path):
        passages = [
            Passage(str(n), " ".join(text), title) for n, (title, *text) in enumerate(row["passages"])
        ]
        hits = ranked((passage, 0.0) for passage in passages)
        answers = [row[f"prediction {n}"] for n in range(1, ANSWERS + 1)]
        for two, vote in zip(combinations(answers, 2), row["preference"], strict=True):
            found.append(Comparison(row["question"], *two, VOTES[vote], hits=hits))
    return found


def texts_of(table: Table) -> list[list[str]]:
    """Of each list of `table`, its answers, in its order."""
    texts = [[""] * size for size in np.bincount(table.of_list)]
    for side, own in ((table.pairs.chosen, 0), (table.pairs.rejected, 1)):
        for text, row, n in zip(side, table.sides[:, own], table.pair_list):
            texts[n][row - table.starts[n]] = text
    return texts


def wins(table: Table) -> np.ndarray:
    """(N,): how many of the other answers each one beat, ties by half."""
    target, (chosen, rejected) = table.pairs.target, table.sides.T
    return sum(
        np.bincount(rows, won, len(table.base)) for rows, won in ((chosen, target), (rejected, 1 - target))
    )


def places(table: Table, said: Sequence[Comparison]) -> np.ndarray:
    """(N,): where each answer stands in the file, from 0."""
    order: dict[str, dict[str, int]] = {}
    for one in said:
        own = order.setdefault(one.query, {})
        for text in (one.answer_a, one.answer_b):
            own.setdefault(text, len(own))
    known = zip(table.queries, texts_of(table))
    return np.array([order[query][text] for query, texts in known for text in texts], dtype=float)


def report(
    name: str, by_seed: Sequence[np.ndarray], table: Table, right_of_first: np.ndarray | None
) -> np.ndarray:
    """Print a line of scores, (N,), of each seed; how many pairs they have right, (Q,), by question."""
    right, count = zip(*(right_pairs(scores, table) for scores in by_seed))
    right, count = np.array(right), count[0]  # (S, Q) and (Q,)
    over_seeds, right = (right.sum(1) / count.sum()).std(ddof=1), right.mean(0)
    losses = np.mean([pair_losses(scores, table)[0] for scores in by_seed], axis=0)
    length = centred(table.features[:, [FEATURES.index("length")]], table.of_list)[:, 0]
    along = [centred(scores[:, None], table.of_list)[:, 0] for scores in by_seed]
    along = np.mean([np.corrcoef(one, length)[0, 1] if one.any() else 0.0 for one in along])
    behind = "" if right_of_first is None else _interval(right_of_first - right, count, signed=True)
    print(
        f"{name:40} {_interval(right, count)} ±{over_seeds:.3f}  {behind:23}  "
        f"{_interval(losses, np.ones(len(losses)))}  {along:+.2f}",
        flush=True,
    )
    return right


def _interval(sums: np.ndarray, count: np.ndarray, *, signed: bool = False) -> str:
    """Of Σ sums / Σ count over questions, (Q,) each."""
    found = bootstrap(
        lambda rows: sums[rows].sum(1) / count[rows].sum(1), len(count), resamples=2000, signed=signed
    )
    return str(found).split(" (")[0]


def rules(table: Table, place: np.ndarray) -> Iterator[tuple[str, list[np.ndarray]]]:
    """What needs no training."""
    length = table.features[:, FEATURES.index("length")]
    drawn = [np.random.default_rng(seed).random(len(place)) for seed in SEEDS]
    yield "majority, sides exchanged at random", drawn
    yield "majority, sides as in the file", [-place for _ in SEEDS]
    yield "longer wins", [length for _ in SEEDS]
    yield "shorter wins", [-length for _ in SEEDS]
    yield "cosine of question and answer", [table.features[:, 0] for _ in SEEDS]


def scorers(table: Table, place: np.ndarray) -> Iterator[tuple[str, list[np.ndarray]]]:
    """What `AnswerScorer` trains, by loss; and what length and place in the file have to do with it."""

    def trained(known: Table, train: Callable[[Table], Weighed] = train_scores) -> list[np.ndarray]:
        return [held_out_scores(known, train, seed=seed) for seed in SEEDS]

    def by(objective: Objective) -> Callable[[Table], Weighed]:
        return partial(train_scores, objective=objective)

    def without_part(column: int) -> Callable[[Table], Weighed]:
        kept = np.arange(len(FEATURES) + 1) != column

        def train(known: Table) -> Weighed:
            weighed = train_scores(known)
            return replace(weighed, weights=weighed.weights * kept[: len(weighed.weights)])

        return train

    points = wins(table)
    ranks = np.array([(points[table.of_list == own] > one).sum() for own, one in zip(table.of_list, points)])
    chosen, rejected = ranks[table.sides].T
    pairs = replace(table.pairs, chosen_rank=chosen, rejected_rank=rejected)
    ordered = replace(table, ranks=ranks, pairs=pairs)
    yield "scorer, dpo", trained(table)
    yield "scorer, dpo, ties left out of training", trained(table.strict())
    yield "scorer, grpo, h = gap in wins", trained(ordered, by(Objective("grpo", rank_gap(0.5))))
    yield "scorer, ipo", trained(table, by(Objective("ipo")))
    yield "scorer, plackett_luce", trained(ordered, by(Objective("plackett_luce")))
    length = FEATURES.index("length")
    yield "dpo without length", trained(replace(table, features=np.delete(table.features, length, 1)))
    yield "dpo, length fitted, its part left out", trained(table, without_part(length))
    yield "dpo, controls=['length']", trained(table, partial(train_scores, controls=["length"]))
    placed = replace(table, features=np.column_stack([table.features, place]))
    yield "dpo with the place in the file", trained(placed)
    yield "dpo, place fitted, its part left out", trained(placed, without_part(len(FEATURES)))


def rerankers(table: Table, encoder, said: Sequence[Comparison]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The reranker on rankings of answers by `wins`; what was read is in the list or not, and not judged."""
    points, hits = wins(table), {one.query: one.hits for one in said}
    for beside in (False, True):
        rankings = []
        for n, (query, texts) in enumerate(zip(table.queries, texts_of(table))):
            own = points[table.of_list == n]
            tiers = [np.flatnonzero(own == level).tolist() for level in np.unique(own)[::-1]]
            passages = [Passage(f"answer {n}", text) for n, text in enumerate(texts)]
            rankings.append(Ranking(query, passages + beside * [hit.passage for hit in hits[query]], tiers))
        seen = describe_all(encoder, [(one.query, [p.full_text for p in one.passages]) for one in rankings])
        by_seed = []
        for seed in SEEDS:
            fold, scores = folds_of(table.queries, FOLDS, seed), [np.zeros(0)] * len(rankings)
            for held_out in range(FOLDS):
                reranker = Reranker(encoder, "features", max_kl=np.inf)
                reranker.fit([rankings[n] for n in np.flatnonzero(fold != held_out)], progress=False)
                for n in np.flatnonzero(fold == held_out):
                    size = len(rankings[n].passages) - beside * len(hits[rankings[n].query])
                    scores[n] = reranker.fitted.scores(seen[n], reranker.max_kl)[:size]
            by_seed.append(np.concatenate(scores))
        yield f"Reranker over answers{', passages beside' * beside}", by_seed


def heads(table: Table, encoder) -> Iterator[tuple[str, list[np.ndarray]]]:
    import torch

    from ragkit.reranking.cross_encoder import CrossResidual

    read = CrossResidual(encoder)
    rows = [row for query, texts in zip(table.queries, texts_of(table)) for row in read.tokens(query, texts)]
    with torch.inference_mode():
        states = read.pooled(rows).double().cpu().numpy()
    states = replace(table, features=centred(states, table.of_list))
    by_seed = [held_out_scores(states, train_scores, seed=seed) for seed in SEEDS]
    yield "head on question and answer read at once", by_seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--also", choices=("reranker", "head"), nargs="+", default=[])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    encoder = Encoder(memory=2**30)
    said = comparisons(arguments.folder / "dev_feedback.json.gz")
    table = answers_table(encoder, said, progress=True)
    place = places(table, said)
    ties = int((table.pairs.target == 0.5).sum())
    print(f"{len(table)} questions, {len(table.base)} answers, {len(said)} comparisons, {ties} of them ties")
    print(f"{'':40} {'accuracy':20} {'seeds':6}  {'the first minus it':23}  {'log-loss':20}  length")
    rows = [scorers(table, place), rules(table, place)]
    rows += [rerankers(table, encoder, said)] if "reranker" in arguments.also else []
    rows += [heads(table, encoder)] if "head" in arguments.also else []
    first = None
    for name, by_seed in chain(*rows):
        right = report(name, by_seed, table, first)
        first = right if first is None else first


if __name__ == "__main__":
    main()
