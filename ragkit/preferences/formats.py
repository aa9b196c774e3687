"""Preferences in the formats of others: what people's files say, as judgements and pairs, and back."""

import gzip
import json
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ragkit.preferences.columns import REWARDS, SIDES, Votes, finite, named
from ragkit.preferences.conversations import prompt_and_answers
from ragkit.preferences.judgements import Comparison, Feedback, Judgement, Ranking
from ragkit.preferences.pairs import Pairs, pairs_of
from ragkit.retrieval.corpus import Hit, Passage, read_jsonl


def read_judgements(
    source: str | Path | Iterable[Mapping], *, labels: Mapping | None = None, problems=None, **columns: str
) -> list[Ranking | Comparison | Feedback]:
    """What a file of preferences says: JSON lines or a JSON array, `.gz` too, or rows that are read already.

    A row's fields tell its format (FORMATS): chosen and rejected answers become a Comparison, A the chosen
    one, with how strongly unknown (`details`: margin, target, rewards); two answers and a vote a Comparison;
    answers with ranks or scores a Ranking, `details["rewards"]` their scores; thumbs Feedback; exports of
    Argilla and Label Studio one judgement for each annotator, drafts left out. A context becomes `hits`.

    `columns` name what is called otherwise: prompt="ask", chosen="good", first=…, second=…, score=…; None
    leaves a column unread. `labels` say what a vote means, from −3 (the first much better) to 3:
    {"A": -1, "B": 1, "tie": 0, "neither": (0, True)}, True for both bad. Raises ValueError with file and line
    for a row that can't be taken; with a list as `problems` it is named there and left out.
    """
    found, sound = [], []
    for where, row in read_rows(source):
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
            rankings.append(Ranking(queries[query_id], judged, _tiers(known.values()), annotator="qrels"))
    if lost:
        warnings.warn(f"{len(lost)} judgements name what is not there, as {min(lost)}", stacklevel=2)
    return rankings


def read_rows(source: str | Path | Iterable[Mapping]) -> Iterator[tuple[str, Mapping]]:
    """(where it stands, row) of a JSONL file or a JSON array, `.gz` or plain, or of rows in memory."""
    if not isinstance(source, str | Path):
        for number, row in enumerate([source] if source is None else source):
            if not isinstance(row, Mapping):
                raise ValueError(
                    f"row {number} is a {type(row).__name__}, not a mapping: [{{column: value}}, …]"
                )
            yield f"row {number}", row
        return
    path = Path(source).expanduser()
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


def _refuse(why: str, error: Exception, problems: list | None) -> None:
    if problems is None:
        raise ValueError(why) from error
    problems.append(why)


def _unknown(row: Mapping) -> str:
    for sides in SIDES:
        missing = [side for side in sides if side not in row]
        if len(missing) == 1:
            return f"no {missing[0]!r}; a row has prompt, {sides[0]} and {sides[1]}"
    forms = "; ".join(f"{name} ({', '.join(sorted(fields))})" for name, (fields, _) in FORMATS.items())
    return f"columns {', '.join(row)}: name those that hold the answers, as in chosen=…; known are {forms}"


def _asked(row: Mapping, answers: Sequence) -> tuple[str, list[str]]:
    """The whole prompt, and the texts of the answers."""
    prompt = row.get("prompt")
    if prompt is not None and prompt is row.get("instruction") and isinstance(row.get("input"), str):
        prompt = f"{prompt}\n{row['input']}".strip()  # Alpaca's
    if isinstance(past := row.get("history"), list) and past and past is not prompt:  # LlamaFactory's
        said = [turn for turns in past for turn in zip(("user", "assistant"), turns)]
        prompt = [{"role": who, "content": text} for who, text in [*said, ("user", prompt)]]
    bare = not any(isinstance(value, str) and value not in answers for value in row.values())
    return prompt_and_answers(prompt, answers, row.get("system"), by_words=bare)


def _hits(row: Mapping) -> list[Hit]:
    """The retrieved context, where it is no part of the prompt."""
    context = row.get("context")
    if context is None or context is row.get("prompt"):
        return []
    pieces = [context] if isinstance(context, str | dict) else context
    pieces = [{"text": piece} if isinstance(piece, str) else piece for piece in pieces]
    return [
        Hit(_passage(piece, f"context-{rank}"), finite(piece.get("score"), "score") or 0.0, rank)
        for rank, piece in enumerate(pieces, 1)
    ]


def _passage(piece: Mapping, name: str) -> Passage:
    if not isinstance(piece, Mapping):
        raise ValueError(f"a passage is a text, or has one: not {piece!r:.80}")
    texts = [piece[name] for name in ("text", "body", "content", "html") if isinstance(piece.get(name), str)]
    if not texts:
        raise ValueError(f"a passage without a text: {piece!r:.80}")
    return Passage(str(piece.get("id", piece.get("_id", name))), texts[0], str(piece.get("title") or ""))


