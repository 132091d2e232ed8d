// Which view is shown, and when it is drawn again.

import { cluster, follow, onChange } from "./cluster.js";
import { h } from "./dom.js";
import * as lists from "./lists.js";
import { logs } from "./logs.js";
import { machine } from "./machine.js";
import { unit } from "./unit.js";

const main = document.getElementById("main");
const filter = document.getElementById("filter");
let view;
let leave = new AbortController();

const LISTS = { units: lists.units, machines: lists.machines, events: lists.events };

function draw() {
  const about = cluster.about;
  document.getElementById("cluster").textContent = about?.id ? `cluster ${about.id.slice(0, 8)}` : "";
  if (!view) return;
  if (view.update) view.update();
  else replace(view.list());
}

// Draws a list anew, with the focus where it was.
function replace(elements) {
  const focused = main.contains(document.activeElement) ? document.activeElement.getAttribute("href") : undefined;
  main.replaceChildren(...elements.filter(Boolean));
  if (focused) main.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function logsView(pattern) {
  const input = h("input", { id: "pattern", value: pattern, "aria-label": "Units, as a pattern: web-*" });
  const form = h("form", { onsubmit: (event) => {
    event.preventDefault();
    location.hash = `#/logs/${encodeURIComponent(input.value.trim())}`;
  } }, input);
  const box = pattern ? logs(pattern, 100, leave.signal) : h("p", { class: "muted" }, "Name units, or a pattern such as web-*, and press Enter.");
  return { elements: [h("h1", { tabindex: "-1" }, "Logs"), form, box], update: () => {} };
}

function go() {
  leave.abort();
  leave = new AbortController();
  const [kind, name] = location.hash.replace(/^#\//, "").split("/").map(decodeURIComponent);
  for (const a of document.querySelectorAll("nav a")) {
    if (a.dataset.view === (kind || "units")) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  document.title = name ? `${name} · fleet` : "fleet";
  document.getElementById("filtering").hidden = Boolean(name) || kind === "logs";
  if (kind === "units" && name) view = unit(name, leave.signal);
  else if (kind === "machines" && name) view = machine(name);
  else if (kind === "logs") view = logsView(name || "");
  else view = { list: LISTS[kind] || lists.units };
  if (view.elements) main.replaceChildren(...view.elements);
  draw();
  main.querySelector("h1")?.focus({ preventScroll: true });
}

// A burst of events is one drawing.
let due = false;
onChange(() => {
  if (due) return;
  due = true;
  requestAnimationFrame(() => { due = false; draw(); });
});

filter.addEventListener("input", draw);
addEventListener("hashchange", go);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("keydown", (event) => {
  const typing = ["INPUT", "TEXTAREA"].includes(document.activeElement?.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && typing) { filter.value = ""; document.activeElement.blur(); draw(); }
  else if (typing) return;
  else if (event.key === "/" && !filter.closest("[hidden]")) { event.preventDefault(); filter.focus(); }
  else if (event.key === "u") location.hash = "#/units";
  else if (event.key === "m") location.hash = "#/machines";
  else if (event.key === "e") location.hash = "#/events";
  else if (event.key === "l") location.hash = "#/logs";
});

go();
follow();
