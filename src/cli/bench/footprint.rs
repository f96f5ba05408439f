//! `memory`: what objects and pages cost in the agent's own memory.
//!
//! Objects are made in numbers and the growth of the process is divided by them. Bytes of tables and caches are counted exactly.
//! Pins of the kernel and memory of clients are not part of it.
//!
//! Imports allowed: bed, frames, sample, report, `std`.

use std::fs;
use std::sync::Arc;

use actix::Addr;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE};

use super::bed::{self, Bed, IOVA};
use super::frames::{LogicalFrames, Order};
use super::report::{Row, Unit};
use super::sample::Samples;
use super::scenario::Scenario;
use super::{BenchError, Plan};
use crate::actors::fan_out::WithTable;
use crate::actors::pages::{CacheOf, Pages};
use crate::actors::pfn_cache::LookAtFrames;
use crate::storage::io_pagetable::Transfer;
use crate::storage::ioas::AccessNeeds;
use crate::storage::pinned_pfns::PinnedPfns;

/// Objects of a kind that are made.
const OBJECTS: u64 = 4096;

pub(super) fn measure(plan: Plan) -> Result<Vec<Row>, BenchError> {
    bed::run(plan, async |bed| {
        let mut rows = vec![address_spaces(bed)?, mappings(bed).await?];
        for order in [Order::Contiguous, Order::Scattered] {
            rows.push(leaves(bed, order).await?);
            rows.push(pins(bed, order).await?);
        }
        Ok(rows)
    })
}

fn row(case: String, bytes: u64, things: u64) -> Row {
    let mut samples = Samples::default();
    samples.add_value(bytes as f64 / things as f64);
    Row::new(Scenario::Memory, case, Unit::Bytes, &samples, None)
}

fn address_spaces(bed: &Bed) -> Result<Row, BenchError> {
    let before = resident()?;
    for _ in 0..OBJECTS {
        bed.state.ioas_alloc()?;
    }
    Ok(row("what=ioas".to_owned(), resident()?.saturating_sub(before), OBJECTS))
}

/// A mapping is an area, a pages object and its place in the books.
async fn mappings(bed: &Bed) -> Result<Row, BenchError> {
    let ioas = bed.state.ioas_alloc()?;
    let before = resident()?;
    for number in 0..OBJECTS {
        let start = Iova::new(IOVA.get() + number * 2 * PAGE_SIZE);
        let range = IovaRange::from_length(start, ByteLen::new(PAGE_SIZE)).ok_or(BenchError::Lost)?;
        bed.map_at(ioas, LogicalFrames::source(Order::Contiguous), range).await?;
    }
    Ok(row("what=mapping".to_owned(), resident()?.saturating_sub(before), OBJECTS))
}

/// Tables, for each page and domain.
async fn leaves(bed: &Bed, order: Order) -> Result<Row, BenchError> {
    let (ioas, _) = filled(bed, order).await?;
    let domain = bed.attach(ioas, 1, &[FormatId::AmdV1]).await?.pop().ok_or(BenchError::Lost)?;
    let shard = bed.agent.shards.get(domain.key.fan_out).ok_or(BenchError::Lost)?;
    let looked = shard.fan_out.send(WithTable::new(domain.key.id, |table| table.table_bytes())).await;
    let bytes = looked.ok().flatten().ok_or(BenchError::Lost)?;
    Ok(row(format!("what=table-per-page,frames={order}"), bytes.get(), bed.plan.pages()))
}

/// The cache of frames that accesses pin, for each page.
async fn pins(bed: &Bed, order: Order) -> Result<Row, BenchError> {
    let (ioas, pages) = filled(bed, order).await?;
    let nobody = Box::new(|_| Box::pin(async {}) as _);
    let access = bed.state.access_create(ioas, AccessNeeds::Pins, nobody).await?;
    bed.state.access_pin(access, bed.range(), Transfer::Read).await?;
    let cache = pages.send(CacheOf).await.ok().flatten().ok_or(BenchError::Lost)?;
    let bytes = cache.send(LookAtFrames(Box::new(PinnedPfns::bytes))).await.map_err(|_| BenchError::Lost)?;
    bed.state.access_unpin(access, bed.range()).await?;
    Ok(row(format!("what=pin-per-page,frames={order}"), bytes.get(), bed.plan.pages()))
}

async fn filled(bed: &Bed, order: Order) -> Result<(ObjectId, Addr<Pages>), BenchError> {
    let ioas = bed.state.ioas_alloc()?;
    let pages = bed.map_at(ioas, Arc::clone(&LogicalFrames::source(order)), bed.range()).await?;
    Ok((ioas, pages))
}

/// Bytes of this process that are in memory and its own.
fn resident() -> Result<u64, BenchError> {
    let statm = fs::read_to_string("/proc/self/statm").map_err(BenchError::io("read /proc/self/statm"))?;
    let mut pages = statm.split(' ').skip(1).map(|field| field.parse::<u64>().unwrap_or(0));
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    Ok(resident.saturating_sub(shared) * PAGE_SIZE)
}
