"""Hooks into `transformers.generate`: that a quote is verbatim, what is drawn, what is shown meanwhile."""

from collections.abc import Callable, Collection

# An `Evidence.score` enters the choice of a sentence as 14·score, as if a log prior: 4.9 for the sentence's
# own cosine, 9.1 for what it stands in. tiny-rag-lm was trained beside 8 · the sentence's cosine alone.
PRIOR_SCALE = 14.0


def grounded(start: int, span: list[int], end: int, *, edges: Collection[int] | None = None):
    """A logits processor after which only `span` can be quoted: any part of it, then the token `end`.

    `start`: how many tokens come before the quote. `edges`: the places between the span's tokens where a
    quote may begin and end (default: all), since a token can be half of a character.
    """
    import torch

    places = range(len(span) + 1) if edges is None else edges

    def continuations(written: list[int]) -> list[int]:
        size = len(written)
        stops = [at + size for at in places if at < len(span) and span[at : at + size] == written]
        after = {span[stop] if stop < len(span) else end for stop in stops}
        if written and any(stop in places for stop in stops):
            after.add(end)
        return sorted(after)

    class Grounded:
        def __call__(self, input_ids, scores):
            allowed = torch.full_like(scores, -torch.inf)
            for row, ids in enumerate(input_ids.tolist()):
                tokens = continuations(ids[start:])
                allowed[row, tokens] = scores[row, tokens]
            return allowed

    return Grounded()


def sampled(seed: int, temperature: float):
    """A logits processor after which the largest score is a draw from softmax(scores / temperature).

    The Gumbel-max trick: argmax of log p + Gumbel noise is a draw from p. Its own random generator leaves the
    caller's alone, also while another thread draws, and gives the same noise on every device.
    """
    import torch

    random = torch.Generator().manual_seed(seed)

    class Sampled:
        def __call__(self, input_ids, scores):
            noise = -torch.empty(scores.shape).exponential_(generator=random).log()
            return scores / temperature + noise.to(scores.device)

    return Sampled()


def token_streamer(emit: Callable[[list[int]], None]):
    """A streamer that calls `emit` with all new token ids so far, after each new one."""
    from transformers.generation.streamers import BaseStreamer

    class Tokens(BaseStreamer):
        def __init__(self):
            self.ids: list[int] | None = None  # the first call brings the prompt

        def put(self, value):
            if self.ids is None:
                self.ids = []
                return
            self.ids += value.flatten().tolist()
            emit(self.ids)

        def end(self):
            pass

    return Tokens()
