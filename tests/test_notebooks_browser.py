"""What a reader of a notebook sees in JupyterLab: pictures where no kernel ran, live panels where one did."""

import base64
import json
import re
import urllib.request

from tests.test_browser import PANEL, ROOT, lab, page, pytestmark, sync_api  # noqa: F401
from tests.test_widgets_browser import KERNEL, asks, open_alone, run_all

expect = sync_api.expect
PNG = (ROOT / "notebooks" / "figures" / "widget-rank-light.png").read_bytes()
SETUP = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import tempfile
import numpy as np
from ragkit import Assistant, Library, PreferenceLog
from ragkit.widgets import PassageMap, RankDocuments, TasteView
from tests.simulated_rankings import simulated
from tests.words_encoder import WordsEncoder
encoder = WordsEncoder()
passages = [passage for ranking in simulated(8, seed=3) for passage in ranking.passages]
assistant = Assistant(encoder, Library.build(passages, encoder, progress=False), None)
log = PreferenceLog(tempfile.mkdtemp(), "ann")
words = "lamp river stone apple cloud table music".split()
"""
RANK = """view = TasteView(assistant, log, ['paper winter?'])
display(RankDocuments(assistant, words, log, k=3, on_save=view), view)"""


def put(lab, *cells: tuple[str, dict | None]) -> None:  # noqa: F811
    """A notebook of these cells, some with an output of a day before, which nobody has trusted."""
    address, token = lab
    made = []
    for n, (source, data) in enumerate(cells):
        output = {"output_type": "display_data", "data": data, "metadata": {"image/png": {"alt": "A panel"}}}
        made.append(
            {
                "cell_type": "code",
                "source": source,
                "metadata": {},
                "outputs": [output] if data else [],
                "execution_count": 1 if data else None,
                "id": f"c{n}",
            }
        )
    content = {"cells": made, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}
    body = json.dumps({"type": "notebook", "format": "json", "content": content}).encode()
    headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/api/contents/panel.ipynb", body, headers, method="PUT")
    urllib.request.urlopen(request, timeout=30).close()


def test_a_panel_is_its_picture_until_its_cell_is_run_and_then_no_more(page, lab):  # noqa: F811
    said = "<RankDocuments: run this cell to use it>"
    saved = {"text/plain": said, "image/png": base64.b64encode(PNG).decode()}
    put(lab, (SETUP, None), (RANK, saved))
    open_alone(page, lab, "panel.ipynb")
    picture = page.locator(".jp-OutputArea-output img")
    expect(picture).to_be_visible()
    expect(page.locator(".rk-panel")).to_have_count(0)
    run_all(page)
    expect(page.get_by_role("region", name="Rank the documents")).to_be_visible(timeout=60_000)
    expect(page.locator(".jp-RenderedImage")).to_have_count(0)
    expect(page.locator(".jp-OutputArea")).not_to_contain_text(["run this cell to use it"])


def test_the_bars_grow_while_a_person_ranks(page, lab):  # noqa: F811
    put(lab, (SETUP, None), (RANK, None))
    open_alone(page, lab, "panel.ipynb")
    run_all(page)
    panel = page.get_by_role("region", name="Rank the documents")
    bars = page.get_by_role("region", name="What your rankings taught").get_by_role("img")
    for n, word in enumerate("lamp river stone apple cloud".split()):
        expect(bars).to_have_attribute("alt", re.compile(f"^{n} of the 5 questions ranked"))
        asks(page, panel, word)
        panel.get_by_role("button", name="Save this order").click()
    expect(bars).to_have_attribute("alt", re.compile("^5 rankings"))


def test_a_dot_of_the_map_says_its_name(page, lab):  # noqa: F811
    draw = """PassageMap(np.array([[0, 0], [1, 1], [2, 0]]), ["one", "two", "three <b>"], ["a", "b", "b"],
        question="where?", landing=np.array([1, 0]), nearest=[1])"""
    put(lab, (SETUP, None), (draw, None), ("RankDocuments(assistant, words, log, k=3)", None))
    open_alone(page, lab, "panel.ipynb")
    run_all(page)
    map_ = page.locator(".rk-map")
    name = lambda text: map_.locator(".rk-dot > text", has_text=text)  # noqa: E731
    expect(name("three <b> (b)")).to_be_hidden()
    map_.locator(".rk-dot", has_text="three <b>").locator("circle").hover()
    expect(name("three <b> (b)")).to_be_visible()
    map_.locator(".rk-dot", has_text="one").locator("circle").click()
    page.mouse.move(2, 2)
    expect(name("one (a)")).to_be_visible()
    page.keyboard.press("Tab")
    expect(name("1. two (b)")).to_be_visible()
    expect(name("one (a)")).to_be_hidden()
