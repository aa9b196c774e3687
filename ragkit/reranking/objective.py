"""What a reranker minimises: any loss of `losses/pairwise.py` over documents as actions.

score = s_0 + r, and r = 0 at the start. A document's probability among its candidates is a softmax of scores;
so the log-ratio to the retriever is r up to a constant per query, and DPO's margin over documents is
Δ = r⁺ − r⁻: RankNet on the residual (`anchor="reference"`). With `anchor="offset"` s_0 stays inside,
Δ = (s_0 + r)⁺ − (s_0 + r)⁻: RankNet itself. Both rank by s_0 + r. For a person of utility u the first fits
βr to u, and keeps s_0 on top; the second fits β(s_0 + r) to u, and so forgets s_0 where the data speak.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ragkit.losses import pairwise
from ragkit.losses.strengths import Strength, constant, per_query
from ragkit.reranking.table import Table

PAIRWISE = ("grpo", "dpo", "robust_dpo", "ipo", *(f"gpo:{shape}" for shape in pairwise.SHAPES))
LISTWISE = "plackett_luce"
ANCHORS = ("offset", "reference")
FLIP = 0.1  # robust DPO's share of pairs that are the wrong way round


@dataclass(frozen=True)
class Objective:
    """A loss by name and its knobs.

    `loss`: "grpo" (the brief's: strengths times `beta`), "dpo", "robust_dpo", "ipo" (β is its τ),
    "gpo:SHAPE" or "plackett_luce". `weight`: `per_query()` unless given. `first`: fit, beside the residual,
    how much is preferred what was shown earlier, in logits a place.
    """

    loss: str = "grpo"
    strength: Strength | str | None = None
    weight: Strength | None = None
    offset: Strength | None = None
    beta: float = 1.0
    anchor: str = "offset"
    first: bool = False

    def __post_init__(self):
        if self.loss not in (*PAIRWISE, LISTWISE):
            raise ValueError(f"loss={self.loss!r}: one of {', '.join(PAIRWISE)}, {LISTWISE}")
        if self.anchor not in ANCHORS:
            raise ValueError(f"anchor={self.anchor!r}: one of {', '.join(ANCHORS)}")
        given = [name for name in ("strength", "weight", "offset") if getattr(self, name) is not None]
        if self.loss == LISTWISE and given:
            raise ValueError(
                f"{given[0]}: plackett_luce takes whole lists, so nothing of a pair; use a pairwise loss"
            )
        for name in given:
            knob = getattr(self, name)
            if not callable(knob) and (name, knob) != ("strength", "learned"):
                learned = ', or "learned"' if name == "strength" else ""
                raise ValueError(f"{name}={knob!r}: a function of pairs{learned}; constant(0.1) gives one")
        if self.loss != "grpo" and self.strength is not None:
            raise ValueError(f"strength: loss={self.loss!r} has none; it belongs to loss='grpo'")

    def __call__(self, table: Table, scores: np.ndarray | None = None) -> Callable:
        """The loss as a function (residual (N,), first) → (P,), or (L,) for "plackett_luce".

        The values are such that their mean is the loss: weights are in them. `scores`, (N,): the present
        ones, for knobs that say that they look at them.
        """
        return self._listwise(table) if self.loss == LISTWISE else self._pairwise(table, scores)

    @property
    def plain(self) -> bool:
        """Whether it is the logistic loss of pairs, with nothing added: a likelihood."""
        knobs = (self.strength, self.weight, self.offset)
        return self.loss in ("grpo", "dpo") and all(knob is None for knob in knobs)

    @property
    def moving(self) -> bool:
        """Whether a knob says that it `needs_scores`, the present ones, as `delta_ndcg` does."""
        return any(getattr(knob, "needs_scores", False) for knob in (self.strength, self.weight, self.offset))

    def _pairwise(self, table: Table, scores: np.ndarray | None) -> Callable:
        chosen, rejected = torch.from_numpy(table.sides.T.copy())
        seen = scores is not None and self.moving
        two = torch.from_numpy(scores[table.sides]) if seen else None
        fixed = torch.zeros(())
        if self.anchor == "offset":
            fixed = torch.from_numpy(table.before[table.sides] @ [1.0, -1.0])
        # Until the reliabilities are known, everybody is believed alike.
        alike = self.strength is None or self.strength == "learned"
        strength = self.beta * _column(constant(1.0) if alike else self.strength, table, two)
        offset = _column(self.offset or constant(0.0), table, two)
        weight = _column(self.weight or per_query(), table, two)
        shape, scale = self.loss.partition("gpo:")[2] or "logistic", 1.0
        if self.loss == "ipo":  # (Δ − 1/(2τ))² is (z − 1)² / (2τ)² at z = 2τΔ
            shape, scale, weight = "squared", 2.0, weight / (2 * self.beta) ** 2
        target = torch.from_numpy(table.pairs.target)
        gap = torch.from_numpy(np.nan_to_num(table.places[table.sides] @ [1.0, -1.0]))
        knobs = {"strength": scale * strength, "target": target, "weight": weight, "shape": shape}
        # Bad knobs are refused here: a fit calls `loss` hundreds of times.
        pairwise.pair_loss(torch.zeros_like(target), **knobs, offset=offset)

        def loss(residual: Tensor, first: Tensor | float = 0.0) -> Tensor:
            margin = residual[chosen] - residual[rejected] + fixed
            shift = offset + first * gap if self.first else offset
            if self.loss == "robust_dpo":
                z = strength * margin - shift
                right, wrong = (pairwise.robust_dpo_loss(x, 1.0, FLIP, reduction="none") for x in (z, -z))
                return weight * (target * right + (1 - target) * wrong)
            return pairwise.unchecked_pair_loss(margin, **knobs, offset=scale * shift)

        return loss

    def _listwise(self, table: Table) -> Callable:
        """Plackett–Luce over each list, as a padded table (lists, longest)."""
        judged = np.unique(table.of_list[table.ranks >= 0])  # a list that nobody judged is no row
        kept = np.flatnonzero(np.isin(table.of_list, judged))
        row = np.searchsorted(judged, table.of_list[kept])
        column = kept - table.starts[table.of_list[kept]]
        where, shape = (torch.from_numpy(row), torch.from_numpy(column)), (len(judged), int(column.max()) + 1)
        documents, ranks = torch.from_numpy(kept), torch.from_numpy(table.ranks[kept])
        tiers = torch.zeros(shape, dtype=torch.int64).index_put(where, ranks)
        mask = torch.zeros(shape, dtype=torch.bool).index_put(where, ranks >= 0)
        fixed = torch.from_numpy(table.before) if self.anchor == "offset" else 0.0
        shown = torch.from_numpy(np.nan_to_num(table.places))

        def loss(residual: Tensor, first: Tensor | float = 0.0) -> Tensor:
            utility = self.beta * (residual + fixed)
            if self.first:
                utility = utility - first * shown
            rows = torch.zeros(shape, dtype=utility.dtype).index_put(where, utility[documents])
            return pairwise.plackett_luce_loss(rows, tiers, mask, beta=1.0, reduction="none")

        return loss

    def at(self, beta: float) -> "Objective":
        return replace(self, beta=beta)


def _column(knob: Strength, table: Table, scores: Tensor | None) -> Tensor:
    """A knob's values, (P,), checked here once: a fit asks for them many times."""
    values = knob(table.pairs, scores)
    if not isinstance(values, Tensor) or values.shape != (len(table.pairs),):
        shape = tuple(values.shape) if hasattr(values, "shape") else type(values).__name__
        raise ValueError(
            f"a strength, weight or offset gave {shape}, not a tensor of shape ({len(table.pairs)},)"
        )
    values = values.detach().double()
    if not torch.isfinite(values).all():
        row = int((~torch.isfinite(values)).nonzero()[0])
        raise ValueError(
            f"a strength, weight or offset gave {values[row]:g} for pair {row}: {table.pairs.query[row]!r}"
        )
    return values
