//! Prospects: what a MAP would meet in this IOVA map, told without doing it.
//!
//! What refuses it is found by the functions that refuse a real one, in the same order. Beside that stands all else that
//! is in its way, bounded: areas, reserved ranges, who asked for the alignment, and how the accounts stand.
//!
//! Imports allowed: units, error, refusal, iova_allocator, the ledger.

use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission};

use super::area_map::{AreaState, Writable};
use super::constraints::Owner;
use super::free::{OWNERS_NAMED, Ruled};
use super::placement::{Piece, Placement};
use super::request::{check_file_range, check_map_request};
use super::{Area, IoPageTable, LargePages};
use crate::storage::iova_allocator::OriginAddr;
use crate::storage::ledger::standing::Standing;
use crate::storage::refusal::Refusal;

/// Areas and ranges in the way that are named.
pub const AREAS_NAMED: usize = 16;

/// Areas in the way that are counted at most.
const AREAS_COUNTED: usize = 10_000;

/// A MAP that might be asked for, of memory that may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// The first byte in its file, or its address in the process.
    pub start: ByteLen,
    /// Bytes.
    pub length: ByteLen,
    /// What devices may do.
    pub permission: Permission,
    /// Where.
    pub placement: Placement,
}

/// When the pages of a new area are pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// By the MAP: there are domains to fill.
    AtOnce,
    /// Once something needs them: a domain, or an access.
    Later,
}

/// What a MAP would meet.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// Where it would be placed, or why it would not.
    pub place: Result<IovaRange, Refusal>,
    /// The alignment that everything here must have.
    pub alignment: u64,
    /// Who asks for it, the first [`OWNERS_NAMED`] of them.
    pub alignment_owners: Vec<Owner>,
    /// Whether leaves larger than a page may be used; if not, that asks for the alignment of a page, too.
    pub large_pages: LargePages,
    /// The first [`AREAS_NAMED`] areas in the range asked for.
    pub areas: Vec<(IovaRange, AreaState)>,
    /// How many there are, counted up to a bound.
    pub area_count: u64,
    /// Of a fixed place, reserved ranges that it meets; else the ranges that automatic placement keeps to, or avoids.
    pub rules: Vec<Ruled>,
    /// How the accounts stand towards one more area.
    pub areas_allowed: Vec<Standing>,
    /// When pages are pinned.
    pub pinning: Pinning,
}

impl<P> IoPageTable<P> {
    /// What a MAP would meet now. Nothing changes.
    #[must_use]
    pub fn outlook(&self, prospect: &Prospect) -> Outlook {
        let wanted = match prospect.placement {
            Placement::Fixed(start) => IovaRange::from_length(start, prospect.length),
            Placement::Any => None,
        };
        let in_way = || wanted.into_iter().flat_map(|wanted| self.areas.intersecting(wanted));
        let named = |area: &Area<P>| (area.iova(), area.state());
        Outlook {
            place: self.would_reserve(prospect),
            alignment: self.alignment(),
            alignment_owners: self.alignments.askers().take(OWNERS_NAMED).collect(),
            large_pages: self.large_pages(),
            areas: in_way().take(AREAS_NAMED).map(named).collect(),
            area_count: in_way().take(AREAS_COUNTED).count() as u64,
            rules: self.rules_met(prospect.placement, wanted),
            areas_allowed: self.areas.quota().standings(1).collect(),
            pinning: if self.alignments.has_domains() { Pinning::AtOnce } else { Pinning::Later },
        }
    }

    fn would_reserve(&self, prospect: &Prospect) -> Result<IovaRange, Refusal> {
        let Prospect { start, length, permission, placement } = *prospect;
        let iova = match placement {
            Placement::Fixed(iova) => iova,
            Placement::Any => Iova::new(0),
        };
        check_map_request(iova, length, Some(permission)).map_err(|error| Refusal::of(&error))?;
        check_file_range(start, length).map_err(|error| Refusal::of(&error))?;
        let offset = ByteLen::new(start.get() % PAGE_SIZE);
        let pieces = [Piece { pages: (), offset, length, pages_writable: Writable::Yes }];
        let placed = self.place(&pieces, permission, placement, OriginAddr::new(start.get()));
        let (place, _) = placed.map_err(|error| Refusal::of(&error))?;
        self.areas.quota().would_take(1).map_err(|error| Refusal::of(&error))?;
        Ok(place)
    }

