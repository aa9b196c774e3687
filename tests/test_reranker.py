"""The reranker as a person meets it: what helps is kept, what does not is said, nothing is lost."""

import json
from dataclasses import replace

import numpy as np
import pytest

import ragkit.reranking.reranker as module
from ragkit import strengths
from ragkit.evaluation.rankings import compare_on
from ragkit.preferences.judgements import Ranking, Skip
from ragkit.preferences.log import PreferenceLog
from ragkit.reranking import active
from ragkit.reranking.active import MostInformative, information
from ragkit.reranking.evidence import Told, most_probable
from ragkit.reranking.features import NAMES
from ragkit.reranking.guard import kl_from_base
from ragkit.reranking.prior import people
from ragkit.reranking.reranker import Reranker, fit_each
from ragkit.reranking.selection import train
from ragkit.reranking.table import Table
from ragkit.retrieval.corpus import Hit, Passage
from tests.simulated_rankings import simulated
from tests.words_encoder import WordsEncoder

ENCODER = WordsEncoder()


def new(capacity: str = "features", **settings) -> Reranker:
    """With room to move: the cosines of `WordsEncoder` differ by four logits of s_0."""
    return Reranker(ENCODER, capacity, **{"max_kl": 3.0} | settings)


@pytest.fixture(scope="module")
def fitted():
    reranker = new()
    reranker.report = reranker.fit(simulated(40), progress=False)
    return reranker


def hits_of(ranking: Ranking) -> list[Hit]:
    return [Hit(passage, 1.0 - n / 10, n + 1) for n, passage in enumerate(ranking.passages)]


def order(hits) -> list[str]:
    return [hit.passage.id for hit in hits]


# It starts as the retriever


def test_before_a_fit_the_order_is_the_retrievers():
    ranking = simulated(1, 8)[0]
    asked = ENCODER.encode(ranking.query)
    cosines = ENCODER.encode([p.full_text for p in ranking.passages]) @ asked
    hits = hits_of(ranking)  # in another order than by cosines: words may have counted too
    assert order(hits) != [ranking.passages[i].id for i in np.argsort(-cosines, kind="stable")]
    assert new().rerank(ranking.query, hits) == hits
    assert [hit.rank for hit in new().rerank(ranking.query, hits[3:])] == list(range(1, 6))
    np.testing.assert_allclose(new().score(ranking.query, ranking.passages), cosines / 0.05, atol=1e-4)


def test_a_little_that_was_learned_moves_hits_a_little_from_where_they_were(fitted):
    """Another search than by cosines found them: its order is what a person saw, and what is started from."""
    ranking = simulated(1, 8, seed=3)[0]
    hits, scores = hits_of(ranking), [hit.score for hit in hits_of(ranking)]
    timid = new(max_kl=1e-9)
    timid.fitted = fitted.fitted
    assert order(timid.rerank(ranking.query, hits)) == order(hits)
    assert order(timid.rerank(ranking.query, hits[::-1])) == order(hits)
    base = fitted.base(ranking.query, ranking.passages)
    found = fitted.base(ranking.query, ranking.passages, scores)
    assert found.tolist() == sorted(base, reverse=True) != base.tolist()
    assert fitted.base(ranking.query, ranking.passages, base / 100).tolist() == base.tolist()
    assert fitted.base(ranking.query, ranking.passages, [0.5] * 8).tolist() == base.tolist()


def test_a_report_starts_from_the_order_that_people_found():
    """Not from the cosines', from which another search may be far: what it had already is no gain."""
    rankings = simulated(40)
    told = [
        replace(one, scores=[float(-rank) for rank in one.ranks]) for one in rankings
    ]  # found in the order in which they were then judged
    reranker = new()
    report = reranker.fit(told, progress=False)
    assert report.base["nDCG@10"] == 1 >= report.after["nDCG@10"]
    assert compare_on(reranker, told).base["nDCG@10"] == 1
    plain = new().fit(rankings, progress=False)
    assert plain.base["nDCG@10"] < 0.95 and (plain.share, plain.reason) == (report.share, report.reason)


