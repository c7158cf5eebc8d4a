// A document's text with its spans marked and its tokens coloured, whatever its length.
//
// The text is cut into blocks. A block holds plain text until it comes near the screen; only then
// its spans and the tokens with heat become elements.

import { at, el, unitsOf } from "./dom.js";

const BLOCK = 3_000; // units
const LEVELS = 9;

export class DocumentText {
  // `pick(token)` is called with the index of a token that was chosen.
  constructor(pick) {
    this.element = el("div", { class: "text", dir: "auto" });
    this.marks = [];
    this.tokens = [];
    this.levels = null;
    this.watcher = new IntersectionObserver((entries) => this.#seen(entries),
      { rootMargin: "600px 0px" });
    this.element.addEventListener("click", (event) => {
      const token = event.target.closest("[data-token]");
      if (token) pick(Number(token.dataset.token));
    });
    this.element.addEventListener("keydown", (event) => this.#key(event, pick));
  }

  show(text) {
    this.watcher.disconnect();
    this.string = text;
    this.units = unitsOf(text);
    this.marks = [];
    this.levels = null;
    this.blocks = cut(text).map(([start, end]) =>
      ({ start, end, element: el("div", { class: "block" }, text.slice(start, end)), near: false,
        painted: false }));
    this.byElement = new Map(this.blocks.map((block) => [block.element, block]));
    this.element.replaceChildren(...this.blocks.map((block) => block.element));
    for (const block of this.blocks) this.watcher.observe(block.element);
  }

  // Spans to mark, as {start, end, id} in characters, without overlap.
  mark(spans, current) {
    this.marks = spans.map(({ start, end, id }) =>
      ({ start: at(this.units, start), end: at(this.units, end), id, current: id === current }));
    this.marks.sort((a, b) => a.start - b.start);
    this.#repaint();
  }

  // Token bounds [[start, end]...] in characters and their scores; null for none.
  colour(tokens, scores) {
    this.levels = null;
    if (tokens && scores) {
      if (this.bounds !== tokens) {
        this.bounds = tokens;
        this.tokens = tokens.map(([start, end]) => [at(this.units, start), at(this.units, end)]);
      }
      const highest = scores.reduce((most, score) => Math.max(most, score), 0);
      this.levels = Uint8Array.from(scores, (score) =>
        score > 0 ? Math.ceil(LEVELS * Math.sqrt(score / highest)) : 0);
    }
    this.#repaint();
  }

  // Bring a place into view.
  reveal(start) {
    const unit = at(this.units, start);
    const block = this.blocks?.find(({ end }) => unit < end) ?? this.blocks?.at(-1);
    if (!block) return;
    block.near = true;
    this.#paint(block);
    const go = (again) => {
      if (!block.element.isConnected) return;
      const mark = [...block.element.querySelectorAll("mark")]
        .find((each) => Number(each.dataset.end) > unit);
      (mark ?? block.element).scrollIntoView({ block: "center" });
      // Blocks on the way get their true heights only when they are near.
      if (again) requestAnimationFrame(() => go(again - 1));
    };
    go(3);
  }

  #seen(entries) {
    for (const { target, isIntersecting } of entries) {
      const block = this.byElement.get(target);
      if (!block || block.near === isIntersecting) continue;
      block.near = isIntersecting;
      if (isIntersecting && !block.painted) this.#paint(block);
    }
  }

  #repaint() {
    for (const block of this.blocks ?? []) {
      if (block.near) this.#paint(block);
      else block.painted = false;
    }
  }

  #paint(block) {
    const pieces = document.createDocumentFragment();
    let from = block.start;
    for (const { start, end, id, current } of between(this.marks, block.start, block.end)) {
      const [low, high] = [Math.max(start, from), Math.min(end, block.end)];
      if (high <= low) continue;
      this.#tokens(pieces, from, low);
      const mark = el("mark", { "data-end": end, class: current && "current", "data-id": id });
      this.#tokens(mark, low, high);
      pieces.append(mark);
      from = high;
    }
    this.#tokens(pieces, from, block.end);
    block.element.replaceChildren(pieces);
    block.painted = true;
    // The tab key reaches one token, from which the arrows lead to the others.
    if (this.element.querySelector('[data-token][tabindex="0"]')) return;
    const first = this.element.querySelector("[data-token]");
    if (first) first.tabIndex = 0;
  }

  #tokens(parent, from, to) {
    let done = from;
    if (this.levels) {
      for (let i = firstAfter(this.tokens, from); i < this.tokens.length; i++) {
        const start = Math.max(this.tokens[i][0], done);
        const end = Math.min(this.tokens[i][1], to);
        if (this.tokens[i][0] >= to) break;
        if (!this.levels[i] || end <= start) continue;
        if (start > done) parent.append(this.string.slice(done, start));
        parent.append(el("span",
          { class: `t h${this.levels[i]}`, "data-token": i, role: "button", tabindex: -1 },
          this.string.slice(start, end)));
        done = end;
      }
    }
    if (done < to) parent.append(this.string.slice(done, to));
  }

  #key(event, pick) {
    const token = event.target.closest("[data-token]");
    if (!token || event.ctrlKey || event.metaKey || event.altKey) return;
    const every = [...this.element.querySelectorAll("[data-token]")];
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 };
    if (event.key === "Enter" || event.key === " ") pick(Number(token.dataset.token));
    else if (event.key in steps) {
      const next = every[every.indexOf(token) + steps[event.key]];
      if (next) {
        token.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      }
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

// Where to cut a text: after line breaks, else after white space, else anywhere.
function cut(text) {
  const blocks = [];
  for (let start = 0; start < text.length; ) {
    let end = Math.min(start + BLOCK, text.length);
    if (end < text.length) {
      const line = text.lastIndexOf("\n", end - 1);
      const space = text.lastIndexOf(" ", end - 1);
      if (line > start) end = line + 1;
      else if (space > start + BLOCK / 2) end = space + 1;
      else if (/[\udc00-\udfff]/.test(text[end])) end -= 1;
    }
    blocks.push([start, end]);
    start = end;
  }
  return blocks;
}

const between = (marks, low, high) => marks.filter(({ start, end }) => start < high && end > low);

// The first of ascending ranges that ends after a place.
function firstAfter(ranges, place) {
  let [low, high] = [0, ranges.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ranges[middle][1] <= place) low = middle + 1;
    else high = middle;
  }
  return low;
}
