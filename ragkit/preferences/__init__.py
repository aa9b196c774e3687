"""What people prefer, as data: what they say, the log that keeps it, the pairs that are trained on."""

from ragkit.preferences.compare_session import ComparisonSession
from ragkit.preferences.export import labels_of, to_argilla, to_label_studio, to_trl
from ragkit.preferences.formats import from_qrels, from_signed_scores, from_trl, read_judgements
from ragkit.preferences.judgements import Comparison, Feedback, Ranking, Skip
from ragkit.preferences.log import PreferenceLog
from ragkit.preferences.pairs import Pairs, pairs_of, split_by_query
from ragkit.preferences.rank_session import RankingSession

__all__ = [
    "Comparison",
    "ComparisonSession",
    "Feedback",
    "Pairs",
    "PreferenceLog",
    "Ranking",
    "RankingSession",
    "Skip",
    "from_qrels",
    "from_signed_scores",
    "from_trl",
    "labels_of",
    "pairs_of",
    "read_judgements",
    "split_by_query",
    "to_argilla",
    "to_label_studio",
    "to_trl",
]
