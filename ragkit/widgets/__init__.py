"""What a person clicks, drags and sees, in JupyterLab, Jupyter Notebook or Voila."""

from ragkit.widgets.app import own_log
from ragkit.widgets.chat import ChatApp
from ragkit.widgets.compare import CompareAnswers
from ragkit.widgets.exercises import check
from ragkit.widgets.figures import COLOURS, show, table
from ragkit.widgets.knobs import LossKnobs
from ragkit.widgets.map import PassageMap
from ragkit.widgets.playground import PreferencePlayground
from ragkit.widgets.rank import RankDocuments
from ragkit.widgets.taste import TasteView
from ragkit.widgets.training import LiveFigure

__all__ = [
    "COLOURS",
    "ChatApp",
    "CompareAnswers",
    "LiveFigure",
    "LossKnobs",
    "PassageMap",
    "PreferencePlayground",
    "RankDocuments",
    "TasteView",
    "check",
    "own_log",
    "show",
    "table",
]
