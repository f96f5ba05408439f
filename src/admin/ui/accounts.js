// Who pays: the tree of accounts, how much of what each uses, and how near its limits it is.

import { list } from "./api.js";
import { bar, dim, element, link, number, refill, section, size, table } from "./dom.js";

const PIECES = new Set(["areas", "objects", "requests"]);
const STRENGTHS = ["longterm", "locked", "resident", "copy"];
const SHOWN = 300;

const amount = (name, value) => (PIECES.has(name) ? number(value) : size(value));

/** A bar up to the hard limit, with a mark at the soft one. */
function limitBar(name, { used, soft, hard }) {
  const words = [`${amount(name, used)} used`, soft === null ? null : `soft ${amount(name, soft)}`,
    hard === null ? null : `hard ${amount(name, hard)}`].filter(Boolean).join(", ");
  const marks = [[soft, "soft"], [hard, "hard"]].filter(([at]) => at !== null).map(([at, kind]) => ({ at, kind }));
  return element("div", { className: "limit" }, element("span", {}, name), bar(used, hard ?? soft * 1.25, { marks, words }), element("span", { className: "dim" }, words));
}

/** A limit that is worth a line: every one of those above contexts, and of a context what is used to a part worth seeing. */
function isShown({ level }, { used, soft, hard, refusals }) {
  const limit = Math.min(soft ?? Infinity, hard ?? Infinity);
  return limit < Infinity && (level !== "context" || refusals > 0 || used > limit / 20);
}

function bars(account, host) {
  const limited = Object.entries(account.counters).filter(([, counter]) => isShown(account, counter));
  const pinned = account.counters.pinned;
  const free = pinned.soft === null && pinned.hard === null
    ? [dim(account.level === "host" ? "no limit" : `no limit, ${Math.round(100 * pinned.used / host)} % of all that is pinned`)] : [];
  return element("div", {}, ...free, ...limited.map(([name, counter]) => limitBar(name, counter)));
}

function name(account) {
  const text = { host: "this host", tenant: `tenant ${account.tenant}`, user: `user ${account.uid}`, context: `context ${account.context}` }[account.level];
  return account.level === "context" ? link(`#/contexts/${account.context}`, text) : text;
}

const DEPTH = { host: 0, tenant: 1, user: 2, context: 3 };

function row(account, host) {
  const { counters } = account;
  const strengths = STRENGTHS.filter((strength) => counters[strength]?.used > 0).map((strength) => `${size(counters[strength].used)} ${strength}`);
  const sum = (what) => Object.values(counters).reduce((all, counter) => all + counter[what], 0);
  return {
    className: sum("refusals") > 0 ? "warn" : "",
    cells: [element("span", { className: `depth-${DEPTH[account.level]}` }, name(account)), size(counters.pinned.used), bars(account, host),
      number(sum("refusals")), number(sum("crossings")), strengths.join(", ") || "nothing", size(counters.tables.used), number(counters.areas.used)],
  };
}

/** Each account followed by those below it, the heaviest first. */
function inOrder(accounts) {
  const below = new Map();
  for (const account of accounts) {
    below.set(account.parent, [...(below.get(account.parent) ?? []), account]);
  }
  const heavier = (one, other) => other.counters.pinned.used - one.counters.pinned.used || one.id - other.id;
  const from = (parent) => (below.get(parent) ?? []).sort(heavier).flatMap((account) => [account, ...from(account.id)]);
  return from(null);
}

function payerRow(payer) {
  const limit = payer.limit_bytes ?? null;
  const used = Math.max(payer.limited_bytes, payer.user_limited_bytes);
  const bars = limit === null ? "no limit" : bar(used, limit, { marks: [{ at: limit, kind: "hard" }], words: `${size(used)} of ${size(limit)}` });
  return [String(payer.pid), size(payer.charged_bytes), size(used), limit === null ? "unlimited" : size(limit), bars];
}

function tree({ items, more }) {
  const host = Math.max(1, items.find((account) => account.level === "host")?.counters.pinned.used ?? 0);
  const rows = inOrder(items);
  const left = rows.length > SHOWN || more ? dim(`The first ${SHOWN} of ${number(rows.length)}${more ? " and more" : ""}.`) : null;
  return element("div", {}, table(["account", "pinned", "used and limits", "refused", "soft limits passed", "by strength", "tables", "areas"],
    rows.slice(0, SHOWN).map((account) => row(account, host))), left);
}

export async function show(place) {
  const [accounts, payers] = [element("div"), element("div")];
  place.append(section("Accounts", accounts), section("Processes that map, and their limit for locked memory", payers),
    element("p", { className: "dim" }, "Pages count once for each pages object that pins them. ", link("#/contexts", "Contexts"), " say which program it is."));
  const refresh = async () => {
    const [who, mapping] = [await list("/v1/accounts", { most: 5000 }), await list("/v1/payers")];
    refill(accounts, tree(who));
    refill(payers, mapping.items.length === 0 ? dim("No process maps anything.")
      : table(["process", "pinned", "counts towards it", "limit", ""], mapping.items.map(payerRow)));
  };
  await refresh();
  return { refresh };
}
