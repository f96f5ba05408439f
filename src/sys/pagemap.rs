//! Physical frames of pinned pages, from this process's own page tables (`/proc/self/pagemap`).
//!
//! Huge extents are found first with `PAGEMAP_SCAN` (Linux 6.7): one entry tells 512 frames. The rest is read in
//! one call. Without CAP_SYS_ADMIN the kernel shows frame 0 everywhere.
//! Source: Documentation/admin-guide/mm/pagemap.rst, Linux 6.18.
//!
//! Imports allowed: units, fault_points, failure, client_mapping, libc, rustix.
#![expect(unsafe_code, reason = "an ioctl that rustix does not have")]

use std::fs::File;
use std::mem::size_of;
use std::os::fd::AsRawFd;

use ioasd_client::units::{PAGE_SIZE, Pfn};
use rustix::io::{Errno, pread};

use super::client_mapping::{ClientMapping, Part};
use super::failure::{SysError, call};
use crate::fault_points::Point;

const OBJECT: &str = "/proc/self/pagemap";

/// Bytes of an entry.
const ENTRY: usize = 8;

/// The page is there.
const PRESENT: u64 = 1 << 63;

/// The bits of an entry that are the frame.
const FRAME: u64 = (1 << 55) - 1;

/// Pages of a huge page that one page-table entry maps.
const HUGE_PAGES: u64 = 512;

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610;

/// `PAGE_IS_HUGE`: mapped by one entry of a higher table.
const IS_HUGE: u64 = 1 << 6;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_length: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// Consecutive frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRun {
    /// The first.
    pub first: Pfn,
    /// How many.
    pub pages: u64,
}

/// This process's page tables.
#[derive(Debug)]
pub struct Pagemap(File);

impl Pagemap {
    /// Opens them.
    ///
    /// # Errors
    /// If `/proc` does not have them.
    pub fn open() -> Result<Self, SysError> {
        let open = || File::open(OBJECT).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        call(Point::Pagemap, "open", OBJECT, open).map(Self)
    }

    /// The frames of `part`, every page of which is mapped, in order.
    ///
    /// # Errors
    /// EPERM if frames are not shown; EFAULT if a page is not mapped; what else the kernel says.
    pub fn frames(&self, mapping: &ClientMapping, part: Part) -> Result<Vec<FrameRun>, SysError> {
        call(Point::Pagemap, "read", OBJECT, || {
            let (base, length) = mapping.place(part)?;
            let (first, pages) = (base.addr() as u64 / PAGE_SIZE, length as u64 / PAGE_SIZE);
            match self.one_huge_extent(first, pages) {
                true => self.huge_frames(first, pages),
                false => self.small_frames(first, pages),
            }
        })
    }

    /// Whether all of `pages` pages from `first` on are mapped by entries of a higher table.
    fn one_huge_extent(&self, first: u64, pages: u64) -> bool {
        let mut found = Region::default();
        let mut arguments = ScanArguments {
            size: size_of::<ScanArguments>() as u64,
            start: first * PAGE_SIZE,
            end: (first + pages) * PAGE_SIZE,
            regions: (&raw mut found).addr() as u64,
            regions_length: 1,
            category_mask: IS_HUGE,
            return_mask: IS_HUGE,
            ..ScanArguments::default()
        };
        // SAFETY: the structure has the layout of the call, and names one region that lives across it; the range is only
        // looked up in page tables.
        let regions = unsafe { libc::ioctl(self.0.as_raw_fd(), PAGEMAP_SCAN, &raw mut arguments) };
        regions == 1 && found.start == arguments.start && found.end == arguments.end
    }

    /// One entry for each huge page; the range may begin and end inside of one.
    fn huge_frames(&self, first: u64, pages: u64) -> Result<Vec<FrameRun>, Errno> {
        let (mut at, end) = (first, first + pages);
        let mut runs = Vec::new();
        while at < end {
            let next = ((at / HUGE_PAGES + 1) * HUGE_PAGES).min(end);
            let mut entry = [0; ENTRY];
            self.read(at, &mut entry)?;
            append(&mut runs, FrameRun { first: frame(entry)?, pages: next - at });
            at = next;
        }
        Ok(runs)
    }

