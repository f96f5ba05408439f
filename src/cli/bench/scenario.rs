//! What can be measured. The names are fixed: figures of different versions are compared by them.
//!
//! Imports allowed: the scenarios, clap.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use super::report::Row;
use super::{
    BenchError, Plan, access, attach, fan_out, footprint, longterm, mapping, process, rewriting, small,
    translate, vectored,
};

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Bytes of the agent's own memory: first, while this process is small.
    Memory,
    /// Frames into the tables of many domains.
    Fanout,
    /// What one more domain costs.
    FanoutMarginal,
    /// A file with pages in memory into one domain.
    MapFile,
    /// The same, pinned by the kernel.
    MapLongterm,
    /// Memory of a program of its own, through `/dev/iommu`.
    MapProcess,
    /// A domain attached to an address space that is full.
    Attach,
    /// An area shown in another address space as well.
    Copy,
    /// An area out of its domains.
    Unmap,
    /// One page, through the socket of an agent in another process.
    Small,
    /// Many pages, each with a range of its own, in one request or in as many.
    Vectored,
    /// Bytes read and written by a software user.
    Access,
    /// Where an IOVA leads, through a table and through what others use.
    Translate,
    /// The same while the agent writes the table.
    Rewriting,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.pad(name.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Scenarios that come out of the same runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    FanOut,
    Mapping,
    Longterm,
    Process,
    Attach,
    Small,
    Vectored,
    Access,
    Footprint,
    Translate,
    Rewriting,
}

impl Scenario {
    const fn group(self) -> Group {
        match self {
            Self::Fanout | Self::FanoutMarginal | Self::Unmap => Group::FanOut,
            Self::MapFile | Self::Copy => Group::Mapping,
            Self::MapLongterm => Group::Longterm,
            Self::MapProcess => Group::Process,
            Self::Attach => Group::Attach,
            Self::Small => Group::Small,
            Self::Vectored => Group::Vectored,
            Self::Access => Group::Access,
            Self::Memory => Group::Footprint,
            Self::Translate => Group::Translate,
            Self::Rewriting => Group::Rewriting,
        }
    }
}

/// The groups that the wanted scenarios need, each once; all if none is named.
pub(super) fn groups(wanted: &[Scenario]) -> Vec<Group> {
    let all = Scenario::value_variants();
    let mut groups: Vec<Group> = Vec::new();
    for scenario in if wanted.is_empty() { all } else { wanted } {
        if !groups.contains(&scenario.group()) {
            groups.push(scenario.group());
        }
    }
    groups
}

impl Group {
    /// Runs what belongs together.
    pub(super) fn measure(self, plan: Plan) -> Result<Vec<Row>, BenchError> {
        match self {
            Self::FanOut => fan_out::measure(plan),
            Self::Mapping => mapping::measure(plan),
            Self::Longterm => longterm::measure(plan),
            Self::Process => process::measure(plan),
            Self::Attach => attach::measure(plan),
            Self::Small => small::measure(plan),
            Self::Vectored => vectored::measure(plan),
            Self::Access => access::measure(plan),
            Self::Footprint => footprint::measure(plan),
            Self::Translate => translate::measure(plan),
            Self::Rewriting => rewriting::measure(plan),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_of_the_same_runs_are_run_once() {
        assert_eq!(
            groups(&[Scenario::Copy, Scenario::Small, Scenario::MapFile]),
            [Group::Mapping, Group::Small]
        );
        assert_eq!(groups(&[]).len(), 11);
    }
}
