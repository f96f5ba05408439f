//! Asking accesses to let go: before an unmap takes an area they hold, and before an access leaves the address space.
//!
//! One try is one notice to each access that holds something there, all at once; it ends with their answers, or the deadline.
//! An access that answers a hundred times and holds on, or misses three deadlines, makes the asker give up. Each is counted
//! for itself, as long as nobody lets go of anything.
//!
//! Imports allowed: units, and the passive types of storage.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use ioasd_client::units::IovaRange;

use super::{AccessKey, Ioas, Notified, Port};
use crate::error::{Coded, Errno};
use crate::storage::io_pagetable::{Area, AreaId};
use crate::storage::refusal::Refusal;

/// Acknowledged tries that got nowhere before the asker gives up.
const FRUITLESS_TRIES: u32 = 100;

/// Missed deadlines before the asker gives up.
const MISSED_DEADLINES: u32 = 3;

/// An access does not let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{access} still holds pins in {range} after {tries} notices, {missed} of them unanswered: unpin them first"
)]
pub struct HeldError {
    /// Who holds it.
    pub access: AccessKey,
    /// What it was asked to let go of.
    pub range: IovaRange,
    /// Notices sent.
    pub tries: u32,
    /// Notices not answered in time.
    pub missed: u32,
}

impl Coded for HeldError {
    fn errno(&self) -> Errno {
        Errno::DEADLK
    }

    fn code(&self) -> &'static str {
        "area-held-by-access"
    }
}

/// Patience: tries while what is held stays the same.
pub(super) struct Tries<K> {
    held: Option<K>,
    fruitless: BTreeMap<AccessKey, Fruitless>,
}

/// Tries that got nowhere with one access.
#[derive(Default)]
struct Fruitless {
    tries: u32,
    missed: u32,
}

impl<K: PartialEq> Tries<K> {
    /// None yet.
    pub(super) const fn new() -> Self {
        Self { held: None, fruitless: BTreeMap::new() }
    }

    /// Counts anew if something else is held now, or less of it.
    fn look_at(&mut self, held: K) {
        if self.held.as_ref() != Some(&held) {
            *self = Self { held: Some(held), fruitless: BTreeMap::new() };
        }
    }

    /// Notes a try that got nowhere with `access`.
    fn note(&mut self, access: AccessKey, range: IovaRange, notified: Notified) -> Result<(), HeldError> {
        let fruitless = self.fruitless.entry(access).or_default();
        fruitless.tries += 1;
        fruitless.missed += u32::from(notified == Notified::Missed);
        let Fruitless { tries, missed } = *fruitless;
        if tries <= FRUITLESS_TRIES && missed < MISSED_DEADLINES {
            return Ok(());
        }
        Err(HeldError { access, range, tries, missed })
    }
}

impl<P: Port> Ioas<P> {
    /// One notice to each access that holds something of `area`. What an access is just pinning or unpinning has no holder to blame yet: that is
    /// waited for, and is no try.
    pub(super) async fn ask_to_leave(
        &self,
        area: AreaId,
        iova: IovaRange,
        tries: &mut Tries<(AreaId, u64)>,
    ) -> Result<(), Refusal> {
        let changed = self.holds_changed.notified();
        tries.look_at((area, self.accesses_of(area)));
        let asked = self.holders(area);
        let notices = asked.iter().map(|access| self.port.notify(*access, iova));
        let outcomes = join_all(notices).await;
        let holders = self.holders(area);
        if holders.is_empty() && self.accesses_of(area) > 0 {
            changed.await;
        }
        for (access, outcome) in
            asked.into_iter().zip(outcomes).filter(|(access, _)| holders.contains(access))
        {
            tries.note(access, iova, outcome).map_err(|held| Refusal::of(&held))?;
        }
        Ok(())
    }

    fn accesses_of(&self, area: AreaId) -> u64 {
        self.core.borrow().table.area(area).map_or(0, Area::accesses)
    }

    /// Takes `access` away from this address space once it has let go of everything; it may not pin meanwhile.
    ///
    /// # Errors
    /// ENOENT if it is not attached, EBUSY if it is being taken away already, EDEADLK if it does not let go: it stays
    /// then.
    pub async fn leave_access(&self, access: AccessKey) -> Result<(), Refusal> {
        self.begin_leaving(access)?;
        let emptied = self.empty_access(access).await;
        match emptied {
            Ok(()) => self.detach_access(access).await,
            Err(_) => self.stay(access),
        }
        emptied
    }

    async fn empty_access(&self, access: AccessKey) -> Result<(), Refusal> {
        let mut tries = Tries::new();
        while let held @ 1.. = self.pins_of(access) {
            tries.look_at(held);
            let outcome = self.port.notify(access, IovaRange::ALL).await;
            if self.pins_of(access) == held {
                tries.note(access, IovaRange::ALL, outcome).map_err(|held| Refusal::of(&held))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: AccessKey = AccessKey(1);
    const OTHER: AccessKey = AccessKey(2);

    fn note(
        tries: &mut Tries<u8>,
        access: AccessKey,
        notified: Notified,
    ) -> Result<(), (AccessKey, u32, u32)> {
        let noted = tries.note(access, IovaRange::ALL, notified);
        noted.map_err(|held| (held.access, held.tries, held.missed))
    }

    #[test]
    fn each_access_is_counted_for_itself_and_whoever_misses_is_named() {
        let mut tries = Tries::new();
        tries.look_at(1);
        for _ in 0..2 {
            note(&mut tries, ONE, Notified::Acknowledged).unwrap();
            note(&mut tries, OTHER, Notified::Missed).unwrap();
            note(&mut tries, ONE, Notified::Missed).unwrap();
        }
        note(&mut tries, ONE, Notified::Acknowledged).unwrap();
        assert_eq!(note(&mut tries, OTHER, Notified::Missed), Err((OTHER, 3, 3)));
    }

    #[test]
    fn a_hundred_answers_are_too_many_unless_something_was_let_go_of() {
        let mut tries = Tries::new();
        tries.look_at(1);
        (0..100).for_each(|_| note(&mut tries, ONE, Notified::Acknowledged).unwrap());
        tries.look_at(2);
        (0..100).for_each(|_| note(&mut tries, ONE, Notified::Acknowledged).unwrap());
        tries.look_at(2);
        assert_eq!(note(&mut tries, ONE, Notified::Acknowledged), Err((ONE, 101, 0)));
    }
}
