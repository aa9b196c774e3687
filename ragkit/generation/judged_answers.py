"""What people said of answers, as token ids after the prompts that the answers were written to."""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ragkit.generation.answer import ABSTENTION
from ragkit.generation.generator import Generator
from ragkit.generation.marginal import answer_ids
from ragkit.generation.prompt import Prompt
from ragkit.preferences.judgements import Comparison, Feedback, Ranking
from ragkit.preferences.pairs import Pairs, pairs_of
from ragkit.retrieval.corpus import Hit
from ragkit.retrieval.text import words

Hits = Mapping[str, list[Hit]] | Callable[[str], list[Hit]]


@dataclass
class JudgedAnswers:
    """G prompts, and of each the answers that were judged; what was said refers to them by place.

    `queries`, `prompts`, `answers`: (G,), the last two as token ids. The same in three forms: `pairs`, which
    strengths look at, with `pair_places`, (P, 3): prompt, better and other answer; `lists`: (prompt, answers,
    their tiers), of a pair too; `labels`: (prompt, answer, good), of thumbs and of both sides of a pair.
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
    don't carry it. `cite`: see `written_ids`. Where the hits hold nothing that the generator would read, what
    was said is left out, with a warning. Raises ValueError where nothing is left, for a query whose hits are
    not known, and for an answer that leaves no room in the model's window.
    """
    if isinstance(judgements, Pairs):
        pairs, said = judgements, []
        asked = [(query, []) for query in pairs.query]
    else:
        said = [one for one in judgements if isinstance(one, Comparison | Ranking | Feedback)]
        pairs = pairs_of(said)
        asked = [(said[number].query, getattr(said[number], "hits", [])) for number in pairs.judgement]
    desk = _Desk(generator, hits, style, cite)
    sheet, kept, places = desk.sheet, [], []
    for row, (query, own) in enumerate(asked):
        if (prompt := desk.prompt(query, own)) is None:
            continue
        kept.append(row)
        both = [desk.answer(prompt, text) for text in (pairs.chosen[row], pairs.rejected[row])]
        places.append((prompt, *both))
        kind = type(said[pairs.judgement[row]]) if said else Comparison
        target = pairs.target[row]
        if kind is not Ranking:
            sheet.lists.append((prompt, both, [int(target < 0.5), int(target > 0.5)]))
        if kind is not Feedback and target != 0.5:
            sheet.labels += [(prompt, both[0], target > 0.5), (prompt, both[1], target < 0.5)]
    sheet.pairs, sheet.pair_places = pairs[kept], np.array(places, dtype=np.int64).reshape(-1, 3)
    for one in said:
        prompt = desk.prompt(one.query, getattr(one, "hits", []))
        if prompt is None or isinstance(one, Comparison):
            continue
        if isinstance(one, Feedback):
            sheet.labels.append((prompt, desk.answer(prompt, one.answer), one.good))
        else:
            judged = [(index, tier) for tier, indices in enumerate(one.tiers) for index in indices]
            answers = [desk.answer(prompt, one.passages[index].full_text) for index, _ in judged]
            sheet.lists.append((prompt, answers, [tier for _, tier in judged]))
    if desk.unread:
        warnings.warn(
            f"left out: what was said on {len(desk.unread)} queries whose hits hold no evidence for them: "
            f"{sorted(desk.unread)[0]!r} …",
            stacklevel=3,
        )
    if not sheet.prompts:
        raise ValueError("nothing to learn from: no comparison, no ranking of answers and no thumb")
    return sheet


class _Desk:
    """Where prompts and answers become token ids, each once."""

    def __init__(self, generator: Generator, hits: Hits | None, style: str, cite: bool):
        self.generator, self.hits, self.style, self.cite = generator, hits, style, cite
        self.sheet, self.unread = JudgedAnswers(), set()
        self._prompts: list[Prompt] = []
        self._prompt_of: dict = {}
        self._answer_of: dict = {}

    def prompt(self, query: str, own: list[Hit]) -> int | None:
        """The place of the prompt for this query and these hits; None where there is nothing to read."""
        if not own:
            own = self.hits(query) if callable(self.hits) else (self.hits or {}).get(query)
            if own is None:
                raise ValueError(f"{query!r}: no hits were logged; say what was read, hits={{query: hits}}")
        key = query, tuple((hit.passage.id, hit.passage.text) for hit in own)
        if key not in self._prompt_of:
            prompt = self.generator.prompt(query, own, style=self.style)
            if not prompt.evidence:
                self.unread.add(query)
                self._prompt_of[key] = None
                return None
            self._prompt_of[key] = len(self._prompts)
            self._prompts.append(prompt)
            self.sheet.queries.append(query)
            self.sheet.prompts.append(prompt.ids)
            self.sheet.answers.append([])
        return self._prompt_of[key]

    def answer(self, place: int, text: str) -> int:
        if (place, text) not in self._answer_of:
            prompt = self._prompts[place]
            ids = written_ids(self.generator, prompt, text, cite=self.cite)
            if len(prompt.ids) + len(ids) > self.generator.window:
                raise ValueError(
                    f"{prompt.query!r}: {len(prompt.ids)} tokens to read and an answer of {len(ids)} do not "
                    f"fit in the model's window of {self.generator.window}: {text[:60]!r} …"
                )
            self._answer_of[place, text] = len(self.sheet.answers[place])
            self.sheet.answers[place].append(ids)
        return self._answer_of[place, text]


def written_ids(generator: Generator, prompt: Prompt, text: str, *, cite: bool = True) -> list[int]:
    """The tokens with which this generator would write `text` after `prompt`, their end included.

    A model that reads sentences cites one first: for "[2] text", as in `Answer.text`, that of the second hit
    which shares most words with the text; with `cite`, for any text the one that it stands in. smollm2-reader
    writes nothing without a citation: what stands in no sentence cites the one which shares most words with
    it. `ABSTENTION` is written as it declines.
    """
    if not generator.sentences:
        return answer_ids(generator, text)
    if text == ABSTENTION:
        return generator.none_ids()
    pieces = dict(enumerate(prompt.evidence, 1))
    found = re.match(r"\s*\[([1-9])\]\s*", text)
    if found and (of_hit := [number for number, piece in pieces.items() if piece.hit == int(found[1])]):
        text, among = text[found.end() :], of_hit
    else:
        among = [number for number, piece in pieces.items() if cite and text in piece.text]
    if not among and generator.reader:
        among = [*pieces]
    if not among:
        return answer_ids(generator, text)
    said = set(words(text))
    cited = max(among, key=lambda number: len(said & set(words(pieces[number].text))))
    return [*generator.citation_ids(cited), *answer_ids(generator, text)]


def written_text(generator: Generator, prompt: Prompt, ids: list[int]) -> str:
    """What a generator wrote after `prompt`, as text; [n] is the n-th hit, as in `Answer.citations`.

    A model that reads sentences cites these; a number that none of them has is left out.
    """
    text = generator.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if not generator.sentences:
        return text.strip()
    if ids[: len(none := generator.none_ids()[:-1])] == none:
        return ABSTENTION
    pieces = dict(enumerate(prompt.evidence, 1))
    if generator.reader:
        text = f"[{text}"  # its prompt ends with the bracket
    else:
        cited = (number for number in pieces if generator.citation_ids(number) == ids[:1])
        text = "".join(f"[{number}]" for number in cited) + text

    def cite(found: re.Match) -> str:
        return f"[{pieces[number].hit}] " if (number := int(found[1])) in pieces else ""

    return " ".join(re.sub(r"^\[(\d)\]\s*", cite, line).strip() for line in text.splitlines())
