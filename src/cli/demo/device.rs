//! A device of the demo: reaches memory through its IO page table alone.
//!
//! Its standard input is the export channel of its domain. It knows the IOVA, and the pattern that must stand there.
//!
//! Imports allowed: the client crate's walker and export channel, and the other parts of the demo.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use clap::Args;
use ioasd_client::calls::ExportChannel;
use ioasd_client::units::{Iova, PageIndex};
use ioasd_client::walker::{AttachError, Burst, FaultKind, NoSlot, Stream, WalkFault, Walker};

use super::family::{Awaited, FamilyError, die_with_parent};
use super::pattern::{self, Checksum, PAGE_BYTES, Writer, WrongByte, splitmix};
use super::plan::{DeviceNumber, PlacesError, Plan, PlanError, human};
use super::speech::{Milestone, say, since, tell};
use crate::cli::{DemoArgs, Exit};

/// Pages read in one burst: an unmap waits for the end of a burst.
const BURST_PAGES: usize = 16;

/// The flags of the hidden `ioasd demo-device`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DemoDeviceArgs {
    /// What to show.
    #[command(flatten)]
    pub demo: DemoArgs,
    /// Which device this is, from 1.
    #[arg(long)]
    pub number: u16,
    /// Where the memory is mapped.
    #[arg(long)]
    pub iova: u64,
}

/// The command that starts a device.
pub(super) fn command(program: &Path, plan: Plan, DeviceNumber(number): DeviceNumber, iova: Iova) -> Command {
    let mut command = Command::new(program);
    command.arg("demo-device").arg("--number").arg(number.to_string());
    command.arg("--iova").arg(iova.get().to_string());
    plan.pass_on(&mut command);
    command
}

/// Why the device failed.
#[derive(Debug, thiserror::Error)]
enum DeviceError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("cannot use standard input as an export channel, or standard output")]
    Io(#[from] io::Error),
    #[error("cannot open the domain")]
    Attach(#[from] AttachError),
    #[error("cannot open the domain")]
    Slot(#[from] NoSlot),
    #[error(transparent)]
    Places(#[from] PlacesError),
    #[error(transparent)]
    Walk(#[from] WalkFault),
    #[error(transparent)]
    Wrong(#[from] WrongByte),
    #[error(transparent)]
    Late(#[from] FamilyError),
}

/// Runs a device.
pub fn run(args: &DemoDeviceArgs) -> Exit {
    let who = DeviceNumber(args.number);
    super::ended(play(args, who), &who.to_string(), |_| Exit::Failed)
}

fn play(args: &DemoDeviceArgs, number: DeviceNumber) -> Result<(), DeviceError> {
    die_with_parent()?;
    let plan = Plan::new(&args.demo)?;
    let walker = open()?;
    let mut device = Device { plan, number, iova: Iova::new(args.iova), stream: walker.stream()? };
    device.read_all()?;
    device.write_own()?;
    say(Milestone::Used)?;
    device.read_until_gone()
}

/// Opens the domain behind standard input.
fn open() -> Result<Walker, DeviceError> {
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(Walker::attach(ExportChannel::from_fd(channel))?)
}

struct Device {
    plan: Plan,
    number: DeviceNumber,
    iova: Iova,
    stream: Stream,
}

impl Device {
    /// Reads every page in order, and checks every byte.
    fn read_all(&mut self) -> Result<(), DeviceError> {
        let start = Instant::now();
        let mut sum = Checksum::new();
        let mut pages = (0..self.plan.pages()).map(PageIndex::new).peekable();
        while pages.peek().is_some() {
            self.burst(pages.by_ref().take(BURST_PAGES), |plan, page, bytes| {
                if plan.owner(page).is_none() {
                    sum.add(bytes);
                }
            })?;
        }
        let (size, took) = (human(self.plan.size()), since(start));
        let what = format_args!("read {size} through its IO page table, all right, checksum {sum}, {took}");
        Ok(tell(self.number, what)?)
    }

    /// Reads and checks `pages` in one burst.
    fn burst(
        &mut self,
        pages: impl Iterator<Item = PageIndex>,
        mut seen: impl FnMut(Plan, PageIndex, &[u8; PAGE_BYTES]),
    ) -> Result<(), DeviceError> {
        let (plan, iova) = (self.plan, self.iova);
        let burst = self.stream.enter();
        for page in pages {
            let bytes = read(&burst, plan.iova_of(iova, page)?)?;
            pattern::check_shared(plan, page, &bytes)?;
            seen(plan, page, &bytes);
        }
        Ok(())
    }

    /// Writes the page that belongs to this device, and reads it back.
    fn write_own(&mut self) -> Result<(), DeviceError> {
        let page = self.plan.page_of(self.number);
        let writer = Writer::Device(self.number);
        let at = self.plan.iova_of(self.iova, page)?;
        let burst = self.stream.enter();
        burst.write(at, &writer.page(page))?;
        pattern::check(writer, page, &read(&burst, at)?)?;
        drop(burst);
        Ok(tell(self.number, format_args!("wrote its own page {page} through the same table"))?)
    }

    /// Reads pages at random until one is not there any more. All that it still sees must be right.
    fn read_until_gone(&mut self) -> Result<(), DeviceError> {
        let start = Instant::now();
        let patience = self.plan.patience_for_unmap();
        let awaited = Awaited { what: "the memory is unmapped", patience };
        let mut read: u64 = 0;
        while start.elapsed() < awaited.patience {
            let first = u64::from(self.number.0) << 48 | read;
            let pages = self.plan.pages();
            let random = (first..).take(BURST_PAGES).map(|turn| PageIndex::new(splitmix(turn) % pages));
            match self.burst(random, |_, _, _| read += 1) {
                Ok(()) => thread::sleep(self.plan.rest()),
                Err(DeviceError::Walk(fault)) if fault.kind == FaultKind::NotPresent => {
                    let (iova, took) = (fault.iova, since(start));
                    let what =
                        format_args!("read {read} more pages at random in {took}, then IOVA {iova} was gone");
                    return Ok(tell(self.number, what)?);
                }
                Err(error) => return Err(error),
            }
        }
        Err(awaited.late().into())
    }
}

fn read(burst: &Burst<'_>, at: Iova) -> Result<[u8; PAGE_BYTES], DeviceError> {
    let mut bytes = [0; PAGE_BYTES];
    burst.read(at, &mut bytes)?;
    Ok(bytes)
}
