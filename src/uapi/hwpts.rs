//! HWPT_ALLOC: on an address space, with data that say what the table shall be, or nested in another HWPT.
//!
//! Imports allowed: actors, domains::spec, the client crate's wire and formats.

use ioasd_client::formats::PageSizes;
use ioasd_client::ids::HwptId;
use ioasd_client::units::{Flag, Iova, IovaRange};
use ioasd_client::wire::command::Command;
use ioasd_client::wire::mock::{HWPT_DATA_MOCK, MockTableChoice};
use ioasd_client::wire::own::HWPT_DATA_SOFTWARE;
use ioasd_client::wire::record::{Record, TableChoice};
use ioasd_client::wire::uapi::{
    HWPT_DATA_NONE, HWPT_DIRTY_TRACKING, HWPT_FAULT_ID_VALID, HWPT_NEST_PARENT, HWPT_PASID, HwptAlloc,
};

use super::array::Array;
use super::{Call, Done, Serve, check_flags, check_no_fds, check_reserved};
use crate::actors::client_context::hwpts::{HwptParent, HwptPlan};
use crate::actors::client_context::mock::devices::MockTable;
use crate::actors::client_context::nesting::NestedPlan;
use crate::actors::objects::nesting::NestParent;
use crate::actors::objects::{DeviceKind, DeviceObject};
use crate::domains::spec::{Recording, TableSpec};
use crate::error::Errno;
use crate::storage::refusal::Refusal;
use crate::sys::client_fd::ClientFd;

impl Serve for HwptAlloc {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_reserved(Self::NAME, self.reserved)?;
        check_data_length(&self)?;
        let (device, parent) = call.client.hwpt_parent(self.dev_id.into(), self.pt_id)?;
        let faults = Some(self.fault_id).filter(|_| self.flags & HWPT_FAULT_ID_VALID != 0);
        let id = match parent {
            HwptParent::Ioas(ioas) => {
                check_paging_flags(&self, &device)?;
                let spec = choice(&self, call.payload, call.fds)?(&device)?;
                let spec = spec.with_recording(match Flag::of(self.flags, HWPT_DIRTY_TRACKING) {
                    Flag::Set => Recording::Writes,
                    Flag::Clear => Recording::Nothing,
                });
                call.client.hwpt_alloc(&device, ioas, HwptPlan::by_hand(spec, self.flags, faults)).await?
            }
            HwptParent::Nest(parent) => {
                check_nested(&self, &device, &parent)?;
                let (_, word) = mock_choice(&self, call.payload, call.fds)?;
                call.client.nested_alloc(&device, parent, NestedPlan { flags: self.flags, word, faults })?
            }
        };
        Ok(Done::value(Self { out_hwpt_id: HwptId::new(id.get()), ..self }))
    }
}

/// A software device has nothing of what the flags ask for, but for dirty tracking.
fn check_paging_flags(alloc: &HwptAlloc, device: &DeviceObject) -> Result<(), Refusal> {
    let known = match device.stats.kind {
        DeviceKind::Software => HWPT_DIRTY_TRACKING,
        DeviceKind::Mock => HWPT_NEST_PARENT | HWPT_DIRTY_TRACKING | HWPT_FAULT_ID_VALID | HWPT_PASID,
    };
    check_flags(HwptAlloc::NAME, alloc.flags, known)?;
    if alloc.flags & HWPT_DIRTY_TRACKING != 0 && device.recording == Recording::Nothing {
        let text = format!("device {} leaves no marks where it writes", device.id);
        return Err(Refusal::new(Errno::OPNOTSUPP, "dirty-tracking-unsupported", text));
    }
    let both = HWPT_NEST_PARENT | HWPT_FAULT_ID_VALID;
    if alloc.flags & both == both {
        let text = "a hwpt that others are nested in has no queue for faults: theirs have";
        return Err(Refusal::new(Errno::OPNOTSUPP, "flags-unknown", text));
    }
    Ok(())
}

/// Who could not be nested in anything is told first.
fn check_nested(alloc: &HwptAlloc, device: &DeviceObject, parent: &NestParent) -> Result<(), Refusal> {
    if let NestParent::Viommu(viommu) = parent
        && viommu.parent.sharing != device.sharing()
    {
        let text = format!("device {} is behind another IOMMU than viommu {}", device.id, viommu.id);
        return Err(Refusal::new(Errno::INVAL, "viommu-other-iommu", text));
    }
    let unknown = alloc.flags & !(HWPT_FAULT_ID_VALID | HWPT_PASID);
    if unknown != 0 || alloc.data_len == 0 {
        let text = format!("a nested hwpt needs data, and cannot have the flags {unknown:#x}");
        return Err(Refusal::new(Errno::OPNOTSUPP, "nesting-unsupported", text));
    }
    parent.hwpt().require_nest_parent(device)?;
    if alloc.data_type == HWPT_DATA_MOCK {
        return Ok(());
    }
    let text = format!("a nested hwpt has no data of type {:#x}", alloc.data_type);
    Err(Refusal::new(Errno::OPNOTSUPP, "hwpt-data-unknown", text))
}

