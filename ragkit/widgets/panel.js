const AGAIN = "choose Run All Above Selected Cell in the menu Run, then run this cell again.";
const LOST = `The kernel was restarted. Nothing pressed here would be saved: ${AGAIN}`;
const SILENT =
  "No answer from the kernel: it is busy, or gone. Nothing that was pressed is saved while this line stays. " +
  `If it does not go away, ${AGAIN}`;
const PATIENCE = 8000; // ms until a press that nobody took is called that

function render({ model, el }) {
  let box = null, banner = null, dragged = null, held = null, waiting = null;
  const own = (name) =>
    [box, ...box.querySelectorAll(`.${name}`)].filter(
      (node) => node.classList.contains(name) && node.closest(".rk-panel") === box,
    );
  const numberOf = (node, prefix) => {
    const part = node.closest?.(`[class*=${prefix}]`);
    const found = part && [...part.classList].find((name) => name.startsWith(prefix));
    return found ? Number(found.slice(prefix.length)) : null;
  };
  const slotOf = (node) => numberOf(node, "rk-slot-");
  const shows = (node) => node.isConnected && node.offsetParent !== null;

  // The kernel answers each press as soon as it takes it, so that silence can be told from success.
  function send(message) {
    model.send(message);
    waiting ??= setTimeout(() => warn(box.inert ? LOST : SILENT), PATIENCE);
  }
  function heard() {
    clearTimeout(waiting);
    waiting = null;
    alive();
  }

  function warn(text) {
    if (text === LOST && box.parentElement.closest(".rk-panel")) return; // the panel around this one says so
    if (banner?.textContent === text) return;
    banner?.remove();
    banner = text ? document.createElement("div") : null;
    if (!text) return;
    banner.className = "rk-lost";
    banner.setAttribute("role", "alert");
    banner.textContent = text;
    box.before(banner);
  }

  // Roles, names and states, by class. Set again whenever JupyterLab renders a part anew.
  function label() {
    for (const [name, attributes] of Object.entries(model.get("aria"))) {
      for (const node of own(name)) {
        for (const [key, value] of Object.entries(attributes)) {
          if (node.getAttribute(key) !== value) node.setAttribute(key, value);
        }
        // What takes the focus in a slider is inside of it, and is called as all of it is.
        for (const inner of node.querySelectorAll(":scope.widget-slider :is(.noUi-handle, .widget-readout)")) {
          inner.setAttribute("aria-label", attributes["aria-label"]);
          if (!inner.hasAttribute("role")) inner.setAttribute("role", "textbox");
        }
      }
    }
  }

  // Hot keys, on their way down: ipywidgets' text fields let no key come up again.
  function onHotKey(event) {
    const command = event.ctrlKey || event.metaKey;
    // A slider's number can be typed over, too.
    const typing = event.target.matches?.("input, textarea, select, [contenteditable]");
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
    send({ key, slot: slotOf(event.target) });
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
      if (event.type === "drop" && slot !== null) send({ key: "drop", slot: dragged, target: slot });
    }
    if (dragged !== null || event.type === "dragend") event.stopPropagation();
  }

  // Buttons send their own clicks, which nobody answers. On its way down, so that the answer comes first.
  // One that is plain HTML has its key in `data-key`, and its slot as cards have theirs.
  function onClick({ target }) {
    const button = target.closest?.(".rk-panel") === box ? target.closest("button") : null;
    if (button?.dataset.key) send({ key: button.dataset.key, slot: slotOf(button) });
    else if (button) send({ key: "click" });
  }

  // What is typed, at once: ipywidgets may send it only after the click or key that is to save it.
  function onInput({ target }) {
    const field = target.closest?.(".rk-panel") === box ? numberOf(target, "rk-field-") : null;
    if (field !== null) model.send({ key: "typed", field, text: target.value });
  }

  // What has the focus, until the person moves it elsewhere. A field gets a new line for each item, and the
  // slot of no document is hidden: were the focus lost to the page, the next key would be JupyterLab's.
  function onFocus({ type, target }) {
    const here = target.closest?.(".rk-panel") === box;
    if (type === "focusin") held = here ? { node: target, home: target.closest(".rk-field") } : null;
    else {
      // Being taken away is no move, and only afterwards can that be told from one.
      setTimeout(() => {
        const moved = shows(target) && document.activeElement !== target;
        if (moved && held?.node === target) held = null;
      });
    }
  }

  // The focus that is lost goes on to the field's new line, or to the panel, unless the person chose a place.
  function refocus() {
    if (!held || shows(held.node)) return;
    const active = document.activeElement;
    if (active !== held.node && !active?.contains(box)) held = null;
    else (held.home ? held.home.querySelector("input") : box)?.focus(); // the line may be still to come
  }

  // The document that moved keeps the focus: the same button, or all of the card, in its new slot.
  function onMessage(message) {
    heard();
    const active = document.activeElement;
    if (!message.follow || !box?.contains(active)) return;
    const slot = box.querySelector(`.rk-slot-${message.follow}`);
    const role = ["rk-up", "rk-down", "rk-tie", "rk-more"].find((name) => active.classList.contains(name));
    const button = role && slot?.querySelector(`.${role}`);
    (button && shows(button) ? button : slot)?.focus();
  }

  // ipywidgets marks a view whose kernel is gone, in most front ends; in that state it would swallow clicks.
  function alive() {
    setTimeout(() => {
      if (!box) return;
      box.inert = box.classList.contains("jupyter-widgets-disconnected");
      warn(box.inert ? LOST : null);
    });
  }

  // A long document that fits at this width has no more to show.
  function fit() {
    for (const more of own("rk-more")) {
      const card = more.closest(".rk-card");
      const text = card?.querySelector(".rk-folded");
      const fits = text?.offsetHeight > 0 && text.scrollHeight <= text.clientHeight + 1;
      card?.classList.toggle("rk-fits", fits);
    }
  }

  const observer = new MutationObserver(() => {
    label();
    fit();
    refocus();
  });
  const sizes = new ResizeObserver(() => fit());
  const ended = new AbortController();
  function attach() {
    box = el.closest(".rk-panel");
    if (!box) {
      timer = setTimeout(attach, 50);
      return;
    }
    const listen = (names, listener, capture = false) => {
      for (const name of names.split(" ")) {
        box.addEventListener(name, listener, { capture, signal: ended.signal });
      }
    };
    listen("keydown", onHotKey, true);
    listen("keydown", onKey);
    listen("click", onClick, true);
    listen("input", onInput, true);
    listen("focusin focusout", onFocus);
    listen("dragstart dragover drop dragend", onDrag);
    observer.observe(box, { childList: true, subtree: true, attributeFilter: ["style"] });
    sizes.observe(box);
    label();
    alive();
  }
  let timer = setTimeout(attach);
  const heeds = { "change:aria": label, "msg:custom": onMessage, comm_live_update: alive };
  for (const [name, listener] of Object.entries(heeds)) model.on(name, listener);
  return () => {
    clearTimeout(timer);
    clearTimeout(waiting);
    observer.disconnect();
    sizes.disconnect();
    banner?.remove();
    ended.abort();
    for (const [name, listener] of Object.entries(heeds)) model.off(name, listener);
  };
}
export default { render };