    fn rules_met(&self, placement: Placement, wanted: Option<IovaRange>) -> Vec<Ruled> {
        match (placement, wanted) {
            (Placement::Any, _) => self.ruled_from(Iova::new(0), AREAS_NAMED),
            (Placement::Fixed(_), None) => Vec::new(),
            (Placement::Fixed(_), Some(wanted)) => {
                let mut met = self.ruled_from(wanted.start(), AREAS_NAMED);
                met.retain(|ruled| {
                    matches!(ruled, Ruled::Reserved { .. }) && ruled.range().intersects(wanted)
                });
                met
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{mapped, piece, range, table};
    use super::super::placement::Reservation;
    use super::*;
    use crate::error::Coded;
    use crate::storage::ledger::node::Allowance;
    use crate::storage::ledger::resource::Resource;

    const RW: Permission = Permission::ReadWrite;

    fn prospect(start: u64, length: u64, placement: Placement) -> Prospect {
        Prospect { start: ByteLen::new(start), length: ByteLen::new(length), permission: RW, placement }
    }

    /// All of a table that a question could change.
    fn state(table: &IoPageTable<u32>) -> String {
        table.check();
        format!("{table:?}")
    }

    /// Asserts that the real thing ends as the outlook says, also after the outlook was asked for twice.
    #[track_caller]
    fn foretold(table: &mut IoPageTable<u32>, asked: Prospect, code: Option<&str>) -> Outlook {
        let before = state(table);
        let outlook = table.outlook(&asked);
        assert_eq!(table.outlook(&asked).place, outlook.place);
        assert_eq!(state(table), before, "a question changes nothing");
        assert_eq!(outlook.place.as_ref().err().map(Coded::code), code);
        let pieces = [piece(asked.length.get(), asked.start.get() % PAGE_SIZE)];
        let origin = OriginAddr::new(asked.start.get());
        let real = table.reserve(&pieces, RW, asked.placement, origin).map_err(|error| Refusal::of(&error));
        assert_eq!(real.as_ref().map(Reservation::iova), outlook.place.as_ref().copied());
        if let Ok(reserved) = real {
            table.abort(reserved);
        }
        outlook
    }

    const fn at(iova: u64) -> Placement {
        Placement::Fixed(Iova::new(iova))
    }

    #[test]
    fn every_refusal_of_a_place_is_foretold_and_so_is_the_place() {
        let mut table = table();
        table.add_domain(Owner::Domain(1), PAGE_SIZE, range(0, 0xffff_ffff)).unwrap();
        table.add_reserved(Owner::Device(2), range(0x2000, 0x2fff)).unwrap();
        mapped(&mut table, 0x4000, piece(0x1000, 0));
        mapped(&mut table, 0x6000, piece(0x1000, 0));
        let outlook = foretold(&mut table, prospect(0, 0x8000, at(0x2000)), Some("iova-reserved"));
        let in_way = [range(0x4000, 0x4fff), range(0x6000, 0x6fff)].map(|area| (area, AreaState::Ready));
        assert_eq!((outlook.areas.as_slice(), outlook.area_count), (&in_way[..], 2));
        let reserved = range(0x2000, 0x2fff);
        let owners = vec![Owner::Device(2)];
        assert_eq!(outlook.rules, [Ruled::Reserved { range: reserved, owners, requests: 1 }]);
        assert_eq!((outlook.alignment, outlook.alignment_owners), (PAGE_SIZE, vec![Owner::Domain(1)]));
        for (start, length, placement, code) in [
            (0, 0x1000, at(0x4000), Some("iova-occupied")),
            (0, 0x1000, at(0x1_0000_0000), Some("iova-reserved")),
            (0, 0x1000, at(0x800), Some("iova-misaligned")),
            (0, 0x800, at(0x8000), Some("length-misaligned")),
            (0x800, 0x1000, at(0x8000), Some("offset-misaligned")),
            (0, 0x2000, at(u64::MAX - 0xfff), Some("range-past-end")),
            (0, 0x1000, at(0x3000), None),
            (0x3000, 0x1000, Placement::Any, None),
        ] {
            foretold(&mut table, prospect(start, length, placement), code);
        }
        table.set_allowed(vec![range(0x1_0000, 0x1_0fff)]).unwrap();
        assert_eq!(foretold(&mut table, prospect(0, 0x1000, Placement::Any), None).pinning, Pinning::AtOnce);
        let full = foretold(&mut table, prospect(0, 0x2000, Placement::Any), Some("iova-space-exhausted"));
        assert!(full.rules.contains(&Ruled::Allowed(range(0x1_0000, 0x1_0fff))), "{:?}", full.rules);
    }

    #[test]
    fn a_full_quota_is_foretold_and_what_is_no_request_is_refused_first() {
        let mut table = IoPageTable::within(Allowance::alone(Resource::Areas, 1));
        assert_eq!(foretold(&mut table, prospect(0, 0x1000, at(0)), None).pinning, Pinning::Later);
        mapped(&mut table, 0, piece(0x1000, 0));
        let outlook = foretold(&mut table, prospect(0, 0x1000, at(0x1000)), Some("too-many-areas"));
        assert!(matches!(&outlook.areas_allowed[..], [standing] if standing.binds()));
        for (length, code) in [(0, "length-zero"), (u64::MAX, "number-is-maximum")] {
            let refused = table.outlook(&prospect(0, length, at(0))).place.unwrap_err();
            assert_eq!(refused.code(), code);
        }
    }
}
