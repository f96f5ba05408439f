//! `/v1/devices`: software and mock devices, and what they are attached to.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' view.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::{rfc3339, shown};
use super::parameters::{self, UserPart};
use super::problem::Problem;
use crate::actors::figures::{AttachedTo, DeviceKind, DeviceStats, Iommu};
use crate::actors::registry::Entry;

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct DeviceRow {
    /// Its number, never used again.
    pub(crate) id: u64,
    /// The context it belongs to.
    pub(crate) context: u64,
    /// Its object id there.
    pub(crate) object: u32,
    /// `software`: a program that walks the table. `mock`: the test command looks at the table in its place.
    pub(crate) kind: String,
    /// `shared`: devices on one address space share a domain. `own`: it has a domain of its own.
    pub(crate) iommu: String,
    /// The page-table format it walks.
    pub(crate) format: String,
    /// When it was made.
    pub(crate) since: String,
    /// What it is attached to.
    pub(crate) attached: Option<AttachedRow>,
}

/// What a device is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct AttachedRow {
    /// The object id of its HWPT in the context.
    pub(crate) hwpt: u32,
    /// The address space that the HWPT shows.
    pub(crate) ioas: u64,
    /// Since when.
    pub(crate) since: String,
}

const fn kind(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Software => "software",
        DeviceKind::Mock => "mock",
    }
}

const fn iommu(iommu: Iommu) -> &'static str {
    match iommu {
        Iommu::Shared => "shared",
        Iommu::Own => "own",
    }
}

fn row(Entry { number, stats }: &Entry<DeviceStats>) -> DeviceRow {
    let attached = |AttachedTo { hwpt, ioas, since }| AttachedRow {
        hwpt: hwpt.get(),
        ioas: ioas.get(),
        since: rfc3339(since),
    };
    DeviceRow {
        id: number.get(),
        context: stats.context.get(),
        object: stats.object.get(),
        kind: kind(stats.kind).to_owned(),
        iommu: iommu(stats.iommu).to_owned(),
        format: stats.format.to_owned(),
        since: rfc3339(stats.since),
        attached: stats.attached().map(attached),
    }
}

pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let part = UserPart::of(&request)?;
    let belongs = |stats: &DeviceStats| {
        (Some(stats.context.get()), stats.attached().map(|attached| attached.ioas.get()))
    };
    Ok(shown(&part.list(data.view.registry.devices(), belongs, row)))
}

pub(super) async fn one(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let id = parameters::id(&request)?;
    parameters::none(&request)?;
    let entry = data.view.registry.device(id).ok_or_else(|| Problem::absent(format_args!("device {id}")))?;
    Ok(shown(&row(&entry)))
}
