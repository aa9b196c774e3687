"""Tune a generator on what people prefer: the losses that order documents also change how a model writes.

tuned = tune(generator, log.comparisons())
tuned.generator.answer(query, hits)
tuned.save("my-generator")
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from ragkit.generation.answer_loss import AnswerLoss, Examples
from ragkit.generation.generator import Generator
from ragkit.generation.judged_answers import Hits, judged_answers
from ragkit.generation.policy import Policy
from ragkit.generation.training_run import LOOKS, RATES, TrainingRun, Tuned
from ragkit.losses.strengths import Strength
from ragkit.preferences.judgements import Comparison, Feedback, Ranking
from ragkit.preferences.pairs import Pairs

PATIENCE = 3  # so many looks without a gain end the run
SAMPLED = 4  # held-out prompts to which two answers each are written at a look


def tune(
    generator: Generator,
    judgements: Iterable[Comparison | Ranking | Feedback] | Pairs,
    *,
    loss: str = "grpo",
    strength: Strength | str = "stated",
    beta: float = 0.1,
    offset: Strength | float = 0.0,
    normalise: bool = False,
    reference: bool = True,
    supervised: float = 0.0,
    rank: int | None = 8,
    epochs: int = 3,
    batch: int = 4,
    learning_rate: float | None = None,
    held_out: float = 0.2,
    looks: int = LOOKS,
    hits: Hits | None = None,
    style: str = "sentence",
    cite: bool = True,
    seed: int = 0,
    on_log: Callable[[dict], None] | None = None,
    progress: bool = True,
) -> Tuned:
    """Train a copy of `generator` on judgements of answers, and keep it where it was best on those held out.

    `loss` … `supervised`: see `AnswerLoss`; `hits`, `style`, `cite`: see `judged_answers`; `rank`: see
    `Policy`. `batch`: questions a step. `held_out`: the share of queries that are not trained on.

    Before the first step and at `looks` points of the run those are looked at: "loss", the names of
    `preference_metrics`, and of a few sampled answers "kl" to the reference (the mean log π_θ/π_ref of an
    answer, nats) and "length" (tokens); with "step", "seconds" and "train_loss" (mean since the last look) a
    dict in `Tuned.log`, which `on_log` gets at once. The run ends when three looks in a row bring no smaller
    held-out loss. An interrupt (Ctrl-C, a notebook's stop button) ends it too, with a warning; the best
    weights so far are kept.

    Under `accelerate launch` each process runs this on the same judgements; a batch is divided among them by
    whole questions, and log and weights are those of one process (see `losses/data_parallel.py`). What ends
    one ends all.

    Raises ValueError for bad settings, where nothing was judged, and where processes were given different
    judgements; RuntimeError where the policy does not
    start as the reference; FloatingPointError where the loss or its gradient is not finite, with what was
    best before as `error.tuned`.
    """
    for name, value in (("epochs", epochs), ("batch", batch), ("learning_rate", learning_rate)):
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value}: more than 0")
    objective = AnswerLoss(loss, strength, beta, offset, normalise, reference, supervised)
    sheet = judged_answers(generator, judgements, hits=hits, style=style, cite=cite)
    examples = Examples(sheet, objective, generator.window)
    train, held = examples.split(held_out, seed)
    count = epochs * math.ceil(len(train) / batch)
    rate = learning_rate or RATES["all" if rank is None else "adapter"]
    training = TrainingRun(Policy(generator, rank, seed=seed), rate, count, looks, on_log, progress)
    run = _Run(training, examples, held)
    settings = asdict(objective)
    if loss != "grpo":
        del settings["strength"]
    for name, value in settings.items():
        if callable(value):  # a folder keeps its name
            settings[name] = value.__qualname__.split(".")[0]
    settings |= {"rank": rank, "epochs": epochs, "batch": batch, "learning_rate": rate, "held_out": held_out}
    settings |= {"style": style, "cite": cite, "seed": seed, "generator": str(generator.name)}
    training.group.refuse_others("judgements or settings", examples.said(), settings, looks)
    return training.run(lambda: run.train(train, epochs, batch, seed), settings)


class _Run:
    """One run of training, and what is looked at meanwhile."""

    def __init__(self, training: TrainingRun, examples: Examples, held: list[int]):
        self.training, self.policy, self.examples, self.held = training, training.policy, examples, held
        self._without_gain = 0
        self._ref = torch.zeros(len(examples.lengths))
        self._losses: list[float] = []

    def train(self, places: list[int], epochs: int, batch: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        batches = [
            order[at : at + batch].tolist()
            for order in (random.permutation(places) for _ in range(epochs))
            for at in range(0, len(places), batch)
        ]
        with torch.no_grad():
            for at in range(0, len(places + self.held), batch):
                some = (places + self.held)[at : at + batch]
                self._ref[self.examples.numbers(some)] = self._log_probs(some)
        self._refuse_another_start(batches[0])
        self._look(0, batch)
        for step, some in enumerate(batches, 1):
            loss = self._loss(some, self._log_probs(some))
            self.training.step(step, loss)
            self._losses.append(loss.item())
            self.training.bar.update()
            if step in self.training.looks:
                self._look(step, batch)
                if self._without_gain >= PATIENCE:
                    return

    def _log_probs(self, places: list[int]) -> Tensor:
        """(n,): of all answers to these prompts, of which each process reads some."""
        x, group = self.examples, self.training.group
        own = [places[n] for n in group.share([x.tokens(place) for place in places])]
        part = torch.zeros(0)
        if own:
            part = self.policy.log_probs([x.prompts[p] for p in own], [x.answers[p] for p in own]).cpu()
        numbers = x.numbers(places)
        return group.whole(part, torch.isin(numbers, x.numbers(own)).nonzero()[:, 0], len(numbers))

    def _whole(self, places: list[int], log_probs: Tensor) -> Tensor:
        """(N,): `log_probs` of these prompts' answers, and 0 for all others."""
        return torch.zeros_like(self._ref).index_put((self.examples.numbers(places),), log_probs)

    def _loss(self, places: list[int], log_probs: Tensor) -> Tensor:
        return self.examples.loss(places, self._whole(places, log_probs), self._ref)

    @torch.no_grad()
    def _refuse_another_start(self, places: list[int]) -> None:
        """Raises RuntimeError where the policy is not the reference: the loss would not start at log 2."""
        ref = self._ref[self.examples.numbers(places)]
        off = (self._log_probs(places) - ref).abs() / (1 + ref.abs())
        if not off.max() < 1e-3:
            raise RuntimeError(
                f"before the first step an answer's log-prob is off by {off.max():.2%} from the reference's: "
                "something in the model is random (dropout must be off) or was changed meanwhile"
            )

    @torch.no_grad()
    def _look(self, step: int, batch: int) -> None:
        now = self._ref.clone()  # at the start; only roundings would differ
        for at in range(0, len(self.held) if step else 0, batch):
            some = self.held[at : at + batch]
            now[self.examples.numbers(some)] = self._log_probs(some)
        loss = self.examples.loss(self.held, now, self._ref).item()
        row = {"step": step, "loss": loss}
        row |= {"train_loss": float(np.mean(self._losses)) if self._losses else None}
        row |= self.examples.metrics(self.held, now, self._ref) | self._sampled()
        self._losses = []
        self._without_gain = 0 if self.training.keep(step, loss) else self._without_gain + 1
        accuracy = row["rewards/accuracies"]
        self.training.bar.set_postfix_str(f"held out: loss {loss:.3f}, accuracy {accuracy:.0%}")
        self.training.record(row)

    def _sampled(self) -> dict[str, float]:
        prompts = [self.examples.prompts[place] for place in self.held[:SAMPLED]]
        answers = self.policy.write(prompts, 2, seed=0)
        now = self.policy.log_probs(prompts, answers)
        with self.policy.reference():
            before = self.policy.log_probs(prompts, answers)
        length = np.mean([len(ids) for several in answers for ids in several])
        return {"kl": (now - before).mean().item(), "length": float(length)}
