"""The panels in JupyterLab in a real browser, by keyboard and mouse; what they write is read back from disk.

With RAGKIT_PICTURES=folder the tests leave pictures of what they see there.
"""

import functools
import io
import json
import os
import urllib.request
import uuid
from pathlib import Path

import pytest

from tests.test_browser import PANEL, ROOT, lab, page, pytestmark, sync_api  # noqa: F401

expect = sync_api.expect
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PICTURES = os.environ.get("RAGKIT_PICTURES")

# A library of a few passages, one of them hostile, and no model.
TOY = """
import sys
sys.path.insert(0, ROOT)
from ragkit.assistant import Assistant
from ragkit.generation.answer import Answer
from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.library import Library
from ragkit.preferences.log import PreferenceLog
from ragkit.widgets.chat import ChatApp
from ragkit.widgets.compare import CompareAnswers
from ragkit.widgets.rank import RankDocuments
from tests.helpers import FakeEncoder
attack = '<img src=x onerror="window.attacked = 1"><script>window.attacked = 1</script>'
texts = [attack, 'Short. ' * 80, 'the third']
encoder = FakeEncoder()
passages = [Passage(f'p{n}', text, f'{attack[:9]} title {n}') for n, text in enumerate(texts)]
library = Library.build(passages, encoder)
assistant = Assistant(encoder, library, None)
log = PreferenceLog(FOLDER, 'ann')
queries = ['first question? ' + attack, 'second question?', 'third question?']
"""
REAL = """
from ragkit.assistant import Assistant
from ragkit.preferences.log import PreferenceLog
from ragkit.widgets.chat import ChatApp
from ragkit.widgets.compare import CompareAnswers
from ragkit.widgets.rank import RankDocuments
assistant = Assistant.load()
log = PreferenceLog(FOLDER, 'ann')
"""
# A generator that is no model: it repeats the question.
ECHO = """
class Echo:
    name, encoder = 'echo', None
    def answer(self, query, hits, **settings):
        return Answer(f'You asked: {query}', [1], [], False)
assistant = Assistant(encoder, library, Echo())
"""


@pytest.fixture
def show(page, lab, tmp_path):  # noqa: F811
    """`show(setup, *cells)` runs a notebook of these cells; returns the last cell's panel."""

    def run(*cells: str):
        names = {"FOLDER": repr(str(tmp_path / "log")), "ROOT": repr(str(ROOT))}
        sources = [
            functools.reduce(lambda text, name: text.replace(name, names[name]), names, c) for c in cells
        ]
        put_notebook(lab, "panel.ipynb", sources)
        open_alone(page, lab, "panel.ipynb")
        run_all(page)
        return page.locator(".rk-panel").last

    return run


def put_notebook(lab, name: str, sources: list[str]) -> None:  # noqa: F811
    address, token = lab
    cells = [
        {
            "cell_type": "code",
            "source": source,
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "id": f"c{n}",
        }
        for n, source in enumerate(sources)
    ]
    content = {"cells": cells, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}
    body = json.dumps({"type": "notebook", "format": "json", "content": content}).encode()
    headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/api/contents/{name}", body, headers, method="PUT")
    urllib.request.urlopen(request, timeout=30).close()


def open_alone(page, lab, name: str) -> None:  # noqa: F811
    """The notebook in a workspace of its own: no other is open in it, and none is restored."""
    address, token = lab
    page.goto(f"{address}/lab/workspaces/{uuid.uuid4().hex[:8]}/tree/{name}?token={token}")
    ready = """async () => {
        const panel = PANEL;
        if (!panel) return false;
        await panel.context.ready;
        await panel.sessionContext.ready;
        await panel.sessionContext.session?.kernel?.info;
        return !!panel.sessionContext.session?.kernel;
    }""".replace("PANEL", PANEL)
    for _ in range(300):  # `wait_for_function` takes a promise for true
        if page.evaluate(ready):
            return
        page.wait_for_timeout(100)
    raise AssertionError("the notebook did not open")


def run_all(page) -> None:  # noqa: F811
    """Until it begins: JupyterLab has no current notebook for a moment while it restores its layout."""
    began = page.evaluate(
        """async () => {
            const panel = PANEL, app = window.jupyterapp;
            const busy = () => [...panel.content.model.cells].some(cell => cell.executionState === 'running');
            for (let times = 0; times < 100; times++) {
                app.shell.activateById(panel.id);
                await new Promise(resolve => setTimeout(resolve, 100));
                if (app.shell.currentWidget !== panel) continue;
                app.commands.execute('notebook:run-all-cells');
                await new Promise(resolve => setTimeout(resolve, 300));
                if (busy() || panel.content.model.cells.get(0).executionCount) return true;
            }
            return false;
        }""".replace("PANEL", PANEL)
    )
    assert began
    expect(page.locator(".rk-panel").last).to_be_visible(timeout=60_000)


