//! HWPT_INVALIDATE, VIOMMU_ALLOC, VDEVICE_ALLOC, HW_QUEUE_ALLOC, REGION_OPEN: for mock devices, the only ones whose tables
//! can be nested.
//!
//! Imports allowed: actors, storage's request checks, the client crate's wire.

use ioasd_client::units::Flag;
use ioasd_client::wire::channels::RegionOpen;
use ioasd_client::wire::command::Command;
use ioasd_client::wire::mock::{
    HW_QUEUE_MOCK, INVALIDATE_ALL, INVALIDATE_MOCK, MockDeviceInvalidation, MockInvalidation, MockViommu,
    VIOMMU_MOCK,
};
use ioasd_client::wire::record::{Record, store_all};
use ioasd_client::wire::uapi::{
    HwQueueAlloc, HwptInvalidate, INVALIDATE_ENTRIES_MAX, INVALIDATE_ENTRY_MAX, NOWHERE, TYPE_NONE,
    VdeviceAlloc, ViommuAlloc,
};

use super::array::Array;
use super::{Call, Done, Serve, check_flags, check_no_fds, check_reserved};
use crate::actors::client_context::nesting::Invalidated;
use crate::actors::objects::mock_state::{Drops, WORDS};
use crate::actors::objects::nesting::{NestedHwptObject, ViommuObject};
use crate::actors::objects::regions::Place;
use crate::actors::objects::{DeviceKind, DeviceObject};
use crate::error::Errno;
use crate::storage::io_pagetable::check_range;
use crate::storage::refusal::Refusal;
use crate::sys::client_fd::ClientFd;

impl Serve for HwptInvalidate {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        let mut done = 0;
        let outcome = invalidate(&self, call, &mut done);
        let answer = Done::value(Self { entry_num: done, ..self });
        Ok(match outcome {
            Ok(()) => answer,
            Err(refusal) => answer.but(refusal),
        })
    }
}

fn invalidate(command: &HwptInvalidate, call: Call<'_>, done: &mut u32) -> Result<(), Refusal> {
    check_reserved(HwptInvalidate::NAME, command.reserved)?;
    check_entries(command)?;
    let target = call.client.invalidated(command.hwpt_id)?;
    if command.data_type != INVALIDATE_MOCK {
        return Err(invalid(&format!("there are no entries of type {:#x}", command.data_type)));
    }
    let entries = Array::of(HwptInvalidate::NAME, call.payload, call.fds, command.data_uptr)?;
    match target {
        Invalidated::Nested(nested) => nested_entries(command, &entries, &nested, done),
        Invalidated::Viommu(viommu) => viommu_entries(command, &entries, &viommu, done),
    }
}

fn check_entries(command: &HwptInvalidate) -> Result<(), Refusal> {
    let HwptInvalidate { data_uptr, entry_len, entry_num, .. } = *command;
    let sane = data_uptr != NOWHERE && (1..=INVALIDATE_ENTRY_MAX).contains(&entry_len);
    if entry_num == 0 || sane && entry_num <= INVALIDATE_ENTRIES_MAX {
        return Ok(());
    }
    let text = format!("{entry_num} entries of {entry_len} bytes at {data_uptr} cannot be");
    Err(Refusal::new(Errno::INVAL, "invalidate-entries", text))
}

/// One after the other.
fn nested_entries(
    command: &HwptInvalidate,
    entries: &Array<'_>,
    nested: &NestedHwptObject,
    done: &mut u32,
) -> Result<(), Refusal> {
    for index in 0..command.entry_num {
        if command.entry_len as usize != MockInvalidation::BYTES {
            return Err(invalid(&format!("an entry has 8 bytes, not {}", command.entry_len)));
        }
        let entry: MockInvalidation = entries.read_nth_sized(index, command.entry_len)?;
        nested.iotlb.clear(drops(entry.flags, entry.word)?);
        *done = index.saturating_add(1);
    }
    Ok(())
}

/// All are read before the first is carried out.
fn viommu_entries(
    command: &HwptInvalidate,
    entries: &Array<'_>,
    viommu: &ViommuObject,
    done: &mut u32,
) -> Result<(), Refusal> {
    let read = |index| entries.read_nth_sized(index, command.entry_len);
    let all: Result<Vec<MockDeviceInvalidation>, Refusal> = (0..command.entry_num).map(read).collect();
    for (before, entry) in (0_u32..).zip(all?) {
        let drops = drops(entry.flags, entry.word)?;
        let device = viommu.device(entry.virt_id.into());
        let device = device.ok_or_else(|| invalid(&format!("the guest has no device {}", entry.virt_id)))?;
        device.mock.cache.clear(drops);
        *done = before.saturating_add(1);
    }
    Ok(())
}

