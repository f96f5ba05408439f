//! The file behind the program's memory: which one it is, and a descriptor of it.
//!
//! A descriptor comes from `/proc/self/map_files`, which takes privilege, or is one that the program has open already.
//!
//! Imports allowed: memory, sys, vmas, the client crate's wire, `libc`.

use std::ffi::{CStr, c_int};
use std::ops::ControlFlow;

use ioasd_client::wire::mock::Extent;
use ioasd_client::wire::record::Record;

use crate::memory::{Address, Range};
use crate::sys::{self, Errno, Fd};
use crate::vmas::{self, Access, Kind, Vma};

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Descriptors of the program that are looked at for one of a file.
const DESCRIPTORS: c_int = 1 << 12;
/// Extents that are told at most.
const EXTENTS: usize = 32;

/// A file that the program's memory is.
pub(crate) struct Backing {
    file: Found,
    /// Where in the file the memory begins.
    pub(crate) offset: u64,
}

/// A descriptor of it.
enum Found {
    /// Ours.
    Opened(Fd),
    /// The program's.
    Theirs(c_int),
}

impl Backing {
    /// The descriptor.
    pub(crate) fn fd(&self) -> c_int {
        match &self.file {
            Found::Opened(file) => file.number(),
            Found::Theirs(file) => *file,
        }
    }
}

/// What is to be done with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Devices read it.
    Read,
    /// Devices write it.
    Write,
}

/// The file that all of `range` is, if it is shared memory of one file that the program may use that way.
pub(crate) fn file_of(range: Range, purpose: Use) -> Option<Backing> {
    let first = one_file(range, purpose)?;
    populate(range, purpose);
    let file = opened(&first, purpose).map(Found::Opened).or_else(|| already_open(&first, purpose))?;
    Some(Backing { file, offset: first.offset_of(range.start.0) })
}

/// The first of the mappings that cover `range`, if they are one file from beginning to end.
fn one_file(range: Range, purpose: Use) -> Option<Vma> {
    let end = range.start.0.checked_add(range.len as u64)?;
    let (mut first, mut whole): (Option<Vma>, bool) = (None, false);
    let looked = vmas::from(range.start, |vma| {
        let start = first.get_or_insert(*vma);
        let goes_on = vma.file == start.file && vma.offset == start.offset_of(vma.start);
        if vma.kind != Kind::Shared || vma.file.1 == 0 || !allows(vma, purpose) || !goes_on {
            return ControlFlow::Break(());
        }
        whole = vma.end >= end;
        if whole { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    first.filter(|_| whole && looked.is_ok())
}

const fn allows(vma: &Vma, purpose: Use) -> bool {
    match purpose {
        Use::Read => !matches!(vma.access, Access::None),
        Use::Write => matches!(vma.access, Access::Write),
    }
}

/// Has every page there before the agent looks: the program's own group pays for it. Where that fails, the agent says
/// so when it pins.
fn populate(range: Range, purpose: Use) {
    let advice = match purpose {
        Use::Read => libc::MADV_POPULATE_READ,
        Use::Write => libc::MADV_POPULATE_WRITE,
    };
    let start = Address(range.start.0 & !(PAGE - 1));
    let len = range.len.saturating_add(usize::try_from(range.start.0 - start.0).unwrap_or_default());
    // Filling pages changes nothing that the program can see; the kernel checks the range.
    let advice = advice.cast_unsigned() as usize;
    let filled = sys::call(libc::SYS_madvise, [start.pointer().addr(), len, advice, 0]);
    debug_assert!(filled != Err(Errno::INVAL) || cfg!(not(test)), "the kernel cannot populate");
}

const fn flags(purpose: Use) -> c_int {
    match purpose {
        Use::Read => libc::O_RDONLY,
        Use::Write => libc::O_RDWR,
    }
}

fn opened(vma: &Vma, purpose: Use) -> Option<Fd> {
    let mut path = [0; 64];
    let (start, end) = (Digits::of(vma.start), Digits::of(vma.end));
    let bytes = b"/proc/self/map_files/".iter().copied().chain(start).chain([b'-']).chain(end);
    for (place, byte) in path.iter_mut().zip(bytes) {
        *place = byte;
    }
    sys::open(CStr::from_bytes_until_nul(&path).ok()?, flags(purpose)).ok()
}

/// The hexadecimal digits of a number, without leading zeros.
struct Digits {
    number: u64,
    left: u32,
}

impl Digits {
    const fn of(number: u64) -> Self {
        let bits = u64::BITS - number.leading_zeros();
        Self { number, left: if bits == 0 { 1 } else { bits.div_ceil(4) } }
    }
}

impl Iterator for Digits {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.left = self.left.checked_sub(1)?;
        let digit = u8::try_from(self.number >> (4 * self.left) & 0xf).ok()?;
        Some(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 })
    }
}

/// A descriptor of the program that is open for this file, and for this use.
fn already_open(vma: &Vma, purpose: Use) -> Option<Found> {
    let fits = |number: &c_int| {
        let same = sys::stat(*number).is_ok_and(|found| found.file == vma.file);
        let mode = |flags: c_int| flags & libc::O_ACCMODE;
        same && sys::open_flags(*number)
            .is_ok_and(|flags| mode(flags) == libc::O_RDWR || mode(flags) == self::flags(purpose))
    };
    (0..DESCRIPTORS).find(fits).map(Found::Theirs)
}

/// Which pages of which files memory is, as the agent compares it.
pub(crate) struct Extents {
    bytes: [u8; EXTENTS * Extent::BYTES],
    len: usize,
}

impl Extents {
    /// Those of `range`, as far as there is memory.
    pub(crate) fn of(range: Range) -> Self {
        let mut extents = Self { bytes: [0; EXTENTS * Extent::BYTES], len: 0 };
        let start = range.start.0 & !(PAGE - 1);
        let end = range.start.0.saturating_add(range.len as u64);
        let looked = vmas::from(Address(start), |vma| {
            extents.push(vma, vma.start.max(start));
            if vma.end >= end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if looked.is_err() {
            extents.len = 0;
        }
        extents
    }

    fn push(&mut self, vma: &Vma, from: u64) {
        let Some(place) = self.bytes.get_mut(self.len..self.len + Extent::BYTES) else { return };
        let pages = (vma.end - from) / PAGE;
        let extent = match vma.kind {
            Kind::Shared => {
                let (device, inode) = vma.file;
                Extent { device, inode, page: vma.offset_of(from) / PAGE, pages }
            }
            Kind::Private => Extent { page: from / PAGE, pages, ..Extent::default() },
        };
        extent.store(place);
        self.len += Extent::BYTES;
    }

    /// Where they lie.
    pub(crate) fn range(&self) -> Range {
        Range::of(self.bytes.get(..self.len).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_kernel() {
        for number in [0, 1, 0xf, 0x10, 0x7f86_d118_6000, u64::MAX] {
            let digits: Vec<u8> = Digits::of(number).collect();
            assert_eq!(String::from_utf8(digits).unwrap(), format!("{number:x}"));
        }
    }
}
