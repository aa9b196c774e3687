"""A reranker, trained on people's rankings: it starts as the retriever, and stays it where nothing helps."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ragkit import reranker_files
from ragkit.annotators import LEARNED, reliabilities, resolved
from ragkit.bounds import bounded, kl_from_base
from ragkit.corpus import Hit, Passage, ranked
from ragkit.domain import Domain
from ragkit.evaluation import Interval
from ragkit.explanation import Explanation
from ragkit.features import Described, describe, describe_all
from ragkit.fit_report import FitReport
from ragkit.inputs import CAPACITIES, Inputs
from ragkit.judgements import Ranking
from ragkit.linear_residual import LinearResidual, precision, solve, standard_errors
from ragkit.objective import ANCHORS, Objective
from ragkit.one_thread import one_thread
from ragkit.rank_evaluation import compare
from ragkit.selection import (
    BETAS,
    FOLDS,
    RIDGES,
    Settings,
    choose,
    folds_of,
    out_of_fold,
    pair_losses,
    quick_scores,
    train,
)
from ragkit.strengths import Strength
from ragkit.table import Table, base_scores

CROSS, CROSS_BETA = "cross-encoder", 0.25
MIN_QUERIES = 10  # with fewer, nothing can be held out with any meaning
SURE = 1.0  # standard errors by which held-out pairs must be predicted better than by the retriever
UNTRAINED = Settings("features", BETAS[0], RIDGES[1])  # what information goes by before a fit chose anything


class Reranker:
    """score = s_0 + residual: the retriever's cosine in logits, and what people's rankings add to it.

    `capacity`: "features", "embeddings", "auto", which lets the rankings choose between these two, or
    "cross-encoder". `anchor`: "offset" or "reference", see `objective.py`. `max_kl`: how far a query's
    candidates may move from the retriever, in nats. Raises ValueError for another capacity or anchor, and a
    `max_kl` below 0.
    """

    def __init__(
        self,
        encoder,
        capacity: str = "auto",
        *,
        anchor: str = "offset",
        max_kl: float = 2.0,
        seed: int = 0,
    ):
        if capacity not in (*CAPACITIES, CROSS, "auto"):
            raise ValueError(f"capacity={capacity!r}: one of {', '.join((*CAPACITIES, CROSS))}, auto")
        if anchor not in ANCHORS:
            raise ValueError(f"anchor={anchor!r}: one of {', '.join(ANCHORS)}")
        if not max_kl >= 0:
            raise ValueError(f"max_kl={max_kl}: a number of nats, 0 or more")
        self.encoder, self.capacity, self.anchor = encoder, capacity, anchor
        self.max_kl, self.seed = float(max_kl), seed
        self.residual = None  # a LinearResidual or CrossResidual; None: the retriever's order stays
        self.domain: Domain | None = None
        self._table: Table | None = None
        self._objective: Objective | None = None
        self._settings: Settings | None = None

    # Fitting

    def fit(
        self,
        rankings: Sequence[Ranking],
        loss: str = "grpo",
        strength: Strength | str | None = None,
        *,
        weight: Strength | None = None,
        offset: Strength | None = None,
        progress: bool = True,
    ) -> FitReport:
        """Train on `rankings` (or a `PreferenceLog`), and say what it gains on queries held out.

        `loss`, `strength`, `weight`, `offset`: see `Objective`; `strength="learned"` believes each annotator
        as far as the others' pairs and their own are predicted. Capacity, β and ridge are chosen by
        cross-validation over queries, in each training fold anew, so that the figures of the report are
        honest; then the model is trained on all. It is kept if held-out pairs are predicted better than by
        the retriever by more than a standard error. What was shown first is fitted as an offset where shown
        orders are known. Raises TypeError for what is no Ranking, ValueError for settings that don't fit.
        """
        rankings = checked(rankings)
        names = ("residual", "domain", "_table", "_objective", "_settings")
        before = {name: getattr(self, name) for name in names}
        try:
            return self._fit(rankings, (loss, strength, weight, offset), progress)
        except BaseException:  # a fit that fails, or is stopped, leaves what there was
            vars(self).update(before)
            raise

    def _fit(self, rankings: list[Ranking], knobs: tuple, progress: bool) -> FitReport:
        useful = [ranking for ranking in rankings if sum(map(len, ranking.tiers)) > 1]
        first = any(ranking.shown_order is not None for ranking in useful)
        objective = Objective(*knobs, anchor=self.anchor, first=first)
        self.residual = self.domain = self._table = self._settings = None
        self._objective = objective
        facts = {"rankings": len(useful), "queries": len({ranking.query for ranking in useful})}

        def kept(reason: str, **more) -> FitReport:
            return FitReport(**facts, **more, kept_base=True, reason=f"{reason}: the retriever is kept.")

        if not useful:
            return kept(f"Of {len(rankings)} rankings none has two judged documents")
        self._table = table = self._tabled(useful, progress)
        objective(table, table.base)  # bad knobs fail here, and are named
        if (table.pairs.target == 0.5).all():
            return kept("Nobody preferred one document to another")
        if facts["queries"] < MIN_QUERIES:
            return kept(f"Fewer than {MIN_QUERIES} queries can't tell whether training helps")
        if self.capacity == CROSS:
            residual, scores, tested = self._crossed(useful, table, objective, progress)
            more = {}
        else:
            with one_thread():
                residual, scores, more = self._linear(table, objective)
            tested = table
        gain = pair_losses(tested.base, tested)[0] - pair_losses(scores, tested)[0]
        error = float(np.std(gain, ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else float("inf")
        found = _figures(tested, scores)
        more |= {"base": found.base, "after": found.after, "intervals": found.intervals}
        said = f"Held-out pairs are predicted better by {gain.mean():+.4f} ± {error:.4f} nats"
        if not gain.mean() > SURE * error:
            return kept(f"{said}, which is not enough", **more)
        self.residual, self.domain = residual, Domain.of(table)
        settings = {"capacity": self.capacity} if self._settings is None else asdict(self._settings)
        moves = self._moves(useful)
        return FitReport(
            **facts,
            **more,
            kept_base=False,
            reason=f"{said}.",
            settings={**settings, "loss": objective.loss, "anchor": self.anchor},
            kl=float(np.mean(np.minimum(moves, self.max_kl))),
            held_back=int((moves > self.max_kl).sum()),
        )

    def _linear(self, table: Table, objective: Objective) -> tuple[LinearResidual, np.ndarray, dict]:
        capacities = CAPACITIES if self.capacity == "auto" else (self.capacity,)
        scores = out_of_fold(table, objective, capacities, self.max_kl, self.seed)
        more = {}
        if objective.strength == LEARNED:
            more["reliability"] = reliabilities(table, quick_scores(table, replace(objective, strength=None)))
            objective = self._objective = resolved(objective, table, quick_scores)
        self._settings = choose(table, objective, capacities, self.max_kl, self.seed)
        if objective.first:
            more["first"] = self._first(table, objective, capacities)
        return train(table, objective, self._settings), scores, more

    def _first(self, table: Table, objective: Objective, capacities: Sequence[str]) -> Interval:
        """What a place is worth, beside the richest model of the taste: one that it misses pulls it to 0.

        Without s_0, which would be noise to it; similarity is among the inputs.
        """
        settings = Settings(capacities[-1], 1.0, RIDGES[-1])
        objective = replace(objective, anchor="reference")
        rich = train(table, objective, settings)
        w = np.append(rich.weights, rich.first)
        error = 1.96 * standard_errors(rich.inputs(table), table, objective, settings.ridge, w)[-1]
        low, high = float(rich.first - error), float(rich.first + error)
        return Interval(rich.first, low, high, len(set(table.queries)))

    def _crossed(self, rankings: list[Ranking], table: Table, objective: Objective, progress: bool):
        """Trained on four fifths of the queries, tested on the fifth: five trainings would take too long."""
        from ragkit.cross_residual import train_cross

        fold = folds_of(table.queries, FOLDS, self.seed)
        inside, outside = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
        known = table.take(inside)
        objective = resolved(objective, known, quick_scores).at(CROSS_BETA)
        settings = {"seed": self.seed, "progress": progress}
        chosen = [rankings[i] for i in inside]
        residual, domain = train_cross(self.encoder, chosen, known, objective, **settings), Domain.of(known)
        scores = []
        for i in outside:
            described = self._described(rankings[i])
            added = domain.trust(described) * residual.of(described)
            scores.append(bounded(added, base_scores(described), self.max_kl))
        return residual, np.concatenate(scores), table.take(outside)

    def update(self, ranking: Ranking) -> None:
        """Take in one more ranking: refit from the present weights, with the settings of the last fit.

        Where that fit kept the retriever, the ranking is only remembered; fit again now and then, which
        chooses anew. Raises ValueError before a first fit, after `load`, and for a cross-encoder.
        """
        if self._objective is None:
            raise ValueError(
                "update goes on with what fit(rankings) chose, and there was no fit since this was made"
            )
        if self.capacity == CROSS:
            raise ValueError("capacity='cross-encoder' has no update: it takes minutes to train; call fit")
        (ranking,) = checked([ranking])
        if sum(map(len, ranking.tiers)) < 2:
            return
        new = self._tabled([ranking], progress=False)
        table = new if self._table is None else Table.join([self._table, new])
        if self.residual is not None:
            old, settings = self.residual, self._settings
            start = np.append(old.weights, old.first)
            objective = self._objective.at(settings.beta)
            with one_thread():
                w = solve(old.inputs(table), table, objective, settings.ridge, start)
            self.residual = replace(old, weights=w[:-1], first=float(w[-1]))
            self.domain = Domain.of(table)
        self._table = table  # last, so that a ranking that fails changes nothing

    @property
    def seen(self) -> int:
        """How many rankings with a pair in them it was given."""
        return 0 if self._table is None else len(self._table)

    def information(self, query: str, passages: Sequence[Passage]) -> float:
        """How much a ranking of these would tell, in nats: ½ log det(I + H⁻¹ Σ β² p (1 − p) x xᵀ).

        H: the curvature of the loss so far, x: the difference of two documents' inputs, p: the probability
        that the first is preferred; the sum runs over the K documents' pairs, so divided that it counts
        K − 1 of them. It is the expected gain of D-optimal design for a logistic model.
        """
        if self.capacity == CROSS:
            raise ValueError("capacity='cross-encoder' can't tell what a ranking would teach it")
        described = self._describe(query, passages)
        settings = self._settings or UNTRAINED
        if self.residual is not None:
            inputs, weights = self.residual.inputs, self.residual.weights
        else:
            table = (
                self._table if self._table is not None else Table.of([_even(query, passages)], [described])
            )
            inputs = Inputs.of(settings.capacity, table)
            weights = np.zeros(len(inputs.names))
        values = inputs.of_one(described)
        scores = base_scores(described) + values @ weights
        a, b = np.triu_indices(len(passages), 1)
        known = None if self._table is None else (inputs(self._table), self._table)
        curvature = precision(known, weights, settings.beta, settings.ridge)
        x = values[a] - values[b]
        p = 1 / (1 + np.exp(-settings.beta * (scores[a] - scores[b])))
        told = (x * (2 / len(passages) * settings.beta**2 * p * (1 - p))[:, None]).T @ x
        return float(np.linalg.slogdet(np.eye(len(told)) + np.linalg.solve(curvature, told))[1] / 2)

    # Scoring

    def base(self, query: str, passages: Sequence[Passage]) -> np.ndarray:
        """s_0, (K,), in logits: what the retriever's encoder says."""
        return base_scores(self._describe(query, passages)) if len(passages) else np.zeros(0)

    def score(self, query: str, passages: Sequence[Passage]) -> np.ndarray:
        """s_0 + residual, (K,), in logits; within `max_kl` of s_0, and nearer where the documents are unlike
        those of training (`Domain`)."""
        if not len(passages):
            return np.zeros(0)
        described = self._describe(query, passages)
        base = base_scores(described)
        return base if self.residual is None else bounded(self._added(described), base, self.max_kl)

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """All of the hits, best first, with the reranker's scores; ranks from 1; equal ones keep order.

        Where no residual was fitted, the hits as they came, with the scores that they have.
        """
        hits = list(hits)
        if self.residual is None:
            _check_query(query)
            return ranked((hit.passage, hit.score) for hit in hits)
        scores = self.score(query, [hit.passage for hit in hits])
        order = np.argsort(-scores, kind="stable").tolist()
        return ranked((hits[i].passage, float(scores[i])) for i in order)

    def explain(self, query: str, hits: Sequence[Hit]) -> Explanation:
        """What each feature added to each of the hits' scores. Raises ValueError for no hits."""
        hits = list(hits)
        if not hits:
            raise ValueError("no hits, so there is nothing to explain")
        described = self._describe(query, [hit.passage for hit in hits])
        base = base_scores(described)
        parts, share = {}, 1.0
        scores = base
        if self.residual is not None:
            whole = self.residual.of(described)
            scores = bounded(self._added(described), base, self.max_kl)
            share = float((scores - base) @ whole / (whole @ whole)) if whole.any() else 1.0
            parts = {name: share * part for name, part in self.residual.parts(described).items()}
        after = np.empty(len(hits), dtype=int)
        after[np.argsort(-scores, kind="stable")] = np.arange(1, len(hits) + 1)
        return Explanation(query, hits, base - base.mean(), parts, share, after.tolist())

    # On disk

    def save(self, folder: str | Path) -> None:
        """Write what it takes to rerank, whole or not at all; the rankings stay where they are."""
        facts = {"encoder": self.encoder.name, "fingerprint": self.encoder.fingerprint}
        facts |= {"capacity": self.capacity, "anchor": self.anchor, "max_kl": self.max_kl, "seed": self.seed}
        facts |= {"settings": None if self._settings is None else asdict(self._settings)}
        facts["residual"], tensors = reranker_files.packed(self.residual, self.domain)
        reranker_files.save(folder, facts, tensors)

    @classmethod
    def load(cls, folder: str | Path, encoder) -> "Reranker":
        """A reranker as it was saved. `encoder` must be the one that it was trained with.

        Raises FileNotFoundError where none is, ValueError for a damaged one and another encoder.
        """
        facts, tensors = reranker_files.load(folder)
        if facts["fingerprint"] != encoder.fingerprint:
            raise ValueError(
                f"the reranker in {str(folder)!r} was trained with encoder {facts['encoder']!r}, and this is "
                f"{encoder.name!r} or another version of it: load that one, or train again"
            )
        settings = {name: facts[name] for name in ("anchor", "max_kl", "seed")}
        reranker = cls(encoder, facts["capacity"], **settings)
        reranker.residual, reranker.domain = reranker_files.unpacked(facts["residual"], tensors, encoder)
        reranker._settings = facts["settings"] and Settings(**facts["settings"])
        return reranker

    @property
    def fingerprint(self) -> str:
        """A sha256 that changes when any order could: encoder, residual, bound."""
        kind, tensors = reranker_files.packed(self.residual, self.domain)
        digest = hashlib.sha256(f"{self.encoder.fingerprint} {kind} {self.max_kl}".encode())
        for name in sorted(tensors):
            digest.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
        return digest.hexdigest()

    # The state

    def _tabled(self, rankings: Sequence[Ranking], progress: bool) -> Table:
        lists = [(ranking.query, [passage.full_text for passage in ranking.passages]) for ranking in rankings]
        return Table.of(rankings, describe_all(self.encoder, lists, progress=progress))

    def _described(self, ranking: Ranking) -> Described:
        return self._describe(ranking.query, ranking.passages)

    def _describe(self, query: str, passages: Sequence[Passage]) -> Described:
        _check_query(query)
        return describe(self.encoder, query, [passage.full_text for passage in passages])

    def _added(self, described: Described) -> np.ndarray:
        return self.domain.trust(described) * self.residual.of(described)

    def _moves(self, rankings: Sequence[Ranking]) -> np.ndarray:
        described = [self._described(ranking) for ranking in rankings]
        return np.array([kl_from_base(self._added(one), base_scores(one)) for one in described])


