"""The chat under Voila in a real browser, with the world cut off. Skips where Chromium or Voila is not there.

With RAGKIT_PICTURES=folder the tests leave pictures of what they see there.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import psutil
import pytest

from tests.test_browser import ROOT, page, pytestmark, sync_api  # noqa: F401

pytest.importorskip("voila", reason="Voila is not installed: pip install -e .[app]")
expect = sync_api.expect
SLOW = 240  # seconds: what may take long on a busy machine
PICTURES = os.environ.get("RAGKIT_PICTURES")


class Served:
    """A server of its own, with nobody's settings. `.address`, from what it says; `.log`: what is kept."""

    def __init__(self, home: Path, command: list[str]):
        from ragkit.generation.smollm2 import base_folder

        self.log, self._said = home / "log", home / "said.txt"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        folders = {"HOME": home, "IPYTHONDIR": home / "ipython", "RAGKIT_LOG": self.log}
        folders |= {f"JUPYTER_{kind}_DIR": home / kind.lower() for kind in ("CONFIG", "DATA", "RUNTIME")}
        folders |= {"RAGKIT_CACHE": base_folder(progress=False).parent}
        environment = os.environ | {key: str(value) for key, value in folders.items()}
        with open(self._said, "w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, "--no-browser", f"--port={port}"],
                cwd=ROOT, env=environment, stdout=said, stderr=said,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._said.read_text(encoding="utf-8")

    @property
    def address(self) -> str:
        until(lambda: "http://" in self.said or self.process.poll() is not None)
        return re.search(r"http://localhost:\S+", self.said)[0]

    @property
    def kernels(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def until(happened, seconds: float = SLOW) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(*command: str) -> Served:
        servers.append(Served(tmp_path, list(command)))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture
def outside(page):  # noqa: F811
    """Addresses on other machines that were asked for something. None of them answers."""
    asked = []

    def only_here(route) -> None:
        if re.match(r"(?:https?|wss?)://(?:localhost|127\.0\.0\.1)[:/]", route.request.url):
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    page.context.route("**/*", only_here)
    page.on("websocket", lambda line: "//localhost:" in line.url or asked.append(line.url))
    return asked


def open_app(page, address: str):  # noqa: F811
    page.goto(address, wait_until="commit")  # it loads until its cells have run
    panel = page.locator(".rk-panel").first
    expect(panel).to_be_visible(timeout=SLOW * 1000)
    return panel


def ask(page, panel, text: str) -> None:  # noqa: F811
    panel.get_by_role("textbox", name="Question").fill(text)
    page.keyboard.press("Enter")
    expect(panel.get_by_role("status").last).to_contain_text("Answered in", timeout=SLOW * 1000)


def leave(page) -> None:  # noqa: F811
    """Close the page as its reader does; the browser stays."""
    page.context.new_page()
    page.close(run_before_unload=True)


def picture(page, name: str) -> None:  # noqa: F811
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(PICTURES) / f"app-{name}.png")


def test_the_app_answers_keeps_the_conversation_and_ends(page, serve, outside):  # noqa: F811
    server = serve("ragkit", "app", "--generator", "tiny-rag-lm")
    address = server.address
    assert f"is kept in {server.log}" in server.said and not server.kernels
    panel = open_app(page, address)
    picture(page, "start")
    ask(page, panel, "What does beta control in DPO?")
    expect(panel).to_contain_text("β")
    picture(page, "answer")
    assert outside == [] and len(server.kernels) == 1

    # The page is closed, and its kernel ends at once, long before idle ones are culled.
    context = page.context
    leave(page)
    until(lambda: not server.kernels, 90)

    # Another page, another kernel: the conversation is there.
    again = context.pages[-1]
    panel = open_app(again, address)
    expect(panel).to_contain_text("What does beta control in DPO?")
    assert len(server.kernels) == 1 and list(server.log.glob("*.jsonl"))

    kernels = server.kernels
    assert server.stop() == 0
    assert not any(kernel.is_running() for kernel in kernels)
    assert "Traceback" not in server.said and len(server.said.splitlines()) == 2


def test_strangers_start_no_kernel(serve):
    server = serve("ragkit", "app", "--generator", "tiny-rag-lm")
    plain = server.address.split("?")[0]
    with urllib.request.urlopen(plain, timeout=60) as reply:  # without the token: a page to log in
        assert "/login" in reply.url
    rebound = urllib.request.Request(server.address, headers={"Host": "example.org"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(rebound, timeout=60)
    assert not server.kernels


def test_the_notebook_under_voila_is_the_app_alone(page, serve, outside):  # noqa: F811
    soon = ["--MappingKernelManager.cull_idle_timeout=30", "--MappingKernelManager.cull_interval=1"]
    server = serve("voila", "notebooks/06_chat_app.ipynb", *soon)
    panel = open_app(page, server.address)
    ask(page, panel, "What does beta control in DPO?")
    expect(page.locator(".rk-panel .rk-panel")).to_have_count(0)
    picture(page, "voila")
    # Of the course nothing shows: no prose, no visitor, no figure.
    assert "visitor" not in page.inner_text("body")
    expect(page.locator("h1, h2, img")).to_have_count(0)
    assert outside == []
    assert list(server.log.glob("*.jsonl"))

    # This page's farewell is refused (voila#1458): culling ends its kernel.
    leave(page)
    until(lambda: not server.kernels)


def test_formulas_and_icons_draw_with_the_world_cut_off(page, serve, outside, tmp_path):  # noqa: F811
    source = (
        "import ipywidgets\n"
        "from IPython.display import Math, display\n"
        r"display(Math(r'-\log\sigma(h\Delta)'))" "\n"
        "ipywidgets.VBox([ipywidgets.HTMLMath(r'$\\beta$'), ipywidgets.Button(icon='check')])"
    )  # fmt: skip
    cell, kernel = (
        nbformat.v4.new_code_cell(source),
        {"name": "python3", "display_name": "", "language": "python"},
    )
    path = tmp_path / "formulas.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path)
    server = serve("voila", str(path))
    page.goto(server.address, wait_until="commit")
    expect(page.locator("mjx-container")).to_have_count(2, timeout=SLOW * 1000)
    expect(page.locator("button i.fa-check")).to_be_visible()
    font = "() => getComputedStyle(document.querySelector('i.fa-check'), '::before').fontFamily"
    name = page.evaluate(font).strip('"')
    loaded = "name => [...document.fonts].some(f => f.family.includes(name) && f.status === 'loaded')"
    page.wait_for_function(loaded, arg=name)
    picture(page, "formulas")
    assert outside == []
