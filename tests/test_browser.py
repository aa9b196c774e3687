"""JupyterLab in a real browser: what a reader does on the first day. Skips where there is no Chromium."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from ragkit.generation.smollm2 import base_folder

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e .[browser]"
)
sync_api.expect.set_options(timeout=30_000)  # on a busy machine five seconds are little
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: the browser tests need one")
ROOT = Path(__file__).parent.parent
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab of its own over a copy of the notebooks: nobody's settings, nobody's files."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "notebooks", ignore=shutil.ignore_patterns(".*"))
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}  # no pop-up over the page
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    folders = {
        "HOME": home,
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "IPYTHONDIR": home / "ipython",
    }
    with contextlib.suppress(OSError):  # where it is installed: converted once, not in each home anew
        folders["RAGKIT_CACHE"] = base_folder(progress=False).parent
    environment = os.environ | {key: str(value) for key, value in folders.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"]
    with open(home / "lab.log", "w") as log:
        server = subprocess.Popen(command, cwd=home / "notebooks", env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (home / "lab.log").read_text()
                time.sleep(0.5)
        yield address, token
    finally:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:  # an open page can keep it; its kernels end when it does
            server.kill()
            server.wait()


@pytest.fixture
def page(tmp_path):
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            args=ARGUMENTS,
            viewport={"width": 1280, "height": 900},
        )
        yield context.pages[0]
        context.close()


# The notebook's panel, wherever the focus is: `currentWidget` is null while JupyterLab restores its layout.
PANEL = """[...(window.jupyterapp?.shell?.widgets('main') ?? [])]
    .find(widget => widget.context?.path?.endsWith('.ipynb'))"""


def open_notebook(page, lab, name: str) -> None:
    address, token = lab
    # A workspace of its own: `?reset` reloads the page where its address is routed twice before the reset is
    # done, on a busy machine after the notebook has opened.
    page.goto(f"{address}/lab/workspaces/{secrets.token_hex(4)}/tree/{name}?token={token}")
    page.wait_for_function(
        """async () => {
            await window.jupyterapp?.restored;
            const panel = PANEL;
            if (!panel) return false;
            await panel.context.ready;
            await panel.sessionContext.ready;
            await panel.sessionContext.session?.kernel?.info;
            window.jupyterapp.shell.activateById(panel.id);
            const focused = window.jupyterapp.shell.currentWidget === panel;
            return focused && !!panel.sessionContext.session?.kernel;
        }""".replace("PANEL", PANEL),
        timeout=90_000,
    )


def test_the_quickstart_runs_in_jupyterlab_and_answers(page, lab):
    open_notebook(page, lab, "00_quickstart.ipynb")
    page.wait_for_function(
        "() => window.jupyterapp?.commands"
    )  # gone for a moment where the page is loaded anew
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    # JupyterLab renders only the cells in view, so the outputs are read from the notebook's model.
    page.wait_for_function(
        """() => {
            const cells = [...(PANEL?.content?.model?.cells ?? [])];
            const code = cells.filter(cell => cell.type === 'code');
            const done = cell => cell.executionCount > 0 && cell.executionState !== 'running';
            return code.length && code.every(done);
        }""".replace("PANEL", PANEL),
        timeout=180_000,
    )
    outputs = page.evaluate(
        """() => [...(PANEL).content.model.cells]
            .filter(cell => cell.type === 'code')
            .flatMap(cell => cell.outputs.toJSON())""".replace("PANEL", PANEL)
    )
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert "β" in json.dumps(outputs, ensure_ascii=False)
