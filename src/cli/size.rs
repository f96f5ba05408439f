//! Sizes as people read them.
//!
//! Imports allowed: units.

use ioasd_client::units::ByteLen;

/// A size in the largest unit that keeps it whole.
pub(super) fn human(bytes: ByteLen) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = UNITS.iter().find(|(_, shift)| bytes.get() >> shift > 0 && bytes.is_aligned(1 << shift));
    whole.map_or_else(
        || format!("{} B", bytes.get()),
        |(unit, shift)| format!("{} {unit}", bytes.get() >> shift),
    )
}
