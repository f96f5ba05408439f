//! Handing over: somebody else pays for pages objects, for all of them or for none.
//!
//! Who pays now pays on until the other pays for all: nothing is given back that would have to be taken again, when others
//! may have taken the room. Objects of one context live on one arbiter, and all of it happens within one poll: no charge is
//! under way meanwhile, because a movement bills and notes a charge within one, too.
//!
//! Imports allowed: payer, pages, storage's refusals.

use super::pages_handle::PagesHandle;
use super::payer::Payer;
use crate::storage::refusal::Refusal;

/// Has `new` pay for all that is charged, by the rule of each object.
///
/// # Errors
/// ENOMEM if it may not pay for so much; everybody pays as before then.
pub fn hand_over(pages: &[PagesHandle], new: &Payer) -> Result<(), Refusal> {
    let cells: Vec<_> = pages.iter().map(PagesHandle::cell).collect();
    for (done, cell) in cells.iter().enumerate() {
        if let Err(refused) = cell.pay_too(new) {
            cells.iter().take(done).for_each(|cell| cell.pay_no_more(new));
            return Err(Refusal::of(&refused));
        }
    }
    cells.iter().for_each(|cell| cell.pay_alone(new));
    Ok(())
}
