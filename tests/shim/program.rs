//! Programs: started under the shim, in a process of their own, with `/dev/iommu` as all they know.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use ioasd::actors::mock_hardware::Hardware;

use crate::fixture::Agent;

const PROGRAM: &str = "IOASD_TEST_PROGRAM";

/// A part that this binary can play: its name, and what it does.
pub(crate) type Part = (&'static str, fn());

fn parts() -> impl Iterator<Item = &'static Part> {
    let all = [
        crate::accesses::PARTS,
        crate::addresses::PARTS,
        crate::cuts::PARTS,
        crate::descriptors::PARTS,
        crate::dirty::PARTS,
        crate::dma_bufs::PARTS,
        crate::events::PARTS,
        crate::limits::PARTS,
        crate::mapping::PARTS,
        crate::mock::PARTS,
        crate::nesting::PARTS,
        crate::options::PARTS,
        crate::private::PARTS,
        crate::processes::PARTS,
        crate::regions::PARTS,
        crate::sizes::PARTS,
        crate::tables::PARTS,
        crate::traps::PARTS,
        crate::vfio::PARTS,
    ];
    all.into_iter().flatten()
}

#[test]
#[ignore = "not a test: what the programs of other tests run"]
fn plays() {
    let Some(name) = env::var_os(PROGRAM) else { return };
    let (_, play) = parts().find(|(part, _)| name == *part).expect("a part of this binary");
    play();
}

/// The shim, as cargo builds it.
pub(crate) fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_BIN_EXE_ioasd")).parent().unwrap().to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "ioasd-preload"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the shim cannot be built");
        folder.join("libioasd_preload.so")
    })
}

/// `command` with the shim before it and `socket` as the agent's.
pub(crate) fn shimmed(mut command: Command, socket: &Path) -> Command {
    command.env("LD_PRELOAD", shim()).env("IOASD_SOCKET", socket);
    command
}

/// This binary in the part `name`.
pub(crate) fn playing(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "program::plays", "--ignored", "--nocapture"]).env(PROGRAM, name);
    command
}

/// Plays a part over an agent of its own, and asserts that the part was played well and nothing was left.
#[track_caller]
pub(crate) fn play(name: &str) {
    let agent = Agent::start();
    played(&shimmed(playing(name), &agent.socket()).output().unwrap());
    agent.assert_clean();
}

/// As [`play`], over an agent with mock hardware.
#[track_caller]
pub(crate) fn play_with_mock(name: &str) {
    let agent = Agent::with(|settings| settings.settings.hardware = Hardware::Mock);
    played(&shimmed(playing(name), &agent.socket()).output().unwrap());
    agent.assert_clean();
}

/// `ioasd run` with these flags and a program.
pub(crate) fn run(arguments: &[&str], program: &Command) -> Output {
    let mut run = Command::new(env!("CARGO_BIN_EXE_ioasd"));
    run.arg("run").args(arguments).arg("--").arg(program.get_program()).args(program.get_args());
    run.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run.env("IOASD_PRELOAD", shim()).env_remove("IOASD_SOCKET").output().unwrap()
}

/// Asserts that a part was played well, and says what it skipped.
#[track_caller]
pub(crate) fn played(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    assert!(text.contains("1 passed"), "nothing was played:\n{text}\n{errors}");
    errors.lines().filter_map(|line| line.strip_prefix("SKIP: ")).for_each(|why| ioasd::skip!("{why}"));
}
