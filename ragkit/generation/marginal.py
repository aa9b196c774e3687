"""RAG with the document as a latent variable (arXiv 2005.11401, section 2.1), in log space.

    RAG-Sequence   p(y|x) = Σ_z p(z|x) Π_i p(y_i|x, z, y_<i)      one document stands behind the answer
    RAG-Token      p(y|x) = Π_i Σ_z p(z|x) p(y_i|x, z, y_<i)      each token may come from another

over the k documents retrieved, with p(z|x) ∝ exp(s_z), s_z the retriever's scores. Equal for one token.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ragkit.generation.generator import Generator
from ragkit.generation.prompt import Evidence, plain_ids, special_ids_around
from ragkit.generation.rows import Rows, padded
from ragkit.losses.log_probs import completion_log_probs
from ragkit.retrieval.corpus import Hit


def rag_sequence(scores: Tensor, log_probs: Tensor) -> Tensor:
    """log p(y|x) of RAG-Sequence, (...,). Its gradient in `scores` is posterior minus prior.

    `scores`: (..., k). `log_probs`: (..., k, T), log p(y_i|x, z, y_<i), 0 where an answer is over.
    """
    return torch.logsumexp(scores.log_softmax(-1) + log_probs.sum(-1), -1)


def rag_token(scores: Tensor, log_probs: Tensor) -> Tensor:
    """log p(y|x) of RAG-Token, (...,); arguments as of `rag_sequence`."""
    return torch.logsumexp(scores.log_softmax(-1)[..., None] + log_probs, -2).sum(-1)


def posterior(scores: Tensor, log_probs: Tensor) -> Tensor:
    """p(z|x, y) of RAG-Sequence, (..., k): which document the answer speaks for; arguments as there."""
    return (scores.log_softmax(-1) + log_probs.sum(-1)).softmax(-1)


class Written(NamedTuple):
    """`log_prob`: log p(y|x) of `ids`, whose last one ends the text unless the limit came first."""

    ids: list[int]
    log_prob: float


class Marginal:
    """p(y|x) of one question over k documents, under any causal or encoder-decoder model of transformers.

    `prompts`: k lists of token ids, that of the question with each document; a causal model writes on from
    there, and where they begin alike, that part is read once. `scores`: (k,), s_z. `ends`: the tokens that
    end an answer. Raises ValueError without documents, for other numbers of scores and for scores that are
    not finite.
    """

    def __init__(
        self, model, prompts: Sequence[Sequence[int]], scores: Sequence[float], *, ends: Collection[int]
    ):
        self.model, self.prompts, self.ends = model, [list(prompt) for prompt in prompts], frozenset(ends)
        self.scores = torch.as_tensor(scores, dtype=torch.float32, device=model.device)
        if not self.prompts or self.scores.shape != (len(self.prompts),):
            raise ValueError(f"{len(self.prompts)} prompts and scores of shape {tuple(self.scores.shape)}")
        if empty := [n for n, prompt in enumerate(self.prompts) if not prompt]:
            raise ValueError(f"prompt {empty[0]} is empty")
        if not self.scores.isfinite().all():
            raise ValueError(f"scores={self.scores.tolist()}: not all are finite; leave such documents out")

    @classmethod
    def of(
        cls,
        generator: Generator,
        query: str,
        hits: list[Hit],
        style: str = "sentence",
        *,
        whole: bool = False,
    ) -> "Marginal":
        """What `generator` makes of `query` and `hits`, with its `prior_scale` times their scores.

        For a model that reads sentences, they are the documents, and each is cited in its own prompt already;
        `whole`: it reads each hit as if that were one sentence. Raises ValueError where there is nothing to
        read.
        """
        if generator.sentences:
            cited = generator.citation_ids(1)
            if whole:
                pieces = [Evidence(hit.passage.text, n, hit.score) for n, hit in enumerate(hits, 1)]
            else:
                pieces = generator.prompt(query, hits, style=style).evidence
            prompts = [generator.prompt_over(query, [piece], style).ids + cited for piece in pieces]
        else:
            pieces, prompts = hits, [generator.prompt(query, [hit], style=style).ids for hit in hits]
        if not prompts:
            raise ValueError(f"{query!r}: none of the {len(hits)} hits holds evidence")
        model, scores = generator.model, [generator.prior_scale * piece.score for piece in pieces]
        return cls(model, prompts, scores, ends=model.generation_config.eos_token_id or [])

    def log_probs(self, answer: Sequence[int]) -> Tensor:
        """(k, T): log p(y_i|x, z, y_<i) of the T tokens of `answer`; differentiable where gradients are on.

        Raises ValueError for an empty answer.
        """
        answer = list(answer)
        if not answer:
            raise ValueError("an answer has at least one token, the one that ends it")
        if not torch.is_grad_enabled():
            return Rows(self.model, self.prompts).log_probs(answer)
        k, device = len(self.prompts), self.model.device
        if self.model.config.is_encoder_decoder:
            ids, mask = padded(self.prompts, device, "right")
            start = self.model.config.decoder_start_token_id
            written = torch.tensor([[start, *answer]], device=device).expand(k, -1)
            scored = torch.ones_like(written, dtype=torch.bool)
            scored[:, 0] = False
            _, found = completion_log_probs(self.model, ids, mask, scored, written)
        else:
            ids, mask = padded([[*prompt, *answer] for prompt in self.prompts], device)
            scored = torch.zeros_like(mask, dtype=torch.bool)
            scored[:, -len(answer) :] = True
            _, found = completion_log_probs(self.model, ids, mask, scored)
        return found[:, -len(answer) :]

    @torch.no_grad()
    def write_by_token(self, *, beams: int = 4, max_new_tokens: int = 64) -> list[Written]:
        """RAG-Token: beam search over Σ_z p(z|x) p(y_i|x, z, y_<i), up to `beams` answers, best first."""
        prior, k = self.scores.log_softmax(-1), len(self.prompts)
        rows = Rows(self.model, self.prompts)

        def mixed(logits: Tensor) -> Tensor:  # (k · beams, V), document by document
            return torch.logsumexp(prior[:, None, None] + logits.log_softmax(-1).unflatten(0, (k, -1)), 0)

        def extend(parents: list[int], tokens: list[int]) -> Tensor:
            before = len(rows) // k
            rows.select([document * before + parent for document in range(k) for parent in parents])
            rows.feed(torch.tensor(tokens).repeat(k)[:, None])
            return mixed(rows.logits)

        return _beam_search(mixed(rows.logits), extend, beams, max_new_tokens, self.ends)

    @torch.no_grad()
    def write_by_sequence(
        self, *, beams: int = 4, max_new_tokens: int = 64, thorough: bool = True
    ) -> list[Written]:
        """RAG-Sequence: the answers of one beam search for each document, best first.

        `thorough`: each is scored under every document. Otherwise p(y|x, z) counts as 0 where the beam of z
        has not brought y: a bound from below that costs no further pass.
        """
        prior, found = self.scores.log_softmax(-1).tolist(), {}
        read = Rows(self.model, self.prompts)
        for document in range(len(self.prompts)):
            rows = read.copy()
            rows.select([document])

            def extend(parents, tokens, rows=rows):
                rows.select(parents)
                rows.feed(torch.tensor(tokens)[:, None])
                return rows.logits.log_softmax(-1)

            first = rows.logits.log_softmax(-1)
            for ids, log_prob in _beam_search(first, extend, beams, max_new_tokens, self.ends):
                found.setdefault(tuple(ids), []).append(prior[document] + log_prob)
        if thorough:
            found = {ids: rag_sequence(self.scores, read.log_probs([*ids])) for ids in found}
        else:
            found = {ids: torch.tensor(logs).logsumexp(0) for ids, logs in found.items()}
        written = [Written([*ids], log_prob.item()) for ids, log_prob in found.items()]
        return sorted(written, key=lambda one: -one.log_prob)


def answer_ids(generator: Generator, text: str) -> list[int]:
    """The tokens of `text` as this generator would write it after `Marginal.of`'s prompts, with their end."""
    ids = plain_ids(generator.tokenizer, f" {text}" if generator.reader else text)
    if generator.model.config.is_encoder_decoder:  # BART's decoder opens a text as its encoder does
        before, after = special_ids_around(generator.tokenizer)
        return [*before, *ids, *after]
    return [*ids, *(generator.model.generation_config.eos_token_id or [])[:1]]


