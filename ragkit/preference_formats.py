"""Preferences to and from the formats of others: TRL's columns, BEIR's qrels, signed scores."""

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ragkit.corpus import Passage
from ragkit.judgements import Comparison, Ranking
from ragkit.pairs import Pairs


def to_trl(pairs: Pairs, strengths=None) -> list[dict]:
    """Rows for TRL: prompt, chosen, rejected, margin (the rating or rank gap, where known), group.

    With `strengths`, (P,), a column "strength" for `StrengthDPOTrainer`. Ties are left out: TRL has no place
    for them, and `pair_loss(target=0.5)` has. Raises ValueError for another number of strengths than pairs,
    and, with the pair, for one that is not finite.
    """
    rows = []
    strengths = None if strengths is None else [float(strength) for strength in strengths]
    if strengths is not None and len(strengths) != len(pairs):
        raise ValueError(f"{len(strengths)} strengths for {len(pairs)} pairs: one each, in their order")
    for i in range(len(pairs)):
        if pairs.target[i] == 0.5:
            continue
        row = {"prompt": pairs.query[i], "chosen": pairs.chosen[i], "rejected": pairs.rejected[i]}
        margin = pairs.rating[i]
        if margin != margin:
            margin = pairs.rejected_rank[i] - pairs.chosen_rank[i]
        if margin == margin:
            row["margin"] = float(margin)
        row["group"] = int(pairs.group[i])
        if strengths is not None:
            if not math.isfinite(strengths[i]):
                raise ValueError(f"pair {i}: strength is {strengths[i]}; it must be a finite number")
            row["strength"] = strengths[i]
        rows.append(row)
    return rows


def from_trl(path: str | Path) -> Pairs:
    """Pairs from TRL/HF preference JSONL: prompt, chosen, rejected, perhaps margin (becomes the rating).

    Conversational rows (lists of messages) give the last message's content. Raises ValueError with file and
    line where a row is broken.
    """
    rows = []
    for where, row in _rows(path):
        for name in ("prompt", "chosen", "rejected"):
            if name not in row:
                raise ValueError(f"{where}: no {name!r}; a row has prompt, chosen and rejected")
        margin = float("nan") if row.get("margin") is None else row["margin"]
        if not isinstance(margin, int | float):
            raise ValueError(f"{where}: margin is {margin!r}, not a number")
        rows.append([*(_text(row[name], where) for name in ("prompt", "chosen", "rejected")), margin])
    prompts, chosen, rejected, margins = zip(*rows) if rows else ((), (), (), ())
    return Pairs(query=list(prompts), chosen=list(chosen), rejected=list(rejected), rating=list(margins))


def from_signed_scores(
    path: str | Path, *, prompt="prompt", first="response1", second="response2", score="overall_preference"
) -> list[Comparison]:
    """Comparisons from rows with two responses and a signed score: below 0 the first is better, as in
    HelpSteer3.

    Scores from −3 to 3; the prompt is a text or a list of messages, whose last is taken.
    """
    found = []
    for where, row in _rows(path):
        missing = [name for name in (prompt, first, second, score) if name not in row]
        if missing:
            raise ValueError(f"{where}: no {missing[0]!r}; name the column that holds it")
        try:
            texts = [_text(row[name], where) for name in (prompt, first, second)]
            rating = row[score]
            whole = isinstance(rating, float) and rating.is_integer()  # as tables with gaps have it
            found.append(Comparison(*texts, rating=int(rating) if whole else rating))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return found


def from_qrels(
    qrels: Mapping[str, Mapping[str, int]], queries: Mapping[str, str], passages: Sequence[Passage]
) -> list[Ranking]:
    """A ranking for each judged query, equal grades tied: what a BEIR qrels file says as preferences.

    Raises KeyError for a query or passage that is not there. Queries with one grade alone say nothing and are
    left out.
    """
    by_id = {passage.id: passage for passage in passages}
    rankings = []
    for query_id, grades in qrels.items():
        if len(set(grades.values())) < 2:
            continue
        for passage_id in grades:
            if passage_id not in by_id:
                raise KeyError(
                    f"qrels of query {query_id!r} name passage {passage_id!r}, which is not among them"
                )
        ids = list(grades)
        levels = sorted(set(grades.values()), reverse=True)
        tiers = [[i for i, passage_id in enumerate(ids) if grades[passage_id] == level] for level in levels]
        rankings.append(Ranking(queries[query_id], [by_id[i] for i in ids], tiers, annotator="qrels"))
    return rankings


def _rows(path: str | Path) -> Iterator[tuple[str, dict]]:
    path = Path(path).expanduser()
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{where}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(f"{where}: not an object")
            yield where, row


def _text(value, where: str) -> str:
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    if not isinstance(value, str):
        raise ValueError(f"{where}: a text or a list of messages is expected, not {type(value).__name__}")
    return value
