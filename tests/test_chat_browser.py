"""The chat in JupyterLab in a real browser: the whole loop, and what the eye and the keyboard need.

With RAGKIT_PICTURES=folder the tests leave pictures of what they see there.
"""

# ruff: noqa: F401, F811  (fixtures of another file)

from tests.test_browser import PANEL, lab, page, pytestmark, sync_api
from tests.test_widgets_browser import (
    ECHO,
    TOY,
    controls,
    logged,
    picture,
    run_all,
    says,
    show,
)

expect = sync_api.expect

# A library of which half of the documents have a formula, and somebody who ranked twelve other questions and
# likes formulas; a generator that is no model, writes word by word, and waits where it is told to.
LOOP = """
import sys, time
from pathlib import Path
sys.path.insert(0, ROOT)
from ragkit.assistant import Assistant
from ragkit.generation.answer import Answer
from ragkit.generation.generator import Evidence
from ragkit.retrieval.library import Library
from ragkit.retrieval.text import split_sentences
from ragkit.preferences.log import PreferenceLog
from ragkit.widgets.chat import ChatApp
from tests.simulated_rankings import simulated
from tests.words_encoder import WordsEncoder
taste = simulated(30, taste=8.0, annotator='ann')
encoder = WordsEncoder()
library = Library.build([p for one in taste[20:] for p in one.passages], encoder, progress=False)
def hold(name):
    while (Path(FOLDER).parent / name).exists():
        time.sleep(0.05)
class Words:
    name, encoder = 'words', None
    def answer(self, query, hits, *, style='sentence', seed=None, on_text=None):
        if 'fail' in query:
            raise OSError(12, 'no <b>memory</b>')
        hold('reading')
        first = hits[0].passage.text
        text = first if style == 'sentence' and not seed else f'In other words: {style} {seed}'
        for place, word in enumerate(text.split() if on_text else []):
            if place == 3:
                hold('writing')
            on_text(word + ' ')
            time.sleep(0.06)
        return Answer(text, [1], [], False, cited=[Evidence(first, 1, 0.5)])
assistant = Assistant(encoder, library, Words())
log = PreferenceLog(FOLDER, 'ann')
if not log.rankings():
    for one in taste[:12]:
        log.record(one)
"""
QUESTION = "stone river letter 21?"


def ask(page, panel, text: str) -> None:
    box = panel.get_by_role("textbox", name="Question")
    box.fill(text)
    box.press("Enter")


def turn(panel, number: int = -1):
    return panel.locator(".rk-turn:not(.rk-lesson)").nth(number)


def restart(page) -> None:
    script = "async () => { await (PANEL).sessionContext.session.kernel.restart(); }"
    page.evaluate(script.replace("PANEL", PANEL))


def titles(panel, name: str) -> list[str]:
    return panel.locator(f".rk-{name} .rk-doc").all_inner_texts()


