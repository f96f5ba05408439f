// The way to an address through every level of a table, and what lies there.

import { address, ask, list } from "./api.js";
import { bad, dim, element, facts, link, section, size, table } from "./dom.js";
import { faultsOf } from "./faults.js";

function steps(walk) {
  return table(["level", "table", "index", "entry", "kind", "covers", "rights", "points to"], walk.steps.map((step) => ({
    className: step.kind === "table" ? "" : "end",
    cells: [
      String(step.level), step.table, String(step.index), step.entry, step.kind,
      `${step.covers} + ${size(step.size)}`, step.rights ?? "", step.points_to ?? "",
    ],
  })));
}

function meaning({ destination, area, pages }) {
  const file = destination?.file;
  return facts([
    ["leads to", destination && `${destination.address}, ${size(destination.length)} of the same leaf follow`],
    ["allowed", destination?.permission],
    ["file", file && `device ${file.device}, inode ${file.inode}, offset ${file.offset}`],
    ["area", area && `area ${area.start} to ${area.last}, ${size(area.length)}, ${area.permission}, ${area.state}`],
    ["in its pages", area && `from page ${area.first_page} + ${area.page_offset} bytes, ${area.accesses} pins of accesses`],
    ["pages", pages && `object ${pages.id}, ${pages.source}, ${pages.strength}`],
    ["pinned", pages && `${size(pages.pinned_bytes)} of ${size(pages.length)}, paid by user ${pages.uid}`],
  ]);
}

const walkPath = (domain, iova) => `/v1/domains/${encodeURIComponent(domain)}/walk?iova=${encodeURIComponent(iova)}`;

/** The answer to a walk, as elements. */
export async function walked(domain, iova) {
  const walk = await ask(walkPath(domain, iova));
  const verdict = walk.destination
    ? element("p", { className: "good" }, `${walk.iova} is mapped: it leads to ${walk.destination.address}, ${walk.destination.permission}`)
    : element("p", { className: "bad" }, walk.fault);
  const about = element("p", { className: "dim" }, `domain ${walk.domain}, ${walk.format}, ${walk.levels} levels, `,
    link(walkPath(domain, iova), "as JSON"));
  return [verdict, steps(walk), meaning(walk), about];
}

function form(domains, query) {
  const options = domains.map((domain) =>
    new Option(`${domain.id}: ${domain.format}, ${size(domain.mapped_bytes)}, ioas ${domain.ioas}`, domain.id));
  const given = query.get("domain");
  if (given && !domains.some((domain) => String(domain.id) === given)) {
    options.push(new Option(given, given));
  }
  const domain = element("select", { name: "domain", id: "domain", required: true }, ...options);
  domain.value = given ?? options[0]?.value ?? "";
  const iova = element("input", {
    name: "iova", id: "iova", required: true, placeholder: "0x100000", spellcheck: false, autocomplete: "off", value: query.get("iova") ?? "",
  });
  const made = element("form", { id: "walk" }, element("label", {}, "domain", domain), element("label", {}, "IOVA", iova), element("button", {}, "walk"));
  return { made, domain, iova };
}

export async function show(place, { query }) {
  const { items } = await list("/v1/domains");
  const result = element("div", { id: "result", "aria-live": "polite" });
  const faults = element("div", { id: "faults" });
  const { made, domain, iova } = form(items, query);
  place.append(section("Walk an address", made, result), faults);
  if (items.length === 0) {
    result.append(dim("There is no domain yet: attach a device first."));
  }
  const walk = async () => {
    try {
      result.replaceChildren(...await walked(domain.value, iova.value.trim()));
    } catch (error) {
      result.replaceChildren(bad(error.message));
    }
  };
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    const where = new URLSearchParams({ domain: domain.value, iova: iova.value.trim() });
    history.replaceState(null, "", `#/walk?${where}`);
    walk();
  });
  iova.addEventListener("input", () =>
    iova.setCustomValidity(address(iova.value) === null ? "an address: hex with 0x, or decimal, below 2^64" : ""));
  const refresh = async () => faults.replaceChildren(...(domain.value ? await faultsOf(domain.value) : []));
  domain.addEventListener("change", () => refresh().catch((error) => faults.replaceChildren(bad(error.message))));
  if (query.has("iova")) {
    await walk();
  }
  await refresh();
  return { refresh };
}
