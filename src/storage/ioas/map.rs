//! MAP and COPY: pieces of pages objects become areas.
//!
//! Imports allowed: units, and the passive types of storage.

use ioasd_client::units::{IovaRange, Permission};

use super::{Ioas, Port, Retired};
use crate::storage::io_pagetable::{AreaId, Piece, Placement, Reservation};
use crate::storage::iova_allocator::OriginAddr;
use crate::storage::order::Showing;
use crate::storage::refusal::Refusal;

impl<P: Port> Ioas<P> {
    /// Maps `pieces` one behind the other and tells where. With domains attached, every one of them shows the pieces
    /// when this returns; without, the memory is not even looked at.
    ///
    /// # Errors
    /// If there is no place, or a page cannot be pinned, charged or mapped. Nothing of it remains then.
    pub async fn map(
        &self,
        pieces: &[Piece<P::Pages>],
        permission: Permission,
        placement: Placement,
    ) -> Result<IovaRange, Refusal> {
        let gate = self.gate.read().await;
        let origin = self.origin(pieces);
        let reserved = self.core.borrow_mut().table.reserve(pieces, permission, placement, origin);
        let reservation = reserved.map_err(|error| Refusal::of(&error))?;
        self.port.placed(reservation.iova());
        match self.fill_all(&reservation).await {
            Ok(withdrawn) => {
                self.publish(&reservation, &withdrawn);
                Ok(reservation.iova())
            }
            Err((refusal, retired)) => {
                let domains = self.domains();
                drop(gate);
                self.release(&domains, retired).await;
                self.core.borrow_mut().table.abort(reservation);
                Err(refusal)
            }
        }
    }

    /// What a COPY of `range` takes along; to be given to [`Ioas::map`] of another address space, or of this one.
    ///
    /// # Errors
    /// If ready areas do not cover the range without a gap.
    pub fn copy_pieces(&self, range: IovaRange) -> Result<Vec<Piece<P::Pages>>, Refusal> {
        self.core.borrow().table.copy_pieces(range).map_err(|error| Refusal::of(&error))
    }

    fn origin(&self, pieces: &[Piece<P::Pages>]) -> OriginAddr {
        let origin_of = |piece: &Piece<P::Pages>| {
            OriginAddr::new(self.port.origin(&piece.pages).get().wrapping_add(piece.offset.get()))
        };
        pieces.first().map_or(OriginAddr::default(), origin_of)
    }

    /// Fills every area of a reservation but those whose pages were withdrawn, which it tells; on failure takes out again what
    /// it filled.
    async fn fill_all(&self, reservation: &Reservation) -> Result<Vec<AreaId>, (Refusal, Retired<P::Pages>)> {
        let (domains, areas) = (self.domains(), reservation.areas());
        let (withdrawn, areas): (Vec<_>, Vec<_>) = areas.iter().partition(|area| self.is_withdrawn(**area));
        if domains.is_empty() {
            return Ok(withdrawn);
        }
        let mut filled = Vec::new();
        for area in areas.into_iter().filter_map(|id| self.view(id)) {
            if let Err(failure) = self.fill(&area, domains.clone(), Showing::First).await {
                let mut retired: Retired<_> =
                    failure.retiring.map(|key| (area.pages, key)).into_iter().collect();
                for area in &filled {
                    retired.extend(self.unfill(area, domains.clone()).await);
                }
                return Err((failure.refusal, retired));
            }
            filled.push(area);
        }
        Ok(withdrawn)
    }
}
