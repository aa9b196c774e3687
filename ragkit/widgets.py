"""The panels in which a person says what they prefer: in JupyterLab, Jupyter Notebook or Voila.

Nothing else here knows Jupyter. One name for the three files behind it.
"""

from ragkit.chat_widget import ChatApp
from ragkit.compare_widget import CompareAnswers
from ragkit.rank_widget import RankDocuments

__all__ = ["ChatApp", "CompareAnswers", "RankDocuments"]
