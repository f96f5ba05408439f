//! Fault channels: a process is told of the faults that the walkers of a domain meet.
//!
//! Walkers wake nobody. While somebody holds the other end their counts are looked at: often after a fault, less and less
//! often after none. What is known of a domain's faults anyway is all that is kept for the reader, who is told what it missed.
//!
//! Imports allowed: domains::walker_faults, sys, figures.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::select;
use ioasd_client::layout::Access;
use ioasd_client::wire::channels::Faults;
use ioasd_client::wire::command::{Argument, Command, encode};
use ioasd_client::wire::frame::{Echo, Request, Tag};
use ioasd_client::wire::own::ACCESS_WRITE;
use ioasd_client::wire::record::{ToldFault, store_all};

use super::figures::UnderWay;
use crate::domains::walker_faults::{FaultSeen, WalkerFaults};
use crate::sys::socket;
use crate::sys::watched::Watched;

/// Fault channels of one domain: each of them costs looks at it.
pub(super) const CHANNELS_MAX: u64 = 4;

/// Faults in one message.
const TOLD_MAX: usize = 32;

/// The pause between two looks after a fault, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(50));

/// Tells of faults until the other end is closed, or says anything. Takes a place as long as that.
pub(super) async fn serve(channel: Watched<OwnedFd>, faults: Arc<WalkerFaults>, _place: UnderWay) {
    let said = channel.read_with(|channel| socket::receive(channel.as_fd(), &mut [0; 1]));
    select(Box::pin(said), Box::pin(tell(&channel, &faults))).await;
}

async fn tell(channel: &Watched<OwnedFd>, faults: &WalkerFaults) -> io::Result<()> {
    let mut known = faults.since(0, usize::MAX).faults.last().map_or(0, |fault| fault.number);
    let mut pause = PAUSES.0;
    loop {
        let new = faults.since(known, TOLD_MAX).faults;
        let (Some(first), Some(last)) = (new.first(), new.last()) else {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
            continue;
        };
        let message = message(first.number - known - 1, &new)?;
        channel.write_with(|channel| socket::send(channel.as_fd(), &[&message], &[])).await?;
        (known, pause) = (last.number, PAUSES.0);
    }
}

fn message(missed: u64, faults: &[FaultSeen]) -> io::Result<Vec<u8>> {
    let told: Vec<ToldFault> = faults.iter().map(told).collect();
    let count = u32::try_from(told.len()).unwrap_or(u32::MAX);
    let argument = [encode(&Faults { count, missed }), store_all(&told)].concat();
    let echo = Echo { command: Faults::NUMBER, tag: Tag(0) };
    Request { echo, argument: Argument::new(&argument) }.encode().map_err(io::Error::other)
}

fn told(fault: &FaultSeen) -> ToldFault {
    let at = fault.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    ToldFault {
        number: fault.number,
        iova: fault.iova,
        entry: fault.entry,
        at: u64::try_from(at).unwrap_or(u64::MAX),
        times: fault.times,
        walker: fault.walker.get(),
        pid: fault.process.map_or(0, |process| process.as_raw_pid().unsigned_abs()),
        access: if fault.access == Access::Write { ACCESS_WRITE } else { 0 },
        cause: u32::try_from(fault.kind.index()).unwrap_or(u32::MAX),
        level: fault.level.get(),
    }
}
