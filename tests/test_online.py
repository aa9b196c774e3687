"""Tuning on line: its gradient, KL and log against exact sums over a world of 13 answers; what goes wrong."""

import math

import numpy as np
import pytest
import torch

from ragkit.generation import online
from ragkit.generation.answer import ABSTENTION
from ragkit.generation.generator import Generator
from ragkit.generation.judged_answers import written_ids, written_text
from ragkit.generation.online import tune_online
from ragkit.generation.policy import Policy
from ragkit.generation.prompt import Evidence, Prompt
from ragkit.generation.rewards import citation_reward, length_reward, overlap_reward
from ragkit.generation.training_run import TrainingRun
from ragkit.losses.group_relative import clipped_share, group_relative_loss
from ragkit.losses.log_probs import answers_log_probs
from tests.helpers import hits

close = torch.testing.assert_close
EOS = 0
# All answers of at most two tokens: 1 + 3 + 9; those of two other tokens were cut off.
ANSWERS = [[EOS], *([a, b] for a in (1, 2, 3) for b in range(4))]
TEXTS = [" ".join("abc"[i - 1] for i in ids if i) for ids in ANSWERS]
VALUES = dict(zip(TEXTS, np.random.default_rng(0).normal(size=len(ANSWERS)).tolist()))
QUESTIONS = [("a", hits("b")), ("c", hits("b"))]
LOOKED_AT = 200  # answers, of one held-out question
SMALL = {"rank": None, "max_new_tokens": 2, "held_out": 0.5, "progress": False}


def reward(query, text, hits):
    return VALUES[text]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A generator that knows three words and an end; every other word is "a" to it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<eos>": 0, "a": 1, "b": 2, "c": 3}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("world")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"eos_token_id": EOS, "bos_token_id": None, "pad_token_id": None}
    config = LlamaConfig(vocab_size=4, initializer_range=0.3, max_position_embeddings=256, **shape, **special)
    LlamaForCausalLM(config).save_pretrained(folder)
    return Generator(folder, device="cpu")


def learnt(generator, seed=0):
    """The prompt of the question that is not held out."""
    held = online.held_out_queries("ac", 0.5, seed)
    (question,) = (one for one in QUESTIONS if one[0] not in held)
    return generator.prompt(*question, max_new_tokens=2).ids


def exactly(model, prompt) -> torch.Tensor:
    """log π of each token of all 13 answers, (13, 2)."""
    return answers_log_probs(model, [prompt], [ANSWERS])[1]


@pytest.fixture(autouse=True)
def many_looked_at(monkeypatch):
    monkeypatch.setattr(online, "HELD_OUT_ANSWERS", LOOKED_AT)


@pytest.fixture
def caught(monkeypatch):
    """The gradients that a run would have used; its policy stays where it is."""
    gradients = []

    def step(self, number, loss):
        found = torch.autograd.grad(loss, self.policy.trained())
        gradients.append(torch.cat([one.flatten() for one in found]))

    monkeypatch.setattr(TrainingRun, "step", step)
    return gradients


def test_the_answers_are_all_that_there_are(world):
    assert exactly(world.model, learnt(world)).sum(1).exp().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("mask_truncated", [False, True])
@pytest.mark.parametrize("aggregation", ["dr_grpo", "grpo"])
def test_the_expected_gradient_is_exact(world, caught, aggregation, mask_truncated):
    """Of 24 steps with 128 groups of four the mean gradient is, up to sampling error, the exact sum

        −(1 − 1/K) Σ_y p(y) w(y) (R(y) − E R) ∇log p(y),  w = 1/2 for "dr_grpo", 1/|y| for "grpo",

    over all answers, or over those that were not cut off. With w constant and all answers this is minus the
    policy gradient, ∇ E R."""
    settings = {"kl": 0, "scale": "none", "aggregation": aggregation, "mask_truncated": mask_truncated}
    counts = {"group": 4, "batch": 128, "steps": 24, "inner_epochs": 1}
    tune_online(world, QUESTIONS, reward, **settings, **counts, **SMALL)
    gradients = torch.stack(caught)
    policy = Policy(world, None)
    log_probs = exactly(policy.model, learnt(world)).sum(1)
    p, values = log_probs.detach().exp(), torch.tensor([*VALUES.values()])
    weight = torch.tensor([1 / len(ids) if aggregation == "grpo" else 0.5 for ids in ANSWERS])
    if mask_truncated:
        weight *= torch.tensor([ids[-1] == EOS for ids in ANSWERS])
    exact = -0.75 * (p * weight * (values - p @ values) * log_probs).sum()
    wanted = torch.cat([one.flatten() for one in torch.autograd.grad(exact, policy.trained())])
    error = (gradients.var(0) / len(gradients)).sum().sqrt()
    assert error < 0.1 * wanted.norm()  # sharp enough to tell the four apart
    assert (gradients.mean(0) - wanted).norm() < 2 * error


