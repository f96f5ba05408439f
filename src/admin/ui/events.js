// What happened lately: as a stream where the agent has one, else asked for at each beat.

import { ask } from "./api.js";
import { dim, element, link, table, time } from "./dom.js";

/** Events that are kept here. */
const KEPT = 500;

const BAD = new Set(["refused", "walkers-late", "walker-killed", "soft-limit", "evicted", "not-reloaded"]);
const known = { events: [], last: 0, forgotten: 0 };

const same = (one, other) => ["kind", "context", "command", "code", "text"].every((key) => one?.[key] === other[key]);

/** What happens again in a row takes the place of what it was before. */
function note(event) {
  if (event.number <= known.last) {
    return;
  }
  if (same(known.events[0], event)) {
    known.events.shift();
  }
  known.events.unshift(event);
  known.last = event.number;
  known.events.length = Math.min(known.events.length, KEPT);
}

/** Asks for what is new; all that is known, the newest first. */
export async function readEvents() {
  let next = null;
  do {
    const answer = await ask(`/v1/events?limit=1000&since=${next ?? known.last}`);
    answer.items.forEach(note);
    known.forgotten = answer.forgotten;
    next = answer.next;
  } while (next !== null);
  return known.events;
}

export function eventTable(events) {
  if (events.length === 0) {
    return dim("Nothing has happened yet.");
  }
  return table(["at", "event", "context", "what"], events.map((event) => ({
    className: BAD.has(event.kind) ? "bad" : "",
    cells: [
      time(event.at), event.kind + (event.times > 1 ? ` ${event.times} times` : ""),
      event.context ? link(`#/contexts/${event.context}`, String(event.context)) : "",
      event.command ? `${event.command}: ${event.text}` : event.text,
    ],
  })));
}

function filterForm(changed) {
  const kind = element("select", { id: "event-kind" }, new Option("every kind", ""));
  const text = element("input", { id: "event-text", type: "search", placeholder: "iova-occupied, a context, …", spellcheck: false });
  const form = element("form", { className: "filter", role: "search" },
    element("label", {}, "kind", kind), element("label", {}, "contains", text));
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  const passes = (event) => (kind.value === "" || event.kind === kind.value)
    && `${event.context ?? ""} ${event.command ?? ""} ${event.code ?? ""} ${event.text}`.includes(text.value);
  const offer = (kinds) => kinds.filter((name) => ![...kind.options].some((option) => option.value === name))
    .forEach((name) => kind.append(new Option(name, name)));
  return { form, passes, offer };
}

export async function show(place) {
  const body = element("div", { "aria-live": "polite" });
  const draw = () => {
    filter.offer([...new Set(known.events.map((event) => event.kind))]);
    body.replaceChildren(eventTable(known.events.filter(filter.passes)));
    how.textContent = live ? "live" : "asked for every 5 seconds";
    lost.textContent = known.forgotten > 0 ? `Events up to number ${known.forgotten} are forgotten.` : "";
  };
  const [how, lost] = [element("span", { className: "tag" }), element("p", { className: "dim" })];
  const filter = filterForm(() => draw());
  let live = false;
  place.append(element("h2", {}, "Events ", how), filter.form, body, lost);
  await readEvents();
  draw();
  const stream = follow({
    opened: () => { live = true; draw(); },
    happened: (event) => { note(event); draw(); },
    missed: ({ continues_after: number }) => { known.forgotten = known.last = number; draw(); },
    ended: () => { live = false; draw(); },
  });
  return {
    refresh: async () => {
      if (!live) {
        await readEvents();
      }
      draw();
    },
    close: () => stream.close(),
  };
}

/** Follows the stream. It comes back by itself after the last event, unless the agent has no place for it. */
function follow({ opened, happened, missed, ended }) {
  const stream = new EventSource(`/v1/events?since=${known.last}`);
  stream.addEventListener("open", opened);
  stream.addEventListener("message", (message) => happened(JSON.parse(message.data)));
  stream.addEventListener("missed", (message) => missed(JSON.parse(message.data)));
  stream.addEventListener("error", ended);
  return stream;
}
