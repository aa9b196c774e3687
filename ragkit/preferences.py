"""What people prefer, as data: what they say, the log that keeps it, the pairs that are trained on.

One name for the files behind it.
"""

from ragkit.agreement import (
    agreement_between,
    chose_left,
    cohen_kappa,
    kendall_tau,
    self_consistency,
    shown_first_effect,
)
from ragkit.formats_out import labels_of, to_argilla, to_label_studio, to_trl
from ragkit.judgements import Comparison, Feedback, Ranking, Skip
from ragkit.pairs import Pairs, pairs_of, split_by_query
from ragkit.preference_formats import from_qrels, from_signed_scores, from_trl, read_judgements
from ragkit.preference_log import PreferenceLog

__all__ = [
    "Comparison",
    "Feedback",
    "Pairs",
    "PreferenceLog",
    "Ranking",
    "Skip",
    "agreement_between",
    "chose_left",
    "cohen_kappa",
    "from_qrels",
    "from_signed_scores",
    "from_trl",
    "kendall_tau",
    "labels_of",
    "pairs_of",
    "read_judgements",
    "self_consistency",
    "shown_first_effect",
    "split_by_query",
    "to_argilla",
    "to_label_studio",
    "to_trl",
]
