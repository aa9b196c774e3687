"""What a person's rankings taught a reranker, in words: a dozen effects, each with how sure it is."""

from collections.abc import Mapping

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from ragkit.evaluation.measures import Interval
from ragkit.reranking.evidence import Told, retrievers
from ragkit.reranking.features import NAMES
from ragkit.reranking.reranker import CROSS, Reranker
from ragkit.reranking.selection import Fitted
from ragkit.reranking.table import TEMPERATURE

# In words, and the features that they stand for; what is left out is a web page's, and no taste.
TASTE: Mapping[str, tuple[str, ...]] = {
    "close to the question": ("similarity", "best chunk", "best sentence", "agreement"),
    "the question's own words": ("BM25", "BM25 sentence", "coverage", "echo"),
    "says what the others say": ("shared",),
    "answers late in the text": ("position",),
    "a long text": ("length",),
    "long sentences": ("sentence length",),
    "formulas": ("formulas",),
    "numbers": ("numbers",),
    "code": ("code",),
    "tells you what to do": ("instructions",),
    "explains by likening": ("likening",),
    "speaks to “you”": ("speaks to you",),
}


def taste(reranker: Reranker) -> dict[str, Interval]:
    """By words of TASTE: how often this person prefers, of two documents that are alike but for one spread of
    it, the one with more; 0.5 where nothing was learned.

    A spread is the standard deviation within lists of training; where words stand for several features, all
    of them rise by one. σ of the person's logits by the models that the reranker averages, the retriever
    among them; the interval, 95 %, is by a normal law of those logits over the models and, by Laplace's
    approximation, within each (`evidence.py`). Raises ValueError for a reranker that was loaded, since the
    rankings are not saved, and for a cross-encoder, whose weights stand for nothing that has a name.
    """
    if reranker.capacity == CROSS:
        raise ValueError("capacity='cross-encoder' weighs nothing that has a name: take another capacity")
    fitted = reranker.fitted
    if fitted.residual is None:
        return dict.fromkeys(TASTE, Interval(0.5, 0.5, 0.5, reranker.seen, signed=False))
    if fitted.evidence is None:
        raise ValueError("a reranker that was loaded does not know its rankings: fit it, then read its taste")
    mean, deviation = _effects(fitted)
    ends = expit([mean, mean - norm.ppf(0.975) * deviation, mean + norm.ppf(0.975) * deviation])
    return {
        words: Interval(*map(float, each), reranker.seen, signed=False) for words, each in zip(TASTE, ends.T)
    }


def _effects(fitted: Fitted) -> tuple[np.ndarray, np.ndarray]:
    """(T,) each: mean and standard deviation of β · (s_0 + w · x), for one spread of each of the words."""
    values = fitted.residual.inputs(fitted.table)
    summed = np.zeros((len(TASTE), values.shape[1]))
    for row, names in zip(summed, TASTE.values()):
        row[[NAMES.index(name) for name in names]] = 1.0
    anchored = fitted.objective.anchor == "offset"
    told = Told(fitted.table.strict(), anchored=anchored, first=fitted.evidence.first)
    nearer = summed[:, 0] * anchored * fitted.residual.inputs.spread[0] / TEMPERATURE  # what s_0 gives
    shares, betas = retrievers(told)
    left = 1 - fitted.evidence.share
    mean, square = left * shares @ betas * nearer, left * shares @ betas**2 * nearer**2
    for model in fitted.evidence.models:
        some, of_words = values[:, model.first : model.end], summed[:, model.first : model.end]
        z = model.beta * (told.base + told.apart(some @ model.weights)) + told.shift
        precision = told.curvature(z, some) + np.eye(some.shape[1]) / (model.beta * model.spread) ** 2
        variance = np.einsum("tf,ft->t", of_words, np.linalg.solve(precision, of_words.T))
        effect = model.beta * (nearer + of_words @ model.weights)
        mean += model.share * effect
        square += model.share * (effect**2 + variance)
    return mean, np.sqrt(np.maximum(square - mean**2, 0.0))
