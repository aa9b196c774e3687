"""One batch over several processes: each reads its share, all see the whole loss, and all take one step.

`accelerate launch script.py` runs a script several times, on the same data. A batch is dealt out by whole
examples, and its log-probabilities (or scores), a few numbers, are exchanged. So each process has the loss of
the whole batch, whatever it is divided by: pairs, tokens, or a mean over other questions as in KTO. It
differentiates it in what it read itself, and the sum of these gradients over the processes is the gradient.
So nothing is weighted by shares, and a process without a share takes part with a gradient of 0.
"""

import hashlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")  # what a launcher tells each process
LONGEST_WAIT = timedelta(minutes=10)  # for a process that does not come
WELL, INTERRUPTED, FAILED = range(3)


class EndedElsewhere(RuntimeError):
    """Another process of the launch failed, or is gone."""


class InterruptedElsewhere(KeyboardInterrupt):
    """Another process of the launch was interrupted."""


def processes() -> "Processes":
    """Those that this one was launched with, or this one alone. The first call waits for the others.

    By accelerate's `PartialState`: NCCL between GPUs, Gloo between CPUs; a process group that is there
    already is used. Raises RuntimeError where accelerate was told to be one process.
    """
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    told = int(os.environ["WORLD_SIZE"]) if all(map(os.environ.get, LAUNCHED)) else 1
    count = torch.distributed.get_world_size() if there else told
    if count == 1:
        return Processes()
    from accelerate import PartialState

    # Without a GPU accelerate takes each process for the only one, unless it is told.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=LONGEST_WAIT)
    if state.num_processes != count:
        raise RuntimeError(
            f"{count} processes were launched, and accelerate was set up for {state.num_processes} before: "
            "without a GPU, make its state by PartialState(cpu=True) or Accelerator(cpu=True)"
        )
    return Processes(state)


def is_main() -> bool:
    """Whether this process is the one that draws, logs and saves; waits for none."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return not all(map(os.environ.get, LAUNCHED)) or os.environ["RANK"] == "0"


class Processes:
    """`count` processes, of which this is `number`, from 0. `state`: accelerate's, or None for one alone.

    All must make the same calls in the same order: each first asks whether all are well. Where one says that
    it ends (see `together`) or is gone, the others raise InterruptedElsewhere or EndedElsewhere.
    """

    def __init__(self, state=None):
        self._state = state
        self.number, self.count = (state.process_index, state.num_processes) if state else (0, 1)
        self.main = self.number == 0

    def share(self, costs: Sequence[float]) -> list[int]:
        """Which of a batch's examples are this process's, by increasing index, for what each costs to read:
        the longest first, each to who has least so far. The shares of all processes are the batch."""
        loads, own = [0.0] * self.count, []
        for example in sorted(range(len(costs)), key=lambda example: -costs[example]):
            least = loads.index(min(loads))
            loads[least] += costs[example]
            if least == self.number:
                own.append(example)
        return sorted(own)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes; no gradient."""
        return values if self.count == 1 else self._exchanged("reduce", values, reduction="sum")

    def from_main(self, values: Tensor) -> Tensor:
        """The main process's, for all; the others' must have its shape and type. No gradient."""
        return values if self.count == 1 else self._exchanged("broadcast", values)

    def whole(self, part: Tensor, rows: Sequence[int], size: int) -> Tensor:
        """(size, …): `part` at `rows`, which are its own, and at all others what the other processes have.

        Only `part` has a gradient: that of a loss of the whole, added up by `sum_gradients`, is the loss's.
        """
        index = torch.as_tensor(rows, dtype=torch.long, device=part.device)
        own = torch.zeros(size, *part.shape[1:], dtype=part.dtype, device=part.device)
        own = own.index_put((index,), part)
        if self.count == 1:
            return own
        return own + self.sum(own.detach()).index_fill(0, index, 0)

    def lists(
        self, own: Sequence[int], parts: Sequence[np.ndarray], sizes: Sequence[int], like: np.ndarray
    ) -> list[np.ndarray]:
        """Of each list of `sizes`, (size, …): `parts` are those of the lists `own`. `like`: (0, …), an array
        of none, since a process may have no list."""
        if self.count == 1:
            return [*parts]
        starts = np.cumsum([0, *sizes])
        rows = [row for n in own for row in range(starts[n], starts[n + 1])]
        found = self.whole(torch.from_numpy(np.concatenate([like, *parts])), rows, int(starts[-1]))
        return np.split(found.numpy(), starts[1:-1])

    def sum_gradients(self, weights: Sequence[Tensor]) -> None:
        """Each weight's gradient becomes the sum over all processes, in one exchange."""
        if self.count == 1:
            return
        grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        total = self.sum(torch.cat([grad.flatten() for grad in grads]))
        for weight, grad in zip(weights, total.split([weight.numel() for weight in weights])):
            weight.grad = grad.view_as(weight).to(weight.dtype)

    def refuse_others(self, what: str, *facts) -> None:
        """Raises ValueError, in all, where `facts` are not the same in all: no sum would mean anything."""
        if self.count == 1:
            return
        own = int.from_bytes(hashlib.sha256(repr(facts).encode()).digest()[:5], "big")
        if self.sum(torch.tensor([own])).item() != own * self.count:
            raise ValueError(
                f"the {self.count} processes of this launch were given different {what}: give all of it to "
                "each process; what they share is divided here"
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """What ends one process inside ends all of them, and none waits for who does not come any more.

        All leave it together. Raises InterruptedElsewhere and EndedElsewhere as all exchanges do.
        """
        if self.count == 1:
            yield
            return
        try:
            yield
        except (EndedElsewhere, InterruptedElsewhere):
            raise
        except BaseException as error:
            with suppress(EndedElsewhere), _after_interrupts():
                self._say(INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED)
            raise
        with _after_interrupts():
            self._say(WELL)

    def _exchanged(self, how: str, values: Tensor, **settings) -> Tensor:
        with _after_interrupts():
            self._say(WELL)
            given = values.detach().to(self._state.device, copy=True)
            with self._peers():
                return getattr(_accelerate(), how)(given, **settings).to(values.device)

    def _say(self, word: int) -> None:
        """Tell the others how it goes here; who is well raises what it hears."""
        said = torch.zeros(self.count, device=self._state.device)
        said[self.number] = word
        with self._peers():
            said = _accelerate().reduce(said, "sum").tolist()
        if word == WELL and FAILED in said:
            raise EndedElsewhere(f"process {said.index(FAILED)} of {self.count} failed: see what it says")
        if word == WELL and INTERRUPTED in said:
            raise InterruptedElsewhere(f"process {said.index(INTERRUPTED)} of {self.count} was interrupted")

    @contextmanager
    def _peers(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of torch.distributed: a connection closed, or time is up
            raise EndedElsewhere(
                f"another of {self.count} processes is gone, or is doing something else: see what it says "
                f"({error})"
            ) from error


def _accelerate():
    from accelerate.utils import operations  # takes a second, and is needed by several processes alone

    return operations


@contextmanager
def _after_interrupts() -> Iterator[None]:
    """An interrupt (Ctrl-C) waits for the end of the exchange, in the middle of which others would hang."""
    came, before = [], signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, lambda *given: came.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        before(*came[0])
