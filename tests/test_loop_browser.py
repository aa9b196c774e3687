"""The loop on the front page, in a real browser: ask, rank, learn, ask again, over the dishes.

With RAGKIT_PICTURES=folder it is filmed: `widget-loop.gif` there is the one in `notebooks/figures/`.
"""

# ruff: noqa: F401, F811  (fixtures of another file)

import io
from pathlib import Path

from tests.test_browser import lab, page, pytestmark, sync_api
from tests.test_chat_browser import ask, turn
from tests.test_widgets_browser import PICTURES, says, show

expect = sync_api.expect
QUESTION = "what do you cook when it is freezing outside"
# Nineteen lists that a simulated visitor, a rule of one line, put in order; the twentieth is on the screen.
VISITOR = """
import json, sys
sys.path.insert(0, ROOT)
from ragkit import Assistant, ChatApp, PreferenceLog, Ranking
from ragkit.retrieval import DATA
assistant = Assistant.load(DATA / 'dishes' / 'index')
log = PreferenceLog(FOLDER, 'ann')
rows = map(json.loads, (DATA / 'dishes' / 'queries.jsonl').read_text(encoding='utf-8').splitlines())
asked = [r['text'] for r in rows if (r['metadata']['kind'], r['metadata']['split']) == ('choice', 'train')]
ranked = []
for question in asked:
    found = [hit.passage for hit in assistant.find(question, k=5)]
    likes = [passage.metadata['diet'] in ('vegan', 'vegetarian') for passage in found]
    tiers = [[n for n, liked in enumerate(likes) if liked == side] for side in (True, False)]
    ranked += [Ranking(question, found, tiers)] if all(tiers) else []
for ranking in ranked[:19]:
    log.record(ranking)
"""


class Film:
    """Pictures of a panel, each with how long it is seen and what it shows; few colours, so it is small."""

    def __init__(self, page, panel):
        self.page, self.panel, self.frames = page, panel, []

    def take(self, caption: str, seconds: float, clicked=None) -> None:
        """`clicked`: what is about to be clicked, and gets a ring."""
        if not PICTURES:
            return
        from matplotlib import get_data_path
        from PIL import Image, ImageDraw, ImageFont

        self.page.wait_for_timeout(400)
        box, button = self.panel.bounding_box(), clicked.bounding_box() if clicked is not None else None
        shot = Image.open(io.BytesIO(self.panel.screenshot())).convert("RGB")
        frame = Image.new("RGB", (shot.width, 716), "white")  # the status line is below
        frame.paste(shot, (0, 38))
        draw, font = ImageDraw.Draw(frame), f"{get_data_path()}/fonts/ttf/DejaVuSans-Bold.ttf"
        draw.text((10, 7), caption, "#0b5cad", ImageFont.truetype(font, 20))
        if button:
            x = button["x"] - box["x"] + button["width"] / 2
            y = button["y"] - box["y"] + button["height"] / 2 + 38
            draw.ellipse((x - 19, y - 19, x + 19, y + 19), outline="#d55e00", width=4)
        self.frames.append((frame.quantize(96, dither=Image.Dither.NONE), round(1000 * seconds)))

    def save(self, path: Path) -> None:
        if self.frames:
            (first, *rest), durations = zip(*self.frames)
            path.parent.mkdir(parents=True, exist_ok=True)
            options = {"append_images": rest, "duration": list(durations), "loop": 0, "optimize": True}
            first.save(path, save_all=True, **options)


def test_a_taste_said_in_the_chat_changes_the_list(page, show):
    page.set_viewport_size({"width": 960, "height": 800})
    show(VISITOR, "ChatApp(assistant, log)")
    panel = page.locator(".rk-chat").last  # while another is open in it
    page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    film = Film(page, panel)

    box = panel.get_by_role("textbox", name="Question")
    box.fill(QUESTION)
    film.take("1  Ask", 1.2, panel.get_by_role("button", name="Ask", exact=True))
    box.press("Enter")
    says(panel, "Answered in")
    titles = turn(panel).locator(".rk-source .rk-title")
    before = titles.all_inner_texts()
    assert any("(meat" in title for title in before)
    rank = turn(panel).get_by_role("button", name="Rank these documents")
    film.take("1  Ask: an answer, and what it was written from", 2.2, rank)

    rank.click()
    ranking = page.get_by_role("region", name="Rank the documents")
    expect(ranking).to_be_in_viewport()
    film.take("2  Rank: what would you rather have?", 1.2)
    meat = lambda slot: "(meat" in ranking.locator(f".rk-slot-{slot} .rk-title").inner_text()  # noqa: E731
    place = 1
    for slot in (1, 2, 3):
        if not meat(slot):
            card = ranking.locator(f".rk-slot-{slot} .rk-title")
            film.take("2  Rank: what would you rather have?", 0.8, card)
            card.click()
            page.keyboard.press(str(place))
            page.wait_for_timeout(600)  # or the same key would be taken for a double press
            place += 1
    save = ranking.get_by_role("button", name="Save this order")
    film.take("2  Rank: what would you rather have?", 1.3, save)
    save.click()
    says(ranking, "Saved #21 ✓")  # the turn was the twentieth event
    learn = panel.get_by_role("button", name="Learn from my clicks")
    learn.scroll_into_view_if_needed()
    film.take("3  Learn: here from twenty lists", 1, learn)

    learn.click()
    says(panel, "Learned: used from now on.")
    expect(panel.get_by_role("heading", name="What I learned")).to_be_in_viewport()
    again = panel.get_by_role("button", name="Ask this again")
    film.take("3  Learn: who moves, and how sure it is", 3.2, again)
    again.click()
    says(panel, "Answered in")
    after = titles.all_inner_texts()
    assert after != before and not any("(meat" in title for title in after)
    film.take("4  Ask again: the list has changed", 3)
    film.save(Path(PICTURES or "") / "widget-loop.gif")
    assert sum(milliseconds for _, milliseconds in film.frames) <= 15_000