fn drops(flags: u32, word: u32) -> Result<Drops, Refusal> {
    check_flags(HwptInvalidate::NAME, flags, INVALIDATE_ALL)?;
    match Flag::of(flags, INVALIDATE_ALL) {
        _ if word >= WORDS => Err(invalid(&format!("a cache has {WORDS} words, there is none {word}"))),
        Flag::Set => Ok(Drops::All),
        Flag::Clear => Ok(Drops::One(word)),
    }
}

fn invalid(text: &str) -> Refusal {
    Refusal::new(Errno::INVAL, "invalidate-entry", text)
}

impl Serve for ViommuAlloc {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_flags(Self::NAME, self.flags, 0)?;
        require_type(Self::NAME, self.kind)?;
        let device = call.client.viommu_device(self.dev_id.into())?;
        require_viommu(&device, self.kind)?;
        let parent = call.client.viommu_parent(&device, self.hwpt_id.into())?;
        let given = viommu_data(&self, call.payload, call.fds)?;
        let word = given.as_ref().map(|(_, data)| data.given);
        let (out_viommu_id, region) = call.client.viommu_alloc(parent, word)?;
        let told = given.zip(region).map(|((array, data), region)| {
            let (out_offset, out_length) = (region.offset.get(), region.length.get());
            let told = MockViommu { out_given: data.given, out_offset, out_length, ..data };
            array.give_back_filled(&store_all(&[told]), self.data_len)
        });
        match told.transpose() {
            Ok(payload) => {
                Ok(Done::value(Self { out_viommu_id, ..self }).with_payload(payload.unwrap_or_default()))
            }
            Err(refusal) => {
                call.client.destroy(out_viommu_id).await?;
                Err(refusal)
            }
        }
    }
}

/// What came with VIOMMU_ALLOC, if anything did. Without the last fields it is not told where the pages are.
fn viommu_data<'m>(
    command: &ViommuAlloc,
    payload: &'m [u8],
    fds: Vec<ClientFd>,
) -> Result<Option<(Array<'m>, MockViommu)>, Refusal> {
    if command.data_len == 0 {
        return check_no_fds(ViommuAlloc::NAME, &fds).map(|()| None);
    }
    if !(8..=24).contains(&command.data_len) {
        let text = format!("the data of a viommu have 8 to 24 bytes, not {}", command.data_len);
        return Err(Refusal::new(Errno::INVAL, "viommu-data-length", text));
    }
    let array = Array::of(ViommuAlloc::NAME, payload, fds, command.data_uptr)?;
    let data = array.read_sized(command.data_len)?;
    Ok(Some((array, data)))
}

impl Serve for RegionOpen {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        let place = Place { offset: self.offset, length: self.length };
        Ok(Done::value(self).with_fd(call.client.region_open(place)?))
    }
}

/// Fails for the type that is none.
pub(super) fn require_type(command: &'static str, kind: u32) -> Result<(), Refusal> {
    if kind == TYPE_NONE {
        return Err(Refusal::new(Errno::OPNOTSUPP, "type-unsupported", format!("{command} needs a type")));
    }
    Ok(())
}

fn require_viommu(device: &DeviceObject, kind: u32) -> Result<(), Refusal> {
    if (device.stats.kind, kind) == (DeviceKind::Mock, VIOMMU_MOCK) {
        return Ok(());
    }
    let text = format!("device {} has no viommu of type {kind:#x}", device.id);
    Err(Refusal::new(Errno::OPNOTSUPP, "type-unsupported", text))
}

impl Serve for VdeviceAlloc {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        let out_vdevice_id = call.client.vdevice_alloc(self.viommu_id, self.dev_id.into(), self.virt_id)?;
        Ok(Done::value(Self { out_vdevice_id, ..self }))
    }
}

impl Serve for HwQueueAlloc {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        require_type(Self::NAME, self.kind)?;
        let range = check_range(self.iova, self.length).map_err(|error| Refusal::of(&error))?;
        let viommu = call.client.viommu(self.viommu_id)?;
        if self.kind != HW_QUEUE_MOCK {
            let text = format!("viommu {} has no queues of type {:#x}", viommu.id, self.kind);
            return Err(Refusal::new(Errno::OPNOTSUPP, "type-unsupported", text));
        }
        let out_hw_queue_id = call.client.hw_queue_alloc(viommu, self.index, range).await?;
        Ok(Done::value(Self { out_hw_queue_id, ..self }))
    }
}
