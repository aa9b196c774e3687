"""How many rankings it takes: gain, adoption and harm by the size of the true effect, four ways side by side.

`python -m tests.benchmarks.reranker --only power --beir FOLDER …`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from ragkit.preferences.judgements import Ranking
from ragkit.reranking import evidence
from ragkit.reranking.guard import Domain
from ragkit.reranking.linear import CAPACITIES, Inputs, LinearResidual, one_thread, solve
from ragkit.reranking.reranker import MAX_KL, Reranker
from ragkit.reranking.selection import Fitted, out_of_fold, pair_losses, train
from ragkit.reranking.table import base_scores
from tests.benchmarks.kinds import (
    HELD_OUT,
    SIZE,
    Judged,
    Score,
    described,
    folder_of,
    measured,
    of_folder,
    scored,
    split,
)
from tests.simulated_rankings import simulated
from tests.words_encoder import WordsEncoder

SIZES = (10, 25, 50, 100, 200)
TASTES = (0.0, 0.5, 1.0, 2.0, 4.0)  # logits of a choice, for a formula
FAITH = 0.3  # the same, for one of s_0: at taste 0 the retriever is right
HARM = 0.01  # of nDCG@10, lost by a draw
RIDGE = 0.01  # beside the mean loss of a pair
CROSS_SIZE = 50  # rankings for a cross-encoder, which takes minutes


def world(encoder, count: int, taste: float, seed: int) -> list[Judged]:
    """Rankings by one who goes by the retriever and by taste, and the true utilities."""
    rng = np.random.default_rng([seed, count])
    lists = [Judged(one, np.zeros(SIZE)) for one in simulated(count, SIZE, seed=seed)]
    out = []
    for one, what in zip(lists, described(encoder, lists)):
        utility = taste * np.array(["=" in text for text in what.texts]) + FAITH * base_scores(what)
        order = np.argsort(-(utility + rng.gumbel(size=SIZE)))
        out.append(Judged(replace(one.ranking, tiers=[[i] for i in order.tolist()]), utility))
    return out


def ways(encoder, rankings: list[Ranking]) -> dict[str, Score]:
    """The ways to score a list that these rankings give."""
    reranker = Reranker(encoder)
    reranker.fit(rankings, progress=False)
    return {
        "ours": partial(scored, reranker),
        "switch": switch(reranker.fitted),
        "ridge": ridge(reranker.fitted),
    }


def switch(known: Fitted) -> Score:
    """The same residual with nothing left to the retriever, and all or nothing of it: adopted where held-out
    pairs are predicted better by more than a standard error."""
    said = known.table
    with patch.object(evidence, "ODDS", 1e-300), one_thread():
        scores = out_of_fold(said, known.objective, CAPACITIES, MAX_KL, 0)
        residual, _ = train(said, known.objective, CAPACITIES)
    gain = pair_losses(said.base, said)[0] - pair_losses(scores, said)[0]
    if not gain.mean() > np.std(gain, ddof=1) / len(gain) ** 0.5:
        return base_scores
    fitted = Fitted(residual=residual, domain=Domain.fit(said))
    return lambda one: fitted.scores(one, MAX_KL)


def ridge(known: Fitted) -> Score:
    """Logistic regression on differences of features: no retriever to start from, no bound, no domain."""
    inputs = Inputs.fit("features", known.table)
    with one_thread():
        w = solve(inputs(known.table), known.table, replace(known.objective, anchor="reference"), RIDGE)
    return LinearResidual(inputs, w[:-1])


def power(encoder, folders: Sequence[Path], draws: int, *, cross: bool) -> None:
    print(f"\nMean gain in nDCG@10 (of {draws} draws, how many changed any order, and lost more than {HARM})")
    words = WordsEncoder()
    for taste in TASTES:
        sides = [
            (world(words, max(SIZES), taste, 2 * draw), world(words, HELD_OUT, taste, 2 * draw + 1))
            for draw in range(draws)
        ]
        table(words, f"exact world, taste {taste}", sides, cross)
    for path in folders:
        lists = of_folder(encoder, path)
        table(encoder, folder_of(path).name, [split(lists, draw) for draw in range(draws)], cross)


def table(encoder, name: str, sides: Sequence[tuple[list[Judged], list[Judged]]], cross: bool) -> None:
    """`sides`: of each draw, what to train on and what to test with. `cross`: a CrossEncoder too, once."""
    gains, adopted = defaultdict(list), defaultdict(int)  # by size and way
    for draw, (known, new) in enumerate(sides):
        seen = described(encoder, new)
        base = measured(base_scores, seen, new)["nDCG@10"].mean
        sizes = sorted({min(size, len(known)) for size in SIZES})
        for size in sizes:
            rankings = [one.ranking for one in known[:size]]
            found = ways(encoder, rankings)
            if cross and draw == 0 and size == min(CROSS_SIZE, sizes[-1]):
                scores = sentence_transformers_scores(rankings, [one.ranking for one in new])
                by_query = {one.query: score for one, score in zip(seen, scores)}
                found["CrossEncoder"] = lambda one: by_query[one.query]  # noqa: B023
            for way, score in found.items():
                gains[size, way].append(measured(score, seen, new)["nDCG@10"].mean - base)
                adopted[size, way] += any(_order(score(one)) != _order(base_scores(one)) for one in seen)
    print(f"{name}: {len(new)} questions to test, nDCG@10 of the retriever {base:.3f} in the last draw")
    for size in sizes:
        cells = []
        for way in [way for key, way in gains if key == size]:
            d = np.array(gains[size, way])
            cells.append(f"{way} {d.mean():+.3f} ({adopted[size, way]}, {(d < -HARM).sum()})")
        print(f"  {size:3} rankings  {'  '.join(cells)}")


def _order(scores: np.ndarray) -> list[int]:
    return np.argsort(-scores, kind="stable").tolist()


def sentence_transformers_scores(known: list[Ranking], new: list[Ranking]) -> list[np.ndarray]:
    """Scores, (K,) for each new ranking, by a CrossEncoder that starts from the same weights as ours."""
    import tempfile

    from datasets import Dataset
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )

    from ragkit.retrieval.default_encoder import default_folder

    rows: dict[str, list] = {"query": [], "docs": [], "labels": []}
    for ranking in known:
        told = [(p.full_text, r) for p, r in zip(ranking.passages, ranking.ranks) if r is not None]
        if len({rank for _, rank in told}) > 1:
            rows["query"].append(ranking.query)
            rows["docs"].append([text for text, _ in told])
            rows["labels"].append([float(len(ranking.tiers) - 1 - rank) for _, rank in told])
    model = CrossEncoder(str(default_folder()), num_labels=1, max_length=192, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        settings = CrossEncoderTrainingArguments(
            output_dir=folder,
            num_train_epochs=3,
            learning_rate=5e-5,
            warmup_steps=0.1,
            per_device_train_batch_size=4,
            seed=0,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            logging_strategy="no",
        )
        data = Dataset.from_dict(rows)
        CrossEncoderTrainer(
            model=model, args=settings, train_dataset=data, loss=losses.RankNetLoss(model)
        ).train()
    asked = [[(ranking.query, p.full_text) for p in ranking.passages] for ranking in new]
    return [np.asarray(model.predict(pairs, show_progress_bar=False), dtype=float) for pairs in asked]
