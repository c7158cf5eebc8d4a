// What the page asks of its server. The token lives in this module's memory alone.

import { byId, name } from "./dom.js";

let token = "";
let asking = null;

export class Refused extends Error {}

function askForToken(refused) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("token-dialog");
    const form = byId("token-form");
    if (refused) byId("token-note").textContent = "The server did not take that token; try again.";
    form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        token = byId("token").value.trim();
        byId("token").value = "";
        dialog.close();
        asking = null;
        resolve();
      },
      { once: true },
    );
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return asking;
}

async function call(path, body, signal) {
  for (;;) {
    const sent = token;
    let response;
    try {
      response = await fetch(`v1/indexes${path}`, {
        method: body === undefined ? "GET" : "POST",
        headers: {
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
          ...(sent ? { Authorization: `Bearer ${sent}` } : {}),
        },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
        credentials: "omit",
        cache: "no-store",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      // A token with letters that no header may have is refused before it is sent.
      if (sent && /[^\x21-\x7e]/.test(sent)) token = "";
      else throw new Refused("The server does not answer; is it still running?");
      await askForToken(true);
      continue;
    }
    if (response.status === 401) {
      if (token === sent) await askForToken(Boolean(sent));
      continue;
    }
    if (!response.ok) throw new Refused(await messageOf(response));
    return response;
  }
}

async function messageOf(response) {
  try {
    return name((await response.json()).error.message, 600);
  } catch {
    return `The server answers with status ${response.status}.`;
  }
}

const inside = (index, rest) => `/${encodeURIComponent(index)}/${rest}`;

async function json(path, body, signal) {
  const text = await (await call(path, body, signal)).text();
  performance.mark("s3r:answered");
  return JSON.parse(text);
}

export const indexes = async () => (await json("")).indexes;
export const search = (index, body, signal) => json(inside(index, "search"), body, signal);
export const explain = (index, body) => json(inside(index, "explain"), body);
export const heat = (index, body) => json(inside(index, "heat"), body);
export const firings = (index, body) => json(inside(index, "firings"), body);
// Not by path: browsers resolve the ids "." and "..", however they are escaped.
export const read = (index, id) => json(inside(index, "read"), { document_id: id });

// The events of an answer, as [name, data].
export async function* answer(index, body, signal) {
  const response = await call(inside(index, "answer"), body, signal);
  const decoder = new TextDecoder();
  let waiting = "";
  for (const reader = response.body.getReader(); ; ) {
    const { value, done } = await reader.read();
    waiting += decoder.decode(value ?? new Uint8Array(), { stream: !done }).replaceAll("\r", "");
    const events = waiting.split("\n\n");
    waiting = done ? "" : events.pop();
    for (const event of events) {
      const lines = event.split("\n");
      const field = (key) =>
        lines
          .filter((line) => line.startsWith(`${key}:`))
          .map((line) => line.slice(key.length + 1).replace(/^ /, ""))
          .join("\n");
      if (field("data")) yield [field("event"), JSON.parse(field("data"))];
    }
    if (done) return;
  }
}