def _beam_search(
    log_probs: Tensor, extend: Callable[[list[int], list[int]], Tensor], beams: int, most: int, ends
) -> list[Written]:
    """Up to `beams` sequences with the largest Σ log p, best first, with no bonus for length.

    `log_probs`: (1, V), of the first token. `extend` goes on with some of the last rows by a token each.
    """
    if beams < 1 or most < 1:
        raise ValueError(f"beams={beams}, max_new_tokens={most}: both at least 1")
    alive, done = [Written([], 0.0)], []
    for step in range(most):
        total = torch.tensor([one.log_prob for one in alive])[:, None] + log_probs.cpu()
        best = total.flatten().topk(min((1 + len(ends)) * beams, total.numel()))
        parents, before, alive = [], alive, []
        for log_prob, place in zip(best.values.tolist(), best.indices.tolist()):
            parent, token = divmod(place, total.shape[1])
            one = Written([*before[parent].ids, token], log_prob)
            if token in ends:
                done.append(one)
            elif len(alive) < beams:
                alive.append(one)
                parents.append(parent)
        done = sorted(done, key=lambda one: -one.log_prob)[:beams]
        if not alive or (len(done) == beams and done[-1].log_prob >= alive[0].log_prob):
            break  # log p only falls
        if step + 1 < most:
            log_probs = extend(parents, [one.ids[-1] for one in alive])
    return done or alive
