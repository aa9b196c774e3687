"""Group Relative Policy Optimization on line: the generator writes, a reward judges, and what is better than
the other answers to its question becomes likelier.

tuned = tune_online(generator, [(query, hits), …], length_reward(12))
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ragkit.generation.answer_groups import GroupObjective, Groups
from ragkit.generation.generator import Generator
from ragkit.generation.judged_answers import written_text
from ragkit.generation.policy import Policy
from ragkit.generation.prompt import Prompt
from ragkit.generation.rewards import Reward
from ragkit.generation.training_run import LOOKS, RATES, TrainingRun, Tuned, held_out_queries
from ragkit.retrieval.corpus import Hit

CLIPS = {"token": (0.2, 0.2), "sequence": (3e-4, 4e-4)}  # the latter: arXiv 2507.18071, section 5.1
HELD_OUT_ANSWERS = 4  # to each question, at a look


def tune_online(
    generator: Generator,
    questions: Sequence[tuple[str, list[Hit]]],
    rewards: Reward | Mapping[str, Reward],
    *,
    weights: Mapping[str, float] | None = None,
    group: int = 8,
    steps: int = 50,
    batch: int = 4,
    inner_epochs: int = 2,
    kl: float = 0.04,
    clip: tuple[float, float] | None = None,
    ratio: str = "token",
    scale: str = "population",
    aggregation: str = "grpo",
    mask_truncated: bool = False,
    max_new_tokens: int = 48,
    rank: int | None = 8,
    learning_rate: float | None = None,
    held_out: float = 0.2,
    looks: int = LOOKS,
    style: str = "sentence",
    seed: int = 0,
    on_log: Callable[[dict], None] | None = None,
    progress: bool = True,
) -> Tuned:
    """Train a copy of `generator` on what a reward says of its own answers (arXiv 2402.03300).

    A step samples `group` answers to each of `batch` questions (query, hits), at temperature 1, rewards them
    and takes `inner_epochs` steps of the optimiser on `group_relative_loss`, for which see `kl`, `clip`
    (default: `CLIPS`), `ratio` and `aggregation`; "dr_grpo" divides by `max_new_tokens`. `scale`: see
    `group_advantages`. `mask_truncated`: answers that `max_new_tokens` cut off count in their group, and move
    nothing themselves (overlong filtering, arXiv 2503.14476). `rank`: see `Policy`.

    `rewards`: a function (query, text, hits) → a number, more is better, or several by name, which are added,
    times `weights` (default 1). None from any of them leaves the answer out, and a warning at the end counts
    them; a group with fewer than two answers left is skipped.

    `Tuned.log` has a dict for each step, which `on_log` gets at once: "step", "seconds", and of the answers
    sampled in it "reward" (with several, "reward/<name>" too), "spread" (the standard deviation within a
    group), "without_spread" (the share of such groups), "kl" (the mean log π_θ/π_ref of an answer, nats),
    "length" (tokens), "truncated" (share), "clipped" (the share of tokens that the last inner epoch clips).
    Step 0 and `looks` others look at a share `held_out` of the queries too, as "held_out/reward" and so
    on; the weights with the largest such reward are kept. An interrupt ends the run, with a warning.

    Under `accelerate launch` the main process samples and rewards for all, so that draws and what a reward
    remembers are those of one process; what is divided, by whole questions, are the passes over the answers,
    forward and back (see `losses/data_parallel.py`).

    Raises ValueError for bad settings, for a reward that is not finite, and where no answer is judged;
    FloatingPointError as `tune` does. An error of a reward's own ends the run, too: `tuned` of the exception
    has the best weights so far.
    """
    rewards = dict(rewards) if isinstance(rewards, Mapping) else {"reward": rewards}
    weights = dict.fromkeys(rewards, 1.0) | dict(weights or {})
    if unknown := [name for name in weights if name not in rewards]:
        raise ValueError(f"weights: {unknown[0]!r} is none of the rewards, {', '.join(rewards)}")
    counts = {"group": group, "steps": steps, "batch": batch, "inner_epochs": inner_epochs}
    for name, value in (counts | {"max_new_tokens": max_new_tokens}).items():
        if value < (least := 2 if name == "group" else 1):
            raise ValueError(f"{name}={value}: at least {least}")
    if learning_rate is not None and not learning_rate > 0:
        raise ValueError(f"learning_rate={learning_rate}: more than 0")
    objective = GroupObjective(
        kl, clip or CLIPS.get(ratio), ratio, scale, aggregation, mask_truncated, max_new_tokens
    )
    asked = _asked(generator, questions, style, max_new_tokens)
    out = held_out_queries([prompt.query for prompt, _ in asked], held_out, seed)
    rate = learning_rate or RATES["all" if rank is None else "adapter"]
    training = TrainingRun(Policy(generator, rank, seed=seed), rate, steps, looks, on_log, progress)
    run = _Run(training, objective, rewards, weights, seed)
    learnt, held = ([one for one in asked if (one[0].query in out) == side] for side in (False, True))
    settings = {"weights": weights, **counts, **asdict(objective), "rank": rank, "learning_rate": rate}
    settings |= {"held_out": held_out, "style": style, "seed": seed, "generator": str(generator.name)}
    facts = [(prompt.ids, [hit.passage.text for hit in hits]) for prompt, hits in asked]
    training.group.refuse_others("questions or settings", facts, settings, looks)
    try:
        return training.run(lambda: run.train(learnt, held, **counts), settings)
    finally:
        if run.left_out:
            name, query, text = run.left_out[0]
            warnings.warn(
                f"left out: {len(run.left_out)} answers of which a reward is None: first {name!r} of "
                f"{text[:60]!r}, to {query!r}",
                stacklevel=2,
            )


def _asked(
    generator: Generator, questions: Sequence[tuple[str, list[Hit]]], style: str, max_new_tokens: int
) -> list[tuple[Prompt, list[Hit]]]:
    """Each question as the generator reads it, and its hits; those without evidence are left out."""
    asked = [
        (generator.prompt(query, hits, style=style, max_new_tokens=max_new_tokens), hits)
        for query, hits in questions
    ]
    if unread := [prompt.query for prompt, _ in asked if not prompt.evidence]:
        warnings.warn(
            f"left out: {len(unread)} questions whose hits hold no evidence for them: {unread[0]!r} …",
            stacklevel=3,
        )
    return [(prompt, hits) for prompt, hits in asked if prompt.evidence]


class _Run:
    def __init__(
        self,
        training: TrainingRun,
        objective: GroupObjective,
        rewards: Mapping[str, Reward],
        weights: Mapping[str, float],
        seed: int,
    ):
        self.training, self.policy, self.objective = training, training.policy, objective
        self.rewards, self.weights, self.seed = rewards, weights, seed
        self.left_out: list[tuple[str, str, str]] = []  # name of the reward, query, text

    def train(
        self, learnt: list, held: list, *, group: int, steps: int, batch: int, inner_epochs: int
    ) -> None:
        random, turn = np.random.default_rng(self.seed), []
        self.training.record({"step": 0} | self._look(0, held))
        for step in range(1, steps + 1):
            while len(turn) < batch:
                turn += random.permutation(len(learnt)).tolist()
            some, turn = [learnt[place] for place in turn[:batch]], turn[batch:]
            groups = self._sample(some, group, int(random.integers(2**31)), least=2)
            row = {"step": step}
            if groups.prompts:
                ref, old = self._reference(groups), None
                for _ in range(inner_epochs):
                    now = self._log_probs(groups)
                    self.training.refuse_unless_finite(step, sum_of_log_probs=now.detach())
                    old = now.detach() if old is None else old  # nothing has moved before the first
                    self.training.step(step, self.objective.loss(groups, now, old, ref))
                row |= groups.facts(old - ref, [*self.rewards])
                row["clipped"] = self.objective.clipped(groups, now, old)
            self.training.bar.update()
            if step in self.training.looks:
                row |= self._look(step, held)
            self.training.record(row)

    def _look(self, step: int, held: list) -> dict[str, float]:
        groups = self._sample(held, HELD_OUT_ANSWERS, self.seed)
        if not groups.prompts and step:
            return {}
        if not groups.prompts:
            raise ValueError("of all answers to the held-out questions a reward is None: nothing to go by")
        with torch.no_grad():
            now = self._log_probs(groups)
        found = groups.facts(now - self._reference(groups), [*self.rewards])
        self.training.keep(step, -found["reward"])
        self.training.bar.set_postfix_str(f"held out: reward {found['reward']:.3f}, KL {found['kl']:.2f}")
        return {f"held_out/{name}": value for name, value in found.items()}

    @torch.no_grad()
    def _reference(self, groups: Groups) -> Tensor:
        """Log-probs of each token, (N, T), under the reference."""
        with self.policy.reference():
            return self._log_probs(groups)

    def _log_probs(self, groups: Groups) -> Tensor:
        """Of each token, (N, T), of which each process reads some groups."""
        sizes = [len(answers) for answers in groups.answers]
        costs = [len(ids) + sum(map(len, several)) for ids, several in zip(groups.prompts, groups.answers)]
        own, longest = self.training.group.share(costs), int(groups.lengths.max())
        part = torch.zeros(0, longest)
        if own:
            chosen = [groups.prompts[n] for n in own], [groups.answers[n] for n in own]
            part = self.policy.token_log_probs(*chosen).cpu()
            part = pad(part, (0, longest - part.shape[1]))
        starts = np.cumsum([0, *sizes])
        rows = [row for n in own for row in range(starts[n], starts[n + 1])]
        return self.training.group.whole(part, rows, sum(sizes))

    def _sample(self, some: list, count: int, seed: int, least: int = 1) -> Groups:
        """`count` answers to each question; groups with fewer than `least` that have a reward are skipped."""
        ends, groups = self.policy.model.generation_config.eos_token_id or [], Groups()
        for (prompt, _), (tokens, rewards) in zip(some, self._written(some, count, seed)):
            answers = [ids[ids >= 0].tolist() for ids in tokens]
            kept = [place for place, reward in enumerate(rewards) if not reward.isnan().any()]
            if len(kept) >= least:
                groups.prompts.append(prompt.ids)
                groups.answers.append([answers[place] for place in kept])
                groups.rewards.append(rewards[kept])
                groups.truncated += [answers[place][-1] not in ends for place in kept]
        return groups

    def _written(self, some: list, count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For each question, by the main process: tokens of its answers, (count, longest), −1 where one is
        over; and their rewards, (count, names), NaN where one is left out."""
        generator, most, group = self.policy.generator, self.objective.max_new_tokens, self.training.group
        tokens = torch.full((len(some), count, most), -1)
        rewards = torch.full((len(some), count, len(self.rewards)), torch.nan, dtype=torch.float64)
        if group.main:
            written = self.policy.write([p.ids for p, _ in some], count, seed=seed, max_new_tokens=most)
            for n, (prompt, hits) in enumerate(some):
                for place, ids in enumerate(written[n]):
                    tokens[n, place, : len(ids)] = torch.tensor(ids)
                    found = self._reward(prompt.query, written_text(generator, prompt, ids), hits)
                    if found is not None:
                        rewards[n, place] = torch.tensor(found, dtype=torch.float64)
        return zip(group.from_main(tokens), group.from_main(rewards))

    def _reward(self, query: str, text: str, hits: list[Hit]) -> list[float] | None:
        found = []
        for name, reward in self.rewards.items():
            value = reward(query, text, hits)
            if value is None:
                self.left_out.append((name, query, text))
                return None
            if not np.isfinite(value):
                raise ValueError(f"reward {name!r} is {value} for {text[:60]!r}, an answer to {query!r}")
            found.append(self.weights[name] * float(value))
        return found
