"""Hooks into `transformers.generate`: which sentence is quoted, that it is verbatim, what is drawn."""

from collections.abc import Callable, Collection

# Cosine similarities enter the choice of a sentence as 8·similarity, as if a log prior: tried on held-out
# questions, where the product was right more often than the encoder or the model alone.
PRIOR_SCALE = 8.0


def grounded(
    prompt_length: int,
    numbers: list[int],
    none: int,
    end: int,
    priors: list[float],
    spans: list[list[int]] | None,
    *,
    edges: list[Collection[int]] | None = None,
    none_similarity: float = 0.0,
):
    """A logits processor for a model that answers "[i] words of sentence i" or "<none>".

    The first token is chosen by p(z|x)·p_θ([i] | x, z), with the encoder's prior p(z|x) ∝ exp(8·similarity)
    (the latent document of arXiv 2005.11401, here a sentence). "None of them" stands in that choice as if it
    were a sentence with the similarity `none_similarity`. After that, with `spans` (token ids of each
    sentence), only tokens that continue a span of the chosen sentence may follow. `edges`: for each sentence,
    the places between its tokens where a span may begin and end (default: all), since a token can be half of
    a character.
    """
    import torch
    from transformers import LogitsProcessor

    class Grounded(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return torch.stack([self._row(ids, row) for ids, row in zip(input_ids.tolist(), scores)])

        def _row(self, ids: list[int], row):
            written = ids[prompt_length:]
            if not written:
                choices = torch.tensor([*numbers, none], device=row.device)
                similarities = torch.tensor([*priors, none_similarity], device=row.device)
                logs = torch.log_softmax(row[choices].float(), dim=0) + PRIOR_SCALE * similarities
                return _only(row, choices.tolist(), logs)
            if written[0] == none:
                return _only(row, [end])
            if spans is None:
                return row
            chosen = numbers.index(written[0])
            places = edges[chosen] if edges else range(len(spans[chosen]) + 1)
            return _only(row, self._continuations(spans[chosen], places, written[1:]))

        def _continuations(self, span: list[int], places: Collection[int], written: list[int]) -> list[int]:
            size = len(written)
            starts = [place for place in places if place < len(span)]
            stops = [start + size for start in starts if span[start : start + size] == written]
            after = {span[stop] if stop < len(span) else end for stop in stops}
            if written and any(stop in places for stop in stops):
                after.add(end)
            return sorted(after)

    def _only(row, tokens: list[int], values=None):
        allowed = torch.full_like(row, -torch.inf)
        allowed[tokens] = row[tokens] if values is None else values.to(row.dtype)
        return allowed

    return Grounded()


def sampled(seed: int, temperature: float):
    """A logits processor after which the largest score is a draw from softmax(scores / temperature).

    The Gumbel-max trick: argmax of log p + Gumbel noise is a draw from p. Its own random generator leaves the
    caller's alone, also while another thread draws, and gives the same noise on every device.
    """
    import torch
    from transformers import LogitsProcessor

    random = torch.Generator().manual_seed(seed)

    class Sampled(LogitsProcessor):
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
