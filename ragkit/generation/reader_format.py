"""How smollm2-reader is asked and answers: numbered sentences, in SmolLM2's own chat markers."""

from functools import cached_property

from ragkit.generation.prompt import plain_ids, token_ids

SYSTEM = "Cite the sentence that answers, [n], or [0] if none does; then answer."
ASK = {
    "sentence": "Quote the sentence.",
    "phrase": "Answer with a phrase.",
    "free": "Answer in your own words.",
}


class Format:
    """Token ids of prompts and answers. A text becomes plain tokens after a space, whatever it looks like."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def ids(self, marked: str) -> list[int]:
        return token_ids(self.tokenizer, marked, split=False)

    @cached_property
    def system(self) -> list[int]:
        return self.ids(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")

    def text_ids(self, text: str) -> list[int]:
        return plain_ids(self.tokenizer, f" {text}")

    def evidence_ids(self, question: str, sentences: list[str]) -> tuple[list[int], list[int]]:
        """The question, the sentences with their numbers, the question again: each is read in its light.

        And the positions of the numbers. They stand behind: there, a number has seen all of its sentence, and
        to cite is to copy one.
        """
        asked, ends = self.text_ids(question), []
        ids = [*self.system, *asked]
        for number, sentence in enumerate(sentences, 1):
            ids += [*self.ids("\n"), *self.text_ids(sentence), *self.ids(f" [{number}]")]
            ends.append(len(ids) - 2)
        return [*ids, *self.ids("\n"), *asked, *self.ids("\n")], ends

    @cached_property
    def _asked(self) -> dict[str, list[int]]:
        return {style: self.ids(f"{text}<|im_end|>\n<|im_start|>assistant\n[") for style, text in ASK.items()}

    def style_ids(self, style: str) -> list[int]:
        return self._asked[style]

    def answer_ids(self, claims: list[tuple[int, str]]) -> list[int]:
        """`claims`: (0-based sentence, text); none: [0]."""
        ids: list[int] = []
        for number, text in claims or [(-1, "")]:
            ids += self.ids("\n[") if ids else []
            ids += self.ids(str(number + 1)) + self.ids("]") + (self.text_ids(text) if text else [])
        return [*ids, *self.ids("<|im_end|>")]
