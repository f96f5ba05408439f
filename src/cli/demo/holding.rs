//! What can hold the demo's memory on this host, and what that means, in words.
//!
//! Imports allowed: units, plan's words, `sources::strength`, `storage::source`.

use super::figures::Figures;
use super::plan::human;
use crate::sources::strength::{Abilities, Ladder};
use crate::storage::source::{Strength, StrengthSetting};
use crate::sys::failure::SysError;
use crate::sys::identity::MemlockLimit;

/// What the agent is told, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) setting: StrengthSetting,
    pub(super) reason: String,
}

impl Holding {
    /// Finds out by trying.
    pub(super) fn of_host() -> Result<Self, SysError> {
        Abilities::probe().map(|abilities| Self::new(&abilities))
    }

    /// The strongest if nothing limits it; else the one that needs nothing, for all of the memory. A limit that seems wide
    /// enough may be used up: the kernel counts the pins of all processes of a user together.
    fn new(abilities: &Abilities) -> Self {
        let possible = Ladder::new(StrengthSetting::Auto, abilities).is_ok();
        let setting = match abilities.memlock {
            MemlockLimit::Unlimited if possible => StrengthSetting::Auto,
            _ => StrengthSetting::Exactly(Strength::Resident),
        };
        Self { setting, reason: reason(abilities) }
    }
}

/// Why memory is held as it is.
fn reason(abilities: &Abilities) -> String {
    match (&abilities.longterm, abilities.memlock) {
        (Err(cause), _) => format!("no long-term pins here: {cause}"),
        (Ok(()), MemlockLimit::Bytes(limit)) => {
            format!("RLIMIT_MEMLOCK lets all processes of this user together hold {}", human(limit))
        }
        (Ok(()), MemlockLimit::Unlimited) => "io_uring can pin all of it".to_owned(),
    }
}

/// What the strength that was got means.
pub(super) fn meaning(figures: &Figures) -> Option<&'static str> {
    figures.strength().map(|strength| match strength {
        Strength::Longterm => "longterm: the kernel holds the pages; they can neither move nor be swapped",
        Strength::Locked => "locked: the pages are not swapped, but may move",
        Strength::Resident => "resident: the pages were there when they were mapped; nothing holds them",
        Strength::Copy => "copy: bytes are copied; nothing is pinned",
    })
}

#[cfg(test)]
mod tests {
    use ioasd_client::units::ByteLen;
    use rustix::io::Errno;

    use super::*;

    const NO: SysError = SysError::Refused { call: "a call", object: "a probe", errno: Errno::PERM };

    fn setting(longterm: Result<(), SysError>, memlock: MemlockLimit, swap: u64) -> StrengthSetting {
        let abilities = Abilities { longterm, locked: longterm, memlock, swap: ByteLen::new(swap) };
        Holding::new(&abilities).setting
    }

    #[test]
    fn resident_is_set_where_something_limits_what_can_be_held() {
        let resident = StrengthSetting::Exactly(Strength::Resident);
        let limit = MemlockLimit::Bytes(ByteLen::new(8 << 20));
        assert_eq!(setting(Ok(()), MemlockLimit::Unlimited, 1), StrengthSetting::Auto);
        assert_eq!([setting(Ok(()), limit, 0), setting(Ok(()), limit, 1)], [resident; 2]);
        assert_eq!(setting(Err(NO), MemlockLimit::Unlimited, 1), resident);
    }
}
