// The page: what is asked, by which modes and recipes, and what the keys do.

import * as answer from "./answer.js";
import * as api from "./api.js";
import * as filter from "./filter.js";
import { byId, count, el, motion, name } from "./dom.js";
import { Evidence } from "./evidence.js";
import { Reader } from "./reader.js";

const MODES = { hybrid: "Hybrid", s3: "Features", bm25: "Words" };

let indexes = [];
let comparing = false;
let searching = null;
let asked = "";

const current = () => indexes.find((index) => index.name === byId("index").value);
const label = (side) => `${MODES[side.mode()]}${side.recipe() ? ` · ${side.recipe()}` : ""}`;

// One way of searching: a mode, a recipe, and the evidence that they find.
class Side {
  constructor(letter) {
    this.letter = letter;
    this.evidence = new Evidence("Evidence", (span, list) => show(this, span, list));
    this.modes = el("span", { class: "modes", role: "radiogroup", "aria-label": "Mode" });
    this.recipes = el("select", { onchange: submit, id: `recipe-${letter}` });
    this.named = el("label", { for: `recipe-${letter}` }, "Recipe ", this.recipes);
    this.controls = el("span", { class: "side", role: "group", "aria-label": `Search ${letter}` },
      el("b", { class: "letter", "aria-hidden": "true" }, letter), this.modes, this.named);
  }

  mode = () => this.modes.querySelector(":checked")?.value ?? "hybrid";
  recipe = () => this.recipes.value || null;

  offer(index, mode) {
    this.modes.replaceChildren(...index.modes.map((each) =>
      el("label", {}, el("input", { type: "radio", name: `mode-${this.letter}`, value: each,
        checked: each === mode, onchange: submit }), el("span", {}, MODES[each] ?? name(each, 20)))));
    if (!this.modes.querySelector(":checked")) this.modes.querySelector("input").checked = true;
    this.recipes.replaceChildren(el("option", { value: "" }, `${name(index.recipe, 30)} (its own)`),
      ...index.recipes.filter((each) => each !== index.recipe)
        .map((each) => el("option", { value: each }, name(each, 30))));
    this.named.hidden = this.recipes.length < 2;
  }
}

const sides = [new Side("A"), new Side("B")];
const shown = () => (comparing ? sides : sides.slice(0, 1));

const reader = new Reader(byId("reader"), {
  fail,
  filter: (key, value) => { filter.toggle(key, value); submit(); },
  closed(span) {
    for (const { evidence } of sides) evidence.current(null);
    const list = shown().find(({ evidence }) => evidence.places?.has(span.id));
    if (list) list.evidence.focus(list.evidence.places.get(span.id));
    else byId("question").focus();
  },
});

function show(side, span, list) {
  for (const { evidence } of sides) evidence.current(evidence === list ? span.id : null);
  reader.open(span, list.spans, side.context);
}

function fail(error) {
  if (error.name === "AbortError") return;
  const expected = error instanceof api.Refused;
  byId("problem").textContent = expected ? error.message : "The page could not show this answer.";
  byId("problem").hidden = false;
  if (!expected) console.error(error);
}

function say(text) {
  byId("status").textContent = text;
}

async function submit(event) {
  event?.preventDefault();
  byId("problem").hidden = true;
  if (!filter.check()) {
    filter.open(true);
    return;
  }
  const index = current();
  const question = byId("question").value.trim();
  if (!index || !question) return;
  answer.hide();
  if (reader.isOpen) {
    byId("reader").hidden = true;
    document.body.classList.remove("reading");
  }
  searching?.abort();
  const request = (searching = new AbortController());
  document.body.classList.add("busy");
  asked = question;
  const where = filter.wanted();
  const k = Math.min(Math.max(Math.floor(Number(byId("k").value)) || 20, 1), 10_000);
  try {
    await Promise.all(shown().map(async (side) => {
      const context = { index: index.name, question, recipe: side.recipe(), mode: side.mode() };
      const body = { question, k, mode: context.mode, where };
      if (context.recipe) body.recipe = context.recipe;
      const { spans, took_ms: took } = await api.search(index.name, body, request.signal);
      side.context = context;
      render(side, spans, took);
    }));
    if (comparing) {
      sides[0].evidence.compare(sides[1].evidence, "A", "B");
      sides[1].evidence.compare(sides[0].evidence, "B", "A");
    }
    const spans = shown().flatMap(({ evidence }) => evidence.spans);
    filter.facets(spans, submit);
    say(shown().map(({ evidence }) => evidence.note.textContent).join("; "));
  } catch (error) {
    fail(error);
  } finally {
    if (searching === request) document.body.classList.remove("busy");
  }
}

function render(side, spans, took) {
  // Measured to the frame that shows the first rows, before the rest is added.
  requestAnimationFrame(() => setTimeout(() => performance.measure("s3r:render", "s3r:answered")));
  side.evidence.show(spans, "");
  side.evidence.note.textContent = side.evidence.describe(took);
  side.evidence.heading.textContent = comparing ? `${side.letter} · ${label(side)}` : "Evidence";
  byId("evidence").classList.remove("welcome");
  arrange();
}

