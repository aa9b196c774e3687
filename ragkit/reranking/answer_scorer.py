"""A scorer of answers that people's comparisons train: a reward, by the losses that order documents.

    scorer = AnswerScorer(encoder)
    scorer.fit(log.comparisons())
    strength = reward_gap(lambda query, answer: scorer(query, answer, hits[query]))

A `Reranker` takes answers for documents, but starts from their similarity to the query, which says little of
answers, and looks at a list; this one looks at one answer, and at what it was written from.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from ragkit.evaluation.measures import Interval, bootstrap
from ragkit.preferences.judgements import Comparison, Feedback, Ranking
from ragkit.preferences.pairs import pairs_of
from ragkit.reranking.linear import FARTHEST, centred, one_thread, solve
from ragkit.reranking.objective import LISTWISE, Objective
from ragkit.reranking.selection import FOLDS, folds_of
from ragkit.reranking.style import style
from ragkit.reranking.table import Table
from ragkit.retrieval.corpus import Hit, check_query
from ragkit.retrieval.storage import load_tensors, save_tensors
from ragkit.retrieval.text import split_sentences, words

STYLE = tuple(style("", [""]))
FEATURES = (  # of an answer
    "similarity",  # to the query
    "grounded",  # the mean over its sentences of the similarity to the nearest sentence of the hits
    "least grounded",  # that of the sentence that is farthest from them
    "known words",  # share of its words that stand in the query or in the hits
    "quoted",  # share of its pairs of neighbouring words that stand in the hits
    "covered",  # how near it comes to the sentence of the hits that is nearest to the query
    "covered widely",  # the mean of that over the WIDELY nearest
    *STYLE,
)
WIDELY = 5
PLAIN = Objective("dpo")
RIDGE = 0.3  # on weights of features whose spread is 1
KIND = {"format": "ragkit-answer-scorer", "version": 1}  # of a file

Asked = tuple[str, Sequence[str], Sequence[Hit]]  # a query, answers to it, what they were written from


class AnswerScorer:
    """A callable (query, answer, hits) → float, in logits: the difference of two answers to one query is that
    of the one being preferred to the other.

    `controls`: features that the score shall not go along with among the answers to a query, as ("length",)
    against a bias to length. Raises ValueError for one that is not among FEATURES.
    """

    def __init__(self, encoder, *, controls: Sequence[str] = ()):
        if unknown := [name for name in controls if name not in FEATURES]:
            raise ValueError(f"controls: {unknown[0]!r} is none of {', '.join(FEATURES)}")
        self.encoder, self.controls = encoder, tuple(controls)
        self.weighed: Weighed | None = None

    def fit(
        self,
        judgements: Iterable[Comparison | Feedback | Ranking],
        objective: Objective = PLAIN,
        *,
        seed: int = 0,
        progress: bool = True,
    ) -> Interval:
        """Train on what `pairs_of` makes of `judgements`, and say how often it is right on queries held out.

        A tie is a target of 0.5. The figure is the share of held-out pairs, ties left out, of which the
        better answer has the higher score: 0.5 is a coin's. Raises ValueError where fewer than FOLDS queries
        have a pair, for "plackett_luce", and for `strength="learned"`, which are the reranker's.
        """
        if objective.strength == "learned" or objective.loss == LISTWISE:
            raise ValueError(f"{objective}: a scorer of answers takes pairs, and believes everybody alike")
        table = answers_table(self.encoder, judgements, progress=progress)
        if (count := len({*table.queries})) < FOLDS:
            raise ValueError(f"pairs of answers to {count} queries: {FOLDS} at least")
        train = partial(train_scores, objective=objective, controls=self.controls)
        self.weighed = train(table)
        return pair_accuracy(held_out_scores(table, train, seed=seed), table)

    def __call__(self, query: str, answer: str, hits: Sequence[Hit] = ()) -> float:
        """The score of one answer. Raises ValueError for an empty query, and before it was trained."""
        return float(self.scores(query, [answer], hits)[0])

    def scores(self, query: str, answers: Sequence[str], hits: Sequence[Hit] = ()) -> np.ndarray:
        """(K,), of K answers written from the same hits. Raises what a call raises."""
        check_query(query)
        if self.weighed is None:
            raise ValueError("this scorer was not trained yet: fit(comparisons), or AnswerScorer.load")
        return self.weighed(answer_features(self.encoder, [(query, answers, hits)])[0])

    def save(self, path: str | Path) -> None:
        """Write what it takes to score, and no judgement, as one safetensors file, whole or not at all."""
        facts = {"encoder": self.encoder.name, "fingerprint": self.encoder.fingerprint, "features": FEATURES}
        tensors = vars(self.weighed) if self.weighed else {}
        save_tensors(Path(path).expanduser(), KIND, facts | {"controls": self.controls}, tensors)

    @classmethod
    def load(cls, path: str | Path, encoder) -> "AnswerScorer":
        """A scorer as it was saved. Raises FileNotFoundError where none is, ValueError for a damaged one and
        for another encoder or features."""
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"no scorer in {str(path)!r} (AnswerScorer.save makes one)")
        facts, tensors = load_tensors(path, KIND, "train it again")
        if missing := {"encoder", "fingerprint", "features", "controls"} - facts.keys():
            raise ValueError(f"{path} is damaged: it lacks {min(missing)!r}; train it again")
        if (facts["fingerprint"], facts["features"]) != (encoder.fingerprint, list(FEATURES)):
            raise ValueError(
                f"{path} was trained with encoder {facts['encoder']!r} and this is {encoder.name!r}, or "
                "another version of it or of ragkit: load that one, or train again"
            )
        scorer = cls(encoder, controls=facts["controls"])
        shapes = {name: value.shape for name, value in tensors.items()}
        if shapes and shapes != dict.fromkeys(("mean", "spread", "weights"), (len(FEATURES),)):
            raise ValueError(f"{path} is damaged: its tensors are {shapes}; train it again")
        scorer.weighed = Weighed(**tensors) if tensors else None
        return scorer


@dataclass(frozen=True)
class Weighed:
    """`weights`, (F,), on features relative to their `mean` and `spread` in training, cut at ±FARTHEST: what
    is odder than anything seen there must not decide alone, or a policy that learns would look for it."""

    mean: np.ndarray
    spread: np.ndarray
    weights: np.ndarray

    def inputs(self, features: np.ndarray) -> np.ndarray:
        return np.clip((features - self.mean) / self.spread, -FARTHEST, FARTHEST)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Scores, (N,), of features, (N, F)."""
        return self.inputs(features) @ self.weights


