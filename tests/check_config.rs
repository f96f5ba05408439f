//! `ioasd check-config` as a process, and `ioasd serve` with the same file.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A folder with a configuration file.
fn config(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ioasd.toml");
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

fn ioasd(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ioasd"));
    for variable in ["IOASD_SOCKET", "IOASD_CONFIG", "IOASD_LOG"] {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn every_problem_is_a_line_and_serve_says_the_same() {
    let (_folder, file) =
        config("[server]\nsokcet = \"/x\"\n[admin]\nlisten = \"0.0.0.0:1\"\nscope = \"all\"\n");
    let path = file.to_str().unwrap();
    let checked = ioasd(&["check-config", path]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let told = String::from_utf8(checked.stderr).unwrap();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 3, "{told}");
    for (line, start) in lines.iter().zip([
        ":2:1: server.sokcet: unknown key, did you mean socket?",
        ":4:10: admin.listen: 0.0.0.0:1 is not a loopback address",
        ":5:9: admin.scope: unknown variant `all`, expected one of `auto`, `metrics`, `full`",
    ]) {
        assert!(line.starts_with(&format!("{path}{start}")), "{line:?} does not start with {start:?}");
    }
    let served = ioasd(&["serve", "--config", path]);
    assert_eq!(served.status.code(), Some(2), "{served:?}");
    assert_eq!(String::from_utf8(served.stderr).unwrap(), format!("ioasd: {told}"));
}

#[test]
fn a_good_file_is_ok_and_comes_to_a_whole_configuration() {
    let (_folder, file) =
        config("[server]\nsocket = \"/run/x.sock\"\n[[tenant]]\nname = \"vms\"\nlimits = { areas = 5 }\n");
    let path = file.to_str().unwrap();
    let checked = ioasd(&["check-config", path]);
    assert!(checked.status.success() && checked.stdout == b"ok\n", "{checked:?}");
    let shown = String::from_utf8(ioasd(&["check-config", path, "--effective"]).stdout).unwrap();
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("socket = \"/run/x.sock\"").ends_with(&format!("  # {path}:2")), "{shown}");
    assert!(line("batch_runs = ").ends_with("  # default"), "{shown}");
    assert!(line("socket = \"auto\"").ends_with("  # default, here off"), "{shown}");
    let (_, tenant) = shown.split_once("[[tenant]]\n").unwrap();
    let tenant: Vec<_> = tenant.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(tenant, ["name = \"vms\"", "limits = { areas = 5 }"], "{shown}");
    let (_folder, again) = config(&shown);
    assert!(ioasd(&["check-config", again.to_str().unwrap()]).status.success(), "{shown}");
}

#[test]
fn a_file_that_is_not_there_is_a_problem() {
    let checked = ioasd(&["check-config", "/nonexistent/ioasd.toml"]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    assert!(String::from_utf8(checked.stderr).unwrap().contains("/nonexistent/ioasd.toml"));
}

/// A token that the agent would not start with, or not take when it is read again, is a problem of the configuration.
#[test]
fn a_token_that_cannot_be_used_is_a_problem_with_the_line_that_names_it() {
    let (folder, file) = config("");
    let token = folder.path().join("token");
    let told = |admin: &str| {
        std::fs::write(&file, format!("[admin]\n{admin}")).unwrap();
        let checked = ioasd(&["check-config", file.to_str().unwrap()]);
        let told = String::from_utf8(checked.stderr).unwrap();
        assert_eq!(checked.status.success(), told.is_empty(), "{told}");
        told
    };
    let named = format!("token_file = {token:?}\n");
    let at = |key: &str| format!("{}:2: admin.{key}: ", file.display());
    let put = |text: &str, mode: u32| {
        std::fs::write(&token, text).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let missing = told(&named);
    assert!(missing.starts_with(&at("token_file")) && missing.contains("No such file"), "{missing}");
    for (text, mode, why) in [
        ("", 0o400, "must be one line of 16 to 512"),
        ("too-short", 0o400, "must be one line of 16 to 512"),
        ("long-enough-to-be-one", 0o404, "has mode 0404"),
        ("long-enough-to-be-one", 0o440, "nobody else may read it"),
    ] {
        drop(std::fs::remove_file(&token));
        put(text, mode);
        let said = told(&named);
        assert!(said.starts_with(&at("token_file")) && said.contains(why), "{said}");
    }
    drop(std::fs::remove_file(&token));
    put("long-enough-to-be-one\n", 0o400);
    assert_eq!(told(&format!("{named}remote = \"0.0.0.0:9885\"\n")), "");
    let without = told("remote = \"0.0.0.0:9885\"\n");
    assert!(without.starts_with(&at("remote")) && without.contains("set admin.token_file"), "{without}");
}
