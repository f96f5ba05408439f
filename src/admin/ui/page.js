"use strict";
// The page asks /v1 and shows the answers. Texts reach the document as text only, never as markup.

const find = (id) => document.getElementById(id);

function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  Object.assign(made, options);
  made.append(...children);
  return made;
}

/** Bytes in the largest binary unit that keeps them whole to three digits. */
function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(2)} ${units[unit]}`;
}

/** What a path answers, or an error with the agent's own words. */
async function ask(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  const body = await response.json();
  if (!response.ok) {
    throw new Error(body.detail ?? response.statusText);
  }
  return body;
}

const TOTALS = [
  ["pinned", "pinned_bytes"], ["charged", "charged_bytes"], ["retiring", "retiring_bytes"],
  ["mapped", "mapped_bytes"], ["tables", "table_bytes"],
];

function showStatus(status) {
  find("version").textContent = status.version;
  const state = find("state");
  state.className = status.ready ? "good" : "bad";
  state.textContent = `${status.ready ? "ready" : `not ready: ${status.missing.join("; ")}`}, process ${status.pid}, since ${status.since}`;
  const totals = TOTALS.map(([name, key]) => [name, size(status[key]), `${status[key]} bytes`]);
  totals.push(["areas", String(status.areas), ""]);
  find("totals").replaceChildren(...totals.map(([name, text, title]) =>
    element("div", { title }, element("dt", {}, name), element("dd", {}, text))));
  for (const place of document.querySelectorAll("[data-count]")) {
    place.textContent = status[place.dataset.count];
  }
}

/** Rows of contexts shown: the rest is behind the list. */
const HOLDERS = 10;

function showHolders({ items, next }) {
  const heaviest = items.sort((one, other) => other.pinned_bytes - one.pinned_bytes);
  const rows = heaviest.slice(0, HOLDERS).map((context) => ({
    cells: [
      String(context.id), context.comm ?? "?", String(context.pid ?? "?"), String(context.uid),
      size(context.pinned_bytes), size(context.charged_bytes), String(context.objects), context.since,
    ],
  }));
  const shown = table(["context", "program", "process", "user", "pinned", "charged", "objects", "since"], rows);
  const left = items.length - rows.length;
  const rest = left > 0 || next ? `${left}${next ? " and more" : ""} others hold less or are not looked at` : "";
  const none = element("p", { className: "dim" }, "Nobody has the agent open.");
  find("holders").replaceChildren(...(rows.length > 0 ? [shown, element("p", { className: "dim" }, rest)] : [none]));
}

/** Events shown, the newest first, and the number of the last one known. */
const EVENTS = 12;
const lately = { events: [], last: 0 };

const sameEvent = (one, other) =>
  ["kind", "context", "command", "code", "text"].every((key) => one?.[key] === other[key]);

async function readEvents() {
  const { items } = await ask(`/v1/events?limit=1000&since=${lately.last}`);
  for (const event of items) {
    if (sameEvent(lately.events[0], event)) {
      lately.events.shift();
    }
    lately.events.unshift(event);
    lately.last = event.number;
  }
  lately.events.length = Math.min(lately.events.length, EVENTS);
  const rows = lately.events.map((event) => ({
    className: event.kind === "refused" || event.kind === "walkers-late" ? "bad" : "",
    cells: [
      event.at.replace(/^\d+-/, "").replace("T", " "), event.kind + (event.times > 1 ? ` ${event.times} times` : ""), String(event.context ?? ""),
      event.command ? `${event.command}: ${event.text}` : event.text,
    ],
  }));
  const none = element("p", { className: "dim" }, "Nothing has happened yet.");
  find("events").replaceChildren(rows.length > 0 ? table(["at", "event", "context", "what"], rows) : none);
}

async function refresh() {
  try {
    showStatus(await ask("/v1/status"));
    showHolders(await ask("/v1/contexts?limit=1000"));
    await readEvents();
  } catch (error) {
    find("state").className = "bad";
    find("state").textContent = `the agent does not answer: ${error.message}`;
  }
}

function table(heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map(({ cells, className = "" }) =>
    element("tr", { className }, ...cells.map((text) =>
      element("td", { className: text.length > 40 ? "text" : "" }, text))));
  return element("div", { className: "scroll" },
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

function steps(walk) {
  const rows = walk.steps.map((step) => ({
    className: step.kind === "table" ? "" : "end",
    cells: [
      String(step.level), step.table, String(step.index), step.entry, step.kind,
      `${step.covers} + ${size(step.size)}`, step.rights ?? "", step.points_to ?? "",
    ],
  }));
  return table(["level", "table", "index", "entry", "kind", "covers", "rights", "points to"], rows);
}

function facts(walk) {
  const rows = [];
  const fact = (name, ...cells) => rows.push({ cells: [name, cells.join(", ")] });
  const { destination, area, pages } = walk;
  if (destination) {
    fact("leads to", destination.address, `${size(destination.length)} of the same leaf follow`);
    fact("allowed", destination.permission);
    if (destination.file) {
      fact("file", `device ${destination.file.device}`, `inode ${destination.file.inode}`, `offset ${destination.file.offset}`);
    }
  }
  if (area) {
    fact("area", `${area.start} to ${area.last}`, size(area.length), area.permission, area.state,
      `from page ${area.first_page} + ${area.page_offset} bytes`, `${area.accesses} pins of accesses`);
  }
  if (pages) {
    fact("pages", `object ${pages.id}`, pages.source, pages.strength,
      `${size(pages.pinned_bytes)} of ${size(pages.length)} pinned`, `paid by user ${pages.uid}`);
  }
  return rows.length > 0 ? [table(["", ""], rows)] : [];
}

function showWalk(walk) {
  const verdict = walk.destination
    ? element("p", { className: "good" }, `${walk.iova} is mapped: it leads to ${walk.destination.address}, ${walk.destination.permission}`)
    : element("p", { className: "bad" }, walk.fault);
  const raw = element("a", { href: walkPath(walk.domain, walk.iova) }, "as JSON");
  find("result").replaceChildren(verdict, steps(walk), ...facts(walk),
    element("p", { className: "dim" }, `domain ${walk.domain}, ${walk.format}, ${walk.levels} levels, `, raw));
}

const walkPath = (domain, iova) =>
  `/v1/domains/${encodeURIComponent(domain)}/walk?iova=${encodeURIComponent(iova)}`;

async function walk(domain, iova) {
  try {
    showWalk(await ask(walkPath(domain, iova)));
  } catch (error) {
    find("result").replaceChildren(element("p", { className: "bad" }, error.message));
  }
}

async function fillDomains(wanted) {
  const list = await ask("/v1/domains?limit=1000");
  const options = list.items.map((domain) =>
    new Option(`${domain.id}: ${domain.format}, ${size(domain.mapped_bytes)}, ioas ${domain.ioas}`, domain.id));
  if (wanted && !list.items.some((domain) => String(domain.id) === wanted)) {
    options.push(new Option(wanted, wanted));
  }
  find("domain").replaceChildren(...options);
  if (wanted) {
    find("domain").value = wanted;
  }
  if (options.length === 0) {
    find("result").replaceChildren(element("p", { className: "dim" }, "There is no domain yet: attach a device first."));
  }
}

async function start() {
  const asked = new URLSearchParams(location.search);
  find("walk").addEventListener("submit", (event) => {
    event.preventDefault();
    const [domain, iova] = [find("domain").value, find("iova").value.trim()];
    history.replaceState(null, "", `?${new URLSearchParams({ domain, iova })}`);
    walk(domain, iova);
  });
  await refresh();
  setInterval(refresh, 5000);
  await fillDomains(asked.get("domain"));
  if (asked.has("domain") && asked.has("iova")) {
    find("iova").value = asked.get("iova");
    await walk(asked.get("domain"), asked.get("iova").trim());
  }
}

start().catch((error) => {
  find("result").replaceChildren(element("p", { className: "bad" }, error.message));
});