def logged(tmp_path: Path) -> list[dict]:
    """The events on disk, in the order in which they were written."""
    lines = [line for path in (tmp_path / "log").glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted(map(json.loads, lines), key=lambda event: event["seq"])


def says(panel, text: str) -> None:
    expect(panel.get_by_role("status").last).to_contain_text(text, timeout=20_000)


def asks(page, panel, text: str) -> None:  # noqa: F811
    """Wait for the question, and until a press is not taken for a double click any more."""
    expect(panel.get_by_role("heading").first).to_contain_text(text, timeout=20_000)
    page.wait_for_timeout(600)


def cells(page) -> int:  # noqa: F811
    return page.evaluate("() => (PANEL).content.model.cells.length".replace("PANEL", PANEL))


def controls(page, selector: str = ":has(> .rk-panel)") -> list[tuple[str, str]]:  # noqa: F811
    """Role and name of each control, as the browser's accessibility tree tells a screen reader."""
    tree = page.context.new_cdp_session(page)
    root = tree.send("DOM.getDocument")["root"]["nodeId"]
    node = tree.send("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
    nodes = tree.send("Accessibility.queryAXTree", {"nodeId": node})["nodes"]
    wanted = ("button", "textbox", "region", "group", "heading", "status", "checkbox", "link", "combobox")
    found = [n for n in nodes if not n["ignored"] and n["role"]["value"] in wanted]
    return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in found]


def picture(page, panel, name: str) -> None:  # noqa: F811
    """In both themes, and in a narrow window, with few colours so that the file is small."""
    if not PICTURES:
        return
    from PIL import Image

    def take(kind: str) -> None:
        page.mouse.move(2, 2)
        page.wait_for_timeout(700)
        shot = Image.open(io.BytesIO(panel.screenshot())).convert("RGB")
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        shot.quantize(128, dither=Image.Dither.NONE).save(
            Path(PICTURES) / f"widget-{name}-{kind}.png", optimize=True
        )

    theme = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
    take("light")
    page.evaluate(theme, "JupyterLab Dark")
    take("dark")
    page.set_viewport_size({"width": 480, "height": 1100})
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    take("narrow")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.evaluate(theme, "JupyterLab Light")


def test_ranking_by_keyboard_mouse_and_undo(page, show, tmp_path):  # noqa: F811
    panel = show(TOY, "RankDocuments(assistant, queries, log, seed=1, repeat_share=0)")
    asks(page, panel, "first question?")
    press = lambda name: panel.get_by_role("button", name=name, exact=True)  # noqa: E731

    # Nothing in a document runs, and its tags can be read.
    assert page.evaluate("() => window.attacked") is None
    expect(panel).to_contain_text('<img src=x onerror="window.attacked = 1">')

    # Buttons move the document and keep the focus on it; so do keys.
    press("Move c3 up").click()
    says(panel, "c1, then c3, then c2")
    expect(press("Move c3 up")).to_be_focused()
    page.keyboard.press("Alt+ArrowUp")
    says(panel, "c3, then c1, then c2")
    press("Move c2 up").focus()
    page.keyboard.press("1")
    says(panel, "c2, then c3, then c1")
    # The status comes before the names; only in slot 3 it is the right one.
    panel.locator(".rk-slot-3").get_by_role("button", name="Move c1 down").focus()
    page.keyboard.press("=")
    says(panel, "c2, then c3 = c1")

    # "dd", "x" and "b" on a focused button are notebook commands elsewhere; here they do nothing.
    before = cells(page)
    for key in ("d", "d", "x", "b", "a", "d", "d"):
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    assert cells(page) == before == 2

    # Why, and save by the keyboard; digits typed there are text.
    panel.get_by_role("textbox", name="Why").fill("2 of 3")
    page.keyboard.press("Control+Enter")
    says(panel, "Saved #1 ✓")
    asks(page, panel, "second question?")
    (event,) = logged(tmp_path)
    order = event["shown_order"]
    assert event["ranking"] == [[order[1]], [order[2], order[0]]] and event["details"]["why"] == "2 of 3"
    assert event["details"]["latency_ms"] > 0 and event["annotator"] == "ann"

    # A double click saves one item, not two.
    press("Save this order").dblclick()
    asks(page, panel, "third question?")
    assert [event["kind"] for event in logged(tmp_path)] == ["rank", "rank"]
    press("Skip").click()
    asks(page, panel, "All 3 done")
    press("Undo").click()
    asks(page, panel, "third question?")
    says(panel, "Taken back ✓")

    # Dragging, an extra: the first by its handle onto the third.
    first = panel.locator(".rk-slot-1 .rk-name").inner_text()
    panel.locator(".rk-slot-1 .rk-handle").drag_to(panel.locator(".rk-slot-3 .rk-title"))
    expect(panel.locator(".rk-slot-3 .rk-name")).to_have_text(first)
    press("Save this order").click()
    asks(page, panel, "All 3 done")
    assert [event["kind"] for event in logged(tmp_path)] == ["rank", "rank", "skip", "undo", "rank"]
    assert logged(tmp_path)[-1]["details"]["moves"] == 1


def runs(page) -> list:  # noqa: F811
    """How often each cell was run, so that one that is gone or run again is noticed."""
    script = "() => [...(PANEL).content.model.cells].map(cell => cell.executionCount)"
    return page.evaluate(script.replace("PANEL", PANEL))


def test_whatever_is_clicked_takes_the_keys_and_keeps_them(page, show, tmp_path):  # noqa: F811
    panel = show(TOY, "RankDocuments(assistant, queries, log, seed=1, repeat_share=0)")
    asks(page, panel, "first question?")
    before = runs(page)
    place = lambda slot, part: panel.locator(f".rk-slot-{slot} .{part}")  # noqa: E731

    # Headings, texts and margins: no key after a click there is JupyterLab's.
    margin, edge = {"x": 4, "y": 4}, {"x": 2, "y": 3}
    places = [(panel, margin), (panel.get_by_role("heading").first, None), (panel.locator(".rk-hint"), None)]
    places += [(panel.locator(".rk-progress").first, None), (panel.get_by_role("status"), None)]
    places += [(panel.locator(".rk-slot-1"), edge), (panel.locator(".rk-head").nth(1), edge)]
    places += [(place(2, part), None) for part in ("rk-text", "rk-title", "rk-place", "rk-name", "rk-handle")]
    for spot, position in places:
        page.locator(".jp-Cell").first.locator(".jp-InputPrompt").click()  # the focus is elsewhere
        assert not panel.evaluate("box => box.contains(document.activeElement)")
        spot.click(position=position)
        for key in ("d", "d", "x", "b", "Shift+Enter"):
            page.keyboard.press(key)
        assert panel.evaluate("box => box.contains(document.activeElement)"), (spot, position)
    assert runs(page) == before

    # Digits place the document whose text was clicked, and go on with it; its words can be selected.
    place(3, "rk-text").click()
    page.keyboard.press("1")
    says(panel, "c3, then c1, then c2")
    expect(panel.locator(".rk-slot-1")).to_be_focused()
    page.keyboard.press("2")
    says(panel, "c1, then c3, then c2")
    place(3, "rk-text").dblclick(position={"x": 20, "y": 8})
    assert page.evaluate("() => getSelection().toString().trim()")

    # The cell is run again: the order is there as it was left.
    page.locator(".jp-Cell").nth(1).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    says(panel, "as you left it: not saved yet")
    assert runs(page) != before
    names = panel.locator(".rk-card .rk-name")
    expect(names).to_have_text(["c1", "c3", "c2"])
    page.wait_for_timeout(600)
    place(2, "rk-text").click()
    page.keyboard.press("Control+Enter")
    says(panel, "Saved #1 ✓")
    (event,) = logged(tmp_path)
    assert event["ranking"] == [[event["shown_order"][n]] for n in (0, 2, 1)]

    # Where the document that had the focus goes, the panel has it.
    for question in ("second", "third"):
        asks(page, panel, f"{question} question?")
        place(1, "rk-text").click()
        page.keyboard.press("Control+Enter")
    asks(page, panel, "All 3 done")
    before = runs(page)
    expect(panel).to_be_focused()
    for key in ("d", "d", "Control+Enter"):
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    assert runs(page) == before and len(logged(tmp_path)) == 3


def test_a_press_that_no_kernel_takes_is_called_that(page, show, tmp_path):  # noqa: F811
    """As in a front end that does not mark a lost kernel: nothing is sent, and nothing says so."""
    panel = show(TOY, "CompareAnswers([('first?', 'a', 'b')], log)")
    asks(page, panel, "first?")
    hold_states(page, all_of_them=True)
    panel.get_by_role("button", name="Both bad").click()
    expect(page.get_by_role("alert")).to_contain_text("No answer from the kernel", timeout=30_000)
    picture(page, page.locator(".jp-OutputArea").last, "silent")
    panel.locator(".rk-pane-a").click()
    expect(panel).to_be_focused()
    page.keyboard.press("7")
    release_states(page)  # it was busy
    for name in ("Both bad", "B much better"):
        button = panel.get_by_role("button", name=name)
        expect(button).to_have_attribute("aria-pressed", "true", timeout=30_000)
    expect(page.get_by_role("alert")).to_have_count(0, timeout=30_000)


def hold_states(page, all_of_them: bool = False) -> None:  # noqa: F811
    """From now on no changed state reaches the kernel, as where ipywidgets holds it back; clicks and keys do,
    unless all is held.

    `release()` in the page sends what was held.
    """
    page.evaluate(
        """all => {
            const send = WebSocket.prototype.send, held = [];
            const text = data => typeof data === 'string' ? data : new TextDecoder('latin1').decode(data);
            WebSocket.prototype.send = function (data) {
                if (all || text(data).includes('"method":"update"')) held.push([this, data]);
                else send.call(this, data);
            };
            window.held = held;
            window.release = () => {
                WebSocket.prototype.send = send;
                for (const [socket, data] of held) send.call(socket, data);
            };
        }""",
        all_of_them,
    )


def release_states(page) -> None:  # noqa: F811
    assert page.evaluate("() => window.held.length") > 0  # or nothing was shown
    page.evaluate("() => window.release()")
    page.wait_for_timeout(500)


def test_what_is_typed_right_before_saving_is_saved_and_not_with_the_next(page, show, tmp_path):  # noqa: F811
    panel = show(TOY, "RankDocuments(assistant, queries, log, seed=1, repeat_share=0)")
    asks(page, panel, "first question?")
    why = panel.get_by_role("textbox", name="Why")
    hold_states(page)
    why.press_sequentially("2 of 3")
    page.keyboard.press("Control+Enter")
    asks(page, panel, "second question?")
    assert [event["details"]["why"] for event in logged(tmp_path)] == ["2 of 3"]
    expect(why).to_have_value("")
    expect(why).to_be_focused()  # the fresh one, since the old one had the focus
    page.keyboard.type("tw")
    release_states(page)  # late, and not for this item
    page.keyboard.type("o")
    expect(why).to_have_value("two")
    panel.get_by_role("button", name="Save this order").click()
    asks(page, panel, "third question?")
    expect(why).to_have_value("")
    expect(why).not_to_be_focused()  # it was not in the field any more
    panel.get_by_role("button", name="Undo").click()
    asks(page, panel, "second question?")
    expect(why).to_have_value("two")
    kept = [event["details"]["why"] for event in logged(tmp_path) if event["kind"] == "rank"]
    assert kept == ["2 of 3", "two"]


def test_a_why_right_before_a_click_and_in_another_script(page, show, tmp_path):  # noqa: F811
    panel = show(TOY, "CompareAnswers([('first?', 'a', 'b'), ('second?', 'c', 'd')], log, repeat_share=0)")
    asks(page, panel, "first?")
    why = panel.get_by_role("textbox", name="Why")
    panel.get_by_role("button", name="Both bad").click()
    says(panel, "Both bad")
    hold_states(page)
    why.focus()
    keyboard = page.context.new_cdp_session(page)
    for part in ("n", "ni", "nih", "日"):  # as an input method composes it
        keyboard.send("Input.imeSetComposition", {"text": part, "selectionStart": 1, "selectionEnd": 1})
    keyboard.send("Input.insertText", {"text": "日本"})
    panel.get_by_role("button", name="Save").click()
    says(panel, "Saved #1 ✓")
    assert [event["details"]["why"] for event in logged(tmp_path)] == ["日本"]
    panel.get_by_role("button", name="Next").click()
    asks(page, panel, "second?")
    release_states(page)
    expect(why).to_have_value("")
    panel.get_by_role("button", name="Skip").click()
    asks(page, panel, "All 2 done")
    assert [event["details"]["why"] for event in logged(tmp_path)] == ["日本", ""]


def test_a_question_and_a_note_right_before_enter_and_a_click(page, show, tmp_path):  # noqa: F811
    panel = show(TOY, ECHO, "ChatApp(assistant, log)")
    query = panel.get_by_role("textbox", name="Question")
    note = panel.get_by_role("textbox", name="Note").last  # of the latest turn
    query.click()
    hold_states(page)
    for question in ("What is the first text about?", "What is the third text about?"):
        page.keyboard.type(question)
        page.keyboard.press("Enter")
        expect(panel).to_contain_text(f"You asked: {question}")
        expect(query).to_have_value("")
        expect(query).to_be_focused()  # the next question can be typed at once
    note.press_sequentially("very clear")
    panel.get_by_role("button", name="Good answer").last.click()
    says(panel, "Saved #3 ✓")
    release_states(page)
    query.fill("What is the second text about?")
    query.press("Enter")
    expect(panel).to_contain_text("You asked: What is the second text about?")
    expect(note).to_have_value("")
    panel.get_by_role("button", name="Bad answer").last.click()
    says(panel, "Saved #5 ✓")
    expect(panel.get_by_text("You asked: What is the first text about?")).to_have_count(1)
    notes = [event for event in logged(tmp_path) if event["kind"] == "chat_feedback"]
    assert [(event["query"], event["note"]) for event in notes] == [
        ("What is the third text about?", "very clear"),
        ("What is the second text about?", ""),
    ]


def test_names_for_a_screen_reader_and_the_keyboard_alone(page, show):  # noqa: F811
    panel = show(TOY, "RankDocuments(assistant, queries, log, seed=1)")
    asks(page, panel, "first question?")
    expect(panel.get_by_role("button", name="Move c2 up")).to_be_visible()
    found = controls(page)
    assert all(name for role, name in found if role != "status"), found
    buttons = [name for role, name in found if role == "button"]
    assert len(set(buttons)) == len(buttons)  # no two of the same name
    moves = {f"Move c{n} {way}" for n in (1, 2, 3) for way in ("up", "down")}
    assert moves | {"Tie c2 with c1", "Tie c3 with c2", "Save this order", "Skip", "Undo"} <= set(buttons)
    assert ("textbox", "Why (optional)") in found and ("region", "Rank the documents") in found
    assert len([role for role, _ in found if role == "group"]) == 3
    assert ("status", "") in found or any(role == "status" for role, _ in found)

    # Tab visits each of them, in the order in which they are read.
    panel.get_by_role("button").first.focus()
    visited = []
    for _ in buttons:
        visited.append(
            page.evaluate(
                "() => document.activeElement.getAttribute('aria-label')"
                " ?? document.activeElement.textContent"
            )
        )
        page.keyboard.press("Tab")
    assert visited == buttons

    # A long document unfolds and says so.
    more = panel.get_by_role("button", name="More of c")
    expect(more).to_have_attribute("aria-expanded", "false")
    # Where all of it can be seen, as in a wide window, there is nothing to unfold.
    for lines, shown in ((40, 0), (4, 1)):
        panel.locator(".rk-folded").evaluate("(text, n) => { text.style.webkitLineClamp = n; }", lines)
        expect(more).to_have_count(shown)
    more.press("Enter")
    expect(panel.get_by_role("button", name="Less of c")).to_have_attribute("aria-expanded", "true")


def test_comparing(page, show, tmp_path):  # noqa: F811
    pairs = """[('first?', attack, Answer('two', [2], [], False), HITS), ('second?', 'three', 'four')]"""
    pairs = pairs.replace("HITS", "__import__('tests.helpers').helpers.hits('one', 'two')")
    panel = show(TOY, f"CompareAnswers({pairs}, log, seed=4, repeat_share=0)")
    asks(page, panel, "first?")
    assert page.evaluate("() => window.attacked") is None
    press = lambda name: panel.get_by_role("button", name=name, exact=True)  # noqa: E731
    expect(panel).not_to_contain_text("Sources")
    found = controls(page)
    assert all(name for role, name in found if role != "status"), found
    assert ("group", "Answer A") in found and ("button", "B much better") in found

    press("Even").focus()
    page.keyboard.press("2")
    expect(panel.get_by_role("button", name="A better")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Control+Enter")
    says(panel, "Saved #1 ✓")
    expect(panel).to_contain_text("Sources")
    press("Save").click(force=True)  # once more: it is saved already, and stays one line
    (event,) = logged(tmp_path)
    swapped = event["details"]["swapped"]
    assert event["rating"] == (2 if swapped else -2) and event["answer_b"] == "two"
    press("Next").click()
    asks(page, panel, "second?")
    press("Both bad").click()
    press("Save").click()
    says(panel, "Saved #2 ✓")
    press("Undo").click()
    says(panel, "Taken back ✓")
    expect(panel.get_by_role("button", name="Both bad")).to_have_attribute("aria-pressed", "true")
    page.wait_for_timeout(600)
    press("Skip").click()
    asks(page, panel, "All 2 done")
    assert [event["kind"] for event in logged(tmp_path)] == ["pair", "pair", "undo", "skip"]


def test_a_restarted_kernel_makes_the_panel_inert_and_a_new_one_goes_on(page, show, tmp_path):  # noqa: F811
    panel = show(TOY, "RankDocuments(assistant, queries, log, seed=1, repeat_share=0)")
    asks(page, panel, "first question?")
    panel.get_by_role("button", name="Save this order").click()
    asks(page, panel, "second question?")
    page.evaluate(
        "async () => { await (PANEL).sessionContext.session.kernel.restart(); }".replace("PANEL", PANEL)
    )
    expect(page.get_by_role("alert")).to_contain_text("run this cell again", timeout=20_000)
    assert panel.evaluate("box => box.inert")
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / "page-restarted.png")
    assert len(controls(page)) == 0  # nothing there for a screen reader, either
    panel.get_by_role("button", name="Save this order", include_hidden=True).dispatch_event("click")
    run_all(page)
    expect(page.get_by_role("alert")).to_have_count(0, timeout=60_000)
    panel = page.locator(".rk-panel").last
    asks(page, panel, "second question?")
    expect(panel).to_contain_text("1 of 3")
    panel.get_by_role("button", name="Undo").click()
    asks(page, panel, "first question?")
    assert [event["kind"] for event in logged(tmp_path)] == ["rank", "undo"]


def test_the_chat_with_the_model_that_ships(page, show, tmp_path):  # noqa: F811
    panel = show(REAL, "ChatApp(assistant, log)")
    box = panel.get_by_role("textbox", name="Question")
    expect(box).to_be_visible()
    box.fill("What does beta control in DPO?")
    box.press("Enter")
    says(panel, "Answered in")
    expect(panel).to_contain_text("cited")
    panel.get_by_role("button", name="Good answer").click()
    says(panel, "Saved #2 ✓")
    expect(panel.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    panel.get_by_role("link", name="Source 1").click()
    expect(panel.locator("mark").first).to_contain_class("rk-lit")
    picture(page, panel, "chat")
    panel.get_by_role("button", name="Rank these documents").click()
    ranking = page.get_by_role("region", name="Rank the documents")
    expect(ranking).to_be_visible()
    assert all(name for role, name in controls(page, ":has(> .rk-chat)") if role != "status")
    page.wait_for_timeout(600)
    ranking.get_by_role("button", name="Move c2 up").click()
    ranking.get_by_role("button", name="Save this order").click()
    says(ranking, "Saved #3 ✓")
    turn, feedback, rank = logged(tmp_path)
    assert turn["kind"] == "turn" and feedback["good"] is True and feedback["kind"] == "chat_feedback"
    assert rank["kind"] == "rank" and {each["query"] for each in (turn, feedback, rank)} == {
        "What does beta control in DPO?"
    }


@pytest.mark.skipif(not PICTURES, reason="RAGKIT_PICTURES names no folder")
def test_pictures_of_ranking_and_comparing(page, show):  # noqa: F811
    page.set_viewport_size({"width": 1280, "height": 800})
    panel = show(
        REAL,
        "RankDocuments(assistant, QUERIES, log, seed=1)".replace(
            "QUERIES", "['Why do rankings with ties need care?', *map(str, range(39))]"
        ),
    )
    asks(page, panel, "Why do rankings")
    panel.get_by_role("button", name="Move c3 up").click()
    panel.get_by_role("button", name="Tie c2 with c3").click()
    says(panel, "=")
    picture(page, panel, "rank")
    panel = show(
        REAL,
        """
query = 'What does beta control in DPO?'
hits = assistant.ask(query).hits
answer = assistant.generator.answer(query, hits)
CompareAnswers([(query, answer, ANSWER, hits)], log, seed=1)
""".replace("ANSWER", "'DPO has a parameter, and a small one is often chosen.'"),
    )
    asks(page, panel, "What does beta")
    panel.get_by_role("button", name="A better").click()
    says(panel, "A better")
    picture(page, panel, "compare")
    panel.get_by_role("button", name="Save").click()
    says(panel, "Saved")
    picture(page, panel, "compare-saved")
