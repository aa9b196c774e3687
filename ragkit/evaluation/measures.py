"""How good is a ranking, and how sure are we? Measures by ir-measures, intervals by the bootstrap."""

import gzip
import re
import warnings
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ragkit.retrieval.corpus import Hit, read_jsonl

Run = Mapping[str, Sequence[Hit] | Mapping[str, float]]
Qrels = Mapping[str, Mapping[str, int]]
MOST = 2**31 - 1  # of grades and cutoffs: trec_eval counts in C
COLUMNS = {  # names that a header of a qrels file may give to its columns
    "query": ("query-id", "query", "qid", "topic", "topic-id"),
    "passage": ("corpus-id", "passage-id", "pid", "doc-id", "docid", "docno", "document-id", "passage"),
    "grade": ("score", "grade", "relevance", "rel", "label"),
}


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
        if self.n == 1:
            return f"{mean} (n = 1: too early for an interval)"
        return f"{mean} [{low}, {high}] (n = {self.n})"


def load_queries(path: str | Path) -> dict[str, str]:
    """Query texts by id from a JSONL file in BEIR form (`_id`, `text`). Raises ValueError with the line."""
    queries = {}
    for number, row in read_jsonl(Path(path).expanduser()):
        if not isinstance(row.get("text"), str) or type(row.get("_id")) not in (str, int):
            raise ValueError(
                f"{path}, line {number}: a query needs `_id` and a string `text`, not {row!r:.80}"
            )
        if queries.setdefault(str(row["_id"]), row["text"]) != row["text"]:
            raise ValueError(f"{path}, line {number}: the id {row['_id']!r} stands already at another query")
    return queries


def load_qrels(
    path: str | Path,
    *,
    columns: Sequence[str] = ("query", "passage", "grade"),
    queries: Container[str] | None = None,
    passages: Container[str] | None = None,
) -> dict[str, dict[str, int]]:
    """Grades by query id and passage id, from BEIR's form: three columns parted by tabs, or else by spaces.

    A header names the columns, in any order; without one they are `columns`. TREC's files have four:
    ("query", "iteration", "passage", "grade"). With `queries` or `passages`, the ids that are known, a line
    that names another is left out, and one warning says how many and where the first is. Raises ValueError,
    with the line, for another number of columns, a grade that is no whole number, and a second grade.
    """
    if missing := {"query", "passage", "grade"} - {*columns}:
        raise ValueError(f"columns={columns!r}: without {min(missing)!r}")
    try:
        file = Path(path).expanduser()
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8-sig") as lines:
            text = lines.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a whole gzip file: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    qrels: dict[str, dict[str, int]] = {}
    dangling, order = [], None
    for number, line in enumerate(text.split("\n"), 1):  # an id may hold what `splitlines` takes for an end
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        if order is None:  # the first line
            separator = "\t" if "\t" in line else None
            header = _header(_cells(line, separator))
            order = header or columns
            if header:
                continue
        cells = _cells(line, separator)
        try:
            row = dict(zip(order, cells, strict=True))
            if "_" in row["grade"]:  # which Python takes for a part of a number
                raise ValueError(f"grade {row['grade']!r}")
            query, passage, grade = row["query"], row["passage"], _grade(float(row["grade"]))
        except ValueError as error:
            raise ValueError(
                f"{where}: not query, passage and grade: {line!r:.80} ({error}). The columns are taken to be "
                f"{', '.join(order)}; name others by a header, as BEIR's query-id, corpus-id, score, or by "
                "`columns`"
            ) from error
        if (queries is None or query in queries) and (passages is None or passage in passages):
            if qrels.setdefault(query, {}).setdefault(passage, grade) != grade:
                raise ValueError(f"{where}: a second grade for passage {passage!r} of query {query!r}")
        else:
            dangling.append(f"{where}: query {query!r}, passage {passage!r}")
    if dangling:
        told = f"{len(dangling)} lines name what is not there, the first is {dangling[0]}"
        warnings.warn(told, stacklevel=2)
    return qrels


def _cells(line: str, separator: str | None) -> list[str]:
    """The cells of a line; between tabs they may stand in quotes, as BEIR's reader takes them."""
    cells = line.split(separator)
    if separator and '"' in line:
        quoted = re.compile(r'\s*"(.*)"\s*$', re.S).match
        cells = [found[1].replace('""', '"') if (found := quoted(cell)) else cell for cell in cells]
    return cells


def _header(cells: list[str]) -> list[str] | None:
    """The columns by the first line's names; None where that line is no header."""
    names = [cell.strip().lower().replace("_", "-") for cell in cells]
    columns = [next((column for column, known in COLUMNS.items() if name in known), name) for name in names]
    return columns if {"query", "passage", "grade"} <= set(columns) else None


