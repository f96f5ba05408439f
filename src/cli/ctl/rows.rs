//! What each list shows in which column.
//!
//! Imports allowed: bar, table, admin's answers, the ledger's resources.

use std::time::Duration;

use super::bar::bar;
use super::table::Lean::{Left, Right};
use super::table::{Column, Row, size};
use crate::admin::accesses::AccessRow;
use crate::admin::accounts::AccountRow;
use crate::admin::areas::AreaRow;
use crate::admin::config::SettingRow;
use crate::admin::contexts::ContextRow;
use crate::admin::devices::DeviceRow;
use crate::admin::domains::DomainRow;
use crate::admin::events::EventRow;
use crate::admin::gaps::{GapRow, RangeRow};
use crate::admin::ioases::IoasRow;
use crate::admin::operations::OperationRow;
use crate::admin::pages::PagesRow;
use crate::admin::payers::PayerRow;
use crate::storage::ledger::resource::{Resource, Unit};

/// So much of a resource, for people: bytes, or a number of pieces. A word that is no resource is counted in bytes.
pub(super) fn amount(resource: &str, value: u64) -> String {
    match Resource::parse(resource).map(Resource::unit) {
        Some(Unit::Pieces) => value.to_string(),
        Some(Unit::Bytes) | None => size(value),
    }
}

fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

impl Row for ContextRow {
    const COLUMNS: &'static [Column] = &[
        ("ID", Right),
        ("PID", Right),
        ("UID", Right),
        ("COMM", Left),
        ("SINCE", Left),
        ("OBJECTS", Right),
        ("PINNED", Right),
        ("CHARGED", Right),
        ("CGROUP", Left),
        ("EXE", Left),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            or_dash(self.pid.as_ref()),
            self.uid.to_string(),
            or_dash(self.comm.as_ref()),
            self.since.clone(),
            self.objects.to_string(),
            size(self.pinned_bytes),
            size(self.charged_bytes),
            or_dash(self.cgroup.as_ref()),
            or_dash(self.exe.as_ref()),
        ]
    }
}

impl Row for IoasRow {
    const COLUMNS: &'static [Column] = &[
        ("ID", Right),
        ("CONTEXT", Right),
        ("OBJECT", Right),
        ("AREAS", Right),
        ("MAPPED", Right),
        ("DOMAINS", Right),
        ("ACCESSES", Right),
    ];

    fn cells(&self) -> Vec<String> {
        let counts = [self.id, self.context, u64::from(self.object), self.areas];
        let mut cells: Vec<String> = counts.iter().map(ToString::to_string).collect();
        cells.extend([size(self.mapped_bytes), self.domains.to_string(), self.accesses.to_string()]);
        cells
    }
}

impl Row for AreaRow {
    const COLUMNS: &'static [Column] = &[
        ("START", Right),
        ("LAST", Right),
        ("LENGTH", Right),
        ("MAY", Left),
        ("STATE", Left),
        ("PAGES", Right),
        ("FIRST", Right),
        ("OFFSET", Right),
        ("ACCESSES", Right),
        ("STRENGTH", Left),
        ("SOURCE", Left),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.start.to_string(),
            self.last.to_string(),
            size(self.length),
            self.permission.clone(),
            self.state.clone(),
            self.pages.to_string(),
            self.first_page.to_string(),
            self.page_offset.to_string(),
            self.accesses.to_string(),
            or_dash(self.strength.as_ref()),
            or_dash(self.source.as_ref()),
        ]
    }
}

impl Row for GapRow {
    const COLUMNS: &'static [Column] = &[("START", Right), ("LAST", Right), ("LENGTH", Right)];

    fn cells(&self) -> Vec<String> {
        vec![self.start.to_string(), self.last.to_string(), size(self.length)]
    }
}

impl Row for RangeRow {
    const COLUMNS: &'static [Column] = &[
        ("START", Right),
        ("LAST", Right),
        ("LENGTH", Right),
        ("KIND", Left),
        ("REQUESTS", Right),
        ("OWNERS", Left),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.start.to_string(),
            self.last.to_string(),
            size(self.length),
            self.kind.clone(),
            self.requests.to_string(),
            if self.owners.is_empty() { "-".to_owned() } else { self.owners.join(", ") },
        ]
    }
}

impl Row for DeviceRow {
    const COLUMNS: &'static [Column] = &[
        ("ID", Right),
        ("CONTEXT", Right),
        ("OBJECT", Right),
        ("KIND", Left),
        ("IOMMU", Left),
        ("FORMAT", Left),
        ("HWPT", Right),
        ("IOAS", Right),
        ("SINCE", Left),
    ];

    fn cells(&self) -> Vec<String> {
        let attached = self.attached.as_ref();
        vec![
            self.id.to_string(),
            self.context.to_string(),
            self.object.to_string(),
            self.kind.clone(),
            self.iommu.clone(),
            self.format.clone(),
            or_dash(attached.map(|attached| attached.hwpt).as_ref()),
            or_dash(attached.map(|attached| attached.ioas).as_ref()),
            attached.map_or(&self.since, |attached| &attached.since).clone(),
        ]
    }
}

