"""Prompts that a model has read, as rows of one batch to which tokens are added."""

from copy import copy, deepcopy

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ragkit.generation.llama import common_start


class Rows:
    """Prompts read as one batch, a common beginning once; then tokens are added to all of them."""

    @torch.no_grad()
    def __init__(self, model, prompts: list[list[int]]):
        self._model, self._given, device = model, {}, model.device
        if model.config.is_encoder_decoder:
            ids, mask = padded(prompts, device, "right")
            states = model.get_encoder()(input_ids=ids, attention_mask=mask)
            self._given = {"encoder_outputs": states, "attention_mask": mask}
            self._cache, self._mask = None, None
            start = torch.full((len(prompts), 1), model.config.decoder_start_token_id, device=device)
            self.feed(start)
            return
        common = min(min(common_start(prompts[0], prompt), len(prompt) - 1) for prompt in prompts)
        self._cache = None
        self._mask = torch.ones(1 if common else len(prompts), 0, dtype=torch.long, device=device)
        if common:
            self.feed(torch.tensor([prompts[0][:common]], device=device), keep=1)
            self.select([0] * len(prompts))
        self.feed(*padded([prompt[common:] for prompt in prompts], device), keep=1)

    def __len__(self) -> int:
        return len(self.logits)

    def copy(self) -> "Rows":
        other = copy(self)
        other._cache = deepcopy(self._cache)  # what is read is added in place
        return other

    def select(self, rows: list[int]) -> None:
        """Go on with these rows, in this order, some of them several times."""
        index = torch.tensor(rows, device=self._model.device)
        self._cache.reorder_cache(index)
        self.logits = self.logits[index]
        if self._mask is None:
            states = type(self._given["encoder_outputs"])(self._given["encoder_outputs"][0][index])
            self._given = {"encoder_outputs": states, "attention_mask": self._given["attention_mask"][index]}
        else:
            self._mask = self._mask[index]

    @torch.no_grad()
    def feed(self, ids: Tensor, mask: Tensor | None = None, *, keep: int = 0) -> Tensor:
        """(rows, n, V): logits after each of n more tokens, (rows, n); the last of them stay in `logits`.

        `keep`: of a causal model, only so many of them, the last.
        """
        ids = ids.to(self._model.device)
        given = {"past_key_values": self._cache, "use_cache": True}
        if self._mask is None:
            out = self._model(decoder_input_ids=ids, **self._given, **given)
        else:
            self._mask = torch.cat([self._mask, torch.ones_like(ids) if mask is None else mask], 1)
            places = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            given |= {"attention_mask": self._mask, "position_ids": places, "logits_to_keep": keep}
            out = self._model(input_ids=ids, **given)
        self._cache, logits = out.past_key_values, out.logits.float()
        self.logits = logits[:, -1]
        return logits

    def log_probs(self, answer: list[int]) -> Tensor:
        """(rows, T); the rows stay as they are."""
        ids = torch.tensor(answer, device=self._model.device)
        logits = self.logits[:, None]
        if len(answer) > 1:
            more = self.copy().feed(ids[None, :-1].expand(len(self), -1))
            logits = torch.cat([logits, more], 1)
        return logits.log_softmax(-1)[:, range(len(answer)), ids]


def padded(rows: list[list[int]], device, side: str = "left") -> tuple[Tensor, Tensor]:
    """(ids, mask), (rows, longest). An encoder counts its positions from the left, padding or not."""
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_side=side)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], True, padding_side=side)
    return ids.to(device), mask.to(device)
