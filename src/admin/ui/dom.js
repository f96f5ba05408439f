// What all views are built from. Texts reach the document as text only, never as markup.

export const find = (id) => document.getElementById(id);

/** An element; an option that is no property of it becomes an attribute. */
export function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name in made && name !== "list") {
      made[name] = value;
    } else {
      made.setAttribute(name, value);
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** An element of a drawing. */
export function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const link = (address, text, options = {}) => element("a", { href: address, ...options }, text);
export const dim = (text) => element("p", { className: "dim" }, text);
export const bad = (text) => element("p", { className: "bad", role: "alert" }, text);

/** Bytes in the largest binary unit that keeps them whole to three digits. */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(value < 100 ? 2 : 1)} ${units[unit]}`;
}

export const number = (count) => count.toLocaleString("en");

/** A time of an answer as people read it: the time of day, and the day if it is another. */
export function time(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) {
    return text ?? "";
  }
  const day = at.toDateString() === new Date().toDateString() ? "" : `${at.toLocaleDateString("en-CA")} `;
  return day + at.toLocaleTimeString("en-GB");
}

/** How long ago a time of an answer is. */
export function ago(text) {
  const seconds = Math.max(0, Math.round((Date.now() - new Date(text).getTime()) / 1000));
  const [amount, unit] = seconds < 120 ? [seconds, "s"] : seconds < 7200 ? [seconds / 60, "min"]
    : seconds < 172800 ? [seconds / 3600, "h"] : [seconds / 86400, "d"];
  return `${Math.round(amount)} ${unit}`;
}

/** A table whose rows are arrays of texts and elements, or such an array under `cells` with a `className`. */
export function table(heads, rows, caption) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const cell = (content) => element("td", { className: typeof content === "string" && content.length > 44 ? "text" : "" }, content ?? "");
  const body = rows.map((row) => {
    const { cells, className = "" } = Array.isArray(row) ? { cells: row } : row;
    return element("tr", { className }, ...cells.map(cell));
  });
  const title = caption ? element("caption", {}, caption) : null;
  return element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption ?? heads.filter(Boolean).join(", ") },
    element("table", {}, title, element("thead", {}, head), element("tbody", {}, ...body)));
}

/** What the keyboard can go to in a place, each under a name of its own. */
function stops(place) {
  const turns = new Map();
  return [...place.querySelectorAll("a, .scroll")].map((stop) => {
    const name = stop.href ?? stop.ariaLabel;
    const turn = turns.get(name) ?? 0;
    turns.set(name, turn + 1);
    return [`${turn} ${name}`, stop];
  });
}

/** Puts other children into a place; what is scrolled or has the focus is so still. */
export function refill(place, ...children) {
  const before = stops(place).map(([name, stop]) => [name, stop.scrollLeft, stop === document.activeElement]);
  place.replaceChildren(...children.filter((child) => child !== null));
  const after = new Map(stops(place));
  for (const [name, left, focused] of before.filter(([name]) => after.has(name))) {
    const stop = after.get(name);
    stop.scrollLeft = left;
    if (focused) {
      stop.focus({ preventScroll: true });
    }
  }
}

/** A fact of more characters takes the room of two. */
const LONG = 26;

/** Names and values, those without a value left out. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element("dl", { className: "facts" }, ...known.map(([name, value]) =>
    element("div", { className: String(value).length > LONG ? "long" : "" }, element("dt", {}, name), element("dd", {}, value))));
}

/** A bar of `used` of a whole, with marks at limits; says the same in words. */
export function bar(used, whole, { marks = [], words } = {}) {
  const part = (value) => `${Math.min(100, whole > 0 ? (100 * value) / whole : 0)}%`;
  const full = element("span", { className: "full" });
  full.style.width = part(used);
  const made = element("span", { className: "bar", role: "img", "aria-label": words, title: words }, full);
  for (const { at, kind } of marks) {
    const mark = element("span", { className: `mark ${kind}` });
    mark.style.left = part(at);
    made.append(mark);
    if (used >= at) {
      made.classList.add(`over-${kind}`);
    }
  }
  return made;
}

/** A section with a title. */
export function section(title, ...children) {
  const id = `title-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return element("section", { "aria-labelledby": id }, element("h2", { id }, title), ...children);
}
