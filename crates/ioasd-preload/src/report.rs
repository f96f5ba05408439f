//! What is said on standard error: once in the life of a process, why a device is not there.
//!
//! Imports allowed: sys.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::{Errno, say};

static SAID: AtomicBool = AtomicBool::new(false);

/// Says, unless something was said before, that no agent can be reached at `path`.
pub(crate) fn no_agent(path: &[u8], why: Errno) {
    let hint = ": start `ioasd serve`, or the program with `ioasd run -- PROGRAM`\n";
    once(&[b"ioasd: no agent at ", path, b": ", reason(why).as_bytes(), hint.as_bytes()]);
}

/// Says, unless something was said before, that the agent has gone.
pub(crate) fn agent_gone() {
    once(&[b"ioasd: the agent has gone, and with it every mapping of /dev/iommu\n"]);
}

const fn reason(why: Errno) -> &'static str {
    match why {
        Errno::NOENT | Errno::CONNREFUSED => "nobody listens there",
        Errno::ACCESS | Errno::PERM => "access denied",
        Errno::NAMETOOLONG => "the path is too long for a socket",
        Errno::MFILE | Errno::NFILE => "too many open files",
        _ => "it cannot be reached",
    }
}

fn once(parts: &[&[u8]]) {
    if SAID.swap(true, Ordering::Relaxed) {
        return;
    }
    say(parts);
}