def test_what_a_reranker_found_is_no_search():
    """Its own scores hold what it learned: a report that started from them would count that twice."""
    told = [replace(one, scores=[float(-rank) for rank in one.ranks]) for one in simulated(20)]
    by_reranker = [replace(one, details={"reranker": "its fingerprint"}) for one in told]
    plain, reranker = new(), new()
    report = reranker.fit(by_reranker, progress=False)
    assert str(plain.fit(simulated(20), progress=False)) == str(report)
    assert compare_on(reranker, by_reranker).base["nDCG@10"] < 1 == compare_on(reranker, told).base["nDCG@10"]


def test_no_hits_one_hit_and_equal_hits():
    reranker = new()
    assert reranker.rerank("a lamp?", []) == [] and len(reranker.score("a lamp?", [])) == 0
    (only,) = reranker.rerank("a lamp?", [Hit(Passage("a", "lamp"), 0.3, 7)])
    assert only.rank == 1 and only.passage.id == "a"
    same = [Hit(Passage(name, "lamp"), 0.5, n) for n, name in enumerate("cab", 1)]
    assert order(reranker.rerank("a lamp?", same)) == ["c", "a", "b"]


def test_ids_that_repeat_across_queries_are_no_matter(fitted):
    """Ids are unique within a list only: what is known goes by text."""
    first = fitted.score("lamp?", [Passage("0", "lamp river"), Passage("1", "stone x = y")])
    second = fitted.score("lamp?", [Passage("0", "stone x = y"), Passage("1", "lamp river")])
    np.testing.assert_allclose(first, second[::-1])


# It learns what helps


def test_a_taste_is_found_and_the_report_says_what_it_gives(fitted):
    report = fitted.report
    assert not report.kept_base and report.rankings == report.queries == 40
    interval = report.intervals["pair accuracy"]
    assert interval.low > 0.1 and interval.n == 40
    assert report.after["nDCG@3"] - report.base["nDCG@3"] == pytest.approx(report.intervals["nDCG@3"].mean)
    assert report.settings.keys() == {"capacity", "beta", "spread", "loss", "anchor"}
    assert 0 < report.kl <= fitted.max_kl and report.share > 0.99 and report.sure() > 0.99
    text = str(report)
    assert "40 rankings of 40 queries" in text and "Held out by query" in text and "nats" in text
    assert report.verdict in text
    fresh = compare_on(fitted, simulated(40, seed=1))
    assert fresh.intervals["pair accuracy"].low > 0.1
    # The report was honest: what it said of queries held out holds for new ones.
    assert fresh.after["pair accuracy"] == pytest.approx(report.after["pair accuracy"], abs=0.08)


@pytest.mark.parametrize("capacity", ["features", "auto"])
def test_noise_moves_next_to_nothing(capacity):
    """Twelve careless people, whose rankings say nothing: what new lists lose is a hundredth of an nDCG."""
    test, moved, shares = simulated(30, seed=1), [], []
    for seed in range(12):
        reranker = new(capacity)
        report = reranker.fit(simulated(30, taste=0.0, seed=seed + 20), progress=False)
        gain = compare_on(reranker, test)
        moved.append(gain.after["nDCG@10"] - gain.base["nDCG@10"])
        shares.append(report.share)
        if report.kept_base:
            assert "the retriever is kept" in report.reason and report.settings == {} and report.share == 0
            np.testing.assert_array_equal(
                reranker.score(test[0].query, test[0].passages),
                reranker.base(test[0].query, test[0].passages),
            )
    assert np.mean(shares) < 0.1 and np.max(shares) < 0.3
    assert np.mean(np.abs(moved)) < 0.005 and np.max(np.abs(moved)) < 0.02


