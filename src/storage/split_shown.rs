//! Split: an area that is shown becomes two that are, in the same domains, over the same pages. No frame moves.
//!
//! It is over in one step, so nothing sees the whole gone and a part missing. It cannot fail: an area without domains is
//! not shown, and nothing is to do.
//!
//! Imports allowed: units, and the passive types of this folder.

use super::area::AreaShape;
use super::order::{MoveResult, Moved};
use super::pages::{AreaKey, IoptPages, Shown};
use super::step::Next;

/// The movement.
#[derive(Debug)]
pub(super) struct SplitShown {
    whole: (AreaKey, AreaShape),
    parts: [(AreaKey, AreaShape); 2],
}

impl SplitShown {
    pub(super) const fn new(whole: (AreaKey, AreaShape), parts: [(AreaKey, AreaShape); 2]) -> Self {
        Self { whole, parts }
    }

    /// The parts are noted before the whole is forgotten, so that no page is without a pin.
    pub(super) fn next(&self, pages: &mut IoptPages) -> Next<MoveResult> {
        let (area, shape) = self.whole;
        if let Some(whole) = pages.shown(area, shape.indexes()) {
            for (area, shape) in self.parts {
                pages.show(Shown { area, shape, storage: whole.storage });
            }
            pages.unshow(whole);
        }
        Next::Done(Ok(Moved::Done))
    }
}

#[cfg(test)]
mod tests {
    use ioasd_client::units::{ByteLen, Iova, IovaRange};

    use super::*;
    use crate::storage::counts::ArrayLen;
    use crate::storage::io_pagetable::AreaId;
    use crate::storage::step::DomainKey;

    fn part(number: u64, start: u64, length: u64, offset: u64) -> (AreaKey, AreaShape) {
        let iova = IovaRange::from_length(Iova::new(start), ByteLen::new(length)).unwrap();
        let area = AreaKey { ioas: 1, area: AreaId::new(number) };
        (area, AreaShape::new(iova, ByteLen::new(offset)))
    }

    #[test]
    fn the_parts_take_the_place_of_the_whole_and_no_pin_moves() {
        let storage = DomainKey { fan_out: 0, id: 7 };
        let whole = part(1, 0x10_0000, 0x8000, 0);
        let parts = [part(2, 0x10_0000, 0x3000, 0), part(3, 0x10_3000, 0x5000, 0x3000)];
        let mut pages = IoptPages::new(ArrayLen::new(8));
        let split = SplitShown::new(whole, parts);
        assert!(matches!(split.next(&mut pages), Next::Done(Ok(Moved::Done))));
        assert_eq!(pages.shown_count(), 0, "what is not shown is not shown in parts");
        pages.show(Shown { area: whole.0, shape: whole.1, storage });
        pages.charge(pages.settle());
        assert!(matches!(split.next(&mut pages), Next::Done(Ok(Moved::Done))));
        pages.check();
        assert_eq!(pages.shown_areas().collect::<Vec<_>>(), parts);
        assert_eq!(pages.pinned().get(), 8);
        let shown = parts.map(|(area, shape)| pages.shown(area, shape.indexes()).map(|shown| shown.storage));
        assert_eq!(shown, [Some(storage); 2]);
    }
}
