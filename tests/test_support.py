"""What a freely written sentence may say of the text that it cites."""

import pytest

from ragkit.generation.support import supported

BRIDGE = "The bridge, built by Ada Moss, was opened in 1932 and does not carry trains."


@pytest.mark.parametrize(
    "claim, holds",
    [
        ("Ada Moss built the bridge.", True),
        ("The bridge opened in 1932.", True),
        ("Ada Moss's bridge does not carry trains.", True),
        ("It was opened in 1931.", False),  # a number of its own
        ("It was opened in 19.", False),  # a part of a number is another number
        ("Eve Moss built the bridge.", False),  # a name of its own
        ("The bridge was closed in 1932.", False),  # a word of its own
        ("The bridge carries trains.", False),  # the denial is gone
        ("The harbour bridge was opened in 1932 and does not carry trains.", True),  # the question's word
    ],
)
def test_a_claim_says_no_more_than_its_source(claim, holds):
    cited = (
        BRIDGE if "not" in claim or "trains" in claim else BRIDGE.replace(" and does not carry trains", "")
    )
    assert supported(claim, cited, "who built the harbour bridge?") is holds


def test_a_claim_that_denies_needs_a_source_that_does():
    assert not supported("The bridge was never opened.", "The bridge was opened.", "was it never opened?")


def test_a_number_of_the_question_is_no_support():
    assert not supported("The bridge opened in 1931.", "The bridge opened.", "did it open in 1931?")


@pytest.mark.parametrize(
    "claim, says", [("Until the bridge was opened.", False), ("Yes, it was opened.", True)]
)
def test_an_echo_of_the_question_is_no_answer(claim, says):
    assert supported(claim, "The bridge was opened in 1932.", "Was it opened, the bridge?") is says


@pytest.mark.parametrize("claim", ["Le prix est de 3,50 euros.", "β doubles the 2.5 % margin"])
def test_numbers_are_whole_with_their_fractions(claim):
    assert supported(claim, claim, "")
    assert not supported(claim, claim.replace(",50", ",5").replace("2.5", "2"), "")