def test_the_whole_loop(page, show, tmp_path):
    """Ask, see text come, open a source, follow a citation, rank, learn, see another order, restart."""
    page.set_viewport_size({"width": 1280, "height": 1000})
    broken = []  # what the panels' scripts fail with; they come from no file
    page.on("pageerror", lambda error: "blob:" in (error.stack or "") and broken.append(error.stack))
    show(LOOP, "ChatApp(assistant, log)")
    panel = page.locator(".rk-chat").last  # while others are open in it
    for gate in ("reading", "writing"):
        (tmp_path / gate).touch()

    # A step that takes long says which one it is; then the text comes while it is written.
    ask(page, panel, QUESTION)
    expect(panel.get_by_text("Reading what was found …")).to_be_visible()
    expect(panel.locator(".rk-log")).to_have_attribute("aria-busy", "true")
    (tmp_path / "reading").unlink()
    answer = turn(panel).locator(".rk-answer")
    expect(answer).to_have_text("river window silver")
    expect(panel.get_by_text("Writing …")).to_be_visible()
    picture(page, panel, "chat-writing")
    box = panel.get_by_role("textbox", name="Question")
    expect(box).to_have_value("")
    box.fill("typed meanwhile")
    (tmp_path / "writing").unlink()
    says(panel, "Answered in")
    expect(box).to_have_value("typed meanwhile")
    box.fill("")
    expect(panel.locator(".rk-log")).to_have_attribute("aria-busy", "false")

    # A source opens, and a citation shows its sentence, by the mouse and by the keyboard.
    sources = turn(panel).locator(".rk-source")
    expect(sources).to_have_count(3)
    hidden = sources.nth(2).locator(".rk-text")
    expect(hidden).to_be_hidden()
    sources.nth(2).locator("summary").press("Enter")
    expect(hidden).to_be_visible()
    sources.nth(0).locator("summary").click()
    mark = sources.nth(0).locator("mark")
    expect(mark).to_be_hidden()
    link = turn(panel).get_by_role("link", name="Source 1: ")
    assert link.get_attribute("aria-describedby") == mark.get_attribute("id")
    before = page.url
    link.click()
    expect(mark).to_be_visible()
    expect(mark).to_contain_class("rk-lit")
    assert page.url == before and mark.inner_text() == answer.inner_text().removesuffix(" [1]")
    sources.nth(0).locator("summary").click()
    # Also where the document is so long that it scrolls by itself.
    mark.evaluate("mark => mark.before(Object.assign(document.createElement('p'), {style: 'height: 40em'}))")
    box.focus()
    link.focus()
    expect(mark).to_be_in_viewport()
    picture(page, panel, "chat-cited")

    # Thumbs, a note, the order of the documents: each is told below the answer, and stands in the log.
    turn(panel).get_by_role("textbox", name="Note").fill("just so")
    turn(panel).get_by_role("button", name="Good answer").click()
    says(panel, "Saved #14 ✓")
    expect(turn(panel)).to_contain_text("✓ A good answer: just so")
    turn(panel).get_by_role("button", name="Rank these documents").click()
    ranking = page.get_by_role("region", name="Rank the documents")
    expect(ranking).to_be_in_viewport()
    for slot in ranking.locator(".rk-card").all():
        if "=" in slot.locator(".rk-text").inner_text():
            slot.locator(".rk-text").click()
            page.keyboard.press("1")
            page.wait_for_timeout(600)  # or the same key would be taken for a double press
    expect(ranking.locator(".rk-slot-3 .rk-text")).not_to_contain_text("x = y")
    picture(page, panel, "chat-ranking")
    ranking.get_by_role("button", name="Save this order").click()
    says(ranking, "Saved #15 ✓")
    expect(turn(panel)).to_contain_text("✓ Your order: [")
    expect(panel).to_contain_text("You ranked the documents of 13 questions.")
    turn(panel).get_by_role("button", name="Show me another answer").click()
    comparing = page.get_by_role("region", name="Compare two answers")
    expect(comparing).to_be_in_viewport()
    expect(comparing).to_contain_text("In other words: free")
    comparing.get_by_role("button", name="A better").click()
    picture(page, panel, "chat-comparing")
    page.wait_for_timeout(1000)  # a press so soon after the panel came is taken for one meant before
    comparing.get_by_role("button", name="Save").click()
    says(comparing, "Saved #16 ✓")
    expect(turn(panel)).to_contain_text("better")
    kinds = [event["kind"] for event in logged(tmp_path)[12:]]
    assert kinds == ["turn", "chat_feedback", "rank", "pair"] and not broken

    # It learns, shows who moved where, and answers from other documents.
    first = turn(panel).locator(".rk-source .rk-title").all_inner_texts()
    panel.get_by_role("button", name="Learn from my clicks").click()
    says(panel, "Learned: used from now on.")
    expect(panel.get_by_role("heading", name="What I learned")).to_be_in_viewport()
    assert titles(panel, "before")[:3] == first
    after = titles(panel, "after")
    assert after != titles(panel, "before") and sorted(after) == sorted(titles(panel, "before"))
    assert panel.get_by_role("img", name="up ").count() > 0
    picture(page, panel, "chat-learned")
    panel.get_by_role("button", name="Ask this again").click()
    says(panel, "Answered in")
    expect(turn(panel).locator(".rk-source .rk-title")).to_have_text(after[:3])

    # After a restart the conversation is there, with what was said and what was learned.
    ask(page, panel, "fail, please?")
    expect(panel.get_by_text("NO ANSWER: no <b>memory</b>").first).to_be_visible()
    expect(box).to_have_value("fail, please?")
    picture(page, panel, "chat-failed")
    restart(page)
    expect(page.get_by_role("alert")).to_contain_text("run this cell again", timeout=20_000)
    run_all(page)
    expect(page.get_by_role("alert")).to_have_count(0, timeout=60_000)
    panel = page.locator(".rk-chat").last
    expect(panel.locator(".rk-turn:not(.rk-lesson)")).to_have_count(2)
    expect(turn(panel, 0)).to_contain_text("✓ A good answer: just so")
    expect(turn(panel, 0)).to_contain_text("✓ Your order: [")
    expect(turn(panel, 1)).to_be_in_viewport()
    ask(page, panel, QUESTION)
    says(panel, "Answered in")
    expect(turn(panel, 2).locator(".rk-source .rk-title")).to_have_text(after[:3])


def test_older_questions_fold_and_open_and_names_for_a_screen_reader(page, show, tmp_path):
    panel = show(TOY, ECHO, "ChatApp(assistant, log, examples=['What is the first text about?', attack])")
    expect(panel).to_contain_text("Ask a question.")
    picture(page, panel, "chat-empty")
    panel.get_by_role("button", name="What is the first text about?").click()
    says(panel, "Answered in")
    for name in ("second", "third", "fourth", "fifth", "sixth", "seventh"):
        ask(page, panel, f"What is the {name} text about?")
        expect(panel).to_contain_text(f"You asked: What is the {name} text about?")
    says(panel, "Answered in")
    assert page.evaluate("() => window.attacked") is None
    expect(turn(panel, -1)).to_be_in_viewport()
    expect(panel.get_by_role("textbox", name="Question")).to_be_focused()
    earlier = panel.get_by_role("button", name="Earlier: 2 questions")
    expect(earlier).to_have_attribute("aria-expanded", "false")
    earlier.press("Enter")
    expect(earlier).to_have_attribute("aria-expanded", "true")
    picture(page, panel, "chat-older")
    panel.get_by_role("button", name="What is the first text about?").press("Enter")
    expect(turn(panel, 0)).to_contain_text("You asked: What is the first text about?")
    expect(turn(panel, 0)).to_be_in_viewport()

    found = controls(page, ":has(> .rk-chat)")
    assert all(name for role, name in found if role != "status"), found
    assert ("region", "Chat") in found and ("textbox", "Question") in found and ("button", "Ask") in found
    assert ("combobox", "Documents") in found and ("group", "Question 1") in found
    assert panel.get_by_role("log", name="Conversation").get_attribute("aria-live") == "polite"

    # No key in it is JupyterLab's: "dd" would delete the cell.
    turn(panel, 0).get_by_role("link", name="Source 1").focus()
    for key in ("d", "d", "x", "b"):
        page.keyboard.press(key)
    expect(panel).to_be_visible()
    assert page.locator(".jp-CodeCell").count() == 3
