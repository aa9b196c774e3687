"""A generator's model while it learns: what of it is trained, what it was before, and what it writes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy

import torch
from torch import Tensor

from ragkit.generation.generator import Generator
from ragkit.generation.llama import fast_dtype
from ragkit.losses.log_probs import answers_log_probs

Answers = Sequence[Sequence[Sequence[int]]]  # token ids: of each prompt the answers
LARGE = 30_000_000  # parameters; from here on, products in bfloat16 save more than casting costs


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
        self._cuda = [self.device] if self.device.type == "cuda" else []
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
            config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=layers)
            with self._random(seed):
                self.model = get_peft_model(self.model, config).eval()
        large = sum(weight.numel() for weight in self.model.parameters()) >= LARGE
        self._low = large and self.device.type == "cpu" and fast_dtype() == torch.bfloat16
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
        with torch.autocast("cpu", torch.bfloat16) if self._low else nullcontext():
            return answers_log_probs(self.model, prompts, answers)

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
        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        ends = set(self.model.generation_config.eos_token_id or [])
        with self._random(seed):
            out = self.model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=max_new_tokens,
                do_sample=True,
                temperature=temperature,
                top_k=0,
                num_return_sequences=count,
                pad_token_id=self.generator.tokenizer.pad_token_id or 0,
            )
        written = []
        for row in out[:, width:].tolist():
            end = next((place for place, token in enumerate(row) if token in ends), len(row) - 1)
            written.append(row[: end + 1])
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

    @contextmanager
    def _random(self, seed: int) -> Iterator[None]:
        with torch.random.fork_rng(devices=self._cuda):
            torch.manual_seed(seed)
            yield
