"""Preferences in the formats of others: what people's files say, as judgements and pairs, and back."""

import gzip
import json
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ragkit.preferences.columns import SIDES, Votes, named
from ragkit.preferences.judgements import Comparison, Feedback, Judgement, Ranking
from ragkit.preferences.pairs import Pairs, pairs_of
from ragkit.preferences.row_readers import FORMATS, tiers_of
from ragkit.retrieval.corpus import Passage, read_jsonl

TABLES = {
    ".csv": "read_csv(path)",
    ".tsv": "read_csv(path, sep='\\t')",
    ".parquet": "read_parquet(path)",
    ".xlsx": "read_excel(path)",
}


def read_judgements(
    source: str | Path | Iterable[Mapping], *, labels: Mapping | None = None, problems=None, **columns: str
) -> list[Ranking | Comparison | Feedback]:
    """What a file of preferences says: JSON lines or a JSON array, `.gz` too, or rows that are read already.

    A row's fields tell its format (FORMATS): chosen and rejected answers become a Comparison, A the chosen
    one, with how strongly unknown (`details`: margin, target, rewards); two answers and a vote a Comparison;
    answers with ranks or scores a Ranking, `details["rewards"]` their scores; thumbs Feedback; exports of
    Argilla and Label Studio one judgement for each annotator, drafts left out; Open Assistant's trees a
    Ranking for each turn. A context becomes `hits`.

    `columns` name what is called otherwise: prompt="ask", chosen="good", first=…, second=…, score=…; None
    leaves a column unread. `labels` say what a vote means, from −3 (the first much better) to 3:
    {"A": -1, "B": 1, "tie": 0, "neither": (0, True)}, True for both bad. Raises ValueError with file and line
    for a row that can't be taken; with a list as `problems` it is named there and left out.
    """
    found, sound = [], []
    for where, row in _trees(read_rows(source)):
        try:
            sound.append((where, named(row, columns)))
        except ValueError as error:
            _refuse(f"{where}: {error}", error, problems)
    votes = Votes([row for _, row in sound], labels or {}, columns.get("score"))
    for where, row in sound:
        try:
            formats = [name for name, (fields, _) in FORMATS.items() if fields <= row.keys()]
            if not formats:
                raise ValueError(_unknown(row))
            best = max(formats, key=lambda name: len(FORMATS[name][0] & columns.keys()))
            found += FORMATS[best][1](row, votes)
        except (ValueError, LookupError, TypeError, AttributeError, StopIteration, OverflowError) as error:
            why = error if isinstance(error, ValueError) else f"not {best}'s format ({error!r})"
            _refuse(f"{where}: {why}", error, problems)
    return _together(found)


def from_trl(source: str | Path | Iterable[Mapping], **settings) -> Pairs:
    """Pairs from TRL's columns (prompt, chosen, rejected, perhaps margin, which becomes the rating, target,
    score_chosen, score_rejected) and whatever else `read_judgements` takes, with its settings.

    A margin below 0, a reward model's that disagrees, is no strength: the rating is unknown then.
    """
    return pairs_of(read_judgements(source, **settings))


def from_signed_scores(
    source, *, first="response1", second="response2", score="overall_preference", **settings
):
    """Comparisons from rows with two answers and a vote: below 0 the first is better, or as `labels` say."""
    return read_judgements(source, first=first, second=second, score=score, **settings)


def from_qrels(
    qrels: Mapping[str, Mapping[str, int]], queries: Mapping[str, str], passages: Sequence[Passage]
) -> list[Ranking]:
    """A ranking for each judged query, equal grades tied: what a BEIR qrels file says as preferences.

    Queries with one grade alone say nothing. Judgements of a query or passage that is not there are left out,
    with one warning; `load_qrels`, which knows their lines, says where they stand.
    """
    by_id = {passage.id: passage for passage in passages}
    rankings, lost = [], []
    for query_id, grades in qrels.items():
        known = {id: grade for id, grade in grades.items() if id in by_id and query_id in queries}
        lost += [f"query {query_id!r}, passage {id!r}" for id in grades.keys() - known.keys()]
        if len(set(known.values())) > 1:
            judged = [by_id[id] for id in known]
            rankings.append(Ranking(queries[query_id], judged, tiers_of(known.values()), annotator="qrels"))
    if lost:
        warnings.warn(f"{len(lost)} judgements name what is not there, as {min(lost)}", stacklevel=2)
    return rankings


