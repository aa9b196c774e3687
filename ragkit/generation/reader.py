"""smollm2-reader: one reading of the numbered sentences, then a citation, then what is said of it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ragkit.generation.llama import Llama, inference_dtype
from ragkit.generation.prompt import Evidence, Prompt
from ragkit.generation.reader_format import Format
from ragkit.generation.support import supported

SETTINGS, ADAPTER, CONFIG = "reader.json", "adapter_model.safetensors", "adapter_config.json"
MOST_CLAIMS = 3


@dataclass(frozen=True)
class Claim:
    """One thing said, and the sentence that it cites (0-based).

    `replaced`: the model wrote something that this sentence does not support, so it is quoted instead.
    """

    text: str
    sentence: int
    replaced: bool = False


def is_reader(folder: Path) -> bool:
    return (folder / SETTINGS).is_file()


def load_reader(base: Path, folder: Path, device):
    """(model, tokenizer, settings): the model in `base` with the adapter in `folder` added to its weights."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, dtype=inference_dtype(device))
    adapter = load_file(folder / ADAPTER)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, a in adapter.items():
            if name.endswith("lora_A.weight"):
                b = adapter[name.replace("lora_A", "lora_B")]
                weight = weights[name.removeprefix("base_model.model.").replace("lora_A.", "")]
                update = config["lora_alpha"] / config["r"] * (b.float() @ a.float())
                weight.copy_(weight.float() + update)
    return model, tokenizer, settings


class Reader:
    """Reads a prompt once and answers from it in any of the three styles."""

    def __init__(self, model, tokenizer):
        self.format, self.llama = Format(tokenizer), Llama(model)
        self.tokenizer = tokenizer
        self.digits = [self.format.ids(str(number))[0] for number in range(10)]
        self.end, self.more = self.format.ids("<|im_end|>")[0], self.format.ids("\n")[0]

    def prompt(self, query: str, evidence: list[Evidence], style: str) -> Prompt:
        ids, _ = self.format.evidence_ids(query, [piece.text for piece in evidence])
        ids += self.format.style_ids(style)
        return Prompt(ids, self.tokenizer.decode(ids), query, evidence, style)

    def citation_log_probs(self, prompt: Prompt) -> np.ndarray:
        """log p_θ of each sentence's number, last that of none, (n + 1,); normalised over these."""
        return self._cited(self.llama.read(prompt.ids).logits, len(prompt.evidence))

    def _cited(self, logits, size: int) -> np.ndarray:
        numbers = [*self.digits[1 : size + 1], self.digits[0]]
        return logits[numbers].float().log_softmax(-1).cpu().numpy()

    def claims(
        self, prompt: Prompt, choose: Callable[[np.ndarray], int | None], pick: Callable, room: int
    ) -> Iterator[Claim]:
        """What is said, one claim for each sentence that is cited; none where `choose` finds none.

        `choose` gets the log-probabilities of the citation and gives a position, or None; `pick` gets logits,
        (V,), and gives a token. At most `room` tokens are written.
        """
        state, cited_before = self.llama.read(prompt.ids), []
        while len(cited_before) < MOST_CLAIMS:
            scores = self._cited(state.logits, len(prompt.evidence))
            scores[cited_before] = -np.inf
            chosen = choose(scores)
            if chosen is None:
                break
            cited = prompt.evidence[chosen].text
            state.read([self.digits[chosen + 1], *self.format.ids("]")])
            text = ""
            if prompt.style != "sentence":
                ids = self._written(state, prompt, cited, pick, room)
                room -= len(ids)
                text = self.tokenizer.decode(ids).strip(" \ufffd")
            replaced = prompt.style == "free" and not (text and supported(text, cited, prompt.query))
            if replaced or prompt.style == "sentence":
                text = cited
            cited_before.append(chosen)
            yield Claim(text, chosen, replaced)
            if prompt.style == "phrase" or room < 8:
                break
            if prompt.style == "sentence":
                state.read(self.format.text_ids(cited))
            if int(state.logits.argmax()) != self.more:
                break
            state.read(self.format.ids("\n["))

    def _written(self, state, prompt: Prompt, cited: str, pick: Callable, room: int) -> list[int]:
        """Tokens up to the end or the next claim; of a phrase, only such as continue what is cited."""
        allowed = quotable(self.format, cited, self.end) if prompt.style == "phrase" else None
        ids: list[int] = []
        while len(ids) < room:
            logits = state.logits
            if allowed is not None:
                after = allowed(ids)
                kept = torch.full_like(logits, -torch.inf)
                kept[after] = logits[after]
                logits = kept
            token = pick(logits)
            if token in (self.end, self.more):
                break
            ids.append(token)
            state.read([token])
        return ids


def quotable(form: Format, text: str, end: int) -> Callable[[list[int]], list[int]]:
    """What may follow the tokens written so far, so that they stay a part of `text`, of whole words.

    A word has other tokens after a space than after a bracket; a quote always begins after a space. So what
    follows each place where a word begins is encoded for itself.
    """
    inside = lambda at: 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()  # noqa: E731
    spans = [form.text_ids(text[at:]) for at, c in enumerate(text) if not (c.isspace() or inside(at))]

    def after(written: list[int]) -> list[int]:
        size = len(written)
        live = [span for span in spans if span[:size] == written]
        found = {span[size] for span in live if len(span) > size}
        if written and any(len(s) == size or not form.tokenizer.decode(s[size])[0].isalnum() for s in live):
            found.add(end)
        return sorted(found)

    return after
