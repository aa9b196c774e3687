"""`python -m ragkit`: ask, index, chat, and what happens when something is wrong; what an import loads."""

import importlib
import io
import json
import os
import subprocess
import sys

import pytest

import ragkit
from ragkit.__main__ import _cited, main
from ragkit.generation.answer import Answer

QUESTION = "What does beta control in DPO?"


@pytest.fixture(scope="module")
def reading(library_folder, tiny_folder):
    return ["--library", str(library_folder), "--generator", str(tiny_folder)]


@pytest.fixture
def typed(monkeypatch):
    """Lines that stand on standard input."""
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


@pytest.fixture
def nasty_folder(tmp_path, encoder):
    """A library whose passages try to steer the terminal."""
    from ragkit.retrieval.corpus import Passage
    from ragkit.retrieval.library import Library

    passage = Passage("i\x1bd\n1", "Beta \x1b]0;owned\x07 controls \x9b31m\x7f\r DPO.", "T\x1b[2Jit\nle\x9b")
    Library.build([passage], encoder).save(tmp_path)
    return tmp_path


def controls(text: str) -> set[str]:
    return {letter for letter in text if letter != "\n" and (letter < " " or "\x7f" <= letter <= "\x9f")}


def run(*arguments: str, text: str = "", **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ragkit", *arguments],
        input=text, capture_output=True, text=True, encoding="utf-8", timeout=600,
        env=os.environ | environment,
    )  # fmt: skip


# ask


def test_ask_prints_the_answer_and_its_sources(reading, capsys):
    assert main(["ask", QUESTION, *reading, "--k", "2"]) == 0
    out, err = capsys.readouterr()
    answer, sources = out.rstrip("\n").split("\n\n")
    lines = sources.splitlines()
    assert err == ""
    assert len(lines) == 2
    [starred] = [line for line in lines if line.startswith("*")]
    assert starred[1:4] in answer
    assert lines[0][1:].startswith("[1] DPO  (dpo, 0.") and lines[1][1:4] == "[2]"


