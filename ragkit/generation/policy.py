"""A generator's model while it learns: what of it is trained, what it was before, and what it writes."""

import json
from collections.abc import Callable, Sequence

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ragkit.generation.generator import Generator
from ragkit.generation.reader import ADAPTER, CONFIG, SETTINGS
from ragkit.losses.log_probs import answers_log_probs

Answers = Sequence[Sequence[Sequence[int]]]  # token ids: of each prompt the answers


class Policy:
    """π_θ and, before the first step, π_ref: a generator's model, which itself stays as it is.

    `rank`: that of low-rank adapters (LoRA, arXiv 2106.09685, by peft) on all linear layers but the last, or
    None to train all weights. Dropout is off throughout: with it, policy and reference would differ from the
    start.
    """

    def __init__(self, generator: Generator, rank: int | None = 8):
        self.generator, self.rank, self.device = generator, rank, generator.device
        self.model = generator.new_model().float().eval()
        for weight in self.model.parameters():
            weight.requires_grad_(rank is None)
        if rank is not None:
            from peft import LoraConfig, get_peft_model

            # smollm2-reader is an adapter already: the new one goes where that is, and becomes a part of it.
            layers = self._config()["layers_to_transform"] if generator.reader else None
            config = LoraConfig(
                r=rank,
                lora_alpha=2 * rank,
                lora_dropout=0.0,
                target_modules="all-linear",
                layers_to_transform=layers,
            )
            self.model = get_peft_model(self.model, config).eval()

    def trained(self) -> list[torch.nn.Parameter]:
        return [weight for weight in self.model.parameters() if weight.requires_grad]

    def snapshot(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.trained()]

    @torch.no_grad()
    def restore(self, weights: list[Tensor]) -> None:
        for now, then in zip(self.trained(), weights, strict=True):
            now.copy_(then)

    def log_probs(self, prompts: Sequence[Sequence[int]], answers: Answers) -> Tensor:
        """log π_θ(y|x), (N,), of all answers to all prompts: see `answers_log_probs`."""
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
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
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
        model = self.model
        if self.rank is not None:
            from copy import deepcopy

            model = deepcopy(model).merge_and_unload()
        return self.generator.with_model(model)

    def _config(self) -> dict:
        return json.loads((self.generator.folder / CONFIG).read_text(encoding="utf-8"))
