"""Execute the notebooks in place, as nbval will: `python -m tests.run_notebooks [NOTEBOOK ...]`.

Outputs are committed, since nbval compares against them. Widget state is stripped: it is large, and a viewer
refuses a notebook whose state is incomplete.
"""

import argparse
import os
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
# The environment that pytest runs under too (conftest.py), so that outputs come out alike, whatever a user's
# own settings for figures, IPython, language, clock and terminal are.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),  # pytest's two workers have a core each
    "MATPLOTLIBRC": os.devnull,
    "IPYTHONDIR": str(ROOT / ".pytest_cache" / "ipython"),
    "RAGKIT_LOG": str(ROOT / ".pytest_cache" / "log"),  # nobody's own words
    "LC_ALL": "C.UTF-8",
    "LANGUAGE": "C",
    "TZ": "UTC",
    "COLUMNS": "80",
}
Path(ENVIRONMENT["IPYTHONDIR"]).mkdir(parents=True, exist_ok=True)  # else IPython warns, and takes another


def run(path: Path, timeout: int = 600) -> float:
    """Execute one notebook in place; seconds it took. A cell that raises leaves the file as it was."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    started = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        coalesce_streams=True,  # what is printed at once stays one output, however busy the machine is
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        for key in ("execution", "trusted"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):  # with no kernel, or no trust, a picture can be shown
                for live in ("application/vnd.jupyter.widget-view+json", "text/html"):
                    output.data.pop(live, None)
    nbformat.write(notebook, path)
    return time.perf_counter() - started


def cpu_seconds() -> float:
    """What kernels that have ended took of the CPU, which a busy machine hardly changes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    os.environ.update(ENVIRONMENT)
    from ragkit.generation.smollm2 import base_folder

    base_folder()  # else the first notebook would show how it is made
    for path in parser.parse_args().notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        before = cpu_seconds()
        seconds = run(path)
        print(f"{path.name}: {seconds:.0f} s, {cpu_seconds() - before:.0f} s of CPU time", file=sys.stderr)


if __name__ == "__main__":
    main()
