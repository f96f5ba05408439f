//! What stands in a page: words that follow from who wrote it, which page it is and where in it they stand.
//!
//! No two words are alike by more than chance, so a byte from another page, another place or another writer is seen.
//! While devices write their own pages, others may read them: each word is then the client's or the owner's, whole.
//!
//! Imports allowed: units, the plan.

use std::array;

use ioasd_client::units::{PAGE_SIZE, PageIndex};

use super::plan::{DeviceNumber, Plan};

/// Bytes of a page, as an array length.
pub(super) const PAGE_BYTES: usize = 1 << ioasd_client::units::PAGE_SHIFT;

const WORDS: u64 = PAGE_SIZE / 8;

/// Who wrote a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// The client, before it mapped the memory.
    Client,
    /// A device, through its IO page table.
    Device(DeviceNumber),
    /// The client, after the unmap: no device may ever see this.
    Afterwards,
}

impl Writer {
    fn seed(self) -> u64 {
        match self {
            Self::Client => splitmix(1),
            Self::Afterwards => splitmix(2),
            Self::Device(DeviceNumber(number)) => splitmix(u64::from(number) << 32),
        }
    }

    /// The word at place `at` of `page`.
    fn word(self, page: PageIndex, at: u64) -> u64 {
        splitmix(self.seed() ^ (page.get() * WORDS + at))
    }

    /// The bytes of `page`.
    pub(super) fn page(self, page: PageIndex) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        for (at, chunk) in (0..).zip(bytes.as_chunks_mut::<8>().0) {
            *chunk = self.word(page, at).to_le_bytes();
        }
        bytes
    }
}

/// Spreads the bits of a counter over a word (splitmix64).
pub(super) const fn splitmix(counter: u64) -> u64 {
    let z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A byte that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "wrong byte in page {page} at offset {offset:#x}: found {found:#04x}, expected {expected:#04x} of {writer:?}"
)]
pub(super) struct WrongByte {
    page: PageIndex,
    offset: usize,
    found: u8,
    expected: u8,
    writer: Writer,
}

/// Checks that `bytes` are what one writer left in `page`.
pub(super) fn check(writer: Writer, page: PageIndex, bytes: &[u8; PAGE_BYTES]) -> Result<(), WrongByte> {
    check_either(&[writer], page, bytes)
}

/// Checks that `bytes` are what may stand in `page` while devices write.
pub(super) fn check_shared(plan: Plan, page: PageIndex, bytes: &[u8; PAGE_BYTES]) -> Result<(), WrongByte> {
    match plan.owner(page) {
        None => check_either(&[Writer::Client], page, bytes),
        Some(owner) => check_either(&[Writer::Client, Writer::Device(owner)], page, bytes),
    }
}

fn check_either(writers: &[Writer], page: PageIndex, bytes: &[u8; PAGE_BYTES]) -> Result<(), WrongByte> {
    for (at, chunk) in (0..).zip(bytes.as_chunks::<8>().0) {
        let found = u64::from_le_bytes(*chunk);
        if !writers.iter().any(|writer| writer.word(page, at) == found) {
            return Err(first_difference(
                writers.first().copied().unwrap_or(Writer::Client),
                page,
                at,
                *chunk,
            ));
        }
    }
    Ok(())
}

fn first_difference(writer: Writer, page: PageIndex, at: u64, found: [u8; 8]) -> WrongByte {
    let expected = writer.word(page, at).to_le_bytes();
    let pairs = array::from_fn::<_, 8, _>(|byte| (byte, found.get(byte), expected.get(byte)));
    let (byte, found, expected) = pairs
        .into_iter()
        .find_map(|(byte, found, expected)| (found != expected).then_some((byte, *found?, *expected?)))
        .unwrap_or_default();
    let offset = usize::try_from(at * 8).unwrap_or(usize::MAX) + byte;
    WrongByte { page, offset, found, expected, writer }
}

/// A sum over words in their order, for people to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checksum(u64);

impl Checksum {
    pub(super) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds the words of a page.
    pub(super) fn add(&mut self, bytes: &[u8; PAGE_BYTES]) {
        for chunk in bytes.as_chunks::<8>().0 {
            self.0 = (self.0 ^ u64::from_le_bytes(*chunk)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use ioasd_client::units::ByteLen;

    use super::*;
    use crate::cli::DemoArgs;

    const PAGE: PageIndex = PageIndex::new(3);

    fn plan() -> Plan {
        let args =
            DemoArgs { size: ByteLen::new(8 * PAGE_SIZE), domains: 2.try_into().unwrap(), hold: false };
        Plan::new(&args).unwrap()
    }

    #[test]
    fn a_page_passes_for_its_writer_and_number_only() {
        let bytes = Writer::Client.page(PAGE);
        assert_eq!(check(Writer::Client, PAGE, &bytes), Ok(()));
        assert!(check(Writer::Client, PAGE.next(), &bytes).is_err());
        assert!(check(Writer::Afterwards, PAGE, &bytes).is_err());
        assert!(check(Writer::Device(DeviceNumber(1)), PAGE, &bytes).is_err());
    }

    #[test]
    fn every_single_wrong_byte_is_found_where_it_stands() {
        for offset in 0..PAGE_BYTES {
            let mut bytes = Writer::Client.page(PAGE);
            bytes[offset] ^= 0x10;
            let error = check_shared(plan(), PAGE, &bytes).unwrap_err();
            assert_eq!((error.page, error.offset, error.found), (PAGE, offset, bytes[offset]));
            assert_eq!(error.expected, bytes[offset] ^ 0x10);
        }
    }

    #[test]
    fn a_page_being_written_mixes_whole_words_of_its_owner_only() {
        let (first, second) = (DeviceNumber(1), DeviceNumber(2));
        let page = plan().page_of(first);
        let mixed = |writer: Writer| {
            let mut bytes = Writer::Client.page(page);
            bytes[..64].copy_from_slice(&writer.page(page)[..64]);
            bytes
        };
        assert_eq!(check_shared(plan(), page, &mixed(Writer::Device(first))), Ok(()));
        assert!(check_shared(plan(), page, &mixed(Writer::Device(second))).is_err());
        assert!(check_shared(plan(), page, &mixed(Writer::Afterwards)).is_err());
        let mut torn = mixed(Writer::Device(first));
        torn[60..64].copy_from_slice(&Writer::Client.page(page)[60..64]);
        assert!(check_shared(plan(), page, &torn).is_err());
    }

    #[test]
    fn the_checksum_depends_on_the_order_of_pages() {
        let sum = |pages: [u64; 2]| {
            let mut sum = Checksum::new();
            pages.iter().for_each(|&page| sum.add(&Writer::Client.page(PageIndex::new(page))));
            sum
        };
        assert_eq!(sum([0, 1]), sum([0, 1]));
        assert_ne!(sum([0, 1]), sum([1, 0]));
    }
}
