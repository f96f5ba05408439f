//! What can hold memory here: each strength on a page of our own, physical frames, and memory of other processes.
//!
//! Imports allowed: units, `sources::strength`, sys, processes.

use ioasd_client::units::{ByteLen, Pfn};

use super::Finding;
use super::processes;
use crate::cli::with_causes;
use crate::sources::strength::{Abilities, Ladder};
use crate::storage::source::StrengthSetting;
use crate::sys::identity::MemlockLimit;
use crate::sys::offers;

const LONGTERM: &str = "allow io_uring: sysctl kernel.io_uring_disabled=0, and a seccomp profile with io_uring_setup and \
                        io_uring_register; Linux 5.19 or later";
const LOCKED: &str = "raise RLIMIT_MEMLOCK above 0 (LimitMEMLOCK= of the service, ulimit -l)";
const MEMLOCK: &str =
    "for more: LimitMEMLOCK=infinity in the service, ulimit -l, or CAP_IPC_LOCK in the first user namespace";
const AUTO: &str =
    "enable one of the above, turn swap off, or set strength = \"resident\" and live with swapping";
const FRAMES: &str = "only needed for frames = \"physical\": CAP_SYS_ADMIN in the first user namespace";

/// Everything about pins.
pub(super) fn findings() -> Vec<Finding> {
    let mut findings = match Abilities::probe() {
        Ok(abilities) => of(&abilities),
        Err(error) => vec![Finding::no(
            "long-term pins",
            with_causes(&error),
            "make /proc and a page of memory available",
        )],
    };
    findings.extend(processes::findings());
    findings.push(Finding::tried("physical frames", offers::physical_frame().map(shown), FRAMES));
    findings
}

fn of(abilities: &Abilities) -> Vec<Finding> {
    let auto = Ladder::new(StrengthSetting::Auto, abilities);
    vec![
        Finding::tried(
            "long-term pins",
            abilities.longterm.map(|()| "a page was pinned through io_uring"),
            LONGTERM,
        ),
        Finding::tried("locked memory", abilities.locked.map(|()| "a page was locked with mlock2"), LOCKED),
        memlock(abilities.memlock),
        swap(abilities.swap),
        Finding::tried("strength auto", auto.map(|ladder| ladder.to_string()), AUTO),
    ]
}

fn memlock(limit: MemlockLimit) -> Finding {
    match limit {
        MemlockLimit::Unlimited => {
            Finding::yes("RLIMIT_MEMLOCK", "does not bind: more than the limit was locked")
        }
        MemlockLimit::Bytes(bytes) => Finding::no(
            "RLIMIT_MEMLOCK",
            format!("{} bytes may be locked, and as many pinned", bytes.get()),
            MEMLOCK,
        ),
    }
}

fn swap(bytes: ByteLen) -> Finding {
    if bytes == ByteLen::new(0) {
        return Finding::yes("no swap", "the host has no swap: what is resident stays");
    }
    Finding::no(
        "no swap",
        format!("{} bytes of swap", bytes.get()),
        "nothing, if long-term pins or locks are possible; else swapoff -a, or memory that is not swapped (hugetlbfs)",
    )
}

fn shown(frame: Pfn) -> String {
    format!("a page's frame was read from /proc/self/pagemap: {frame}")
}
