"""The brief's loss inside TRL's DPOTrainer, and a score as TRL's reward, on the shipped small model: TRL's
numbers are ours, it learns, and what TRL passes over in silence is said or done right."""

import copy
import math

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.quantizers.quantizer_gguf import GgufHfQuantizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

from ragkit.generation.generator import Generator
from ragkit.losses.group_relative import group_advantages, group_relative_loss
from ragkit.losses.log_probs import completion_log_probs
from ragkit.losses.pairwise import grpo_loss, margin
from ragkit.losses.strengths import reward_gap, stated
from ragkit.losses.trl import StrengthDPOTrainer, reward_function
from ragkit.preferences.export import to_trl
from ragkit.preferences.judgements import Comparison
from ragkit.preferences.log import PreferenceLog
from ragkit.preferences.pairs import pairs_of
from tests.test_smollm2 import write_gguf

QUIET = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "use_cpu": True, "bf16": False}
LORA = {"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}

ROWS = {
    "prompt": ["A fox is", "The moon is", "Water boils", "A vector is"],
    "chosen": [" an animal.", " far away.", " at one hundred degrees.", " a list of numbers."],
    "rejected": [" a plant, some say, or perhaps not.", " near.", " never.", " a fruit."],
    "strength": [0.05, 0.5, 1.0, 2.0],
}


@pytest.fixture(scope="module")
def models():
    generator = Generator("tiny-rag-lm")

    def fresh():
        return copy.deepcopy(generator.model).float()

    return fresh, generator.tokenizer


def trainer(models, tmp_path, rows=ROWS, kind=StrengthDPOTrainer, given=None, **settings):
    """`given`: the models, and adapters, if not two new ones."""
    fresh, tokenizer = models
    arguments = DPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, seed=0, **QUIET, **settings
    )
    rows = Dataset.from_dict(rows) if isinstance(rows, dict) else rows
    given = given or {"model": fresh(), "ref_model": fresh()}
    return kind(**given, args=arguments, train_dataset=rows, processing_class=tokenizer)


