"""For tests and notebooks: one environment, the longest files first, and exercises checked in the kernel that
nbval has started."""

import os

import pytest
from nbval.plugin import IPyNbFile

from tests.run_notebooks import ENVIRONMENT, ROOT

os.environ.update(ENVIRONMENT)  # before anything imports torch or transformers, or starts a kernel

# Each of two processes takes the next file when it is done with one; whoever took a long one last would keep
# the other waiting. By seconds of CPU time, these take most (`pytest -n 0 --durations=15 FILE`).
LONGEST = """
notebooks/02b_inside_the_reader.ipynb tests/test_data_parallel.py notebooks/05_tune_generator.ipynb
notebooks/02c_a_larger_library.ipynb notebooks/04_train_reranker.ipynb tests/test_milvus.py
tests/test_chat_browser.py tests/test_widgets_browser.py tests/test_streaming.py tests/test_injections.py
""".split()


def pytest_collection_modifyitems(items):
    """`--no-loadscope-reorder` (pyproject.toml) lets this order stand; else files go by number of tests."""
    place = {ROOT / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place) + (item.path.suffix != ".ipynb")))


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    from tests.exercises import Notebook

    found = yield
    return [Notebook.from_parent(parent, path=file_path) if type(f) is IPyNbFile else f for f in found]