def test_k3_adds_up_to_the_exact_kl(world):
    """Σ_y p(y) Σ_t k3_t = Σ_y p(y) log p(y)/p_ref(y), the KL of whole answers."""
    policy, prompt = Policy(world, None), learnt(world)
    generator = torch.Generator().manual_seed(0)
    for weight in policy.trained():
        weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    with torch.no_grad():
        now, ref = (exactly(model, prompt).double() for model in (policy.model, world.model))
    p = now.sum(1).exp()
    settings = {"kl": 1.0, "aggregation": "dr_grpo", "max_length": 1}
    k3 = [
        group_relative_loss(now[i, None], None, ref[i, None], torch.ones(1, 2), torch.zeros(1), **settings)
        for i in range(len(ANSWERS))
    ]
    exact = p @ (now - ref).sum(1)
    assert exact > 0.01
    close(p @ torch.stack(k3), exact, rtol=1e-5, atol=0)


def test_the_reward_rises_and_the_log_is_true(world, tmp_path):
    """What is logged of the held-out question is, up to sampling error, the exact reward, KL and length of
    the policy that was kept; saved and loaded it is the same."""
    settings = {"kl": 0.1, "learning_rate": 1e-2, "steps": 30}
    tuned = tune_online(world, QUESTIONS, reward, **settings, **SMALL)
    looks = [row for row in tuned.log if "held_out/reward" in row]
    best = max(looks, key=lambda row: row["held_out/reward"])
    assert best["held_out/reward"] > looks[0]["held_out/reward"] + 0.2 and not tuned.kept_base
    (held,) = online.held_out_queries("ac", 0.5, 0)
    prompt = world.prompt(held, QUESTIONS[0][1], max_new_tokens=2).ids
    now, before = (exactly(one.model, prompt).detach().sum(1) for one in (tuned.generator, world))
    facts = {
        "reward": torch.tensor([*VALUES.values()]),
        "kl": now - before,
        "length": torch.tensor([float(len(ids)) for ids in ANSWERS]),
        "truncated": torch.tensor([float(ids[-1] != EOS) for ids in ANSWERS]),
    }
    for name, x in facts.items():
        mean = now.exp() @ x
        error = (now.exp() @ (x - mean) ** 2 / LOOKED_AT).sqrt()
        assert abs(best[f"held_out/{name}"] - mean) < 4 * error + 1e-6, name
    tuned.save(tmp_path / "tuned")
    close(exactly(Generator(tmp_path / "tuned", device="cpu").model, prompt).sum(1).detach(), now)
    assert {"reward", "spread", "without_spread", "kl", "length", "truncated", "clipped"} < looks[1].keys()


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_the_inner_epochs_clip(world, ratio):
    """A batch gone over again and again leaves the old policy until it is clipped; once it never is."""
    settings = {"ratio": ratio, "learning_rate": 3e-3, "steps": 1, **SMALL}
    once, often = (tune_online(world, QUESTIONS, reward, inner_epochs=n, **settings).log[1] for n in (1, 8))
    assert once["clipped"] == 0 and 0.05 < often["clipped"] < 1


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_what_is_clipped_has_no_gradient(ratio):
    generator = torch.Generator().manual_seed(0)
    now, old = (torch.randn(40, 5, generator=generator).double() / 2 for _ in range(2))
    mask = torch.arange(5) < torch.randint(1, 6, (40, 1), generator=generator)
    advantages = torch.randn(40, generator=generator).double()
    knobs = {"clip": (0.1, 0.3), "ratio": ratio}
    now.requires_grad_()
    group_relative_loss(now, old, None, mask, advantages, kl=0, **knobs).backward()
    still = ((now.grad == 0) & mask).sum() / mask.sum()
    assert 0.2 < still < 0.8
    assert clipped_share(now, old, mask, advantages, **knobs) == pytest.approx(still.item())


def test_sequence_ratios_by_hand():
    """(π/π_old)^(1/|y|): e^((0.4 + 0.2)/2) = 1.350 is clipped to 1.2; e^(0.1) = 1.105 is not. Two sequences
    with Â = 1 and −2: (−1.2 + 2·1.105)/2."""
    old = torch.zeros(2, 2)
    now = torch.tensor([[0.4, 0.2], [0.1, 7.0]], requires_grad=True)
    mask = torch.tensor([[1, 1], [1, 0]])
    loss = group_relative_loss(now, old, None, mask, torch.tensor([1.0, -2.0]), kl=0, ratio="sequence")
    assert loss.item() == pytest.approx((-1.2 + 2 * math.exp(0.1)) / 2)
    loss.backward()
    close(now.grad, torch.tensor([[0.0, 0.0], [math.exp(0.1), 0.0]]))


