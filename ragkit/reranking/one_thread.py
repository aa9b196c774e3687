"""Work in steps so small that waking a second thread takes longer than they do."""

from contextlib import contextmanager


@contextmanager
def one_thread():
    """One thread for PyTorch, BLAS and OpenMP inside; as before after. On a busy machine, where threads wait
    for each other, a fit of a linear reranker is ten times faster so."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    try:
        with threadpool_limits(1):
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(before)
