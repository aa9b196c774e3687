"""Tuning: each loss on a world small enough to know its optimum; then generators, from step 0 to disk."""

import math
import os

import numpy as np
import pytest
import torch

from ragkit import Hit, Passage
from ragkit.generation import saving, tuning
from ragkit.generation.answer_loss import SIMPO, AnswerLoss, Examples
from ragkit.generation.generator import Generator
from ragkit.generation.judged_answers import JudgedAnswers
from ragkit.generation.policy import Policy
from ragkit.generation.training_run import LOOKS, Tuned
from ragkit.generation.tuning import PATIENCE, tune
from ragkit.losses.strengths import constant
from ragkit.preferences.judgements import Comparison, Feedback, Ranking
from ragkit.preferences.pairs import Pairs

close = torch.testing.assert_close

# A world of two questions with three answers each, of which people think by UTILITY, in logits.
LENGTHS, UTILITY = [3, 1, 2], [math.log(3), math.log(2), 0.0]
P = lambda a, b: 1 / (1 + math.exp(UTILITY[b] - UTILITY[a]))  # noqa: E731
ORDERS = {(0, 1, 2): 20, (0, 2, 1): 10, (1, 0, 2): 15, (1, 2, 0): 5, (2, 0, 1): 6, (2, 1, 0): 4}  # of 60


def world(**settings) -> Examples:
    two = range(2)
    places = [(g, a, b) for g in two for a, b in ((0, 1), (0, 2), (1, 2))]
    pairs = Pairs(
        [f"q{g}" for g, *_ in places], ["+"] * 6, ["-"] * 6, target=[P(a, b) for _, a, b in places], rating=2
    )
    sheet = JudgedAnswers(
        ["q0", "q1"],
        [[5], [6]],
        [[[7] * size for size in LENGTHS] for _ in two],
        pairs,
        np.array(places),
        [(g, [*order], [0, 1, 2]) for g in two for order, times in ORDERS.items() for _ in range(times)],
        [(g, 0, True) for g in two] + [(g, 2, False) for g in two],
    )
    return Examples(sheet, AnswerLoss(**settings), window=99)


