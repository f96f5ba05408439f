//! Which strengths a source may get, decided once when the agent starts by trying each on a page of its own.
//!
//! | setting | a source gets |
//! |---|---|
//! | a strength | that one, or the agent does not start |
//! | `auto` | the first of longterm, locked, resident that the host can do and that can hold all of the source; resident only on a host without swap |
//!
//! A source gets its strength when it is made, before its first pin, and keeps it.
//!
//! Imports allowed: units, error, storage, sys.

use std::fmt;

use ioasd_client::units::{ByteLen, PAGE_SIZE};
use rustix::io::Errno;

use crate::error::Coded;
use crate::storage::source::{Strength, StrengthSetting};
use crate::sys::client_mapping::{ClientMapping, Part};
use crate::sys::failure::SysError;
use crate::sys::file_state::FileAccess;
use crate::sys::identity::MemlockLimit;
use crate::sys::pin_ring::PinRing;
use crate::sys::{memfd, own_memory};

/// One page.
const PAGE: Part = Part { offset: ByteLen::new(0), length: ByteLen::new(PAGE_SIZE) };

/// What this process can do on this host, found by doing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Pin a page long-term.
    pub longterm: Result<(), SysError>,
    /// Lock a page.
    pub locked: Result<(), SysError>,
    /// How much it may lock, and, counted apart, pin.
    pub memlock: MemlockLimit,
    /// Swap space of the host.
    pub swap: ByteLen,
}

impl Abilities {
    /// Tries everything.
    ///
    /// # Errors
    /// If not even a page of memory can be had, or `/proc` not be read.
    pub fn probe() -> Result<Self, SysError> {
        let file = memfd::create("ioasd-probe", PAGE.length)?;
        memfd::allocate(&file, "ioasd-probe", PAGE.offset, PAGE.length)?;
        let mapping = ClientMapping::new(std::os::fd::AsFd::as_fd(&file), PAGE, FileAccess::ReadWrite)?;
        let longterm = PinRing::new().and_then(|ring| pin_once(&ring, &mapping));
        let locked = mapping.lock(PAGE);
        Ok(Self { longterm, locked, memlock: own_memory::memlock(), swap: own_memory::swap()? })
    }

    /// Why `strength` is not possible here.
    #[must_use]
    pub fn obstacle(&self, strength: Strength) -> Option<&SysError> {
        match strength {
            Strength::Longterm => self.longterm.as_ref().err(),
            Strength::Locked => self.locked.as_ref().err(),
            Strength::Resident | Strength::Copy => None,
        }
    }

    /// Whether a page that nothing holds can be swapped out.
    #[must_use]
    pub fn swaps(&self) -> bool {
        self.swap > ByteLen::new(0)
    }
}

/// Pins a page and lets go of it at once: a ring that is closed lets go some time later.
fn pin_once(ring: &PinRing, mapping: &ClientMapping) -> Result<(), SysError> {
    ring.pin(0, &[(mapping, PAGE)])?;
    let refused = |errno| SysError::Refused { call: "unpinning", object: "a probe", errno };
    ring.unpin(0, 1).map(drop).map_err(refused)
}

/// No strength that the setting allows is possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoStrength {
    /// The one that was set.
    #[error("strength {strength} is set but not possible: {cause}; see `ioasd check-host`, or set \"auto\"", strength = strength.name())]
    NotPossible {
        /// The setting.
        strength: Strength,
        /// What the kernel said.
        cause: SysError,
    },
    /// None of those that `auto` chooses from.
    #[error(
        "nothing can hold memory here: longterm: {longterm}; locked: {locked}; and the host has {} bytes of swap, so \
         that \"resident\" is only taken if it is set; see `ioasd check-host`",
        swap.get()
    )]
    Nothing {
        /// Why not longterm.
        longterm: SysError,
        /// Why not locked.
        locked: SysError,
        /// Swap space.
        swap: ByteLen,
    },
}

impl Coded for NoStrength {
    fn errno(&self) -> Errno {
        match self {
            Self::NotPossible { cause, .. } => cause.errno(),
            Self::Nothing { longterm, .. } => longterm.errno(),
        }
    }

    fn code(&self) -> &'static str {
        "no-strength"
    }
}

/// The strengths a source may get, in the order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    rungs: Vec<Strength>,
    memlock: MemlockLimit,
}

