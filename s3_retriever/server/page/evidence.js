// The list of evidence: one row for each span, its score by source, and arrows of the second hop.

import { bar, clipped, count, el, extent, motion, number, partsOf, sourceClass, sourceName, svg,
  titleOf, byId, SOURCES } from "./dom.js";

const TEXT = 420; // units of a span's text in the list; the document shows all of it
const FIRST = 30; // rows that are shown at once, a screen or two
const ARROWS = 60;
const LANES = 4; // side by side; each bridge has one

export class Evidence {
  // `open(span, list)` shows a span in its document.
  constructor(label, open) {
    this.spans = [];
    this.open = open;
    this.finish = () => {};
    this.rows = el("ol", { class: "hits", "aria-label": label });
    this.arrows = svg("svg", { class: "arrows", "aria-hidden": "true" });
    this.legend = el("p", { class: "legend" });
    this.heading = el("h2", {}, label);
    this.note = el("p", { class: "quiet note" });
    this.element = el("section", { class: "evidence", "aria-label": label },
      el("div", { class: "bar-head" }, this.heading, this.note), this.legend,
      el("div", { class: "ways" }, this.arrows, this.rows));
    this.rows.addEventListener("click", (event) => this.#clicked(event));
    this.rows.addEventListener("pointerover", (event) => this.#pointed(event));
    new ResizeObserver(() => this.#draw()).observe(this.rows);
  }

  show(spans, note) {
    this.spans = spans;
    this.note.textContent = note;
    this.places = new Map(spans.map((span, at) => [span.id, at]));
    const parts = spans.map(partsOf);
    const [low, high] = parts.map(extent).reduce(
      ([a, b], [c, d]) => [Math.min(a, c), Math.max(b, d)], [0, 0]);
    const template = byId("hit").content.firstElementChild;
    const add = (first, end) => this.rows.append(...spans.slice(first, end).map((span, at) =>
      this.#row(template, span, first + at, parts[first + at], low, high)));
    this.rows.replaceChildren();
    add(0, FIRST);
    // The rest follows once the first are on the screen, or when it is needed.
    this.finish = () => {
      this.finish = () => {};
      add(FIRST);
      this.#draw();
    };
    if (spans.length > FIRST) {
      const { finish } = this;
      requestAnimationFrame(() => setTimeout(() => this.finish === finish && finish()));
    }
    if (!spans.length) this.rows.append(el("li", { class: "nothing" }, "Nothing found."));
    const used = new Set(parts.flatMap((each) => each.map(([source]) => source)));
    this.legend.replaceChildren(...SOURCES.filter((source) => used.has(source)).map((source) =>
      el("span", {}, svg("svg", { class: "dot", viewBox: "0 0 8 8", "aria-hidden": "true" },
        svg("rect", { class: sourceClass(source), width: 8, height: 8, rx: 2 })),
      sourceName(source))));
    this.#draw();
  }

  #row(template, span, at, parts, low, high) {
    const row = template.cloneNode(true);
    const open = row.firstElementChild;
    const [rank, head, text, bars, score] = open.children;
    open.dataset.at = at;
    open.tabIndex = at ? -1 : 0;
    rank.textContent = at + 1;
    head.firstElementChild.textContent = titleOf(span);
    text.textContent = clipped(span.text, TEXT);
    bar(bars, parts, low, high);
    score.textContent = number(span.score);
    if (span.bridge && span.sources.includes("hop")) {
      const place = this.places.get(span.bridge);
      const via = place === undefined ? span.bridge : titleOf(this.spans[place]);
      row.append(el("button", { type: "button", class: "via", "data-via": at, tabindex: -1 },
        "↳ by way of ", el("bdi", {}, clipped(via, 60)),
        place === undefined ? "" : ` (${place + 1})`));
    }
    return row;
  }

  // Say at which place the other list has each span.
  compare(other, here, there) {
    this.finish();
    for (const button of this.rows.querySelectorAll(".open")) {
      const place = other.places.get(this.spans[button.dataset.at].id);
      const twin = button.querySelector(".twin");
      twin.textContent = place === undefined ? `only in ${here}` : `${there} ${place + 1}`;
      twin.classList.toggle("alone", place === undefined);
    }
  }

  // The parts of a score in figures; written when they are pointed at.
  #pointed(event) {
    const open = event.target.closest(".open:not([title])");
    if (!open) return;
    const span = this.spans[open.dataset.at];
    const parts = partsOf(span).map(([source, value]) => `${sourceName(source)} ${number(value)}`);
    open.title = `${parts.join(", ")}; relevance ${number(span.relevance)}`;
  }

  #clicked(event) {
    const via = event.target.closest(".via");
    if (via) {
      const { bridge } = this.spans[via.dataset.via];
      const place = this.places.get(bridge);
      if (place !== undefined) return this.focus(place, true);
      const [, id, start, end] = /^(.*):(\d+)-(\d+)$/s.exec(bridge);
      return this.open({ id: bridge, document_id: id, start: +start, end: +end }, this);
    }
    const open = event.target.closest(".open");
    if (open) this.open(this.spans[open.dataset.at], this);
  }

  button(at) {
    return this.rows.querySelector(`.open[data-at="${at}"]`);
  }

  focus(at, flash = false) {
    if (at >= FIRST) this.finish();
    const button = this.button(Math.max(0, Math.min(at, this.spans.length - 1)));
    if (!button) return;
    for (const other of this.rows.querySelectorAll('.open[tabindex="0"]')) other.tabIndex = -1;
    button.tabIndex = 0;
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: "nearest", behavior: flash ? motion() : "auto" });
    if (flash) {
      button.classList.add("flash");
      setTimeout(() => button.classList.remove("flash"), 1200);
    }
  }

