//! What the program's memory is: its mappings as the kernel lists them, read without allocating.
//!
//! Imports allowed: memory, sys, `libc`.

use std::ops::ControlFlow;

use libc::makedev;

use crate::memory::Address;
use crate::sys::{self, Errno};

/// Bytes that are read at once.
const BUFFER: usize = 4096;
/// What counts of a line; a path follows.
const LINE: usize = 128;

/// One mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vma {
    /// Its first address.
    pub(crate) start: u64,
    /// The address behind it.
    pub(crate) end: u64,
    /// Whether the program may write there.
    pub(crate) access: Access,
    /// Whose memory it is.
    pub(crate) kind: Kind,
    /// Where in the file it begins.
    pub(crate) offset: u64,
    /// The device and the inode of the file; 0 without one.
    pub(crate) file: (u64, u64),
}

/// What the program may do with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing.
    None,
    /// Read, at least.
    Read,
    /// Read and write.
    Write,
}

/// Whose memory a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Shared: that of its file.
    Shared,
    /// The program's own.
    Private,
}

impl Vma {
    /// The offset in the file of an address in the mapping.
    pub(crate) const fn offset_of(&self, address: u64) -> u64 {
        self.offset.wrapping_add(address.wrapping_sub(self.start))
    }
}

/// Shows the mappings that cover memory from `from` on, in order and without a gap, as long as `see` goes on.
///
/// # Errors
/// If the kernel's list cannot be read.
pub(crate) fn from(from: Address, mut see: impl FnMut(&Vma) -> ControlFlow<()>) -> Result<(), Errno> {
    let mut next = from.0;
    each(|vma| {
        if vma.end <= next {
            return ControlFlow::Continue(());
        }
        if vma.start > next {
            return ControlFlow::Break(());
        }
        next = vma.end;
        see(vma)
    })
}

fn each(mut see: impl FnMut(&Vma) -> ControlFlow<()>) -> Result<(), Errno> {
    let list = sys::open(c"/proc/self/maps", libc::O_RDONLY)?;
    let mut buffer = [0; BUFFER];
    let mut line = Line::default();
    loop {
        let len = sys::read(&list, &mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        for byte in buffer.iter().take(len) {
            if *byte != b'\n' {
                line.push(*byte);
            } else if let Some(vma) = std::mem::take(&mut line).parse()
                && see(&vma).is_break()
            {
                return Ok(());
            }
        }
    }
}

/// The beginning of a line.
struct Line {
    bytes: [u8; LINE],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; LINE], len: 0 }
    }
}

impl Line {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    /// `start-end rwxs offset major:minor inode`
    fn parse(self) -> Option<Vma> {
        let line = self.bytes.get(..self.len)?;
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let (start, end) = pair(words.next()?, b'-')?;
        let rights = words.next()?;
        let offset = hexadecimal(words.next()?)?;
        let (major, minor) = pair(words.next()?, b':')?;
        let inode = number(words.next()?, 10)?;
        let device = makedev(u32::try_from(major).ok()?, u32::try_from(minor).ok()?);
        let access = match (rights.first()?, rights.get(1)?) {
            (b'r', b'w') => Access::Write,
            (b'r', _) => Access::Read,
            _ => Access::None,
        };
        let kind = if rights.get(3)? == &b's' { Kind::Shared } else { Kind::Private };
        Some(Vma { start, end, access, kind, offset, file: (device, inode) })
    }
}

fn pair(word: &[u8], separator: u8) -> Option<(u64, u64)> {
    let mut parts = word.split(|byte| *byte == separator);
    Some((hexadecimal(parts.next()?)?, hexadecimal(parts.next()?)?))
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    number(digits, 16)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let digit = |byte: &u8| char::from(*byte).to_digit(radix).map(u64::from);
    let whole = |number: u64, byte| number.checked_mul(radix.into())?.checked_add(digit(byte)?);
    digits.iter().try_fold(0, whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Vma> {
        let mut line = Line::default();
        text.bytes().for_each(|byte| line.push(byte));
        line.parse()
    }

    #[test]
    fn a_line_is_read_as_the_kernel_writes_it() {
        let path = "x".repeat(500);
        let line = format!("7f86d1186000-7f86d1188000 rw-s 00001000 fd:0a 54907      /{path} (deleted)");
        let expected = Vma {
            start: 0x7f86_d118_6000,
            end: 0x7f86_d118_8000,
            access: Access::Write,
            kind: Kind::Shared,
            offset: 0x1000,
            file: (makedev(0xfd, 10), 54907),
        };
        assert_eq!(parse(&line), Some(expected));
        assert_eq!(expected.offset_of(0x7f86_d118_7008), 0x2008);
        let private = parse("00400000-00401000 ---p 00000000 00:00 0").unwrap();
        assert_eq!((private.access, private.kind, private.file), (Access::None, Kind::Private, (0, 0)));
        assert_eq!(parse(""), None);
        assert_eq!(parse("1-2 rw-s 0 0:0"), None);
    }

    #[test]
    fn the_stack_of_this_test_is_private_and_can_be_written() {
        let here = 0_u64;
        let address = Address((&raw const here).expose_provenance() as u64);
        let mut found = None;
        from(address, |vma| {
            found = Some(*vma);
            ControlFlow::Break(())
        })
        .unwrap();
        let found = found.unwrap();
        assert!((found.start..found.end).contains(&address.0));
        assert_eq!((found.access, found.kind), (Access::Write, Kind::Private));
        from(Address(8), |vma| panic!("nothing is there, but {vma:?}")).unwrap();
    }
}
