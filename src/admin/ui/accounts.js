// Who pays, how much, and how near the limits.

import { list } from "./api.js";
import { bar, dim, element, link, number, section, size, table } from "./dom.js";

const inBytes = (name) => /bytes|held|first_touch|table/.test(name);
const amount = (name, value) => (inBytes(name) ? size(value) : number(value));
const plain = (name) => name.replace(/_bytes$/, "").replaceAll("_", " ");

/** The limits of an account: resource, used, soft and hard, whichever it has. */
function limits(account) {
  return (account.limits ?? []).filter((limit) => limit.soft !== null || limit.hard !== null);
}

/** A bar up to the hard limit, with a mark at the soft one. */
function limitBar({ resource, used, soft = null, hard = null }) {
  const whole = hard ?? soft * 1.25;
  const words = [`${amount(resource, used)} used`, soft !== null ? `soft limit ${amount(resource, soft)}` : null,
    hard !== null ? `hard limit ${amount(resource, hard)}` : null].filter(Boolean).join(", ");
  const marks = [[soft, "soft"], [hard, "hard"]].filter(([at]) => at !== null).map(([at, kind]) => ({ at, kind }));
  return element("div", { className: "limit" }, element("span", {}, plain(resource)), bar(used, whole, { marks, words }),
    element("span", { className: "dim" }, words));
}

/** Pinned bytes by strength: strengths are not equal. */
function strengths(pinned) {
  const parts = Object.entries(pinned ?? {}).filter(([, bytes]) => bytes > 0);
  return parts.length > 0 ? parts.map(([name, bytes]) => `${size(bytes)} ${name}`).join(", ") : "0 B";
}

const named = (account) => account.name ?? account.account ?? `user ${account.uid}`;

function row(account, most) {
  const who = element("span", { className: `depth-${Math.min(4, account.depth ?? 0)}` }, named(account));
  const charged = account.charged_bytes ?? 0;
  const near = limits(account);
  const bars = near.length > 0 ? element("div", {}, ...near.map(limitBar))
    : bar(charged, most, { words: `${size(charged)}; the most of one account is ${size(most)}` });
  return [who, size(charged), bars, strengths(account.pinned_bytes), size(account.table_bytes ?? 0)];
}

function payerRow(payer) {
  const limit = payer.limit_bytes ?? null;
  const used = payer.locked_bytes ?? payer.limited_bytes ?? 0;
  const bars = limit === null ? "no limit" : bar(used, limit, { marks: [{ at: limit, kind: "hard" }], words: `${size(used)} of ${size(limit)}` });
  return [String(payer.pid), size(payer.pinned_bytes ?? payer.charged_bytes ?? 0), size(used), limit === null ? "unlimited" : size(limit), bars];
}

export async function show(place) {
  const [accounts, payers] = [element("div"), element("div")];
  place.append(section("Accounts", accounts), section("Processes that map, and their limit for locked memory", payers),
    element("p", { className: "dim" }, "Pages count once for each pages object that pins them. ", link("#/contexts", "Contexts"), " say which program it is."));
  const refresh = async () => {
    const [who, mapping] = [await list("/v1/accounts"), await list("/v1/payers")];
    const most = Math.max(1, ...who.items.map((account) => account.charged_bytes ?? 0));
    accounts.replaceChildren(who.items.length === 0 ? dim("Nobody has paid for anything yet.")
      : table(["account", "charged", "limits", "pinned by strength", "tables"], who.items.map((account) => row(account, most))));
    payers.replaceChildren(mapping.items.length === 0 ? dim("No process maps anything.")
      : table(["process", "pinned", "counts towards it", "limit", ""], mapping.items.map(payerRow)));
  };
  await refresh();
  return { refresh };
}
