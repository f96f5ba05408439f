//! How much memory and how many devices, and which page belongs to whom.
//!
//! The last pages belong to the devices, one each; all others to the client.
//!
//! Imports allowed: units, the command line's arguments.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use ioasd_client::units::{ByteLen, PAGE_SHIFT, PAGE_SIZE, PageIndex};

use crate::cli::DemoArgs;

/// How long one step may take, whatever its size.
const STEP: Duration = Duration::from_secs(60);

/// Mapped bytes that every machine moves in a second, slow builds too.
const BYTES_PER_SECOND: u64 = 8 << 20;

/// The number of a device, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceNumber(pub(super) u16);

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {}", self.0)
    }
}

/// The size does not fit the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--size {} cannot be shown in {domains} domains: take whole pages of {PAGE_SIZE} bytes, more of them than domains",
    size.get()
)]
pub(super) struct PlanError {
    size: ByteLen,
    domains: u16,
}

/// What the demo shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    size: ByteLen,
    devices: u16,
}

impl Plan {
    /// What the command line asks for.
    pub(super) fn new(args: &DemoArgs) -> Result<Self, PlanError> {
        let (size, devices) = (args.size, args.domains.get());
        let plan = Self { size, devices };
        if size.is_aligned(PAGE_SIZE) && plan.pages() > u64::from(devices) {
            Ok(plan)
        } else {
            Err(PlanError { size, domains: devices })
        }
    }

    /// Hands the plan on to another role.
    pub(super) fn pass_on(self, command: &mut Command) {
        command.arg("--size").arg(self.size.get().to_string());
        command.arg("--domains").arg(self.devices.to_string());
    }

    pub(super) const fn size(self) -> ByteLen {
        self.size
    }

    pub(super) const fn pages(self) -> u64 {
        self.size.get() >> PAGE_SHIFT
    }

    pub(super) const fn device_count(self) -> u16 {
        self.devices
    }

    /// Bytes that all domains together translate.
    pub(super) fn mapped(self) -> ByteLen {
        ByteLen::new(self.size.get().saturating_mul(u64::from(self.devices)))
    }

    pub(super) fn devices(self) -> impl Iterator<Item = DeviceNumber> {
        (1..=self.devices).map(DeviceNumber)
    }

    /// The devices that attach before anything is mapped: the first half, at least one.
    pub(super) fn attached_early(self, device: DeviceNumber) -> bool {
        device.0 <= self.devices.div_ceil(2)
    }

    /// The page that `device` writes.
    pub(super) fn page_of(self, device: DeviceNumber) -> PageIndex {
        PageIndex::new(self.pages() - u64::from(self.devices) + u64::from(device.0) - 1)
    }

    /// The device that writes `page`, if it is not one of the client's.
    pub(super) fn owner(self, page: PageIndex) -> Option<DeviceNumber> {
        let first = self.pages() - u64::from(self.devices);
        let place = u16::try_from(page.get().checked_sub(first)?).ok()?;
        (place < self.devices).then_some(DeviceNumber(place + 1))
    }

    /// How long one step may take before it counts as stuck.
    pub(super) fn patience(self) -> Duration {
        STEP.saturating_add(Duration::from_secs(self.mapped().get() / BYTES_PER_SECOND))
    }
}

/// A number of bytes for people.
pub(super) fn human(bytes: ByteLen) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = UNITS.iter().find(|(_, shift)| bytes.get() >> shift > 0 && bytes.is_aligned(1 << shift));
    whole.map_or_else(
        || format!("{} B", bytes.get()),
        |(unit, shift)| format!("{} {unit}", bytes.get() >> shift),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pages: u64, domains: u16) -> Result<Plan, PlanError> {
        Plan::new(&DemoArgs { size: ByteLen::new(pages * PAGE_SIZE), domains: domains.try_into().unwrap() })
    }

    #[test]
    fn every_device_owns_the_page_it_writes_and_nobody_the_others() {
        let plan = plan(10, 3).unwrap();
        for device in plan.devices() {
            assert_eq!(plan.owner(plan.page_of(device)), Some(device));
        }
        let owned: Vec<u64> = (0..12).filter(|&page| plan.owner(PageIndex::new(page)).is_some()).collect();
        assert_eq!(owned, [7, 8, 9]);
    }

    #[test]
    fn the_first_half_attaches_early_and_a_single_device_too() {
        let early = |devices| {
            let plan = plan(100, devices).unwrap();
            plan.devices().filter(|&device| plan.attached_early(device)).count()
        };
        assert_eq!([early(1), early(2), early(3), early(4)], [1, 1, 2, 2]);
    }

    #[test]
    fn sizes_that_leave_the_client_no_page_are_refused() {
        assert!(plan(3, 2).is_ok());
        assert!(plan(2, 2).is_err() && plan(0, 1).is_err());
        let odd = DemoArgs { size: ByteLen::new(4097), domains: 1.try_into().unwrap() };
        assert!(Plan::new(&odd).unwrap_err().to_string().contains("--size 4097"));
    }

    #[test]
    fn sizes_are_shown_in_the_largest_whole_unit() {
        let shown = [0, 512, 4096, 64 << 20, (1 << 30) + (1 << 20), 2 << 30].map(|n| human(ByteLen::new(n)));
        assert_eq!(shown, ["0 B", "512 B", "4 KiB", "64 MiB", "1025 MiB", "2 GiB"]);
    }
}
