//! The client of the demo: owns the memory, has it mapped, and starts the devices.
//!
//! It writes what it does on its standard output, and unmaps when a line on its standard input says so. Without its
//! parent it ends at once.
//!
//! Imports allowed: the client crate's calls, and the other parts of the demo.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;
use ioasd_client::calls::{FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::error::CallError;
use ioasd_client::ids::{DeviceId, HwptId, IoasId};
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SHIFT, PAGE_SIZE, PageIndex, Permission};

use super::device;
use super::family::{Awaited, Family, FamilyError, Role, die_with_parent};
use super::memory::{Memory, MemoryError};
use super::pattern::Writer;
use super::plan::{DeviceNumber, PlacesError, Plan, PlanError, Space, human};
use super::speech::{Milestone, say, since, tell};
use crate::cli::{DemoArgs, Exit};

/// The line that makes the client unmap.
pub(super) const UNMAP: &str = "unmap";

/// The flags of the hidden `ioasd demo-client`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DemoClientArgs {
    /// What to show.
    #[command(flatten)]
    pub demo: DemoArgs,
    /// The agent's socket.
    #[arg(long)]
    pub socket: PathBuf,
}

/// The command that starts a client.
pub(super) fn command(program: &Path, plan: Plan, socket: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("demo-client").arg("--socket").arg(socket);
    plan.pass_on(&mut command);
    command
}

/// Why the client failed.
#[derive(Debug, thiserror::Error)]
enum ClientError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Places(#[from] PlacesError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Family(#[from] FamilyError),
    #[error("unmapped {found:#x} bytes instead of {expected:#x}")]
    Unmapped { found: u64, expected: u64 },
    #[error("cannot hear or answer the demo")]
    Demo(#[from] io::Error),
    #[error("expected the line {UNMAP:?} on standard input, not {0:?}")]
    Told(String),
}

/// Runs the client.
pub fn run(args: &DemoClientArgs) -> Exit {
    super::ended(play(args), "client", |_| Exit::Failed)
}

fn play(args: &DemoClientArgs) -> Result<(), ClientError> {
    die_with_parent()?;
    let mut client = Client::connect(Plan::new(&args.demo)?, &args.socket)?;
    client.attach(AttachTime::Early)?;
    let mapped = client.map()?;
    let copied = client.copy(mapped)?;
    client.attach(AttachTime::Late)?;
    client.use_devices(mapped, copied)?;
    wait_for_the_word()?;
    client.unmap()?;
    client.destroy()
}

/// When a device is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttachTime {
    /// Before anything is mapped.
    Early,
    /// After.
    Late,
}

impl AttachTime {
    const fn what(self) -> &'static str {
        match self {
            Self::Early => "while nothing is mapped",
            Self::Late => "to memory that is mapped already",
        }
    }
}

struct Client {
    plan: Plan,
    memory: Memory,
    agent: Connection,
    mapped: IoasId,
    copied: IoasId,
    attached: Vec<Attached>,
    family: Family,
}

/// A device behind an IO page table of its own.
#[derive(Clone, Copy, Debug)]
struct Attached {
    number: DeviceNumber,
    device: DeviceId,
    hwpt: HwptId,
}

impl Client {
    fn connect(plan: Plan, socket: &Path) -> Result<Self, ClientError> {
        let start = Instant::now();
        let memory = Memory::new(plan)?;
        let sum = memory.fill(Writer::Client)?;
        let size = human(plan.size());
        tell(
            Role::Client,
            format_args!("memfd of {size} filled and sealed, checksum {sum}, {}", since(start)),
        )?;
        let mut agent = Connection::connect(socket)?;
        let (mapped, copied) = (agent.ioas_alloc()?, agent.ioas_alloc()?);
        Ok(Self { plan, memory, agent, mapped, copied, attached: Vec::new(), family: Family::new() })
    }

    fn awaited(&self, what: &'static str) -> Awaited {
        Awaited { what, patience: self.plan.patience() }
    }

    const fn ioas(&self, space: Space) -> IoasId {
        match space {
            Space::Mapped => self.mapped,
            Space::Copied => self.copied,
        }
    }

    fn attach(&mut self, time: AttachTime) -> Result<(), ClientError> {
        let (start, plan, before) = (Instant::now(), self.plan, self.attached.len());
        let now = plan.devices().filter(|&number| plan.attached_early(number) == (time == AttachTime::Early));
        for number in now {
            let device = self.agent.device_create(plan.format(number), Iommu::Own)?;
            let hwpt = self.agent.device_attach(device, self.ioas(plan.space(number)))?;
            self.attached.push(Attached { number, device, hwpt });
        }
        let count = self.attached.len() - before;
        let (what, took) = (time.what(), since(start));
        tell(
            Role::Client,
            format_args!("attached {count} of {} devices {what}, {took}", plan.device_count()),
        )?;
        Ok(())
    }

