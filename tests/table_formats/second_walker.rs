//! A second walker, written from the specifications alone: it shares no code with the formats of the client library.
//!
//! Each function follows the words and numbers of its document: AMD levels count from 1 at the leaf, Arm levels from 0 at
//! the top, bits are `[high:low]`.

use ioasd_client::formats::FormatId;

/// Where a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing is mapped.
    NotPresent,
    /// An entry that the document does not allow there.
    Fault,
    /// At memory.
    Memory {
        /// The address of the byte.
        phys: u64,
        /// Bytes of the leaf.
        size: u64,
        /// Whether reads are allowed.
        read: bool,
        /// Whether writes are allowed.
        write: bool,
    },
}

/// Bits `[high:low]` of a word.
const fn bits(word: u64, high: u32, low: u32) -> u64 {
    word << (63 - high) >> (63 - high + low)
}

const fn bit(word: u64, at: u32) -> bool {
    word >> at & 1 == 1
}

/// Walks the tables of `format` in `memory`, which gives the word at an address.
pub fn walk(format: FormatId, memory: &dyn Fn(u64) -> u64, root: u64, iova: u64) -> End {
    match format {
        FormatId::AmdV1 => amd(memory, root, Amd { granule: 12, mode: 4 }, iova),
        FormatId::AmdV1Granule2K => amd(memory, root, Amd { granule: 11, mode: 3 }, iova),
        FormatId::VtdSs => vtd(memory, root, 4, iova),
        FormatId::ArmS2 => arm(memory, root, iova),
        FormatId::RiscVSv48 => riscv(memory, root, 4, iova),
        FormatId::RiscVSv57 => riscv(memory, root, 5, iova),
    }
}

/// Geometry of an AMD table.
#[derive(Clone, Copy)]
pub struct Amd {
    /// log2 of the smallest page.
    pub granule: u32,
    /// Levels.
    pub mode: u32,
}

/// Publication 48882, "I/O Page Tables for Host Translations".
pub fn amd(memory: &dyn Fn(u64) -> u64, root: u64, Amd { granule, mode }: Amd, iova: u64) -> End {
    let (mut table, mut level, mut read, mut write) = (root, mode, true, true);
    loop {
        let low = granule + 9 * (level - 1);
        let index = iova >> low & 0x1ff;
        let entry = memory(table + 8 * index);
        if !bit(entry, 0) {
            return End::NotPresent;
        }
        (read, write) = (read && bit(entry, 61), write && bit(entry, 62));
        let field = bits(entry, 51, 12);
        let next_level = bits(entry, 11, 9);
        let page_lg2 = match next_level {
            0 => low,
            7 => granule + field.trailing_ones() + 1,
            next if next == u64::from(level - 1) => {
                if bits(entry, 60, 52) != 0 {
                    return End::Fault;
                }
                (table, level) = (field << granule, level - 1);
                continue;
            }
            _ => return End::Fault,
        };
        let in_level = next_level == 0 || page_lg2 > low && page_lg2 < low + 9;
        let base = field << granule >> page_lg2 << page_lg2;
        let address_bits = if next_level == 7 { base } else { field << granule };
        let reserved = bits(entry, 56, 52) != 0 || address_bits != base || level == 6;
        if !in_level || reserved || next_level == 7 && field.trailing_ones() >= 39 {
            return End::Fault;
        }
        let offset = iova & ((1 << page_lg2) - 1);
        return End::Memory { phys: base + offset, size: 1 << page_lg2, read, write };
    }
}

/// Intel VT-d, section 9.8.
pub fn vtd(memory: &dyn Fn(u64) -> u64, root: u64, levels: u32, iova: u64) -> End {
    let (mut table, mut read, mut write) = (root, true, true);
    for level in (0..levels).rev() {
        let low = 12 + 9 * level;
        let entry = memory(table + 8 * (iova >> low & 0x1ff));
        if bits(entry, 1, 0) == 0 {
            return End::NotPresent;
        }
        (read, write) = (read && bit(entry, 0), write && bit(entry, 1));
        let page_size = bit(entry, 7);
        if bit(entry, 62) || level >= 3 && page_size {
            return End::Fault;
        }
        let address = bits(entry, 51, 12) << 12;
        if level == 0 || page_size {
            let offset = iova & ((1 << low) - 1);
            let aligned = address & ((1 << low) - 1) == 0;
            let memory = End::Memory { phys: address + offset, size: 1 << low, read, write };
            return if aligned { memory } else { End::Fault };
        }
        if bit(entry, 11) {
            return End::Fault;
        }
        table = address;
    }
    End::Fault
}

/// DDI 0487, VMSAv8-64 stage 2, 4 KiB granule, start at level 0.
pub fn arm(memory: &dyn Fn(u64) -> u64, root: u64, iova: u64) -> End {
    let mut table = root;
    for level in 0..=3 {
        let low = 39 - 9 * level;
        let descriptor = memory(table + 8 * (iova >> low & 0x1ff));
        let address = bits(descriptor, 47, 12) << 12;
        match (bits(descriptor, 1, 0), level) {
            (0 | 2, _) => return End::NotPresent,
            (3, 0..=2) => table = address,
            (1, 0 | 3) => return End::Fault,
            _ if !bit(descriptor, 10) => return End::Fault,
            _ => {
                let contiguous = bit(descriptor, 52);
                let size = if contiguous { 16 << low } else { 1_u64 << low };
                let output = bits(descriptor, 47, low) << low;
                // The neighbours keep their own addresses: the one read is the one translated by.
                let phys = output + (iova & ((1 << low) - 1));
                // With bit 51 hardware sets bit 7 itself, at the first write.
                let (read, write) = (bit(descriptor, 6), bit(descriptor, 7) || bit(descriptor, 51));
                return End::Memory { phys, size, read, write };
            }
        }
    }
    End::Fault
}

/// RISC-V Privileged Architecture, Sv39 to Sv57, with Svnapot and Svpbmt.
pub fn riscv(memory: &dyn Fn(u64) -> u64, root: u64, levels: u32, iova: u64) -> End {
    let mut table = root;
    for level in (0..levels).rev() {
        let low = 12 + 9 * level;
        let pte = memory(table + 8 * (iova >> low & 0x1ff));
        let [valid, read, write, execute, user, accessed, dirty] =
            [0, 1, 2, 3, 4, 6, 7].map(|at| bit(pte, at));
        if !valid {
            return End::NotPresent;
        }
        let (ppn, napot) = (bits(pte, 53, 10), bit(pte, 63));
        if bits(pte, 60, 54) != 0 || bits(pte, 62, 61) == 3 || write && !read {
            return End::Fault;
        }
        if !read && !write && !execute {
            if level == 0 || accessed || dirty || user || napot || bits(pte, 62, 61) != 0 {
                return End::Fault;
            }
            table = ppn << 12;
            continue;
        }
        let (base, size_lg2) = match (napot, level) {
            (false, _) => (ppn << 12, low),
            (true, 0) if ppn & 0xf == 8 => (ppn >> 4 << 16, 16),
            (true, _) => return End::Fault,
        };
        if base & ((1 << size_lg2) - 1) != 0 {
            return End::Fault;
        }
        let usable = accessed && user;
        let phys = base + (iova & ((1 << size_lg2) - 1));
        return End::Memory { phys, size: 1 << size_lg2, read: usable && read, write: usable && write };
    }
    End::Fault
}
