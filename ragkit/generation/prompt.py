"""What a model reads: the sentences nearest to the query, or whole passages, in its own chat template."""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from ragkit.generation.definitions import asked_term, defines
from ragkit.generation.reasons import asked_reason, reasons, wordings
from ragkit.retrieval.corpus import Hit
from ragkit.retrieval.text import readable, sentences_with_sections, split_sentences, words

SENTENCE, CONTEXT, PASSAGE = 0.35, 0.5, 0.15  # the shares of a score
# A best score below it: nothing was found. The highest that declined at most 1 % of what the first corpus and
# SQuADShifts answer, 4 of 466 questions, with 14 of 18 off-topic ones. Measured by
# `python -m tests.benchmarks.reading --questions FOLDER`.
FLOOR = 0.29
REASON = 0.1  # what a sentence's score gains that gives the reason asked for, against "none of them answers"
_OPEN = re.compile(r"\W*(?:what|why|how|when|where|who)\b", re.I)
# What a list of questions puts before each, and before its answer.
_QUESTION_MARK = re.compile(r"^(?:[-*+•] |\d+[.)] )?(?:Q(?:uestion)?(?: ?\d+)?[:.)]\s+)?")
_ANSWER_MARK = re.compile(r"^(?:[-*+•] )?A(?:nswer)?(?: ?\d+)?:\s+")
_INSTRUCTION = (
    "Answer the question from the numbered passages below and from nothing else. {style} Cite the passages "
    "that you use by their numbers, like this: [1]. If the passages do not hold the answer, say only: "
    "I don't know.\n\n{passages}\n\nQuestion: {question}"
)
_LOCK = Lock()  # whether special tokens are split is a setting that a tokenizer keeps, for other threads too
STYLES = {
    "sentence": "Answer in one or two sentences.",
    "phrase": "Answer in as few words as you can.",
    "free": "Answer in one to three sentences of your own.",
}


@dataclass(frozen=True)
class Evidence:
    """A piece of text that the generator reads. `hit`: the 1-based position of its hit, as in citations.

    `section`: the headings above it in the hit, "Install > Linux"; `asked`: the question that it stands
    below as below a heading.
    """

    text: str
    hit: int
    score: float
    section: str = ""
    asked: str = ""

    @property
    def headed(self) -> str:
        """The text after its headings, "Install, Linux: …", or its question: they say what it is about."""
        if self.asked:
            return f"{self.asked} {self.text}"
        return f"{self.section.replace(' > ', ', ')}: {self.text}" if self.section else self.text