def move(model):
    """A little away, so that the margins to a reference are not 0."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


def moved(made):
    move(made.model)
    return made


def sums(model, batch):
    """(log π(y⁺|x), log π(y⁻|x)), (B,) each."""
    ids = batch["input_ids"], batch["attention_mask"], batch["completion_mask"]
    return completion_log_probs(model, *ids)[0].chunk(2)


def ours(made, batch, reference=None):
    with torch.no_grad():
        before = sums(reference or made.ref_model, batch)
    return grpo_loss(margin(*sums(made.model, batch), *before), batch["strength"])


def first_loss(made):
    batch = next(iter(made.get_train_dataloader()))
    return made.compute_loss(made.model, batch).item(), batch


def test_its_loss_and_gradient_are_ours(models, tmp_path):
    """On one batch, to 1e-5: TRL's own code with h for β, and ragkit's log-probs, margin and loss."""
    made = moved(trainer(models, tmp_path))
    batch = next(iter(made.get_train_dataloader()))
    assert sorted(batch["strength"].tolist()) == pytest.approx(sorted(ROWS["strength"]))
    gradients = []
    for loss in (made.compute_loss(made.model, batch), ours(made, batch)):
        made.model.zero_grad()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in made.model.parameters()]))
    assert made.compute_loss(made.model, batch).item() == pytest.approx(ours(made, batch).item(), abs=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def said(role, content):
    return {"role": role, "content": content}


CHAT = {
    "prompt": [
        [said("user", "A fox is")],
        [said("system", "Be brief."), said("user", "Hi"), said("assistant", "Yes?"), said("user", "Water?")],
    ],
    "chosen": [[said("assistant", "an animal.")], [said("assistant", "boils.")]],
    "rejected": [[said("assistant", "a plant, some say.")], [said("assistant", "never.")]],
    "strength": [0.5, 2.0],
}


@pytest.mark.parametrize("implicit", [False, True])
def test_conversations_train_with_the_shipped_models_template(models, tmp_path, implicit):
    """The prompt apart, or inside both sides: a completion is the answer and the end of the turn, nothing of
    the prompt, and the loss is ours."""
    rows = dict(CHAT)
    if implicit:
        prompts = rows.pop("prompt")
        for side in ("chosen", "rejected"):
            rows[side] = [prompt + answer for prompt, answer in zip(prompts, rows[side])]
    made = moved(trainer(models, tmp_path, rows))
    batch = next(iter(made.get_train_dataloader()))
    assert made.compute_loss(made.model, batch).item() == pytest.approx(ours(made, batch).item(), abs=1e-5)
    _, tokenizer = models
    texts = {"prompt": set(), "answer": set()}
    for ids, mask, attended in zip(batch["input_ids"], batch["completion_mask"], batch["attention_mask"]):
        texts["answer"].add(tokenizer.decode(ids[mask.bool()]).replace(" ", ""))
        texts["prompt"].add(tokenizer.decode(ids[attended.bool() & ~mask.bool()]).replace(" ", ""))
    assert texts["answer"] == {"ananimal.<eos>", "aplant,somesay.<eos>", "boils.<eos>", "never.<eos>"}
    assert texts["prompt"] == {
        "<bos><q>Afoxis<q>Afoxis<sentence>",
        "<bos>Bebrief.<q>Hi<q>Hi<sentence>Yes?<eos><q>Water?<q>Water?<sentence>",
    }


def adapted(model, **settings):
    return get_peft_model(model, LoraConfig(**LORA, **settings))


WAYS = {
    "a model as loaded": lambda fresh: {"model": fresh()},
    "a model changed in memory": lambda fresh: {"model": move(fresh())},
    "that model with new adapters": lambda fresh: {"model": move(fresh()), "peft_config": LoraConfig(**LORA)},
    "tuned adapters": lambda fresh: {"model": adapted(move(fresh()), init_lora_weights=False)},
    "merged adapters": lambda fresh: {
        "model": adapted(fresh(), init_lora_weights=False).merge_and_unload().requires_grad_(True)
    },
}


@pytest.mark.parametrize("precompute", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_without_a_reference_it_is_the_model_as_it_is(models, tmp_path, way, precompute):
    """The first loss is log 2, and later ones are ours against the model as it was."""
    given = WAYS[way](models[0])
    before = copy.deepcopy(given["model"])
    made = trainer(models, tmp_path, given=given, precompute_ref_log_probs=precompute)
    loss, batch = first_loss(made)
    assert loss == pytest.approx(math.log(2), abs=1e-6)
    loss, batch = first_loss(moved(made))
    assert abs(loss - math.log(2)) > 1e-3
    assert loss == pytest.approx(ours(made, batch, before).item(), abs=1e-5)
    if made.ref_model is not None:
        assert not any(parameter.requires_grad for parameter in made.ref_model.parameters())


def test_a_second_round_starts_where_the_first_one_ended(models, tmp_path):
    """TRL leaves its own forward on the model that it trained; a copy must not run the original's."""
    first = trainer(models, tmp_path, max_steps=2, learning_rate=1e-2)
    first.train()
    second = trainer(models, tmp_path, given={"model": first.model})
    assert first_loss(second)[0] == pytest.approx(math.log(2), abs=1e-6)
    loss, batch = first_loss(moved(second))
    assert abs(loss - math.log(2)) > 1e-3 and loss == pytest.approx(ours(second, batch).item(), abs=1e-5)


@pytest.mark.parametrize("peft_config", [None, LoraConfig(**LORA)])
def test_a_model_out_of_a_gguf_file_is_trained(tmp_path, peft_config):
    write_gguf(tmp_path / "tiny.gguf")
    model, tokenizer = (
        kind.from_pretrained(tmp_path, gguf_file="tiny.gguf")
        for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    assert model.is_quantized
    given = {"model": model, "peft_config": peft_config}
    made = trainer((None, tokenizer), tmp_path, given=given, max_steps=2, learning_rate=1e-2)
    assert first_loss(made)[0] == pytest.approx(math.log(2), abs=1e-6)
    made.train()
    assert first_loss(made)[0] < 0.6
    made.save_model(tmp_path / "saved")  # a model that counts as quantised has no save, either


def test_a_gguf_models_packed_weights_stay_quantised(models, tmp_path):
    model = models[0]().requires_grad_(False)
    model.hf_quantizer, model.is_quantized = GgufHfQuantizer(GgufConfig()), True
    model.lm_head.weight.data = model.lm_head.weight.data.to(torch.uint8)
    with pytest.raises(ValueError, match="purely quantized"):
        trainer(models, tmp_path, given={"model": model})


def test_a_constant_strength_is_trls_dpo(models, tmp_path):
    plain = moved(trainer(models, tmp_path, kind=DPOTrainer, beta=0.3))
    strong = moved(trainer(models, tmp_path, {**ROWS, "strength": [0.3] * 4}, beta=99.0))
    losses = [
        made.compute_loss(made.model, next(iter(made.get_train_dataloader()))) for made in (plain, strong)
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-6)
    assert strong.beta == 99.0  # as it was


@pytest.mark.parametrize("precompute", [False, True])
def test_it_trains_and_evaluates(models, tmp_path, precompute):
    made = trainer(
        models,
        tmp_path,
        max_steps=6,
        learning_rate=1e-3,
        logging_steps=1,
        precompute_ref_log_probs=precompute,
    )
    made.train()
    losses = [row["loss"] for row in made.state.log_history if "loss" in row]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4) and losses[-1] < losses[0]
    assert "rewards/margins" in made.state.log_history[0]
    if not precompute:
        found = made.evaluate(Dataset.from_dict(ROWS))
        assert found["eval_rewards/accuracies"] > 0.5


