"""The panels in which a person says what they prefer: in JupyterLab, Jupyter Notebook or Voila."""

from ragkit.widgets.app import own_log
from ragkit.widgets.chat import ChatApp
from ragkit.widgets.compare import CompareAnswers
from ragkit.widgets.figures import COLOURS, show, table
from ragkit.widgets.rank import RankDocuments
from ragkit.widgets.training import LiveFigure

__all__ = [
    "COLOURS",
    "ChatApp",
    "CompareAnswers",
    "LiveFigure",
    "RankDocuments",
    "own_log",
    "show",
    "table",
]
