"""Rankings by a simulated person whose taste is known: longer, or with formulas, or none."""

import numpy as np

from ragkit.preferences.judgements import Ranking
from ragkit.retrieval.corpus import Passage

WORDS = (
    "lamp river stone apple cloud table music paper winter garden silver bridge window forest letter".split()
)


def simulated(
    count: int,
    size: int = 5,
    *,
    taste: float = 4.0,
    shown: float = 0.0,
    seed: int = 0,
    annotator: str = "simulated",
) -> list[Ranking]:
    """Each ranking a draw from Plackett–Luce with utility taste · [has a formula] − shown · place."""
    rng = np.random.default_rng([7, seed])
    out = []
    for n in range(count):
        asked = rng.choice(WORDS, 3, replace=False)
        passages, utility = [], []
        for i in range(size):
            words = [*rng.choice(asked, 1), *rng.choice(WORDS, 8)]
            formula = bool(rng.random() < 0.5)
            words += ["x = y", "log z"] if formula else ["and so on", "it is"]
            passages.append(Passage(f"d{n}-{i}", " ".join(words) + f" {n}."))
            utility.append(taste * formula)
        order = rng.permutation(size)
        place = np.argsort(order)
        felt = np.array(utility) - shown * place + rng.gumbel(size=size)
        tiers = [[int(i)] for i in np.argsort(-felt)]
        query = " ".join(asked) + f" {n}?"
        out.append(Ranking(query, passages, tiers, order.tolist(), annotator=annotator))
    return out
