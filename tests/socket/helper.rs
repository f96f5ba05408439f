//! Processes of their own: this test binary, started once more to play one part until it is killed.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Write, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use ioasd_client::calls::{AccessKind, Iommu, PinIntent};
use ioasd_client::connection::Connection;
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::walker::Access;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::memory::{Memory, at, attach_new, map, range};
use crate::walking::open;

const PART: &str = "IOASD_TEST_PART";
const SOCKET: &str = "IOASD_TEST_SOCKET";
const PAGES: &str = "IOASD_TEST_PAGES";
/// Names the control group that a process moves itself to.
pub(crate) const GROUP: &str = "IOASD_TEST_GROUP";
/// A user without privileges.
pub(crate) const NOBODY: u32 = 65534;

/// Before what a part says.
const SAID: &str = "the helper says: ";

pub(crate) const READY: &str = "the helper is ready";

/// A process that plays a part. Killed when dropped.
pub(crate) struct Helper {
    child: Child,
    said: Vec<String>,
}

impl Helper {
    /// A walker that stays inside of a burst which has read page 0 at `iova` 0x10000.
    pub(crate) fn walker_in_burst(channel: OwnedFd) -> Self {
        Self::start("walker", &PathBuf::new(), Stdio::from(channel))
    }

    /// A client with maps, domains, an export that it walks itself, and pins.
    pub(crate) fn busy_client(socket: &PathBuf) -> Self {
        Self::start("client", socket, Stdio::null())
    }

    /// Nobody's process does what it can with a connection, to its end; gives what it said.
    pub(crate) fn nobody_with(part: &str, connection: OwnedFd) -> String {
        let mut command = Self::command(part, &PathBuf::new(), Stdio::from(connection));
        Self::played(command.uid(NOBODY).gid(NOBODY))
    }

    /// The same, by a process of this user.
    pub(crate) fn same_user_with(part: &str, connection: OwnedFd) -> String {
        Self::played(&mut Self::command(part, &PathBuf::new(), Stdio::from(connection)))
    }

    /// A process, of another user if one is named, does its part with a connection of its own; gives what it said.
    pub(crate) fn other_user(part: &str, socket: &PathBuf, user: Option<u32>) -> String {
        let mut command = Self::command(part, socket, Stdio::null());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        Self::played(&mut command)
    }

    fn played(command: &mut Command) -> String {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains(READY), "{said}");
        said
    }

    fn command(part: &str, socket: &PathBuf, input: Stdio) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "helper::plays_its_part", "--ignored", "--nocapture"]);
        command.env(PART, part).env(SOCKET, socket).stdin(input).stdout(Stdio::piped());
        command
    }

    /// A walker that has compared the memory behind large leaves and written into it; see [`LARGE`].
    pub(crate) fn walker_of_large_leaves(channel: OwnedFd) -> Self {
        Self::start("large", &PathBuf::new(), Stdio::from(channel))
    }

    fn start(part: &str, socket: &PathBuf, input: Stdio) -> Self {
        Self::started(&mut Self::command(part, socket, input))
    }

    fn started(command: &mut Command) -> Self {
        let mut helper = Self { child: command.spawn().unwrap(), said: Vec::new() };
        let output = BufReader::new(helper.child.stdout.take().unwrap());
        for line in output.lines().map_while(Result::ok) {
            if line.contains(READY) {
                return helper;
            }
            helper.said.extend(line.split_once(SAID).map(|(_, said)| said.to_owned()));
        }
        panic!("a helper ended before it was ready: {:?}", helper.said);
    }

    /// A client, of another user if one is named, that maps so many pages at a time, and stays.
    pub(crate) fn with_pages(part: &str, socket: &PathBuf, user: Option<u32>, pages: &str) -> Self {
        let mut command = Self::command(part, socket, Stdio::null());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        Self::started(command.env(PAGES, pages))
    }

    /// A client that moves itself to a control group.
    pub(crate) fn in_group(part: &str, socket: &PathBuf, group: &Path, input: OwnedFd) -> Self {
        Self::started(Self::command(part, socket, Stdio::from(input)).env(GROUP, group))
    }

    /// What it said before it was ready.
    pub(crate) fn said(&self) -> &[String] {
        &self.said
    }

    /// A walker that has entered a burst and reads page 0 at `iova` 0x10000 again and again, without end.
    pub(crate) fn looping_walker(channel: OwnedFd) -> Self {
        Self::start("looping-walker", &PathBuf::new(), Stdio::from(channel))
    }

    /// A walker of [`remapping`](crate::remapping).
    pub(crate) fn checker(part: &str, channel: OwnedFd) -> Self {
        Self::start(part, &PathBuf::new(), Stdio::from(channel))
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its number.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Stops it where it is, and waits until it stands.
    pub(crate) fn stop(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
        let stopped = waitid(WaitId::Pid(self.pid()), WaitIdOptions::STOPPED).unwrap();
        assert!(stopped.is_some_and(|status| status.stopped()), "it ended instead");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// Waits for its end, which is a signal.
    pub(crate) fn ended_by(mut self) -> Option<i32> {
        self.child.wait().unwrap().signal()
    }

    /// Kills it with SIGKILL and waits for its end.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.end();
    }
}

/// Says something to whoever started it.
pub(crate) fn say(text: &dyn Display) {
    println!("{SAID}{text}");
}

/// Says that it is ready.
pub(crate) fn ready() {
    println!("{READY}");
    std::io::stdout().flush().unwrap();
}

/// Says that it is ready, and does nothing more.
pub(crate) fn stay() -> ! {
    ready();
    loop {
        thread::park();
    }
}

