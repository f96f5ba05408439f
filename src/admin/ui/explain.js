// Whether a map would succeed in an address space, and what is in its way.

import { address, ask, hex } from "./api.js";
import { bad, dim, element, facts, number, size, table } from "./dom.js";

const PIECES = new Set(["areas", "objects", "requests"]);
const UNITS = { "": 1n, b: 1n, k: 1n << 10n, kib: 1n << 10n, m: 1n << 20n, mib: 1n << 20n, g: 1n << 30n, gib: 1n << 30n };

const amount = (name, value, otherwise) => (value === null ? otherwise : PIECES.has(name) ? number(value) : size(value));

/** A length that somebody typed, such as 2 MiB or 0x200000, or null. */
function length(text) {
  const [, digits, unit] = /^\s*([0-9]+)\s*([a-z]*)\s*$/i.exec(text) ?? [];
  const factor = unit === undefined ? undefined : UNITS[unit.toLowerCase()];
  const bytes = factor === undefined ? address(text) : BigInt(digits) * factor;
  return bytes !== null && bytes < 1n << 64n ? bytes : null;
}

function limits(rows) {
  const worth = rows.filter((row) => row.hard !== null || row.soft !== null || row.needed > 0);
  return table(["account", "of", "used", "needed", "soft limit", "hard limit", ""], worth.map((row) => ({
    className: row.binds ? "warn" : "",
    cells: [row.holder, row.resource, amount(row.resource, row.used), amount(row.resource, row.needed, "only the map can tell"),
      amount(row.resource, row.soft, "none"), amount(row.resource, row.hard, "none"), row.binds ? "in the way" : row.passes_soft ? "passes the soft limit" : ""],
  })), "limits on the way to the host");
}

function inTheWay({ areas, areas_found: found, ranges }) {
  const rows = [...areas.map((area) => [`area, ${area.state}`, area.start, area.last, ""]),
    ...ranges.map((range) => [range.kind, range.start, range.last, range.owners.join(", ")])];
  const rest = found > areas.length ? dim(`${number(found - areas.length)} areas more are in that range.`) : "";
  return rows.length === 0 ? [] : [table(["", "from", "to", "for"], rows, "in the way"), rest];
}

function told(answer) {
  const verdict = answer.succeeds ? element("p", { className: "good" }, `It would succeed, at ${answer.start} to ${answer.last}.`)
    : bad(`It would be refused: ${answer.refusal.text}`);
  const asked = answer.alignment_asked_by.join(", ");
  return [verdict, facts([
    ["code", answer.refusal && `${answer.refusal.code}, errno ${answer.refusal.errno}`], ["paid by", answer.payer],
    ["pins", `${answer.strength}, ${answer.pins_at_once ? "at once" : "once a domain or an access needs them"}`],
    ["alignment", hex(answer.alignment) + (asked && `, for ${asked}`)],
  ]), ...inTheWay(answer), limits(answer.limits)];
}

/** A form that asks about a map in an address space, with the answer below it; what `query` asks is asked at once. */
export function explainForm(ioas, query) {
  const input = (id, placeholder) => element("input", { id, placeholder, spellcheck: false, autocomplete: "off" });
  const [much, where, result] = [input("map-length", "2 MiB"), input("map-iova", "wherever it fits"), element("div", { id: "explained", "aria-live": "polite" })];
  const form = element("form", { id: "explain", className: "address" }, element("label", {}, "length", much), element("label", {}, "IOVA", where), element("button", {}, "would it fit?"));
  const explain = async () => {
    const [bytes, iova] = [length(much.value || much.placeholder), where.value.trim() === "" ? undefined : address(where.value)];
    if (bytes === null || iova === null) {
      return result.replaceChildren(bad("Write a length such as 2 MiB, and an address below 2^64: hex with 0x, or decimal."));
    }
    const asked = new URLSearchParams({ length: hex(bytes), ...(iova === undefined ? {} : { iova: hex(iova) }) });
    try {
      result.replaceChildren(...told(await ask(`/v1/ioas/${encodeURIComponent(ioas)}/explain?${asked}`)));
    } catch (error) {
      result.replaceChildren(bad(error.message));
    }
    return null;
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    history.replaceState(null, "", `#/ioas/${ioas}?${new URLSearchParams({ length: much.value, iova: where.value })}`);
    explain();
  });
  if (query.has("length")) {
    [much.value, where.value] = [query.get("length"), query.get("iova") ?? ""];
    explain();
  }
  return element("div", {}, form, result);
}