impl Ladder {
    /// What `setting` allows of what is possible.
    ///
    /// # Errors
    /// If that is nothing.
    pub fn new(setting: StrengthSetting, abilities: &Abilities) -> Result<Self, NoStrength> {
        let rungs = match setting {
            StrengthSetting::Exactly(strength) => match abilities.obstacle(strength) {
                None => vec![strength],
                Some(cause) => return Err(NoStrength::NotPossible { strength, cause: *cause }),
            },
            StrengthSetting::Auto => automatic(abilities)?,
        };
        Ok(Self { rungs, memlock: abilities.memlock })
    }

    /// In the order in which they are tried; at least one.
    #[must_use]
    pub fn rungs(&self) -> &[Strength] {
        &self.rungs
    }

    /// Pages that may be locked, and, counted apart, pinned.
    #[must_use]
    pub const fn limit_pages(&self) -> u64 {
        match self.memlock {
            MemlockLimit::Unlimited => u64::MAX,
            MemlockLimit::Bytes(bytes) => bytes.get() / PAGE_SIZE,
        }
    }
}

fn automatic(abilities: &Abilities) -> Result<Vec<Strength>, NoStrength> {
    let lasting = [Strength::Longterm, Strength::Locked].into_iter();
    let mut rungs: Vec<_> = lasting.filter(|strength| abilities.obstacle(*strength).is_none()).collect();
    if !abilities.swaps() {
        rungs.push(Strength::Resident);
    }
    match (&abilities.longterm, &abilities.locked) {
        (Err(longterm), Err(locked)) if rungs.is_empty() => {
            Err(NoStrength::Nothing { longterm: *longterm, locked: *locked, swap: abilities.swap })
        }
        _ => Ok(rungs),
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rungs: Vec<_> = self.rungs.iter().map(|strength| strength.name()).collect();
        write!(f, "{}", rungs.join(", else "))?;
        match self.memlock {
            MemlockLimit::Bytes(bytes) if self.rungs != [Strength::Resident] => {
                write!(f, " (RLIMIT_MEMLOCK: {} bytes each of longterm and locked)", bytes.get())
            }
            MemlockLimit::Bytes(_) | MemlockLimit::Unlimited => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: SysError = SysError::Refused { call: "a call", object: "a probe", errno: Errno::PERM };

    fn abilities(longterm: Result<(), SysError>, locked: Result<(), SysError>, swap: u64) -> Abilities {
        Abilities { longterm, locked, memlock: MemlockLimit::Unlimited, swap: ByteLen::new(swap) }
    }

    fn rungs(setting: StrengthSetting, abilities: &Abilities) -> Option<Vec<Strength>> {
        Ladder::new(setting, abilities).ok().map(|ladder| ladder.rungs)
    }

    #[test]
    fn auto_takes_what_is_possible_and_resident_only_without_swap() {
        use Strength::{Locked, Longterm, Resident};
        let auto = |longterm, locked, swap| rungs(StrengthSetting::Auto, &abilities(longterm, locked, swap));
        assert_eq!(auto(Ok(()), Ok(()), 0), Some(vec![Longterm, Locked, Resident]));
        assert_eq!(auto(Ok(()), Ok(()), 1), Some(vec![Longterm, Locked]));
        assert_eq!(auto(Err(NO), Ok(()), 1), Some(vec![Locked]));
        assert_eq!(auto(Err(NO), Err(NO), 0), Some(vec![Resident]));
        assert_eq!(auto(Err(NO), Err(NO), 1), None);
    }

    #[test]
    fn a_strength_that_was_set_is_taken_or_refused_but_never_replaced() {
        let weak = abilities(Err(NO), Ok(()), 1 << 30);
        let exactly = |strength| rungs(StrengthSetting::Exactly(strength), &weak);
        assert_eq!(exactly(Strength::Longterm), None);
        assert_eq!(exactly(Strength::Locked), Some(vec![Strength::Locked]));
        assert_eq!(exactly(Strength::Resident), Some(vec![Strength::Resident]));
        let refused = Ladder::new(StrengthSetting::Exactly(Strength::Longterm), &weak).unwrap_err();
        assert_eq!((refused.errno(), refused.code()), (Errno::PERM, "no-strength"));
        assert!(
            refused.to_string().contains("longterm is set but not possible: a call of a probe"),
            "{refused}"
        );
    }

    #[test]
    fn the_probe_leaves_nothing_behind() {
        let abilities = Abilities::probe().unwrap();
        println!("{abilities:?}");
        assert_eq!(abilities.obstacle(Strength::Resident), None);
    }
}
