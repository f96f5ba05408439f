// How the map of an address space is painted: nothing but canvas, from what `scale` says lies where.

import { number, size } from "./dom.js";

export const HEIGHT = 166;
const LANE = { top: 30, height: 74 };
const LEAVES = { top: 122, height: 12 };
const WHOLE = { top: 144, height: 16 };
const HUES = 8;
/** Pixels that an area must have to be painted in the colour of its pages: many narrow ones would only be noise. */
const ALONE = 3;

/** The colours of the page, which follow light and dark. */
export function colours() {
  const probe = document.body.appendChild(document.createElement("span"));
  const read = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const body = getComputedStyle(document.body);
  const found = {
    text: body.color, ground: body.backgroundColor, accent: read("--map-accent"), dim: read("--map-dim"), line: read("--map-line"),
    hues: Array.from({ length: HUES }, (_, place) => read(`--hue-${place}`)),
  };
  probe.remove();
  return found;
}

/** A pages object has one of eight colours and one of four patterns, so that neither has to be told alone. */
export const look = (pages) => ({ hue: pages % HUES, pattern: Math.floor(pages / HUES) % 4 });

function tile(draw) {
  const made = document.createElement("canvas");
  made.width = made.height = 8;
  draw(made.getContext("2d"));
  return made;
}

function strokes(colour, ...paths) {
  return tile((context) => {
    context.strokeStyle = colour;
    context.lineWidth = 1.4;
    context.beginPath();
    for (const [x, y, toX, toY] of paths) {
      context.moveTo(x, y);
      context.lineTo(toX, toY);
    }
    context.stroke();
  });
}

function patterns(context, colour) {
  const rising = [[-2, 10, 10, -2], [-2, 2, 2, -2], [6, 10, 10, 6]];
  const falling = [[-2, -2, 10, 10], [6, -2, 10, 2], [-2, 6, 2, 10]];
  const made = [null, strokes(colour, ...rising), strokes(colour, [4, 0, 4, 8]), strokes(colour, ...rising, ...falling)];
  return made.map((pattern) => pattern && context.createPattern(pattern, "repeat"));
}

