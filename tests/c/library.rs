//! The library, installed as its users install it, and a C compiler to build programs with it.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// What every program is built with.
const STRICT: [&str; 5] = ["-g", "-O1", "-Wall", "-Wextra", "-Werror"];

/// What finds errors of C, and of what the library does with its memory.
pub(crate) const SANITIZERS: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
pub(crate) fn file(name: &str) -> PathBuf {
    root().join(name)
}

/// Where programs are built.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("c")
}

/// Where it is installed; built from the sources as they are.
pub(crate) fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = folder().join("installed");
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let mut install = Command::new(file("deploy/library/install"));
        let done = install.args(["--profile", profile]).arg(&prefix).env("CARGO", env!("CARGO")).status();
        assert!(done.unwrap().success(), "the library cannot be installed");
        prefix
    })
}

/// The folder of the libraries.
pub(crate) fn libraries() -> PathBuf {
    prefix().join("lib")
}

/// Whether there is a compiler that takes `arguments` for a program that does nothing, which then runs: sanitizers need more
/// of a machine than a compiler.
pub(crate) fn compiles(compiler: &str, arguments: &[&str]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("nothing.c"), folder.path().join("nothing"));
    std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    let built = Command::new(compiler).args(arguments).arg("-o").arg(&program).arg(source).output();
    let succeeds = |output: std::io::Result<Output>| output.is_ok_and(|output| output.status.success());
    succeeds(built) && succeeds(Command::new(program).output())
}

/// Builds the C program `source` as `name`, linked with the library.
#[track_caller]
pub(crate) fn build<A: AsRef<OsStr>>(name: &str, source: &str, arguments: &[A]) -> PathBuf {
    let program = folder().join(name);
    let mut cc = Command::new("cc");
    cc.args(STRICT).arg("-I").arg(prefix().join("include")).arg("-o").arg(&program).arg(file(source));
    cc.arg("-L").arg(libraries()).args(arguments);
    succeeded(&cc.output().unwrap());
    program
}

/// Runs a program that was built here.
pub(crate) fn run(program: &Path, arguments: &[&OsStr]) -> Output {
    Command::new(program).args(arguments).env("LD_LIBRARY_PATH", libraries()).output().unwrap()
}

/// What it said, if it succeeded.
#[track_caller]
pub(crate) fn succeeded(output: &Output) -> String {
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}{errors}", output.status);
    said.into_owned()
}
