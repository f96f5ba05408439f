//! What can hold the demo's memory on this host, and what that means, in words.
//!
//! Imports allowed: units, plan, `sources::strength`, `storage::source`.

use super::figures::Figures;
use super::plan::{Plan, human};
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
    pub(super) fn of_host(plan: Plan) -> Result<Self, SysError> {
        Abilities::probe().map(|abilities| Self::new(&abilities, plan))
    }

    /// The strongest if it can hold all of the plan; else the one that needs nothing, for all of it.
    fn new(abilities: &Abilities, plan: Plan) -> Self {
        let auto = Ladder::new(StrengthSetting::Auto, abilities);
        let enough = auto.as_ref().is_ok_and(|ladder| ladder.limit_pages() >= plan.pages());
        let setting =
            if enough { StrengthSetting::Auto } else { StrengthSetting::Exactly(Strength::Resident) };
        Self { setting, reason: reason(abilities, plan) }
    }
}

/// Why memory is held as it is.
fn reason(abilities: &Abilities, plan: Plan) -> String {
    match (&abilities.longterm, abilities.memlock) {
        (Err(cause), _) => format!("no long-term pins here: {cause}"),
        (Ok(()), MemlockLimit::Bytes(limit)) if limit < plan.size() => {
            format!("RLIMIT_MEMLOCK allows {} to be held, not {}", human(limit), human(plan.size()))
        }
        (Ok(()), _) => "io_uring can pin all of it".to_owned(),
    }
}

/// What the strength that was got means.
pub(super) fn meaning(figures: &Figures) -> Option<&'static str> {
    figures.strength().map(|strength| match strength {
        Strength::Longterm => "longterm: the kernel holds the pages; they can neither move nor be swapped",
        Strength::Locked => "locked: the pages are not swapped, but may move",
        Strength::Resident => "resident: the pages were there when they were mapped; nothing holds them",
    })
}

#[cfg(test)]
mod tests {
    use ioasd_client::units::ByteLen;
    use rustix::io::Errno;

    use super::*;
    use crate::cli::DemoArgs;

    const NO: SysError = SysError::Refused { call: "a call", object: "a probe", errno: Errno::PERM };

    fn setting(longterm: Result<(), SysError>, memlock: u64, swap: u64) -> StrengthSetting {
        let plan =
            Plan::new(&DemoArgs { size: ByteLen::new(1 << 20), domains: 2.try_into().unwrap(), hold: false });
        let memlock = MemlockLimit::Bytes(ByteLen::new(memlock));
        let abilities = Abilities { longterm, locked: longterm, memlock, swap: ByteLen::new(swap) };
        Holding::new(&abilities, plan.unwrap()).setting
    }

    #[test]
    fn resident_is_only_set_where_nothing_stronger_can_hold_all() {
        let resident = StrengthSetting::Exactly(Strength::Resident);
        assert_eq!(setting(Ok(()), 1 << 20, 1), StrengthSetting::Auto);
        assert_eq!(setting(Ok(()), 1 << 19, 0), resident, "one strength for all pieces");
        assert_eq!(setting(Ok(()), 1 << 19, 1), resident);
        assert_eq!(setting(Err(NO), 1 << 20, 1), resident);
    }
}