def test_ask_json_is_json_and_nothing_else(reading, capsys):
    assert main(["ask", QUESTION, *reading, "--json", "--style", "phrase"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert list(found) == [
        "query", "answer", "abstained", "citations", "evidence", "sources", "timings",
    ]  # fmt: skip
    assert found["query"] == QUESTION and found["abstained"] is False
    [cited] = found["citations"]
    assert found["answer"] in found["sources"][cited - 1]["text"]
    assert [source["rank"] for source in found["sources"]] == [1, 2, 3]
    assert set(found["sources"][0]) == {"rank", "id", "title", "score", "text"}
    assert set(found["evidence"][0]) == {"text", "hit", "score", "section", "asked"}
    assert set(found["timings"]) == {"encode", "retrieve", "rerank", "generate"}


def test_ask_in_a_process_of_its_own_is_silent_but_for_the_json(library_folder, llama_folder):
    """With a model whose recommended settings transformers would warn about, and an output that is ASCII."""
    arguments = ["--library", str(library_folder), "--generator", str(llama_folder), "--json"]
    done = run("ask", "Zürich 🙂?", *arguments, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["query"] == "Zürich 🙂?"
    assert len(found["sources"]) == 3


# index


def test_index_a_folder_then_ask_it(tmp_path, tiny_folder, capsys):
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "tea.md").write_text("# Tea\n\nGreen tea is steeped for two minutes at 80 degrees.\n")
    (notes / "coffee.txt").write_text("Espresso takes thirty seconds under nine bars of pressure.\n")
    assert main(["index", str(notes), "--out", str(tmp_path / "library")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("2 passages in ") and err == ""
    command = ["ask", "How long is green tea steeped?", "--library", str(tmp_path / "library"), "--json"]
    assert main([*command, "--generator", str(tiny_folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [source["id"] for source in found["sources"]] == ["tea.md#1", "coffee.txt#1"]


def test_index_takes_what_changed_since_the_last_time(tmp_path, capsys, encoder, monkeypatch):
    from ragkit.retrieval.library import Library

    encoded = []
    encode = type(encoder).encode_passages
    monkeypatch.setattr(
        type(encoder),
        "encode_passages",
        lambda self, texts, **settings: encoded.extend(texts) or encode(self, texts, **settings),
    )
    notes, out = tmp_path / "notes", tmp_path / "library"
    notes.mkdir()
    command = ["index", str(notes), "--out", str(out)]

    def index(*more, **texts):
        for name, text in texts.items():
            (notes / f"{name}.md").write_text(text)
        encoded.clear()
        assert main([*command, *more]) == 0
        said = capsys.readouterr()
        found = {p.id: p.text for p in Library.load(out, encoder).passages}
        return said.out, said.err, set(encoded), found

    index(a="Tea is green.", b="Coffee is black.", c="Milk is white.")
    (notes / "c.md").unlink()
    (notes / "old.txt").write_bytes(b"Caf\xe9")
    out_text, err, texts, found = index(b="Coffee is brown.", d="Water is clear.")
    assert "3 passages" in out_text and "1 new, 1 changed, 1 gone since the last time" in out_text
    assert err == "ragkit: skipped 1 of 4 files: old.txt (not UTF-8 text; save it as UTF-8)\n"
    assert texts == {"b Coffee is brown.", "d Water is clear."}
    assert found == {"a.md#1": "Tea is green.", "b.md#1": "Coffee is brown.", "d.md#1": "Water is clear."}
    library = Library.load(out, encoder)
    fresh = Library.build(library.passages, encoder, progress=False)
    assert abs(library.vectors - fresh.vectors).max() < 1e-6
    assert index("--full")[2] == {"a Tea is green.", "b Coffee is brown.", "d Water is clear."}


def test_sources_tell_the_section(tmp_path, tiny_folder, encoder, capsys):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "tea.md").write_text(
        "# Tea\n\n## Green\n\n### Hot\n\nIt is steeped for two minutes.\n"
    )
    assert main(["index", str(tmp_path / "notes"), "--out", str(tmp_path / "out")]) == 0
    question = ["ask", "How long is tea steeped?", "--library", str(tmp_path / "out")]
    assert main([*question, "--generator", str(tiny_folder)]) == 0
    assert "[1] Tea > Green > Hot  (tea.md#1, " in capsys.readouterr().out


# chat


def test_chat_completes_a_follow_up_and_ends_with_an_empty_line(reading, capsys, typed):
    typed(f"{QUESTION}\nok, thanks!\nand what about IPO?\n\nnever asked\n")
    assert main(["chat", *reading]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("5 passages. Ask a question;")
    assert out.count("(read as: ") == 1
    assert "(read as: What does beta control in IPO?)" in out
    assert out.count("*[") == 2 and "never" not in out
    assert out.count("Nothing was asked") == 1  # thanks are not searched for, and the question before stays
    assert err == ""


def test_chat_goes_on_after_a_question_that_cannot_be_answered(reading, capsys, typed):
    typed(f"{'why ' * 3000}\n{QUESTION}\n")
    assert main(["chat", *reading, "--k", "1"]) == 0
    out, err = capsys.readouterr()
    assert "ragkit: the query leaves no room" in err
    assert all(line.startswith("ragkit: ") for line in err.splitlines())
    assert "(read as" not in out and "*[1] DPO" in out


def test_chat_over_a_pipe_ends_with_the_input(reading):
    done = run("chat", *reading, "--k", "1", text=QUESTION + "\nwhy is it used?")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"(read as: {QUESTION} why is it used?)" in done.stdout
    assert done.stdout.count("*[1] DPO") == 2
    assert done.stdout.endswith("> \n")


def test_ctrl_c_ends_a_chat_without_a_traceback(reading, capsys, monkeypatch):
    def interrupt(prompt):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    assert main(["chat", *reading]) == 130
    assert capsys.readouterr().err == "\n"


# Control characters


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_passages_do_not_steer_the_terminal(nasty_folder, tiny_folder, capsys, typed, monkeypatch, command):
    from ragkit.generation.answer import Answer
    from ragkit.generation.generator import Generator

    def answer(self, query, hits, *, on_text=None, **settings):
        text = hits[0].passage.text
        for letter in text if on_text else "":
            on_text(letter)
        return Answer(text, [1], [], False)

    monkeypatch.setattr(Generator, "answer", answer)
    question = "What is \x1b[31mbeta?"
    typed(f"{question}\nwhy is \x9bit used?\n")
    arguments = [question] if command == "ask" else []
    assert main([command, *arguments, "--library", str(nasty_folder), "--generator", str(tiny_folder)]) == 0
    out, err = capsys.readouterr()
    assert controls(out + err) == set()
    assert "Beta \ufffd]0;owned\ufffd controls \ufffd31m\ufffd" in out
    assert "*[1] T\ufffd[2Jit le\ufffd  (i\ufffdd 1, " in out


def test_json_keeps_control_characters_escaped(nasty_folder, tiny_folder, capsys):
    arguments = ["--library", str(nasty_folder), "--generator", str(tiny_folder)]
    assert main(["ask", "beta?", *arguments, "--json"]) == 0
    out = capsys.readouterr().out
    assert controls(out) == set()
    [source] = json.loads(out)["sources"]
    assert source["title"] == "T\x1b[2Jit\nle\x9b" and "\x7f" in source["text"]


# What can go wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "why?", "--library", "{tmp}/none"], "no library in"),
        (["chat", "--library", "{tmp}/none"], "no library in"),
        (["ask", "why?", "--library", "{library}", "--k", "0"], "--k 0: at least one passage"),
        (["ask", "why?", "--library", "{library}", "--generator", "no-such-model"], "no generator 'no-such"),
        (["ask", " ", "--library", "{library}", "--generator", "{tiny}"], "a question, as a string"),
        (["index", "{tmp}", "--out", "{tmp}/out"], "no passages in"),
        (["index", "{tmp}/none", "--out", "{tmp}/out"], "no file or folder"),
        (["index", "{tmp}", "--out", "{tmp}/out", "--encoder", "no-such-encoder"], "no encoder 'no-such"),
    ],
)
def test_errors_are_one_clear_line(arguments, message, tmp_path, library_folder, tiny_folder, capsys):
    places = {"tmp": tmp_path, "library": library_folder, "tiny": tiny_folder}
    assert main([argument.format(**places) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ragkit: ") and message in err
    assert err.count("\n") == 1 and "Traceback" not in err


def test_warnings_are_one_line_too(tmp_path, llama_folder, encoder, capsys):
    from ragkit.retrieval.corpus import Passage
    from ragkit.retrieval.library import Library

    passages = [Passage(f"p{n}", f"Text {n} " + "lorem ipsum " * 60) for n in range(3)]
    Library.build(passages, encoder).save(tmp_path)
    assert main(["ask", QUESTION, "--library", str(tmp_path), "--generator", str(llama_folder)]) == 0
    err = capsys.readouterr().err
    assert err.startswith("ragkit: ") and "passages fit in the model's window" in err
    assert err.count("\n") == 1


def test_broken_bytes_in_a_question_are_replaced(reading, capsys, monkeypatch):
    assert main(["ask", "what is \udcff beta?", *reading, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["query"] == "what is ? beta?"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"what is \xff beta?\n"), encoding="utf-8"))
    assert main(["chat", *reading, "--k", "1"]) == 0
    assert "*[1]" in capsys.readouterr().out


def test_empty_files_are_no_passages(tmp_path, capsys):
    (tmp_path / "empty.md").write_text("\n")
    assert main(["index", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "no passages in" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [[], ["ask"], ["index"], ["chat"]])
def test_help_says_what_there_is(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    for word in {(): ["ask", "index", "chat"], ("index",): ["--out"]}.get(tuple(command), ["--library"]):
        assert word in out


def test_a_wrong_command_is_refused(capsys):
    for arguments in ([], ["sing"], ["ask"], ["ask", "why?", "--k", "many"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        assert "usage: python -m ragkit" in capsys.readouterr().err


# The package


def test_a_library_goes_beside_where_one_stands(tmp_path, monkeypatch, capsys):
    notes = tmp_path / "notes.jsonl"
    notes.write_text('{"_id": "a", "text": "Tea is green."}\n')
    monkeypatch.chdir(tmp_path)
    assert main(["index", str(notes)]) == 0
    assert "1 passages in notes-library" in capsys.readouterr().out
    assert (tmp_path / "notes-library").is_dir()


def test_modules_are_there_after_import_ragkit():
    code = "import ragkit; ragkit.strengths.rank_gap(); ragkit.losses.dpo_loss; ragkit.preferences.pairs_of"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_is_cheap():
    code = (
        "import sys, ragkit, ragkit.__main__; from ragkit import Passage\n"
        "heavy = {'torch', 'transformers', 'faiss', 'scipy', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ragkit.__all__)
def test_every_public_name_resolves(name):
    found = getattr(ragkit, name)
    assert found.__module__.startswith("ragkit.")
    assert getattr(importlib.import_module(found.__module__), name) is found
    assert name in dir(ragkit)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'ragkit' has no attribute 'nothing'"):
        _ = ragkit.nothing
    with pytest.raises(ImportError):
        exec("from ragkit import nothing")


@pytest.mark.parametrize("marks, added", [([], " [1]"), ([(17, 20)], ""), (None, "")])
def test_a_number_that_the_document_brought_along_does_not_stand_for_the_citation(marks, added):
    assert _cited(Answer("As [1] says [2]. [1]", [1], [], False, marks=marks)) == added
