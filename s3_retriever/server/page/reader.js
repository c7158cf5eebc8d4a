// The reader: a document in full, why a span of it was found, and where else its features fire.

import * as api from "./api.js";
import { DocumentText } from "./text.js";
import { at, bar, clipped, count, el, extent, name, number, partsOf, sourceClass, sourceName, svg,
  titleOf, unitsOf } from "./dom.js";

const ALL = "all taps";
const FEATURES = 8;
const KEPT = 16; // answers of the server that are kept

const numeric = /^\d+\.\d+$/;
const sourceLabel = (source) => (numeric.test(source) ? `head ${source}` : name(source, 40));
const featureLabel = ({ tap, feature }) => `${name(tap, 30)} · ${feature}`;

export class Reader {
  // `filter(key, value)` narrows the search; `closed()` runs after the reader has closed.
  constructor(element, { filter, closed, fail }) {
    Object.assign(this, { element, filter, closed, fail });
    this.kept = new Map();
    this.serial = 0;
    this.title = el("h2", { id: "reader-title", tabindex: -1 });
    this.place = el("p", { class: "quiet place" });
    this.metadata = el("div", { class: "chips" });
    this.why = el("div", { class: "why" });
    this.source = el("select", { id: "heat-source", onchange: () => {
      this.wanted = this.source.value;
      this.#colour();
    } });
    this.text = new DocumentText((token) => this.#pick(token));
    this.inspector = el("section", { class: "inspector", hidden: true, "aria-live": "polite",
      "aria-label": "Where a feature fires" });
    const step = (by, label, sign) =>
      el("button", { type: "button", class: "plain", "aria-label": label, title: label,
        onclick: () => this.step(by) }, sign);
    element.replaceChildren(
      el("header", {},
        el("div", { class: "bar-head" }, this.title, step(-1, "Previous span", "↑"),
          step(1, "Next span", "↓"),
          el("button", { type: "button", class: "plain", "aria-label": "Close the document",
            title: "Close (Esc)", onclick: () => this.close() }, "✕")),
        this.place, this.metadata,
        el("p", { class: "heat-line" }, el("label", { for: "heat-source" }, "Heat of "),
          this.source, el("span", { class: "ramp", "aria-hidden": "true" },
            ...[1, 3, 5, 7, 9].map((level) => el("i", { class: `h${level}` }))))),
      this.why,
      el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Document" },
        this.text.element),
      this.inspector);
  }

  get isOpen() {
    return !this.element.hidden;
  }

  // Open a span, among those found with it; `context` is {index, question, recipe, mode}.
  async open(span, spans, context) {
    const serial = ++this.serial;
    const stale = () => serial !== this.serial;
    const same = this.isOpen && this.id === span.document_id && this.context === context;
    Object.assign(this, { id: span.document_id, span, context });
    this.marks = spans.filter((each) => each.document_id === span.document_id);
    if (!this.marks.some((each) => each.id === span.id)) this.marks = [span];
    this.element.hidden = false;
    document.body.classList.add("reading");
    this.#explain(span, stale);
    if (same) {
      this.#mark();
      return;
    }
    this.title.textContent = titleOf(span);
    this.place.textContent = "Loading…";
    this.inspector.hidden = true;
    this.heat = null;
    this.text.show("");
    this.metadata.replaceChildren();
    this.#sources();
    this.title.focus({ preventScroll: true });
    try {
      const { text, metadata, id } = await this.#asked(api.read, span.document_id);
      if (stale()) return;
      this.title.textContent = name(metadata?.title || id);
      this.#describe(id, text, metadata ?? {});
      this.text.show(text);
      this.#mark();
      performance.mark("s3r:document");
      if (context.mode === "bm25" || !context.question) return;
      const { question, recipe } = context;
      this.heat = await this.#asked(api.heat, { question, recipe, document_id: id });
      if (stale()) return;
      this.#sources();
      this.#colour();
    } catch (error) {
      if (!stale()) this.fail(error);
    }
  }

  close() {
    if (!this.inspector.hidden) {
      this.inspector.hidden = true;
      this.title.focus({ preventScroll: true });
      return;
    }
    this.serial++;
    this.element.hidden = true;
    document.body.classList.remove("reading");
    this.closed(this.span);
  }

