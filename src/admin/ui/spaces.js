// Address spaces: all of them, and one as a map with what lies at each address.

import { address, ask, askIfThere, hex, list } from "./api.js";
import { bad, dim, element, facts, link, number, section, size, table } from "./dom.js";
import { explainForm } from "./explain.js";
import { AreaMap } from "./map.js";
import { look } from "./paint.js";
import { pieces, Scale } from "./scale.js";
import { walked } from "./walk.js";

/** Areas that a map has at most; beyond that one goes to an address. */
const AREAS = 50_000;
const ROWS = 40;
/** Areas in view of which the leaf size is asked. */
const LEAVES = 24;
const PATTERNS = ["plain", "striped", "barred", "crossed"];

const rowOf = (space) => [
  link(`#/ioas/${space.id}`, `ioas ${space.id}`), link(`#/contexts/${space.context}`, `context ${space.context}`), number(space.areas),
  size(space.mapped_bytes), String(space.domains), String(space.accesses),
];

async function showAll(place) {
  const refresh = async () => {
    const { items, more } = await list("/v1/ioas", { most: 2000 });
    items.sort((one, other) => other.mapped_bytes - one.mapped_bytes || one.id - other.id);
    place.replaceChildren(section("Address spaces", items.length === 0 ? dim("There is none: no client has made one.")
      : table(["", "of", "areas", "mapped", "domains", "accesses"], items.slice(0, 500).map(rowOf)),
    items.length > 500 || more ? dim(`The 500 that map most of ${number(items.length)}${more ? " and more" : ""}. Any other: the address #/ioas/ and its number.`) : null));
  };
  await refresh();
  return { refresh };
}

const span = (row) => ({ ...row, start: BigInt(row.start), last: BigInt(row.last) });

/** The areas and rules of a space, as far as a map takes them. */
async function read(id, progress, signal) {
  const { items, more } = await list(`/v1/ioas/${id}/areas`, { most: AREAS, progress, signal });
  const rules = await askIfThere(`/v1/ioas/${id}/ranges?limit=1000`);
  const ranges = (rules?.items ?? []).map(span);
  return {
    areas: items.map((row) => ({ ...span(row), kind: "area" })), more,
    reserved: ranges.filter((range) => range.kind === "reserved"), allowed: ranges.filter((range) => range.kind === "allowed"),
  };
}

function areaFacts(area) {
  const { hue, pattern } = look(area.pages);
  const swatch = element("span", { className: `swatch hue-${hue}`, "aria-hidden": "true" });
  return facts([
    ["area", `${hex(area.start)} to ${hex(area.last)}`], ["length", size(area.bytes)], ["devices may", area.permission], ["state", area.state],
    ["pages", element("span", {}, swatch, `object ${area.pages}, ${PATTERNS[pattern]}`)], ["from", `page ${area.first_page} + ${area.page_offset} bytes`],
    ["source", area.source], ["strength", area.strength], ["pins of accesses", String(area.accesses)],
  ]);
}

/** Who else shows the pages of an area. */
async function sharing(area, ioas) {
  const pages = await ask(`/v1/pages/${area.pages}`);
  const others = pages.shown.filter((other) => other.ioas !== ioas || BigInt(other.start) !== area.start);
  const rows = others.map((other) => [link(`#/ioas/${other.ioas}?at=${other.start}`, `ioas ${other.ioas}`), other.start, other.last]);
  const said = `${size(pages.pinned_bytes)} of ${size(pages.length)} pinned, paid by user ${pages.uid}, `
    + `${number(pages.shown_areas)} areas show it through domains, ${number(pages.access_ranges)} ranges are held by accesses`;
  return [element("p", {}, said), rows.length > 0 ? table(["shared with", "from", "to"], rows) : dim("No other area shows these pages through a domain.")];
}

class Space {
  constructor(id) {
    this.id = id;
    this.map = new AreaMap({ chosen: (piece) => this.chosen(piece), seen: (view) => this.seen(view) });
    [this.head, this.note, this.detail, this.rows] = ["div", "p", "div", "div"].map((tag) => element(tag));
    this.note.className = "dim";
    this.detail.setAttribute("aria-live", "polite");
    this.domains = [];
    this.signal = { stopped: false };
  }

  bar() {
    const input = element("input", { id: "address", placeholder: "0x200000", spellcheck: false, autocomplete: "off", "aria-describedby": "address-wrong" });
    const wrong = element("p", { id: "address-wrong", className: "bad", role: "alert" });
    const form = element("form", { className: "address", role: "search" }, element("label", {}, "go to an IOVA and walk", input), element("button", {}, "go"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const to = address(input.value);
      wrong.textContent = to === null ? "Write an address below 2^64: hex with 0x, or decimal." : "";
      if (to !== null) {
        this.goTo(to);
      }
    });
    this.input = input;
    return element("div", {}, form, wrong);
  }

  async goTo(to) {
    this.input.value = hex(to);
    history.replaceState(null, "", `#/ioas/${this.id}?at=${hex(to)}`);
    if (this.map.view) {
      this.walkTo = to;
      this.map.goTo(to);
    }
  }

  async load() {
    const found = await read(this.id, (count) => { this.note.textContent = `${number(count)} areas read …`; }, this.signal);
    this.found = found;
    const said = [found.more ? `The first ${number(AREAS)} areas; go to an address to look elsewhere.` : "",
      found.allowed.length > 0 ? `Automatic placement uses ${number(found.allowed.length)} allowed ranges only, from ${hex(found.allowed[0].start)}.` : ""];
    this.note.textContent = said.filter(Boolean).join(" ");
    this.map.made.hidden = found.areas.length === 0 && found.reserved.length === 0;
    if (this.map.made.hidden) {
      this.rows.replaceChildren(dim("Nothing is mapped here, and nothing reserved: all 2^64 addresses are free."));
    } else {
      this.map.set(new Scale(pieces(found.areas, found.reserved)));
    }
  }

