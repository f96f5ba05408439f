// What the agent holds, over time, and who holds most of it.

import { list } from "./api.js";
import { bar, dim, element, link, section, size, table, ago } from "./dom.js";
import { eventTable, readEvents } from "./events.js";
import { chart, KEPT, shown, spark } from "./history.js";

const HOLDERS = 10;
const LATELY = 8;

const MEANINGS = {
  pinned: "bytes that hold a pin, each pages object for itself",
  charged: "bytes billed to accounts; equals pinned at rest",
  retiring: "unmapped, but a walker has not left them yet",
  mapped: "bytes that domains translate; in two domains they count twice",
  tables: "bytes of IO page tables",
};

function tiles(status) {
  return element("dl", { className: "tiles" }, ...Object.entries(KEPT).map(([name, key]) => {
    const value = status[key] ?? 0;
    const title = MEANINGS[name] ? `${MEANINGS[name]} (${value} bytes)` : "";
    const warn = name === "retiring" && value > 0 ? "warn" : "";
    return element("div", { title, className: warn }, element("dt", {}, name), element("dd", {}, shown(name, value)), spark(name));
  }));
}

function holders({ items, more }, total) {
  if (items.length === 0) {
    return dim("Nobody has the agent open. A client connects to its socket; try `ioasd demo --hold`.");
  }
  const heaviest = items.sort((one, other) => other.pinned_bytes - one.pinned_bytes).slice(0, HOLDERS);
  const rows = heaviest.map((context) => [
    link(`#/contexts/${context.id}`, `${context.id}`), context.comm ?? "?", String(context.pid ?? "?"), String(context.uid),
    element("span", { className: "amount" }, size(context.pinned_bytes),
      bar(context.pinned_bytes, total, { words: `${size(context.pinned_bytes)} of ${size(total)} pinned` })),
    String(context.objects), ago(context.since),
  ]);
  const left = items.length - heaviest.length;
  const rest = left > 0 ? dim(`${left}${more ? " and more" : ""} others hold less.`) : null;
  return element("div", {}, table(["context", "program", "process", "user", "pinned", "objects", "for"], rows), rest);
}

export async function show(place) {
  const [totals, over, who, lately] = ["div", "div", "div", "div"].map((tag) => element(tag));
  place.append(section("What it holds", totals), section("Over time", over), section("Who holds it", who),
    section("Lately", lately, link("#/events", "all events")));
  const refresh = async (status) => {
    totals.replaceChildren(tiles(status));
    over.replaceChildren(chart(["pinned", "charged", "mapped", "tables"]));
    who.replaceChildren(holders(await list("/v1/contexts"), status.pinned_bytes));
    lately.replaceChildren(eventTable((await readEvents()).slice(0, LATELY)));
  };
  return { refresh };
}
