"""A scorer of answers: what it reads off them, what it learns from comparisons, and what it leaves out."""

from dataclasses import replace

import numpy as np
import pytest

from ragkit.losses.strengths import constant, reward_gap
from ragkit.preferences.judgements import Comparison, Feedback
from ragkit.preferences.pairs import pairs_of
from ragkit.reranking import answer_scorer
from ragkit.reranking.answer_scorer import (
    FEATURES,
    AnswerScorer,
    answer_features,
    answers_table,
    held_out_scores,
    pair_accuracy,
    train_scores,
)
from ragkit.reranking.linear import centred
from ragkit.reranking.objective import Objective
from ragkit.retrieval.corpus import Passage, ranked
from tests.words_encoder import WordsEncoder


@pytest.fixture
def encoder():
    return WordsEncoder()


def read(*texts):
    return ranked((Passage(str(n), text), 0.0) for n, text in enumerate(texts))


def world(count=30, *, liked="quote", tie=()):
    """Of each question, an answer from what was read and one from elsewhere; and a long and a short one.

    `liked`: "quote" or "long". In the questions `tie` nobody preferred anything.
    """
    rng, said = np.random.default_rng(0), []
    for n in range(count):
        here, there = ([f"{name}{n}word{i}" for i in range(8)] for name in ("here", "there"))
        sizes = rng.permutation([3, 8])
        answers = [" ".join(words[:size]) + "." for words, size in zip((here, there), sizes)]
        better = 0 if liked == "quote" else int(sizes.argmax())
        turned = rng.random() < 0.5
        rating = 0 if n in tie else 2 * (1 if (better == 0) == turned else -1)
        pair = answers[::-1] if turned else answers
        said.append(Comparison(f"What of here{n}word0?", *pair, rating, hits=read(" ".join(here) + ".")))
    return said


def test_features_are_read_off_an_answer_and_what_it_was_written_from(encoder):
    there = ["Cats sleep long.", "Dogs bark loudly.", "Cows eat grass."]
    query, answers = "Cats sleep when?", [there[0], "Cats bark. Pigs fly.", ""]
    hits = read(" ".join(there[:2]), there[2])
    features = dict(zip(FEATURES, answer_features(encoder, [(query, answers, hits)])[0].T))
    apart = encoder.encode(["Cats bark.", "Pigs fly."]) @ encoder.encode(there).T
    near = apart.max(1)
    assert features["similarity"][0] == pytest.approx(
        encoder.encode(there[0]) @ encoder.encode(query), abs=1e-6
    )
    assert features["grounded"][:2] == pytest.approx([1, near.mean()], abs=1e-6)
    assert features["least grounded"][:2] == pytest.approx([1, near.min()], abs=1e-6)
    assert features["known words"].tolist() == [1, 0.5, 0]  # of cats, bark, pigs, fly the first two
    assert features["quoted"].tolist() == [1, 0, 0]
    assert features["covered"][:2] == pytest.approx([1, apart[:, 0].max()], abs=1e-6)
    assert features["covered widely"][1] == pytest.approx(apart.max(0).mean(), abs=1e-6)
    assert features["length"][0] == pytest.approx(np.log1p(3))
    assert np.isfinite(np.array([*features.values()])).all()


def test_where_nothing_was_read_nothing_is_grounded(encoder):
    (features,) = answer_features(encoder, [("cats", ["Cats sleep."], [])])
    found = dict(zip(FEATURES, features[0]))
    assert [found[name] for name in FEATURES[1:7]] == [0, 0, 0.5, 0, 0, 0]  # the question's word is known


def test_each_pair_finds_its_own_answers(encoder):
    """One question asked twice over other hits is two lists, and one query to split and resample by."""
    said = [
        Comparison("q", "one", "two", 1, hits=read("one")),
        Comparison("q", "three", "one", -1, hits=read("one")),
        Comparison("q", "one", "two", 0, hits=read("other")),
        Feedback("r", "good", True, hits=read("r")),
        Feedback("r", "bad", False, hits=read("r")),
    ]
    table = answers_table(encoder, said)
    assert table.queries == ["q", "q", "r"] and np.bincount(table.of_list).tolist() == [3, 2, 2]
    assert table.pairs.group.tolist() == [0, 0, 0, 1] and table.pairs.target.tolist() == [1, 1, 0.5, 1]
    assert pair_accuracy(np.zeros(7), table)[::3] == (0.5, 2)
    own = {"q": ["two", "one", "three"], "r": ["good", "bad"]}
    expected = [
        answer_features(encoder, [(q, [x, y], hits)])[0]
        for (q, x, y), hits in zip(
            [("q", "two", "one"), ("q", "three", "one"), ("q", "one", "two"), ("r", *own["r"])],
            [read("one"), read("one"), read("other"), read("r")],
        )
    ]
    assert table.features[table.sides] == pytest.approx(np.array(expected))


def test_it_learns_what_is_preferred(encoder):
    scorer = AnswerScorer(encoder)
    right = scorer.fit(world(), progress=False)
    assert right.low > 0.9 and right.n == 30 and str(right).startswith("1.000")
    hits = read("The sun is far away.")
    assert scorer("Where is the sun?", "The sun is far away.", hits) > scorer(
        "Where is the sun?", "Up.", hits
    )
    pairs = pairs_of(world())
    gaps = reward_gap(lambda query, answer: scorer(query, answer, hits))(pairs)
    assert gaps.shape == (30,)


