"""Team-draft interleaving: fair to both sides, whatever they are."""

from collections import Counter

import pytest

from ragkit.evaluation.rankings import preference, team_draft
from ragkit.retrieval.corpus import Hit, Passage
from tests.helpers import hits


def order(hits) -> list[str]:
    return [hit.passage.text for hit in hits]


def renumbered(all_hits, texts):
    by_text = {hit.passage.text: hit for hit in all_hits}
    return [by_text[text] for text in texts]


def test_both_sides_pick_in_turns():
    base = hits(*"abcd")
    after = renumbered(base, "dcba")
    seen = Counter()
    for seed in range(400):
        found = team_draft(base, after, seed=seed)
        assert sorted(order(found.hits)) == list("abcd") and [h.rank for h in found.hits] == [1, 2, 3, 4]
        assert Counter(found.teams) == {"base": 2, "after": 2}
        for start in (0, 2):  # one pick each in every round
            assert set(found.teams[start : start + 2]) == {"base", "after"}
        seen["".join(order(found.hits))] += 1
    assert set(seen) == {"adbc", "adcb", "dabc", "dacb"} and min(seen.values()) > 70


def test_equal_rankings_are_shown_as_they_are():
    base = hits(*"abc")
    found = team_draft(base, base, seed=3)
    assert order(found.hits) == list("abc") and len(team_draft(base, base, 2).hits) == 2


def test_lists_of_other_documents_and_lengths():
    found = team_draft(hits("a"), [], seed=1)
    assert order(found.hits) == ["a"] and found.teams == ["base"]
    assert team_draft([], []).hits == []


def test_credit_goes_to_the_side_with_more_clicks():
    found = team_draft(hits(*"ab"), renumbered(hits(*"ab"), "ba"), seed=0)
    after = found.teams.index("after")
    assert found.credit([after]) == 1 and found.credit([1 - after]) == -1
    assert found.credit([]) == found.credit([0, 1]) == 0
    longer = team_draft(hits(*"abcd"), renumbered(hits(*"abcd"), "dcba"), seed=0)
    for team, credit in (("after", 1), ("base", -1)):  # one question is one vote, however many clicks
        assert longer.credit([n for n, side in enumerate(longer.teams) if side == team]) == credit


def test_without_a_seed_the_coin_falls_by_the_list():
    firsts = set()
    for n in range(20):
        base = [Hit(Passage(f"{name}{n}", name), 0.0, 1) for name in "ab"]
        found = team_draft(base, base[::-1])
        assert found == team_draft(base, base[::-1])
        firsts.add(found.teams[0])
    assert firsts == {"base", "after"}


def test_a_clicker_who_does_not_care_prefers_neither_side():
    import random

    rng = random.Random(0)
    base = hits(*"abcdef")
    after = renumbered(base, "fedcba")
    credits = [team_draft(base, after, seed=n).credit([rng.randrange(6)]) for n in range(600)]
    share = preference(credits)
    assert share.low < 0 < share.high and share.n == 600


def test_preference_is_a_share_with_wilsons_interval():
    """8 of 10: 0.8 with 0.490 … 0.943, as tables of the Wilson interval have it."""
    found = preference([1] * 8 + [-1] * 2 + [0] * 5)
    assert found.mean == pytest.approx(0.3) and found.n == 10
    assert (found.low, found.high) == (pytest.approx(-0.0098, abs=1e-3), pytest.approx(0.4433, abs=1e-3))
    with pytest.raises(ValueError, match="none of 3 queries decided"):
        preference([0, 0, 0])
