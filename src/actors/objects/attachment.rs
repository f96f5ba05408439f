//! What a device is attached to: itself, and each of its PASIDs.
//!
//! Imports allowed: objects, error, storage.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::SystemTime;

use ioasd_client::ids::ObjectId;
use ioasd_client::wire::uapi::HWPT_PASID;

use super::events::FaultQueueObject;
use super::nesting::{NestParent, NestedHwptObject};
use super::{DeviceObject, HwptObject, Made, Sharing};
use crate::actors::figures::{AttachedTo, DeviceStats};
use crate::actors::number::Number;
use crate::domains::spec::Recording;
use crate::error::Errno;
use crate::storage::refusal::Refusal;

/// A process address space id of a device, or the device itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pasid(u32);

impl Pasid {
    /// None: the device itself.
    pub const NONE: Self = Self(0);

    /// The PASID with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number; 0 for none.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// One attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachmentKey {
    /// The number of the device.
    pub device: Number<DeviceStats>,
    /// What of it.
    pub pasid: Pasid,
}

/// A HWPT of either kind.
#[derive(Clone, Debug)]
pub enum AnyHwpt {
    /// A domain.
    Paging(Rc<HwptObject>),
    /// One nested in another.
    Nested(Rc<NestedHwptObject>),
}

impl AnyHwpt {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Paging(hwpt) => hwpt.id,
            Self::Nested(hwpt) => hwpt.id,
        }
    }

    /// Whether both are the same.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.id() == other.id()
    }

    /// The domain at the bottom of it.
    fn paging(&self) -> &HwptObject {
        match self {
            Self::Paging(hwpt) => hwpt,
            Self::Nested(hwpt) => hwpt.parent.hwpt(),
        }
    }

    fn sharing(&self) -> Sharing {
        match self {
            Self::Paging(hwpt) => hwpt.sharing,
            Self::Nested(hwpt) => hwpt.sharing,
        }
    }

    /// Whether PASIDs can be attached to it, and beside it.
    fn takes_pasids(&self) -> TakesPasids {
        let flags = match self {
            Self::Paging(hwpt) => hwpt.flags,
            Self::Nested(hwpt) => hwpt.flags,
        };
        if flags & HWPT_PASID == 0 { TakesPasids::No } else { TakesPasids::Yes }
    }

    /// Where faults of its devices go.
    #[must_use]
    pub fn faults(&self) -> Option<&Rc<FaultQueueObject>> {
        match self {
            Self::Paging(hwpt) => hwpt.faults.as_ref(),
            Self::Nested(hwpt) => hwpt.faults.as_ref(),
        }
    }

    /// The domain that was made for its attachments and goes with the last of them.
    #[must_use]
    pub fn automatic(self) -> Option<Rc<HwptObject>> {
        match self {
            Self::Paging(hwpt) if hwpt.made == Made::Automatically => Some(hwpt),
            Self::Paging(_) | Self::Nested(_) => None,
        }
    }
}

/// The attachments of one device.
#[derive(Debug, Default)]
pub struct Attached(BTreeMap<Pasid, AnyHwpt>);

impl Attached {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether the device itself, and its PASIDs, leave room for one more attachment: PASIDs need HWPTs that take them,
    /// all over the device.
    fn agree(&self, pasid: Pasid, takes_pasids: TakesPasids) -> bool {
        if takes_pasids == TakesPasids::No {
            return pasid == Pasid::NONE && self.0.keys().all(|attached| *attached == Pasid::NONE);
        }
        let own = self.0.get(&Pasid::NONE).map(AnyHwpt::takes_pasids);
        pasid == Pasid::NONE || own != Some(TakesPasids::No)
    }
}

/// Whether PASIDs can be attached to a HWPT, and beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TakesPasids {
    Yes,
    No,
}

impl DeviceObject {
    /// What a PASID is attached to.
    #[must_use]
    pub fn hwpt(&self, pasid: Pasid) -> Option<AnyHwpt> {
        self.attached.borrow().0.get(&pasid).cloned()
    }

    /// The attachment of a PASID.
    #[must_use]
    pub fn key(&self, pasid: Pasid) -> AttachmentKey {
        AttachmentKey { device: self.stats.number(), pasid }
    }

