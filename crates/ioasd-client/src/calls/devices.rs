//! Devices and their domains: DEVICE_CREATE, DEVICE_ATTACH, DEVICE_REPLACE, DEVICE_DETACH, HWPT_ALLOC, DOMAIN_EXPORT.
//!
//! Imports allowed: connection, error, formats, ids, wire.

use std::os::fd::OwnedFd;

use super::{no_descriptors, only_descriptor};
use crate::connection::Connection;
use crate::error::CallError;
use crate::formats::FormatId;
use crate::ids::{DeviceId, HwptId, IoasId, ObjectId};
use crate::wire::channels::DomainFaults;
use crate::wire::command::Command;
use crate::wire::own::{
    DEVICE_OWN_IOMMU, DeviceAttach, DeviceCreate, DeviceDetach, DeviceReplace, DomainExport,
    HWPT_DATA_SOFTWARE,
};
use crate::wire::record::{TableChoice, store_all};
use crate::wire::uapi::{HWPT_DIRTY_TRACKING, HwptAlloc};

/// Which IOMMU a software device is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// The one all such devices share: on one address space they use one domain together.
    Shared,
    /// One of its own: it gets a domain of its own.
    Own,
}

/// Devices and their domains.
impl Connection {
    /// Makes a software device that walks tables of `format`.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn device_create(&mut self, format: FormatId, iommu: Iommu) -> Result<DeviceId, CallError> {
        let flags = match iommu {
            Iommu::Shared => 0,
            Iommu::Own => DEVICE_OWN_IOMMU,
        };
        let create = DeviceCreate { flags, format: format.number(), ..DeviceCreate::default() };
        Ok(self.call(&create, &[], &[], no_descriptors)?.value.out_device_id)
    }

    /// Attaches a device to an address space, or to a HWPT, and gives the HWPT that serves it.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn device_attach(
        &mut self,
        device: DeviceId,
        target: impl Into<ObjectId>,
    ) -> Result<HwptId, CallError> {
        let attach = DeviceAttach { flags: 0, device_id: device, pt_id: target.into() };
        let answer = self.call(&attach, &[], &[], no_descriptors)?;
        Ok(HwptId::new(answer.value.pt_id.get()))
    }

    /// Attaches a device, which is attached already, to an address space or a HWPT instead, and gives the HWPT that serves it.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's. The device stays where it is then.
    pub fn device_replace(
        &mut self,
        device: DeviceId,
        target: impl Into<ObjectId>,
    ) -> Result<HwptId, CallError> {
        let replace = DeviceReplace { flags: 0, device_id: device, pt_id: target.into() };
        let answer = self.call(&replace, &[], &[], no_descriptors)?;
        Ok(HwptId::new(answer.value.pt_id.get()))
    }

    /// Makes a domain for `device`, and those it can share one with, that shows `ioas`; it stays until it is destroyed.
    /// `choice` is what its table shall be, if not all that the device's format can do.
    ///
    /// # Errors
    /// [`CallError::Refused`] as HWPT_ALLOC; the socket's.
    pub fn hwpt_alloc(
        &mut self,
        device: DeviceId,
        ioas: IoasId,
        choice: Option<TableChoice>,
    ) -> Result<HwptId, CallError> {
        let alloc = HwptAlloc { dev_id: device, pt_id: ioas.into(), ..HwptAlloc::default() };
        self.hwpt_alloc_as(alloc, choice)
    }

    /// The same, of a domain for which it can be tracked what is written: see [`dirty`](super::dirty).
    ///
    /// # Errors
    /// [`CallError::Refused`] as HWPT_ALLOC; the socket's.
    pub fn hwpt_alloc_tracked(
        &mut self,
        device: DeviceId,
        ioas: IoasId,
        choice: Option<TableChoice>,
    ) -> Result<HwptId, CallError> {
        let flags = HWPT_DIRTY_TRACKING;
        let alloc = HwptAlloc { flags, dev_id: device, pt_id: ioas.into(), ..HwptAlloc::default() };
        self.hwpt_alloc_as(alloc, choice)
    }

    fn hwpt_alloc_as(&mut self, alloc: HwptAlloc, choice: Option<TableChoice>) -> Result<HwptId, CallError> {
        let data = choice.map(|choice| store_all(&[choice])).unwrap_or_default();
        let alloc = match u32::try_from(data.len()) {
            Ok(data_len @ 1..) => HwptAlloc { data_type: HWPT_DATA_SOFTWARE, data_len, ..alloc },
            Ok(0) | Err(_) => alloc,
        };
        Ok(self.call(&alloc, &[], &data, no_descriptors)?.value.out_hwpt_id)
    }

    /// Detaches a device.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn device_detach(&mut self, device: DeviceId) -> Result<(), CallError> {
        let detach = DeviceDetach { device_id: device, ..DeviceDetach::default() };
        self.call(&detach, &[], &[], no_descriptors).map(|_| ())
    }

    /// Exports the domain behind `hwpt`: whoever holds the channel may open it as a walker ([`ExportChannel`](super::ExportChannel)).
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn domain_export(&mut self, hwpt: HwptId) -> Result<OwnedFd, CallError> {
        let export = DomainExport { hwpt_id: hwpt, ..DomainExport::default() };
        let answer = self.call(&export, &[], &[], |_| 1)?;
        Ok(only_descriptor(DomainExport::NAME, answer.fds)?)
    }

    /// Makes a channel that tells of the faults which the walkers of the domain behind `hwpt` meet from now on
    /// ([`FaultChannel`](crate::faults::FaultChannel)).
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn domain_faults(&mut self, hwpt: HwptId) -> Result<OwnedFd, CallError> {
        let faults = DomainFaults { hwpt_id: hwpt, ..DomainFaults::default() };
        let answer = self.call(&faults, &[], &[], |_| 1)?;
        Ok(only_descriptor(DomainFaults::NAME, answer.fds)?)
    }
}
