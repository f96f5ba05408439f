//! The `ioasd` program: parse, run, exit.

use std::process::ExitCode;

use ioasd::cli::{self, Command, agent::Agent, serve};

fn main() -> ExitCode {
    match cli::parse() {
        Ok(Command::Serve(args)) => serve::serve::<Agent>(args),
        Ok(Command::Demo(_)) => cli::Exit::Failed,
        Err(exit) => exit,
    }
    .into()
}