# One reader for each format: a row to judgements


def _chosen_rejected(row: dict, votes: Votes) -> list[Judgement]:
    query, (chosen, rejected) = _asked(row, [row["chosen"], row["rejected"]])
    if chosen == rejected:
        raise ValueError(f"chosen and rejected are the same text: {chosen!r:.60}")
    rewards = [_reward(row, side) for side in ("chosen", "rejected")]
    margin, target = finite(row.get("margin"), "margin"), finite(row.get("target"), "target")
    details = {"margin": None if margin is None or margin < 0 else margin, "swapped": None}
    details |= {} if target is None else {"target": target}
    details |= {} if rewards == [None, None] else {"rewards": rewards}
    who = str(row.get("annotator", ""))
    return [Comparison(query, chosen, rejected, -1, hits=_hits(row), annotator=who, details=details)]


def _reward(row: Mapping, side: str) -> float | None:
    name = next((name for name in (form.format(side) for form in REWARDS) if name in row), None)
    return finite(row.get(name), name)


def _compared(row: dict, votes: Votes) -> list[Judgement]:
    query, (first, second) = _asked(row, [row["first"], row["second"]])
    rating, both_bad = votes(row["score"])
    if first == second and rating:
        raise ValueError(f"both answers are the same text, and one is said to be better: {first!r:.60}")
    who = str(row.get("annotator", ""))
    return [Comparison(query, first, second, rating, both_bad, _hits(row), who)]


def _ranked(row: dict, votes: Votes) -> list[Judgement]:
    items, ranks, rewards = row["answers"], row.get("ranks"), row.get("reward")
    if isinstance(items, str | Mapping):
        raise ValueError(f"answers are a list, not {items!r:.60}")
    if all(isinstance(item, dict) for item in items):
        ranks = [item.get("rank") for item in items]
        names = ("overall_score", "score", "rating", "reward")
        rewards = [next((item[name] for name in names if item.get(name) is not None), None) for item in items]
        names = ("answer", "response", "completion", "text", "content")
        items = [next((item[name] for name in names if name in item), None) for item in items]
    rewards = [finite(reward, "a score") for reward in rewards or [None] * len(items)]
    ranks = [finite(rank, "a rank") for rank in ranks or [None] * len(items)]
    query, texts = _asked(row, items)
    if len(ranks) != len(texts) or len(rewards) != len(texts):
        raise ValueError(f"{len(ranks)} ranks and {len(rewards)} scores for {len(texts)} answers")
    tiers = _tiers(None if rank is None else -rank for rank in ranks) or _tiers(rewards)
    if not tiers:
        raise ValueError("the answers have neither ranks nor scores")
    placed = {(texts[index], place) for place, tier in enumerate(tiers) for index in tier}
    if len(placed) > len({text for text, _ in placed}):
        raise ValueError("one text stands at two ranks")
    details = {"rewards": rewards} if any(reward is not None for reward in rewards) else {}
    passages = [Passage(str(number), text) for number, text in enumerate(texts)]
    return [Ranking(query, passages, tiers, annotator=str(row.get("annotator", "")), details=details)]


def _rated(row: dict, votes: Votes) -> list[Judgement]:
    return _ranked(row | {"answers": [row["completion"]], "ranks": None, "reward": [row["reward"]]}, votes)


def _thumb(row: dict, votes: Votes) -> list[Judgement]:
    query, (answer,) = _asked(row, [row["completion"]])
    good = row["label"]
    if not isinstance(good, bool):
        if good not in votes.labels:
            raise ValueError(f"a thumb of {good!r}: write labels={{{good!r}: …}}, 1 for good and -1 for bad")
        good = votes(good)[0] > 0
    return [Feedback(query, answer, good, hits=_hits(row), annotator=str(row.get("annotator", "")))]


