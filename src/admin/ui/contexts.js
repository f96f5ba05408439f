// Who has the agent open; one context with everything it has.

import { ask, list } from "./api.js";
import { ago, dim, element, facts, link, number, refill, section, size, table } from "./dom.js";

const SHOWN = 200;

function moreOf({ items, more }) {
  return items.length > SHOWN || more ? dim(`The first ${SHOWN} of ${items.length}${more ? " and more" : ""}.`) : null;
}

function listed(title, found, heads, row, empty) {
  const body = found.items.length === 0 ? dim(empty) : table(heads, found.items.slice(0, SHOWN).map(row), "");
  return section(title, body, moreOf(found));
}

function contextRow(context) {
  return [
    link(`#/contexts/${context.id}`, String(context.id)), context.comm ?? "?", String(context.pid ?? "?"), String(context.uid),
    size(context.pinned_bytes), size(context.charged_bytes), String(context.objects), ago(context.since), context.cgroup ?? "",
  ];
}

async function showAll(place) {
  const refresh = async () => {
    const found = await list("/v1/contexts", { most: 5000 });
    found.items.sort((one, other) => other.pinned_bytes - one.pinned_bytes || one.id - other.id);
    refill(place, listed("Contexts", found,
      ["context", "program", "process", "user", "pinned", "charged", "objects", "for", "control group"], contextRow, "Nobody has the agent open."));
  };
  await refresh();
  return { refresh };
}

const spaceRow = (space) => [link(`#/ioas/${space.id}`, `ioas ${space.id}`), String(space.object), number(space.areas),
  size(space.mapped_bytes), String(space.domains), String(space.accesses)];
const domainRow = (domain) => [link(`#/walk?domain=${domain.id}`, `domain ${domain.id}`), domain.format, link(`#/ioas/${domain.ioas}`, `ioas ${domain.ioas}`),
  size(domain.mapped_bytes), size(domain.table_bytes), String(domain.walkers), number(domain.faults)];
const pagesRow = (pages) => [String(pages.id), pages.source, pages.strength, size(pages.length), size(pages.pinned_bytes),
  size(pages.charged_bytes), pages.retiring_bytes > 0 ? size(pages.retiring_bytes) : ""];
const accessRow = (access) => [String(access.id), link(`#/ioas/${access.ioas}`, `ioas ${access.ioas}`), String(access.pins ?? 0), size(access.pinned_bytes ?? 0)];

function who(context) {
  return facts([
    ["program", context.exe ?? context.comm], ["process", context.pid], ["user", context.uid], ["control group", context.cgroup],
    ["open for", `${ago(context.since)}, since ${context.since}`], ["objects", number(context.objects)],
    ["pinned", size(context.pinned_bytes)], ["charged", size(context.charged_bytes)],
  ]);
}

async function showOne(place, id) {
  const refresh = async () => {
    const context = await ask(`/v1/contexts/${encodeURIComponent(id)}`);
    const of = `context=${context.id}`;
    const [spaces, domains, pages, accesses] = await Promise.all(
      ["ioas", "domains", "pages", "accesses"].map((kind) => list(`/v1/${kind}?${of}`)));
    pages.items.sort((one, other) => other.pinned_bytes - one.pinned_bytes);
    refill(place, 
      element("p", {}, link("#/contexts", "all contexts")), section(`Context ${context.id}: ${context.comm ?? "a program that cannot be seen"}`, who(context)),
      listed("Address spaces", spaces, ["", "object", "areas", "mapped", "domains", "accesses"], spaceRow, "It has none."),
      listed("Domains", domains, ["", "format", "shows", "mapped", "tables", "walkers", "faults"], domainRow, "It has none: nothing of it reaches a device."),
      listed("Pages objects", pages, ["id", "source", "strength", "length", "pinned", "charged", "retiring"], pagesRow, "It has mapped nothing."),
      listed("Accesses", accesses, ["id", "uses", "pins", "pinned"], accessRow, "It has none."));
  };
  await refresh();
  return { refresh };
}

export const show = (place, { id }) => (id ? showOne(place, id) : showAll(place));
