"""What to ask next: the query whose ranking would tell the reranker most."""

from collections.abc import Callable, Sequence

from ragkit.corpus import Hit


class MostInformative:
    """For `RankDocuments(choose=…)`: of the remaining queries, the one with the most expected information.

    `find(query)` gives the hits that would be ranked, as `Assistant.find` does; the reranker says
    how much their order would tell it (`Reranker.information`). `least`: so many queries are taken in order
    first, as long as the reranker has seen fewer. `look_at`: at most so many candidates are compared.
    """

    def __init__(self, reranker, find: Callable[[str], Sequence[Hit]], *, least: int = 5, look_at: int = 200):
        self.reranker, self.find, self.least, self.look_at = reranker, find, least, look_at
        self._hits: dict[str, list] = {}

    def __call__(self, queries: Sequence[str]) -> str:
        queries = list(queries)
        if self.reranker.seen < self.least:
            return queries[0]
        return max(queries[: self.look_at], key=self._information)

    def _information(self, query: str) -> float:
        if query not in self._hits:
            self._hits[query] = [hit.passage for hit in self.find(query)]
        return self.reranker.information(query, self._hits[query])