function arrange() {
  byId("evidence").replaceChildren(...shown().map(({ evidence }) => evidence.element));
}

async function ask() {
  const index = current();
  const question = byId("question").value.trim();
  if (!index || !question || !filter.check()) return;
  byId("problem").hidden = true;
  searching?.abort();
  if (comparing) compare();
  const [side] = sides;
  asked = question;
  side.context = { index: index.name, question, recipe: null, mode: side.mode() };
  try {
    await answer.ask(index.name, { question, mode: side.mode(), where: filter.wanted() }, {
      evidence(spans) {
        render(side, spans, 0);
        side.evidence.note.textContent = `${count(spans.length, "span")} that the answer is made from`;
      },
      open: (span) => show(side, span, side.evidence),
    });
  } catch (error) {
    fail(error);
  }
}

function compare() {
  comparing = !comparing;
  byId("compare").setAttribute("aria-pressed", String(comparing));
  controls();
  if (comparing && sides[1].mode() === sides[0].mode() && sides[1].recipe() === sides[0].recipe()) {
    const other = [...sides[1].modes.querySelectorAll("input")].find(
      ({ value }) => value !== sides[0].mode());
    if (other) other.checked = true;
  }
}

function controls() {
  document.querySelector(".sides").replaceChildren(...shown().map((side) => side.controls));
  document.body.classList.toggle("comparing", comparing);
}

function choose() {
  const index = current();
  if (!index) return;
  byId("facts").textContent = [count(index.documents, "document"), count(index.tokens, "token"),
    name(index.host, 40)].join(" · ");
  byId("answer-button").hidden = !index.answers;
  for (const side of sides) side.offer(index, side.mode());
  reader.forget();
  byId("facets").replaceChildren();
  welcome(index);
}

function welcome(index) {
  const box = byId("evidence");
  box.classList.add("welcome");
  box.replaceChildren(el("p", {}, "Ask a question. You see the sentences that answer it, ",
    "what found each of them, and where in its document the model looks."),
  el("p", { class: "quiet" }, `${count(index.documents, "document")} in ${name(index.name, 60)}, read by `,
    el("b", {}, name(index.host, 40)), "."));
}

// Move among the evidence from the row that has the focus, or from the question.
function move(key) {
  const active = document.activeElement;
  const lists = shown().map(({ evidence }) => evidence);
  const list = lists.findIndex((evidence) => evidence.element.contains(active));
  if (list < 0) return active === byId("question") && key === "ArrowDown" && lists[0].spans.length
    ? (lists[0].focus(0), true) : false;
  const row = active.closest(".hit");
  const place = row ? [...row.parentElement.children].indexOf(row) : 0;
  const steps = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1, PageDown: 10, PageUp: -10 };
  if (key in steps) {
    if (place + steps[key] < 0) byId("question").focus();
    else lists[list].focus(place + steps[key]);
  } else if (key === "Home") lists[list].focus(0);
  else if (key === "End") lists[list].focus(lists[list].spans.length - 1);
  else if (["ArrowLeft", "ArrowRight"].includes(key) && lists.length > 1) lists[1 - list].focus(place);
  else return false;
  return true;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("token-dialog").open) return;
  const typing = event.target.matches("input:not([type=radio]), textarea, select");
  const { key } = event;
  if (key === "Escape") {
    if (reader.isOpen) reader.close();
    else if (typing) event.target.blur();
    else return;
  } else if (typing && !(event.target === byId("question") && key === "ArrowDown")) return;
  else if (key === "/") {
    byId("question").focus();
    byId("question").select();
    scrollTo({ top: 0, behavior: motion() });
  } else if (reader.isOpen && (key === "n" || key === "p")) reader.step(key === "n" ? 1 : -1);
  else if (!event.target.matches("input") || event.target === byId("question")) {
    if (!move(key)) return;
  } else return;
  event.preventDefault();
}

byId("ask").addEventListener("submit", submit);
byId("answer-button").addEventListener("click", ask);
byId("answer-stop").addEventListener("click", answer.stop);
byId("compare").addEventListener("click", () => {
  compare();
  if (asked) submit();
});
byId("filter-button").addEventListener("click", () => {
  filter.open(byId("filter").hidden);
  if (!byId("filter").hidden) byId("where").focus();
});
byId("where").addEventListener("input", filter.check);
byId("where").addEventListener("change", submit);
byId("k").addEventListener("change", submit);
byId("index").addEventListener("change", () => { choose(); submit(); });
document.addEventListener("keydown", onKey);

controls();
try {
  indexes = await api.indexes();
  byId("index").replaceChildren(...indexes.map((index) =>
    el("option", { value: index.name }, name(index.name, 60))));
  byId("index").disabled = indexes.length < 2;
  choose();
} catch (error) {
  fail(error);
}
