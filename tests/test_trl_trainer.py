"""The brief's loss inside TRL's DPOTrainer, on the shipped small model: our loss, and it learns."""

import copy
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from ragkit.generation.generator import Generator
from ragkit.losses.log_probs import completion_log_probs
from ragkit.losses.pairwise import grpo_loss, margin
from ragkit.losses.trl import StrengthDPOTrainer

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


def trainer(models, tmp_path, rows=ROWS, kind=StrengthDPOTrainer, **settings):
    fresh, tokenizer = models
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "use_cpu": True, "bf16": False}
    arguments = DPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, seed=0, **quiet, **settings
    )
    rows = Dataset.from_dict(rows) if isinstance(rows, dict) else rows
    return kind(fresh(), fresh(), args=arguments, train_dataset=rows, processing_class=tokenizer)


def moved(made):
    """The policy a little away from its reference, so that the margins are not 0."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return made


def ours(made, batch):
    def sums(model):
        return completion_log_probs(
            model, batch["input_ids"], batch["attention_mask"], batch["completion_mask"]
        )[0].chunk(2)

    with torch.no_grad():
        reference = sums(made.ref_model)
    return grpo_loss(margin(*sums(made.model), *reference), batch["strength"])


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


def test_it_starts_at_log_2(models, tmp_path):
    made = trainer(models, tmp_path)
    loss = made.compute_loss(made.model, next(iter(made.get_train_dataloader())))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


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
