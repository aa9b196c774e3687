"""One reader for each format of other people's preferences: a row of it to judgements."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ragkit.preferences.columns import REWARDS, Votes, finite, named, scores_of_two
from ragkit.preferences.conversations import interleaved, prompt_and_answers
from ragkit.preferences.judgements import Comparison, Feedback, Judgement, Ranking
from ragkit.retrieval.corpus import Hit, Passage


def _asked(row: Mapping, answers: Sequence) -> tuple[str, list[str]]:
    """The whole prompt, and the texts of the answers."""
    prompt = row.get("prompt")
    if prompt is not None and prompt is row.get("instruction") and isinstance(row.get("input"), str):
        prompt = f"{prompt}\n{row['input']}".strip()  # Alpaca's
    if isinstance(past := row.get("history"), list) and past and past is not prompt:  # LlamaFactory's
        said = [turn for turns in past for turn in zip(("user", "assistant"), turns)]
        prompt = [{"role": who, "content": text} for who, text in [*said, ("user", prompt)]]
    prompt, answers = interleaved(prompt, answers)
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
    vote, names = row["score"], (row.get("model_a"), row.get("model_b"))
    if isinstance(vote, str) and vote not in votes.means and vote in names and names[0] != names[1]:
        vote = ("model_a", "model_b")[names.index(vote)]  # the winner by its name
    rating, both_bad = votes(vote)
    if first == second and rating:
        raise ValueError(f"both answers are the same text, and one is said to be better: {first!r:.60}")
    who = str(row.get("annotator", ""))
    rewards = scores_of_two(row)
    details = {} if rewards == [None, None] else {"rewards": rewards}
    return [Comparison(query, first, second, rating, both_bad, _hits(row), who, details=details)]


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
    tiers = tiers_of(None if rank is None else -rank for rank in ranks) or tiers_of(rewards)
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
    if not isinstance(good, bool | np.bool_):
        if good not in votes.labels:
            raise ValueError(f"a thumb of {good!r}: write labels={{{good!r}: …}}, 1 for good and -1 for bad")
        good = votes(good)[0] > 0
    return [Feedback(query, answer, bool(good), hits=_hits(row), annotator=str(row.get("annotator", "")))]


def _tree(row: dict, votes: Votes) -> list[Judgement]:
    """Open Assistant's: a ranking for each turn with two ranked answers or more, 0 the best."""
    root, found = row["prompt"], []
    if root.get("parent_id") is not None:
        raise ValueError(f"message {root.get('message_id')!r} replies to one that is not there")
    waiting = [(root, [])]
    while waiting:
        message, before = waiting.pop()
        thread = [*before, {"role": message["role"], "content": message["text"]}]
        replies = [reply for reply in message.get("replies") or [] if not reply.get("deleted")]
        answers = [reply for reply in replies if reply["role"] == "assistant"]
        ranked = [reply for reply in answers if finite(reply.get("rank"), "a rank") is not None]
        if len(ranked) > 1:
            texts, ranks = ([reply[name] for reply in ranked] for name in ("text", "rank"))
            found += _ranked({"prompt": thread, "answers": texts, "ranks": ranks}, votes)
        waiting += [(reply, thread) for reply in reversed(replies)]
    return found


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
    "message trees": ({"message_tree_id", "prompt"}, _tree),
    "chosen and rejected": ({"chosen", "rejected"}, _chosen_rejected),
    "two answers and a vote": ({"first", "second", "score"}, _compared),
    "ranked answers": ({"answers"}, _ranked),
    "thumbs": ({"completion", "label"}, _thumb),
    "rated answers": ({"completion", "reward"}, _rated),
}


def tiers_of(grades: Iterable[float | None]) -> list[list[int]]:
    """Indices by grade, the highest first; equal ones tie, and None was not judged."""
    grades = list(grades)
    levels = sorted({grade for grade in grades if grade is not None}, reverse=True)
    return [[index for index, grade in enumerate(grades) if grade == level] for level in levels]
