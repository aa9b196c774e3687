"""What the panels need from the browser: keys, names for screen readers, the look, and a dead kernel noticed.

One small anywidget in each panel, written out here, so that nothing has to be built. The panels work without
it, but for these.
"""

import anywidget
import traitlets

_SCRIPT = """
const LOST = "The kernel was restarted. Nothing pressed here would be saved: run this cell again.";

function render({ model, el }) {
  let box = null, banner = null, dragged = null, held = null;
  const own = (name) =>
    [box, ...box.querySelectorAll("." + name)].filter(
      (node) => node.classList.contains(name) && node.closest(".rk-panel") === box,
    );
  const numberOf = (node, prefix) => {
    const part = node.closest?.(`[class*=${prefix}]`);
    const found = part && [...part.classList].find((name) => name.startsWith(prefix));
    return found ? Number(found.slice(prefix.length)) : null;
  };
  const slotOf = (node) => numberOf(node, "rk-slot-");

  // Roles, names and states, by class. Set again whenever JupyterLab renders a part anew.
  function label() {
    for (const [name, attributes] of Object.entries(model.get("aria"))) {
      for (const node of own(name)) {
        for (const [key, value] of Object.entries(attributes)) {
          if (node.getAttribute(key) !== value) node.setAttribute(key, value);
        }
      }
    }
  }

  // Hot keys, on their way down: ipywidgets' text fields let no key come up again.
  function onHotKey(event) {
    const command = event.ctrlKey || event.metaKey;
    const typing = event.target.matches?.("input, textarea, select");
    let key = null;
    if (event.isComposing || event.target.closest?.(".rk-panel") !== box) return;
    if (event.key === "Enter" && command) key = "save";
    else if (event.key === "Enter" && event.target.closest?.(".rk-enter input")) key = "enter";
    else if (event.altKey && event.key === "ArrowUp") key = "up";
    else if (event.altKey && event.key === "ArrowDown") key = "down";
    else if (!typing && !event.altKey && !command && /^[0-9=]$/.test(event.key)) key = event.key;
    if (!key) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.repeat && key !== "up" && key !== "down") return;
    model.send({ key, slot: slotOf(event.target) });
  }

  // No other key is JupyterLab's, either, where "dd" would delete this cell; only Ctrl+S still saves.
  function onKey(event) {
    if (!((event.ctrlKey || event.metaKey) && event.key === "s")) event.stopPropagation();
  }

  // Dragging a card by its handle: an extra, since keys and buttons do the same.
  function onDrag(event) {
    if (event.type === "dragstart") {
      dragged = event.target.closest?.(".rk-handle") ? slotOf(event.target) : null;
      if (dragged !== null) event.dataTransfer.setData("text/plain", "");
    } else if (event.type === "dragend") dragged = null;
    else if (dragged !== null) {
      event.preventDefault();
      const slot = slotOf(event.target);
      if (event.type === "drop" && slot !== null) model.send({ key: "drop", slot: dragged, target: slot });
    }
    if (dragged !== null || event.type === "dragend") event.stopPropagation();
  }

  // What is typed, at once: ipywidgets may send it only after the click or key that is to save it.
  function onInput({ target }) {
    const field = target.closest?.(".rk-panel") === box ? numberOf(target, "rk-field-") : null;
    if (field !== null) model.send({ key: "typed", field, text: target.value });
  }

  // A field has a new line for each item. The line that has the focus, until the person moves it elsewhere.
  function onFocus({ type, target }) {
    const home = target.closest?.(".rk-panel") === box ? target.closest(".rk-field") : null;
    if (type === "focusin") held = home && { line: target, home };
    else {
      // Being taken away is no move, and only afterwards can that be told from one.
      setTimeout(() => {
        const moved = target.isConnected && document.activeElement !== target;
        if (moved && held?.line === target) held = null;
      });
    }
  }

  // The focus that the old line had goes on to the new one, unless the person chose another place.
  function refocus() {
    if (!held || held.line.isConnected) return;
    if (document.activeElement?.contains(box)) held.home.querySelector("input")?.focus();
    else held = null;
  }

  // The document that moved keeps the focus: the same button, in its new slot.
  function follow(message) {
    const active = document.activeElement;
    if (!message.follow || !box?.contains(active)) return;
    const role = ["rk-up", "rk-down", "rk-tie", "rk-more"].find((name) => active.classList.contains(name));
    const slot = box.querySelector(".rk-slot-" + message.follow);
    slot?.querySelector("." + (role ?? "rk-up"))?.focus();
  }

  // ipywidgets marks a view whose kernel is gone; a panel in that state would swallow clicks.
  function alive() {
    setTimeout(() => {
      if (!box) return;
      const lost = box.classList.contains("jupyter-widgets-disconnected");
      box.inert = lost;
      if (lost && !banner) {
        banner = document.createElement("div");
        banner.className = "rk-lost";
        banner.setAttribute("role", "alert");
        banner.textContent = LOST;
        box.before(banner);
      } else if (!lost) {
        banner?.remove();
        banner = null;
      }
    });
  }

  const observer = new MutationObserver(() => {
    label();
    refocus();
  });
  const focuses = ["focusin", "focusout"];
  const drags = ["dragstart", "dragover", "drop", "dragend"];
  function attach() {
    box = el.closest(".rk-panel");
    if (!box) {
      timer = setTimeout(attach, 50);
      return;
    }
    box.addEventListener("keydown", onHotKey, true);
    box.addEventListener("keydown", onKey);
    box.addEventListener("input", onInput, true);
    for (const name of focuses) box.addEventListener(name, onFocus);
    for (const name of drags) box.addEventListener(name, onDrag);
    observer.observe(box, { childList: true, subtree: true });
    label();
    alive();
  }
  let timer = setTimeout(attach);
  model.on("change:aria", label);
  model.on("msg:custom", follow);
  model.on("comm_live_update", alive);
  return () => {
    clearTimeout(timer);
    observer.disconnect();
    banner?.remove();
    box?.removeEventListener("keydown", onHotKey, true);
    box?.removeEventListener("keydown", onKey);
    box?.removeEventListener("input", onInput, true);
    for (const name of focuses) box?.removeEventListener(name, onFocus);
    for (const name of drags) box?.removeEventListener(name, onDrag);
    model.off("change:aria", label);
    model.off("msg:custom", follow);
    model.off("comm_live_update", alive);
  };
}
export default { render };
"""

