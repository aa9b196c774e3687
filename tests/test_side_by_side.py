"""Batches side by side: one thread each, in order, and all else as it was."""

from itertools import islice
from threading import Barrier, Event, Thread, get_ident

import numpy as np
import pytest
import torch

import ragkit.retrieval.encoder
from ragkit import Encoder
from ragkit.retrieval.side_by_side import side_by_side
from tests.benchmarks.encoding import mixed_passages


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_two_at_once_in_order_with_one_thread_each(two_threads):
    both = Barrier(2, timeout=60)  # passed only if two are at it

    def work(n):
        both.wait()
        return n, torch.get_num_threads(), get_ident() == here

    here = get_ident()
    assert list(side_by_side(work, range(8), 2)) == [(n, 1, False) for n in range(8)]


def test_who_comes_to_torch_later_has_all_threads(two_threads):
    found = []

    def another():
        found.append(torch.get_num_threads())

    def work(n):
        thread = Thread(target=another)
        thread.start()
        thread.join()

    assert list(side_by_side(work, range(4), 2)) == [None] * 4
    assert found == [2] * 4 and torch.get_num_threads() == 2


def test_what_is_too_little_for_all_is_computed_here_by_all(two_threads):
    def work(n):
        return get_ident() == here, torch.get_num_threads()

    here = get_ident()
    assert list(side_by_side(work, range(9), 2)) == [(False, 1)] * 8 + [(True, 2)]
    assert list(side_by_side(work, range(7), 2)) == [(True, 2)] * 7  # few of them
    assert list(side_by_side(work, range(3), 1)) == [(True, 2)] * 3
    assert list(side_by_side(work, range(1), 2)) == [(True, 2)] and not list(side_by_side(work, [], 2))


def test_an_error_comes_through_and_ends_it(two_threads):
    begun = []

    def work(n):
        begun.append(n)
        if n == 3:
            raise MemoryError("the third")
        return n

    found = side_by_side(work, range(100), 2)
    assert list(islice(found, 3)) == [0, 1, 2]
    with pytest.raises(MemoryError, match="the third"):
        next(found)
    assert len(begun) <= 8


def test_nothing_runs_on_when_it_is_closed(two_threads):
    begun, go = [], Event()

    def work(n):
        begun.append(n)
        assert n < 1 or go.wait(60)
        return n

    found = side_by_side(work, range(100), 2)
    assert next(found) == 0
    go.set()
    found.close()
    count = len(begun)
    assert count <= 4 and len(begun) == count


def test_vectors_are_the_same_to_the_last_bit(two_threads, monkeypatch):
    monkeypatch.setattr(ragkit.retrieval.encoder, "TOKENS_PER_BATCH", {"cpu": 256})
    forgetful = Encoder(memory=0)
    texts = mixed_passages(12)
    places = [[(0, 10), (10, len(text))] for text in texts]
    together = forgetful.encode(texts, warn=False), *sum(forgetful.encode_sentences(texts, places), ())
    torch.set_num_threads(1)
    alone = forgetful.encode(texts, warn=False), *sum(forgetful.encode_sentences(texts, places), ())
    for ours, theirs in zip(together, alone, strict=True):
        assert np.array_equal(ours, theirs)
