// fleet's API v2: documents, and streams of lines.

const BASE = "/fleet/v2";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function checked(response) {
  if (response.ok) return response;
  let message = `fleetd answers ${response.status}`;
  try {
    message = (await response.json()).error?.message || message;
  } catch { /* what is no document has no message */ }
  throw new Refused(response.status, message);
}

export async function get(path) {
  const response = await checked(await fetch(BASE + path, { headers: { Accept: "application/json" } }));
  return response.json();
}

export async function post(path, body) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await checked(await fetch(BASE + path, options));
  const text = await response.text();
  return text ? JSON.parse(text) : undefined;
}

// Calls `take` with each document of an answer of lines, until it ends or is called off.
export async function lines(path, signal, take) {
  const response = await checked(await fetch(BASE + path, { signal }));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part.trim()) take(JSON.parse(part));
  }
  if (rest.trim()) take(JSON.parse(rest));
}

// Sleeps, unless it is called off.
export const pause = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});
