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
  ["mapped, all domains", "mapped_bytes"], ["tables", "table_bytes"],
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

async function refresh() {
  try {
    showStatus(await ask("/v1/status"));
  } catch (error) {
    find("state").className = "bad";
    find("state").textContent = `the agent does not answer: ${error.message}`;
  }
}

function table(heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map(({ cells, className = "" }) =>
    element("tr", { className }, ...cells.map((text) => element("td", { className: "mono" }, text))));
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
