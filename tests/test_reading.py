"""What the reading benchmark and the calibration measure with."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ragkit.generation.answer import Answer
from ragkit.generation.prompt import Evidence, Prompt
from ragkit.generation.reader import Claim
from ragkit.retrieval.corpus import DATA
from tests.benchmarks.reading import Reading, Said, compare, f1, read, say
from tests.helpers import hits
from tests.test_training_data import squad

sys.path.insert(0, str(DATA / "build"))
from calibrate import accuracy, margins, threshold
from reading_cases import Case, squad_cases


@pytest.mark.parametrize("part, people", [("test", range(9, 80, 10)), ("dev", (5, 32, 58))])
def test_cases_are_of_paragraphs_that_were_kept_back(tmp_path, part, people):
    cases = squad_cases(squad(tmp_path, 80, 40), part)
    assert sorted(case.query for case in cases["answerable"]) == sorted(f"Who is person {n}?" for n in people)
    for case, near, far in zip(*cases.values(), strict=True):
        assert case.golds[0] in case.support
        assert case.support in " ".join(case.hits[0].passage.text.split())
        assert not any(case.golds[0] in hit.passage.text for hit in [*near.hits, *far.hits])
        assert len(case.hits) == len(near.hits) == len(far.hits) == 3


def test_a_limit_draws_the_same_questions_for_the_same_seed(tmp_path):
    folder = squad(tmp_path, 80, 40)
    first, again, other = (squad_cases(folder, "test", 4, seed)["answerable"] for seed in (0, 0, 1))
    assert len(first) == 4 and first == again and first != other


# In the order of the passages, as a reader has them; the second is nearest.
EVIDENCE = [Evidence("far", 1, 0.3), Evidence("near", 2, 0.6), Evidence("between", 3, 0.5)]
CASE = Case("q", hits("far", "near", "between"), "between", ["between"])


def model(logs, scale, evidence=EVIDENCE):
    return SimpleNamespace(
        prior_scale=scale,
        prompt=lambda query, _: Prompt([], "", query, evidence, "sentence"),
        citation_log_probs=lambda _: np.log(np.array(logs)),
    )


@pytest.mark.parametrize("scale, chosen", [(0.0, "far"), (4.0, "between"), (14.0, "near")])
def test_the_nearest_is_the_most_similar_and_the_prior_the_models_own(scale, chosen):
    found = read(model([0.4, 0.15, 0.35, 0.1], scale), CASE)
    assert (found.nearest, found.nearest_passage, found.similarity) == ("near", "p1", 0.6)
    assert (found.alone, found.chosen, found.within) == ("far", chosen, True)
    score = {"far": (0.4, 0.3), "near": (0.15, 0.6), "between": (0.35, 0.5)}[chosen]
    assert found.margin == pytest.approx(np.log(score[0] / 0.1) + scale * score[1])
    assert found.right("chosen") == (chosen == "between")


def test_without_evidence_a_reading_is_wrong_and_declined():
    found = read(model([1.0], 4.0, []), CASE)
    assert not found.right("nearest") and not found.right("chosen") and found.margin == -np.inf


class Reader:
    def claims(self, *given):
        yield Claim("one", 0)
        yield Claim("near", 1, replaced=True)


def test_claims_are_noted_as_the_answer_makes_them():
    reader = Reader()
    joined = lambda *_, style: Answer(" ".join(c.text for c in reader.claims()), [1, 2], EVIDENCE, False)  # noqa: E731
    said = say(SimpleNamespace(reader=reader, answer=joined), Reading(CASE), "free")
    assert said.answer.text == "one near" and [claim.sentence for claim in said.claims] == [0, 1]
    assert said.rows()[1] == {"text": "near", "cited": "near", "replaced": True}
    assert not said.verbatim and said.holds(["one"]) and not said.holds(["two"])
    assert "claims" not in vars(reader)  # put back


def test_an_answer_that_declines_holds_nothing():
    assert not Said(Answer("I don't know: one", [], [], True), []).holds(["one"])


@pytest.mark.parametrize(
    "text, golds, expected",
    [("The Bridge!", ["bridge"], 1.0), ("a red bridge", ["bridge", "red boat"], 2 / 3), ("", ["x"], 0.0)],
)
def test_f1_is_of_the_nearest_gold_answer(text, golds, expected):
    assert f1(text, golds) == pytest.approx(expected)


def test_each_model_stands_beside_the_baseline_and_the_first_model(capsys):
    compare("right", {"small": [1, 0, 0, 0], "large": [1, 1, 1, 0]}, [1, 0, 0, 1])
    *_, small, large = capsys.readouterr().out.splitlines()
    assert "25.0%  -25.0 [" in small and "from nearest" in small and "from small" not in small
    assert "75.0%  +25.0 [" in large and "+50.0 [" in large and large.endswith("from small")


def test_calibration_counts_the_supporting_sentence_and_declines_a_share():
    near, right = np.array([0.3, 0.6]), np.array([True, False])
    found = [(np.log(np.array([p, 1 - p - 0.1, 0.1])), near, right) for p in np.linspace(0.5, 0.85, 20)]
    found.append((np.zeros(1), np.zeros(0), np.zeros(0, dtype=bool)))  # no evidence
    assert accuracy(found, 0.0) == pytest.approx(20 / 21)
    assert accuracy(found, 14.0) == 0.0
    none = threshold(found, 4.0, 0.3)
    assert np.mean(margins(found, 4.0) < none) == pytest.approx(0.3, abs=0.05)
    assert margins(found, 4.0)[-1] == -np.inf
