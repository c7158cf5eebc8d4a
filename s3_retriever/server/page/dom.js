// Elements and text. Whatever comes from documents is set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

// el("button", {class: "chip", type: "button", onclick: f}, "text", child)
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// Characters that have no shape but change the order or the look of their surroundings.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+/g;

// A name on one line, in bounded length, with nothing that hides in it.
export function name(text, limit = 120) {
  return clipped(String(text).slice(0, 4 * limit).replace(UNSEEN, " ").trim() || "(blank)", limit);
}

// Cut to a number of UTF-16 units, never within a character.
export function clipped(text, limit) {
  if (text.length <= limit) return text;
  const end = /[\ud800-\udbff]/.test(text[limit - 1]) ? limit - 1 : limit;
  return `${text.slice(0, end)}…`;
}

export const titleOf = (span) => name(span.title || span.document_id);

const NAMES = {
  s3: "features", sentence: "sentence", heads: "attention", bm25: "words", edge: "edge",
  hop: "second hop", document: "document", redundancy: "repetition",
};
export const SOURCES = Object.keys(NAMES);
export const sourceName = (source) => NAMES[source] ?? name(source, 20);
export const sourceClass = (source) => (source in NAMES ? `s-${source}` : "s-other");

// Made once: formatting by `toLocaleString` took half the time of a list.
const FORMATS = [0, 1, 2].map((digits) => new Intl.NumberFormat("en",
  { minimumFractionDigits: digits, maximumFractionDigits: digits }));
export const number = (value, digits = 2) => FORMATS[digits].format(Number(value));
export const count = (value, one, many = `${one}s`) =>
  `${Number(value).toLocaleString("en")} ${value === 1 ? one : many}`;

// Python counts characters, JavaScript UTF-16 units: where each character begins, or null where
// both count the same.
export function unitsOf(text) {
  if (!/[\ud800-\udbff]/.test(text)) return null;
  const starts = new Uint32Array(text.length + 1);
  let characters = 0;
  for (let unit = 0; unit < text.length; unit += text.codePointAt(unit) > 0xffff ? 2 : 1)
    starts[characters++] = unit;
  starts[characters] = text.length;
  return starts.subarray(0, characters + 1);
}

export const at = (units, offset) =>
  units === null ? offset : units[Math.min(Math.max(offset, 0), units.length - 1)];

// Stacked bars: what raises a score goes right from zero, what lowers it goes left.
export function bar(svgElement, parts, low, high) {
  const scale = 100 / (high - low || 1);
  let right = -low * scale;
  let left = right;
  const rects = [];
  for (const [source, value] of parts) {
    const width = Math.abs(value) * scale;
    if (!(width > 0)) continue;
    if (value < 0) left -= width;
    const x = value < 0 ? left : right;
    if (value > 0) right += width;
    const rect = document.createElementNS(SVG, "rect");
    rect.setAttribute("class", sourceClass(source));
    rect.setAttribute("x", x.toFixed(2));
    rect.setAttribute("width", Math.max(width - 0.3, 0.2).toFixed(2));
    rect.setAttribute("height", "6");
    rects.push(rect);
  }
  svgElement.replaceChildren(...rects);
}

// What a span's score consists of, in a fixed order; without parts, its first source has all.
export function partsOf(span) {
  const parts = Object.entries(span.contributions ?? {});
  if (!parts.length) return [[span.sources?.[0] ?? "other", span.score]];
  return parts.sort(([a], [b]) => SOURCES.indexOf(a) - SOURCES.indexOf(b));
}

export const extent = (parts) => [
  parts.reduce((sum, [, value]) => sum + Math.min(value, 0), 0),
  parts.reduce((sum, [, value]) => sum + Math.max(value, 0), 0),
];

export const motion = () =>
  matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
