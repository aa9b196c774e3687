"""The simulated annotators' log is what the data card says of it."""

import json
import sys
from collections import Counter

import numpy as np
import pytest

from ragkit.evaluation.agreement import self_consistency, shown_first_effect
from ragkit.preferences.log import PreferenceLog
from ragkit.preferences.pairs import pairs_of
from ragkit.retrieval.corpus import DATA

sys.path.insert(0, str(DATA / "build"))
import simulate_annotators as script

NAMES = [annotator.name for annotator in script.ANNOTATORS]


@pytest.fixture(scope="module")
def log():
    return PreferenceLog(DATA / "preferences")


@pytest.fixture(scope="module")
def hidden():
    lines = (DATA / "preferences" / "hidden" / "utilities.jsonl").read_text(encoding="utf-8").splitlines()
    return {(row["annotator"], row["query_id"]): row["utilities"] for row in map(json.loads, lines)}


def test_there_are_enough_of_each_and_nothing_is_broken(log):
    assert log.problems() == []
    first = Counter(r.annotator for r in log.rankings() if not r.details.get("repeat_of"))
    assert first == dict.fromkeys(NAMES, 150)
    assert Counter(c.annotator for c in log.comparisons()) == dict.fromkeys(NAMES, 60)
    assert all(len(r.passages) == 5 and sorted(sum(r.tiers, [])) == list(range(5)) for r in log.rankings())  # noqa: RUF017


def test_everybody_is_called_simulated(log):
    said = log.rankings() + log.comparisons()
    assert all(j.annotator.startswith("simulated-") and j.details["simulated"] for j in said)


def test_questions_go_with_their_topics(log):
    """Nothing said of a test topic is marked for training, and the other way round."""
    queries = {row["_id"]: row for row in map(json.loads, (DATA / "queries.jsonl").open(encoding="utf-8"))}
    for judgement in log.rankings() + log.comparisons():
        query = queries[judgement.details["query_id"]]
        assert query["text"] == judgement.query and query["metadata"]["split"] == judgement.details["split"]
    assert Counter(r.details["split"] for r in log.rankings())["test"] >= 5 * 40


def test_enough_items_are_shared_by_all(log):
    ranked, compared = (
        Counter((j.item, j.annotator) for j in said) for said in (log.rankings(), log.comparisons())
    )
    for found, least in ((ranked, 45), (compared, 60)):
        by_item = Counter(item for item, _ in found)
        assert sum(count == 5 for count in by_item.values()) >= least


def test_repeats_are_the_same_item_shown_in_another_order(log):
    once = {r.event_id: r for r in log.rankings()}
    again = [r for r in log.rankings() if r.details.get("repeat_of")]
    assert Counter(r.annotator for r in again) == dict.fromkeys(NAMES, 150 * script.REPEATED)
    assert all(r.item == once[r.details["repeat_of"]].item for r in again)
    changed = [r.shown_order != once[r.details["repeat_of"]].shown_order for r in again]
    assert np.mean(changed) > 0.9  # 1 in 120 comes out the same by chance


def test_each_annotator_is_as_its_utility_says(log, hidden):
    """One pair of each ranking comes out as σ(u⁺ − u⁻) says, the place's part included; and the one that
    favours what is shown first is not explained without that part."""
    for annotator in script.ANNOTATORS:
        expected, variance, without = 0.0, 0.0, 0.0
        for r in (r for r in log.rankings() if r.annotator == annotator.name):
            utility = hidden[r.annotator, r.details["query_id"]]
            place = {index: position for position, index in enumerate(r.shown_order)}
            felt = [utility[p.id] - annotator.shown * place[i] for i, p in enumerate(r.passages)]
            tier = {index: t for t, indices in enumerate(r.tiers) for index in indices}
            a, b = r.shown_order[:2]  # one pair a ranking: they are independent
            if tier[a] != tier[b]:
                p = 1 / (1 + np.exp(felt[b] - felt[a]))
                expected += (tier[a] < tier[b]) - p
                variance += p * (1 - p)
                without += (tier[a] < tier[b]) - 1 / (
                    1 + np.exp(utility[r.passages[b].id] - utility[r.passages[a].id])
                )
        assert abs(expected) < 3.5 * variance**0.5, annotator.name
        assert annotator.shown == 0 or abs(without) > 3.5 * variance**0.5


def test_the_biased_one_favours_what_is_shown_first_and_the_careless_one_is_careless(log):
    by_name = {name: [r for r in log.rankings() if r.annotator == name] for name in NAMES}
    for name, rankings in by_name.items():
        effect = shown_first_effect(rankings)
        assert (
            (effect.low > 0.15) if name == "simulated-first" else (effect.low < 0.02 and effect.high > -0.02)
        )
    assert self_consistency(by_name["simulated-careless"]).mean < 0.2
    assert self_consistency(by_name["simulated-mathematics"]).mean > 0.4


def test_pairs_come_out_with_positions(log):
    pairs = pairs_of(log.rankings()[:50])
    assert len(pairs) == 500 and np.isfinite(pairs.chosen_position).all()
