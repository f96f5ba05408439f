//! Finding the shim: `$IOASD_PRELOAD`, else beside this executable, else in `../lib/ioasd/`.
//!
//! Imports allowed: `std`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// File name of the shim.
const FILE: &str = "libioasd_preload.so";
/// What the dynamic linker loads before a program.
const PRELOAD: &str = "LD_PRELOAD";
/// Where else the shim may be.
const OVERRIDE: &str = "IOASD_PRELOAD";

/// Why there is no shim.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShimError {
    #[error("the shim is neither {}: build the whole workspace, or set {OVERRIDE}", tried(.0))]
    NotFound(Vec<PathBuf>),
    #[error("the shim {} has a space or a colon in its path, which {PRELOAD} takes for its end", .0.display())]
    Separator(PathBuf),
}

fn tried(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" nor ")
}

/// The shim.
#[derive(Debug)]
pub(super) struct Shim(PathBuf);

impl Shim {
    /// Finds it.
    pub(super) fn find() -> Result<Self, ShimError> {
        let given = std::env::var_os(OVERRIDE).filter(|path| !path.is_empty());
        let own = std::env::current_exe().ok();
        Self::among(candidates(given, own.as_deref().and_then(Path::parent)))
    }

    fn among(candidates: Vec<PathBuf>) -> Result<Self, ShimError> {
        let found = candidates.iter().find_map(|path| path.canonicalize().ok().filter(|path| path.is_file()));
        let path = found.ok_or(ShimError::NotFound(candidates))?;
        let separates = |byte: &u8| *byte == b':' || byte.is_ascii_whitespace();
        if path.as_os_str().as_bytes().iter().any(separates) {
            return Err(ShimError::Separator(path));
        }
        Ok(Self(path))
    }

    /// Has it loaded before `command`, and before whatever else is to be loaded.
    pub(super) fn put_before(&self, command: &mut Command) {
        command.env(PRELOAD, preload(self.0.as_os_str(), std::env::var_os(PRELOAD)));
    }
}

fn candidates(given: Option<OsString>, own_folder: Option<&Path>) -> Vec<PathBuf> {
    match (given, own_folder) {
        (Some(given), _) => vec![given.into()],
        (None, Some(folder)) => vec![folder.join(FILE), folder.join("../lib/ioasd").join(FILE)],
        (None, None) => Vec::new(),
    }
}

fn preload(shim: &OsStr, others: Option<OsString>) -> OsString {
    match others.filter(|others| !others.is_empty()) {
        None => shim.to_owned(),
        Some(others) => OsString::from_vec([shim.as_bytes(), others.as_bytes()].join(&b':')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_then_the_executables_folder() {
        let folder = Path::new("/opt/bin");
        assert_eq!(candidates(Some("/x.so".into()), Some(folder)), [PathBuf::from("/x.so")]);
        let beside = ["/opt/bin/libioasd_preload.so", "/opt/bin/../lib/ioasd/libioasd_preload.so"];
        assert_eq!(candidates(None, Some(folder)), beside.map(PathBuf::from));
    }

    #[test]
    fn a_shim_that_is_not_there_is_an_error_that_says_where_it_was_looked_for() {
        let error =
            Shim::among(vec!["/nowhere/a.so".into(), "/nowhere/b.so".into()]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/a.so nor /nowhere/b.so"), "{error}");
    }

    #[test]
    fn a_path_that_the_linker_would_cut_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.so");
        std::fs::write(&path, "").unwrap();
        assert!(matches!(Shim::among(vec![path]), Err(ShimError::Separator(_))));
    }

    #[test]
    fn other_libraries_are_still_loaded() {
        assert_eq!(preload("/s.so".as_ref(), None), "/s.so");
        assert_eq!(preload("/s.so".as_ref(), Some("".into())), "/s.so");
        assert_eq!(preload("/s.so".as_ref(), Some("/a.so b.so".into())), "/s.so:/a.so b.so");
    }
}
