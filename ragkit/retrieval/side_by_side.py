"""Many batches, each computed by one thread, rather than one after another by all threads.

Threads that share a product wait for each other after every one, fifty times a batch; and where other
processes run beside, for the one that has no core just now. Threads with a batch each never wait. What they
compute is the same to the last bit, as long as a product's sums are not parted among threads, which oneDNN
does only for a few rows.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import torch

# Batches a thread. oneDNN keeps its programs by the number of threads, too: a chat that had both kinds, for
# the documents of each question, grew by 26 MB more in 80 turns.
MANY = 4


def side_by_side(work: Callable, items: Sequence, threads: int) -> Iterator:
    """`work(item)` of each of `items`, in their order: `threads` at once, in threads of one core each.

    The last ones, when too few for all threads, are computed here one by one; and all of them, where there
    are not MANY for each thread. No more than two a thread wait to be taken. What `work` raises is raised
    here; then, and when the iterator is closed, no more is begun.
    """
    together = len(items) - len(items) % threads if 1 < threads <= len(items) / MANY else 0
    if together:
        pool = ThreadPoolExecutor(threads, initializer=_alone, initargs=(torch.get_num_threads(),))
        waiting: deque = deque()
        try:
            for item in items[:together]:
                waiting.append(pool.submit(work, item))
                if len(waiting) == 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
    yield from map(work, items[together:])


def _alone(others: int) -> None:
    """This thread computes by itself. torch's setting is a thread's own, and also what a thread takes when it
    first comes to torch: so this one comes first, and another, which ends then, says `others` again."""
    torch.get_num_threads()
    torch.set_num_threads(1)
    again = Thread(target=torch.set_num_threads, args=(others,))
    again.start()
    again.join()