    fn small_frames(&self, first: u64, pages: u64) -> Result<Vec<FrameRun>, Errno> {
        let mut entries = vec![0; usize::try_from(pages).map_err(|_| Errno::NOMEM)? * ENTRY];
        self.read(first, &mut entries)?;
        let mut runs = Vec::new();
        for entry in entries.as_chunks::<ENTRY>().0 {
            append(&mut runs, FrameRun { first: frame(*entry)?, pages: 1 });
        }
        Ok(runs)
    }

    /// Fills `entries` from that of page `first` on.
    fn read(&self, first: u64, entries: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while let Some(rest) = entries.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match pread(&self.0, rest, first * ENTRY as u64 + done as u64)? {
                0 => return Err(Errno::FAULT),
                count => done += count,
            }
        }
        Ok(())
    }
}

fn frame(entry: [u8; ENTRY]) -> Result<Pfn, Errno> {
    let entry = u64::from_ne_bytes(entry);
    match (entry & PRESENT, entry & FRAME) {
        (0, _) => Err(Errno::FAULT),
        (_, 0) => Err(Errno::PERM),
        (_, frame) => Ok(Pfn::new(frame)),
    }
}

fn append(runs: &mut Vec<FrameRun>, next: FrameRun) {
    match runs.last_mut() {
        Some(last) if last.first.get() + last.pages == next.first.get() => last.pages += next.pages,
        _ => runs.push(next),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use ioasd_client::units::ByteLen;
    use rustix::fs::FallocateFlags;
    use rustix::fs::{MemfdFlags, fallocate, ftruncate, memfd_create};

    use super::*;
    use crate::error::Coded;
    use crate::sys::file_state::FileAccess;

    fn part(first: u64, pages: u64) -> Part {
        Part { offset: ByteLen::new(first * PAGE_SIZE), length: ByteLen::new(pages * PAGE_SIZE) }
    }

    fn mapped(file: &OwnedFd, pages: u64) -> ClientMapping {
        ftruncate(file, pages * PAGE_SIZE).unwrap();
        ClientMapping::new(file.as_fd(), part(0, pages), FileAccess::ReadWrite).unwrap()
    }

    /// The frames, unless this process is not shown any.
    fn frames(test: &str, mapping: &ClientMapping, part: Part) -> Option<Vec<FrameRun>> {
        match Pagemap::open().unwrap().frames(mapping, part) {
            Err(error) if error.errno() == Errno::PERM => {
                crate::skip!("{test}: no CAP_SYS_ADMIN, so the kernel shows no frames");
                None
            }
            runs => Some(runs.unwrap()),
        }
    }

    #[test]
    fn every_page_has_a_frame_of_its_own() {
        let file = memfd_create("pagemap", MemfdFlags::CLOEXEC).unwrap();
        let mapping = mapped(&file, 64);
        mapping.populate(part(0, 64)).unwrap();
        let Some(runs) = frames("every_page_has_a_frame_of_its_own", &mapping, part(0, 64)) else { return };
        assert_eq!(runs.iter().map(|run| run.pages).sum::<u64>(), 64);
        let mut seen: Vec<u64> =
            runs.iter().flat_map(|run| (0..run.pages).map(|page| run.first.get() + page)).collect();
        let alone = frames("every_page_has_a_frame_of_its_own", &mapping, part(5, 1)).unwrap();
        assert_eq!(alone[0].first.get(), seen[5]);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 64);
    }

    #[test]
    fn a_page_that_is_not_mapped_has_no_frame() {
        let file = memfd_create("pagemap", MemfdFlags::CLOEXEC).unwrap();
        let mapping = mapped(&file, 2);
        let error = Pagemap::open().unwrap().frames(&mapping, part(0, 2)).unwrap_err();
        assert_eq!(error.errno(), Errno::FAULT);
    }

    #[test]
    fn a_huge_page_is_one_run_also_from_its_middle() {
        const TEST: &str = "a_huge_page_is_one_run_also_from_its_middle";
        let file = memfd_create("pagemap-huge", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB).unwrap();
        let mapping = mapped(&file, 1024);
        if let Err(errno) = fallocate(&file, FallocateFlags::empty(), 0, 4 << 20) {
            crate::skip!("{TEST}: no huge pages ({errno}); see /proc/sys/vm/nr_hugepages");
            return;
        }
        mapping.populate(part(0, 1024)).unwrap();
        let Some(runs) = frames(TEST, &mapping, part(100, 600)) else { return };
        assert_eq!(runs.iter().map(|run| run.pages).sum::<u64>(), 600);
        assert!(runs.len() <= 2 && runs[0].first.get() % 512 == 100, "{runs:?}");
    }
}