def test_what_was_shown_first_is_told_apart_from_taste():
    reranker = new()
    report = reranker.fit(simulated(120, 4, taste=2.0, shown=0.7), progress=False)
    assert report.first.low < 0.7 < report.first.high and report.first.low > 0.3
    unknown = [replace(ranking, shown_order=None) for ranking in simulated(40)]
    assert new().fit(unknown, progress=False).first is None


def test_no_query_moves_farther_than_the_bound():
    reranker = new(max_kl=0.2)
    reranker.fit(simulated(40, 8), progress=False)
    moved = 0
    for ranking in simulated(20, 8, seed=3):
        base = reranker.base(ranking.query, ranking.passages)
        moved = max(moved, kl_from_base(reranker.score(ranking.query, ranking.passages) - base, base))
    assert 0.19 < moved <= 0.2 + 1e-6
    still = new(max_kl=0.0)  # nothing may move
    still.fit(simulated(40), progress=False)
    for ranking in simulated(5, seed=3):
        scores = [f(ranking.query, ranking.passages) for f in (still.score, still.base)]
        np.testing.assert_allclose(*scores, atol=1e-6)


class NearEncoder(WordsEncoder):
    """Cosines as near to each other as those of real encoders: s_0 spreads by a logit."""

    def _vector(self, text):
        vector = np.append(0.5 * super()._vector(text)[:-1], 0.87)
        return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("loss", ["dpo", "robust_dpo", "ipo", "gpo:hinge", "plackett_luce"])
@pytest.mark.parametrize("anchor", ["offset", "reference"])
def test_any_loss_and_anchor_learn_the_taste(loss, anchor):
    reranker = Reranker(NearEncoder(), "features", anchor=anchor)
    report = reranker.fit(simulated(24), loss=loss, progress=False)
    assert report.after["pair accuracy"] > report.base["pair accuracy"] + 0.1 and not report.kept_base
    assert report.settings["loss"] == loss and report.settings["anchor"] == anchor


def test_strengths_weights_and_offsets_reach_the_fit():
    asked = []

    def spy(pairs, scores=None):
        asked.append(len(pairs))
        return strengths.rank_gap()(pairs, scores)

    plain = new()
    plain.fit(simulated(20), progress=False)
    reranker = new()
    reranker.fit(simulated(20), strength=spy, progress=False)
    assert asked and not np.allclose(reranker.fitted.residual.weights, plain.fitted.residual.weights)
    for knob in ({"weight": strengths.delta_ndcg()}, {"offset": strengths.shown_position(0.5)}):
        assert not new().fit(simulated(20), **knob, progress=False).kept_base


def test_ties_count_as_halves():
    """Someone who finds all with a formula equal, and all without: still the same taste."""
    rankings = []
    for ranking in simulated(30, taste=0.0):
        with_it = [i for i, p in enumerate(ranking.passages) if "=" in p.text]
        rest = [i for i in range(5) if i not in with_it]
        rankings.append(replace(ranking, tiers=[tier for tier in (with_it, rest) if tier]))
    reranker = new()
    assert not reranker.fit(rankings, progress=False).kept_base
    assert compare_on(reranker, simulated(30, seed=1)).intervals["pair accuracy"].low > 0.05


def test_a_log_is_read_as_it_stands(tmp_path):
    log = PreferenceLog(tmp_path)
    rankings = [replace(ranking, annotator="ann") for ranking in simulated(14)]
    for ranking in rankings:
        log.record(ranking)
    log.record(Skip("q", "item"))
    log.record(replace(simulated(15)[14], annotator=""))
    log.undo()
    assert str(new().fit(log, progress=False)) == str(new().fit(rankings, progress=False))


def test_the_same_seed_gives_the_same_reranker_in_any_order():
    a, b = new("auto"), new("auto")
    rankings = simulated(24)
    a.fit(rankings, progress=False)
    b.fit(rankings, progress=False)
    np.testing.assert_array_equal(a.fitted.residual.weights, b.fitted.residual.weights)
    assert a.fingerprint == b.fingerprint != new("auto").fingerprint


