//! The slots of all rings, shared by all sources that pin long-term.
//!
//! Slots are handed out in runs of neighbours where there are some, because one call fills or clears a run. A ring is
//! added when every slot is taken. What the kernel refuses to clear is set aside and tried again; its pages stay held.
//!
//! Imports allowed: sys.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::sys::client_mapping::{ClientMapping, Part};
use crate::sys::failure::SysError;
use crate::sys::pin_ring::{PinRing, SLOTS};

/// A slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// Number of the ring.
    pub(super) ring: u32,
    /// Number of the slot in it.
    pub(super) slot: u32,
}

/// Neighbouring slots of a ring.
#[derive(Clone, Copy, Debug)]
struct Run {
    ring: u32,
    first: u32,
    slots: u32,
}

#[derive(Debug)]
struct Ring {
    ring: PinRing,
    free: Mutex<BTreeSet<u32>>,
}

/// All rings.
#[derive(Debug, Default)]
pub(super) struct RingPool {
    rings: RwLock<Vec<Arc<Ring>>>,
    stuck: Mutex<Vec<Place>>,
}

impl RingPool {
    /// Pins `parts`, one a slot, from the first on. Tells the slots of those that are pinned, at least one.
    ///
    /// # Errors
    /// If the first part cannot be pinned; nothing is pinned then.
    pub(super) fn pin(&self, parts: &[(&ClientMapping, Part)]) -> Result<Vec<Place>, SysError> {
        let mut places = Vec::with_capacity(parts.len());
        while let Some(rest) = parts.get(places.len()..).filter(|rest| !rest.is_empty()) {
            match self.pin_run(rest) {
                Ok((run, whole)) => {
                    places.extend(run.places());
                    if !whole {
                        break;
                    }
                }
                Err(error) if places.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(places)
    }

    /// Fills one run of slots, and tells whether the kernel took all of it.
    fn pin_run(&self, parts: &[(&ClientMapping, Part)]) -> Result<(Run, bool), SysError> {
        let (run, ring) = self.take_run(u32::try_from(parts.len()).unwrap_or(SLOTS))?;
        let wanted = parts.get(..run.slots as usize).unwrap_or(parts);
        let pinned = ring.ring.pin(run.first, wanted);
        let taken = pinned.as_ref().map_or(0, |pinned| *pinned);
        ring.free.lock().extend(run.first.saturating_add(taken)..run.first.saturating_add(run.slots));
        pinned.map(|_| (Run { slots: taken, ..run }, taken == run.slots))
    }

    /// Takes up to `wanted` neighbouring free slots.
    fn take_run(&self, wanted: u32) -> Result<(Run, Arc<Ring>), SysError> {
        loop {
            let rings = self.rings.read();
            let found = (0..).zip(rings.iter()).find_map(|(number, ring)| {
                let (first, slots) = ring.take_run(wanted)?;
                Some((Run { ring: number, first, slots }, Arc::clone(ring)))
            });
            if let Some(found) = found {
                return Ok(found);
            }
            let known = rings.len();
            drop(rings);
            self.add_ring(known)?;
        }
    }

    /// Makes the first ring, so that a lack of descriptors shows when the agent starts.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn make_first(&self) -> Result<(), SysError> {
        self.add_ring(0)
    }

    /// Adds a ring, unless somebody else did since there were `known`.
    fn add_ring(&self, known: usize) -> Result<(), SysError> {
        let mut rings = self.rings.write();
        if rings.len() == known {
            rings.push(Arc::new(Ring { ring: PinRing::new()?, free: Mutex::new((0..SLOTS).collect()) }));
        }
        Ok(())
    }

    /// Unpins what these slots hold.
    pub(super) fn unpin(&self, mut places: Vec<Place>) {
        places.append(&mut self.stuck.lock());
        places.sort_unstable();
        for neighbours in
            places.chunk_by(|left, right| left.ring == right.ring && left.slot + 1 == right.slot)
        {
            let Some(first) = neighbours.first() else { continue };
            let slots = u32::try_from(neighbours.len()).unwrap_or(SLOTS);
            self.clear(Run { ring: first.ring, first: first.slot, slots });
        }
    }

    fn clear(&self, run: Run) {
        let Some(ring) = self.rings.read().get(run.ring as usize).cloned() else { return };
        let cleared = ring.ring.unpin(run.first, run.slots);
        let count = cleared.unwrap_or(0);
        ring.free.lock().extend(run.first..run.first.saturating_add(count));
        if count < run.slots {
            tracing::error!(?cleared, ?run, "slots of a ring cannot be cleared; their pages stay pinned");
            self.stuck.lock().extend(run.places().skip(count as usize));
        }
    }
}

impl Ring {
    fn take_run(&self, wanted: u32) -> Option<(u32, u32)> {
        let mut free = self.free.lock();
        let first = *free.first()?;
        let slots = (first..first.saturating_add(wanted)).take_while(|slot| free.remove(slot)).count();
        Some((first, u32::try_from(slots).ok()?))
    }
}

impl Run {
    fn places(self) -> impl Iterator<Item = Place> {
        let Self { ring, first, slots } = self;
        (first..first.saturating_add(slots)).map(move |slot| Place { ring, slot })
    }
}
