//! Whether tables say what they should, page by page. Never timed.
//!
//! Imports allowed: actors, domains, storage, units.

use std::sync::Arc;

use ioasd_client::units::{IndexRange, Iova, IovaRange, PAGE_SIZE, PageIndex, Permission};

use super::BenchError;
use super::bed::Bed;
use crate::actors::fan_out::LookAt;
use crate::actors::guard::poisoned;
use crate::actors::objects::HwptObject;
use crate::domains::table::DomainTable;
use crate::storage::pfn::{PfnBatch, Run, RunLimit};
use crate::storage::refusal::Refusal;
use crate::storage::source::PageSource;

/// The page where a table is wrong, with what it says and what it should say.
type Wrong = (Iova, String, String);

impl Bed {
    /// Fails unless each of `domains` maps exactly the pages of `source` that the plan names.
    pub(super) async fn check(
        &self,
        domains: &[std::rc::Rc<HwptObject>],
        source: &dyn PageSource,
    ) -> Result<(), BenchError> {
        let expected: Arc<[Run]> = frames_of(source, self.plan.pages())?.into();
        for domain in domains {
            let (id, range, expected) = (domain.key.id, self.range(), Arc::clone(&expected));
            let shard = self.agent.shards.get(domain.key.fan_out).ok_or(BenchError::Lost)?;
            let look = LookAt::new(id, move |table| compare(table, range, &expected));
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
