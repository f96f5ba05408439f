//! The first page of an arena.
//!
//! ```text
//! offset 0    magic, version, format, levels, granule, output width, aperture start, aperture last,
//!             root, arena length, boot id (2 words): constant
//! offset 128  epoch, generation, alive, windows: change while walkers look
//! ```
//!
//! All are little-endian 64-bit words. The live words share one cache line: a walker reads all of them when it enters,
//! and the agent changes epoch and generation together.
//!
//! Imports allowed: units, formats.

use crate::formats::{FormatId, Geometry, TABLE_BYTES, TableAddr};
use crate::units::{ByteLen, Iova, IovaRange};

/// Words of the constant part.
pub const HEADER_WORDS: usize = 12;

/// Bytes before the first table.
pub const HEADER_BYTES: u64 = TABLE_BYTES;

/// Where the epoch lies: counts the unmaps that walkers must have left behind.
pub const EPOCH_OFFSET: u64 = 128;

/// Where the generation lies: whatever was translated under another generation may be stale.
pub const GENERATION_OFFSET: u64 = 136;

/// Where the alive word lies.
pub const ALIVE_OFFSET: u64 = 144;

/// Where the number of the windows lies: frames may name other files than they did under another one.
pub const WINDOWS_OFFSET: u64 = 152;

/// The alive word of a domain that is served.
pub const IS_ALIVE: u64 = 1;

/// The alive word of a domain that is served, and of which walkers log what they write.
pub const IS_LOGGED: u64 = 2;

/// The alive word of a domain that is gone.
pub const IS_DEAD: u64 = 0;

/// The epoch of a new arena. Never 0, which stands for "outside" in a slot.
pub const FIRST_EPOCH: u64 = 1;

/// The constant words end before the live ones, which share a cache line of the first page.
const _: () = {
    assert!(HEADER_WORDS as u64 * 8 <= EPOCH_OFFSET);
    assert!(EPOCH_OFFSET / 64 == GENERATION_OFFSET / 64 && EPOCH_OFFSET / 64 == ALIVE_OFFSET / 64);
    assert!(EPOCH_OFFSET / 64 == WINDOWS_OFFSET / 64 && WINDOWS_OFFSET + 8 <= HEADER_BYTES);
};

const MAGIC: u64 = u64::from_le_bytes(*b"ioasdTBL");
const VERSION: u64 = 4;

/// Tells one life of the host from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BootId(pub [u8; 16]);

/// The constant part of an arena's first page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaHeader {
    /// Format, levels, widths and aperture of the table.
    pub geometry: Geometry,
    /// The root table.
    pub root: TableAddr,
    /// Bytes in the arena, header included.
    pub length: ByteLen,
    /// The boot of the host in which it was made.
    pub boot: BootId,
}

/// Why a page is not the header of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The first word is something else.
    #[error("not a table arena: its first word is {0:#x}; was the right descriptor passed")]
    Magic(u64),
    /// A version this library does not know.
    #[error("arena layout version {0} is not known here; use a library as new as the agent")]
    Version(u64),
    /// A format this library does not know.
    #[error("page-table format {0} is not known here; use a library as new as the agent")]
    Format(u64),
    /// A value that no arena has.
    #[error("the arena header says {field} {value:#x}, which cannot be")]
    Field {
        /// The field.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

impl ArenaHeader {
    /// The words to be written at offset 0.
    #[must_use]
    pub fn encode(&self) -> [u64; HEADER_WORDS] {
        let Geometry { format, levels, granule_lg2, output_lg2, aperture } = self.geometry;
        let (boot_low, boot_high) = split(u128::from_le_bytes(self.boot.0));
        [
            MAGIC,
            VERSION,
            u64::from(format.number()),
            u64::from(levels),
            u64::from(granule_lg2),
            u64::from(output_lg2),
            aperture.start().get(),
            aperture.last().get(),
            self.root.get(),
            self.length.get(),
            boot_low,
            boot_high,
        ]
    }

    /// Reads the words at offset 0. What it returns is consistent in itself; the length of the file is not known here.
    ///
    /// # Errors
    /// If this is no arena, a newer one, or one that contradicts itself.
    pub fn decode(words: &[u64; HEADER_WORDS]) -> Result<Self, HeaderError> {
        let [magic, version, format, levels, granule, output, start, last, root, length, boot_low, boot_high] =
            *words;
        if magic != MAGIC {
            return Err(HeaderError::Magic(magic));
        }
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let geometry = Geometry {
            format: known_format(format)?,
            levels: at_most("levels", levels, 6)?,
            granule_lg2: at_most("granule", granule, 63)?,
            output_lg2: at_most("output width", output, 64)?,
            aperture: IovaRange::new(Iova::new(start), Iova::new(last))
                .ok_or(HeaderError::Field { field: "aperture last", value: last })?,
        };
        let boot = BootId(join(boot_low, boot_high).to_le_bytes());
        let root = table_within(root, length)?;
        Ok(Self { geometry, root, length: ByteLen::new(length), boot })
    }
}

fn known_format(number: u64) -> Result<FormatId, HeaderError> {
    let format = u32::try_from(number).ok().and_then(FormatId::from_number);
    format.ok_or(HeaderError::Format(number))
}

fn at_most(field: &'static str, value: u64, most: u32) -> Result<u32, HeaderError> {
    let narrow = u32::try_from(value).ok().filter(|narrow| *narrow <= most);
    narrow.ok_or(HeaderError::Field { field, value })
}

fn table_within(root: u64, length: u64) -> Result<TableAddr, HeaderError> {
    let end = root.checked_add(TABLE_BYTES);
    let inside =
        root >= HEADER_BYTES && root.is_multiple_of(TABLE_BYTES) && end.is_some_and(|end| end <= length);
    if inside { Ok(TableAddr::new(root)) } else { Err(HeaderError::Field { field: "root", value: root }) }
}

const fn split(wide: u128) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = wide.to_le_bytes();
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p]))
}

const fn join(low: u64, high: u64) -> u128 {
    (high as u128) << 64 | low as u128
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::AmdV1;

    fn header() -> ArenaHeader {
        ArenaHeader {
            geometry: Geometry::of::<AmdV1<4>>(),
            root: TableAddr::new(0x3000),
            length: ByteLen::new(0x10_0000),
            boot: BootId(*b"0123456789abcdef"),
        }
    }

    #[test]
    fn a_header_survives_its_words() {
        assert_eq!(ArenaHeader::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn every_word_that_cannot_be_is_refused() {
        let length = header().length.get();
        let bad = [
            (0, 0),
            (1, VERSION - 1),
            (1, VERSION + 1),
            (2, 77),
            (3, 7),
            (4, 64),
            (5, 65),
            (5, u64::MAX),
            (7, 0x1000),
            (8, 0),
            (8, 0x3001),
            (8, length),
            (8, u64::MAX - 0xfff),
            (9, 0x2000),
        ];
        for (word, value) in bad {
            let mut words = header().encode();
            words[6] = 0x2000;
            words[word] = value;
            assert!(ArenaHeader::decode(&words).is_err(), "word {word} = {value:#x}");
        }
    }
}
