// The filter: metadata that documents must have, as JSON, and chips of what the results have.

import { byId, el, name } from "./dom.js";

const OPERATORS = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$contains",
  "$icontains", "$not_contains", "$exists", "$and", "$or", "$not"];
const KEYS = 4;
const VALUES = 5;

// The filter as the server takes it; null for none. Throws an error that a person can act on.
export function wanted() {
  const text = byId("where").value.trim();
  if (!text) return null;
  let where;
  try {
    where = JSON.parse(text);
  } catch {
    throw new Error('This is not JSON yet; write, for example, {"year": 2024}.');
  }
  if (where === null || typeof where !== "object" || Array.isArray(where))
    throw new Error('Put the keys in braces, such as {"year": 2024}.');
  const unknown = operators(where).find((key) => !OPERATORS.includes(key));
  if (unknown) throw new Error(`Unknown operator ${name(unknown, 30)}; known are ${OPERATORS.join(", ")}.`);
  return where;
}

function operators(value) {
  if (value === null || typeof value !== "object") return [];
  const own = Array.isArray(value) ? [] : Object.keys(value).filter((key) => key.startsWith("$"));
  return [...own, ...Object.values(value).flatMap(operators)];
}

// Show what is wrong with the filter, if anything is; says whether it can be used.
export function check() {
  let problem = "";
  try {
    wanted();
  } catch (error) {
    problem = error.message;
  }
  byId("where-problem").textContent = problem;
  byId("where").setAttribute("aria-invalid", String(Boolean(problem)));
  return !problem;
}

// Add a condition, or take it away if it is there.
export function toggle(key, value) {
  let where = {};
  try {
    where = wanted() ?? {};
  } catch {
    // What cannot be read gives way.
  }
  if (where[key] === value) delete where[key];
  else where[key] = value;
  byId("where").value = Object.keys(where).length ? JSON.stringify(where) : "";
  open(Boolean(byId("where").value));
}

export function open(shown) {
  byId("filter").hidden = !shown;
  byId("filter-button").setAttribute("aria-expanded", String(shown));
}

// Chips of the values that the documents of some spans have, and of those asked for.
export function facets(spans, changed) {
  const counts = new Map();
  const documents = new Map(spans.map((span) => [span.document_id, span.metadata ?? {}]));
  for (const metadata of documents.values())
    for (const [key, value] of Object.entries(metadata)) {
      const plain = ["string", "number", "boolean"].includes(typeof value);
      if (key === "title" || key.startsWith("$") || !plain || String(value).length > 60) continue;
      if (!counts.has(key)) counts.set(key, new Map());
      const values = counts.get(key);
      values.set(value, (values.get(value) ?? 0) + 1);
    }
  let where = {};
  try {
    where = wanted() ?? {};
  } catch {
    // Said below the field.
  }
  const shown = [...counts].filter(([key, values]) => key in where || values.size > 1)
    // A key whose values are all different, such as an address, narrows nothing.
    .filter(([key, values]) => key in where || values.size < documents.size || values.size <= VALUES)
    .slice(0, KEYS);
  byId("facets").replaceChildren(...shown.map(([key, values]) =>
    el("span", { class: "chips" }, el("span", { class: "key" }, name(key, 30)),
      ...[...values].sort((a, b) => b[1] - a[1]).slice(0, VALUES).map(([value, times]) =>
        el("button", { type: "button", class: "chip", "aria-pressed": String(where[key] === value),
          onclick: () => { toggle(key, value); changed(); } },
        el("bdi", {}, name(value, 40)), el("span", { class: "key" }, times))))));
}