def test_equal_rewards_move_nothing_and_keep_the_base(world, caught):
    tuned = tune_online(world, QUESTIONS, lambda *_: 7.1, kl=0, steps=3, **SMALL)
    assert caught and not torch.stack(caught).any()
    assert all(row["without_spread"] == 1 and row["spread"] == 0 for row in tuned.log[1:])
    assert tuned.kept_base and tuned.generator is world


def test_what_has_no_reward_is_left_out_loudly(world, monkeypatch):
    """Such answers are in no batch, and neither are groups with fewer than two others."""
    nones, seen = [], []

    def mostly_none(query, text, hits):
        if len(text) < 2:
            return VALUES[text]
        nones.append((query, text))

    def log_probs(self, prompts, answers, real=Policy.token_log_probs):
        seen.extend(answers)
        return real(self, prompts, answers)

    monkeypatch.setattr(Policy, "token_log_probs", log_probs)
    with pytest.warns(UserWarning, match="left out") as warned:
        tuned = tune_online(
            world, QUESTIONS, {"one": reward, "two": mostly_none}, group=8, batch=1, steps=20, **SMALL
        )
    (said,) = (str(one.message) for one in warned)
    assert said.startswith(f"left out: {len(nones)} answers") and "'two'" in said
    assert f"{nones[0][1]!r}, to {nones[0][0]!r}" in said
    assert {tuple(ids) for answers in seen for ids in answers} == {(0,), (1, 0), (2, 0), (3, 0)}
    skipped = [row for row in tuned.log[1:] if "reward" not in row]
    assert 2 < len(skipped) < 18
    with (
        pytest.raises(ValueError, match="is None"),
        pytest.warns(UserWarning, match=f"left out: {LOOKED_AT} "),
    ):
        tune_online(world, QUESTIONS, lambda *_: None, **SMALL)


def test_several_rewards_are_added_with_their_weights(world):
    both = {"one": reward, "two": lambda query, text, hits: len(text)}
    tuned = tune_online(world, QUESTIONS, both, weights={"two": -0.5}, steps=2, **SMALL)
    for row in tuned.log[1:]:
        assert row["reward"] == pytest.approx(row["reward/one"] + row["reward/two"])
        assert row["reward/two"] <= 0
    assert tuned.settings["weights"] == {"one": 1.0, "two": -0.5}


def test_an_interrupt_keeps_the_best(world):
    def stop(row):
        if row["step"] == 20:
            raise KeyboardInterrupt

    settings = {"learning_rate": 1e-2, "steps": 40, **SMALL}
    with pytest.warns(UserWarning, match="interrupted"):
        tuned = tune_online(world, QUESTIONS, reward, on_log=stop, **settings)
    assert tuned.interrupted and not tuned.kept_base and tuned.log[-1]["step"] == 20
    prompt = learnt(world)
    assert not torch.equal(*(exactly(one.model, prompt) for one in (tuned.generator, world)))


def test_what_is_not_finite_stops_with_what_was_best(world):
    with pytest.raises(FloatingPointError, match=r"step 1: .* lower learning_rate") as error:
        tune_online(world, QUESTIONS, reward, learning_rate=1e30, **SMALL)
    assert error.value.tuned.kept_base and len(error.value.tuned.log) == 1


def test_an_error_of_a_rewards_own_loses_nothing_learnt(world):
    """What was best when it came is in the exception, as `tuned`."""
    calls = []

    def breaks(query, text, hits):
        calls.append(text)
        if len(calls) > 2000:
            raise KeyError("no such reference")
        return reward(query, text, hits)

    with pytest.raises(KeyError, match="no such reference") as error:
        tune_online(world, QUESTIONS, breaks, learning_rate=1e-2, looks=20, **(SMALL | {"steps": 200}))
    tuned = error.value.tuned
    assert not tuned.kept_base and not tuned.interrupted
    prompt = learnt(world)
    assert not torch.equal(*(exactly(one.model, prompt) for one in (tuned.generator, world)))


def test_looks_are_spread_over_the_run(world):
    log = tune_online(world, QUESTIONS, reward, looks=2, **(SMALL | {"steps": 6})).log
    assert [row["step"] for row in log if "held_out/reward" in row] == [0, 3, 6]


def test_a_seed_decides_and_the_callers_random_state_stays(world):
    before, python = torch.random.get_rng_state(), np.random.get_state()[1].copy()

    def log(seed):
        rows = tune_online(world, QUESTIONS, reward, steps=3, seed=seed, **{**SMALL, "rank": 2}).log
        return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]

    assert log(3) == log(3) != log(5)
    assert torch.equal(before, torch.random.get_rng_state()) and (python == np.random.get_state()[1]).all()


