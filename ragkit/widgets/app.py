"""The chat as a page of its own in the browser, served by Voila to this machine alone."""

import getpass
import logging
import os
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

from IPython.display import HTML

from ragkit.assistant import Assistant
from ragkit.preferences.log import DEFAULT_ANNOTATOR, PreferenceLog
from ragkit.retrieval.corpus import DATA
from ragkit.widgets.chat import ChatApp
from ragkit.widgets.parts import block

PORT = 8866
SHIPPED = DATA / "index"
SETTINGS = DATA.parent / "voila.json"  # where `voila notebooks/…` looks, too: one set for both
EXAMPLES = (
    "What does beta control in DPO?",
    "Why does HNSW need so much memory?",
    "How do I measure the agreement of two annotators?",
)
_PLACES = ("library", "log", "generator", "reranker")


def own_log(folder: str | Path | None = None, name: str | None = None) -> PreferenceLog:
    """The log of whoever sits here, which the app goes on with from one day to the next.

    `folder`: by default `$RAGKIT_LOG`, or else `ragkit-preferences` in their home; `name`: by default the one
    by which they logged in to this machine.
    """
    folder = folder or os.environ.get("RAGKIT_LOG") or "~/ragkit-preferences"
    return PreferenceLog(folder, name or _login())


def chat(*, k: int, log, name=None, library=SHIPPED, generator=None, reranker=None):
    """The app, from what `own_log`, `Assistant.load` and `ChatApp` take; or else what is wrong, in words."""
    try:
        assistant = Assistant.load(library, generator, reranker=reranker)
        examples = EXAMPLES if Path(library) == SHIPPED else ()
        return ChatApp(assistant, own_log(log, name), k, examples=examples)
    except (OSError, ValueError) as error:
        return HTML(block(f"The chat could not be opened: {error}"))


def serve(*, port: int = PORT, started: Callable[[str], None], browser: bool = True, **settings) -> None:
    """Serve `chat(**settings)` until Ctrl-C. Each page that is opened has a kernel, which ends with it.

    `started(address)` is called once the server listens; `port`: one near it, where it is taken. Raises
    OSError where Voila is not installed.
    """
    try:
        from voila.app import Voila
    except ModuleNotFoundError as error:
        if error.name not in ("voila", "voila.app"):
            raise
        raise OSError('the app needs Voila, which is not installed: pip install -e ".[app]"') from error

    def listening() -> None:
        started(server.display_url)
        if browser:
            threading.Thread(target=webbrowser.open, args=[server.display_url], daemon=True).start()

    def greet(request, **_) -> None:
        # A page that is closed says so, and is heard where it has a cookie that nothing else in Voila sets.
        _ = request.xsrf_token

    logging.getLogger("tornado").setLevel("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        page = _page(Path(folder), settings)
        server = Voila(config_file_paths=[str(SETTINGS.parent)], notebook_path=str(page), port=port)
        server.auto_token, server.log_level = True, "ERROR"
        if os.name == "posix":  # sockets that nobody else on this machine can read; kernels warn of others
            server.config.KernelManager.transport = "ipc"
        server.initialize([])
        server.voila_configuration.prelaunch_hook = greet
        server.launch_browser = listening
        server.start()


def _page(folder: Path, settings: dict) -> Path:
    """A notebook of one cell. Its kernel runs in another folder, so places are given in full."""
    import nbformat

    known = settings | {name: _absolute(settings[name]) for name in _PLACES if settings.get(name)}
    call = f"chat({', '.join(f'{name}={value!r}' for name, value in known.items())})"
    cell = nbformat.v4.new_code_cell(f"from ragkit.widgets.app import chat\n\n{call}")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "ragkit.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path)
    return path


def _absolute(place: str | Path) -> str:
    path = Path(place).expanduser()
    return str(path.resolve() if path.exists() else place)  # else the name of a model


def _login() -> str:
    try:
        return getpass.getuser().strip() or DEFAULT_ANNOTATOR
    except (ImportError, KeyError, OSError):  # nobody that the system knows
        return DEFAULT_ANNOTATOR
