"""How well scores order what people ranked: base beside after, the learning curve, interleaving."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ragkit.evaluation.measures import Interval, PerQuery, evaluate, paired_interval
from ragkit.preferences.judgements import Ranking
from ragkit.retrieval.corpus import Hit

Lists = Sequence[np.ndarray]  # (K,) for each list of K documents
MEASURES = ("nDCG@3", "nDCG@10", "MRR", "pair accuracy", "Kendall τ")


@dataclass(frozen=True)
class Gain:
    """Base and after, by measure: the means, and the difference with its interval over queries."""

    base: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [f"{'':14}  base  after  difference"]
        for name, interval in self.intervals.items():
            rows.append(f"{name:14} {self.base[name]:5.3f}  {self.after[name]:5.3f}  {interval}")
        return "\n".join(rows)


def measure(scores: Lists, gains: Lists, queries: Sequence[str]) -> dict[str, PerQuery]:
    """Each measure by query, lists of one query averaged: {measure: {query: value}}.

    `scores` and `gains`: (K,) for each list; a NaN gain is a document that was not judged, and is left out.
    nDCG has linear gain (what is added to the worst document's grade), as trec_eval computes it; MRR looks
    for the first of the best documents; pair accuracy counts equal scores half; Kendall's is τ_b. A list in
    which all documents tie says nothing and is left out.
    """
    from scipy.stats import kendalltau

    values: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in MEASURES}
    runs, qrels, best = {}, {}, {}
    for n, (score, gain) in enumerate(zip(scores, gains)):
        known = ~np.isnan(gain)
        score, gain = np.asarray(score, dtype=float)[known], np.asarray(gain, dtype=float)[known]
        if not len(gain) or gain.min() == gain.max():
            continue
        levels = np.unique(gain, return_inverse=True)[1] if (gain % 1).any() else gain - gain.min()
        order = np.argsort(-score, kind="stable")
        runs[str(n)] = {str(i): -float(place) for place, i in enumerate(order)}
        qrels[str(n)] = {str(i): int(level) for i, level in enumerate(levels)}
        best[str(n)] = {str(i): int(level == levels.max()) for i, level in enumerate(levels)}
        apart = (score[:, None] - score)[gain[:, None] > gain]
        tau = kendalltau(score, gain).statistic
        pairs = float(np.mean((apart > 0) + 0.5 * (apart == 0)))
        values["pair accuracy"][queries[n]].append(pairs)
        values["Kendall τ"][queries[n]].append(0.0 if np.isnan(tau) else float(tau))
    if runs:
        by_list = evaluate(runs, qrels, ("nDCG@3", "nDCG@10")) | {"MRR": evaluate(runs, best, ("RR",))["RR"]}
        for name, of_list in by_list.items():
            for n, value in of_list.items():
                values[name][queries[int(n)]].append(value)
    return {name: PerQuery({q: float(np.mean(v)) for q, v in rows.items()}) for name, rows in values.items()}


def compare(base: Lists, after: Lists, gains: Lists, queries: Sequence[str]) -> Gain:
    """Two ways to score the same lists. Empty where fewer than two queries say anything."""
    before, then = measure(base, gains, queries), measure(after, gains, queries)
    if len(before["MRR"]) < 2:
        return Gain()
    means = ({name: found[name].mean for name in MEASURES} for found in (before, then))
    return Gain(*means, {name: paired_interval(before[name], then[name]) for name in MEASURES})


def compare_on(reranker, rankings: Sequence[Ranking], gains: Lists | None = None) -> Gain:
    """The retriever and `reranker` on rankings that it was not fitted on; `gains`: by the rankings' tiers.

    The retriever's order is that of the rankings' `search_scores`, where they have them.
    """
    gains = [gains_of(ranking) for ranking in rankings] if gains is None else gains
    asked = [(one.query, one.passages, one.search_scores) for one in rankings]
    base = [reranker.base(*one) for one in asked]
    after = [reranker.score(*one) for one in asked]
    return compare(base, after, gains, [ranking.query for ranking in rankings])


def gains_of(ranking: Ranking) -> np.ndarray:
    """(K,): how many tiers lie below a document's own; NaN where it was not judged."""
    tiers = len(ranking.tiers)
    return np.array([np.nan if rank is None else tiers - 1.0 - rank for rank in ranking.ranks])


def learning_curve(
    make: Callable[[], object],
    rankings: Sequence[Ranking],
    held_out: Sequence[Ranking],
    sizes: Sequence[int],
    *,
    draws: int = 5,
    gains: Lists | None = None,
    seed: int = 0,
) -> dict[int, list[Gain]]:
    """What `make()` reaches on `held_out` after so many rankings: `draws` gains for each size.

    Each draw takes the rankings in another order. Raises ValueError for a size beyond the rankings there are.
    """
    if max(sizes) > len(rankings):
        raise ValueError(f"size {max(sizes)}: there are {len(rankings)} rankings")
    curve: dict[int, list[Gain]] = {size: [] for size in sizes}
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(rankings))
        for size in sizes:
            reranker = make()
            reranker.fit([rankings[i] for i in order[:size]], progress=False)
            curve[size].append(compare_on(reranker, held_out, gains))
    return curve


@dataclass(frozen=True)
class Interleaved:
    """One list made of two, to see on which people click: `hits`, ranks from 1, and the side that each came
    from, "base" or "after"."""

    hits: list[Hit]
    teams: list[str]

    def credit(self, clicked: Iterable[int]) -> int:
        """+1 where more of the clicked hits (indices from 0) came from "after", −1 from "base", 0 even."""
        teams = [self.teams[index] for index in clicked]
        difference = teams.count("after") - teams.count("base")
        return (difference > 0) - (difference < 0)


def team_draft(
    base: Sequence[Hit], after: Sequence[Hit], k: int | None = None, *, seed: int | None = None
) -> Interleaved:
    """Interleave two rankings of one query (Radlinski, Kurup and Joachims, CIKM 2008).

    In each round a coin decides who picks first; each side picks its best document that is not there yet.
    Documents are the same where their ids are. `k`: how many to show, by default all. `seed`: of the coin;
    without one it falls by the documents' ids, so that it falls otherwise for other lists.
    """
    sides = {"base": list(base), "after": list(after)}
    names = [hit.passage.id for hits in sides.values() for hit in hits]
    coin = random.Random("\0".join(names) if seed is None else seed)
    left = set(names)
    size = len(left) if k is None else min(k, len(left))
    made = Interleaved([], [])
    while len(made.hits) < size:
        order = list(sides)
        coin.shuffle(order)
        for team in order:
            best = next((hit for hit in sides[team] if hit.passage.id in left), None)
            if best is not None and len(made.hits) < size:
                left.remove(best.passage.id)
                made.hits.append(Hit(best.passage, best.score, len(made.hits) + 1))
                made.teams.append(team)
    return made


def preference(credits: Sequence[int]) -> Interval:
    """The share of decided queries that "after" won, minus ½, with a 95 % Wilson interval.

    Raises ValueError where no query decided.
    """
    from scipy.stats import binomtest

    wins, losses = sum(credit > 0 for credit in credits), sum(credit < 0 for credit in credits)
    if not wins + losses:
        raise ValueError(f"none of {len(credits)} queries decided between the two")
    share = binomtest(wins, wins + losses).proportion_ci(method="wilson")
    low, high = float(share.low) - 0.5, float(share.high) - 0.5
    return Interval(wins / (wins + losses) - 0.5, low, high, wins + losses)
