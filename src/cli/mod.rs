//! The command line: one file a subcommand, and what they have in common.
//!
//! Flags beat the environment, which beats the file (see `config`). Every command ends in an [`Exit`].
//!
//! Imports allowed: everything.

pub mod agent;
pub mod bench;
pub mod check_config;
pub mod check_host;
pub mod ctl;
pub mod demo;
mod drain;
pub mod generate;
pub mod http;
pub mod reload;
pub mod run;
pub mod serve;
mod service_manager;
mod size;

use std::error::Error;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ioasd_client::units::ByteLen;

use crate::config::load::Flags;
use crate::config::values::{Listen, parse_size};

/// Owns DMA address spaces: pins memory once and writes it into as many IO page tables as need it.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the agent until SIGTERM or SIGINT.
    Serve(ServeArgs),
    /// Say what this host offers and what is missing, each thing found by using it.
    CheckHost(check_host::CheckHostArgs),
    /// Run a program whose /dev/iommu is an agent.
    Run(run::RunArgs),
    /// Show the whole path on this machine: an agent, a client and devices, each in a process of its own.
    Demo(DemoArgs),
    /// Check a configuration: everything that is wrong with it, or what it comes to.
    CheckConfig(check_config::CheckConfigArgs),
    /// Show what an agent holds, asked over its admin socket.
    Ctl(ctl::CtlArgs),
    /// Measure how fast the engine is on this machine, beside floors that bare code sets in the same run.
    Bench(bench::BenchArgs),
    /// The other process of a bench, started by it.
    #[command(hide = true)]
    BenchPeer(bench::peer::BenchPeerArgs),
    /// Write manual pages and shell completions, for packages.
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
    /// The other process of a check-host, started by it.
    #[command(hide = true)]
    CheckHostPeer(check_host::peer::CheckHostPeerArgs),
    /// The client of a demo, started by it.
    #[command(hide = true)]
    DemoClient(demo::client::DemoClientArgs),
    /// A device of a demo, started by its client.
    #[command(hide = true)]
    DemoDevice(demo::device::DemoDeviceArgs),
}

/// The flags of `ioasd serve`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ServeArgs {
    /// Configuration file [default: /etc/ioasd/ioasd.toml, if it is there].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Path of the socket where clients connect.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Loopback address of the admin server, or "off" for no TCP.
    #[arg(long, value_name = "ADDR|off")]
    pub admin: Option<Listen>,
    /// Have mock hardware, as `mock.enabled` does.
    #[arg(long)]
    pub mock: bool,
    /// Which events to log, for example "debug" or "warn,ioasd::actors=debug".
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

impl From<ServeArgs> for Flags {
    fn from(args: ServeArgs) -> Self {
        let ServeArgs { config, socket, admin, mock, log } = args;
        Self { config, socket, admin, mock, log }
    }
}

/// The flags of `ioasd demo`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// How much memory to map.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub size: ByteLen,
    /// How many IO page tables to write it into.
    #[arg(long, value_name = "N", default_value = "4")]
    pub domains: NonZeroU16,
    /// Stay up until Ctrl-C, and say what to look at.
    #[arg(long)]
    pub hold: bool,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// The command failed.
    Failed = 1,
    /// The command line, the environment or the configuration is wrong: trying again will not help.
    Usage = 2,
    /// The agent cannot be reached.
    Unreachable = 3,
    /// Memory was still pinned at the end.
    LeftPinned = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Reads the command line; shows help, version or what is wrong with it, and says how to exit then.
///
/// # Errors
/// If there is no command to run.
pub fn parse() -> Result<Command, Exit> {
    Cli::try_parse().map(|cli| cli.command).map_err(|message| shown(&message))
}

fn shown(message: &clap::Error) -> Exit {
    match (message.print(), message.use_stderr()) {
        (Ok(()), false) => Exit::Ok,
        (Ok(()), true) => Exit::Usage,
        (Err(_), _) => Exit::Failed,
    }
}

/// An error with its causes, on one line; a cause that the error quotes itself is not said again.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string);
    causes.fold(
        error.to_string(),
        |line, cause| {
            if line.ends_with(&cause) { line } else { line + ": " + &cause }
        },
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn command(line: &str) -> Result<Command, clap::error::ErrorKind> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_takes_its_flags() {
        let expected = ServeArgs {
            config: Some("/c".into()),
            socket: Some("/s".into()),
            admin: Some(Listen::Off),
            mock: true,
            log: Some("debug".into()),
        };
        let line = "ioasd serve --config /c --socket /s --admin off --mock --log debug";
        assert_eq!(command(line), Ok(Command::Serve(expected)));
        assert_eq!(command("ioasd serve"), Ok(Command::Serve(ServeArgs::default())));
    }

    #[test]
    fn run_leaves_the_flags_behind_the_program_to_it() {
        let expected = run::RunArgs {
            socket: Some("/s".into()),
            mock: false,
            command: ["prog", "--socket", "/x"].map(Into::into).into(),
        };
        for line in ["ioasd run --socket /s -- prog --socket /x", "ioasd run --socket /s prog --socket /x"] {
            assert_eq!(command(line), Ok(Command::Run(expected.clone())), "{line}");
        }
        assert_eq!(command("ioasd run"), Err(clap::error::ErrorKind::MissingRequiredArgument));
    }

    #[test]
    fn demo_has_defaults() {
        let demo = |size, domains| {
            Ok(Command::Demo(DemoArgs {
                size: ByteLen::new(size),
                domains: NonZeroU16::new(domains).unwrap(),
                hold: false,
            }))
        };
        assert_eq!(command("ioasd demo"), demo(1 << 30, 4));
        assert_eq!(command("ioasd demo --size 1GiB --domains 7"), demo(1 << 30, 7));
    }

    #[test]
    fn wrong_values_are_refused() {
        use clap::error::ErrorKind::{
            InvalidSubcommand, MissingRequiredArgument, UnknownArgument, ValueValidation,
        };
        for line in ["serve --admin 0.0.0.0:1", "serve --admin on", "demo --size 1GB", "demo --domains 0"] {
            assert_eq!(command(&format!("ioasd {line}")), Err(ValueValidation), "{line}");
        }
        assert_eq!(command("ioasd serve --mokc"), Err(UnknownArgument));
        assert_eq!(command("ioasd sreve"), Err(InvalidSubcommand));
        assert_ne!(command("ioasd"), Err(MissingRequiredArgument), "bare ioasd shows the help instead");
    }

    #[test]
    fn an_error_is_shown_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Failed {
            text: &'static str,
            source: Option<Box<Failed>>,
        }
        let of = |text, source| Failed { text, source };
        let cause = || Some(Box::new(of("no file", None)));
        assert_eq!(with_causes(&of("cannot start", cause())), "cannot start: no file");
        assert_eq!(with_causes(&of("cannot start: no file", cause())), "cannot start: no file", "said once");
    }
}
