// The frame of the page: which view is shown, the state of the agent, and the beat at which everything is asked again.

import { ask } from "./api.js";
import { bad, element, find, link, time } from "./dom.js";
import { remember } from "./history.js";
import * as accounts from "./accounts.js";
import * as contexts from "./contexts.js";
import * as events from "./events.js";
import * as host from "./host.js";
import * as operations from "./operations.js";
import * as overview from "./overview.js";
import * as spaces from "./spaces.js";
import * as walk from "./walk.js";

/** Milliseconds between two questions. */
const BEAT = 5000;

const VIEWS = [
  ["", "Overview", overview], ["accounts", "Accounts", accounts], ["contexts", "Contexts", contexts],
  ["ioas", "Address spaces", spaces], ["walk", "Walk", walk], ["host", "Host", host],
  ["events", "Events", events], ["operations", "Operations", operations],
];

let current = null;

/** Which view an address such as `#/ioas/3?at=0x1000` means. */
function wanted() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, id] = path.split("/");
  const view = VIEWS.find(([known]) => known === name) ?? VIEWS[0];
  return { view, id: id || null, query: new URLSearchParams(query) };
}

async function show() {
  const { view: [name, title, module], id, query } = wanted();
  current?.close?.();
  const place = element("div", { className: `view-${name || "overview"}` });
  const shown = { module, place, id, query };
  current = shown;
  document.title = `${id ? `${title} ${id}` : title} · ioasd`;
  for (const entry of document.querySelectorAll("#views a")) {
    const here = entry.dataset.view === name;
    entry.toggleAttribute("aria-current", here);
    if (here) {
      entry.setAttribute("aria-current", "page");
      entry.scrollIntoView({ block: "nearest", inline: "center" });
    }
  }
  find("view").replaceChildren(place);
  await attempt(place, async () => {
    const made = await module.show(place, { id, query });
    if (current === shown) {
      Object.assign(shown, made);
    } else {
      made?.close?.();
    }
  });
}

async function attempt(place, work) {
  try {
    await work();
  } catch (error) {
    place.querySelector(":scope > .bad")?.remove();
    place.prepend(bad(error.message));
  }
}

async function beat() {
  if (document.hidden) {
    return;
  }
  const state = find("state");
  try {
    const status = await ask("/v1/status");
    find("version").textContent = status.version;
    state.className = status.ready ? "good" : "bad";
    state.textContent = status.ready ? `ready, process ${status.pid}, since ${time(status.since)}` : `not ready: ${status.missing.join("; ")}`;
    remember(status);
    await current?.refresh?.(status);
  } catch (error) {
    state.className = "bad";
    state.textContent = `the agent does not answer: ${error.message}`;
  }
}

function fillViews() {
  find("views").replaceChildren(...VIEWS.map(([name, title]) => link(`#/${name}`, title, { "data-view": name })));
}

/** The old address of a walk. */
function moveQuery() {
  const query = new URLSearchParams(location.search);
  if (query.has("domain")) {
    history.replaceState(null, "", `/#/walk?${query}`);
  }
}

moveQuery();
fillViews();
window.addEventListener("hashchange", async () => {
  await show();
  find("view").focus({ preventScroll: true });
});
find("skip").addEventListener("click", (event) => {
  event.preventDefault();
  find("view").focus();
});
await show();
await beat();
setInterval(beat, BEAT);
