//! Whether tables say what they should, page by page, in leaves of the size that was meant. Never timed.
//!
//! Imports allowed: actors, domains, storage, units.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use ioasd_client::units::{ByteLen, IndexRange, Iova, IovaRange, PAGE_SIZE, PageIndex, Permission};

use super::BenchError;
use super::bed::Bed;
use crate::actors::fan_out::WithTable;
use crate::actors::guard::poisoned;
use crate::actors::objects::HwptObject;
use crate::domains::table::DomainTable;
use crate::storage::pfn::{PfnBatch, Run, RunLimit};
use crate::storage::refusal::Refusal;
use crate::storage::source::PageSource;

/// The least that is called a large leaf.
const LARGE: ByteLen = ByteLen::new(2 << 20);

/// How large the leaves of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Leaves {
    /// One for each page.
    Pages,
    /// At least 2 MiB each; what is left at the end of a range has smaller ones.
    Large,
}

impl fmt::Display for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pages => "4KiB",
            Self::Large => "large",
        })
    }
}

impl Leaves {
    /// Whether a leaf of `size` belongs in front of the `rest` of a range.
    fn have(self, size: ByteLen, rest: ByteLen) -> bool {
        match self {
            Self::Pages => size.get() == PAGE_SIZE,
            Self::Large => size >= LARGE || rest < LARGE,
        }
    }
}

/// The page where a table is wrong, with what it says and what it should say.
type Wrong = (Iova, String, String);

impl Bed {
    /// Fails unless each of `domains` maps exactly the pages of `source` that the plan names.
    pub(super) async fn check(
        &self,
        domains: &[Rc<HwptObject>],
        source: &dyn PageSource,
    ) -> Result<(), BenchError> {
        self.check_leaves(domains).await?;
        let expected: Arc<[Run]> = frames_of(source, self.plan.pages())?.into();
        for domain in domains {
            let (id, range, expected) = (domain.key.id, self.range(), Arc::clone(&expected));
            let shard = self.agent.shards.get(domain.key.fan_out).ok_or(BenchError::Lost)?;
            let look = WithTable::new(id, move |table| compare(table, range, &expected));
            let looked = shard.fan_out.send(look).await.ok().flatten();
            let compared = looked.ok_or_else(|| BenchError::Refused(poisoned("a domain")))?;
            compared.map_err(|(iova, found, expected)| BenchError::WrongTable {
                domain: id,
                iova,
                found,
                expected,
            })?;
        }
        Ok(())
    }

    /// Fails unless the leaves of each of `domains` are as large as the plan says.
    async fn check_leaves(&self, domains: &[Rc<HwptObject>]) -> Result<(), BenchError> {
        for domain in domains {
            let (id, range, leaves) = (domain.key.id, self.range(), self.plan.leaves);
            let shard = self.agent.shards.get(domain.key.fan_out).ok_or(BenchError::Lost)?;
            let look = WithTable::new(id, move |table| wrong_leaf(table, range, leaves));
            let looked = shard.fan_out.send(look).await.ok().flatten();
            match looked.ok_or_else(|| BenchError::Refused(poisoned("a domain")))? {
                None => (),
                Some((iova, found)) => {
                    return Err(BenchError::WrongLeaf { domain: id, iova, found, expected: leaves });
                }
            }
        }
        Ok(())
    }
}

/// The first leaf that has another size than it should have.
fn wrong_leaf(table: &dyn DomainTable, range: IovaRange, leaves: Leaves) -> Option<(Iova, ByteLen)> {
    let (mut at, end) = (range.start().get(), range.last().get());
    while at < end {
        let leaf = table.translate(Iova::new(at)).map_or(ByteLen::new(0), |(_, leaf, _)| leaf);
        if leaf.get() == 0 || !leaves.have(leaf, ByteLen::new(end - at + 1)) {
            return Some((Iova::new(at), leaf));
        }
        at += leaf.get();
    }
    None
}

/// The frames that the source itself tells.
fn frames_of(source: &dyn PageSource, pages: u64) -> Result<Vec<Run>, Refusal> {
    let (mut runs, mut next) = (Vec::new(), 0);
    while let Some(rest) = IndexRange::from_length(PageIndex::new(next), pages - next) {
        let batch = PfnBatch::new(rest.first(), RunLimit::DEFAULT);
        let mut batch = batch.map_err(|injected| Refusal::of(&injected))?;
        source.recall(rest, &mut batch).map_err(|error| Refusal::of(&error))?;
        runs.extend_from_slice(batch.runs());
        next = batch.end().get();
    }
    Ok(runs)
}

fn compare(table: &dyn DomainTable, range: IovaRange, expected: &[Run]) -> Result<(), Wrong> {
    if table.mapped() != range.length() {
        return Err((
            range.start(),
            format!("{} bytes", table.mapped()),
            format!("{} bytes", range.length()),
        ));
    }
    let frames = expected.iter().flat_map(|run| (0..u64::from(run.pages)).map(|at| run.pfn.get() + at));
    for (frame, offset) in frames.zip((0..).step_by(4096)) {
        let iova = Iova::new(range.start().get() + offset);
        let found = table.translate(iova).map(|(phys, _, permission)| (phys.get(), permission));
        if found != Some((frame * PAGE_SIZE, Permission::ReadWrite)) {
            return Err((iova, format!("{found:x?}"), format!("{:#x}", frame * PAGE_SIZE)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_pages_or_large_but_for_what_is_left_at_the_end() {
        let (page, large, range) = (ByteLen::new(PAGE_SIZE), LARGE, ByteLen::new(1 << 30));
        assert!(Leaves::Pages.have(page, range) && !Leaves::Pages.have(large, range));
        assert!(Leaves::Large.have(large, range) && !Leaves::Large.have(page, range));
        assert!(Leaves::Large.have(page, page));
    }
}
