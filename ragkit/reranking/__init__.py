"""A reranker that people's rankings train, as far as they can be believed; a scorer of answers."""

from ragkit.reranking.active import MostInformative, information
from ragkit.reranking.answer_scorer import AnswerScorer
from ragkit.reranking.evidence import ODDS, Told, most_probable
from ragkit.reranking.features import NAMES, describe, describe_all
from ragkit.reranking.guard import BLOCKS, Domain, bounded, kl_from_base
from ragkit.reranking.linear import Inputs, one_thread, solve
from ragkit.reranking.objective import Objective
from ragkit.reranking.prior import PEOPLE
from ragkit.reranking.report import Explanation, FitReport
from ragkit.reranking.reranker import Reranker, fit_each
from ragkit.reranking.selection import Settings, pair_losses, train
from ragkit.reranking.table import Table

__all__ = [
    "BLOCKS",
    "NAMES",
    "ODDS",
    "PEOPLE",
    "AnswerScorer",
    "Domain",
    "Explanation",
    "FitReport",
    "Inputs",
    "MostInformative",
    "Objective",
    "Reranker",
    "Settings",
    "Table",
    "Told",
    "bounded",
    "describe",
    "describe_all",
    "fit_each",
    "information",
    "kl_from_base",
    "most_probable",
    "one_thread",
    "pair_losses",
    "solve",
    "train",
]
