"""Rankings to be made of the documents found for each query, and what a person does to an order; no Jupyter.

An order with ties is a list of tiers, best first; a tier is a list of documents that tie, by any values. A
slot is a place on the screen, from 0, when all tiers are read one after the other. Functions of an order
return new lists, and raise IndexError for a slot that is not there.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ragkit.preferences.judgements import Judgement, Ranking
from ragkit.preferences.session import Session, View
from ragkit.retrieval.corpus import Hit

Tiers = list[list[int]]


def flat(tiers: Tiers) -> list[int]:
    """The document in each slot."""
    return [document for tier in tiers for document in tier]


def places(tiers: Tiers) -> list[int]:
    """The place of the document in each slot, from 1; those that tie share one: 1, 2, 2, 4."""
    numbers = []
    for tier in tiers:
        numbers += [len(numbers) + 1] * len(tier)
    return numbers


def move(tiers: Tiers, slot: int, by: int) -> Tiers:
    """The document in `slot` goes up (by < 0) or down, a step at a time; at the end it stays.

    A step takes it out of its tie, or else past all of the next tier: each step changes what the order says.
    """
    tier, document = _locate(tiers, slot)
    tiers = [list(each) for each in tiers]
    for _ in range(abs(by)):
        step = 1 if by > 0 else -1
        if len(tiers[tier]) > 1:
            tiers[tier].remove(document)
            tier += by > 0
            tiers.insert(tier, [document])
        elif 0 <= tier + step < len(tiers):
            tiers[tier], tiers[tier + step] = tiers[tier + step], tiers[tier]
            tier += step
    return tiers


def place(tiers: Tiers, slot: int, target: int) -> Tiers:
    """The document in `slot` gets the slot `target`, alone in its tier; the others keep their order and ties.

    A tie that it would stand in the middle of is cut in two.
    """
    (_, document), _ = _locate(tiers, slot), _locate(tiers, target)
    above, below, room = [], [], target
    for tier in tiers:
        rest = [each for each in tier if each != document]
        above.append(rest[:room])
        below.append(rest[room:])
        room -= len(above[-1])
    return [tier for tier in [*above, [document], *below] if tier]


def tie(tiers: Tiers, slot: int) -> Tiers:
    """Tie the document in `slot` with the one above it, or cut that tie. In the first slot: no change."""
    tier, document = _locate(tiers, slot)
    tiers = [list(each) for each in tiers]
    cut = tiers[tier].index(document)
    if cut:
        tiers[tier : tier + 1] = [tiers[tier][:cut], tiers[tier][cut:]]
    elif tier:
        tiers[tier - 1 : tier + 1] = [tiers[tier - 1] + tiers[tier]]
    return tiers


def is_tied(tiers: Tiers, slot: int) -> bool:
    """Whether the document in `slot` ties with the one above it."""
    tier, document = _locate(tiers, slot)
    return tiers[tier][0] != document


def _locate(tiers: Tiers, slot: int) -> tuple[int, int]:
    """The tier that holds `slot`, and the document in it."""
    documents = [(tier, document) for tier, each in enumerate(tiers) for document in each]
    if not 0 <= slot < len(documents):
        raise IndexError(f"slot {slot} of {len(documents)}, counted from 0")
    return documents[slot]


@dataclass(kw_only=True)
class RankingView(View):
    """`order`: indices into `hits` as first shown; c1 is `hits[order[0]]`. `tiers`: as ranked now."""

    hits: list[Hit]
    order: list[int]
    tiers: Tiers

    def name(self, document: int) -> str:
        """c1, c2, c3: by the place where it was first shown, which says nothing of the retriever's order."""
        return f"c{self.order.index(document) + 1}"


class RankingSession(Session):
    """Rankings of the documents that `find(query)` gives for each query, duplicate queries once.

    `choose`, of the remaining queries, names the next one; by default they come in order. What `facts()`
    returns goes into each event's details. The order shown is `list(range(k))` after
    `random.Random(seed).shuffle`. Raises ValueError for no queries and for one that is not a text, and, from
    `next`, for a choice not among those offered.
    """

    KIND = Ranking

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
        super().__init__(log, queries, seed=seed, repeat_share=repeat_share, facts=facts)
        self._find, self._chooser = find, choose
        self._hits: dict[int, list[Hit]] = {}
        self._items: dict[int, str] = {}

    def _judge(self, details: dict) -> Ranking:
        view = self.view
        scores, passages = [hit.score for hit in view.hits], [hit.passage for hit in view.hits]
        return Ranking(view.query, passages, view.tiers, view.order, scores, details=details)

    def _number(self, judgement: Judgement) -> int | None:
        number = self._numbers.get(judgement.query)  # first, for an item needs a search of the library
        known = number is not None and not self._unfit(number) and judgement.item == self._items[number]
        return number if known else None

    def _unfit(self, number: int) -> str | None:
        query = self._keys[number]
        if number not in self._hits:
            self._hits[number] = hits = list(self._find(query))
            self._items[number] = Ranking(query, [hit.passage for hit in hits], []).item
        size = len(self._hits[number])
        if size >= 2:
            return None
        documents = "1 document was" if size == 1 else "no documents were"
        return f"{documents} found for “{query}”, and an order needs two"

    def _choose(self, fresh: list[int]) -> int:
        if self._chooser is None:
            return fresh[0]
        offered = [self._keys[number] for number in fresh]
        query = self._chooser(list(offered))
        if query not in offered:
            raise ValueError(f"choose gave {query!r}, which is not among the {len(offered)} queries left")
        return self._numbers[query]

    def _show(self, number: int, seeds: Iterator[int], before: Judgement | None) -> RankingView:
        hits = self._hits[number]
        shown = before.shown_order and _renumber(before, hits, before.shown_order) if before else None
        for seed in seeds:
            order = list(range(len(hits)))
            random.Random(seed).shuffle(order)
            if order != shown:
                break
        query, item, tiers = self._keys[number], self._items[number], [[document] for document in order]
        return RankingView(query=query, item=item, seed=seed, hits=hits, order=order, tiers=tiers)

    def _restore(self, judgement: Ranking) -> None:
        hits = self.view.hits
        if judgement.shown_order is not None:
            self.view.order = _renumber(judgement, hits, judgement.shown_order)
        tiers = [_renumber(judgement, hits, tier) for tier in judgement.tiers]
        rest = [[document] for document in self.view.order if document not in flat(tiers)]
        self.view.tiers, self.view.moves = tiers + rest, judgement.details.get("moves", 0)


def _renumber(judgement: Ranking, hits: list[Hit], indices: list[int]) -> list[int]:
    """Indices into a logged ranking's passages, as indices into `hits`: another search, another order."""
    at = {hit.passage.id: index for index, hit in enumerate(hits)}
    return [at[judgement.passages[index].id] for index in indices]