def test_preferences_tune_adapters(models, tmp_path):
    """From what a person clicked to adapters on disk, which alone have changed."""
    log = PreferenceLog(tmp_path / "log", "ann")
    for query, chosen, rejected, h in zip(*ROWS.values()):
        log.record(Comparison(query, rejected, chosen, rating=3 if h > 0.5 else 1))
    pairs = pairs_of(log.comparisons())
    rows = Dataset.from_list(to_trl(pairs, stated(scale=0.5)(pairs, None)))
    assert rows["chosen"] == ROWS["chosen"] and rows["strength"] == [0.5, 0.5, 1.5, 1.5]
    base = models[0]()
    given = {"model": base, "peft_config": LoraConfig(**LORA)}
    settings = {"max_steps": 6, "learning_rate": 1e-2, "logging_steps": 1}
    made = trainer(models, tmp_path, rows, given=given, **settings)
    weights = {name: value.clone() for name, value in base.state_dict().items() if "lora" not in name}
    made.train()
    losses = [row["loss"] for row in made.state.log_history if "loss" in row]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4) and losses[-1] < 0.5
    assert all(torch.equal(base.state_dict()[name], value) for name, value in weights.items())
    loss, batch = first_loss(made)
    assert loss == pytest.approx(ours(made, batch, models[0]()).item(), abs=1e-5)
    made.save_model(tmp_path / "adapters")
    again = PeftModel.from_pretrained(models[0](), tmp_path / "adapters")
    torch.testing.assert_close(sums(again, batch), sums(made.model, batch), atol=1e-5, rtol=0)


def streamed(rows):
    return IterableDataset.from_generator(lambda: iter(rows))


def stored(rows):
    return Dataset.from_list(rows, on_mixed_types="use_json")


@pytest.mark.parametrize("kind", [stored, streamed])
def test_a_prompt_that_fills_max_length_is_refused_with_its_row(models, tmp_path, kind):
    rows = [dict(zip(ROWS, row)) for row in zip(*ROWS.values())]
    rows[2]["prompt"] *= 8
    with pytest.raises(
        ValueError, match="row 2 of the train dataset: its prompt has 40 tokens, and max_length=9"
    ):
        list(trainer(models, tmp_path, kind(rows), max_length=9, max_steps=1).train_dataset)
    for settings in ({"max_length": None}, {"max_length": 9, "truncation_mode": "keep_end"}):
        made = trainer(models, tmp_path, kind(rows), max_steps=1, **settings)
        assert len(list(made.train_dataset)) == 4


@pytest.mark.parametrize("kind", [stored, streamed])
@pytest.mark.parametrize("texts_first", [False, True])
def test_conversations_among_texts_are_refused_with_their_row(models, tmp_path, kind, texts_first):
    """TRL asks the first row alone whether it is to add end tokens."""
    rows = [dict(zip(table, row)) for table in (CHAT, ROWS) for row in zip(*table.values())]
    rows = rows[:: -1 if texts_first else 1]
    row = 4 if texts_first else 2
    with pytest.raises(ValueError, match=f"row 0 of the train dataset has .* row {row} of the train dataset"):
        list(trainer(models, tmp_path, kind(rows), max_steps=1).train_dataset)


def test_a_dataset_without_the_column_is_refused(models, tmp_path):
    rows = {name: column for name, column in ROWS.items() if name != "strength"}
    with pytest.raises(ValueError, match="the train dataset has no column 'strength'"):
        trainer(models, tmp_path, rows)


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_a_strength_that_is_no_number_is_refused_with_its_row(models, tmp_path, bad):
    with pytest.raises(ValueError, match="row 2 of the train dataset: strength is"):
        trainer(models, tmp_path, {**ROWS, "strength": [0.1, 0.2, bad, 0.3]})


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array, torch.tensor, int])
def test_strengths_of_numpy_and_torch_are_numbers(models, tmp_path, kind):
    """As a stream hands them over."""
    collate = trainer(models, tmp_path).data_collator
    examples = [
        {"prompt_ids": [5, 6], "chosen_ids": [7], "rejected_ids": [8], "strength": kind(2)} for _ in range(4)
    ]
    assert collate(examples)["strength"].tolist() == [2.0] * 4
    for bad in (True, "2", [2.0], np.array([2.0]), torch.tensor(math.nan), None):
        with pytest.raises(ValueError, match="pair 1 of a batch: strength is"):
            collate([examples[0], {**examples[1], "strength": bad}])


