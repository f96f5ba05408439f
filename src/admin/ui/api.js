// Questions to the agent. Addresses are hex strings there and BigInt here: numbers lose bits above 2^53.

/** Rows that one answer can have. */
const PART = 1000;

/** A refusal with the agent's own words. */
export class Refused extends Error {
  constructor(status, { detail, code } = {}) {
    super(detail ?? `the agent answers with status ${status}`);
    this.status = status;
    this.code = code;
  }
}

/** What a path answers. */
export async function ask(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Refused(response.status, body);
  }
  return body;
}

/** What a path answers, or null if this agent has nothing there. */
export async function askIfThere(path) {
  try {
    return await ask(path);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) {
      return null;
    }
    throw error;
  }
}

/** The rows of a list, part by part, `most` of them at most, and whether there are more. */
export async function list(path, { most = PART, progress = () => {}, signal = { stopped: false } } = {}) {
  const items = [];
  let after = null;
  do {
    const limit = Math.min(PART, most - items.length);
    const query = new URLSearchParams(after === null ? { limit } : { limit, after });
    const part = await ask(`${path}${path.includes("?") ? "&" : "?"}${query}`);
    items.push(...part.items);
    after = part.next;
    progress(items.length);
  } while (after !== null && items.length < most && !signal.stopped);
  return { items, more: after !== null };
}

/** An address that somebody typed, or null. */
export function address(text) {
  const digits = text.trim();
  if (!/^(0x[0-9a-fA-F]{1,16}|[0-9]{1,20})$/.test(digits)) {
    return null;
  }
  const value = BigInt(digits);
  return value < 1n << 64n ? value : null;
}

export const hex = (value) => `0x${value.toString(16)}`;
