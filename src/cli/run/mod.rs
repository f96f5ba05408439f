//! `ioasd run`: a program whose `/dev/iommu` is an agent.
//!
//! ```text
//! with --socket     the shim is put before the program, which replaces this process
//! without           an agent of its own in this process ──▶ the program as its child ──▶ its exit code is ours
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `program` | finding the program, and whether a shim can be put before it |
//! | `shim` | finding the shim |
//! | `private` | the program's own agent |
//!
//! Imports allowed: everything.

mod private;
mod program;
mod shim;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use clap::Args;
use ioasd_client::connection::Connection;
use ioasd_client::error::CallError;

use self::program::{Program, ProgramError};
use self::shim::{Shim, ShimError};
use super::serve::ServeError;
use super::{Exit, with_causes};
use crate::actors::mock_hardware::Hardware;

/// The flags of `ioasd run`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct RunArgs {
    /// Socket of an agent that is running [default: an agent of the program's own].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Have mock hardware in the program's own agent.
    #[arg(long, conflicts_with = "socket")]
    pub mock: bool,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub command: Vec<OsString>,
}

/// Why the program did not run, or its agent did not.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Shim(#[from] ShimError),
    #[error("no agent answers at {}", path.display())]
    Unreachable {
        path: PathBuf,
        #[source]
        source: CallError,
    },
    #[error("cannot make a folder for the program's agent")]
    Folder(#[source] io::Error),
    #[error("cannot start {}", path.display())]
    Start {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot wait for the program")]
    Wait(#[source] io::Error),
    #[error("the program's agent failed")]
    Agent(#[source] ServeError),
}

impl RunError {
    const fn exit(&self) -> Exit {
        match self {
            Self::Program(_) | Self::Shim(_) => Exit::Usage,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Folder(_) | Self::Start { .. } | Self::Wait(_) => Exit::Failed,
            Self::Agent(error) => error.exit(),
        }
    }
}

/// Runs the program; ends with its exit code, or with 128 and the number of the signal that has ended it.
#[must_use]
pub fn run(args: &RunArgs) -> ExitCode {
    match try_run(args) {
        Ok(status) => exit_code(status),
        Err(error) => {
            eprintln!("ioasd: {}", with_causes(&error));
            error.exit().into()
        }
    }
}

fn try_run(args: &RunArgs) -> Result<ExitStatus, RunError> {
    let (name, arguments) = args.command.split_first().ok_or(ProgramError::None)?;
    let program = Program::find(name)?;
    let shim = Shim::find()?;
    let mut command = Command::new(program.path());
    command.arg0(name).args(arguments);
    shim.put_before(&mut command);
    match &args.socket {
        Some(socket) => Err(become_program(command, &program, socket)),
        None => private::run(command, &program, if args.mock { Hardware::Mock } else { Hardware::None }),
    }
}

/// Replaces this process; comes back only if that cannot be done.
fn become_program(mut command: Command, program: &Program, socket: &Path) -> RunError {
    let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    if let Err(source) = Connection::connect(&socket) {
        return RunError::Unreachable { path: socket, source };
    }
    let source = command.env(SOCKET, socket).exec();
    RunError::Start { path: program.path().to_owned(), source }
}

/// The variable that tells the shim where the agent is.
const SOCKET: &str = "IOASD_SOCKET";

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or_else(|| Exit::Failed.into(), ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_programs_or_tells_the_signal() {
        let code = |wait_status| format!("{:?}", exit_code(ExitStatus::from_raw(wait_status)));
        assert_eq!(code(7 << 8), format!("{:?}", ExitCode::from(7)));
        assert_eq!(code(0), format!("{:?}", ExitCode::from(0)));
        assert_eq!(code(9), format!("{:?}", ExitCode::from(137)));
    }
}
