//! The `ioasd` program: parse, run, exit.

use std::process::ExitCode;

use ioasd::cli::{
    self, Command, agent::Agent, bench, check_config, check_host, ctl, demo, generate, run, serve,
};

fn main() -> ExitCode {
    match cli::parse() {
        Ok(Command::Serve(args)) => serve::serve::<Agent>(args),
        Ok(Command::CheckConfig(args)) => check_config::check_config(&args),
        Ok(Command::Ctl(args)) => ctl::ctl(&args),
        Ok(Command::Bench(args)) => bench::bench(&args),
        Ok(Command::BenchPeer(args)) => bench::peer::run(&args),
        Ok(Command::CheckHost(args)) => check_host::check_host(args),
        Ok(Command::CheckHostPeer(args)) => check_host::peer::check_host_peer(args),
        Ok(Command::Demo(args)) => demo::demo(&args),
        Ok(Command::Generate(args)) => generate::run(&args),
        Ok(Command::DemoClient(args)) => demo::client::run(&args),
        Ok(Command::DemoDevice(args)) => demo::device::run(&args),
        Ok(Command::Run(args)) => return run::run(&args),
        Err(exit) => exit,
    }
    .into()
}
