// What the walkers of a domain could not reach.

import { ask } from "./api.js";
import { ago, dim, link, number, section, table } from "./dom.js";

const there = (fault) => fault.gap ? `free from ${fault.gap.start} to ${fault.gap.last}` : fault.place ?? "";

const rowOf = (domain) => (fault) => [
  `${ago(fault.at)} ago${fault.times > 1 ? `, ${number(fault.times)} times` : ""}`, fault.pid ? `process ${fault.pid}` : `walker ${fault.walker}`,
  `${fault.access} `, link(`#/walk?domain=${domain}&iova=${fault.iova}`, fault.iova), fault.cause, there(fault),
];

/** The section about domain `id`; nothing if no walker of it has met a fault. */
export async function faultsOf(id) {
  const { counts, items } = await ask(`/v1/domains/${encodeURIComponent(id)}/faults?limit=1000`);
  const met = Object.entries(counts).filter(([, count]) => count > 0).map(([cause, count]) => `${cause} ${number(count)}`);
  if (met.length === 0) {
    return [];
  }
  return [section("Faults of its walkers", dim(met.join(", ")),
    table(["", "by", "", "address", "why", "there now"], items.reverse().map(rowOf(id))))];
}