/** Paints a view of a map; knows how wide it is. */
export class Painter {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.freshen();
  }

  /** Size and colours may have changed. */
  freshen() {
    const ratio = Math.min(3, window.devicePixelRatio || 1);
    this.width = Math.max(200, this.canvas.clientWidth);
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(HEIGHT * ratio);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.colours = colours();
    this.patterns = patterns(this.context, "rgb(255 255 255 / 45%)");
    this.hatch = this.context.createPattern(strokes(this.colours.dim, [-2, 10, 10, -2], [-2, 2, 2, -2], [6, 10, 10, 6]), "repeat");
  }

  /** Paints `view` with a chosen piece, and the leaf sizes known of areas. */
  paint(view, chosen, leaves) {
    this.context.clearRect(0, 0, this.width, HEIGHT);
    this.context.font = "12px ui-monospace, monospace";
    this.context.textBaseline = "middle";
    this.paintLane(view, chosen, leaves);
    this.paintRuler(view);
    this.paintWhole(view);
  }

  x(view, at) {
    return ((at - view.from) / view.span) * this.width;
  }

  /** Pieces narrower than a pixel are painted once a pixel. */
  paintLane(view, chosen, leaves) {
    const { pieces } = view.scale;
    let painted = -1;
    for (let place = view.scale.index(view.from); place < pieces.length; place += 1) {
      const piece = pieces[place];
      if (piece.at > view.from + view.span) {
        break;
      }
      const left = Math.max(-2, this.x(view, piece.at));
      const right = Math.min(this.width + 2, this.x(view, piece.at + piece.width));
      const width = Math.max(piece.kind === "area" ? 1 : 0, right - left);
      if (width >= 1 && left + width > painted) {
        this.paintPiece(piece, Math.max(left, painted < left ? left : painted), width, chosen, leaves);
        painted = left + Math.min(width, 1);
      }
    }
  }

  paintPiece(piece, left, width, chosen, leaves) {
    if (piece.kind === "area") {
      this.paintArea(piece, left, width, chosen);
      this.paintLeaves(leaves.get(piece.start), left, width);
    } else {
      this.paintFree(piece, left, width);
    }
    if (chosen && chosen.start === piece.start) {
      this.outline(left, width, []);
    }
  }

  paintArea(area, left, width, chosen) {
    const { context } = this;
    const { hue, pattern } = look(area.pages);
    const gap = width > 6 ? 1 : 0;
    const [x, w] = [left + gap, width - 2 * gap];
    context.globalAlpha = area.state === "ready" ? 1 : 0.45;
    context.fillStyle = width < ALONE ? this.colours.accent : this.colours.hues[hue];
    context.fillRect(x, LANE.top, w, LANE.height);
    if (this.patterns[pattern] && w > 3) {
      context.fillStyle = this.patterns[pattern];
      context.fillRect(x, LANE.top, w, LANE.height);
    }
    context.globalAlpha = 1;
    if (chosen && chosen.start !== area.start && chosen.pages === area.pages) {
      this.outline(left, width, [4, 3]);
    }
    this.label([`pages ${area.pages}`, `${size(area.bytes)} ${area.permission}`, area.state === "ready" ? "" : area.state], x, w);
  }

  label(lines, x, width) {
    const { context } = this;
    const shown = lines.filter((line) => line !== "");
    const widest = Math.max(...shown.map((line) => context.measureText(line).width));
    if (width < widest + 12) {
      return;
    }
    const middle = LANE.top + LANE.height / 2;
    context.fillStyle = "rgb(0 0 0 / 62%)";
    context.fillRect(x + 4, middle - 8 * shown.length - 2, widest + 8, 16 * shown.length + 4);
    context.fillStyle = "#fff";
    shown.forEach((line, place) => context.fillText(line, x + 8, middle + 16 * (place - (shown.length - 1) / 2)));
  }

  paintFree(piece, left, width) {
    const { context, colours: { dim, line, text } } = this;
    if (piece.kind === "reserved") {
      context.fillStyle = this.hatch;
      context.fillRect(left, LANE.top, width, LANE.height);
    }
    context.strokeStyle = piece.kind === "reserved" ? dim : line;
    context.lineWidth = 1;
    context.strokeRect(left + 0.5, LANE.top + 0.5, Math.max(0, width - 1), LANE.height - 1);
    if (piece.folded && width > 14) {
      this.paintFold(left + width / 2);
    }
    const words = [piece.kind === "gap" ? "free" : "reserved", size(piece.bytes)];
    const widest = Math.max(...words.map((word) => context.measureText(word).width));
    if (width > widest + 10) {
      context.fillStyle = this.colours.ground;
      context.fillRect(left + (width - widest) / 2 - 3, LANE.top + 20, widest + 6, 34);
      context.fillStyle = text;
      context.textAlign = "center";
      words.forEach((word, place) => context.fillText(word, left + width / 2, LANE.top + 29 + 16 * place));
      context.textAlign = "left";
    }
  }

  /** The sign that a piece is larger than it is painted. */
  paintFold(middle) {
    const { context } = this;
    context.strokeStyle = this.colours.dim;
    context.beginPath();
    for (const shift of [-3, 3]) {
      for (let step = 0; step <= 6; step += 1) {
        const [x, y] = [middle + shift + (step % 2 ? 2 : -2), LANE.top + (LANE.height * step) / 6];
        context[step ? "lineTo" : "moveTo"](x, y);
      }
    }
    context.stroke();
  }

  /** The larger the leaf, the fuller the bar. */
  paintLeaves(leaf, left, width) {
    if (!leaf || width < 3) {
      return;
    }
    const { context } = this;
    const part = Math.min(1, Math.max(0.2, (Math.log2(leaf) - 10) / 20));
    context.fillStyle = this.colours.accent;
    context.fillRect(left + 1, LEAVES.top + LEAVES.height * (1 - part), width - 2, LEAVES.height * part);
    if (width > 50) {
      context.fillStyle = this.colours.text;
      context.fillText(size(leaf), left + 3, LEAVES.top - 7);
    }
  }

  outline(left, width, dash) {
    const { context } = this;
    context.strokeStyle = this.colours.text;
    context.lineWidth = 3;
    context.setLineDash(dash);
    context.strokeRect(left - 0.5, LANE.top - 2, Math.max(2, width + 1), LANE.height + 4);
    context.setLineDash([]);
  }

  paintRuler(view) {
    const { context } = this;
    context.fillStyle = this.colours.text;
    const step = Math.max(160, this.width / 5);
    const near = (view.span * step) / this.width / 16;
    for (let place = 0; place < this.width - 60; place += step) {
      const address = view.scale.roundest(view.from + (place / this.width) * view.span, near);
      const x = Math.max(0, this.x(view, view.scale.placeOf(address)));
      const text = `0x${address.toString(16)}`;
      context.fillRect(x, 20, 1, 8);
      context.fillText(text, Math.min(x + 3, this.width - context.measureText(text).width), 12);
    }
  }

  /** The whole space in small, and the part that is looked at. */
  paintWhole(view) {
    const { context } = this;
    const part = this.width / view.scale.total;
    let painted = -1;
    context.fillStyle = this.colours.line;
    context.fillRect(0, WHOLE.top, this.width, WHOLE.height);
    for (const piece of view.scale.pieces) {
      const left = piece.at * part;
      if (piece.kind === "area" && left + Math.max(1, piece.width * part) > painted) {
        context.fillStyle = piece.width * part < ALONE ? this.colours.accent : this.colours.hues[look(piece.pages).hue];
        context.fillRect(left, WHOLE.top + 3, Math.max(1, piece.width * part), WHOLE.height - 6);
        painted = left + 1;
      }
    }
    context.strokeStyle = this.colours.text;
    context.lineWidth = 2;
    context.strokeRect(view.from * part + 1, WHOLE.top + 1, Math.max(4, view.span * part - 2), WHOLE.height - 2);
  }
}

/** Which lane a point of the map is in. */
export const inWhole = (y) => y >= WHOLE.top;

/** What is in view, in words. */
export function words(view) {
  const { scale } = view;
  const [first, last] = [scale.index(view.from), scale.index(view.from + view.span)];
  const areas = scale.pieces.slice(first, last + 1).filter((piece) => piece.kind === "area").length;
  const edge = (at) => `0x${scale.addressAt(at).toString(16)}`;
  return `${edge(view.from)} to ${edge(view.from + view.span)}, ${number(areas)} ${areas === 1 ? "area" : "areas"}`;
}
