"""What a fit says of itself: how sure a gain is, how many rankings it would take, and what is a harm."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

import ragkit.reranking.reranker as module
from ragkit.evaluation.measures import Interval
from ragkit.reranking.guard import Domain, bounded
from ragkit.reranking.objective import Objective
from ragkit.reranking.report import SAID, FitReport
from ragkit.reranking.reranker import Reranker
from ragkit.reranking.selection import FOLDS, folds_of, out_of_fold, pair_losses, train
from tests.simulated_rankings import simulated
from tests.test_table import tabled
from tests.words_encoder import WordsEncoder

ENCODER = WordsEncoder()


def report(mean: float, error: float, rankings: int = 20) -> FitReport:
    """Of a gain with this standard error, as its 95 % interval."""
    interval = Interval(mean, mean - norm.ppf(0.975) * error, mean + norm.ppf(0.975) * error, rankings)
    figures = {"base": {SAID: 0.5}, "after": {SAID: 0.5 + mean}, "intervals": {SAID: interval}}
    return FitReport(rankings, rankings, kept_base=False, **figures)


@pytest.mark.parametrize(
    "mean, error", [(0.02, 0.02), (0.02, 0.012), (-0.01, 0.02), (0.0, 0.02), (0.1, 0.01)]
)
def test_how_sure_a_gain_is(mean, error):
    assert report(mean, error).sure() == pytest.approx(norm.sf(0, mean, error))


@pytest.mark.parametrize("mean, error", [(0.02, 0.02), (0.02, 0.0125), (0.001, 0.01), (0.004, 0.0025)])
@pytest.mark.parametrize("rankings", [5, 40])
def test_what_is_needed_makes_it_sure(mean, error, rankings):
    """With so many more, an error that falls with the root of their number gives 95 %; with one less not."""
    more = report(mean, error, rankings).needed()
    sure = [norm.cdf(mean / error * np.sqrt((rankings + n) / rankings)) for n in (more - 1, more)]
    assert sure[0] < 0.95 <= sure[1] + 1e-12 and more > 0
    about = f"some {float(f'{more:.1g}'):.0f} more rankings might make it 95%"  # no surer than one digit
    assert about in report(mean, error, rankings).verdict


@pytest.mark.parametrize(
    "mean, error, needed, said",
    [
        (0.05, 0.01, 0, "nDCG@10 +0.050 on queries held out: more than 95% sure to be a gain."),
        (0.05, 0.0, 0, "more than 95% sure"),
        (-0.01, 0.02, None, "nDCG@10 -0.010 on queries held out: no gain to be seen yet."),
        (0.0, 0.0, None, "no gain to be seen yet"),
        (0.02, 0.02, 35, "+0.020 on queries held out, 84% sure to be a gain; some 40 more rankings"),
    ],
)
def test_the_verdict_in_words(mean, error, needed, said):
    found = report(mean, error)
    assert found.needed() == needed and said in found.verdict and found.verdict in str(found)


def test_other_measures_are_asked_for_by_name():
    both = report(0.02, 0.02)
    both.intervals["MRR"] = report(0.05, 0.01).intervals[SAID]
    assert both.sure("MRR") > 0.99 and both.needed("MRR") == 0 and both.needed() == 35


def test_a_report_without_intervals():
    nothing = FitReport(3, 3, kept_base=False, share=0.4)
    assert np.isnan(nothing.sure()) and nothing.needed() is None
    assert "not known yet" in nothing.verdict and nothing.verdict in str(nothing)
    kept = nothing.kept("Too few")
    assert kept.kept_base and kept.share == 0 and kept.reason == "Too few: the retriever is kept."
    assert kept.verdict not in str(kept)


# A harm is what held-out pairs show to be one


def by_the_retriever(count: int):
    """Rankings by s_0 and formulas: there is something to learn, and something to lose."""
    out = []
    for ranking in simulated(count, shown=0.0):
        base = Reranker(ENCODER).base(ranking.query, ranking.passages)
        felt = base + 6.0 * np.array(["=" in passage.text for passage in ranking.passages])
        out.append(replace(ranking, tiers=[[int(i)] for i in np.argsort(-felt)]))
    return out


@pytest.mark.parametrize("worse, kept", [(1.0, False), (0.1, True), (0.0, True)])
def test_the_retriever_is_kept_for_a_harm_and_not_for_a_doubt(monkeypatch, worse, kept):
    """Of models that did not see the query, the scores are turned round in a share of the lists."""
    fit, seen = module.fit_linear, {}

    def turned(base, *args):
        fitted, _, facts = fit(base, *args)
        sign = np.where(base.table.of_list < worse * len(base.table), -1.0, 1.0)
        seen.update(table=base.table, scores=sign * base.table.base)
        return fitted, seen["scores"], facts

    monkeypatch.setattr(module, "fit_linear", turned)
    reranker, ranking = Reranker(ENCODER, "features"), simulated(1, seed=5)[0]
    found = reranker.fit(by_the_retriever(20), progress=False)
    table = seen["table"]
    gain = pair_losses(table.base, table)[0] - pair_losses(seen["scores"], table)[0]
    assert found.kept_base is not kept and (reranker.fitted.residual is not None) is kept
    scores, base = (f(ranking.query, ranking.passages) for f in (reranker.score, reranker.base))
    if kept:
        assert gain.mean() <= 0 and np.abs(scores - base).max() > 0.1
        assert worse == 0 or ttest_1samp(gain, 0, alternative="less").pvalue > 0.05
    else:
        assert ttest_1samp(gain, 0, alternative="less").pvalue < 0.05 and found.share == 0
        assert ": a harm: the retriever is kept." in found.reason and reranker.fitted.domain is None
        np.testing.assert_array_equal(scores, base)


@pytest.mark.parametrize("prior", [None, lambda described: described.features[:, 6]])
def test_held_out_scores_are_what_a_reranker_of_the_others_would_give(prior):
    """Residual, trust and bound of one that never saw the query; the prior is there from the start."""
    rankings = simulated(11) + simulated(3)  # three queries come twice
    table = tabled(rankings, prior)
    found = out_of_fold(table, Objective(), ["features"], 0.5, 0)
    fold = folds_of(table.queries, FOLDS, 0)
    for n in range(len(table)):
        known, one = table.take(np.flatnonzero(fold != fold[n])), table.take(np.array([n]))
        assert table.queries[n] not in known.queries
        residual, _ = train(known, Objective(), ["features"], 0)
        added = one.prior + Domain.fit(known).trust(one) * residual(one)
        np.testing.assert_allclose(found[table.of_list == n], bounded(added, one.base, 0.5), atol=1e-9)