    /// Maps the contiguous part in one piece and the scattered pages behind it one by one.
    fn map(&mut self) -> Result<Iova, ClientError> {
        let (start, plan) = (Instant::now(), self.plan);
        let contiguous = ByteLen::new(plan.contiguous() << PAGE_SHIFT);
        let slice = FileSlice { file: self.memory.as_fd(), offset: ByteLen::new(0), length: contiguous };
        let iova = self.agent.map_file(self.mapped, slice, Permission::ReadWrite, Placement::Any)?;
        tell(
            Role::Client,
            format_args!("mapped {} in one piece at IOVA {iova}, {}", human(contiguous), since(start)),
        )?;
        let start = Instant::now();
        for page in (plan.contiguous()..plan.pages()).map(PageIndex::new) {
            let slice = FileSlice {
                file: self.memory.as_fd(),
                offset: page.byte_offset(),
                length: ByteLen::new(PAGE_SIZE),
            };
            let place = Placement::Fixed(plan.iova_of(iova, page)?);
            self.agent.map_file(self.mapped, slice, Permission::ReadWrite, place)?;
        }
        let scattered = plan.scattered();
        tell(Role::Client, format_args!("mapped {scattered} pages behind it, scattered, {}", since(start)))?;
        Ok(iova)
    }

    /// Shows all of it in the second address space, which costs no pin and no charge.
    fn copy(&mut self, iova: Iova) -> Result<Iova, ClientError> {
        let (start, size) = (Instant::now(), self.plan.size());
        let range = IovaRange::from_length(iova, size).ok_or(PlacesError { base: iova })?;
        let target = (self.copied, Placement::Any);
        let copied = self.agent.copy((self.mapped, range), target, Permission::ReadWrite)?;
        let what = format_args!(
            "copied {} into a second address space at IOVA {copied}, {}",
            human(size),
            since(start)
        );
        tell(Role::Client, what)?;
        Ok(copied)
    }

    /// Starts a process for each device and waits until all have read and written.
    fn use_devices(&mut self, mapped: Iova, copied: Iova) -> Result<(), ClientError> {
        let program = std::env::current_exe()?;
        self.attached.sort_unstable_by_key(|attached| attached.number.0);
        for Attached { number, hwpt, .. } in self.attached.clone() {
            let iova = match self.plan.space(number) {
                Space::Mapped => mapped,
                Space::Copied => copied,
            };
            let channel: OwnedFd = self.agent.domain_export(hwpt)?;
            let mut command = device::command(&program, self.plan, number, iova);
            self.family.start(Role::Device(number), command.stdin(Stdio::from(channel)))?;
        }
        let awaited = self.awaited("all devices have read everything and written their page");
        self.family.until(Milestone::Used, self.plan.device_count(), awaited)?;
        say(Milestone::AllUsed)?;
        Ok(())
    }

    /// When the unmap is answered, no device reaches the memory any more: whatever is written then, none may see.
    fn unmap(&mut self) -> Result<(), ClientError> {
        for (ioas, what) in [(self.mapped, "the first"), (self.copied, "the second")] {
            let start = Instant::now();
            let found = self.agent.unmap_all(ioas)?.get();
            let took = since(start);
            let expected = self.plan.size().get();
            if found != expected {
                return Err(ClientError::Unmapped { found, expected });
            }
            let size = human(self.plan.size());
            tell(
                Role::Client,
                format_args!("unmapped {size} of {what} address space under the devices' eyes, {took}"),
            )?;
        }
        self.memory.check_writes()?;
        tell(
            Role::Client,
            "found the page of every device as that device wrote it, and all others unchanged",
        )?;
        self.memory.fill(Writer::Afterwards)?;
        let devices: Vec<Role> = self.plan.devices().map(Role::Device).collect();
        let awaited = self.awaited("all devices have noticed the unmap");
        self.family.until_ended(&devices, awaited)?;
        Ok(())
    }

    fn destroy(mut self) -> Result<(), ClientError> {
        for Attached { device, .. } in &self.attached {
            self.agent.device_detach(*device)?;
            self.agent.destroy(*device)?;
        }
        self.agent.destroy(self.mapped)?;
        self.agent.destroy(self.copied)?;
        tell(Role::Client, "detached and destroyed everything")?;
        Ok(())
    }
}

fn wait_for_the_word() -> Result<(), ClientError> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    if line.trim_end() == UNMAP { Ok(()) } else { Err(ClientError::Told(line)) }
}