def _check_query(query: str) -> None:
    if not isinstance(query, str) or not query.strip():
        raise ValueError(f"query={query!r}: a question, as a string that is not empty")


def checked(rankings) -> list[Ranking]:
    """The rankings of a log, or of a list, each of which must be one. Raises TypeError with its index."""
    if isinstance(rankings, Ranking):
        raise TypeError("rankings is one Ranking, not a list of them: [ranking]")
    rankings = list(rankings.rankings() if hasattr(rankings, "rankings") else rankings)
    for index, ranking in enumerate(rankings):
        if not isinstance(ranking, Ranking):
            raise TypeError(f"rankings[{index}] is a {type(ranking).__name__}, not a Ranking")
        if not ranking.query.strip():
            raise ValueError(f"rankings[{index}] has an empty query")
    return rankings


def _even(query: str, passages: Sequence[Passage]) -> Ranking:
    return Ranking(query, list(passages), [list(range(len(passages)))])


def _figures(table: Table, scores: np.ndarray):
    """Base and after by the tiers of the table's own rankings."""
    parts = np.split(np.arange(len(table.base)), table.starts[1:])
    gains = np.where(table.ranks < 0, np.nan, -table.ranks.astype(float))
    columns = [[column[part] for part in parts] for column in (table.base, scores, gains)]
    return compare(*columns, table.queries)