  // Mark the span that is open.
  current(id) {
    for (const row of this.rows.querySelectorAll("[aria-current]"))
      row.removeAttribute("aria-current");
    const at = this.places?.get(id);
    if (at !== undefined) this.button(at)?.setAttribute("aria-current", "true");
  }

  #draw() {
    const ways = [];
    for (const via of this.rows.querySelectorAll(".via")) {
      const from = this.places.get(this.spans[via.dataset.via].bridge);
      if (this.rows.children[from] && ways.length < ARROWS) ways.push([from, Number(via.dataset.via)]);
    }
    this.element.classList.toggle("linked", ways.length > 0);
    const middle = (at) => {
      const row = this.rows.children[at];
      return row.offsetTop - this.rows.offsetTop + 26;
    };
    const bridges = [...new Set(ways.map(([from]) => from))];
    const paths = ways.flatMap(([from, to]) => {
      const [a, b] = [middle(from), middle(to)];
      const x = 20 - (bridges.indexOf(from) % LANES) * 6;
      const [turn, down] = [Math.min(10, Math.abs(b - a) / 2), b > a ? 1 : -1];
      return [
        svg("path", { d: `M30 ${a} H${x + turn} Q${x} ${a} ${x} ${a + down * turn} ` +
          `V${b - down * turn} Q${x} ${b} ${x + turn} ${b} H28` }),
        svg("path", { class: "tip", d: `M30 ${b} l-6 -3.5 v7 z` }),
        svg("circle", { class: "tip", cx: 30, cy: a, r: 2.5 }),
      ];
    });
    this.arrows.replaceChildren(...paths);
    this.arrows.setAttribute("height", paths.length ? this.rows.offsetHeight : 0);
  }

  describe(took) {
    const documents = new Set(this.spans.map((span) => span.document_id)).size;
    return this.spans.length
      ? `${count(this.spans.length, "span")} in ${count(documents, "document")}, ${number(took, 0)} ms`
      : `nothing found, ${number(took, 0)} ms`;
  }
}