# What can't be learned from is said


@pytest.mark.parametrize(
    "rankings, reason",
    [
        ([], "Of 0 rankings none has two judged documents"),
        (simulated(12, 1), "Of 12 rankings none has two judged documents"),
        ([replace(r, tiers=[]) for r in simulated(12)], "Of 12 rankings none has two judged"),
        ([replace(r, tiers=[[0, 1, 2, 3, 4]]) for r in simulated(12)], "Nobody preferred one document"),
        (simulated(4), "Fewer than 5 queries"),
        ([replace(r, query="one?") for r in simulated(12)], "Fewer than 5 queries"),
    ],
)
def test_too_little_keeps_the_retriever_and_says_why(rankings, reason):
    reranker = new("auto")
    report = reranker.fit(rankings, progress=False)
    assert report.kept_base and report.reason.startswith(reason) and str(report)
    assert reranker.fitted.residual is None


def test_people_who_contradict_each_other_cancel_out():
    rankings = simulated(20)
    opposite = [replace(r, tiers=r.tiers[::-1], annotator="other") for r in rankings]
    reranker = new()
    assert reranker.fit(rankings + opposite, progress=False).share < 0.05
    gain = compare_on(reranker, simulated(20, seed=1))
    assert gain.after["nDCG@10"] == pytest.approx(gain.base["nDCG@10"], abs=0.005)


def test_a_fit_that_fails_leaves_what_there_was(monkeypatch):
    reranker = new()
    reranker.fit(simulated(20), progress=False)
    before, seen = reranker.fingerprint, reranker.seen
    assert reranker.fitted.residual is not None
    with pytest.raises(ValueError, match="gave nan for pair 0"):
        reranker.fit(simulated(20), strength=lambda p, s: strengths.constant(np.nan)(p), progress=False)
    assert (reranker.fingerprint, reranker.seen) == (before, seen)
    with monkeypatch.context() as stopped:  # after all is trained, by a person
        stopped.setattr(module, "pair_losses", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            reranker.fit(simulated(12), progress=False)
    assert (reranker.fingerprint, reranker.seen) == (before, seen)
    reranker.update(simulated(21)[20])  # and it goes on with what was chosen before
    assert reranker.seen == seen + 1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="capacity='big': one of features, embeddings, cross-encoder, auto"):
        Reranker(ENCODER, "big")
    with pytest.raises(ValueError, match="anchor='none': one of offset, reference"):
        Reranker(ENCODER, anchor="none")
    with pytest.raises(ValueError, match="max_kl=-1: a number of nats"):
        Reranker(ENCODER, max_kl=-1)
    with pytest.raises(ValueError, match="max_kl=nan"):
        Reranker(ENCODER, max_kl=float("nan"))
    with pytest.raises(TypeError, match=r"rankings\[1\] is a str, not a Ranking"):
        new().fit([simulated(1)[0], "c1 > c2"])
    with pytest.raises(TypeError, match="one Ranking, not a list"):
        new().fit(simulated(1)[0])
    with pytest.raises(ValueError, match="loss='bpr': one of grpo"):
        new().fit(simulated(12), loss="bpr")
    with pytest.raises(ValueError, match="query='  ': a question"):
        new().rerank("  ", hits_of(simulated(1)[0]))
    with pytest.raises(ValueError, match="nothing to explain"):
        new().explain("lamp?", [])
    with pytest.raises(ValueError, match="there was no fit"):
        new().update(simulated(1)[0])


# One more click


def largest_difference(a, b) -> float:
    """Between two residuals' scores of new lists, in logits."""
    seen = [new().describe(ranking.query, ranking.passages) for ranking in simulated(10, seed=5)]
    return max(np.abs(a(one) - b(one)).max() for one in seen)