def train_scores(table: Table, objective: Objective = PLAIN, controls: Sequence[str] = ()) -> Weighed:
    """The weights that `objective` and RIDGE want of a table whose features are FEATURES, and perhaps more.

    Those of `controls` are then set so that within lists the score is not correlated with any of them. To
    leave out their own part would not do: what goes along with them would stand in for them.
    """
    spread = table.features.std(0)
    start = Weighed(table.features.mean(0), np.where(spread > 1e-9, spread, 1.0), np.zeros(len(spread)))
    inputs = start.inputs(table.features)
    with one_thread():
        weights = solve(inputs, table, objective, RIDGE)[:-1]
    columns = [FEATURES.index(name) for name in controls]
    weights[columns] = 0.0
    inputs = centred(inputs, table.of_list)
    weights[columns] = -np.linalg.lstsq(inputs[:, columns], inputs @ weights)[0]
    return replace(start, weights=weights)


def held_out_scores(table: Table, train: Callable[[Table], Weighed], *, seed: int = 0) -> np.ndarray:
    """(N,): each answer's score by what `train` makes of the lists of other queries."""
    fold, scores = folds_of(table.queries, FOLDS, seed), np.zeros(len(table.features))
    for number in np.unique(fold):
        rows = (fold == number)[table.of_list]
        scores[rows] = train(table.take(np.flatnonzero(fold != number)))(table.features[rows])
    return scores


