"""Which of two rankings do people prefer? Team-draft interleaving: show both at once, count the clicks."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from ragkit.corpus import Hit
from ragkit.evaluation import Interval


@dataclass(frozen=True)
class Interleaved:
    """One list made of two: `hits`, ranks from 1, and the side that each came from, "base" or "after"."""

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
    names = [hit.passage.id for hit in (*base, *after)]
    coin = random.Random("\0".join(names) if seed is None else seed)
    sides = {"base": list(base), "after": list(after)}
    size = len({hit.passage.id for hits in sides.values() for hit in hits})
    size = size if k is None else min(k, size)
    picked: list[Hit] = []
    teams: list[str] = []
    seen: set[str] = set()
    while len(picked) < size:
        order = ["base", "after"]
        coin.shuffle(order)
        for team in order:
            best = next((hit for hit in sides[team] if hit.passage.id not in seen), None)
            if best is not None and len(picked) < size:
                seen.add(best.passage.id)
                picked.append(Hit(best.passage, best.score, len(picked) + 1))
                teams.append(team)
    return Interleaved(picked, teams)


def preference(credits: Sequence[int]) -> Interval:
    """The share of decided queries that "after" won, minus ½, with a 95 % Wilson interval.

    Raises ValueError where no query decided.
    """
    wins, losses = sum(credit > 0 for credit in credits), sum(credit < 0 for credit in credits)
    if not wins + losses:
        raise ValueError(f"none of {len(credits)} queries decided between the two")
    share = binomtest(wins, wins + losses).proportion_ci(method="wilson")
    low, high = float(share.low) - 0.5, float(share.high) - 0.5
    return Interval(wins / (wins + losses) - 0.5, low, high, wins + losses)
