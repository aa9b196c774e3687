"""Pairs to train on: the table, and how rankings and comparisons become rows of it."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, count
from operator import itemgetter

import numpy as np

from ragkit.preferences.judgements import Comparison, Feedback, Ranking

UNKNOWN = np.nan


@dataclass(frozen=True, eq=False)
class Pairs:
    """One row a pair, as columns: y⁺ in `chosen`, y⁻ in `rejected`, and what a strength may look at.

    `group` numbers the query that a pair is about, (P,); without it equal queries make a group. `judgement`
    numbers the ranking or comparison that it comes from; without it all that one annotator said on a query is
    one. `target`: the probability that y⁺ is the better one (1 unless given, 0.5 for a tie). The rest is NaN
    (or "") where it is not known: the two documents' indices into the ranking's passages; the tiers in which
    they were ranked and the places at which they were shown, both from 0; `rating`, how strongly y⁺ was
    preferred (1 slightly, 2 clearly, 3 much); grades and rewards of the two; who judged. Raises ValueError
    for a column of another length and a target outside 0 … 1.
    """

    query: list[str]
    chosen: list[str]
    rejected: list[str]
    group: np.ndarray | None = None
    judgement: np.ndarray | None = None
    target: np.ndarray | float = 1.0
    chosen_index: np.ndarray | float = UNKNOWN
    rejected_index: np.ndarray | float = UNKNOWN
    chosen_rank: np.ndarray | float = UNKNOWN
    rejected_rank: np.ndarray | float = UNKNOWN
    chosen_position: np.ndarray | float = UNKNOWN
    rejected_position: np.ndarray | float = UNKNOWN
    rating: np.ndarray | float = UNKNOWN
    chosen_grade: np.ndarray | float = UNKNOWN
    rejected_grade: np.ndarray | float = UNKNOWN
    chosen_reward: np.ndarray | float = UNKNOWN
    rejected_reward: np.ndarray | float = UNKNOWN
    annotator: list[str] | str = ""

    def __post_init__(self):
        size = len(self.query)
        put = object.__setattr__  # the only place that sets them
        if self.group is None:
            put(self, "group", _numbered(self.query))
        if self.judgement is None:
            names = [self.annotator] * size if isinstance(self.annotator, str) else self.annotator
            put(self, "judgement", _numbered(zip(list(self.group), names)))
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name in ("query", "chosen", "rejected", "annotator"):
                value = [value] * size if isinstance(value, str) and name == "annotator" else list(value)
            else:
                value = np.asarray(value, dtype=np.int64 if name in ("group", "judgement") else np.float64)
                value = np.full(size, value) if value.ndim == 0 else value
            if len(value) != size:
                raise ValueError(f"{name} has {len(value)} rows, query has {size}")
            put(self, name, value)
        for row in np.flatnonzero(~((self.target >= 0) & (self.target <= 1))):
            raise ValueError(f"pair {row}: target {self.target[row]:g} is not a probability")

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, rows) -> "Pairs":
        """Some of the rows: a slice, a mask or indices, (P,) or (n,). Their numbers stay as they are."""
        rows = np.arange(len(self))[rows]
        if rows.ndim == 0:
            raise TypeError("pairs are columns: take rows by a slice, a mask or indices")
        kept = {}
        for name in (field.name for field in fields(self)):
            column = getattr(self, name)
            kept[name] = [column[row] for row in rows] if isinstance(column, list) else column[rows]
        return Pairs(**kept)


def pairs_of(judgements: Iterable[Ranking | Comparison | Feedback]) -> Pairs:
    """One row for each two judged documents of a ranking, one for each comparison of answers, and one for
    each two answers to one query of which one got a thumb up and the other a thumb down.

    Two of one tier, and a rating of 0, are a tie: target 0.5, and strengths give ties one of their own. One
    group for each query: pairs of one ranking are not independent, so split and resample by group.
    """
    judgements = list(judgements)
    disliked: dict[str, list[Feedback]] = {}
    for judgement in judgements:
        if isinstance(judgement, Feedback) and not judgement.good:
            disliked.setdefault(judgement.query, []).append(judgement)
    rows: list[dict] = []
    for judgement, number, group in zip(judgements, count(), _numbered(j.query for j in judgements)):
        of = {"query": judgement.query, "annotator": judgement.annotator, "judgement": number, "group": group}
        if isinstance(judgement, Ranking):
            found = _of_ranking(judgement)
        elif isinstance(judgement, Comparison):
            found = [_of_comparison(judgement)]
        else:
            found = _of_thumb(judgement, disliked.get(judgement.query, [])) if judgement.good else []
        rows += [of | row for row in found]
    names = sorted({name for row in rows for name in row} | {"query", "chosen", "rejected"})
    return Pairs(**{name: [row.get(name, UNKNOWN) for row in rows] for name in names})


def _row(chosen: dict, rejected: dict, **both) -> dict:
    """A row of what is known of each side: its text, called "", and "_rank", "_reward" …"""
    sides = (("chosen", chosen), ("rejected", rejected))
    return {side + name: value for side, known in sides for name, value in known.items()} | both


def _of_ranking(ranking: Ranking) -> list[dict]:
    place = {index: position for position, index in enumerate(ranking.shown_order or [])}
    rewards = ranking.details.get("rewards") or [UNKNOWN] * len(ranking.passages)  # where a file gave them
    judged = [
        {
            "": ranking.passages[index].full_text,
            "_index": index,
            "_rank": rank,
            "_position": place.get(index, UNKNOWN),
            "_reward": rewards[index],
        }
        for index, rank in enumerate(ranking.ranks)
        if rank is not None
    ]
    pairs = [sorted(pair, key=itemgetter("_rank")) for pair in combinations(judged, 2)]
    return [_row(high, low, target=0.5 if high["_rank"] == low["_rank"] else 1.0) for high, low in pairs]


def _of_comparison(comparison: Comparison) -> dict:
    details = comparison.details  # from a file: rewards of A and B, margin and target, None where it had none
    swapped = details.get("swapped", False)  # None: nobody knows where A stood
    shown = [UNKNOWN, UNKNOWN] if swapped is None else [1, 0] if swapped else [0, 1]  # left is 0
    known = zip((comparison.answer_a, comparison.answer_b), shown, details.get("rewards") or [UNKNOWN] * 2)
    sides = [{"": text, "_position": place, "_reward": reward} for text, place, reward in known]
    target = details.get("target")
    if target is None:
        target = 0.5 if comparison.rating == 0 else 1.0
    rating = details.get("margin", abs(comparison.rating))
    return _row(*(sides[::-1] if comparison.rating > 0 else sides), target=target, rating=rating)


def _of_thumb(liked: Feedback, disliked: Sequence[Feedback]) -> list[dict]:
    rows = []
    for other in disliked:
        if other.answer != liked.answer:
            who = liked.annotator if liked.annotator == other.annotator else ""
            rows.append(_row({"": liked.answer}, {"": other.answer}, target=1.0, annotator=who))
    return rows


def _numbered(keys: Iterable) -> list[int]:
    """Equal keys by one number, from 0 in the order in which they first come."""
    number: dict = {}
    return [number.setdefault(key, len(number)) for key in keys]


def split_by_query(
    judgements: Sequence[Ranking | Comparison], test_share: float = 0.25, seed: int = 0
) -> tuple[list, list]:
    """(train, test): all that was said on a query goes to one side. Raises ValueError where one is empty."""
    queries = sorted({judgement.query for judgement in judgements})
    count = round(test_share * len(queries))
    if not 0 < count < len(queries):
        raise ValueError(f"test_share={test_share} of {len(queries)} queries leaves a side empty")
    held_out = set(random.Random(seed).sample(queries, count))
    test = [judgement for judgement in judgements if judgement.query in held_out]
    return [judgement for judgement in judgements if judgement.query not in held_out], test
