// The conversation: a citation shows its sentence in the source beside it, and what is new comes into view.
function render({ model, el }) {
  let box = null, wanted = null;

  // Clicked, or reached by the keyboard. The link leads nowhere: the page's address stays.
  function onCite(event) {
    const link = event.target.closest?.(".rk-cite");
    if (!link) return;
    if (event.type === "click") event.preventDefault();
    const source = link.closest(".rk-turn")?.querySelector(`.rk-source-${link.dataset.source}`);
    if (!source) return;
    for (const lit of box.querySelectorAll(".rk-lit")) lit.classList.remove("rk-lit");
    const marks = source.querySelectorAll(".rk-mark");
    source.open = true;
    for (const node of [link, source, ...marks]) node.classList.add("rk-lit");
    if (marks.length) into(marks[0], false, ".rk-text"); // a long document scrolls by itself
    into(marks[0] ?? source, false);
  }

  // Scrolls the conversation and not the page around it. `top`: to the upper edge, or as little as it takes.
  function into(node, top, around = ".rk-log") {
    const outside = node.closest(around);
    if (!outside) return;
    const [inner, outer] = [node.getBoundingClientRect(), outside.getBoundingClientRect()];
    const [above, below] = [inner.top - outer.top - 8, inner.bottom - outer.bottom + 8];
    if (top || above < 0) outside.scrollTop += above;
    else if (below > 0) outside.scrollTop += Math.min(below, above);
  }

  // Until the person scrolls: the part may still be to come, and grows while text is written.
  function follow() {
    const node = wanted && box.querySelector(`.${wanted}`);
    if (!node) return;
    into(node, true);
    // What a button opened must be seen; an answer that is being written must not move the page.
    if (!wanted.startsWith("rk-turn")) node.scrollIntoView({ block: "nearest" });
  }
  const stay = () => {
    wanted = null;
  };
  function onMessage({ show }) {
    wanted = show;
    follow();
  }

  const ended = new AbortController();
  const observer = new MutationObserver(follow);
  function attach() {
    box = el.closest(".rk-panel");
    if (!box) {
      timer = setTimeout(attach, 50);
      return;
    }
    const options = { signal: ended.signal, passive: true };
    for (const name of ["wheel", "pointerdown", "keydown"]) box.addEventListener(name, stay, options);
    for (const name of ["click", "focusin"]) box.addEventListener(name, onCite, { signal: ended.signal });
    observer.observe(box, { childList: true, subtree: true, attributeFilter: ["style"] });
    follow();
  }
  let timer = setTimeout(attach);
  model.on("msg:custom", onMessage);
  return () => {
    clearTimeout(timer);
    observer.disconnect();
    ended.abort();
    model.off("msg:custom", onMessage);
  };
}
export default { render };
