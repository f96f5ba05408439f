//! Random entries at every level: the decoders of the client library and the second walker say the same.

use ioasd_client::formats::{Entry, Format, FormatId, FormatVisitor, Level, Rights};

use crate::second_walker::{End, walk};

const ENTRIES: u64 = 200_000;
const ROOT: u64 = 0x1000;

/// What the library says about an entry that all of the way down to it leads to.
struct Decode {
    entry: u64,
    level: Level,
}

impl FormatVisitor for Decode {
    type Output = Entry;

    fn visit<F: Format>(self) -> Entry {
        F::decode(self.entry, self.level)
    }
}

struct Pointer(Level);

impl FormatVisitor for Pointer {
    type Output = u64;

    fn visit<F: Format>(self) -> u64 {
        F::table(ioasd_client::formats::TableAddr::new(ROOT), self.0)
    }
}

/// Walks IOVA 0 through tables that all lie at one place, with `entry` at `level`.
fn second(format: FormatId, entry: u64, level: Level) -> End {
    let depth = std::cell::Cell::new(0);
    let levels = format.geometry().levels;
    let memory = |_| {
        let now = Level::new(levels - 1 - depth.get().min(levels - 1));
        depth.set(depth.get() + 1);
        match now.cmp(&level) {
            std::cmp::Ordering::Greater => format.visit(Pointer(now)),
            std::cmp::Ordering::Equal => entry,
            std::cmp::Ordering::Less => 0,
        }
    };
    walk(format, &memory, ROOT, 0)
}

fn rights(read: bool, write: bool) -> Rights {
    Rights::of(u64::from(read) | u64::from(write) << 1, 1, 2)
}

/// Most random words are malformed; so some bits are cleared or set more often than others.
fn some_entry(rng: &mut fastrand::Rng) -> u64 {
    let mut entry = rng.u64(..);
    if rng.u8(..4) > 0 {
        entry &= 0x600f_ffff_ffff_ffff;
    }
    if rng.u8(..4) > 0 {
        entry &= !0x1f_f000;
    }
    if rng.u8(..3) == 0 {
        entry &= !0x3fff_f000;
    }
    match rng.u8(..6) {
        0 => entry |= (1 << rng.u32(12..50)) - 0x1000,
        1 => entry |= 0xfff,
        2 => entry |= 0x2000 | 0xd7,
        3 => entry &= !0x7e,
        4 => entry |= 0x400,
        _ => {}
    }
    entry
}

#[test]
fn both_decoders_agree_on_any_entry() {
    for format in FormatId::ALL {
        let (mut rng, mut leaves, mut tables) = (fastrand::Rng::with_seed(format.number().into()), 0, 0);
        for _ in 0..ENTRIES {
            let (entry, level) = (some_entry(&mut rng), Level::new(rng.u32(..format.geometry().levels)));
            let (ours, theirs) = (format.visit(Decode { entry, level }), second(format, entry, level));
            let context = format!("{format:?} {entry:#x} at level {level}: {ours:?}, {theirs:?}");
            match ours {
                Entry::Absent => assert_eq!(theirs, End::NotPresent, "{context}"),
                Entry::Malformed => assert_eq!(theirs, End::Fault, "{context}"),
                Entry::Table { .. } => {
                    tables += 1;
                    assert_eq!(theirs, End::NotPresent, "the walk goes on: {context}");
                }
                Entry::Leaf { phys, size_lg2, rights: granted } => {
                    leaves += 1;
                    let End::Memory { phys: other, size, read, write } = theirs else { panic!("{context}") };
                    assert_eq!((1 << size_lg2, granted), (size, rights(read, write)), "{context}");
                    assert_eq!(other & !(size - 1), phys.get(), "{context}");
                }
            }
        }
        assert!(
            leaves > ENTRIES / 200 && tables > ENTRIES / 200,
            "{format:?}: {leaves} leaves, {tables} tables"
        );
    }
}