@pytest.mark.parametrize("prior", [None, "people"])
def test_update_is_the_fit_with_one_more(prior):
    """Of the same models: their most probable weights for all forty, though it went one step from 39; of
    lists that another search found, too."""
    scores = np.random.default_rng(0).random((40, 5)).tolist()
    rankings = [replace(one, scores=own) for one, own in zip(simulated(40), scores)]
    reranker = new(prior=prior)
    reranker.fit(rankings[:39], progress=False)
    before = reranker.fitted
    reranker.update(rankings[39])
    fitted, moved = reranker.fitted, largest_difference(before.residual, reranker.fitted.residual)
    assert reranker.seen == 40 and moved > 0.02
    described = [reranker.describe(one.query, one.passages) for one in rankings]
    table = Table.build(rankings, described, people if prior else None)
    values, told = fitted.residual.inputs(table), Told(table, first=fitted.evidence.first)
    assert fitted.evidence.share == before.evidence.share
    for model in fitted.evidence.models:
        some = values[:, model.first : model.end]
        precision = np.full(some.shape[1], model.spread**-2)
        whole, _ = most_probable(told, some, model.beta, precision, np.zeros(len(precision)))
        np.testing.assert_allclose(model.weights, whole, atol=0.01 * np.abs(whole).max())
    # The same models, weighed anew, are the fit of all forty: their shares are nearly the same.
    whole, _ = train(table, fitted.objective, ["features"])
    assert largest_difference(whole, fitted.residual) < moved / 2


def test_updates_of_another_loss_go_on_too():
    reranker = new()
    reranker.fit(simulated(24)[:23], loss="plackett_luce", progress=False)
    before = reranker.fitted.residual
    reranker.update(simulated(24)[23])
    whole = new()
    whole.fit(simulated(24), loss="plackett_luce", progress=False)
    moved = largest_difference(before, reranker.fitted.residual)
    assert 0.02 < moved and largest_difference(whole.fitted.residual, reranker.fitted.residual) < moved


def test_updates_where_the_retriever_was_kept_are_remembered_only():
    reranker = new()
    assert reranker.fit([], progress=False).kept_base
    for ranking in simulated(12):
        reranker.update(ranking)
    assert reranker.seen == 12 and reranker.fitted.residual is None
    reranker.update(replace(simulated(1)[0], tiers=[]))
    assert reranker.seen == 12


