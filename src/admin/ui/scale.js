// Where addresses lie on the map. Address spaces are mostly empty, so what is free or reserved takes its place up to a
// limit and is folded beyond; areas are always to scale. Places on the map are numbers, addresses are BigInt.

/** What one area space consists of, without a gap: areas, reserved ranges and what is free between them. */
export function pieces(areas, reserved) {
  const found = [];
  let at = 0n;
  let rule = 0;
  const between = (start, last) => {
    while (start <= last) {
      while (rule < reserved.length && reserved[rule].last < start) {
        rule += 1;
      }
      const next = reserved[rule];
      if (!next || next.start > last) {
        found.push({ kind: "gap", start, last });
        return;
      }
      if (next.start > start) {
        found.push({ kind: "gap", start, last: next.start - 1n });
      }
      const end = next.last < last ? next.last : last;
      found.push({ kind: "reserved", start: next.start > start ? next.start : start, last: end, owners: next.owners });
      start = end + 1n;
    }
  };
  for (const area of areas) {
    between(at, area.start - 1n);
    found.push(area);
    at = area.last + 1n;
  }
  between(at, (1n << 64n) - 1n);
  return found;
}

const length = ({ start, last }) => Number(last - start + 1n);

/** How much of the map what is not mapped takes at most. */
function foldAt(all) {
  const mapped = all.filter((piece) => piece.kind === "area").reduce((sum, piece) => sum + length(piece), 0);
  return Math.max(1 << 16, mapped / 24);
}

export class Scale {
  constructor(all) {
    const fold = foldAt(all);
    let at = 0;
    this.pieces = all.map((piece) => {
      const bytes = length(piece);
      const width = piece.kind === "area" ? bytes : Math.min(bytes, fold);
      const placed = { ...piece, bytes, at, width, folded: width < bytes };
      at += width;
      return placed;
    });
    this.total = at;
  }

  /** The index of the last piece that is not behind `at`. */
  index(at) {
    return this.search((piece) => piece.at <= at);
  }

  /** The index of the piece that has an address. */
  indexOf(address) {
    return this.search((piece) => piece.start <= address);
  }

  search(before) {
    let [low, high] = [0, this.pieces.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (before(this.pieces[middle])) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }

  placeOf(address) {
    const piece = this.pieces[this.indexOf(address)];
    return piece.at + (Number(address - piece.start) * piece.width) / piece.bytes;
  }

  addressAt(at) {
    const piece = this.pieces[this.index(at)];
    if (at >= piece.at + piece.width) {
      return piece.last;
    }
    const offset = Math.max(0, Math.floor(((at - piece.at) * piece.bytes) / piece.width));
    const address = piece.start + BigInt(Math.min(offset, piece.bytes));
    return address > piece.last ? piece.last : address;
  }

  /** The address around `at`, up to `near` away, that has most zeros at its end. */
  roundest(at, near) {
    const [low, high] = [Math.max(0, at - near), Math.min(this.total, at + near)].map((edge) => this.addressAt(edge));
    const zeros = BigInt(Math.max(0, (low ^ high).toString(2).length - 1));
    return low === 0n ? low : (high >> zeros) << zeros;
  }
}

/** The part of the map that is looked at. */
export class View {
  constructor(scale) {
    this.scale = scale;
    this.whole();
  }

  whole() {
    [this.from, this.span] = [0, this.scale.total];
  }

  clamp() {
    const least = Math.min(this.scale.total, 1 << 14);
    this.span = Math.min(this.scale.total, Math.max(least, this.span));
    this.from = Math.min(this.scale.total - this.span, Math.max(0, this.from));
  }

  /** Makes the span `factor` times as large around a part of the view, 0 at its left. */
  zoom(factor, part = 0.5) {
    const fixed = this.from + this.span * part;
    this.span *= factor;
    this.clamp();
    this.from = fixed - this.span * part;
    this.clamp();
  }

  pan(parts) {
    this.from += this.span * parts;
    this.clamp();
  }

  /** Brings a piece into view: nearer if it could not be seen, and to the middle. */
  show(piece) {
    const middle = piece.at + piece.width / 2;
    const wanted = Math.max(piece.width * 3, 1 << 14);
    if (wanted < this.span / 20 || wanted > this.span) {
      this.span = wanted;
    }
    this.clamp();
    this.from = middle - this.span / 2;
    this.clamp();
  }
}
