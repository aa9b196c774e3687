"""What people said of answers, as token ids after the prompts that the answers were written to."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ragkit.generation.generator import ABSTENTION, Generator
from ragkit.generation.marginal import answer_ids
from ragkit.generation.prompt import Prompt
from ragkit.preferences.judgements import Comparison, Feedback, Ranking
from ragkit.preferences.pairs import Pairs, pairs_of
from ragkit.retrieval.corpus import Hit

Hits = Mapping[str, list[Hit]] | Callable[[str], list[Hit]]


@dataclass
class JudgedAnswers:
    """Prompts, (G,), and of each the answers that were judged; what was said refers to them by place.

    `pairs` is the table that strengths look at; `pair_places`, (P, 3): prompt, better and other answer.
    `lists`: (prompt, answers, their tiers) of rankings. `labels`: (prompt, answer, liked) of thumbs.
    """

    queries: list[str] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    answers: list[list[list[int]]] = field(default_factory=list)
    pairs: Pairs = field(default_factory=lambda: Pairs([], [], []))
    pair_places: np.ndarray = field(default_factory=lambda: np.empty((0, 3), dtype=np.int64))
    lists: list[tuple[int, list[int], list[int]]] = field(default_factory=list)
    labels: list[tuple[int, int, bool]] = field(default_factory=list)


def judged_answers(
    generator: Generator,
    judgements: Iterable[Comparison | Ranking | Feedback] | Pairs,
    *,
    hits: Hits | None = None,
    style: str = "sentence",
    cite: bool = True,
) -> JudgedAnswers:
    """Each answer behind the prompt that `generator` makes of its query and hits in `style`.

    A ranking is one of answers: its passages' texts. `hits`: what was read, by query, for judgements that
    don't carry it. `cite`: see `written_ids`. Raises ValueError where nothing was judged, for a query whose
    hits are not known, and for an answer that leaves no room in the model's window.
    """
    if isinstance(judgements, Pairs):
        pairs, said = judgements, []
        asked = [(query, []) for query in pairs.query]
    else:
        said = [one for one in judgements if isinstance(one, Comparison | Ranking | Feedback)]
        pairs = pairs_of(said)
        asked = [(said[number].query, getattr(said[number], "hits", [])) for number in pairs.judgement]
    sheet, place_of, answer_of, prompt_of = JudgedAnswers(pairs=pairs), {}, {}, []

    def prompt_place(query: str, own: list[Hit]) -> int:
        if not own:
            own = hits(query) if callable(hits) else (hits or {}).get(query)
            if own is None:
                raise ValueError(f"{query!r}: no hits were logged; say what was read, hits={{query: hits}}")
        key = query, tuple((hit.passage.id, hit.passage.text) for hit in own)
        if key not in place_of:
            place_of[key] = len(sheet.prompts)
            prompt_of.append(generator.prompt(query, own, style=style))
            sheet.queries.append(query)
            sheet.prompts.append(prompt_of[-1].ids)
            sheet.answers.append([])
        return place_of[key]

    def answer_place(prompt: int, text: str) -> int:
        if (prompt, text) not in answer_of:
            ids = written_ids(generator, prompt_of[prompt], text, cite=cite)
            if len(sheet.prompts[prompt]) + len(ids) > generator.window:
                raise ValueError(
                    f"{sheet.queries[prompt]!r}: {len(sheet.prompts[prompt])} tokens to read and an answer of "
                    f"{len(ids)} do not fit in the model's window of {generator.window}: {text[:60]!r} …"
                )
            answer_of[prompt, text] = len(sheet.answers[prompt])
            sheet.answers[prompt].append(ids)
        return answer_of[prompt, text]

    places = []
    for (query, own), chosen, rejected in zip(asked, pairs.chosen, pairs.rejected):
        prompt = prompt_place(query, own)
        places.append((prompt, answer_place(prompt, chosen), answer_place(prompt, rejected)))
    sheet.pair_places = np.array(places, dtype=np.int64).reshape(-1, 3)
    for one in said:
        prompt = prompt_place(one.query, getattr(one, "hits", []))
        if isinstance(one, Feedback):
            sheet.labels.append((prompt, answer_place(prompt, one.answer), one.good))
        elif isinstance(one, Ranking):
            judged = [(index, tier) for tier, indices in enumerate(one.tiers) for index in indices]
            answers = [answer_place(prompt, one.passages[index].full_text) for index, _ in judged]
            sheet.lists.append((prompt, answers, [tier for _, tier in judged]))
    if not sheet.prompts:
        raise ValueError("nothing to learn from: no comparison, no ranking of answers and no thumb")
    return sheet


def written_ids(generator: Generator, prompt: Prompt, text: str, *, cite: bool = True) -> list[int]:
    """The tokens with which this generator would write `text` after `prompt`, their end included.

    A model that reads sentences cites one first: "[2] text" cites the second that it read; with `cite`, so
    does a text that stands in that sentence. `ABSTENTION` is written as it declines.
    """
    if not generator.sentences:
        return answer_ids(generator, text)
    if text == ABSTENTION:
        return generator.none_ids()
    if (found := re.match(r"\s*\[([1-9])\]\s*", text)) and int(found[1]) <= len(prompt.evidence):
        cited, text = int(found[1]), text[found.end() :]
    else:
        within = (n for n, piece in enumerate(prompt.evidence, 1) if cite and text in piece.text)
        cited = next(within, None)
    return [*(generator.citation_ids(cited) if cited else []), *answer_ids(generator, text)]
