"""Preferences on their way out: rows for TRL, records for Argilla, tasks for Label Studio."""

import math
from collections.abc import Iterable

import numpy as np

from ragkit.preferences.judgements import Comparison, Feedback, Ranking
from ragkit.preferences.pairs import Pairs
from ragkit.retrieval.corpus import shortened


def to_trl(pairs: Pairs, strengths=None) -> list[dict]:
    """Rows for TRL: prompt, chosen, rejected, group, and as far as the pairs know them margin (the rating or
    rank gap), target (the probability, where one is not 1), score_chosen and score_rejected (the rewards).

    With `strengths`, (P,) or one for all, a column "strength" for `StrengthDPOTrainer`. A pair whose target
    is below 0.5 is turned round, and has no margin. Ties are left out: TRL has no place for them, and
    `pair_loss(target=0.5)` has. Raises ValueError for another number of strengths and what is not finite.
    """
    turned = pairs.target < 0.5
    ratings = np.where(np.isnan(pairs.rating), pairs.rejected_rank - pairs.chosen_rank, pairs.rating)
    known = {
        "margin": np.where(turned, np.nan, ratings),
        "score_chosen": np.where(turned, pairs.rejected_reward, pairs.chosen_reward),
        "score_rejected": np.where(turned, pairs.chosen_reward, pairs.rejected_reward),
        "target": np.where(turned, 1 - pairs.target, pairs.target),
        "group": pairs.group,
    }
    if callable(strengths) and not hasattr(strengths, "tolist"):
        raise TypeError("strengths is a function: give what it makes, strengths(pairs)")
    if strengths is not None:
        strengths = strengths.tolist() if hasattr(strengths, "tolist") else strengths
        strengths = [strengths] * len(pairs) if isinstance(strengths, int | float) else list(strengths)
        if len(strengths) != len(pairs):
            raise ValueError(f"{len(strengths)} strengths for {len(pairs)} pairs")
        try:
            strengths = np.array([float(strength) for strength in strengths])
        except TypeError as error:
            raise ValueError(f"strengths={shortened(strengths)}: a number for each pair ({error})") from error
        known["strength"] = np.where(np.isnan(strengths), np.inf, strengths)  # a gap is no strength, either
    rows = []
    for i in np.flatnonzero(pairs.target != 0.5):
        chosen, rejected = (pairs.chosen[i], pairs.rejected[i])[:: -1 if turned[i] else 1]
        values = {name: column[i].item() for name, column in known.items()}
        if infinite := [name for name, value in values.items() if math.isinf(value)]:
            raise ValueError(f"pair {i}: its {infinite[0]} is not finite")
        row = {"prompt": pairs.query[i], "chosen": chosen, "rejected": rejected}
        rows.append(row | {name: None if math.isnan(value) else value for name, value in values.items()})
    # A table has the same columns in each row, and none that says nothing.
    blank = {"margin": None, "target": 1.0, "score_chosen": None, "score_rejected": None}
    drop = [name for name, value in blank.items() if all(row[name] == value for row in rows)]
    return [{name: value for name, value in row.items() if name not in drop} for row in rows]


def labels_of(judgements: Iterable) -> list[dict]:
    """Rows of prompt, completion and label, TRL's for unpaired losses (KTO, arXiv 2402.01306), for the thumbs
    that `pairs_of` can make no pair of: those to a query without one of the other kind."""
    thumbs = [judgement for judgement in judgements if isinstance(judgement, Feedback)]
    answers: dict[tuple[str, bool], set[str]] = {}
    for thumb in thumbs:
        answers.setdefault((thumb.query, bool(thumb.good)), set()).add(thumb.answer)
    return [
        {"prompt": thumb.query, "completion": thumb.answer, "label": bool(thumb.good)}
        for thumb in thumbs
        if not answers.get((thumb.query, not thumb.good), set()) - {thumb.answer}
    ]


def to_argilla(judgements: Iterable[Ranking | Comparison]) -> list[dict]:
    """Records as Argilla's `to_dict` has them, one for each thing judged, a response for each annotator.

    A ranking answers the question "ranking" over the fields response-1 …, ties by equal ranks; a comparison
    answers the label question "preference" with its rating, "-3" … "+3". `read_judgements` takes them back;
    ids and titles of documents, and the hits, have no place there.
    """
    records = []
    for first, said in _by_item(judgements):
        if isinstance(first, Ranking):
            question, texts = "ranking", {passage.id: passage.full_text for passage in first.passages}
        else:
            question, texts = "preference", {"a": first.answer_a.strip(), "b": first.answer_b.strip()}
        names = {key: f"response-{n}" for n, key in enumerate(texts, 1)}
        responses = []
        for one in said:
            if isinstance(one, Ranking):
                ranks = [(index, rank) for rank, tier in enumerate(one.tiers, 1) for index in tier]
                value = [{"value": names[one.passages[index].id], "rank": rank} for index, rank in ranks]
            else:
                value = _vote(one, first)
            responses.append({"user_id": one.annotator, "value": value, "status": "submitted"})
        fields = {"prompt": first.query} | {names[key]: text for key, text in texts.items()}
        records.append({"id": first.item, "fields": fields, "responses": {question: responses}})
    return records


def to_label_studio(judgements: Iterable[Ranking | Comparison]) -> list[dict]:
    """Tasks with their annotations, one for each thing judged. A ranking is a Ranker over the list `items`,
    its tiers the buckets "1", "2" …; a comparison is Pairwise over answer1 and answer2, and Choices with its
    rating, "-3" … "+3". `read_judgements` takes them back; hits have no place there."""
    tasks = []
    for first, said in _by_item(judgements):
        if isinstance(first, Ranking):
            passages = {passage.id: passage for passage in first.passages}.values()
            data = {"items": [{"id": p.id, "title": p.title, "body": p.text} for p in passages]}
        else:
            data = {"answer1": first.answer_a, "answer2": first.answer_b}
        annotations = []
        for one in said:
            result = _buckets(one) if isinstance(one, Ranking) else _choices(_vote(one, first))
            annotations.append({"completed_by": {"email": one.annotator}, "result": result})
        tasks.append({"data": {"prompt": first.query} | data, "annotations": annotations})
    return tasks


def _buckets(ranking: Ranking) -> list[dict]:
    tiers = {str(n): [ranking.passages[i].id for i in tier] for n, tier in enumerate(ranking.tiers, 1)}
    rest = [passage.id for passage, rank in zip(ranking.passages, ranking.ranks) if rank is None]
    return [_result("ranker", "ranking", "items", {"ranker": tiers | {"_": rest}})]


def _choices(vote: str) -> list[dict]:
    result = [_result("choices", "preference", "prompt", {"choices": [vote]})]
    if not vote.startswith("+0"):
        side = {"selected": "left" if vote.startswith("-") else "right"}
        result.append(_result("pairwise", "pairwise", "answer1,answer2", side))
    return result


def _by_item(judgements: Iterable) -> list[tuple]:
    """(the first, all) of the judgements on each item."""
    items: dict[str, list] = {}
    for judgement in judgements:
        items.setdefault(judgement.item, []).append(judgement)
    return [(said[0], said) for said in items.values()]


def _vote(one: Comparison, first: Comparison) -> str:
    """A rating as those read it who saw the first one's sides."""
    rating = one.rating if one.answer_a == first.answer_a else -one.rating
    return f"{rating:+d}" + " (bothbad)" * bool(one.both_bad)


def _result(kind: str, name: str, to: str, value: dict) -> dict:
    return {"type": kind, "from_name": name, "to_name": to, "value": value}