    /// What a fault with a PASID comes through: the attachment of the PASID, or, if that is not attached, of the device
    /// itself to a nested HWPT, whose guest may know more.
    #[must_use]
    pub fn serving(&self, pasid: Pasid) -> Option<(AnyHwpt, AttachmentKey)> {
        if let Some(hwpt) = self.hwpt(pasid) {
            return Some((hwpt, self.key(pasid)));
        }
        let own = self.hwpt(Pasid::NONE).filter(|hwpt| matches!(hwpt, AnyHwpt::Nested(_)));
        own.map(|hwpt| (hwpt, self.key(Pasid::NONE)))
    }

    /// What of it is attached.
    #[must_use]
    pub fn attached_pasids(&self) -> Vec<Pasid> {
        self.attached.borrow().0.keys().copied().collect()
    }

    /// Attaches a PASID to `hwpt`, or to nothing; gives what it was attached to.
    pub fn attach(&self, pasid: Pasid, hwpt: Option<AnyHwpt>) -> Option<AnyHwpt> {
        if pasid == Pasid::NONE {
            self.stats.show(hwpt.as_ref().map(|hwpt| AttachedTo {
                hwpt: hwpt.id(),
                ioas: hwpt.paging().ioas.number,
                since: SystemTime::now(),
            }));
        }
        let attached = &mut self.attached.borrow_mut().0;
        match hwpt {
            Some(hwpt) => attached.insert(pasid, hwpt),
            None => attached.remove(&pasid),
        }
    }

    /// Fails unless a PASID can be attached to a domain of its own choice, which takes no PASIDs.
    ///
    /// # Errors
    /// EINVAL.
    pub fn admits_automatic(&self, pasid: Pasid) -> Result<(), Refusal> {
        self.admits_pasids(pasid, TakesPasids::No)
    }

    /// Fails unless a PASID can be attached to `hwpt`.
    ///
    /// # Errors
    /// EINVAL if it was made for other devices, or not for PASIDs; ENOENT if it belongs to a vIOMMU that does not know the
    /// device.
    pub fn admits(&self, pasid: Pasid, hwpt: &AnyHwpt) -> Result<(), Refusal> {
        if hwpt.sharing() != self.sharing() {
            let text = format!("hwpt {} was made for other devices than {}", hwpt.id(), self.id);
            return Err(Refusal::new(Errno::INVAL, "hwpt-incompatible", text));
        }
        self.admits_recording(pasid, hwpt)?;
        self.admits_pasids(pasid, hwpt.takes_pasids())?;
        match hwpt {
            AnyHwpt::Nested(nested) if pasid == Pasid::NONE => self.is_known_to(&nested.parent),
            AnyHwpt::Paging(_) | AnyHwpt::Nested(_) => Ok(()),
        }
    }

    /// A device that leaves no marks cannot itself use a table that is to have them; its PASIDs are not looked at.
    fn admits_recording(&self, pasid: Pasid, hwpt: &AnyHwpt) -> Result<(), Refusal> {
        let AnyHwpt::Paging(paging) = hwpt else { return Ok(()) };
        let leaves_none =
            self.recording == Recording::Nothing && paging.spec.recording() == Recording::Writes;
        if !leaves_none || pasid != Pasid::NONE {
            return Ok(());
        }
        let text = format!(
            "hwpt {} records what is written, device {} leaves no marks: attach it to ioas {}",
            paging.id, self.id, paging.ioas.id
        );
        Err(Refusal::new(Errno::INVAL, "hwpt-incompatible", text))
    }

    fn admits_pasids(&self, pasid: Pasid, takes_pasids: TakesPasids) -> Result<(), Refusal> {
        let has = pasid == Pasid::NONE || pasid.get() < self.pasids;
        if has && self.attached.borrow().agree(pasid, takes_pasids) {
            return Ok(());
        }
        let text = format!(
            "device {} has {} PASIDs, and they take hwpts made for PASIDs on all of them and on the device itself",
            self.id, self.pasids
        );
        Err(Refusal::new(Errno::INVAL, "pasid-incompatible", text))
    }

    fn is_known_to(&self, parent: &NestParent) -> Result<(), Refusal> {
        match parent {
            NestParent::Viommu(viommu) if viommu.virt_id_of(self).is_none() => {
                let text = format!("device {} has no vdevice on viommu {}", self.id, viommu.id);
                Err(Refusal::new(Errno::NOENT, "vdevice-absent", text))
            }
            NestParent::Viommu(_) | NestParent::Hwpt(_) => Ok(()),
        }
    }
}