def select_evidence(
    query: str,
    hits: list[Hit],
    encoder,
    budget: int = 256,
    *,
    most: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
    in_order: bool = False,
) -> list[Evidence]:
    """The sentences of the hits that are nearest to the query, nearest first, within `budget` tokens.

    `in_order`: as they stand in the hits instead, so that "it" still follows what it means. A sentence that
    would not fit is passed over and a shorter one may take its place; `most` bounds their number.
    `count_tokens` says how the budget is counted (default: the encoder's tokens). What can be quoted:
    `text.sentences_with_sections`; a sentence that two hits share counts for the better hit, and one that
    stands in several sections for the one that comes nearest. One that only asks, or repeats the query,
    answers nothing, but tells what the sentences after it are about.

    `score`, from cosines with the query: 0.35 · sentence + 0.5 · sentence under its title, section and
    question + 0.15 · its whole passage. Where the best score is below FLOOR, there is no evidence. Where the
    query asks what something is, and sentences that reach FLOOR begin by saying so, only those are; where it
    asks why one would use it, those that say why, with REASON more; a text's cosine is then the larger of
    that with the question and that with how an answer would begin. Raises ValueError for a budget below 1.
    """
    if not isinstance(budget, int) or budget < 1:
        raise ValueError(f"budget={budget!r}: a number of tokens, at least 1")
    if count_tokens is None:
        count_tokens = lambda text: len(encoder.tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    # The same words under other headings, or another question, say another thing.
    found: dict[tuple[str, str, str], tuple[int, str, str]] = {}  # hit, in its context
    for position, hit in enumerate(hits, 1):
        under, asked, headline = "", "", ""
        for sentence, section in sentences_with_sections(hit.passage.text):
            if section != under:
                under, asked, headline = section, "", ""
            if _only_asks(sentence, query):
                asked, headline = sentence, _headline(sentence, hit.passage.text)
                continue
            if headline:
                sentence = _ANSWER_MARK.sub("", sentence) or sentence
            context = (hit.passage.title, section.replace(" > ", " "), asked, sentence)
            context = " ".join(filter(None, context))
            found.setdefault((sentence, section, asked), (position, headline, context))
    if not found:
        return []
    said, sections, _ = zip(*found)
    positions, questions, contexts = zip(*found.values())
    texts = [*said, *contexts, *(hit.passage.full_text for hit in hits)]
    vectors = encoder.encode_passages(texts, progress=False)
    nearness = np.max([vectors @ encoder.encode_query(text) for text in wordings(query)], axis=0)
    alone, within, whole = np.split(nearness, [len(found), 2 * len(found)])
    scores = SENTENCE * alone + CONTEXT * within + PASSAGE * whole[np.array(positions) - 1]
    if scores.max() < FLOOR:
        return []
    pieces = list(map(Evidence, said, positions, scores.tolist(), sections, questions))
    best: dict[str, Evidence] = {}
    for piece in pieces:
        if piece.text not in best or piece.score > best[piece.text].score:
            best[piece.text] = piece
    pieces = [piece for piece in pieces if best[piece.text] is piece]
    if term := asked_term(query):
        pieces = [piece for piece in pieces if piece.score >= FLOOR and defines(piece.text, term)] or pieces
    elif reason := asked_reason(query):
        near = [piece for piece in pieces if piece.score >= FLOOR]
        kept = reasons([piece.text for piece in near], reason)
        sure = [replace(piece, score=piece.score + REASON) for piece in near if piece.text in kept]
        pieces = sure or pieces
    chosen: list[Evidence] = []
    for piece in sorted(pieces, key=lambda piece: -piece.score):  # of equal scores, the better hit's first
        if len(chosen) == most:
            break
        cost = count_tokens(piece.text)
        if cost <= budget:
            budget -= cost
            chosen.append(piece)
    return [piece for piece in pieces if piece in chosen] if in_order else chosen


def _headline(question: str, text: str) -> str:
    """The question where it heads what follows, as in a list of questions: on a line of its own, or marked
    "Q:"; "" where it is part of running text."""
    bare = _QUESTION_MARK.sub("", question)
    marked = bool(re.match(r"\W*Q", question)) and bare != question
    alone = re.search(rf"^[ \t]*{re.escape(question)}[ \t]*$", text, re.M)
    return bare if marked or alone else ""


def _only_asks(sentence: str, query: str) -> bool:
    if sentence.rstrip("*_").endswith(("?", "？", "؟")) and len(split_sentences(sentence)) == 1:
        return True
    said, asked = set(words(sentence)), set(words(query))
    return bool(_OPEN.match(query)) and said <= asked and 4 * len(said) >= 3 * len(asked)


@dataclass(frozen=True)
class Prompt:
    """What the model reads: its token ids, the same as text, and what it was made from."""

    ids: list[int]
    text: str
    query: str
    evidence: list[Evidence]
    style: str


def check_style(style: str) -> None:
    """Raises ValueError for a style of answer that there is not."""
    if style not in STYLES:
        raise ValueError(f"style={style!r}: one of {', '.join(map(repr, STYLES))}")


def build_prompt(
    tokenizer, query: str, evidence: list[Evidence], style: str, *, documents: bool, encoder: bool = False
) -> Prompt:
    """The prompt for `query` over `evidence`, through the tokenizer's own chat template.

    Queries and passages are strangers' text: "<|im_end|>" in a passage must not end the user's turn. So the
    template is rendered over placeholders; its markers are encoded with special tokens, what goes into the
    placeholders without, and the ids are joined. `documents`: the template takes the evidence itself (as
    tiny-rag-lm's does); otherwise it goes into the user's message under a short instruction. A model without
    a chat template gets that instruction and "Answer:", after the token that begins a text, or, where an
    `encoder` reads it, between those that its tokenizer puts around one. Raises ValueError where the template
    leaves text out.
    """
    check_style(style)
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
        from jinja2 import TemplateError

        messages = [{"role": "user", "content": message}]
        try:
            rendered = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **extra
            )
        except TemplateError as error:  # one that reaches for more than the messages is stopped, too
            raise ValueError(f"this model's chat template fails: {error}") from error
    else:
        before, after = tokenizer.bos_token or "", ""
        if encoder:
            around = (tokenizer.convert_ids_to_tokens(ids) for ids in special_ids_around(tokenizer))
            before, after = map("".join, around)
        rendered = f"{before}{message}\nAnswer:{after}"
    if not all(slot in rendered for slot in slots):
        raise ValueError("this model's chat template leaves text out: it wants another kind of message")
    ids: list[int] = []
    parts = re.split(f"({'|'.join(slots)})", rendered)
    for part in parts:
        if part in slots:
            ids += plain_ids(tokenizer, slots[part])
        elif part:
            ids += token_ids(tokenizer, part, split=False)
    return Prompt(ids, "".join(slots.get(part, part) for part in parts), query, evidence, style)


def special_ids_around(tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before a text, and those after it."""
    row = tokenizer("a", return_special_tokens_mask=True)
    inner = [place for place, special in enumerate(row.special_tokens_mask) if not special]
    return row.input_ids[: inner[0]], row.input_ids[inner[-1] + 1 :]


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
        ids += token_ids(tokenizer, text[start:end], split=True)
    return ids


def token_ids(tokenizer, text: str, *, split: bool) -> list[int]:
    """Token ids of `text`, none put around it; `split`: special tokens in it are spelled out."""
    with _LOCK:
        return tokenizer(text, add_special_tokens=False, split_special_tokens=split, verbose=False).input_ids