/// There are data exactly if they have a type.
fn check_data_length(alloc: &HwptAlloc) -> Result<(), Refusal> {
    if (alloc.data_type == HWPT_DATA_NONE) == (alloc.data_len == 0) {
        return Ok(());
    }
    let text = format!("data of type {} cannot have {} bytes", alloc.data_type, alloc.data_len);
    Err(Refusal::new(Errno::INVAL, "hwpt-data-length", text))
}

type Choose = Box<dyn FnOnce(&DeviceObject) -> Result<TableSpec, Refusal>>;

/// What the data make of all that the device's format can do.
fn choice(alloc: &HwptAlloc, payload: &[u8], fds: Vec<ClientFd>) -> Result<Choose, Refusal> {
    match alloc.data_type {
        HWPT_DATA_NONE => {
            check_no_fds(HwptAlloc::NAME, &fds)?;
            Ok(Box::new(|device| Ok(device.spec)))
        }
        HWPT_DATA_SOFTWARE => {
            let data = Array::of(HwptAlloc::NAME, payload, fds, alloc.data_uptr)?;
            if (alloc.data_len as usize) < TableChoice::BYTES {
                let text = format!("the data have {} bytes, at least {}", alloc.data_len, TableChoice::BYTES);
                return Err(Refusal::new(Errno::INVAL, "hwpt-data-length", text));
            }
            let choice: TableChoice = data.read_sized(alloc.data_len)?;
            check_flags(HwptAlloc::NAME, choice.flags, 0)?;
            check_reserved(HwptAlloc::NAME, choice.reserved)?;
            Ok(Box::new(move |device| {
                require_kind(device, DeviceKind::Software, HWPT_DATA_SOFTWARE)?;
                chosen(TableSpec::of(device.spec.format()), choice)
            }))
        }
        HWPT_DATA_MOCK => {
            let (table, _) = mock_choice(alloc, payload, fds)?;
            Ok(Box::new(move |device| {
                require_kind(device, DeviceKind::Mock, HWPT_DATA_MOCK)?;
                mock_table(table)?.spec()
            }))
        }
        other => {
            let text =
                format!("a software device has no data of type {other:#x}: use {HWPT_DATA_SOFTWARE:#x}");
            Err(Refusal::new(Errno::OPNOTSUPP, "hwpt-data-unknown", text))
        }
    }
}

fn require_kind(device: &DeviceObject, kind: DeviceKind, data_type: u32) -> Result<(), Refusal> {
    if device.stats.kind == kind {
        return Ok(());
    }
    let text = format!("device {} takes no data of type {data_type:#x}", device.id);
    Err(Refusal::new(Errno::OPNOTSUPP, "hwpt-data-unknown", text))
}

/// The data of a mock domain: the table, whose choice may be missing, and what caches of a nested one begin with.
fn mock_choice(alloc: &HwptAlloc, payload: &[u8], fds: Vec<ClientFd>) -> Result<(u32, u32), Refusal> {
    if !(4..=8).contains(&alloc.data_len) {
        let text = format!("the data of a mock domain have 4 to 8 bytes, not {}", alloc.data_len);
        return Err(Refusal::new(Errno::INVAL, "hwpt-data-length", text));
    }
    let data = Array::of(HwptAlloc::NAME, payload, fds, alloc.data_uptr)?;
    let choice: MockTableChoice = data.read_sized(alloc.data_len)?;
    Ok((choice.table, choice.iotlb))
}

fn mock_table(number: u32) -> Result<MockTable, Refusal> {
    match number {
        0 => Ok(MockTable::Default),
        1 => Ok(MockTable::Huge),
        other => {
            let text = format!("there is no mock table {other}: 0 is the default, 1 has huge pages");
            Err(Refusal::new(Errno::OPNOTSUPP, "mock-table-unknown", text))
        }
    }
}

fn chosen(spec: TableSpec, choice: TableChoice) -> Result<TableSpec, Refusal> {
    let TableChoice { start, last, page_sizes, .. } = choice;
    let spec = match (start, last) {
        (start, last) if (start, last) == (Iova::new(0), Iova::new(0)) => spec,
        (start, last) => {
            let aperture = IovaRange::new(start, last).ok_or_else(|| backwards(start, last))?;
            spec.with_aperture(aperture).map_err(|error| Refusal::of(&error))?
        }
    };
    match page_sizes {
        0 => Ok(spec),
        sizes => spec.with_page_sizes(PageSizes::new(sizes)).map_err(|error| Refusal::of(&error)),
    }
}

fn backwards(start: Iova, last: Iova) -> Refusal {
    let text = format!("an aperture from {start} to {last} is none: the last address is below the first");
    Refusal::new(Errno::INVAL, "table-aperture", text)
}
