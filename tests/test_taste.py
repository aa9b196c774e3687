"""A taste in words, and the view that draws it after each save."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.special import expit

from ragkit.assistant import Assistant
from ragkit.preferences.log import PreferenceLog
from ragkit.reranking.evidence import BETAS, Told
from ragkit.reranking.features import NAMES
from ragkit.reranking.guard import Domain
from ragkit.reranking.reranker import Reranker
from ragkit.reranking.taste import TASTE, taste
from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.library import Library
from ragkit.widgets.rank import RankDocuments
from ragkit.widgets.taste import SHOWN, TasteView
from tests.simulated_rankings import WORDS, simulated
from tests.words_encoder import WordsEncoder

ENCODER = WordsEncoder()
ATTACK = '<img src=x onerror="alert(1)"> & $x^2$'
WIDGET = "application/vnd.jupyter.widget-view+json"


def fitted(count: int = 40, capacity: str = "features", **settings) -> Reranker:
    reranker = Reranker(ENCODER, capacity)
    reranker.fit(simulated(count, **settings), progress=False)
    return reranker


# In words


def test_each_feature_stands_in_one_place_and_is_known():
    named = [name for names in TASTE.values() for name in names]
    assert len(TASTE) == 12 and len(set(named)) == len(named)
    assert set(named) == set(NAMES) - {"boilerplate"}


@pytest.mark.parametrize("capacity", ["features", "embeddings", "auto"])
@pytest.mark.parametrize("wants", [4.0, -4.0])
def test_it_finds_the_taste_and_says_which_way(capacity, wants):
    found = taste(fitted(capacity=capacity, taste=wants))
    formulas = found.pop("formulas")
    assert formulas.low < formulas.mean < formulas.high and formulas.n == 40
    assert formulas.low > 0.55 if wants > 0 else formulas.high < 0.45
    assert all(abs(each.mean - 0.5) < abs(formulas.mean - 0.5) for each in found.values())


def test_it_is_the_average_over_the_models_that_the_reranker_averages():
    """And what the retriever gives to what is near, by its models too: β · (s_0 + w · x)."""
    reranker = fitted(taste=0.6)
    fit = reranker.fitted
    assert 0.05 < fit.evidence.share < 0.95  # the retriever is among them
    means, nearer = np.zeros(len(NAMES)), fit.residual.inputs.spread[0] / 0.05
    for model in fit.evidence.models:
        means[model.first : model.end] += model.share * model.beta * model.weights
        means[0] += model.share * model.beta * nearer
    told = Told(fit.table.strict(), first=fit.evidence.first)
    by_beta = {beta: told.log_likelihood(beta * told.base + told.shift) for beta in (0.003, *BETAS)}
    weights = np.exp(np.array([*by_beta.values()]) - max(by_beta.values()))
    means[0] += (1 - fit.evidence.share) * nearer * np.average([*by_beta], weights=weights)
    for words, names in TASTE.items():
        wanted = expit(sum(means[NAMES.index(name)] for name in names))
        assert taste(reranker)[words].mean == pytest.approx(wanted)


def test_the_interval_covers_what_is_true():
    """Of two documents with and without a formula, one is preferred as σ(taste) says: a formula is worth two
    spreads where half of the documents have one, so a spread is worth half of the taste."""
    covered = []
    for seed in range(12):
        found = taste(fitted(30, taste=1.6, seed=seed))["formulas"]
        covered.append(found.low <= expit(0.8) <= found.high)
    assert sum(covered) >= 9


def test_more_rankings_make_it_surer():
    few, many = (taste(fitted(count))["formulas"] for count in (15, 60))
    assert many.high - many.low < few.high - few.low


def test_where_nothing_was_learned_it_is_a_coin():
    for reranker in (Reranker(ENCODER), fitted(3)):
        assert {each[:3] for each in taste(reranker).values()} == {(0.5, 0.5, 0.5)}


def test_what_has_no_taste_to_tell_says_so(tmp_path):
    with pytest.raises(ValueError, match="cross-encoder"):
        taste(Reranker(ENCODER, "cross-encoder"))
    reranker = fitted()
    reranker.save(tmp_path)
    with pytest.raises(ValueError, match="was loaded does not know its rankings"):
        taste(Reranker.load(tmp_path, ENCODER))


# On the screen


@pytest.fixture
def assistant():
    passages = [passage for ranking in simulated(8, seed=3) for passage in ranking.passages]
    passages = [replace(passage, title=f"{ATTACK} {n}") for n, passage in enumerate(passages)]
    return Assistant(ENCODER, Library.build(passages, ENCODER, progress=False), None)


@pytest.fixture
def log(tmp_path):
    return PreferenceLog(tmp_path / "log", "ann")


def test_the_view_reads_the_log_at_each_call_and_its_own_name_alone(assistant, log):
    view = TasteView(assistant, log, ["lamp river?"])
    assert "0 of the 5 questions" in view.verdict and view.taste["formulas"].mean == 0.5
    for ranking in simulated(20, annotator=""):
        log.record(ranking)
    other = PreferenceLog(log.folder, "bob")
    for ranking in simulated(20, taste=-4.0, annotator=""):
        other.record(ranking)
    view()
    assert view.error is None and view.report.rankings == 20
    assert view.verdict.startswith("20 rankings; ") and view.report.verdict in view.verdict
    assert view.sure["formulas"] == "more" and view.before["formulas"].mean == 0.5
    ((query, before, after),) = view.lists
    assert query == "lamp river?" and len(before) == SHOWN
    assert {hit.passage.id for hit in before} == {hit.passage.id for hit in after}
    assert [h.passage.id for h in after] == [h.passage.id for h in view.reranker.rerank(query, before)]
    assert "more of “formulas”" in view.alt


def test_rankings_may_be_a_list(assistant):
    view = TasteView(assistant, simulated(20))
    assert view.sure["formulas"] == "more" and view.lists == []


def test_it_says_which_question_begins_with_another_document(assistant, monkeypatch):
    # Else none of it would be applied: these lists are unlike the rankings'.
    monkeypatch.setattr(Domain, "trust", lambda self, lists: np.ones(len(lists.queries)))
    view = TasteView(assistant, simulated(40, taste=6.0), [f"{a} {b}?" for a, b in zip(WORDS, WORDS[1:])])
    moved = [query for query, before, after in view.lists if before[0].passage.id != after[0].passage.id]
    assert moved and all(f"“{query}” now begins with" in view.alt for query in moved)


def test_lists_that_are_unlike_those_of_training_stay_as_they_were_found(assistant):
    """By words too: the encoder's own order is another one, and would look like a taste."""
    view = TasteView(assistant, simulated(40, taste=6.0), ["lamp river?", "stone apple?"])
    for query, before, after in view.lists:
        assert [hit.passage for hit in after] == [hit.passage for hit in before]
        base = view.reranker.base(query, [hit.passage for hit in before])
        assert base.tolist() != sorted(base, reverse=True)


