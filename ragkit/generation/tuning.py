"""Tune a generator on what people prefer: the losses that order documents also change how a model writes.

tuned = tune(generator, log.comparisons())
tuned.generator.answer(query, hits)
tuned.save("my-generator")
"""

import math
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ragkit.generation.answer_loss import AnswerLoss, Examples
from ragkit.generation.generator import Generator
from ragkit.generation.judged_answers import Hits, judged_answers
from ragkit.generation.policy import Policy
from ragkit.generation.saving import save_generator
from ragkit.losses.strengths import Strength
from ragkit.preferences.judgements import Comparison, Feedback, Ranking
from ragkit.preferences.pairs import Pairs

LOOKS, PATIENCE = 10, 3  # looks at what is held out; so many without a gain end the run
SAMPLED = 4  # held-out prompts to which two answers each are written at a look
RATES = {"adapter": 1e-3, "all": 1e-4}


@dataclass
class Tuned:
    """`generator`: the tuned one. `log`: one dict for each look at the held-out answers, see `tune`.

    `settings`: what it was tuned with. `kept_base`: nothing was better on what was held out than the model as
    it was, so `generator` is the one that was given. `interrupted`: stopped by hand.
    """

    generator: Generator
    log: list[dict]
    settings: dict
    kept_base: bool
    interrupted: bool = False

    def save(self, folder: str | Path) -> None:
        """Write a folder that `Generator(folder)` loads, settings and log in it: see `save_generator`."""
        facts = {"settings": self.settings, "kept_base": self.kept_base, "log": self.log}
        save_generator(self.generator, folder, facts)


