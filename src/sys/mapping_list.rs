//! Mappings of a process, asked for one by one by an address (Linux 6.11), or found in the list of all.
//!
//! Imports allowed: units, rustix.
#![expect(unsafe_code, reason = "an ioctl that rustix does not have")]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::fd::AsRawFd;

use ioasd_client::units::{ByteLen, PAGE_SIZE, UserAddr};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::process_memory::Access;

/// `PROCMAP_QUERY`: an exchange of 104 bytes, number 17 of the letter `f`.
const QUERY: libc::Ioctl = 0xc068_6611;

const READABLE: u64 = 1;
const WRITABLE: u64 = 2;

/// `/proc/PID/maps` of some process.
#[derive(Debug)]
pub struct MappingList(Mutex<File>);

/// One mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The address behind it.
    pub end: UserAddr,
    /// What the process may do there.
    pub access: Access,
    /// The size of its pages, as far as the kernel tells.
    pub page: ByteLen,
}

/// What the kernel is asked and answers: `struct procmap_query`.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    rights: u64,
    page: u64,
    offset: u64,
    inode: u64,
    device: [u32; 2],
    name_size: u32,
    build_id_size: u32,
    name: u64,
    build_id: u64,
}

const _: () = assert!(size_of::<Query>() == 104, "the size is part of the ioctl's number");

impl MappingList {
    /// The list that `file` is.
    #[must_use]
    pub const fn new(file: File) -> Self {
        Self(Mutex::new(file))
    }

    /// The mapping around an address, if there is one.
    ///
    /// # Errors
    /// If the list cannot be read any more.
    pub fn at(&self, address: UserAddr) -> Result<Option<Mapping>, Errno> {
        let mut list = self.0.lock();
        match ask(&list, address) {
            Err(Errno::NOTTY) => search(&mut list, address),
            asked => asked,
        }
    }
}

fn ask(list: &File, address: UserAddr) -> Result<Option<Mapping>, Errno> {
    let mut query = Query { size: size_of::<Query>() as u64, address: address.get(), ..Query::default() };
    // SAFETY: the struct is as long as it says, and lives across the call.
    let answer = unsafe { libc::ioctl(list.as_raw_fd(), QUERY, &raw mut query) };
    if answer < 0 {
        let errno = errno(&io::Error::last_os_error());
        return if errno == Errno::NOENT { Ok(None) } else { Err(errno) };
    }
    let access = match query.rights & (READABLE | WRITABLE) {
        rights if rights == READABLE | WRITABLE => Access::Write,
        READABLE => Access::Read,
        _ => Access::None,
    };
    Ok(Some(Mapping { end: UserAddr::new(query.end), access, page: ByteLen::new(query.page) }))
}

fn search(list: &mut File, address: UserAddr) -> Result<Option<Mapping>, Errno> {
    list.rewind().map_err(|error| errno(&error))?;
    for line in BufReader::new(list).lines() {
        let line = line.map_err(|error| errno(&error))?;
        match parse(&line) {
            Some((_, mapping)) if mapping.end <= address => {}
            Some((start, mapping)) if start <= address => return Ok(Some(mapping)),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// `start-end rwxs ...`
fn parse(line: &str) -> Option<(UserAddr, Mapping)> {
    let mut words = line.split(' ');
    let (start, end) = words.next()?.split_once('-')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok().map(UserAddr::new);
    let access = match words.next()?.as_bytes() {
        [b'r', b'w', ..] => Access::Write,
        [b'r', ..] => Access::Read,
        _ => Access::None,
    };
    Some((number(start)?, Mapping { end: number(end)?, access, page: ByteLen::new(PAGE_SIZE) }))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_and_searching_find_the_same() {
        static CONSTANT: [u8; 16] = [7; 16];
        let buffer = vec![1_u8; 1 << 20];
        let mut list = File::open("/proc/self/maps").unwrap();
        for place in [CONSTANT.as_ptr(), buffer.as_ptr(), std::ptr::without_provenance(8)] {
            let address = UserAddr::new(place.expose_provenance() as u64);
            let found = search(&mut list, address).unwrap();
            match ask(&list, address) {
                Err(errno) => assert_eq!(errno, Errno::NOTTY),
                asked => assert_eq!(asked, Ok(found)),
            }
            assert_eq!(found.is_some(), address.get() != 8);
            assert_eq!(MappingList::new(list.try_clone().unwrap()).at(address), Ok(found));
        }
    }
}
