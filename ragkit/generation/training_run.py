"""A run of training: steps of the optimiser, what is logged meanwhile, and the best weights so far."""

import math
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ragkit.generation.generator import Generator
from ragkit.generation.policy import Policy
from ragkit.generation.saving import save_generator
from ragkit.losses.data_parallel import is_main, processes

LOOKS = 10  # at what is held out, in a run
RATES = {"adapter": 1e-3, "all": 1e-4}


@dataclass
class Tuned:
    """`generator`: the tuned one. `log`: one dict for each step or look, see `tune` and `tune_online`.

    `settings`: what it was tuned with. `kept_base`: nothing was better on what was held out than the model as
    it was, so `generator` is the one that was given. `interrupted`: stopped by hand.
    """

    generator: Generator
    log: list[dict]
    settings: dict
    kept_base: bool
    interrupted: bool = False

    def save(self, folder: str | Path) -> None:
        """Write a folder that `Generator(folder)` loads, settings and log in it: see `save_generator`.

        Of several processes the main one writes, and none waits for it.
        """
        if not is_main():
            return
        facts = {"settings": self.settings, "kept_base": self.kept_base, "log": self.log}
        save_generator(self.generator, folder, facts)


class TrainingRun:
    """`steps` of AdamW on what a policy trains, at `rate`, which the first tenth of them rises to.

    Of several processes (`group`) all start at the main one's weights and take the same steps; the main one
    shows progress and calls `on_log`.
    """

    def __init__(
        self,
        policy: Policy,
        rate: float,
        steps: int,
        looks: int,
        on_log: Callable[[dict], None] | None,
        progress: bool,
    ):
        if looks < 1:
            raise ValueError(f"looks={looks}: at least 1, or nothing says which weights are best")
        self.policy, self.rate, self.group = policy, rate, processes()
        self.on_log = on_log if self.group.main else None
        self.looks = {*np.linspace(0, steps, looks + 1).round().astype(int).tolist()}
        self.log: list[dict] = []
        self._steps, self._progress = steps, progress and self.group.main
        if self.group.count > 1:
            policy.restore([self.group.from_main(weight) for weight in policy.snapshot()])
        self._optimiser = torch.optim.AdamW(policy.trained(), rate, weight_decay=0.0)
        self._warm_up = max(1, steps // 10)
        self._best_step, self._least, self._best = 0, math.inf, None
        self._began = time.monotonic()

    def step(self, number: int, loss: Tensor) -> None:
        """`loss`: of the whole batch, with a gradient in what this process has read of it, if anything.

        Raises FloatingPointError where loss or gradient is not finite; the weights stay as they were.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = self.rate * min(1.0, number / self._warm_up)
        self._optimiser.zero_grad()
        if loss.requires_grad:
            loss.backward()
        self.group.sum_gradients(self.policy.trained())
        norm = torch.nn.utils.clip_grad_norm_(self.policy.trained(), 1.0)
        self.refuse_unless_finite(number, loss=loss, norm_of_its_gradient=norm)
        self._optimiser.step()

    def refuse_unless_finite(self, number: int, **values: Tensor) -> None:
        """Raises FloatingPointError where one of these is not finite: nothing can be learned from there."""
        if not all(value.isfinite().all() for value in values.values()):
            said = ", ".join(
                f"the {name.replace('_', ' ')} is {value.sum():g}" for name, value in values.items()
            )
            raise FloatingPointError(
                f"step {number}: {said}; lower learning_rate ({self.rate:g}). The best weights before are in "
                "this error's `tuned`"
            )

    def record(self, row: dict) -> None:
        row["seconds"] = time.monotonic() - self._began
        self.log.append(row)
        if self.on_log:
            self.on_log(row)

    def keep(self, step: int, loss: float) -> bool:
        """Keep the weights of now where `loss`, of what is held out, is the least so far."""
        # Roundings differ between kinds of processors: all go by one number, and stop together.
        loss = self.group.from_main(torch.tensor(loss, dtype=torch.float64)).item()
        better = loss < self._least
        if better:
            self._best_step, self._least, self._best = step, loss, self.policy.snapshot()
        return better

    def run(self, train: Callable[[], None], settings: dict) -> Tuned:
        """What `train` came to; an interrupt ends it, with a warning. Any exception gets `tuned`."""
        broken, interrupted, generator = None, False, self.policy.generator
        try:
            bar = {"disable": not self._progress, "desc": "tuning", "unit": "step", "leave": False}
            with tqdm(total=self._steps, **bar) as self.bar, self.group.together():
                train()
        except KeyboardInterrupt:
            interrupted = True
            warnings.warn("tuning was interrupted; the best weights so far are kept", stacklevel=3)
        except Exception as error:  # a reward's too: an hour of training is not lost by one bad answer
            broken = error
        if self._best_step:
            self.policy.restore(self._best)
            generator = self.policy.tuned()
        tuned = Tuned(generator, self.log, settings, not self._best_step, interrupted)
        if broken:
            broken.tuned = tuned
            raise broken
        return tuned


def held_out_queries(queries: Iterable[str], share: float, seed: int) -> set[str]:
    """A share of the queries, drawn, at least one. Raises ValueError where that leaves a side empty."""
    queries = sorted({*queries})
    count = max(1, round(share * len(queries)))
    if not 0 < share < 1 or count >= len(queries):
        raise ValueError(f"held_out={share} of {len(queries)} queries leaves a side empty")
    return set(np.random.default_rng(seed).permutation(queries)[:count].tolist())
