"""The cross-encoder residual: the encoder's own weights, fine-tuned to read query and document together.

score(q, d) = s_0 + r(q, d) with r = head · pool(BERT([CLS] q [SEP] d [SEP])): a cross-encoder (arXiv
1901.04085) that starts as the retriever, since its head starts at 0. The head is fitted first, to its optimum
on the encoder as it is; then head and upper layers go on together. So features that are good already aren't
pulled about by a head that knows nothing yet (arXiv 2202.10054). The lower layers stay the encoder's, which
saves time.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from tqdm.auto import tqdm

from ragkit.losses.data_parallel import Processes
from ragkit.preferences.judgements import Ranking
from ragkit.reranking.evidence import LEAST, held_out_share
from ragkit.reranking.features import Described
from ragkit.reranking.guard import Domain
from ragkit.reranking.linear import centred, one_thread, solve
from ragkit.reranking.objective import Objective
from ragkit.reranking.selection import FOLDS, Fitted, folds_of, resolved
from ragkit.reranking.table import Table
from ragkit.retrieval.encoder import TOKENS_PER_BATCH
from ragkit.retrieval.windows import batches, pool, token_rows

WINDOW = 192  # tokens of query and document together, or the encoder's own window: time goes with them
FROZEN = 0.5  # of the layers, from below, that stay the encoder's, as its embeddings do
BETA = 0.25
EPOCHS = 1  # two took twice as long, and did no better on new lists
RATE = 3e-5  # of the layers
HEAD_RATE = 3e-3  # of the head, whose weights are about 0.4
FIRST_RATE = 0.01  # of what a place is worth, in logits
RIDGE = 0.3  # of the first fit of the head, on states whose spread within lists is 1
DECAY = 0.01
WARM_UP = 0.1  # of the steps
LONGEST_STEP = 1.0  # the norm at which gradients are cut
DOCUMENTS = 20  # in one step: whole lists, and one list at least
TOKENS = 4096  # in one pass of a step, after padding


class CrossResidual:
    """r of `encoder`'s weights, copied, and a head that is 0 until it is trained.

    `first`: what one place earlier in the shown order is worth, in logits. Never in training mode: without
    dropout the loss starts at the retriever's own, and nothing but the order of the lists is random.
    """

    def __init__(self, encoder):
        self.model = copy.deepcopy(encoder.model).eval()
        self.tokenizer, self.pooling = encoder.tokenizer, encoder.pooling
        self.window = min(WINDOW, encoder.max_tokens)
        # Without a bias: only differences within a list count.
        self.head = torch.zeros(encoder.dimension, device=encoder.device, requires_grad=True)
        self.first = 0.0
        self._free(_upper(self.model))

    def __call__(self, described: Described) -> np.ndarray:
        """r, (K,), in logits; its mean over the list is 0."""
        with torch.inference_mode():
            residual = self.residuals(self.tokens(described.query, described.texts))
        residual = residual.double().cpu().numpy()
        return residual - residual.mean()

    def parts(self, described: Described) -> dict[str, np.ndarray]:
        """It can't be taken apart: one part, (K,)."""
        return {"cross-encoder": self(described)}

    def tokens(self, query: str, texts: Sequence[str]) -> list[dict[str, list[int]]]:
        """K rows of token ids and types: [CLS] query [SEP] text [SEP], the text cut at the window.

        The query is whole unless it takes more than half of the window, which no question does.
        """
        read = self.tokenizer(query, truncation=False, return_offsets_mapping=True, add_special_tokens=False)
        start = read["offset_mapping"][: self.window // 2]
        query = query[: start[-1][1]] if start else query
        return token_rows(self.tokenizer, self.window, [query] * len(texts), list(texts))[0]

    def residuals(self, rows: Sequence[dict[str, list[int]]]) -> Tensor:
        """r of rows of tokens, (n,), not centred; with gradients where they are on."""
        return self.pooled(rows) @ self.head

    def pooled(self, rows: Sequence[dict[str, list[int]]]) -> Tensor:
        """What the head looks at, (n, D): the last layer's states, pooled as the encoder pools."""
        trained = torch.is_grad_enabled()
        most = TOKENS if trained else TOKENS_PER_BATCH.get(self.head.device.type, TOKENS)
        groups = batches([len(row["input_ids"]) for row in rows], most)
        # More than one batch may be more than memory holds for the way back: its states are made again.
        again = len(groups) > 1 and trained
        read = partial(checkpoint, self._batch, use_reentrant=False) if again else self._batch
        parts = [read([rows[i] for i in batch]) for batch in groups]
        order = torch.tensor([i for batch in groups for i in batch], device=self.head.device)
        return torch.cat(parts)[order.argsort()]

    def _batch(self, rows: Sequence[dict[str, list[int]]]) -> Tensor:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        padded = self.tokenizer.pad(columns, return_tensors="pt").to(self.head.device)
        states = self.model(**padded).last_hidden_state  # (n, T, D)
        return pool(states, padded["attention_mask"], self.pooling)

    def trained(self) -> dict[str, Tensor]:
        """The model's weights that are not the encoder's, by name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def _free(self, names: set[str]) -> None:
        for name, weight in self.model.named_parameters():
            weight.requires_grad_(name in names)

    # On disk

    def tensors(self) -> dict[str, Tensor]:
        """What it takes beside the encoder: trained weights, head, `first`, window. On the CPU."""
        weights = {f"model.{name}": weight for name, weight in self.trained().items()} | {"head": self.head}
        tensors = {name: weight.detach().cpu() for name, weight in weights.items()}
        first = torch.tensor([self.first], dtype=torch.float64)
        return tensors | {"window": torch.tensor([self.window]), "first": first}

    @classmethod
    def from_tensors(cls, encoder, tensors: dict) -> "CrossResidual":
        """The residual that gave `tensors` (or NumPy's of them), on the encoder that it was trained from.

        Raises ValueError where they don't fit it.
        """
        residual = cls(encoder)
        weights = dict(residual.model.named_parameters())
        trained = {name.removeprefix("model.") for name in tensors if name.startswith("model.")}
        try:
            for name in trained:
                weights[name].data.copy_(torch.as_tensor(tensors["model." + name]))
            residual.head.data.copy_(torch.as_tensor(tensors["head"]))
            residual.first, residual.window = float(tensors["first"][0]), int(tensors["window"][0])
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"these weights don't fit encoder {encoder.name!r}: {error}") from error
        residual._free(trained)
        return residual


def fit_cross(
    encoder,
    rankings: Sequence[Ranking],
    described: Sequence[Described],
    base: Fitted,
    max_kl: float,
    seed: int,
    group: Processes,
    progress: bool,
) -> tuple[Fitted, Table, np.ndarray, float]:
    """A cross-encoder for `base`'s table and objective, its scores for the part that it did not see, and the
    share of it that is believed by these, with which it is applied.

    Trained on four fifths of the queries, tested on the fifth: five trainings would take too long.
    """
    fold = folds_of(base.table.queries, FOLDS, seed)
    inside, outside = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
    known, chosen = base.table.take(inside), [rankings[i] for i in inside]
    objective = resolved(base.objective, known).at(BETA)
    residual = train_cross(encoder, chosen, known, objective, group, seed=seed, progress=progress)
    fitted = replace(base, residual=residual, domain=Domain.fit(known))
    tested = base.table.take(outside)
    seen = [described[i] for i in outside]
    own = group.share(sizes := [len(one.texts) for one in seen])
    parts = [fitted.scores(seen[n], max_kl) for n in own]
    scores = np.concatenate(group.lists(own, parts, sizes, np.zeros(0)))
    share = held_out_share(scores, tested.strict())
    residual.head.data *= share  # r is linear in the head
    if share < LEAST:
        fitted = replace(fitted, residual=None, domain=None)
    return fitted, tested, tested.base + share * (scores - tested.base), share


def train_cross(
    encoder,
    rankings: Sequence[Ranking],
    table: Table,
    objective: Objective,
    group: Processes | None = None,
    *,
    epochs: int = EPOCHS,
    learning_rate: float = RATE,
    seed: int = 0,
    progress: bool = True,
) -> CrossResidual:
    """A copy of `encoder` fine-tuned on `rankings`; `table` holds the same ones, in the same order.

    The head alone first, by `solve`; then `epochs` of AdamW (arXiv 1711.05101) on whole lists, at most
    DOCUMENTS documents a step, while rates rise for WARM_UP of the steps and then fall to 0. No epochs leave
    it the retriever. The same seed and number of threads give the same weights. A progress bar shows the
    loss, averaged over some ten steps. `group`: the processes among which a step's lists are divided; there
    is work for as many as it has lists. Raises ValueError where table and rankings differ in size, and for a
    loss that became infinite.
    """
    sizes = np.bincount(table.of_list, minlength=len(table))
    if [len(ranking.passages) for ranking in rankings] != sizes.tolist():
        raise ValueError(f"{len(rankings)} rankings for a table of {len(table)}: their lists must agree")
    residual, group = CrossResidual(encoder), group or Processes()
    telling = np.unique(table.pair_list)  # a list without a pair teaches nothing
    if not epochs or not len(telling):
        return residual
    texts = {n: [passage.full_text for passage in rankings[n].passages] for n in telling.tolist()}
    rows = {n: residual.tokens(rankings[n].query, texts[n]) for n in texts}
    progress = progress and group.main
    rng = np.random.default_rng(seed)
    steps = [lists for _ in range(epochs) for lists in _steps(rng.permutation(telling), sizes)]
    with tqdm(total=1 + len(steps), desc="training", unit="step", disable=not progress, leave=False) as bar:
        _fit_head(residual, list(rows.values()), table.take(telling), objective, group)
        bar.update()
        _fine_tune(residual, rows, steps, table, objective, learning_rate, group, bar)
    return residual


def _fit_head(residual, rows: list[list[dict]], table: Table, objective: Objective, group: Processes) -> None:
    """The head at its optimum, and `first`, for the encoder as it is. `rows`: of each list."""
    sizes, none = [*map(len, rows)], np.zeros((0, len(residual.head)))
    own = group.share([_tokens(some) for some in rows])
    parts = []
    if own:
        with torch.inference_mode():
            values = residual.pooled(list(chain(*(rows[n] for n in own)))).double().cpu().numpy()
        parts = np.split(values, np.cumsum([sizes[n] for n in own])[:-1])
    values = centred(np.concatenate(group.lists(own, parts, sizes, none)), table.of_list)
    spread = np.sqrt((values**2).mean()) or 1.0
    with one_thread():
        w = solve(values / spread, table, objective, RIDGE)
    residual.head.data.copy_(torch.from_numpy(w[:-1] / spread))
    residual.first = float(w[-1])


def _fine_tune(
    residual, rows, steps, table: Table, objective: Objective, rate: float, group: Processes, bar: tqdm
) -> None:
    first = torch.tensor(residual.first, dtype=torch.float64, requires_grad=objective.first)
    weights = [*residual.trained().values(), residual.head, first]
    groups = [
        {"params": weights[:-2], "lr": rate},
        {"params": [residual.head], "lr": HEAD_RATE},
        {"params": [first], "lr": FIRST_RATE, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _slope(step, len(steps)))
    shown = None
    for lists in steps:
        known = table.take(lists)
        added = _shared(residual, [rows[n] for n in lists.tolist()], group)
        loss = objective(known, known.base + added.detach().numpy())(added, first).mean()
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item():g}: try a smaller learning rate or another loss")
        optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
        group.sum_gradients(weights[:-1])  # that of `first` is whole in each
        torch.nn.utils.clip_grad_norm_(weights, LONGEST_STEP)
        optimizer.step()
        schedule.step()
        shown = loss.item() if shown is None else 0.9 * shown + 0.1 * loss.item()
        bar.set_postfix(loss=f"{shown:.3f}", refresh=False)
        bar.update()
    residual.first = first.item()


def _shared(residual: CrossResidual, rows: list[list[dict]], group: Processes) -> Tensor:
    """r of all documents of these lists, (n,), of which each process reads some."""
    own, starts = group.share([_tokens(some) for some in rows]), np.cumsum([0, *map(len, rows)])
    part = torch.zeros(0, dtype=torch.float64)
    if own:
        part = residual.residuals([row for n in own for row in rows[n]]).double().cpu()
    return group.whole(part, [at for n in own for at in range(starts[n], starts[n + 1])], int(starts[-1]))


def _tokens(rows: list[dict]) -> int:
    return sum(len(row["input_ids"]) for row in rows)


def _slope(step: int, steps: int) -> float:
    """The share of its rate that a step gets: up to 1 in the first WARM_UP of them, then down to 0."""
    return min((step + 1) / (WARM_UP * steps + 1), (steps - step) / ((1 - WARM_UP) * steps))


def _steps(lists: np.ndarray, sizes: np.ndarray) -> Iterator[np.ndarray]:
    """Lists, in this order, in groups of at most DOCUMENTS documents; each group sorted, as `take` sorts."""
    group: list[int] = []
    for n in lists.tolist():
        if group and sizes[[*group, n]].sum() > DOCUMENTS:
            yield np.sort(group)
            group = []
        group.append(n)
    yield np.sort(group)


def _upper(model: torch.nn.Module) -> set[str]:
    """The names of the weights of the upper layers; embeddings and pooler are not among them."""
    name, layers = next(x for x in model.named_modules() if isinstance(x[1], torch.nn.ModuleList))
    upper = range(int(FROZEN * len(layers)), len(layers))
    return {f"{name}.{i}.{weight}" for i in upper for weight, _ in layers[i].named_parameters()}