def optimum(examples: Examples) -> torch.Tensor:
    """(2, K): ρ of the policy over all answers at which the loss is least, found by direct optimisation."""
    ref = torch.log_softmax(torch.tensor([[0.3, -1.0, 0.5, 0.1], [2.0, 0.0, 1.0, -1.0]]), 1).double()
    ref = ref[:, : len(examples.answers[0])]
    logits = ref.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([logits], max_iter=300, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure():
        optimiser.zero_grad()
        loss = examples.loss([0, 1], logits.log_softmax(1).flatten(), ref.flatten())
        loss.backward()
        return loss

    optimiser.step(closure)
    return (logits.log_softmax(1) - ref).detach()


@pytest.mark.parametrize(
    "settings, scale",
    [
        ({"loss": "dpo", "beta": 0.5}, 0.5),
        ({"loss": "grpo", "beta": 0.5}, 1.0),  # people said "clearly": h = β · 2
        ({"loss": "grpo", "beta": 0.5, "strength": constant(0.3)}, 0.3),
        ({"loss": "plackett_luce", "beta": 0.4}, 0.4),
    ],
)
def test_at_the_optimum_the_log_ratios_are_peoples_utility_over_h(settings, scale):
    """On all pairs, or rankings, as often as people would say so: h·ρ = utility, up to a constant."""
    rho = optimum(world(**settings))
    wanted = torch.tensor(UTILITY[:2]).double().expand(2, 2) / scale
    close(rho[:, :2] - rho[:, 2:3], wanted, atol=1e-4, rtol=1e-4)


def test_normalised_a_margin_is_one_of_means_over_tokens():
    rho = optimum(world(loss="dpo", beta=0.5, normalise=True)) / torch.tensor(LENGTHS)
    wanted = torch.tensor(UTILITY[:2]).double().expand(2, 2) / 0.5
    close(rho[:, :2] - rho[:, 2:], wanted, atol=1e-4, rtol=1e-4)


def of(examples: Examples, log_probs, ref=None) -> float:
    """The loss of one answer after the other being as likely as said, the same for both questions."""
    row = torch.tensor([log_probs, log_probs]).double()
    ref = torch.zeros_like(row) if ref is None else torch.tensor([ref, ref]).double()
    return examples.loss([0, 1], row.flatten(), ref.flatten()).item()


def test_ipo_is_squared_on_means_and_a_tie_pulls_together():
    means = [-1.0 / 3, -4.0, -0.5]
    margins = [(means[0] - means[1], P(0, 1)), (means[0] - means[2], P(0, 2)), (means[1] - means[2], P(1, 2))]
    target = 1 / (2 * 0.3)
    wanted = np.mean([p * (x - target) ** 2 + (1 - p) * (-x - target) ** 2 for x, p in margins])
    assert of(world(loss="ipo", beta=0.3), [-1.0, -4.0, -1.0]) == pytest.approx(wanted)


def test_simpo_has_no_reference_and_counts_tokens():
    found = of(world(**SIMPO), [-1.0, -4.0, -1.0], ref=[5.0, 6.0, 7.0])
    means, sides = [-1.0 / 3, -4.0, -0.5], [(0, 1), (0, 2), (1, 2)]
    z = lambda a, b, way: way * (2.0 * (means[a] - means[b]) - 1.0)  # noqa: E731
    soft = lambda x: math.log1p(math.exp(-x))  # noqa: E731
    wanted = np.mean([P(a, b) * soft(z(a, b, 1)) + P(b, a) * soft(z(a, b, -1)) for a, b in sides])
    assert found == pytest.approx(wanted)


def test_an_offset_may_be_a_function_of_pairs_and_takes_out_what_it_explains():
    """Preferences that length explains, P = σ(α·more tokens), leave the policy where it was (R-DPO)."""
    examples, alpha = world(loss="dpo", beta=0.5), 0.7
    more = torch.tensor([LENGTHS[a] - LENGTHS[b] for a, b in ((0, 1), (0, 2), (1, 2))] * 2).double()
    examples.target = (alpha * more).sigmoid()
    with_offset = world(loss="dpo", beta=0.5, offset=lambda pairs, scores: -alpha * more)
    with_offset.target = examples.target
    rho = optimum(with_offset)
    close(rho, rho[:, :1].expand(2, 3), atol=1e-4, rtol=0)
    rho = optimum(examples)
    close(rho[:, :1] - rho[:, 1:2], torch.full((2, 1), alpha * 2 / 0.5).double(), atol=1e-4, rtol=1e-4)


def test_kto_counts_from_what_was_said_of_other_questions():
    """Each prompt has one more answer, the other's; that one's log-ratio is where gains and losses begin."""
    examples = world(loss="kto", beta=1.0)
    assert [len(answers) for answers in examples.answers] == [4, 4]
    for kl in (0.7, -0.7):  # an estimate below 0 counts as 0
        z = 1.5 - max(kl, 0.0)
        wanted = ((1 - 1 / (1 + math.exp(-z))) + (1 - 1 / (1 + math.exp(-(max(kl, 0.0) + 0.2))))) / 2
        assert of(examples, [1.5, 9.0, -0.2, kl]) == pytest.approx(wanted)
    both = torch.tensor([[1.5, 9, -0.2, 0] * 2, [0.0] * 8])
    found = examples.metrics([0, 1], *both)  # of its pairs …
    assert found["rewards/accuracies"] == pytest.approx(2 / 3)
    assert found["logps/rejected"] == pytest.approx((9 - 0.2 - 0.2) / 3)
    examples.pair_prompts = np.array([9] * 6)
    found = examples.metrics([0, 1], *both)  # … or of its labels
    assert found["rewards/accuracies"] == 1 and found["logps/rejected"] == pytest.approx(-0.2)


@pytest.mark.parametrize("loss, better", [("dpo", [0, 0, 1]), ("plackett_luce", None), ("kto", [0])])
def test_supervised_adds_the_better_answers_tokens(loss, better):
    log_probs = [-3.0, -1.0, -8.0, -2.0][: 4 if loss == "kto" else 3]
    more, plain = (of(world(loss=loss, supervised=c), log_probs) for c in (0.5, 0.0))
    if better is None:  # the first of each ranking
        better = [order[0] for order, times in ORDERS.items() for _ in range(times)]
    mean = sum(log_probs[n] for n in better) / sum(LENGTHS[n] for n in better)
    assert more - plain == pytest.approx(-0.5 * mean)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"loss": "orpo"}, "loss='orpo': one of grpo, dpo, ipo, plackett_luce, kto"),
        ({"strength": "said"}, "strength='said'"),
        ({"beta": 0.0}, "beta=0.0"),
        ({"supervised": -1.0}, "supervised=-1.0"),
        ({"loss": "ipo", "offset": 1.0}, "offset=1.0: loss='ipo' has none"),
        ({"loss": "kto", "offset": constant(0.0)}, "offset=.*: loss='kto' has none"),
        ({"loss": "kto", "reference": False}, "kto counts gains"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AnswerLoss(**settings)


# Generators

TOPICS = "bridge tower harbour station museum library theatre school market temple".split()
QUERIES = [f"When was the {topic} built?" for topic in TOPICS]


def hits_for(query: str) -> list[Hit]:
    topic, year = query.split()[3], 1800 + len(query)
    text = f"The {topic} was built in {year} by the town. Many people visit the {topic} each year."
    return [Hit(Passage(topic, text), 1.0, 1)]


def comparison(query: str, rating: int = -2) -> Comparison:
    """Of the year and the sentence with the year; below 0, the year is the better answer."""
    (hit,) = hits_for(query)
    sentence = hit.passage.text.split(". ")[0] + "."
    return Comparison(query, f"in {1800 + len(query)}", sentence, rating, hits=[hit])


COMPARISONS = [comparison(query) for query in QUERIES]
QUIET = {"progress": False, "epochs": 2, "batch": 4}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Looks sample two answers only: models with random weights don't end."""
    monkeypatch.setattr(tuning, "SAMPLED", 1)


@pytest.fixture(scope="module")
def shipped(encoder):
    return Generator("tiny-rag-lm", encoder, device="cpu")


def test_a_taste_for_short_answers_is_learned_and_nothing_else_is_touched(shipped):
    """And before the first step the policy is the reference: loss log 2, no margin, no KL."""
    before = {name: weight.clone() for name, weight in shipped.model.state_dict().items()}
    torch.manual_seed(5)
    state, seen = torch.get_rng_state(), []
    tuned = tune(shipped, COMPARISONS, learning_rate=3e-3, on_log=seen.append, **QUIET)
    first, *_, last = tuned.log
    assert seen == tuned.log and [first["step"], last["step"]] == [0, 4] and last["seconds"] > 0
    assert first["loss"] == pytest.approx(math.log(2)) and first["kl"] == pytest.approx(0, abs=1e-4)
    assert first["rewards/accuracies"] == 0.5 and first["rewards/margins"] == 0
    assert last["loss"] < 0.6 and last["rewards/accuracies"] == 1 and last["rewards/margins"] > 0.2
    assert not tuned.kept_base and not tuned.interrupted
    assert tuned.settings["loss"] == "grpo" and tuned.settings["strength"] == "stated"
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weight, before[name]) for name, weight in shipped.model.state_dict().items())
    assert all(weight.requires_grad for weight in shipped.model.parameters())
    again = tune(shipped, COMPARISONS, learning_rate=3e-3, **QUIET)
    assert [row["loss"] for row in again.log] == [row["loss"] for row in tuned.log]


