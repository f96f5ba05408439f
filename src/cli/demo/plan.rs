//! How much memory and how many devices, where each page lies, and to whom it belongs.
//!
//! ```text
//!   file   | contiguous: one MAP_FILE, large leaves | scattered: a MAP_FILE a page, in another order |
//!   IOVA   | as in the file                         | next to each other are pages that are not      |
//! ```
//!
//! The last pages belong to the devices, one each; all others to the client. Devices 1, 3, 5.. walk AMD v1 tables, the
//! others Intel VT-d ones. The first half is attached to the address space that is mapped, the second half to a copy.
//!
//! Imports allowed: units, the client crate's formats, the command line's arguments.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use ioasd_client::formats::FormatId;
use ioasd_client::units::{ByteLen, Iova, PAGE_SHIFT, PAGE_SIZE, PageIndex};

use crate::cli::DemoArgs;
pub(super) use crate::cli::size::human;

/// How long one step may take, whatever its size.
const STEP: Duration = Duration::from_secs(60);

/// Mapped bytes that every machine moves in a second, slow builds too.
const BYTES_PER_SECOND: u64 = 8 << 20;

/// The scattered part has at most this many bytes, and at most this part of the memory.
const SCATTERED_MAX: u64 = 16 << 20;
const SCATTERED_PART: u64 = 4;

/// The number of a device, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceNumber(pub(super) u16);

/// One of the two address spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// The one that is mapped.
    Mapped,
    /// The one that gets a copy of it.
    Copied,
}

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

/// The memory does not fit behind an IOVA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory does not fit behind IOVA {base}")]
pub(super) struct PlacesError {
    pub(super) base: Iova,
}

/// How long the memory stays mapped once everything was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// It is unmapped at once.
    Short,
    /// Until somebody interrupts the demo.
    UntilInterrupted,
}

/// What the demo shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    size: ByteLen,
    devices: u16,
    stay: Stay,
}

