//! `ioasd bench`: how fast the engine is, against floors that bare code sets in the same run.
//!
//! The engine is the real one: arbiters, actors, tables. It runs in this process where the engine itself is measured,
//! and in a process of its own, behind a socket, where the way there is. Every figure stands beside the floor that the
//! same machine reached at the same time, measured in turn with it; what that says, and how to read it, is in
//! `docs/performance.md`. After timing, every entry of every table is checked: a wrong table fails the bench.
//!
//! | file | what it is |
//! |---|---|
//! | [`scenario`] | what can be measured, and in which order |
//! | `bed` | an engine in this process, and a context on its arbiter |
//! | `frames` | page sources without memory, whose pins cost nothing |
//! | `memory` | memfds that hold real memory |
//! | `floor`, `sample`, `report` | bare code, times, and what becomes of them |
//! | `check` | whether tables say what they should |
//! | `fan_out`, `mapping`, `longterm`, `attach`, `access`, `footprint`, `small`, `vectored` | the scenarios of the engine |
//! | `translate`, `rewriting` | those of walkers |
//! | `process`, `program` | the scenario of programs under the shim, and that program |
//! | `socket_bed`, `echo` | an agent in another process and a client of it; an echo for comparison |
//! | `busy`, `cpus` | walkers that are never idle; which CPUs threads run on |
//! | [`peer`] | the other process: an agent, an echo, or a program |
//!
//! Imports allowed: everything.

mod access;
mod attach;
mod bed;
mod busy;
mod check;
mod cpus;
mod echo;
mod fan_out;
mod floor;
mod footprint;
mod frames;
mod longterm;
mod mapping;
mod memory;
pub mod peer;
mod process;
mod program;
mod report;
mod rewriting;
mod sample;
pub mod scenario;
mod small;
mod socket_bed;
mod translate;
mod vectored;

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::Args;
use ioasd_client::error::CallError;
use ioasd_client::units::{ByteLen, Iova, PAGE_SIZE};

use self::check::Leaves;
use self::report::{Row, print_table, write_json};
use self::scenario::Scenario;
use super::{Exit, with_causes};
use crate::actors::engine::EngineError;
use crate::config::values::parse_size;
use crate::storage::refusal::Refusal;
use crate::storage::source::Strength;
use crate::sys::failure::SysError;

/// The least that can be measured: more than one leaf table.
const SIZE_MIN: u64 = 2 << 20;

/// The file that is none.
const STANDARD_OUTPUT: &str = "-";

/// The flags of `ioasd bench`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct BenchArgs {
    /// What to measure [default: everything].
    #[arg(value_name = "SCENARIO")]
    pub scenarios: Vec<Scenario>,
    /// Write the figures here, one JSON object a line; `-` or nothing: to standard output, in place of the table.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
    /// Memory that one mapping shows; whole pages, at least 2 MiB.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    pub size: ByteLen,
    /// How often each case is timed.
    #[arg(long, value_name = "N", default_value = "21")]
    pub rounds: NonZeroU32,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    #[error("--size {0} does not do: take whole pages of {PAGE_SIZE} bytes, at least {SIZE_MIN}")]
    Size(ByteLen),
    #[error("cannot start the engine")]
    Engine(#[from] EngineError),
    #[error("the engine ended in the middle of a scenario")]
    Lost,
    #[error("the engine refused")]
    Refused(#[from] Refusal),
    #[error("the agent refused")]
    Call(#[from] CallError),
    #[error("cannot make memory to map")]
    Memory(#[from] SysError),
    #[error("domain {domain} has a leaf of {found} at {iova}, expected {expected}")]
    WrongLeaf { domain: u64, iova: Iova, found: ByteLen, expected: Leaves },
    #[error("range {range} of many was refused")]
    RangeRefused {
        range: usize,
        #[source]
        errno: rustix::io::Errno,
    },
    #[error("domain {domain} is wrong at {iova}: {found}, expected {expected}")]
    WrongTable { domain: u64, iova: Iova, found: String, expected: String },
    #[error("{0} translated an address wrongly")]
    WrongTranslation(&'static str),
    #[error("the bytes read are not those of the memory")]
    WrongBytes,
    #[error("cannot {doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
}

impl BenchError {
    fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    const fn exit(&self) -> Exit {
        match self {
            Self::Size(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// How much, and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    size: ByteLen,
    rounds: u32,
    /// Where it is shown.
    iova: Iova,
    /// The leaves that tables must have there.
    leaves: Leaves,
    /// What holds pinned pages of files.
    strength: Strength,
}

impl Plan {
    fn new(args: &BenchArgs) -> Result<Self, BenchError> {
        let size = args.size;
        if !size.is_aligned(PAGE_SIZE) || size.get() < SIZE_MIN {
            return Err(BenchError::Size(size));
        }
        Ok(Self {
            size,
            rounds: args.rounds.get(),
            iova: bed::IOVA,
            leaves: Leaves::Pages,
            strength: Strength::Resident,
        })
    }

    /// Pages that one mapping shows.
    const fn pages(self) -> u64 {
        self.size.get() / PAGE_SIZE
    }
}

/// Measures, shows a table, and writes the figures where they were asked for.
pub fn bench(args: &BenchArgs) -> Exit {
    match measure(args) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("bench: {}", with_causes(&error));
            error.exit()
        }
    }
}

fn measure(args: &BenchArgs) -> Result<(), BenchError> {
    let plan = Plan::new(args)?;
    let mut json = args.json.as_deref().map(json_to).transpose()?;
    let mut measured: Vec<Row> = Vec::new();
    for group in scenario::groups(&args.scenarios) {
        let rows = group.measure(plan)?;
        let rows: Vec<Row> = rows.into_iter().filter(|row| args.wants(row)).collect();
        if let Some(json) = &mut json {
            let written = write_json(json, &rows).and_then(|()| json.flush());
            written.map_err(BenchError::io("write the figures"))?;
        }
        measured.extend(rows);
    }
    if args.json.as_deref() == Some(Path::new(STANDARD_OUTPUT)) {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    print_table(&mut out, &measured)
        .and_then(|()| out.flush())
        .map_err(BenchError::io("write to standard output"))
}

fn json_to(path: &Path) -> Result<Box<dyn Write>, BenchError> {
    if path == Path::new(STANDARD_OUTPUT) {
        return Ok(Box::new(io::stdout()));
    }
    let file = File::create(path).map_err(BenchError::io("create the file for the figures"))?;
    Ok(Box::new(file))
}

impl BenchArgs {
    fn wants(&self, row: &Row) -> bool {
        self.scenarios.is_empty() || self.scenarios.contains(&row.scenario)
    }
}
