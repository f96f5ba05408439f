// What takes long just now: how far it is, what it waits for, and how it can be cancelled. The page itself changes nothing.

import { list } from "./api.js";
import { bar, dim, element, link, number, refill, section, size } from "./dom.js";

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
    return element("p", {}, done > 0 ? size(done) : "nothing done yet");
  }
  const words = `${Math.floor((100 * done) / total)} %, ${size(done)} of ${size(total)}`;
  return element("p", { className: "progress" }, bar(done, total, { words }), element("span", {}, words));
}

function cancelling({ id, cancellable, fixed }) {
  return cancellable ? element("p", {}, "To cancel it: ", element("code", {}, `ioasd ctl operations cancel ${id}`))
    : dim(`It cannot be cancelled: ${fixed}.`);
}

/** For whom, and where. */
function subject({ context, object, ioas, start, last }) {
  const at = start === null ? null : `, ${start} to ${last}`;
  const where = ioas === null ? [] : [" in ", link(`#/ioas/${ioas}${start === null ? "" : `?at=${start}`}`, `ioas ${ioas}`), at];
  return element("p", {}, "for ", link(`#/contexts/${context}`, `context ${context}`), object === null ? null : `, object ${object}`, ...where);
}

function card(operation) {
  const { id, command, age_ms: age, doing, waits_for: waits, trouble, answered } = operation;
  const state = `${doing.replace("-", " ")}, waits for ${waits}${trouble === null ? "" : `: ${trouble}`}`;
  return element("li", { className: trouble === null ? "" : "warn" },
    element("h3", {}, `${id} ${command} `, element("small", {}, `for ${duration(age)}`)), progress(operation),
    element("p", { className: trouble === null ? "" : "trouble" }, state), subject(operation),
    answered ? element("p", {}, "Its client has its answer already.") : null, cancelling(operation));
}

export async function show(view) {
  const refresh = async () => {
    const { items, more } = await list("/v1/operations");
    items.sort((one, other) => other.age_ms - one.age_ms || one.id - other.id);
    const left = items.length > SHOWN || more ? dim(`The oldest ${SHOWN} of ${number(items.length)}${more ? " and more" : ""}.`) : null;
    const body = items.length === 0 ? dim("Nothing takes long just now.")
      : element("ul", { className: "operations" }, ...items.slice(0, SHOWN).map(card));
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
