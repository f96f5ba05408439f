//! A device that processes a descriptor ring, all of whose addresses are IOVAs, while another process maps and unmaps
//! under it.
//!
//! ```text
//! cargo run --release --example ring [-- SECONDS]
//!
//! agent (this process) ◀──socket── driver ──export channel──▶ device
//!                                    ╰──── one memfd: a ring and buffers ────╯
//! ```
//!
//! The driver fills buffers, maps each at an address of its own, and writes descriptors. Some it unmaps at once, before
//! the device may have come to them, and spoils the bytes as soon as the unmap is answered. The device adds up the
//! words of each buffer, or reports the fault. A sum of spoiled bytes, or a fault where nothing was unmapped, is an error.

use std::error::Error;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use ioasd::actors::engine::Engine;
use ioasd::actors::registry::Registry;
use ioasd::cli::agent::settings;
use ioasd::config::Config;
use ioasd::storage::source::{Strength, StrengthSetting};
use ioasd_client::calls::{ExportChannel, FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::IoasId;
use ioasd_client::mapping::{MapAccess, SharedMapping, SharedSlice};
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission};
use ioasd_client::walker::{Access, Burst, FaultKind, Stream, WalkFault, Walker};
use rustix::fs::{MemfdFlags, Mode, SealFlags, fcntl_add_seals, memfd_create};

/// Where the ring is mapped, which is the first page of the file; and the words in it.
const RING: Iova = Iova::new(0x10_0000);
const POSTED: usize = 0;
const DONE: usize = 128;
const STOP: usize = 256;
const FIRST: usize = 512;

/// A descriptor: address, then what the device answers: a status and a sum.
const DESCRIPTOR: usize = 24;
const IS_SUM: u64 = 1;
const IS_FAULT: u64 = 2;

/// Descriptors in the ring, each with a buffer of its own behind the ring in the file.
const SLOTS: usize = 64;
const BUFFER: u64 = 4 * PAGE_SIZE;

/// One descriptor in so many has its buffer unmapped at once.
const UNMAPPED_EARLY: usize = 8;

/// What buffers hold that are mapped nowhere.
const SPOILED: u64 = 0x0bad_0bad_0bad_0bad;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["driver", socket, seconds] => drive(Path::new(socket), Duration::from_secs(seconds.parse()?)),
        ["device"] => be_the_device(),
        [] => serve("3"),
        [seconds] => serve(seconds),
        _ => Err("usage: ring [SECONDS]".into()),
    }
}

/// The agent, for as long as the driver runs.
fn serve(seconds: &str) -> Outcome {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("ioasd.sock");
    let mut driver = Command::new(std::env::current_exe()?);
    driver.arg("driver").arg(&socket).arg(seconds);
    actix_rt::System::new().block_on(async {
        let mut settings = settings(&Config::default());
        settings.pins.strength = StrengthSetting::Exactly(Strength::Resident);
        let engine = Engine::start(settings, Registry::new()).await?;
        engine.listen(&socket, Mode::RUSR | Mode::WUSR)?;
        let ended = actix_rt::task::spawn_blocking(move || driver.status()).await??;
        engine.stop().await;
        if ended.success() { Ok(()) } else { Err(format!("the driver failed: {ended}").into()) }
    })
}

/// What the driver holds.
struct Driver {
    agent: Connection,
    ioas: IoasId,
    file: OwnedFd,
    memory: SharedMapping,
    posted: u64,
    next_iova: u64,
    sums: u64,
    faults: u64,
}