impl Plan {
    /// What the command line asks for.
    pub(super) fn new(args: &DemoArgs) -> Result<Self, PlanError> {
        let (size, devices) = (args.size, args.domains.get());
        let stay = if args.hold { Stay::UntilInterrupted } else { Stay::Short };
        let plan = Self { size, devices, stay };
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
        if self.stay == Stay::UntilInterrupted {
            command.arg("--hold");
        }
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

    /// The format of the table that a device walks.
    pub(super) const fn format(self, device: DeviceNumber) -> FormatId {
        if device.0 % 2 == 1 { FormatId::AmdV1 } else { FormatId::VtdSs }
    }

    /// The address space that a device is attached to.
    pub(super) const fn space(self, device: DeviceNumber) -> Space {
        if device.0 <= self.devices.div_ceil(2) { Space::Mapped } else { Space::Copied }
    }

    /// Whether a device attaches before anything is mapped; the others meet a full address space.
    pub(super) const fn attached_early(self, device: DeviceNumber) -> bool {
        device.0 % 2 == 1
    }

    /// Pages at the start of the file that are mapped in one piece.
    pub(super) fn contiguous(self) -> u64 {
        self.pages() - self.scattered()
    }

    /// Pages behind them that are mapped one by one.
    pub(super) fn scattered(self) -> u64 {
        self.pages().div_ceil(SCATTERED_PART).min(SCATTERED_MAX >> PAGE_SHIFT)
    }

    /// Where `page` of the file lies in an address space, counted in pages from the first one mapped.
    pub(super) fn place_of(self, page: PageIndex) -> PageIndex {
        let (first, count) = (self.contiguous(), self.scattered());
        match page.get().checked_sub(first) {
            None => page,
            Some(turn) => PageIndex::new(first + turn * stride(count) % count),
        }
    }

    /// The IOVA of `page` in an address space whose first one mapped is `base`.
    pub(super) fn iova_of(self, base: Iova, page: PageIndex) -> Result<Iova, PlacesError> {
        base.checked_add(self.place_of(page).byte_offset().get()).ok_or(PlacesError { base })
    }

    /// Areas of one address space.
    pub(super) fn areas(self) -> u64 {
        1 + self.scattered()
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

    pub(super) const fn stay(self) -> Stay {
        self.stay
    }

    /// How long a device may have to wait for the unmap.
    pub(super) fn patience_for_unmap(self) -> Duration {
        match self.stay {
            Stay::Short => self.patience(),
            Stay::UntilInterrupted => Duration::MAX,
        }
    }

    /// What a device that waits for the unmap rests between two bursts.
    pub(super) const fn rest(self) -> Duration {
        match self.stay {
            Stay::Short => Duration::ZERO,
            Stay::UntilInterrupted => Duration::from_millis(10),
        }
    }

    /// How long one step may take before it counts as stuck.
    pub(super) fn patience(self) -> Duration {
        STEP.saturating_add(Duration::from_secs(self.mapped().get() / BYTES_PER_SECOND))
    }
}

/// A step through `count` places that reaches each once and puts neighbours far apart.
fn stride(count: u64) -> u64 {
    let coprime = |step: &u64| greatest_common_divisor(*step, count) == 1;
    (count * 5 / 8..).find(coprime).unwrap_or(1)
}

const fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pages: u64, domains: u16) -> Result<Plan, PlanError> {
        Plan::new(&DemoArgs {
            size: ByteLen::new(pages * PAGE_SIZE),
            domains: domains.try_into().unwrap(),
            hold: false,
        })
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
    fn four_devices_walk_both_formats_in_both_spaces_and_meet_them_empty_and_full() {
        let plan = plan(100, 4).unwrap();
        let what = |device| (plan.format(device), plan.space(device), plan.attached_early(device));
        let (amd, vtd) = (FormatId::AmdV1, FormatId::VtdSs);
        let expected = [
            (amd, Space::Mapped, true),
            (vtd, Space::Mapped, false),
            (amd, Space::Copied, true),
            (vtd, Space::Copied, false),
        ];
        assert_eq!(plan.devices().map(what).collect::<Vec<_>>(), expected);
        let single = self::plan(2, 1).unwrap();
        assert_eq!(single.space(DeviceNumber(1)), Space::Mapped);
    }

    #[test]
    fn every_page_has_a_place_of_its_own_and_scattered_neighbours_lie_apart() {
        for pages in [2, 3, 5, 8, 100, 1000, 20_000] {
            let plan = plan(pages, 1).unwrap();
            let mut places: Vec<_> =
                (0..pages).map(|page| plan.place_of(PageIndex::new(page)).get()).collect();
            let together = places.windows(2).skip(usize::try_from(plan.contiguous()).unwrap());
            assert!(plan.scattered() < 8 || together.clone().all(|pair| pair[0].abs_diff(pair[1]) > 1));
            places.sort_unstable();
            assert_eq!(places, (0..pages).collect::<Vec<_>>());
            assert_eq!(plan.contiguous() + plan.scattered(), pages);
        }
        assert_eq!(plan(1 << 18, 4).unwrap().scattered(), 4096);
    }

    #[test]
    fn sizes_that_leave_the_client_no_page_are_refused() {
        assert!(plan(3, 2).is_ok());
        assert!(plan(2, 2).is_err() && plan(0, 1).is_err());
        let odd = DemoArgs { size: ByteLen::new(4097), domains: 1.try_into().unwrap(), hold: false };
        assert!(Plan::new(&odd).unwrap_err().to_string().contains("--size 4097"));
    }

    #[test]
    fn sizes_are_shown_in_the_largest_whole_unit() {
        let shown = [0, 512, 4096, 64 << 20, (1 << 30) + (1 << 20), 2 << 30].map(|n| human(ByteLen::new(n)));
        assert_eq!(shown, ["0 B", "512 B", "4 KiB", "64 MiB", "1025 MiB", "2 GiB"]);
    }
}
