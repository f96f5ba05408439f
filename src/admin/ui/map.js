// The map of an address space as one uses it: by mouse, by fingers, by keyboard.

import { element } from "./dom.js";
import { HEIGHT, inWhole, Painter, words } from "./paint.js";
import { View } from "./scale.js";

const HELP = "Arrow keys move, plus and minus zoom, Home shows all, N and P go to the next and the previous area. "
  + "By mouse: drag, click, and the wheel once the map has the focus. By touch: drag sideways, pinch, tap.";

const KEYS = {
  ArrowLeft: (map) => map.move(-0.2), ArrowRight: (map) => map.move(0.2), PageUp: (map) => map.move(-0.9), PageDown: (map) => map.move(0.9),
  "+": (map) => map.zoom(0.5), "=": (map) => map.zoom(0.5), ArrowUp: (map) => map.zoom(0.5), "-": (map) => map.zoom(2), ArrowDown: (map) => map.zoom(2),
  Home: (map) => map.whole(), n: (map) => map.step(1), p: (map) => map.step(-1),
};

export class AreaMap {
  /** Calls `chosen` with a piece when one is chosen, and `seen` when something else is in view. */
  constructor({ chosen, seen }) {
    this.told = { chosen, seen };
    this.leaves = new Map();
    this.canvas = element("canvas", { tabIndex: 0, className: "map", role: "application", "aria-label": "map of the address space", "aria-describedby": "map-help" });
    this.canvas.style.height = `${HEIGHT}px`;
    this.where = element("p", { className: "dim", "aria-live": "polite" });
    this.made = element("div", { className: "map-frame" }, this.buttons(), this.canvas, this.where, element("p", { id: "map-help", className: "dim help" }, HELP));
    this.pointers = new Map();
    this.listen();
  }

  buttons() {
    const button = (text, label, act) => element("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
    return element("div", { className: "buttons", role: "group", "aria-label": "map" },
      button("◀", "to lower addresses", () => this.move(-0.5)), button("▶", "to higher addresses", () => this.move(0.5)),
      button("+", "nearer", () => this.zoom(0.5)), button("−", "farther", () => this.zoom(2)), button("all", "the whole space", () => this.whole()),
      button("previous area", "previous area", () => this.step(-1)), button("next area", "next area", () => this.step(1)));
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("keydown", (event) => {
      const act = event.ctrlKey || event.altKey || event.metaKey ? null : KEYS[event.key];
      if (act) {
        event.preventDefault();
        act(this);
      }
    });
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => this.up(event));
    }
    this.freshen = () => {
      if (this.painter && canvas.isConnected) {
        this.painter.freshen();
        this.paint();
      }
    };
    this.resized = new ResizeObserver(this.freshen);
    this.resized.observe(canvas);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", this.freshen);
  }

  close() {
    this.resized.disconnect();
    this.dark.removeEventListener("change", this.freshen);
  }

  /** Shows another state of the space; what was looked at stays where it can. */
  set(scale) {
    const old = this.view;
    this.view = new View(scale);
    if (old && old.span < old.scale.total) {
      this.view.span = old.span;
      this.view.from = scale.placeOf(old.scale.addressAt(old.from));
      this.view.clamp();
    }
    this.chosen = this.chosen ? scale.pieces.find((piece) => piece.start === this.chosen.start) ?? null : null;
    this.painter ??= new Painter(this.canvas);
    this.painter.freshen();
    this.paint();
  }

  paint() {
    this.painter.paint(this.view, this.chosen, this.leaves);
    this.where.textContent = words(this.view);
    this.told.seen(this.view);
  }

  move(parts) {
    this.view.pan(parts);
    this.paint();
  }

  zoom(factor, part = 0.5) {
    this.view.zoom(factor, part);
    this.paint();
  }

  whole() {
    this.view.whole();
    this.paint();
  }

  /** The next area from the chosen one, or from the middle of what is seen. */
  step(by) {
    const { scale, from, span } = this.view;
    let place = this.chosen ? scale.indexOf(this.chosen.start) : scale.index(from + (by > 0 ? 0 : span)) - by;
    do {
      place += by;
    } while (scale.pieces[place] && scale.pieces[place].kind !== "area");
    if (scale.pieces[place]) {
      this.view.show(scale.pieces[place]);
      this.choose(scale.pieces[place]);
    }
  }

  /** Brings an address into view and chooses what lies there. */
  goTo(address) {
    const piece = this.view.scale.pieces[this.view.scale.indexOf(address)];
    this.view.show(piece);
    this.choose(piece);
  }

  choose(piece) {
    this.chosen = piece;
    this.paint();
    this.told.chosen(piece);
  }

  part(event) {
    return (event.clientX - this.canvas.getBoundingClientRect().left) / Math.max(1, this.canvas.clientWidth);
  }

  /** The page scrolls as ever unless the map has the focus. */
  wheel(event) {
    if (document.activeElement !== this.canvas && !event.ctrlKey) {
      return;
    }
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      this.move(event.deltaX / 800);
    } else {
      this.zoom(Math.exp(event.deltaY / 400), this.part(event));
    }
  }

  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.part(event));
    this.dragged = this.pointers.size > 1;
    if (inWhole(event.offsetY)) {
      this.dragged = true;
      this.view.from = this.part(event) * this.view.scale.total - this.view.span / 2;
      this.view.clamp();
      this.paint();
    }
  }

  moved(event) {
    const before = this.pointers.get(event.pointerId);
    if (before === undefined) {
      return;
    }
    const at = this.part(event);
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
    if (others.length === 1) {
      const [[, other]] = others;
      this.zoom(Math.abs(before - other) / Math.max(0.02, Math.abs(at - other)), (at + other) / 2);
    } else if (this.dragged || Math.abs(at - before) * this.canvas.clientWidth > 4) {
      this.dragged = true;
      this.move(before - at);
    } else {
      return;
    }
    this.pointers.set(event.pointerId, at);
  }

  up(event) {
    const held = this.pointers.delete(event.pointerId);
    if (held && !this.dragged && event.type === "pointerup") {
      const { scale, from, span } = this.view;
      this.choose(this.pieceAt(scale, from + this.part(event) * span, span));
    }
  }

  /** What is at a place; an area that is too narrow to hit is found from beside it. */
  pieceAt(scale, at, span) {
    const near = (span / Math.max(1, this.canvas.clientWidth)) * 3;
    const place = scale.index(at);
    const around = [scale.pieces[place], scale.pieces[place - 1], scale.pieces[place + 1]].filter(Boolean);
    const hit = around.find((piece) => piece.kind === "area" && at >= piece.at - near && at <= piece.at + piece.width + near);
    return hit ?? scale.pieces[place];
  }
}
