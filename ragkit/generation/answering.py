"""How each kind of generator answers from a prompt: a reader, a model that quotes, and any other model."""

import re
from collections.abc import Callable
from itertools import count

import numpy as np

from ragkit.generation.answer import ABSTENTION, Answer, citations_in
from ragkit.generation.decoding import grounded, sampled, token_streamer
from ragkit.generation.prompt import Prompt


def read(generator, prompt: Prompt, seed, temperature, max_new_tokens, on_text) -> Answer:
    """smollm2-reader: one claim for each sentence that it cites."""
    draws = count(seed) if seed is not None else None  # another draw for each choice

    def choose(logs: np.ndarray) -> int | None:
        return generator.cite(prompt, logs, next(draws) if draws else None, temperature)

    draw = [sampled(next(draws), temperature)] if draws else []
    claims, cited, marks, text = [], [], [], ""
    for claim in generator.reader.claims(prompt, choose, draw, max_new_tokens):
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
        return abstain(prompt, on_text)
    replaced = sum(claim.replaced for claim in claims)
    hits = list(dict.fromkeys(piece.hit for piece in cited))
    return Answer(text, hits, prompt.evidence, False, prompt.text, replaced, cited, marks)


def quoted(generator, prompt: Prompt, seed, temperature, max_new_tokens, on_text) -> Answer:
    """tiny-rag-lm: first the number of a sentence (or <none>), then its words."""
    chosen = generator.cite(prompt, generator.citation_log_probs(prompt), seed, temperature)
    if chosen is None:
        return abstain(prompt, on_text)
    cited = prompt.evidence[chosen]
    span, emit = generator._ids(cited.text), _emitter(generator, on_text)
    ids: list[int] = []
    if generator.grounded and prompt.style == "sentence":
        for token in span:  # nothing is left to decide: its words need no model
            ids.append(token)
            if emit:
                emit(ids)
    elif max_new_tokens > 1:  # the number is a token too
        before = [*prompt.ids, *generator.citation_ids(chosen + 1)]
        end = generator.tokenizer.eos_token_id
        edges = _edges(generator, span)
        within = [grounded(len(before), span, end, edges=edges)] if generator.grounded else []
        again = None if seed is None else seed + 1  # another draw than the citation's
        ids = _generated(generator, before, again, temperature, max_new_tokens - 1, emit, within)
    return Answer(generator._text(ids), [cited.hit], prompt.evidence, False, prompt.text, 0, [cited], [])


def written(generator, prompt: Prompt, seed, temperature, max_new_tokens, on_text) -> Answer:
    """Any other model: free text, in which it cites by [n]."""
    emit = _emitter(generator, on_text)
    text = generator._text(_generated(generator, prompt.ids, seed, temperature, max_new_tokens, emit))
    if not text:
        return abstain(prompt, on_text)
    cited = citations_in(text, [piece.hit for piece in prompt.evidence])
    abstained = bool(re.match(r"I (don't|don’t|do not) know\b", text))
    cited = [] if abstained else cited
    read = [piece for piece in prompt.evidence if piece.hit in cited]
    return Answer(text, cited, prompt.evidence, abstained, prompt.text, cited=read)


def abstain(prompt: Prompt, on_text) -> Answer:
    """The answer that there is none."""
    if on_text:
        on_text(ABSTENTION)
    return Answer(ABSTENTION, [], prompt.evidence, True, prompt.text, marks=[])


def _generated(
    generator, ids: list[int], seed, temperature, max_new_tokens, emit, processors=()
) -> list[int]:
    """New token ids after `ids`, greedy or sampled; the caller's random state is left as it was."""
    import torch

    before = torch.tensor([ids], device=generator.model.device)
    pad = generator.tokenizer.pad_token_id
    pad = generator.tokenizer.eos_token_id if pad is None else pad
    draw = [sampled(seed, temperature)] if seed is not None else []
    with torch.inference_mode():
        out = generator.model.generate(
            before,
            attention_mask=torch.ones_like(before),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
            streamer=token_streamer(emit) if emit else None,
            logits_processor=[*processors, *draw],
        )
    return out[0, 1 if generator._encodes else len(ids) :].tolist()


def _edges(generator, ids: list[int]) -> list[int]:
    """The places between tokens that no character lies across, and that no space stands before."""
    before = [generator.tokenizer.decode(ids[:place]) for place in range(len(ids) + 1)]
    return [place for place, text in enumerate(before) if not re.search(r"[\s\ufffd]$", text)]


def _emitter(generator, on_text: Callable[[str], None] | None) -> Callable[[list[int]], None] | None:
    """A function of all new ids so far that passes on what is new of their text."""
    if on_text is None:
        return None
    shown = ""

    def emit(ids: list[int]) -> None:
        nonlocal shown
        text = generator._text(ids)
        if len(text) > len(shown):
            on_text(text[len(shown) :])
            shown = text

    return emit