  // Go to the next or the previous span of this document.
  step(by) {
    const order = [...this.marks].sort((a, b) => a.start - b.start);
    const place = order.findIndex((each) => each.id === this.span.id);
    const next = order[(place + by + order.length) % order.length];
    if (next) this.open(next, this.marks, this.context);
  }

  #mark() {
    this.text.mark(this.marks, this.span.id);
    this.text.reveal(this.span.start);
  }

  async #asked(call, argument) {
    const key = `${this.context.index}\n${call.name}\n${JSON.stringify(argument)}`;
    const known = this.kept.get(key) ?? call(this.context.index, argument);
    this.kept.delete(key);
    this.kept.set(key, known);
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
    try {
      return await known;
    } catch (error) {
      this.kept.delete(key);
      throw error;
    }
  }

  // Documents may have changed.
  forget() {
    this.kept.clear();
  }

  #describe(id, text, metadata) {
    const found = count(this.marks.length, "span");
    this.place.replaceChildren(el("bdi", {}, name(id)), ` · ${count(text.length, "character")} · ${found}`);
    const chips = Object.entries(metadata)
      .filter(([key, value]) => key !== "title" && ["string", "number", "boolean"].includes(typeof value))
      .slice(0, 12);
    this.metadata.replaceChildren(...chips.map(([key, value]) =>
      el("button", { type: "button", class: "chip", title: "Only documents with this",
        onclick: () => this.filter(key, value) },
      el("span", { class: "key" }, name(key, 30)), el("bdi", {}, name(value, 40)))));
  }

  #sources() {
    const taps = Object.keys(this.heat?.scores ?? {});
    const wanted = this.heat ? (this.wanted ?? ALL) : "none";
    const options = ["none", ...(taps.some((tap) => !numeric.test(tap)) ? [ALL] : []), ...taps];
    this.source.replaceChildren(...options.map((value) =>
      el("option", { value }, value === "none" || value === ALL ? value : sourceLabel(value))));
    this.source.value = options.includes(wanted) ? wanted : (options[1] ?? "none");
    this.source.disabled = !taps.length;
  }

  #colour() {
    const source = this.source.value;
    if (!this.heat || source === "none") return this.text.colour(null);
    const { scores, tokens } = this.heat;
    if (source !== ALL) return this.text.colour(tokens, scores[source]);
    const total = new Float64Array(tokens.length);
    for (const [tap, values] of Object.entries(scores))
      if (!numeric.test(tap)) values.forEach((value, token) => (total[token] += value));
    return this.text.colour(tokens, total);
  }

  async #explain(span, stale) {
    this.why.replaceChildren();
    const { question, recipe, mode } = this.context;
    if (!question || !span.id || mode === "bm25" || span.elsewhere) return;
    try {
      const found = await this.#asked(api.explain, { question, span_id: span.id, recipe });
      if (stale()) return;
      this.#because(found);
      // The reasons take some of the height.
      this.text.reveal(span.start);
    } catch (error) {
      if (!stale()) this.fail(error);
    }
  }

  #because({ contributions, bridge, features, terms, attention }) {
    const parts = partsOf({ contributions: contributions ?? {}, sources: ["s3"], score: 0 });
    const [low, high] = extent(parts);
    const bars = svg("svg", { class: "bar", viewBox: "0 0 100 6", preserveAspectRatio: "none",
      "aria-hidden": "true" });
    bar(bars, parts, low, high);
    const list = (title, ...items) =>
      items.length ? el("div", { class: "reasons" }, el("h3", {}, title), ...items) : null;
    this.why.replaceChildren(el("details", { open: roomy() },
      el("summary", {}, "Why it is here"),
      bars,
      el("p", { class: "parts" }, ...parts.filter(([, value]) => Math.abs(value) >= 0.005)
        .map(([source, value]) => el("span", {}, svg("svg", { class: "dot", viewBox: "0 0 8 8" },
          svg("rect", { class: sourceClass(source), width: 8, height: 8, rx: 2 })),
        `${sourceName(source)} `, el("b", {}, number(value))))),
      bridge && el("p", { class: "bridge" }, "↳ by way of ",
        el("button", { type: "button", class: "link",
          onclick: () => this.open(bridge, [bridge], this.context) },
        el("bdi", {}, titleOf(bridge))), ": ", el("q", { dir: "auto" }, clipped(bridge.text, 200))),
      list("Features it shares with the question", ...features.slice(0, FEATURES).map((feature) =>
        el("button", { type: "button", class: "feature", title: "Where else it fires",
          onclick: () => this.#fires([feature], 0) },
        el("b", {}, number(100 * feature.share, 0), "%"),
        el("span", { class: "words" }, el("bdi", {}, words(feature.question_tokens)), " → ",
          el("bdi", {}, words(feature.span_tokens))),
        el("small", {}, featureLabel(feature))))),
      terms.length ? list("Words it shares with the question",
        el("p", { class: "chips" }, ...terms.slice(0, 12).map((term) =>
          el("span", { class: "chip" }, el("bdi", {}, name(term.term, 40)),
            el("span", { class: "key" }, `${number(100 * term.share, 0)}%`))))) : null,
      attention?.length ? list("What retrieval heads look at", ...attention.slice(0, FEATURES).map(
        (look) => el("p", { class: "feature" }, el("b", {}, number(100 * look.share, 0), "%"),
          el("span", { class: "words" }, el("bdi", {}, name(look.question_token, 30)), " → ",
            el("bdi", {}, name(look.span_token, 30))), el("small", {}, `head ${look.head}`)))) : null));
  }

  #pick(token) {
    const features = this.heat.features.filter((feature) => feature.tokens.includes(token));
    if (features.length) this.#fires(features, 0);
  }

  // Show where a feature fires, with the others that fire on the same token to choose from.
  async #fires(features, chosen) {
    const feature = features[chosen];
    const { tap, feature: number_ } = feature;
    const close = el("button", { type: "button", class: "plain", "aria-label": "Close the list",
      onclick: () => this.close() }, "✕");
    const head = el("div", { class: "bar-head" },
      el("h3", {}, "Where it fires"), el("p", { class: "quiet note" }, "…"), close);
    const choices = el("div", { class: "chips", role: "group", "aria-label": "Feature" },
      ...features.slice(0, FEATURES).map((each, place) =>
        el("button", { type: "button", class: "chip", "aria-pressed": String(place === chosen),
          onclick: () => this.#fires(features, place) }, featureLabel(each))));
    const rows = el("ol", { class: "fires" });
    this.inspector.replaceChildren(head, choices, rows);
    this.inspector.hidden = false;
    choices.querySelector('[aria-pressed="true"]').focus({ preventScroll: true });
    const request = (this.request = {});
    try {
      const found = await this.#asked(api.firings, { tap, feature: number_, limit: 30 });
      if (request !== this.request) return;
      head.querySelector(".note").textContent = found.total > found.sentences.length
        ? `${found.sentences.length} of ${count(found.total, "sentence")}`
        : count(found.total, "sentence");
      rows.replaceChildren(...found.sentences.map((sentence) => this.#firing(sentence)));
    } catch (error) {
      this.fail(error);
    }
  }

  #firing(sentence) {
    const { text, start } = sentence;
    const units = unitsOf(text);
    const line = el("span", { dir: "auto" });
    let done = 0;
    for (const [a, b] of sentence.tokens) {
      const [low, high] = [at(units, a - start), at(units, b - start)];
      line.append(text.slice(done, low), el("b", { class: "h6" }, text.slice(low, high)));
      done = high;
    }
    line.append(text.slice(done));
    const place = { ...sentence, id: `${sentence.document_id}:${start}-${sentence.end}`,
      elsewhere: true };
    return el("li", {}, el("button", { type: "button", class: "open",
      onclick: () => this.open(place, [place], this.context) },
    el("bdi", { class: "title" }, titleOf(sentence)), line));
  }
}

const roomy = () => matchMedia("(min-width: 40rem) and (min-height: 40rem)").matches;
const words = (tokens) => name([...new Set(tokens)].slice(0, 5).join(" "), 60);
