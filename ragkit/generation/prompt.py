"""One prompt builder for every model: the chat template's markers as tokens, all other text as mere text."""

import re
import secrets
from dataclasses import dataclass
from threading import Lock

from ragkit.generation.evidence import Evidence
from ragkit.retrieval.text import readable

_INSTRUCTION = (
    "Answer the question from the numbered passages below and from nothing else. {style} Cite the passages "
    "that you use by their numbers, like this: [1]. If the passages do not hold the answer, say only: "
    "I don't know.\n\n{passages}\n\nQuestion: {question}"
)
_LOCK = Lock()  # whether special tokens are split is a setting that a tokenizer keeps, for other threads too
STYLES = {
    "sentence": "Answer in one or two sentences.",
    "phrase": "Answer in as few words as you can.",
}


@dataclass(frozen=True)
class Prompt:
    """What the model reads: its token ids, the same as text, and what it was made from."""

    ids: list[int]
    text: str
    query: str
    evidence: list[Evidence]
    style: str


def build_prompt(tokenizer, query: str, evidence: list[Evidence], style: str, *, documents: bool) -> Prompt:
    """The prompt for `query` over `evidence`, through the tokenizer's own chat template.

    Queries and passages are strangers' text: "<|im_end|>" in a passage must not end the user's turn. So the
    template is rendered over placeholders; its markers are encoded with special tokens, what goes into the
    placeholders without, and the ids are joined. `documents`: the template takes the evidence itself (as
    tiny-rag-lm's does); otherwise it goes into the user's message under a short instruction. A model without
    a chat template gets that instruction and "Answer:". Raises ValueError where the template leaves text out.
    """
    if style not in STYLES:
        raise ValueError(f"style={style!r}: one of {', '.join(map(repr, STYLES))}")
    key = secrets.token_hex(8)  # a placeholder that no template holds
    message = f"q{key}q"
    if documents:
        slots = {message: query} | {f"d{key}n{n}d": piece.text for n, piece in enumerate(evidence)}
        extra = {"documents": [{"title": "", "text": slot} for slot in list(slots)[1:]], "style": style}
    else:
        passages = "\n\n".join(f"[{n}] {piece.text}" for n, piece in enumerate(evidence, 1))
        slots = {message: _INSTRUCTION.format(style=STYLES[style], passages=passages, question=query)}
        extra = {"enable_thinking": False}  # Qwen3 and its kin answer at once; other templates don't ask
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": message}]
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **extra
        )
    else:
        rendered = f"{tokenizer.bos_token or ''}{message}\nAnswer:"
    if not all(slot in rendered for slot in slots):
        raise ValueError("this model's chat template leaves text out: it wants another kind of message")
    ids: list[int] = []
    parts = re.split(f"({'|'.join(slots)})", rendered)
    for part in parts:
        if part in slots:
            ids += plain_ids(tokenizer, slots[part])
        elif part:
            ids += _ids(tokenizer, part, split=False)
    return Prompt(ids, "".join(slots.get(part, part) for part in parts), query, evidence, style)


def plain_ids(tokenizer, text: str) -> list[int]:
    """Token ids of `text` as mere text: what looks like one of the tokenizer's markers is spelled out."""
    # `split_special_tokens` spells out special tokens only. Other markers, which models have too (Qwen's
    # "<think>", DeepSeek's "<｜User｜>"), are cut after their first letter. White space is no marker.
    text = readable(text)
    added = (token for token in tokenizer.added_tokens_decoder.values() if not token.special)
    markers = "|".join(re.escape(token.content) for token in added if not token.content.isspace())
    cuts = [match.start() + 1 for match in re.finditer(f"(?={markers})", text)] if markers else []
    ids: list[int] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)]):
        ids += _ids(tokenizer, text[start:end], split=True)
    return ids


def _ids(tokenizer, text: str, *, split: bool) -> list[int]:
    with _LOCK:
        return tokenizer(text, add_special_tokens=False, split_special_tokens=split, verbose=False).input_ids
