"""What people's rankings have in common: weights of features learned from many of them, for a start.

`data/build/learn_prior.py` learned them from the graded judgements of ten public collections, each of which
counts the same: ANTIQUE, SciFact, Cranfield, QA-Feedback's answers, SemEval-2016 task 3's forum comments,
Cystic Fibrosis, TREC 2019 Deep Learning's passages, Chorus' products, CSFCube, and TIME. None of their texts
is here. README.md says what such a prior gains on a collection that it was learned without, and where not.
"""

import numpy as np

from ragkit.reranking.features import NAMES
from ragkit.reranking.guard import list_means
from ragkit.reranking.linear import centred

FLOOR = 0.25  # of a feature's usual spread, added to its spread in a list: small differences are none
FARTHEST = 3.0  # in spreads
# By feature: its weight, in logits of s_0 a standard deviation in the list, and its usual spread in a list.
PEOPLE = {
    "similarity": (-0.43, 0.131),
    "best chunk": (0.15, 0.129),
    "best sentence": (0.46, 0.126),
    "BM25": (0.12, 0.302),
    "length": (0.14, 0.598),
    "sentence length": (0.01, 0.489),
    "formulas": (-0.12, 0.282),
    "code": (0.06, 0.291),
    "numbers": (0.01, 0.621),
    "instructions": (-0.01, 0.098),
    "likening": (-0.1, 0.261),
    "speaks to you": (0.07, 0.419),
    "echo": (-0.14, 0.074),
    "shared": (0.47, 0.149),
    "coverage": (0.32, 0.16),
    "position": (0.15, 0.327),
    "agreement": (0.04, 0.278),
    "BM25 sentence": (0.14, 0.31),
    "boilerplate": (0.01, 0.113),
}
WEIGHTS, SPREADS = np.array([PEOPLE[name] for name in NAMES]).T


def standardised(lists) -> np.ndarray:
    """(N, F), of a `Table` or of one `Described`: features relative to their own list, in its own spread, so
    that a longer or wordier collection is not read as better."""
    away = centred(lists.features, lists.of_list)
    spread = np.sqrt(list_means(away**2, lists.of_list)[0])[lists.of_list] + FLOOR * SPREADS
    return np.clip(away / spread, -FARTHEST, FARTHEST)


def people(lists) -> np.ndarray:
    """What the prior adds to s_0, (N,), in logits."""
    return standardised(lists) @ WEIGHTS


def people_parts(described) -> dict[str, np.ndarray]:
    """The same by feature, (K,) each."""
    return dict(zip(NAMES, (standardised(described) * WEIGHTS).T))
