"""The chat as a page of its own in the browser, served by Voila to this machine alone."""

import logging
import os
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

from IPython.display import HTML

from ragkit.assistant import Assistant
from ragkit.preferences.log import PreferenceLog
from ragkit.retrieval.corpus import DATA
from ragkit.widgets.chat import ChatApp
from ragkit.widgets.panel import block

PORT = 8866
SETTINGS = DATA.parent / "voila.json"  # where `voila notebooks/…` looks, too: one set for both
# All that the page runs; what it is called with is known before.
_CELL = "from ragkit.widgets.app import chat\n\nchat({})"


def log_folder() -> Path:
    """Where the app keeps what a person says: `$RAGKIT_LOG`, or else `ragkit-preferences` in their home."""
    return Path(os.environ.get("RAGKIT_LOG") or "~/ragkit-preferences").expanduser()


def chat(library, log, k: int, generator: str | None = None, reranker: str | None = None):
    """The app, from what `Assistant.load` and `ChatApp` take; or else what is wrong, in words."""
    try:
        assistant = Assistant.load(library, generator, reranker=reranker)
        return ChatApp(assistant, PreferenceLog(log), k)
    except (OSError, ValueError) as error:
        return HTML(block(f"The chat could not be opened: {error}"))


def serve(*, library, log, k: int, generator=None, reranker=None, port=PORT, started: Callable, browser=True):
    """Serve the chat until Ctrl-C. Each page that is opened has a kernel of its own, which ends with it.

    `started(address)` is called once the server listens; `port`: one near it, where it is taken. Raises
    OSError where Voila is not installed.
    """
    try:
        from voila.app import Voila
    except ModuleNotFoundError as error:
        if error.name != "voila":
            raise
        raise OSError('the app needs Voila, which is not installed: pip install -e ".[app]"') from error
    import nbformat

    logging.getLogger("tornado").setLevel("ERROR")

    def listening():
        started(server.display_url)
        if browser:
            threading.Thread(target=webbrowser.open, args=[server.display_url], daemon=True).start()

    def greet(request, **_):
        # What a page that is closed sends needs the cookie that this sets; nothing else in Voila sets it.
        _ = request.xsrf_token

    # The kernel runs in another folder.
    places = {"library": library, "log": log, "generator": generator, "reranker": reranker}
    known = {name: _absolute(place) for name, place in places.items() if place is not None} | {"k": k}
    cell = nbformat.v4.new_code_cell(
        _CELL.format(", ".join(f"{name}={value!r}" for name, value in known.items()))
    )
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "ragkit.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), page)
        server = Voila(config_file_paths=[str(SETTINGS.parent)], notebook_path=str(page), port=port)
        server.auto_token, server.log_level = True, "ERROR"
        if os.name == "posix":  # sockets that nobody else on this machine can read; kernels warn of others
            server.config.KernelManager.transport = "ipc"
        server.initialize([])
        server.voila_configuration.prelaunch_hook = greet
        server.launch_browser = listening
        server.start()


def _absolute(place) -> str:
    path = Path(place).expanduser()
    return str(path.resolve()) if path.exists() else str(place)
