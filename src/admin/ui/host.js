// What anybody on this host holds in place, and whether through this agent.

import { ask } from "./api.js";
import { bar, dim, element, facts, number, section, size, table, time } from "./dom.js";

const SHOWN = 50;

/** Two books lie side by side: the agent's, and the kernel's of everybody else. They are not added up. */
function cgroupRow(group, most) {
  const words = `${size(group.ioasd_pinned_bytes)} via ioasd; ${size(group.other_pinned_bytes)} pinned and ${size(group.other_locked_bytes)} locked via other`;
  const via = (name, bytes) => element("span", { className: `via ${name}` }, element("span", { className: "dim" }, name),
    bar(bytes, most, { words: `${name}: ${size(bytes)}` }));
  return [
    group.cgroup, element("div", { title: words }, via("ioasd", group.ioasd_pinned_bytes), via("other", group.other_pinned_bytes + group.other_locked_bytes)),
    size(group.ioasd_pinned_bytes), size(group.other_pinned_bytes), size(group.other_locked_bytes), size(group.unevictable_bytes),
  ];
}

const processRow = (process) => [String(process.pid), process.comm, String(process.uid), process.via, size(process.pinned_bytes),
  size(process.locked_bytes), process.cgroup ?? ""];

const told = (bytes) => (bytes === null || bytes === undefined ? "not told" : size(bytes));

function summary(host) {
  const { coverage } = host;
  const pins = host.pins_acquired === null ? "not told" : `${number(host.pins_acquired - host.pins_released)} pages`;
  return facts([
    ["unevictable", told(host.unevictable_bytes)], ["of it locked", told(host.mlocked_bytes)], ["pins held by anybody", pins],
    ["processes read", `${coverage.processes - coverage.unread - coverage.unreadable} of ${coverage.processes}`], ["read at", time(host.taken)],
  ]);
}

function groups(host) {
  if (host.cgroups.length === 0) {
    return dim("No control group holds anything in place.");
  }
  const most = Math.max(1, ...host.cgroups.flatMap((group) =>
    [group.ioasd_pinned_bytes, group.other_pinned_bytes + group.other_locked_bytes]));
  const left = host.cgroups_left_out > 0 ? dim(`${host.cgroups_left_out} more hold less.`) : null;
  return element("div", {}, table(["control group", "held in place", "via ioasd", "pinned via other", "locked via other", "unevictable"],
    host.cgroups.map((group) => cgroupRow(group, most))), left);
}

function processes(host) {
  if (host.processes.length === 0) {
    return dim("No process holds anything in place.");
  }
  const left = host.processes_left_out > 0 ? dim(`${host.processes_left_out} more hold less.`) : null;
  return element("div", {}, table(["process", "name", "user", "via", "pinned", "locked", "control group"], host.processes.map(processRow)), left);
}

export async function show(place) {
  const refresh = async () => {
    const host = await ask(`/v1/host?limit=${SHOWN}`);
    place.replaceChildren(
      section("Host", summary(host)), section("By control group", groups(host)), section("By process", processes(host)),
      section("What no figure here says", element("ul", { className: "dim" }, ...host.not_told.map((text) => element("li", {}, text)))));
  };
  await refresh();
  return { refresh };
}
