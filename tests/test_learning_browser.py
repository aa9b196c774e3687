"""What a learner turns and drags, in JupyterLab in a real browser."""

import re

from tests.test_browser import lab, page, pytestmark  # noqa: F401
from tests.test_widgets_browser import expect, says, show  # noqa: F401


def test_dragging_a_document_above_another_and_keys(page, show):  # noqa: F811
    panel = show("from ragkit.widgets import PreferencePlayground\nPreferencePlayground()")
    panel.locator(".rk-slot-5 .rk-handle").drag_to(panel.locator(".rk-slot-1 .rk-title"))
    says(panel, "c5 over c1, h = 1: each moved by 0.50, so Δ = 1.00. In order: c2, c1, c3, c4, c5.")
    label = "Place 5: c5, Growing basil from seed, score -0.50, began at -1.00"
    expect(panel.locator(".rk-slot-5")).to_have_attribute("aria-label", label)

    # By the keyboard, with a stronger preference; the focus goes where the document went.
    panel.get_by_role("slider").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    says(panel, "The next preference has the strength h = 1.5.")
    # Each part of a slider that takes the focus has its name, and shows where the focus is.
    for part in ("slider", "textbox"):
        held = panel.get_by_role(part, name="strength h of the next preference", exact=True)
        expect(held).to_be_focused()
        expect(held).to_have_css("outline-style", "solid")
        page.keyboard.press("Tab")
    panel.get_by_role("button", name="c5 belongs one higher").focus()
    page.keyboard.press("Alt+ArrowUp")
    says(panel, "c5 over c4, h = 1.5: each moved by")
    expect(panel.locator(".rk-slot-4").get_by_role("button", name="c5 belongs one higher")).to_be_focused()
    panel.get_by_role("button", name="20 more steps").click()
    says(panel, "20 steps on all that was said (2)")


def test_turning_a_knob_by_the_keyboard_solves_a_task(page, show):  # noqa: F811
    panel = show("from ragkit.widgets import LossKnobs\nLossKnobs()")
    says(panel, "The minimum sits at Δ = 1.39. Next, task 1")
    strength = panel.get_by_role("group", name="strength h, from 0.1 to 3").get_by_role("slider")
    strength.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    says(panel, "The minimum sits at Δ = 1.98. That solves task 1.")
    ghost = re.compile(
        r"h = 0.7, .* minimum is at Δ = 1.98. In gray, as it was before: h = 1, m = 0, p = 0.8"
    )
    expect(panel.get_by_role("img")).to_have_attribute("alt", ghost)

    # All four by the keyboard alone. A number can be typed over, and its digits are no hot keys.
    weight = panel.get_by_role("slider", name="weight w, from 0.1 to 3")
    weight.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    says(panel, "That solves task 2.")
    page.keyboard.press("Shift+Tab")  # from the weight's slider back to the target's number
    expect(panel.get_by_role("textbox", name="target p, from 0.5 to 1")).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("0.5")
    page.keyboard.press("Enter")
    says(panel, "The minimum sits at Δ = 0.00.")
    offset = panel.get_by_role("slider", name="offset m, from -2 to 2")
    offset.focus()
    for _ in range(14):
        page.keyboard.press("ArrowRight")
    says(panel, "The minimum sits at Δ = 2.00. That solves task 3. All tasks are solved.")

    # In a narrow window nothing of the figure is cut off.
    page.set_viewport_size({"width": 800, "height": 900})
    page.wait_for_function(
        """() => {
            const right = node => node.getBoundingClientRect().right;
            const images = [...document.querySelectorAll('.rk-panel img')];
            return images.length && images.every(one => right(one) <= right(one.closest('.rk-panel')));
        }"""
    )
