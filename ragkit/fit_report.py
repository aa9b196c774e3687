"""What a fit of the reranker did, and how sure that is."""

from dataclasses import dataclass, field, replace

from ragkit.evaluation import Interval
from ragkit.rank_evaluation import Gain


@dataclass(frozen=True)
class FitReport:
    """What a fit did, and how sure that is.

    `base`, `after`, `intervals`: by measure, from predictions for queries that neither the weights nor the
    choice of settings saw. `kept_base`: whether the retriever's order stays; `reason` says why. `kl`: how far
    the candidates of a query move from the retriever, mean, in nats; `held_back`: rankings cut to the bound.
    `first`: what it is worth to be shown one place earlier, in logits, where shown orders are known.
    `reliability`: of each annotator, where `strength="learned"`.
    """

    rankings: int
    queries: int
    kept_base: bool
    reason: str = ""
    base: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    kl: float = 0.0
    held_back: int = 0
    first: Interval | None = None
    reliability: dict[str, float] = field(default_factory=dict)

    def kept(self, reason: str) -> "FitReport":
        """The same, of a fit that keeps the retriever."""
        return replace(self, kept_base=True, reason=f"{reason}: the retriever is kept.")

    def __str__(self) -> str:
        lines = [f"{self.rankings} rankings of {self.queries} queries. {self.reason}"]
        if self.intervals:
            lines += ["Held out by query:", str(Gain(self.base, self.after, self.intervals))]
        if not self.kept_base:
            lines.append("Chosen: " + ", ".join(f"{name} {value}" for name, value in self.settings.items()))
            moved = f"Moves {self.kl:.2f} nats from the retriever on average"
            lines.append(f"{moved}; {self.held_back} of {self.rankings} held back at the bound")
        if self.first:
            lines.append(f"Shown one place earlier: {self.first} logits")
        if self.reliability:
            named = ", ".join(f"{name} {value:.2f}" for name, value in self.reliability.items())
            lines.append(f"Reliability: {named}")
        return "\n".join(lines)
