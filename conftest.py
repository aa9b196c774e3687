"""For tests and notebooks: one environment, and exercises checked in the kernel that nbval has started."""

import os

import pytest
from nbval.plugin import IPyNbFile

from tests.run_notebooks import ENVIRONMENT

os.environ.update(ENVIRONMENT)  # before anything imports torch or transformers, or starts a kernel


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    from tests.exercises import Notebook

    found = yield
    return [Notebook.from_parent(parent, path=file_path) if type(f) is IPyNbFile else f for f in found]
