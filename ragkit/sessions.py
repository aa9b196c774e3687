"""What a person judges: the documents found for a query, or two answers to it; no Jupyter."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ragkit.corpus import Hit
from ragkit.judgements import RATINGS, Comparison, Judgement, Ranking
from ragkit.session import Session, View
from ragkit.tiers import Tiers, flat


@dataclass(kw_only=True)
class RankingView(View):
    """`order`: indices into `hits` as first shown; c1 is `hits[order[0]]`. `tiers`: as ranked now."""

    hits: list[Hit]
    order: list[int]
    tiers: Tiers

    def name(self, document: int) -> str:
        """c1, c2, c3: by the place where it was first shown, which says nothing of the retriever's order."""
        return f"c{self.order.index(document) + 1}"


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


class RankingSession(Session):
    """Rankings of the documents that `find(query)` gives for each query, duplicate queries once.

    `choose`, of the remaining queries, names the next one; by default they come in order. What `facts()`
    returns goes into each event's details. The order shown is `list(range(k))` after
    `random.Random(seed).shuffle`. Raises ValueError for no queries and for one that is not a text, and, from
    `next`, for a choice not among those offered.
    """

    def __init__(
        self,
        queries: Sequence[str],
        find: Callable[[str], list[Hit]],
        log,
        *,
        seed: int | None = None,
        repeat_share: float = 0.1,
        choose: Callable[[list[str]], str] | None = None,
        facts: Callable[[], dict] | None = None,
    ):
        queries = [queries] if isinstance(queries, str) else list(queries)
        for query in queries:
            if not isinstance(query, str) or not query.strip():
                raise ValueError(f"query {query!r}: a question, as a string that is not empty")
        if not queries:
            raise ValueError("no queries, so there is nothing to rank")
        super().__init__(log, list(dict.fromkeys(queries)), seed=seed, repeat_share=repeat_share, facts=facts)
        self._find, self._chooser = find, choose
        self._found: dict[int, list[Hit]] = {}

    def save(self) -> int:
        """Log the view's tiers as the person's ranking; returns the event's number once it is on disk."""

        def judge(details: dict) -> Ranking:
            view = self.view
            scores = [hit.score for hit in view.hits]
            passages = [hit.passage for hit in view.hits]
            return Ranking(view.query, passages, view.tiers, view.order, scores, details=details)

        return self._record(judge)

    def _judgements(self) -> list[Judgement]:
        return self.log.rankings()

    def _query(self, number: int) -> str:
        return self._keys[number]

    def _hits(self, number: int) -> list[Hit]:
        if number not in self._found:
            self._found[number] = list(self._find(self._query(number)))
        return self._found[number]

    def _item(self, number: int) -> str:
        return Ranking(self._query(number), [hit.passage for hit in self._hits(number)], []).item

    def _unfit(self, number: int) -> str | None:
        found = len(self._hits(number))
        if found >= 2:
            return None
        documents = "1 document was" if found == 1 else "no documents were"
        return f"{documents} found for “{self._query(number)}”, and an order needs two"

    def _choose(self, fresh: list[int]) -> int:
        if self._chooser is None:
            return fresh[0]
        offered = {self._query(number): number for number in fresh}
        query = self._chooser(list(offered))
        if query not in offered:
            raise ValueError(f"choose gave {query!r}, which is not among the {len(offered)} queries left")
        return offered[query]

    def _show(self, number: int, seeds: Iterator[int], before: Judgement | None) -> RankingView:
        hits = self._hits(number)
        shown = before.shown_order and _renumber(before, hits, before.shown_order) if before else None
        for seed in seeds:
            order = list(range(len(hits)))
            random.Random(seed).shuffle(order)
            if order != shown:
                break
        return RankingView(
            number=number,
            query=self._query(number),
            item=self._item(number),
            seed=seed,
            repeat_of=before.event_id if before else None,
            hits=hits,
            order=order,
            tiers=[[document] for document in order],
        )

    def _restore(self, judgement: Ranking) -> None:
        hits = self.view.hits
        if judgement.shown_order is not None:
            self.view.order = _renumber(judgement, hits, judgement.shown_order)
        tiers = [_renumber(judgement, hits, tier) for tier in judgement.tiers]
        rest = [[document] for document in self.view.order if document not in flat(tiers)]
        self.view.tiers, self.view.moves = tiers + rest, judgement.details.get("moves", 0)


class ComparisonSession(Session):
    """Comparisons of two answers to a query.

    `pairs`: (query, answer_a, answer_b) or (query, answer_a, answer_b, hits); an answer is a text or an
    `Answer`, `hits` is what both were written from. The first answer stands on the left unless
    `random.Random(seed).getrandbits(1)`. The same pair twice counts once; a pair of equal texts is left out.
    Raises ValueError for no pairs and for one of another form.
    """

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
        super().__init__(log, list(self._pairs), seed=seed, repeat_share=repeat_share, facts=facts)

    def save(self) -> int:
        """Log the view's rating; returns the event's number once on disk. Raises ValueError without one."""
        view = self.view
        if view is not None and view.rating is None and not view.both_bad:
            raise ValueError("choose a rating first")

        def judge(details: dict) -> Comparison:
            a, b = view.answers
            left = view.rating or 0
            details = details | {"swapped": view.swapped}
            return Comparison(
                view.query,
                text(a),
                text(b),
                -left if view.swapped else left,
                both_bad=view.both_bad,
                hits=view.hits,
                details=details,
            )

        return self._record(judge)

    def rate(self, rating: int) -> None:
        """From −3, left is much better, to +3, right is. Raises ValueError for another rating."""
        if rating not in RATINGS:
            raise ValueError(f"rating={rating!r}: a whole number from -3 (left) to +3 (right)")
        self.view.rating, self.view.moves = rating, self.view.moves + 1

    def _judgements(self) -> list[Judgement]:
        return self.log.comparisons()

    def _query(self, number: int) -> str:
        return self._pairs[self._keys[number]][0]

    def _item(self, number: int) -> str:
        return self._keys[number]

    def _unfit(self, number: int) -> str | None:
        query, a, b, _ = self._pairs[self._keys[number]]
        return f"both answers to “{query}” are the same" if text(a) == text(b) else None

    def _show(self, number: int, seeds: Iterator[int], before: Judgement | None) -> "ComparisonView":
        query, a, b, hits = self._pairs[self._keys[number]]
        left = before and (before.answer_b if before.details.get("swapped") else before.answer_a)
        for seed in seeds:
            swapped = bool(random.Random(seed).getrandbits(1))
            if text(b if swapped else a) != left:
                break
        return ComparisonView(
            number=number,
            query=query,
            item=self._keys[number],
            seed=seed,
            repeat_of=before.event_id if before else None,
            answers=(a, b),
            hits=hits,
            swapped=swapped,
        )

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


def _renumber(judgement: Ranking, hits: list[Hit], indices: list[int]) -> list[int]:
    """Indices into a logged ranking's passages, as indices into `hits`: another search, another order."""
    at = {hit.passage.id: index for index, hit in enumerate(hits)}
    return [at[judgement.passages[index].id] for index in indices]
