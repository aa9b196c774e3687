"""How good is a ranking, and how sure are we? Measures by ir-measures, intervals by the bootstrap."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ragkit.corpus import Hit, read_jsonl

Run = Mapping[str, Sequence[Hit] | Mapping[str, float]]
Qrels = Mapping[str, Mapping[str, int]]


class PerQuery(dict[str, float]):
    """One measure's value for each judged query; `.mean` over them is the figure that papers report."""

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.values())))

    def __float__(self) -> float:
        return self.mean


class Interval(NamedTuple):
    """An estimate, `mean`, with its confidence interval, from `n` units: queries, items or judgements.

    `signed`: printed as a difference is, with its sign.
    """

    mean: float
    low: float
    high: float
    n: int
    signed: bool = True

    def __str__(self) -> str:
        mean, low, high = (f"{x:{'+' * self.signed}.3f}" for x in self[:3])
        return f"{mean} [{low}, {high}] (n = {self.n})"


def load_queries(path: str | Path) -> dict[str, str]:
    """Query texts by id from a JSONL file in BEIR form (`_id`, `text`)."""
    queries = {}
    for number, row in read_jsonl(Path(path).expanduser()):
        if not isinstance(row.get("text"), str) or "_id" not in row:
            raise ValueError(f"{path}, line {number}: a query needs `_id` and a string `text`")
        queries[str(row["_id"])] = row["text"]
    return queries


def load_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Grades by query id and passage id from a BEIR file: query, passage, grade, with tabs and a header."""
    qrels: dict[str, dict[str, int]] = {}
    for number, line in enumerate(Path(path).expanduser().read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        cells = line.split("\t")
        if number == 1 and not cells[-1].lstrip("-").isdigit():
            continue  # the header
        try:
            query, passage, grade = cells
            qrels.setdefault(query, {})[passage] = int(grade)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not query, passage and grade: {line!r}") from error
    return qrels


def evaluate(run: Run, qrels: Qrels, measures: Sequence[str] = ("nDCG@10",)) -> dict[str, PerQuery]:
    """Each measure's value for each judged query: {measure: {query id: value}}, as trec_eval defines them.

    `run`: hits by query id (or scores by passage id); `qrels`: grades by passage id by query id; `measures`:
    names as ir-measures has them ("nDCG@10", "R@100", "RR@10", "AP"). A judged query that the run lacks
    counts as 0. nDCG has linear gain and divides by the ideal over all judged passages.
    Raises ValueError for an unknown measure and where no query of the run is judged.
    """
    import ir_measures

    if isinstance(measures, str):
        measures = [measures]
    try:
        parsed = {name: ir_measures.parse_measure(name) for name in measures}
        for measure in parsed.values():
            measure.validate_params()
            if measure.params.get("cutoff", 1) < 1:  # trec_eval would end the whole process
                raise ValueError(f"the cutoff of {measure} is less than 1")
    except (NameError, ValueError, AssertionError, TypeError) as error:
        raise ValueError(f"unknown measure in {list(measures)}: {error}") from error
    if not set(run) & set(qrels):
        raise ValueError(
            f"no query of the run is judged: the run has {list(run)[:3]}, the qrels have {list(qrels)[:3]}"
        )
    scored = {query: _scores(found) for query, found in run.items() if query in qrels}
    values = {name: PerQuery.fromkeys(qrels, 0.0) for name in measures}
    grades = {query: {key: int(grade) for key, grade in judged.items()} for query, judged in qrels.items()}
    for metric in ir_measures.iter_calc(set(parsed.values()), grades, scored):
        for name, measure in parsed.items():  # two names may mean one measure: RR and MRR
            if measure == metric.measure:
                values[name][metric.query_id] = float(metric.value)
    return values


def paired_interval(
    base: Mapping[str, float] | Sequence[float],
    after: Mapping[str, float] | Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean of after − base over queries, with a percentile bootstrap interval over queries.

    Both are measured on the same queries, so it is their differences that are resampled. Raises ValueError
    where the queries differ or are fewer than two.
    """
    if isinstance(base, Mapping) and isinstance(after, Mapping):
        if base.keys() != after.keys():
            odd = sorted(base.keys() ^ after.keys())
            raise ValueError(f"base and after are of different queries: only one of them has {odd[:3]}")
        base, after = list(base.values()), [after[query] for query in base]
    base, after = np.asarray(base, dtype=float), np.asarray(after, dtype=float)
    if base.shape != after.shape or base.ndim != 1 or len(base) < 2:
        raise ValueError(
            f"base has shape {base.shape} and after {after.shape}: one value a query, two queries at least"
        )
    difference = after - base
    if not np.isfinite(difference).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(difference)))} of base or after is not finite")
    return bootstrap(
        lambda rows: difference[rows].mean(1),
        len(difference),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    n: int,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    signed: bool = True,
) -> Interval:
    """A statistic of n units, with the percentile interval of it over resamples of the units.

    `statistic`: indices of units, (R, n), → R values. NaN, of resamples in which it has no value, is left
    out of the interval; of no units all is NaN.
    """
    if not n:
        return Interval(np.nan, np.nan, np.nan, 0, signed)
    rng, most = np.random.default_rng(seed), max(1, 2_000_000 // n)  # so many resamples at a time
    sizes = [min(most, resamples - start) for start in range(0, resamples, most)]
    values = np.concatenate([statistic(rng.integers(n, size=(size, n))) for size in sizes])
    values = values[~np.isnan(values)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail]).tolist() if len(values) else (np.nan, np.nan)
    return Interval(float(statistic(np.arange(n)[None])[0]), low, high, n, signed)


def _scores(found: Sequence[Hit] | Mapping[str, float]) -> dict[str, float]:
    """Scores by passage id. Of hits it is −rank: trec_eval breaks ties of scores in an order of its own."""
    if isinstance(found, Mapping):
        return {key: float(score) for key, score in found.items()}
    return {hit.passage.id: -float(hit.rank) for hit in found}
