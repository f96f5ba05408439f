//! `/v1/domains/{id}/walk?iova=0x..`: the way to an address through every level of a table, and what lies there.
//!
//! Table, area and pages are asked one after the other: while the address space changes they may belong to different
//! moments.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' view and questions, the client crate's formats.

use actix_web::{HttpRequest, HttpResponse, web};
use ioasd_client::formats::{Entry, Geometry, INDEX_LG2, Rights};
use ioasd_client::units::{ByteLen, Iova, PAGE_SIZE, Permission, Pfn, PhysAddr};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::areas::{AreaRow, permission};
use super::json::{Hex, shown};
use super::pages::PagesRow;
use super::parameters::Parameters;
use super::problem::Problem;
use super::{Shown, domains};
use crate::actors::frame_service::FrameService;
use crate::actors::messages::questions::{AreasFrom, TableReport, WalkStep};

/// One level of a walk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct StepRow {
    /// The level, 0 at the leaf.
    pub(crate) level: u32,
    /// Where the table lies in the arena.
    pub(crate) table: Hex,
    /// The index in the table.
    pub(crate) index: usize,
    /// The bits found there.
    pub(crate) entry: Hex,
    /// `table`, `leaf`, `absent` or `malformed`.
    pub(crate) kind: String,
    /// The first IOVA that the entry, or the leaf it belongs to, covers.
    pub(crate) covers: Hex,
    /// Bytes that it covers.
    pub(crate) size: u64,
    /// What it grants: `r`, `w`, `rw` or `-`.
    pub(crate) rights: Option<String>,
    /// The table or the memory it points to.
    pub(crate) points_to: Option<Hex>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct FilePlace {
    /// The device of its file system.
    pub(crate) device: Hex,
    /// Its inode.
    pub(crate) inode: u64,
    /// The offset of the byte.
    pub(crate) offset: u64,
}

/// Where a walk leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Destination {
    /// The address that the table gives.
    pub(crate) address: Hex,
    /// Bytes from there on that the same leaf covers.
    pub(crate) length: u64,
    /// What all levels together allow.
    pub(crate) permission: String,
    /// The file and offset behind it, where the frame is a logical one.
    pub(crate) file: Option<FilePlace>,
}

/// A walk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct WalkReport {
    /// The domain.
    pub(crate) domain: u64,
    /// The address walked to.
    pub(crate) iova: Hex,
    /// The format of the table.
    pub(crate) format: String,
    /// Levels that a walk can have.
    pub(crate) levels: u32,
    /// The levels walked, from the root.
    pub(crate) steps: Vec<StepRow>,
    /// Where it leads; `None` if nothing is mapped there.
    pub(crate) destination: Option<Destination>,
    /// Why there is none.
    pub(crate) fault: Option<String>,
    /// The area that shows the address.
    pub(crate) area: Option<AreaRow>,
    /// The pages object behind it.
    pub(crate) pages: Option<PagesRow>,
}

pub(super) async fn walk(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let entry = domains::asked(&request, &data)?;
    let mut parameters = Parameters::of(&request)?;
    let iova: Hex = parameters.need("iova", "0x1000")?;
    parameters.finish()?;
    let table = domains::ask(&entry, Some(iova)).await?;
    let area = area_at(iova, entry.stats.ioas.get(), &data).await?;
    let pages = area.as_ref().and_then(|area| data.view.registry.pages(area.pages));
    Ok(shown(&WalkReport {
        domain: entry.number.get(),
        iova,
        format: entry.stats.format.to_owned(),
        levels: table.geometry.levels,
        steps: table.steps.iter().map(|step| step_row(step, iova, &table.geometry)).collect(),
        destination: table.translation.map(|found| destination(found, &data.view.frames)),
        fault: table.translation.is_none().then(|| fault(&table, iova)),
        area,
        pages: pages.as_ref().map(PagesRow::of),
    }))
}

async fn area_at(iova: Hex, ioas: u64, data: &Shown) -> Result<Option<AreaRow>, Problem> {
    let registry = &data.view.registry;
    let Some(entry) = registry.ioas(ioas) else { return Ok(None) };
    let reports = entry.stats.inbox.ask(AreasFrom { from: Iova::new(iova.0), limit: 1 }).await;
    let reports = reports.map_err(|why| Problem::no_answer(format_args!("ioas {ioas}"), why))?;
    let at = reports.first().filter(|report| report.shape.iova().contains(Iova::new(iova.0)));
    Ok(at.map(|report| AreaRow::new(report, registry)))
}

fn step_row(step: &WalkStep, iova: Hex, geometry: &Geometry) -> StepRow {
    let entry_lg2 = geometry.granule_lg2 + INDEX_LG2 * step.level.get();
    let (kind, size_lg2, rights, points_to) = match step.decoded {
        Entry::Absent => ("absent", entry_lg2, None, None),
        Entry::Malformed => ("malformed", entry_lg2, None, None),
        Entry::Table { address, rights } => ("table", entry_lg2, Some(rights), Some(Hex(address.get()))),
        Entry::Leaf { phys, size_lg2, rights } => ("leaf", size_lg2, Some(rights), Some(Hex(phys.get()))),
    };
    let size = 1_u64.checked_shl(size_lg2).unwrap_or(u64::MAX);
    StepRow {
        level: step.level.get(),
        table: Hex(step.table.get()),
        index: step.index,
        entry: Hex(step.entry),
        kind: kind.to_owned(),
        covers: Hex(iova.0 & !size.wrapping_sub(1)),
        size,
        rights: rights.map(|rights| rights_word(rights).to_owned()),
        points_to,
    }
}

fn rights_word(rights: Rights) -> &'static str {
    rights.permission().map_or("-", permission)
}

fn destination(
    (phys, length, allowed): (PhysAddr, ByteLen, Permission),
    frames: &FrameService,
) -> Destination {
    let file = frames.resolve(Pfn::containing(phys)).map(|(file, page)| FilePlace {
        device: Hex(file.dev),
        inode: file.inode,
        offset: page.byte_offset().get() + phys.get() % PAGE_SIZE,
    });
    let permission = permission(allowed).to_owned();
    Destination { address: Hex(phys.get()), length: length.get(), permission, file }
}

/// Why a walk leads nowhere.
fn fault(table: &TableReport, iova: Hex) -> String {
    let aperture = table.geometry.aperture;
    match table.steps.last() {
        None => format!("{iova} lies outside of the aperture {aperture}"),
        Some(WalkStep { level, decoded: Entry::Absent, .. }) => {
            format!("nothing is mapped at {iova}: the entry of level {level} is absent")
        }
        Some(WalkStep { level, decoded: Entry::Leaf { .. }, .. }) => {
            format!("the leaf of level {level} grants nothing")
        }
        Some(WalkStep { level, .. }) => format!("the entry of level {level} is malformed"),
    }
}