def test_a_dataset_of_tensors_is_taken(models, tmp_path):
    made = trainer(models, tmp_path, Dataset.from_dict(ROWS).with_format("torch"))
    batch = next(iter(made.get_train_dataloader()))
    assert sorted(batch["strength"].tolist()) == pytest.approx(sorted(ROWS["strength"]))
    assert made.compute_loss(made.model, batch).item() == pytest.approx(math.log(2), abs=1e-6)
    plain = next(iter(trainer(models, tmp_path).get_train_dataloader()))
    torch.testing.assert_close(batch["input_ids"], plain["input_ids"])


def test_another_loss_is_refused(models, tmp_path):
    with pytest.raises(ValueError, match="'sigmoid' alone"):
        trainer(models, tmp_path, loss_type="ipo")


class Compared(GRPOTrainer):
    """TRL's trainer of groups, and what ours makes of each of its batches."""

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        ids, real = (
            torch.cat([inputs[f"{part}_{name}"] for part in ("prompt", "completion")], 1)
            for name in ("ids", "mask")
        )
        answer = torch.cat([torch.zeros_like(inputs["prompt_mask"]), inputs["completion_mask"]], 1)
        now = completion_log_probs(model, ids, real, answer)[1]
        with torch.no_grad(), self.model.disable_adapter():
            before = completion_log_probs(model, ids, real, answer)[1]
        corrected = {"kl": self.beta, "kl_correction": self.args.use_bias_correction_kl}
        found = group_relative_loss(now, None, before, answer, inputs["advantages"], **corrected)
        assert loss.item() == pytest.approx(found.item(), abs=1e-5)
        self.advantages.append(inputs["advantages"])
        return loss


@pytest.mark.parametrize("prompts", [ROWS["prompt"][:2], CHAT["prompt"]], ids=["texts", "conversations"])
def test_a_score_is_a_reward_of_trls_group_trainer(models, tmp_path, prompts):
    """Two steps: it is asked about each answer that was sampled, and the losses agree to 1e-5."""
    fresh, tokenizer = models
    seen = []

    def length(query, answer):
        seen.append((query, answer, len(answer) / 10))
        return seen[-1][2]

    assert reward_gap(length)(pairs_of([Comparison("q", "a" * 20, "b", -1)]), None).item() == pytest.approx(
        1.9
    )
    seen.clear()
    settings = {"max_completion_length": 8, "num_generations": 4, "per_device_train_batch_size": 8}
    settings |= {
        "beta": 0.3,
        "scale_rewards": "none",
        "loss_type": "grpo",
        "max_steps": 2,
        "logging_steps": 1,
    }
    made = Compared(
        fresh(), reward_function(length), args=GRPOConfig(str(tmp_path), **settings, **QUIET),
        train_dataset=Dataset.from_dict({"prompt": prompts}), processing_class=tokenizer,
        peft_config=LoraConfig(**LORA, init_lora_weights=False),
    )  # fmt: skip
    made.advantages = []
    made.train()
    assert len(seen) == 16 and len(made.advantages) == 2
    if isinstance(prompts[0], str):
        assert {query for query, _, _ in seen} == set(prompts)
    else:
        whole = "system: Be brief.\nuser: Hi\nassistant: Yes?\nuser: Water?"
        assert {query for query, _, _ in seen} == {"A fox is", whole}
    for step, found in enumerate(made.advantages):
        rewards = torch.tensor([value for _, _, value in seen[8 * step :][:8]]).view(2, 4)
        wanted = group_advantages(rewards, scale="none").flatten()
        assert wanted.any()
        torch.testing.assert_close(found.sort().values, wanted.sort().values, atol=1e-5, rtol=0)
    assert "rewards/length/mean" in made.state.log_history[0]


@pytest.mark.parametrize("bad", [None, math.nan, "1", torch.tensor([1.0, 2.0])])
def test_a_reward_that_is_no_number_is_refused_with_its_answer(bad):
    answers = iter([True, np.float32(0.5), torch.tensor(2), bad])
    rewards = reward_function(lambda query, answer: next(answers))
    assert rewards(["q"] * 3, ["a"] * 3, trainer_state=None) == [1.0, 0.5, 2.0]
    with pytest.raises(ValueError, match="the reward of 'an answer' as an answer to 'a question' is"):
        rewards(prompts=["a question"], completions=[[said("assistant", "an answer")]])
