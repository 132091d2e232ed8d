// Lines of journals, as they come.

import { lines, pause } from "./api.js";
import { h } from "./dom.js";

// So many lines stay to be read.
const MAX_LINES = 2000;
const RETRY_MS = 2000;

function time(us) {
  return new Date(us / 1000).toTimeString().slice(0, 8);
}

// Follows the units of a pattern until it is called off.
export function logs(pattern, n, signal) {
  const box = h("pre", { class: "log", tabindex: "0", role: "log", "aria-label": `Journal of ${pattern}` });
  let seen = 0;
  const put = (text, kind) => {
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 8;
    box.append(h("span", { class: kind }, `${text}\n`));
    seen += 1;
    if (seen > MAX_LINES) { box.firstChild.remove(); seen -= 1; }
    if (atEnd) box.scrollTop = box.scrollHeight;
  };
  const follow = async () => {
    let cursor;
    while (!signal.aborted) {
      const from = cursor ? `&after=${encodeURIComponent(cursor)}` : `&lines=${n}`;
      try {
        let end = "";
        await lines(`/journal?unit=${encodeURIComponent(pattern)}&follow=true${from}`, signal, (line) => {
          if (line.cursor) cursor = line.cursor;
          if (line.note) put(`-- ${line.note}${line.hint ? ` (${line.hint})` : ""}`, "wait");
          if (line.end) end = line.end;
          const entry = line.entry;
          if (!entry) return;
          const kind = entry.priority !== undefined && entry.priority <= 3 ? "bad" : entry.priority === 4 ? "wait" : "";
          put(`${time(entry.atUs)} ${entry.host || entry.machineID.slice(0, 8)} ${entry.identifier || "-"}: ${entry.message}`, kind);
        });
        if (end) put(`-- ${end}`, "wait");
      } catch (error) {
        if (signal.aborted) return;
        put(`-- ${error.message}`, "bad");
        if (error.status) return;
      }
      await pause(RETRY_MS, signal);
    }
  };
  follow();
  return box;
}