def tune(
    generator: Generator,
    judgements: Iterable[Comparison | Ranking | Feedback] | Pairs,
    *,
    loss: str = "grpo",
    strength: Strength | str = "stated",
    beta: float = 0.1,
    offset: float = 0.0,
    normalise: bool = False,
    reference: bool = True,
    supervised: float = 0.0,
    rank: int | None = 8,
    epochs: int = 3,
    batch: int = 4,
    learning_rate: float | None = None,
    held_out: float = 0.2,
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

    Before the first step and at ten points of the run those are looked at: "loss", the names of
    `preference_metrics`, and of a few sampled answers "kl" to the reference (the mean log π_θ/π_ref of an
    answer, nats) and "length" (tokens); with "step", "seconds" and "train_loss" (mean since the last look) a
    dict in `Tuned.log`, which `on_log` gets at once. The run ends when three looks in a row bring no smaller
    held-out loss. An interrupt (Ctrl-C, a notebook's stop button) ends it too, with a warning; the best
    weights so far are kept.

    Raises ValueError for bad settings and where nothing was judged; RuntimeError where the policy does not
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
    run = _Run(Policy(generator, rank, seed=seed), examples, held, on_log)
    rate = learning_rate or RATES["all" if rank is None else "adapter"]
    settings = {name: value for name, value in asdict(objective).items() if name != "strength"}
    if loss == "grpo":
        settings["strength"] = strength if isinstance(strength, str) else strength.__qualname__.split(".")[0]
    settings |= {"rank": rank, "epochs": epochs, "batch": batch, "learning_rate": rate, "held_out": held_out}
    settings |= {"style": style, "cite": cite, "seed": seed, "generator": str(generator.name)}
    broken, interrupted = None, False
    try:
        run.train(train, rate, epochs, batch, seed, progress)
    except KeyboardInterrupt:
        interrupted = True
        warnings.warn("tuning was interrupted; the best weights so far are kept", stacklevel=2)
    except FloatingPointError as error:
        broken = error
    tuned = Tuned(run.best(), run.log, settings, run.best_step == 0, interrupted)
    if broken:
        broken.tuned = tuned
        raise broken
    return tuned


class _Run:
    """One run of training: its policy, what is looked at meanwhile, and the best weights so far."""

    def __init__(self, policy: Policy, examples: Examples, held: list[int], on_log: Callable | None):
        self.policy, self.examples, self.held, self.on_log = policy, examples, held, on_log
        self.log: list[dict] = []
        self.best_step, self._least, self._best, self._without_gain = 0, math.inf, None, 0
        self._ref = torch.zeros(len(examples.lengths))
        self._losses: list[float] = []
        self._began = time.monotonic()

    def best(self) -> Generator:
        if self.best_step == 0:
            return self.policy.generator
        self.policy.restore(self._best)
        return self.policy.tuned()

    def train(
        self, places: list[int], rate: float, epochs: int, batch: int, seed: int, progress: bool
    ) -> None:
        random, policy = np.random.default_rng(seed), self.policy
        batches = [
            order[at : at + batch].tolist()
            for order in (random.permutation(places) for _ in range(epochs))
            for at in range(0, len(places), batch)
        ]
        looks = {*np.linspace(0, len(batches), LOOKS + 1).round().astype(int).tolist()}
        warm_up = max(1, len(batches) // 10)
        bar = tqdm(total=len(batches), disable=not progress, desc="tuning", unit="step", leave=False)
        with bar:
            with torch.no_grad():
                for at in range(0, len(places + self.held), batch):
                    some = (places + self.held)[at : at + batch]
                    self._ref[self.examples.numbers(some)] = self._log_probs(some)
            self._refuse_another_start(batches[0])
            self._look(0, batch, bar)
            optimiser = torch.optim.AdamW(policy.trained(), rate, weight_decay=0.0)
            for step, some in enumerate(batches, 1):
                for group in optimiser.param_groups:
                    group["lr"] = rate * min(1.0, step / warm_up)
                loss = self._loss(some, self._log_probs(some))
                optimiser.zero_grad()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(policy.trained(), 1.0)
                if not (loss.isfinite() and norm.isfinite()):
                    raise FloatingPointError(
                        f"step {step}: the loss is {loss:g}, the norm of its gradient {norm:g}; lower "
                        f"learning_rate ({rate:g}). The best weights before are in this error's `tuned`"
                    )
                optimiser.step()
                self._losses.append(loss.item())
                bar.update()
                if step in looks:
                    self._look(step, batch, bar)
                    if self._without_gain >= PATIENCE:
                        return

    def _log_probs(self, places: list[int]) -> Tensor:
        x = self.examples
        return self.policy.log_probs([x.prompts[p] for p in places], [x.answers[p] for p in places]).cpu()

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
    def _look(self, step: int, batch: int, bar) -> None:
        now = self._ref.clone()  # at the start; only roundings would differ
        for at in range(0, len(self.held) if step else 0, batch):
            some = self.held[at : at + batch]
            now[self.examples.numbers(some)] = self._log_probs(some)
        loss = self.examples.loss(self.held, now, self._ref).item()
        row = {"step": step, "seconds": time.monotonic() - self._began, "loss": loss}
        row |= {"train_loss": float(np.mean(self._losses)) if self._losses else None}
        row |= self.examples.metrics(self.held, now, self._ref) | self._sampled()
        self._losses = []
        if loss < self._least:
            self.best_step, self._least, self._best = step, loss, self.policy.snapshot()
            self._without_gain = 0
        else:
            self._without_gain += 1
        self.log.append(row)
        bar.set_postfix_str(f"held out: loss {loss:.3f}, accuracy {row['rewards/accuracies']:.0%}")
        if self.on_log:
            self.on_log(row)

    def _sampled(self) -> dict[str, float]:
        prompts = [self.examples.prompts[place] for place in self.held[:SAMPLED]]
        answers = self.policy.write(prompts, 2, seed=0)
        now = self.policy.log_probs(prompts, answers)
        with self.policy.reference():
            before = self.policy.log_probs(prompts, answers)
        length = np.mean([len(ids) for several in answers for ids in several])
        return {"kl": (now - before).mean().item(), "length": float(length)}
