// One machine: how it stands, what it has, what happened there.

import { get, post } from "./api.js";
import { cluster, may, touchMachines } from "./cluster.js";
import { facts, h, machineState, say, table, unitLink, when } from "./dom.js";
import { eventRows, EVENT_COLUMNS } from "./lists.js";

async function change(id, body, words) {
  try {
    await post(`/machines/${encodeURIComponent(id)}`, body);
    say(words);
  } catch (error) {
    say(error.message);
  }
  touchMachines();
}

function actions(machine) {
  if (!may("machine:drain")) return "";
  const button = (words, body, said, danger) => h("button", {
    class: danger ? "danger" : undefined,
    onclick: () => { if (!danger || confirm(`${words}?`)) change(machine.id, body, said); },
  }, words);
  return h("div", { class: "actions" },
    machine.cordoned || machine.draining || machine.avoided
      ? button("Uncordon", { cordoned: false, draining: false }, "it takes units again")
      : button("Cordon", { cordoned: true }, "it takes no new units"),
    machine.draining ? "" : button("Drain", { draining: true }, "its units are being moved", true));
}

export function machine(id) {
  const top = h("div", {});
  const units = h("div", {});
  const events = h("div", {});
  let seen;

  async function update() {
    const now = cluster.machines.get(id);
    const past = cluster.events.filter((event) => event.machineID === id || event.fromID === id).slice(0, 50);
    events.replaceChildren(past.length ? table("The newest first", EVENT_COLUMNS, eventRows(past)) : h("p", { class: "muted" }, "none that is kept"));
    const version = JSON.stringify([now, past[0]]);
    if (version === seen) return;
    seen = version;
    try {
      const view = await get(`/machines/${encodeURIComponent(id)}`);
      const metadata = Object.entries(view.metadata || {}).map(([key, value]) => `${key}=${value}`).join(", ");
      top.replaceChildren(actions(view), facts(
        ["Status", machineState(view), view.sinceMs ? [" since ", when(view.sinceMs)] : ""],
        ["Why", view.reason], ["Trouble", view.trouble], ["Avoided", view.avoided],
        ["Id", h("span", { class: "mono" }, view.id)], ["Address", view.primaryIP], ["Metadata", metadata || "none"],
        ["Joined", view.firstSeenMs ? when(view.firstSeenMs) : undefined], ["fleetd", view.version]));
      const listing = await get(`/machines/${encodeURIComponent(id)}/units`);
      units.replaceChildren(table(`${listing.units.length} units`, ["Unit", "Order", "Why"], listing.units.map((one) =>
        h("tr", {}, h("td", { class: "name" }, unitLink(one.name)), h("td", {}, one.order), h("td", { class: "muted" }, one.reason || "")))));
    } catch (error) {
      top.replaceChildren(h("p", { class: "notice bad" }, error.message));
    }
  }

  const elements = [
    h("h1", { tabindex: "-1" }, `Machine ${id.slice(0, 8)}…`), top, h("h2", {}, "Units"), units, h("h2", {}, "Events"), events,
  ];
  return { elements, update };
}