_STYLE = """
.rk-panel {
  --rk-text: var(--jp-content-font-color1, #1f1f1f);
  --rk-soft: var(--jp-content-font-color2, #575757);
  --rk-line: var(--jp-border-color2, #c8c8c8);
  --rk-card: var(--jp-layout-color1, #fff);
  --rk-back: var(--jp-layout-color2, #f2f2f2);
  --rk-focus: var(--jp-brand-color1, #1565c0);
  container-type: inline-size;
  width: 100%;
  max-width: 1040px;
  gap: 8px;
  padding: 12px;
  border: 1px solid var(--rk-line);
  border-radius: 6px;
  background: var(--rk-back);
  color: var(--rk-text);
  font-family: var(--jp-ui-font-family, system-ui, sans-serif);
  font-size: var(--jp-content-font-size1, 14px);
  box-sizing: border-box;
  overflow: visible;
}
.rk-panel .rk-panel { margin: 0; max-width: none; }
.rk-panel .widget-html, .rk-panel .widget-html-content {
  color: var(--rk-text);
  font-size: var(--jp-content-font-size1, 14px);
  line-height: 1.45;
  height: auto;
  min-height: 0;
  margin: 0;
}
.rk-panel .widget-html > label { display: none; }
.rk-panel .widget-html-content { width: 100%; overflow-wrap: anywhere; }
.rk-panel .rk-guard { position: absolute; width: 0; height: 0; overflow: hidden; margin: 0; }
.rk-top { justify-content: space-between; align-items: baseline; gap: 16px; overflow: visible; }
.rk-top .widget-html:first-child { flex: 1 1 auto; min-width: 0; }
.rk-question { font-size: 1.15em; font-weight: 600; }
.rk-progress { color: var(--rk-soft); white-space: nowrap; font-variant-numeric: tabular-nums; }
.rk-card {
  border: 1px solid var(--rk-line);
  border-radius: 5px;
  background: var(--rk-card);
  padding: 8px 12px;
  gap: 4px;
  overflow: visible;
}
.rk-head { justify-content: space-between; align-items: center; gap: 8px 16px; overflow: visible; }
.rk-head > .widget-html { flex: 1 1 auto; min-width: 0; }
.rk-title { font-weight: 600; }
.rk-place {
  display: inline-block; min-width: 2.2em; margin-right: 8px; padding: 0 6px;
  border: 1px solid var(--rk-line); border-radius: 4px; text-align: center;
  font-variant-numeric: tabular-nums;
}
.rk-name { color: var(--rk-soft); margin-right: 8px; }
.rk-handle { cursor: grab; color: var(--rk-soft); padding-right: 8px; user-select: none; }
.rk-text { white-space: pre-wrap; }
.rk-folded { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4; overflow: hidden; }
.rk-buttons { gap: 6px; flex-wrap: wrap; overflow: visible; align-items: center; }
.rk-head .rk-buttons { flex: 0 0 auto; }
.rk-panel button.jupyter-button {
  width: auto; min-width: 0; height: auto; min-height: 26px; margin: 0; padding: 2px 10px; line-height: 20px;
  border: 1px solid var(--rk-line); border-radius: 4px;
  background: var(--rk-card); color: var(--rk-text);
  font-size: var(--jp-ui-font-size1, 13px);
  overflow: visible;
}
.rk-panel button.jupyter-button:hover { background: var(--rk-back); box-shadow: none; }
.rk-panel button.jupyter-button.rk-main { border: 2px solid var(--rk-text); font-weight: 600; }
.rk-panel button.jupyter-button[aria-pressed="true"] { border: 2px solid var(--rk-focus); font-weight: 600; }
.rk-panel button.jupyter-button[aria-disabled="true"] {
  opacity: 0.45; cursor: default; border-style: dashed;
}
.rk-panel button.jupyter-button:focus-visible, .rk-panel input:focus-visible {
  outline: 2px solid var(--rk-focus) !important; outline-offset: 2px;
}
.rk-panel .rk-field { flex: 1 1 16em; margin: 0; overflow: visible; }
.rk-panel .widget-text { width: auto; flex: 1 1 16em; margin: 0; height: auto; align-items: center; }
.rk-panel .widget-text > label {
  width: auto; color: var(--rk-text); font-size: var(--jp-ui-font-size1, 13px); margin-right: 8px;
}
.rk-panel .widget-text input {
  height: 28px; min-width: 0; background: var(--rk-card); color: var(--rk-text);
  border: 1px solid var(--rk-line); border-radius: 4px;
}
.rk-panel .rk-status .widget-html-content { min-height: 1.45em; font-size: var(--jp-ui-font-size1, 13px); }
.rk-hint { color: var(--rk-soft); font-size: var(--jp-ui-font-size1, 13px); }
.rk-failed, .rk-lost {
  border-left: 4px solid var(--jp-error-color1, #b71c1c); padding-left: 8px; font-weight: 600;
}
.rk-lost { margin: 8px 0; color: var(--jp-content-font-color1, #1f1f1f); }
.rk-panes { gap: 8px; align-items: stretch; overflow: visible; }
.rk-panes > .rk-card { flex: 1 1 0; min-width: 0; }
.rk-scale { gap: 6px; overflow: visible; flex-wrap: wrap; }
.rk-panel .rk-scale > button.jupyter-button { flex: 1 1 auto; min-width: max-content; padding: 2px 6px; }
.rk-below { margin-top: 8px; }
.rk-panel button.jupyter-button.rk-bad { margin-left: 12px; }
.rk-sources { margin: 2px 0 0; padding: 0; list-style: none; }
.rk-sources li { margin: 2px 0; }
.rk-reply { padding-bottom: 6px; }
.rk-answer { white-space: pre-wrap; font-size: 1.05em; }
.rk-earlier summary { cursor: pointer; color: var(--rk-soft); }
.rk-earlier ul { margin: 0; padding: 0; list-style: none; }
.rk-earlier details > ul > li { padding: 8px 0; border-top: 1px solid var(--rk-line); }
.rk-earlier .rk-answer { font-size: 1em; }
.rk-panel[inert] { opacity: 0.5; }
.rk-panel.jupyter-widgets-disconnected { pointer-events: none; }
.rk-panel.jupyter-widgets-disconnected::before, .rk-panel .jupyter-widgets-disconnected::before {
  content: none;
}
@container (max-width: 640px) {
  .rk-head, .rk-panes, .rk-top { flex-direction: column; align-items: stretch; }
  .rk-panel .rk-scale > button.jupyter-button { flex: 1 1 30%; }
  .rk-panel button.jupyter-button.rk-bad { margin-left: 0; }
  .rk-panes > .rk-card { flex-basis: auto; }
  .rk-top { gap: 2px; }
  .rk-panel .rk-field, .rk-panel .widget-text { flex-basis: 100%; }
}
"""


class Guard(anywidget.AnyWidget):
    """Sits in a panel and watches over it: over the nearest element around it of class `rk-panel`.

    `aria`: attributes by class name of the panel's parts. It sends {"key", "slot"} for a hot key and
    {"key": "typed", "field", "text"} for each change of a field's line, and takes {"follow": slot}, which
    moves the focus to that slot.
    """

    _esm = _SCRIPT
    _css = _STYLE
    aria = traitlets.Dict().tag(sync=True)
