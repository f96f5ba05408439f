//! What a translation costs in C, through the shared library, and in Rust, in the same run.
//!
//! ```text
//! cargo run --release -p ioasd-c --example cost -- SOCKET
//! ```
//!
//! Maps 64 MiB with leaves of 4 KiB, and walks them from here and from `cost.c`, by turns. Needs a C compiler.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use ioasd_client::calls::{ExportChannel, FileSlice, Iommu, LargePages, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::formats::FormatId;
use ioasd_client::units::{ByteLen, Iova, Permission};
use ioasd_client::walker::{Access, Stream, WalkFault, Walker};

const BASE: u64 = 1 << 40;
const LENGTH: u64 = 64 << 20;
const LOOKUPS: usize = 1 << 16;
const BURST: usize = 64;
const ASKED: u64 = 64;

/// Rounds of either side in a turn, and turns.
const ROUNDS: usize = 200;
const TURNS: usize = 10;

/// How addresses come: at random for a stride of 0.
struct Case {
    name: &'static str,
    length: u64,
    stride: u64,
    iotlb: Option<u32>,
}

const CASES: [Case; 3] = [
    Case { name: "random, 64 MiB", length: LENGTH, stride: 0, iotlb: None },
    Case { name: "stream, IOTLB", length: LENGTH, stride: ASKED, iotlb: Some(1) },
    Case { name: "64 hot pages, IOTLB", length: 64 << 12, stride: 0, iotlb: Some(1) },
];

fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::args_os().nth(1).ok_or("usage: cost SOCKET")?;
    let folder = tempfile::tempdir()?;
    let program = built(folder.path())?;
    let mut agent = Connection::connect(Path::new(&socket))?;
    let channel = exported(&mut agent)?;
    println!("{:<22}{:>10}{:>10}{:>8}", "ns a translation", "Rust", "C", "ratio");
    for case in &CASES {
        let (mut rust, mut c) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            rust.extend(in_rust(&channel, case)?);
            c.extend(in_c(&program, folder.path(), &channel, case)?);
        }
        let (rust, c) = (median(rust), median(c));
        println!("{:<22}{rust:>10.2}{c:>10.2}{:>8.2}", case.name, c / rust);
    }
    Ok(())
}

/// The C program, with a library of its own.
fn built(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = Command::new(here.join("../../deploy/library/install")).arg(folder).status()?;
    let (program, source) = (folder.join("cost"), here.join("examples/cost.c"));
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-o"]).arg(&program).arg(source).arg("-I").arg(folder.join("include"));
    let compiled = cc.arg("-L").arg(folder.join("lib")).arg("-lioasd").status()?;
    if installed.success() && compiled.success() { Ok(program) } else { Err("cannot build cost.c".into()) }
}

fn exported(agent: &mut Connection) -> Result<OwnedFd, Box<dyn Error>> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("cost", flags)?;
    rustix::fs::fallocate(&memory, rustix::fs::FallocateFlags::empty(), 0, LENGTH)?;
    rustix::fs::fcntl_add_seals(&memory, rustix::fs::SealFlags::SHRINK)?;
    let ioas = agent.ioas_alloc()?;
    agent.set_large_pages(ioas, LargePages::Off)?;
    let device = agent.device_create(FormatId::AmdV1, Iommu::Own)?;
    let hwpt = agent.device_attach(device, ioas)?;
    let (offset, length) = (ByteLen::new(0), ByteLen::new(LENGTH));
    let slice = FileSlice { file: memory.as_fd(), offset, length };
    agent.map_file(ioas, slice, Permission::ReadWrite, Placement::Fixed(Iova::new(BASE)))?;
    Ok(agent.domain_export(hwpt)?)
}

fn in_c(program: &Path, library: &Path, channel: &OwnedFd, case: &Case) -> Result<Vec<f64>, Box<dyn Error>> {
    let numbers = [BASE, case.length, case.iotlb.unwrap_or(0).into(), case.stride, ROUNDS as u64];
    let mut run = Command::new(program);
    run.args(numbers.map(|number| number.to_string())).env("LD_LIBRARY_PATH", library.join("lib"));
    let output =
        run.stdin(Stdio::from(File::from(channel.try_clone()?))).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("cost.c failed: {}", output.status).into());
    }
    Ok(std::str::from_utf8(&output.stdout)?.lines().map(str::parse).collect::<Result<_, _>>()?)
}

fn in_rust(channel: &OwnedFd, case: &Case) -> Result<Vec<f64>, Box<dyn Error>> {
    let walker = Walker::attach(ExportChannel::from_fd(channel.try_clone()?))?;
    let stream = walker.stream()?;
    let mut stream = if case.iotlb.is_some() { stream.with_iotlb() } else { stream };
    let offsets = offsets(case);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        black_box(go_round(&mut stream, &offsets)?);
        rounds.push(start.elapsed().as_secs_f64() * 1e9 / LOOKUPS as f64);
    }
    Ok(rounds)
}

/// The sum of where the addresses lead.
fn go_round(stream: &mut Stream, offsets: &[u64]) -> Result<usize, WalkFault> {
    let mut sum = 0_usize;
    for offsets in offsets.chunks(BURST) {
        let burst = stream.enter();
        for offset in offsets {
            let slice = burst.slice(Iova::new(BASE + offset), ByteLen::new(ASKED), Access::Read)?;
            sum = sum.wrapping_add(slice.memory.as_ptr().addr());
        }
    }
    Ok(sum)
}

/// The same addresses as in `cost.c`.
fn offsets(case: &Case) -> Vec<u64> {
    let (mut state, units) = (0x9e37_79b9_7f4a_7c15_u64, case.length / ASKED);
    let next = |number: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (if case.stride == 0 { state } else { number * case.stride / ASKED }) % units * ASKED
    };
    (0..LOOKUPS as u64).map(next).collect()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
