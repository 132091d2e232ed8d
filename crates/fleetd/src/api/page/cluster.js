// What the page knows of the cluster, and how it stays true: everything once, then events, each of which
// has only what it is about read again.

import { get, lines, pause, Refused } from "./api.js";

// So many events are kept to be shown.
const MAX_EVENTS = 500;
// More units than this are read as a whole.
const MAX_SINGLE = 20;
// Events come in bursts: what they are about is read once.
const GATHER_MS = 150;
// Between attempts, while fleetd does not answer.
const RETRY_MS = [500, 1000, 2000, 5000];
// What no event tells of (a unit without one, a changed description) is seen so often.
const REFRESH_MS = 30000;

export const cluster = {
  units: new Map(), machines: new Map(), events: [], about: undefined, allowed: undefined, problem: undefined,
};

// Destroyed: reading them would only say that they are not there.
const gone = new Set();

const listeners = new Set();
let dirty = { units: new Set(), machines: false, all: false };
let gathering = false;

export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function changed() {
  for (const listener of listeners) listener();
}

function link(state, words) {
  const element = document.getElementById("link");
  if (element.dataset.state === state && element.textContent === words) return;
  element.dataset.state = state;
  element.textContent = words;
}

async function readUnits() {
  const units = new Map();
  const fields = "desiredState,currentState,description,global,machineID,states";
  let after = "", revision = "";
  for (;;) {
    let more = false;
    await lines(`/units?fields=${fields}&limit=5000${after}${revision}`, undefined, (page) => {
      for (const unit of page.units || []) {
        units.set(unit.name, unit);
        after = `&after=${encodeURIComponent(unit.name)}`;
      }
      revision = `&revision=${page.revision}`;
      more = Boolean(page.more);
    });
    if (!more) break;
  }
  cluster.units = units;
}

async function readMachines() {
  const { machines } = await get("/machines");
  cluster.machines = new Map(machines.map((machine) => [machine.id, machine]));
}

async function readUnit(name) {
  try {
    cluster.units.set(name, await get(`/units/${encodeURIComponent(name)}`));
  } catch (error) {
    if (error.status !== 404) throw error;
    cluster.units.delete(name);
  }
}

async function readAbout() {
  cluster.about = await get("/cluster");
}

// What a role does not show is left out; the rest goes on.
async function allowed(reading) {
  try {
    await reading;
  } catch (error) {
    if (error.status !== 403) throw error;
    cluster.problem = error.message;
  }
}

async function readAll() {
  await Promise.all([allowed(readUnits()), allowed(readMachines()), allowed(readAbout()), allowed(readRights())]);
  changed();
}

async function readRights() {
  try {
    cluster.allowed = await get("/whoami");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
  }
}

export function touch(unit) {
  dirty.units.add(unit);
  gather();
}

export function touchMachines() {
  dirty.machines = true;
  gather();
}

async function gather() {
  if (gathering) return;
  gathering = true;
  await pause(GATHER_MS);
  const now = dirty;
  for (const name of gone) now.units.delete(name);
  dirty = { units: new Set(), machines: false, all: false };
  gathering = false;
  try {
    if (now.units.size > MAX_SINGLE) await allowed(readUnits());
    else await Promise.all([...now.units].map((name) => allowed(readUnit(name))));
    if (now.machines) await Promise.all([allowed(readMachines()), allowed(readAbout())]);
    changed();
  } catch { /* following notices, and reads everything again */ }
}

const OF_MACHINES = new Set(["present", "suspect", "lost", "unsupervised", "retired", "avoided", "trusted", "leader", "asked"]);

function take(line) {
  if (!line.event) return;
  const event = line.event;
  cluster.events.unshift(event);
  cluster.events.length = Math.min(cluster.events.length, MAX_EVENTS);
  if (event.kind === "submitted") gone.delete(event.unit);
  if (event.kind === "destroyed") {
    gone.add(event.unit);
    cluster.units.delete(event.unit);
  }
  if (event.unit && !gone.has(event.unit)) dirty.units.add(event.unit);
  if (OF_MACHINES.has(event.kind)) dirty.machines = true;
  gather();
  changed();
}

// Never ends: reads everything, follows, and begins anew when fleetd has gone.
export async function follow() {
  let failures = 0;
  setInterval(() => { if (document.visibilityState === "visible" && !failures) readAll().catch(() => {}); }, REFRESH_MS);
  for (;;) {
    try {
      let path = "/events?follow=true";
      try {
        const past = await get("/events?limit=200");
        cluster.events = (past.events || []).reverse();
        path += `&after=${past.revision}`;
      } catch (error) {
        if (error.status !== 403) throw error;
        path = undefined;
      }
      await readAll();
      failures = 0;
      link("live", "live");
      if (path) await lines(path, undefined, take);
      // Without events there is looking from time to time.
      else await pause(RETRY_MS[RETRY_MS.length - 1]);
    } catch (error) {
      link("lost", error instanceof Refused ? error.message : "fleetd does not answer; trying again");
      await pause(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]);
      failures += 1;
    }
  }
}

// Whether the page offers to do something. fleetd decides again when it is asked.
export function may(verb) {
  const verbs = cluster.allowed?.verbs;
  return Array.isArray(verbs) && (verbs.includes("*") || verbs.includes(verb));
}
