"""What several test files use beside the fixtures of conftest.py."""

import hashlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np

from ragkit.retrieval.corpus import Hit, Passage

# Two processes on CPUs. With --cpu accelerate starts one, whatever the number.
LAUNCHERS = {
    "accelerate": "accelerate.commands.launch --multi_gpu --num_processes 2 --main_process_port 0".split(),
    "torchrun": "torch.distributed.run --standalone --nproc-per-node 2".split(),
}
WORDS = "beta margin reward policy reference loss click rank query passage".split()


class FakeEncoder:
    """An encoder without a model: a text's vector is drawn from a hash of the text."""

    name = "fake"
    dimension = 16

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.fingerprint = hashlib.sha256(f"fake {seed}".encode()).hexdigest()

    def encode_query(self, query: str) -> np.ndarray:
        digest = hashlib.sha256(f"{self.seed} {query}".encode()).digest()
        vector = np.random.default_rng(list(digest)).normal(size=self.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def encode_passages(self, texts: list[str], *, progress: bool = True) -> np.ndarray:
        vectors = [self.encode_query(text) for text in texts]
        return np.array(vectors, dtype=np.float32).reshape(-1, self.dimension)


def passages(*texts: str, first: int = 0) -> list[Passage]:
    """Passages with ids p0, p1, …"""
    return [Passage(f"p{number}", text) for number, text in enumerate(texts, first)]


def hits(*texts: str) -> list[Hit]:
    """Hits in this order, best first."""
    return [Hit(passage, 1 / rank, rank) for rank, passage in enumerate(passages(*texts), 1)]


def small_smollm2(layers: int):
    """A transformers model with SmolLM2's tokens and the shape of its blocks, in small random numbers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=24,
        num_hidden_layers=layers,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=32,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def texts(number: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, 6)) + f" {n}" for n in range(number)]


@contextmanager
def claims_of(generator) -> Iterator[list]:
    """Gets each `Claim` that the generator's reader makes inside; none of a generator without a reader."""
    claims: list = []
    if not generator.reader:
        yield claims
        return
    make = generator.reader.claims

    def noted(*given):
        for claim in make(*given):
            claims.append(claim)
            yield claim

    with patch.object(generator.reader, "claims", noted):
        yield claims


def die_at(step: int, *events: str) -> None:
    """This process is killed just before the `step`-th time, counted from 0, that one of `events` happens."""
    left = itertools.count(step, -1)

    def hook(event, arguments):
        if event in events and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_a_child(work: Callable[[], object]) -> int:
    """The id of a process that is forked for `work`."""
    if (child := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def killed_at_every_step(begin: Callable[[], object], save: Callable[[], object]) -> Iterator[bool]:
    """`begin()`, then `save()` in a process that is killed just before it opens, renames or removes a file:
    the first time, then the second, and so on, until it comes through. Each time whether it did."""
    for step in itertools.count():
        begin()
        child = in_a_child(lambda step=step: (die_at(step, "open", "os.rename", "os.remove"), save()))
        code = os.waitpid(child, 0)[1]
        assert code in (0, signal.SIGKILL)
        yield code == 0
        if code == 0:
            return
