//! `/v1/host`: memory of this host that is held in place, by whom, and whether through this agent. `limit` bounds both
//! lists.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the host view.

use actix_web::{HttpRequest, HttpResponse, web};
use ioasd_client::units::ByteLen;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::{rfc3339, shown};
use super::parameters::NumberPart;
use super::problem::{Kind, Problem};
use crate::sys::host::{Completeness, HostProcess};
use crate::telemetry::host::{Group, Reading, Via, groups};

/// What no figure here says.
const NOT_TOLD: [&str; 5] = [
    "the kernel has no counter of long-term pins by control group",
    "unevictable memory of a control group includes the groups below, and not long-term pins",
    "memory of files that nobody maps, DMA buffers and hugetlb pages are in no process's figures",
    "process memory that a client pins for this agent is under the client, via other",
    "the pin counters count everybody's pins since the host started, short ones included",
];

/// The host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Host {
    /// When it was read.
    pub(crate) taken: String,
    /// Memory of the host that cannot be reclaimed.
    pub(crate) unevictable_bytes: Option<u64>,
    /// The part of it that was locked.
    pub(crate) mlocked_bytes: Option<u64>,
    /// Pages pinned by anybody since the host started.
    pub(crate) pins_acquired: Option<u64>,
    /// Pages unpinned.
    pub(crate) pins_released: Option<u64>,
    /// Control groups, the heaviest first.
    pub(crate) cgroups: Vec<CgroupRow>,
    /// Control groups that are not listed.
    pub(crate) cgroups_left_out: usize,
    /// Processes that hold something, most first.
    pub(crate) processes: Vec<ProcessRow>,
    /// Processes that hold something and are not listed.
    pub(crate) processes_left_out: usize,
    /// How much of the host was looked at.
    pub(crate) coverage: CoverageRow,
    /// What no figure here says.
    pub(crate) not_told: Vec<String>,
}

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CgroupRow {
    /// Its path.
    pub(crate) cgroup: String,
    /// Bytes this agent has pinned for contexts that were opened from here.
    pub(crate) ioasd_pinned_bytes: u64,
    /// Bytes that processes here have pinned otherwise.
    pub(crate) other_pinned_bytes: u64,
    /// Bytes that processes here have locked.
    pub(crate) other_locked_bytes: u64,
    /// Bytes that cannot be reclaimed, those of the groups below included.
    pub(crate) unevictable_bytes: u64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ProcessRow {
    /// Its number.
    pub(crate) pid: i32,
    /// Its user.
    pub(crate) uid: u32,
    /// The name it gives itself.
    pub(crate) comm: String,
    /// Its control group.
    pub(crate) cgroup: Option<String>,
    /// Bytes pinned in its address space.
    pub(crate) pinned_bytes: u64,
    /// Bytes locked in its address space.
    pub(crate) locked_bytes: u64,
    /// `ioasd` for this agent, else `other`.
    pub(crate) via: String,
}

/// How much of the host was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CoverageRow {
    /// Processes of the host.
    pub(crate) processes: usize,
    /// Of these, not read yet: the next readings go on with them.
    pub(crate) unread: usize,
    /// Of these, not readable.
    pub(crate) unreadable: usize,
    /// Whether all control groups were looked at.
    pub(crate) cgroups_complete: bool,
}

fn cgroup_row((name, group): (String, Group)) -> CgroupRow {
    CgroupRow {
        cgroup: name,
        ioasd_pinned_bytes: group.ioasd.get(),
        other_pinned_bytes: group.other.pinned.get(),
        other_locked_bytes: group.other.locked.get(),
        unevictable_bytes: group.unevictable.get(),
    }
}

fn process_row(process: &HostProcess) -> ProcessRow {
    ProcessRow {
        pid: process.pid.as_raw_pid(),
        uid: process.uid.as_raw(),
        comm: process.comm.clone(),
        cgroup: process.cgroup.clone(),
        pinned_bytes: process.held.pinned.get(),
        locked_bytes: process.held.locked.get(),
        via: Via::of(process.pid).name().to_owned(),
    }
}

fn host(reading: &Reading, groups: Vec<(String, Group)>, limit: usize) -> Host {
    let (memory, coverage) = (&reading.memory, reading.memory.coverage);
    Host {
        taken: rfc3339(reading.taken),
        unevictable_bytes: memory.unevictable.map(ByteLen::get),
        mlocked_bytes: memory.mlocked.map(ByteLen::get),
        pins_acquired: memory.pins.map(|pins| pins.acquired),
        pins_released: memory.pins.map(|pins| pins.released),
        cgroups_left_out: groups.len().saturating_sub(limit),
        cgroups: groups.into_iter().take(limit).map(cgroup_row).collect(),
        processes: memory.processes.iter().take(limit).map(process_row).collect(),
        processes_left_out: memory.processes.len().saturating_sub(limit),
        coverage: CoverageRow {
            processes: coverage.processes,
            unread: coverage.unread,
            unreadable: coverage.unreadable,
            cgroups_complete: coverage.cgroups == Completeness::Complete,
        },
        not_told: NOT_TOLD.map(str::to_owned).to_vec(),
    }
}

pub(super) async fn show(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let part = NumberPart::of(&request)?;
    if part.after.is_some() {
        return Err(Problem::parameter("after", "the host is shown in one part: raise limit instead"));
    }
    let unreadable =
        || Problem::new(Kind::HostUnreadable, "the processes of this host cannot be listed".to_owned());
    let reading = data.host.read().ok_or_else(unreadable)?;
    let groups = groups(&reading.memory, &data.view.registry);
    Ok(shown(&host(&reading, groups, part.limit)))
}