@pytest.mark.parametrize("ties, learned", [(range(30), False), (range(15), True)])
def test_a_tie_holds_two_answers_together(encoder, ties, learned):
    weights = [train_scores(answers_table(encoder, world(tie=some))).weights for some in (ties, ())]
    sizes = [np.abs(one).max() for one in weights]
    assert sizes[0] < 0.7 * sizes[1] and (sizes[0] > 0.01) == learned


@pytest.mark.parametrize("objective", [Objective("grpo", constant(1.0)), Objective("ipo")])
def test_any_pairwise_loss_trains_it(encoder, objective):
    assert AnswerScorer(encoder).fit(world(), objective, progress=False).mean > 0.9


def test_a_score_does_not_go_along_with_its_controls(encoder):
    """Each answer is one sentence here: its length, too, would stand in for that of the answer."""
    table = answers_table(encoder, world(liked="long"))
    plain, cured = train_scores(table), train_scores(table, controls=["length", "similarity"])
    controls = [FEATURES.index(name) for name in ("similarity", "length")]
    along = [
        centred(weighed.inputs(table.features), table.of_list)[:, controls].T
        @ centred(weighed(table.features)[:, None], table.of_list)
        for weighed in (plain, cured)
    ]
    assert np.abs(along[0]).min() > 1 and along[1] == pytest.approx(0, abs=1e-9)
    others = np.setdiff1d(np.arange(len(FEATURES)), controls)
    assert np.array_equal(plain.weights[others], cured.weights[others])
    assert AnswerScorer(encoder).fit(world(liked="long"), progress=False).low > 0.9
    cured = AnswerScorer(encoder, controls=["length"]).fit(world(liked="long"), progress=False)
    assert cured.mean < 0.8


def test_scores_are_of_weights_that_did_not_see_the_query(encoder):
    """Labels by chance: in training they are learned by heart, on questions held out they are a coin's."""
    rng = np.random.default_rng(1)
    said = [replace(one, rating=int(rng.choice([-1, 1]))) for one in world(60)]
    table = answers_table(encoder, said)
    table = replace(table, features=rng.normal(size=(len(table.base), 50)))
    inside = pair_accuracy(train_scores(table)(table.features), table)
    outside = pair_accuracy(held_out_scores(table, train_scores), table)
    assert inside.mean > 0.85 and outside.low < 0.5 < outside.high


def test_accuracy_leaves_ties_out_and_halves_equal_scores(encoder):
    table = answers_table(encoder, world(4, tie=[3]))
    scores = np.zeros(8)
    assert pair_accuracy(scores, table)[::3] == (0.5, 3)
    scores[table.sides[0, 0]] = 1.0
    scores[table.sides[1, 1]] = 1.0
    scores[table.sides[2, 0]] = 1.0
    assert pair_accuracy(scores, table).mean == pytest.approx(2 / 3)


def test_what_is_odder_than_training_does_not_decide_alone(encoder):
    weighed = train_scores(answers_table(encoder, world()))
    far = weighed.mean + np.array([10.0, 1e6])[:, None] * weighed.spread
    assert weighed(far)[0] == weighed(far)[1]


def test_it_is_on_disk_what_it_was(encoder, tmp_path):
    scorer = AnswerScorer(encoder, controls=["length"])
    scorer.fit(world(), progress=False)
    scorer.save(tmp_path / "scorer.safetensors")
    again = AnswerScorer.load(tmp_path / "scorer.safetensors", encoder)
    asked = ("What?", ["This.", "That and this."], read("This or that."))
    assert again.controls == ("length",) and np.array_equal(again.scores(*asked), scorer.scores(*asked))
    with pytest.raises(ValueError, match="trained with encoder 'words'"):
        AnswerScorer.load(tmp_path / "scorer.safetensors", WordsEncoder(seed=1))


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda encoder: AnswerScorer(encoder, controls=["size"]), "'size' is none of similarity"),
        (lambda encoder: AnswerScorer(encoder)("q", "a"), "not trained yet"),
        (lambda encoder: AnswerScorer(encoder).fit(world(4)), "4 queries: 5 at least"),
        (lambda encoder: AnswerScorer(encoder).fit([]), "0 queries"),
        (lambda encoder: AnswerScorer(encoder).fit(world(), Objective("plackett_luce")), "takes pairs"),
        (lambda encoder: AnswerScorer(encoder).fit(world(), Objective("grpo", "learned")), "takes pairs"),
    ],
)
def test_what_it_refuses(encoder, act, message):
    with pytest.raises(ValueError, match=message):
        act(encoder)


def test_widely_is_over_the_nearest_few(encoder, monkeypatch):
    monkeypatch.setattr(answer_scorer, "WIDELY", 1)
    (features,) = answer_features(
        encoder, [("cats", ["Cats sleep."], read("Cats sleep. Dogs bark. Cows eat."))]
    )
    assert features[0, FEATURES.index("covered widely")] == features[0, FEATURES.index("covered")]
