"""Training the query encoder through the generator, the document index fixed (arXiv 2005.11401, section 2.4).

The loss is −log p(y|x) of `marginal.py` over questions whose answers are known, here with the generator as it
is. What moves is the query vector alone, in s_z = scale · q(x)·d(z), and of RAG-Sequence

    ∂ log p(y|x) / ∂q = scale · Σ_z [p(z|x, y) − p(z|x)] d(z)

towards the documents under which the generator finds the answer likely. To distil the posterior into the
retriever, as a target renewed at each step, is the same gradient: that of KL(p(z|x, y) ‖ p(z|x)).

On this repo's test topics, search by vector gains and search by vector and words hardly does (`python -m
tests.benchmarks.query_training`). The encoder's last layer in place of the matrix gained as much there, and a
matrix of low rank too: the matrix needs no rate, no rounds and no rank to choose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ragkit.evaluation.measures import Interval, evaluate, paired_interval
from ragkit.evaluation.rankings import Gain
from ragkit.generation.generator import Generator
from ragkit.generation.marginal import Marginal, answer_ids, rag_sequence, rag_token
from ragkit.retrieval.library import Library
from ragkit.retrieval.search import retrieve
from ragkit.retrieval.storage import load_tensors, save_tensors

SCALE = 20.0  # of cosines, as logits: with it all-MiniLM-L6-v2 was trained
DECAYS = (0.03, 0.1, 0.3, 1.0)
FORMULAS = {"sequence": rag_sequence, "token": rag_token}
KIND = {"format": "ragkit-query-encoder", "version": 1}  # of a file


class Asked(NamedTuple):
    """A question and its answer as the generator would write it: for one that quotes, a sentence.

    Questions of one `topic` are held out together.
    """

    query: str
    answer: str
    topic: str


@dataclass(frozen=True)
class Candidates:
    """N questions over the k documents that the encoder as it is finds for each.

    `queries`: (N, D) and `documents`: (N, k, D), unit vectors. `log_probs`: (N, k, T), log p(y_i|x, z, y_<i),
    0 where an answer is over. With the generator fixed, that is all that training needs of it.
    """

    queries: Tensor
    documents: Tensor
    log_probs: Tensor
    topics: list[str]

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        encoder,
        library: Library,
        generator: Generator,
        questions: Sequence[Asked],
        *,
        k: int = 5,
        progress: bool = True,
    ) -> "Candidates":
        """Each passage is read whole, and once for each question that finds it.

        Raises ValueError without questions, and where the library has less than k passages.
        """
        from tqdm.auto import tqdm

        if not questions or not 1 <= k <= len(library):
            raise ValueError(f"{len(questions)} questions over k={k} of {len(library)} passages: too few")
        queries, documents, logs = [], [], []
        for query, answer, _ in tqdm(questions, desc="reading", unit="question", disable=not progress):
            queries.append(encoder.encode_query(query))
            hits = retrieve(library, queries[-1], k)
            documents.append(library.vectors_of(hit.passage.id for hit in hits))
            marginal = Marginal.of(generator, query, hits, whole=True)
            logs.append(marginal.log_probs(answer_ids(generator, answer)).T.float().cpu())  # (T, k)
        padded = pad_sequence(logs, batch_first=True).transpose(1, 2)
        vectors = (torch.from_numpy(np.stack(rows)) for rows in (queries, documents))
        return cls(*vectors, padded, [question.topic for question in questions])

    def __getitem__(self, rows: np.ndarray) -> "Candidates":
        """Some of the questions, by a mask, (N,)."""
        index = torch.from_numpy(np.flatnonzero(rows))
        parts = (part[index] for part in (self.queries, self.documents, self.log_probs))
        return Candidates(*parts, [self.topics[n] for n in index])

    def log_prob(self, change: Tensor, formula: str = "sequence") -> Tensor:
        """log p(y|x), (N,), with each query vector moved by q·`change`, (D, D), at length 1 again."""
        moved = F.normalize(self.queries + self.queries @ change, dim=-1)
        scores = SCALE * torch.einsum("nd,nkd->nk", moved, self.documents)
        return FORMULAS[formula](scores, self.log_probs)


class QueryEncoder:
    """`encoder`, but a query's vector is moved by q·`change`, (D, D), and brought to length 1 again.

    Passages are encoded as before, so that the libraries which `encoder` built stay its own: name and
    fingerprint, which are of passage vectors, are that encoder's, and so is all else.
    """

    def __init__(self, encoder, change: np.ndarray):
        self.encoder, self.change = encoder, np.asarray(change, dtype=np.float32)
        if self.change.shape != 2 * (encoder.dimension,):
            raise ValueError(f"change has shape {self.change.shape}, the vectors {encoder.dimension} numbers")

    def __getattr__(self, name: str):
        if name == "encoder":  # a copy in the making
            raise AttributeError(name)
        return getattr(self.encoder, name)

    def encode_query(self, query: str) -> np.ndarray:
        """The query vector, (D,)."""
        vector = self.encoder.encode_query(query)
        vector = vector + vector @ self.change
        return vector / np.linalg.norm(vector)

    def save(self, path: str | Path) -> None:
        """One safetensors file with the change; the encoder is named, not copied."""
        facts = {"encoder": self.encoder.name, "fingerprint": self.encoder.fingerprint}
        save_tensors(Path(path).expanduser(), KIND, facts, {"change": self.change})

    @classmethod
    def load(cls, path: str | Path, encoder) -> "QueryEncoder":
        """As it was saved. Raises FileNotFoundError where none is, ValueError for a damaged file, and for
        another encoder than it was of."""
        facts, tensors = load_tensors(Path(path).expanduser(), KIND, "train it again")
        if facts["fingerprint"] != encoder.fingerprint:
            raise ValueError(f"{path} was trained on encoder {facts['encoder']!r}, and this is another")
        return cls(encoder, tensors["change"])


@dataclass(frozen=True)
class QueryReport:
    """What training did. `gains`: by weight decay, of log p(y|x) on topics held out, in nats a question, with
    the interval over topics; `decay`: the best of them."""

    questions: int
    formula: str
    kept_base: bool
    reason: str
    decay: float | None = None
    gains: dict[float, Interval] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.questions} questions, RAG-{self.formula.capitalize()}. {self.reason}"]
        lines += [f"  decay {decay:<5} log p(y|x) {gain}" for decay, gain in self.gains.items()]
        return "\n".join(lines)


def train_query_encoder(
    encoder, candidates: Candidates, *, formula: str = "sequence", folds: int = 5, seed: int = 0
) -> tuple[object, QueryReport]:
    """(encoder of queries, report): a matrix near the identity on the query vector, by −log p(y|x).

    loss = −mean log p(y|x) + decay · ‖change‖²; which decay, and whether anything is gained, is told by
    topics held out, in `folds` parts. Where the interval of the best gain does not lie above 0, or there are
    fewer topics than parts, `encoder` itself comes back. `formula`: "sequence" or "token". Raises ValueError
    for another.
    """
    if formula not in FORMULAS:
        raise ValueError(f"formula={formula!r}: one of {', '.join(FORMULAS)}")
    names, of = np.unique(candidates.topics, return_inverse=True)  # of: the topic of each question
    if len(names) < folds:
        return encoder, QueryReport(len(of), formula, True, f"{len(names)} topics: the encoder is kept.")
    held = np.random.default_rng(seed).permutation(len(names))[of] % folds
    base, gains = candidates.log_prob(torch.zeros(2 * candidates.queries.shape[1:]), formula).numpy(), {}
    for decay in DECAYS:
        after = np.empty_like(base)
        for n in range(folds):
            change = _fitted(candidates[held != n], formula, decay)
            after[held == n] = candidates[held == n].log_prob(change, formula).numpy()
        by_topic = (np.bincount(of, values) / np.bincount(of) for values in (base, after))
        gains[decay] = paired_interval(*by_topic)
    best = max(gains, key=lambda decay: gains[decay].mean)
    kept = not gains[best].low > 0
    told = "Nothing is gained for sure on topics held out: the encoder is kept." if kept else f"Decay {best}."
    report = QueryReport(len(of), formula, kept, told, best, gains)
    if kept:
        return encoder, report
    return QueryEncoder(encoder, _fitted(candidates, formula, best).numpy()), report


def compare_queries(
    library: Library,
    before,
    after,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[str] = ("nDCG@10", "R@3"),
) -> Gain:
    """Retrieval by the query vectors of two encoders: `evaluate`'s measures, and intervals over queries."""
    found = []
    for encoder in (before, after):
        run = {key: retrieve(library, encoder.encode_query(query), 100) for key, query in queries.items()}
        found.append(evaluate(run, {key: qrels[key] for key in queries}, measures))
    means = ({name: values.mean for name, values in one.items()} for one in found)
    return Gain(*means, {name: paired_interval(*(one[name] for one in found)) for name in measures})


def _fitted(candidates: Candidates, formula: str, decay: float) -> Tensor:
    """The change, (D, D), with the least loss."""
    change = torch.zeros(2 * candidates.queries.shape[1:], requires_grad=True)
    optimizer = torch.optim.LBFGS([change], max_iter=40, history_size=8, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = decay * change.square().sum() - candidates.log_prob(change, formula).mean()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return change.detach()
