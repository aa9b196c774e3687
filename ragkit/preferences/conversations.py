"""Prompts and answers however a file writes them: texts, lists of messages, transcripts."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress

ROLES = {"human": "user", "prompter": "user"} | dict.fromkeys(["gpt", "chatgpt", "model", "bot"], "assistant")
_TRANSCRIPT = re.compile(r"\s*Human:.*\n\r?\nAssistant:", re.S)  # Anthropic's HH, and Nectar's prompts
_SPEAKER = re.compile(r"(?:^\s*|\r?\n\r?\n)(Human|Assistant):")


def turns_of(value, role: str) -> list[tuple[str, str]]:
    """(role, text) of each turn; a plain text is one turn of `role`. Raises ValueError for anything else."""
    if isinstance(value, str) and re.match(r'\s*\[\s*\{\s*"', value):  # messages that a table holds as text
        with suppress(ValueError, RecursionError):
            held = json.loads(value)
            if all(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in held):
                value = held
    if isinstance(value, str):
        if not _TRANSCRIPT.match(value):
            return [(role, value)]
        _, *parts = _SPEAKER.split(value)
        turns = [(ROLES.get(who.lower(), "assistant"), said.strip()) for who, said in zip(*[iter(parts)] * 2)]
        return turns if turns[-1][1] else turns[:-1]  # a prompt ends with "Assistant:"
    if isinstance(value, dict):  # one message, or OpenAI's {"messages": …}
        value = value.get("messages", [value])
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        raise ValueError(f"a text or a list of messages is expected, not {value!r:.80}")
    turns = []
    for turn in value:
        who = turn.get("role") or turn.get("from") or role
        turns.append((ROLES.get(who, who), _content(turn)))
    return turns


def interleaved(prompt, answers: Sequence) -> tuple:
    """(prompt, answers); where each is a list of texts, one a turn, or such a list as JSON (LMSYS's arena on
    Kaggle), the answers become whole conversations, and the prompt is inside them."""
    said = [_texts(value) for value in (prompt, *answers)]
    if not said[0] or any(texts is None or len(texts) != len(said[0]) for texts in said):
        return prompt, answers
    roles = ["user", "assistant"] * len(said[0])
    talks = [[text or "" for turn in zip(said[0], texts) for text in turn] for texts in said[1:]]
    return None, [[{"role": who, "content": text} for who, text in zip(roles, talk)] for talk in talks]


def as_text(turns: Sequence[tuple[str, str]]) -> str:
    """One turn alone is its text; several are "role: text", a line each."""
    return turns[0][1] if len(turns) == 1 else "\n".join(f"{role}: {text}" for role, text in turns)


def prompt_and_answers(prompt, answers: Sequence, system=None, by_words=True) -> tuple[str, list[str]]:
    """The whole prompt, system and earlier turns with it, and what each answer adds to it.

    The turns that all answers begin with belong to the prompt, as TRL's `extract_prompt` has it; so do the
    first words of two texts without any other prompt, unless `by_words` is off. Raises ValueError where no
    prompt is, and for an answer that ends in another's turn than the assistant's.
    """
    blank = not prompt or (isinstance(prompt, str) and not prompt.strip())
    before = [] if blank else turns_of(prompt, "user")
    sides = [turns_of(answer, "assistant") for answer in answers]
    for side in sides:
        if side[-1][0] != "assistant":
            raise ValueError(f"an answer ends in a turn of {side[-1][0]!r}: {side[-1][1]!r:.60}")
    shared = 0
    while all(len(side) > shared + 1 and side[shared] == sides[0][shared] for side in sides):
        shared += 1
    inside, texts = sides[0][:shared], [as_text(side[shared:]) for side in sides]
    if inside[shared - len(before) :] == before:
        before = inside
    elif before[len(before) - shared :] != inside:
        before = before + inside
    if not before:
        by_words = by_words and all(len(side) == 1 for side in sides)  # other first turns are other prompts
        end = next((n for n, pair in enumerate(zip(*texts)) if len(set(pair)) > 1), 0) if by_words else 0
        words = re.match(r"(.*\S)\s", texts[0][:end], re.S)
        if not words:
            raise ValueError("no 'prompt'; name the column that holds it, prompt=…")
        before, texts = [("user", words[1])], [text[words.end() :] for text in texts]
    if system and before[0][0] != "system":
        before = [("system", system), *before]
    return as_text(before), texts


def _content(turn: dict) -> str:
    names = ("content", "value", "text", "full_text")  # the last is WebGPT's
    content = next((turn[name] for name in names if name in turn), None)
    if isinstance(content, list):  # in parts
        other = [part for part in content if not isinstance(part, dict) or part.get("type", "text") != "text"]
        if other:
            raise ValueError(f"a part of a message is no text: {other[0]!r:.80}")
        content = "".join(part.get("text") or "" for part in content)
    if content is None and turn.get("tool_calls"):
        content = json.dumps(turn["tool_calls"], ensure_ascii=False)
    if not isinstance(content, str):
        raise ValueError(f"a message without a text: {turn!r:.80}")
    return content


def _texts(value) -> list | None:
    """The texts of a list of nothing else, a null for an empty one; None for any other value."""
    if isinstance(value, str) and re.match(r'\s*\[\s*("|null)', value):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, list) and all(text is None or isinstance(text, str) for text in value):
        return value
    return None