def evaluate(run: Run, qrels: Qrels, measures: Sequence[str] = ("nDCG@10",)) -> dict[str, PerQuery]:
    """Each measure's value for each judged query: {measure: {query id: value}}, as trec_eval defines them.

    `run`: hits by query id, in the order of their ranks, or scores by passage id, the first of equal ones
    first; `qrels`: grades by passage id by query id; `measures`: names as ir-measures has them ("nDCG@10",
    "R@100", "RR@10", "AP"). A judged query that the run lacks counts as 0; one without any judgement does not
    count. nDCG has linear gain and divides by the ideal over all judged passages. Raises ValueError for an
    unknown measure, a grade that is no whole number, a score that is NaN, and where no query of the run is
    judged.
    """
    import ir_measures

    if isinstance(measures, str):
        measures = [measures]
    try:
        parsed = {name: ir_measures.parse_measure(name) for name in measures}
        for measure in parsed.values():
            measure.validate_params()
            if not 1 <= measure.params.get("cutoff", 1) <= MOST:  # trec_eval would end the whole process
                raise ValueError(f"the cutoff of {measure} is not from 1 to {MOST}")
    except (NameError, ValueError, AssertionError, TypeError) as error:
        raise ValueError(f"unknown measure in {list(measures)}: {error}") from error
    judged = [query for query in qrels if qrels[query]]
    if not set(run) & set(judged):
        both = f"the run has {list(run)[:3]}, the qrels have {list(qrels)[:3]}"
        raise ValueError(f"no query of the run is judged: {both}")
    # What ir-measures calls breaks ties in ways of its own, by measure, and cuts ids such as "dev-1". So it
    # gets numbers for ids, and scores that never tie.
    scored, grades = {}, {}
    for number, query in enumerate(judged):
        ranked = _ranked(query, run.get(query, ()))
        names = {passage: str(place) for place, passage in enumerate(dict.fromkeys([*ranked, *qrels[query]]))}
        try:
            grades[str(number)] = {names[passage]: _grade(value) for passage, value in qrels[query].items()}
        except ValueError as error:
            raise ValueError(f"qrels of query {query!r}: {error}") from error
        if query in run:
            scored[str(number)] = {names[passage]: -float(place) for place, passage in enumerate(ranked)}
    values = {name: PerQuery.fromkeys(judged, 0.0) for name in measures}
    for metric in ir_measures.iter_calc(set(parsed.values()), grades, scored):
        for name, measure in parsed.items():  # two names may mean one measure: RR and MRR
            if measure == metric.measure:
                values[name][judged[int(metric.query_id)]] = float(metric.value)
    return values


def _ranked(query: str, found: Sequence[Hit] | Mapping[str, float]) -> list[str]:
    """Passage ids, best first; of equal scores or ranks, what came first."""
    if not isinstance(found, Mapping):
        return list(dict.fromkeys(hit.passage.id for hit in sorted(found, key=lambda hit: hit.rank)))
    for passage, score in found.items():
        if not isinstance(score, Real) or score != score:
            raise ValueError(f"run of query {query!r}: the score of passage {passage!r} is {score!r}")
    return sorted(found, key=lambda passage: -found[passage])


def _grade(value: float) -> int:
    """A grade as a whole number. Raises ValueError for any other: 0.9 cut to 0 is another judgement."""
    whole = isinstance(value, int | float | np.number) and -MOST <= value <= MOST and value == int(value)
    if not whole:
        raise ValueError(f"grade {value!r:.60} is not a whole number within ±{MOST}; scale the grades first")
    return int(value)


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
    settings = {"confidence": confidence, "resamples": resamples, "seed": seed}
    return bootstrap(lambda rows: difference[rows].mean(1), len(difference), **settings)


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
    out of the interval; of no units all is NaN, and of one the limits are.
    """
    if not n:
        return Interval(np.nan, np.nan, np.nan, 0, signed)
    rng, most = np.random.default_rng(seed), max(1, 2_000_000 // n)  # so many resamples at a time
    sizes = [min(most, resamples - start) for start in range(0, resamples, most)]
    values = np.concatenate([statistic(rng.integers(n, size=(size, n))) for size in sizes])
    values = values[~np.isnan(values)]
    tail = (1 - confidence) / 2
    known = len(values) and n > 1
    low, high = np.quantile(values, [tail, 1 - tail]).tolist() if known else (np.nan, np.nan)
    return Interval(float(statistic(np.arange(n)[None])[0]), low, high, n, signed)
