// Totals over time, kept by this page alone: an hour of samples, also over a reload.

import { drawn, element, number, size } from "./dom.js";

const KEY = "ioasd-history";
const SAMPLES = 720;

/** What is kept of each status, by name. */
export const KEPT = {
  pinned: "pinned_bytes", charged: "charged_bytes", retiring: "retiring_bytes", mapped: "mapped_bytes",
  tables: "table_bytes", contexts: "contexts", "address spaces": "ioases", areas: "areas", domains: "domains", accesses: "accesses",
};

const COUNTED = new Set(["contexts", "address spaces", "areas", "domains", "accesses"]);

export const shown = (name, value) => (COUNTED.has(name) ? number(value) : size(value));

function load() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? { agent: null, samples: [] };
  } catch {
    return { agent: null, samples: [] };
  }
}

const kept = load();

/** Adds a status; the history of another agent is forgotten. */
export function remember(status) {
  const agent = `${status.pid} ${status.since}`;
  if (kept.agent !== agent) {
    kept.agent = agent;
    kept.samples = [];
  }
  const values = Object.fromEntries(Object.entries(KEPT).map(([name, key]) => [name, status[key] ?? 0]));
  kept.samples.push({ at: Date.now(), ...values });
  kept.samples.splice(0, kept.samples.length - SAMPLES);
  try {
    sessionStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // A full store only costs the history of the next reload.
  }
}

const path = (points) => points.map(([x, y], place) => `${place ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function scaled(name, { width, height, top }) {
  const from = kept.samples[0]?.at ?? 0;
  const span = Math.max(1, (kept.samples.at(-1)?.at ?? 1) - from);
  return kept.samples.map((sample) => [
    (width * (sample.at - from)) / span, height - (height * sample[name]) / Math.max(1, top),
  ]);
}

/** A small line of one total. */
export function spark(name) {
  const made = drawn("svg", { viewBox: "0 -2 120 34", preserveAspectRatio: "none", class: "spark", "aria-hidden": "true" });
  if (kept.samples.length > 1) {
    const top = Math.max(...kept.samples.map((sample) => sample[name]));
    const points = scaled(name, { width: 120, height: 30, top });
    made.append(drawn("path", { d: `${path(points)}L120 32L0 32Z`, class: "under" }), drawn("path", { d: path(points), class: "line" }));
  }
  return made;
}

/** A chart of several totals on one scale, each told apart by colour and dashes. */
export function chart(names) {
  const [width, height] = [600, 150];
  const tops = kept.samples.flatMap((sample) => names.map((name) => sample[name]));
  const top = Math.max(1, ...tops);
  const made = drawn("svg", { viewBox: `0 -8 ${width} ${height + 16}`, preserveAspectRatio: "none", class: "chart", role: "img" });
  for (const part of [0, 0.5, 1]) {
    made.append(drawn("path", { d: `M0 ${height * part}H${width}`, class: "grid" }));
  }
  names.forEach((name, place) => made.append(
    drawn("path", { d: path(scaled(name, { width, height, top })), class: `line line-${place}` })));
  const latest = kept.samples.at(-1);
  made.setAttribute("aria-label", names.map((name) => `${name}: ${latest ? shown(name, latest[name]) : "unknown"}`).join(", "));
  const legend = element("ul", { className: "legend" }, ...names.map((name, place) =>
    element("li", {}, drawn("svg", { viewBox: "0 0 28 8", class: "swatch", "aria-hidden": "true" },
      drawn("path", { d: "M0 4H28", class: `line line-${place}` })), `${name} ${latest ? shown(name, latest[name]) : ""}`)));
  const seconds = kept.samples.length > 1 ? Math.round((kept.samples.at(-1).at - kept.samples[0].at) / 1000) : 0;
  const scale = element("p", { className: "dim axis" }, element("span", {}, seconds < 120 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`),
    element("span", {}, `top of the scale: ${size(top)}`), element("span", {}, "now"));
  return element("figure", {}, made, scale, legend);
}
