// An answer as it is generated, and its citations.

import * as api from "./api.js";
import { at, byId, el, name, titleOf, unitsOf } from "./dom.js";

let running = null;

export function stop() {
  running?.abort();
  running = null;
  byId("answer-stop").hidden = true;
  byId("answer-text").setAttribute("aria-busy", "false");
}

export function hide() {
  stop();
  byId("answer").hidden = true;
}

// Ask for an answer; `evidence(spans)` gets what it is made from, `open(span)` shows a citation.
export async function ask(index, body, { evidence, open }) {
  stop();
  const request = (running = new AbortController());
  const text = byId("answer-text");
  const note = byId("answer-note");
  text.replaceChildren();
  text.setAttribute("aria-busy", "true");
  note.textContent = "Reading the evidence…";
  byId("answer").hidden = false;
  byId("answer-stop").hidden = false;
  let spans = [];
  try {
    for await (const [event, data] of api.answer(index, body, request.signal)) {
      if (event === "evidence") {
        spans = data.spans;
        evidence(spans);
        note.textContent = spans.length ? "Writing…" : "";
      } else if (event === "token") text.append(data.text);
      else if (event === "error") throw new api.Refused(name(data.message, 600));
      else if (event === "answer") {
        text.replaceChildren(...cited(data, spans, open));
        note.textContent = data.found
          ? "Citations show where the words come from; read them before you rely on the answer."
          : "The evidence does not hold an answer.";
      }
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    note.textContent = "Stopped.";
  } finally {
    if (running === request) stop();
  }
}

function cited({ text, citations }, spans, open) {
  const places = new Map(spans.map((span, place) => [span.id, place]));
  const units = unitsOf(text);
  const pieces = [];
  let done = 0;
  for (const { end, span_id: id } of [...(citations ?? [])].sort((a, b) => a.end - b.end)) {
    const place = places.get(id);
    if (place === undefined) continue;
    const until = at(units, end);
    pieces.push(text.slice(done, until),
      el("button", { type: "button", class: "citation", title: titleOf(spans[place]),
        "aria-label": `Source ${place + 1}: ${titleOf(spans[place])}`,
        onclick: () => open(spans[place]) }, place + 1));
    done = until;
  }
  return [...pieces, text.slice(done)];
}
