"""Many rankings as arrays: their documents one after another, and the pairs among them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain

import numpy as np

from ragkit.preferences.judgements import Ranking
from ragkit.preferences.pairs import Pairs, pairs_of
from ragkit.reranking.features import Described

# Columns with a row a document.
DOCUMENTS = ("features", "vectors", "base", "found", "prior", "ranks", "places")
TEMPERATURE = 0.05  # of cosines: a difference of 0.05 between two documents is one logit of s_0


@dataclass(frozen=True, eq=False)
class Table:
    """L rankings of N documents and P pairs in all.

    Of documents, (N, …): `features`, `vectors`, `base` (s_0, in logits, from which training starts),
    `found` (the same, `as_found`, from which reports do), `prior` (what other people's rankings add to it, or
    0), `ranks` (the tier, −1 where not judged), `places` (in the order shown, NaN where not known),
    `of_list`.
    Of pairs: `pairs`, whose `judgement` is the list that each is of. Of rankings: `queries`, (L,), and their
    vectors, `asked`, (L, D).
    """

    features: np.ndarray
    vectors: np.ndarray
    base: np.ndarray
    found: np.ndarray
    prior: np.ndarray
    ranks: np.ndarray
    places: np.ndarray
    of_list: np.ndarray
    pairs: Pairs
    queries: list[str]
    asked: np.ndarray

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def before(self) -> np.ndarray:
        """(N,): the scores that training starts from."""
        return self.base + self.prior

    @property
    def starts(self) -> np.ndarray:
        """(L,): where each list's documents begin."""
        return np.searchsorted(self.of_list, np.arange(len(self)))

    @property
    def pair_list(self) -> np.ndarray:
        """(P,): the list that each pair is of."""
        return self.pairs.judgement

    @cached_property
    def sides(self) -> np.ndarray:
        """(P, 2): y⁺ and y⁻ of each pair, as indices into the N documents."""
        own = np.stack([self.pairs.chosen_index, self.pairs.rejected_index], 1).astype(int)
        return self.starts[self.pair_list][:, None] + own

    @classmethod
    def build(
        cls,
        rankings: Sequence[Ranking],
        described: Sequence[Described],
        prior: Callable[[Described], np.ndarray] | None = None,
    ) -> "Table":
        return cls.join([_one(ranking, what, prior) for ranking, what in zip(rankings, described)])

    @classmethod
    def join(cls, tables: Sequence["Table"]) -> "Table":
        """One after another; pairs of one query are one group again."""
        lists = np.cumsum([0, *map(len, tables)])
        queries = list(chain(*(table.queries for table in tables)))
        number = {query: n for n, query in enumerate(dict.fromkeys(queries))}
        judgement = np.concatenate([table.pair_list + n for table, n in zip(tables, lists)])
        pairs = _joined([table.pairs for table in tables], [field.name for field in fields(Pairs)])
        group = np.array([number[query] for query in queries])[judgement]
        return cls(
            **_joined(tables, DOCUMENTS),
            of_list=np.concatenate([table.of_list + n for table, n in zip(tables, lists)]),
            pairs=Pairs(**pairs | {"judgement": judgement, "group": group}),
            queries=queries,
            asked=np.concatenate([table.asked for table in tables]),
        )

    def take(self, lists: np.ndarray) -> "Table":
        """Some of the rankings, by increasing index."""
        kept = np.isin(np.arange(len(self)), lists)
        rows, pairs = kept[self.of_list], self.pairs[kept[self.pair_list]]
        new_list = np.cumsum(kept) - 1
        return Table(
            **{name: getattr(self, name)[rows] for name in DOCUMENTS},
            of_list=new_list[self.of_list[rows]],
            pairs=replace(pairs, judgement=new_list[pairs.judgement]),
            queries=[self.queries[n] for n in np.flatnonzero(kept)],
            asked=self.asked[kept],
        )

    def with_pairs(self, rows: np.ndarray) -> "Table":
        """The same rankings with some of their pairs."""
        return replace(self, pairs=self.pairs[rows])

    def strict(self) -> "Table":
        """Without ties: two documents of one grade need not be equal, and a likelihood would say so."""
        return self.with_pairs(np.flatnonzero(self.pairs.target != 0.5))


def base_scores(described: Described) -> np.ndarray:
    """s_0, (K,): the retriever's cosines in logits."""
    return described.similarity / TEMPERATURE


def as_found(base: np.ndarray, scores: Sequence[float] | None) -> np.ndarray:
    """s_0, (K,), put into the order of `scores`, those by which the documents were found: the largest of
    s_0 goes to the best of them.

    Where they are the encoder's cosines, that is s_0. Another search, such as `hybrid_search`, has another
    order, with the encoder's spread: scores of words, or of ranks, are no logits. None: not known. Ranking
    starts from this, training from s_0 itself: to start it here, too, was tried, and did no better
    (RESULTS.md).
    """
    if scores is None:
        return base
    order = np.lexsort((-base, -np.asarray(scores, dtype=float)))  # of equal scores, the encoder's
    found = np.empty_like(base)
    found[order] = np.sort(base)[::-1]
    return found


def _joined(parts: Sequence, names: Sequence[str]) -> dict:
    """Columns of the same names, one part after another."""
    columns = {name: [getattr(part, name) for part in parts] for name in names}
    return {
        name: list(chain(*x)) if isinstance(x[0], list) else np.concatenate(x) for name, x in columns.items()
    }


def _one(ranking: Ranking, described: Described, prior: Callable | None) -> Table:
    size = len(ranking.passages)
    ranks = np.array([-1 if rank is None else rank for rank in ranking.ranks], dtype=int)
    places = np.full(size, np.nan)
    if ranking.shown_order is not None:
        places[ranking.shown_order] = np.arange(size)
    base = base_scores(described)
    return Table(
        features=described.features,
        vectors=described.vectors,
        base=base,
        found=as_found(base, ranking.search_scores),
        prior=prior(described) if prior else np.zeros(size),
        ranks=ranks,
        places=places,
        of_list=np.zeros(size, dtype=int),
        pairs=pairs_of([ranking]),
        queries=[ranking.query],
        asked=described.asked[None],
    )