fn drive(socket: &Path, time: Duration) -> Outcome {
    let mut driver = Driver::new(socket)?;
    let device = driver.agent.device_create(FormatId::AmdV1, Iommu::Own)?;
    let hwpt = driver.agent.device_attach(device, driver.ioas)?;
    driver.map(0, PAGE_SIZE, RING)?;
    let channel = driver.agent.domain_export(hwpt)?;
    let mut device =
        Command::new(std::env::current_exe()?).arg("device").stdin(Stdio::from(channel)).spawn()?;
    let start = Instant::now();
    while start.elapsed() < time {
        driver.round(&mut device)?;
    }
    driver.word(STOP)?.store(1, Ordering::Release);
    let ended = device.wait()?;
    let (sums, faults, posted) = (driver.sums, driver.faults, driver.posted);
    let rate = posted as f64 / start.elapsed().as_secs_f64();
    println!(
        "{posted} descriptors of {BUFFER} bytes, {rate:.0} a second; as many buffers mapped and unmapped"
    );
    println!(
        "{sums} sums, all right; {faults} faults, all of buffers unmapped before the device came to them"
    );
    if ended.success() && sums > 0 { Ok(()) } else { Err(format!("the device failed: {ended}").into()) }
}

impl Driver {
    fn new(socket: &Path) -> Result<Self, Box<dyn Error>> {
        let mut agent = Connection::connect(socket)?;
        let ioas = agent.ioas_alloc()?;
        let length = PAGE_SIZE + SLOTS as u64 * BUFFER;
        let file = memfd_create("ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
        let memory = SharedMapping::new(&file, ByteLen::new(length), MapAccess::ReadWrite)?;
        Ok(Self { agent, ioas, file, memory, posted: 0, next_iova: RING.get() << 8, sums: 0, faults: 0 })
    }

    /// Posts a descriptor in every slot, tells the device, takes some buffers away at once, and checks what came of each.
    fn round(&mut self, device: &mut Child) -> Outcome {
        let buffers: Vec<(Iova, u64)> = (0..SLOTS).map(|slot| self.post(slot)).collect::<Result<_, _>>()?;
        self.word(POSTED)?.store(self.posted, Ordering::Release);
        for (slot, (iova, _)) in buffers.iter().enumerate().rev().filter(|(slot, _)| is_taken_early(*slot)) {
            self.take_away(slot, *iova)?;
        }
        while self.word(DONE)?.load(Ordering::Acquire) < self.posted {
            if let Some(ended) = device.try_wait()? {
                return Err(format!("the device ended early: {ended}").into());
            }
            thread::yield_now();
        }
        for (slot, (iova, sum)) in buffers.iter().enumerate() {
            self.check(slot, *sum)?;
            if !is_taken_early(slot) {
                self.take_away(slot, *iova)?;
            }
        }
        Ok(())
    }

    /// Fills the buffer of a slot, maps it where nothing was before, and writes the descriptor.
    fn post(&mut self, slot: usize) -> Result<(Iova, u64), Box<dyn Error>> {
        let pattern = self.posted.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let words = (0..BUFFER / 8).map(|word| pattern ^ word);
        let bytes: Vec<u8> = words.clone().flat_map(u64::to_ne_bytes).collect();
        self.memory.copy_in(ByteLen::new(buffer(slot)), &bytes)?;
        let iova = Iova::new(self.next_iova);
        self.next_iova += 2 * BUFFER;
        self.map(buffer(slot), BUFFER, iova)?;
        let at = FIRST + slot * DESCRIPTOR;
        self.word(at)?.store(iova.get(), Ordering::Relaxed);
        self.word(at + 8)?.store(0, Ordering::Relaxed);
        self.posted += 1;
        Ok((iova, words.fold(0, u64::wrapping_add)))
    }

    /// Unmaps a buffer. From the answer on nobody may see its bytes, so they are spoiled.
    fn take_away(&mut self, slot: usize, iova: Iova) -> Outcome {
        let range = IovaRange::from_length(iova, ByteLen::new(BUFFER)).ok_or("no such range")?;
        self.agent.unmap(self.ioas, range)?;
        let bytes: Vec<u8> = (0..BUFFER / 8).flat_map(|_| SPOILED.to_ne_bytes()).collect();
        Ok(self.memory.copy_in(ByteLen::new(buffer(slot)), &bytes)?)
    }

    fn check(&mut self, slot: usize, sum: u64) -> Outcome {
        let at = FIRST + slot * DESCRIPTOR;
        let (status, found) = (self.word(at + 8)?, self.word(at + 16)?);
        let (status, found) = (status.load(Ordering::Acquire), found.load(Ordering::Relaxed));
        match status {
            IS_SUM if found == sum => self.sums += 1,
            IS_FAULT if is_taken_early(slot) => self.faults += 1,
            _ => {
                return Err(format!("slot {slot}: status {status}, sum {found:#x}, expected {sum:#x}").into());
            }
        }
        Ok(())
    }

    fn map(&mut self, offset: u64, length: u64, iova: Iova) -> Outcome {
        let (offset, length) = (ByteLen::new(offset), ByteLen::new(length));
        let slice = FileSlice { file: self.file.as_fd(), offset, length };
        self.agent.map_file(self.ioas, slice, Permission::ReadWrite, Placement::Fixed(iova))?;
        Ok(())
    }

    fn word(&self, at: usize) -> Result<&std::sync::atomic::AtomicU64, Box<dyn Error>> {
        Ok(self.memory.word(at as u64).ok_or("no such word")?)
    }
}

/// Whether the buffer of a slot goes away before its descriptor is known to be done.
const fn is_taken_early(slot: usize) -> bool {
    slot % UNMAPPED_EARLY == UNMAPPED_EARLY - 1
}

/// Where the buffer of a slot lies in the file.
const fn buffer(slot: usize) -> u64 {
    PAGE_SIZE + slot as u64 * BUFFER
}

/// Walks the domain behind its standard input.
fn be_the_device() -> Outcome {
    let walker = Walker::attach(ExportChannel::from_fd(io::stdin().as_fd().try_clone_to_owned()?))?;
    let mut stream = walker.stream()?.with_iotlb();
    let mut done = 0;
    loop {
        let (posted, stop) = stream.burst(|burst| {
            let ring = ring(burst)?;
            Ok((ring.load(POSTED).unwrap_or(0), ring.load::<u64>(STOP).unwrap_or(1)))
        })?;
        match (posted > done, stop) {
            (true, _) => process(&mut stream, &mut done)?,
            (false, 0) => thread::yield_now(),
            (false, _) => return Ok(()),
        }
    }
}

/// Processes one descriptor: in a burst of its own, so that no unmap waits for more than that.
fn process(stream: &mut Stream, done: &mut u64) -> Result<(), WalkFault> {
    let at = FIRST + usize::try_from(*done % SLOTS as u64).unwrap_or(0) * DESCRIPTOR;
    *done += 1;
    stream.burst(|burst| {
        let ring = ring(burst)?;
        let iova = Iova::new(ring.load(at).unwrap_or(0));
        let (status, sum) = match add_up(burst, iova) {
            Ok(sum) => (IS_SUM, sum),
            Err(fault) if fault.kind == FaultKind::NotPresent => (IS_FAULT, 0),
            Err(fault) => return Err(fault),
        };
        let answered = ring.store(at + 16, sum).and(ring.store(at + 8, status)).and(ring.store(DONE, *done));
        debug_assert!(answered.is_some(), "the ring is one writable page");
        Ok(())
    })
}

/// The ring, which is one page.
fn ring<'b>(burst: &'b Burst<'_>) -> Result<SharedSlice<'b>, WalkFault> {
    Ok(burst.slice(RING, ByteLen::new(PAGE_SIZE), Access::Write)?.memory)
}

/// The sum of all words of a buffer.
fn add_up(burst: &Burst<'_>, iova: Iova) -> Result<u64, WalkFault> {
    let mut sum = 0_u64;
    for piece in burst.translate(iova, ByteLen::new(BUFFER), Access::Read) {
        let memory = piece?.memory;
        let words = (0..memory.len()).step_by(8).filter_map(|at| memory.load::<u64>(at));
        sum = words.fold(sum, u64::wrapping_add);
    }
    Ok(sum)
}
