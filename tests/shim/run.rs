//! `ioasd run`: the program's own agent, its exit code, and what cannot be run.

use std::path::Path;
use std::process::{Command, Output};

use crate::fixture::Agent;
use crate::program::{played, playing, run};

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn a_program_has_an_agent_of_its_own() {
    played(&run(&[], &playing("maps")));
    played(&run(&[], &playing("forks")));
}

#[test]
fn a_program_can_use_an_agent_that_runs() {
    let agent = Agent::start();
    played(&run(&["--socket", agent.socket().to_str().unwrap()], &playing("copies")));
    agent.assert_clean();
}

#[test]
fn the_exit_code_is_the_programs() {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)] {
        assert_eq!(run(&[], &shell(script)).status.code(), Some(code), "{script}");
    }
}

#[test]
fn the_programs_output_and_limits_are_its_own() {
    let script = "ulimit -S -n; echo $0 $1; test \"$LD_PRELOAD\" && test -S \"$IOASD_SOCKET\"";
    let mut plain = shell(script);
    plain.args(["a b", "--socket"]);
    let output = run(&[], &plain);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = Command::new("sh").args(["-c", "ulimit -S -n; echo 'a b' --socket"]).output().unwrap();
    assert_eq!(output.stdout, expected.stdout);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_c_example_goes_through_every_family_of_commands() {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) =
        (concat!(env!("CARGO_MANIFEST_DIR"), "/examples/iommufd.c"), folder.path().join("iommufd"));
    let built = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror", "-o"])
        .arg(&program)
        .arg(source)
        .output();
    let Ok(built) = built else {
        return ioasd::skip!("the_c_example_goes_through_every_family_of_commands: there is no cc here");
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let output = run(&["--mock"], &Command::new(&program));
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    let done = said.lines().filter(|line| line.ends_with(": ok")).count();
    assert!(
        done >= 16 && said.ends_with(&format!("all done: {done} families of commands\n")),
        "{said}{errors}"
    );
}

#[test]
fn what_cannot_be_run_is_refused_with_a_hint() {
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let missing = run(&[], &Command::new("no-such-program-anywhere"));
    assert_eq!(missing.status.code(), Some(2), "{}", said(&missing));
    let nobody = run(&["--socket", "/nowhere/ioasd.sock"], &shell("exit 0"));
    assert_eq!(nobody.status.code(), Some(3), "{}", said(&nobody));
    let Some((_folder, program)) = linked_statically() else {
        return ioasd::skip!(
            "what_cannot_be_run_is_refused_with_a_hint: no static program can be built here"
        );
    };
    let refused = run(&[], &Command::new(&program));
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("statically linked"), "{}", said(&refused));
}

fn linked_statically() -> Option<(tempfile::TempDir, std::path::PathBuf)> {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("a.c"), folder.path().join("a"));
    std::fs::write(&source, "int main(void) { return 0; }").unwrap();
    let built = Command::new("cc").arg("-static").arg(&source).arg("-o").arg(&program).output();
    (built.is_ok_and(|output| output.status.success()) && Path::new(&program).exists())
        .then_some((folder, program))
}
