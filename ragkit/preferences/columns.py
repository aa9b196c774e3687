"""What files call their columns, and what a vote in them means."""

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real  # NumPy's scalars are among them

from ragkit.preferences.judgements import RATINGS
from ragkit.retrieval.corpus import shortened

# What files call a column, the most telling name first.
ALIASES = {
    "prompt": "prompt question instruction query input messages conversations context history",
    "system": "system_prompt",
    "context": "contexts documents passages retrieved_contexts",
    "annotator": "annotator_id user_id worker judge",
    "score": "overall_preference preference_strength winner preference vote labels label better_response_id",
    "answers": "completions generations responses",
    "completion": "response answer output",
    "ranks": "rank",
    "reward": "helpfulness rating ratings overall_score score scores",
}
SIDES = {
    ("chosen", "rejected"): "chosen_response-rejected_response preferred_output-non_preferred_output "
    "response_j-response_k",
    ("first", "second"): "response_a-response_b conversation_a-conversation_b response1-response2 "
    "response_0-response_1 response_1-response_2 answer_0-answer_1 answer_a-answer_b answer1-answer2 "
    "output_1-output_2 human_ref_A-human_ref_B",
}
REWARDS = ("score_{}", "{}_score", "{}_avg_rating", "{}-rating", "{}_rating", "{}_reward", "reward_{}")
SIGNED = ("overall_preference", "preference_strength")  # HelpSteer3's and 2's: below 0 the first is better
ARENA = {"model_a": -1, "model_b": 1, "tie": 0, "tie (bothbad)": (0, True), "both_bad": (0, True)}
# The same however it is spelt: "Tie (both bad)", "Model A".
SPELT = {"modela": -1, "modelb": 1, "tie": 0} | dict.fromkeys(["tiebothbad", "bothbad"], (0, True))
FLAGS = {"winner_model_a": "model_a", "winner_model_b": "model_b", "winner_tie": "tie"}  # LMSYS on Kaggle
STATED = {f"{n:+d}{' (bothbad)' * bad}": (n, bad) for n in RATINGS for bad in (False, True)}  # what we write


def named(row: Mapping, columns: Mapping[str, str | None]) -> dict:
    """The row with our names beside its own: the user's `columns` first, None for one not to be read, then
    what files are known to call them. Raises ValueError for a name of the user's that is not there."""
    found = dict(row)
    for role, name in columns.items():
        if name is not None and name not in row:
            raise ValueError(f"no {name!r}; name the column that holds it, {role}=…: {', '.join(row)}")
        found[role] = None if name is None else row[name]
    for role, names in ALIASES.items():
        if role not in columns and _empty(found.get(role)):
            found[role] = next((row[name] for name in names.split() if not _empty(row.get(name))), None)
    for sides, names in SIDES.items():
        for pair in (name.split("-") for name in names.split()):
            if sides[0] not in found and pair[0] in row and pair[1] in row:
                found |= zip(sides, (row[name] for name in pair))
    if "score" not in columns and "first" in found and _empty(found.get("score")):
        found["score"] = _voted(row)
    return {role: value for role, value in found.items() if not _gap(value)}


def scores_of_two(row: Mapping) -> list[float | None]:
    """Those of the first and the second answer, as WebGPT and SHP have them; None where there are none."""
    for names in (("score_0", "score_1"), ("score_a", "score_b"), ("score_A", "score_B")):
        if all(name in row for name in names):
            return [finite(row[name], name) for name in names]
    return [None, None]


def _voted(row: Mapping) -> str | None:
    """The vote that a row without a column for it casts: by one flag of three, or by two scores."""
    flags = {name: row[name] for name in FLAGS if name in row}
    if len(flags) == len(FLAGS):
        won = [FLAGS[name] for name, flag in flags.items() if flag in (1, "1")]
        if len(won) != 1:
            raise ValueError(f"one of {', '.join(FLAGS)} is 1, not {', '.join(map(repr, flags.values()))}")
        return won[0]
    first, second = scores_of_two(row)
    if first is None or second is None:
        return None
    return "tie" if first == second else "model_a" if first > second else "model_b"


def _gap(value) -> bool:
    """None, or NaN as tables have it."""
    return value is None or (isinstance(value, float) and value != value)


def _empty(value) -> bool:
    return value is None or (isinstance(value, str | list) and not value)


class Votes:
    """What a vote means: by the user's `labels`, by its column's name, or by what all rows have there."""

    def __init__(self, rows: Sequence[Mapping], labels: Mapping, column: str | None):
        cast = [row["score"] for row in rows if {"first", "score"} <= row.keys()]
        self.seen = list(dict.fromkeys(map(repr, cast)))
        numbers = [vote for vote in cast if isinstance(vote, Real)]
        known = column in SIGNED or (column is None and any(name in row for row in rows for name in SIGNED))
        self.signed = known or min(numbers, default=0) < 0  # 0 and 1, or 1 and 2, say nothing of who is which
        self.labels = labels
        self.means = ARENA | STATED | {"left": -1, "right": 1} | dict(labels)

    def __call__(self, value) -> tuple[int, bool]:
        """(rating, both bad). Raises ValueError, with the map to write, for what is not known."""
        if isinstance(value, bool) and not any(name is value for name in self.labels):
            raise ValueError(f"a vote of {value}: whose? Write labels={{True: -1, False: 1}}, -1 the first")
        plain = re.sub(r"[\W_]", "", value.casefold()) if isinstance(value, str) else value
        if value in self.means or plain in SPELT:
            meant = self.means[value] if value in self.means else SPELT[plain]
            return (meant, False) if isinstance(meant, int) else tuple(meant)
        if self.signed and isinstance(value, Real):
            if value not in RATINGS:
                raise ValueError(f"rating={value!r}: a whole number from -3 to 3, or named in labels")
            return int(value), False
        names = ", ".join(f"{name}: …" for name in self.seen or [repr(value)])
        raise ValueError(f"a vote of {value!r}: say who is better, -3 (the first) to 3: labels={{{names}}}")


def finite(value, name: str) -> float | None:
    """A number, or None for a gap, which tables write as null or NaN. Raises ValueError for all else."""
    if value is None or value != value:
        return None
    try:
        number = math.inf if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise ValueError(f"{name} is {shortened(value)}, not a finite number")
    return number
