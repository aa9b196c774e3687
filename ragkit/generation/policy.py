"""A generator's model while it learns: what of it is trained, what it was before, and what it writes."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor

from ragkit.generation.decoding import sampled
from ragkit.generation.generator import Generator
from ragkit.generation.rows import Rows
from ragkit.losses.log_probs import answers_log_probs

Answers = Sequence[Sequence[Sequence[int]]]  # token ids: of each prompt the answers


class Policy:
    """π_θ, which starts as π_ref: a copy of a generator's model. The generator itself stays as it is.

    `rank`: that of low-rank adapters (LoRA, arXiv 2106.09685, by peft) on all linear layers but the last, or
    None to train all weights; of a reader, on the layers of its own adapter. Dropout is off throughout: with
    it, policy and reference would differ from the start. The caller's random state is left as it was.
    Raises ValueError for a rank below 1, and for all weights of a reader, which is saved as an adapter.
    """

    def __init__(self, generator: Generator, rank: int | None = 8, *, seed: int = 0):
        if rank is None and generator.reader:
            raise ValueError(f"rank=None: {generator.name} is an adapter, and is tuned by one; give a rank")
        if rank is not None and rank < 1:
            raise ValueError(f"rank={rank}: at least 1, or None to train all weights")
        self.generator, self.rank, self.device = generator, rank, generator.device
        self.model = generator.new_model().float().eval()
        for weight in self.model.parameters():
            weight.requires_grad_(rank is None)
        if rank is not None:
            from peft import LoraConfig, get_peft_model

            layers = "all-linear"
            if generator.reader:  # an adapter already: the new one goes where that is, and is added to it
                layers = sorted(
                    {name.split(".lora_")[0].split(".", 2)[2] for name in generator.adapter.weights}
                )
            cuda = [self.device] if self.device.type == "cuda" else []
            config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=layers)
            with torch.random.fork_rng(devices=cuda), warnings.catch_warnings():
                # peft asks transformers by a name that is going to change.
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
                torch.manual_seed(seed)
                self.model = get_peft_model(self.model, config).eval()
        self._start = self.snapshot() if rank is None else None

    def trained(self) -> list[torch.nn.Parameter]:
        return [weight for weight in self.model.parameters() if weight.requires_grad]

    def snapshot(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.trained()]

    @torch.no_grad()
    def restore(self, weights: list[Tensor]) -> None:
        for now, then in zip(self.trained(), weights, strict=True):
            now.copy_(then)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the model is π_ref."""
        if self.rank is not None:
            with self.model.disable_adapter():
                yield
            return
        now = self.snapshot()
        self.restore(self._start)
        try:
            yield
        finally:
            self.restore(now)

    def log_probs(self, prompts: Sequence[Sequence[int]], answers: Answers) -> Tensor:
        """log π_θ(y|x), (N,), of all answers to all prompts: see `answers_log_probs`."""
        return answers_log_probs(self.model, prompts, answers)[0]

    def token_log_probs(self, prompts: Sequence[Sequence[int]], answers: Answers) -> Tensor:
        """The terms of `log_probs`, (N, T), 0 where an answer is over."""
        return answers_log_probs(self.model, prompts, answers)[1]

    @torch.no_grad()
    def write(
        self,
        prompts: Sequence[Sequence[int]],
        count: int,
        *,
        seed: int,
        temperature: float = 1.0,
        max_new_tokens: int = 48,
    ) -> list[list[list[int]]]:
        """`count` answers sampled to each prompt, as token ids, EOS included unless the limit came first."""
        order = [number for number in range(len(prompts)) for _ in range(count)]
        rows, draw = Rows(self.model, prompts), sampled(seed, temperature)
        rows.select(order)
        ends = set(self.model.generation_config.eos_token_id or [])
        written, alive = [[] for _ in order], [*range(len(order))]
        for step in range(max_new_tokens):
            tokens = draw(None, rows.logits).argmax(-1).tolist()
            for row, token in zip(alive, tokens):
                written[row].append(token)
            going_on = [place for place, token in enumerate(tokens) if token not in ends]
            if not going_on or step + 1 == max_new_tokens:
                break
            alive = [alive[place] for place in going_on]
            rows.select(going_on)
            rows.feed(torch.tensor([[tokens[place]] for place in going_on]))
        return [written[at : at + count] for at in range(0, len(written), count)]

    def tuned(self) -> Generator:
        """A generator with the weights as they are now."""
        generator = self.generator
        if generator.reader:
            from peft import get_peft_model_state_dict

            (config,) = self.model.peft_config.values()
            more = get_peft_model_state_dict(self.model)
            return generator.with_adapter(generator.adapter.with_more(more, config.lora_alpha / config.r))
        model = deepcopy(self.model)
        return generator.with_model(model if self.rank is None else model.merge_and_unload())