impl Row for PagesRow {
    const COLUMNS: &'static [Column] = &[
        ("ID", Right),
        ("CONTEXT", Right),
        ("UID", Right),
        ("LENGTH", Right),
        ("PINNED", Right),
        ("CHARGED", Right),
        ("RETIRING", Right),
        ("STRENGTH", Left),
        ("SOURCE", Left),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.context.to_string(),
            self.uid.to_string(),
            size(self.length),
            size(self.pinned_bytes),
            size(self.charged_bytes),
            size(self.retiring_bytes),
            self.strength.clone(),
            self.source.clone(),
        ]
    }
}

impl Row for DomainRow {
    const COLUMNS: &'static [Column] = &[
        ("ID", Right),
        ("CONTEXT", Right),
        ("IOAS", Right),
        ("OBJECT", Right),
        ("FORMAT", Left),
        ("MAPPED", Right),
        ("TABLES", Right),
        ("WALKERS", Right),
        ("FAULTS", Right),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            or_dash(self.context.as_ref()),
            self.ioas.to_string(),
            self.object.to_string(),
            self.format.clone(),
            size(self.mapped_bytes),
            size(self.table_bytes),
            self.walkers.to_string(),
            self.faults.to_string(),
        ]
    }
}

impl Row for AccessRow {
    const COLUMNS: &'static [Column] = &[
        ("ID", Right),
        ("CONTEXT", Right),
        ("IOAS", Right),
        ("OBJECT", Right),
        ("MAY", Left),
        ("PINS", Right),
        ("PINNED", Right),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            or_dash(self.context.as_ref()),
            self.ioas.to_string(),
            self.object.to_string(),
            self.may.clone(),
            self.pins.to_string(),
            size(self.pinned_bytes),
        ]
    }
}

impl Row for AccountRow {
    const COLUMNS: &'static [Column] = &[
        ("ID", Right),
        ("ABOVE", Right),
        ("TENANT", Left),
        ("UID", Right),
        ("CONTEXT", Right),
        ("PINNED", Right),
        ("LIMIT", Right),
        ("LIMITED", Right),
        ("TABLES", Right),
        ("AREAS", Right),
        ("OBJECTS", Right),
    ];

    fn cells(&self) -> Vec<String> {
        let counter = |name: &str| self.counters.get(name).copied().unwrap_or_default();
        vec![
            self.id.to_string(),
            or_dash(self.parent.as_ref()),
            or_dash(self.tenant.as_ref()),
            or_dash(self.uid.as_ref()),
            or_dash(self.context.as_ref()),
            size(counter("pinned").used),
            counter("pinned").hard.map_or_else(|| "none".to_owned(), size),
            or_dash(self.limited_bytes.map(size).as_ref()),
            size(counter("tables").used),
            counter("areas").used.to_string(),
            counter("objects").used.to_string(),
        ]
    }
}

impl Row for PayerRow {
    const COLUMNS: &'static [Column] = &[
        ("PID", Right),
        ("USER", Right),
        ("CHARGED", Right),
        ("LOCKED", Right),
        ("LOCKED BY USER", Right),
        ("LIMIT", Right),
        ("STATE", Left),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.pid.to_string(),
            self.uid.to_string(),
            size(self.charged_bytes),
            size(self.limited_bytes),
            size(self.user_limited_bytes),
            self.limit_bytes.map_or_else(|| "none".to_owned(), size),
            if self.ended { "ended" } else { "running" }.to_owned(),
        ]
    }
}

impl Row for SettingRow {
    const COLUMNS: &'static [Column] = &[
        ("SECTION", Left),
        ("KEY", Left),
        ("VALUE", Left),
        ("SOURCE", Left),
        ("ORIGIN", Left),
        ("MEANING", Left),
    ];

    fn cells(&self) -> Vec<String> {
        let Self { section, key, value, source, origin, meaning } = self;
        let mut cells: Vec<String> = [section, key, value, source, origin].map(Clone::clone).into();
        cells.push(or_dash(meaning.as_ref()));
        cells
    }
}

impl Row for OperationRow {
    const COLUMNS: &'static [Column] = &[
        ("ID", Right),
        ("CONTEXT", Right),
        ("COMMAND", Left),
        ("IOAS", Right),
        ("START", Right),
        ("FOR", Right),
        ("DOING", Left),
        ("PROGRESS", Left),
        ("WAITS FOR", Left),
        ("CANCEL", Left),
    ];

    fn cells(&self) -> Vec<String> {
        let trouble = self.trouble.as_deref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
        vec![
            self.id.to_string(),
            self.context.to_string(),
            self.command.clone(),
            or_dash(self.ioas.as_ref()),
            or_dash(self.start.as_ref()),
            format!("{:.1?}", Duration::from_millis(self.age_ms)),
            self.doing.clone(),
            bar(self.done_bytes, self.total_bytes),
            format!("{}{trouble}", self.waits_for),
            if self.cancellable { "yes" } else { "no" }.to_owned(),
        ]
    }
}

impl Row for EventRow {
    const COLUMNS: &'static [Column] = &[
        ("NUMBER", Right),
        ("AT", Left),
        ("TIMES", Right),
        ("KIND", Left),
        ("CONTEXT", Right),
        ("COMMAND", Left),
        ("CODE", Left),
        ("TEXT", Left),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.number.to_string(),
            self.at.clone(),
            self.times.to_string(),
            self.kind.clone(),
            or_dash(self.context.as_ref()),
            or_dash(self.command.as_ref()),
            or_dash(self.code.as_ref()),
            self.text.clone(),
        ]
    }
}
