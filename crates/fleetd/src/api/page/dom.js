// Making elements. All text goes in as text: nothing that a unit calls itself becomes markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== ""));
  return element;
}

export const unitLink = (name) => h("a", { href: `#/units/${encodeURIComponent(name)}` }, name);

export function machineLink(id, machines) {
  if (!id) return "-";
  const machine = machines?.get(id);
  const ip = machine?.primaryIP ? `/${machine.primaryIP}` : "";
  return h("a", { href: `#/machines/${encodeURIComponent(id)}`, title: id, class: "mono" }, `${id.slice(0, 8)}…${ip}`);
}

// A sign beside the words: colour alone tells not everybody.
export function stateOf(state) {
  if (!state) return h("span", { class: "state muted" }, "-");
  const [kind, sign] =
    state.active === "active" ? ["good", "✓"]
    : state.active === "failed" || state.load === "not-found" ? ["bad", "✗"]
    : ["activating", "deactivating", "reloading"].includes(state.active) ? ["wait", "…"]
    : ["muted", "·"];
  const stale = state.stale ? " (last report)" : "";
  return h("span", { class: `state ${kind}` }, `${sign} ${state.active}/${state.sub}${stale}`);
}

export function machineState(machine) {
  if (!machine) return h("span", { class: "state muted" }, "unknown");
  const good = machine.status === "present" && !machine.trouble;
  const words = [machine.status];
  if (machine.frozen) words.push("frozen");
  if (machine.draining) words.push("draining");
  else if (machine.cordoned) words.push("cordoned");
  if (machine.avoided) words.push("avoided");
  const kind = good ? (words.length > 1 ? "wait" : "good") : machine.status === "present" ? "wait" : "bad";
  const sign = { good: "✓", wait: "!", bad: "✗" }[kind];
  return h("span", { class: `state ${kind}` }, `${sign} ${words.join(", ")}`);
}

export function when(ms) {
  if (!ms) return "-";
  const at = new Date(ms);
  const pad = (n) => String(n).padStart(2, "0");
  const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  return h("time", { datetime: at.toISOString(), title: at.toString() },
    `${day} ${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`);
}

export function size(bytes) {
  if (bytes === undefined) return undefined;
  const units = ["B", "K", "M", "G", "T"];
  let n = bytes, i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i += 1; }
  return `${n.toFixed(i && n < 100 ? 1 : 0)}${units[i]}`;
}

export function facts(...pairs) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return h("dl", {}, shown.flatMap(([name, ...values]) => [h("dt", {}, name), h("dd", {}, ...values)]));
}

export function table(caption, columns, rows) {
  const head = h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)));
  return h("div", { class: "scroll" },
    h("table", {}, h("caption", {}, caption), h("thead", {}, head), h("tbody", {}, rows)));
}

export function say(text) {
  const said = document.getElementById("said");
  said.textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { said.textContent = ""; }, 8000);
}
