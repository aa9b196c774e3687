"""smollm2-reader: one reading of the numbered sentences, then a citation, then what is said of it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from ragkit.generation.llama import KeyValueCache, Llama
from ragkit.generation.prompt import Evidence, Prompt
from ragkit.generation.reader_format import Format
from ragkit.generation.support import supported
from ragkit.retrieval.loading import without_bars

SETTINGS, ADAPTER, CONFIG = "reader.json", "adapter_model.safetensors", "adapter_config.json"
MOST_CLAIMS = 3
# Own words only where the model is sure of them: the geometric mean of its tokens' probabilities. Of 38 such
# answers that were judged, 11 of them without support, this keeps 20, one of them without.
SURE = 0.75
KEPT = 1024  # tokens: a longer prompt is read again when it is asked again. Of these are kept 47 MB.


@dataclass(frozen=True)
class Claim:
    """One thing said, and the sentence that it cites (0-based).

    `replaced`: the model wrote something that this sentence does not support, or that it was not sure of, so
    the sentence is quoted instead.
    """

    text: str
    sentence: int
    replaced: bool = False


def is_reader(folder: Path) -> bool:
    return (folder / SETTINGS).is_file()


def reader_settings(folder: Path) -> dict:
    """What the reader was trained with. Raises ValueError unless it cites sentences by one digit."""
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    if (most := settings.get("evidence_sentences")) not in range(1, 10):
        raise ValueError(f"evidence_sentences={most!r} in {SETTINGS}: from 1 to 9")
    return settings


@dataclass(frozen=True)
class Adapter:
    """Low-rank additions to the base's weights, W + lora_alpha / r · B A, with peft's names and settings."""

    config: dict
    weights: dict[str, torch.Tensor]

    @classmethod
    def read(cls, folder: Path) -> "Adapter":
        """As it was written. Raises ValueError where half of an addition is missing, or NaN in it."""
        from safetensors.torch import load_file

        weights = load_file(folder / ADAPTER)
        for name, weight in weights.items():
            if not {name.replace("lora_B", "lora_A"), name.replace("lora_A", "lora_B")} <= weights.keys():
                raise ValueError(f"{ADAPTER}: of {name!r} the other half is missing")
            if not weight.isfinite().all():
                raise ValueError(f"{ADAPTER}: {name!r} holds NaN or infinity")
        return cls(json.loads((folder / CONFIG).read_text(encoding="utf-8")), weights)

    def write(self, folder: Path) -> None:
        from safetensors.torch import save_file

        save_file(self.weights, folder / ADAPTER, {"format": "pt"})
        (folder / CONFIG).write_text(json.dumps(self.config, indent=1) + "\n", encoding="utf-8")

    @property
    def scale(self) -> float:
        return self.config["lora_alpha"] / self.config["r"]

    def with_more(self, more: Mapping[str, torch.Tensor], scale: float) -> "Adapter":
        """One that adds what this one does and scale · B A of `more`, of the same layers: ranks add up.

        Its numbers are float16.
        """
        weights = {}
        for name, old in self.weights.items():
            first = ".lora_A." in name  # A's rows stand on top of each other, B's columns side by side
            new = more[name].float() if first else more[name].float() * (scale / self.scale)
            weights[name] = torch.cat([old.float(), new.cpu()], 0 if first else 1).half()
        rank = next(len(weight) for name, weight in weights.items() if ".lora_A." in name)
        return Adapter({**self.config, "r": rank, "lora_alpha": self.scale * rank}, weights)


class Merged(Mapping):
    """The weights of the base with an adapter added, one at a time."""

    def __init__(self, base: Path, adapter: Adapter):
        from safetensors import safe_open

        # Opened for each weight: what was read of an open file stays in memory.
        self._open = lambda: safe_open(base / "model.safetensors", "pt")
        self._adapter = adapter

    def __getitem__(self, name: str):
        with self._open() as file:
            weight = file.get_tensor(name)
        part = f"base_model.model.{name.removesuffix('.weight')}"
        if (a := self._adapter.weights.get(f"{part}.lora_A.weight")) is None:
            return weight
        b = self._adapter.weights[f"{part}.lora_B.weight"]
        return (b.float() @ a.float()).mul_(self._adapter.scale).add_(weight)

    def __iter__(self):
        with self._open() as file:
            return iter(file.keys())

    def __len__(self) -> int:
        return sum(1 for _ in self)


def merged_model(base: Path, adapter: Adapter):
    """The same as transformers' own model, in float32, to look inside or to train."""
    from transformers import AutoModelForCausalLM

    with without_bars():
        model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, dtype="float32")
    model.load_state_dict(dict(Merged(base, adapter)), strict=False)  # the tied head is not among them
    return model.eval()


