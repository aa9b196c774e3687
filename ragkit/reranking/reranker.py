"""A reranker, trained on people's rankings: it starts as the retriever, and stays it where nothing helps."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ragkit.evaluation.rankings import compare
from ragkit.losses.strengths import Strength
from ragkit.preferences.judgements import Ranking
from ragkit.reranking.features import NAMES, Described, describe, describe_all
from ragkit.reranking.guard import Domain, kl_from_base
from ragkit.reranking.linear import CAPACITIES, LinearResidual, one_thread, solve
from ragkit.reranking.objective import ANCHORS, Objective
from ragkit.reranking.report import Explanation, FitReport, explain
from ragkit.reranking.selection import Fitted, Settings, fit_linear, pair_losses
from ragkit.reranking.table import Table, base_scores
from ragkit.retrieval.corpus import Hit, Passage, check_query, ranked
from ragkit.retrieval.storage import digest, load_tensors, save_tensors

CROSS = "cross-encoder"
MIN_QUERIES = 10  # with fewer, nothing can be held out with any meaning
SURE = 1.0  # standard errors by which held-out pairs must be predicted better than by the retriever
KIND = {"format": "ragkit-reranker", "version": 1}  # of a file


class Reranker:
    """score = s_0 + residual: the retriever's cosine in logits, and what people's rankings add to it.

    `capacity`: "features", "embeddings", "auto", which lets the rankings choose between these two, or
    "cross-encoder". `anchor`: "offset" or "reference", see `objective.py`. `max_kl`: how far a query's
    candidates may move from the retriever, in nats. Raises ValueError for another capacity or anchor, and a
    `max_kl` below 0.
    """

    def __init__(
        self, encoder, capacity: str = "auto", *, anchor: str = "offset", max_kl: float = 2.0, seed: int = 0
    ):
        if capacity not in (*CAPACITIES, CROSS, "auto"):
            raise ValueError(f"capacity={capacity!r}: one of {', '.join((*CAPACITIES, CROSS))}, auto")
        if anchor not in ANCHORS:
            raise ValueError(f"anchor={anchor!r}: one of {', '.join(ANCHORS)}")
        if not max_kl >= 0:
            raise ValueError(f"max_kl={max_kl}: a number of nats, 0 or more")
        self.encoder, self.capacity, self.anchor = encoder, capacity, anchor
        self.max_kl, self.seed = float(max_kl), seed
        self.fitted = Fitted()

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
        rankings = _checked(rankings)
        useful = [ranking for ranking in rankings if sum(map(len, ranking.tiers)) > 1]
        first = any(ranking.shown_order is not None for ranking in useful)
        objective = Objective(loss, strength, weight, offset, anchor=self.anchor, first=first)
        report = FitReport(len(useful), len({ranking.query for ranking in useful}), kept_base=True)
        if not useful:
            self.fitted = Fitted(objective)
            return report.kept(f"Of {len(rankings)} rankings none has two judged documents")
        # Set at the end: a fit that fails, or is stopped, leaves what there was.
        self.fitted, report = self._fit(useful, objective, report, progress)
        return report

    def _fit(
        self, rankings: list[Ranking], objective: Objective, report: FitReport, progress: bool
    ) -> tuple[Fitted, FitReport]:
        described = self._described(rankings, progress)
        table = Table.build(rankings, described)
        objective(table, table.base)  # bad knobs fail here, and are named
        base = Fitted(objective, table)
        if (table.pairs.target == 0.5).all():
            return base, report.kept("Nobody preferred one document to another")
        if report.queries < MIN_QUERIES:
            return base, report.kept(f"Fewer than {MIN_QUERIES} queries can't tell whether training helps")
        if self.capacity == CROSS:
            from ragkit.reranking.cross_encoder import fit_cross

            fitted, tested, scores = fit_cross(
                self.encoder, rankings, described, base, max_kl=self.max_kl, seed=self.seed, progress=progress
            )
        else:
            capacities = CAPACITIES if self.capacity == "auto" else (self.capacity,)
            with one_thread():
                fitted, scores, more = fit_linear(base, capacities, self.max_kl, self.seed)
            tested, report = table, replace(report, **more)
        gain = pair_losses(tested.base, tested)[0] - pair_losses(scores, tested)[0]
        error = float(np.std(gain, ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else float("inf")
        # By the tiers of the table's own rankings.
        gains = np.where(tested.ranks < 0, np.nan, -tested.ranks.astype(float))
        lists = [np.split(column, tested.starts[1:]) for column in (tested.base, scores, gains)]
        report = replace(report, **vars(compare(*lists, tested.queries)))
        reason = f"Held-out pairs are predicted better by {gain.mean():+.4f} ± {error:.4f} nats"
        if not gain.mean() > SURE * error:
            return replace(fitted, residual=None, domain=None), report.kept(f"{reason}, which is not enough")
        fitted = replace(fitted, domain=Domain.fit(table))
        moves = np.array([kl_from_base(fitted.added(one), base_scores(one)) for one in described])
        settings = asdict(fitted.settings) if fitted.settings else {"capacity": self.capacity}
        settings |= {"loss": objective.loss, "anchor": self.anchor}
        kl, held_back = float(np.minimum(moves, self.max_kl).mean()), int((moves > self.max_kl).sum())
        report = replace(report, reason=f"{reason}.", settings=settings, kl=kl, held_back=held_back)
        return fitted, replace(report, kept_base=False)

    def update(self, ranking: Ranking) -> None:
        """Take in one more ranking: refit from the present weights, with the settings of the last fit.

        Where that fit kept the retriever, the ranking is only remembered; fit again now and then, which
        chooses anew. Raises ValueError before a first fit, after `load`, and for a cross-encoder.
        """
        fitted = self.fitted
        if fitted.objective is None:
            raise ValueError("update goes on with what fit(rankings) chose, and there was no fit yet")
        if self.capacity == CROSS:
            raise ValueError("capacity='cross-encoder' has no update: it takes minutes to train; call fit")
        (ranking,) = _checked([ranking])
        if sum(map(len, ranking.tiers)) < 2:
            return
        new = Table.build([ranking], self._described([ranking], progress=False))
        table = new if fitted.table is None else Table.join([fitted.table, new])
        if residual := fitted.residual:
            objective = fitted.objective.at(fitted.settings.beta)
            start = np.append(residual.weights, residual.first)
            with one_thread():
                w = solve(residual.inputs(table), table, objective, fitted.settings.ridge, start)
            residual = replace(residual, weights=w[:-1], first=float(w[-1]))
            fitted = replace(fitted, residual=residual, domain=Domain.fit(table))
        self.fitted = replace(fitted, table=table)

    @property
    def seen(self) -> int:
        """How many rankings with a pair in them it was given."""
        return 0 if self.fitted.table is None else len(self.fitted.table)

    # Scoring

    def base(self, query: str, passages: Sequence[Passage]) -> np.ndarray:
        """s_0, (K,), in logits: what the retriever's encoder says."""
        return base_scores(self.describe(query, passages)) if len(passages) else np.zeros(0)

    def score(self, query: str, passages: Sequence[Passage]) -> np.ndarray:
        """s_0 + residual, (K,), in logits; within `max_kl` of s_0, and nearer where the documents are unlike
        those of training (`Domain`)."""
        if not len(passages):
            return np.zeros(0)
        return self.fitted.scores(self.describe(query, passages), self.max_kl)

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """All of the hits, best first, with the reranker's scores; ranks from 1; equal ones keep order.

        Where no residual was fitted, the hits as they came, with the scores that they have.
        """
        hits = list(hits)
        if self.fitted.residual is None:
            check_query(query)
            return ranked((hit.passage, hit.score) for hit in hits)
        scores = self.score(query, [hit.passage for hit in hits])
        order = np.argsort(-scores, kind="stable").tolist()
        return ranked((hits[i].passage, float(scores[i])) for i in order)

    def explain(self, query: str, hits: Sequence[Hit]) -> Explanation:
        """What each feature added to each of the hits' scores. Raises ValueError for no hits."""
        hits = list(hits)
        if not hits:
            raise ValueError("no hits, so there is nothing to explain")
        described, residual = self.describe(query, [hit.passage for hit in hits]), self.fitted.residual
        parts = residual.parts(described) if residual else {}
        return explain(query, hits, base_scores(described), parts, self.fitted.scores(described, self.max_kl))

    def describe(self, query: str, passages: Sequence[Passage]) -> Described:
        """What it knows of these documents. Raises ValueError for an empty query."""
        check_query(query)
        return describe(self.encoder, query, [passage.full_text for passage in passages])

    # On disk

    def save(self, path: str | Path) -> None:
        """Write what it takes to rerank, and no ranking, as one safetensors file, whole or not at all.

        The file is `path`, or, where that is a folder, `reranker.safetensors` in it.
        """
        settings = self.fitted.settings and asdict(self.fitted.settings)
        facts = {"encoder": self.encoder.name, "fingerprint": self.encoder.fingerprint, "features": NAMES}
        facts |= {"capacity": self.capacity, "anchor": self.anchor, "max_kl": self.max_kl, "seed": self.seed}
        save_tensors(_file(path), KIND, facts | {"settings": settings}, self.fitted.tensors())

    @classmethod
    def load(cls, path: str | Path, encoder) -> "Reranker":
        """A reranker as it was saved. `encoder` must be the one that it was trained with.

        Raises FileNotFoundError where none is, ValueError for a damaged one and another encoder.
        """
        path = _file(path)
        if not path.is_file():
            raise FileNotFoundError(f"no reranker in {str(path)!r} (Reranker.save makes one)")
        facts, tensors = load_tensors(path, KIND, "train it again")
        if facts["fingerprint"] != encoder.fingerprint:
            raise ValueError(
                f"the reranker in {str(path)!r} was trained with encoder {facts['encoder']!r}, and this is "
                f"{encoder.name!r} or another version of it: load that one, or train again"
            )
        if facts["features"] != list(NAMES):
            raise ValueError(f"{path} weighs other features than this ragkit knows: train it again")
        reranker = cls(encoder, **{name: facts[name] for name in ("capacity", "anchor", "max_kl", "seed")})
        kind = LinearResidual
        if reranker.capacity == CROSS:
            from ragkit.reranking.cross_encoder import CrossResidual as kind
        settings = facts["settings"] and Settings(**facts["settings"])
        reranker.fitted = Fitted.from_tensors(kind, encoder, settings, tensors)
        return reranker

    @property
    def fingerprint(self) -> str:
        """A sha256 that changes when any order could: encoder, residual, bound."""
        return digest({"encoder": self.encoder.fingerprint, "max_kl": self.max_kl}, self.fitted.tensors())

    def _described(self, rankings: Sequence[Ranking], progress: bool) -> list[Described]:
        lists = [(ranking.query, [passage.full_text for passage in ranking.passages]) for ranking in rankings]
        return describe_all(self.encoder, lists, progress=progress)


def fit_each(make: Callable[[], Reranker], rankings: Sequence[Ranking], **settings) -> dict[str, tuple]:
    """One reranker for each annotator: {annotator: (reranker, report)}; `make()` gives a new one."""
    rankings = _checked(rankings)
    found = {}
    for name in sorted({ranking.annotator for ranking in rankings}):
        reranker = make()
        report = reranker.fit([one for one in rankings if one.annotator == name], **settings)
        found[name] = reranker, report
    return found


def _checked(rankings) -> list[Ranking]:
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


def _file(path: str | Path) -> Path:
    path = Path(path).expanduser()
    return path / "reranker.safetensors" if path.is_dir() else path
