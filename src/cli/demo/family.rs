//! Child processes whose words and ends come through one channel, so that waiting for one of them never overlooks the
//! end of another.
//!
//! Whatever still runs when the family is dropped is killed.
//!
//! Imports allowed: speech, `std`, `rustix`.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::plan::DeviceNumber;
use super::speech::{Milestone, Said, say};

/// How often a process that has closed its output is asked whether it has ended.
const POLL: Duration = Duration::from_millis(2);

/// How long a process that has closed its output may take to end.
const A_MOMENT: Duration = Duration::from_secs(10);

/// A role in the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Agent,
    Client,
    Device(DeviceNumber),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent => f.write_str("agent"),
            Self::Client => f.write_str("client"),
            Self::Device(number) => number.fmt(f),
        }
    }
}

/// Why the family could not go on together.
#[derive(Debug, thiserror::Error)]
pub(super) enum FamilyError {
    #[error("cannot start {0}")]
    Start(Role, #[source] io::Error),
    #[error("cannot ask how {0} is")]
    Ask(Role, #[source] io::Error),
    #[error("cannot speak to {0}")]
    Speak(Role, #[source] io::Error),
    #[error("cannot write to standard output")]
    Say(#[source] io::Error),
    #[error("{role} ended too early ({status}) while this was awaited: {awaited}")]
    Early { role: Role, status: ExitStatus, awaited: &'static str },
    #[error("{role} failed ({status})")]
    Failed { role: Role, status: ExitStatus },
    #[error("not done within {} s: {awaited}", patience.as_secs())]
    Late { awaited: &'static str, patience: Duration },
    #[error("interrupted")]
    Interrupted,
}

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    Line(String),
    Ended(Role),
    Interrupted,
}

/// Something to wait for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    pub(super) what: &'static str,
    pub(super) patience: Duration,
}

impl Awaited {
    pub(super) const fn late(self) -> FamilyError {
        FamilyError::Late { awaited: self.what, patience: self.patience }
    }
}

/// The children of this process.
#[derive(Debug)]
pub(super) struct Family {
    children: Vec<(Role, Child)>,
    sender: Sender<Event>,
    events: Receiver<Event>,
}

impl Family {
    pub(super) fn new() -> Self {
        let (sender, events) = channel();
        Self { children: Vec::new(), sender, events }
    }

    /// Where others may report events.
    pub(super) fn reporter(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// Starts a child and listens to it. Its process group is its own: Ctrl-C is for the demo alone.
    pub(super) fn start(&mut self, role: Role, command: &mut Command) -> Result<(), FamilyError> {
        let failed = |error| FamilyError::Start(role, error);
        let mut child = command.process_group(0).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let output = child.stdout.take();
        self.children.push((role, child));
        let sender = self.sender.clone();
        let listen = move || listen(role, output, &sender);
        thread::Builder::new().name("listener".to_owned()).spawn(listen).map_err(failed)?;
        Ok(())
    }

    /// Passes the children's words on until `milestone` was reached `times` times.
    pub(super) fn until(
        &mut self,
        milestone: Milestone,
        times: u16,
        awaited: Awaited,
    ) -> Result<(), FamilyError> {
        let deadline = Instant::now() + awaited.patience;
        let mut left = times;
        while left > 0 {
            match self.next_before(deadline).ok_or_else(|| awaited.late())? {
                Event::Interrupted => return Err(FamilyError::Interrupted),
                Event::Ended(role) => return Err(self.early(role, awaited)),
                Event::Line(line) => match Said::of(&line) {
                    Said::Words(words) => say(words).map_err(FamilyError::Say)?,
                    Said::Reached(reached) => left -= u16::from(reached == milestone),
                },
            }
        }
        Ok(())
    }

    /// Lets `pause` pass, unless somebody ends or interrupts.
    pub(super) fn rest(&mut self, pause: Duration, awaited: Awaited) -> Result<(), FamilyError> {
        let deadline = Instant::now() + pause;
        while let Some(event) = self.next_before(deadline) {
            match event {
                Event::Interrupted => return Err(FamilyError::Interrupted),
                Event::Ended(role) => return Err(self.early(role, awaited)),
                Event::Line(line) => say(line).map_err(FamilyError::Say)?,
            }
        }
        Ok(())
    }

    /// Passes the children's words on until somebody interrupts.
    pub(super) fn until_interrupted(&mut self) -> Result<(), FamilyError> {
        let awaited = Awaited { what: "somebody interrupts", patience: Duration::MAX };
        loop {
            match self.events.recv().map_err(|_| awaited.late())? {
                Event::Interrupted => return Ok(()),
                Event::Ended(role) => return Err(self.early(role, Awaited { patience: A_MOMENT, ..awaited })),
                Event::Line(line) => say(line).map_err(FamilyError::Say)?,
            }
        }
    }

    /// Passes the children's words on until all of `roles` have ended, each with exit code 0.
    pub(super) fn until_ended(&mut self, roles: &[Role], awaited: Awaited) -> Result<(), FamilyError> {
        let deadline = Instant::now() + awaited.patience;
        let mut left = roles.to_vec();
        while !left.is_empty() {
            match self.next_before(deadline).ok_or_else(|| awaited.late())? {
                Event::Interrupted => return Err(FamilyError::Interrupted),
                Event::Line(line) => say(line).map_err(FamilyError::Say)?,
                Event::Ended(role) if left.contains(&role) => {
                    self.require_good_end(role, awaited)?;
                    left.retain(|other| *other != role);
                }
                Event::Ended(role) => return Err(self.early(role, awaited)),
            }
        }
        Ok(())
    }

    fn next_before(&self, deadline: Instant) -> Option<Event> {
        self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// Says how `role` has ended, which nobody told it to.
    fn early(&mut self, role: Role, awaited: Awaited) -> FamilyError {
        match self.status(role, awaited) {
            Ok(status) => FamilyError::Early { role, status, awaited: awaited.what },
            Err(error) => error,
        }
    }

    fn require_good_end(&mut self, role: Role, awaited: Awaited) -> Result<(), FamilyError> {
        let status = self.status(role, awaited)?;
        if status.success() { Ok(()) } else { Err(FamilyError::Failed { role, status }) }
    }

    /// The exit status of a child that has closed its output.
    fn status(&mut self, role: Role, awaited: Awaited) -> Result<ExitStatus, FamilyError> {
        let deadline = Instant::now() + awaited.patience;
        while Instant::now() < deadline {
            let asked = self.child(role)?.try_wait();
            if let Some(status) = asked.map_err(|error| FamilyError::Ask(role, error))? {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
        Err(awaited.late())
    }

    /// Writes a line to the standard input of `role`, which must have been piped.
    pub(super) fn tell(&mut self, role: Role, line: &str) -> Result<(), FamilyError> {
        let failed = |error| FamilyError::Speak(role, error);
        let child = self.child(role)?;
        let input = child.stdin.as_mut().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        writeln!(input, "{line}").map_err(failed)
    }

    /// Sends a signal to `role`, which nobody has waited for yet.
    pub(super) fn signal(&mut self, role: Role, signal: Signal) -> Result<(), FamilyError> {
        let child = Pid::from_child(self.child(role)?);
        kill_process(child, signal).map_err(|errno| FamilyError::Speak(role, errno.into()))
    }

    /// The number of the process of `role`.
    pub(super) fn pid(&mut self, role: Role) -> Result<u32, FamilyError> {
        self.child(role).map(|child| child.id())
    }

    fn child(&mut self, role: Role) -> Result<&mut Child, FamilyError> {
        let found = self.children.iter_mut().find(|(other, _)| *other == role);
        found.map(|(_, child)| child).ok_or_else(|| FamilyError::Ask(role, io::ErrorKind::NotFound.into()))
    }
}

impl Drop for Family {
    /// A child that has ended and was waited for is not harmed: its number is kept back until then.
    fn drop(&mut self) {
        for (role, child) in &mut self.children {
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                eprintln!("cannot end {role}: {error}");
            }
        }
    }
}

/// Reports every line and the end of a child's output. If nobody listens any more, nobody cares.
fn listen(role: Role, output: Option<ChildStdout>, report: &Sender<Event>) {
    for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok) {
        report.send(Event::Line(line)).ok();
    }
    report.send(Event::Ended(role)).ok();
}

/// Lets this process die with its parent.
pub(super) fn die_with_parent() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Awaited = Awaited { what: "a test", patience: Duration::from_secs(20) };

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).stdin(Stdio::piped());
        command
    }

    fn family(members: &[(Role, &str)]) -> Family {
        let mut family = Family::new();
        for (role, script) in members {
            family.start(*role, &mut shell(script)).unwrap();
        }
        family
    }

    #[test]
    fn a_milestone_is_awaited_as_often_as_asked() {
        let mut family = family(&[(Role::Client, "echo @used; echo @used; read end")]);
        family.until(Milestone::Used, 2, SOON).unwrap();
        family.tell(Role::Client, "end").unwrap();
        family.until_ended(&[Role::Client], SOON).unwrap();
    }

    #[test]
    fn whoever_ends_early_is_named_with_its_status() {
        let mut family = family(&[(Role::Agent, "read end"), (Role::Client, "exit 7")]);
        let error = family.until(Milestone::Used, 1, SOON).unwrap_err().to_string();
        assert!(error.contains("client ended too early (exit status: 7)"), "{error}");
    }

    #[test]
    fn a_bad_end_is_a_failure_and_a_good_end_of_another_is_early() {
        let mut failed = family(&[(Role::Client, "exit 1")]);
        assert!(matches!(failed.until_ended(&[Role::Client], SOON), Err(FamilyError::Failed { .. })));
        let mut other = family(&[(Role::Client, "exec sleep 60"), (Role::Agent, "exit 0")]);
        let error = other.until_ended(&[Role::Client], SOON).unwrap_err();
        assert!(matches!(error, FamilyError::Early { role: Role::Agent, .. }), "{error}");
    }

    #[test]
    fn patience_ends() {
        let mut family = family(&[(Role::Client, "exec sleep 60")]);
        let awaited = Awaited { what: "nothing", patience: Duration::from_millis(20) };
        assert!(matches!(family.until(Milestone::Used, 1, awaited), Err(FamilyError::Late { .. })));
        assert!(matches!(family.until_ended(&[Role::Client], awaited), Err(FamilyError::Late { .. })));
    }

    #[test]
    fn whoever_still_runs_is_killed_with_the_family() {
        let mut family = family(&[(Role::Client, "exec sleep 60")]);
        let pid = Pid::from_child(family.child(Role::Client).unwrap());
        drop(family);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn an_interruption_ends_every_wait() {
        let mut family = family(&[(Role::Client, "exec sleep 60")]);
        family.reporter().send(Event::Interrupted).unwrap();
        assert!(matches!(family.until(Milestone::Used, 1, SOON), Err(FamilyError::Interrupted)));
    }
}