class Reader:
    """Reads a prompt once and answers from it in any of the three styles; on the CPU."""

    _last: tuple[list[int], torch.Tensor, KeyValueCache] | None = None  # the prompt read last, and what came

    def __init__(self, llama: Llama, tokenizer):
        self.format, self.llama, self.tokenizer = Format(tokenizer), llama, tokenizer
        self.digits = [self.format.ids(str(number))[0] for number in range(10)]
        self.end, self.more = self.format.ids("<|im_end|>")[0], self.format.ids("\n")[0]
        self._start = llama.cache()  # the instruction, read once
        llama.logits(self.format.system, self._start)

    @classmethod
    def load(cls, base: Path, adapter: Adapter) -> "Reader":
        # Not by AutoConfig and AutoTokenizer, which ask LlamaConfig: that imports what transformers' models
        # need, torch's compiler too, for two seconds.
        config = SimpleNamespace(**json.loads((base / "config.json").read_text(encoding="utf-8")))
        llama = Llama(config, Merged(base, adapter))
        # After the weights, which need no transformers: another thread may import it meanwhile.
        with without_bars():
            from transformers import PreTrainedTokenizerFast

            tokenizer = PreTrainedTokenizerFast.from_pretrained(base, local_files_only=True)
        return cls(llama, tokenizer)

    def prompt(self, query: str, evidence: list[Evidence], style: str) -> Prompt:
        ids, _ = self.format.evidence_ids(query, [piece.headed for piece in evidence])
        ids += self.format.style_ids(style)
        return Prompt(ids, self.tokenizer.decode(ids), query, evidence, style)

    def citation_ids(self, number: int) -> list[int]:
        return [self.digits[number], *self.format.ids("]")]

    def citation_log_probs(self, prompt: Prompt) -> np.ndarray:
        """log p_θ of each sentence's number, last that of none, (n + 1,); normalised over these."""
        return self._cited(self._read(prompt.ids)[0], len(prompt.evidence))

    def _read(self, ids: list[int]) -> tuple[torch.Tensor, KeyValueCache]:
        """The logits after a prompt, and a cache to go on with.

        For another draw or with another prior the same prompt is asked again: it is not read again, and what
        comes is the same to the bit.
        """
        last = self._last  # once: another thread may put its own in its place
        if not last or last[0] != ids:
            cache = self._start.copy()
            last = [*ids], self.llama.logits(ids, cache), cache
            if len(ids) > KEPT:
                return last[1:]
            self._last = last
        return last[1], last[2].copy()

    def _cited(self, logits, size: int) -> np.ndarray:
        numbers = [*self.digits[1 : size + 1], self.digits[0]]
        return logits[-1, numbers].log_softmax(-1).numpy()

    def claims(
        self,
        prompt: Prompt,
        choose: Callable[[np.ndarray], int | None],
        processors: Sequence[Callable],
        room: int,
    ) -> Iterator[Claim]:
        """What is said, one claim for each sentence that is cited; none where `choose` finds none.

        `choose` gets the log-probabilities of the citation and gives a position, or None; `processors` change
        logits as transformers' do. At most `room` tokens are written.
        """
        ids, cited_before = [*prompt.ids], []
        asked = ids
        if prompt.style == "free":
            # Whether there is an answer, and where, is asked as for a quote: of few questions with an answer
            # is one in other words known from training, so this style declines too readily by itself.
            asked = ids[: -len(self.format.style_ids("free"))] + self.format.style_ids("sentence")
        logits, cache = self._read(asked)
        while len(cited_before) < MOST_CLAIMS:
            scores = self._cited(logits, len(prompt.evidence))
            scores[cited_before] = -np.inf
            chosen = choose(scores)
            if chosen is None:
                break
            cited = prompt.evidence[chosen].text
            ids += self.citation_ids(chosen + 1)
            text, after = "", self.more
            if prompt.style != "sentence" and room > 0:
                within = (
                    [quotable(self.format, cited, self.end, len(ids))] if prompt.style == "phrase" else []
                )
                settings = {"max_new_tokens": room, "ends": (self.end, self.more)}
                new = self.llama.generate(ids, cache, processors=[*within, *processors], **settings)
                ids, room, after = ids + new, room - len(new), new[-1]
                if prompt.style == "free":
                    rows = self.llama.logits(ids, cache, keep=len(new) + 1)[:-1].log_softmax(-1)
                    sure = rows[range(len(new)), new].mean().exp() >= SURE
                text = self.tokenizer.decode([i for i in new if i not in (self.end, self.more)])
                text = text.strip(" \ufffd")
            replaced = prompt.style == "free" and not (text and sure and supported(text, cited, prompt.query))
            if replaced or prompt.style == "sentence":
                text = cited
            cited_before.append(chosen)
            yield Claim(text, chosen, replaced)
            if prompt.style == "phrase" or room < 8 or len(cited_before) == len(prompt.evidence):
                break
            if prompt.style == "sentence":
                ids += self.format.text_ids(cited)
                after = int(self.llama.logits(ids, cache)[-1].argmax())
                ids.append(after)
            if after != self.more:
                break
            ids += self.format.ids("[")
            logits = self.llama.logits(ids, cache)


def quotable(form: Format, text: str, end: int, start: int) -> Callable:
    """A logits processor after which the tokens from `start` on stay a part of `text`, of whole words.

    A word has other tokens after a space than after a bracket; a quote always begins after a space. So what
    follows each place where a word begins is encoded for itself.
    """
    inside = lambda at: 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()  # noqa: E731
    spans = [form.text_ids(text[at:]) for at, c in enumerate(text) if not (c.isspace() or inside(at))]

    def after(written: list[int]) -> set[int]:
        size = len(written)
        live = [span for span in spans if span[:size] == written]
        found = {span[size] for span in live if len(span) > size}
        if written and any(len(s) == size or not form.tokenizer.decode(s[size])[0].isalnum() for s in live):
            found.add(end)
        return found

    def process(ids, scores):
        kept = torch.full_like(scores, -torch.inf)
        tokens = sorted(after(ids[0, start:].tolist()))
        kept[0, tokens] = scores[0, tokens]
        return kept

    return process