  async refresh() {
    const row = await ask(`/v1/ioas/${encodeURIComponent(this.id)}`);
    const now = `${row.areas} ${row.mapped_bytes}`;
    this.domains = row.domains > 0 ? (await list(`/v1/domains?ioas=${row.id}`)).items : [];
    this.head.replaceChildren(facts([
      ["context", link(`#/contexts/${row.context}`, `context ${row.context}`)], ["object", row.object], ["areas", number(row.areas)], ["mapped", size(row.mapped_bytes)],
      ["domains", this.domains.length > 0 ? element("span", {}, ...this.domains.slice(0, 6).flatMap((domain) => [link(`#/walk?domain=${domain.id}`, `${domain.id}: ${domain.format}`), " "])) : "none"],
      ["accesses", row.accesses],
    ]));
    if (this.known !== now) {
      this.known = now;
      await this.load();
    }
  }

  async chosen(piece) {
    const parts = [];
    if (piece.kind === "area") {
      parts.push(areaFacts(piece));
    } else {
      const owners = piece.owners?.length ? ["by", piece.owners.join(", ")] : ["", null];
      parts.push(facts([[piece.kind === "gap" ? "free" : "reserved", `${hex(piece.start)} to ${hex(piece.last)}`], ["length", size(piece.bytes)], owners]));
    }
    this.detail.replaceChildren(...parts);
    const [at, walkTo] = [piece, this.walkTo ?? piece.start];
    this.walkTo = undefined;
    try {
      const more = piece.kind === "area" ? await sharing(piece, Number(this.id)) : [];
      const walk = this.domains.length > 0 ? [element("h3", {}, `The way to ${hex(walkTo)}`), ...await walked(this.domains[0].id, hex(walkTo))] : [];
      if (this.map.chosen === at) {
        this.detail.append(...more, ...walk);
      }
    } catch (error) {
      this.detail.append(bad(error.message));
    }
  }

  seen(view) {
    const { scale } = view;
    const inView = scale.pieces.slice(scale.index(view.from), scale.index(view.from + view.span) + 1).filter((piece) => piece.kind === "area");
    clearTimeout(this.later);
    this.later = setTimeout(() => {
      this.listAreas(inView);
      this.askLeaves(inView);
    }, 80);
  }

  listAreas(inView) {
    const rows = inView.slice(0, ROWS).map((area) => [
      element("button", { type: "button", className: "plain", onclick: () => this.map.choose(area) }, hex(area.start)), hex(area.last), size(area.bytes),
      area.permission, area.state, element("span", {}, element("span", { className: `swatch hue-${look(area.pages).hue}`, "aria-hidden": "true" }), String(area.pages)),
      area.source ?? "", area.strength ?? "",
    ]);
    const rest = inView.length > ROWS ? dim(`The first ${ROWS} of ${number(inView.length)} areas in view; zoom in for the others.`) : "";
    this.rows.replaceChildren(rows.length > 0 ? table(["from", "to", "length", "rights", "state", "pages", "source", "strength"], rows, "areas in view") : dim("No area is in view."), rest);
  }

  /** The leaf at the start of each area, while there are few in view. */
  async askLeaves(inView) {
    const unknown = inView.filter((area) => !this.map.leaves.has(area.start));
    if (this.domains.length === 0 || inView.length > LEAVES || unknown.length === 0) {
      return;
    }
    for (const area of unknown) {
      const walk = await askIfThere(`/v1/domains/${this.domains[0].id}/walk?iova=${hex(area.start)}`);
      this.map.leaves.set(area.start, walk?.steps.find((step) => step.kind === "leaf")?.size ?? 0);
      if (this.signal.stopped) {
        return;
      }
    }
    this.map.painter.paint(this.map.view, this.map.chosen, this.map.leaves);
  }

  close() {
    this.signal.stopped = true;
    clearTimeout(this.later);
    this.map.close();
  }
}

function legend() {
  const entry = (className, text) => element("li", {}, element("span", { className: `swatch ${className}`, "aria-hidden": "true" }), text);
  return element("ul", { className: "legend" }, entry("hue-0", "an area; same colour and pattern: same pages"), entry("many", "many small areas"), entry("free", "free"), entry("reserved", "reserved"),
    entry("leaf", "leaf size at the start of an area"), entry("chosen", "chosen; dashed: shares its pages"), element("li", {}, "≷ larger than painted"));
}

async function showOne(place, id, query) {
  const space = new Space(id);
  place.append(element("p", {}, link("#/ioas", "all address spaces")), element("h2", {}, `Address space ${id}`), space.head, space.bar(), space.note,
    space.map.made, legend(), section("What lies there", space.detail), section("Areas", space.rows), section("Would a map fit here?", explainForm(id, query)));
  await space.refresh();
  const to = query.has("at") ? address(query.get("at")) : null;
  if (to !== null) {
    await space.goTo(to);
  } else {
    space.detail.replaceChildren(dim("Choose an area on the map, or go to an address."));
  }
  return { refresh: () => space.refresh(), close: () => space.close() };
}

export const show = (place, { id, query }) => (id ? showOne(place, id, query) : showAll(place));
