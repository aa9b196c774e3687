"""A reranker, trained on people's rankings: it starts as the retriever, and goes as far as they are sure."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ragkit.evaluation.rankings import compare
from ragkit.losses.data_parallel import is_main, processes
from ragkit.losses.strengths import Strength
from ragkit.preferences.judgements import Ranking
from ragkit.reranking.features import NAMES, Described, describe, describe_together
from ragkit.reranking.guard import error_and_harm, kl_from_base
from ragkit.reranking.linear import CAPACITIES, LinearResidual, one_thread
from ragkit.reranking.objective import ANCHORS, Objective
from ragkit.reranking.prior import PEOPLE, people
from ragkit.reranking.report import Explanation, FitReport, explain
from ragkit.reranking.selection import Fitted, Settings, fit_linear, pair_losses, renewed
from ragkit.reranking.shown_place import shown_first
from ragkit.reranking.table import Table, as_found, base_scores
from ragkit.retrieval.corpus import Hit, Passage, check_hits, check_query, ranked
from ragkit.retrieval.storage import digest, load_tensors, save_tensors

CROSS = "cross-encoder"
MIN_QUERIES = 5  # with fewer, not even one can be held out in each fold
KIND = {"format": "ragkit-reranker", "version": 2}  # of a file
SAVED = ("capacity", "prior", "anchor", "max_kl", "seed")
MAX_KL = 0.7  # nats


class Reranker:
    """score = s_0 + residual: the retriever's cosine in logits, and what people's rankings add to it.

    `capacity`: "features", "embeddings", "auto", which averages these two by their evidence, or
    "cross-encoder". `prior="people"`: before the first ranking, weights of features that other people's
    rankings have in common (`PEOPLE`), which own ones outweigh as they grow; None starts as the retriever.
    `anchor`: "offset" or "reference", see `objective.py`. `max_kl`: how far a query's candidates may move
    from the retriever, in nats. Raises ValueError for another capacity, prior or anchor, and a `max_kl`
    below 0.
    """

    def __init__(
        self,
        encoder,
        capacity: str = "auto",
        *,
        prior: str | None = None,
        anchor: str = "offset",
        max_kl: float = MAX_KL,
        seed: int = 0,
    ):
        if capacity not in (*CAPACITIES, CROSS, "auto"):
            raise ValueError(f"capacity={capacity!r}: one of {', '.join((*CAPACITIES, CROSS))}, auto")
        if prior not in (None, "people"):
            raise ValueError(f'prior={prior!r}: "people", or None to start as the retriever')
        if anchor not in ANCHORS:
            raise ValueError(f"anchor={anchor!r}: one of {', '.join(ANCHORS)}")
        if not isinstance(max_kl, int | float | np.number) or not max_kl >= 0:
            raise ValueError(f"max_kl={max_kl!r}: a number of nats, 0 or more")
        self.encoder, self.capacity, self.prior, self.anchor = encoder, capacity, prior, anchor
        self.max_kl, self.seed = float(max_kl), seed
        self.fitted = Fitted(prior=prior is not None)

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
        as far as the others' pairs and their own are predicted. Models of several capacities, β and priors
        are averaged by their evidence, the retriever among them, so that a weak signal moves little and a
        strong one much. The figures of the report are of models that did not see a query. The retriever is
        kept where they show a harm, not where they don't show a gain yet. What was shown first is fitted as
        an offset where shown orders are known.

        Under `accelerate launch` each process runs this on the same rankings. What takes time, documents that
        are read and the cross-encoder's steps, is divided by whole lists; the linear fit, of seconds, is not.
        Raises TypeError for what is no Ranking, ValueError for settings that don't fit.
        """
        rankings = _checked(rankings)
        useful = [ranking for ranking in rankings if sum(map(len, ranking.tiers)) > 1]
        first = any(ranking.shown_order is not None for ranking in useful)
        objective = Objective(loss, strength, weight, offset, anchor=self.anchor, first=first)
        report = FitReport(len(useful), len({ranking.query for ranking in useful}), kept_base=True)
        if not useful:
            self.fitted = Fitted(objective, prior=self.fitted.prior)
            return report.kept(f"Of {len(rankings)} rankings none has two judged documents")
        # Set at the end: a fit that fails, or is stopped, leaves what there was.
        with (group := processes()).together():
            self.fitted, report = self._fit(useful, objective, report, group, progress)
        return report

    def _fit(
        self, rankings: list[Ranking], objective: Objective, report: FitReport, group, progress: bool
    ) -> tuple[Fitted, FitReport]:
        settings = [objective.loss, self.encoder.fingerprint, *(getattr(self, name) for name in SAVED)]
        group.refuse_others("rankings or settings", rankings, settings)
        lists = [(ranking.query, [passage.full_text for passage in ranking.passages]) for ranking in rankings]
        described = describe_together(group, self.encoder, lists, progress=progress)
        table = self._table(rankings, described)
        objective(table, table.before)  # bad knobs fail here, and are named
        base = Fitted(objective, (table,), prior=self.fitted.prior)
        if (table.pairs.target == 0.5).all():
            return base, report.kept("Nobody preferred one document to another")
        if objective.first:
            with one_thread():
                first, unknown = shown_first(table)
            report = replace(report, first=first, first_unknown=unknown)
        if report.queries < MIN_QUERIES:
            return base, report.kept(f"Fewer than {MIN_QUERIES} queries can't tell whether training helps")
        if self.capacity == CROSS:
            from ragkit.reranking.cross_encoder import fit_cross

            fitted, tested, scores, share = fit_cross(
                self.encoder, rankings, described, base, self.max_kl, self.seed, group, progress
            )
            report = replace(report, share=share)
        else:
            capacities = CAPACITIES if self.capacity == "auto" else (self.capacity,)
            with one_thread():
                fitted, scores, more = fit_linear(base, capacities, self.max_kl, self.seed)
            tested, report = table, replace(report, **more)
        gain = pair_losses(tested.base, tested)[0] - pair_losses(scores, tested)[0]
        error, harm = error_and_harm(gain)
        # By the tiers of the table's own rankings; from the order in which people found the documents.
        gains = np.where(tested.ranks < 0, np.nan, -tested.ranks.astype(float))
        after = tested.found + scores - tested.base
        lists = [np.split(column, tested.starts[1:]) for column in (tested.found, after, gains)]
        report = replace(report, **vars(compare(*lists, tested.queries)))
        if fitted.residual is None:
            return fitted, report.kept("The rankings say nothing that the retriever does not")
        said = f"Held-out pairs are predicted better by {gain.mean():+.4f} ± {error:.4f} nats"
        if harm:
            return replace(fitted, residual=None, domain=None), report.kept(f"{said}: a harm")
        own = group.share([len(one.texts) for one in described])
        some = [np.array([kl_from_base(fitted.added(described[n]), base_scores(described[n]))]) for n in own]
        moves = np.concatenate(group.lists(own, some, [1] * len(described), np.zeros(0)))
        settings = asdict(fitted.settings) if fitted.settings else {"capacity": self.capacity}
        settings |= {"loss": objective.loss, "anchor": self.anchor}
        kl, held_back = float(np.minimum(moves, self.max_kl).mean()), int((moves > self.max_kl).sum())
        said = f"{report.share:.0%} of what they seem to say is believed. {said}."
        facts = {"settings": settings, "kl": kl, "held_back": held_back}
        return fitted, replace(report, reason=said, kept_base=False, **facts)

    def update(self, ranking: Ranking) -> None:
        """Take in one more ranking: go on from the present weights, with the models of the last fit.

        Where nothing was learned then, the ranking is only remembered; fit again now and then, which weighs
        the models anew. Raises ValueError before a first fit, after `load`, and for a cross-encoder.
        """
        if self.fitted.objective is None:
            raise ValueError("update goes on with what fit(rankings) chose, and there was no fit yet")
        if self.capacity == CROSS:
            raise ValueError("capacity='cross-encoder' has no update: it takes minutes to train; call fit")
        (ranking,) = _checked([ranking])
        if sum(map(len, ranking.tiers)) < 2:
            return
        new = self._table([ranking], [self.describe(ranking.query, ranking.passages)])
        with one_thread():
            self.fitted = renewed(self.fitted, new, self.seed)

    @property
    def seen(self) -> int:
        """How many rankings with a pair in them it was given."""
        return sum(map(len, self.fitted.tables))

    # Scoring

    def base(
        self, query: str, passages: Sequence[Passage], scores: Sequence[float] | None = None
    ) -> np.ndarray:
        """s_0, (K,), in logits: the encoder's cosines; with `scores`, (K,), by which the passages were found,
        in the order of these (`as_found`)."""
        return as_found(base_scores(self.describe(query, passages)), scores) if len(passages) else np.zeros(0)

    def score(
        self, query: str, passages: Sequence[Passage], scores: Sequence[float] | None = None
    ) -> np.ndarray:
        """s_0 + residual, (K,), in logits; within `max_kl` of s_0, and nearer where question and documents
        are unlike those of training (`Domain`). `scores`: as for `base`."""
        if not len(passages):
            return np.zeros(0)
        described = self.describe(query, passages)
        return self.fitted.scores(described, self.max_kl, as_found(base_scores(described), scores))

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """All of the hits, best first, with the reranker's scores; ranks from 1; equal ones keep order.

        It starts from the order of the hits' own scores, whatever search gave them: a little that was learned
        moves them a little. Where nothing was, nor given by a prior, the hits as they came.
        """
        hits = check_hits(hits)
        if self.fitted.residual is None and not self.fitted.prior:
            check_query(query)
            return ranked((hit.passage, hit.score) for hit in hits)
        scores = self.score(query, [hit.passage for hit in hits], [hit.score for hit in hits])
        order = np.argsort(-scores, kind="stable").tolist()
        return ranked((hits[i].passage, float(scores[i])) for i in order)

    def explain(self, query: str, hits: Sequence[Hit]) -> Explanation:
        """What each feature added to each of the hits' scores. Raises ValueError for no hits."""
        if not (hits := list(hits)):
            raise ValueError("no hits, so there is nothing to explain")
        described = self.describe(query, [hit.passage for hit in hits])
        base = as_found(base_scores(described), [hit.score for hit in hits])
        scores = self.fitted.scores(described, self.max_kl, base)
        return explain(query, hits, base, self.fitted.parts(described), scores)

    def describe(self, query: str, passages: Sequence[Passage]) -> Described:
        """What it knows of these documents. Raises ValueError for an empty query."""
        check_query(query)
        return describe(self.encoder, query, [passage.full_text for passage in passages])

    # On disk

    def save(self, path: str | Path) -> None:
        """Write what it takes to rerank, and no ranking, as one safetensors file, whole or not at all.

        The file is `path`, or, where that is a folder, `reranker.safetensors` in it. Of several processes the
        main one writes, and none waits for it.
        """
        if not is_main():
            return
        settings = self.fitted.settings and asdict(self.fitted.settings)
        facts = {"encoder": self.encoder.name, "fingerprint": self.encoder.fingerprint, "features": NAMES}
        facts |= {name: getattr(self, name) for name in SAVED} | {"people": PEOPLE if self.prior else None}
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
        if missing := {"encoder", "fingerprint", "features", "people", "settings", *SAVED} - facts.keys():
            raise ValueError(f"{path} is damaged: it lacks {min(missing)!r}; train it again")
        if facts["fingerprint"] != encoder.fingerprint:
            raise ValueError(
                f"the reranker in {str(path)!r} was trained with encoder {facts['encoder']!r}, and this is "
                f"{encoder.name!r} or another version of it: load that one, or train again"
            )
        if facts["features"] != list(NAMES):
            raise ValueError(f"{path} weighs other features than this ragkit knows: train it again")
        reranker = cls(encoder, **{name: facts[name] for name in SAVED})
        if reranker.prior and facts["people"] != {name: list(pair) for name, pair in PEOPLE.items()}:
            raise ValueError(f"{path} starts from another prior than this ragkit's: train it again")
        kind = LinearResidual
        if reranker.capacity == CROSS:
            from ragkit.reranking.cross_encoder import CrossResidual as kind
        try:
            settings = facts["settings"] and Settings(**facts["settings"])
            reranker.fitted = Fitted.from_tensors(kind, encoder, settings, reranker.fitted.prior, tensors)
            reranker.score("?", [Passage("", "")] * 2)  # shapes that don't fit show here, not at a question
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}); train it again") from error
        return reranker

    @property
    def fingerprint(self) -> str:
        """A sha256 that changes when any order could: encoder, prior, residual, bound."""
        facts = {"encoder": self.encoder.fingerprint, "max_kl": self.max_kl}
        return digest(facts | {"people": PEOPLE if self.prior else None}, self.fitted.tensors())

    def _table(self, rankings: Sequence[Ranking], described: Sequence[Described]) -> Table:
        return Table.build(rankings, described, people if self.fitted.prior else None)


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