def test_the_output_is_live_and_a_picture_and_words_and_nothing_in_it_is_code(assistant):
    view = TasteView(assistant, simulated(20), [ATTACK, "stone apple?"])
    data, metadata = view._repr_mimebundle_()
    assert WIDGET in data and data["text/plain"] == view.alt == metadata["image/png"]["alt"]
    assert imread(io.BytesIO(base64.b64decode(data["image/png"]))).shape[1] == 720
    assert "<img src=x" not in view._image.value and view._image.value.startswith("<img src=")
    drawn = [text.get_text() for axes in view.figure().axes for text in axes.texts]
    assert ATTACK in drawn  # as it was asked, and no formula of it


def test_a_panel_calls_it_after_each_save_and_undo(assistant, log):
    calls = []
    panel = RankDocuments(
        assistant, ["lamp?", "stone?"], log, on_save=lambda: calls.append(len(log.rankings()))
    )
    panel.save()
    panel.skip()
    panel.undo()
    panel.undo()
    assert calls == [1, 1, 0]


def test_what_comes_after_a_save_may_take_its_time_and_may_fail(assistant, log):
    def fails():
        assert (
            panel.session.view.query == "stone?" and "stone?" in panel._question.value
        )  # it is there already
        raise OSError(12, "no memory")

    panel = RankDocuments(assistant, ["lamp?", "stone?"], log, on_save=fails)
    assert panel.save() == 1 and len(log.rankings()) == 1
    assert panel.status.startswith("Saved #1 ✓") and "WHAT CAME AFTER FAILED: no memory" in panel.status
    assert isinstance(panel.error, OSError)


def test_a_view_that_cannot_learn_says_so_and_keeps_what_it_knew(assistant, monkeypatch):
    view = TasteView(assistant, simulated(20))
    known = view.taste
    monkeypatch.setattr(Reranker, "fit", lambda *_, **__: 1 / 0)
    view()
    assert view.status.startswith("NOT LEARNED") and view.taste == known


def test_passages_without_a_title_are_called_by_their_id(log):
    passages = [Passage(f"p{n}", "lamp river " * (n + 1)) for n in range(3)]
    view = TasteView(
        Assistant(ENCODER, Library.build(passages, ENCODER, progress=False), None), log, ["lamp?"]
    )
    assert {text.get_text() for text in view.figure().axes[1].texts} >= {"p0", "p1", "p2"}