def read_rows(source: str | Path | Iterable[Mapping]) -> Iterator[tuple[str, Mapping]]:
    """(where it stands, row) of a JSONL file or a JSON array, `.gz` or plain, or of rows in memory. Raises
    ValueError, with the place, for what is neither."""
    if not isinstance(source, str | Path):
        for number, row in enumerate([source] if source is None else source):
            if not isinstance(row, Mapping):
                raise ValueError(
                    f"row {number} is a {type(row).__name__}, not a mapping: [{{column: value}}, …]"
                )
            yield f"row {number}", row
        return
    path = Path(source).expanduser()
    if table := TABLES.get(path.suffixes[-2] if path.suffix == ".gz" and path.suffixes[1:] else path.suffix):
        raise ValueError(
            f"{path}: a table, and JSON is read here: give its rows, as "
            f"pandas.{table}.to_dict('records') has them (Parquet needs pyarrow, too)"
        )
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            array = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
            file.seek(0)
            rows = json.loads(file.read().decode("utf-8-sig")) if array else []
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a whole gzip file: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON array ({error})") from error
    if not array:
        yield from ((f"{path}, line {number}", row) for number, row in read_jsonl(path))
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, item {number}: a JSON {type(row).__name__}, not an object")
        yield f"{path}, item {number}", row


def _trees(rows: Iterable[tuple[str, Mapping]]) -> Iterator[tuple[str, Mapping]]:
    """The rows; messages that stand one a row, as Open Assistant's do, become trees, after all others."""
    messages: dict = {}
    for where, row in rows:
        if {"message_id", "parent_id", "role", "text"} <= row.keys():
            messages[row["message_id"]] = where, {**row, "replies": []}
        else:
            yield where, row
    for where, message in messages.values():
        if message["parent_id"] in messages:
            messages[message["parent_id"]][1]["replies"].append(message)
        else:
            yield where, {"message_tree_id": message.get("message_tree_id", where), "prompt": message}


def _refuse(why: str, error: Exception, problems: list | None) -> None:
    if problems is None:
        raise ValueError(why) from error
    problems.append(why)


def _unknown(row: Mapping) -> str:
    if {"first", "second"} <= row.keys():
        return "two answers without a vote on them; name the column that holds it, score=…"
    for sides in SIDES:
        missing = [side for side in sides if side not in row]
        if len(missing) == 1:
            return f"no {missing[0]!r}; a row has prompt, {sides[0]} and {sides[1]}"
    forms = "; ".join(f"{name} ({', '.join(sorted(fields))})" for name, (fields, _) in FORMATS.items())
    return f"columns {', '.join(row)}: name those that hold the answers, as in chosen=…; known are {forms}"


def _together(judgements: list[Judgement]) -> list[Judgement]:
    """Answers that were rated one a row, as HelpSteer2 has them, are one ranking for each query and judge."""
    whole: dict = {}
    for number, one in enumerate(judgements):
        alone = isinstance(one, Ranking) and len(one.passages) == 1 and "rewards" in one.details
        whole.setdefault((one.query, one.annotator) if alone else number, []).append(one)
    merged = []
    for said in whole.values():
        if len(said) > 1:
            passages = [Passage(str(n), one.passages[0].text) for n, one in enumerate(said)]
            rewards = [one.details["rewards"][0] for one in said]
            who, details = said[0].annotator, {"rewards": rewards}
            said = [Ranking(said[0].query, passages, tiers_of(rewards), annotator=who, details=details)]
        merged += said
    return merged