def right_pairs(scores: np.ndarray, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """By query: how many of its pairs, without ties, are scored the right way round, and of how many. Equal
    scores are half right. Only of queries that have such a pair."""
    table = table.strict()
    apart = scores[table.sides] @ [1.0, -1.0]
    right = np.where(table.pairs.target > 0.5, (1 + np.sign(apart)) / 2, (1 - np.sign(apart)) / 2)
    count = np.bincount(table.pairs.group)
    return np.bincount(table.pairs.group, right)[count > 0], count[count > 0]


def pair_accuracy(scores: np.ndarray, table: Table) -> Interval:
    """The share of pairs, ties left out, that `scores` put the right way round; queries are resampled."""
    right, count = right_pairs(scores, table)
    return bootstrap(lambda rows: right[rows].sum(1) / count[rows].sum(1), len(count), signed=False)


def answers_table(
    encoder, judgements: Iterable[Comparison | Feedback | Ranking], *, progress: bool = False
) -> Table:
    """What was said of answers, as a `Table`: a list is a query's answers from the same hits, its features
    are FEATURES, and no score is known before."""
    said = list(judgements)
    pairs = pairs_of(said)
    lists: dict[tuple, tuple[int, str, dict[str, int], Sequence[Hit]]] = {}
    places = []  # of each pair: the list, and y⁺ and y⁻ in it
    for number, query, *both in zip(pairs.judgement, pairs.query, pairs.chosen, pairs.rejected):
        hits = getattr(said[number], "hits", [])
        key = (query, *(hit.passage.full_text for hit in hits))
        own, _, answers, _ = lists.setdefault(key, (len(lists), query, {}, hits))
        places.append((own, *(answers.setdefault(text, len(answers)) for text in both)))
    of_pair, chosen, rejected = np.array(places, dtype=int).reshape(-1, 3).T
    asked = [(query, list(answers), hits) for _, query, answers, hits in lists.values()]
    features = answer_features(encoder, asked, progress=progress)
    size = sum(map(len, features))
    nothing = np.zeros(size)
    return Table(
        features=np.concatenate([np.zeros((0, len(FEATURES))), *features]),
        vectors=np.zeros((size, 0)),
        base=nothing,
        found=nothing,
        prior=nothing,
        ranks=np.full(size, -1),
        places=np.full(size, np.nan),
        of_list=np.repeat(np.arange(len(features)), list(map(len, features))),
        pairs=replace(pairs, judgement=of_pair, chosen_index=chosen, rejected_index=rejected),
        queries=[query for query, *_ in asked],
        asked=np.zeros((len(asked), 0)),
    )


def answer_features(encoder, asked: Sequence[Asked], *, progress: bool = False) -> list[np.ndarray]:
    """Of each query's K answers, (K, F), in the order of FEATURES; each text goes through `encoder` once."""
    cut = {text: split_sentences(text) or [text] for _, answers, _ in asked for text in answers}
    read = [list(chain(*(split_sentences(hit.passage.text) for hit in hits))) for *_, hits in asked]
    texts = sorted({*cut, *chain(*cut.values()), *chain(*read)})
    known = dict(zip(texts, encoder.encode_passages(texts, progress=progress, warn=False)))
    found = []
    for (query, answers, hits), sentences in zip(asked, read):
        wanted = encoder.encode_query(query)
        vectors = np.array([known[text] for text in sentences]).reshape(-1, len(wanted))
        order = np.argsort(-(vectors @ wanted), kind="stable")[:WIDELY]
        there = [words(hit.passage.full_text) for hit in hits]
        vocabulary = {*words(query), *chain(*there)}
        neighbours = {pair for said in there for pair in pairwise(said)}
        rows = []
        for answer in answers:
            near = np.array([known[text] for text in cut[answer]]) @ vectors.T  # (its sentences, those read)
            own, said = near.max(1, initial=0.0), words(answer)
            covered = near.max(0)[order] if len(order) else np.zeros(1)
            rows.append(
                [
                    known[answer] @ wanted,
                    own.mean(),
                    own.min(),
                    _share([word in vocabulary for word in said]),
                    _share([pair in neighbours for pair in pairwise(said)]),
                    covered[0],
                    covered.mean(),
                    *style(answer, cut[answer]).values(),
                ]
            )
        found.append(np.array(rows, dtype=np.float64))
    return found


def _share(which: list[bool]) -> float:
    return sum(which) / max(len(which), 1)