def _argilla(row: dict, votes: Votes) -> list[Judgement]:
    fields, responses, found, unread = row["fields"], row["responses"], [], []
    if isinstance(responses, dict):  # by question, as Argilla 2 writes them; 1 has them by user
        said = [(answer, name, answer["value"]) for name, all_ in responses.items() for answer in all_]
    else:
        said = [(by, name, of["value"]) for by in responses for name, of in (by.get("values") or {}).items()]
    for answer, question, value in said:
        if answer.get("status") not in (None, "submitted"):
            continue
        who = {"annotator": str(answer.get("user_id") or "")}
        numbered = [name for name in fields if name[-1:].isdigit()]
        if isinstance(value, str) and value in fields:  # a label question: the best one's name
            value = [{"value": name, "rank": 1 + (name != value)} for name in numbered]
        if isinstance(value, list):  # names of fields, best first, or with ranks, in which ties are seen
            listed = [one if isinstance(one, dict) else {"value": one} for one in value]
            ranks = {one["value"]: one.get("rank", place) for place, one in enumerate(listed, 1)}
            if missing := [name for name in ranks if name not in fields]:
                raise ValueError(f"{question!r} ranks {missing[0]!r}; fields are {', '.join(fields)}")
            rest = named({name: text for name, text in fields.items() if name not in ranks}, {})
            asked = {"prompt": next(iter(rest.values()), None)} | rest | who
            answers = [fields[name] for name in ranks]
            found += _ranked(asked | {"answers": answers, "ranks": list(ranks.values())}, votes)
        elif isinstance(value, str) and value in votes.means:
            two = dict(zip(("first", "second"), (fields[name] for name in numbered)))
            found += _compared(two | named(fields, {}) | who | {"score": value}, votes)
        else:
            unread.append(question)
    if unread and not found:
        raise ValueError(f"question {unread[0]!r} is no ranking, and its answers are not among labels={{…}}")
    return found


def _label_studio(row: dict, votes: Votes) -> list[Judgement]:
    data, found = row["data"], []
    for annotation in row["annotations"]:
        results = {result["type"]: result for result in annotation.get("result") or []}
        if annotation.get("was_cancelled") or not results:
            continue
        who = annotation.get("completed_by", "")
        who = str((who.get("email") or who.get("id")) if isinstance(who, dict) else who)
        choices = results.get("choices", {"value": {}})["value"].get("choices", [])
        said = [choice for choice in choices if choice in votes.means]
        said += [results["pairwise"]["value"]["selected"]] if "pairwise" in results else []
        told = named(data, {}) | {"annotator": who}
        if said:
            names = str(results.get("pairwise", {}).get("to_name")).split(",")
            if len(names) == 2 and set(names) <= data.keys():
                told |= zip(("first", "second"), (data[name] for name in names))
            found += _compared(told | {"score": said[0]}, votes)
        elif "ranker" in results:
            found.append(_ranker(told, data, results["ranker"]["value"]["ranker"], votes.labels))
        else:
            raise ValueError(f"no pairwise, ranker, or choices among labels, but {', '.join(results)}")
    return found


def _ranker(told: dict, data: Mapping, buckets: Mapping[str, list], labels: Mapping) -> Ranking:
    """Label Studio's list in an order, or in buckets: those with numbers best first, others by `labels`."""
    lists = [value for value in data.values() if isinstance(value, list)]
    items = next(each for each in lists if all(isinstance(item, dict) and "id" in item for item in each))
    place = {str(item["id"]): index for index, item in enumerate(items)}
    if len(buckets) == 1:
        (order,) = buckets.values()
        tiers = [[place[str(name)]] for name in order]
    else:
        buckets = {name: held for name, held in buckets.items() if name != "_"}  # what was not moved
        worth = {name: labels.get(name, -int(name) if name.isdigit() else None) for name in buckets}
        if None in worth.values():
            raise ValueError(f"buckets {', '.join(buckets)}: say what each is worth, labels={{bucket: 1, …}}")
        order = sorted(buckets, key=lambda name: -worth[name])
        tiers = [[place[str(name)] for name in buckets[bucket]] for bucket in order]
    query, _ = _asked({"prompt": told.get("prompt"), "system": told.get("system")}, [""])
    passages = [_passage(item, "") for item in items]
    return Ranking(query, passages, tiers, annotator=told["annotator"])


FORMATS = {  # the first whose fields are all there, or the one of which the user named most
    "Label Studio": ({"data", "annotations"}, _label_studio),
    "Argilla": ({"fields", "responses"}, _argilla),
    "chosen and rejected": ({"chosen", "rejected"}, _chosen_rejected),
    "two answers and a vote": ({"first", "second", "score"}, _compared),
    "ranked answers": ({"answers"}, _ranked),
    "thumbs": ({"completion", "label"}, _thumb),
    "rated answers": ({"completion", "reward"}, _rated),
}


def _tiers(grades: Iterable[float | None]) -> list[list[int]]:
    """Indices by grade, the highest first; equal ones tie, and None was not judged."""
    grades = list(grades)
    levels = sorted({grade for grade in grades if grade is not None}, reverse=True)
    return [[index for index, grade in enumerate(grades) if grade == level] for level in levels]


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
            said = [Ranking(said[0].query, passages, _tiers(rewards), annotator=who, details=details)]
        merged += said
    return merged
