// One unit: why, how, its events, its log.

import { get, post } from "./api.js";
import { cluster, may, touch } from "./cluster.js";
import { facts, h, machineLink, say, size, stateOf, table, when } from "./dom.js";
import { eventRows, EVENT_COLUMNS } from "./lists.js";
import { logs } from "./logs.js";

const LOG_LINES = 50;

function refusals(list, considered) {
  if (!list?.length) return "";
  return h("ul", {}, list.map((one) => h("li", {}, `${one.requirement}: refused ${one.machines} of ${considered} machines`)));
}

function onMachine(one) {
  const view = one.systemd;
  return h("section", {},
    h("h3", {}, "On ", machineLink(one.machineID, cluster.machines), ` (${one.machineStatus})`),
    one.error ? h("p", { class: "notice bad" }, one.error, one.hint ? ` (${one.hint})` : "") : "",
    view ? facts(
      ["Active", stateOf(view), view.sinceMs ? [" since ", when(view.sinceMs)] : ""],
      ["Result", view.result],
      ["Main process", view.mainPID ? `${view.mainPID} (${view.mainCommand || "?"})` : undefined],
      ["Restarts", view.restarts ? String(view.restarts) : undefined],
      ["Tasks", view.tasks !== undefined ? String(view.tasks) : undefined],
      ["Memory", size(view.memory)],
      ["CPU", view.cpuNs !== undefined ? `${(view.cpuNs / 1e9).toFixed(3)} s` : undefined],
      ["Says", view.statusText],
      ["Unit file", view.file ? h("span", { class: "mono" }, view.file) : undefined]) : "");
}

async function wish(name, change, words) {
  try {
    const request = { requestId: `ui-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`, units: [{ name, ...change }] };
    const answer = await post("/units", request);
    const one = answer.units[0];
    say(one.error ? `${name}: ${one.error}` : `${name}: ${words}`);
  } catch (error) {
    say(`${name}: ${error.message}`);
  }
  touch(name);
}

function actions(unit) {
  const button = (verb, words, change, said, danger) => may(verb) && h("button", {
    class: danger ? "danger" : undefined,
    onclick: () => { if (!danger || confirm(`${words} ${unit.name}?`)) wish(unit.name, change, said); },
  }, words);
  const all = [
    unit.desiredState !== "launched" && button("unit:start", "Start", { desiredState: "launched" }, "is to be started"),
    unit.desiredState === "launched" && button("unit:start", "Restart", { restart: true }, "is to be restarted"),
    unit.desiredState === "launched" && button("unit:stop", "Stop", { desiredState: "loaded" }, "is to be stopped", true),
    button("unit:destroy", "Destroy", { desiredState: "destroyed" }, "is to be destroyed", true),
  ].filter(Boolean);
  return all.length ? h("div", { class: "actions" }, all) : "";
}

// The parts that do not change by themselves are made once; `update` reads the rest again.
export function unit(name, signal) {
  const top = h("div", {});
  const machines = h("div", {});
  const events = h("div", {});
  const file = h("pre", {});
  const log = logs(name, LOG_LINES, signal);
  let seen;

  async function update() {
    const now = cluster.units.get(name);
    const past = cluster.events.filter((event) => event.unit === name).slice(0, 20);
    events.replaceChildren(past.length ? table("The newest first", EVENT_COLUMNS, eventRows(past)) : h("p", { class: "muted" }, "none that is kept"));
    const version = JSON.stringify([now, past[0]]);
    if (version === seen) return;
    seen = version;
    try {
      const view = await get(`/units/${encodeURIComponent(name)}`);
      top.replaceChildren(
        actions(view),
        facts(
          ["Wanted", view.global ? `${view.desiredState} on every machine that may run it` : view.desiredState],
          ["Machine", view.global ? undefined : machineLink(view.machineID, cluster.machines)],
          ["Leaving", view.leavingID ? machineLink(view.leavingID, cluster.machines) : undefined],
          ["Why", view.reason],
          ["Since", view.sinceMs ? when(view.sinceMs) : undefined],
          ["Changed", view.changedMs ? when(view.changedMs) : undefined, view.changedBy ? ` by ${view.changedBy}` : ""],
          ["Hash", h("span", { class: "mono" }, view.hash)]),
        refusals(view.refusals, view.considered), refusals(view.passedOver, view.considered),
        ...(view.states || []).filter((state) => state.why).map((state) =>
          h("div", { class: "notice bad" }, state.why, state.log?.length ? h("pre", {}, state.log.join("\n")) : "")));
      file.textContent = view.text || "";
    } catch (error) {
      top.replaceChildren(h("p", { class: "notice bad" }, error.message));
    }
    try {
      const status = await get(`/units/${encodeURIComponent(name)}/status?lines=0`);
      machines.replaceChildren(...((status.machines || []).map(onMachine)));
    } catch (error) {
      machines.replaceChildren(h("p", { class: "muted" }, error.message));
    }
  }

  const elements = [
    h("h1", { tabindex: "-1" }, name), top, machines,
    h("h2", {}, "Log"), log,
    h("h2", {}, "Events"), events,
    h("h2", {}, "Unit file"), file,
  ];
  return { elements, update };
}
