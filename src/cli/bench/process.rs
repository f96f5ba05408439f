//! `map-process`: what a program gets that maps its own memory through `/dev/iommu`, under the shim, with an agent of its own.
//!
//! `ioasd run --mock` starts the program (`program`), and all of them share one CPU. Where there is no shim, or no ring, the
//! scenario is skipped and says so.
//!
//! Imports allowed: cpus, program, sample, report.

use std::process::Command;

use ioasd_client::units::ByteLen;

use super::cpus::OneCpu;
use super::program::{Case, Measured};
use super::report::{Row, Unit};
use super::sample::Samples;
use super::scenario::Scenario;
use super::{BenchError, Plan};

/// Bytes of memory that are moved and pinned.
const BYTES: u64 = 16 << 20;

pub(super) fn measure(plan: Plan) -> Result<Vec<Row>, BenchError> {
    let _one = OneCpu::enter()?;
    let size = ByteLen::new(plan.size.get().min(BYTES));
    let program = std::env::current_exe().map_err(BenchError::io("find this program"))?;
    let mut run = Command::new(&program);
    run.args(["run", "--mock", "--"]).arg(&program).args(["bench-peer", "--role", "program"]);
    run.arg("--size").arg(size.get().to_string()).arg("--rounds").arg(plan.rounds.to_string());
    let ended = run.output().map_err(BenchError::io("run a program under the shim"))?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        eprintln!("SKIP: map-process: {}", said.lines().last().unwrap_or("the program has failed"));
        return Ok(Vec::new());
    }
    let lines = String::from_utf8_lossy(&ended.stdout);
    let measured: Result<Vec<Measured>, _> = lines.lines().map(serde_json::from_str).collect();
    let measured = measured.map_err(|error| BenchError::io("read the program's figures")(error.into()))?;
    Ok(measured.iter().map(row).collect())
}

fn row(Measured { case, samples, floor }: &Measured) -> Row {
    let (name, unit) = match case {
        Case::Null => ("op=null", Unit::PerRequest),
        Case::Page => ("op=map-and-unmap", Unit::PerRequest),
        Case::Read => ("op=read", Unit::PerPage),
        Case::Write => ("op=write", Unit::PerPage),
        Case::Pin => ("op=map", Unit::PerPage),
    };
    let (mut measured, mut bare) = (Samples::default(), case.floor());
    samples.iter().for_each(|sample| measured.add_value(*sample));
    floor.iter().for_each(|sample| bare.samples().add_value(*sample));
    Row::new(Scenario::MapProcess, name, unit, &measured, Some(&bare))
}
