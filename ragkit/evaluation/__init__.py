"""How good a ranking is and how sure that is; how far judgements can be trusted."""

from ragkit.evaluation.agreement import (
    agreement_between,
    chose_left,
    cohen_kappa,
    kendall_tau,
    self_consistency,
    shown_first_effect,
)
from ragkit.evaluation.measures import (
    Interval,
    PerQuery,
    bootstrap,
    evaluate,
    load_qrels,
    load_queries,
    paired_interval,
)
from ragkit.evaluation.rankings import (
    Gain,
    compare,
    compare_on,
    gains_of,
    learning_curve,
    measure,
    preference,
    team_draft,
)

__all__ = [
    "Gain",
    "Interval",
    "PerQuery",
    "agreement_between",
    "bootstrap",
    "chose_left",
    "cohen_kappa",
    "compare",
    "compare_on",
    "evaluate",
    "gains_of",
    "kendall_tau",
    "learning_curve",
    "load_qrels",
    "load_queries",
    "measure",
    "paired_interval",
    "preference",
    "self_consistency",
    "shown_first_effect",
    "team_draft",
]
