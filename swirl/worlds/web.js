// Runs in every frame before the page's own scripts; see swirl/worlds/browser.py, which puts SEED in, and web.py: LINES.
(() => {
  // Chances that follow the seed (mulberry32).
  let s = SEED >>> 0;
  Math.random = () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  // Whatever listens to the mouse can be clicked.
  const listening = new WeakSet();
  const add = EventTarget.prototype.addEventListener;
  EventTarget.prototype.addEventListener = function (type, ...rest) {
    if (/^(click|mousedown|mouseup|pointerdown)$/.test(type) && this instanceof Element) listening.add(this);
    return add.call(this, type, ...rest);
  };
  const HIDDEN = "script,style,noscript,template,head,#reward-display,#click-canvas,#sync-task-cover";  // MiniWoB's frame
  const FIELD = "input,select,textarea,[contenteditable=''],[contenteditable='true']";
  const ACTIVE = FIELD + ",a[href],button,summary,[role=button],[role=link],[role=tab],[role=menuitem],[role=option]," +
    "[role=checkbox],[role=radio],[role=switch]";
  const clean = (text) => (text || "").replace(/\s+/g, " ").trim();
  const quote = (text) => JSON.stringify(clean(text));
  const isActive = (e) =>
    e !== document.body && e !== document.documentElement && !e.disabled &&
    (e.matches(ACTIVE) || e.onclick || e.onmousedown || listening.has(e) ||
     (getComputedStyle(e).cursor === "pointer" && getComputedStyle(e.parentElement).cursor !== "pointer" && !e.matches("label")));
  const nameOf = (e) =>
    clean(e.getAttribute("aria-label")) || clean(e.labels?.[0]?.innerText) || (e.matches(FIELD) ? "" : clean(e.innerText || e.textContent)) ||
    (/^(submit|button|reset)$/.test(e.type) ? clean(e.value) : "") || clean(e.getAttribute("placeholder")) ||
    clean(e.getAttribute("title")) || clean(e.getAttribute("alt")) || clean(e.getAttribute("name")) || clean(e.id) ||
    clean(e.getAttribute("class"));
  // Five places of a slider, from one end to the other.
  const places = (e) => [0, 1, 2, 3, 4].map((part) => {
    const [from, to] = [Number(e.min || 0), Number(e.max || 100)], step = Number(e.step || 1) || (to - from) / 4;
    return String(from + Math.floor((part * (to - from)) / 4 / step) * step);
  });
  const fact = (e) => {
    const kind = e.matches("input") ? (e.type === "text" ? "input" : e.type) : e.getAttribute("role") ||
      (e.isContentEditable ? "textbox" : e.tagName.toLowerCase());
    let line = `${kind} ${quote(nameOf(e))}`;
    if (/^(checkbox|radio)$/.test(e.type)) line += e.checked ? " checked" : " unchecked";
    else if (e.matches("select")) line += ` = ${[...e.selectedOptions].map((o) => quote(o.label)).join(" ")} of ${[...e.options].slice(0, 20).map((o) => quote(o.label)).join(" ")}`;
    else if (e.matches(FIELD) && !/^(submit|button|reset|image|file)$/.test(e.type)) line += ` = ${quote(e.value ?? e.innerText)}`;
    if (e.type === "range") line += ` of ${places(e).map(quote).join(" ")}`;
    for (const mark of ["aria-selected", "aria-expanded", "aria-checked"])
      if (e.getAttribute(mark) === "true") line += ` ${mark.slice(5)}`;
    return e === document.activeElement ? line + " focused" : line;
  };
  // MiniWoB++'s pages wait to be started, and count the seconds.
  const start = () => {
    if (!window.core?.startEpisodeReal) return;
    core.EPISODE_MAX_TIME = 1e9;
    core.startEpisodeReal();
  };
  window.__swirl = { start, elements: [], read() {
    const lines = [], elements = [];
    let run = "";  // text that stands in one line, over the borders of inline elements
    const full = () => lines.length >= LINES;  // what comes after is left out anyway, and a huge page takes long
    const flush = () => { if (clean(run)) lines.push(quote(run)); run = ""; };
    const walk = (e, named) => {
      if (full() || e.matches(HIDDEN) || !e.checkVisibility({ visibilityProperty: true })) return;
      const active = isActive(e);
      if (active && ![...e.querySelectorAll("*")].some((c) => c.checkVisibility() && isActive(c))) {
        flush();
        elements.push(e);
        lines.push(`[${elements.length}] ${fact(e)}`);
        return;
      }
      const block = !getComputedStyle(e).display.startsWith("inline") || e.matches("br");
      if (block) flush();
      // The text of a label is the name of its field already.
      const label = named || (e.matches("label") && e.control && isActive(e.control));
      for (const child of e.childNodes) {
        if (full()) return;
        if (child.nodeType === Node.ELEMENT_NODE) walk(child, label);
        else if (child.nodeType === Node.TEXT_NODE && !label) run += child.data;
      }
      if (block) flush();
    };
    if (document.body) walk(document.body, false);
    flush();
    this.elements = elements;
    return { title: document.title, lines, reward: window.WOB_DONE_GLOBAL ? window.WOB_RAW_REWARD_GLOBAL : null };
  } };
})();