@pytest.mark.parametrize(
    "bad",
    [
        {"group": 1},
        {"steps": 0},
        {"inner_epochs": 0},
        {"looks": 0},
        {"max_new_tokens": 0},
        {"ratio": "word"},
        {"scale": "iqr"},
        {"aggregation": "sum"},
        {"clip": (-0.1, 0.2)},
        {"kl": math.nan},
        {"weights": {"length": 1.0}},
        {"held_out": 0.9},
        {"rewards": lambda *_: math.nan},
        {"questions": [("a", [])]},
    ],
    ids=lambda bad: " ".join(bad),
)
def test_bad_settings_are_refused(world, bad):
    given = {"questions": QUESTIONS, "rewards": reward, **SMALL, **bad}
    with pytest.raises(ValueError, match=next(iter(bad)).removesuffix("s").replace("question", "held_out")):
        tune_online(world, **given)


# Rewards, and the text that they see


@pytest.mark.parametrize(
    ("function", "text", "wanted"),
    [
        (length_reward(4), "[1] one two three four", 1),
        (length_reward(4), "one", 0.25),
        (length_reward(4), " ".join("abcdefgh"), 0.5),
        (length_reward(4), ABSTENTION, 0),
        (length_reward(4), " ".join("x" * 100), 0.04),  # better than to decline
        (citation_reward, "[2] yes", 1),
        (citation_reward, "[3] there are two hits", 0),
        (citation_reward, ABSTENTION, 0),
        (overlap_reward({"q": "beta bounds the step"}), "[1] Beta bounds it", pytest.approx(0.8)),
        (overlap_reward({"q": "beta bounds the step"}), "", 0),
        (overlap_reward({"other": "beta"}), "beta", None),
    ],
)
def test_rewards(function, text, wanted):
    assert function("q", text, hits("x", "y")) == wanted


@pytest.mark.parametrize("family", ["tiny", "qwen", "llama"])
def test_a_text_is_read_back_from_its_tokens(family, hits, request):
    """What each family writes as tokens; sentences are cited, and their hits are named."""
    generator = request.getfixturevalue(family)
    prompt = generator.prompt("What does beta control in DPO?", hits)
    for number, piece in enumerate(prompt.evidence, 1):
        text = f"[{piece.hit}] {piece.text}"
        ids = written_ids(generator, prompt, text)
        assert written_text(generator, prompt, ids) == text
        if generator.sentences:
            assert ids[: len(generator.citation_ids(number))] == generator.citation_ids(number)
    if generator.sentences:
        assert written_text(generator, prompt, written_ids(generator, prompt, ABSTENTION)) == ABSTENTION


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ([(0, "It is so.")], "[3] It is so."),
        ([(1, "One."), (0, "[Two] more.")], "[1] One. [3] [Two] more."),
        ([(7, "No such sentence.")], "No such sentence."),
        ([], ABSTENTION),
    ],
)
def test_the_readers_claims_are_read_back_with_their_hits(small_reader, claims, text):
    prompt = Prompt([], "", "q", [Evidence("s", 3, 0.5), Evidence("t", 1, 0.5)], "free")
    ids = small_reader.reader.format.answer_ids(claims)
    assert written_text(small_reader, prompt, ids) == text


def test_a_reward_for_length_lengthens_what_the_small_model_writes(encoder, hits, monkeypatch):
    """In a few seconds, also to questions that were held out; and the KL says that it left its way."""
    monkeypatch.setattr(online, "HELD_OUT_ANSWERS", 6)
    small = Generator("tiny-rag-lm", encoder, device="cpu")
    queries = "What is FAISS?", "How does BM25 count words?", "What does beta control in DPO?"
    questions = [(query, hits) for query in (*queries, "Where does Milvus keep vectors?")]
    settings = {"style": "phrase", "max_new_tokens": 20, "learning_rate": 3e-3, "steps": 7, "batch": 2}
    tuned = tune_online(small, questions, length_reward(12), held_out=0.5, progress=False, **settings)
    before = tuned.log[0]
    after = max(tuned.log, key=lambda row: row.get("held_out/reward", -math.inf))
    assert after["held_out/length"] > 1.4 * before["held_out/length"]
    assert after["held_out/reward"] > before["held_out/reward"] + 0.2
    assert after["held_out/kl"] > 0.5 and not tuned.kept_base


def test_an_encoder_decoder_is_refused(t5):
    with pytest.raises(ValueError, match="reads prompts with an encoder"):
        Policy(t5)
