"""Comparisons to be made of two answers to a query; no Jupyter."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ragkit.preferences.judgements import RATINGS, Comparison, Judgement
from ragkit.preferences.session import Session, View
from ragkit.retrieval.corpus import Hit


@dataclass(kw_only=True)
class ComparisonView(View):
    """Two answers; where `swapped`, the second stands on the left. `rating`: −3 left … +3 right, or None."""

    answers: tuple
    hits: list[Hit]
    swapped: bool
    rating: int | None = None
    both_bad: bool = False

    @property
    def sides(self) -> tuple:
        """The answers as shown, left and right."""
        return self.answers[::-1] if self.swapped else self.answers


class ComparisonSession(Session):
    """Comparisons of two answers to a query.

    `pairs`: (query, answer_a, answer_b) or (query, answer_a, answer_b, hits); an answer is a text or an
    `Answer`, `hits` is what both were written from. The first answer stands on the left unless
    `random.Random(seed).getrandbits(1)`. The same pair twice counts once; a pair of equal texts is left out.
    Raises ValueError for no pairs and for one of another form.
    """

    KIND = Comparison

    def __init__(
        self,
        pairs: Sequence[tuple],
        log,
        *,
        seed: int | None = None,
        repeat_share: float = 0.1,
        facts: Callable[[], dict] | None = None,
    ):
        checked = [_checked(pair, place) for place, pair in enumerate(pairs)]
        if not checked:
            raise ValueError("no pairs of answers, so there is nothing to compare")
        self._pairs = {Comparison(q, text(a), text(b), 0).item: (q, a, b, hits) for q, a, b, hits in checked}
        super().__init__(log, self._pairs, seed=seed, repeat_share=repeat_share, facts=facts)

    def _judge(self, details: dict) -> Comparison:
        view = self.view
        if view.rating is None and not view.both_bad:
            raise ValueError("choose a rating first")
        a, b = map(text, view.answers)
        rating = (view.rating or 0) * (-1 if view.swapped else 1)
        details = details | {"swapped": view.swapped}
        return Comparison(view.query, a, b, rating, view.both_bad, view.hits, details=details)

    def rate(self, rating: int) -> None:
        """From −3, left is much better, to +3, right is. Raises ValueError for another rating."""
        if rating not in RATINGS:
            raise ValueError(f"rating={rating!r}: a whole number from -3 (left) to +3 (right)")
        self.view.rating, self.view.moves = rating, self.view.moves + 1

    def _number(self, judgement: Judgement) -> int | None:
        number = self._numbers.get(judgement.item)
        return None if number is None or self._unfit(number) else number

    def _unfit(self, number: int) -> str | None:
        query, a, b, _ = self._pairs[self._keys[number]]
        return f"both answers to “{query}” are the same" if text(a) == text(b) else None

    def _show(self, number: int, seeds: Iterator[int], before: Judgement | None) -> ComparisonView:
        query, a, b, hits = self._pairs[self._keys[number]]
        left = before and (before.answer_b if before.details.get("swapped") else before.answer_a)
        for seed in seeds:
            swapped = bool(random.Random(seed).getrandbits(1))
            if text(b if swapped else a) != left:
                break
        item = self._keys[number]
        return ComparisonView(query=query, item=item, seed=seed, answers=(a, b), hits=hits, swapped=swapped)

    def _restore(self, judgement: Comparison) -> None:
        view = self.view
        if judgement.answer_a != text(view.answers[0]):  # it was logged when the pair stood the other way
            view.answers = view.answers[::-1]
        view.swapped = bool(judgement.details.get("swapped"))
        unrated = judgement.both_bad and not judgement.rating
        view.rating = None if unrated else -judgement.rating if view.swapped else judgement.rating
        view.both_bad, view.moves = judgement.both_bad, judgement.details.get("moves", 0)


def text(answer) -> str:
    """The text of an answer that is a text or an `Answer`."""
    return answer if isinstance(answer, str) else answer.text


def _checked(pair: tuple, place: int) -> tuple:
    form = "(query, answer_a, answer_b), perhaps with hits; an answer is a text or an Answer"
    try:
        query, a, b, *rest = pair
        (hits,) = rest or [[]]
        texts = [query, text(a), text(b)]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"pair {place} is not {form} ({error})") from error
    if not all(isinstance(each, str) and each.strip() for each in texts):
        raise ValueError(f"pair {place} is not {form}: a text is missing or empty")
    return query, a, b, list(hits)
