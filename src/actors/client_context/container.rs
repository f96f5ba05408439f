//! The address space that a VFIO container stands for.
//!
//! Imports allowed: state, storage, messages, the object actors.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use ioasd_client::ids::ObjectId;
use ioasd_client::units::PAGE_SIZE;

use super::state::ClientState;
use crate::actors::guard::poisoned;
use crate::actors::messages::ioas::LookAtTable;
use crate::actors::objects::IoasObject;
use crate::error::Errno;
use crate::storage::io_pagetable::UnmapRequest;
use crate::storage::refusal::Refusal;

/// What a container stands for; its end clears it.
#[derive(Debug, Default)]
pub(super) struct Container(RefCell<Weak<IoasObject>>);

impl ClientState {
    /// The address space of the container.
    ///
    /// # Errors
    /// ENODEV if it has none.
    pub fn vfio_ioas(&self) -> Result<ObjectId, Refusal> {
        let ioas = self.container.0.borrow().upgrade();
        ioas.map(|ioas| ioas.id).ok_or_else(|| {
            let text = "the container stands for no address space: choose one with VFIO_IOAS";
            Refusal::new(Errno::NODEV, "vfio-no-ioas", text)
        })
    }

    /// Lets the container stand for `ioas`.
    ///
    /// # Errors
    /// ENOENT without such an address space.
    pub fn set_vfio_ioas(&self, ioas: ObjectId) -> Result<(), Refusal> {
        let ioas = self.look(|objects| objects.ioas(ioas))?;
        *self.container.0.borrow_mut() = Rc::downgrade(&ioas);
        Ok(())
    }

    /// Lets the container stand for nothing.
    pub fn clear_vfio_ioas(&self) {
        *self.container.0.borrow_mut() = Weak::new();
    }

    /// Whether an address space has a HWPT.
    ///
    /// # Errors
    /// ENOENT without such an address space.
    pub fn has_hwpts(&self, ioas: ObjectId) -> Result<bool, Refusal> {
        let ioas = self.look(|objects| objects.ioas(ioas))?;
        Ok(ioas.hwpts.borrow().iter().any(|hwpt| hwpt.strong_count() > 0))
    }

    /// The sizes of leaves that every HWPT of an address space can have, as VFIO tells them: none below a page.
    ///
    /// # Errors
    /// ENOENT without such an address space.
    pub fn page_sizes(&self, ioas: ObjectId) -> Result<u64, Refusal> {
        let ioas = self.look(|objects| objects.ioas(ioas))?;
        let hwpts = ioas.hwpts.borrow();
        let sizes = hwpts.iter().filter_map(Weak::upgrade).map(|hwpt| hwpt.spec.page_sizes().bitmap());
        let common = sizes.fold(u64::MAX, |common, sizes| common & sizes);
        let small = PAGE_SIZE - 1;
        Ok(if common & small == 0 { common } else { common & !small | PAGE_SIZE })
    }

    /// Whether an address space maps anything of a range.
    ///
    /// # Errors
    /// ENOENT without such an address space.
    pub async fn maps_any(&self, ioas: ObjectId, request: UnmapRequest) -> Result<bool, Refusal> {
        let ioas = self.look(|objects| objects.ioas(ioas))?;
        let range = request.range();
        let look = LookAtTable(Box::new(move |table| {
            table.areas().any(|area| area.iova().intersection(range).is_some())
        }));
        ioas.ioas.send(look).await.map_err(|_| poisoned("an ioas"))
    }
}
