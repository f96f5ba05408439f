// What is being done now, and for how long already.

import { askIfThere } from "./api.js";
import { ago, bar, dim, link, section, table } from "./dom.js";

function row(operation) {
  const done = operation.done ?? null;
  const total = operation.total ?? null;
  const progress = total ? bar(done ?? 0, total, { words: `${done ?? 0} of ${total}` }) : "";
  const since = operation.since ? ago(operation.since) : "";
  return [
    String(operation.id ?? ""), operation.kind ?? operation.command ?? "", operation.context ? link(`#/contexts/${operation.context}`, String(operation.context)) : "",
    operation.state ?? operation.phase ?? "", since, progress, operation.text ?? "",
  ];
}

export async function show(place) {
  const refresh = async () => {
    const found = await askIfThere("/v1/operations?limit=200");
    const body = found === null ? dim("This agent does not list its operations.")
      : found.items.length === 0 ? dim("Nothing takes long just now.")
        : table(["id", "what", "context", "state", "for", "progress", ""], found.items.map(row));
    place.replaceChildren(section("Operations", body));
  };
  await refresh();
  return { refresh };
}