@pytest.mark.parametrize("loss, start", [("ipo", 25.0), ("plackett_luce", math.log(2)), ("kto", 0.5)])
def test_every_loss_starts_where_it_should_and_goes_down(tiny, loss, start):
    tuned = tune(tiny, COMPARISONS, loss=loss, learning_rate=1e-2, rank=None, **QUIET)
    assert tuned.log[0]["loss"] == pytest.approx(start, rel=1e-3)
    assert min(row["loss"] for row in tuned.log) < start


def test_rankings_of_four_answers_and_thumbs(tiny):
    texts = ["in", "the year", "a tower", "the tower was built by the town"]
    answers = [Passage(text, text) for text in texts]
    ranked = [Ranking(query, answers, [[0], [1, 2], [3]]) for query in QUERIES[:5]]
    tuned = tune(tiny, ranked, loss="plackett_luce", hits=hits_for, learning_rate=1e-2, **QUIET)
    assert tuned.log[0]["loss"] == pytest.approx(math.log(4) + 2 * math.log(3), rel=1e-3)
    assert tuned.log[-1]["loss"] < tuned.log[0]["loss"]
    thumbs = [
        Feedback(query, texts[n % 2], n % 2 == 0, hits=hits_for(query)) for n, query in enumerate(QUERIES)
    ]
    tuned = tune(tiny, thumbs, loss="kto", learning_rate=1e-2, held_out=0.4, **QUIET)
    assert tuned.log[0]["loss"] == pytest.approx(0.5, abs=1e-3) and tuned.log[-1]["loss"] < 0.5
    with pytest.raises(ValueError, match=r"dpo.* has nothing to learn from: no two answers"):
        tune(tiny, thumbs, loss="dpo")
    with pytest.raises(ValueError, match=r"strength='stated': of 30 pairs 25 come with no such words"):
        tune(tiny, ranked, hits=hits_for)
    with pytest.raises(ValueError, match=r"kto.* no thumb and no pair"):
        tune(tiny, [comparison(query, 0) for query in QUERIES], loss="kto")


