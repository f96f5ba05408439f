//! Programs that have nothing to do with the device, and the device without an agent.

use std::path::Path;
use std::process::{Command, Output};

use crate::program::{shim, shimmed};

const NOBODY: &str = "/nowhere/ioasd.sock";

fn command(line: &[&str]) -> Command {
    let mut command = Command::new(line[0]);
    command.args(&line[1..]);
    command
}

/// Whether a program is on this machine; said loudly if not.
fn there(test: &str, program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        ioasd::skip!("{test}: there is no {program} here");
    }
    there
}

#[track_caller]
fn assert_same(line: &[&str]) {
    let said = |output: Output| (output.status.code(), output.stdout, output.stderr);
    let plain = said(command(line).output().unwrap());
    assert_eq!(said(shimmed(command(line), Path::new(NOBODY)).output().unwrap()), plain, "{line:?}");
    assert_eq!(plain.0, Some(0), "{line:?}");
}

#[test]
fn a_shell_behaves_the_same() {
    assert_same(&[
        "sh",
        "-c",
        "echo $((6 * 7)); ls / | sort | wc -l; cat /proc/sys/kernel/ostype; exec 9>/dev/null; echo x >&9",
    ]);
}

#[test]
fn a_threaded_interpreter_behaves_the_same() {
    if !there("a_threaded_interpreter_behaves_the_same", "python3") {
        return;
    }
    let script = "
import fcntl, os, struct, subprocess, termios, threading
found = []
def work(n):
    with open('/proc/self/stat') as f: f.read()
    found.append(subprocess.run(['echo', str(n)], capture_output=True).stdout)
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(found))
r, w = os.pipe(); os.write(w, b'abc')
print(struct.unpack('i', fcntl.ioctl(r, termios.FIONREAD, b'1234')))
";
    assert_same(&["python3", "-c", script]);
}

#[test]
fn a_build_that_forks_behaves_the_same() {
    if !there("a_build_that_forks_behaves_the_same", "cc") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.c"), "int main(void) { return 0; }").unwrap();
    let out = folder.path().to_str().unwrap();
    assert_same(&["sh", "-c", &format!("cd {out} && cc a.c -o a && ./a && echo built")]);
}

#[test]
fn without_an_agent_the_device_is_not_there_and_the_reason_is_said_once() {
    let script = "cat < /dev/iommu; cat /dev/iommu /dev/iommu; :";
    let output = shimmed(command(&["sh", "-c", script]), Path::new(NOBODY)).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let reasons: Vec<&str> = errors.lines().filter(|line| line.starts_with("ioasd: ")).collect();
    assert_eq!(reasons.len(), 2, "one a process:\n{errors}");
    assert!(reasons[0].contains(NOBODY) && reasons[0].contains("ioasd serve"), "{errors}");
    assert_eq!(
        errors.matches("No such file or directory").count() + errors.matches("cannot open").count(),
        3,
        "{errors}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn the_shim_needs_nothing_but_the_c_library() {
    if !there("the_shim_needs_nothing_but_the_c_library", "readelf") {
        return;
    }
    let output = Command::new("readelf").arg("--dynamic").arg(shim()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<&str> = text.lines().filter(|line| line.contains("(NEEDED)")).collect();
    let allowed = ["libc.so", "ld-linux"];
    assert!(needed.iter().all(|line| allowed.iter().any(|name| line.contains(name))), "{needed:?}");
}
