//! Asking accesses to let go: before an unmap takes an area they hold, and before an access leaves the address space.
//!
//! One try is one notice to each access that may be concerned, all at once; it ends with their answers, or the deadline.
//! An access that answers a hundred times and holds on, or misses three deadlines, makes the asker give up.
//!
//! Imports allowed: units, and the passive types of storage.

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
    count: u32,
    missed: u32,
}

impl<K: PartialEq> Tries<K> {
    /// None yet.
    pub(super) const fn new() -> Self {
        Self { held: None, count: 0, missed: 0 }
    }

    /// Counts anew if something else is held now, or less of it.
    fn look_at(&mut self, held: K) {
        if self.held.as_ref() != Some(&held) {
            *self = Self { held: Some(held), count: 0, missed: 0 };
        }
    }

    /// Notes a try that got nowhere with `access`.
    fn note(&mut self, access: AccessKey, range: IovaRange, missed: u32) -> Result<(), HeldError> {
        self.count += 1;
        self.missed += missed;
        if self.count <= FRUITLESS_TRIES && self.missed < MISSED_DEADLINES {
            return Ok(());
        }
        Err(HeldError { access, range, tries: self.count, missed: self.missed })
    }
}

impl<P: Port> Ioas<P> {
    /// One notice to everybody. What an access is just pinning or unpinning has no holder to blame yet: that is
    /// waited for, and is no try.
    pub(super) async fn ask_to_leave(
        &self,
        area: AreaId,
        iova: IovaRange,
        tries: &mut Tries<(AreaId, u64)>,
    ) -> Result<(), Refusal> {
        let changed = self.holds_changed.notified();
        tries.look_at((area, self.accesses_of(area)));
        let everybody: Vec<AccessKey> = self.core.borrow().accesses.keys().copied().collect();
        let missed = self.notify_all(&everybody, iova).await;
        let Some(access) = self.holder(area) else {
            if self.accesses_of(area) > 0 {
                changed.await;
            }
            return Ok(());
        };
        tries.note(access, iova, missed).map_err(|held| Refusal::of(&held))
    }

    /// Tells how many deadlines were missed: one for all.
    async fn notify_all(&self, accesses: &[AccessKey], range: IovaRange) -> u32 {
        let notices = accesses.iter().map(|access| self.port.notify(*access, range));
        u32::from(join_all(notices).await.contains(&Notified::Missed))
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
            let missed = self.notify_all(&[access], IovaRange::ALL).await;
            if self.pins_of(access) == held {
                tries.note(access, IovaRange::ALL, missed).map_err(|held| Refusal::of(&held))?;
            }
        }
        Ok(())
    }
}