#[test]
#[ignore = "not a test: what the helper processes of other tests run"]
fn plays_its_part() {
    match std::env::var(PART).as_deref() {
        Ok("walker") => play_walker(),
        Ok("looping-walker") => play_looping_walker(),
        Ok("checker") => crate::remapping::play_checker(),
        Ok("forking-checker") => crate::remapping::play_forking_checker(),
        Ok("changeling") => crate::remapping::play_changeling(),
        Ok("writer-in-burst") => play_writer(),
        Ok("learner") => crate::remapping::play_learner(),
        Ok("scribbler") => crate::remapping::play_scribbler(),
        Ok("faulter") => crate::faults::play_faulter(),
        Ok("liar") => crate::faults::play_liar(),
        Ok("client") => play_client(),
        Ok("charger") => {
            crate::chargers::play_charger();
            ready();
        }
        Ok("locker") => crate::locked::play_locker(),
        Ok("glutton") => crate::cgroups::play_glutton(),
        Ok("chooser") => play_to_the_end(crate::options::play_chooser),
        Ok("mapper") => play_to_the_end(crate::processes::play_mapper),
        Ok("first-map") => play_to_the_end(crate::processes::play_first_map),
        Ok("refused-map") => play_to_the_end(crate::processes::play_refused_map),
        Ok("limited-map") => play_to_the_end(crate::processes::play_limited_map),
        Ok("payer") => play_to_the_end(crate::processes::play_payer),
        Ok("large") => play_walker_of_large_leaves(),
        Ok(part) => {
            if let Some(play) = crate::hostile_rings::part(part) {
                play_to_the_end(play);
            }
        }
        Err(_) => {}
    }
}

/// The part of this process.
pub(crate) fn own_part() -> String {
    std::env::var(PART).unwrap_or_default()
}

/// Where the agent of this process listens.
pub(crate) fn own_socket() -> PathBuf {
    PathBuf::from(std::env::var_os(SOCKET).unwrap())
}

/// How many pages this process maps at a time.
pub(crate) fn own_pages() -> Vec<u64> {
    let pages = std::env::var(PAGES).unwrap_or_default();
    pages.split_terminator(',').map(|pages| pages.parse().unwrap()).collect()
}

/// Plays on the connection that is the standard input.
fn play_to_the_end(play: fn(Connection)) {
    play(Connection::from_fd(stdin().as_fd().try_clone_to_owned().unwrap()));
    println!("{READY}");
}

fn play_walker() {
    let walker = open(stdin().as_fd().try_clone_to_owned().unwrap());
    let mut stream = walker.stream().unwrap();
    let burst = stream.enter();
    let mut bytes = [0; 64];
    burst.read(Iova::new(0x1_0000), &mut bytes).unwrap();
    assert_eq!(bytes[..], Memory::bytes(0, 64));
    stay();
}

/// Stays inside of a burst which may write to the second and the third page.
fn play_writer() {
    let walker = open(stdin().as_fd().try_clone_to_owned().unwrap());
    let mut stream = walker.stream().unwrap();
    let burst = stream.enter();
    burst.write(Iova::new(0x1_1fff), b"xy").unwrap();
    stay();
}

fn play_looping_walker() {
    let walker = open(stdin().as_fd().try_clone_to_owned().unwrap());
    let mut stream = walker.stream().unwrap();
    let burst = stream.enter();
    let mut bytes = [0; 64];
    burst.read(Iova::new(0x1_0000), &mut bytes).unwrap();
    println!("{READY}");
    std::io::stdout().flush().unwrap();
    loop {
        let read = burst.read(Iova::new(0x1_0000), &mut bytes);
        assert!(read.is_err() || bytes[..] == Memory::bytes(0, 64), "memory changed under a burst");
    }
}

/// Where the memory of that walker is mapped from its beginning on, and how many bytes of it.
pub(crate) const LARGE: (u64, u64) = (0x20_0000, 0x60_1000);

/// What that walker writes behind its second large leaf.
pub(crate) const WRITTEN: &[u8] = b"written through a large leaf";

fn play_walker_of_large_leaves() {
    let walker = open(stdin().as_fd().try_clone_to_owned().unwrap());
    let mut stream = walker.stream().unwrap();
    let ((iova, length), burst) = (LARGE, stream.enter());
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    burst.read(Iova::new(iova), &mut bytes).unwrap();
    assert_eq!(bytes, Memory::bytes(0, length));
    let leaf =
        |iova| burst.locate(Iova::new(iova), ByteLen::new(1 << 40), Access::Write).unwrap().length.get();
    assert_eq!((leaf(iova), leaf(iova + 0x3f_f000), leaf(iova + 0x60_0000)), (0x20_0000, 0x1000, 0x1000));
    burst.write(Iova::new(iova + 0x40_0000 - 4), WRITTEN).unwrap();
    drop(burst);
    stay();
}

fn play_client() {
    let mut client = Connection::connect(&own_socket()).unwrap();
    let (ioas, memory) = (client.ioas_alloc().unwrap(), Memory::new(40));
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    let (_, hwpt) = attach_new(&mut client, ioas, Iommu::Shared);
    attach_new(&mut client, ioas, Iommu::Own);
    let access = client.access_create(ioas, AccessKind::Pinning).unwrap();
    client.access_pin(access, range(0x1_1000, 0x3000), PinIntent::Write).unwrap();
    let walker = open(client.domain_export(hwpt).unwrap());
    let mut stream = walker.stream().unwrap();
    let _burst = stream.enter();
    stay();
}