def test_a_query_is_held_out_with_all_that_was_said_of_it():
    sheet = JudgedAnswers([f"q{n // 2}" for n in range(20)], [[5]] * 20, [[[7], [8]]] * 20)
    sheet.labels = [(n, 0, True) for n in range(18)]  # nothing was said on the last query
    train, held = Examples(sheet, AnswerLoss(loss="kto"), 99).split(0.3, seed=1)
    assert len(held) == 6 and sorted(train + held) == [*range(18)]
    assert not {sheet.queries[n] for n in train} & {sheet.queries[n] for n in held}
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"held_out={share} of 9 queries"):
            Examples(sheet, AnswerLoss(loss="kto"), 99).split(share, seed=1)


def test_dropout_that_is_on_is_found_before_the_first_step(tiny, monkeypatch):
    real = Policy.log_probs

    def noisy(self, prompts, answers):
        for layer in self.model.modules():
            if hasattr(layer, "attention_dropout"):
                layer.attention_dropout = 0.5
        self.model.train()
        return real(self, prompts, answers)

    monkeypatch.setattr(Policy, "log_probs", noisy)
    with pytest.raises(RuntimeError, match="before the first step"):
        tune(tiny, COMPARISONS, **QUIET)


def test_where_nothing_is_gained_the_run_ends_early_and_the_base_is_kept(tiny):
    """Who was held out says the opposite."""
    always = Examples.split
    places = {}

    def noted(self, held_out, seed):
        places["train"], places["held"] = always(self, held_out, seed)
        return places["train"], places["held"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Examples, "split", noted)
        tune(tiny, COMPARISONS, **(QUIET | {"epochs": 1}))
    said = [comparison(query, 2 if n in places["held"] else -2) for n, query in enumerate(QUERIES)]
    tuned = tune(tiny, said, learning_rate=1e-2, **(QUIET | {"epochs": 20}))
    assert tuned.kept_base and tuned.generator is tiny
    assert len(tuned.log) == 1 + PATIENCE < 1 + LOOKS


def test_an_interrupt_leaves_the_best_so_far(tiny):
    def stop(row):
        if row["step"] >= 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted; the best weights so far"):
        tuned = tune(tiny, COMPARISONS, learning_rate=1e-2, on_log=stop, **QUIET)
    assert tuned.interrupted and not tuned.kept_base and tuned.log[-1]["step"] == 2
    moved = zip(tuned.generator.model.parameters(), tiny.model.parameters())
    assert any(not torch.equal(now, then) for now, then in moved)


def test_what_is_not_finite_ends_in_an_error_with_the_best_weights(tiny):
    with pytest.raises(FloatingPointError, match=r"step \d: the loss is .*lower learning_rate") as caught:
        tune(tiny, COMPARISONS, learning_rate=1e30, rank=None, **(QUIET | {"epochs": 10}))
    assert caught.value.tuned.kept_base and caught.value.tuned.generator is tiny


# The policy


@pytest.mark.parametrize("rank", [4, None])
def test_the_reference_is_what_the_policy_was(tiny, rank):
    policy, prompts, answers = Policy(tiny, rank), [[5, 6], [7]], [[[8, 2]], [[9], [10, 2]]]
    with torch.no_grad():
        start = policy.log_probs(prompts, answers)
        for weight in policy.trained():
            weight.add_(0.1 * torch.randn_like(weight))
        moved = policy.log_probs(prompts, answers)
        with policy.reference():
            close(policy.log_probs(prompts, answers), start)
        close(policy.log_probs(prompts, answers), moved, atol=0, rtol=0)
    assert (moved - start).abs().min() > 1e-3


def test_all_weights_of_a_reader_are_not_tuned(small_reader):
    with pytest.raises(ValueError, match="is an adapter"):
        Policy(small_reader, None)
    with pytest.raises(ValueError, match="rank=0"):
        Policy(small_reader, 0)


def test_cold_samples_are_what_greedy_decoding_writes(tiny, hits):
    prompts = [tiny.prompt(query, hits).ids for query in ("What does beta control in DPO?", "What is HNSW?")]
    written = Policy(tiny).write(prompts, 2, seed=0, temperature=1e-4, max_new_tokens=9)
    for prompt, two in zip(prompts, written):
        (greedy,) = tiny.model.generate(
            torch.tensor([prompt]), max_new_tokens=9, do_sample=False, pad_token_id=0
        )
        assert two[0] == two[1] == greedy[len(prompt) :].tolist()


