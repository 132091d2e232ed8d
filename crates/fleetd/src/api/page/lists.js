// The views of many things: units, machines, events.

import { cluster } from "./cluster.js";
import { h, machineLink, machineState, stateOf, table, unitLink, when } from "./dom.js";

// More rows than this help nobody; the filter finds the others.
const MAX_ROWS = 1000;

const filter = () => document.getElementById("filter").value.trim().toLowerCase();

function left(n) {
  return n > 0 ? h("p", { class: "notice" }, `${n} more are not shown: filter for those that you look for.`) : "";
}

function shown(rows) {
  const words = filter();
  const found = words ? rows.filter((row) => row.words.toLowerCase().includes(words)) : rows;
  return [found.slice(0, MAX_ROWS), found.length - Math.min(found.length, MAX_ROWS)];
}

// One row a copy, so that what runs twice is seen twice.
function copies(unit) {
  const states = unit.states?.length ? unit.states : [undefined];
  return states.map((state) => {
    const at = state?.machineID || unit.machineID;
    const ip = cluster.machines.get(at)?.primaryIP || "";
    const words = [unit.name, unit.desiredState, state?.active, state?.sub, at, ip, unit.description].join(" ");
    return { unit, state, at, words };
  });
}

export function units() {
  const [rows, more] = shown([...cluster.units.values()].flatMap(copies)
    .sort((a, b) => (a.unit.name < b.unit.name ? -1 : a.unit.name > b.unit.name ? 1 : 0)));
  const failed = [...cluster.units.values()].filter((unit) => unit.states?.some((state) => state.active === "failed"));
  const summary = `${cluster.units.size} units` + (failed.length ? `, ${failed.length} failed` : "");
  return [
    h("h1", { tabindex: "-1" }, "Units"),
    cluster.problem ? h("p", { class: "notice" }, cluster.problem) : "",
    table(summary, ["Unit", "Wanted", "State", "Machine", "Description"], rows.map(({ unit, state, at }) => h("tr", {},
      h("td", { class: "name" }, unitLink(unit.name)),
      h("td", {}, unit.global ? `${unit.desiredState} everywhere` : unit.desiredState || "-"),
      h("td", {}, stateOf(state)),
      h("td", { class: "name" }, machineLink(at, cluster.machines)),
      h("td", { class: "muted" }, state?.description || unit.description || "")))),
    left(more),
  ];
}

function count() {
  const n = new Map();
  for (const unit of cluster.units.values()) {
    for (const state of unit.states || []) n.set(state.machineID, (n.get(state.machineID) || 0) + 1);
  }
  return n;
}

const metadata = (machine) => Object.entries(machine.metadata || {}).map(([key, value]) => `${key}=${value}`).join(", ");

export function machines() {
  const n = count();
  const [rows, more] = shown([...cluster.machines.values()].map((machine) => ({
    machine, words: [machine.id, machine.primaryIP, metadata(machine), machine.status, machine.reason].join(" "),
  })));
  const leader = cluster.about?.leader?.machineID;
  return [
    h("h1", { tabindex: "-1" }, "Machines"),
    table(`${cluster.machines.size} machines`, ["Machine", "Status", "Units", "Metadata", "Why"], rows.map(({ machine }) =>
      h("tr", {},
        h("td", { class: "name" }, machineLink(machine.id, cluster.machines), machine.id === leader ? " (leads)" : ""),
        h("td", {}, machineState(machine)),
        h("td", {}, String(n.get(machine.id) || 0)),
        h("td", {}, metadata(machine) || "-"),
        h("td", { class: "muted" }, machine.trouble || machine.reason || machine.avoided || "")))),
    left(more),
  ];
}

export function eventRows(events) {
  return events.map((event) => h("tr", {},
    h("td", { class: "when mono" }, when(event.atMs)),
    h("td", { class: ["failed", "lost", "refused", "denied"].includes(event.kind) ? "bad" : "" }, event.kind),
    h("td", { class: "name" }, event.unit ? unitLink(event.unit) : "-"),
    h("td", { class: "name" }, machineLink(event.machineID, cluster.machines)),
    h("td", {}, event.reason || "", event.fromID ? [" (from ", machineLink(event.fromID, cluster.machines), ")"] : ""),
    h("td", { class: "muted wide" }, /^[0-9a-f]{32}$/.test(event.by || "") ? machineLink(event.by, cluster.machines) : event.by || "")));
}

export const EVENT_COLUMNS = ["When", "What", "Unit", "Machine", "Why", "By"];

export function events() {
  const [rows, more] = shown(cluster.events.map((event) => ({
    event, words: [event.kind, event.unit, event.machineID, event.reason, event.by].join(" "),
  })));
  return [
    h("h1", { tabindex: "-1" }, "Events"),
    table("The newest first", EVENT_COLUMNS, eventRows(rows.map((row) => row.event))),
    left(more),
  ];
}
