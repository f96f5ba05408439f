// What takes long just now: how far it is, what it waits for, and how it can be cancelled. The page itself changes nothing.

import { list } from "./api.js";
import { bar, dim, element, link, number, refill, section, size, table } from "./dom.js";

/** Milliseconds between two looks. */
const BEAT = 1000;
const SHOWN = 200;

/** How much time has gone by. */
function duration(milliseconds) {
  const seconds = milliseconds / 1000;
  return seconds < 10 ? `${seconds.toFixed(1)} s` : seconds < 120 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

function progress({ done_bytes: done, total_bytes: total }) {
  if (total === null) {
    return done > 0 ? size(done) : "";
  }
  const percent = Math.floor((100 * done) / total);
  const words = `${percent} %, ${size(done)} of ${size(total)}`;
  return element("div", { className: "amount" }, bar(done, total, { words }), element("span", {}, words));
}

function cancelling({ id, cancellable, fixed, answered }) {
  const how = cancellable ? element("code", {}, `ioasd ctl operations cancel ${id}`) : element("span", { className: "dim" }, `no: ${fixed}`);
  return element("div", { className: "wrapped" }, how, answered ? element("p", {}, "Its client has its answer already.") : null);
}

function place({ ioas, start, last }) {
  return element("div", { className: "amount" }, ioas === null ? "" : link(`#/ioas/${ioas}${start === null ? "" : `?at=${start}`}`, `ioas ${ioas}`),
    start === null ? "" : element("span", { className: "dim" }, `${start} to ${last}`));
}

function row(operation) {
  const { id, context, command, age_ms: age, doing, waits_for: waits, trouble } = operation;
  const wait = trouble === null ? waits : element("div", { className: "wrapped" }, `${waits}: ${trouble}`);
  return {
    className: trouble === null ? "" : "warn",
    cells: [String(id), command, progress(operation), doing, wait, duration(age), link(`#/contexts/${context}`, String(context)),
      place(operation), cancelling(operation)],
  };
}

export async function show(view) {
  const refresh = async () => {
    const { items, more } = await list("/v1/operations");
    items.sort((one, other) => other.age_ms - one.age_ms || one.id - other.id);
    const left = items.length > SHOWN || more ? dim(`The oldest ${SHOWN} of ${number(items.length)}${more ? " and more" : ""}.`) : null;
    const body = items.length === 0 ? dim("Nothing takes long just now.")
      : table(["", "what", "progress", "doing", "waits for", "for", "context", "where", "can be cancelled"], items.slice(0, SHOWN).map(row));
    refill(view, section("Operations", body, left));
  };
  await refresh();
  const timer = setInterval(() => {
    if (!document.hidden) {
      // A look that fails is said at the next beat of the page.
      refresh().catch(() => {});
    }
  }, BEAT);
  return { refresh, close: () => clearInterval(timer) };
}
