"""Numbers: losses, rerankers and strengths with NaN, with nothing, with one document, with 1e308."""

import torch

from ragkit.losses import pairwise
from ragkit.losses.group_relative import group_advantages, group_relative_loss
from ragkit.losses.strengths import constant, reward_gap
from ragkit.losses.unpaired import kto_loss
from ragkit.preferences.judgements import Ranking
from ragkit.preferences.pairs import Pairs
from ragkit.reranking.reranker import Reranker
from ragkit.retrieval.corpus import Hit, Passage
from tests.hostile import Door, refused

NAN, INF = float("nan"), float("inf")


def t(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def loss(make, world):
    """The loss, and its gradient in the margins where there are some."""
    value = make()
    return value.item()


def finite(value) -> bool:
    return abs(value) < INF


LOSSES = {
    "pair_loss": pairwise.pair_loss,
    "grpo_loss": lambda margin: pairwise.grpo_loss(margin, 1.0),
    "dpo_loss": lambda margin: pairwise.dpo_loss(margin, 0.1),
    "robust_dpo_loss": lambda margin: pairwise.robust_dpo_loss(margin, 0.1, 0.1),
    "ipo_loss": lambda margin: pairwise.ipo_loss(margin, 0.1),
    "gpo_loss": lambda margin: pairwise.gpo_loss(margin, 1.0, "exponential"),
}
MARGINS = (
    *((f"{name} of {what}", lambda of=of, margin=margin: of(margin), refused(f"margin\\[0\\] is {what}; it must be finite"))
      for name, of in LOSSES.items() for what, margin in (("nan", t(NAN)), ("inf", t(INF)), ("-inf", t(-INF)))),
    *((f"{name} of nothing", lambda of=of: of(t()), refused("no pairs: of none there is no mean")) for name, of in LOSSES.items()),
    *((f"{name} of ±1e10", lambda of=of: of(t(1e10, -1e10)), finite) for name, of in LOSSES.items()),
    ("dpo_loss of ±1e307", lambda: pairwise.dpo_loss(t(1e307, -1e307), 0.1), finite),
    ("a list for the margin", lambda: pairwise.dpo_loss([1.0], 0.1), refused("this takes a tensor, not .*a list: torch\\.tensor", TypeError)),
    ("an array for the margin", lambda: pairwise.dpo_loss(t(1.0).numpy(), 0.1), refused("this takes a tensor, not .*: torch\\.", TypeError)),
    ("lists for log-probs", lambda: pairwise.margin([1.0], [1.0], [1.0], [1.0]), refused("this takes a tensor, not .*a list", TypeError)),
    ("log-probs of other shapes", lambda: pairwise.margin(t(1), t(1, 2), t(1), t(1)), refused("shapes \\(1,\\), \\(2,\\).*must agree")),
)  # fmt: skip
KNOBS = (
    *((f"{value} for the {knob}", lambda knob=knob, value=value: pairwise.pair_loss(t(1.0), **{knob: value}), refused(f"{knob} is {value}; it must be finite"))
      for knob in ("strength", "offset", "target", "weight") for value in (NAN, INF)),
    *((f"{value!r} for the {knob}", lambda knob=knob, value=value: pairwise.pair_loss(t(1.0), **{knob: value}), refused(f"{knob}={value!r}: a number"))
      for knob in ("strength", "weight") for value in ("x", None)),
    ("a strength too many", lambda: pairwise.pair_loss(t(1.0), strength=t(1, 2)), refused("strength has shape \\(2,\\), the margin has \\(1,\\)")),
    ("a target of 2", lambda: pairwise.pair_loss(t(1.0), target=2), refused("target is 2; it must be between 0 and 1")),
    ("a shape that is an attribute", lambda: pairwise.gpo_loss(t(1.0), 1.0, "__class__"), refused("shape='__class__': one of logistic")),
    ("NaN for tau", lambda: pairwise.ipo_loss(t(1.0), NAN), refused("tau=nan: a finite number")),
    ("a text for a share", lambda: pairwise.robust_dpo_loss(t(1.0), 0.1, "x"), refused("flip='x': a finite number")),
    ("a reduction that is none", lambda: pairwise.pair_loss(t(1.0), reduction="sum"), refused("reduction='sum': mean or none")),
)  # fmt: skip


def lists(ratios, **more):
    return lambda: pairwise.plackett_luce_loss(torch.tensor(ratios, dtype=torch.float64), beta=1.0, **more)


def relative(**changes):
    given = {"log_probs": t(-1, -2)[None], "old_log_probs": None, "ref_log_probs": t(-1, -1)[None]}
    given |= {"mask": torch.ones(1, 2), "advantages": t(1.0)}
    return lambda: group_relative_loss(**given | changes)


LISTS = (
    ("one document", lists([[1.0]]), lambda value: value == 0),
    ("±1e308", lists([[1e308, -1e308]]), finite),
    ("no document", lists([[]]), refused("row 0 of the mask is empty: no item to rank")),
    ("no list", lists([]), refused("log_ratios has shape \\(0,\\), not \\(B, K\\)")),
    ("NaN", lists([[1.0, NAN]]), refused("log_ratios\\[0, 1\\] is nan")),
    ("NaN where nothing is", lists([[1.0, NAN]], mask=torch.tensor([[True, False]])), lambda value: value == 0),
    ("NaN for a tier", lists([[1.0, 2.0]], tiers=t(NAN, 1)[None]), refused("tiers\\[0, 0\\] is nan")),
    ("nothing but a mask", lists([[1.0, 2.0]], mask=torch.zeros(1, 2)), refused("row 0 of the mask is empty")),
    ("NaN for a reward", lambda: group_advantages(t(NAN, 1)[None]), refused("rewards\\[0, 0\\] is nan")),
    ("one answer in a group", lambda: group_advantages(t(1)[None]), refused("not \\(G, K\\) with two answers or more")),
    ("rewards of ±1e308", lambda: group_advantages(t(1e308, -1e308)[None]), refused("row 0 of the rewards: .*infinite")),
    ("equal rewards", lambda: group_advantages(t(1e308, 1e308)[None]).abs().sum(), lambda value: value == 0),
    ("NaN for a token", relative(log_probs=t(NAN, -1)[None]), refused("log_probs\\[0, 0\\] is nan")),
    ("NaN for a masked token", relative(log_probs=t(NAN, -1)[None], mask=t(0, 1)[None]), finite),
    ("-inf for the reference", relative(ref_log_probs=t(-INF, -1)[None]), refused("ref_log_probs\\[0, 0\\] is -inf")),
    ("NaN for an advantage", relative(advantages=t(NAN)), refused("advantages\\[0\\] is nan")),
    ("no sequence", relative(log_probs=torch.zeros(0, 2), ref_log_probs=None, kl=0, mask=torch.zeros(0, 2), advantages=t()), refused("no sequences")),
    ("no token", relative(mask=torch.zeros(1, 2)), refused("row 0 of the mask is empty: no token was written")),
    ("no thumb", lambda: kto_loss(t(), torch.tensor([], dtype=torch.bool), 0.0, beta=0.1), refused("no answers")),
    ("NaN for a thumb", lambda: kto_loss(t(NAN), torch.tensor([True]), 0.0, beta=0.1), refused("log_ratios\\[0\\] is nan")),
    ("NaN for the KL", lambda: kto_loss(t(1.0), torch.tensor([True]), NAN, beta=0.1), refused("kl is nan")),
    ("a thumb at 1e308", lambda: kto_loss(t(1e308), torch.tensor([False]), 0.0, beta=0.1), lambda value: value == 1),
)  # fmt: skip

PASSAGES = [Passage(str(n), f"text number {n} about beta.") for n in range(3)]


def reranked(given, world):
    hits, *prior = given
    return [
        hit.score
        for hit in Reranker(world.words, prior="people" if prior else None).rerank("What is beta?", hits)
    ]


def all_of(count: int):
    def safe(scores) -> bool:
        return len(scores) == count

    safe.__name__ = f"all {count} hits"
    return safe


def finite_ones(scores) -> bool:
    return all(abs(score) < INF for score in scores)


def hits(*scores, text="x") -> list[Hit]:
    return [Hit(Passage(str(n), f"{text} {n}"), score, n) for n, score in enumerate(scores, 1)]


RERANKED = (
    ("no hit", ([],), all_of(0)),
    ("no hit, with a prior", ([], True), all_of(0)),
    ("one hit", (hits(1.0), True), all_of(1)),
    ("NaN for a score", (hits(NAN, 1.0),), all_of(2)),
    ("NaN for a score, with a prior", (hits(NAN, 1.0), True), finite_ones),
    ("infinite scores, with a prior", (hits(INF, -INF), True), finite_ones),
    ("1e308 for a score, with a prior", (hits(1e308, -1e308), True), finite_ones),
    ("one document three times", ([hits(1.0)[0]] * 3, True), all_of(3)),
    ("documents without a word", ([Hit(Passage("a", ""), 1.0, 1), Hit(Passage("b", " "), 1.0, 2)], True), finite_ones),
    ("a document of 200 kB", (hits(1.0, 0.5, text="x " * 100_000), True), finite_ones),
    ("halves of letters and null characters", (hits(1.0, 0.5, text="\ud800\0"), True), finite_ones),
    ("nothing for the hits", (None,), refused("hits=None: a list of hits", TypeError)),
    ("texts for hits", (["x"],), refused("hits\\[0\\] is a str, not a Hit", TypeError)),
    ("passages for hits", (PASSAGES, True), refused("hits\\[0\\] is a Passage, not a Hit", TypeError)),
)  # fmt: skip


def fitted(given, world):
    rankings, knobs = given if isinstance(given, tuple) else (given, {})
    return Reranker(world.words).fit(rankings, progress=False, **knobs)


def many(**fields) -> list[Ranking]:
    given = {"passages": PASSAGES, "tiers": [[0], [1], [2]]} | fields
    return [Ranking(f"question {n}", **given) for n in range(8)]


def said(reason: str):
    def safe(report) -> bool:
        return report.kept_base and reason in report.reason

    safe.__name__ = f"kept, and said: {reason}"
    return safe


def same(value: float):
    return lambda pairs, scores=None: torch.full((len(pairs),), value)


FITTED = (
    ("nothing", [], said("Of 0 rankings none")),
    ("one document a list", many(passages=PASSAGES[:1], tiers=[[0]]), said("none has two judged documents")),
    ("one document three times a list", many(passages=PASSAGES[:1] * 3), said("say nothing")),
    ("documents without a word", many(passages=[Passage(str(n), "") for n in range(3)]), said("say nothing")),
    ("no document", many(passages=[], tiers=[]), said("none has two judged documents")),
    ("all tied", many(tiers=[[0, 1, 2]]), said("Nobody preferred one document")),
    ("scores of 1e308", many(scores=[1e308, -1e308, 0]), lambda report: report.rankings == 8),
    ("a text", "abc", refused("rankings\\[0\\] is a str, not a Ranking", TypeError)),
    ("one ranking", many()[0], refused("one Ranking, not a list of them", TypeError)),
    ("an empty question", [Ranking(" ", PASSAGES, [[0], [1]])], refused("rankings\\[0\\] has an empty query")),
    ("NaN for strengths", (many(), {"strength": same(NAN)}), refused("gave nan for pair 0")),
    ("infinity for weights", (many(), {"weight": same(INF)}), refused("gave inf for pair 0")),
    ("1e30 for strengths", (many(), {"strength": same(1e30)}), lambda report: report.rankings == 8),
    ("strengths too few", (many(), {"strength": lambda pairs, scores=None: torch.ones(3)}), refused("gave \\(3,\\), not a tensor of shape")),
    ("a number for a strength", (many(), {"strength": 5}), refused("strength=5: a function of pairs")),
    ("a number for a weight", (many(), {"weight": 5}), refused("weight=5: a function of pairs")),
    ("a loss that is none", (many(), {"loss": "__class__"}), refused("loss='__class__': one of grpo")),
)  # fmt: skip


def made(make, world):
    return make()


SETTINGS = (
    *((f"{value!r} for a bound", lambda value=value: Reranker(None, max_kl=value), refused("max_kl=.*: a number of nats, 0 or more"))
      for value in (NAN, -1, "x", None)),
    ("a capacity that leads away", lambda: Reranker(None, "../../x"), refused("capacity='../../x': one of")),
    ("a prior that is none", lambda: Reranker(None, prior="x"), refused("prior='x': \"people\", or None")),
    ("a column too short", lambda: Pairs(["q"], ["a"], []), refused("rejected has 0 rows, query has 1")),
    ("NaN for a target", lambda: Pairs(["q"], ["a"], ["b"], target=NAN), refused("pair 0: target nan is not a probability")),
    ("rewards of NaN", lambda: reward_gap(lambda query, answer: NAN)(Pairs(["q"], ["a"], ["b"])), refused("pair 0 has no rewards")),
    ("a text for a constant", lambda: constant("x")(Pairs(["q"], ["a"], ["b"])), refused("'x'")),
)  # fmt: skip

DOORS = (
    Door("margins of a loss", loss, MARGINS),
    Door("knobs of a loss", loss, KNOBS),
    Door("lists, groups and thumbs of a loss", loss, LISTS),
    Door("hits to rerank", reranked, RERANKED),
    Door("rankings to fit", fitted, FITTED),
    Door("settings", made, SETTINGS),
)