def test_samples_are_as_frequent_as_they_are_likely(tiny):
    """And an answer ends with its end token, or where the limit is."""
    policy, prompt = Policy(tiny), [5, 6, 7]
    (written,) = policy.write([prompt], 3000, seed=1, max_new_tokens=1)
    counts = torch.bincount(torch.tensor(written)[:, 0], minlength=1)
    likely = counts.topk(3).indices.tolist()
    with torch.no_grad():
        p = policy.log_probs([prompt], [[[token] for token in likely]]).exp()
    close(counts[likely] / 3000, p, atol=0.04, rtol=0)
    with torch.no_grad():  # the end token is made likely
        policy.model.get_output_embeddings().weight[2] *= 3
    for answers in policy.write([prompt, [8]], 20, seed=1, max_new_tokens=6):
        assert {len(ids) for ids in answers if ids[-1] != 2} <= {6}
        assert all(2 not in ids[:-1] for ids in answers) and any(ids[-1] == 2 for ids in answers)


# On disk


def answers_of(generator, styles=("sentence", "phrase")):
    return [
        generator.answer(query, hits_for(query), style=style) for query in QUERIES[:4] for style in styles
    ]


def test_a_tuned_model_is_the_same_after_it_was_saved(tiny, tmp_path, encoder):
    tuned = tune(tiny, COMPARISONS, learning_rate=3e-2, offset=constant(0.1), **QUIET)
    assert tuned.settings["offset"] == "constant" and tuned.settings["strength"] == "stated"
    tuned.save(tmp_path / "tuned")
    loaded = Generator(tmp_path / "tuned", encoder, device="cpu")
    for name, weight in tuned.generator.model.state_dict().items():
        assert torch.equal(weight, loaded.model.state_dict()[name]), name
    assert answers_of(loaded) == answers_of(tuned.generator) != answers_of(tiny)
    assert loaded.sentences == tiny.sentences and loaded.none_similarity == tiny.none_similarity
    again = tune(loaded, COMPARISONS, **QUIET)  # goes on from there
    best = min(tuned.log, key=lambda row: row["loss"])
    assert again.log[0]["logps/chosen"] == pytest.approx(best["logps/chosen"], abs=0.01)


def test_a_tuned_reader_is_one_adapter_again(small_reader, tmp_path, encoder):
    """Its own and the new one stacked, which is what both add; as peft itself reads it."""
    peft = pytest.importorskip("peft")
    policy = Policy(small_reader, 2)
    assert {weight.shape[-1] if weight.shape[0] == 2 else 2 for weight in policy.trained()} <= {24, 32, 2}
    tuned = tune(small_reader, COMPARISONS, rank=2, learning_rate=3e-2, **QUIET)
    assert not tuned.kept_base
    tuned.save(tmp_path / "tuned")
    loaded = Generator(tmp_path / "tuned", encoder, device="cpu")
    assert loaded.adapter.config["r"] == 5 and loaded.adapter.scale == 4
    assert {weight.dtype for weight in loaded.adapter.weights.values()} == {torch.float16}
    assert loaded.adapter.weights.keys() == small_reader.adapter.weights.keys()
    for query in QUERIES:
        prompt = loaded.prompt(query, hits_for(query))
        assert (loaded.citation_log_probs(prompt) == tuned.generator.citation_log_probs(prompt)).all()
    styles = ("sentence", "phrase", "free")
    assert answers_of(loaded, styles) == answers_of(tuned.generator, styles)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, tmp_path / "tuned").eval()
    ids = torch.tensor([small_reader.prompt(QUERIES[0], hits_for(QUERIES[0])).ids])
    with torch.no_grad():
        close(model(ids).logits, loaded.model(ids).logits, atol=1e-4, rtol=1e-4)
        assert (loaded.model(ids).logits - small_reader.model(ids).logits).abs().max() > 1e-2
    assert tune(loaded, COMPARISONS, rank=2, **QUIET).generator.adapter.config["r"] in (5, 7)


def test_a_folder_is_replaced_whole_or_not_at_all(tiny, tmp_path):
    tuned, folder, rename = Tuned(tiny, [], {}, kept_base=True), tmp_path / "tuned", os.replace
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds other files"):
        tuned.save(tmp_path / "other")
    folder.mkdir()
    tuned.save(folder)  # an empty folder, then an earlier tuning
    tuned.save(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in before)

    def full(old, new):
        return 1 / 0 if str(old).endswith(".tmp") else rename(old, new)

    for broken in ((saving.json, "dumps", lambda *given, **settings: 1 / 0), (os, "replace", full)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(*broken)
            tuned.save(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert {path.name for path in tmp_path.iterdir()} == {"other", "tuned"}