def test_an_update_that_fails_changes_nothing(fitted, monkeypatch):
    reranker = new()
    reranker.fit(simulated(20), progress=False)
    weights, seen = reranker.fitted.residual.weights, reranker.seen

    def full(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(module, "renewed", full)
    with pytest.raises(MemoryError):
        reranker.update(simulated(21)[20])
    assert reranker.seen == seen and reranker.fitted.residual.weights is weights


# Several annotators


def two_people(count: int = 30) -> list[Ranking]:
    careful = simulated(count, annotator="careful")
    careless = simulated(count, taste=0.0, annotator="careless")
    return careful + careless


def test_reliability_tells_the_careful_from_the_careless():
    reranker = new()
    report = reranker.fit(two_people(), strength="learned", progress=False)
    assert report.reliability["careful"] > 1.5 * report.reliability["careless"]
    assert "careful" in str(report)
    plain = new()
    plain.fit(two_people(), progress=False)
    test = simulated(30, seed=1)
    learned, alike = (compare_on(r, test).after["pair accuracy"] for r in (reranker, plain))
    assert learned >= alike - 0.01


def test_one_reranker_for_each():
    found = fit_each(new, two_people(), progress=False)
    assert list(found) == ["careful", "careless"]
    assert found["careful"][1].share > 0.99 and found["careless"][1].share < 0.1
    moved = {name: compare_on(reranker, simulated(20, seed=1)) for name, (reranker, _) in found.items()}
    assert moved["careful"].intervals["pair accuracy"].low > 0
    assert moved["careless"].intervals["nDCG@10"].mean == pytest.approx(0, abs=0.005)


# Why


def test_an_explanation_adds_up_and_names_the_taste(fitted):
    ranking = simulated(5, seed=8)[2]
    told = fitted.explain(ranking.query, hits_of(ranking))
    scores = fitted.score(ranking.query, ranking.passages, [hit.score for hit in hits_of(ranking)])
    np.testing.assert_allclose(told.scores - told.scores.mean(), scores - scores.mean(), atol=1e-9)
    assert set(told.parts) == set(NAMES)
    assert next(iter(told.largest(1))) == "formulas"
    ranks = {hit.passage.id: hit.rank for hit in fitted.rerank(ranking.query, hits_of(ranking))}
    assert told.after == [ranks[passage.id] for passage in ranking.passages]
    assert "retriever" in str(told) and "formulas" in str(told)
    assert new().explain(ranking.query, hits_of(ranking)).parts == {}


def test_an_explanation_is_drawn_with_every_label_inside(fitted):
    import matplotlib

    matplotlib.use("agg")
    ranking = simulated(5, 6, seed=8)[1]
    titled = [
        Hit(replace(h.passage, title="A $title$ <b>that is long</b> " * 3), 0.1, h.rank)
        for h in hits_of(ranking)
    ]
    for hits in (titled, hits_of(ranking)[:1]):
        figure = fitted.explain(ranking.query, hits).plot()
        figure.canvas.draw()
        width, height = figure.canvas.get_width_height()
        boxes = [t.get_window_extent() for axis in figure.axes for t in (*axis.get_yticklabels(), axis.title)]
        shown = [box for box in boxes if box.width > 1]
        assert all(box.x0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1 for box in shown)
        matplotlib.pyplot.close(figure)


# On disk


@pytest.mark.parametrize("capacity", ["features", "embeddings"])
def test_what_was_saved_ranks_as_before(tmp_path, capacity):
    reranker = new(capacity, max_kl=1.5)
    reranker.fit(simulated(24), progress=False)
    reranker.save(tmp_path / "reranker")
    again = Reranker.load(tmp_path / "reranker", ENCODER)
    for ranking in simulated(6, seed=2):
        np.testing.assert_allclose(
            again.score(ranking.query, ranking.passages), reranker.score(ranking.query, ranking.passages)
        )
    assert again.fingerprint == reranker.fingerprint and again.max_kl == 1.5
    assert [path.name for path in tmp_path.iterdir()] == ["reranker"] and (tmp_path / "reranker").is_file()
    again.save(tmp_path / "again")  # the same bytes, too
    assert (tmp_path / "again").read_bytes() == (tmp_path / "reranker").read_bytes()
    with pytest.raises(ValueError, match="there was no fit"):
        again.update(simulated(1)[0])


def test_the_retriever_is_saved_too_and_a_folder_holds_the_file(tmp_path):
    new().save(tmp_path)
    assert Reranker.load(tmp_path, ENCODER).fitted.residual is None
    assert [path.name for path in tmp_path.iterdir()] == ["reranker.safetensors"]
    assert Reranker.load(tmp_path / "reranker.safetensors", ENCODER).capacity == "features"
    new("embeddings").save(tmp_path / "not" / "yet" / "there")
    assert Reranker.load(tmp_path / "not" / "yet" / "there", ENCODER).capacity == "embeddings"


def test_another_encoder_is_refused(tmp_path, fitted):
    fitted.save(tmp_path)
    with pytest.raises(ValueError, match="was trained with encoder 'words', and this is 'words' or another"):
        Reranker.load(tmp_path, WordsEncoder(1))


def test_no_file_is_said(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match=r"no reranker in .*Reranker\.save makes one"):
            Reranker.load(path, ENCODER)


def test_any_bit_that_flips_and_any_end_that_is_missing_is_noticed(tmp_path, fitted):
    path = tmp_path / "reranker"
    fitted.save(path)
    whole = path.read_bytes()
    size = 8 + int.from_bytes(whole[:8], "little")  # of the header
    rng = np.random.default_rng(0)
    for place in [*range(8), *rng.integers(8, size, 250), *rng.integers(size, len(whole), 50)]:
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        with pytest.raises(ValueError, match="train it again"):
            Reranker.load(path, ENCODER)
    for end in (0, 7, size - 1, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"is damaged .*train it again"):
            Reranker.load(path, ENCODER)


@pytest.mark.parametrize(
    "metadata, message",
    [
        (None, "of another kind: it says {'format': None"),
        ({"ragkit": '{"format": "ragkit-reranker", "version": 1}'}, "it says .*'version': 1"),
        ({"ragkit": '{"format": "ragkit-reranker", "version": 3}'}, "it says .*'version': 3"),
        ({"ragkit": "[]"}, "is damaged"),
        ({"ragkit": json.dumps(module.KIND)}, "its sha256 is another"),
    ],
)
def test_foreign_files_and_other_versions_are_refused(tmp_path, metadata, message):
    from safetensors.numpy import save_file

    save_file({"weights": np.zeros(3)}, tmp_path / "reranker", metadata)
    with pytest.raises(ValueError, match=f"{message}.*; train it again"):
        Reranker.load(tmp_path / "reranker", ENCODER)


def test_features_of_another_version_are_refused(tmp_path, fitted, monkeypatch):
    with monkeypatch.context() as other:
        other.setattr(module, "NAMES", NAMES[::-1])
        fitted.save(tmp_path)
    with pytest.raises(ValueError, match=r"weighs other features .*: train it again"):
        Reranker.load(tmp_path, ENCODER)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_save_that_fails_keeps_the_old_one(tmp_path, fitted, monkeypatch, step):
    fitted.save(tmp_path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(f"os.{step}", full)
        with pytest.raises(OSError, match="No space left"):
            new().save(tmp_path)
    assert Reranker.load(tmp_path, ENCODER).fingerprint == fitted.fingerprint
    assert len(list(tmp_path.iterdir())) == 1


# What to ask next


def test_information_shrinks_as_it_comes_in():
    reranker = new()
    reranker.fit(simulated(20), progress=False)
    ranking = simulated(30)[25]
    before = information(reranker, ranking.query, ranking.passages)
    for _ in range(3):
        reranker.update(ranking)
    assert 0 < information(reranker, ranking.query, ranking.passages) < before


def test_what_is_sure_by_other_peoples_rankings_tells_less(monkeypatch):
    """The candidates' scores are those that the reranker gives, its prior among them."""
    passages = [Passage("a", "lamp river"), Passage("b", "stone")]
    reranker, nothing = new(prior="people"), new()
    monkeypatch.setattr(active, "people", lambda described: 50 * np.arange(len(described.features)))
    assert information(reranker, "lamp?", passages) < 0.1 * information(nothing, "lamp?", passages)


def test_equal_documents_tell_nothing():
    reranker = new()
    passages = [Passage(name, "lamp river") for name in "abc"]
    assert information(reranker, "lamp?", passages) == pytest.approx(0, abs=1e-9)
    reranker.fit(simulated(12), progress=False)
    assert information(reranker, "lamp?", passages) == pytest.approx(0, abs=1e-9)
    assert information(reranker, "lamp?", passages[:1]) == 0


def test_the_most_informative_query_comes_next():
    reranker = new()
    lists = {"same?": [Passage(n, "lamp") for n in "abc"], "apart?": simulated(1)[0].passages}
    find = lambda query: [Hit(p, 0.5, n) for n, p in enumerate(lists[query], 1)]  # noqa: E731
    choose = MostInformative(reranker, find, least=2)
    assert choose(["same?", "apart?"]) == "same?"  # in order, while nothing is known
    reranker.fit(simulated(12), progress=False)
    assert choose(["same?", "apart?"]) == "apart?"
    assert choose(["same?"]) == "same?"
