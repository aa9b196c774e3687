"""The app as far as no browser is needed: its log, its page, what is refused before a server starts."""

import getpass
import json
import sys
from pathlib import Path

import nbformat
import pytest

from ragkit.__main__ import main
from ragkit.preferences.log import DEFAULT_ANNOTATOR
from ragkit.widgets import app

ROOT = Path(__file__).parent.parent
SETTINGS = json.loads((ROOT / "voila.json").read_text(encoding="utf-8"))
NOTEBOOK = ROOT / "notebooks" / "06_chat_app.ipynb"


@pytest.fixture
def served(monkeypatch):
    """What `serve` would have been called with; no server starts."""
    calls = []
    monkeypatch.setattr(app, "serve", lambda **settings: calls.append(settings))
    return calls


# The terminal


def test_what_is_wrong_is_said_before_a_server_starts(served, tmp_path, library_folder, capsys):
    (tmp_path / "file").write_text("not a folder")
    for wrong, said in {
        ("--library", str(tmp_path)): f"no library in '{tmp_path}'",
        ("--reranker", str(tmp_path / "none")): f"no reranker in '{tmp_path / 'none'}'",
        ("--log", str(tmp_path / "file" / "log")): f"can't be kept in {tmp_path / 'file' / 'log'}",
        ("--name", " me"): "annotator=' me'",
        ("--k", "0"): "--k 0: at least one passage",
        ("--port", "70000"): "--port 70000: a number from 1 to 65535",
    }.items():
        assert main(["app", "--library", str(library_folder), *wrong]) == 2
        out, err = capsys.readouterr()
        assert said in err and out == "" and err.startswith("ragkit: ") and err.count("\n") == 1
    assert not served


def test_the_terminal_says_where_the_chat_and_its_log_are(served, tmp_path, library_folder, capsys):
    log = tmp_path / "my log"
    command = ["app", "--library", str(library_folder), "--log", str(log), "--name", "ann", "--no-browser"]
    assert main(command) == 0
    (call,) = served
    call["started"]("http://localhost:1234/?token=abc")
    out = capsys.readouterr().out
    assert "http://localhost:1234/?token=abc" in out and f"What ann says is kept in {log}." in out
    assert log.is_dir() and call["log"] == log and call["browser"] is False and call["k"] == 3


def test_without_voila_the_terminal_says_what_to_install(monkeypatch, tmp_path, library_folder, capsys):
    monkeypatch.setitem(sys.modules, "voila", None)
    assert main(["app", "--library", str(library_folder), "--log", str(tmp_path)]) == 2
    assert 'pip install -e ".[app]"' in capsys.readouterr().err


# The log


def test_the_log_is_of_whoever_sits_here_and_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAGKIT_LOG", raising=False)
    log = app.own_log()
    assert (log.folder, log.annotator) == (tmp_path / "ragkit-preferences", "ann")
    monkeypatch.setenv("RAGKIT_LOG", str(tmp_path / "elsewhere"))
    assert app.own_log().folder == tmp_path / "elsewhere"
    log = app.own_log(tmp_path / "given", "bob")
    assert (log.folder, log.annotator) == (tmp_path / "given", "bob")


def test_nobody_that_the_system_knows_can_judge_too(monkeypatch, tmp_path):
    def unknown():
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert app.own_log(tmp_path).annotator == DEFAULT_ANNOTATOR


# The page


def test_the_page_holds_one_call_in_which_places_are_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd = "a\"b'c\\ {x} \n"
    (tmp_path / odd).mkdir()
    (tmp_path / "ann").mkdir()
    (tmp_path / "page").mkdir()
    settings = {"library": Path(odd), "log": Path(odd), "generator": "tiny-rag-lm", "reranker": None}
    notebook = nbformat.read(app._page(tmp_path / "page", settings | {"k": 4, "name": "ann"}), as_version=4)
    (cell,) = notebook.cells
    found = {}
    monkeypatch.setattr(app, "chat", lambda **settings: found.update(settings))
    exec(compile(cell.source, "page", "exec"), {})
    whole = str((tmp_path / odd).resolve())
    assert found == {
        "library": whole, "log": whole, "generator": "tiny-rag-lm", "reranker": None, "k": 4, "name": "ann",
    }  # fmt: skip


def test_what_cannot_be_opened_is_said_in_words_that_do_nothing(tmp_path):
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    said = app.chat(k=3, log=tmp_path, library=folder).data
    assert "no library in" in said and "&lt;img" in said and "<img" not in said


def test_the_page_asks_this_machine_alone():
    tornado = SETTINGS["Voila"]["tornado_settings"]
    rules = dict(rule.split(" ", 1) for rule in tornado["headers"]["Content-Security-Policy"].split("; "))
    assert set(rules["default-src"].split()) == {"'self'", "'unsafe-inline'", "data:", "blob:"}
    assert set(rules) == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert tornado["allow_remote_access"] is False


def test_a_page_that_is_gone_leaves_no_kernel():
    culling = SETTINGS["MappingKernelManager"]
    assert culling["cull_idle_timeout"] > 0 < culling["cull_interval"]
    assert culling["cull_idle_timeout"] + culling["cull_interval"] <= 180
    assert not culling.get("cull_connected")


def test_voila_leaves_out_all_of_the_course():
    (tag,) = SETTINGS["TagRemovePreprocessor"]["remove_cell_tags"]
    assert SETTINGS["TagRemovePreprocessor"]["enabled"] and SETTINGS["TemplateExporter"]["exclude_markdown"]
    code = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    left_out = [tag in cell.metadata.get("tags", []) for cell in code]
    assert left_out == [False, False] + [True] * (len(code) - 2)
    assert "ChatApp(" in code[1].source
